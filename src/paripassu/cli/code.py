"""The command that writes a recipe as a script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paripassu.cli.base import (
    JsonOption,
    SetOption,
    app,
    framework_option,
    prepare_files,
    recipe_names,
    show,
)


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu code article --framework pytorch`\n\n"
    "- `paripassu code my.toml -f tensorflow --set epochs=3 --out train.py`\n\n"
    "- `python train.py --data mnist.npz`"
)
def code(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A built-in recipe or the path of a TOML file.",
            autocompletion=recipe_names,
        ),
    ],
    framework: Annotated[
        str, framework_option("The framework that the script is for.")
    ],
    settings: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write the script there, where no file is yet. Default: print it.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a recipe as a script in plain PyTorch, TensorFlow or JAX.

    The script imports nothing of this package. It reads an mnist.npz (`--data`),
    trains, prints the loss of each epoch and the test accuracy, and saves the network.
    Its steps are those of `paripassu train`; what it draws, first weights and the order
    of images, is its own. A recipe that a framework has no words for is refused.
    """
    from paripassu.core.errors import UserError
    from paripassu.core.files import write_text
    from paripassu.core.recipe import load
    from paripassu.frameworks.registry import find

    chosen, of = load(recipe, settings or ()), find(framework)
    text = of.code(chosen)
    if out:
        prepare_files(out)
        if out.exists():
            raise UserError(
                f"{out} is there already. Choose another name with --out, or delete it."
            )
        write_text(out, text)
    found = {
        "recipe": chosen.name,
        "framework": of.name,
        "out": str(out) if out else None,
        "code": text,
    }
    wrote = f"wrote {out}: python {out} --data mnist.npz"
    show(found, as_json, lambda: wrote if out else text.rstrip("\n"))
