#!/usr/bin/env python3
"""Runs every program of the corpus natively and caged, many times on varied hosts, and says which of them stay the same.

    harness.py [--full] [--only NAME…] [--runs N] [--spinners N] [--json FILE] …

Without --full it is a sample that takes about three minutes. The path of the CLI comes from the environment variable DOCKLOCK, everything
that is kept goes below BPI_CACHE. Needs root. Ends with `N passed, N failed`; exit status 1 if a program fell short of what programs.toml
says, above all if it differed in silence: run-hashes that differ while no receipt names a source that was not controlled.
"""
import argparse
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

CACHE = pathlib.Path(os.environ.get("BPI_CACHE") or pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "bpi")
STAGE = "BPI_CONFORMANCE_STAGE"


def own_world():
    """Starts this program again where mounts and processes are its own: when that ends, for whatever reason, nothing of it is left."""
    command = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, *sys.argv]
    return subprocess.call(command, env=dict(os.environ, **{STAGE: "init"}))


def reap():
    """Process 1 of that world: it only waits."""
    child = subprocess.Popen([sys.executable, *sys.argv], env=dict(os.environ, **{STAGE: "inside"}))
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            return os.waitstatus_to_exitcode(status) & 0xFF


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--full", action="store_true", help="all programs; makes the Debian root if it is not there")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these programs (or rows)")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each kind for a program [default: 3, with --full 20]")
    parser.add_argument("--spinners", type=int, metavar="N", help="processes that only burn time [default: 4, with --full 16]")
    parser.add_argument("--loaded", type=float, metavar="SHARE", help="share of the runs that have them beside [default: 0.34]")
    parser.add_argument("--profile", help="this profile instead of each program's own")
    parser.add_argument("--no-native", action="store_true", help="caged runs only")
    parser.add_argument("--other-root", action="store_true", help="every second run in a copy of the root in memory, filled in another order")
    parser.add_argument("--seconds", type=int, metavar="N", help="begin no new round after this time [default: 150, with --full none]")
    parser.add_argument("--limit", type=int, metavar="SECONDS", help="no run may take longer [default: what programs.toml says]")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--list", action="store_true", help="list the corpus by row and end")
    return parser.parse_args()


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


def rounds(options, count):
    """Each round is one host. Rounds rather than programs go outside, so that what drifts on this machine hits all alike."""
    share = 0.34 if options.loaded is None else options.loaded
    for number in range(count):
        # The first round is never loaded, the second is, if any.
        yield variations.vary(number, loaded=number > 0 and ((number - 1) * share) % 1 < share)


def play(options, ready, roots_at_hand, runner, load, count):
    results = {program.name: table.Result(program) for program, _ in ready}
    started = time.monotonic()
    seconds = options.seconds or (None if options.full or options.only else 150)
    for variation in rounds(options, count):
        if variation.number > 1 and seconds and time.monotonic() - started > seconds:
            print(f"   no more rounds after {variation.number}: {seconds} s are over", flush=True)
            break
        root = roots_at_hand[variation.number % len(roots_at_hand)]
        load.want(variation.loaded, variation.memory_mib)
        for program, parts in ready:
            result = results[program.name]
            if not options.no_native:
                result.native.append(runner.native(root, program, parts, variation))
                if len(result.native) == 1:
                    runner.keep(program, "native", result.native[0])
            # A program that never comes to its end tells nothing new the next time.
            if sum(bool(outcome.failure) for outcome in result.caged) < 2:
                result.caged.append(runner.caged(root, program, parts, variation, options.profile))
            if result.told_new():
                runner.keep(program, f"run{variation.number}", result.caged[-1])
            print(f"   round {variation.number + 1} of {count}{' loaded' if variation.loaded else ''}: {program.name} {result.progress()}", flush=True)
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
    stage = os.environ.pop(STAGE, "")
    if stage != "inside":
        return reap() if stage == "init" else own_world()
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
        results = play(options, ready, at_hand, runner, load, options.runs or (20 if options.full else 3))
    finally:
        load.close()
        shutil.rmtree(scratch, ignore_errors=True)
    return table.show(results, options.json, runner.kept)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (corpus.CorpusError, roots.RootError, runs.RunError) as refusal:
        sys.exit(f"harness.py: {refusal}")
