"""An independent witness: which system calls of a caged program did the kernel begin to run?

The tracepoint raw_syscalls:sys_enter fires after seccomp has let a call pass, and not for one that was refused or answered (entry_common of
the kernel: seccomp first, then the tracepoint). Tracing follows forks from `docklock run` on; a task counts from the moment the program in
question is executed in it (sched_process_exec), and so do its children (sched_process_fork).
"""
import collections
import contextlib
import os
import pathlib
import re
import secrets
import subprocess

BUFFER_KIB = 65536
LINE = re.compile(r"^\s*.{16}-(\d+)\s+\[\d+\]\s+\S+\s+[\d.]+: (\w+): (.*)$")


class NoWitness(Exception):
    """This machine's kernel lets nobody trace it, or not from here."""


class Witness:
    """A tracing instance of our own."""

    def __init__(self, mountpoint):
        self.mountpoint = pathlib.Path(mountpoint)
        self.mountpoint.mkdir(exist_ok=True)
        if subprocess.run(["mount", "-t", "tracefs", "tracefs", self.mountpoint], capture_output=True).returncode != 0:
            raise NoWitness("tracefs cannot be mounted")
        self.place = self.mountpoint / "instances" / f"attacks-{secrets.token_hex(4)}"
        try:
            self.place.mkdir()
            self.put("tracing_on", "0")
            self.put("buffer_size_kb", str(BUFFER_KIB))
            self.put("trace_clock", "mono")
            for event in ("raw_syscalls/sys_enter", "sched/sched_process_fork", "sched/sched_process_exec"):
                self.put(f"events/{event}/enable", "1")
            self.put("options/event-fork", "1")
        except OSError as reason:
            self.close()
            raise NoWitness(f"this kernel has not what the witness needs ({reason})") from reason

    def put(self, name, value):
        (self.place / name).write_text(value, encoding="ascii")

    def close(self):
        with contextlib.suppress(OSError):
            self.place.rmdir()
        subprocess.run(["umount", self.mountpoint], capture_output=True)

    def own_number(self):
        """This process's id as the kernel's trace has it, whatever process namespace it lives in: it leaves a mark and reads who did."""
        mark = secrets.token_hex(8)
        self.put("trace", "")
        self.put("set_event_pid", "")
        self.put("tracing_on", "1")
        self.put("trace_marker", mark)
        self.put("tracing_on", "0")
        for line in (self.place / "trace").read_text(errors="replace").splitlines():
            if mark in line:
                return line.split("-")[-2 if line.count("-") > 1 and not line.split("-", 1)[1][:1].isdigit() else 1].split()[0]
        raise NoWitness("a mark in the trace was not found")

    @contextlib.contextmanager
    def watching(self):
        """Follows everything that this process starts meanwhile."""
        number = self.own_number()
        self.put("trace", "")
        self.put("set_event_pid", number)
        self.put("tracing_on", "1")
        try:
            yield
        finally:
            self.put("tracing_on", "0")
            self.put("set_event_pid", "")

    def lost(self):
        """Events that did not fit: with any, the count is no proof."""
        total = 0
        for stats in self.place.glob("per_cpu/cpu*/stats"):
            for line in stats.read_text().splitlines():
                if line.startswith(("overrun:", "dropped events:", "commit overrun:")):
                    total += int(line.split(":")[1])
        return total

    def calls_of(self, program):
        """How often each number was begun by tasks that executed `program`, or descend from one that did."""
        counts, ours = collections.Counter(), set()
        with (self.place / "trace").open(errors="replace") as lines:
            for line in lines:
                found = LINE.match(line)
                if not found:
                    continue
                pid, event, rest = int(found[1]), found[2], found[3]
                if event == "sched_process_exec":
                    if f"filename={program} " in rest:
                        ours.add(pid)
                elif event == "sched_process_fork":
                    if pid in ours:
                        ours.add(int(rest.rsplit("child_pid=", 1)[1].split()[0]))
                elif event == "sys_enter" and pid in ours:
                    counts[int(rest.split()[1])] += 1
        return counts
