#!/usr/bin/env python3
"""Interleaves programs natively (chroot), by runc, and in the cage (`docklock run`, profile strict) over the same root file system, and says the
ratios. With a runsc (gVisor) in PATH, or by --runsc, that one too; Debian has one, whose platform ptrace needs nothing of the machine.

A program in the cage cannot tell real time, so each says "b" and "e" around its work, and this program reads its clock when the words
arrive: what starting costs is a row of its own. Beside real time stands the processor time of all processes, less that of `true` run the same
way: on a busy machine real time tells of the neighbours too. Beside medians stand the ratios of minima. Prints tables and writes every time as JSON."""

import argparse
import contextlib
import json
import math
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
CALLS, FILE_BYTES, RUN_SECONDS_MAX, TRIES = 100_000, 16 << 20, 600, 10
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
    ("build: gcc -O2, one small file", between("gcc -O2 -c -o /tmp/cage.o /work/cage.c"), None, False),
    ("build: g++ -O2, one file of templates", between("g++ -O2 -c -o /tmp/table.o /work/project/table.cc"), None, False),
    ("build: configure of a small package", between("rm -rf /tmp/new && mkdir /tmp/new && cd /tmp/new && /work/project/configure -q"), None, False),
    ("build: make of it, 9 C files, ar, link", between("rm -rf /tmp/built && cp -r /work/built /tmp/built && make -s -C /tmp/built"), None, False),
]
BUILD, BUILD_GOAL = "build: ", 1.8


def sh(*words):
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


class Bench:
    """Programs and their input in one folder, and three ways to run them over one root."""

    def __init__(self, docklock: Path, root: Path, folder: Path, runsc: str | None):
        self.docklock, self.root, self.folder = docklock, root, folder
        self.work, self.merged, self.bundle = folder / "work", folder / "merged", folder / "bundle"
        for name in ("work", "merged", "upper", "overlay", "profiles", "bundle"):
            (folder / name).mkdir()
        sh("gcc", "-O2", "-Wall", "-static", "-pthread", "-o", self.work / "cage", HERE / "bench/cage.c")
        shutil.copy(HERE / "bench/cage.c", self.work)
        shutil.copytree(HERE / "bench/project", self.work / "project")
        self.text()
        self.config = folder / "docklock.toml"
        places = {name: folder / name.removesuffix("_dir") for name in ("state_dir", "spool_dir", "profiles_dir", "stage_dir")}
        self.config.write_text("".join(f'{name} = "{path}"\n' for name, path in {"key_file": folder / "host.key", **places}.items()))
        (folder / "profiles/bench-turns.toml").write_text(TURNS)
        (folder / "profiles/bench-host.toml").write_text(HOST)
        sh(docklock, "--config", self.config, "keygen")
        self.runc, self.runsc = shutil.which("runc"), runsc

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

    def prepare_builds(self):
        """A configure script, and a folder that it has configured."""
        script = "cd /work/project && autoconf && autoheader && rm -rf autom4te.cache && mkdir /work/built && cd /work/built && /work/project/configure -q"
        sh(*self.native(["/bin/sh", "-c", script]))

    def bundled(self, words: list):
        """A container over the mounted root, for whoever reads bundles; one at a time."""
        if not (self.bundle / "config.json").exists():
            sh("runc", "spec", "--bundle", self.bundle)
        spec = json.loads((self.bundle / "config.json").read_text())
        spec["root"] = {"path": str(self.merged), "readonly": False}
        spec["process"].update(terminal=False, args=words, env=[f"{name}={value}" for name, value in ENVIRONMENT.items()])
        (self.bundle / "config.json").write_text(json.dumps(spec))

    def by_runc(self, words: list) -> list:
        self.bundled(words)
        return ["runc", "run", "--bundle", str(self.bundle), f"bpi-bench-{os.getpid()}"]

    def by_runsc(self, words: list) -> list:
        self.bundled(words)
        own = ["--root", str(self.folder / "runsc"), "--platform=ptrace", "--network=none", "--ignore-cgroups"]
        return [self.runsc, *own, "run", "-bundle", str(self.bundle), f"bpi-bench-{os.getpid()}"]

    def ways(self, words: list, on_one: bool) -> dict:
        ways = {"native": self.native_on_one(words) if on_one else self.native(words), "caged": self.caged(words)}
        if self.runc and not on_one:
            ways["runc"] = self.by_runc(words)
        if self.runsc and not on_one:
            ways["runsc"] = self.by_runsc(words)
        return ways


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


def minima(runs: list) -> tuple:
    return tuple(min(times) for times in zip(*runs))


def used(result: dict, name: str, way: str, middle) -> float:
    """Processor time of a row, less that of `true` run the same way."""
    starts = {"native": "native", "caged": "docklock, turns"}
    return middle(result["rows"][name]["ms"][way])[1] - middle(result["start_ms"][starts.get(way, way)])[1]


def ratio(above: float, below: float) -> str:
    return f"{above / below:.2f}" if below > 0 and above > 0 else "–"


