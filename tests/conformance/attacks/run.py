#!/usr/bin/env python3
"""Lets programs attack the cage from inside, and looks that it holds: refused calls, a fuzzer of calls, attacks, a supervisor that dies.

    run.py [--full] [--fuzz SECONDS] [--seed N] [--only WORD…] [--deaths N]

Without options a sample of about a minute. The path of the CLI comes from DOCKLOCK, what is kept goes below BPI_CACHE. Needs root, and gcc.
Ends with `N passed, N failed`; exit status 1 if anything did not hold.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys

import attacks
import cages
import deaths
import fuzzing
import reached
import refusals
import world

FULL_FUZZ_S, SAMPLE_FUZZ_S = 600, 15
FULL_DEATHS, SAMPLE_DEATHS = 40, 3
# What guests write is bounded by this file system in memory.
SCRATCH_BYTES = "1g"


class Score:
    """What held and what did not."""

    def __init__(self):
        self.passed, self.failures = 0, []

    def tell(self, what, wrong):
        if wrong:
            self.failures += [f"{what}: {words}" for words in wrong]
            print(f"FAIL {what}: {'; '.join(wrong)}", flush=True)
        else:
            self.passed += 1
            print(f"ok   {what}", flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--full", action="store_true", help="all attacks, ten minutes of fuzzing, forty deaths")
    parser.add_argument("--fuzz", type=int, metavar="SECONDS", help=f"how long to fuzz [default: {SAMPLE_FUZZ_S}, with --full {FULL_FUZZ_S}]")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the first seed [default: 1]")
    parser.add_argument("--deaths", type=int, metavar="N", help=f"how often to kill the supervisor [default: {SAMPLE_DEATHS}, with --full {FULL_DEATHS}]")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="only: refusals, attacks, fuzz, deaths, or attacks whose name has this word")
    return parser.parse_args()


def wanted(options, part):
    return not options.only or part in options.only


def check_refusals(cage, options, score):
    """Every documented refusal from inside, listed by the receipt, with advice."""
    with cage.opened([("list", refusals.text())]) as merged:
        run = cage.run(merged, ["/work/refusals", "/work/list"], 60)
        score.tell(f"every refused call answers as documented ({run.stdout.strip().splitlines()[-1] if run.stdout else 'nothing was said'})",
                   [] if run.status == 0 and run.ended == "receipt" else [run.stdout[-600:], run.stderr[-300:], run.abort])
        listed = run.refused()
        score.tell("the receipt lists every refused call", [f"not listed: {name}" for name in sorted(refusals.names()) if name not in listed])
    silent = []
    groups = list(refusals.groups())
    for group in groups if options.full else groups[:: len(groups) // 3]:
        with cage.opened([("list", refusals.text(group))]) as merged:
            told = cage.explain(merged, ["/work/refusals", "/work/list"])
            silent += [f"no word of {name}" for name in sorted(group) if f" {name}: " not in told]
    score.tell("docklock explain says what to change for each", silent)


def check_attacks(cage, options, score):
    words = [word for word in options.only or () if word not in ("refusals", "attacks", "fuzz", "deaths")]
    with cage.opened() as merged:
        for attack in attacks.ATTACKS:
            chosen = any(word in attack.name for word in words) if words else options.full or attack.sample
            if chosen:
                runs = [cage.run(merged, attack.argv, attack.limit_s) for _ in range(2)]
                wrong = attacks.judge(attack, runs)
                score.tell(f"attack: {attack.name} ({runs[0].wall_s:.1f} s, supervisor {runs[0].engine_kib // 1024} MiB)", wrong)


def check_fuzz(cage, options, score):
    seconds = options.fuzz or (FULL_FUZZ_S if options.full else SAMPLE_FUZZ_S)
    witness = None
    try:
        witness = reached.Witness(cage.folder / "tracing")
    except reached.NoWitness as reason:
        print(f"skipped: what fuzzed programs reach in the kernel, because {reason}")
    try:
        total = fuzzing.fuzz(cage, seconds, options.seed, witness, 8)
    finally:
        if witness:
            witness.close()
    for line in fuzzing.told(total):
        print(f"     {line}")
    score.tell(f"fuzz: {total.seeds} seeds", total.wrong[:20])


def check_deaths(cage, options, score):
    count = options.deaths or (FULL_DEATHS if options.full else SAMPLE_DEATHS)
    wrong, reasons, done = deaths.die(cage, count, options.seed)
    for reason in sorted(reasons):
        print(f"     abort: {reason}")
    score.tell(f"deaths of the supervisor: {done}", list(dict.fromkeys(wrong)))


def inside(options):
    docklock = os.environ.get("DOCKLOCK") or shutil.which("docklock")
    if not docklock:
        sys.exit("run.py: the environment variable DOCKLOCK does not say where the CLI is")
    scratch = cages.CACHE / "attacks-work"
    scratch.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=755,size={SCRATCH_BYTES}", "tmpfs", scratch], check=True)
    cage, score = cages.Cages(docklock, scratch / "run"), Score()
    if wanted(options, "refusals"):
        check_refusals(cage, options, score)
    if not options.only or set(options.only) - {"refusals", "fuzz", "deaths"}:
        check_attacks(cage, options, score)
    if wanted(options, "deaths"):
        check_deaths(cage, options, score)
    if wanted(options, "fuzz"):
        check_fuzz(cage, options, score)
    for failure in score.failures:
        print(f"failed: {failure}")
    print(f"{score.passed} passed, {len(score.failures)} failed")
    return 1 if score.failures else 0


def main():
    options = arguments()
    if os.geteuid() != 0:
        print("skipped: attacks on the cage, because containers need root\n0 passed, 0 failed")
        return 0
    if not pathlib.Path("/bin/busybox").exists() or not shutil.which("gcc"):
        print("skipped: attacks on the cage, because /bin/busybox or gcc is missing\n0 passed, 0 failed")
        return 0
    world.enter()
    return inside(options)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except cages.CageError as refusal:
        sys.exit(f"run.py: {refusal}")
