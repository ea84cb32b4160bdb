#!/usr/bin/env python3
"""A run of the mesh done again from its evidence, its image out of containerd's content store: the same bits, or a sentence that names what is not the
same: a blob of the image, the policy, the input, the arguments."""
import argparse
import json
import os
import pathlib
import subprocess
import sys

import order
import world

PROFILE = 'description = "Of this site."\nextends = "strict"\n'


def rerun(mesh, evidence, *words):
    """(exit status, all that it says)"""
    command = [str(mesh.programs / "docklock"), "--config", str(mesh.docklock), "rerun", str(evidence), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, "CONTAINERD_ADDRESS": str(mesh.socket)})
    return done.returncode, done.stdout + done.stderr


class Bent:
    """A file with one bit flipped, for as long as it is needed."""

    def __init__(self, path):
        self.path, self.content = path, path.read_bytes()

    def __enter__(self):
        content = bytearray(self.content)
        content[len(content) // 2] ^= 1
        self.path.write_bytes(content)

    def __exit__(self, *_):
        self.path.write_bytes(self.content)


def blob(mesh, digest):
    return mesh.folder / "containerd/io.containerd.content.v1.content/blobs/sha256" / digest.removeprefix("sha256:")


def layer_of(mesh, manifest):
    return json.loads(blob(mesh, manifest).read_text())["layers"][0]["digest"]


def cases(mesh):
    (mesh.folder / "profiles/site.toml").write_text(PROFILE)
    given = mesh.folder / "given"
    given.mkdir()
    (given / "name").write_text("somebody\n")
    digest = order.image(mesh)
    words = ["--profile", "site", "--input", f"{given}:/given", "--", "sh", "-c", "cat /given/name; cat /proc/sys/kernel/random/uuid"]
    status, said, went = order.order(mesh, digest, *words)
    evidence = pathlib.Path(said.get("evidence", ""))
    yield "an order runs, and its receipt becomes final", status == 0 and said.get("level") == "final", (status, said, went)
    run = json.loads((evidence / "run.json").read_text())
    manifest = "sha256:" + run["image"]["digest"]["sha256"]
    mount = ("--mount", f"/given={given}")

    status, said = rerun(mesh, evidence, *mount)
    yield "an honest run agrees, its image taken from containerd's content store", status == 0 and "the same run-hash" in said, (status, said)
    status, said = rerun(mesh, evidence, *mount, "--trust", mesh.trust)
    yield "and stands on the ladder of its evidence", status == 0 and "re-executed" in said and "FAIL" not in said, (status, said)

    with Bent(blob(mesh, layer_of(mesh, manifest))):
        status, said = rerun(mesh, evidence, *mount)
    yield "of a bent layer it says which blob is another", status == 3 and layer_of(mesh, manifest)[7:] in said and "not what its name says" in said, (status, said)
    with Bent(blob(mesh, manifest)):
        status, said = rerun(mesh, evidence, *mount)
    yield "of a bent manifest too", status == 3 and manifest[7:] in said and "not what its name says" in said, (status, said)
    kept = blob(mesh, manifest).rename(mesh.folder / "manifest")
    status, said = rerun(mesh, evidence, *mount)
    kept.rename(blob(mesh, manifest))
    yield "of an image that is not there it says which one is wanted", status == 3 and manifest in said, (status, said)
    bent = [path for path in (mesh.folder / "containerd/io.containerd.snapshotter.v1.native/snapshots").glob("*/etc/passwd")]
    for path in bent:
        path.write_text("root:x:0:0:mallory:/:/bin/sh\n")
    status, said = rerun(mesh, evidence, *mount)
    yield f"files that somebody changed in {len(bent)} snapshots are not used", bent and status == 0, (status, said)

    (mesh.folder / "profiles/site.toml").write_text(PROFILE + "epoch = 1767225601\n")
    status, said = rerun(mesh, evidence, *mount)
    yield "of another policy it says the digests of both", status == 3 and "digest of the profile" in said and run["cage"]["digest"]["sha256"] in said, (status, said)
    (mesh.folder / "profiles/site.toml").write_text(PROFILE)

    (given / "name").write_text("mallory\n")
    status, said = rerun(mesh, evidence, *mount)
    yield "of another input it says which one differs", status == 5 and "inputs" in said and "stdout" in said, (status, said)
    (given / "name").write_text("somebody\n")
    other = mesh.folder / "other.json"
    other.write_text("{}")
    status, said = rerun(mesh, evidence, *mount, "--spec", other)
    yield "another configuration is refused by its digest", status == 3 and run["config"]["digest"]["sha256"] in said, (status, said)
    status, said = rerun(mesh, evidence, *mount)
    yield "with all as it was, it agrees again", status == 0, (status, said)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, type=pathlib.Path)
    return world.show("bpi-rerun-", parser.parse_args().programs, cases)


if __name__ == "__main__":
    sys.exit(main())
