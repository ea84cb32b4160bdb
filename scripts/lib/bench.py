#!/usr/bin/env python3
"""Interleaves `ctr run` of DockLock and of runc on a containerd of its own, and measures spans, memory and verifying.

Minima and quartiles, because a busy machine only ever adds time. Prints a table and writes the same as JSON."""

import argparse
import collections
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMAGE = "bpi.local/demo:1"
NAMESPACE = "bench"
RUNTIMES = {"docklock": "io.bpi.docklock", "runc": "io.containerd.runc.v2"}


class Containerd:
    def __init__(self, programs: Path, image: Path):
        self.folder = Path(tempfile.mkdtemp(prefix="bpi-bench-"))
        self.socket = self.folder / "c.sock"
        self.programs = programs
        self.spans = self.folder / "spans.jsonl"
        self.key = self.folder / "host.key"
        config = self.folder / "docklock.toml"
        config.write_text(
            f'key_file = "{self.key}"\nstate_dir = "{self.folder}/state"\nspool_dir = "{self.folder}/spool"\n'
            f'profiles_dir = "{self.folder}/profiles"\n'
        )
        (self.folder / "profiles").mkdir()
        (self.folder / "containerd.toml").write_text(
            f'version = 2\nroot = "{self.folder}/root"\nstate = "{self.folder}/run"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "{self.socket}"\n'
        )
        self.environment = dict(os.environ, DOCKLOCK_CONFIG=str(config), PATH=f"{programs}:{os.environ['PATH']}")
        self.environment.pop("RUST_BACKTRACE", None)
        subprocess.run([programs / "docklock", "keygen", "--key-file", self.key], env=self.environment, check=True, stdout=subprocess.DEVNULL)
        self.log = open(self.folder / "log", "wb")
        self.process = None
        self.start(spans=False)
        self.ctr("images", "import", str(image))

    def start(self, spans: bool):
        environment = dict(self.environment)
        if spans:
            environment["DOCKLOCK_SPANS"] = str(self.spans)
        self.process = subprocess.Popen(
            ["containerd", "--config", str(self.folder / "containerd.toml")], env=environment, stdout=self.log, stderr=self.log
        )
        deadline = time.monotonic() + 20
        while subprocess.run(["ctr", "--address", str(self.socket), "version"], capture_output=True).returncode != 0:
            if time.monotonic() > deadline or self.process.poll() is not None:
                sys.exit(f"containerd does not answer; its log: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def ctr(self, *words: str) -> str:
        done = subprocess.run(["ctr", "--address", str(self.socket), "-n", NAMESPACE, *words], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"ctr {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def stop(self):
        self.process.terminate()
        self.process.wait(20)

    def close(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def spawn_ms(words: list, environment: dict) -> float:
    """Wall time of one program from before its start to its reaping."""
    null = os.open(os.devnull, os.O_RDWR)
    begun = time.perf_counter_ns()
    pid = os.posix_spawnp(words[0], words, environment, file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)])
    _, status = os.waitpid(pid, 0)
    taken = (time.perf_counter_ns() - begun) / 1e6
    os.close(null)
    if status != 0:
        sys.exit(f"{' '.join(map(str, words))} ended with status {status}")
    return taken


def summary(values: list) -> dict:
    ordered = sorted(values)
    return {"count": len(ordered), "min": round(ordered[0], 3), "p25": round(ordered[len(ordered) // 4], 3), "median": round(statistics.median(ordered), 3)}


def interleaved(containerd: Containerd, rounds: int) -> dict:
    taken = {name: [] for name in RUNTIMES}
    for turn in range(rounds):
        order = list(RUNTIMES) if turn % 2 == 0 else list(reversed(RUNTIMES))
        for name in order:
            words = ["ctr", "--address", str(containerd.socket), "-n", NAMESPACE, "run", "--rm", "--runtime", RUNTIMES[name], IMAGE, f"{name}-{turn}", "true"]
            taken[name].append(spawn_ms(words, containerd.environment))
        if turn and turn % 20 == 0:
            print(f"   {turn} of {rounds} rounds", flush=True)
    return {name: summary(values) for name, values in taken.items()}


def span_times(containerd: Containerd, rounds: int) -> dict:
    """Spans cost a write each, so they are measured in runs of their own."""
    containerd.stop()
    containerd.start(spans=True)
    for turn in range(rounds):
        containerd.ctr("run", "--rm", "--runtime", RUNTIMES["docklock"], IMAGE, f"span-{turn}", "true")
    spans, per_run = collections.defaultdict(list), collections.defaultdict(float)
    for line in containerd.spans.read_text().splitlines():
        entry = json.loads(line)
        spans[entry["span"]].append(entry["us"] / 1000)
    return {name: summary(values) for name, values in spans.items()}


def pss_kib(containerd: Containerd, name: str) -> dict:
    """PSS of everything that lives only for one idle container: its shim and the shim's children, not the workload."""
    identity = f"idle-{name}"
    containerd.ctr("run", "--detach", "--runtime", RUNTIMES[name], IMAGE, identity, "sleep", "1000")
    time.sleep(4)  # a shim makes itself small after two seconds without work
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if f"-id {identity}" in line and "containerd-shim" in line and NAMESPACE in line:
                    found.append(int(re.search(r"^Pss:\s+(\d+)", (entry / "smaps_rollup").read_text(), re.M).group(1)))
            except OSError:
                continue
    containerd.ctr("tasks", "delete", "--force", identity)
    containerd.ctr("containers", "delete", identity)
    return {"processes": len(found), "pss_kib": sum(found)}


def verify_times(containerd: Containerd, rounds: int) -> dict:
    containerd.ctr("run", "--rm", "--runtime", RUNTIMES["docklock"], IMAGE, "verified", "echo", "hello")
    evidence = containerd.folder / "evidence"
    docklock = str(containerd.programs / "docklock")
    subprocess.run(
        [docklock, "receipts", "export", "--boundary", NAMESPACE, "verified", str(evidence)], env=containerd.environment, check=True, stdout=subprocess.DEVNULL
    )
    words = [docklock, "verify", str(evidence), "--trust", f"{containerd.key}.pub.pem"]
    size = sum(file.stat().st_size for file in evidence.rglob("*") if file.is_file()) if evidence.is_dir() else evidence.stat().st_size
    return {**summary([spawn_ms(words, containerd.environment) for _ in range(rounds)]), "evidence_bytes": size}


def table(result: dict):
    runs = result["ctr_run_ms"]
    print(f"\n{'ctr run --rm … true, interleaved, ms':<42}{'min':>9}{'p25':>9}{'median':>9}")
    for name, times in runs.items():
        print(f"  {name:<40}{times['min']:>9.1f}{times['p25']:>9.1f}{times['median']:>9.1f}")
    ratio = result["ratio"]
    print(f"  {'docklock / runc (goal ≤ 0.80)':<40}{ratio['min']:>9.2f}{ratio['p25']:>9.2f}{ratio['median']:>9.2f}")
    print("\nspans of one run, ms (goal: create to exit ≤ 8 ms)")
    for name, times in sorted(result["spans_ms"].items(), key=lambda item: -item[1]["median"]):
        print(f"  {name:<40}{times['min']:>9.2f}{times['p25']:>9.2f}{times['median']:>9.2f}")
    print("\nmemory of one idle container, PSS (goal ≤ 6 MB)")
    for name, memory in result["idle"].items():
        print(f"  {name:<40}{memory['pss_kib'] / 1024:>9.1f} MiB in {memory['processes']} processes")
    verify = result["verify_ms"]
    print(f"\n{'docklock verify, whole process, ms (≤ 5)':<42}{verify['min']:>9.2f}{verify['p25']:>9.2f}{verify['median']:>9.2f}")
    print(f"  {'evidence, bytes (goal ≤ 6144)':<40}{verify['evidence_bytes']:>9}")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bpi bench", description=__doc__)
    parser.add_argument("--programs", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--image", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=60, help="runs of each runtime (default: 60)")
    parser.add_argument("--json", type=Path, help="where the JSON goes (default: into the cache)")
    options = parser.parse_args()
    cache = Path(os.environ.get("BPI_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bpi")
    out = options.json or cache / "bench" / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    containerd = Containerd(options.programs.resolve(), options.image)
    try:
        for name in RUNTIMES:  # warm the caches of both
            containerd.ctr("run", "--rm", "--runtime", RUNTIMES[name], IMAGE, f"warm-{name}", "true")
        load = os.getloadavg()[0]
        print(f"…  {options.rounds} rounds of each (load before: {load:.1f})", flush=True)
        runs = interleaved(containerd, options.rounds)
        result = {
            "load_before": load,
            "ctr_run_ms": runs,
            "ratio": {key: round(runs["docklock"][key] / runs["runc"][key], 3) for key in ("min", "p25", "median")},
            "idle": {name: pss_kib(containerd, name) for name in RUNTIMES},
            "verify_ms": verify_times(containerd, options.rounds),
            "spans_ms": span_times(containerd, options.rounds),
        }
    finally:
        containerd.close()
    table(result)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{out}")


main()
