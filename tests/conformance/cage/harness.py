#!/usr/bin/env python3
"""Runs every program of the corpus natively and caged, many times on varied hosts, and says which of them stay the same.

    harness.py [--full] [--only NAME…] [--runs N] [--spinners N] [--json FILE] …

Without --full it is a sample that takes about three minutes. The path of the CLI comes from the environment variable DOCKLOCK, everything
that is kept goes below BPI_CACHE. Needs root. Ends with `N passed, N failed`; exit status 1 if a program fell short of what programs.toml
says, above all if it differed in silence: run-hashes that differ while no receipt names a source that was not controlled.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import corpus
import roots
import runs
import table
import variations
import world

CACHE = pathlib.Path(os.environ.get("BPI_CACHE") or pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "bpi")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--full", action="store_true", help="all programs; makes the Debian root if it is not there")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these programs (or rows)")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each kind for a program [default: 3, with --full 20]")
    parser.add_argument("--spinners", type=int, metavar="N", help="processes that only burn time [default: 4, with --full 16]")
    parser.add_argument("--loaded", type=float, metavar="SHARE", help="share of the runs that have them beside [default: 0.34]")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many programs at once; above 1 the slowdowns tell little [default: 1]")
    parser.add_argument("--levels", action="store_true", help="one more caged run of each, with its root measured, tells the level; else it is D0")
    parser.add_argument("--profile", help="this profile instead of each program's own")
    parser.add_argument("--native-runs", type=int, metavar="N", help="of these so many natively [default: all]")
    parser.add_argument("--other-root", action="store_true", help="every second run in a copy of the root in memory, filled in another order")
    parser.add_argument("--seconds", type=int, metavar="N", help="begin no new round after this time [default: 150, with --full none]")
    parser.add_argument("--limit", type=int, metavar="SECONDS", help="no run may take longer [default: what programs.toml says]")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--list", action="store_true", help="list the corpus by row and end")
    options = parser.parse_args()
    options.runs = options.runs or (20 if options.full else 3)
    options.native_runs = options.runs if options.native_runs is None else options.native_runs
    return options


def choose(programs, options):
    if options.only:
        chosen = [program for program in programs if program.name in options.only or program.row in options.only]
        unknown = set(options.only) - {program.name for program in chosen} - {program.row for program in chosen}
        if unknown:
            raise corpus.CorpusError(f"no program and no row is called {', '.join(sorted(unknown))}")
        return chosen
    return [program for program in programs if options.full or program.sample]


def prepare(programs, root, workshop):
    """The programs that can run in this root, with their files; the others are said to be skipped."""
    ready, away = [], {}
    for program in programs:
        missing = [need for need in program.needs if not root.has(need)]
        try:
            if missing:
                raise corpus.CorpusError(f"the root has no {', '.join(missing)}")
            if program.user != "root":
                root.ids(program.user)
            ready.append((program, workshop.parts(program)))
        except (corpus.CorpusError, roots.RootError) as reason:
            away.setdefault(str(reason), []).append(program.name)
    for reason, names in away.items():
        print(f"skipped: {', '.join(names)}, because {reason}")
    return ready


def rounds(options):
    """Each round is one host. Rounds rather than programs go outside, so that what drifts on this machine hits all alike."""
    share = 0.34 if options.loaded is None else options.loaded
    for number in range(options.runs):
        # The first round is never loaded, the second is, if any.
        yield variations.vary(number, loaded=number > 0 and ((number - 1) * share) % 1 < share)


def turn(options, runner, root, program, parts, variation, result):
    """One program's part of a round."""
    if len(result.native) < options.native_runs:
        result.native.append(runner.native(root, program, parts, variation))
        if len(result.native) == 1:
            runner.keep(program, "native", result.native[0])
    # A program that never comes to its end tells nothing new the next time.
    if sum(bool(outcome.failure) for outcome in result.caged) < 2:
        result.caged.append(runner.caged(root, program, parts, variation, options.profile))
    if result.told_new():
        runner.keep(program, f"run{variation.number}", result.caged[-1])
    if variation.number == 0 and options.levels:
        result.measured = runner.caged(root, program, parts, variation, options.profile, ("--pin",))


def play(options, ready, roots_at_hand, runner, load):
    results = {program.name: table.Result(program) for program, _ in ready}
    started = time.monotonic()
    seconds = options.seconds or (None if options.full or options.only else 150)
    for variation in rounds(options):
        if variation.number > 1 and seconds and time.monotonic() - started > seconds:
            print(f"   no more rounds after {variation.number}: {seconds} s are over", flush=True)
            break
        root = roots_at_hand[variation.number % len(roots_at_hand)]
        load.want(variation.loaded, variation.memory_mib)
        with concurrent.futures.ThreadPoolExecutor(max_workers=max(options.jobs, 1)) as at_once:
            turns = [at_once.submit(turn, options, runner, root, program, parts, variation, results[program.name]) for program, parts in ready]
            for (program, _), one in zip(ready, turns):
                one.result()
                print(f"   round {variation.number + 1} of {options.runs}{' loaded' if variation.loaded else ''}: {program.name} {results[program.name].progress()}", flush=True)
    return list(results.values())


def main():
    options = arguments()
    programs = corpus.load()
    if options.list:
        for row in corpus.ROWS:
            print(f"{row:<16}{' '.join(program.name for program in programs if program.row == row)}")
        return 0
    if os.geteuid() != 0:
        print("skipped: the determinism corpus, because containers need root\n0 passed, 0 failed")
        return 0
    world.enter()
    docklock = os.environ.get("DOCKLOCK") or shutil.which("docklock")
    if not docklock:
        raise corpus.CorpusError("the environment variable DOCKLOCK does not say where the CLI is")
    programs = choose(programs, options)
    for program in programs:
        program.timeout_s = min(program.timeout_s, options.limit or program.timeout_s)
    scratch = CACHE / "conformance-work"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    debian = CACHE / "conformance-root"
    if options.full:
        roots.make_debian(debian)
    root = roots.Root(debian, True, scratch) if roots.debian_is_made(debian) else roots.small(CACHE / "conformance-small", scratch)
    ready = prepare(programs, root, corpus.Workshop(CACHE / "conformance-programs", root))
    at_hand = [root]
    if options.other_root:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=True)
        at_hand.append(roots.other_copy(root, pathlib.Path("/mnt/root"), 1))
    runner = runs.Runner(pathlib.Path(docklock).resolve(), scratch, CACHE / "conformance-kept")
    runner.prepare()
    shutil.rmtree(runner.kept, ignore_errors=True)
    load = variations.Load(options.spinners if options.spinners is not None else 16 if options.full else 4)
    try:
        results = play(options, ready, at_hand, runner, load)
    finally:
        load.close()
        shutil.rmtree(scratch, ignore_errors=True)
    return table.show(results, options.json, runner.kept)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (corpus.CorpusError, roots.RootError, runs.RunError) as refusal:
        sys.exit(f"harness.py: {refusal}")
