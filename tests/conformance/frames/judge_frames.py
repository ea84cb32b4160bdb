"""Opens the pinned session of BPCI a second time, by libsodium (PyNaCl) and OpenSSL (cryptography), from docs/specs/bpci.md alone.

    judge_frames.py VECTORS     prints {"what": bool} as JSON

HPKE is put together here from RFC 9180 and HKDF from RFC 5869. Nothing is taken from our code.
"""
import hashlib
import hmac
import json
import pathlib
import sys

import nacl.bindings
import nacl.exceptions
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

KEM_SUITE = b"KEM" + (0x0020).to_bytes(2, "big")
HPKE_SUITE = b"HPKE" + (0x0020).to_bytes(2, "big") + (0x0001).to_bytes(2, "big") + (0xFFFF).to_bytes(2, "big")
INIT, DATA, RECEIPT, CLOSE = 1, 2, 3, 4


def extract(salt, secret):
    return hmac.digest(salt or bytes(32), secret, "sha256")


def expand(secret, info, length):
    out, block, count = b"", b"", 1
    while len(out) < length:
        block = hmac.digest(secret, block + info + bytes([count]), "sha256")
        out, count = out + block, count + 1
    return out[:length]


def labeled_extract(suite, salt, label, secret):
    return extract(salt, b"HPKE-v1" + suite + label + secret)


def labeled_expand(suite, secret, label, info, length):
    return expand(secret, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)


def exchange(secret, public):
    return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))


def public_of(secret):
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


class Context:
    """The receiver's exports of HPKE's base mode (RFC 9180, 4.1, 5.1, 5.3)."""

    def __init__(self, secret, enc, info):
        dh = exchange(secret, enc)
        prk = labeled_extract(KEM_SUITE, b"", b"eae_prk", dh)
        shared = labeled_expand(KEM_SUITE, prk, b"shared_secret", enc + public_of(secret), 32)
        psk_id = labeled_extract(HPKE_SUITE, b"", b"psk_id_hash", b"")
        schedule = b"\0" + psk_id + labeled_extract(HPKE_SUITE, b"", b"info_hash", info)
        self.exporter = labeled_expand(HPKE_SUITE, labeled_extract(HPKE_SUITE, shared, b"secret", b""), b"exp", schedule, 32)

    def export(self, name, length):
        return labeled_expand(HPKE_SUITE, self.exporter, b"sec", name, length)


class Header:
    """The 64 bytes before every frame."""

    def __init__(self, frame):
        number = lambda at, length: int.from_bytes(frame[at:at + length], "big")  # noqa: E731
        self.magic, self.kind, self.suite, flags = frame[:4], frame[4], frame[5], number(6, 2)
        self.reverse, self.serial = bool(flags >> 15), flags & 0x7FFF
        self.network, self.to, self.session = frame[8:16], frame[16:24], frame[24:40]
        self.phase, self.seq, self.expiry_s = number(40, 4), number(44, 8), number(52, 4)
        self.fragment, self.fragments, self.payload_bytes = number(56, 2), number(58, 2), number(60, 4)
        self.associated = 64 + (48 if self.kind == INIT else 0)
        self.sound = self.magic == b"BPC1" and self.suite == 1 and len(frame) == self.associated + self.payload_bytes + 16


def open_frame(material, frame):
    """The plaintext under key 32, prefix 16, commitment 16; None when it does not open."""
    header = Header(frame)
    nonce = material[32:48] + header.seq.to_bytes(8, "big")
    sealed, associated = frame[header.associated:], frame[:header.associated]
    try:
        return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, associated, nonce, material[:32])
    except nacl.exceptions.CryptoError:
        return None


def is_signed(key, message, signature):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except InvalidSignature:
        return False


def key_id(identity):
    return hashlib.sha256(b"bpci/1 key id" + identity).digest()[:8]


