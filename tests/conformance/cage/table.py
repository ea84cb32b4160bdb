"""Verdicts over the runs of a program, and the table of all."""
import dataclasses
import json
import statistics

# A run shorter than this beside the start of a container says nothing about slowdown.
MEASURABLE_S = 0.02
# Of a program that makes code at run time these are named, used or not: they excuse only a program that is said to use them.
INSTRUCTIONS = {"cpuid", "rdrand"}


@dataclasses.dataclass
class Result:
    """All runs of one program."""
    program: object
    native: list = dataclasses.field(default_factory=list)
    caged: list = dataclasses.field(default_factory=list)
    measured: object = None  # a caged run whose receipt knows its root

    def told_new(self):
        """Whether the last caged run is the first one or unlike all before it."""
        *before, last = self.caged or [None]
        return last is not None and (bool(last.failure) or key(last) not in [key(outcome) for outcome in before if not outcome.failure])

    def progress(self):
        last = self.caged[-1] if self.caged else None
        if last and last.failure:
            return f"FAILED: {last.failure}"
        if not last:
            return "not run"
        unlike = f", status {last.status}, natively {self.native[-1].status}" if self.native and self.native[-1].status != last.status else ""
        return f"{len({key(outcome) for outcome in self.caged})} kind(s) in {len(self.caged)}, {last.wall_s:.1f} s{unlike}"

    @property
    def native_kinds(self):
        return len({outcome.visible() for outcome in self.native})

    @property
    def identical(self):
        """The largest number of caged runs that are the same."""
        keys = [key(outcome) for outcome in self.caged if not outcome.failure]
        return max(map(keys.count, keys), default=0)

    def uncontrolled(self):
        """Sources that every receipt names as not controlled, and ways in which it left the deterministic path."""
        good = [outcome for outcome in self.caged if outcome.statement]
        if not good:
            return set()
        named = set.intersection(*(outcome.sources("uncontrolled") for outcome in good))
        if all(outcome.told("escapes") for outcome in good):
            named.add("escapes")
        return named

    def verdict(self):
        """(word, passed, reason): what the cage reached, and whether that is what programs.toml says."""
        wanted, program = self.program.cage.split(), self.program
        failures = [outcome.failure for outcome in self.caged if outcome.failure]
        if failures:
            return "FAILED", False, failures[0]
        named = self.uncontrolled()
        if self.identical < len(self.caged):
            where = differences(self.caged)
            if not named - (INSTRUCTIONS - set(wanted[1:])):
                return "SILENT", False, f"differs in silence: {where}"
            passed = wanted[0] == "names" and bool(named & set(wanted[1:]))
            return "named", passed, f"differs ({where}), the receipt names {', '.join(sorted(named))}"
        first = self.caged[0]
        if wanted[0] == "refused":
            return "refused", bool(first.refused()), f"refused: {', '.join(sorted(first.refused()))}"
        if first.ended:
            return "ends", wanted[0] == "ends", f"the cage ended the run: {first.ended}"
        if wanted[0] == "ends":
            return "same", False, "the cage did not end the run"
        expected = {outcome.status for outcome in self.native}
        if expected and first.status not in expected:
            words = (first.stderr or first.stdout).decode(errors="replace").strip().splitlines()
            return "BROKEN", False, f"status {first.status}, natively {sorted(expected)}: {words[-1][:160] if words else 'nothing was said'}"
        return "same", True, ""

    def wall_s(self, outcomes):
        idle = [outcome.wall_s for outcome in outcomes if not outcome.loaded and not outcome.failure]
        return statistics.median(idle or [outcome.wall_s for outcome in outcomes] or [0])


def key(outcome):
    """What has to be the same in every run: the run-hash, the decision log, and what the streams and files say."""
    if outcome.ended:
        return outcome.ended, outcome.stdout, str(outcome.tree)
    if outcome.statement is None:
        return outcome.visible()
    return outcome.run_hash, outcome.trace, outcome.visible()


