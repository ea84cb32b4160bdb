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
        print(f"skipped: {who}, because {reason}")

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
        self.keyid, self.key, self.seed = table["keyid"], table["key"], table["seed"]
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
        self.key, self.seed = raw.hex(), None
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


def export(docklock, cases, case, form, to, *words):
    """The one file that `docklock export` writes, or None where it refuses the evidence."""
    to.parent.mkdir(exist_ok=True)
    command = [docklock, "export", cases.folder / case["id"], "--for", form, "--to", to, *words]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    return next(iter(to.iterdir())) if done.returncode == 0 else None


def judged(who, form, cases, paths):
    """What a library says of each file: (path, whether it takes it, its words)."""
    lines = tools.run([tools.python(), tools.HERE / "judge_exports.py", form, cases.key, *paths], f"{who} reads {len(paths)} files").splitlines()
    if len(lines) != len(paths):
        raise tools.ToolError(f"{who} judged {len(lines)} of {len(paths)} files")
    return [(pathlib.Path(path), verdict == "accepted", words) for path, verdict, words in (line.split("\t") for line in lines)]


def documents(score, cases, docklock):
    """OSCAL and OCSF: whatever the verdict, the document is one; without a member that has to be there it is none."""
    for who, form, gone in (("compliance-trestle", "oscal", ("assessment-results", "import-ap")), ("py-ocsf-models", "ocsf", ("finding_info",))):
        folder = cases.folder / form
        made = [export(docklock, cases, case, form, folder / case["id"], "--trust", cases.folder / "trust.json", "--level", case["level"]) for case in cases.all]
        written = [path for path in made if path]
        enough = made[0] is not None and len(written) * 2 > len(made)
        score.say(who, "the true evidence and most mutants give a document", enough, f"{len(written)} of {len(made)}")
        if not enough:
            continue
        short = folder / "short.json"
        whole = json.loads(written[0].read_text(encoding="utf-8"))
        inner = whole
        for name in gone[:-1]:
            inner = inner[name]
        del inner[gone[-1]]
        short.write_text(json.dumps(whole), encoding="utf-8")
        for path, accepted, words in judged(who, form, cases, [*written, short]):
            score.expect(who, path.parent.name if path != short else f"without {gone[-1]}", accepted, path != short, words)


def statement(score, cases, docklock):
    """A signed statement of SCITT: taken as it is, refused with any of its bytes bent and over another preimage."""
    who = "pycose"
    if not cases.seed:
        score.skip(who, "the key of a real host is not here")
        return
    folder = cases.folder / "scitt"
    key = cases.folder / "host.key"
    # RFC 8410: an Ed25519 PrivateKeyInfo is these 16 bytes and the seed.
    info = base64.b64encode(bytes.fromhex("302e020100300506032b657004220420" + cases.seed)).decode()
    key.write_text(f"-----BEGIN PRIVATE KEY-----\n{info}\n-----END PRIVATE KEY-----\n", encoding="ascii")
    key.chmod(0o600)
    made = export(docklock, cases, cases.all[0], "scitt", folder, "--key", key)
    if made is None:
        score.say(who, "docklock export --for scitt", False, "it wrote nothing")
        return
    preimage = base64.b64decode(json.loads(cases.file(cases.all[0], ".dsse.json").read_text(encoding="utf-8"))["payload"])
    good = made.read_bytes()
    variants = {"true": (good, preimage), "another-preimage": (good, preimage + b" ")}
    variants |= {f"byte-{at}": (good[:at] + bytes([good[at] ^ 1]) + good[at + 1:], preimage) for at in range(len(good))}
    paths = []
    for name, (message, hashed) in variants.items():
        paths.append(folder / f"{name}.cose")
        paths[-1].write_bytes(message)
        paths[-1].with_suffix(".preimage").write_bytes(hashed)
    for path, accepted, words in judged(who, "cose", cases, paths):
        score.expect(who, path.stem, accepted, path.stem == "true", words)


def own_signature(score, cases, docklock):
    """The receipt's own signature in signify's files, as `docklock export` writes them."""
    program, environment = tools.signify()
    folder = cases.folder / "for-signify"
    if export(docklock, cases, cases.all[0], "signify", folder, "--trust", cases.key_file) is None:
        score.say("signify", "docklock export --for signify", False, "it wrote nothing")
        return
    for name, bent in (("exported", False), ("exported, a byte bent", True)):
        message = folder / "receipt.pae"
        if bent:
            message.write_bytes(message.read_bytes()[:-1] + b"?")
        command = [program, "-V", "-q", "-p", folder / "host.pub", "-x", folder / "receipt.pae.sig", "-m", message]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, env=environment)
        score.expect("signify", name, done.returncode == 0, not bent, done.stderr.strip())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("docklock", nargs="?", default=os.environ.get("DOCKLOCK"), help="path of the docklock CLI, to judge every mutant with it too [default: $DOCKLOCK]")
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
        asked = [(verifier, built) for verifier in (cosign, sigstore, securesystemslib, intoto, dsse_crate, openssl, signify)]
        if arguments.docklock:
            asked += [(verifier, arguments.docklock) for verifier in (documents, statement, own_signature)]
        for verifier, program in asked:
            try:
                verifier(score, cases, program)
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
