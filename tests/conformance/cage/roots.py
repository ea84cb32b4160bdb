"""Root file systems: the Debian one, a small one for machines without a mirror, and a fresh overlay of either for each run."""
import contextlib
import hashlib
import os
import pathlib
import random
import shutil
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


class RootError(Exception):
    """A root file system that cannot be made or mounted."""


def sh(*command):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise RootError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


class Root:
    """A read-only lower layer and a place for what is written."""

    def __init__(self, lower, debian, scratch):
        self.lower, self.debian, self.scratch = pathlib.Path(lower), debian, pathlib.Path(scratch)

    def has(self, program):
        """Whether the root has a program by name, or a path."""
        if program.startswith("/"):
            return (self.lower / program[1:]).exists()
        return any(os.path.lexists(self.lower / place / program) for place in ("bin", "usr/bin", "usr/sbin", "sbin"))

    def ids(self, user):
        """Numbers of a user of the root."""
        for line in (self.lower / "etc/passwd").read_text(encoding="utf-8").splitlines():
            name, _, uid, gid, *_ = line.split(":")
            if name == user:
                return int(uid), int(gid)
        raise RootError(f"the root knows no user {user!r}")

    @contextlib.contextmanager
    def opened(self, place=None):
        """Mounts a fresh overlay in a new folder and takes it away again; yields the mounted root, whose upper layer is beside it."""
        folder = pathlib.Path(tempfile.mkdtemp(prefix="run-", dir=place or self.scratch))
        for name in ("upper", "work", "merged"):
            (folder / name).mkdir()
        # Opaque of its own accord: the host's umask must not show on the root folder of the container.
        os.chmod(folder / "upper", 0o755)
        sh("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={self.lower},upperdir={folder}/upper,workdir={folder}/work", folder / "merged")
        try:
            yield folder / "merged"
        finally:
            if subprocess.run(["umount", "--recursive", folder / "merged"], capture_output=True).returncode != 0:
                subprocess.run(["umount", "--lazy", "--recursive", folder / "merged"], capture_output=True)
            shutil.rmtree(folder, ignore_errors=True)


def small(folder, scratch):
    """Busybox and nothing else; static programs of the corpus come into /work."""
    busybox = pathlib.Path("/bin/busybox")
    if not busybox.exists():
        raise RootError("there is no /bin/busybox (package busybox-static)")
    recipe = hashlib.sha256(busybox.read_bytes() + pathlib.Path(__file__).read_bytes()).hexdigest()
    mark = folder.with_suffix(".recipe")
    if not mark.exists() or mark.read_text(encoding="ascii") != recipe:
        shutil.rmtree(folder, ignore_errors=True)
        for place, mode in (("bin", 0o755), ("etc", 0o755), ("proc", 0o555), ("sys", 0o555), ("dev", 0o755), ("root", 0o700), ("tmp", 0o1777),
                            ("work", 0o777), ("out", 0o777)):
            (folder / place).mkdir(parents=True)
            os.chmod(folder / place, mode)
        shutil.copy(busybox, folder / "bin/busybox")
        for applet in sh(busybox, "--list").split():
            if applet != "busybox":
                (folder / "bin" / applet).symlink_to("busybox")
        (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", encoding="ascii")
        (folder / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n", encoding="ascii")
        (folder / "etc/hosts").write_text("127.0.0.1 localhost\n", encoding="ascii")
        mark.write_text(recipe, encoding="ascii")
    return Root(folder, False, scratch)


def recipe_of_debian():
    return hashlib.sha256((HERE / "rootfs").read_bytes()).hexdigest()


def debian_is_made(folder):
    mark = pathlib.Path(f"{folder}.recipe")
    return mark.exists() and mark.read_text(encoding="ascii").strip() == recipe_of_debian()


def make_debian(folder):
    """Runs `rootfs`, which takes minutes the first time; what it says goes to a log."""
    if debian_is_made(folder):
        return
    log = pathlib.Path(f"{folder}.log")
    print(f"making the Debian root in {folder} (once, some minutes; log: {log})", flush=True)
    with log.open("wb") as stream:
        if subprocess.run([HERE / "rootfs", folder], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream).returncode != 0:
            raise RootError(f"the Debian root could not be made: {log.read_text(errors='replace').strip().splitlines()[-1]}")


def other_copy(root, target, seed):
    """A copy on another file system, its directories filled in another order: other inode numbers, other directory order."""
    copy_tree(root.lower, pathlib.Path(target), random.Random(seed))
    return Root(target, root.debian, root.scratch)


def copy_tree(source, target, dice):
    """Copies a folder with owners, modes, dates and hard links; each directory is filled in an order that the dice choose."""
    links = {}

    def copy(source, to):
        meta = source.lstat()
        if (meta.st_dev, meta.st_ino) in links:
            os.link(links[meta.st_dev, meta.st_ino], to, follow_symlinks=False)
            return
        if source.is_symlink():
            to.symlink_to(os.readlink(source))
        elif source.is_dir():
            to.mkdir()
            inside = sorted(source.iterdir())
            dice.shuffle(inside)
            for entry in inside:
                copy(entry, to / entry.name)
        elif source.is_file():
            shutil.copyfile(source, to)
        else:
            return
        if meta.st_nlink > 1 and not source.is_dir():
            links[meta.st_dev, meta.st_ino] = to
        os.chown(to, meta.st_uid, meta.st_gid, follow_symlinks=False)
        if not source.is_symlink():
            os.chmod(to, meta.st_mode & 0o7777)
        os.utime(to, ns=(meta.st_atime_ns, meta.st_mtime_ns), follow_symlinks=False)

    copy(source, target)