def differences(outcomes):
    """In which respects caged runs differ, shortest words first."""
    found = []
    for name, of in (("status", lambda o: o.status), ("stdout", lambda o: o.stdout), ("stderr", lambda o: o.stderr), ("files", lambda o: o.tree),
                     ("trace", lambda o: o.trace)):
        if len({repr(of(outcome)) for outcome in outcomes}) > 1:
            found.append(name)
    paths = {path for outcome in outcomes[1:] for path in unlike(outcomes[0].run_json, outcome.run_json)}
    found += sorted(path for path in paths if not path.startswith(("result.stdout", "result.stderr", "result.outputs")))
    lines = first_unlike_line(outcomes)
    return ", ".join(found[:6]) + (f"; {lines}" if lines else "")


def unlike(one, other, path=""):
    """Paths at which two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            yield from unlike(one.get(name), other.get(name), f"{path}.{name}".lstrip("."))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other)):
            yield from unlike(left, right, f"{path}[{left.get('syscall') or left.get('name') or number if isinstance(left, dict) else number}]")
    elif one != other:
        yield path


def first_unlike_line(outcomes):
    first = outcomes[0].stdout.splitlines()
    for outcome in outcomes[1:]:
        for left, right in zip(first, outcome.stdout.splitlines()):
            if left != right:
                return f"{left[:60]!r} is not {right[:60]!r}"
    return ""


def slowdown(result, start):
    """Caged against native, less what starting costs; None where the program is too short to tell."""
    if not start or not result.native or any(outcome.failure for outcome in result.caged):
        return None
    native = result.wall_s(result.native) - start.wall_s(start.native)
    caged = result.wall_s(result.caged) - start.wall_s(start.caged)
    return caged / native if native >= MEASURABLE_S and caged > 0 else None


def level(result, good):
    """That of the run whose root was measured; without one D0, or none where there is no receipt."""
    if result.measured and result.measured.statement:
        return result.measured.level
    return good[0].level if good else None


def row(result, start):
    word, passed, reason = result.verdict()
    good = [outcome for outcome in result.caged if outcome.statement]
    factor = slowdown(result, start)
    return {
        "program": result.program.name,
        "row": result.program.row,
        "nativeDiffers": result.native_kinds > 1,
        "nativeKinds": result.native_kinds,
        "runs": len(result.caged),
        "identical": result.identical,
        "verdict": word,
        "passed": passed,
        "reason": reason,
        "level": level(result, good),
        "schedule": good[0].told("schedule") if good else None,
        "trace": good[0].trace if good else None,
        "uncontrolled": sorted(result.uncontrolled()),
        "status": good[0].status if good else None,
        "nativeSeconds": round(result.wall_s(result.native), 4),
        "cagedSeconds": round(result.wall_s(result.caged), 4),
        "slowdown": round(factor, 2) if factor else None,
    }


def show(results, json_file, kept):
    """Prints the table and the count; returns the exit status."""
    start = next((result for result in results if result.program.name == "true"), None)
    rows = [row(result, start) for result in results]
    width = max([len(row["program"]) for row in rows] + [8])
    print(f"\n{'program':<{width}}  {'native differs':<15}{'caged identical':<17}{'level':<7}{'slowdown':>9}  {'verdict':<9}uncontrolled sources")
    for one in rows:
        differs = f"yes ({one['nativeKinds']})" if one["nativeDiffers"] else "no"
        same = f"{one['identical']}/{one['runs']}"
        factor = f"{one['slowdown']:.2f}×" if one["slowdown"] else "–"
        print(f"{one['program']:<{width}}  {differs:<15}{same:<17}{one['level'] or '–':<7}{factor:>9}  {one['verdict']:<9}{' '.join(one['uncontrolled']) or '–'}")
    for one in rows:
        if not one["passed"]:
            print(f"FAIL {one['program']}: {one['reason']}")
    witnesses = [one["program"] for one, result in zip(rows, results) if result.native and result.program.native == "differs" and not one["nativeDiffers"]]
    if witnesses:
        print(f"note: natively the same in these few runs: {', '.join(witnesses)}")
    if start and start.native:
        print(f"start of a container: native {start.wall_s(start.native) * 1000:.0f} ms, caged {start.wall_s(start.caged) * 1000:.0f} ms; taken off both before they are divided")
    if json_file:
        json_file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    failed = sum(not one["passed"] for one in rows)
    if failed:
        print(f"what unlike runs left is in {kept}")
    print(f"{len(rows) - failed} passed, {failed} failed")
    return 1 if failed else 0
