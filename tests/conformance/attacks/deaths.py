"""The supervisor killed in the middle of a busy container: everything ends with it, an abort says why, and no call falls through."""
import os
import random
import shutil
import signal

import cages

DELAYS_S = 1.5
# By then the program has begun: the supervisor is there before it.
BEGIN_S = 0.5
LIMIT_S = 30


def die_once(runner, merged, out, dice):
    """One run whose supervisor is killed after a random time. What is wrong, in words."""
    shutil.rmtree(out, ignore_errors=True)
    after = dice.random() * DELAYS_S
    state = {"seen": 0.0, "killed": False}

    def watch(_, engine):
        if engine and not state["killed"]:
            state["seen"] += cages.LOOK_S
            if state["seen"] >= after:
                os.kill(engine, signal.SIGKILL)
                state["killed"] = True

    run = runner.run(merged, ["/work/busy"], LIMIT_S, watch=watch, more=("--out", out))
    notes = out / "tmp" / "notes"
    # It ended before, or was killed before the program began: neither tells anything.
    if not state["killed"] or (not notes.exists() and after < BEGIN_S):
        return None, run
    wrong = []
    if run.late:
        wrong.append("the run did not end after its supervisor's death")
    if run.ended == "receipt":
        wrong.append("a receipt was made for a run without a supervisor")
    if run.ended == "NOTHING":
        wrong.append("no abort record")
    if run.left:
        wrong.append(f"left behind: {', '.join(run.left[:4])}")
    if not notes.exists():
        wrong.append("the program never began, or its notes are lost")
    elif not notes.read_bytes().startswith(b"nothing"):
        wrong.append(f"a call fell through: {notes.read_bytes()[:100]}")
    return wrong, run


def die(runner, count, seed):
    """`count` deaths. (what was wrong, the reasons that the aborts gave)"""
    dice, wrong, reasons, done, tries = random.Random(seed), [], set(), 0, 0
    out = runner.folder / "written"
    with runner.opened() as merged:
        while done < count and tries < 3 * count:
            tries += 1
            words, run = die_once(runner, merged, out, dice)
            if words is None:
                continue
            done += 1
            wrong += words
            reasons.add(run.abort)
    if done < count:
        wrong.append(f"the supervisor was caught alive only {done} times of {tries}")
    return wrong, reasons, done
