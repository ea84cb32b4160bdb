#!/usr/bin/env python3
"""Relays, clients and validators in network namespaces: UDP that is blocked and comes back, loss, reordering and a relay that dies, relays that drop in
silence, nine validators in three regions, and what a capture shows. A line for each thing that must hold, with its figures.

    scripts/bpi test relays

or, with programs that are built already:

    python3 tests/relays/netns.py --programs DIR [--only fallback …]

A round-trip time is that between two ends: four ways over the wire (end, relay, end, and back)."""
import argparse
import collections
import contextlib
import dataclasses
import http.client
import json
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import capture
import world

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "validators"))
import cluster  # noqa: E402

PORT = 443
NETWORK = 7
# What fills the probe's messages (tests/relays/wire/src/probe.rs).
PATTERN = b"<in the clear: nobody reads me!>"
# Lengths of messages in turn: most of a datagram, some of a stream.
SIZES = [300] * 8 + [1000] * 3 + [40_000] + [300] * 6 + [1000, 16]
# How long something may take that has no bound of its own: the machine is shared.
PATIENCE_S = 20
# Goals of the design, and what is taken for broken.
FALLBACK_S = 2.0
GAP_S_MAX = 1.0
FINALITY_S = 1.0


class Report:
    """Lines and counts."""

    def __init__(self):
        self.passed, self.failed = 0, 0

    def check(self, sentence, holds, figures=""):
        self.passed, self.failed = self.passed + bool(holds), self.failed + (not holds)
        print(f"{'ok' if holds else 'failed'}: {sentence}{': ' if figures else ''}{figures}", flush=True)
        return holds

    def note(self, text):
        print(f"   {text}", flush=True)


