"""Rounds of measurements, which `bench` and `race` share.

Each style of each framework runs in a process of its own, in turns, and the turns are
repeated the other way round: what changes slowly meets all alike. After each round the
folder holds what was measured so far; the same command goes on.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from paripassu.analysis.benchmark import Bench, Measured, Race
from paripassu.analysis.reading import checked
from paripassu.core import datasets, files, machine
from paripassu.core.errors import UserError
from paripassu.core.experiment import read_data
from paripassu.core.recipe import Recipe
from paripassu.frameworks import registry
from paripassu.processes.conditions import Conditions
from paripassu.processes.launch import Event, work
from paripassu.processes.request import Request

# Takes what is being measured, and the share of the whole that is done.
OnProgress = Callable[[str, float], None]


def described(
    frameworks: Sequence[str], recipe: Recipe, conditions: Conditions
) -> dict[str, Any]:
    """The fields of `paripassu.analysis.benchmark.Conditions`.

    Raises:
        UserError: a framework is missing, or cannot run the recipe, or the data are
            not usable.
    """
    for name in frameworks:
        registry.find(name).check(recipe)
    return {
        "command": conditions.command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": machine.processor(),
        "cores": machine.usable_cores(),
        "platform": machine.system(),
        "python": platform.python_version(),
        "threads": conditions.thread_count,
        "recipe": recipe.name,
        "recipe_hash": recipe.hash(),
        "whose_data": datasets.describe(*read_data(recipe, conditions.data)).sentence,
        "versions": {name: registry.find(name).version or "" for name in frameworks},
    }


Record = TypeVar("Record", Bench, Race)


def begun(path: Path, wanted: Record) -> Record:
    """What is in a file, if it was measured under the same conditions.

    Raises:
        UserError: it was not, or the file is damaged.
    """
    if not path.exists():
        return wanted
    found = checked(type(wanted), path)
    free = {"command", "created", "rounds", "whose_data"}
    old, new = (x.model_dump(exclude=free) for x in (found, wanted))
    for key in new:
        if old[key] != new[key]:
            raise UserError(
                f"{path.parent} holds a benchmark with {key} {old[key]}, and "
                f"{new[key]} is wanted. Choose another folder with --out."
            )
    return found


@dataclass(frozen=True)
class Turn:
    """One style of one framework, to be measured in a round counted from 0."""

    framework: str
    style: str
    number: int
    done: float  # the share of all turns that is done
    on_progress: OnProgress

    def _tell(self, more: str = "") -> None:
        """Say what is being measured, and how far it is."""
        what = f"round {self.number + 1}: {self.framework}, {self.style}{more}"
        self.on_progress(what, self.done)

    def run(self, request: Request) -> dict[str, Any]:
        """Whose and what it is, and what a worker answers."""

        def on_event(event: Event) -> None:
            if event["event"] == "epoch":
                self._tell(f": epoch {event['epoch']}, {event['accuracy']:.2%}")

        self._tell()
        answer = work(request, on_event, plain=self.style == "notebook")
        return {"framework": self.framework, "style": self.style, **answer}


def in_rounds(
    wanted: Record,
    path: Path,
    *,
    styles: Sequence[str],
    rounds: int,
    measure: Callable[[Turn], Measured],
    on_progress: OnProgress,
    on_round: Callable[[Record], object] = lambda _found: None,
) -> Record:
    """Measure what is missing, and write the file after each round.

    In every other round the turns are taken the other way round.

    Args:
        wanted: the record without rounds.
        path: its file; the rounds in it are kept.
        styles: each is measured once in a round, in each framework.
        rounds: how many there are to be.
        measure: one turn.
        on_progress: called with what is being measured, and the share that is done.
        on_round: called with the record after each round.

    Raises:
        UserError: the file's benchmark is another.
        WorkerError: a framework crashed.
    """
    turns = [(name, style) for style in styles for name in wanted.frameworks]
    with files.working_in(path.parent):
        found: Record = begun(path, wanted)
        for number in range(len(found.rounds), rounds):
            measured: list[Measured] = []
            for name, style in turns if number % 2 == 0 else reversed(turns):
                done = (number + len(measured) / len(turns)) / rounds
                turn = Turn(name, style, number, done, on_progress)
                measured.append(measure(turn))
            found = found.model_copy(update={"rounds": [*found.rounds, measured]})
            files.write_json(path, found.model_dump())
            on_round(found)
    return found
