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


def median(outcomes, of):
    """Of the runs beside which nothing of ours burnt time, if there are any."""
    idle = [of(outcome) for outcome in outcomes if not outcome.loaded]
    return statistics.median(idle or [of(outcome) for outcome in outcomes]) if outcomes else None


def ratio(one, other):
    return round(one / other, 2) if one and other else None


def row(result):
    word, passed, reason = result.verdict()
    native, caged = (median(outcomes, lambda outcome: outcome.wall_s) for outcomes in (result.native[:1], result.caged))
    native_cpu, caged_cpu = (median(outcomes, lambda outcome: outcome.cpu_s) for outcomes in (result.native[:1], result.caged))
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
        "nativeProcessorSeconds": round(native_cpu, 2) if native_cpu else None,
        "cagedProcessorSeconds": round(caged_cpu, 2) if caged_cpu else None,
        "slowdown": ratio(caged, native) if word == "same" else None,
        "slowdownProcessor": ratio(caged_cpu, native_cpu) if word == "same" else None,
    }


def line(one):
    """One package of the table."""
    differs = f"yes: {' '.join(one['causes']) or '?'}" if one["nativeDiffers"] else "no"
    same = f"{one['identical']}/{one['runs']}" if one["runs"] else "–"
    times = [f"{one[name]:.1f}" if one[name] else "–" for name in ("nativeSeconds", "cagedSeconds", "nativeProcessorSeconds", "cagedProcessorSeconds")]
    factors = [f"{one[name]:.2f}×" if one[name] else "–" for name in ("slowdown", "slowdownProcessor")]
    real, cpu = (f"{native:>9}{caged:>7}{factor:>8}" for native, caged, factor in zip(times[::2], times[1::2], factors))
    return f"{one['package']:<22}{one['way']:<7}{differs:<27}{same:<7}{real}{cpu}  {one['verdict']}"


def show(results, kept):
    """Prints the table and the count; returns the exit status."""
    rows = [row(result) for result in results]
    print(f"\n{'package':<22}{'way':<7}{'native differs':<27}{'caged':<7}{'native s':>9}{'caged':>7}{'ratio':>8}{'cpu s':>9}{'caged':>7}{'ratio':>8}  verdict")
    for one in rows:
        print(line(one))
    for one in rows:
        if not one["passed"]:
            print(f"FAIL {one['package']} ({one['way']}): {one['reason']}")
    both = [one for one in rows if one["nativeDiffers"] and one["verdict"] == "same"]
    by_dpkg = {one["package"] for one in both if one["way"] == "dpkg"}
    print(f"{len({one['package'] for one in both})} packages differ natively and are bit for bit the same in the cage; {len(by_dpkg)} of them differ also by dpkg")
    for name, words in (("slowdown", "real time"), ("slowdownProcessor", "processor time")):
        factors = [one[name] for one in rows if one[name]]
        if factors:
            print(f"caged against native, {words}: geometric mean {math.exp(statistics.fmean(map(math.log, factors))):.2f}× of {len(factors)} builds")
    failed = sum(not one["passed"] for one in rows)
    if failed:
        print(f"what they left is in {kept}")
    print(f"{len(rows) - failed} passed, {failed} failed")
    return 1 if failed else 0
