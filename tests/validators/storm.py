#!/usr/bin/env python3
"""kill -9 upon a cluster of real validators, all at once or some at any moment, for as long as is asked.

What must hold: a header that one node has shown as final is final at all, whatever was killed, and all have what it commits to; no validator
has signed two things for one step; after all were down the next header is final within a bound."""
import argparse
import hashlib
import pathlib
import random
import shutil
import sys
import tempfile
import time

import cluster

# A new header after all were down: goal, and what is taken for stuck. Starting the processes is in it.
GOAL_S = 2.0
PATIENCE_S = 120.0
TENANT = "5a" * 16
# A set of its own, with a ceremony before it, every so many heights.
EPOCH_HEIGHTS = 200


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Storm:
    def __init__(self, net, seed):
        self.net = net
        self.random = random.Random(seed)
        self.seen = {}  # height: digest, as any node has shown it
        self.wrong = []
        self.recoveries = []
        self.kills = 0
        self.leaves = 0
        self.evidence = 0
        self.epoch = 0
        self.group_keys = set()

    def look(self):
        """Notes the last final header of each node, and whether two of them say different things."""
        for number in range(len(self.net.nodes)):
            status = self.net.status(number)
            if not status:
                continue
            self.epoch = max(self.epoch, status["epoch"])
            self.group_keys |= {status["group_key"]} - {None}
            known = self.seen.setdefault(status["height"], status["digest"])
            if known != status["digest"]:
                self.wrong.append(f"two headers at height {status['height']}: {known} and {status['digest']}")
            if status["votes"] != "yes":
                self.wrong.append(f"validator {number} does not vote: {status['votes']}")

    def submit(self):
        number = self.random.randrange(len(self.net.nodes))
        leaves = [hashlib.sha256(f"{self.leaves + at}".encode()).hexdigest() for at in range(20)]
        self.leaves += len(leaves)
        self.net.ask(number, "/v1/leaves", {"tenant": TENANT, "leaves": leaves})

    def all_at_once(self):
        top = max((height for height in self.net.heights() if height is not None), default=0)
        self.look()
        for number in range(len(self.net.nodes)):
            self.net.nodes[number].process.kill()
        for node in self.net.nodes:
            node.process.wait()
        self.kills += len(self.net.nodes)
        time.sleep(self.random.choice([0, 0.1, 1, 3]))
        began = time.monotonic()
        self.net.start_all()
        top = max(top, max(self.seen, default=0))
        self.net.wait_for_height(top + 1, PATIENCE_S)
        self.recoveries.append(time.monotonic() - began)

    def some(self):
        """Up to f at a time, which must stop nobody."""
        faults = (len(self.net.nodes) - 1) // 3
        for number in self.random.sample(range(len(self.net.nodes)), self.random.randint(1, max(1, faults))):
            self.net.kill(number)
            self.kills += 1
            time.sleep(self.random.random() * 0.3)
            self.net.start(number)

    def run(self, seconds, say):
        self.net.start_all()
        self.net.wait_for_height(3, PATIENCE_S)
        end = time.monotonic() + seconds
        last = time.monotonic()
        while time.monotonic() < end and not self.wrong:
            for _ in range(self.random.randint(1, 8)):
                self.submit()
                time.sleep(self.random.random() * 0.4)
                self.look()
            (self.all_at_once if self.random.random() < 0.5 else self.some)()
            if time.monotonic() - last > 20:
                last = time.monotonic()
                say(f"   {int(end - last)} s left: {self.kills} kills, height {max(self.seen, default=0)}")

    def leaves_are_everywhere(self):
        """Every log has the leaves of its last header, as soon as it has asked for what it missed."""
        end = time.monotonic() + PATIENCE_S
        for number in range(len(self.net.nodes)):
            while (log := self.net.status(number)["log"])[0] != log[1]:
                if time.monotonic() > end:
                    self.wrong.append(f"validator {number} has {log[0]} leaves, and its last header {log[1]}")
                    break
                time.sleep(0.1)

    def finish(self):
        """All come to one height and stop; then what each has kept is compared."""
        top = max(self.seen) + 3
        self.net.wait_for_height(top, PATIENCE_S)
        self.look()
        self.leaves_are_everywhere()
        for number in range(len(self.net.nodes)):
            self.evidence += int(self.net.metrics(number)["bpi_validator_equivocations_total"])
        statuses = self.net.stop_all()
        if any(statuses):
            self.wrong.append(f"exit statuses after SIGTERM: {statuses}")
        self.evidence += sum(len(list((node.folder / "data" / "evidence").glob("*"))) for node in self.net.nodes)
        kept = [self.net.final(number) for number in range(len(self.net.nodes))]
        for number, headers in enumerate(kept):
            for height, digest in self.seen.items():
                if height in headers and headers[height] != digest or height not in headers and height <= top:
                    self.wrong.append(f"validator {number} has {headers.get(height)} at height {height}, and {digest} was shown as final")
            for height, digest in headers.items():
                if kept[0].get(height, digest) != digest:
                    self.wrong.append(f"validators 0 and {number} differ at height {height}")
        if len(self.group_keys) > 1:
            self.wrong.append(f"the key of the chain was not handed on: there were {len(self.group_keys)}")
        if self.evidence:
            self.wrong.append(f"{self.evidence} proofs that a validator has signed two things")
        return len(kept[0]) - 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, type=pathlib.Path, help="the folder of bpi-validator, bpi-relay and bpi-devnet-ca")
    parser.add_argument("--validators", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of what is killed when")
    parser.add_argument("--keep", action="store_true", help="keep the folders of the validators")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bpi-storm-"))
    say = lambda text: print(text, flush=True)  # noqa: E731
    say(f"   {arguments.validators} validators, {arguments.seconds:.0f} s of kill -9, seed {arguments.seed}")
    net = cluster.Cluster(arguments.programs, folder, arguments.validators, epochs=range(EPOCH_HEIGHTS, 100 * EPOCH_HEIGHTS, EPOCH_HEIGHTS))
    storm = Storm(net, arguments.seed)
    try:
        storm.run(arguments.seconds, say)
        headers = storm.finish()
    except cluster.ClusterError as error:
        storm.wrong.append(str(error))
        headers = max(storm.seen, default=0)
    finally:
        net.stop_all()
    for wrong in storm.wrong[:20]:
        say(f"FAIL {wrong}")
    recoveries = storm.recoveries or [0.0]
    say(f"{storm.kills} kills, all at once {len(storm.recoveries)} times; {headers} headers final, {len(storm.seen)} of them watched; "
        f"{storm.evidence} double signatures; epoch {storm.epoch}, {'one' if storm.group_keys else 'no'} group key")
    say(f"next header at all nodes after all were down: p50 {percentile(recoveries, 0.5):.2f} s, p99 {percentile(recoveries, 0.99):.2f} s, "
        f"longest {max(recoveries):.2f} s (goal {GOAL_S:.0f} s)")
    if storm.wrong or arguments.keep:
        say(f"what the validators left is in {folder}")
    else:
        shutil.rmtree(folder)
    say(f"{0 if storm.wrong else 1} passed, {1 if storm.wrong else 0} failed")
    return 1 if storm.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
