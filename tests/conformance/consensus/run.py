#!/usr/bin/env python3
"""Shows that seals, votes, proofs of possession, checkpoints and proofs of the log made by our code are judged the same by programs we did not write.

    run.py [--allow-missing] [--verbose]

The signatures are those of protocol/tests/vectors/consensus.json. What each of them covers is put together here a second time, from
the layouts that the module headers of protocol/src/consensus document, and not taken from the vectors. Each true signature must be
accepted, and made again byte for byte from its secret keys; each bent one must be refused. Checkpoints and proofs are those of
protocol/tests/vectors/checkpoint.json; proofbundle (PyPI) judges them, and bent ones beside them. A judge that cannot be had is a failure, or
with --allow-missing a skip. Ends with `N passed, N failed, N skipped`.
"""
import argparse
import collections
import hashlib
import json
import os
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "receipts"))

import tools  # noqa: E402 - the rooms share how a judge is had

VECTORS = HERE.parents[2] / "protocol/tests/vectors/consensus.json"
LOG_VECTORS = HERE.parents[2] / "protocol/tests/vectors/checkpoint.json"
KINDS = {"proposal": 1, "prepare": 2, "commit": 3, "round change": 4}


def digest(domain, raw):
    """ids.rs: SHA-256 of the domain, a zero byte and the bytes."""
    return hashlib.sha256(domain.encode() + b"\0" + raw).digest()


class Vectors:
    """The pinned vectors, and the same bytes put together from the documented layouts."""

    def __init__(self):
        self.pinned = json.loads(VECTORS.read_text(encoding="utf-8"))
        self.members = self.pinned["validators"]
        self.genesis = bytes.fromhex(self.pinned["genesis"]["bytes"])
        self.header = bytes.fromhex(self.pinned["header"]["bytes"])
        self.chain = digest("bpi.chain.v1", self.genesis)
        self.subject = digest("bpi.header.v1", self.header)

    def statement(self, kind, round_, subject=None):
        """statement.rs: domain, kind 1, chain 32, height 8, round 4, subject; of a seed: domain, chain 32, epoch 8 (7 here), height 8."""
        height = self.header[1:9]
        if kind == "seed":
            return b"bpi.seed.v1" + self.chain + (7).to_bytes(8, "big") + height
        return b"bpi.ibft.v1" + bytes([KINDS[kind]]) + self.chain + height + round_.to_bytes(4, "big") + (subject or self.subject)

    def facts(self):
        """(what, whether it is so) for each layout."""
        pinned, members = self.pinned, self.members
        row = [bytes.fromhex(member["key"] + member["possession"]) + b"\0\1" for member in members]
        whole = bytes(8) + len(members).to_bytes(2, "big") + b"".join(row)
        yield "the chain is the digest of its genesis", self.chain.hex() == pinned["chain"]
        yield "the header's digest", self.subject.hex() == pinned["header"]["digest"]
        yield "the header names its parent", self.header[13:45] == digest("bpi.header.v1", self.genesis)
        yield "the set's bytes are those of its members", whole.hex() == pinned["set"]["bytes"]
        yield "the set's digest", digest("bpi.validators.v1", whole).hex() == pinned["set"]["digest"]
        yield "the header names its validators", self.header[-66:-34].hex() == pinned["set"]["digest"]
        claim = b"\1" + bytes(4) + self.subject
        subjects = {"round change": b"\0", "round change with a claim": claim}
        for signed in pinned["statements"]:
            name = signed["name"]
            made = self.statement(name.removesuffix(" with a claim"), 1, subjects.get(name))
            yield f"the statement of a {name}", made.hex() == signed["statement"]
        votes, threshold = (bytes.fromhex(seal["bytes"]) for seal in pinned["seals"])
        _, by_votes, by_threshold = pinned["sums"]
        bits = sum(1 << index for index in by_votes["signers"]).to_bytes(16, "big")
        yield "a seal by votes", votes == b"\1\0\0\0\1" + bits + bytes.fromhex(by_votes["signature"])
        yield "a seal by threshold", threshold == b"\2\0\0\0\1" + bytes.fromhex(by_threshold["signature"])

    def true(self):
        """Every signature of the vectors as a case for the judges."""
        pinned, dst = self.pinned, self.pinned["dst"]
        for index, member in enumerate([*self.members, pinned["group"]]):
            yield {"name": f"possession of key {index}", "secrets": [member["secret"]], "keys": [member["key"]],
                   "message": member["key"], "dst": pinned["possession_dst"], "signature": member["possession"]}
        for signed in pinned["statements"]:
            member = self.members[signed["signers"][0]]
            yield {"name": signed["name"], "secrets": [member["secret"]], "keys": [member["key"]],
                   "message": signed["statement"], "dst": dst, "signature": signed["signature"]}
        messages = [self.statement("prepare", 0), self.statement("commit", 1), self.statement("commit", 1)]
        for signed, message in zip(pinned["sums"], messages, strict=True):
            signers = [self.members[index] for index in signed["signers"]] or [pinned["group"]]
            yield {"name": signed["name"], "secrets": [member["secret"] for member in signers],
                   "keys": [member["key"] for member in signers], "message": message.hex(), "dst": dst, "signature": signed["signature"]}

    def false(self):
        """What is no signature."""
        true = {case["name"]: {key: value for key, value in case.items() if key != "secrets"} for case in self.true()}
        vote, seal, proof = true["commit"], true["seal by votes"], true["possession of key 0"]

        def bent(case, what, **changes):
            return dict(case, name=f"{case['name']}: {what}", **changes)
        flipped = f"{int(seal['signature'], 16) ^ (1 << 381):096x}"
        yield bent(seal, "the other point of the same x", signature=flipped)
        yield bent(seal, "a signer left out", keys=seal["keys"][:-1])
        yield bent(seal, "a signer too many", keys=[*seal["keys"], self.members[2]["key"]])
        yield bent(seal, "another signer", keys=[*seal["keys"][:-1], self.members[2]["key"]])
        yield bent(seal, "a signer counted twice", keys=[*seal["keys"], seal["keys"][0]])
        yield bent(seal, "of another round", message=self.statement("commit", 2).hex())
        yield bent(seal, "PREPARE votes", message=self.statement("prepare", 1).hex())
        yield bent(vote, "the infinite signature", signature="c0" + "00" * 47)
        yield bent(vote, "an infinite key", keys=["c0" + "00" * 95])
        yield bent(vote, "an infinite key and signature", keys=["c0" + "00" * 95], signature="c0" + "00" * 47)
        yield bent(vote, "in the domain of possessions", dst=proof["dst"])
        yield bent(proof, "in the domain of votes", dst=vote["dst"])
        yield bent(proof, "of another key", keys=[self.members[1]["key"]])
        yield bent(vote, "without its flags", signature=f"{int(vote['signature'], 16) & ~(7 << 381):096x}")


