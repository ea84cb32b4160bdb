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
import time

import restore
import world

EIO = "enable_random name=posix/io/sync/*,probability={probability},failinfo=5"
ENDINGS = 4
# The pinner's disk: more than the GiB that it leaves free, and what is left of it when it is full.
PINNER_BYTES = 1200 << 20
ROOM_BYTES = 256 << 10


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

    def told_of_full_disk(self, pinner, before):
        """The sentence of the pinner that has ended, or what its answer made the agent report; None while there is neither."""
        with pinner.log.open("rb") as log:
            log.seek(before)
            said = [line for line in log.read().decode(errors="replace").splitlines() if "No space left" in line]
        lines = self.mesh.agent.log.read_text(errors="replace").splitlines()
        said += [line for line in lines if "pinner-refuses" in line and ("disk is full" in line or "of the disk are free" in line)]
        return said[0] if said else None

    def all_is_final(self):
        self.mesh.wait(self.mesh.settled, "all is final", 120)
        return self.mesh.logged(self.count)


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

    faults.stop(pinner)
    data, aside = pinner.folder / "data", pinner.folder / "aside"
    data.rename(aside)
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={PINNER_BYTES},mode=700", "tmpfs", data], check=True)
    shutil.copytree(aside, data, dirs_exist_ok=True)
    before = pinner.log.stat().st_size
    mesh.start_member(pinner)
    feeding = faults.feed(3000, 400)
    time.sleep(2)
    # Somebody else takes what is left, while shards come.
    usage = shutil.disk_usage(data)
    subprocess.run(["mount", "-o", f"remount,size={usage.used + ROOM_BYTES}", data], check=True)
    feeding.wait()
    yield "with the disk of a pinner full, all becomes final by the others", *faults.all_is_final()
    told = mesh.wait(lambda: faults.told_of_full_disk(pinner, before), "the pinner or its agent tells of the full disk", 60)
    yield f"it is told: {told[-150:]}", pinner.process.poll() in (None, 1), (pinner.process.returncode, told)
    faults.stop(pinner)
    subprocess.run(["mount", "-o", f"remount,size={PINNER_BYTES}", data], check=True)
    mesh.start_member(pinner)
    faults.feed(100).wait()
    yield "and resumes when there is room", *faults.all_is_final()
    faults.stop(pinner)
    faults.feed(100).wait()
    yield "with a pinner away, all becomes final by the others", *faults.all_is_final()
    agent.process.kill()
    agent.process.wait()
    owed = len(list((agent.folder / "outbox").glob("*.sealed")))
    mesh.start_member(pinner)
    mesh.start_member(agent)
    mesh.wait(lambda: not list((agent.folder / "outbox").glob("*.sealed")), "an agent that was ended gives the pinner what it has missed", 90)
    yield f"an agent that was ended by kill -9 gives it the {owed} batches that it has missed", owed > 0, owed

    snapshot = mesh.folder / "class.snapshot"
    time.sleep(2)
    faults.stop(agent)
    faults.stop(mesh.pinners[1])
    status, said, took = restore.restore(mesh, mesh.folder / "restored")
    records = len(list((mesh.folder / "spool").glob("*/records/*.json")))
    yield f"all {records} records can be restored of what this pinner and one other have acknowledged ({took:.1f} s)", status == 0 and said["records"] == records, (said, snapshot.stat().st_mtime)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    if not shutil.which("fiu-run"):
        print("skipped: disk faults, because fiu-run is not installed (Debian: fiu-utils)")
        return 0
    return world.show("bpi-faults-", arguments.programs, cases, containers=False)


if __name__ == "__main__":
    sys.exit(main())
