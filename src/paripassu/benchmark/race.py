"""Time how long a recipe, and the notebooks' style, take to an accuracy.

The recipe is trained to its end, whatever it reaches; the style of the article's
notebooks epoch after epoch until the accuracy is there. Each training has a process of
its own, in turns, and each round another seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paripassu.analysis.benchmark import RACE_FILE, Race, Reached
from paripassu.benchmark.rounds import OnProgress, Turn, described, in_rounds
from paripassu.core.recipe import Recipe
from paripassu.processes.conditions import DEFAULT, Conditions
from paripassu.processes.requests import ReachRequest

MOST_EPOCHS = 20  # of the notebooks' style


def race(
    frameworks: Sequence[str],
    recipe: Recipe,
    *,
    target: float,
    out: Path,
    rounds: int,
    most_epochs: int = MOST_EPOCHS,
    conditions: Conditions = DEFAULT,
    on_progress: OnProgress = lambda _what, _share: None,
) -> Race:
    """Train to an accuracy; writes `race.json` after each round.

    Args:
        frameworks: their names.
        recipe: what is to be fast; its seed is that of the first round.
        target: accuracy on the test images, 0..1.
        out: the folder.
        rounds: how many it is to have; those it has are kept.
        most_epochs: after which the notebooks' style is given up.
        conditions: data, threads, device and command.
        on_progress: called with what is being trained, and the share that is done.

    Raises:
        UserError: a framework is missing, or the folder's race is another.
        WorkerError: a framework crashed.
    """
    wanted = Race(
        **described(frameworks, recipe, conditions),
        target=target,
        most_epochs=most_epochs,
        rounds=[],
    )

    def measure(turn: Turn) -> Reached:
        seeded = recipe.changed(seed=recipe.seed + turn.number)
        request = ReachRequest(
            framework=turn.framework,
            conditions=conditions,
            style=turn.style,
            recipe=seeded,
            accuracy=target,
            epochs=most_epochs,
        )
        return Reached(**turn.run(request), seed=seeded.seed)

    return in_rounds(
        wanted,
        out / RACE_FILE,
        styles=("recipe", "notebook"),
        rounds=rounds,
        measure=measure,
        on_progress=on_progress,
    )
