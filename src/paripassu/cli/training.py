"""Commands that train, compare and evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paripassu.cli.base import (
    DataOption,
    Device,
    DeviceOption,
    EpochsOption,
    JsonOption,
    NamesOption,
    RecipeOption,
    SetOption,
    ThreadsOption,
    app,
    conditions_of,
    default_folder,
    framework_list,
    framework_names,
    load_recipe,
    print_json,
    terminal,
)

if TYPE_CHECKING:
    from paripassu.analysis.benchmark import Bench, Race


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu train --framework pytorch`\n\n"
    "- `paripassu train -f tensorflow --seed 7 --epochs 2 --out runs/mine`\n\n"
    "- `paripassu train -f pytorch --set optimizer.rho=0.95 --set batch_size=128`"
)
def train(
    framework: Annotated[
        str,
        typer.Option(
            "--framework",
            "-f",
            help="pytorch or tensorflow.",
            autocompletion=framework_names,
        ),
    ],
    recipe: RecipeOption = "article",
    seed: Annotated[
        int | None, typer.Option(min=0, help="In place of the recipe's.")
    ] = None,
    epochs: EpochsOption = None,
    settings: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder. Default: runs/FRAMEWORK-RECIPE-HASH"),
    ] = None,
    data: DataOption = None,
    threads: ThreadsOption = 0,
    device: DeviceOption = Device.auto,
    as_json: JsonOption = False,
) -> None:
    """Train one framework once.

    An interrupted run goes on where it stopped when the same command is typed again,
    to the same final weights, bit for bit. A finished run is used as it is.
    """
    from paripassu.frameworks import registry
    from paripassu.terminal.progress import Display
    from paripassu.training.train import train as run

    chosen = load_recipe(recipe, settings, seed=seed, epochs=epochs)
    framework = registry.find(framework).name
    folder = out or default_folder(framework, chosen, data)
    display = Display(terminal(stderr=True), runs=1, epochs=chosen.epochs)
    with display.run(framework) as on_event:
        finished = run(
            framework,
            chosen,
            out=folder,
            conditions=conditions_of(data, threads, device),
            on_event=on_event,
        )
    if as_json:
        print_json({"folder": str(folder), **finished.model_dump()})
        return
    assert finished.result is not None
    typer.echo(
        f"test accuracy {finished.result.test_accuracy:.2%}, "
        f"test loss {finished.result.test_loss:.4f}"
    )
    typer.echo(f"run folder    {folder}")


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu evaluate runs/mine`\n\n"
    "- `paripassu evaluate runs/mine --framework tensorflow --json`"
)
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    framework: Annotated[
        str | None,
        typer.Option(
            "--framework",
            "-f",
            help="Another framework than the run's own, through the common format.",
            autocompletion=framework_names,
        ),
    ] = None,
    data: DataOption = None,
    threads: ThreadsOption = 0,
    device: DeviceOption = Device.auto,
    as_json: JsonOption = False,
) -> None:
    """Load a trained model and measure its test loss and accuracy again."""
    from paripassu.training.evaluate import evaluate as measure

    conditions = conditions_of(data, threads, device)
    result = measure(run, conditions=conditions, framework=framework)
    if as_json:
        print_json(result)
        return
    typer.echo(
        f"{result['framework']}: test accuracy {result['test_accuracy']:.2%}, "
        f"test loss {result['test_loss']:.4f}, {result['test_count']:,} images "
        f"(the run measured {result['recorded_accuracy']:.2%})"
    )


def quick_epochs(recipe: str) -> str:
    """The setting of a quick comparison: 2 epochs, or 1 if the recipe has no more."""
    from paripassu.core.recipe import load

    return f"epochs={min(2, load(recipe).epochs)}"


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu compare --quick`\n\n"
    "- `paripassu compare --seeds 5 --epochs 3`\n\n"
    "- `paripassu compare --frameworks pytorch,tensorflow --out runs/mine`"
)
def compare(
    names: NamesOption = "pytorch,tensorflow",
    recipe: RecipeOption = "article",
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            "-n",
            min=1,
            help="How many paired runs; the recipe's seed and those after it. "
            "Default: 10, with --quick 1",
            show_default=False,
        ),
    ] = None,
    epochs: EpochsOption = None,
    settings: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The comparison's folder. Default: runs/compare-RECIPE-HASH",
            show_default=False,
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="2 epochs, 1 seed: about 4 minutes.")
    ] = False,
    data: DataOption = None,
    threads: ThreadsOption = 0,
    device: DeviceOption = Device.auto,
    as_json: JsonOption = False,
) -> None:
    """Train a recipe in several frameworks, fairly, and write a report.

    First a short proof that the twins compute the same. Then every framework trains
    with every seed, each run in a process of its own, in the order A B B A. Stop and
    repeat it at will: finished runs are kept, and interrupted ones go on.
    """
    from paripassu.terminal.progress import watching_comparison
    from paripassu.terminal.summary import summary_table
    from paripassu.training.compare import compare as run

    if quick:
        settings = [quick_epochs(recipe), *(settings or [])]
    chosen = load_recipe(recipe, settings, epochs=epochs)
    count = seeds or (1 if quick else 10)
    # More seeds later shall find the runs of these: the seed is not in the name.
    folder = out or default_folder("compare", chosen.changed(seed=0), data)
    with watching_comparison(terminal(stderr=True)) as on_event:
        result = run(
            framework_list(names),
            chosen,
            seeds=range(chosen.seed, chosen.seed + count),
            out=folder,
            conditions=conditions_of(data, threads, device),
            on_event=on_event,
        )
    if as_json:
        print_json(result.model_dump())
    else:
        terminal().print(summary_table(result))
        typer.echo(f"report: {folder / 'report.html'}")
    failed = [
        name
        for name, x in result.frameworks.items()
        if x.status != "missing" and len(x.runs) < count
    ]
    if failed or (result.proof and not result.proof.holds):
        raise typer.Exit(1)


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu bench`\n\n"
    "- `paripassu bench --images 6400 --rounds 1 --frameworks pytorch`\n\n"
    "- `paripassu bench --rounds 5 --out runs/mine --json`\n\n"
    "- `paripassu bench --recipe fast --to-accuracy 0.99`"
)
def bench(
    frameworks: NamesOption = "pytorch,tensorflow",
    recipe: RecipeOption = "article",
    settings: SetOption = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Each in turns, forth and back.")
    ] = 3,
    images: Annotated[
        int,
        typer.Option("--images", min=256, max=60_000, help="For each style and round."),
    ] = 60_000,
    matrix: Annotated[
        int,
        typer.Option(
            "--matrix",
            min=256,
            max=16_384,
            help="Rows and columns of the ceiling's product; more for an accelerator.",
        ),
    ] = 2048,
    to_accuracy: Annotated[
        float | None,
        typer.Option(
            "--to-accuracy",
            min=0.5,
            max=1.0,
            help="Train the recipe to its end, and the notebooks' style until it has "
            "this test accuracy, 0..1.",
        ),
    ] = None,
    threads: ThreadsOption = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The folder; the same one goes on."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time training beside notebooks' style and the machine's ceiling.

    The ceiling is a large matrix product, same number type, same threads, same round.
    Kernels are the network's own convolutions and matrix products, with nothing
    between them. In a comparison's folder (--out), the report shows the picture.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from paripassu.benchmark.bench import PICTURE
    from paripassu.benchmark.bench import bench as time_all
    from paripassu.benchmark.race import race
    from paripassu.terminal.benchmark import bench_table, race_table

    chosen = load_recipe(recipe, settings)
    what = f"bench-{images}" if to_accuracy is None else f"race-{to_accuracy:g}"
    folder = out or default_folder(what, chosen, None)
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=terminal(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        common: dict[str, Any] = {
            "out": folder,
            "rounds": rounds,
            "conditions": conditions_of(None, threads, Device.auto),
            "on_progress": lambda what, share: bar.update(
                task, description=what, completed=share
            ),
        }
        names = framework_list(frameworks)
        found: Bench | Race
        if to_accuracy is None:
            found = time_all(names, chosen, images=images, matrix=matrix, **common)
        else:
            found = race(names, chosen, target=to_accuracy, **common)
    if as_json:
        print_json(found.model_dump())
    elif found.kind == "bench":
        terminal().print(bench_table(found))
        typer.echo(f"picture: {folder / PICTURE}")
    else:
        terminal().print(race_table(found))


@app.command(epilog="**Example**\n\n- `paripassu report runs/mine`")
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a comparison.")],
    as_json: JsonOption = False,
) -> None:
    """Rebuild a comparison's page and JSON from its records."""
    from paripassu.terminal.summary import summary_table
    from paripassu.training.compare import report as rebuild

    result = rebuild(folder)
    if as_json:
        print_json(result.model_dump())
    else:
        terminal().print(summary_table(result))
        typer.echo(f"report: {folder / 'report.html'}")