def wait_for(what, patience_s=PATIENCE_S, every_s=0.02):
    """Waits until something is true, and says for how long; None when it did not become so."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > patience_s:
            return None
        time.sleep(every_s)
    return time.monotonic() - began


def now_us():
    return time.monotonic_ns() // 1000


def share(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")


def ms(us):
    return f"{us / 1000:.1f} ms"


class Lines:
    """The lines that a program has written so far."""

    def __init__(self, path):
        self.path = path

    def all(self):
        text = self.path.read_text() if self.path.exists() else ""
        return [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]

    def of(self, key):
        return [line for line in self.all() if key in line]


class Probe:
    """A mesh-probe in a namespace."""

    def __init__(self, site, name, relays, per_frame):
        self.site, self.name = site, name
        self.folder = site.folder / name
        self.folder.mkdir()
        (self.folder / "key").write_text(secrets.token_hex(32))
        site.authority.issue(f"agent/{name}", self.folder / "svid.pem")
        self.config = self.folder / "probe.toml"
        self.config.write_text(
            f'network = {NETWORK}\nkey_file = "key"\nrelays_per_frame = {per_frame}\n'
            f'[identity]\nsvid_file = "svid.pem"\nbundle_file = "../ca/bundle.pem"\n'
            + "".join(f'[[relay]]\nid = "spiffe://{cluster.DOMAIN}/relay/{relay}"\naddress = "{site.world.addresses[relay]}:{PORT}"\n' for relay in relays))
        self.relays = relays
        self.identity = world.run(*self.command("identity")).strip()
        self.lines = Lines(self.folder / "lines")

    def command(self, *words):
        return [self.site.wires / "mesh-probe", "--config", self.config, *words]

    def start(self, *words):
        self.process = self.site.world.start(self.name, *self.command("run", *words), log=self.folder / "log", output=self.lines.path)

    def send_to(self, peer, rate, sizes=SIZES):
        self.start("--peer", peer.identity, "--rate", str(rate), "--sizes", ",".join(map(str, sizes)))

    def finish(self):
        """Ends it, and gives its summary."""
        self.process.stdin.close()
        self.process.wait(PATIENCE_S + 20)
        return self.lines.of("summary")[-1]["summary"]

    def carriers(self):
        """{relay: carrier} now."""
        return {relay: "none" for relay in self.relays} | {line["relay"]: line["carrier"] for line in self.lines.of("carrier")}

    def all_on(self, carrier):
        return all(each == carrier for each in self.carriers().values())

    def last_change_us(self, carrier, since_us):
        """When the last relay came to a carrier after a moment."""
        return max((line["us"] for line in self.lines.of("carrier") if line["carrier"] == carrier and line["us"] >= since_us), default=None)


class Site:
    """Relays and probes in a world."""

    def __init__(self, arguments, folder, places, **rules):
        self.programs, self.wires = arguments.programs, arguments.wires
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self.authority = cluster.Authority(self.programs, self.folder / "ca")
        self.world = world.World(self.wires / "bpi-wire", self.folder, places, seed=arguments.seed, **rules)
        self.relays = {}

    def __enter__(self):
        return self

    def __exit__(self, *of):
        self.world.__exit__(*of)

    def prepare(self, name):
        folder = self.folder / name
        folder.mkdir()
        self.authority.issue(f"relay/{name}", folder / "svid.pem")
        address = self.world.addresses[name]
        (folder / "relay.toml").write_text(
            f'drain_s = 1\n[listen]\nudp = "{address}:{PORT}"\ntcp = "{address}:{PORT}"\nstatus = "127.0.0.1:7690"\n'
            f'[identity]\nsvid_file = "svid.pem"\nbundle_file = "../ca/bundle.pem"\n')

    def relay(self, name):
        """Starts a relay, a new one or one that was here before, and waits until it listens."""
        if name not in self.relays:
            self.prepare(name)
        folder = self.folder / name
        self.relays[name] = self.world.start(name, self.programs / "bpi-relay", "--config", folder / "relay.toml", "run", log=folder / "log")
        self.await_listening(name, 2)

    def silent_relay(self, name, *words):
        self.prepare(name)
        folder = self.folder / name
        command = [self.wires / "silent-relay", "--listen", f"{self.world.addresses[name]}:{PORT}", "--svid", folder / "svid.pem",
                   "--bundle", self.folder / "ca" / "bundle.pem", *words]
        self.relays[name] = self.world.start(name, *command, log=folder / "log", output=folder / "lines")
        self.await_listening(name, 1)

    def await_listening(self, name, sockets):
        there = lambda: sum(f":{PORT}" in line for line in self.world.listening(name)) >= sockets  # noqa: E731
        if wait_for(there) is None:
            raise world.WorldError(f"relay {name} does not listen: {(self.folder / name / 'log').read_text()[-300:]}")

    def kill(self, name):
        self.relays[name].send_signal(signal.SIGKILL)
        self.relays[name].wait()


@dataclasses.dataclass
class Flow:
    """What was sent and what came."""
    sent: dict  # number: µs
    came: list  # (µs, number, µs when it was sent)
    bytes_of: dict  # number: bytes

    @staticmethod
    def of(sender, receiver):
        sent = {line["sent"]: (line["us"], line["bytes"]) for line in sender.lines.of("sent")}
        came = sorted((line["us"], line["received"], line["sent_us"]) for line in receiver.lines.of("received"))
        return Flow({number: us for number, (us, _) in sent.items()}, came, {number: each for number, (_, each) in sent.items()})

    def faults(self):
        """(lost, doubled): numbers."""
        times = collections.Counter(number for _, number, _ in self.came)
        return [number for number in self.sent if number not in times], [number for number, count in times.items() if count > 1]

    def gap(self, from_us=0, to_us=1 << 62):
        """The longest time between two deliveries that lies within a span or touches it, and when it began."""
        times = [us for us, _, _ in self.came]
        gaps = [(after - before, before) for before, after in zip(times, times[1:]) if after >= from_us and before <= to_us]
        return max(gaps, default=(0, 0))

    def delays(self, from_us=0, to_us=1 << 62):
        """How long each message took that was sent within a span, in µs."""
        return [us - sent_us for us, _, sent_us in self.came if from_us <= sent_us <= to_us]

    def spread(self, from_us=0, to_us=1 << 62):
        delays = self.delays(from_us, to_us)
        return f"p50 {ms(share(delays, 0.5))}, p99 {ms(share(delays, 0.99))}, longest {ms(max(delays, default=0))}"


def exactly_once(report, flow, sent, taken, what):
    lost, doubled = flow.faults()
    holds = not lost and not doubled and taken["damaged"] == 0 and sent["lost"] == 0 and sent["open"] == 0 and sent["sent"] > 0
    report.check(f"{what}: every message comes exactly once, and is acknowledged", holds,
                 f"{sent['sent']} messages, {len(lost)} lost {lost[:5]}, {len(doubled)} doubled {doubled[:5]}, {taken['damaged']} damaged, "
                 f"{sent['acknowledged']} acknowledged; frames {sent['frames_sent']}, again {sent['frames_again']}")


def wire_figures(report, counts):
    report.note(f"the wire: {counts}")
    report.check("the wire held up", counts["full"] == 0 and counts["refused"] == 0 and counts["dropped_by_devices"] == 0,
                 f"{counts['full']} without room, {counts['refused']} refused, {counts['dropped_by_devices']} dropped by devices, {counts['cpu_s']} s of processor")


def control(report, arguments, folder):
    """Without delay and loss everything comes, in order, and nothing is sent again."""
    with Site(arguments, folder / "control", {"c": 0, "d": 0, "r0": 0, "r1": 0, "r2": 0}) as site:
        relays = ["r0", "r1", "r2"]
        for name in relays:
            site.relay(name)
        sender, receiver = Probe(site, "c", relays, 3), Probe(site, "d", relays, 3)
        receiver.start()
        wait_for(lambda: receiver.all_on("quic"))
        sender.send_to(receiver, 200)
        time.sleep(4)
        sent, taken = sender.finish(), receiver.finish()
        flow = Flow.of(sender, receiver)
        began = min(flow.sent.values()) + 500_000
        exactly_once(report, flow, sent, taken, "no delay, no loss")
        report.note(f"from sending to delivery, after the first half second: {flow.spread(began)}; longest gap {ms(flow.gap(began)[0])}")
        counts = site.world.end()
        report.check("the wire loses nothing and overtakes nothing that it is not told to", counts["lost"] == counts["overtaken"] == counts["late"] == 0,
                     f"{counts['delivered']} packets")
        wire_figures(report, counts)


@contextlib.contextmanager
def captured(site, names, missing):
    """Captures what passes the devices of namespaces, if dumpcap is there."""
    files, processes = {}, []
    if not missing:
        for name in names:
            files[name] = site.folder / f"{name}.pcap"
            command = ["dumpcap", "-q", "-P", "-i", world.DEVICE, "-B", "16", "-w", files[name]]
            processes.append(site.world.start(name, *command, log=site.folder / f"{name}.dumpcap"))
            if wait_for(lambda file=files[name]: file.exists() and file.stat().st_size > 0) is None:
                raise world.WorldError(f"dumpcap in {name}: {(site.folder / f'{name}.dumpcap').read_text()[-300:]}")
    try:
        yield files
    finally:
        for process in processes:
            process.send_signal(signal.SIGINT)
            process.wait()


def fallback(report, arguments, folder):
    """UDP is blocked in mid-flow, and opened again; what a capture shows meanwhile."""
    relays = ["r0", "r1", "r2"]
    missing = None if shutil.which("tshark") and shutil.which("dumpcap") else "tshark is not installed (apt-get install tshark)"
    # Every way over the wire is 10 ms: an end is 20 ms from the other, and the round-trip time of both is 40 ms.
    with Site(arguments, folder / "fallback", {"c": 0, "d": 0, **{name: 0 for name in relays}}, delay_us=[[10_000]]) as site:
        with captured(site, ["c", "r0"], missing) as files:
            for name in relays:
                site.relay(name)
            sender, receiver = Probe(site, "c", relays, 3), Probe(site, "d", relays, 3)
            receiver.start()
            wait_for(lambda: receiver.all_on("quic"))
            sender.send_to(receiver, 100)
            wait_for(lambda: sender.all_on("quic") and len(receiver.lines.of("received")) > 50)
            time.sleep(1)
            # Longer than a QUIC connection lives in silence, then shorter; the sender's namespace, then the receiver's.
            spans = [block(report, site, probe, who, seconds) for probe, who, seconds in ((sender, "sender", 12), (receiver, "receiver", 3))]
            time.sleep(1)
            sent, taken = sender.finish(), receiver.finish()
        flow = Flow.of(sender, receiver)
        for who, from_us, to_us in spans:
            after = [us for us, _, sent_us in flow.came if sent_us >= from_us]
            first_us = min(after, default=1 << 62) - from_us
            gap_us, _ = flow.gap(from_us, to_us)
            report.check(f"UDP blocked at the {who}: messages sent after that come within {FALLBACK_S:.0f} s", first_us <= FALLBACK_S * 1e6,
                         f"the first after {ms(first_us)}; longest gap between deliveries {ms(gap_us)}")
        exactly_once(report, flow, sent, taken, "UDP blocked twice")
        wire_figures(report, site.world.end())
        if missing:
            print(f"skipped: what a capture shows, because {missing}", flush=True)
        for name, file in files.items():
            judge_capture(report, name, file)
        if files:
            capture_control(report, arguments, folder)


def block(report, site, probe, who, seconds):
    """Blocks UDP for so long, and opens it again. The span of it."""
    site.world.block_udp(probe.name)
    from_us = now_us()
    wait_for(lambda: probe.all_on("tls"), 8)
    took_us = probe.last_change_us("tls", from_us)
    holds = probe.all_on("tls") and took_us is not None and took_us - from_us <= FALLBACK_S * 1e6
    report.check(f"UDP blocked at the {who}: all relays over TLS within {FALLBACK_S:.0f} s", holds,
                 f"{ms(took_us - from_us) if took_us else 'never'}; {probe.carriers()}")
    time.sleep(max(0, seconds - (now_us() - from_us) / 1e6))
    opened_us = now_us()
    site.world.open_udp(probe.name)
    wait_for(lambda: probe.all_on("quic"))
    took_us = probe.last_change_us("quic", opened_us)
    report.check(f"UDP opened again at the {who} after {seconds} s: all relays over QUIC again", probe.all_on("quic"),
                 f"{ms(took_us - opened_us) if took_us else 'never'}; {probe.carriers()}")
    took_s = wait_for(lambda: not site.world.connected(probe.name, "-t"), 10, 0.05)
    report.check(f"and TCP is left by the {who}", took_s is not None, f"{took_s:.2f} s later" if took_s is not None else "never")
    return who, from_us, opened_us


def judge_capture(report, name, file):
    found = capture.read(file, PATTERN)
    quic, others = capture.not_quic(file)
    what = "the client's" if name == "c" else f"relay {name}'s"
    report.check(f"capture at {what} device: all is QUIC v1 or TLS 1.3",
                 found["udp"] > 0 and found["tls_streams"] > 0 and quic == found["udp"] and not (others or found["other"] or found["not_tls"]),
                 f"{found['udp']} of UDP, {quic} of them QUIC; {found['tcp']} of TCP, {found['tls_streams']} streams of TLS 1.3 with {found['tls_bytes']} bytes, "
                 f"{found['not_tls']} of anything else; {found['other']} other packets {others[:3]}")
    report.check(f"capture at {what} device: what was sent is nowhere in it", found["pattern"] == 0, f"{file.stat().st_size} bytes searched")


def capture_control(report, arguments, folder):
    """The same judgement finds a packet that is neither, and what it carries."""
    with Site(arguments, folder / "capture-control", {"c": 0, "d": 0}) as site:
        with captured(site, ["d"], None) as files:
            say = f"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'\\0' * 40 + {PATTERN!r}, ('{site.world.addresses['d']}', {PORT}))"
            world.run(*site.world.inside("c"), sys.executable, "-c", say)
            time.sleep(0.5)
        found = capture.read(files["d"], PATTERN)
        _, others = capture.not_quic(files["d"])
        report.check("control: a capture with something in the clear is told from one without", found["pattern"] > 0 and len(others) > 0, f"{dict(found)} {others[:1]}")


def loss(report, arguments, folder):
    """Loss and reordering, and one of three relays is killed."""
    relays = ["r0", "r1", "r2"]
    delay = {"delay_us": [[10_000]]}
    bad = {**delay, "loss_per_mille": 50, "late_per_mille": 100, "late_us": 10_000}
    rtt_us = 40_000
    with Site(arguments, folder / "loss", {"c": 0, "d": 0, **{name: 0 for name in relays}}, **delay) as site:
        for name in relays:
            site.relay(name)
        sender, receiver = Probe(site, "c", relays, 3), Probe(site, "d", relays, 3)
        receiver.start()
        wait_for(lambda: receiver.all_on("quic"))
        sender.send_to(receiver, 200)
        wait_for(lambda: sender.all_on("quic") and len(receiver.lines.of("received")) > 50)
        marks = [now_us()]
        time.sleep(3)
        site.world.rule(**bad)
        marks.append(now_us())
        time.sleep(5)
        site.kill("r1")
        marks.append(now_us())
        time.sleep(5)
        marks.append(now_us())
        sent, taken = sender.finish(), receiver.finish()
        flow = Flow.of(sender, receiver)
        exactly_once(report, flow, sent, taken, "5 % lost on every way, 10 % late by up to 10 ms, one of three relays killed")
        phases = ("delay only (control)", "loss and reordering", "and a relay killed")
        for phase, (from_us, to_us) in zip(phases, zip(marks, marks[1:])):
            gap_us, began_us = flow.gap(from_us, to_us)
            report.note(f"{phase}: from sending to delivery {flow.spread(from_us, to_us)}; longest gap {ms(gap_us)} at {(began_us - from_us) / 1e6:.2f} s")
        gap_us, _ = flow.gap(marks[1], marks[3])
        at_kill_us, _ = flow.gap(marks[2] - 50_000, marks[2] + 1_000_000)
        report.check(f"no gap between deliveries is longer than {GAP_S_MAX} s", gap_us <= GAP_S_MAX * 1e6,
                     f"longest {ms(gap_us)}, within a second of the kill {ms(at_kill_us)}; goal one round trip ({ms(rtt_us)}) {'kept' if gap_us <= rtt_us else 'missed'}")
        counts = site.world.end()
        share_lost = counts["lost"] / max(1, counts["taken"])
        report.note(f"{100 * share_lost:.1f} % of all packets lost, {100 * counts['overtaken'] / max(1, counts['delivered']):.1f} % overtaken, the calm part included")
        wire_figures(report, counts)


def silent(report, arguments, folder):
    """Two of three relays of each frame drop what they are given; two more are there."""
    relays = ["s0", "s1", "r2", "r3", "r4"]
    with Site(arguments, folder / "silent", {"c": 0, "d": 0, **{name: 0 for name in relays}}, delay_us=[[10_000]]) as site:
        # One that is silent from the first frame, and one that begins in mid-flow.
        site.silent_relay("s0")
        site.silent_relay("s1", "--carry")
        for name in relays[2:]:
            site.relay(name)
        sender, receiver = Probe(site, "c", relays, 3), Probe(site, "d", relays, 3)
        receiver.start()
        wait_for(lambda: receiver.all_on("quic"))
        sender.send_to(receiver, 200)
        wait_for(lambda: len(receiver.lines.of("received")) > 50)
        time.sleep(3)
        site.relays["s1"].stdin.write(b"silent\n")
        site.relays["s1"].stdin.flush()
        silent_us = now_us()
        evicted = lambda: [line for line in sender.lines.of("evicted") if "suspected" in line and line["evicted"] >= 2]  # noqa: E731
        wait_for(evicted, 15)
        time.sleep(2)
        sent, taken = sender.finish(), receiver.finish()
        flow = Flow.of(sender, receiver)
        exactly_once(report, flow, sent, taken, "two of three relays drop in silence")
        report.note(f"from sending to delivery, after one more relay became silent: {flow.spread(silent_us)}; longest gap {ms(flow.gap(silent_us)[0])}")
        began_us = min(flow.sent.values())
        found = [line for line in sender.lines.of("evicted") if "suspected" in line]
        timeline = ", ".join(f"{(line['us'] - began_us) / 1e6:.1f} s: {line['suspected']} suspected, {line['evicted']} left out" for line in found)
        report.check("silent relays are suspected, then left out", sent["suspected"] >= 2 and sent["evicted"] == 2, f"{timeline}; the second fell silent at {(silent_us - began_us) / 1e6:.1f} s")
        figures = sender.lines.of("datagrams")
        widened = next((line["us"] for line in figures if line["datagrams"].get("r3", 0) > 50), None)
        last, before = figures[-1]["datagrams"], figures[-4]["datagrams"] if len(figures) > 3 else {}
        grown = {name: last.get(name, 0) - before.get(name, 0) for name in relays}
        report.check("k grows by relays that were spare", widened is not None, f"r3 is used from {(widened - began_us) / 1e6:.1f} s on" if widened else "r3 is never used")
        report.check("at the end frames go over the others alone", grown["s0"] == grown["s1"] == 0 < grown["r2"], f"datagrams of the last 1.5 s: {grown}")
        wire_figures(report, site.world.end())


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket of this host."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Regions(cluster.Cluster):
    """Validators and relays, each in a namespace of its own; the API of a validator is a socket in its folder."""

    def __init__(self, there, *arguments, **named):
        self.world = there
        super().__init__(*arguments, **named)

    def relay_host(self, number):
        return self.world.addresses[f"r{number}"]

    def api_of(self, number, port):
        return "unix:api"

    def inside(self, name):
        return self.world.inside(name)

    def connect(self, number, patience_s):
        return UnixConnection(self.nodes[number].folder / "api", patience_s)

    def round_trip_us(self, number, relay):
        """Between a validator and a relay: how long TCP takes to connect, the shortest of some times."""
        address = (self.relay_host(relay), self.relays[relay].port)
        say = ("import socket, time\n"
               "def once():\n began = time.monotonic_ns()\n"
               f" socket.create_connection({address!r}).close()\n return (time.monotonic_ns() - began) // 1000\n"
               "print(min(once() for _ in range(5)))")
        return int(world.run(*self.inside(f"v{number}"), sys.executable, "-c", say))

    def carried(self, relay):
        """{transport: validators} that a relay has connected, as it says itself; nothing while it does not answer."""
        say = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{self.relays[relay].status}/metrics', timeout=2).read().decode())"
        try:
            text = world.run(*self.inside(f"r{relay}"), sys.executable, "-c", say)
        except world.WorldError:
            return {}
        found = re.findall(r'^bpi_relay_connections\{([^}]*)\} (\d+)$', text, re.M)
        return {re.search('transport="([^"]*)"', labels)[1]: int(value) for labels, value in found if 'role="validator"' in labels and value != "0"}

    def finality(self, which):
        """The histogram of all these nodes together: {upper bound in s: count}."""
        found = collections.Counter()
        for number in which:
            for name, value in self.metrics(number).items():
                bound = re.fullmatch(r'bpi_validator_finality_seconds_bucket\{le="([^"]+)"\}', name)
                if bound:
                    found[float(bound[1].replace("+Inf", "inf"))] += value
        return found


def quantile(before, after, part):
    """Of a histogram's growth, in s: linear within a bucket, as Prometheus does it."""
    counts = [(bound, after[bound] - before.get(bound, 0)) for bound in sorted(after)]
    whole = counts[-1][1] if counts else 0
    below, from_s = 0, 0.0
    for bound, count in counts:
        if count >= part * whole and whole:
            return bound if bound == float("inf") or count == below else from_s + (bound - from_s) * (part * whole - below) / (count - below)
        below, from_s = count, bound
    return float("nan")


