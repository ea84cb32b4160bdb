"""What the builds of a package say, and the table of all packages."""
import dataclasses
import math
import statistics

import builds
import table


@dataclasses.dataclass
class Result:
    """All builds of one package."""
    name: str
    version: str
    way: str
    native: list = dataclasses.field(default_factory=list)
    caged: list = dataclasses.field(default_factory=list)
    causes: list = dataclasses.field(default_factory=list)

    @property
    def native_fails(self):
        return next((outcome for outcome in self.native if outcome.failure or outcome.status != 0 or not outcome.debs), None)

    @property
    def native_differs(self):
        return not self.native_fails and len({builds.digest(outcome) for outcome in self.native}) > 1

    def unlike_debs(self):
        """Names of the .debs that native builds made differently."""
        names = sorted({name for outcome in self.native for name in outcome.debs})
        return [name for name in names if len({outcome.debs.get(name) for outcome in self.native}) > 1]

    def uncontrolled(self):
        told = [outcome.sources("uncontrolled") for outcome in self.caged if outcome.statement]
        return sorted(set.intersection(*told)) if told else []

    def verdict(self):
        """(word, passed, reason)."""
        if fails := self.native_fails:
            return "NATIVE", False, f"cannot be built natively: {fails.failure or last_words(fails)}"
        if not self.caged:
            return ("differs" if self.native_differs else "alike"), True, ""
        for outcome in self.caged:
            if outcome.failure:
                return "FAILED", False, outcome.failure
        if len({builds.digest(outcome) for outcome in self.caged}) > 1:
            return "DIFFERS", False, f"the .debs differ: {table.differences(self.caged)}"
        if len({table.key(outcome) for outcome in self.caged}) > 1:
            return "LOG", False, f"the .debs are the same, the run is not: {table.differences(self.caged)}"
        first = self.caged[0]
        if first.status != 0 or not first.debs:
            ended = first.told("endedBy") or first.told("ended_by")
            return "BROKEN", False, f"status {first.status}{f', ended by the cage: {ended}' if ended else ''}: {last_words(first)}"
        if self.native and set(first.debs) != set(self.native[0].debs):
            return "BROKEN", False, f"other .debs than natively: {sorted(set(first.debs) ^ set(self.native[0].debs))}"
        return "same", True, ""


def last_words(outcome):
    """The last lines that say something is wrong, of both streams."""
    lines = (outcome.stdout + outcome.stderr).decode(errors="replace").strip().splitlines()
    errors = [line for line in lines if "rror" in line or "***" in line or "cannot" in line.lower()]
    return " | ".join((errors or lines or ["nothing was said"])[-2:])[:300]


def seconds(outcomes):
    idle = [outcome.wall_s for outcome in outcomes if not outcome.loaded]
    return statistics.median(idle or [outcome.wall_s for outcome in outcomes]) if outcomes else None


def row(result):
    word, passed, reason = result.verdict()
    native = result.native[0].wall_s if result.native else None
    caged = seconds(result.caged)
    first = next((outcome for outcome in result.caged if outcome.statement), None)
    return {
        "package": result.name,
        "version": result.version,
        "way": result.way,
        "nativeDiffers": result.native_differs,
        "causes": result.causes,
        "unlikeDebs": result.unlike_debs(),
        "debs": result.caged[0].debs if result.caged else {},
        "runs": len(result.caged),
        "identical": max((sum(not other.failure and table.key(other) == table.key(one) for other in result.caged) for one in result.caged), default=0),
        "verdict": word,
        "passed": passed,
        "reason": reason,
        "level": first.level if first else None,
        "runHash": first.run_hash if first else None,
        "trace": first.trace if first else None,
        "uncontrolled": result.uncontrolled(),
        "nativeSeconds": round(native, 2) if native else None,
        "cagedSeconds": round(caged, 2) if caged else None,
        "slowdown": round(caged / native, 2) if word == "same" and native and caged else None,
    }


def line(one):
    """One package of the table."""
    differs = f"yes: {' '.join(one['causes']) or '?'}" if one["nativeDiffers"] else "no"
    same = f"{one['identical']}/{one['runs']}" if one["runs"] else "–"
    times = [f"{one[name]:.1f}" if one[name] else "–" for name in ("nativeSeconds", "cagedSeconds")]
    factor = f"{one['slowdown']:.2f}×" if one["slowdown"] else "–"
    return f"{one['package']:<22}{one['way']:<7}{differs:<34}{same:<7}{times[0]:>9}{times[1]:>9}{factor:>9}  {one['level'] or '–':<4}{one['verdict']}"


def show(results, kept):
    """Prints the table and the count; returns the exit status."""
    rows = [row(result) for result in results]
    print(f"\n{'package':<22}{'way':<7}{'native differs':<34}{'caged':<7}{'native s':>9}{'caged s':>9}{'ratio':>9}  {'':<4}verdict")
    for one in rows:
        print(line(one))
    for one in rows:
        if not one["passed"]:
            print(f"FAIL {one['package']} ({one['way']}): {one['reason']}")
    both = [one for one in rows if one["nativeDiffers"] and one["verdict"] == "same"]
    by_dpkg = {one["package"] for one in both if one["way"] == "dpkg"}
    print(f"{len({one['package'] for one in both})} packages differ natively and are bit for bit the same in the cage; {len(by_dpkg)} of them differ also by dpkg")
    factors = [one["slowdown"] for one in rows if one["slowdown"]]
    if factors:
        print(f"caged against native: geometric mean {math.exp(statistics.fmean(map(math.log, factors))):.2f}× of {len(factors)} packages")
    failed = sum(not one["passed"] for one in rows)
    if failed:
        print(f"what they left is in {kept}")
    print(f"{len(rows) - failed} passed, {failed} failed")
    return 1 if failed else 0
