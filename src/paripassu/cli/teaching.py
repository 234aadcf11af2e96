"""The command that makes the notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paripassu.cli.base import (
    JsonOption,
    NamesOption,
    app,
    framework_list,
    print_json,
    terminal,
)


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu notebooks --execute`\n\n"
    "- `paripassu notebooks --execute --epochs 1 --images 2000 --out runs/try`\n\n"
    "- `paripassu notebooks --check`"
)
def notebooks(
    frameworks: NamesOption = "pytorch,tensorflow",
    execute: Annotated[
        bool, typer.Option("--execute", help="Run them, and keep what they show.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Write nothing; exit with 1 if one is out of date."
        ),
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", "-e", min=1, help="With --execute: to train, not 2."),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option("--images", min=1, max=60_000, help="With --execute: fewer."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder they are written to.")
    ] = Path("notebooks"),
    as_json: JsonOption = False,
) -> None:
    """Make the notebooks from the lessons, and run them.

    What a notebook showed is kept as long as its code stays the same. Needs the
    extra: pip install 'paripassu[notebooks]'.
    """
    from paripassu.core.errors import NotebookError, UserError
    from paripassu.notebooks.build import make

    wanted = {"EPOCHS": epochs, "IMAGES": images}
    parameters = {name: x for name, x in wanted.items() if x is not None}
    if parameters and not execute:
        raise UserError("--epochs and --images are for a run: add --execute.")
    if check and execute:
        raise UserError("--check writes nothing and runs nothing: leave --execute out.")
    console = terminal(stderr=True)
    found = []
    failed = False
    for name in framework_list(frameworks):
        with console.status(f"{name} …") as status:
            try:
                made = make(
                    name,
                    out,
                    execute=execute,
                    check=check,
                    parameters=parameters,
                    on_cell=status.update,
                )
            except NotebookError as failure:
                failed = True
                console.print(str(failure), style="red", markup=False, highlight=False)
                continue
        found.append(made)
        failed |= check and not made.fresh
        if not as_json:
            typer.echo(made.sentence)
    if as_json:
        print_json([made.as_dict() for made in found])
    if failed:
        raise typer.Exit(1)
