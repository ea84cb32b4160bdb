"""Validators and the relays that they meet over, as processes of this machine: their folders, keys and genesis, and what they say of themselves."""
import dataclasses
import http.client
import json
import pathlib
import re
import signal
import socket
import subprocess
import time
import urllib.request

# How long a node may take to stop when it is asked to.
STOP_S = 10
# The trust domain of all of them.
DOMAIN = "loopback.test"


class ClusterError(Exception):
    """A node that cannot be set up or started, or ends by itself."""


def free_ports(count):
    """Ports of loopback that nobody listens at now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@dataclasses.dataclass
class Relay:
    """One relay."""
    folder: pathlib.Path
    config: pathlib.Path
    port: int
    status: int
    process: subprocess.Popen = None

    @property
    def log(self):
        return self.folder / "log"


@dataclasses.dataclass
class Node:
    """One validator."""
    folder: pathlib.Path
    config: pathlib.Path
    api: int
    process: subprocess.Popen = None

    @property
    def log(self):
        return self.folder / "log"


class Authority:
    """The authority of a devnet, in a new folder."""

    def __init__(self, programs, folder):
        self.program = str(pathlib.Path(programs) / "bpi-devnet-ca")
        self.folder = pathlib.Path(folder)
        self.run("init", "--dir", self.folder, "--domain", DOMAIN)

    def run(self, *words):
        command = [self.program, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise ClusterError(f"bpi-devnet-ca {' '.join(map(str, words))}: {done.stderr.strip()}")

    def issue(self, name, to, seconds=86400, more=()):
        """An SVID, new or in place of the one that is there."""
        self.run("issue", "--dir", self.folder, "--id", f"spiffe://{DOMAIN}/{name}", "--seconds", seconds, "--to", to, *more)


class Cluster:
    """So many validators that know each other, none of them running yet. On loopback, unless a subclass says where else."""

    def __init__(self, programs, folder, count, relays=3, block_ms=250, round_ms=1000, log_level="info", ceremony_heights=40, epochs=(),
                 pinners=(), agents=(), kept_s_min=86400, probes_per_s=1):
        """`programs`: the folder of bpi-validator, bpi-relay and bpi-devnet-ca. `epochs`: heights from which on the same validators vote as another
        set, which a ceremony has to give shares to before. `pinners`: identities in hex, for the genesis, where shards are wanted for `kept_s_min` s.
        `agents`: (key, tenants) in hex, tenants being a list, or ["*"]; every validator hears all of them."""
        self.programs = pathlib.Path(programs)
        self.program = str(self.programs / "bpi-validator")
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.authority = Authority(self.programs, self.folder / "ca")
        ports = free_ports(2 * relays + count)
        self.relays = [self.make_relay(number, *ports[2 * number:2 * number + 2]) for number in range(relays)]
        self.nodes = []
        members = []
        for number, api in enumerate(ports[2 * relays:]):
            node_folder = self.folder / f"v{number}"
            node_folder.mkdir()
            config = node_folder / "validator.toml"
            self.issue(f"validator/v{number}", node_folder / "svid.pem")
            config.write_text(
                f'genesis = "../genesis.toml"\nkey_file = "validator.key"\npeer_key_file = "peer.key"\ndata_dir = "data"\n'
                f'api = "{self.api_of(number, api)}"\nlog_level = "{log_level}"\n'
                f"[timing]\nblock_ms = {block_ms}\nround_ms = {round_ms}\n"
                f'[identity]\nsvid_file = "svid.pem"\nbundle_file = "../ca/bundle.pem"\n'
                f"[probe]\nper_s = {probes_per_s}\n"
                + "".join(self.relay_entry(relay) for relay in range(relays))
                + "".join(f'[[agent]]\nkey = "{key}"\ntenants = {json.dumps(list(tenants))}\n' for key, tenants in agents))
            self.nodes.append(Node(node_folder, config, api))
            member = node_folder / "member.toml"
            member.write_text(self.say(config, "keygen", "--region", f"r{number % 3}"))
            members.append(str(member))
        if not members:
            return
        words = ["--kept-s-min", str(kept_s_min)]
        for number, identity in enumerate(pinners):
            pinner = self.folder / f"pinner{number}.toml"
            pinner.write_text(f'identity = "{identity}"\nregion = "r{number % 3}"\n')
            words += ["--pinner", str(pinner)]
        genesis = self.say(None, "genesis", "--name", "loopback", "--ceremony-heights", str(ceremony_heights), *words, *members)
        for height in epochs:
            genesis += f"\n[[epoch]]\nfirst_height = {height}\n"
            genesis += "".join(f"[[epoch.validator]]\n{pathlib.Path(member).read_text()}\n" for member in members)
        (self.folder / "genesis.toml").write_text(genesis)
        for node in self.nodes:
            self.say(node.config, "init")

    def relay_host(self, number):
        """The address of a relay, for itself and for validators."""
        return "127.0.0.1"

    def api_of(self, number, port):
        """Where a validator's API is, as its configuration says it."""
        return f"127.0.0.1:{port}"

    def inside(self, name):
        """What a command begins with that runs where validator `v0`, or relay `r0`, is."""
        return []

    def issue(self, name, to, seconds=86400):
        """An SVID, new or in place of the one that is there."""
        self.authority.issue(name, to, seconds)

    def make_relay(self, number, port, status):
        folder = self.folder / f"r{number}"
        folder.mkdir()
        self.issue(f"relay/r{number}", folder / "svid.pem")
        config = folder / "relay.toml"
        config.write_text(
            f'drain_s = 2\n[listen]\nudp = "{self.relay_host(number)}:{port}"\ntcp = "{self.relay_host(number)}:{port}"\nstatus = "127.0.0.1:{status}"\n'
            f'[identity]\nsvid_file = "svid.pem"\nbundle_file = "../ca/bundle.pem"\n')
        return Relay(folder, config, port, status)

    def relay_entry(self, number):
        return f'[[relay]]\nid = "spiffe://{DOMAIN}/relay/r{number}"\naddress = "{self.relay_host(number)}:{self.relays[number].port}"\n'

    def start_relay(self, number):
        relay = self.relays[number]
        with relay.log.open("ab") as log:
            command = [*self.inside(f"r{number}"), str(self.programs / "bpi-relay"), "--config", str(relay.config), "run"]
            relay.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start_relays(self):
        """Those that do not run."""
        for number, relay in enumerate(self.relays):
            if not relay.process or relay.process.poll() is not None:
                self.start_relay(number)

    def say(self, config, *words):
        """What a subcommand prints."""
        command = [self.program, *(["--config", str(config)] if config else []), *words]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise ClusterError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def start(self, number):
        node = self.nodes[number]
        with node.log.open("ab") as log:
            command = [*self.inside(f"v{number}"), self.program, "--config", str(node.config), "run"]
            node.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start_all(self):
        self.start_relays()
        for number in range(len(self.nodes)):
            self.start(number)

    def wait_for_relays(self, patience_s):
        """Waits until all relays answer."""
        deadline = time.monotonic() + patience_s
        for relay in self.relays:
            while True:
                self.check_running()
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{relay.status}/health", timeout=5):
                        break
                except OSError:
                    if time.monotonic() > deadline:
                        raise ClusterError(f"a relay does not answer within {patience_s} s") from None
                    time.sleep(0.05)

    def kill(self, number):
        """kill -9, and waits for its end."""
        self.nodes[number].process.send_signal(signal.SIGKILL)
        self.nodes[number].process.wait()

    def stop_all(self):
        """Asks all to stop, and gives their exit statuses."""
        running = [node for node in self.nodes if node.process and node.process.poll() is None]
        for node in running:
            node.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for node in running:
            try:
                node.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                node.process.kill()
                node.process.wait()
        for relay in self.relays:
            if relay.process and relay.process.poll() is None:
                relay.process.kill()
                relay.process.wait()
        return [node.process.returncode if node.process else None for node in self.nodes]

    def check_running(self):
        named = [(f"validator {number}", node) for number, node in enumerate(self.nodes)]
        for name, node in named + [(f"relay {number}", relay) for number, relay in enumerate(self.relays)]:
            if node.process and node.process.poll() is not None:
                tail = node.log.read_text(errors="replace").splitlines()[-3:]
                raise ClusterError(f"{name} ended with {node.process.returncode}: {' / '.join(tail)}")

    def connect(self, number, patience_s):
        """A connection to a node's API, which is made at the first request."""
        return http.client.HTTPConnection("127.0.0.1", self.nodes[number].api, timeout=patience_s)

    def ask(self, number, path, body=None, patience_s=5):
        """(status, text) of a request to a node's API; None while nobody answers."""
        connection = self.connect(number, patience_s)
        try:
            headers = {"content-type": "application/json"} if body else {}
            connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def fetch(self, number, path):
        """The bytes of an answer; None for another answer than 200, or none."""
        connection = self.connect(number, 5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.read() if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def status(self, number):
        answer = self.ask(number, "/v1/status")
        return json.loads(answer[1]) if answer and answer[0] == 200 else None

    def heights(self):
        """The last final height of each node, None for one that does not answer."""
        said = [self.status(number) for number in range(len(self.nodes))]
        return [status["height"] if status else None for status in said]

    def wait_for_height(self, height, patience_s, which=None):
        """Waits until all (or these) nodes have this height, and says how long that took."""
        began = time.monotonic()
        waiting = list(which if which is not None else range(len(self.nodes)))
        while waiting:
            self.check_running()
            status = self.status(waiting[0])
            if status and status["height"] >= height:
                waiting.pop(0)
                continue
            if time.monotonic() - began > patience_s:
                raise ClusterError(f"after {patience_s} s validators {waiting} have not height {height}: {self.heights()}")
            time.sleep(0.02)
        return time.monotonic() - began

    def metrics(self, number):
        """{name: value} of a node's figures, names with their labels."""
        answer = self.ask(number, "/metrics")
        if not answer:
            raise ClusterError(f"validator {number} gives no metrics")
        return {name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", answer[1], re.M) if not name.startswith("#")}

    def final(self, number):
        """{height: digest} of the headers that a node that does not run has kept."""
        lines = self.say(self.nodes[number].config, "headers", "list").splitlines()
        return {int(height): digest for height, digest, *_ in map(str.split, lines)}
