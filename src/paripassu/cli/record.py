"""The command that records a model for a check in another process."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from paripassu.cli.base import (
    InputsOption,
    JsonOption,
    ShapesOption,
    ThreadsOption,
    app,
    show,
    terminal,
)
from paripassu.cli.check import users_code


class Levels(StrEnum):
    """How much of a model is recorded."""

    full = "full"
    boundaries = "boundaries"
    outputs = "outputs"


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu record net.py:build --input 1,3,224,224 --out left.recording`, then "
    "`paripassu check left.recording net_keras.py:build`\n\n"
    "- `paripassu record net.py:build --inputs batch.npz --level outputs --out "
    "golden.recording`"
)
def record(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="package.module:attribute or file.py:attribute: a torch.nn.Module, a "
            "keras.Model, or a function or class that makes one.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            help="The recording: written whole or not at all.",
        ),
    ],
    shapes: ShapesOption = None,
    inputs: InputsOption = None,
    model_args: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Arguments of MODEL, if it is a function."),
    ] = None,
    level: Annotated[
        Levels,
        typer.Option(
            help="full; boundaries: no arrays between layers with weights; outputs: no "
            "layers and weights, for a golden file."
        ),
    ] = Levels.full,
    forward_only: Annotated[
        bool, typer.Option("--forward-only", help="Skip the step of training.")
    ] = False,
    python: Annotated[
        Path | None,
        typer.Option(metavar="PYTHON", help="The interpreter that runs MODEL."),
    ] = None,
    threads: ThreadsOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Record what a model computes, to check a port of it in another process.

    A recording holds inputs, outputs, weights, each layer at work, gradients and a
    step of training, in float32 and float64, and what one unit in the last place does
    to them. `paripassu check FOLDER RIGHT` needs nothing else of the model: it can run
    in another environment, on another machine, next year. Exit code 0: recorded; 2: it
    could not be.
    """
    from paripassu.core import machine
    from paripassu.port_check.record import describe_size, record_source
    from paripassu.port_check.requests import RecordRequest
    from paripassu.terminal.port_check import watching

    console = terminal(stderr=True)
    with users_code("model"), watching(console) as on_progress:

        def told(text: str, share: float) -> None:
            if text.endswith("will be written"):
                console.print(f"{out}: {text}", highlight=False)
            on_progress(text, share)

        request = RecordRequest(
            model=model,
            model_args=model_args,
            shapes=tuple(shapes or ()),
            inputs=inputs,
            out=out,
            level=level.value,
            gradients=not forward_only,
            usable_threads=threads or machine.usable_cores(),
        )
        found = record_source(request, told, python=python)
    data = {
        "path": str(found.path),
        "size": found.size,
        "calls": found.calls,
        "notes": list(found.notes),
    }
    lines = [f"{out}: {describe_size(found.size)}, {found.calls} calls"]
    lines += [f"Note: {x}" for x in found.notes]
    show(data, as_json, lambda: "\n".join(lines))
