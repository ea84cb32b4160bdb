#!/usr/bin/env python3
"""aioquic as a MASQUE client: opens a tunnel through a proxy, and sends datagrams or QUIC through it to a target that sends them back."""
import argparse
import asyncio
import functools
import statistics
import sys
import time

from aioquic.asyncio import connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StreamDataReceived

from peers import Client, configuration


async def echoes(client, stream, count, size):
    """Sends `count` payloads of `size` bytes, one after another; each has to come back."""
    times_us = []
    for number in range(count):
        payload = number.to_bytes(4, "big") + bytes(size - 4)
        begun = time.perf_counter()
        client.send(stream, payload)
        back = await client.receive()
        if back != payload:
            raise ValueError(f"datagram {number} came back as another")
        times_us.append((time.perf_counter() - begun) * 1e6)
    return f"{count} echoes, median {statistics.median(times_us):.0f} us"


async def inner_quic(client, stream, ca, name, target, size):
    """QUIC inside the tunnel: a handshake, and a stream of `size` bytes that has to come back."""
    config = QuicConfiguration(is_client=True, alpn_protocols=["echo"], server_name=name)
    config.load_verify_locations(ca)
    inner = QuicConnection(configuration=config)
    inner.connect(target, now=time.time())
    sent, back, reading = bytes(range(256)) * (size // 256), bytearray(), None
    deadline = time.time() + 15
    while time.time() < deadline:
        for data, _address in inner.datagrams_to_send(now=time.time()):
            client.send(stream, data)
        timer = inner.get_timer()
        try:
            data = await client.receive(min(1, max(0.001, timer - time.time())) if timer else 1)
            inner.receive_datagram(data, target, now=time.time())
        except asyncio.TimeoutError:
            if timer and time.time() >= timer:
                inner.handle_timer(now=time.time())
        while event := inner.next_event():
            if isinstance(event, HandshakeCompleted):
                reading = inner.get_next_available_stream_id()
                inner.send_stream_data(reading, sent, end_stream=True)
            elif isinstance(event, StreamDataReceived):
                back += event.data
                if event.end_stream:
                    if bytes(back) != sent:
                        raise ValueError("the stream came back as another")
                    return f"QUIC inside, {len(back)} bytes back"
            elif isinstance(event, ConnectionTerminated):
                raise ConnectionError(f"the connection inside has ended: {event.reason_phrase or event.error_code}")
    raise TimeoutError("QUIC inside did not come to an end")


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxy", required=True, help="address and port of the proxy")
    parser.add_argument("--name", default="localhost", help="its name")
    parser.add_argument("--ca", required=True, help="whom to trust (PEM)")
    parser.add_argument("--certificate", help="what to show to the proxy (PEM)")
    parser.add_argument("--key", help="its key (PEM)")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", help="ask for this path instead of the template's")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--bytes", type=int, default=1000)
    parser.add_argument("--status", type=int, default=200, help="the status that the proxy has to answer with")
    parser.add_argument("--capsules", action="store_true", help="take no HTTP Datagrams, so that capsules carry the tunnel")
    parser.add_argument("--inner-ca", help="speak QUIC inside, to a server with such a certificate (PEM)")
    parser.add_argument("--inner-name", default="localhost")
    arguments = parser.parse_args()
    host, port = arguments.proxy.rsplit(":", 1)
    config = configuration(True, arguments.certificate, arguments.key, arguments.ca, arguments.name)
    protocol = functools.partial(Client, capsules=arguments.capsules)
    async with connect(host, int(port), configuration=config, create_protocol=protocol) as client:
        stream, answer = await client.open(f"{arguments.name}:{port}", arguments.host, arguments.port, arguments.path)
        if int(answer[":status"]) != arguments.status:
            raise ValueError(f"the proxy answers {answer}")
        if arguments.status != 200:
            return f"refused with {answer[':status']} {answer.get('proxy-status', '')}".strip()
        if arguments.inner_ca:
            target = (arguments.host, arguments.port)
            return await inner_quic(client, stream, arguments.inner_ca, arguments.inner_name, target, 1 << 18)
        return await echoes(client, stream, arguments.count, arguments.bytes)


if __name__ == "__main__":
    try:
        print(asyncio.run(main()))
    except (OSError, ValueError, asyncio.TimeoutError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
