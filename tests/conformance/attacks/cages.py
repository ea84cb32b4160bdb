"""One caged run of a program that means harm: how it ended, what it left behind, and what its supervisor needed for it."""
import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "cage"))
import roots  # noqa: E402  the small root file system is the corpus's own

PROGRAMS = HERE / "programs"
CACHE = pathlib.Path(os.environ.get("BPI_CACHE") or pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "bpi")
# How often the supervisor's memory is looked at.
LOOK_S = 0.05
# How long what is left behind may take to go: the guardian ends it.
PATIENCE_S = 10


class CageError(Exception):
    """A program that cannot be built, or a run that cannot be begun."""


@dataclasses.dataclass
class Run:
    """What one run came to."""
    status: int
    stdout: str
    stderr: str
    wall_s: float
    late: bool = False  # it had to be killed
    run_json: dict = None
    statement: dict = None
    abort: str = ""
    log: bytes = b""
    engine_kib: int = 0
    left: list = dataclasses.field(default_factory=list)

    @property
    def ended(self):
        """How it ended, in a word."""
        if self.late:
            return "HUNG"
        return "receipt" if self.statement else "abort" if self.abort else "NOTHING"

    @property
    def run_hash(self):
        return self.statement["subject"][0]["digest"]["sha256"] if self.statement else None

    @property
    def decisions(self):
        """The part of the log that must not depend on the host: of each 40 bytes the first 24."""
        body = self.log[8:]
        return b"".join(body[at:at + 24] for at in range(0, len(body), 40))

    def print_of(self):
        """Everything about it that must be the same again."""
        if self.abort:
            # Where a run is broken off, what its tasks still wrote and in what order they died is nobody's claim.
            return (self.status, self.abort)
        said = hashlib.sha256(self.decisions + self.stdout.encode() + self.stderr.encode()).hexdigest()
        return (self.status, self.run_hash, said)

    def sources(self, status="uncontrolled"):
        if not self.statement:
            return set()
        return {source["name"] for source in self.statement["predicate"]["assurance"]["sources"] if source["status"] == status}

    def refused(self):
        return {call["syscall"]: call for call in (self.run_json or {}).get("denied", [])}

    def escapes(self):
        text = json.dumps(self.statement or {})
        return text.count("outside the cage") + text.count("out of turn")


