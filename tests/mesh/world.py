"""A whole mesh on this machine: validators, relays, pinners, an agent, and a private containerd whose containers run under DockLock."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "validators"))
import cluster  # noqa: E402

TENANT = "7e" * 16
NAMESPACE = "mesh"
IMAGE = "bpi.local/mesh:1"
HOST = "spiffe://mesh.test/host/a"
STORY = "spiffe://bpi.example/host/a"


class Member:
    """A pinner or the agent."""

    def __init__(self, name, program, folder):
        self.name, self.program, self.folder, self.process = name, program, folder, None
        folder.mkdir(parents=True)

    @property
    def log(self):
        return self.folder / "log"

    @property
    def config(self):
        return self.folder / f"{self.program.removeprefix('bpi-')}.toml"


class Mesh:
    """So many of each. Nothing runs until `start`."""

    def __init__(self, programs, folder, validators=4, relays=2, pinners=3, k=4, n=12, class_url="sqlite:class.db", batch_ms=200, stores=(), pinner_fields=""):
        self.programs, self.folder = pathlib.Path(programs).resolve(), pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.pinners = [Member(f"p{number}", "bpi-pinner", self.folder / f"p{number}") for number in range(pinners)]
        self.agent = Member("a0", "bpi-agent", self.folder / "a0")
        self.identity = self.say("bpi-agent", "keygen", self.agent.folder / "agent.key").strip()
        self.reader = self.say("bpi-agent", "keygen", "--reader", self.folder / "reader.key").strip()
        # The pinners' keys come before the chain, whose genesis names them; the chain's name comes after.
        for pinner in self.pinners:
            pinner.config.write_text(f'chain = "{"0" * 64}"\nkey_file = "pinner.key"\ndata_dir = "data"\n')
            member = self.say("bpi-pinner", "--config", pinner.config, "keygen")
            pinner.identity = next(line.split('"')[1] for line in member.splitlines() if line.startswith("identity"))
        self.net = cluster.Cluster(self.programs, self.folder / "net", validators, relays=relays, ceremony_heights=0,
                                   pinners=[pinner.identity for pinner in self.pinners], agents=[(self.identity, ["*"])])
        for member in [*self.pinners, self.agent]:
            self.net.issue(f"{member.program.removeprefix('bpi-')}/{member.name}", member.folder / "svid.pem", seconds=7 * 86400)
        self.ports = cluster.free_ports(1 + pinners)
        self.coding, self.class_url, self.batch_ms, self.stores = (k, n), class_url, batch_ms, list(stores)
        self.pinner_fields = pinner_fields
        self.containerd = None

    def say(self, program, *words):
        done = subprocess.run([str(self.programs / program), *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise cluster.ClusterError(f"{program} {' '.join(map(str, words))}: {done.stderr.strip()}")
        return done.stdout

    def common(self):
        return ('[identity]\nsvid_file = "svid.pem"\nbundle_file = "../net/ca/bundle.pem"\n'
                + "".join(self.net.relay_entry(relay) for relay in range(len(self.net.relays))))

    def bind(self):
        """What hangs on the chain's name, which the validators tell."""
        chain = self.net.status(0)["chain"]
        validators = json.loads(self.net.ask(0, "/v1/headers/latest")[1])["validators"]
        keys = [self.key_of(number) for number in range(len(self.net.nodes))]
        for at, pinner in enumerate(self.pinners):
            peers = "".join(f'[[peer]]\nkey = "{other.identity}"\n' for other in self.pinners if other is not pinner)
            store = self.stores[at] if at < len(self.stores) else ""
            pinner.config.write_text(
                f'chain = "{chain}"\nkey_file = "pinner.key"\ndata_dir = "data"\napi = "127.0.0.1:{self.ports[1 + at]}"\n{store}'
                f'[[agent]]\nkey = "{self.identity}"\ntenants = ["*"]\n{peers}'
                + "".join(f'[[validator]]\nkey = "{key}"\n' for key in keys) + self.common() + self.pinner_fields)
        k, n = self.coding
        self.agent.config.write_text(
            f'chain = "{chain}"\ntrust_file = "../trust.json"\npeer_key_file = "agent.key"\nspool_dir = "../spool"\noutbox_dir = "outbox"\n'
            f'class = "{self.class_url}"\nevidence_dir = "../evidence"\nsocket = "agent.sock"\nstatus = "127.0.0.1:{self.ports[0]}"\n'
            f'[coding]\nk = {k}\nn = {n}\n[batch]\nwait_ms = {self.batch_ms}\n[snapshot]\nfile = "../class.snapshot"\nevery_ms = 500\n'
            f'[[tenant]]\nid = "{TENANT}"\nboundaries = ["*"]\nreaders = ["{self.reader}"]\n'
            + "".join(f'[[validator]]\nkey = "{key}"\n' for key in keys)
            + "".join(f'[[pinner]]\nkey = "{pinner.identity}"\n' for pinner in self.pinners)
            + (f'[containerd]\nsocket = "{self.socket}"\nnamespace = "{NAMESPACE}"\nsnapshotter = "native"\n' if self.containerd else "")
            + self.common())
        host_key = (self.folder / "host.key.pub.pem").read_text()
        self.trust = self.folder / "trust.json"
        self.trust.write_text(json.dumps({
            "hosts": [{"id": HOST if self.containerd else STORY, "publicKey": host_key}],
            "chains": [{"id": chain, "validatorSets": [validators], "pinners": [pinner.identity for pinner in self.pinners]}]}))
        self.chain = chain

    def key_of(self, number):
        text = (self.net.nodes[number].folder / "member.toml").read_text()
        return next(line.split('"')[1] for line in text.splitlines() if line.startswith("peer_key"))

    def docklock_config(self):
        (self.folder / "profiles").mkdir(exist_ok=True)
        self.docklock = self.folder / "docklock.toml"
        self.docklock.write_text(
            f'host_id = "{HOST}"\nkey_file = "{self.folder}/host.key"\nstate_dir = "{self.folder}/state"\nspool_dir = "{self.folder}/spool"\n'
            f'profiles_dir = "{self.folder}/profiles"\nstage_dir = "{self.folder}/stage"\nagent_socket = "{self.agent.folder}/agent.sock"\n')
        if not (self.folder / "host.key").exists():
            self.say("docklock", "--config", self.docklock, "keygen", "--key-file", self.folder / "host.key")

    def start_containerd(self):
        """A containerd of our own, and an image in it made of busybox."""
        config = self.folder / "containerd.toml"
        self.socket = self.folder / "containerd.sock"
        config.write_text(f'version = 2\nroot = "{self.folder}/containerd"\nstate = "{self.folder}/containerd-state"\n'
                          f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "{self.socket}"\n')
        environment = {**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}", "DOCKLOCK_CONFIG": str(self.docklock)}
        with (self.folder / "containerd.log").open("ab") as log:
            self.containerd = subprocess.Popen(["containerd", "--config", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                               env=environment, start_new_session=True)
        end = time.monotonic() + 30
        while subprocess.run(self.ctr("version"), capture_output=True).returncode != 0:
            if time.monotonic() > end or self.containerd.poll() is not None:
                raise cluster.ClusterError(f"containerd does not answer; its log is {self.folder}/containerd.log")
            time.sleep(0.1)
        rootfs, archive = self.folder / "rootfs", self.folder / "image.tar"
        for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
            (rootfs / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", rootfs / "bin/busybox")
        for name in ("sh", "echo", "cat", "true", "sleep"):
            (rootfs / "bin" / name).symlink_to("busybox")
        (rootfs / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
        oci_image = HERE.parent.parent / "scripts/lib/oci-image"
        subprocess.run([oci_image, rootfs, IMAGE, archive], check=True, capture_output=True)
        subprocess.run(self.ctr("images", "import", archive), check=True, capture_output=True)

    def ctr(self, *words):
        return ["ctr", "--address", str(self.socket), "-n", NAMESPACE, *map(str, words)]

    def container(self, name, *words):
        """Runs one to its end; its exit status."""
        command = self.ctr("run", "--rm", "--snapshotter", "native", "--runtime", "io.bpi.docklock", IMAGE, name, *words)
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout, done.stderr

    def start_member(self, member):
        with member.log.open("ab") as log:
            command = [str(self.programs / member.program), "--config", str(member.config), "run"]
            member.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self, containers=True):
        if containers:
            self.docklock_config()
        else:
            # Records come from spool-fixture, whose host is the story's.
            self.say("spool-fixture", self.folder / "key/spool", "none", 0)
            shutil.copy(self.folder / "key/host.key.pub.pem", self.folder)
        self.net.start_all()
        if containers:
            self.start_containerd()
        self.net.wait_for_height(1, 60)
        self.bind()
        for member in [*self.pinners, self.agent]:
            self.start_member(member)
        self.wait(lambda: self.status(), "the agent answers", 60)

    def status(self):
        """What the agent says of itself; None while it does not."""
        return self.get(self.ports[0], "/v1/status")

    def get(self, port, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return json.loads(answer.read())
        except (OSError, ValueError):
            return None

    def wait(self, holds, what, patience_s):
        end = time.monotonic() + patience_s
        while not (found := holds()):
            if time.monotonic() > end:
                raise cluster.ClusterError(f"not within {patience_s} s: {what}; the folders are in {self.folder}")
            time.sleep(0.05)
        return found

    def settled(self):
        """True when all that was batched is final, and nothing of the spool is in no batch."""
        status = self.status()
        closing = sum(1 for kind in self.records().values() if kind != "intent")
        return (status and status["receipts"] == status["included"] == closing
                and not any(status["batches"][state] for state in ("packed", "kept", "attested")))

    def wait_for_evidence(self, patience_s):
        """Waits until all is final and the evidence of each receipt is written, which happens a moment later; the evidence."""
        self.wait(self.settled, "all is final", patience_s)
        receipts = sum(1 for kind in self.records().values() if kind == "receipt")
        return self.wait(lambda: len(found := self.evidence()) == receipts and found, f"the evidence of {receipts} receipts is written", 60)

    def logged(self, count, patience_s=30):
        """(whether the log of each validator has so many leaves, how many each has): one that was killed may be a few headers behind the others for a moment."""
        end = time.monotonic() + patience_s
        while True:
            told = [self.net.status(number) for number in range(len(self.net.nodes))]
            logs = [status and status["log"][1] for status in told]
            if set(logs) == {count} or time.monotonic() > end:
                return set(logs) == {count}, logs
            time.sleep(0.1)

    def records(self):
        """{(boundary, number): kind} of all records in the spool."""
        kinds = {}
        for path in (self.folder / "spool").glob("*/records/*.json"):
            boundary, number = path.parent.parent.name, int(path.stem)
            if (boundary, number) not in kinds:
                kinds[boundary, number] = self.kind_of(path)
        return kinds

    _kinds = {}

    def kind_of(self, path):
        if path not in self._kinds:
            import base64
            statement = json.loads(base64.b64decode(json.loads(path.read_text())["payload"]))
            self._kinds[path] = statement["predicateType"].split("execution-")[1].split("/")[0]
        return self._kinds[path]

    def evidence(self):
        return sorted(path for path in (self.folder / "evidence").glob("*/*") if not path.name.endswith(".part"))

    def verify(self, evidence, level="final"):
        """(exit status, the ladder) of docklock verify without a network."""
        command = ["unshare", "-n", str(self.programs / "docklock"), "verify", str(evidence), "--trust", str(self.trust), "--level", level]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout + done.stderr

    def stop(self):
        for member in [self.agent, *self.pinners]:
            if member.process and member.process.poll() is None:
                member.process.send_signal(signal.SIGCONT)
                member.process.terminate()
                try:
                    member.process.wait(10)
                except subprocess.TimeoutExpired:
                    member.process.kill()
                    member.process.wait()
        self.net.stop_all()
        if self.containerd and self.containerd.poll() is None:
            self.containerd.terminate()
            try:
                self.containerd.wait(10)
            except subprocess.TimeoutExpired:
                self.containerd.kill()
                self.containerd.wait()
        mounts = [line.split()[1] for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((mount for mount in mounts if mount.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], capture_output=True)


def show(prefix, programs, cases, containers=True, keep=False, **size):
    """Starts a mesh, prints what `cases(mesh)` yields, (name, holds, what was said), and gives the exit status. The folders stay when something failed."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix))
    mesh = Mesh(programs, folder, **size)
    passed = failed = 0
    try:
        mesh.start(containers)
        for name, holds, said in cases(mesh):
            passed, failed = passed + bool(holds), failed + (not holds)
            print(f"{'ok' if holds else 'FAIL'} {name}{'' if holds else f': {said}'}", flush=True)
    except (cluster.ClusterError, KeyError, OSError) as error:
        failed += 1
        print(f"FAIL {error!r}")
    finally:
        mesh.stop()
    if failed or keep:
        print(f"   kept: {folder}")
    else:
        shutil.rmtree(folder)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0
