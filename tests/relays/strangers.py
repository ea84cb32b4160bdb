#!/usr/bin/env python3
"""bpi-relay and HTTP/3 programs that others wrote: aioquic has UDP proxied with an SVID and is refused without one, curl reads the relay's page.

    python3 tests/relays/strangers.py --programs DIR

`--programs`: bpi-relay, bpi-devnet-ca and the rest of a build. Needs aioquic and curl_cffi (requirements.txt). Ends with `N passed, M failed`.
"""
import argparse
import itertools
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "validators"))
import cluster  # noqa: E402

PATIENCE_S = 60


class Site(cluster.Cluster):
    """One relay that proxies to loopback, and no validator."""

    def __init__(self, programs, folder):
        super().__init__(programs, folder, 0, relays=0)
        port, status = cluster.free_ports(2)
        relay = self.make_relay(0, port, status)
        self.authority.issue("relay/r0", relay.folder / "svid.pem", more=["--dns", "localhost"])
        relay.config.write_text(relay.config.read_text() + '[[masque.allowed]]\nnet = "127.0.0.0/8"\nports = "1024-65535"\n')
        self.relays = [relay]
        self.bundle = pathlib.Path(folder) / "ca/bundle.pem"
        self.agent = pathlib.Path(folder) / "agent.pem"
        self.issue("agent/stranger", self.agent)


def echo():
    """A socket that sends everything back; its port."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def answer():
        while True:
            data, peer = server.recvfrom(65535)
            server.sendto(data, peer)
    threading.Thread(target=answer, daemon=True).start()
    return server.getsockname()[1]


def page(site):
    import curl_cffi
    url = f"https://localhost:{site.relays[0].port}/status"
    answer = curl_cffi.get(url, verify=str(site.bundle), http_version=curl_cffi.CurlHttpVersion.V3ONLY, timeout=PATIENCE_S)
    said = json.loads(answer.text)
    # curl numbers HTTP/3 as 30.
    return answer.status_code == 200 and answer.http_version == 30 and said["id"].endswith("/relay/r0"), answer.text.strip()


def aioquic(site, *words):
    command = [sys.executable, HERE / "masque/client.py", "--proxy", f"127.0.0.1:{site.relays[0].port}", "--ca", site.bundle,
               "--host", "127.0.0.1", *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=PATIENCE_S)
    return done.returncode == 0, (done.stdout + done.stderr).strip().splitlines()[-1]


def initials(count):
    """First datagrams of so many QUIC clients, each of another one."""
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.connection import QuicConnection
    for _ in range(count):
        client = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=["bpci/1"], server_name="relay.invalid"))
        client.connect(("127.0.0.1", 1), now=0.0)
        yield client.datagrams_to_send(now=0.0)[0][0]


def figures(site):
    with urllib.request.urlopen(f"http://127.0.0.1:{site.relays[0].status}/metrics", timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    return {name: float(value) for name, value in re.findall(r"^([a-z]\S*) (\S+)$", text, re.M)}


def flood(site, seconds=6):
    """Initials from addresses that answer nothing, while honest clients read the status page: all of them must get it."""
    first = list(initials(3000))
    sockets = []
    for number in range(200):
        # Another address of loopback for each, as spoofed ones are: nobody reads what the relay sends there.
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.bind((f"127.{1 + number % 100}.{number}.7", 0))
        sockets.append(sender)
    stop, sent = threading.Event(), [0]

    def send():
        for at, datagram in enumerate(itertools.cycle(first)):
            if stop.is_set():
                return
            sockets[at % len(sockets)].sendto(datagram, ("127.0.0.1", site.relays[0].port))
            sent[0] += 1
            # Some thousand a second, of which a relay on one processor must stand a part.
            if at % 20 == 0:
                time.sleep(0.005)
    before, times = figures(site), []
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    until = time.monotonic() + seconds
    holds = True
    while time.monotonic() < until:
        began = time.monotonic()
        good, said = page(site)
        holds = holds and good
        times.append(time.monotonic() - began)
        time.sleep(0.05)
    stop.set()
    thread.join()
    for sender in sockets:
        sender.close()
    after = figures(site)
    retries = after["bpi_relay_retries_total"] - before["bpi_relay_retries_total"]
    times.sort()
    said = f"{sent[0]} Initials in {seconds} s, {retries:.0f} answered by Retry; {len(times)} pages, p50 {1000 * times[len(times) // 2]:.0f} ms, longest {1000 * times[-1]:.0f} ms"
    return holds and retries > 0, said


def cases(site):
    """(what, whether it holds, what was said)."""
    port, shown = echo(), ["--certificate", site.agent, "--key", site.agent]
    yield "curl reads the relay's status by HTTP/3, without an SVID", *page(site)
    yield "aioquic with an SVID has 200 datagrams of 1 000 bytes proxied and gets them back", *aioquic(site, "--port", port, *shown)
    yield "aioquic with an SVID has capsules proxied too", *aioquic(site, "--port", port, "--capsules", *shown)
    yield "aioquic without an SVID is told to show one", *aioquic(site, "--port", port, "--status", 407)
    yield "spoofed Initials keep no honest client out", *flood(site)
    yield "a port that is not proxied to is refused", *aioquic(site, "--port", 53, "--status", 403, *shown)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bpi-strangers-"))
    site = Site(arguments.programs, folder / "site")
    site.start_relays()
    passed, failed = 0, 0
    try:
        site.wait_for_relays(PATIENCE_S)
        for name, holds, said in cases(site):
            passed, failed = passed + bool(holds), failed + (not holds)
            print(f"{'ok' if holds else 'failed'}: {name}: {said}", flush=True)
    except (cluster.ClusterError, OSError, subprocess.TimeoutExpired) as error:
        failed += 1
        print(f"failed: {error}; the folders are in {folder}")
    finally:
        site.stop_all()
    if not failed:
        shutil.rmtree(folder)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
