"""Commands about recipes and their differences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paripassu.cli.base import (
    DataOption,
    Device,
    DeviceOption,
    JsonOption,
    app,
    conditions_of,
    framework_names,
    load_recipe,
    print_json,
    recipe_names,
    terminal,
)

recipes_app = typer.Typer(rich_markup_mode="markdown")


app.add_typer(recipes_app, name="recipes")


@recipes_app.callback(
    invoke_without_command=True,
    epilog="**Examples**\n\n"
    "- `paripassu recipes`\n\n"
    "- `paripassu recipes show lenet5 > my.toml`\n\n"
    "- `paripassu compare --recipe my.toml`",
)
def recipes(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the built-in recipes, or show one."""
    context.obj = as_json
    if context.invoked_subcommand:
        return
    from paripassu.core.recipe_book import entries
    from paripassu.terminal.summary import recipes_table

    found = entries()
    if as_json:
        print_json([entry.as_dict() for entry in found])
    else:
        terminal().print(recipes_table(found))


@recipes_app.command(
    "show",
    epilog="**Examples**\n\n"
    "- `paripassu recipes show keras-example`\n\n"
    "- `paripassu recipes show my.toml --json`",
)
def show_recipe(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A built-in recipe, or the path of a TOML file.",
            autocompletion=recipe_names,
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Print a recipe as TOML: every value, with its source and published figure.

    What it prints is itself a recipe file.
    """
    from paripassu.core.recipe_book import show

    recipe = load_recipe(name, None)
    if as_json or context.obj:
        print_json(recipe.model_dump())
    else:
        typer.echo(show(recipe), nl=False)


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
            help="A built-in recipe, or the path of a TOML file.",
            autocompletion=recipe_names,
        ),
    ] = "article-pytorch-notebook",
    end: Annotated[
        str,
        typer.Argument(
            metavar="TO",
            help="Another one, of the same network.",
            autocompletion=recipe_names,
        ),
    ] = "article-tensorflow-notebook",
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds",
            "-n",
            min=1,
            help="How many runs of each stop; FROM's seed and those after it.",
        ),
    ] = 3,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", "-e", min=1, help="In place of both recipes'."),
    ] = None,
    framework: Annotated[
        str | None,
        typer.Option(
            "--framework",
            "-f",
            help="Trains every stop; the others train the end points. Default: "
            "pytorch, if it is installed",
            show_default=False,
            autocompletion=framework_names,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a value of both recipes, e.g. batch_size=128. Repeatable.",
        ),
    ] = None,
    no_proof: Annotated[
        bool,
        typer.Option(
            "--no-proof", help="Do not prove first that the twins are equal on both."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder. Default: runs/ablation-FROM-TO-HASH",
            show_default=False,
        ),
    ] = None,
    data: DataOption = None,
    device: DeviceOption = Device.auto,
    as_json: JsonOption = False,
) -> None:
    """Say what each difference between two recipes does, one at a time.

    It walks from the one to the other in the order of a recipe's fields, and back,
    trains each stop in one framework with the same seeds, and shows what each
    difference did to test accuracy, test loss and accuracy after the first epoch; then
    what is left between the frameworks. Stop and repeat it at will: finished runs are
    kept, and interrupted ones go on.
    """
    from paripassu.ablation.ablate import PICTURE_FILE, default_framework
    from paripassu.ablation.ablate import ablate as run
    from paripassu.terminal.ablation import ablation_table

    one = load_recipe(start, settings, epochs=epochs)
    other = load_recipe(end, settings, epochs=epochs)
    chosen = framework or default_framework()
    # More seeds later shall find the runs of these: the seed is not in the name.
    ends = one.changed(seed=0), other.changed(seed=0)
    source = str(data.resolve()) if data else "package"
    mark = ends[0].hash(ends[1].hash(), source, chosen)[:8]
    folder = out or Path("runs") / f"ablation-{one.name}-{other.name}-{mark}"
    result = run(
        one,
        other,
        framework=chosen,
        seeds=range(one.seed, one.seed + seeds),
        out=folder,
        conditions=conditions_of(data, 1, device),
        console=terminal(stderr=True),
        proof=not no_proof,
    )
    if as_json:
        print_json(result.model_dump())
    else:
        terminal().print(ablation_table(result))
        typer.echo(f"picture: {folder / PICTURE_FILE}")
    if result.failures or not all(result.proofs.values()):
        raise typer.Exit(1)