def validators(report, arguments, folder):
    """Nine validators and three relays in three regions, and a relay that is killed and comes back."""
    # One way over the wire: 40 ms between neighbours, 80 ms between the outer regions. A frame goes two such ways, to a relay and from it.
    near, mid, far = 500, 40_000, 80_000
    delays = [[near, mid, far], [mid, near, mid], [far, mid, near]]
    places = {f"v{number}": number % 3 for number in range(9)} | {f"r{number}": number for number in range(3)}
    with world.World(arguments.wires / "bpi-wire", folder, places, seed=arguments.seed, delay_us=delays) as there:
        net = Regions(there, arguments.programs, folder / "validators", 9, block_ms=250)
        everybody = range(9)
        try:
            net.start_all()
            report.note(f"height 3 after {net.wait_for_height(3, 90):.1f} s")
            trips = [net.round_trip_us(0, relay) for relay in range(3)]
            report.check("round trips from region 0 to the relays of all regions are 1, 80 and 160 ms",
                         all(2 * one_way <= trip <= 2 * one_way + 15_000 for one_way, trip in zip(delays[0], trips)), ", ".join(map(ms, trips)))
            listening = {name: lines for name in places if name.startswith("v") and (lines := there.listening(name))}
            report.check("nothing listens in any validator's namespace", not listening, f"{listening or 'ss -lntu is empty in nine'}")
            flows = [there.connected(f"v{number}", "-u") for number in everybody]
            report.check("every validator is connected to every relay by UDP", all(len(flow) == 3 for flow in flows), f"{[len(flow) for flow in flows]}")
            before, top, began = net.finality(everybody), max(net.heights()), time.monotonic()
            time.sleep(15)
            after, gained, took_s = net.finality(everybody), max(net.heights()) - top, time.monotonic() - began
            p50, p99 = quantile(before, after, 0.5), quantile(before, after, 0.99)
            report.check(f"finality p50 below {FINALITY_S:.0f} s", p50 < FINALITY_S,
                         f"p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms of {after[float('inf')] - before[float('inf')]:.0f}; {gained} heights in {took_s:.1f} s")
            killed(report, there, net)
            report.check("all validators have one height to the next", net.wait_for_height(max(net.heights()) + 2, 30) is not None, f"{net.heights()}")
            dropped = {number: int(net.metrics(number).get("bpi_validator_frames_dropped_total", 0)) for number in everybody}
            report.note(f"frames that a peer was too slow to take: {dropped}")
            statuses = net.stop_all()
            report.check("all validators end in order", not any(statuses), f"{statuses}")
        finally:
            net.stop_all()
        wire_figures(report, there.end())


