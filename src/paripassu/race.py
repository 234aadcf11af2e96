"""Time how long a recipe, and the notebooks' style, take to an accuracy.

The recipe is trained to its end, whatever it reaches; the style of the article's
notebooks epoch after epoch until the accuracy is there. Each training has a process of
its own, in turns, and each round another seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from paripassu import frameworks
from paripassu.analysis.bench import RACE_FILE, Race, Reached
from paripassu.bench import begun, described
from paripassu.core import files
from paripassu.core.recipe import Recipe
from paripassu.process import Event, work
from paripassu.train import Conditions

MOST_EPOCHS = 20  # of the notebooks' style


def race(
    names: Sequence[str],
    recipe: Recipe,
    *,
    target: float,
    out: Path,
    rounds: int,
    most_epochs: int = MOST_EPOCHS,
    conditions: Conditions,
    on_progress: Callable[[str, float], None] = lambda _what, _share: None,
) -> Race:
    """Train to an accuracy; writes `race.json` after each round.

    Args:
        names: of frameworks.
        recipe: what is to be fast; its seed is that of the first round.
        target: accuracy on the test images, 0..1.
        out: the folder.
        rounds: how many it is to have; those it has are kept.
        most_epochs: after which the notebooks' style is given up.
        conditions: data, threads, device and command.
        on_progress: called with what is being trained, and the share that is done.

    Raises:
        UserError: a framework is missing, or the folder's race is another.
        WorkerFailed: a framework crashed.
    """
    for name in names:
        frameworks.find(name).check(recipe)
    wanted = Race(
        **described(names, recipe, conditions),
        target=target,
        most_epochs=most_epochs,
        rounds=[],
    )
    out.mkdir(parents=True, exist_ok=True)
    with files.owned(out):
        found = begun(out / RACE_FILE, wanted)
        styles: tuple[Literal["recipe", "notebook"], ...] = ("recipe", "notebook")
        turns = [(name, style) for style in styles for name in names]
        for number in range(len(found.rounds), rounds):
            measured: list[Reached] = []
            seeded = recipe.changed(seed=recipe.seed + number)
            for name, style in turns if number % 2 == 0 else reversed(turns):
                done = (number + len(measured) / len(turns)) / rounds
                what = f"round {number + 1}: {name}, {style}"
                on_progress(what, done)
                request = conditions.request(
                    "reach",
                    name,
                    style=style,
                    recipe=seeded.model_dump(),
                    accuracy=target,
                    epochs=most_epochs,
                )
                came = _run(request, partial(_tell, on_progress, what, done))
                measured.append(
                    Reached(framework=name, style=style, seed=seeded.seed, **came)
                )
            found = found.model_copy(update={"rounds": [*found.rounds, measured]})
            files.write_json(out / RACE_FILE, found.model_dump())
    return found


def _run(request: dict[str, Any], tell: Callable[[Event], None]) -> Event:
    """The values of the worker's last event."""
    reached: Event = {}

    def hear(event: Event) -> None:
        if event["event"] == "reached":
            reached.update(event)
        else:
            tell(event)

    plain = request["style"] == "notebook"
    work(request, hear, threads=int(request["threads"]), plain=plain)
    reached.pop("event")
    return reached


def _tell(
    on_progress: Callable[[str, float], None], what: str, done: float, event: Event
) -> None:
    if event["event"] == "epoch":
        text = f"{what}: epoch {event['epoch']}, {event['accuracy']:.2%}"
        on_progress(text, done)
