#!/usr/bin/env python3
"""Makes coding.json: shards, roots and openings by the formula, with nothing but Python's own library.

The field is multiplied bit by bit, the matrix is Vandermonde's times the inverse of its top by elimination (and not Lagrange's interpolation, as in
protocol/src/availability/field.rs), and the trees are RFC 9162's recursive definition: three other ways than those of the crates. Usage:

    make.py            writes coding.json beside this file
    make.py --check    ends with 1 when coding.json is not what would be written
"""
import hashlib
import json
import pathlib
import struct
import sys

LEAF = 1024
STRIPE = 1 << 20
CASES = [(1, 2, 3000), (2, 3, 2048), (4, 12, 1), (4, 12, 4096), (4, 12, 4097), (4, 12, 1 << 20), (4, 12, (3 << 20) + 5),
         (16, 32, (2 << 20) + 12345), (16, 48, 1_500_000), (64, 256, 100_000)]


def multiply(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a & 0x100:
            a ^= 0x11D
        b >>= 1
    return product


TABLE = [bytes(multiply(a, b) for b in range(256)) for a in range(256)]
INVERSE = [0] + [TABLE[a].index(1) for a in range(1, 256)]


def power(a, exponent):
    result = 1
    for _ in range(exponent):
        result = multiply(result, a)
    return result


def inverted(square):
    """Gauss and Jordan."""
    size = len(square)
    rows = [list(row) + [int(at == column) for column in range(size)] for at, row in enumerate(square)]
    for column in range(size):
        pivot = next(at for at in range(column, size) if rows[at][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        scale = INVERSE[rows[column][column]]
        rows[column] = [multiply(scale, value) for value in rows[column]]
        for at in range(size):
            if at != column and rows[at][column]:
                factor = rows[at][column]
                rows[at] = [value ^ multiply(factor, other) for value, other in zip(rows[at], rows[column])]
    return [row[size:] for row in rows]


def matrix(k, n):
    vandermonde = [[power(row, column) for column in range(k)] for row in range(n)]
    top = inverted(vandermonde[:k])
    result = []
    for row in vandermonde:
        line = []
        for column in range(k):
            value = 0
            for at in range(k):
                value ^= TABLE[row[at]][top[at][column]]
            line.append(value)
        result.append(line)
    return result


def data_of(length):
    """Bytes anybody can make: SHA-256 of a counter."""
    blocks = -(-length // 32)
    return b"".join(hashlib.sha256(struct.pack(">Q", at)).digest() for at in range(blocks))[:length]


def encode(k, n, data):
    rows = matrix(k, n)
    shards = [b""] * n
    for begin in range(0, len(data), STRIPE):
        stripe = data[begin:begin + STRIPE]
        chunk = -(-len(stripe) // k)
        chunk = -(-chunk // LEAF) * LEAF
        stripe = stripe.ljust(chunk * k, b"\0")
        chunks = [stripe[at * chunk:(at + 1) * chunk] for at in range(k)]
        for shard, row in enumerate(rows):
            total = 0
            for coefficient, part in zip(row, chunks):
                total ^= int.from_bytes(part.translate(TABLE[coefficient]), "big")
            shards[shard] += total.to_bytes(chunk, "big")
    return shards


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def split(count):
    return 1 << ((count - 1).bit_length() - 1)


def tree(leaves):
    if len(leaves) == 1:
        return sha256(b"\0", leaves[0])
    at = split(len(leaves))
    return sha256(b"\1", tree(leaves[:at]), tree(leaves[at:]))


def path(index, leaves):
    if len(leaves) == 1:
        return []
    at = split(len(leaves))
    if index < at:
        return path(index, leaves[:at]) + [tree(leaves[at:])]
    return path(index - at, leaves[at:]) + [tree(leaves[:at])]


def leaves_of(shard):
    return [shard[at:at + LEAF] for at in range(0, len(shard), LEAF)]


def opening(shards, roots, shard, leaf):
    leaves = leaves_of(shards[shard])
    in_shard, in_batch = path(leaf, leaves), path(shard, roots)
    return (struct.pack(">BBI", 1, shard, leaf) + leaves[leaf] + bytes([len(in_shard)]) + b"".join(in_shard)
            + bytes([len(in_batch)]) + b"".join(in_batch))


def case(k, n, length):
    data = data_of(length)
    shards = encode(k, n, data)
    roots = [tree(leaves_of(shard)) for shard in shards]
    coding = struct.pack(">BBHHIIQ", 1, 1, k, n, STRIPE, LEAF, length)
    da_root = sha256(b"bpi/1 da_root", coding, tree(roots))
    count = len(shards[0]) // LEAF
    openings = [{"shard": shard, "leaf": leaf, "sha256": sha256(opening(shards, roots, shard, leaf)).hex()}
                for shard, leaf in sorted({(0, 0), (n - 1, count - 1), (k, count // 2)})]
    return {"k": k, "n": n, "length": length, "shards_sha256": sha256(*shards).hex(), "da_root": da_root.hex(),
            "roots_sha256": sha256(*roots).hex(), "openings": openings}


def main():
    target = pathlib.Path(__file__).with_name("coding.json")
    text = json.dumps([case(*each) for each in CASES], indent=1) + "\n"
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if target.read_text() == text else f"{target.name} is not what {pathlib.Path(__file__).name} makes")
    target.write_text(text)


if __name__ == "__main__":
    main()
