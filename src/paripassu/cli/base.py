"""What all commands share: the application, options, and ways to print."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from paripassu.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from paripassu.core.recipe import Recipe
    from paripassu.processes.conditions import Conditions
    from paripassu.processes.executors import Executor

INTERRUPTED = 130
COMMANDS = (
    *("train", "evaluate", "convert", "predict", "compare", "verify", "faults"),
    *(
        "ablate",
        "study",
        "check",
        "record",
        "check-optimizer",
        "serve",
        "report",
        "bench",
        "race",
    ),
    *("notebooks", "info", "recipes", "code"),
)
RENAMED = {"ledger": "ablate"}


class Commands(TyperGroup):
    """Lists the commands in the order of COMMANDS, and knows their earlier names."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        return sorted(super().list_commands(ctx), key=COMMANDS.index)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that was typed, or what to type instead."""
        if args and (name := RENAMED.get(args[0])):
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{name}'?")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands,
    name="paripassu",
    help="Train the same network in several frameworks, prove that all compute the "
    "same, and measure what differs. Check ports of your own models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Precision(StrEnum):
    """The number type of a proof."""

    float64 = "float64"
    float32 = "float32"


class Device(StrEnum):
    """The device to compute on."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


def framework_names(incomplete: str) -> list[str]:
    """Complete the name of a framework."""
    from paripassu.frameworks.registry import FRAMEWORKS

    return [x for x in FRAMEWORKS if x.startswith(incomplete)]


def fault_names(incomplete: str) -> list[str]:
    """Complete the name of a seeded fault."""
    from paripassu.frameworks.faults import FAULTS

    return [x for x in FAULTS if x.startswith(incomplete)]


def recipe_names(incomplete: str) -> list[str]:
    """Complete the name of a built-in recipe."""
    from paripassu.core.recipe import built_in

    return [x for x in built_in() if x.startswith(incomplete)]


def framework_option(text: str) -> Any:
    """`--framework`, with its help."""
    return typer.Option("--framework", "-f", help=text, autocompletion=framework_names)


NamesOption = Annotated[
    str | None,
    typer.Option(
        "--frameworks",
        help="Comma-separated names, or all that are installed. Default: all but "
        "those that `paripassu info` says are taken where they are named.",
        metavar="NAMES",
    ),
]

RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        "-r",
        help="A built-in recipe or the path of a TOML file.",
        autocompletion=recipe_names,
    ),
]

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a value of the recipe, e.g. optimizer.rho=0.95. Repeatable.",
    ),
]

EpochsOption = Annotated[
    int | None,
    typer.Option("--epochs", "-e", min=1, help="Override the number of epochs."),
]

DataOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="IDX files, an .npz, folders of pictures by class, CIFAR-10's binary "
        "version or a torchvision folder. Default: the MNIST in the package.",
    ),
]

ThreadsOption = Annotated[
    int, typer.Option("--threads", min=0, help="0: one per usable core.")
]

ShapesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="[NAME=]SHAPE[:TYPE]",
        help="An input of the model, of LEFT where there are two: 1,3,224,224, or "
        "2,16:int:1000 for integers below 1000. Repeatable. Default: what a Keras "
        "model declares.",
    ),
]

InputsOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Read the inputs from an .npz file."),
]

DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute.")]

OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="WHERE",
        help="Make the runs on a Ray cluster: ray://HOST:PORT; or ray, which is the "
        "cluster that RAY_ADDRESS names, else a Ray of this machine alone. Default: "
        "here, without Ray",
    ),
]

StorageOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="With --on: a folder that this machine and all nodes see under the same "
        "path; runs are made there in place. Default: their files travel through Ray",
    ),
]

ExclusiveOption = Annotated[
    bool,
    typer.Option(
        "--exclusive",
        help="With --on: a whole node for each run, so that its times are its own.",
    ),
]

TakeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--take",
        metavar="RESOURCE=COUNT",
        help="With --on: what a run takes of its node, as CPU=4, GPU=1 or a resource "
        "of your own. Repeatable. Default: a CPU for each thread, and a GPU with "
        "--device gpu",
    ),
]

RetriesOption = Annotated[
    int,
    typer.Option(
        min=0,
        help="With --on: how often a run whose node is lost goes on elsewhere.",
    ),
]

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON document.")
]


def terminal(*, stderr: bool = False) -> Console:
    """Where tables and progress are printed."""
    from rich.console import Console

    return Console(stderr=stderr, soft_wrap=True)


def complain(message: str) -> None:
    """Print an error to standard error."""
    typer.secho(f"paripassu: {message}", fg=typer.colors.RED, err=True)


def show(result: Any, as_json: bool, view: Callable[[], RenderableType | str]) -> None:
    """Print a result to standard output: as one JSON document, or for people.

    Args:
        result: a pydantic model, something with `as_dict`, or plain JSON data.
        as_json: whether `--json` was given.
        view: makes what people see; a string is printed as it is.
    """
    if as_json:
        typer.echo(json.dumps(_plain(result), indent=1, allow_nan=False))
    elif isinstance(shown := view(), str):
        typer.echo(shown)
    else:
        terminal().print(shown)


def _plain(result: Any) -> Any:
    if hasattr(result, "model_dump"):
        return result.model_dump(mode="json")
    if hasattr(result, "as_dict"):
        return result.as_dict()
    if isinstance(result, list | tuple):
        return [_plain(x) for x in result]
    return result


def exit_by(verdict: str) -> None:
    """End with the exit code of a verdict: 0 equal, 1 differs, 3 undecided."""
    if code := {"differs": 1, "undecided": 3}.get(verdict):
        raise typer.Exit(code)


def exit_unless(good: bool) -> None:
    """End with exit code 1 if what was tried has failed."""
    if not good:
        raise typer.Exit(1)


def load_recipe(
    name: str, settings: list[str] | None = None, **overrides: int | None
) -> Recipe:
    """The recipe with this name, with its overrides."""
    from paripassu.core import machine
    from paripassu.core.recipe import load

    more = [f"{key}={value}" for key, value in overrides.items() if value is not None]
    recipe = load(name, [*(settings or []), *more])
    if recipe.precision == "bfloat16" and machine.computes_bfloat16() is False:
        from paripassu.terminal.progress import warn

        warn(
            terminal(stderr=True),
            "warning: this processor has no bfloat16 instructions: training will be "
            "slower than in float32. Type: --set precision=float32",
        )
    return recipe


def framework_list(names: str | None) -> list[str]:
    """The frameworks that `--frameworks` names; those asked by default if none is.

    "all" are those that are installed.
    """
    from paripassu.frameworks.registry import FRAMEWORKS, asked_by_default, find

    if names is None:
        return [x.name for x in asked_by_default()]
    if names.strip().lower() == "all":
        return [n for n, x in FRAMEWORKS.items() if not x.problem] or list(FRAMEWORKS)
    listed = [find(name.strip()).name for name in names.split(",") if name.strip()]
    if not listed:
        known = ",".join(FRAMEWORKS)
        raise UserError(f"--frameworks is empty. Type: --frameworks {known}")
    return list(dict.fromkeys(listed))


def typed_command() -> str:
    """The command line, for records."""
    return shlex.join(["paripassu", *sys.argv[1:]])


def conditions_of(data: Path | None, threads: int, device: Device) -> Conditions:
    """Data, threads, device and command line of a run."""
    from paripassu.processes.conditions import Conditions

    return Conditions(data, threads, device.value, typed_command())


def executor_of(
    on: str | None,
    storage: Path | None,
    exclusive: bool,
    take: list[str] | None,
    retries: int,
    device: Device,
) -> Executor:
    """Where runs are made, by the options that say so.

    Raises:
        UserError: they contradict each other, or cannot be read.
    """
    if on is None:
        given = {"--storage": storage, "--exclusive": exclusive, "--take": take}
        if typed := [name for name, value in given.items() if value]:
            raise UserError(f"{typed[0]} is for runs on a cluster. Add: --on ray")
        from paripassu.processes.executors import Local

        return Local()
    from paripassu.processes.on_ray import OnRay

    if on != "ray" and not on.startswith("ray://"):
        raise UserError(f"--on {on!r}: expected ray, or ray://HOST:PORT.")
    wanted = {"GPU": 1.0} if device is Device.gpu else {}
    return OnRay(
        None if on == "ray" else on,
        resources=wanted | dict(map(_resource, take or [])),
        exclusive=exclusive,
        storage=storage,
        retries=retries,
    )


def _resource(text: str) -> tuple[str, float]:
    name, _, count = text.partition("=")
    try:
        number = float(count)
    except ValueError:
        number = 0.0
    if not name.strip() or not 0 < number < 2**20:
        raise UserError(f"--take {text!r}: expected RESOURCE=COUNT, such as GPU=1.")
    return name.strip(), number


def output_folder(
    out: Path | None,
    kind: str,
    recipe: Recipe,
    *more: str,
    data: Path | None = None,
    storage: Path | None = None,
) -> Path:
    """`--out`, or a folder that the same command finds again, and no other does.

    Args:
        out: what was typed.
        kind: the beginning of the folder's name.
        recipe: gives its name and its hash.
        more: what else tells this folder from others.
        data: what `--data` named.
        storage: what `--storage` named, and where the folder is then.
    """
    source = str(data.resolve()) if data else "package"
    mark = recipe.hash(*more, source)[:8]
    return out or (storage or Path("runs")) / f"{kind}-{recipe.name}-{mark}"


def prepare_files(*paths: Path | None) -> None:
    """Make the folders of these files, so that a bad path fails before the work."""
    from paripassu.core.files import make_folder

    for path in filter(None, paths):
        if path.is_dir():
            raise UserError(f"{path} is a folder, but the name of a file is expected.")
        make_folder(path.resolve().parent)
