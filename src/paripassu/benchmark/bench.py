"""Time training beside the article's notebooks and the machine's ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paripassu.analysis.benchmark import BENCH_FILE, STYLES, Bench, Timed
from paripassu.analysis.report.benchmark import picture
from paripassu.benchmark.rounds import OnProgress, Turn, described, in_rounds
from paripassu.core import files
from paripassu.core.recipe import Recipe
from paripassu.processes.conditions import DEFAULT, Conditions
from paripassu.processes.requests import BenchRequest

PICTURE = "bench.svg"
NOTEBOOKS = "article"  # the network of the notebooks' style


def bench(
    frameworks: Sequence[str],
    recipe: Recipe,
    *,
    out: Path,
    rounds: int,
    images: int,
    matrix: int = 2048,
    conditions: Conditions = DEFAULT,
    on_progress: OnProgress = lambda _what, _share: None,
) -> Bench:
    """Time some frameworks; writes `bench.json` and `bench.svg` after each round.

    Args:
        frameworks: their names.
        recipe: whose network, optimizer and number type are timed.
        out: the folder.
        rounds: how many it is to have; those it has are kept.
        images: of the training set, that each style uses once.
        matrix: rows and columns of the two matrices whose product is the ceiling.
        conditions: data, threads, device and command.
        on_progress: called with what is being timed, and the share that is done.

    Raises:
        UserError: a framework is missing, or the folder's benchmark is another.
        WorkerError: a framework crashed.
    """
    sheet = recipe.architecture
    wanted = Bench(
        **described(frameworks, recipe, conditions),
        network=sheet.name,
        precision=recipe.precision,
        training_flops=sheet.training_flops,
        images=images,
        matrix=matrix,
        rounds=[],
    )
    styles = [x for x in STYLES if x != "notebook" or recipe.network == NOTEBOOKS]

    def measure(turn: Turn) -> Timed:
        request = BenchRequest(
            framework=turn.framework,
            conditions=conditions,
            style=turn.style,
            recipe=recipe,
            images=images,
            matrix=matrix,
        )
        return Timed(**turn.run(request))

    return in_rounds(
        wanted,
        out / BENCH_FILE,
        styles=styles,
        rounds=rounds,
        measure=measure,
        on_progress=on_progress,
        on_round=lambda found: files.write_text(out / PICTURE, picture(found)),
    )
