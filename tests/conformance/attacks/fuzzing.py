"""The fuzzer of system calls: seed after seed, each twice, a sample of them under the eyes of an independent witness."""
import collections
import dataclasses
import re
import time

import refusals
from cages import BOUNDED

ENGINE_KIB_MAX = 128 * 1024
CALLS = 250
LIMIT_S = 60
# Where the cages have the program: a path inside them.
FUZZ = "/work/fuzz"
# What a fuzzed program says of itself at its end.
SUMMARY = re.compile(r"calls (\d+) kinds (\d+) answered (\d+) unknown but not ENOSYS (\d+)")


@dataclasses.dataclass
class Total:
    """What all seeds came to."""
    seeds: int = 0
    calls: int = 0
    kinds: int = 0
    ends: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    reasons: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    engine_kib: int = 0
    witnessed: int = 0
    begun: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    slowest_s: float = 0
    wrong: list = dataclasses.field(default_factory=list)


def may_reach():
    """Numbers that the table lets reach the kernel, always or with some arguments."""
    clauses = refusals.conditions()
    passing = {}
    for nr, name, _, own, condition, _, _ in refusals.rows("syscalls-x86_64.tsv"):
        if own in refusals.ANY or any(word in refusals.ANY for word, _ in clauses.get(condition, [])):
            passing[int(nr)] = name
    return passing


def judge(seed, runs, total):
    wrong = []
    for run in runs:
        total.ends[run.ended] += 1
        total.engine_kib = max(total.engine_kib, run.engine_kib)
        total.slowest_s = max(total.slowest_s, run.wall_s)
        if run.late:
            wrong.append(f"not over after {LIMIT_S} s")
        elif run.ended == "NOTHING":
            wrong.append(f"neither a receipt nor an abort: {run.stderr[-200:]}")
        elif run.ended == "abort":
            total.reasons[re.sub(r"\d+", "N", run.abort)[:60]] += 1
            if "deadlock" not in run.abort and "logical seconds is spent" not in run.abort:
                wrong.append(f"ended by the supervisor: {run.abort}")
        if run.left:
            wrong.append(f"left behind: {', '.join(run.left[:4])}")
        if run.engine_kib > ENGINE_KIB_MAX:
            wrong.append(f"the supervisor grew to {run.engine_kib // 1024} MiB")
        if run.escapes():
            wrong.append("the receipt tells of somebody outside who was not there")
        if found := SUMMARY.search(run.stdout):
            total.calls += int(found[1])
            total.kinds = max(total.kinds, int(found[2]))
            if int(found[4]):
                wrong.append(f"{found[4]} unknown calls were not refused with ENOSYS")
    if not wrong and len({run.print_of() for run in runs}) > 1:
        wrong.append("SILENT: two runs differ" if "scheduling" not in runs[0].sources() else "two runs differ, scheduling is named")
    total.seeds += 1
    total.wrong += [f"seed {seed}: {words}" for words in dict.fromkeys(wrong)]
    return wrong


def witnessed(cages, merged, witness, seed, total):
    with witness.watching():
        run = cages.run(merged, [FUZZ, str(seed), str(CALLS)], LIMIT_S, seed=seed, profile=BOUNDED)
    if witness.lost():
        total.wrong.append(f"seed {seed}: the witness lost {witness.lost()} events")
        return run
    begun = witness.calls_of(FUZZ)
    total.begun.update(begun)
    total.witnessed += 1
    passing = may_reach()
    bad = {number: count for number, count in begun.items() if number not in passing and number not in refusals.PAST_FILTERS}
    if bad:
        total.wrong.append(f"seed {seed}: refused numbers reached the kernel: {bad}")
    if not begun:
        total.wrong.append(f"seed {seed}: the witness saw no call of the program")
    return run


def fuzz(cages, seconds, first, witness, every, tell=print):
    """Runs seeds until the time is over. Every `every`th seed is witnessed."""
    total, started = Total(), time.monotonic()
    seed = first
    with cages.opened() as merged:
        while time.monotonic() - started < seconds or total.seeds < 2:
            argv = [FUZZ, str(seed), str(CALLS)]
            watched = witness is not None and (seed - first) % every == 0
            one = witnessed(cages, merged, witness, seed, total) if watched else cages.run(merged, argv, LIMIT_S, seed=seed, profile=BOUNDED)
            two = cages.run(merged, argv, LIMIT_S, seed=seed, profile=BOUNDED)
            for words in judge(seed, [one, two], total):
                tell(f"   seed {seed}: {words}")
            seed += 1
    return total


def told(total):
    """The figures, in lines."""
    lines = [f"{total.seeds} seeds, each twice: {total.calls} calls of {total.kinds} numbers at most in one run; slowest run {total.slowest_s:.1f} s",
             f"ends: {', '.join(f'{count} {word}' for word, count in sorted(total.ends.items()))}; the supervisor's memory at most {total.engine_kib // 1024} MiB"]
    lines += [f"   {count} × {reason}" for reason, count in total.reasons.most_common(8)]
    if total.witnessed:
        lines.append(f"witness: {total.witnessed} runs, {sum(total.begun.values())} calls of {len(total.begun)} numbers were begun by the kernel, none of a refused one"
                     if not any("reached the kernel" in words for words in total.wrong) else "witness: refused numbers reached the kernel")
    return lines
