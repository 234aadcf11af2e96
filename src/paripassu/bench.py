"""Time training beside the style of the article's notebooks and the machine's ceiling.

Each style of each framework runs in a process of its own, in turns, and the turns are
repeated the other way round: what changes slowly meets all alike. After each round the
folder holds what was measured so far; the same command goes on.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from paripassu import frameworks
from paripassu.analysis.bench import (
    BENCH_FILE,
    STYLES,
    Bench,
    Race,
    Style,
    Timed,
)
from paripassu.analysis.reading import checked
from paripassu.analysis.report.bench import picture
from paripassu.benching import MATRIX
from paripassu.core import files, machine
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe
from paripassu.process import Event, work
from paripassu.train import Conditions

PICTURE = "bench.svg"
NOTEBOOKS = "article"  # the network of the notebooks' style


def bench(
    names: Sequence[str],
    recipe: Recipe,
    *,
    out: Path,
    rounds: int,
    images: int,
    conditions: Conditions,
    on_progress: Callable[[str, float], None] = lambda _what, _share: None,
) -> Bench:
    """Time some frameworks; writes `bench.json` and `bench.svg` after each round.

    Args:
        names: of frameworks.
        recipe: whose network, optimizer and number type are timed.
        out: the folder.
        rounds: how many it is to have; those it has are kept.
        images: of the training set, that each style uses once.
        conditions: data, threads, device and command.
        on_progress: called with what is being timed, and the share that is done.

    Raises:
        UserError: a framework is missing, or the folder's benchmark is another.
        WorkerFailed: a framework crashed.
    """
    for name in names:
        frameworks.find(name).check(recipe)
    sheet = recipe.score_sheet
    wanted = Bench(
        **described(names, recipe, conditions),
        network=sheet.name,
        precision=recipe.precision,
        training_flops=sheet.training_flops,
        images=images,
        matrix=MATRIX,
        rounds=[],
    )
    out.mkdir(parents=True, exist_ok=True)
    with files.owned(out):
        found = begun(out / BENCH_FILE, wanted)
        styles = [x for x in STYLES if x != "notebook" or recipe.network == NOTEBOOKS]
        turns = [(name, style) for style in styles for name in names]
        total = rounds * len(turns)
        for number in range(len(found.rounds), rounds):
            measured: list[Timed] = []
            for name, style in turns if number % 2 == 0 else reversed(turns):
                done = number * len(turns) + len(measured)
                on_progress(f"round {number + 1}: {name}, {style}", done / total)
                measured.append(_timed(name, style, recipe, images, conditions))
            found = found.model_copy(update={"rounds": [*found.rounds, measured]})
            files.write_json(out / BENCH_FILE, found.model_dump())
            files.write_text(out / PICTURE, picture(found))
    return found


def described(
    names: Sequence[str], recipe: Recipe, conditions: Conditions
) -> dict[str, Any]:
    """The fields of `paripassu.analysis.bench.Conditions`."""
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
        "versions": {name: frameworks.find(name).version or "" for name in names},
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
    free = {"command", "created", "rounds"}
    old, new = (x.model_dump(exclude=free) for x in (found, wanted))
    for key in new:
        if old[key] != new[key]:
            raise UserError(
                f"{path.parent} holds a benchmark with {key} {old[key]}, and "
                f"{new[key]} is wanted. Choose another folder with --out."
            )
    return found


def _timed(
    name: str,
    style: Style,
    recipe: Recipe,
    images: int,
    conditions: Conditions,
) -> Timed:
    events: list[Event] = []
    request = conditions.request(
        "bench", name, style=style, recipe=recipe.model_dump(), images=images
    )
    threads = conditions.thread_count
    work(request, events.append, threads=threads, plain=style == "notebook")
    measured = next(x for x in events if x["event"] == "benched")
    measured.pop("event")
    return Timed(framework=name, style=style, **measured)
