"""What to type for a verdict, and how long that takes on this machine."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from paripassu.analysis.report.figures import Framework
from paripassu.analysis.schema import Comparison
from paripassu.analysis.text import counted, display_name


@dataclass(frozen=True)
class NextStep:
    """More seeds into the same folder, where finished runs are used again."""

    command: str
    time: str
    pairs: str  # whom it would decide on; "": all that are undecided


def next_step(comparison: Comparison, trained: Sequence[Framework]) -> NextStep | None:
    """The command that would decide what is undecided.

    None where all is decided, where 200 seeds would hardly do, where the proof does
    not hold, and where it was not the command line that compared.
    """
    undecided = [x for x in comparison.pairs if x.seeds and x.verdict == "undecided"]
    within_reach = [x for x in undecided if x.more_seeds is not None]
    if not within_reach or (comparison.proof and not comparison.proof.holds):
        return None
    wanted = max(len(x.seeds) + (x.more_seeds or 0) for x in within_reach)
    wanted = max(wanted, len(comparison.seeds))
    command = with_seeds(comparison.command, wanted)
    if command is None:
        return None
    seconds = 0.0
    for item in trained:
        taken = [
            run.training_seconds + run.evaluation_seconds + run.other_seconds
            for run in item.runs
        ]
        seconds += fmean(taken) * max(0, wanted - len(item.runs))
    named = ""
    if within_reach != undecided:
        names = (
            f"{display_name(x.left)} and {display_name(x.right)}" for x in within_reach
        )
        named = ", ".join(names)
    return NextStep(command, roughly(seconds), named)


def with_seeds(command: str, count: int) -> str | None:
    """A `paripassu compare` with this many seeds; None for any other command."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    if words[:2] != ["paripassu", "compare"]:
        return None
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in ("--seeds", "-n"):
            skip = True
        elif not word.startswith(("--seeds=", "-n")):
            kept.append(word)
    return shlex.join([*kept, "--seeds", str(count)])


def roughly(seconds: float) -> str:
    """A time to plan with: "about 25 minutes"."""
    minutes = max(1, math.ceil(seconds / 60))
    if minutes < 120:
        return f"about {counted(minutes, 'minute')}"
    return f"about {counted(round(minutes / 60), 'hour')}"
