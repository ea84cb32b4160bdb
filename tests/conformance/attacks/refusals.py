"""Every refusal that the tables document, as calls for a program inside: made from the tables, so that a new row brings its own test."""
import errno
import itertools
import pathlib

DATA = pathlib.Path(__file__).resolve().parents[3] / "policies" / "data"
# The conditions that count under the profile strict: turns, a network (loopback), no address randomisation.
STRICT = {"always", "turns", "no-aslr", "inet"}
X32 = 0x40000000
# Numbers that no table has: holes, what comes after the last, the engine's own barrier, the largest.
UNKNOWN = [*range(337, 424), *range(470, 600), 1023, 3547, 0x3FFFFFFF, 0x7FFFFFFF, -1, -2]
ANY = {"allow", "virtual"}
# What the kernel lets past every filter since Linux 6.14 (secure_computing: this_syscall == __NR_uretprobe): only its own trampolines may make
# these calls, and to anybody else they do nothing. On older kernels they are refused like any unknown number.
PAST_FILTERS = {335, 336}
# Calls of which docklock explain speaks at once: twelve, of which two are in every run (rseq, and what is tried of another ABI).
EXPLAINED_AT_ONCE = 10


def rows(name):
    for line in (DATA / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            yield line.split("\t")


def parse(test):
    """a1&0xff!=1,2 as (argument, mask, inside, values)."""
    left, values = test.rsplit("=", 1)
    inside = not left.endswith("!")
    argument, mask = left.rstrip("!")[1:].split("&")
    return int(argument), int(mask, 0), inside, [int(value, 0) for value in values.split(",")]


def conditions():
    found = {}
    for name, when, word, tests in rows("conditions-x86_64.tsv"):
        if when in STRICT:
            found.setdefault(name, []).append((word, [parse(test) for test in tests.split()]))
    return found


def holds(tests, args):
    return all(((args[argument] & mask) in values) == inside for argument, mask, inside, values in tests)


def decide(own, clauses, args):
    """The class of a call: an allowing clause before every other, of the others the first, else the row's own."""
    holding = [word for word, tests in clauses if holds(tests, args)]
    return "allow" if "allow" in holding else holding[0] if holding else own


def candidates(clauses):
    """Arguments worth a try: every value that a test names, its neighbours, and what no test names, with noise where no mask looks."""
    values = [{0} for _ in range(6)]
    for _, tests in clauses:
        for argument, mask, _, named in tests:
            for value in named:
                values[argument] |= {value, (value + 1) & mask, value ^ (mask & -mask), value | (0xABCD << 32 if mask <= 0xFFFFFFFF else 0)}
            bits = [1 << bit for bit in range(64) if mask >> bit & 1]
            values[argument] |= {mask, 0x7777 & mask, *(bits if len(bits) <= 16 else ())}
    return itertools.product(*(sorted(each) for each in values))


def of_table():
    """(number, name, arguments, errno) for every refusal; for one that depends on arguments, up to ten of each errno."""
    clauses_of = conditions()
    for nr, name, _, own, condition, _, _ in rows("syscalls-x86_64.tsv"):
        if int(nr) in PAST_FILTERS:
            continue
        clauses = clauses_of.get(condition, [])
        if condition == "-":
            if own not in ANY:
                yield int(nr), name, (0,) * 6, own
                yield int(nr), name, (1, 0x1000, 0xFFFFFFFFFFFFFFFF, 3, 4, 5), own
            continue
        counts = {}
        for args in candidates(clauses):
            word = decide(own, clauses, args)
            if word not in ANY and counts.get(word, 0) < 10:
                counts[word] = counts.get(word, 0) + 1
                yield int(nr), name, args, word
        missing = ({own} | {word for word, _ in clauses}) - ANY - set(counts)
        if missing:
            raise ValueError(f"no arguments are found for which {name} is refused with {missing}")


def lines():
    """What the program reads: entry, number, six arguments, the errno as a number, a name."""
    for nr, name, args, word in of_table():
        yield "call", nr, args, word, name
    for nr in UNKNOWN:
        yield "call", nr, (0,) * 6, "ENOSYS", "unknown"
    for nr in (*range(0, 60), 512, 520, 547, 600):
        yield "call", nr | X32, (0,) * 6, "ENOSYS", "foreign-abi"
    # 32-bit numbers: exit is 1, fork 2, getpid 20, ptrace 26, clone 120, execve 11, clock_gettime64 403.
    for nr in (0, 1, 2, 3, 4, 5, 11, 20, 26, 120, 192, 265, 403, 500, 1023):
        yield "int80", nr, (0,) * 6, "ENOSYS", "foreign-abi"


def text(only=None):
    """The list as a file, of these names or of all."""
    return "".join(f"{kind} {nr} {' '.join(f'{arg:x}' for arg in args)} {getattr(errno, word)} {name}\n"
                   for kind, nr, args, word, name in lines() if only is None or name in only).encode()


def groups():
    """All names, as many at a time as docklock explain speaks of: each errno of a call is a kind of its own."""
    group, kinds = set(), 0
    for name, words in sorted(names().items()):
        if kinds + len(words) > EXPLAINED_AT_ONCE:
            yield group
            group, kinds = set(), 0
        group.add(name)
        kinds += len(words)
    yield group


def names():
    """The calls that a receipt must list, by name: which errnos each has."""
    found = {}
    for _, _, _, word, name in lines():
        found.setdefault(name, set()).add(word)
    return found
