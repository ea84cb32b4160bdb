#!/usr/bin/env python3
"""The agent as DockLock's driver: asked for an image by digest, arguments, inputs and a profile, it runs the container and answers with evidence that
verifies offline. What it is asked wrongly it refuses with a sentence; a container that ends without a receipt is an incident."""
import argparse
import json
import pathlib
import subprocess
import sys

import world

# A level that is passed before anybody looks is not told.
STEPS = ["container", "unpacking", "started", "exited 0", "seen", "packed", "kept", "included", "final"]


def order(mesh, *words):
    """(exit status, what it says, how it went)"""
    command = [str(mesh.programs / "bpi-agent"), "--config", str(mesh.agent.config), "order", "--format", "json", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.returncode, json.loads(done.stdout) if done.stdout.startswith("{") else {}, done.stderr


def image(mesh):
    """The digest of the image that the mesh has."""
    listed = subprocess.run(mesh.ctr("images", "ls"), capture_output=True, text=True, check=True).stdout
    return next(word for line in listed.splitlines() if line.startswith(world.IMAGE) for word in line.split() if word.startswith("sha256:"))


def cases(mesh):
    digest = image(mesh)
    (mesh.folder / "input").mkdir()
    (mesh.folder / "input/name").write_text("somebody\n")
    status, said, went = order(mesh, digest, "--profile", "strict", "--input", f"{mesh.folder}/input:/in", "--env", "GREETING=hello",
                               "--", "sh", "-c", 'echo "$GREETING $(cat /in/name)"')
    good = status == 0 and said.get("level") == "final" and pathlib.Path(said["stdout"]).read_text() == "hello somebody\n"
    yield "an order runs, and its receipt becomes final", good, (status, said, went)
    steps = [step for line in went.splitlines() for step in STEPS if line.startswith(step)]
    yield "it tells how it goes", steps == sorted(steps, key=STEPS.index) and set(steps) >= {"started", "exited 0", "final"}, went.splitlines()
    ladder = mesh.verify(said.get("evidence", ""))
    yield "its evidence verifies offline", ladder[0] == 0, ladder
    run = json.loads((pathlib.Path(said["evidence"]) / "run.json").read_text())
    names = [entry["name"] for entry in run["inputs"]]
    yield "the receipt names the image by digest, and the input", run["image"]["digest"]["sha256"] and "/in" in " ".join(names), run["inputs"]
    status, said, went = order(mesh, digest, "--", "sh", "-c", "exit 7")
    yield "the container's status is the order's", status == 7 and said.get("level") == "final", (status, said, went)
    status, _, went = order(mesh, "sha256:" + "0" * 64, "--", "true")
    yield "an image that is not there is refused by name", status == 1 and "0" * 64 in went, went
    status, _, went = order(mesh, world.IMAGE, "--", "true")
    yield "a tag is refused", status == 1 and "digest" in went or "sha256" in went, went
    left = subprocess.run(mesh.ctr("containers", "ls", "-q"), capture_output=True, text=True).stdout.split()
    yield "nothing of it is left in containerd", not left, left

    status, said, error = mesh.container("waited", "sh", "-c", "echo waited")
    command = [str(mesh.programs / "docklock"), "--config", str(mesh.docklock), "receipts", "export", "--wait", "final", "waited", str(mesh.folder / "waited")]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    ladder = mesh.verify(mesh.folder / "waited")
    yield "docklock receipts export --wait final gives evidence that verifies", done.returncode == 0 and ladder[0] == 0, (done, ladder)
    yield "containers with their receipts are no incidents", mesh.status()["incidents"] == 0, mesh.status()

    # An agent that sees no records of a container that containerd says has ended.
    mesh.agent.process.terminate()
    mesh.agent.process.wait()
    config = mesh.agent.config.read_text()
    mesh.agent.config.write_text(config.replace('spool_dir = "../spool"', 'spool_dir = "../elsewhere"'))
    mesh.start_member(mesh.agent)
    mesh.wait(mesh.status, "the agent answers", 20)
    mesh.container("lost", "sh", "-c", "sleep 1")
    mesh.wait(lambda: (status := mesh.status()) and status["incidents"] > 0, "an incident", 30)
    command = [str(mesh.programs / "docklock"), "--config", str(mesh.docklock), "receipts", "incidents", "--format", "json"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout)
    yield "a container without a receipt is an incident, by name", any(it["kind"] == "no-receipt" and it["containerId"] == "lost" for it in told), told


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    return world.show("bpi-order-", arguments.programs, cases)


if __name__ == "__main__":
    sys.exit(main())
