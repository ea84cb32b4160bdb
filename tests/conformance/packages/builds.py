"""Building a source package natively or caged, each time on another host, and what came of it."""
import dataclasses
import hashlib
import pathlib
import random
import resource
import shutil

import runs
import sources
import variations

HERE = pathlib.Path(__file__).resolve().parent
PROFILES = HERE.parents[2] / "policies/profiles"
# strict with a clock that starts after the youngest file: 2026-01-02T00:00:00Z.
EPOCH_S = sources.YOUNGEST_S + 86400
PROFILE = "strict-packages"
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
# Ways to build. Arguments: folder of the tree, command that the build is started with.
WAYS = {
    # As the archive does: dpkg exports SOURCE_DATE_EPOCH, and flags that keep the path out of debug information.
    "dpkg": 'cd "$1"; shift; "$@" dpkg-buildpackage -us -uc -b && cp ../*.deb /out/',
    # What Debian Policy 4.9 asks of every source package, and nothing else: dates are those of the build.
    "rules": 'cd "$1"; shift; "$@" debian/rules build && "$@" debian/rules binary && cp ../*.deb /out/',
}
# The container's place for a tree, in each caged build: the path is a part of the plan, as the clock is.
CAGED_PLACE = "/build"
# What is varied natively, and how the table calls it: first nothing but the moment, then the most frequent cause.
FACTORS = ("again", "path", "order", "date", "names", "umask")


@dataclasses.dataclass
class Build:
    """A build of one package, in the form that `runs.Runner` takes."""
    source: sources.Source
    way: str = "dpkg"
    place: str = CAGED_PLACE
    wrapper: list = dataclasses.field(default_factory=list)
    env: dict = dataclasses.field(default_factory=dict)
    user: str = "root"
    profile: str = PROFILE
    timeout_s: int = 300

    @property
    def name(self):
        return self.source.name if self.way == "dpkg" else f"{self.source.name}.{self.way}"

    @property
    def tree(self):
        """The source tree inside the root."""
        return f"{self.place}/{self.source.name}/tree"

    @property
    def command(self):
        return ["/bin/sh", "-c", WAYS[self.way], "sh", self.tree, "env", *self.wrapper]


def host(number, loaded=False):
    """The first host is this machine as it is, later ones differ from it in all that `variations` varies."""
    return variations.vary(number, loaded)


def native_build(build, factors):
    """The host and the build of a native run that differs from the plain one in these factors."""
    plain, other = host(0), host(1)
    variation = dataclasses.replace(plain)
    env = {"DEB_BUILD_OPTIONS": "parallel=4"}
    wrapper, place = [], build.place
    if "path" in factors:
        place = "/srv/quite/another/longer/place"
    if "date" in factors:
        # libfaketime changes what programs are told, the kernel's dates of files stay.
        wrapper += [f"LD_PRELOAD={FAKETIME}", "FAKETIME=+398d 7h", "DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"]
    if "names" in factors:
        variation = dataclasses.replace(variation, hostname=other.hostname, environment=other.environment)
        env |= {"USER": "builder", "LOGNAME": "builder", "HOME": "/var/tmp", "SHELL": "/bin/dash", "TZ": "XYZ-14"}
        wrapper += ["setarch", "x86_64", "--uname-2.6"]
    if "umask" in factors:
        variation = dataclasses.replace(variation, umask=0o002)
    if "order" in factors:
        variation = dataclasses.replace(variation, number=1, processors=other.processors[:1], in_memory=True)
        env["DEB_BUILD_OPTIONS"] = "parallel=1"
    return variation, dataclasses.replace(build, place=place, wrapper=wrapper, env=env)


class Runner(runs.Runner):
    """Runs builds. The .debs of each run are kept below `kept` until the next one of that name."""

    # Whether to keep what `docklock diff` reads.
    evidence = False

    def prepare(self):
        super().prepare()
        profiles = self.folder / "profiles"
        profiles.mkdir()
        strict = (PROFILES / "strict.toml").read_text(encoding="utf-8").splitlines()
        lines = [f"epoch = {EPOCH_S}" if line.startswith("epoch =") else line for line in strict]
        if lines == strict:
            raise runs.RunError("the profile strict has no line for its epoch")
        (profiles / f"{PROFILE}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        with self.config.open("a", encoding="utf-8") as config:
            config.write(f'profiles_dir = "{profiles}"\n')

    def fill(self, merged, variation, parts):
        """Puts the source tree where the build has it, its directories filled in an order of this host."""
        build, = parts
        dice = random.Random(f"tree {variation.number}")
        sources.place(build.source, pathlib.Path(f"{merged}{build.tree}"), dice)

    def caged(self, root, program, parts, variation, profile=None):
        # With evidence the run has a layer of its own over the root, which is kept in a new folder.
        layer = self.folder / "layer"
        shutil.rmtree(layer, ignore_errors=True)
        self.options = ("--repeatable", "--out", layer) if self.evidence else ()
        return super().caged(root, program, parts, variation, profile)

    def watch(self, merged, variation, command, environment, limit_s):
        before = processor_s()
        outcome = super().watch(merged, variation, command, environment, limit_s)
        outcome.cpu_s = processor_s() - before
        out = merged.parent / "upper/out"
        if self.evidence and (merged.parent / "evidence").exists():
            out = self.folder / "layer/out"
            outcome.tree = runs.tree_of(out)
            shutil.rmtree(self.folder / "evidence", ignore_errors=True)
            shutil.copytree(merged.parent / "evidence", self.folder / "evidence")
        outcome.debs = {name: digest for name, _, digest in outcome.tree if name.endswith(".deb")}
        self.products = {path.name: path.read_bytes() for path in out.glob("*.deb")}
        return outcome

    def native_as(self, root, build, factors):
        variation, build = native_build(build, factors)
        return self.native(root, build, (build,), variation)

    def caged_on(self, root, build, variation):
        build = dataclasses.replace(build, env={"DEB_BUILD_OPTIONS": "parallel=4"})
        return self.caged(root, build, (build,), variation)

    def keep(self, program, name, outcome):
        """Keeps streams, receipt, .debs and, with --evidence, the log of decisions of the run that was just made."""
        super().keep(program, name, outcome)
        folder = self.kept / program.name / name
        for file, content in self.products.items():
            (folder / file).write_bytes(content)
        if (self.folder / "evidence").exists():
            shutil.move(self.folder / "evidence", folder / "evidence")


def processor_s():
    """Processor time of all that this process has started and seen end, and of all that these have."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def digest(outcome):
    """One digest for all .debs of a run."""
    return hashlib.sha256(repr(sorted(outcome.debs.items())).encode()).hexdigest()
