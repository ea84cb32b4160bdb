"""The corpus: what programs.toml says, the rows of controls they stand for, and the programs built from source.

A program is built once and kept by the digest of its source, so that every run of every host starts the same bytes.
"""
import dataclasses
import hashlib
import os
import pathlib
import shutil
import subprocess
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = HERE / "programs"

# What the cage says that it controls; every row needs a program that shows it.
ROWS = ("clocks", "sleep", "timers", "timeouts", "entropy", "tsc", "rdrand", "cpuid", "pids", "metadata", "directories", "procfs", "host",
        "usage", "addresses", "environment", "threads", "futex", "pipes", "signals", "waiting", "locks", "fifos", "sockets", "shared memory",
        "processes", "spinning", "deadlock", "refusals", "runtimes", "builds", "archives", "databases", "crypto", "tools")


class CorpusError(Exception):
    """A manifest that cannot be, or a program that cannot be built."""


@dataclasses.dataclass
class Program:
    """One entry of programs.toml."""
    name: str
    row: str
    argv: list = dataclasses.field(default_factory=list)
    sh: str = ""  # instead of argv: a script for /bin/sh
    source: str = ""  # a file of programs/ to build; without argv and sh it is what is run
    files: list = dataclasses.field(default_factory=list)  # more files of programs/ for /work, as they are
    needs: list = dataclasses.field(default_factory=list)  # programs the root must have
    env: dict = dataclasses.field(default_factory=dict)
    user: str = "root"
    native: str = "differs"  # differs | same: what twenty native runs are expected to do
    cage: str = "identical"  # identical | refused | names SOURCE… | ends: what the cage must reach
    profile: str = "strict"
    sample: bool = False
    timeout_s: int = 120

    @property
    def command(self):
        """The argument vector."""
        if self.sh:
            return ["/bin/sh", "-c", self.sh]
        return self.argv or [f"/work/{pathlib.Path(self.source).stem}"]


def load(path=HERE / "programs.toml"):
    """All programs, in the order of the file, the one that measures the start first."""
    known = {field.name for field in dataclasses.fields(Program)}
    programs = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["program"]:
        if unknown := set(entry) - known:
            raise CorpusError(f"program {entry.get('name')!r} has the unknown fields {sorted(unknown)}")
        program = Program(**entry)
        if program.row not in ROWS:
            raise CorpusError(f"program {program.name!r} has the unknown row {program.row!r}")
        if bool(program.argv) + bool(program.sh) + bool(program.source and not program.argv and not program.sh) != 1:
            raise CorpusError(f"program {program.name!r} needs one of argv, sh and source")
        programs.append(program)
    names = [program.name for program in programs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise CorpusError(f"two programs have the name {sorted(twice)}")
    if missing := set(ROWS) - {program.row for program in programs}:
        raise CorpusError(f"no program stands for {sorted(missing)}")
    return programs


class Workshop:
    """Builds sources into `folder`; C and Rust with the host's compilers, the rest with those of the Debian root."""

    def __init__(self, folder, root):
        self.folder, self.root = folder, root
        folder.mkdir(parents=True, exist_ok=True)

    def parts(self, program):
        """What /work gets: (path here, name there, mode)."""
        made = [(PROGRAMS / name, name, 0o644) for name in program.files]
        if program.source:
            built = self.build(program.source)
            if built.is_dir():
                made += [(path, path.name, 0o755 if os.access(path, os.X_OK) else 0o644) for path in sorted(built.iterdir())]
            else:
                made.append((built, pathlib.Path(program.source).stem, 0o755))
        return made

    def build(self, source):
        """Path of the built file, or of a folder of built files."""
        path = PROGRAMS / source
        maker = getattr(self, "of_" + path.suffix.lstrip("."), None)
        if maker is None:
            raise CorpusError(f"nobody here can build {source}")
        digest = hashlib.sha256(path.read_bytes() + (PROGRAMS / "check.h").read_bytes()).hexdigest()[:16]
        made = self.folder / f"{path.stem}-{path.suffix[1:]}-{digest}"
        if not made.exists():
            part = made.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.unlink(missing_ok=True)
            maker(path, part)
            part.rename(made)
        return made

    def run(self, command, deed, **options):
        try:
            done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, **options)
        except subprocess.TimeoutExpired as late:
            raise CorpusError(f"{deed} was not over after {late.timeout:.0f} s") from late
        if done.returncode != 0:
            raise CorpusError(f"{deed} failed: {(done.stderr or done.stdout).strip()[-600:]}")

    def of_c(self, path, made):
        self.run(["gcc", "-static", "-O1", "-pthread", "-Wall", "-Wextra", "-o", made, path], f"compiling {path.name}")

    def of_rs(self, path, made):
        if not shutil.which("rustc"):
            raise CorpusError("rustc is not installed")
        self.run(["rustc", "--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-o", made, path], f"compiling {path.name}")

    def in_root(self, path, made, script):
        """Runs a compiler of the root natively, in a folder that becomes `made`."""
        if not self.root.debian:
            raise CorpusError("its compiler is in the Debian root only")
        made.mkdir()
        shutil.copy(path, made / path.name)
        with self.root.opened() as merged:
            inside = merged / "work" / "build"
            shutil.copytree(made, inside)
            # Compilers read /dev/urandom and write to /dev/null.
            for node in ("null", "zero", "random", "urandom"):
                (merged / "dev" / node).touch()
                self.run(["mount", "--bind", f"/dev/{node}", merged / "dev" / node], f"mounting /dev/{node}")
            self.run(["mount", "-t", "proc", "proc", merged / "proc"], "mounting /proc")
            self.run(["chroot", merged, "sh", "-c", f"cd /work/build && {script}"], f"compiling {path.name}", env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "GOCACHE": "/tmp/go", "GOFLAGS": "-trimpath"})
            shutil.rmtree(made)
            shutil.copytree(inside, made)

    def of_go(self, path, made):
        self.in_root(path, made, f"CGO_ENABLED=0 go build -o {path.stem} {path.name}")

    def of_java(self, path, made):
        self.in_root(path, made, f"javac {path.name}")

    def of_erl(self, path, made):
        self.in_root(path, made, f"erlc {path.name}")

    def of_cs(self, path, made):
        self.in_root(path, made, f"mcs {path.name}")
