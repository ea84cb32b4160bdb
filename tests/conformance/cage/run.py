#!/usr/bin/env python3
"""The part of the determinism corpus that `scripts/bpi test conformance` runs: the sample, natively and caged, on three hosts.

Everything else is harness.py's, which `scripts/bpi conformance` calls with more.
"""
import os
import pathlib
import sys

HARNESS = pathlib.Path(__file__).resolve().with_name("harness.py")

if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, str(HARNESS), "--runs", "3", "--seconds", "60", "--spinners", "4", *sys.argv[1:]])
