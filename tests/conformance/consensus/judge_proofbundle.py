"""Judges checkpoints (C2SP tlog-checkpoint) and proofs of the log (RFC 9162) by proofbundle: CASES (JSON).

One line for each case: name, tab, "accepted" or "refused", tab, reason.
"""
import json
import sys

from proofbundle import checkpoint, merkle


def path(case):
    return [bytes.fromhex(text) for text in case["path"]]


def judge(case):
    """Why the case is refused, or nothing."""
    if case["kind"] == "checkpoint":
        found = checkpoint.verify_checkpoint(case["note"], case["vkey"])
        if not found["ok"]:
            return "no signature of the key holds"
        said = (found["origin"], found["tree_size"], found["root"].hex())
        return "" if said == (case["origin"], case["size"], case["root"]) else f"it says {said}"
    if case["kind"] == "inclusion":
        leaf, root = bytes.fromhex(case["leaf"]), bytes.fromhex(case["root"])
        return "" if merkle.verify_inclusion(leaf, case["index"], case["size"], path(case), root) else "the path leads elsewhere"
    first, second = bytes.fromhex(case["first_root"]), bytes.fromhex(case["second_root"])
    return "" if merkle.verify_consistency(case["first"], case["second"], path(case), first, second) else "the path leads elsewhere"


with open(sys.argv[1], encoding="utf-8") as file:
    cases = json.load(file)
for case in cases:
    try:
        refusal = judge(case)
    except Exception as error:  # whatever it raises is a refusal; which, is for the reader
        refusal = (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__
    print(case["name"], "refused" if refusal else "accepted", refusal, sep="\t")
