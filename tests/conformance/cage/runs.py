"""One run of one program: natively in plain namespaces, or caged by `docklock run`; each in a fresh overlay, on a varied host."""
import base64
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import subprocess
import time

import variations

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The plan's environment: the same in every caged run.
PLANNED = {"PATH": PATH, "HOME": "/tmp", "LANG": "C.UTF-8", "TZ": "UTC"}
# Sources that the harness itself holds fixed, and that so excuse no difference.
HELD = {"image", "mounts"}

# A plain container without any control: own processes, mounts, names and network. Arguments: root, uid, gid, folder, command.
NATIVE = r'''
root="$1" uid="$2" gid="$3"; shift 3
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do : >"$root/dev/$node"; mount --bind "/dev/$node" "$root/dev/$node"; done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"; ln -s fd/0 "$root/dev/stdin"; ln -s fd/1 "$root/dev/stdout"; ln -s fd/2 "$root/dev/stderr"; ln -s pts/ptmx "$root/dev/ptmx"
ip link set lo up
exec chroot "$root" /usr/bin/env -C /work setpriv --reuid "$uid" --regid "$gid" --clear-groups "$@"
'''
NATIVE_SMALL = NATIVE.replace("/usr/bin/env -C /work setpriv --reuid \"$uid\" --regid \"$gid\" --clear-groups", "/bin/sh -c 'cd /work; exec \"$@\"' sh")


# What `docklock run` says of a run that the engine has ended: the deadlock, the spinning, the spent budget.
ENDED = re.compile(rb"no receipt could be made: ((?:deadlock|task \d+ used the processor|the budget of) ?[^\n]*)")


class RunError(Exception):
    """A run that told nothing: no receipt, or a failure of the runner itself."""


@dataclasses.dataclass
class Outcome:
    """What one run left."""
    status: int
    stdout: bytes
    stderr: bytes
    tree: list
    wall_s: float
    loaded: bool
    run_json: dict = None
    statement: dict = None
    failure: str = ""
    ended: str = ""  # why the cage ended the run: then there is an abort record and no receipt

    def visible(self):
        """Digest of everything a user can see: streams, status, the files of /out."""
        tree = json.dumps(self.tree).encode()
        parts = (self.stdout, self.stderr, str(self.status).encode(), tree)
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    @property
    def run_hash(self):
        return self.statement["subject"][0]["digest"]["sha256"]

    @property
    def trace(self):
        """Digest of the decision log, if the receipt has one."""
        found = list(search(self.statement["predicate"], "trace"))
        return json.dumps(found[0], sort_keys=True) if found else None

    @property
    def assurance(self):
        return self.statement["predicate"]["assurance"]

    @property
    def level(self):
        return self.assurance["level"]

    def sources(self, *statuses):
        return {source["name"] for source in self.assurance["sources"] if source["status"] in statuses} - HELD

    def refused(self):
        return {call["syscall"] for call in self.run_json["denied"]}

    def told(self, key):
        """A value of the receipt wherever it stands."""
        return next(search(self.statement["predicate"], key), None)


def search(value, key):
    if isinstance(value, dict):
        if key in value and value[key] is not None:
            yield value[key]
        value = value.values()
    elif not isinstance(value, list):
        return
    for inner in value:
        yield from search(inner, key)


def tree_of(folder):
    """Names, kinds, modes and contents, sorted: what a user compares of two output folders."""
    listing = []
    for path in sorted(folder.rglob("*")) if folder.exists() else ():
        meta = path.lstat()
        content = os.readlink(path) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        listing.append([str(path.relative_to(folder)), oct(meta.st_mode), content])
    return listing


