"""What the programs of this folder share: aioquic's HTTP/3 with CONNECT-UDP (RFC 9298), as client and as proxy."""
import asyncio
import ssl
import urllib.parse

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection, Setting
from aioquic.h3.events import DataReceived, DatagramReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamReset

PATH_PREFIX = "/.well-known/masque/udp/"
# A packet of 1200 bytes in a tunnel has to fit.
PACKET_BYTES = 1400
# The context of UDP payloads (RFC 9298, section 5).
UDP_PAYLOAD = b"\0"


def configuration(is_client, certificate=None, key=None, ca=None, name=None):
    """QUIC for HTTP/3 with datagrams. `certificate` and `key` are shown to the peer; of a client, `ca` is whom it trusts."""
    config = QuicConfiguration(is_client=is_client, alpn_protocols=H3_ALPN, max_datagram_frame_size=65536, server_name=name)
    config.max_datagram_size = PACKET_BYTES
    if certificate:
        config.load_cert_chain(certificate, key)
    if ca:
        config.load_verify_locations(ca)
        config.verify_mode = ssl.CERT_REQUIRED
    return config


class Http(H3Connection):
    """HTTP/3 that takes HTTP Datagrams (RFC 9297, section 2.1.1), which aioquic does not say by itself."""

    def _get_local_settings(self):
        return super()._get_local_settings() | {Setting.H3_DATAGRAM: 1}


def capsule(payload):
    """A payload as a DATAGRAM capsule (RFC 9297, section 3.5), its length in two bytes."""
    return b"\0" + (0x4000 | len(payload) + 1).to_bytes(2, "big") + UDP_PAYLOAD + payload


class Client(QuicConnectionProtocol):
    """A connection to a proxy, with one tunnel. `capsules`: say that HTTP Datagrams are not taken, so that capsules carry the tunnel."""

    def __init__(self, *arguments, capsules=False, **options):
        super().__init__(*arguments, **options)
        self.http = None
        self.capsules = capsules
        self.content = b""
        self.answers = {}
        self.datagrams = asyncio.Queue()

    def quic_event_received(self, event):
        if self.http is None:
            self.http = (H3Connection if self.capsules else Http)(self._quic)
        if isinstance(event, (ConnectionTerminated, StreamReset)):
            for answer in self.answers.values():
                if not answer.done():
                    answer.set_exception(ConnectionError(f"{event}"))
        for each in self.http.handle_event(event):
            if isinstance(each, HeadersReceived) and not self.answers[each.stream_id].done():
                self.answers[each.stream_id].set_result({name.decode(): value.decode() for name, value in each.headers})
            elif isinstance(each, DatagramReceived) and each.data.startswith(UDP_PAYLOAD):
                self.datagrams.put_nowait(each.data[1:])
            elif isinstance(each, DataReceived) and self.capsules:
                self.content += each.data
                # Type, a length in two bytes, context: what the proxy writes for payloads from 63 to 16382 bytes.
                while len(self.content) >= 3 and len(self.content) >= (end := 3 + (int.from_bytes(self.content[1:3], "big") & 0x3fff)):
                    self.datagrams.put_nowait(self.content[4:end])
                    self.content = self.content[end:]

    async def ask(self, fields, end=False):
        """The number of a stream and the fields of the answer."""
        stream = self._quic.get_next_available_stream_id()
        self.answers[stream] = asyncio.get_running_loop().create_future()
        self.http.send_headers(stream, [(name.encode(), value.encode()) for name, value in fields], end)
        self.transmit()
        return stream, await asyncio.wait_for(self.answers[stream], 10)

    async def open(self, authority, host, port, path=None):
        """A tunnel: its stream and the fields of the answer."""
        path = path or f"{PATH_PREFIX}{urllib.parse.quote(host, safe='')}/{port}/"
        return await self.ask([
            (":method", "CONNECT"), (":protocol", "connect-udp"), (":scheme", "https"), (":authority", authority), (":path", path),
            ("capsule-protocol", "?1"),
        ])

    def send(self, stream, payload):
        """One payload to the target."""
        if self.capsules:
            self.http.send_data(stream, capsule(payload), False)
        else:
            self.http.send_datagram(stream, UDP_PAYLOAD + payload)
        self.transmit()

    async def receive(self, limit_s=5):
        """One payload from the target."""
        return await asyncio.wait_for(self.datagrams.get(), limit_s)


class Socket(asyncio.DatagramProtocol):
    """The proxy's socket to a target."""

    def __init__(self, proxy, stream):
        self.proxy, self.stream = proxy, stream

    def datagram_received(self, data, _address):
        self.proxy.http.send_datagram(self.stream, UDP_PAYLOAD + data)
        self.proxy.transmit()


class Proxy(QuicConnectionProtocol):
    """A proxy that lets everybody go everywhere, but to the port 9."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.http = None
        self.sockets = {}

    def quic_event_received(self, event):
        if self.http is None:
            self.http = Http(self._quic)
        for each in self.http.handle_event(event):
            if isinstance(each, HeadersReceived):
                asyncio.ensure_future(self.answer(each.stream_id, {name.decode(): value.decode() for name, value in each.headers}))
            elif isinstance(each, DatagramReceived):
                socket = self.sockets.get(each.stream_id)
                if socket and each.data.startswith(UDP_PAYLOAD):
                    socket.sendto(each.data[1:])
        if isinstance(event, ConnectionTerminated):
            for socket in self.sockets.values():
                socket.close()

    async def answer(self, stream, fields):
        path = fields.get(":path", "")
        parts = path.removeprefix(PATH_PREFIX).strip("/").split("/")
        if fields.get(":protocol") != "connect-udp" or not path.startswith(PATH_PREFIX) or len(parts) != 2:
            self.http.send_headers(stream, [(b":status", b"404")], True)
        elif parts[1] == "9":
            self.http.send_headers(stream, [(b":status", b"403"), (b"proxy-status", b"test; error=http_request_denied")], True)
        else:
            loop = asyncio.get_running_loop()
            target = (urllib.parse.unquote(parts[0]), int(parts[1]))
            self.sockets[stream], _ = await loop.create_datagram_endpoint(lambda: Socket(self, stream), remote_addr=target)
            self.http.send_headers(stream, [(b":status", b"200"), (b"capsule-protocol", b"?1")])
        self.transmit()
