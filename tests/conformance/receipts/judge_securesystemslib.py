"""Judges DSSE envelopes by securesystemslib, the library of TUF and in-toto: KEYID KEY-HEX ENVELOPE…

One line for each envelope: path, tab, "accepted" or "refused", tab, reason.
"""
import json
import sys

from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

keyid, public, *paths = sys.argv[1:]
key = SSlibKey(keyid, "ed25519", "ed25519", {"public": public})
for path in paths:
    try:
        with open(path, encoding="utf-8") as file:
            Envelope.from_dict(json.load(file)).verify([key], 1)
        print(path, "accepted", "", sep="\t")
    except Exception as error:  # whatever it raises is a refusal; which, is for the reader
        words = str(error).splitlines() or [""]
        print(path, "refused", f"{type(error).__name__}: {words[0]}", sep="\t")
