"""The commands that check ports: two models, or two optimizers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paripassu.cli.base import (
    InputsOption,
    JsonOption,
    ShapesOption,
    ThreadsOption,
    app,
    exit_by,
    exit_unless,
    prepare_files,
    show,
    terminal,
    typed_command,
)
from paripassu.core.errors import UserError, WorkerError

if TYPE_CHECKING:
    from paripassu.port_check.results import LayerCount


class Copy(StrEnum):
    """Which model gets the other's weights."""

    left_to_right = "left-to-right"
    right_to_left = "right-to-left"


RightArgument = Annotated[str, typer.Argument(metavar="RIGHT", help="Like LEFT.")]


@contextlib.contextmanager
def users_code(what: str) -> Iterator[None]:
    """Let a crash of the user's code end with exit code 2: nothing was checked."""
    try:
        yield
    except WorkerError as failed:
        raise UserError(f"the process of the {what} crashed: {failed}") from failed


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
            "keras.Model, or a function or class that makes one. Or a recording.",
        ),
    ],
    right: RightArgument,
    shapes: ShapesOption = None,
    inputs: InputsOption = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            "--pair",
            metavar="LEFT=RIGHT",
            help="Two inputs that are the same, where names leave it in doubt: "
            "input_ids=token_ids. Repeatable.",
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            metavar="NAME or LEFT=RIGHT",
            help="Compare only these outputs: logits, or "
            "pooler_output=pooled_output. Repeatable. Default: all that pair.",
        ),
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CAUSE[@PLACE]",
            help="A difference that is no fault: epsilon@norm1, gelu-form@encoder.*, "
            "or a cause alone. The rest is judged without it. Repeatable.",
        ),
    ] = None,
    left_args: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Arguments of LEFT, if it is a function."),
    ] = None,
    right_args: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Arguments of RIGHT, if it is a function."),
    ] = None,
    copy: Annotated[
        Copy | None, typer.Option(help="Copy all weights before comparing.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the model that got the weights: .keras, .weights.h5, "
            ".safetensors or .pt.",
        ),
    ] = None,
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map", metavar="FILE", help="Match weights by this file of --write-map."
        ),
    ] = None,
    write_map: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the matching that was found, to edit."
        ),
    ] = None,
    forward_only: Annotated[
        bool, typer.Option("--forward-only", help="Skip training mode and gradients.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML report.")
    ] = None,
    markdown_file: Annotated[
        Path | None,
        typer.Option("--md", metavar="FILE", help="Write Markdown, for a review."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Print all layers, even if equal.")
    ] = False,
    left_python: Annotated[
        Path | None,
        typer.Option(
            metavar="PYTHON",
            help="The interpreter that runs LEFT: other versions of its libraries.",
        ),
    ] = None,
    right_python: Annotated[
        Path | None,
        typer.Option(metavar="PYTHON", help="The interpreter that runs RIGHT."),
    ] = None,
    threads: ThreadsOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Check a port: do two models, of any framework, compute the same?

    Matches the weights, then compares outputs layer by layer, gradients and BatchNorm
    statistics, in float64 and float32. Where they differ by more than rounding, it
    names the place and the cause. Your code runs in its own process. Exit code 0:
    equal; 1: not equal; 2: the check could not run; 3: undecided, nothing differs but
    not everything could be compared.
    """
    from paripassu.core import machine
    from paripassu.port_check.arguments import check_request
    from paripassu.port_check.requests import CheckRequest

    request = CheckRequest(
        left=left,
        right=right,
        left_args=left_args,
        right_args=right_args,
        shapes=tuple(shapes or ()),
        inputs=inputs,
        copy_weights=copy.value if copy else None,
        save=save,
        gradients=not forward_only,
        pairs=tuple(pairs or ()),
        outputs=tuple(outputs or ()),
        accept=tuple(accept or ()),
        usable_threads=threads or machine.usable_cores(),
    )
    check_request(request, elsewhere=(bool(left_python), bool(right_python)))

    # What was typed may be right: now for what takes longer to import.
    from paripassu.port_check.check import check_sources, read_map
    from paripassu.port_check.check import write_map as write
    from paripassu.terminal.port_check import checked_view, layer_table, watching

    prepare_files(html, markdown_file, write_map, save)
    if map_file:
        request = request.model_copy(update={"blocks": read_map(map_file)})
    console = terminal(stderr=True)

    def on_layers(layers: Sequence[LayerCount]) -> None:
        if not as_json:
            console.print(layer_table(layers, full=full), "")

    with users_code("models"), watching(console) as on_progress:
        found = check_sources(
            request,
            command=typed_command(),
            on_progress=on_progress,
            on_layers=on_layers,
            left_python=left_python,
            right_python=right_python,
        )
    waited = {"seconds": machine.seconds_since_start()}
    found = found.model_copy(update=waited)
    if write_map:
        write(write_map, found)
    if html:
        from paripassu.port_check import page

        page.write(html, found)
    if markdown_file:
        from paripassu.port_check import markdown

        markdown.write(markdown_file, found)
    show(found, as_json, lambda: checked_view(found, full=full))
    for path, what in (
        (html, "page"),
        (markdown_file, "text"),
        (write_map, "map"),
        (save, "model"),
    ):
        if path and not as_json:
            console.print(f"{what}: {path}", highlight=False)
    exit_by(found.verdict)


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
            help="package.module:attribute or file.py:attribute: an optimizer class; a "
            "Keras optimizer or a function that makes one; a function of parameters "
            "that makes a torch.optim.Optimizer, alone or with its scheduler.",
        ),
    ],
    right: RightArgument,
    left_args: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Settings of LEFT: '{\"lr\": 0.001}'."),
    ] = None,
    right_args: Annotated[
        str | None, typer.Option(metavar="JSON", help="Settings of RIGHT.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=10_000, help="Steps to take.")] = 12,
    as_json: JsonOption = False,
) -> None:
    """Check an optimizer: do two optimizers take the same steps?

    Both get the same parameters and gradients, in float64. Where their steps differ,
    it names the setting or the form that is the cause: the one that removes the
    difference when exchanged. Learning rate schedules are checked too. Exit code 0:
    the same steps; 1: different steps; 2: the check could not run.
    """
    from paripassu.port_check.optimizer import check_optimizer_sources
    from paripassu.port_check.requests import CheckOptimizerRequest
    from paripassu.terminal.optimizer import optimizer_view

    with users_code("optimizers"):
        request = CheckOptimizerRequest(
            left=left,
            right=right,
            left_args=left_args,
            right_args=right_args,
            steps=steps,
        )
        found = check_optimizer_sources(request)
    show(found, as_json, lambda: optimizer_view(found, left, right))
    exit_unless(found.equal)
