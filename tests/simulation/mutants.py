"""Plants each bug of mutants.toml in a copy of the tree, and lets the simulator look for it.

    mutants.py [--only NAME…] [--seconds N] [--seeds N] [--json FILE]

A mutant is killed when a history goes wrong. Seeds are tried in order in each cluster size of the mutant, in slices that grow, until one is found
or the time is over and so many seeds were tried, however busy the machine is. The copy and its build are kept in $BPI_CACHE/mutants.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIST = pathlib.Path(__file__).with_name("mutants.toml")
BUILD_LIMIT_S = 600
FIRST_SLICE_S = 2


def copy_of_the_tree(target):
    """The files that git knows or would know, and nothing that is built."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True)
    wanted = {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}
    for old in [path for path in target.rglob("*") if path.is_file()]:
        if str(old.relative_to(target)) not in wanted:
            old.unlink()
    for name in wanted:
        source, copy = ROOT / name, target / name
        if not copy.exists() or copy.read_bytes() != source.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


class Tree:
    """The copy, and what is built of it."""

    def __init__(self, cache):
        self.place = cache / "tree"
        self.place.mkdir(parents=True, exist_ok=True)
        # Between two mutants a few lines differ: what was compiled for the one before serves.
        self.environment = dict(os.environ, CARGO_TARGET_DIR=str(cache / "target"), CARGO_INCREMENTAL="1", CARGO_PROFILE_CI_CODEGEN_UNITS="64")
        copy_of_the_tree(self.place)

    def build(self, beacon=False):
        """The simulator's path, or the compiler's last words."""
        command = ["cargo", "build", "--quiet", "--locked", "--profile", "ci", "-p", "bpi-simulation"]
        if beacon:
            command += ["--features", "beacon"]
        done = subprocess.run(command, cwd=self.place, env=self.environment, capture_output=True, text=True, timeout=BUILD_LIMIT_S)
        simulator = pathlib.Path(self.environment["CARGO_TARGET_DIR"]) / "ci/bpi-sim"
        return (simulator, "") if done.returncode == 0 else (None, done.stderr[-600:])

    def with_bug(self, mutant):
        """Plants a bug. Returns what takes it out again."""
        path = self.place / mutant["file"]
        sound = path.read_text(encoding="utf-8")
        if sound.count(mutant["find"]) != 1:
            sys.exit(f"mutants.py: {mutant['name']}: its text occurs {sound.count(mutant['find'])} times in {mutant['file']}")
        path.write_text(sound.replace(mutant["find"], mutant["replace"]), encoding="utf-8")
        return lambda: path.write_text(sound, encoding="utf-8")


def hunt(simulator, sizes, seconds, seeds, beacon=False):
    """Looks for a history that goes wrong. Returns what it found and in how many seeds, or None and the seeds tried."""
    tried, slice_s, first = 0, FIRST_SLICE_S, dict.fromkeys(sizes, 0)
    started = time.monotonic()
    while time.monotonic() - started < seconds or tried < seeds:
        for size in sizes:
            command = [simulator, *(["--beacon"] if beacon else []), "-n", str(size), "--seed", str(first[size]), "--seeds", str(1 << 40), "--seconds", str(slice_s)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                last = re.search(r"seed (\d+), \d+ validators: (.*)", done.stdout)
                if not last:
                    return f"the simulator itself ended: {done.stderr.strip().splitlines()[:1]}", tried + 1
                return f"{last[2]} (n = {size}, seed {last[1]})", tried + int(last[1]) - first[size] + 1
            count = int(re.search(r"(\d+) seeds", done.stdout)[1])
            tried, first[size] = tried + count, first[size] + count
        slice_s *= 2
    return None, tried


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these mutants")
    parser.add_argument("--seconds", type=int, default=60, help="time for each [default: 60]")
    parser.add_argument("--seeds", type=int, default=4000, help="and at least so many seeds [default: 4000]")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write what was found there too")
    options = parser.parse_args()
    mutants = tomllib.loads(LIST.read_text(encoding="utf-8"))["mutant"]
    unknown = set(options.only or []) - {mutant["name"] for mutant in mutants}
    if unknown:
        sys.exit(f"mutants.py: no mutant {', '.join(sorted(unknown))}")
    cache = pathlib.Path(os.environ.get("BPI_CACHE", pathlib.Path.home() / ".cache/bpi")) / "mutants"
    tree = Tree(cache)
    simulator, words = tree.build()
    if not simulator:
        sys.exit(f"mutants.py: the sound tree does not build: {words}")
    found, _ = hunt(simulator, [4], FIRST_SLICE_S, 0)
    if found:
        sys.exit(f"mutants.py: the sound tree goes wrong: {found}")
    results = []
    for mutant in mutants:
        if options.only and mutant["name"] not in options.only:
            continue
        restore = tree.with_bug(mutant)
        try:
            beacon = mutant.get("beacon", False)
            simulator, words = tree.build(beacon)
            if not simulator:
                sys.exit(f"mutants.py: {mutant['name']} does not build: {words}")
            # A seed of the beacon takes as long as a hundred others.
            wanted = options.seeds // 100 if beacon else options.seeds
            found, seeds = hunt(simulator, mutant.get("sizes", [4]), options.seconds, wanted, beacon)
        finally:
            restore()
        results.append({"name": mutant["name"], "found": found, "seeds": seeds})
        print(f"{'killed  ' if found else 'SURVIVES'} {mutant['name']:36} {seeds:>8} seeds  {found or ''}", flush=True)
    survivors = [result["name"] for result in results if not result["found"]]
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(f"{len(results) - len(survivors)} passed, {len(survivors)} failed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