def judge(vectors):
    raw = bytes.fromhex
    network = raw(vectors["network"])
    identity = {who: Ed25519PrivateKey.from_private_bytes(raw(vectors[who + "_seed"])).public_key().public_bytes_raw()
                for who in ("initiator", "responder")}
    prekey, secret, fresh_secret = raw(vectors["prekey"]), raw(vectors["prekey_secret"]), raw(vectors["fresh_secret"])
    frames = [(sent["by"], raw(sent["frame"])) for sent in vectors["frames"]]

    yield "the prekey names its network, identity and key", prekey[:4] == b"BPK1" and prekey[6:14] == network \
        and prekey[14:46] == identity["responder"] and prekey[46:78] == public_of(secret)
    yield "the prekey is signed by its identity", is_signed(identity["responder"], b"bpci/1 prekey" + prekey[:-64], prekey[-64:])
    yield "the prekey lives for an hour", int.from_bytes(prekey[86:94], "big") - int.from_bytes(prekey[78:86], "big") == 3600
    for number, (by, frame) in enumerate(frames):
        header = Header(frame)
        other = identity["responder" if by == "initiator" else "initiator"]
        yield f"frame {number} has a sound header", header.sound and header.network == network
        yield f"frame {number} is for the other end", header.to == key_id(other) and header.reverse == (by == "responder")
        yield f"frame {number} expires in time", vectors["unix_s"] < header.expiry_s <= vectors["unix_s"] + 125

    init, reply = frames[0][1], frames[1][1]
    enc, commit = init[64:96], init[96:112]
    context = Context(secret, enc, b"bpci/1 init" + network + identity["responder"] + prekey[4:6])
    material = context.export(b"bpci/1 forward", 64)
    yield "INIT says which prekey", Header(init).serial == int.from_bytes(prekey[4:6], "big")
    yield "INIT commits to its key", material[48:] == commit
    plain = open_frame(material, init)
    yield "INIT opens", plain is not None
    who, ephemeral, signature = plain[:32], plain[32:64], plain[72:136]
    signed = b"bpci/1 signature init" + init[:112] + public_of(secret) + hashlib.sha256(plain[:72]).digest()
    yield "INIT is the initiator's", who == identity["initiator"] and len(plain) == 136 and is_signed(who, signed, signature)

    digest, fresh = hashlib.sha256(init).digest(), reply[64:96]
    mixed = extract(context.export(b"bpci/1 response", 32), exchange(fresh_secret, ephemeral))
    chain = {way: expand(mixed, b"bpci/1 chain " + way.encode() + digest + fresh, 32) for way in ("forward", "reverse")}
    keys = {way: expand(chain[way], b"bpci/1 phase", 64) for way in chain}
    yield "the reply shows its fresh key", fresh == public_of(fresh_secret)
    yield "the reply commits to its key", keys["reverse"][48:] == reply[96:112]
    plain = open_frame(keys["reverse"], reply)
    signed = b"bpci/1 signature reply" + reply[:112] + digest + hashlib.sha256(plain[:8]).digest()
    yield "the reply is the responder's", len(plain) == 72 and is_signed(identity["responder"], signed, plain[8:])

    parts = {}
    for number, (by, frame) in enumerate(frames[2:], 2):
        header = Header(frame)
        way = "forward" if by == "initiator" else "reverse"
        plain = open_frame(keys[way], frame)
        yield f"frame {number} opens under the key of its direction", plain is not None and header.phase == 1
        yield f"frame {number} does not open under the other", open_frame(keys["reverse" if way == "forward" else "forward"], frame) is None
        bent = bytearray(frame)
        bent[number % 64] ^= 1
        yield f"frame {number} does not open with another header", open_frame(keys[way], bytes(bent)) is None
        if header.kind == DATA:
            parts.setdefault(header.seq - header.fragment, [None] * header.fragments)[header.fragment] = plain
        if header.kind == RECEIPT:
            yield from judge_receipt(plain, digest, identity["responder"])
        if header.kind == CLOSE:
            yield "CLOSE says its code", plain == (7).to_bytes(2, "big")
    said = [b"".join(part) for _, part in sorted(parts.items())]
    yield "the messages are those that were sent", said == [raw(message) for message in vectors["messages"]]
    after = expand(expand(chain["forward"], b"bpci/1 next", 32), b"bpci/1 phase", 64)
    yield "another phase has another key", after != keys["forward"] and open_frame(after, frames[2][1]) is None

    hello, exported = raw(vectors["hello"]), raw(vectors["exported"])
    yield "a greeting has its length and kind", int.from_bytes(hello[:4], "big") == len(hello) - 4 and hello[4] == 1
    yield "a greeting is signed for its TLS session", hello[13:45] == identity["responder"] and \
        is_signed(hello[13:45], b"bpci/1 hello" + hello[5:13] + exported, hello[45:109]) and hello[109:] == prekey


def judge_receipt(plain, digest, responder):
    """complete 8, words 1, that many words of 8, delay 4, relays 1, for each its id 8 and its frames 8, signed 1, signature 64."""
    words = plain[8]
    at = 9 + 8 * words
    relays = plain[at + 4]
    end = at + 5 + 16 * relays
    yield "a receipt tells of all frames", int.from_bytes(plain[:8], "big") == 4 and words == 0
    yield "a receipt is signed", plain[end] == 1 and is_signed(responder, b"bpci/1 receipt" + digest + plain[:end], plain[end + 1:])


if __name__ == "__main__":
    print(json.dumps(dict(judge(json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))))))