def table(result: dict):
    others = [way for way in ("runc", "runsc") if any(way in row["ms"] for row in result["rows"].values())]
    print(f"\n{'caged, medians in ms':<40}{'native':>10}{'caged':>10}{'ratio':>8}{'of min':>8}{'cpu native':>12}{'cpu caged':>11}{'ratio':>8}{'of min':>8}{'goal':>6}")
    for name, row in result["rows"].items():
        native, caged = medians(row["ms"]["native"])[0], medians(row["ms"]["caged"])[0]
        least = ratio(minima(row["ms"]["caged"])[0], minima(row["ms"]["native"])[0])
        cpu = [used(result, name, way, medians) for way in ("native", "caged")]
        least_cpu = ratio(*(used(result, name, way, minima) for way in ("caged", "native")))
        goal = f"{row['goal']:g}" if row["goal"] else "–"
        print(f"{name:<40}{native:>10.2f}{caged:>10.2f}{ratio(caged, native):>8}{least:>8}{cpu[0]:>12.2f}{cpu[1]:>11.2f}{ratio(cpu[1], cpu[0]):>8}{least_cpu:>8}{goal:>6}")
    mean_of_builds(result)
    if others:
        print(f"\n{'against native, ratios of medians':<40}" + "".join(f"{way + ' real':>14}{way + ' cpu':>14}" for way in ["caged", *others]))
        for name, row in result["rows"].items():
            if all(way in row["ms"] for way in others):
                native, cpu = medians(row["ms"]["native"])[0], used(result, name, "native", medians)
                cells = [(ratio(medians(row["ms"][way])[0], native), ratio(used(result, name, way, medians), cpu)) for way in ["caged", *others]]
                print(f"{name:<40}" + "".join(f"{real:>14}{of_cpu:>14}" for real, of_cpu in cells))
    first = ROWS[0][0]
    real = [middle(result["rows"][first]["ms"]["caged"])[0] for middle in (medians, minima)]
    cpu = [used(result, first, "caged", middle) for middle in (medians, minima)]
    print(f"\nan intercepted call, µs (goal ≤ 2): {1000 * real[0] / CALLS:.2f} real, {1000 * cpu[0] / CALLS:.2f} cpu; of minima {1000 * real[1] / CALLS:.2f} and {1000 * cpu[1] / CALLS:.2f}")
    print(f"\n{'starting `true`, whole, ms':<32}{'min':>10}{'median':>10}{'cpu':>9}")
    for name, runs in result["start_ms"].items():
        print(f"  {name:<30}{minima(runs)[0]:>10.1f}{medians(runs)[0]:>10.1f}{medians(runs)[1]:>9.1f}")
    turns, host = result["start_ms"]["docklock, turns"], result["start_ms"]["docklock, host's schedule"]
    print(f"  added by turns (goal ≤ 5): {minima(turns)[0] - minima(host)[0]:.1f} of minima, {medians(turns)[1] - medians(host)[1]:.1f} of cpu")


def mean_of_builds(result: dict):
    builds = [name for name in result["rows"] if name.startswith(BUILD)]
    if builds:
        real = [medians(result["rows"][name]["ms"]["caged"])[0] / medians(result["rows"][name]["ms"]["native"])[0] for name in builds]
        cpu = [used(result, name, "caged", medians) / used(result, name, "native", medians) for name in builds]
        mean = lambda ratios: math.exp(statistics.fmean(map(math.log, ratios)))
        print(f"geometric mean of {len(builds)} builds (goal ≤ {BUILD_GOAL}): {mean(real):.2f} real, {mean(cpu):.2f} cpu")


def keep(out: Path, result: dict):
    """What is known so far: a bench on a busy machine takes its time."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bpi bench cage", description=__doc__)
    parser.add_argument("--programs", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=20, help="runs of each, after one that does not count (default: 20)")
    parser.add_argument("--only", metavar="WORDS", default="", help="rows whose name matches this regular expression")
    parser.add_argument("--runsc", default=shutil.which("runsc"), help="a runsc to measure too (default: the one in PATH, if any)")
    parser.add_argument("--json", type=Path, help="where the JSON goes (default: into the cache)")
    options = parser.parse_args()
    cache = Path(os.environ.get("BPI_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bpi")
    out = options.json or cache / "bench" / f"cage-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bpi-bench-") as folder:
        bench = Bench(options.programs.resolve() / "docklock", options.root.resolve(), Path(folder), options.runsc)
        with bench.mounted():
            bench.prepare_builds()
            result = {"load_before": load, "rounds": options.rounds, "rows": {}}
            print(f"…  {options.rounds} rounds of each (load before: {load:.1f})", flush=True)
            true = ["/bin/true"]
            ways = {"native": bench.native(true), "docklock, turns": bench.caged(true), "docklock, host's schedule": bench.caged(true, "bench-host")}
            if bench.runc:
                ways["runc"] = bench.by_runc(true)
            if bench.runsc:
                ways["runsc"] = bench.by_runsc(true)
            result["start_ms"] = interleaved(ways, whole_ms, options.rounds)
            for name, words, goal, on_one in ROWS:
                if re.search(options.only, name) or name == ROWS[0][0]:
                    taken = interleaved(bench.ways(words, on_one), work_ms, options.rounds)
                    result["rows"][name] = {"goal": goal, "ms": taken}
                    print(f"   {name}", flush=True)
                    keep(out, result)
    table(result)
    print(f"\n{out}")


main()