def compile_all(folder):
    """Builds every program of programs/, static, with this machine's compiler."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = (PROGRAMS / "say.h").read_bytes()
    built = {}
    for source in sorted(PROGRAMS.glob("*.c")):
        digest = hashlib.sha256(source.read_bytes() + shared).hexdigest()[:16]
        made = folder / f"{source.stem}-{digest}"
        if not made.exists():
            done = subprocess.run(["gcc", "-static", "-O1", "-pthread", "-Wall", "-Wextra", "-Wno-unused-result", "-o", f"{made}.part", source],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode != 0:
                raise CageError(f"compiling {source.name} failed: {done.stderr.strip()[-600:]}")
            pathlib.Path(f"{made}.part").rename(made)
        built[source.stem] = made
    return built


# Strict, for programs that may wait for themselves for ever while a timer of theirs goes on: a day of logical time takes minutes.
BOUNDED = "bounded"
BOUNDED_PROFILE = """extends = "strict"
description = "strict, for ten minutes of logical time"
[budget]
virtual_seconds_max = 600
"""


class Cages:
    """Runs programs in a small root, one after the other, with configuration, key and spool of its own."""

    def __init__(self, docklock, folder):
        self.docklock, self.folder = pathlib.Path(docklock).resolve(), pathlib.Path(folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.config = self.folder / "docklock.toml"
        self.spool = self.folder / "spool"
        self.config.write_text("".join(f'{name} = "{self.folder}/{value}"\n' for name, value in (
            ("key_file", "host.key"), ("state_dir", "state"), ("spool_dir", "spool"), ("profiles_dir", "profiles"))), encoding="utf-8")
        (self.folder / "profiles").mkdir()
        (self.folder / "profiles" / f"{BOUNDED}.toml").write_text(BOUNDED_PROFILE, encoding="utf-8")
        self.environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "DOCKLOCK_CONFIG": str(self.config)}
        subprocess.run([self.docklock, "keygen"], env=self.environment, capture_output=True, check=True, stdin=subprocess.DEVNULL)
        self.root = roots.small(CACHE / "conformance-small", self.folder)
        self.programs = compile_all(CACHE / "attack-programs")

    @contextlib.contextmanager
    def opened(self, files=()):
        """A root with all programs and these (name, bytes) in /work."""
        with self.root.opened(self.folder) as merged:
            for name, path in self.programs.items():
                shutil.copy(path, merged / "work" / name)
            for name, content in files:
                (merged / "work" / name).write_bytes(content)
            for path in (merged / "work").iterdir():
                os.chmod(path, 0o755)
                os.utime(path, (1600000000, 1600000000))
            yield merged

    def run(self, merged, argv, limit_s, seed=1, profile="strict", watch=None, more=()):
        """Runs argv and waits for its end; `watch(pid of docklock)` is called at every look."""
        name = f"attack-{secrets.token_hex(6)}"
        place = self.folder / name
        place.mkdir()
        before = self.world()
        command = [self.docklock, "run", "--quiet", "--rootfs", merged, "--workdir", "/work", "--profile", profile, "--seed", str(seed), "--id", name,
                   "--receipt-dir", place / "evidence", "--trace", place / "log", *more, "--", *argv]
        with (place / "out").open("wb") as out, (place / "err").open("wb") as err:
            started = time.monotonic()
            process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=self.environment,
                                       start_new_session=True)
            late, memory = self.attend(process, started + limit_s, watch)
        run = Run(process.returncode, (place / "out").read_text(errors="replace"), (place / "err").read_text(errors="replace"),
                  time.monotonic() - started, late=late, engine_kib=memory)
        run.stderr = run.stderr.replace(name, "NAME").replace(str(self.folder), "FOLDER")
        self.gather(run, place, name)
        run.left = self.left_behind(before, name)
        shutil.rmtree(place)
        return run

    def attend(self, process, deadline, watch):
        memory = 0
        while process.poll() is None:
            engine = engine_of(process.pid)
            if engine:
                memory = max(memory, peak_kib(engine))
            if watch:
                watch(process.pid, engine)
            if time.monotonic() > deadline:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return True, memory
            time.sleep(LOOK_S)
        return False, memory

    def gather(self, run, place, name):
        evidence = place / "evidence"
        if (evidence / "run.json").exists():
            run.run_json = json.loads((evidence / "run.json").read_bytes())
            run.statement = statement_of(evidence / "receipt.sigstore.json")
        if (place / "log").exists():
            run.log = (place / "log").read_bytes()
        for record in sorted(self.spool.glob("*/records/*.json"), reverse=True)[:4]:
            statement = statement_of(record)
            if statement["predicate"].get("containerId") == name and "reason" in statement["predicate"]:
                run.abort = statement["predicate"]["reason"].replace(name, "NAME")

    def explain(self, merged, argv):
        """What `docklock explain` says of a run of argv, in one line."""
        evidence = self.folder / "explained"
        shutil.rmtree(evidence, ignore_errors=True)
        run = [self.docklock, "run", "--quiet", "--rootfs", merged, "--workdir", "/work", "--profile", "strict", "--receipt-dir", evidence, "--", *argv]
        subprocess.run([str(word) for word in run], env=self.environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
        done = subprocess.run([self.docklock, "explain", evidence], env=self.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return " ".join((done.stdout + done.stderr).split())

    @staticmethod
    def world():
        """What a run might leave behind: processes, mounts, control groups."""
        processes = {int(entry) for entry in os.listdir("/proc") if entry.isdigit()}
        mounts = pathlib.Path("/proc/self/mountinfo").read_text().count("\n")
        return processes, mounts

    def left_behind(self, before, name):
        deadline = time.monotonic() + PATIENCE_S
        while True:
            processes, mounts = self.world()
            left = [f"process {pid} {word_of(pid)}" for pid in sorted(processes - before[0]) if word_of(pid)]
            if mounts > before[1]:
                left.append(f"{mounts - before[1]} mounts")
            # Folders of others come and go meanwhile: walk does not mind.
            left += [f"control group {path}" for path, folders, _ in os.walk("/sys/fs/cgroup") if name in folders][:3]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.1)


def statement_of(path):
    stored = json.loads(pathlib.Path(path).read_bytes())
    return json.loads(base64.b64decode(stored.get("dsseEnvelope", stored)["payload"]))


def children_of(pid):
    try:
        text = " ".join(path.read_text() for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:
        return []
    return [int(child) for child in text.split()]


def word_of(pid):
    """The name of a process that is still there and no zombie."""
    try:
        state, comm = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0], pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
    return "" if state in "ZX" else comm


def engine_of(pid):
    """The supervisor among the children of a `docklock run`."""
    return next((child for child in children_of(pid) if word_of(child) == "docklock-engine"), None)


def peak_kib(pid):
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)
