#!/usr/bin/env python3
"""Shows that receipts made by our code are judged the same by programs we did not write.

    run.py [DOCKLOCK] [--evidence FOLDER --key PEM] [--allow-missing] [--verbose]

One true receipt must be accepted by every verifier. What a stranger can do to its envelope must be refused by every one of them, and
what breaks our own rules by ours, each with its own sentence. DOCKLOCK is the path of the CLI, which then judges every mutant too.
With --evidence, the evidence of a real run is judged instead, and all must accept it. A verifier that cannot be had is a failure, or with --allow-missing a skip. Ends with `N passed, N failed, N skipped`.
"""
import argparse
import base64
import collections
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import tools

RECEIPT_TYPE = "https://bpi.io/attestation/execution-receipt/v1"
ROOT = tools.HERE.parents[2]


def build():
    """Builds the two small programs of this package and returns their paths."""
    profile = os.environ.get("BPI_PROFILE", "ci")
    command = ["cargo", "build", "--profile", profile, "-p", "bpi-conformance", "--bins", "--message-format=json"]
    messages = tools.run(command, f"building bpi-conformance (profile {profile})", cwd=ROOT)
    made = [message["executable"] for message in map(json.loads, messages.splitlines()) if message.get("executable")]
    return {pathlib.Path(path).name: path for path in made}


