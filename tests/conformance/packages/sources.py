"""Source packages: fetched by this machine's apt, verified by it, unpacked once and kept, so that every build starts from the same files."""
import os
import pathlib
import shutil
import subprocess

import roots

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Nothing in a root or in a source tree is younger: `rootfs` gives its files the same limit, and the clock of a build starts after it.
YOUNGEST_S = 1767225600
APT_CONF = """Dir::State "{folder}/state";
Dir::Cache "{folder}/cache";
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
APT::Sandbox::User "root";
"""


class SourceError(Exception):
    """A source package that cannot be had or unpacked."""


def sh(*command, **keywords):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, **keywords)
    if done.returncode != 0:
        raise SourceError(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


def mirror():
    """The Debian mirror that this machine's own apt uses."""
    lines = sh("apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages").split("\n")
    for line in lines:
        origin, _, place = line.partition(" ")
        if origin == "Debian" and "security" not in place:
            return place
    raise SourceError("this machine's apt names no Debian mirror")


class Archive:
    """A private apt, beside the system's, that knows where sources are."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.environment = dict(os.environ, APT_CONFIG=str(self.folder / "apt.conf"))

    def prepare(self):
        if list((self.folder / "state/lists").glob("*_Sources*")):
            return
        for name in ("state/lists/partial", "cache/archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "sources.list").write_text(f"deb-src [signed-by={KEYRING}] {mirror()} bookworm main\n", encoding="ascii")
        (self.folder / "apt.conf").write_text(APT_CONF.format(folder=self.folder), encoding="utf-8")
        sh("apt-get", "update", "-qq", env=self.environment)

    def fetch(self, name, folder):
        """Leaves name's .dsc and its parts in a folder. apt checks them against the signed index."""
        self.prepare()
        folder.mkdir(parents=True, exist_ok=True)
        sh("apt-get", "source", "--download-only", "--only-source", "-qq", name, env=self.environment, cwd=folder)


class Source:
    """One unpacked source package."""

    def __init__(self, name, version, tree):
        self.name, self.version, self.tree = name, version, tree


def unpacked(archive, folder, name):
    """The source package by name, fetched and unpacked if it is not there yet."""
    place = pathlib.Path(folder) / name
    ready = place / "version"
    if not ready.exists():
        shutil.rmtree(place, ignore_errors=True)
        archive.fetch(name, place / "parts")
        descriptions = list((place / "parts").glob("*.dsc"))
        if len(descriptions) != 1:
            raise SourceError(f"apt fetched {len(descriptions)} descriptions of {name}")
        sh("dpkg-source", "--no-check", "-x", descriptions[0], place / "tree", umask=0o022)
        age(place / "tree")
        version = sh("dpkg-parsechangelog", "-l", place / "tree/debian/changelog", "-S", "Version").strip()
        ready.write_text(version, encoding="ascii")
    return Source(name, ready.read_text(encoding="ascii"), place / "tree")


def age(tree):
    """Gives what unpacking wrote or patched just now the date that stands for now, so that all hosts have one input."""
    for path in [tree, *tree.rglob("*")]:
        if path.lstat().st_mtime > YOUNGEST_S:
            os.utime(path, (YOUNGEST_S, YOUNGEST_S), follow_symlinks=False)


def place(source, target, dice):
    """Copies the tree to a folder, each directory filled in another order."""
    target.parent.mkdir(parents=True)
    roots.copy_tree(source.tree, target, dice)
