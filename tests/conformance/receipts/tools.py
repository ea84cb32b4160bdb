"""Gets the verifiers that others wrote, by the machine's own package clients, into a cache outside the clone.

Each function returns what its caller needs to run the tool, or raises ToolError with one sentence. Nothing is installed into the
system, and no address is written here: where Debian's packages are is read from the machine's own apt at run time.
"""
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("BPI_CACHE") or
                     pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "bpi") / "conformance"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class ToolError(Exception):
    """Why a tool cannot be had."""


def run(command, what, **options):
    """Runs a command to its end; its last line of complaint becomes the error."""
    print(f"  … {what}", file=sys.stderr, flush=True)
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True, timeout=900, **options)
    if done.returncode != 0:
        complaint = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise ToolError(f"{what} failed: {complaint[:300]}")
    return done.stdout


def stamped(folder, wanted, make):
    """Makes `folder` anew unless it was made from the same `wanted` before."""
    stamp = folder / ".made-from"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make(folder)
    stamp.write_text(wanted, encoding="utf-8")
    return folder


def cached(name, room):
    """Where a room has its own: other rooms do not install over it."""
    return name if room == HERE else f"{name}-{room.name}"


def python(room=HERE):
    """A Python with the requirements.txt of a room."""
    wanted = (room / "requirements.txt").read_text(encoding="utf-8") + sys.version

    def make(folder):
        run([sys.executable, "-m", "venv", folder], "making a virtual environment")
        run([folder / "bin/pip", "install", "--quiet", "-r", room / "requirements.txt"], "installing from PyPI")
    return stamped(CACHE / cached("python", room), wanted, make) / "bin/python"


def node_modules(room=HERE):
    """The folder for NODE_PATH with the package.json of a room installed."""
    if not shutil.which("npm"):
        raise ToolError("npm is not installed (Debian: apt-get install npm)")
    wanted = (room / "package.json").read_text(encoding="utf-8")

    def make(folder):
        shutil.copy(room / "package.json", folder)
        run(["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
            "installing from npm", cwd=folder)
    return stamped(CACHE / cached("node", room), wanted, make) / "node_modules"


def mirror():
    """The machine's own Debian mirror and release, as its apt has them."""
    release = ""
    for line in pathlib.Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        if line.startswith("VERSION_CODENAME="):
            release = line.split("=", 1)[1].strip('"')
    targets = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Identifier: Packages"],
                  "asking apt for its mirror")
    for line in targets.splitlines():
        uri, _, suite = line.rpartition(" ")
        if suite == release:
            return uri, release
    raise ToolError(f"apt has no source for {release!r}")


def debian(name, packages):
    """Unpacks Debian packages, given as (package, suite or None for the machine's own), into one folder: no root needed."""
    def make(folder):
        uri, release = mirror()
        apt = folder / "apt"
        for part in ("lists/partial", "cache/archives/partial", "empty"):
            (apt / part).mkdir(parents=True)
        (apt / "status").touch()
        suites = sorted({suite or release for _, suite in packages})
        signed = f"[signed-by={KEYRING}] " if os.path.exists(KEYRING) else ""
        (apt / "sources.list").write_text("".join(f"deb {signed}{uri} {suite} main\n" for suite in suites), encoding="utf-8")
        options = [f"Dir::Etc::sourcelist={apt}/sources.list", f"Dir::Etc::sourceparts={apt}/empty", f"Dir::State::lists={apt}/lists",
                   f"Dir::State::status={apt}/status", f"Dir::Cache={apt}/cache", "Acquire::Languages=none",
                   "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false", "Acquire::Retries=3"]
        if os.geteuid() == 0:
            options.append("APT::Sandbox::User=root")
        options = [word for option in options for word in ("-o", option)]
        run(["apt-get", *options, "update"], f"reading Debian's lists for {', '.join(suites)}")
        run(["apt-get", *options, "download", *(f"{package}/{suite or release}" for package, suite in packages)],
            f"downloading {', '.join(package for package, _ in packages)}", cwd=apt)
        for archive in sorted(apt.glob("*.deb")):
            run(["dpkg", "-x", archive, folder], f"unpacking {archive.name}")
        shutil.rmtree(apt)
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise ToolError(f"{name} comes from a Debian package, and this machine has no apt")
    return stamped(CACHE / name, repr(packages), make)


def cosign():
    """cosign 3, which the current stable releases of Debian do not have; the newer package is one static program."""
    return debian("cosign", [("cosign", "sid")]) / "usr/bin/cosign"


def signify():
    """signify and the environment it runs in."""
    root = debian("signify", [("signify-openbsd", None), ("libbsd0", None), ("libmd0", None)])
    libraries = [str(path.parent) for path in root.rglob("libbsd.so.0")]
    return next(root.rglob("bin/signify-openbsd")), dict(os.environ, LD_LIBRARY_PATH=":".join(libraries))


def openssl():
    """openssl."""
    found = shutil.which("openssl")
    if not found:
        raise ToolError("openssl is not installed (Debian: apt-get install openssl)")
    return found
