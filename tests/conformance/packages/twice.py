#!/usr/bin/env python3
"""Builds Debian source packages natively and caged, on hosts that differ, and compares the .debs bit for bit.

    twice.py [--only NAME…] [--runs N] [--json FILE] …     the packages of packages.toml
    twice.py --find NAME… [--cage] [--why]                 which of these differ natively, and what makes them differ

The path of the CLI comes from the environment variable DOCKLOCK, everything that is kept goes below BPI_CACHE. Needs root, and a Debian
mirror the first time. Ends with `N passed, N failed`; exit status 1 if a package could not be built, or not twice the same in the cage.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "cage"))

import builds  # noqa: E402
import harness  # noqa: E402
import roots  # noqa: E402
import runs  # noqa: E402
import sources  # noqa: E402
import variations  # noqa: E402
import verdicts  # noqa: E402
import world  # noqa: E402

CACHE = harness.CACHE


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these packages of packages.toml")
    parser.add_argument("--find", nargs="+", metavar="NAME", help="native builds only, of any source packages whose build dependencies the root has")
    parser.add_argument("--way", choices=builds.WAYS, help="only builds of this way [default: all that are listed; with --find: dpkg]")
    parser.add_argument("--cage", action="store_true", help="with --find: build those that differ in the cage too")
    parser.add_argument("--why", action="store_true", help="of those that differ natively one more native build for each factor alone")
    parser.add_argument("--list", action="store_true", help="list the packages and end")
    parser.add_argument("--runs", type=int, default=2, metavar="N", help="caged builds of a package [default: 2]")
    parser.add_argument("--spinners", type=int, default=4, metavar="N", help="processes that burn time beside every second caged build [default: 4]")
    parser.add_argument("--no-native", action="store_true", help="caged builds only")
    parser.add_argument("--limit", type=int, default=300, metavar="SECONDS", help="no build may take longer [default: 300]")
    parser.add_argument("--evidence", action="store_true", help="keep what `docklock diff` needs of unlike runs (large)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the table there too")
    return parser.parse_args()


def listed():
    """What the root holds, and the listed builds: (name, way) with the factors that make them differ natively."""
    manifest = tomllib.loads((HERE / "packages.toml").read_text(encoding="utf-8"))
    return manifest["root"], {(name, way): causes for way in builds.WAYS for name, causes in manifest[way].items()}


def wanted(options, packages):
    """The builds to make: pairs of name and way."""
    if options.find:
        return [(name, options.way or "dpkg") for name in options.find]
    return [(name, way) for name, way in packages if name in (options.only or [name]) and options.way in (None, way)]


def make_root(needs):
    """Runs `rootfs`, which takes minutes the first time; what it says goes to a log."""
    folder = CACHE / "packages-root"
    log = CACHE / "packages-root.log"
    print(f"the root of the builds is {folder} (made once, some minutes; log: {log})", flush=True)
    with log.open("wb") as stream:
        if subprocess.run([HERE / "rootfs", folder, *needs], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream).returncode != 0:
            raise roots.RootError(f"it could not be made: {log.read_text(errors='replace').strip().splitlines()[-1]}")
    return folder


def natively(runner, root, build, result):
    """Builds on the plain host and on the one that differs in everything."""
    for name, factors in (("native", ()), ("native-other", builds.FACTORS)):
        result.native.append(runner.native_as(root, build, factors))
        runner.keep(build, name, result.native[-1])
        if result.native_fails:
            break


def explain(runner, root, build, result):
    """Builds natively once more for each factor alone: which of them make the .debs differ."""
    plain, other = map(builds.digest, result.native)
    result.causes = []
    for factor in builds.FACTORS:
        alone = runner.native_as(root, build, (factor,))
        if alone.debs and builds.digest(alone) != plain:
            result.causes.append(factor)
            # This one does all that all of them do together; or nothing has to change at all.
            if factor == "again" or builds.digest(alone) == other:
                break


def caged(runner, root, build, result, options, load):
    """Builds in the cage, every second time with a loaded machine."""
    for number in range(options.runs):
        variation = builds.host(number, loaded=number % 2 == 1)
        load.want(variation.loaded, variation.memory_mib)
        result.caged.append(runner.caged_on(root, build, variation))
        runner.keep(build, f"caged{number}", result.caged[-1])
        load.want(False)
        if result.caged[-1].failure:
            break


def play(runner, root, build, result, options, load):
    """All that is wanted of one package."""
    if not options.no_native:
        natively(runner, root, build, result)
    if options.why and result.native_differs:
        explain(runner, root, build, result)
    if options.find is None or (options.cage and result.native_differs):
        caged(runner, root, build, result, options, load)
    print(f"   {verdicts.line(verdicts.row(result))}", flush=True)


def write(results, file):
    """The table so far: a run of all packages takes long, and may be ended."""
    file.write_text(json.dumps([verdicts.row(result) for result in results], indent=1) + "\n", encoding="utf-8")


def main():
    options = arguments()
    needs, packages = listed()
    if options.list:
        for (name, way), causes in packages.items():
            print(f"{name:<22}{way:<7}{' '.join(causes)}")
        return 0
    if os.geteuid() != 0:
        sys.exit("twice.py: containers need root")
    world.enter()
    if unknown := set(options.only or ()) - {name for name, _ in packages}:
        sys.exit(f"twice.py: packages.toml does not list {', '.join(sorted(unknown))}")
    docklock = os.environ.get("DOCKLOCK") or shutil.which("docklock")
    if not docklock and (options.cage or not options.find):
        sys.exit("twice.py: the environment variable DOCKLOCK does not say where the CLI is")
    CACHE.mkdir(parents=True, exist_ok=True)
    # A folder of its own: a search may run beside.
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="packages-work-", dir=CACHE))
    root = roots.Root(make_root(needs), True, scratch)
    runner = builds.Runner(pathlib.Path(docklock or "/").resolve(), scratch, CACHE / ("packages-found" if options.find else "packages-kept"))
    if docklock:
        runner.prepare()
    runner.evidence = options.evidence
    load = variations.Load(0 if options.find and not options.cage else options.spinners)
    archive = sources.Archive(CACHE / "packages-apt")
    results = []
    try:
        for name, way in wanted(options, packages):
            try:
                source = sources.unpacked(archive, CACHE / "packages-sources", name)
            except sources.SourceError as refusal:
                print(f"   {name}: {refusal}", flush=True)
                continue
            results.append(verdicts.Result(name, source.version, way, causes=list(packages.get((name, way), ()))))
            play(runner, root, builds.Build(source, way, timeout_s=options.limit), results[-1], options, load)
            if options.json:
                write(results, options.json)
    finally:
        load.close()
        shutil.rmtree(scratch, ignore_errors=True)
    return verdicts.show(results, runner.kept)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (sources.SourceError, roots.RootError, runs.RunError) as refusal:
        sys.exit(f"twice.py: {refusal}")