class Score:
    """What passed, what failed, what was skipped, by verifier."""

    def __init__(self, verbose):
        self.verbose = verbose
        self.counts = collections.defaultdict(collections.Counter)

    def say(self, who, what, good, words):
        self.counts[who]["passed" if good else "failed"] += 1
        if not good or self.verbose:
            print(f"{'ok  ' if good else 'FAIL'} {who}: {what}: {words}")

    def expect(self, who, what, accepted, wanted, words):
        """One verdict of one verifier."""
        self.counts[who]["accepted" if accepted else "refused"] += 1
        self.say(who, what, accepted == wanted, ("accepted" if accepted else "refused") + (f" ({words})" if words else ""))

    def skip(self, who, reason):
        self.counts[who]["skipped"] += 1
        print(f"skip {who}: {reason}")

    def table(self):
        print(f"\n{'verifier':<28}{'accepted':>10}{'refused':>10}{'as wanted':>12}{'failed':>8}{'skipped':>9}")
        for who, count in self.counts.items():
            row = [count[word] for word in ("accepted", "refused", "passed", "failed", "skipped")]
            print(f"{who:<28}{row[0]:>10}{row[1]:>10}{row[2]:>12}{row[3]:>8}{row[4]:>9}")
        total = collections.Counter()
        for count in self.counts.values():
            total.update(count)
        print(f"\n{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
        return 1 if total["failed"] else 0


class Cases:
    """The true evidence and its mutants, as files."""

    def __init__(self, folder, fixture):
        self.folder = folder
        tools.run([fixture, folder], "writing the receipt and its mutants")
        table = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
        self.keyid, self.key = table["keyid"], table["key"]
        self.all = table["cases"]
        # What every verifier of signatures must judge, the true one first.
        self.envelopes = [case for case in self.all if case["layer"] in ("true", "envelope")]
        self.key_file = folder / "host.pub.pem"

    def file(self, case, suffix):
        return self.folder / (case["id"] + suffix)

    def bundle(self, case):
        return self.folder / case["id"] / "receipt.sigstore.json"


class RealRun(Cases):
    """Evidence of a run that really happened, signed by the key in a PEM file."""

    def __init__(self, folder, evidence, key_file):
        self.folder = folder
        shutil.copytree(evidence, folder / "true")
        self.key_file = folder / "host.pub.pem"
        shutil.copy(key_file, self.key_file)
        pem = [line for line in self.key_file.read_text(encoding="ascii").splitlines() if line and not line.startswith("-----")]
        # The last 32 bytes of an Ed25519 SubjectPublicKeyInfo are the key (RFC 8410); its name is that of OpenSSH (RFC 8709).
        raw = base64.b64decode("".join(pem))[-32:]
        wire = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + raw
        self.key = raw.hex()
        self.keyid = "SHA256:" + base64.b64encode(hashlib.sha256(wire).digest()).decode().rstrip("=")
        shutil.copy(self.key_file, folder / "trust.json")
        case = {"id": "true", "name": f"evidence in {evidence}", "layer": "true", "level": "chained", "exit": 0,
                "sentence": "true: everything that level chained requires passes"}
        self.all = self.envelopes = [case]
        envelope = json.loads(self.bundle(case).read_text(encoding="utf-8"))["dsseEnvelope"]
        kind, payload = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
        self.file(case, ".dsse.json").write_text(json.dumps(envelope), encoding="utf-8")
        self.file(case, ".pae").write_bytes(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
        self.file(case, ".sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))


def by_lines(score, who, cases, suffix, command, **options):
    """A verifier that judges many files in one process and prints a line for each."""
    paths = {str(cases.bundle(case) if suffix is None else cases.file(case, suffix)): case for case in cases.envelopes}
    lines = tools.run([*command, *paths], f"{who} judges {len(paths)} envelopes", **options).splitlines()
    if len(lines) != len(paths):
        raise tools.ToolError(f"{who} judged {len(lines)} of {len(paths)} envelopes")
    for line in lines:
        path, verdict, *words = line.split("\t")
        case = paths[path]
        score.expect(who, case["name"], verdict == "accepted", case["layer"] == "true", " ".join(words))


def by_exit(score, who, cases, command, **options):
    """A verifier that judges one file and says so by its exit code."""
    print(f"  … {who} judges {len(cases)} envelopes", file=sys.stderr, flush=True)
    for case in cases:
        done = subprocess.run([str(word) for word in command(case)], capture_output=True, text=True, timeout=60, **options)
        words = (done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}").splitlines()[-1]
        score.expect(who, case["name"], done.returncode == 0, case["layer"] == "true", words[:120])


def sigstore(score, cases, _built):
    environment = dict(os.environ, NODE_PATH=str(tools.node_modules()))
    by_lines(score, "@sigstore/verify", cases, None, ["node", tools.HERE / "judge_sigstore.cjs", cases.key_file], env=environment)


def securesystemslib(score, cases, _built):
    command = [tools.python(), tools.HERE / "judge_securesystemslib.py", cases.keyid, cases.key]
    by_lines(score, "securesystemslib", cases, ".dsse.json", command)


def dsse_crate(score, cases, built):
    by_lines(score, "dsse (crate)", cases, ".dsse.json", [built["dsse-check"], cases.key_file])


def cosign(score, cases, _built):
    program = tools.cosign()
    # cosign also compares the subject with the file it is given, so it judges two more kinds of falsehood than a bare signature.
    names = ("run.json: exit code altered", "signed: subject is another run", "signed: unknown predicateType")
    more = [case for case in cases.all if case["name"] in names]

    def command(case):
        run_file = cases.folder / case["id"] / "run.json"
        run_file = run_file if run_file.is_file() else cases.folder / "true/run.json"
        return [program, "verify-blob-attestation", "--key", cases.key_file, "--bundle", cases.bundle(case),
                "--insecure-ignore-tlog=true", "--type", RECEIPT_TYPE, run_file]
    by_exit(score, "cosign", cases.envelopes + more, command)


def openssl(score, cases, _built):
    program = tools.openssl()
    by_exit(score, "openssl", cases.envelopes, lambda case: [
        program, "pkeyutl", "-verify", "-pubin", "-inkey", cases.key_file, "-rawin",
        "-in", cases.file(case, ".pae"), "-sigfile", cases.file(case, ".sig")])


def signify(score, cases, _built):
    program, environment = tools.signify()
    # signify's own framing of the very same key and signatures: "Ed", eight bytes that name the key, then the raw bytes.
    key = bytes.fromhex(cases.key)
    name = hashlib.sha256(key).digest()[:8]

    def wrap(path, comment, raw):
        path.write_text(f"untrusted comment: {comment}\n{base64.b64encode(b'Ed' + name + raw).decode()}\n", encoding="ascii")
        return path
    public = wrap(cases.folder / "host.signify.pub", "host public key", key)

    def command(case):
        raw = cases.file(case, ".sig").read_bytes()
        signature = wrap(cases.file(case, ".signify"), "verify with host.signify.pub", raw)
        return [program, "-V", "-q", "-p", public, "-x", signature, "-m", cases.file(case, ".pae")]
    # signify 31 does not ask for S below the group order, so to it the second spelling of a signature is a signature. It is the
    # host's own over the very same bytes, so nobody is deceived by it; ours and all the others refuse it nevertheless.
    beyond = "signature: S plus the group order"
    by_exit(score, "signify", [case for case in cases.envelopes if case["name"] != beyond], command, env=environment)


def intoto(score, cases, _built):
    who = "in-toto-attestation"
    envelope = json.loads(cases.file(cases.all[0], ".dsse.json").read_text(encoding="utf-8"))
    statement = cases.folder / "statement.json"
    statement.write_bytes(base64.b64decode(envelope["payload"]))
    lines = tools.run([tools.python(), tools.HERE / "judge_intoto.py", statement], f"{who} judges statements").splitlines()
    # What in-toto-attestation 0.9.3 does not look at, and so cannot refuse: digests are to it any text.
    beyond = ("subject with a short digest", "subject with a digest that is no hexadecimal", "predicate {}")
    for line in lines:
        name, verdict, words = line.split("\t")
        if name not in beyond:
            score.expect(who, name, verdict == "accepted", name == "true", words)


def ours(score, cases, _built):
    """The library: everything refused, each with its own sentence."""
    who, seen = "bpi-protocol", {}
    for case in cases.all:
        score.expect(who, case["name"], case["exit"] == 0, case["layer"] == "true", case["sentence"])
        other = seen.setdefault(case["sentence"], case["name"])
        score.say(who, f"{case['name']}: a sentence of its own", other == case["name"], f"{case['sentence']!r} is also that of {other!r}")


def command_line(score, cases, docklock):
    """The CLI must say what the library says, by exit code and by word."""
    who = "docklock verify"
    print(f"  … {who} judges {len(cases.all)} times", file=sys.stderr, flush=True)
    for case in cases.all:
        command = [docklock, "verify", cases.folder / case["id"], "--trust", cases.folder / "trust.json", "--level", case["level"]]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
        score.expect(who, case["name"], done.returncode == 0, case["layer"] == "true", f"exit {done.returncode}")
        said = done.stdout + done.stderr
        score.say(who, f"{case['name']}: exit code {case['exit']}", done.returncode == case["exit"], f"it was {done.returncode}: {said.strip()[-200:]!r}")
        score.say(who, f"{case['name']}: the sentence", case["sentence"] in said, f"{case['sentence']!r} is not in {said.strip()[-300:]!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("docklock", nargs="?", help="path of the docklock CLI, to judge every mutant with it too")
    parser.add_argument("--evidence", metavar="FOLDER", help="evidence of a real run, to be accepted by all")
    parser.add_argument("--key", metavar="PEM", help="public key of the host that made it")
    parser.add_argument("--allow-missing", action="store_true", help="a verifier that cannot be had is skipped")
    parser.add_argument("--verbose", action="store_true", help="print every verdict, not only the wrong ones")
    arguments = parser.parse_args()
    if bool(arguments.evidence) != bool(arguments.key):
        parser.error("--evidence and --key belong together")
    score = Score(arguments.verbose)
    built = build()
    with tempfile.TemporaryDirectory(prefix="bpi-conformance-") as folder:
        if arguments.evidence:
            cases = RealRun(pathlib.Path(folder), arguments.evidence, arguments.key)
        else:
            cases = Cases(pathlib.Path(folder), built["receipts-fixture"])
            ours(score, cases, built)
        for verifier in (cosign, sigstore, securesystemslib, intoto, dsse_crate, openssl, signify):
            try:
                verifier(score, cases, built)
            except tools.ToolError as error:
                if arguments.allow_missing:
                    score.skip(verifier.__name__, error)
                else:
                    score.say(verifier.__name__, "could not be asked", False, error)
        if arguments.docklock:
            command_line(score, cases, arguments.docklock)
        else:
            score.skip("docklock verify", "no path of the CLI was given")
    return score.table()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except tools.ToolError as refusal:
        sys.exit(f"run.py: {refusal}")