class LogVectors:
    """The pinned checkpoints and proofs, and what can be bent about them."""

    def __init__(self):
        pinned = json.loads(LOG_VECTORS.read_text(encoding="utf-8"))
        self.vkey, self.pinned = pinned["vkey"], pinned
        self.origin = self.vkey.split("+", 1)[0]
        self.roots = {one["size"]: one["root"] for one in pinned["checkpoints"]}

    def true(self):
        """Every checkpoint and proof as a case."""
        for one in self.pinned["checkpoints"]:
            yield {"name": f"checkpoint of {one['size']}", "kind": "checkpoint", "vkey": self.vkey, "origin": self.origin, **one}
        for one in self.pinned["inclusions"]:
            yield {"name": f"leaf {one['index']} of {one['size']}", "kind": "inclusion", "root": self.roots[one["size"]], **one}
        for one in self.pinned["consistencies"]:
            yield {"name": f"{one['second']} after {one['first']}", "kind": "consistency",
                   "first_root": self.roots[one["first"]], "second_root": self.roots[one["second"]], **one}

    def false(self):
        """What is no checkpoint of the key, or proves nothing."""
        for case in self.true():
            yield from getattr(self, "bent_" + case["kind"])(case)

    def bent(self, case, what, **changes):
        return dict(case, name=f"{case['name']}: {what}", **changes)

    def bent_checkpoint(self, case):
        size, note = case["size"], case["note"]
        text, lines = note.split("\n\n")
        mark = lines.index(" ", 2) + 30
        other = "A" if lines[mark] != "A" else "B"
        yield self.bent(case, "another size", note=note.replace(f"\n{size}\n", f"\n{size + 1}\n", 1), size=size + 1)
        yield self.bent(case, "another origin", note=note.replace(self.origin, "other.example", 1), origin="other.example")
        yield self.bent(case, "a changed signature", note=f"{text}\n\n{lines[:mark]}{other}{lines[mark + 1:]}")
        yield self.bent(case, "the validators' line alone", note=f"{text}\n\n" + lines.split("\n", 1)[1])
        yield self.bent(case, "without its signatures", note=f"{text}\n\n")
        yield self.bent(case, "without the empty line", note=f"{text}\n{lines}")
        yield self.bent(case, "another root than it is asked for", root="00" * 32)

    def bent_inclusion(self, case):
        path = case["path"]
        yield self.bent(case, "another leaf", leaf="02" + case["leaf"][2:])
        yield self.bent(case, "another root", root="00" * 32)
        yield self.bent(case, "a hash too many", path=[*path, "00" * 32])
        if path:
            yield self.bent(case, "a hash too few", path=path[:-1])
            yield self.bent(case, "a changed bit", path=[f"{int(path[0], 16) ^ 1:064x}", *path[1:]])

    def bent_consistency(self, case):
        path = case["path"]
        yield self.bent(case, "another earlier root", first_root="00" * 32)
        yield self.bent(case, "another later root", second_root="00" * 32)
        yield self.bent(case, "a hash too many", path=[*path, "00" * 32])
        yield self.bent(case, "a hash too few", path=path[:-1])
        yield self.bent(case, "a changed bit", path=[*path[:-1], f"{int(path[-1], 16) ^ 1:064x}"])


