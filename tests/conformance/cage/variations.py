"""The adversary: every run on a host that differs from the last one in all that must not matter.

What is varied: load (spinning processes), processors, host name, time since boot, environment, working folder, umask, memory, the kind of
standard output, the file system below the overlay, inode numbers, the order in which directories were filled, process ids.
Not varied here: the date, the kernel, user id maps; the virtual machine is for these.
"""
import dataclasses
import os
import pathlib
import random
import signal
import subprocess


@dataclasses.dataclass
class Variation:
    """One host. `number` 0 is the machine as it is."""
    number: int
    loaded: bool
    processors: list
    hostname: str
    boot_offset_s: int
    environment: dict
    folder: str
    umask: int
    memory_mib: int
    to_pipe: bool
    in_memory: bool

    @property
    def dice(self):
        """Random numbers of this variation, the same each time."""
        return random.Random(f"order {self.number}")


def vary(number, loaded):
    dice = random.Random(f"host {number}")
    there = sorted(os.sched_getaffinity(0))
    if number == 0:
        return Variation(0, loaded, there, "alpha", 0, {}, "/", 0o022, 0, False, False)
    noise = {f"NOISE_{dice.randrange(10**6)}": "x" * dice.randrange(2000) for _ in range(dice.randrange(1, 30))}
    noise |= {"LANG": dice.choice(["de_DE.UTF-8", "C", "tr_TR.UTF-8"]), "TZ": dice.choice(["Asia/Tokyo", "America/Caracas", "UTC"]), "MALLOC_ARENA_MAX": "1"}
    return Variation(
        number=number,
        loaded=loaded,
        processors=there if number % 3 == 0 else [dice.choice(there)],
        hostname=f"host{dice.randrange(10**6)}",
        boot_offset_s=dice.randrange(10**6),
        environment=noise,
        folder=dice.choice(["/tmp", "/usr", "/var", "/proc", "/"]),
        umask=dice.choice([0o022, 0o077, 0o000, 0o027]),
        memory_mib=dice.choice([0, 0, 200, 800]),
        to_pipe=number % 2 == 1,
        in_memory=number % 4 in (1, 2),
    )


def dressed(command, variation):
    """The command as it is started on the varied host."""
    script = 'hostname "$1"; umask "$2"; cd "$3"; shift 3; exec "$@"'
    return ["unshare", "--uts", "--time", f"--monotonic={variation.boot_offset_s}", f"--boottime={variation.boot_offset_s}", "--fork", "--kill-child",
            "sh", "-c", script, "sh", variation.hostname, f"{variation.umask:04o}", variation.folder,
            "taskset", "--cpu-list", ",".join(map(str, variation.processors)), *command]


class Load:
    """Processes that only burn time, stopped while no load is wanted, and memory that is held."""

    def __init__(self, spinners):
        spin = ["sh", "-c", "while :; do :; done"]
        self.spinners = [subprocess.Popen(spin, stdin=subprocess.DEVNULL) for _ in range(spinners)]
        self.ballast = bytearray()
        self.want(False)

    def want(self, loaded, memory_mib=0):
        for spinner in self.spinners:
            spinner.send_signal(signal.SIGCONT if loaded else signal.SIGSTOP)
        self.ballast = bytearray(memory_mib << 20)
        self.ballast[::4096] = b"x" * len(self.ballast[::4096])

    def close(self):
        for spinner in self.spinners:
            spinner.kill()
            spinner.wait()


def fill(merged, variation, files):
    """Puts the files of a program, as `Workshop.parts` names them, into /work, each directory in an order of its own; what the image says (mode, time) is the same."""
    dice = variation.dice
    work = pathlib.Path(merged) / "work"
    tree = work / "tree"
    # Inode numbers that were handed out before.
    for number in range(dice.randrange(40)):
        (work / f".old{number}").touch()
    for number in range(dice.randrange(40)):
        (work / f".old{number}").unlink(missing_ok=True)
    for left in work.glob(".old*"):
        left.unlink()
    tree.mkdir()
    names = [f"{name}{number}" for name in ("alpha", "Beta", "gamma", "zeta") for number in range(10)]
    dice.shuffle(names)
    for name in names:
        put(tree / name, name.encode() * 3, 0o644)
    (tree / "sub").mkdir()
    (tree / "link").symlink_to("alpha1")
    files = list(files)
    dice.shuffle(files)
    for source, name, mode in files:
        put(work / name, source.read_bytes(), mode)
    os.utime(tree / "link", (1600000000, 1600000000), follow_symlinks=False)
    for path in (tree / "sub", tree, work):
        os.chmod(path, 0o777)
        os.utime(path, (1600000000, 1600000000))
    # The layer that was just made is the root folder of the image.
    os.utime(merged, (1600000000, 1600000000))


def put(path, content, mode):
    path.write_bytes(content)
    os.chmod(path, mode)
    os.utime(path, (1600000000, 1600000000))
