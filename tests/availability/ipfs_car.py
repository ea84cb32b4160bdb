#!/usr/bin/env python3
"""Asks npm's ipfs-car what the root of our archive is, and lets other people's DAG-CBOR make the root block again of the records alone.

    ipfs_car.py FOLDER [CAR]

FOLDER is outside the clone: ipfs-car is installed there by npm, unless it is there already. CAR is an archive, and availability/tests/vectors/batch.car
when none is named; beside it stands the root that the crate says it has (NAME.root).
"""
import argparse
import pathlib
import subprocess
import sys

VECTOR = pathlib.Path(__file__).resolve().parents[2] / "availability/tests/vectors/batch.car"
PACKAGE = "ipfs-car@3"
PATIENCE_S = 300

# Blocks are read by @ipld/car, and the root block is put together again of what it says: keys in another order than the bytes have, links computed of
# the records' bytes. So neither spelling nor hashes are taken from the archive.
AGAIN = """
import fs from 'node:fs'
import { CarReader } from '@ipld/car'
import * as dagCbor from '@ipld/dag-cbor'
import * as raw from 'multiformats/codecs/raw'
import { CID } from 'multiformats/cid'
import { sha256 } from 'multiformats/hashes/sha2'

const reader = await CarReader.fromBytes(fs.readFileSync(process.argv[2]))
const [root] = await reader.getRoots()
const said = dagCbor.decode((await reader.get(root)).bytes)
const link = async (code, bytes) => CID.createV1(code, await sha256.digest(bytes))
const records = []
for await (const block of reader.blocks()) {
  if (!block.cid.equals(root)) records.push(await link(raw.code, block.bytes))
}
const again = dagCbor.encode({ version: said.version, records, tenant: said.tenant, kinds: said.kinds })
console.log((await link(dagCbor.code, again)).toString())
"""


def run(*command, folder=None):
    done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)
    if done.returncode:
        sys.exit(f"{command[0]} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.split()


def installed(folder):
    program = folder / "node_modules/.bin/ipfs-car"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE, folder=folder)
    return program


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="where ipfs-car is, or is installed")
    parser.add_argument("car", type=pathlib.Path, nargs="?", default=VECTOR, help="the archive")
    options = parser.parse_args()
    folder, car = options.folder.resolve(), options.car.resolve()
    program = installed(folder)
    ours = car.with_suffix(".root").read_text().strip()

    roots = run(program, "roots", car)
    # Each block's hash is checked on the way.
    blocks = run(program, "blocks", car)
    script = folder / "again.mjs"
    script.write_text(AGAIN)
    again = run("node", script, car)
    # A byte of a record is changed: the same program has to see that.
    bent = folder / "bent.car"
    changed = bytearray(car.read_bytes())
    changed[-100] ^= 1
    bent.write_bytes(changed)
    seen = subprocess.run([str(program), "blocks", str(bent)], capture_output=True, text=True, timeout=PATIENCE_S).returncode != 0

    wrong = [what for what, right in {
        f"ipfs-car says that the root is {roots}, and we say {ours}": roots == [ours],
        f"the first block is {blocks[:1]}, and not the root {ours}": blocks[:1] == [ours],
        f"the root block made again is {again}, and not {ours}": again == [ours],
        "ipfs-car takes a bent archive, so it checked nothing": seen,
    }.items() if not right]
    print("\n".join(wrong) if wrong else f"{ours}: ipfs-car and @ipld/dag-cbor agree over {len(blocks) - 1} records")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
