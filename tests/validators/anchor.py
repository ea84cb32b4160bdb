#!/usr/bin/env python3
"""From a receipt to evidence that anybody can check offline: validators put a real receipt into their log, one of them gives out its
finality.bin, and `docklock verify` judges the whole by a trust file that names the chain. Then everything that could be another is."""
import argparse
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import cluster

TENANT = "c0" * 16
PATIENCE_S = 60


def envelope_of(bundle):
    """The receipt's DSSE envelope as canonical JSON (RFC 8785; its strings are ASCII)."""
    return json.dumps(json.loads(bundle.read_text())["dsseEnvelope"], sort_keys=True, separators=(",", ":")).encode()


class Anchored:
    def __init__(self, net, docklock, evidence, trust):
        self.net, self.docklock, self.evidence, self.trust = net, docklock, evidence, json.loads(trust.read_text())
        self.leaf = hashlib.sha256(envelope_of(evidence / "receipt.sigstore.json")).hexdigest()

    def anchor(self):
        """Gives the receipt to one validator, and takes the proof from another."""
        taken = self.net.ask(0, "/v1/leaves", {"tenant": TENANT, "leaves": [self.leaf]})
        if not taken or taken[0] != 202:
            raise cluster.ClusterError(f"the leaf was not taken: {taken}")
        end = time.monotonic() + PATIENCE_S
        while not (proof := self.net.fetch(1, f"/v1/proofs/finality?tenant={TENANT}&leaf={self.leaf}")):
            if time.monotonic() > end:
                raise cluster.ClusterError("the leaf has no proof of finality")
            time.sleep(0.05)
        (self.evidence / "finality.bin").write_bytes(proof)
        header = json.loads(self.net.ask(1, "/v1/headers/latest")[1])
        status = self.net.status(1)
        return status["chain"], header["validators"]

    def verify(self, chains, level="included"):
        """(exit status, {row: (status, detail)})"""
        trust = self.evidence.parent / "trust-of-chain.json"
        trust.write_text(json.dumps({**self.trust, "chains": chains}))
        command = [self.docklock, "verify", str(self.evidence), "--trust", str(trust), "--level", level, "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        rows = json.loads(done.stdout)["rows"] if done.stdout.startswith("{") else []
        return done.returncode, {row["name"]: (row["status"], row["detail"]) for row in rows}


def cases(anchored):
    """(name, whether it holds, what was said) of each."""
    chain, validators = anchored.anchor()
    trusted = [{"id": chain, "validatorSets": [validators]}]
    exit_status, rows = anchored.verify(trusted)
    yield "a receipt in a final header is included and final", exit_status == 0 and [rows[row][0] for row in ("inclusion", "finality")] == ["PASS", "PASS"], rows
    yield "it says which height, and how many have sealed it", "final at height" in rows["finality"][1] and "of 4 validators" in rows["finality"][1], rows
    flipped = lambda text: ("0" if text[0] != "0" else "1") + text[1:]  # noqa: E731
    for name, chains in [
        ("another chain is trusted", [{"id": flipped(chain), "validatorSets": [validators]}]),
        ("another set is trusted", [{"id": chain, "validatorSets": [flipped(validators)]}]),
        ("no chain is trusted", []),
    ]:
        exit_status, rows = anchored.verify(chains)
        yield f"nothing is final when {name}", exit_status != 0 and rows["finality"][0] != "PASS", rows
    proof = anchored.evidence / "finality.bin"
    good = proof.read_bytes()
    # The header, its seal, the way to it: each has to hold.
    for name, at in [("header", 100), ("seal", 1 + 32 + 16 + 360 + 30), ("inclusion", len(good) - 5)]:
        proof.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1:])
        exit_status, rows = anchored.verify(trusted)
        yield f"a flipped bit of the {name} is noticed", exit_status != 0, rows
    proof.write_bytes(good)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, type=pathlib.Path, help="the folder of bpi-validator, bpi-relay and bpi-devnet-ca")
    parser.add_argument("--docklock", required=True, type=pathlib.Path, help="docklock")
    parser.add_argument("--fixture", required=True, type=pathlib.Path, help="receipts-fixture, which signs a receipt")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bpi-anchor-"))
    subprocess.run([arguments.fixture, folder / "receipts"], check=True)
    net = cluster.Cluster(arguments.programs, folder / "net", 4)
    net.start_all()
    failed, passed = 0, 0
    try:
        net.wait_for_height(2, PATIENCE_S)
        for name, holds, said in cases(Anchored(net, arguments.docklock, folder / "receipts/true", folder / "receipts/trust.json")):
            passed, failed = passed + bool(holds), failed + (not holds)
            print(f"{'ok' if holds else 'FAIL'} {name}{'' if holds else f': {said}'}", flush=True)
    except cluster.ClusterError as error:
        failed += 1
        print(f"FAIL {error}; the folders are in {folder}")
    finally:
        net.stop_all()
    if not failed:
        shutil.rmtree(folder)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
