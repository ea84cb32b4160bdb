#!/usr/bin/env python3
"""This project's proxy and client against aioquic's and curl's: one line for each check, and how many passed.

    cargo build -p bpi-masque --examples
    python3 tests/relays/masque/interop.py --binaries target/debug/examples

Needs aioquic and curl_cffi.
"""
import argparse
import asyncio
import contextlib
import datetime
import pathlib
import ssl
import subprocess
import sys
import tempfile

from aioquic.asyncio import serve
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HERE = pathlib.Path(__file__).parent
# How long one check may take.
CHECK_S = 30
# How long a program may take to listen.
START_S = 10


def self_signed(folder, name):
    """A certificate for `localhost` and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256()))
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return files


class Echo(asyncio.DatagramProtocol):
    """Sends datagrams back."""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


async def echo_stream(reader, writer):
    """Sends a stream back."""
    while data := await reader.read(65536):
        writer.write(data)
    writer.write_eof()


@contextlib.asynccontextmanager
async def running(*command, log):
    """A program that says `port N`; the number. Ended at the end."""
    with open(log, "wb") as errors:
        process = await asyncio.create_subprocess_exec(*map(str, command), stdout=subprocess.PIPE, stderr=errors)
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        if not line.startswith(b"port "):
            raise RuntimeError(f"{command[0]} does not listen: {pathlib.Path(log).read_text()[-500:]}")
        yield int(line.split()[1])
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def run(*command):
    """What a program says at its end; one that fails is an error."""
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, errors = await asyncio.wait_for(process.communicate(), CHECK_S)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        raise RuntimeError(f"no end after {CHECK_S} s") from None
    if process.returncode != 0:
        raise RuntimeError(errors.decode().strip()[-300:] or f"exit code {process.returncode}")
    return out.decode().strip()


def fetch(url, ca, version):
    """A page by curl."""
    import curl_cffi
    answer = curl_cffi.get(url, verify=str(ca), http_version=version, timeout=CHECK_S)
    return answer.status_code, answer.http_version, answer.text


async def curl(url, ca, version, status, text):
    """A page by curl, which has to be this one."""
    import curl_cffi
    wanted = getattr(curl_cffi.CurlHttpVersion, version)
    got = await asyncio.to_thread(fetch, url, ca, wanted)
    # curl tells with which version it was answered: 3 is 30 in its numbers.
    if got[0] != status or text not in got[2] or (version == "V3ONLY") != (got[1] == 30):
        raise RuntimeError(f"{got}")
    return f"{got[0]} {got[2].strip()!r}"


async def checks(binaries, folder):
    """Pairs of a sentence and what proves it."""
    loop = asyncio.get_running_loop()
    echo, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    echo_port = echo.get_extra_info("sockname")[1]
    inner_certificate, inner_key = self_signed(folder, "inner")
    inner_config = QuicConfiguration(is_client=False, alpn_protocols=["echo"])
    inner_config.load_cert_chain(inner_certificate, inner_key)
    handled = lambda reader, writer: asyncio.ensure_future(echo_stream(reader, writer))
    inner = await serve("127.0.0.1", 0, configuration=inner_config, stream_handler=handled)
    inner_port = inner._transport.get_extra_info("sockname")[1]

    ours = folder / "ours.pem"
    theirs, theirs_key = self_signed(folder, "theirs")
    client, proxy = [sys.executable, HERE / "client.py"], [sys.executable, HERE / "proxy.py"]
    async with (
        running(binaries / "masque-proxy", "--certificate", ours, log=folder / "ours.log") as our_port,
        running(*proxy, "--certificate", theirs, "--key", theirs_key, log=folder / "theirs.log") as their_port,
    ):
        to_ours = [*client, "--proxy", f"127.0.0.1:{our_port}", "--ca", ours]
        to_theirs = [binaries / "masque-client", "--proxy", f"127.0.0.1:{their_port}", "--certificate", theirs]
        both_ours = [binaries / "masque-client", "--proxy", f"127.0.0.1:{our_port}", "--certificate", ours]
        target = ["--host", "127.0.0.1", "--port", echo_port]
        yield "aioquic's client sends 200 datagrams of 1000 bytes through our proxy", run(*to_ours, *target)
        yield "aioquic's client does so in capsules when it takes no HTTP Datagrams", run(*to_ours, *target, "--capsules")
        yield "aioquic's client reaches a target by name", run(*to_ours, "--host", "localhost", "--port", echo_port, "--count", 5)
        yield "aioquic speaks QUIC to aioquic through our proxy", run(
            *to_ours, "--host", "127.0.0.1", "--port", inner_port, "--inner-ca", inner_certificate)
        yield "aioquic's client is refused a forbidden target", run(
            *to_ours, "--host", "forbidden.example", "--port", 443, "--status", 403)
        yield "aioquic's client learns that a name does not resolve", run(
            *to_ours, "--host", "nowhere.example", "--port", 443, "--status", 502)
        yield "aioquic's client is told that its port is none", run(*to_ours, "--host", "127.0.0.1", "--port", 0, "--status", 400)
        yield "aioquic's client is told that there is nothing at a path", run(
            *to_ours, *target, "--path", "/elsewhere", "--status", 404)
        yield "our client sends 200 datagrams of 1000 bytes through aioquic's proxy", run(*to_theirs, *target)
        yield "our client sends datagrams of 1200 bytes through aioquic's proxy", run(*to_theirs, *target, "--bytes", 1200)
        yield "our client takes aioquic's refusal", refused(*to_theirs, "--host", "127.0.0.1", "--port", 9)
        yield "our client sends 200 datagrams through our proxy over HTTP/1.1", run(*both_ours, *target, "--http1")
        url = f"https://localhost:{our_port}"
        yield "curl gets /status over HTTP/3", curl(f"{url}/status", ours, "V3ONLY", 200, "well")
        yield "curl gets /metrics over HTTP/3", curl(f"{url}/metrics", ours, "V3ONLY", 200, "tunnels_opened_total")
        yield "curl is told over HTTP/3 that a page is not there", curl(f"{url}/nothing", ours, "V3ONLY", 404, "")
        yield "curl gets /status over HTTP/1.1", curl(f"{url}/status", ours, "V1_1", 200, "well")
        yield "the upgrade of HTTP/1.1 carries capsules for a client of sockets", upgraded(our_port, ours, echo_port)
    inner.close()
    echo.close()


async def refused(*command):
    """Our client has to end with the proxy's status."""
    try:
        said = await run(*command)
    except RuntimeError as error:
        if "403" in str(error):
            return "403"
        raise
    raise RuntimeError(f"not refused: {said}")


