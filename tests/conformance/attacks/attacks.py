"""The attacks: programs that fight their supervisor, each run twice, each bounded in time and memory, nothing left behind."""
import dataclasses

# The supervisor's own memory, whatever a guest does: a table of 4 096 tasks and the listing of one large folder fit well.
ENGINE_KIB_MAX = 256 * 1024


@dataclasses.dataclass(frozen=True)
class Attack:
    """One program with its argument, and what must come of it."""
    name: str
    argv: tuple
    limit_s: int = 60
    sample: bool = True
    ends: str = ""  # the run may be ended by the supervisor, with a reason that has these words
    says: tuple = ()  # lines that the program must print
    never: tuple = ()  # words that it must not print


def of(program, *parts, **more):
    return [Attack(f"{program} {part}".strip(), (f"/work/{program}", *part.split()), **more) for part in parts or ("",)]


ATTACKS = [
    *of("races"),
    *of("floods", "calls", limit_s=120),
    *of("floods", "descriptors", limit_s=60, ends="more descriptors at once"),
    *of("floods", "answers", limit_s=90, sample=False),
    *of("kills", "parent", "itself", "exit-group", "exec", "others", "timer", "pidfd"),
    *of("kills", "parents-end", says=("grandchildren are gone: 0",)),
    *of("bombs", "processes", "threads", limit_s=120, sample=False),
    *of("bombs", "everybody", limit_s=180, sample=False),
    *of("descriptors", "outlived", "passed", "closed", "replaced", "limited"),
    *of("steering", "traces", never=("TRACEME, 0, 0, 0): 0",)),
    *of("steering", "pages", never=("an image at",), says=("vdso 0", "pages of others: 0")),
    *of("steering", "options", says=("tsc 2",)),
    *of("steering", "vdso", "stack"),
    *of("filters", "own", "deep"),
    *of("signals", "stops", "another", "storm", "cross", "everybody"),
    *of("signals", "queue", limit_s=120),
    *of("leavers", "sleeping", "crash", "last-thread"),
    *of("sleepers", "pipe", "fifo", "epoll", limit_s=60, ends="deadlock"),
]


def judge(attack, runs):
    """What is wrong with these runs of one attack, in words; empty if nothing is."""
    wrong = []
    for run in runs:
        if run.late:
            wrong.append(f"not over after {attack.limit_s} s")
        elif run.ended == "NOTHING":
            wrong.append("neither a receipt nor an abort")
        elif run.ended == "abort" and not (attack.ends and attack.ends in run.abort):
            wrong.append(f"ended by the supervisor: {run.abort}")
        if run.left:
            wrong.append(f"left behind: {', '.join(run.left[:4])}")
        if run.engine_kib > ENGINE_KIB_MAX:
            wrong.append(f"the supervisor grew to {run.engine_kib // 1024} MiB")
        if run.ended == "receipt":
            wrong += [f"did not say {word!r}" for word in attack.says if word not in run.stdout]
            wrong += [f"said {word!r}" for word in attack.never if word in run.stdout]
            if run.escapes():
                wrong.append("the receipt tells of somebody outside who was not there")
    if not wrong and len({run.print_of() for run in runs}) > 1:
        wrong.append("SILENT: the runs differ" if not runs[0].sources() & {"scheduling"} else "the runs differ, and scheduling is named")
    return list(dict.fromkeys(wrong))
