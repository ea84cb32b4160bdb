#!/usr/bin/env python3
"""Interleaves programs natively (chroot) and in the cage (`docklock run`, profile strict) over the same root file system, and says the ratios.

A program in the cage cannot tell real time, so each says "b" and "e" around its work, and this program reads its clock when the words
arrive: what starting costs is a row of its own. Beside real time stands the processor time of all processes, less that of `true` run the same
way: on a busy machine real time tells of the neighbours too. Prints a table and writes every time as JSON."""

import argparse
import contextlib
import json
import os
import re
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TURNS = 'description = "strict, in turns"\nextends = "strict"\nschedule = "turns"\n'
HOST = 'description = "strict, scheduled by the host"\nextends = "strict"\nschedule = "host"\n'
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
CALLS, FILE_BYTES, RUN_SECONDS_MAX, TRIES = 100_000, 16 << 20, 120, 10
ADDITIONS = "s = 0\nfor i in range(1_000_000): s += i"


def between(command: str) -> list:
    """A shell's builtin says the words, so the program's own start is measured on either side."""
    return ["/bin/sh", "-c", f"echo b; {command} && echo e"]


# name, what is run, goal of the design as a ratio to native (None: it names none), on one processor natively
ROWS = [
    ("100 000 intercepted calls", ["/work/cage", "intercepted"], None, False),
    ("100 000 mixed calls", ["/work/cage", "mixed"], 12, False),
    ("10 000 stat", ["/work/cage", "stats"], None, False),
    ("100 000 clock_gettime of libc", ["/work/cage", "clocks"], None, False),
    ("gzip -9, 16 MiB", between("gzip -9 </work/text >/dev/null"), 1.02, False),
    ("python hello", between("python3 -c 'print(\"hello\")' >/dev/null"), 1.3, False),
    ("python, 10⁶ additions", between(f"python3 -c '{ADDITIONS}'"), 1.3, False),
    ("100 spawns", ["/work/cage", "spawns"], 3, False),
    ("4 threads on a mutex", ["/work/cage", "mutex"], None, False),
    ("· native on one processor", ["/work/cage", "mutex"], 2, True),
    ("gcc -O2, one small file", between("gcc -O2 -c -o /tmp/cage.o /work/cage.c"), 1.8, False),
]


def sh(*words):
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