class Runner:
    """Runs programs of a corpus in one root."""

    # More options for `docklock run`.
    options = ()

    def __init__(self, docklock, folder, kept):
        self.docklock, self.folder, self.kept = docklock, folder, kept
        self.config = folder / "docklock.toml"
        self.environment = {"PATH": os.environ.get("PATH", PATH), "DOCKLOCK_CONFIG": str(self.config)}

    def prepare(self):
        """The host's key, a configuration with state and spool of our own, and the two places of writable layers."""
        for name in ("memory", "disk"):
            (self.folder / name).mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", self.folder / "memory"], check=True)
        self.config.write_text("".join(f'{name} = "{self.folder}/{value}"\n' for name, value in (
            ("key_file", "host.key"), ("state_dir", "state"), ("spool_dir", "spool"))), encoding="utf-8")
        done = subprocess.run([self.docklock, "keygen"], env=self.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise RunError(f"docklock keygen: {done.stderr.strip()}")

    def native(self, root, program, parts, variation):
        uid, gid = root.ids(program.user)
        noise = PLANNED | {"LANG": variation.environment.get("LANG", "C.UTF-8")} | variation.environment | program.env
        with root.opened(self.place(variation)) as merged:
            self.fill(merged, variation, parts)
            command = ["unshare", "--mount", "--propagation", "private", "--ipc", "--net", "--pid", "--fork", "--kill-child",
                       "sh", "-ec", NATIVE if root.debian else NATIVE_SMALL, "sh", merged, uid, gid, *program.command]
            return self.watch(merged, variation, command, noise | {"PATH": PATH}, program.timeout_s)

    def caged(self, root, program, parts, variation, profile=None, options=()):
        with root.opened(self.place(variation)) as merged:
            self.fill(merged, variation, parts)
            bundle, evidence = merged.parent / "bundle", merged.parent / "evidence"
            bundle.mkdir()
            (bundle / "config.json").write_text(json.dumps(specification(root, program, merged)), encoding="utf-8")
            command = [self.docklock, "run", "--quiet", "--bundle", bundle, "--profile", profile or program.profile, "--receipt-dir", evidence,
                       *self.options, *options,
                       # A name of its own, also beside another harness: on the host it is the name of a cgroup.
                       "--id", f"conformance-{secrets.token_hex(6)}"]
            outcome = self.watch(merged, variation, command, self.environment | variation.environment, program.timeout_s)
            if not outcome.failure and (found := ENDED.search(outcome.stderr)):
                outcome.ended = found.group(1).decode(errors="replace").strip()
            elif not outcome.failure and not (evidence / "run.json").exists():
                outcome.failure = f"no receipt: {outcome.stderr.decode(errors='replace').strip()[-300:] or 'nothing was said'}"
            if (evidence / "run.json").exists():
                outcome.run_json = json.loads((evidence / "run.json").read_bytes())
                envelope = json.loads((evidence / "receipt.sigstore.json").read_bytes())["dsseEnvelope"]
                outcome.statement = json.loads(base64.b64decode(envelope["payload"]))
            return outcome

    def fill(self, merged, variation, parts):
        """Puts what a program needs into its root."""
        variations.fill(merged, variation, parts)

    def place(self, variation):
        """Where the writable layer is: on this file system or in memory."""
        return self.folder / ("memory" if variation.in_memory else "disk")

    def watch(self, merged, variation, command, environment, limit_s):
        """Starts the command on the varied host, waits for its end and looks at what it left."""
        command = variations.dressed([str(word) for word in command], variation)
        stdout_file, stderr_file = merged.parent / "stdout", merged.parent / "stderr"
        failure = ""
        with stdout_file.open("wb") as out, stderr_file.open("wb") as err:
            target = subprocess.PIPE if variation.to_pipe else out
            started = time.monotonic()
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=target, stderr=err, env=environment, start_new_session=True)
            try:
                piped, _ = process.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                failure = f"not over after {limit_s} s"
                piped = end(process)
            wall = time.monotonic() - started
        stdout = piped if variation.to_pipe else stdout_file.read_bytes()
        return Outcome(process.returncode, stdout or b"", stderr_file.read_bytes(), tree_of(merged.parent / "upper" / "out"), wall, variation.loaded,
                       failure=failure)

    def keep(self, program, name, outcome):
        """Keeps what a run left, for people who look for the reason."""
        folder = self.kept / program.name / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "stdout").write_bytes(outcome.stdout)
        (folder / "stderr").write_bytes(outcome.stderr)
        (folder / "tree.json").write_text(json.dumps(outcome.tree, indent=1), encoding="utf-8")
        for file, value in (("run.json", outcome.run_json), ("statement.json", outcome.statement)):
            if value:
                (folder / file).write_text(json.dumps(value, indent=1, sort_keys=True), encoding="utf-8")


def end(process):
    """Ends a process group that we started: asked first, then killed."""
    for number, patience_s in ((signal.SIGTERM, 5), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
            piped, _ = process.communicate(timeout=patience_s)
            return piped
        except (subprocess.TimeoutExpired, ProcessLookupError):
            continue
    return b""


def specification(root, program, merged):
    """config.json of a run: nothing in it depends on the host but the path of the root."""
    uid, gid = root.ids(program.user)
    capabilities = [f"CAP_{name}" for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETPCAP", "SETUID")] if uid == 0 else []
    # Options as containerd has them.
    mounts = [("/proc", "proc", ["nosuid", "noexec", "nodev"]),
              ("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
              ("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
              ("/dev/shm", "tmpfs", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
              ("/dev/mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
              ("/sys", "sysfs", ["nosuid", "noexec", "nodev", "ro"])]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": uid, "gid": gid},
            "args": program.command,
            "env": [f"{name}={value}" for name, value in (PLANNED | program.env).items()],
            "cwd": "/work",
            "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": str(merged), "readonly": False},
        "hostname": "docklock",
        "mounts": [{"destination": place, "type": kind, "source": kind, "options": options} for place, kind, options in mounts],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]},
        "annotations": {"io.bpi.docklock.outputs": "/out"},
    }
