"""The command that measures what each difference between two recipes does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paripassu.cli.base import (
    DataOption,
    Device,
    DeviceOption,
    ExclusiveOption,
    JsonOption,
    OnOption,
    RetriesOption,
    SetOption,
    StorageOption,
    TakeOption,
    app,
    conditions_of,
    executor_of,
    exit_unless,
    framework_option,
    load_recipe,
    output_folder,
    recipe_names,
    show,
    terminal,
)


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu ablate`\n\n"
    "- `paripassu ablate article my.toml --seeds 5 --epochs 2`\n\n"
    "- `paripassu ablate --framework tensorflow --out runs/mine`"
)
def ablate(
    start: Annotated[
        str,
        typer.Argument(
            metavar="FROM",
            help="A built-in recipe or the path of a TOML file.",
            autocompletion=recipe_names,
        ),
    ] = "article-pytorch-notebook",
    end: Annotated[
        str,
        typer.Argument(
            metavar="TO",
            help="Another recipe of the same network.",
            autocompletion=recipe_names,
        ),
    ] = "article-tensorflow-notebook",
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds",
            "-n",
            min=1,
            help="Number of runs per stop: FROM's seed and the seeds after it.",
        ),
    ] = 3,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", "-e", min=1, help="Override both recipes' epochs."),
    ] = None,
    framework: Annotated[
        str | None,
        framework_option(
            "Trains every stop; the others train FROM and TO. Default: the first "
            "that is installed"
        ),
    ] = None,
    settings: SetOption = None,
    no_proof: Annotated[
        bool, typer.Option("--no-proof", help="Skip the short proofs on FROM and TO.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="The output folder. Default: runs/ablation-FROM-TO-HASH"),
    ] = None,
    data: DataOption = None,
    device: DeviceOption = Device.auto,
    on: OnOption = None,
    storage: StorageOption = None,
    exclusive: ExclusiveOption = False,
    take: TakeOption = None,
    retries: RetriesOption = 3,
    as_json: JsonOption = False,
) -> None:
    """Measure what each difference between two recipes does, one at a time.

    Walks from FROM to TO in the order of a recipe's fields, and back, trains every
    stop in one framework with the same seeds, and shows the effect of each difference
    on test accuracy, test loss and accuracy after the first epoch, then the gap that
    remains between the frameworks. Resumable: repeat the command and finished runs
    are reused.
    """
    from paripassu.ablation.ablate import PICTURE_FILE
    from paripassu.ablation.ablate import ablate as run
    from paripassu.frameworks.registry import find, first_installed
    from paripassu.terminal.ablation import ablation_table, watching_ablation

    first = load_recipe(start, settings, epochs=epochs)
    last = load_recipe(end, settings, epochs=epochs)
    chosen = find(framework).name if framework else first_installed()
    # More seeds later must find the runs of these: the seed is not in the name.
    kind, mark = f"ablation-{first.name}", first.changed(seed=0).hash(chosen)
    own = last.changed(seed=0)
    folder = output_folder(out, kind, own, mark, data=data, storage=storage)
    with watching_ablation(terminal(stderr=True)) as on_event:
        result = run(
            first,
            last,
            framework=chosen,
            seeds=range(first.seed, first.seed + seeds),
            out=folder,
            conditions=conditions_of(data, 1, device),
            proof=not no_proof,
            executor=executor_of(on, storage, exclusive, take, retries, device),
            on_event=on_event,
        )
    show(result, as_json, lambda: ablation_table(result))
    if not as_json:
        typer.echo(f"picture: {folder / PICTURE_FILE}")
    exit_unless(not result.failures and all(result.proofs.values()))