class Bench:
    """Programs and their input in one folder, and three ways to run them over one root."""

    def __init__(self, docklock: Path, root: Path, folder: Path):
        self.docklock, self.root, self.folder = docklock, root, folder
        self.work, self.merged, self.bundle = folder / "work", folder / "merged", folder / "bundle"
        for name in ("work", "merged", "upper", "overlay", "profiles", "bundle"):
            (folder / name).mkdir()
        sh("gcc", "-O2", "-Wall", "-static", "-pthread", "-o", self.work / "cage", HERE / "bench/cage.c")
        shutil.copy(HERE / "bench/cage.c", self.work)
        self.text()
        self.config = folder / "docklock.toml"
        places = {name: folder / name.removesuffix("_dir") for name in ("state_dir", "spool_dir", "profiles_dir", "stage_dir")}
        self.config.write_text("".join(f'{name} = "{path}"\n' for name, path in {"key_file": folder / "host.key", **places}.items()))
        (folder / "profiles/bench-turns.toml").write_text(TURNS)
        (folder / "profiles/bench-host.toml").write_text(HOST)
        sh(docklock, "--config", self.config, "keygen")
        self.runc = shutil.which("runc")

    def text(self):
        """The same compressible bytes everywhere: the lines of this repository's own program, numbered."""
        lines, size, number = (HERE / "bench/cage.c").read_text().splitlines(), 0, 0
        with open(self.work / "text", "w", encoding="utf-8") as out:
            while size < FILE_BYTES:
                size += out.write(f"{number * 2654435761 % 4294967296:x} {lines[number % len(lines)]}\n")
                number += 1

    @contextlib.contextmanager
    def mounted(self):
        """What `docklock run --rootfs` gives its program, for the others: a fresh layer, /work, and devices."""
        mounts = [
            ("-t", "overlay", "overlay", "-o", f"lowerdir={self.root},upperdir={self.folder}/upper,workdir={self.folder}/overlay", self.merged),
            ("--bind", self.work, self.merged / "work"),
            ("--bind", "/dev", self.merged / "dev"),
            ("-t", "proc", "proc", self.merged / "proc"),
        ]
        done = []
        try:
            for words in mounts:
                sh("mount", *words)
                done.append(words[-1])
            yield
        finally:
            for place in reversed(done):
                sh("umount", place)

    def native(self, words: list) -> list:
        return ["chroot", str(self.merged), *words]

    def native_on_one(self, words: list) -> list:
        return ["taskset", "-c", str(min(os.sched_getaffinity(0))), *self.native(words)]

    def caged(self, words: list, profile="bench-turns") -> list:
        start = [str(self.docklock), "--config", str(self.config), "run", "--quiet", "--rootfs", str(self.root), "--profile", profile]
        return [*start, "--mount", f"/work={self.work}", "--", *words]

    def by_runc(self, words: list) -> list:
        """A container over the mounted root, read-only."""
        if not (self.bundle / "config.json").exists():
            sh("runc", "spec", "--bundle", self.bundle)
        spec = json.loads((self.bundle / "config.json").read_text())
        spec["root"] = {"path": str(self.merged), "readonly": True}
        spec["process"].update(terminal=False, args=words, env=[f"{name}={value}" for name, value in ENVIRONMENT.items()])
        (self.bundle / "config.json").write_text(json.dumps(spec))
        return ["runc", "run", "--bundle", str(self.bundle), f"bpi-bench-{os.getpid()}"]


def failed(words: list, process, said: bytes):
    process.kill()
    process.wait()
    sys.exit(f"{' '.join(words)} ended with {process.returncode} and said {said!r}; standard error: {process.stderr.read().decode(errors='replace')[-2000:]}")


