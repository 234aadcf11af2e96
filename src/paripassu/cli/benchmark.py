"""The commands that measure time: an epoch, and the way to an accuracy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from paripassu.cli.base import (
    Device,
    JsonOption,
    NamesOption,
    RecipeOption,
    SetOption,
    ThreadsOption,
    app,
    conditions_of,
    framework_list,
    load_recipe,
    output_folder,
    show,
    terminal,
)

RoundsOption = Annotated[
    int,
    typer.Option("--rounds", min=1, help="Frameworks take turns, in reversing order."),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="The output folder; repeat it to resume."),
]


@contextlib.contextmanager
def _watching() -> Iterator[Callable[[str, float], None]]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=terminal(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu bench`\n\n"
    "- `paripassu bench --images 6400 --rounds 1 --frameworks pytorch`\n\n"
    "- `paripassu bench --rounds 5 --out runs/mine --json`"
)
def bench(
    frameworks: NamesOption = None,
    recipe: RecipeOption = "article",
    settings: SetOption = None,
    rounds: RoundsOption = 3,
    images: Annotated[
        int, typer.Option("--images", min=256, max=60_000, help="Per style and round.")
    ] = 60_000,
    matrix: Annotated[
        int,
        typer.Option(
            min=256,
            max=16_384,
            help="Size of the square matrices that measure the ceiling; use more for "
            "an accelerator.",
        ),
    ] = 2048,
    threads: ThreadsOption = 0,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time training against the notebooks' style and the machine's ceiling.

    The ceiling is a large matrix product with the same number type and threads, in
    the same round. "Kernels" are the network's convolutions and matrix products
    alone. If --out is a comparison's folder, its report shows the chart.
    """
    from paripassu.benchmark.bench import PICTURE
    from paripassu.benchmark.bench import bench as measure
    from paripassu.terminal.benchmark import bench_table

    chosen = load_recipe(recipe, settings)
    folder = output_folder(out, f"bench-{images}", chosen)
    with _watching() as on_progress:
        found = measure(
            framework_list(frameworks),
            chosen,
            out=folder,
            rounds=rounds,
            images=images,
            matrix=matrix,
            conditions=conditions_of(None, threads, Device.auto),
            on_progress=on_progress,
        )
    show(found, as_json, lambda: bench_table(found))
    if not as_json:
        typer.echo(f"picture: {folder / PICTURE}")


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu race`\n\n"
    "- `paripassu race --recipe fast --to-accuracy 0.985 --rounds 1 --json`"
)
def race(
    frameworks: NamesOption = None,
    recipe: RecipeOption = "fast",
    settings: SetOption = None,
    to_accuracy: Annotated[
        float,
        typer.Option(
            "--to-accuracy", min=0.5, max=1.0, help="The target, test accuracy 0..1."
        ),
    ] = 0.99,
    rounds: RoundsOption = 3,
    threads: ThreadsOption = 0,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time a recipe against the notebooks' style, to the same test accuracy.

    The recipe is trained to its end, the notebooks' style until it reaches the
    accuracy.
    """
    from paripassu.benchmark.race import race as measure
    from paripassu.terminal.benchmark import race_table

    chosen = load_recipe(recipe, settings)
    with _watching() as on_progress:
        found = measure(
            framework_list(frameworks),
            chosen,
            target=to_accuracy,
            out=output_folder(out, f"race-{to_accuracy:g}", chosen),
            rounds=rounds,
            conditions=conditions_of(None, threads, Device.auto),
            on_progress=on_progress,
        )
    show(found, as_json, lambda: race_table(found))
