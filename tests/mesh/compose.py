#!/usr/bin/env python3
"""deploy/compose/compose.yaml by a dockerd of this test's own: the mesh comes up, what is in the host's spool becomes evidence that verifies offline, and
`down` leaves nothing. The image is made of programs that are built already on a Debian by debootstrap, since no registry is asked."""
import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import world
from world import cluster

PROGRAMS = ("bpi-devnet-ca", "bpi-relay", "bpi-validator", "bpi-pinner", "bpi-agent")
COMPOSE = world.HERE.parent.parent / "deploy/compose"
RECEIPTS = 5


class Docker:
    def __init__(self, folder):
        self.folder, self.process = folder, None
        self.environment = {**os.environ, "DOCKER_HOST": f"unix://{folder}/sock"}

    def say(self, *words, stdin=None, **more):
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, stdin=stdin or subprocess.DEVNULL,
                              env={**self.environment, **{name: str(value) for name, value in more.items()}})
        if done.returncode != 0:
            raise cluster.ClusterError(f"{' '.join(map(str, words))}: {done.stderr.strip()[-800:]}")
        return done.stdout

    def start(self):
        """False when this machine cannot run one; its log says why."""
        log = (self.folder / "log").open("ab")
        # In a network namespace of its own: no rule and no bridge of the host is touched, and none of its rules is in the way.
        dockerd = 'ip link set lo up && exec dockerd --data-root "$0/data" --exec-root "$0/exec" --pidfile "$0/pid" --host "unix://$0/sock" --bridge none'
        command = ["unshare", "--net", "sh", "-c", dockerd, str(self.folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + 30
        while subprocess.run(["docker", "version"], env=self.environment, capture_output=True).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)


class Missing(Exception):
    """Something that this machine cannot have."""


def base(cache):
    """A Debian as a tar, made once, from where this machine's own packages come."""
    tar = cache / "debian.tar"
    if not tar.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            root = pathlib.Path(work) / "root"
            listed = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"], capture_output=True, text=True).stdout
            mirrors = [line for line in listed.splitlines() if "security" not in line and "updates" not in line]
            done = subprocess.run(["debootstrap", "--variant=minbase", "bookworm", root, *mirrors[:1]], capture_output=True, text=True)
            if done.returncode != 0:
                raise Missing(f"debootstrap says: {done.stdout.strip()[-200:]}")
            subprocess.run(["tar", "-C", root, "-cf", f"{tar}.new", "."], check=True)
            os.replace(f"{tar}.new", tar)
    return tar


def cases(docker, programs, folder, cache):
    image = folder / "image"
    image.mkdir()
    for program in PROGRAMS:
        shutil.copy(programs / program, image)
    shutil.copy(COMPOSE / "make-mesh", image)
    (image / "Dockerfile").write_text("FROM base\nCOPY * /usr/local/bin/\n")
    docker.say("docker", "import", base(cache), "base")
    docker.say("docker", "build", "--network", "none", "--tag", "bpi-mesh", image)
    subprocess.run([programs / "spool-fixture", folder / "spool", "demo", str(RECEIPTS)], check=True)
    (folder / "bpi").mkdir()
    (folder / "no-containerd").touch()
    compose = ["docker-compose", "--project-name", "bpi-test", "--file", COMPOSE / "compose.yaml"]
    places = {"BPI_HOST_ID": world.STORY, "BPI_HOST_KEY": folder / "host.key.pub.pem", "BPI_SPOOL": folder / "spool", "BPI_EVIDENCE": folder / "bpi",
              "BPI_CONTAINERD": folder / "no-containerd"}
    try:
        docker.say(*compose, "up", "--detach", "--no-build", **places)
        end = time.monotonic() + 120
        while len(evidence := sorted((folder / "bpi/evidence").glob("*/c*[0-9]"))) < RECEIPTS and time.monotonic() < end:
            time.sleep(0.2)
        logs = "" if len(evidence) == RECEIPTS else docker.say(*compose, "logs", "--tail", "20", **places)
        yield f"what is in the host's spool becomes {RECEIPTS} pieces of evidence", len(evidence) == RECEIPTS, logs
        trust = folder / "trust.json"
        trust.write_text(docker.say("docker", "exec", "bpi-test_a0_1", "cat", "/mesh/trust.json"))
        verify = ["unshare", "-n", programs / "docklock", "verify", "--level", "final", "--trust", trust]
        wrong = [done.stdout for path in evidence if (done := subprocess.run([*verify, path], capture_output=True, text=True)).returncode != 0]
        yield "each verifies offline up to final", not wrong, wrong[:1]
        docker.say(*compose, "restart", **places)
        subprocess.run([programs / "spool-fixture", folder / "spool", "again", "1"], check=True)
        end = time.monotonic() + 120
        while not (more := list((folder / "bpi/evidence/again").glob("c*[0-9]"))) and time.monotonic() < end:
            time.sleep(0.2)
        yield "and so it is after a restart of all", len(more) == 1, more
    finally:
        docker.say(*compose, "down", "--volumes", **places)
    left = docker.say("docker", "ps", "--all", "--quiet") + docker.say("docker", "volume", "ls", "--quiet")
    yield "down leaves nothing", not left.strip(), left


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, type=pathlib.Path)
    parser.add_argument("--cache", required=True, type=pathlib.Path, help="a folder that may stay")
    arguments = parser.parse_args()
    missing = [program for program in ("dockerd", "docker-compose", "debootstrap") if not shutil.which(program)]
    if missing:
        print(f"skipped: compose, because {' and '.join(missing)} cannot be found")
        return 0
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bpi-compose-"))
    docker = Docker(folder)
    passed = failed = 0
    try:
        if not docker.start():
            print(f"skipped: compose, because dockerd does not run here: {(folder / 'log').read_text().strip().splitlines()[-1:]}")
            return 0
        for name, holds, said in cases(docker, arguments.programs.resolve(), folder, arguments.cache):
            passed, failed = passed + bool(holds), failed + (not holds)
            print(f"{'ok' if holds else 'FAIL'} {name}{'' if holds else f': {said}'}", flush=True)
    except Missing as missing:
        print(f"skipped: compose, because {missing}")
    except (cluster.ClusterError, OSError, subprocess.SubprocessError) as error:
        failed += 1
        print(f"FAIL {error}")
    finally:
        docker.stop()
        subprocess.run(["umount", "--lazy", *(line.split()[1] for line in pathlib.Path("/proc/mounts").read_text().splitlines() if line.split()[1].startswith(str(folder)))],
                       capture_output=True)
        shutil.rmtree(folder, ignore_errors=failed > 0)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
