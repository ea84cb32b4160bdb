#!/usr/bin/env python3
"""bpi-relay and HTTP/3 programs that others wrote: aioquic has UDP proxied with an SVID and is refused without one, curl reads the relay's page.

    python3 tests/relays/strangers.py --programs DIR

`--programs`: bpi-relay, bpi-devnet-ca and the rest of a build. Needs aioquic and curl_cffi (requirements.txt). Ends with `N passed, M failed`.
"""
import argparse
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading

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


def cases(site):
    """(what, whether it holds, what was said)."""
    port, shown = echo(), ["--certificate", site.agent, "--key", site.agent]
    yield "curl reads the relay's status by HTTP/3, without an SVID", *page(site)
    yield "aioquic with an SVID has 200 datagrams of 1 000 bytes proxied and gets them back", *aioquic(site, "--port", port, *shown)
    yield "aioquic with an SVID has capsules proxied too", *aioquic(site, "--port", port, "--capsules", *shown)
    yield "aioquic without an SVID is told to show one", *aioquic(site, "--port", port, "--status", 407)
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
