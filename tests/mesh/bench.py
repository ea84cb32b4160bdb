#!/usr/bin/env python3
"""How fast records become evidence on one machine: receipts a second from spool to final, the time from container exit to evidence, processor time and
memory of each process, the size of evidence, and how long a whole `docklock verify` takes beside cosign, in turn."""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import world
from world import cluster


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def usage(process):
    """(s of processor time, MiB of memory now, MiB at most)"""
    stat = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("Vm"))
    return (int(stat[11]) + int(stat[12])) / 100, int(status["VmRSS"].split()[0]) / 1024, int(status["VmHWM"].split()[0]) / 1024


def processes(mesh):
    yield "agent", mesh.agent.process
    for pinner in mesh.pinners:
        yield f"pinner {pinner.name}", pinner.process
    for number, node in enumerate(mesh.net.nodes):
        yield f"validator v{number}", node.process
    for number, relay in enumerate(mesh.net.relays):
        yield f"relay r{number}", relay.process


def written(mesh):
    """Folders of evidence that the agent has written since it started."""
    with urllib.request.urlopen(f"http://127.0.0.1:{mesh.ports[0]}/metrics", timeout=5) as answer:
        return next(int(line.split()[1]) for line in answer.read().decode().splitlines() if line.startswith("bpi_agent_evidence_written_total"))


def throughput(mesh, count, known):
    """A backlog of so many receipts becomes final, beside those that are; the agent is bound to one processor, which others share."""
    subprocess.run([str(mesh.programs / "spool-fixture"), str(mesh.folder / "spool"), "flood", str(count)], check=True)
    before = {name: usage(process)[0] for name, process in processes(mesh) if process.poll() is None}
    before["agent"] = 0
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    began = time.monotonic()
    mesh.start_member(mesh.agent)
    os.sched_setaffinity(0, processors)
    mesh.wait(lambda: (status := mesh.status()) and status["included"] >= known + count and status["batches"]["final"] > 0
              and not any(status["batches"][state] for state in ("packed", "kept", "attested")), "the backlog is final", 600)
    took = time.monotonic() - began
    table = []
    for name, process in processes(mesh):
        cpu, now, most = usage(process)
        table.append({"process": name, "cpu_percent": round(100 * (cpu - before.get(name, 0)) / took, 1), "rss_mib": round(now, 1), "peak_mib": round(most, 1)})
    mesh.wait(lambda: written(mesh) >= count, "all evidence is written", 600)
    all_took = time.monotonic() - began
    return {"receipts": count, "seconds": round(took, 2), "receipts_per_s": round(count / took), "with_evidence_s": round(all_took, 2),
            "with_evidence_per_s": round(count / all_took), "processes": table}


def latency(mesh, count, per_s):
    """From the moment in which a receipt is in the spool until its folder of evidence is there."""
    fixture = subprocess.Popen([str(mesh.programs / "spool-fixture"), str(mesh.folder / "spool"), "paced", str(count), str(per_s)], stdout=subprocess.PIPE, text=True)
    written, seen, over = {}, {}, threading.Event()
    folder = mesh.folder / "evidence/paced"

    def watch():
        while not over.is_set() and len(seen) < count:
            now = time.time()
            for path in folder.glob("c*-*") if folder.exists() else ():
                if path.name.endswith(".part"):
                    continue
                seen.setdefault(path.name.split("-")[0], now)
            time.sleep(0.005)
    watcher = threading.Thread(target=watch)
    watcher.start()
    for line in fixture.stdout:
        name, micros = line.split()
        written[name] = int(micros) / 1e6
    fixture.wait()
    watcher.join(60)
    over.set()
    delays = [1000 * (seen[name] - at) for name, at in written.items() if name in seen]
    return {"receipts": count, "per_s": per_s, "seen": len(delays), "p50_ms": round(percentile(delays, 0.5)), "p99_ms": round(percentile(delays, 0.99)),
            "longest_ms": round(max(delays))}


def exits(mesh, count):
    """From the end of `ctr run` until the folder of evidence is there, one container after another."""
    delays, runs = [], []
    for number in range(count):
        began = time.monotonic()
        status, _, error = mesh.container(f"e{number}", "true")
        if status != 0:
            raise cluster.ClusterError(error)
        ended = time.monotonic()
        mesh.wait(lambda: any((mesh.folder / "evidence/mesh").glob(f"e{number}-*[0-9]")) if (mesh.folder / "evidence/mesh").exists() else False, "evidence", 30)
        delays.append(1000 * (time.monotonic() - ended))
        runs.append(1000 * (ended - began))
    return {"containers": count, "p50_ms": round(percentile(delays, 0.5)), "p99_ms": round(percentile(delays, 0.99)), "longest_ms": round(max(delays)),
            "ctr_run_p50_ms": round(percentile(runs, 0.5))}


def verifying(mesh, rounds, cosign, against):
    """Whole processes in turn: docklock verify up to final, that of another build, and cosign of the bundle alone."""
    path = next(path for path in mesh.evidence() if path.parent.name == "mesh")
    docklocks = {"docklock verify --level final": mesh.programs / "docklock"} | ({f"the same of {against}": against} if against else {})
    commands = {name: [str(docklock), "verify", str(path), "--trust", str(mesh.trust), "--level", "final"] for name, docklock in docklocks.items()}
    if cosign:
        commands["cosign verify-blob-attestation (signature alone)"] = [
            str(cosign), "verify-blob-attestation", "--bundle", str(path / "receipt.sigstore.json"), "--key", str(mesh.folder / "host.key.pub.pem"),
            "--type", "https://bpi.io/attestation/execution-receipt/v1", "--insecure-ignore-tlog=true", str(path / "run.json")]
    times = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            began = time.perf_counter()
            done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
            times[name].append(1000 * (time.perf_counter() - began))
            if done.returncode != 0:
                raise cluster.ClusterError(f"{name}: {done.stdout}{done.stderr}")
    sizes = {each.name: each.stat().st_size for each in sorted(path.iterdir())}
    return {"rounds": rounds, "p50_ms": {name: round(statistics.median(each), 2) for name, each in times.items()}, "evidence_bytes": sizes,
            "evidence_bytes_all": sum(sizes.values())}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, type=pathlib.Path)
    parser.add_argument("--backlog", type=int, default=20_000, help="receipts that wait when the agent starts")
    parser.add_argument("--paced", type=int, default=2_000, help="receipts that come one after another")
    parser.add_argument("--per-s", type=float, default=100, help="their pace")
    parser.add_argument("--containers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=30, help="of verifying")
    parser.add_argument("--against", type=pathlib.Path, help="another build's docklock, which verifies in turn")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here")
    arguments = parser.parse_args()
    sys.path.insert(0, str(world.HERE.parent / "conformance/receipts"))
    import tools
    try:
        cosign = tools.cosign()
    except tools.ToolError as error:
        print(f"   without cosign: {error}")
        cosign = None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bpi-mesh-bench-"))
    mesh = world.Mesh(arguments.programs, folder)
    figures = {}
    try:
        mesh.start()
        figures["from container exit to evidence"] = exits(mesh, arguments.containers)
        figures["verifying"] = verifying(mesh, arguments.rounds, cosign, arguments.against)
        figures["from spool to evidence, paced"] = latency(mesh, arguments.paced, arguments.per_s)
        mesh.agent.process.terminate()
        mesh.agent.process.wait()
        included = sum(1 for kind in mesh.records().values() if kind != "intent")
        figures["a backlog from spool to final"] = throughput(mesh, arguments.backlog, included)
    finally:
        mesh.stop()
        shutil.rmtree(folder)
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
