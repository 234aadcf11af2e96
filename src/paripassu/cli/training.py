"""The commands that train, compare and evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paripassu.cli.base import (
    DataOption,
    Device,
    DeviceOption,
    EpochsOption,
    ExclusiveOption,
    JsonOption,
    NamesOption,
    OnOption,
    RecipeOption,
    RetriesOption,
    SetOption,
    StorageOption,
    TakeOption,
    ThreadsOption,
    app,
    conditions_of,
    executor_of,
    exit_unless,
    framework_list,
    framework_option,
    load_recipe,
    output_folder,
    show,
    terminal,
)

if TYPE_CHECKING:
    from paripassu.analysis.schema import Comparison


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu train --framework pytorch`\n\n"
    "- `paripassu train -f tensorflow --seed 7 --epochs 2 --out runs/mine`\n\n"
    "- `paripassu train -f pytorch --set optimizer.rho=0.95 --set batch_size=128`"
)
def train(
    framework: Annotated[
        str, framework_option("Its name, such as pytorch; 'paripassu info' lists them.")
    ],
    recipe: RecipeOption = "article",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Override the recipe's seed.")
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

    Resumable: repeat the command and an interrupted run continues, to the same final
    weights, bit for bit. A finished run is reused.
    """
    from paripassu.frameworks.registry import find
    from paripassu.terminal.progress import Display
    from paripassu.training.train import train as run

    chosen = load_recipe(recipe, settings, seed=seed, epochs=epochs)
    framework = find(framework).name
    folder = output_folder(out, framework, chosen, data=data)
    display = Display(terminal(stderr=True), runs=1, epochs=chosen.epochs)
    with display.run(framework) as on_event:
        finished = run(
            framework,
            chosen,
            out=folder,
            conditions=conditions_of(data, threads, device),
            on_event=on_event,
        )
    result = finished.result
    assert result is not None
    show(
        {"folder": str(folder), **finished.model_dump(mode="json")},
        as_json,
        lambda: (
            f"test accuracy {result.test_accuracy:.2%}, "
            f"test loss {result.test_loss:.4f}\n"
            f"data          {finished.dataset.sentence}\nrun folder    {folder}"
        ),
    )


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu evaluate runs/mine`\n\n"
    "- `paripassu evaluate runs/mine --framework tensorflow --json`"
)
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    framework: Annotated[
        str | None,
        framework_option(
            "A framework other than the run's own; weights are converted."
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
    found = measure(run, conditions=conditions, framework=framework)
    show(
        found,
        as_json,
        lambda: (
            f"{found['framework']}: test accuracy {found['test_accuracy']:.2%}, "
            f"test loss {found['test_loss']:.4f}, {found['test_count']:,} images "
            f"(the run measured {found['recorded_accuracy']:.2%})"
            f"\ndata: {found['data']}" + "".join(f"\nnote: {x}" for x in found["notes"])
        ),
    )


def quick_epochs(recipe: str) -> str:
    """The setting of a quick comparison: 2 epochs, or 1 if the recipe has no more."""
    from paripassu.core.recipe import load

    return f"epochs={min(2, load(recipe).epochs)}"


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu compare --quick`\n\n"
    "- `paripassu compare --seeds 5 --epochs 3`\n\n"
    "- `paripassu compare --frameworks pytorch,tensorflow --out runs/mine`\n\n"
    "- `paripassu compare --seeds 20 --on ray://10.0.0.1:10001 --threads 4`"
)
def compare(
    names: NamesOption = None,
    recipe: RecipeOption = "article",
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            "-n",
            min=1,
            help="Number of paired runs: the recipe's seed and the seeds after it. "
            "Default: 10, with --quick 1",
        ),
    ] = None,
    epochs: EpochsOption = None,
    settings: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The output folder. Default: runs/compare-RECIPE-HASH"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="2 epochs, 1 seed: about 4 minutes.")
    ] = False,
    data: DataOption = None,
    threads: ThreadsOption = 0,
    device: DeviceOption = Device.auto,
    on: OnOption = None,
    storage: StorageOption = None,
    exclusive: ExclusiveOption = False,
    take: TakeOption = None,
    retries: RetriesOption = 3,
    as_json: JsonOption = False,
) -> None:
    """Train a recipe in several frameworks, fairly, and write a report.

    Starts with a short proof that the twins compute the same. Then every framework
    trains with every seed, each run in its own process, in the order A B B A; with
    --on, as many at once as the nodes of a cluster hold.
    Resumable: repeat the command and finished runs are reused.
    """
    from paripassu.terminal.progress import watching_comparison
    from paripassu.training.compare import compare as run

    if quick:
        settings = [quick_epochs(recipe), *(settings or [])]
    chosen = load_recipe(recipe, settings, epochs=epochs)
    count = seeds or (1 if quick else 10)
    # More seeds later must find the runs of these: the seed is not in the name.
    own = chosen.changed(seed=0)
    folder = output_folder(out, "compare", own, data=data, storage=storage)
    with watching_comparison(terminal(stderr=True)) as on_event:
        result = run(
            framework_list(names),
            chosen,
            seeds=range(chosen.seed, chosen.seed + count),
            out=folder,
            conditions=conditions_of(data, threads, device),
            executor=executor_of(on, storage, exclusive, take, retries, device),
            on_event=on_event,
        )
    _show_comparison(result, folder, as_json)
    summaries = result.frameworks.values()
    complete = all(len(x.runs) >= count for x in summaries if x.status != "missing")
    exit_unless(complete and (result.proof is None or result.proof.holds))


@app.command(epilog="**Example**\n\n- `paripassu report runs/mine`")
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a comparison.")],
    as_json: JsonOption = False,
) -> None:
    """Rebuild a comparison's report and JSON from its records."""
    from paripassu.training.compare import report as rebuild

    _show_comparison(rebuild(folder), folder, as_json)


def _show_comparison(result: Comparison, folder: Path, as_json: bool) -> None:
    from paripassu.terminal.summary import summary_table

    show(result, as_json, lambda: summary_table(result))
    if not as_json:
        typer.echo(f"report: {folder / 'report.html'}")
