#!/usr/bin/env python3
"""Everything of a tenant from nothing but a copy of db.class, a reader's key and any k shards: the spool byte for byte, and evidence that verifies
offline. With shards missing it is the same as long as k are left; with fewer it says which batches are lost; with another reader's key nothing opens."""
import argparse
import filecmp
import json
import pathlib
import subprocess
import sys
import time

import world
from world import cluster


def restore(mesh, to, reader=None):
    """(exit status, what was restored, s)"""
    reader = reader or mesh.folder / "reader.key"
    command = [str(mesh.programs / "bpi-agent"), "--config", str(mesh.agent.config), "restore", "--snapshot", str(mesh.folder / "class.snapshot"),
               "--reader", str(reader), "--to", str(to), "--format", "json"]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.returncode, json.loads(done.stdout) if done.stdout.startswith("{") else done.stderr, time.monotonic() - began


def evidence(mesh, restored):
    """Evidence of what was restored, and how many of it do not verify."""
    config = mesh.agent.folder / "restored.toml"
    lines = [f'spool_dir = "{restored}/spool"' if line.startswith("spool_dir") else
             f'class = "sqlite:{restored}/class.db"' if line.startswith("class =") else line for line in mesh.agent.config.read_text().splitlines()]
    config.write_text("\n".join(lines))
    mesh.say("bpi-agent", "--config", config, "evidence", "--to", restored / "evidence")
    made = sorted((restored / "evidence").glob("*/*"))
    return made, [path for path in made if mesh.verify(path)[0] != 0]


def cases(mesh, containers):
    for number in range(containers):
        status, _, error = mesh.container(f"c{number}", "sh", "-c", f"echo {number}")
        if status != 0:
            raise cluster.ClusterError(error)
    last = max(path.stat().st_mtime for path in mesh.wait_for_evidence(60))
    snapshot = mesh.folder / "class.snapshot"
    mesh.wait(lambda: snapshot.exists() and snapshot.stat().st_mtime > last, "the copy of db.class is newer than all evidence", 20)
    yield f"the copy of db.class follows within a second ({snapshot.stat().st_mtime - last:.2f} s)", snapshot.stat().st_mtime - last < 1.5, ""
    mesh.agent.process.terminate()
    mesh.agent.process.wait()
    spool = mesh.folder / "spool"
    records = sorted(spool.glob("*/records/*.json"))

    first = mesh.folder / "restored"
    status, said, took = restore(mesh, first)
    yield f"all batches are restored ({took:.1f} s)", status == 0 and said["records"] == len(records) and not said["lost"] and took < 60, said
    same = [path for path in records if not filecmp.cmp(path, first / "spool" / path.relative_to(spool), shallow=False)]
    yield f"{len(records)} records are what they were, byte for byte", not same, same[:3]
    made, wrong = evidence(mesh, first)
    yield f"{len(made)} pieces of evidence made of them verify offline", len(made) == containers and not wrong, wrong[:2]
    status, said, _ = restore(mesh, first)
    yield "nothing that is there is overwritten", status == 1 and "is there already" in said, said

    # One of three pinners is gone for good: 8 of 12 shards are left.
    gone = mesh.pinners[0]
    gone.process.kill()
    gone.process.wait()
    status, said, took = restore(mesh, mesh.folder / "restored-of-two")
    yield f"two of three pinners are enough ({took:.1f} s)", status == 0 and said["records"] == len(records), said
    # A second one has lost all its shards but keeps talking; a flipped bit is as good as a loss.
    bent = 0
    for path in (mesh.pinners[1].folder / "data").rglob("*"):
        if path.is_file() and "shards" in path.parts and path.stat().st_size >= 1024:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
            bent += 1
    status, said, took = restore(mesh, mesh.folder / "restored-of-one")
    yield f"with a bit flipped in each of {bent} shards, 4 of 12 are enough ({took:.1f} s)", bent > 0 and status == 0 and said["records"] == len(records), said

    stranger = mesh.folder / "stranger.key"
    mesh.say("bpi-agent", "keygen", "--reader", stranger)
    status, said, _ = restore(mesh, mesh.folder / "restored-by-a-stranger", stranger)
    yield "another reader's key opens nothing, and says so", status == 1 and said["records"] == 0 and "no keyslot" in said["lost"][0]["reason"], said


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, type=pathlib.Path)
    parser.add_argument("--containers", type=int, default=12)
    arguments = parser.parse_args()
    return world.show("bpi-restore-", arguments.programs, lambda mesh: cases(mesh, arguments.containers))


if __name__ == "__main__":
    sys.exit(main())
