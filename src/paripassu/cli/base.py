"""What all commands share: the application, options, and ways to speak."""

from __future__ import annotations

import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from paripassu.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from paripassu.core.recipe import Recipe
    from paripassu.processes.conditions import Conditions

INTERRUPTED = 130
COMMANDS = (
    *("train", "evaluate", "convert", "predict", "compare", "verify", "ablate"),
    "check",
    "check-optimizer",
    *("serve", "report", "bench", "notebooks", "info", "recipes"),
)


class InOrder(TyperGroup):
    """Lists the commands in this order, not in that of the files they are in."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        return sorted(super().list_commands(ctx), key=COMMANDS.index)


app = typer.Typer(
    cls=InOrder,
    name="paripassu",
    help="Train the same network in PyTorch and TensorFlow, prove the twins equal, "
    "and measure fairly what is left.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Precision(StrEnum):
    """Of a proof."""

    float64 = "float64"
    float32 = "float32"


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


def framework_names(incomplete: str) -> list[str]:
    """Complete the name of a framework."""
    return [x for x in ("pytorch", "tensorflow") if x.startswith(incomplete)]


def fault_names(incomplete: str) -> list[str]:
    """Complete the name of a seeded fault."""
    from paripassu.frameworks.faults import FAULTS

    return [x for x in ("all", *FAULTS) if x.startswith(incomplete)]


def recipe_names(incomplete: str) -> list[str]:
    """Complete the name of a built-in recipe."""
    from paripassu.core.recipe import built_in

    return [x for x in built_in() if x.startswith(incomplete)]


NamesOption = Annotated[
    str,
    typer.Option("--frameworks", help="Names with commas between.", metavar="NAMES"),
]


RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        "-r",
        help="A built-in recipe, or the path of a TOML file.",
        autocompletion=recipe_names,
    ),
]


SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a value of the recipe, e.g. optimizer.rho=0.95. Repeatable.",
    ),
]


EpochsOption = Annotated[
    int | None, typer.Option("--epochs", "-e", min=1, help="In place of the recipe's.")
]


DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="IDX folder, torchvision folder or Keras mnist.npz. "
        "Default: the MNIST in the package.",
        show_default=False,
    ),
]


ThreadsOption = Annotated[
    int, typer.Option("--threads", min=0, help="0: one for each usable core.")
]


DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute.")]


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON, for programs.")
]


def complain(message: str) -> None:
    """Say what went wrong, on standard error."""
    terminal(stderr=True).print(
        f"paripassu: {message}", style="red", markup=False, highlight=False
    )


def terminal(*, stderr: bool = False) -> Console:
    """Where tables and progress are printed."""
    from rich.console import Console

    return Console(stderr=stderr, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a result for programs."""
    typer.echo(json.dumps(value, indent=1, allow_nan=False))


def load_recipe(
    name: str, settings: list[str] | None, **overrides: int | None
) -> Recipe:
    """The recipe that was named, with what was changed."""
    from paripassu.core import machine
    from paripassu.core.recipe import load

    more = [f"{key}={value}" for key, value in overrides.items() if value is not None]
    recipe = load(name, [*(settings or []), *more])
    if recipe.precision == "bfloat16" and machine.computes_bfloat16() is False:
        from paripassu.terminal.progress import warn

        warn(
            terminal(stderr=True),
            "warning: this processor has no instructions for bfloat16: training will "
            "be slower than in float32. Type: --set precision=float32",
        )
    return recipe


def framework_list(names: str) -> list[str]:
    """The frameworks that `--frameworks` names."""
    from paripassu.frameworks.registry import find

    listed = [name for name in names.split(",") if name.strip()]
    if not listed:
        raise UserError("--frameworks is empty. Type: --frameworks pytorch,tensorflow")
    return list(dict.fromkeys(find(name).name for name in listed))


def conditions_of(data: Path | None, threads: int, device: Device) -> Conditions:
    """What is not of the recipe, with the command that was typed."""
    from paripassu.processes.conditions import Conditions

    command = shlex.join(["paripassu", *sys.argv[1:]])
    return Conditions(data, threads, device.value, command)


def default_folder(kind: str, recipe: Recipe, data: Path | None) -> Path:
    """A folder that the same command finds again, and no other one does."""
    mark = recipe.hash(str(data.resolve()) if data else "package")[:8]
    return Path("runs") / f"{kind}-{recipe.name}-{mark}"
