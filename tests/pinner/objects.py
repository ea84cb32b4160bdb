#!/usr/bin/env python3
"""Object stores for real: moto (S3) and azurite (Azure), and the tests of bpi-pinner that need a bucket.

    objects.py CACHE TEST_BINARY [--only s3|azure]

CACHE is a folder that moto_server (PyPI) and azurite (npm) are installed into once; TEST_BINARY the compiled test `pinner` of the crate bpi-pinner.
"""
import argparse
import base64
import contextlib
import email.utils
import hashlib
import hmac
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

MOTO = "moto[server,s3]>=5,<6"
AZURITE = "azurite@3"
# The account that azurite has, and its well-known key.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
START_S = 60


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def install(cache):
    """Both servers, once."""
    venv, node = cache / "venv", cache / "node"
    moto = venv / "bin" / "moto_server"
    if not moto.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", MOTO], check=True)
    azurite = node / "node_modules" / ".bin" / "azurite-blob"
    if not azurite.exists():
        node.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", node, AZURITE], check=True)
    return moto, azurite


@contextlib.contextmanager
def server(command, port, log):
    """A server, until the block ends."""
    with open(log, "wb") as out:
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        until = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{command[0]} does not listen: {pathlib.Path(log).read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def make_container(port, name):
    """A container, by a request that is signed as the storage service wants it."""
    date = email.utils.formatdate(usegmt=True)
    headers = {"x-ms-date": date, "x-ms-version": "2023-11-03", "Content-Length": "0"}
    canonical = f"x-ms-date:{date}\nx-ms-version:{headers['x-ms-version']}\n"
    resource = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    text = "PUT" + "\n" * 12 + canonical + resource
    signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{signature}"
    url = f"http://127.0.0.1:{port}/{ACCOUNT}/{name}?restype=container"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)).close()


def run(test, url, options):
    """The tests that need a bucket."""
    environment = {**os.environ, "BPI_PINNER_BUCKET": url, "BPI_PINNER_BUCKET_OPTIONS": json.dumps(options)}
    subprocess.run([test, "objects::", "--ignored", "--test-threads=1"], env=environment, check=True)


def s3(moto, cache, test):
    port = free_port()
    with server([moto, "-H", "127.0.0.1", "-p", port], port, cache / "moto.log"):
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/shards", method="PUT")).close()
        run(test, "s3://shards", {
            "aws_endpoint": f"http://127.0.0.1:{port}", "aws_allow_http": "true", "aws_region": "us-east-1",
            "aws_access_key_id": "test", "aws_secret_access_key": "test",
        })


def azure(azurite, cache, test):
    port = free_port()
    command = [azurite, "--skipApiVersionCheck", "--silent", "--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", port]
    with server(command, port, cache / "azurite.log"):
        make_container(port, "shards")
        run(test, "az://shards", {
            "azure_storage_account_name": ACCOUNT, "azure_storage_account_key": KEY, "azure_allow_http": "true",
            "azure_storage_endpoint": f"http://127.0.0.1:{port}/{ACCOUNT}",
        })


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=pathlib.Path)
    parser.add_argument("test", type=pathlib.Path)
    parser.add_argument("--only", choices=["s3", "azure"])
    arguments = parser.parse_args()
    cache, test = arguments.cache.resolve(), arguments.test.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    moto, azurite = install(cache)
    for name, each, program in [("s3", s3, moto), ("azure", azure, azurite)]:
        if arguments.only in (None, name):
            print(f"objects: {name}", flush=True)
            each(program, cache, test)


if __name__ == "__main__":
    main()