def killed(report, there, net):
    """A relay in the middle is killed, heights go on, and it comes back."""
    relay = net.relays[1]
    heights, stamps = [], []

    def watch(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            net.check_running()
            status = net.status(0)
            if status and (not heights or status["height"] > heights[-1]):
                heights.append(status["height"])
                stamps.append(time.monotonic())
            time.sleep(0.02)

    watch(3)
    relay.process.send_signal(signal.SIGKILL)
    relay.process.wait()
    relay.process = None
    at, was = time.monotonic(), heights[-1]
    watch(8)
    gaps = [after - before for before, after in zip(stamps, stamps[1:]) if after >= at] or [float("inf")]
    report.check("heights go on when the relay in the middle is killed", heights[-1] >= was + 5 and max(gaps) < 5,
                 f"{heights[-1] - was} heights in 8 s, longest time to the next {max(gaps) * 1000:.0f} ms")
    gone = lambda: [net.metrics(number)["bpi_validator_relays"] for number in range(9)] == [2] * 9  # noqa: E731
    report.check("all validators say that it is gone", wait_for(gone, 8, 0.1) is not None, f"{time.monotonic() - at:.1f} s after the kill")
    net.start_relay(1)
    began = time.monotonic()
    took_s = wait_for(lambda: sum(net.carried(1).values()) == 9, 20, 0.1)
    report.check("a relay that comes back has all validators again", took_s is not None, f"after {took_s:.1f} s: {net.carried(1)}" if took_s is not None else f"{net.carried(1)}")
    quic = wait_for(lambda: net.carried(1) == {"quic": 9}, 20, 0.1)
    report.check("and all by QUIC", quic is not None, f"{time.monotonic() - began:.1f} s after its start: {net.carried(1)}")
    watch(2)


PARTS = {"control": control, "fallback": fallback, "loss": loss, "silent": silent, "validators": validators}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", required=True, type=pathlib.Path, help="the folder of bpi-relay, bpi-validator and bpi-devnet-ca")
    parser.add_argument("--wires", type=pathlib.Path, help="the folder of bpi-wire, mesh-probe and silent-relay, if it is another")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some parts")
    parser.add_argument("--seed", type=int, default=1, help="of what is lost")
    parser.add_argument("--keep", action="store_true", help="keep logs and captures")
    arguments = parser.parse_args()
    arguments.programs = arguments.programs.resolve()
    arguments.wires = (arguments.wires or arguments.programs).resolve()
    try:
        world.isolate()
    except world.Missing as missing:
        print(f"skipped: tests/relays/netns.py, because {missing}\n0 passed, 0 failed")
        return 0
    report = Report()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bpi-netns-"))
    for name in arguments.only:
        began = time.monotonic()
        print(f"── {name}: {PARTS[name].__doc__}", flush=True)
        try:
            PARTS[name](report, arguments, folder)
        except (world.WorldError, cluster.ClusterError, subprocess.SubprocessError, ValueError, KeyError, IndexError) as error:
            report.check(f"{name} runs to its end", False, f"{type(error).__name__}: {error}")
        report.note(f"{name} took {time.monotonic() - began:.0f} s")
    if report.failed or arguments.keep:
        report.note(f"logs are in {folder}")
    else:
        shutil.rmtree(folder)
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
