"""Reads exported forms by libraries that know nothing of us: FORM KEY-HEX FILE…, FORM one of cose (pycose), oscal (compliance-trestle), ocsf (py-ocsf-models).

One line for each file: path, tab, "accepted" or "refused", tab, reason. A COSE file lies beside its preimage, NAME.preimage.
"""
import hashlib
import json
import pathlib
import sys

form, public, *paths = sys.argv[1:]


def cose(path):
    from pycose.headers import KID, Algorithm
    from pycose.keys import OKPKey
    from pycose.messages import Sign1Message
    message = Sign1Message.decode(path.read_bytes())
    message.key = OKPKey(crv="ED25519", x=bytes.fromhex(public))
    if not message.verify_signature():
        raise ValueError("the signature is not this key's")
    if message.phdr[Algorithm].fullname != "EDDSA" or KID not in message.phdr:
        raise ValueError(f"the protected header is {message.phdr}")
    # draft-ietf-cose-hash-envelope: 258 says how the payload was hashed (-16, SHA-256), 259 what was; RFC 9597: 15 holds the claims.
    if message.phdr[258] != -16 or message.phdr[259] != "application/vnd.in-toto+json" or set(message.phdr[15]) != {1, 2}:
        raise ValueError(f"the protected header is {message.phdr}")
    if message.payload != hashlib.sha256(path.with_suffix(".preimage").read_bytes()).digest():
        raise ValueError("the payload is not the hash of the statement")


def oscal(path):
    from trestle.oscal.assessment_results import AssessmentResults
    AssessmentResults.oscal_read(path)


def ocsf(path):
    from py_ocsf_models.events.findings.compliance_finding import ComplianceFinding
    ComplianceFinding.model_validate(json.loads(path.read_text(encoding="utf-8")))


for name in paths:
    try:
        {"cose": cose, "oscal": oscal, "ocsf": ocsf}[form](pathlib.Path(name))
        print(name, "accepted", "", sep="\t")
    except Exception as error:  # whatever it raises is a refusal; which, is for the reader
        words = str(error).splitlines() or [""]
        print(name, "refused", f"{type(error).__name__}: {' '.join(words)[:200]}", sep="\t")
