#!/usr/bin/env python3
"""Finality, memory and processor time of a cluster of real validators on this machine."""
import argparse
import datetime
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time

import cluster

# Heights before this one are the start, and are not counted: the validators have no key of their own yet.
CEREMONY = 40
WARM_UP = CEREMONY + 10
FINAL = re.compile(r"^(\S+)Z DEBUG bpi_validator::node::host: final height=(\d+)")


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def processor_s(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_kib(pid):
    """(now, at most) of resident memory."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return tuple(int(re.search(rf"^{name}:\s+(\d+) kB", status, re.M)[1]) for name in ("VmRSS", "VmHWM"))


def latencies_ms(net):
    """Of each header at each node: from the header's time to its finality there."""
    found = []
    for number, node in enumerate(net.nodes):
        times = {}
        for line in net.say(node.config, "headers", "list").splitlines():
            height, _, time_ms, _ = line.split()
            times[int(height)] = int(time_ms)
        for line in node.log.read_text(errors="replace").splitlines():
            said = FINAL.match(line)
            if said and int(said[2]) > WARM_UP:
                at = datetime.datetime.fromisoformat(said[1]).replace(tzinfo=datetime.timezone.utc)
                found.append(at.timestamp() * 1000 - times[int(said[2])])
    return found


def measure(net, seconds, leaves_per_s):
    net.start_all()
    net.wait_for_height(WARM_UP, 60)
    pids = [node.process.pid for node in net.nodes]
    before, began = [processor_s(pid) for pid in pids], time.monotonic()
    first = max(net.heights())
    sent = 0
    while time.monotonic() - began < seconds:
        due = int((time.monotonic() - began) * leaves_per_s) - sent
        if due > 0:
            for tenant in range(4):
                part = [hashlib.sha256(f"{tenant}/{sent + at}".encode()).hexdigest() for at in range(due)][tenant::4]
                if part:
                    net.ask(tenant % len(net.nodes), "/v1/leaves", {"tenant": f"{tenant:032x}", "leaves": part})
            sent += due
        time.sleep(0.1)
    took = time.monotonic() - began
    used = [after - start for after, start in zip(map(processor_s, pids), before)]
    memory = [memory_kib(pid) for pid in pids]
    last = max(net.heights())
    logged = net.status(0)["log"][0]
    figures = net.metrics(0)
    net.stop_all()
    return {
        "validators": len(net.nodes),
        "seconds": round(took, 1),
        "headers": last - first,
        "headers_per_s": round((last - first) / took, 2),
        "leaves": logged,
        "finality_ms": {name: round(percentile(all_ms, share), 1) for all_ms in [latencies_ms(net)] for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))},
        "memory_mib": {"now": round(max(now for now, _ in memory) / 1024, 1), "most": round(max(most for _, most in memory) / 1024, 1)},
        "processor_percent": {"mean": round(100 * sum(used) / took / len(used), 2), "most": round(100 * max(used) / took, 2)},
        "bls_ms": round(1000 * figures["bpi_validator_bls_verify_seconds_sum"] / figures["bpi_validator_bls_verify_seconds_count"], 2),
        "durable_ms": round(1000 * figures["bpi_validator_durable_write_seconds_sum"] / figures["bpi_validator_durable_write_seconds_count"], 2),
        "round_changes": int(figures["bpi_validator_round_changes_total"]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, type=pathlib.Path, help="the folder of bpi-validator, bpi-relay and bpi-devnet-ca")
    parser.add_argument("--validators", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--leaves", type=float, default=100, help="leaves a second")
    parser.add_argument("--block-ms", type=int, default=250)
    parser.add_argument("--format", choices=["text", "json"], default="text")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bpi-validators-"))
    net = cluster.Cluster(arguments.programs, folder, arguments.validators, block_ms=arguments.block_ms, log_level="debug", ceremony_heights=CEREMONY)
    try:
        found = measure(net, arguments.seconds, arguments.leaves)
    except cluster.ClusterError as error:
        print(f"bench: {error}; the folders are in {folder}", file=sys.stderr)
        return 1
    finally:
        net.stop_all()
    shutil.rmtree(folder)
    if arguments.format == "json":
        print(json.dumps(found))
        return 0
    print(f"{found['validators']} validators, {found['seconds']} s, {arguments.block_ms} ms between headers, {found['leaves']} leaves")
    for name, value, goal in [
        ("headers a second", found["headers_per_s"], "4"),
        ("finality p50 / p90 / p99, ms", " / ".join(str(found["finality_ms"][name]) for name in ("p50", "p90", "p99")), "p50 below 1000"),
        ("memory now / most, MiB", f"{found['memory_mib']['now']} / {found['memory_mib']['most']}", "48"),
        ("processor mean / most, % of one", f"{found['processor_percent']['mean']} / {found['processor_percent']['most']}", "5"),
        ("one BLS check, ms", found["bls_ms"], "0.8"),
        ("one durable write, ms", found["durable_ms"], "–"),
        ("rounds without a header", found["round_changes"], "0"),
    ]:
        print(f"{name:34} {value!s:>24}   goal {goal}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
