#!/usr/bin/env python3
"""A backlog of receipts on disk while the mesh is away: what the agent does with it and how much memory that takes; how fast receipts become final when the
mesh is back; how long an agent that was ended by kill -9 takes to answer again. A million takes 16 GiB of disk and some ten minutes."""
import argparse
import json
import pathlib
import shutil
import sys
import tempfile
import time

import world


def look(mesh):
    """What the agent says of itself, and its memory in MiB, now and at most."""
    text = pathlib.Path(f"/proc/{mesh.agent.process.pid}/status").read_text()
    memory = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in text.splitlines() if line.startswith(("VmRSS", "VmHWM"))}
    status = mesh.status() or {}
    return {"receipts": status.get("receipts"), "included": status.get("included"), "batches": status.get("batches"),
            "oldest_s": status.get("oldestPendingS"), "rss_mib": memory["VmRSS"], "peak_mib": memory["VmHWM"]}


def watch(mesh, what, seconds, every_s):
    """Looks again and again; the last look."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        time.sleep(every_s)
        seen = look(mesh)
        print(f"   {what}, {time.monotonic() - began:.0f} s: {seen}", flush=True)
    return seen


def measure(mesh, receipts, seconds):
    began = time.monotonic()
    mesh.say("spool-fixture", mesh.folder / "spool", "backlog", receipts)
    figures = {"receipts": receipts, "written_s": round(time.monotonic() - began, 1)}
    for relay in mesh.net.relays:
        relay.process.kill()
        relay.process.wait()
    mesh.start_member(mesh.agent)
    figures["away"] = watch(mesh, "the mesh is away", seconds / 3, 5)
    for number in range(len(mesh.net.relays)):
        mesh.net.start_relay(number)
    began = time.monotonic()
    figures["back"] = watch(mesh, "the mesh is back", seconds, 10)
    figures["final_per_s"] = round(figures["back"]["included"] / (time.monotonic() - began))
    mesh.agent.process.kill()
    mesh.agent.process.wait()
    began = time.monotonic()
    mesh.start_member(mesh.agent)
    mesh.wait(mesh.status, "the agent answers again", 60)
    figures["answers_again_ms"] = round(1000 * (time.monotonic() - began))
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, type=pathlib.Path)
    parser.add_argument("--receipts", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=90, help="how long to watch after the mesh is back")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bpi-backlog-"))
    mesh = world.Mesh(arguments.programs, folder)
    try:
        mesh.start(containers=False)
        mesh.agent.process.terminate()
        mesh.agent.process.wait()
        lines = mesh.agent.config.read_text().splitlines()
        mesh.agent.config.write_text("\n".join(line for line in lines if not line.startswith("evidence_dir")))
        print(json.dumps(measure(mesh, arguments.receipts, arguments.seconds), indent=2))
    finally:
        mesh.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
