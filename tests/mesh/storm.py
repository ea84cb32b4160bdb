#!/usr/bin/env python3
"""Containers run while agent, relays, pinners and validators are ended by kill -9 or stand still, at random.

What must hold afterwards: each intent is closed by a receipt or an abort; each of those is in the validators' log exactly once; each receipt has
evidence that verifies offline up to final; cosign takes the same bundles."""
import argparse
import concurrent.futures
import functools
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

import postgres
import world
from world import cluster

# Until all is final after the last kill.
PATIENCE_S = 240


class Storm:
    def __init__(self, mesh, seed):
        self.mesh, self.random = mesh, random.Random(seed)
        self.kills, self.stills = {}, 0
        self.over = threading.Event()

    def count(self, what):
        self.kills[what] = self.kills.get(what, 0) + 1

    def member(self, member):
        member.process.kill()
        member.process.wait()
        self.count(member.program)
        self.over.wait(self.random.random() * 2)
        self.mesh.start_member(member)

    def validator(self):
        net = self.mesh.net
        number = self.random.randrange(len(net.nodes))
        net.kill(number)
        self.count("bpi-validator")
        self.over.wait(self.random.random() * 2)
        net.start(number)

    def relay(self):
        net = self.mesh.net
        number = self.random.randrange(len(net.relays))
        net.relays[number].process.kill()
        net.relays[number].process.wait()
        self.count("bpi-relay")
        self.over.wait(self.random.random() * 2)
        net.start_relay(number)

    def still(self):
        """Cut off: a process that stands still answers nobody, and comes back with all it held."""
        running = [self.mesh.agent.process, *(pinner.process for pinner in self.mesh.pinners),
                   *(node.process for node in self.mesh.net.nodes), *(relay.process for relay in self.mesh.net.relays)]
        process = self.random.choice(running)
        process.send_signal(signal.SIGSTOP)
        self.stills += 1
        self.over.wait(self.random.random() * 5)
        process.send_signal(signal.SIGCONT)

    def run(self):
        while not self.over.is_set():
            self.over.wait(0.2 + self.random.random())
            if self.over.is_set():
                return
            self.random.choice([
                lambda: self.member(self.mesh.agent), lambda: self.member(self.random.choice(self.mesh.pinners)),
                self.validator, self.relay, self.still])()


def check(mesh, containers, seen):
    """(name, whether it holds, what was found)"""
    gaps = subprocess.run([str(mesh.programs / "docklock"), "--config", str(mesh.docklock), "receipts", "gaps"], capture_output=True, text=True)
    yield "every intent is closed, and the chain has no gap", gaps.returncode == 0, gaps.stdout + gaps.stderr
    kinds = list(mesh.records().values())
    closing = len(kinds) - kinds.count("intent")
    yield "there are as many receipts and aborts as intents", kinds.count("intent") == closing and closing >= containers, (len(kinds), closing)
    logged, logs = mesh.logged(closing)
    yield "each is in the validators' log exactly once", logged, (logs, closing)
    evidence = mesh.evidence()
    yield "each receipt has evidence", len(evidence) == kinds.count("receipt"), (len(evidence), kinds.count("receipt"))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        wrong = [(path, said) for path, (status, said) in zip(evidence, pool.map(mesh.verify, evidence)) if status != 0]
    yield f"all {len(evidence)} verify offline up to final", not wrong, wrong[:2]
    status = mesh.status()
    yield "the agent has told of no container without a receipt", status["incidents"] == seen["incidents"], status


def cosign(mesh, count):
    """cosign, of so many pieces of evidence; None when it cannot be had."""
    sys.path.insert(0, str(world.HERE.parent / "conformance/receipts"))
    import tools
    try:
        program = tools.cosign()
    except tools.ToolError as error:
        print(f"skipped: cosign, because {error}", flush=True)
        return None
    evidence = mesh.evidence()
    wrong = []
    for path in random.Random(1).sample(evidence, min(count, len(evidence))):
        command = [str(program), "verify-blob-attestation", "--bundle", str(path / "receipt.sigstore.json"), "--key", str(mesh.folder / "host.key.pub.pem"),
                   "--type", "https://bpi.io/attestation/execution-receipt/v1", "--insecure-ignore-tlog=true", str(path / "run.json")]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            wrong.append((path, done.stderr.strip().splitlines()[-1:]))
    return wrong


def cases(mesh, storm, arguments):
    """Runs the containers in the storm, waits until it is over and all is final, and looks at what there is."""
    thread = threading.Thread(target=storm.run)
    seen = mesh.status()
    began = last = time.monotonic()
    if not arguments.calm:
        thread.start()
    try:
        wrong = []
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            jobs = [pool.submit(mesh.container, f"c{number}", "sh", "-c", f"echo {number}") for number in range(arguments.containers)]
            for done, job in enumerate(concurrent.futures.as_completed(jobs), 1):
                if job.result()[0] != 0:
                    wrong.append(job.result())
                if time.monotonic() - last > 15:
                    last = time.monotonic()
                    print(f"   {done} of {arguments.containers} containers, killed: {storm.kills}, stood still: {storm.stills}", flush=True)
    finally:
        ran = time.monotonic() - began
        storm.over.set()
        if thread.ident:
            thread.join()
    mesh.wait(mesh.settled, "all is final", PATIENCE_S)
    final = time.monotonic() - began
    mesh.wait_for_evidence(60)
    yield "every container ended as it should", not wrong, wrong[:3]
    yield from check(mesh, arguments.containers, seen)
    if arguments.cosign and (refused := cosign(mesh, arguments.cosign)) is not None:
        yield "cosign takes the same bundles", not refused, refused[:2]
    print(f"   {arguments.containers} containers in {ran:.0f} s, all final after {final:.0f} s; killed: {storm.kills}; stood still: {storm.stills}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, type=pathlib.Path, help="the folder of all programs")
    parser.add_argument("--containers", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=4, help="containers at a time")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--cosign", type=int, default=100, help="pieces of evidence that cosign is given")
    parser.add_argument("--postgres", action="store_true", help="the agent's db.class is in PostgreSQL, and not in SQLite")
    parser.add_argument("--calm", action="store_true", help="end nobody")
    parser.add_argument("--keep", action="store_true", help="keep the folders")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else time.time_ns() % 1_000_000
    print(f"   seed {seed}, {arguments.containers} containers", flush=True)
    show = functools.partial(world.show, "bpi-mesh-", arguments.programs, lambda mesh: cases(mesh, Storm(mesh, seed), arguments), keep=arguments.keep)
    if not arguments.postgres:
        return show()
    try:
        with postgres.database() as url:
            return show(class_url=url)
    except postgres.Missing as missing:
        print(f"skipped: a storm on PostgreSQL, because {missing}")
        return 0


if __name__ == "__main__":
    sys.exit(main())