async def upgraded(port, ca, echo_port):
    """Capsules by hand, over TLS of Python."""
    context = ssl.create_default_context(cafile=str(ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    writer.write((
        f"GET /.well-known/masque/udp/127.0.0.1/{echo_port}/ HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        "Upgrade: connect-udp\r\nCapsule-Protocol: ?1\r\n\r\n").encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), CHECK_S)
    if not head.startswith(b"HTTP/1.1 101 "):
        raise RuntimeError(f"{head}")
    for number in range(50):
        # DATAGRAM, a length in two bytes, the context, 1000 bytes.
        capsule = b"\0" + (0x4000 | 1001).to_bytes(2, "big") + b"\0" + bytes([number]) * 1000
        writer.write(capsule)
        if await asyncio.wait_for(reader.readexactly(len(capsule)), CHECK_S) != capsule:
            raise RuntimeError(f"capsule {number} came back as another")
    writer.close()
    return "50 capsules"


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=pathlib.Path, required=True, help="folder of masque-proxy and masque-client")
    arguments = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="bpi-masque-") as folder:
        async for sentence, proof in checks(arguments.binaries, pathlib.Path(folder)):
            try:
                said = await asyncio.wait_for(proof, CHECK_S + 5)
                passed += 1
                print(f"ok: {sentence}: {said}", flush=True)
            except Exception as error:  # whatever a check meets is its failure, and the others still run
                failed += 1
                print(f"failed: {sentence}: {type(error).__name__}: {error}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
