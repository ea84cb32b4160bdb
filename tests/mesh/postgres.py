"""A PostgreSQL server for a mesh's db.class: in a folder of its own, on a socket, run by an unprivileged user, as it insists."""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

AS_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]


class Missing(Exception):
    """There is none on this machine."""


@contextlib.contextmanager
def database():
    """The URL of an empty database, as long as the block runs."""
    programs = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if programs is None:
        raise Missing("the Debian package postgresql is not installed")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bpi-postgres-"))
    unprivileged = AS_NOBODY if os.geteuid() == 0 else []
    if unprivileged:
        shutil.chown(folder, "nobody", "nogroup")
    options = ["--auth=trust", "--username=agent", "--encoding=UTF8", "--locale=C"]
    subprocess.run([*unprivileged, programs / "initdb", *options, "--pgdata", folder / "data"], check=True, capture_output=True, cwd="/")
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen([*unprivileged, programs / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-c", "shared_buffers=32MB"],
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        try:
            ready = [programs / "psql", "--no-psqlrc", "--quiet", "--username=agent", "--host", folder, "--dbname=postgres", "--command", "CREATE DATABASE class"]
            end = time.monotonic() + 60
            while subprocess.run(ready, capture_output=True).returncode != 0:
                if time.monotonic() > end or server.poll() is not None:
                    log.seek(0)
                    raise OSError(f"postgres did not start: {log.read().decode(errors='replace')[-500:]}")
                time.sleep(0.1)
            yield f"postgres://agent@{str(folder).replace('/', '%2F')}/class"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()
            shutil.rmtree(folder)
