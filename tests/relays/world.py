"""A world of network namespaces: each has one TUN device, and bpi-wire joins them, with delay, loss and reordering that can change while it runs.

Everything is in a mount, network and process namespace of its own (`isolate`), so that nothing of the host is touched and nothing outlives the program."""
import ctypes
import fcntl
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys

# Set for the program that runs inside.
INSIDE = "BPI_RELAYS_ISOLATED"
# From linux/if_tun.h: a TUN device, and no four bytes before each packet.
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
DEVICE = "bpi0"
# Packets that wait at a device: a burst of some streams' windows.
QUEUE_PACKETS = 4096
LIBC = ctypes.CDLL(None, use_errno=True)


class WorldError(Exception):
    """The world cannot be made."""


class Missing(Exception):
    """Something that this machine does not have; the text goes after `because`."""


def isolate():
    """Begins this program anew in namespaces of its own, unless it is there already."""
    if os.environ.get(INSIDE) != "1":
        for need, where in (("unshare", "util-linux"), ("ip", "iproute2"), ("nft", "nftables"), ("ss", "iproute2")):
            if not shutil.which(need):
                raise Missing(f"{need} is not installed (apt-get install {where})")
        if os.geteuid() != 0:
            raise Missing("namespaces need root")
        if not os.path.exists("/dev/net/tun"):
            raise Missing("/dev/net/tun is not there")
        wrap = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        if subprocess.run([*wrap, "true"], capture_output=True).returncode != 0:
            raise Missing("this machine lets nobody make namespaces")
        sys.stdout.flush()
        os.execvpe(wrap[0], [*wrap, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})
    # Names of namespaces are mounts under /run/netns: here they are nobody else's.
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    os.mkdir("/run/netns")
    run("ip", "link", "set", "lo", "up")
    try:
        run("ip", "netns", "add", "try")
        os.close(tun_in("try"))
        run("nft", "-f", "-", text="table ip try {\nchain input {\ntype filter hook input priority 0\nmeta l4proto udp counter drop\n}\n}\ndelete table ip try\n")
    except (OSError, WorldError) as error:
        raise Missing(f"the kernel does not do it: {error}") from None
    finally:
        subprocess.run(["ip", "netns", "delete", "try"], capture_output=True)


def run(*command, text=None):
    """What a command prints."""
    done = subprocess.run([str(word) for word in command], input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise WorldError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


def tun_in(name):
    """A descriptor of a new TUN device in a namespace. The device is gone when the last descriptor is."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(there)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
        return device
    finally:
        enter(home)
        os.close(home)
        os.close(there)


def enter(namespace):
    if LIBC.setns(namespace, CLONE_NEWNET) != 0:
        raise WorldError(f"setns: {os.strerror(ctypes.get_errno())}")


class World:
    """Namespaces by name, each in a region and with an address, and the wire between them."""

    def __init__(self, wire, folder, places, seed=1, **rules):
        """`places`: {name: region}. `rules`: those of bpi-wire."""
        self.folder = pathlib.Path(folder)
        self.names = list(places)
        self.addresses = {name: f"10.77.0.{1 + number}" for number, name in enumerate(self.names)}
        self.processes = []
        devices, ports = [], []
        self.wire = None
        try:
            for name, region in places.items():
                run("ip", "netns", "add", name)
                devices.append(tun_in(name))
                run("ip", "-n", name, "-batch", "-", text=(
                    f"link set lo up\nlink set {DEVICE} addrgenmode none\naddress add {self.addresses[name]}/24 dev {DEVICE}\n"
                    f"link set {DEVICE} txqueuelen {QUEUE_PACKETS} up\n"))
                ports.append({"name": name, "fd": devices[-1], "address": self.addresses[name], "region": region})
            self.wire = subprocess.Popen([str(wire)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=devices, text=True)
        finally:
            for device in devices:
                os.close(device)
        self.tell({"seed": seed, "ports": ports, "rules": rules})

    def tell(self, line):
        """Gives the wire a line, and returns when that is in force."""
        self.wire.stdin.write(json.dumps(line) + "\n")
        self.wire.stdin.flush()
        if not self.wire.stdout.readline():
            raise WorldError(f"bpi-wire ended with {self.wire.wait()}")

    def rule(self, **rules):
        """Other rules from now on: delay_us, late_per_mille, late_us, loss_per_mille; what is not named is none."""
        self.tell(rules)

    def inside(self, name):
        """What a command begins with that runs in a namespace."""
        return ["nsenter", f"--net=/run/netns/{name}"]

    def start(self, name, *command, log, output=None):
        """A program in a namespace; its input is a pipe. `output`: a file."""
        with open(log, "ab") as errors, open(output or log, "ab") as out:
            process = subprocess.Popen([*self.inside(name), *map(str, command)], stdin=subprocess.PIPE, stdout=out, stderr=errors)
        self.processes.append(process)
        return process

    def nft(self, name, text):
        run(*self.inside(name), "nft", "-f", "-", text=text)

    def block_udp(self, name):
        """Drops UDP in both directions at a namespace, as a firewall does."""
        rule = "meta l4proto udp counter drop"
        chains = "".join(f"chain {hook} {{\ntype filter hook {hook} priority 0\n{rule}\n}}\n" for hook in ("input", "output"))
        self.nft(name, f"table ip blocked {{\n{chains}}}\n")

    def open_udp(self, name):
        self.nft(name, "delete table ip blocked\n")

    def listening(self, name):
        """What listens in a namespace, a line each; an unconnected UDP socket is one."""
        return run(*self.inside(name), "ss", "-H", "-lntu").splitlines()

    def connected(self, name, kind):
        """Connections of a namespace, a line each. `kind`: `-t` or `-u`."""
        return run(*self.inside(name), "ss", "-H", "-n", kind, "state", "established").splitlines()

    def dropped_by_devices(self):
        """Packets that found no room on their way to the wire."""
        dropped = 0
        for name in self.names:
            said = json.loads(run("ip", "-n", name, "-json", "-statistics", "link", "show", DEVICE))
            dropped += said[0]["stats64"]["tx"]["dropped"]
        return dropped

    def end(self):
        """Ends all programs and takes the namespaces away. The wire's counts."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdin.close()
        counts = {}
        if self.wire:
            counts["dropped_by_devices"] = self.dropped_by_devices()
            self.wire.stdin.close()
            counts |= json.loads(self.wire.stdout.read() or "{}")
            _, status, used = os.wait4(self.wire.pid, 0)
            self.wire.returncode = os.waitstatus_to_exitcode(status)
            counts["cpu_s"] = round(used.ru_utime + used.ru_stime, 2)
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
        return counts

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.wire and self.wire.returncode is None:
            self.end()