def reaped(process) -> tuple:
    """The status of a process, and the processor time, in ms, of it and of all that it waited for."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, 1000 * (usage.ru_utime + usage.ru_stime)


def work_ms(words: list) -> tuple:
    """Real time between the two words, and processor time of the whole. On a busy machine they may arrive together, and nothing is known: then once more."""
    for _ in range(TRIES):
        taken = tried_ms(words)
        if taken is not None:
            return taken
    sys.exit(f"{' '.join(words)}: both words arrived together {TRIES} times; the machine is too busy")


def tried_ms(words: list) -> tuple | None:
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **ENVIRONMENT})
    said, begun, ended = b"", None, None
    pipe, deadline = process.stdout.fileno(), time.monotonic() + RUN_SECONDS_MAX
    while ended is None:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(pipe, 4096) if ready else b""
        now = time.perf_counter_ns()
        said += piece
        if not piece:
            failed(words, process, said)
        if begun is None and said.startswith(b"b\n"):
            begun = now
        if said.endswith(b"e\n"):
            ended = now
    process.stdout.close()
    status, used = reaped(process)
    if status != 0 or said != b"b\ne\n":
        failed(words, process, said)
    process.stderr.close()
    return ((ended - begun) / 1e6, used) if ended > begun else None


def whole_ms(words: list) -> tuple:
    """Real and processor time of a whole program."""
    with tempfile.TemporaryFile() as said:
        begun = time.perf_counter_ns()
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env={**os.environ, **ENVIRONMENT})
        status, used = reaped(process)
        taken = (time.perf_counter_ns() - begun) / 1e6
        if status != 0:
            said.seek(0)
            sys.exit(f"{' '.join(words)} ended with {status}: {said.read().decode(errors='replace')[-2000:]}")
    return taken, used


def interleaved(ways: dict, measure, rounds: int) -> dict:
    """Each way in turn, the order reversed every second time; one run of each before, for the caches."""
    taken = {name: [] for name in ways}
    for turn in range(-1, rounds):
        for name in list(ways) if turn % 2 == 0 else list(reversed(ways)):
            value = measure(ways[name])
            if turn >= 0:
                taken[name].append(value)
    return taken


def medians(runs: list) -> tuple:
    """Of real and of processor time."""
    return tuple(statistics.median(times) for times in zip(*runs))


def table(result: dict):
    start = {name: medians(runs) for name, runs in result["start_ms"].items()}
    print(f"\n{'medians, ms':<32}{'native':>10}{'caged':>10}{'ratio':>9}{'cpu native':>12}{'cpu caged':>11}{'ratio':>9}{'goal':>7}")
    for name, row in result["rows"].items():
        real, used = zip(medians(row["ms"]["native"]), medians(row["ms"]["caged"]))
        used = used[0] - start["native"][1], used[1] - start["docklock, turns"][1]
        goal = f"{row['goal']:g}" if row["goal"] else "–"
        ratios = [f"{caged / native:.2f}" if native > 0 else "–" for native, caged in (real, used)]
        print(f"{name:<32}{real[0]:>10.2f}{real[1]:>10.2f}{ratios[0]:>9}{used[0]:>12.2f}{used[1]:>11.2f}{ratios[1]:>9}{goal:>7}")
    real, used = medians(result["rows"][ROWS[0][0]]["ms"]["caged"])
    print(f"\nan intercepted call, µs (goal ≤ 2): {1000 * real / CALLS:.2f} real, {1000 * (used - start['docklock, turns'][1]) / CALLS:.2f} cpu")
    print(f"\n{'starting `true`, whole, ms':<32}{'min':>10}{'median':>10}{'cpu':>9}")
    for name, runs in result["start_ms"].items():
        print(f"  {name:<30}{min(runs)[0]:>10.1f}{start[name][0]:>10.1f}{start[name][1]:>9.1f}")
    turns, host = result["start_ms"]["docklock, turns"], result["start_ms"]["docklock, host's schedule"]
    print(f"  added by turns (goal ≤ 5): {min(turns)[0] - min(host)[0]:.1f} of minima, {medians(turns)[1] - medians(host)[1]:.1f} of cpu")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bpi bench cage", description=__doc__)
    parser.add_argument("--programs", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=20, help="runs of each, after one that does not count (default: 20)")
    parser.add_argument("--only", metavar="WORDS", default="", help="rows whose name matches this regular expression")
    parser.add_argument("--json", type=Path, help="where the JSON goes (default: into the cache)")
    options = parser.parse_args()
    cache = Path(os.environ.get("BPI_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bpi")
    out = options.json or cache / "bench" / f"cage-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bpi-bench-") as folder:
        bench = Bench(options.programs.resolve() / "docklock", options.root.resolve(), Path(folder))
        with bench.mounted():
            result = {"load_before": load, "rounds": options.rounds, "rows": {}}
            print(f"…  {options.rounds} rounds of each (load before: {load:.1f})", flush=True)
            for name, words, goal, on_one in ROWS:
                if re.search(options.only, name) or name == ROWS[0][0]:
                    native = bench.native_on_one(words) if on_one else bench.native(words)
                    taken = interleaved({"native": native, "caged": bench.caged(words)}, work_ms, options.rounds)
                    result["rows"][name] = {"goal": goal, "ms": taken}
                    print(f"   {name}", flush=True)
            true = ["/bin/true"]
            ways = {"native": bench.native(true), "docklock, turns": bench.caged(true), "docklock, host's schedule": bench.caged(true, "bench-host")}
            if bench.runc:
                ways["runc"] = bench.by_runc(true)
            result["start_ms"] = interleaved(ways, whole_ms, options.rounds)
    table(result)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(f"\n{out}")


main()
