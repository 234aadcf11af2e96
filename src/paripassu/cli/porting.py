"""The commands for users' own models: is a port right?"""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from paripassu.cli.base import (
    JsonOption,
    ThreadsOption,
    app,
    complain,
    print_json,
    terminal,
)
from paripassu.core.errors import WorkerError


class Copy(StrEnum):
    """Which model is given the other's weights."""

    left_to_right = "left-to-right"
    right_to_left = "right-to-left"


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu check net.py:build net_keras.py:build --input 1,3,224,224 "
    "--copy left-to-right`\n\n"
    "- `paripassu check mine.torch_net:Net mine.keras_net:make --left-args "
    """'{"width": 32}' --input 2,3,32,32`\n\n"""
    "- `paripassu check a.py:encoder b.py:encoder --input ids=2,16:int:1000 --html "
    "check.html`"
)
def check(
    left: Annotated[
        str,
        typer.Argument(
            metavar="LEFT",
            help="package.module:attribute or file.py:attribute: a torch.nn.Module, a "
            "keras.Model, or a function or class that makes one.",
            show_default=False,
        ),
    ],
    right: Annotated[
        str, typer.Argument(metavar="RIGHT", help="The same.", show_default=False)
    ],
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="[NAME=]SHAPE[:TYPE]",
            help="An input of the left model: 1,3,224,224, or 2,16:int:1000 for whole "
            "numbers below 1000. Repeat it for several. Default: what a Keras model "
            "declares.",
            show_default=False,
        ),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Inputs from an .npz file instead."),
    ] = None,
    left_args: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Arguments where LEFT is a function."),
    ] = None,
    right_args: Annotated[
        str | None, typer.Option(metavar="JSON", help="And where RIGHT is.")
    ] = None,
    copy: Annotated[
        Copy | None, typer.Option(help="Copy all weights before comparing.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the model that was given weights: .keras, .weights.h5, "
            ".safetensors or .pt.",
        ),
    ] = None,
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map", metavar="FILE", help="Which weights are which, from --write-map."
        ),
    ] = None,
    write_map: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the map that was found, to edit it."),
    ] = None,
    forward_only: Annotated[
        bool,
        typer.Option("--forward-only", help="Leave out training mode and gradients."),
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the curve.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Print all layers, also when all is well.")
    ] = False,
    threads: ThreadsOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Check a port: do two models, of whatever framework, compute the same?

    Weights are mapped by themselves. Then outputs, layer by layer, gradients and
    BatchNorm's statistics are compared, in float64 and float32; where they part by
    more than rounding, the place and the cause are named. Your code runs in a process
    of its own. Exit code 0: equal; 1: not equal; 2: it could not be checked.
    """
    from paripassu.core import machine
    from paripassu.core.files import make_folder
    from paripassu.port_check import check_sources, page
    from paripassu.port_check import write_map as write
    from paripassu.terminal.port_check import checked_view, watching

    for path in (html, write_map, save):
        if path:
            make_folder(path.resolve().parent)  # before the work, not after it
    console = terminal(stderr=True)
    try:
        with watching(console) as on_progress:
            found = check_sources(
                left,
                right,
                left_args=left_args,
                right_args=right_args,
                input=shapes or [],
                inputs=inputs,
                copy=copy.value if copy else None,
                map=map_file,
                save=save,
                gradients=not forward_only,
                threads=threads or machine.usable_cores(),
                command=shlex.join(["paripassu", *sys.argv[1:]]),
                on_progress=on_progress,
            )
    except WorkerError as failed:
        complain(f"the models' process crashed: {failed}")
        raise typer.Exit(2) from failed
    if write_map:
        write(write_map, found)
    if html:
        page.write(html, found)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        terminal().print(checked_view(found, full=full))
        for path, what in ((html, "page"), (write_map, "map"), (save, "model")):
            if path:
                console.print(f"{what}: {path}", highlight=False)
    raise typer.Exit(0 if found.equal else 1)


@app.command(
    "check-optimizer",
    epilog="**Examples**\n\n"
    "- `paripassu check-optimizer torch.optim:AdamW keras.optimizers:AdamW`\n\n"
    "- `paripassu check-optimizer torch.optim:Adam keras.optimizers:Adam --left-args "
    """'{"eps": 1e-7}'`\n\n"""
    "- `paripassu check-optimizer train.py:make_optimizer train_keras.py:optimizer`",
)
def check_optimizer(
    left: Annotated[
        str,
        typer.Argument(
            metavar="LEFT",
            help="package.module:attribute or file.py:attribute: a class of "
            "optimizers; a Keras optimizer; a function of parameters that makes a "
            "torch.optim.Optimizer, alone or with its scheduler; a function that makes "
            "a Keras one.",
            show_default=False,
        ),
    ],
    right: Annotated[
        str, typer.Argument(metavar="RIGHT", help="The same.", show_default=False)
    ],
    left_args: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Settings of LEFT: '{\"lr\": 0.001}'."),
    ] = None,
    right_args: Annotated[
        str | None, typer.Option(metavar="JSON", help="And of RIGHT.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 12,
    as_json: JsonOption = False,
) -> None:
    """Check an optimizer: do two of them take the same steps?

    Both are given the same parameters and gradients, in float64. Where they part, the
    setting or the form that makes the difference is named: the one that closes it when
    it is exchanged. A schedule of learning rates belongs to it. Exit code 0: the same
    steps; 1: others; 2: it could not be checked.
    """
    from paripassu.port_check import check_optimizer_sources
    from paripassu.terminal.optimizer import optimizer_view

    try:
        found = check_optimizer_sources(
            left, right, left_args=left_args, right_args=right_args, steps=steps
        )
    except WorkerError as failed:
        complain(f"the optimizers' process crashed: {failed}")
        raise typer.Exit(2) from failed
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        terminal().print(optimizer_view(found, left, right))
    raise typer.Exit(0 if found.equal else 1)