class Score:
    """What passed, what failed, what was skipped, by judge."""

    def __init__(self, verbose):
        self.verbose = verbose
        self.counts = collections.defaultdict(collections.Counter)

    def say(self, who, what, good, words=""):
        self.counts[who]["passed" if good else "failed"] += 1
        if not good or self.verbose:
            print(f"{'ok  ' if good else 'FAIL'} {who}: {what}{': ' if words else ''}{words}")

    def skip(self, who, reason):
        self.counts[who]["skipped"] += 1
        print(f"skipped: {who}, because {reason}")

    def close(self):
        total = collections.Counter()
        for who, count in self.counts.items():
            print(f"{who:<16}{count['passed']:>5} as wanted{count['failed']:>5} not")
            total.update(count)
        print(f"\n{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
        return 1 if total["failed"] else 0


def py_ecc(cases):
    return tools.run([tools.python(HERE), HERE / "judge_py_ecc.py", cases], "py_ecc judges signatures")


def noble(cases):
    environment = dict(os.environ, NODE_PATH=str(tools.node_modules(HERE)))
    return tools.run(["node", HERE / "judge_noble.cjs", cases], "@noble/curves judges signatures", env=environment)


def proofbundle(cases):
    return tools.run([tools.python(HERE), HERE / "judge_proofbundle.py", cases], "proofbundle judges checkpoints and proofs")


def ask(score, judges, true, false, allow_missing):
    """Has each judge say of each case whether it is true."""
    wanted = {case["name"]: True for case in true} | {case["name"]: False for case in false}
    with tempfile.TemporaryDirectory(prefix="bpi-conformance-") as folder:
        cases = pathlib.Path(folder) / "cases.json"
        cases.write_text(json.dumps([*true, *false]), encoding="utf-8")
        for who, judge in judges:
            try:
                verdicts = dict(line.split("\t", 1) for line in judge(cases).splitlines())
            except tools.ToolError as error:
                if allow_missing:
                    score.skip(who, f"because {error}")
                else:
                    score.say(who, "could not be asked", False, error)
                continue
            for name, good in wanted.items():
                verdict, _, words = verdicts.get(name, "silent\t").partition("\t")
                score.say(who, name, verdict == ("accepted" if good else "refused"), f"{verdict} {words}".strip())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--allow-missing", action="store_true", help="a judge that cannot be had is skipped")
    parser.add_argument("--verbose", action="store_true", help="print every verdict, not only the wrong ones")
    arguments = parser.parse_args()
    score, vectors = Score(arguments.verbose), Vectors()
    for what, good in vectors.facts():
        score.say("layouts", what, good)
    ask(score, (("py_ecc", py_ecc), ("@noble/curves", noble)), list(vectors.true()), list(vectors.false()), arguments.allow_missing)
    log = LogVectors()
    ask(score, (("proofbundle", proofbundle),), list(log.true()), list(log.false()), arguments.allow_missing)
    return score.close()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except tools.ToolError as refusal:
        sys.exit(f"run.py: {refusal}")
