"""Judges Statements by in-toto-attestation, the reference bindings: judge_intoto.py STATEMENT.json

It knows the Statement and not the signature, so the mutants are made here, each against one rule of in-toto Statement v1.
One line for each: name, tab, "accepted" or "refused", tab, reason.
"""
import copy
import json
import sys

import in_toto_attestation.v1.statement_pb2 as statement_pb2
from google.protobuf import json_format
from in_toto_attestation.v1.statement import Statement


def judge(value):
    parsed = json_format.ParseDict(value, statement_pb2.Statement())
    Statement.copy_from_pb(parsed).validate()


def mutants(true):
    def bent(name, bend):
        value = copy.deepcopy(true)
        bend(value)
        return name, value

    def put(member, value):
        return lambda statement: statement.__setitem__(member, value)

    def subject(value):
        return lambda statement: statement["subject"].__setitem__(0, value)

    digest = true["subject"][0]["digest"]
    for member in ("_type", "subject", "predicateType", "predicate"):
        yield bent(f"no {member}", lambda statement, member=member: statement.pop(member))
    for version in ("", "https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v2", "Statement", 1):
        yield bent(f"_type {version!r}", put("_type", version))
    for value in ("", 7, [], {}):
        yield bent(f"predicateType {value!r}", put("predicateType", value))
    for value in ("text", 7, [1], {}):
        yield bent(f"predicate {value!r}", put("predicate", value))
    for value in ([], "run.json", 7, [7]):
        yield bent(f"subject {value!r}", put("subject", value))
    yield bent("subject without digest", subject({"name": "run.json"}))
    yield bent("subject with an empty digest set", subject({"name": "run.json", "digest": {}}))
    yield bent("subject with a digest that is a number", subject({"name": "run.json", "digest": {"sha256": 7}}))
    yield bent("subject with a digest that is a list", subject({"name": "run.json", "digest": ["sha256"]}))
    yield bent("subject with a short digest", subject({"name": "run.json", "digest": {"sha256": "00"}}))
    yield bent("subject with a digest that is no hexadecimal", subject({"name": "run.json", "digest": {"sha256": "z" * 64}}))
    yield bent("subject with an unknown member", subject({"name": "run.json", "digest": digest, "trust": True}))
    yield bent("an unknown member", put("trust", True))


with open(sys.argv[1], encoding="utf-8") as file:
    statement = json.load(file)
for name, value in [("true", statement), *mutants(statement)]:
    try:
        judge(value)
        print(name, "accepted", "", sep="\t")
    except Exception as error:  # whatever it raises is a refusal; which, is for the reader
        words = str(error).splitlines() or [""]
        print(name, "refused", f"{type(error).__name__}: {words[0]}", sep="\t")
