#!/usr/bin/env python3
"""Shows that frames of BPCI made by our code are opened by a decoder that shares no line with it, and that bent ones are not.

    run.py [--allow-missing] [--verbose]

The session is protocol/tests/vectors/frame.json. A judge that cannot be had is a failure, or with --allow-missing a skip. Ends with
`N passed, N failed, N skipped`.
"""
import argparse
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "receipts"))

import tools  # noqa: E402 - the rooms share how a judge is had

VECTORS = HERE.parents[2] / "protocol/tests/vectors/frame.json"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--allow-missing", action="store_true", help="skip a judge that cannot be had")
    parser.add_argument("--verbose", action="store_true", help="say also what is as wanted")
    arguments = parser.parse_args()
    try:
        said = json.loads(tools.run([tools.python(HERE), HERE / "judge_frames.py", VECTORS], "libsodium and OpenSSL open frames"))
    except tools.ToolError as error:
        if arguments.allow_missing:
            print(f"skipped: frames, because {error}\n0 passed, 0 failed, 1 skipped")
            return 0
        print(f"FAIL frames: {error}\n0 passed, 1 failed, 0 skipped")
        return 1
    for what, holds in said.items():
        if not holds or arguments.verbose:
            print(f"{'ok  ' if holds else 'FAIL'} {what}")
    failed = sum(not holds for holds in said.values())
    print(f"{len(said) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
