#!/usr/bin/env python3
"""A batch whose shards do not belong together, spread by an agent that lies: a pinner that repairs finds it out, proves it, and validators refuse it."""
import argparse
import pathlib
import subprocess
import sys

import world

FIELDS = "[scrub]\nevery_s = 1\n[repair]\nevery_s = 1\n"


def bend(pinner):
    """Flips a bit of each shard that a pinner keeps, as a failing disk does; how many there are."""
    bent = 0
    for path in (pinner.folder / "data/shards").rglob("*"):
        if path.is_file():
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
            bent += 1
    return bent


def counted(mesh, what):
    """A counter of each validator."""
    found = []
    for number in range(len(mesh.net.nodes)):
        text = mesh.net.ask(number, "/metrics")[1]
        found.append(sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(what)))
    return found


def cases(mesh):
    mesh.agent.process.terminate()
    mesh.agent.process.wait()
    mesh.say("spool-fixture", mesh.folder / "spool", "b1", 3)
    command = [str(mesh.programs / "examples/miscoder"), str(mesh.agent.config), "b1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as liar:
        try:
            kept = liar.stdout.readline().split()
            yield "pinners keep a miscoded batch: each shard fits its root", kept[:1] == ["kept"], kept
            bent = bend(mesh.pinners[0])
            yield "a disk of a pinner fails", bent > 0, bent
            proof = mesh.pinners[0].folder / f"data/wrong/{kept[1]}.proof"
            mesh.wait(proof.exists, "the pinner that repairs proves the batch to be wrongly encoded", 60)
            yield f"the pinner that repairs proves it in {proof.stat().st_size} bytes", 0 < proof.stat().st_size <= 256 * 1024, proof.stat()
            told = mesh.wait(lambda: all(found := counted(mesh, "bpi_validator_wrong_encodings_total")) and found, "all validators know of it", 30)
            yield "all validators have checked the proof", all(count == 1 for count in told), told
            out, _ = liar.communicate("\n", timeout=90)
            answers = [line.split()[1] for line in out.splitlines()]
            yield "each of them refuses to commit to the batch", answers == ["Wrong"] * len(mesh.net.nodes), out
        finally:
            liar.kill()
    mesh.start_member(mesh.agent)
    evidence = mesh.wait_for_evidence(60)
    yield "an honest batch of the same records becomes final", True, ""
    wrong = [said for status, said in map(mesh.verify, evidence) if status != 0]
    yield f"{len(evidence)} pieces of evidence verify offline", len(evidence) == 3 and not wrong, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, type=pathlib.Path)
    return world.show("bpi-miscoded-", parser.parse_args().programs, cases, containers=False, pinner_fields=FIELDS)


if __name__ == "__main__":
    sys.exit(main())
