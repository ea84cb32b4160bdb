"""Judges BLS signatures by py_ecc, the curve arithmetic of the Ethereum Foundation in plain Python: CASES (JSON).

py_ecc's own ciphersuites have keys in G1; here they are in G2 and signatures in G1 (min-sig), so verifying is put together from its
primitives as draft-irtf-cfrg-bls-signature has it. One line for each case: name, tab, "accepted" or "refused", tab, reason.
"""
import hashlib
import json
import sys

from py_ecc.bls.hash_to_curve import hash_to_G1
from py_ecc.bls.point_compression import compress_G1, compress_G2, decompress_G1, decompress_G2
from py_ecc.optimized_bls12_381 import FQ12, G2, add, curve_order, final_exponentiate, is_inf, multiply, neg, pairing


def number(text, size):
    raw = bytes.fromhex(text)
    if len(raw) != size:
        raise ValueError(f"{len(raw)} bytes, not {size}")
    return int.from_bytes(raw, "big")


def sound(point, what):
    """signature_subgroup_check and KeyValidate (sections 2.5 and 5.2 of the draft)."""
    if is_inf(point):
        raise ValueError(f"the {what} is the point at infinity")
    if not is_inf(multiply(point, curve_order)):
        raise ValueError(f"the {what} is not in the group")
    return point


def key(text):
    whole = number(text, 96)
    return sound(decompress_G2((whole >> 384, whole & ((1 << 384) - 1))), "key")


def made_again(case, hashed):
    """From the secret keys: their public halves, and the sum of their signatures, byte for byte."""
    secrets = [number(text, 32) for text in case["secrets"]]
    for secret, text in zip(secrets, case["keys"], strict=True):
        x1, x0 = compress_G2(multiply(G2, secret))
        if (x1 << 384 | x0) != number(text, 96):
            raise ValueError("a secret key has another public half")
    if compress_G1(multiply(hashed, sum(secrets) % curve_order)) != number(case["signature"], 48):
        raise ValueError("the secret keys make another signature")


def judge(case):
    hashed = hash_to_G1(bytes.fromhex(case["message"]), case["dst"].encode(), hashlib.sha256)
    keys = [key(text) for text in case["keys"]]
    signature = sound(decompress_G1(number(case["signature"], 48)), "signature")
    if "secrets" in case:
        made_again(case, hashed)
    total = keys[0]
    for other in keys[1:]:
        total = add(total, other)
    product = pairing(neg(G2), signature, final_exponentiate=False) * pairing(total, hashed, final_exponentiate=False)
    if final_exponentiate(product) != FQ12.one():
        raise ValueError("the pairings differ")


with open(sys.argv[1], encoding="utf-8") as file:
    cases = json.load(file)
for case in cases:
    try:
        judge(case)
        print(case["name"], "accepted", "", sep="\t")
    except Exception as error:  # whatever it raises is a refusal; which, is for the reader
        print(case["name"], "refused", (str(error).splitlines() or [type(error).__name__])[0], sep="\t")
