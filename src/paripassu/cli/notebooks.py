"""The command that makes the notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paripassu.cli.base import (
    JsonOption,
    NamesOption,
    app,
    exit_unless,
    framework_list,
    show,
    terminal,
)


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu notebooks --execute`\n\n"
    "- `paripassu notebooks --execute --epochs 1 --images 2000 --out runs/try`\n\n"
    "- `paripassu notebooks --check`"
)
def notebooks(
    frameworks: NamesOption = None,
    execute: Annotated[
        bool, typer.Option("--execute", help="Run them and keep their outputs.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Write nothing; exit with code 1 if one is stale."
        ),
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", "-e", min=1, help="With --execute: instead of 2."),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option("--images", min=1, max=60_000, help="With --execute: use fewer."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The output folder.")] = Path(
        "notebooks"
    ),
    as_json: JsonOption = False,
) -> None:
    """Make the notebooks from the lessons, and run them.

    Outputs are kept as long as the code stays the same. Requires the extra `notebooks`.
    """
    from paripassu.core.errors import NotebookError, UserError
    from paripassu.notebooks.build import make

    wanted = {"EPOCHS": epochs, "IMAGES": images}
    parameters = {name: x for name, x in wanted.items() if x is not None}
    if parameters and not execute:
        raise UserError("--epochs and --images need a run: add --execute.")
    if check and execute:
        raise UserError("--check runs nothing: remove --execute.")
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
        show(found, as_json, str)
    exit_unless(not failed)
