#!/usr/bin/env python3
"""Disks that fail under the agent and a pinner: EIO at fsync(2), by libfiu in the real process, and a disk that is full.

What must hold: the process ends by itself with a clear sentence, or goes on; when the disk is well again it is started again and resumes; in the end
each receipt is final exactly once, and everything can be restored from what pinners have acknowledged."""
import argparse
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import restore
import world
from world import cluster

EIO = "enable_random name=posix/io/sync/*,probability={probability},failinfo=5"
ENDINGS = 4


class Faults:
    def __init__(self, mesh):
        self.mesh, self.boundaries, self.count = mesh, 0, 0

    def feed(self, count, per_s=None):
        """More receipts, in a boundary of their own."""
        self.boundaries += 1
        self.count += count
        command = [str(self.mesh.programs / "spool-fixture"), str(self.mesh.folder / "spool"), f"b{self.boundaries}", str(count)]
        return subprocess.Popen(command + ([str(per_s)] if per_s else []), stdout=subprocess.DEVNULL)

    def start_failing(self, member, probability):
        with member.log.open("ab") as log:
            command = ["fiu-run", "-x", "-c", EIO.format(probability=probability), str(self.mesh.programs / member.program), "--config", str(member.config), "run"]
            member.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def stop(self, member):
        if member.process.poll() is None:
            member.process.send_signal(signal.SIGTERM)
        try:
            member.process.wait(10)
        except subprocess.TimeoutExpired:
            member.process.kill()
            member.process.wait()

    def end_by_eio(self, member, probability):
        """(how often the process ended by itself, what it said of it) while fsync fails now and then."""
        endings, sentences = 0, []
        deadline = time.monotonic() + 60
        while endings < ENDINGS and time.monotonic() < deadline:
            before = member.log.stat().st_size
            self.start_failing(member, probability)
            feeding = self.feed(40, 20)
            while member.process.poll() is None and feeding.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            feeding.wait()
            if member.process.poll() is None:
                time.sleep(1)
            if member.process.poll() is not None:
                endings += 1
                with member.log.open("rb") as log:
                    log.seek(before)
                    sentences.append((member.process.returncode, log.read().decode(errors="replace").strip().splitlines()[-1]))
            self.stop(member)
        return endings, sentences

    def all_is_final(self):
        self.mesh.wait(self.mesh.settled, "all is final", 120)
        logs = {self.mesh.net.status(number)["log"][1] for number in range(len(self.mesh.net.nodes))}
        return logs == {self.count}, (logs, self.count)


def cases(mesh):
    faults = Faults(mesh)
    agent, pinner = mesh.agent, mesh.pinners[0]
    faults.stop(agent)
    endings, sentences = faults.end_by_eio(agent, 0.05)
    clear = all(status == 1 and ("process ends" in said or "BA03" in said) for status, said in sentences)
    yield f"the agent ends by itself when fsync fails ({endings} times), and says why", endings > 0 and clear, sentences
    mesh.start_member(agent)
    yield "and resumes: each receipt is final exactly once", *faults.all_is_final()

    faults.stop(agent)
    outbox = agent.folder / "outbox"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", outbox], check=True)
    faults.feed(2000).wait()
    mesh.start_member(agent)
    try:
        agent.process.wait(60)
        said = agent.log.read_text(errors="replace").strip().splitlines()[-1]
        yield "the agent ends by itself when its disk is full, and says why", agent.process.returncode == 1 and "BA0302" in said and "No space left" in said, said
    except subprocess.TimeoutExpired:
        yield "the agent ends by itself when its disk is full, and says why", False, "it went on"
    faults.stop(agent)
    subprocess.run(["mount", "-o", "remount,size=256m", outbox], check=True)
    mesh.start_member(agent)
    yield "and resumes when there is room", *faults.all_is_final()

    faults.stop(pinner)
    endings, sentences = faults.end_by_eio(pinner, 0.02)
    clear = all(status == 1 and "BP03" in said for status, said in sentences)
    yield f"a pinner ends by itself when fsync fails ({endings} times), and says why", endings > 0 and clear, sentences
    mesh.start_member(pinner)
    yield "and resumes: each receipt is final exactly once", *faults.all_is_final()

    snapshot = mesh.folder / "class.snapshot"
    time.sleep(2)
    faults.stop(agent)
    status, said, took = restore.restore(mesh, mesh.folder / "restored")
    records = len(list((mesh.folder / "spool").glob("*/records/*.json")))
    yield f"all {records} records can be restored of what was acknowledged ({took:.1f} s)", status == 0 and said["records"] == records, (said, snapshot.stat().st_mtime)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    if not shutil.which("fiu-run"):
        print("skipped: disk faults, because fiu-run is not installed (Debian: fiu-utils)")
        return 0
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bpi-faults-"))
    mesh = world.Mesh(arguments.programs, folder)
    passed = failed = 0
    try:
        mesh.start(containers=False)
        for name, holds, said in cases(mesh):
            passed, failed = passed + bool(holds), failed + (not holds)
            print(f"{'ok' if holds else 'FAIL'} {name}{'' if holds else f': {said}'}", flush=True)
    except cluster.ClusterError as error:
        failed += 1
        print(f"FAIL {error}")
    finally:
        mesh.stop()
    if failed:
        print(f"   kept: {folder}")
    else:
        shutil.rmtree(folder)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
