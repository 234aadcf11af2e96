"""The command line: reads what was typed, calls one verb, prints what it returns.

Exit codes: 0 done; 1 something that was tried failed; 2 wrong usage or input; 130
interrupted. Results go to standard output, progress and errors to standard error.
"""

from __future__ import annotations

import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paripassu.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from paripassu.analysis.schema import Proof
    from paripassu.core.recipe import Recipe
    from paripassu.train import Conditions

INTERRUPTED = 130

app = typer.Typer(
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


def _framework_names(incomplete: str) -> list[str]:
    return [x for x in ("pytorch", "tensorflow") if x.startswith(incomplete)]


def _fault_names(incomplete: str) -> list[str]:
    from paripassu.frameworks.faults import FAULTS

    return [x for x in ("all", *FAULTS) if x.startswith(incomplete)]


def _recipe_names(incomplete: str) -> list[str]:
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
        autocompletion=_recipe_names,
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


def main() -> None:
    """Run the command line and turn known errors into messages and exit codes."""
    try:
        app()
    except UserError as error:
        _complain(str(error))
        sys.exit(2)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what typer makes of Ctrl-C, without a word
            _complain(
                "interrupted. All finished epochs are kept: type the same command "
                "again to go on."
            )
        raise
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is left to say.
        sys.stderr.close()
        sys.exit(1)


def _complain(message: str) -> None:
    _console(stderr=True).print(
        f"paripassu: {message}", style="red", markup=False, highlight=False
    )


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, soft_wrap=True)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, allow_nan=False))


def _load_recipe(
    name: str, settings: list[str] | None, **overrides: int | None
) -> Recipe:
    from paripassu.core.recipe import load

    more = [f"{key}={value}" for key, value in overrides.items() if value is not None]
    return load(name, [*(settings or []), *more])


def _frameworks(names: str) -> list[str]:
    listed = list(dict.fromkeys(filter(None, map(str.strip, names.split(",")))))
    if not listed:
        raise UserError("--frameworks is empty. Type: --frameworks pytorch,tensorflow")
    from paripassu.frameworks import find

    return [find(name).name for name in listed]


def _conditions(data: Path | None, threads: int, device: Device) -> Conditions:
    from paripassu.train import Conditions

    command = shlex.join(["paripassu", *sys.argv[1:]])
    return Conditions(data, threads, device.value, command)


def _default_folder(kind: str, recipe: Recipe, data: Path | None) -> Path:
    """A folder that the same command finds again, and no other one does."""
    mark = recipe.hash(str(data.resolve()) if data else "package")[:8]
    return Path("runs") / f"{kind}-{recipe.name}-{mark}"


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu train --framework pytorch`\n\n"
    "- `paripassu train -f tensorflow --seed 7 --epochs 2 --out runs/mine`\n\n"
    "- `paripassu train -f pytorch --set optimizer.rho=0.95 --set batch_size=128`"
)
def train(
    framework: Annotated[
        str,
        typer.Option(
            "--framework",
            "-f",
            help="pytorch or tensorflow.",
            autocompletion=_framework_names,
        ),
    ],
    recipe: RecipeOption = "article",
    seed: Annotated[
        int | None, typer.Option(min=0, help="In place of the recipe's.")
    ] = None,
    epochs: EpochsOption = None,
    settings: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder. Default: runs/FRAMEWORK-RECIPE-HASH"),
    ] = None,
    data: DataOption = None,
    threads: ThreadsOption = 0,
    device: DeviceOption = Device.auto,
    as_json: JsonOption = False,
) -> None:
    """Train one framework once.

    An interrupted run goes on where it stopped when the same command is typed again,
    to the same final weights, bit for bit. A finished run is used as it is.
    """
    from paripassu import frameworks
    from paripassu.process import WorkerFailed
    from paripassu.progress import Display
    from paripassu.train import train as run

    chosen = _load_recipe(recipe, settings, seed=seed, epochs=epochs)
    frameworks.find(framework)
    folder = out or _default_folder(framework, chosen, data)
    display = Display(_console(stderr=True), runs=1, epochs=chosen.epochs)
    try:
        with display.run(framework) as on_event:
            finished = run(
                framework,
                chosen,
                out=folder,
                conditions=_conditions(data, threads, device),
                on_event=on_event,
            )
    except WorkerFailed as failure:
        _complain(f"{failure}\nType the same command again to go on.")
        raise typer.Exit(1) from None
    if as_json:
        _print_json({"folder": str(folder), **finished.model_dump()})
        return
    assert finished.result is not None
    typer.echo(
        f"test accuracy {finished.result.test_accuracy:.2%}, "
        f"test loss {finished.result.test_loss:.4f}"
    )
    typer.echo(f"run folder    {folder}")


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu evaluate runs/mine`\n\n"
    "- `paripassu evaluate runs/mine --framework tensorflow --json`"
)
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    framework: Annotated[
        str | None,
        typer.Option(
            "--framework",
            "-f",
            help="Another framework than the run's own, through the common format.",
            autocompletion=_framework_names,
        ),
    ] = None,
    data: DataOption = None,
    threads: ThreadsOption = 0,
    device: DeviceOption = Device.auto,
    as_json: JsonOption = False,
) -> None:
    """Load a trained model and measure its test loss and accuracy again."""
    from paripassu.evaluate import evaluate as measure
    from paripassu.process import WorkerFailed

    conditions = _conditions(data, threads, device)
    try:
        result = measure(run, conditions=conditions, framework=framework)
    except WorkerFailed as failure:
        _complain(str(failure))
        raise typer.Exit(1) from None
    if as_json:
        _print_json(result)
        return
    typer.echo(
        f"{result['framework']}: test accuracy {result['test_accuracy']:.2%}, "
        f"test loss {result['test_loss']:.4f}, {result['test_count']:,} images "
        f"(the run measured {result['recorded_accuracy']:.2%})"
    )


class Target(StrEnum):
    """Of a conversion."""

    pytorch = "pytorch"
    tensorflow = "tensorflow"
    safetensors = "safetensors"
    onnx = "onnx"


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu convert runs/mine --to tensorflow --out model.keras`\n\n"
    "- `paripassu convert model.keras --to pytorch --out model.pt`\n\n"
    "- `paripassu convert runs/mine --to onnx --out model.onnx --json`"
)
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_FILE",
            help="A run's folder, or a .safetensors, .pt, .keras or .onnx file.",
        ),
    ],
    target: Annotated[Target, typer.Option("--to", help="The format to write.")],
    out: Annotated[Path, typer.Option(help="The file; what is there is replaced.")],
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            help="Whose network a file holds, if it does not say so itself.",
            autocompletion=_recipe_names,
        ),
    ] = None,
    fault: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Put a known mistake into the file: it must be refused. "
            "kernel-transposed, flatten-order or rounded.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a trained network as another framework's own file, and check that file.

    Before it gets its name, the file is opened in a fresh process, as its user would
    open it, and asked 1,000 test images: its answers must be the source's, and its
    weights the same bits. Otherwise nothing is written, and the exit code is 1.
    """
    from paripassu.convert import ConversionRefused
    from paripassu.convert import convert as write
    from paripassu.process import WorkerFailed

    console = _console(stderr=True)
    with console.status("") as status:
        try:
            found = write(
                source,
                target=target.value,
                out=out,
                recipe=_load_recipe(recipe, None) if recipe else None,
                fault=fault,
                on_phase=lambda text: status.update(f"{text} …"),
            )
        except (ConversionRefused, WorkerFailed) as failure:
            _complain(str(failure))
            raise typer.Exit(1) from None
    if as_json:
        _print_json(found.as_dict())
        return
    from paripassu.summary import conversion_lines

    for line in conversion_lines(found):
        typer.echo(line)


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu predict --model runs/mine digit.png`\n\n"
    "- `paripassu predict -m runs/mine -m model.keras photos/ --json`\n\n"
    "- `paripassu predict -m runs/mine -f pytorch -f tensorflow 'photos/**/*.jpg' "
    "--show-preprocessing sheet.png`"
)
def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES",
            help="PNG, JPEG, BMP, GIF or TIFF files, folders, or patterns in quotes. "
            "Dark ink on light paper or light on dark, of any size up to 64 million "
            "pixels.",
            show_default=False,
        ),
    ],
    models: Annotated[
        list[Path],
        typer.Option(
            "--model",
            "-m",
            metavar="RUN_OR_FILE",
            help="A run's folder, or a .safetensors, .pt, .keras or .onnx file. "
            "Repeatable: side by side.",
            show_default=False,
        ),
    ],
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--framework",
            "-f",
            metavar="NAME",
            help="Which framework answers. Repeatable. Default: the model's own, or "
            "the first installed",
            show_default=False,
            autocompletion=_framework_names,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            help="Whose network a file holds, if it does not say so itself.",
            autocompletion=_recipe_names,
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--show-preprocessing",
            metavar="FILE.png",
            help="Draw the first 100 pictures there, each beside the 28 x 28 pixels "
            "that the network sees.",
            show_default=False,
        ),
    ] = None,
    threads: ThreadsOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Say what digit is on each picture.

    Each picture is converted as MNIST was made: its ink scaled into 20 x 20 pixels,
    anti-aliased, with the centre of mass in the middle of 28 x 28. A warning says when
    that does not look like a digit, or when the network is unsure. Pictures that cannot
    be read are named, the others answered, and the exit code is 1.
    """
    from paripassu import predict_view as view
    from paripassu.contact_sheet import SHOWN, check_sheet, write_sheet
    from paripassu.model_source import read_source
    from paripassu.predict import ask_which, gather
    from paripassu.predict import predict as run
    from paripassu.process import WorkerFailed

    console = _console(stderr=True)
    pictures, skipped = gather(images)
    if sheet:
        check_sheet(sheet)
    chosen = _load_recipe(recipe, None) if recipe else None
    try:
        with view.watching(console, len(pictures)) as on_progress:
            sources = [read_source(path, chosen) for path in models]
            asked = ask_which(sources, names or [])
            found = list(
                run(
                    asked,
                    pictures,
                    threads=threads,
                    keep_images=SHOWN if sheet else 0,
                    on_progress=on_progress,
                )
            )
    except WorkerFailed as failure:
        _complain(str(failure))
        raise typer.Exit(1) from None
    if as_json:
        for part in view.as_json(found, asked):
            typer.echo(part, nl=False)
    else:
        output = _console()
        for line in view.table(found, asked, [x.path for x in pictures]):
            if line.style and output.is_terminal:
                output.print(line)
            else:
                typer.echo(line.plain)
    if sheet:
        write_sheet(sheet, found, asked)
        console.print(f"pictures: {sheet}", markup=False, highlight=False)
    console.print(view.summary(found, skipped), markup=False, highlight=False)
    if any(x.problem for x in found):
        raise typer.Exit(1)


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu compare --quick`\n\n"
    "- `paripassu compare --seeds 5 --epochs 3`\n\n"
    "- `paripassu compare --frameworks pytorch,tensorflow --out runs/mine`"
)
def compare(
    names: NamesOption = "pytorch,tensorflow",
    recipe: RecipeOption = "article",
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            "-n",
            min=1,
            help="How many paired runs; the recipe's seed and those after it. "
            "Default: 10, with --quick 1",
            show_default=False,
        ),
    ] = None,
    epochs: EpochsOption = None,
    settings: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The comparison's folder. Default: runs/compare-RECIPE-HASH",
            show_default=False,
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="2 epochs, 1 seed: about 4 minutes.")
    ] = False,
    data: DataOption = None,
    threads: ThreadsOption = 0,
    device: DeviceOption = Device.auto,
    as_json: JsonOption = False,
) -> None:
    """Train a recipe in several frameworks, fairly, and write a report.

    First a short proof that the twins compute the same. Then every framework trains
    with every seed, each run in a process of its own, in the order A B B A. Stop and
    repeat it at will: finished runs are kept, and interrupted ones go on.
    """
    from paripassu.compare import compare as run
    from paripassu.summary import summary_table

    if quick:
        settings = ["epochs=2", *(settings or [])]
    chosen = _load_recipe(recipe, settings, epochs=epochs)
    count = seeds or (1 if quick else 10)
    # More seeds later shall find the runs of these: the seed is not in the name.
    folder = out or _default_folder("compare", chosen.changed(seed=0), data)
    result = run(
        _frameworks(names),
        chosen,
        seeds=range(chosen.seed, chosen.seed + count),
        out=folder,
        conditions=_conditions(data, threads, device),
        console=_console(stderr=True),
    )
    if as_json:
        _print_json(result.model_dump())
    else:
        _console().print(summary_table(result))
        typer.echo(f"report: {folder / 'report.html'}")
    failed = [
        name
        for name, x in result.frameworks.items()
        if x.status != "missing" and len(x.runs) < count
    ]
    if failed or (result.proof and not result.proof.holds):
        raise typer.Exit(1)


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu verify`\n\n"
    "- `paripassu verify --fault rho --fault-in tensorflow`\n\n"
    "- `paripassu verify --fault all`\n\n"
    "- `paripassu verify --full --out runs/proof --json proof.json`"
)
def verify(
    names: NamesOption = "pytorch,tensorflow",
    recipe: RecipeOption = "article",
    settings: SetOption = None,
    epochs: EpochsOption = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of the trajectories; at most the recipe's. Default: 60",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="float64 proves the mathematics, float32 the arithmetic. "
            "Default: both",
            show_default=False,
        ),
    ] = None,
    rungs: Annotated[
        str, typer.Option(metavar="0-7", help="Rungs to climb, for example 0-3,6.")
    ] = "0-7",
    fault: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Put a known mistake into one framework: the proof must fail. "
            "all tries every one in every framework.",
            autocompletion=_fault_names,
        ),
    ] = None,
    fault_in: Annotated[
        str | None,
        typer.Option(
            metavar="FRAMEWORK",
            help="Where to put it. Default: the last of the frameworks",
            autocompletion=_framework_names,
        ),
    ] = None,
    list_faults: Annotated[
        bool, typer.Option("--list-faults", help="List the faults, and do nothing.")
    ] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Also train the whole recipe in lockstep: for article about 100 "
            "minutes on 2 cores, resumable.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder of the trainings of --full. Default: "
            "runs/proof-RECIPE-HASH",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A comparison's folder, for rung 7: accuracy over paired seeds.",
        ),
    ] = None,
    data: DataOption = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the proof there, as JSON."),
    ] = None,
) -> None:
    """Prove that the twins are one computation, or say where they part.

    Rung by rung: the same draws, every activation, every gradient, one step of the
    optimizer, the schedule, a trajectory; in float64, then in float32 against a
    control. Exit code 0: all rungs hold; 1: they do not.
    """
    from paripassu.core.files import make_folder
    from paripassu.frameworks.faults import FAULTS, find_fault
    from paripassu.ladder_view import fault_line, proof_view, watching
    from paripassu.verify import STEPS, check_rungs
    from paripassu.verify import verify as prove

    if list_faults:
        for known in FAULTS.values():
            typer.echo(f"{known.name:22} rung {known.rung}  {known.summary}")
        return
    chosen = _load_recipe(recipe, settings, epochs=epochs)
    listed = _frameworks(names)
    conditions = _conditions(data, 1, Device.cpu)
    if json_file:
        make_folder(json_file.resolve().parent)  # before the work, not after it
    console = _console(stderr=True)
    if fault == "all":
        from paripassu.fault_check import check_faults

        results = check_faults(
            listed,
            chosen,
            conditions=conditions,
            on_result=lambda result: console.print(fault_line(result)),
        )
        if json_file:
            _write_json(json_file, [result.model_dump() for result in results])
        located = sum(result.located for result in results)
        typer.echo(f"{located} of {len(results)} faults found, each at its place")
        raise typer.Exit(0 if located == len(results) else 1)
    seeded = None
    if fault:
        where = fault_in or listed[-1]
        if where not in listed:
            raise UserError(
                f"--fault-in {where}: it is not among --frameworks {names}."
            )
        if not find_fault(fault).applies_to(chosen):
            raise UserError(
                f"--fault {fault} changes nothing of recipe {chosen.name!r}. Type: "
                "paripassu verify --list-faults"
            )
        seeded = fault, where
    with watching(console) as on_progress:
        proof = prove(
            listed,
            chosen,
            conditions=conditions,
            steps=STEPS if steps is None else steps,
            precisions=[precision.value] if precision else ["float64", "float32"],
            rungs=check_rungs(rungs),
            fault=seeded,
            pairs_of=runs,
            on_progress=on_progress,
        )
    if full and proof.holds:
        proof = _whole(proof, listed, chosen, precision, out, conditions)
    if json_file:
        _write_json(json_file, proof.model_dump())
    _console().print(proof_view(proof))
    if not proof.holds:
        raise typer.Exit(1)


def _whole(
    proof: Proof,
    names: list[str],
    recipe: Recipe,
    precision: Precision | None,
    out: Path | None,
    conditions: Conditions,
) -> Proof:
    from paripassu.ladder_view import watching_trainings
    from paripassu.lockstep import lockstep
    from paripassu.process import WorkerFailed
    from paripassu.verify import with_whole_runs

    folder = out or _default_folder("proof", recipe, conditions.data)
    console = _console(stderr=True)
    console.print(f"whole trainings in {folder}", markup=False, highlight=False)
    try:
        with watching_trainings(console) as on_progress:
            found, curves = lockstep(
                names,
                recipe,
                out=folder,
                conditions=conditions,
                precisions=[precision.value] if precision else ["float64", "float32"],
                on_progress=on_progress,
            )
    except WorkerFailed as failure:
        _complain(f"{failure}\nType the same command again to go on.")
        raise typer.Exit(1) from None
    return with_whole_runs(proof, found, curves)


def _write_json(path: Path, value: Any) -> None:
    from paripassu.core.files import write_json

    write_json(path, value)


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu ledger`\n\n"
    "- `paripassu ledger article my.toml --seeds 5 --epochs 2`\n\n"
    "- `paripassu ledger --framework tensorflow --out runs/mine`"
)
def ledger(
    start: Annotated[
        str,
        typer.Argument(
            metavar="FROM",
            help="A built-in recipe, or the path of a TOML file.",
            autocompletion=_recipe_names,
        ),
    ] = "article-pytorch-notebook",
    end: Annotated[
        str,
        typer.Argument(
            metavar="TO",
            help="Another one, of the same network.",
            autocompletion=_recipe_names,
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
            autocompletion=_framework_names,
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
            help="The ledger's folder. Default: runs/ledger-FROM-TO-HASH",
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
    from paripassu.ledger import PICTURE_FILE, default_framework
    from paripassu.ledger import ledger as run
    from paripassu.ledger_view import ledger_table

    one = _load_recipe(start, settings, epochs=epochs)
    other = _load_recipe(end, settings, epochs=epochs)
    chosen = framework or default_framework()
    # More seeds later shall find the runs of these: the seed is not in the name.
    ends = one.changed(seed=0), other.changed(seed=0)
    source = str(data.resolve()) if data else "package"
    mark = ends[0].hash(ends[1].hash(), source, chosen)[:8]
    folder = out or Path("runs") / f"ledger-{one.name}-{other.name}-{mark}"
    result = run(
        one,
        other,
        framework=chosen,
        seeds=range(one.seed, one.seed + seeds),
        out=folder,
        conditions=_conditions(data, 1, device),
        console=_console(stderr=True),
        proof=not no_proof,
    )
    if as_json:
        _print_json(result.model_dump())
    else:
        _console().print(ledger_table(result))
        typer.echo(f"picture: {folder / PICTURE_FILE}")
    if result.failures or not all(result.proofs.values()):
        raise typer.Exit(1)


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu serve --model runs/mine`\n\n"
    "- `paripassu serve --model runs/mine --model model.keras --port 8080`\n\n"
    "- `curl -H 'Content-Type: image/png' --data-binary @digit.png "
    "http://127.0.0.1:8000/predict`"
)
def serve(
    model: Annotated[
        list[Path],
        typer.Option(
            "--model",
            "-m",
            metavar="PATH",
            help="A run's folder, or a .safetensors, .pt, .keras or .onnx file. One is "
            "answered by every installed framework; of several (repeat it), each by "
            "its own.",
        ),
    ],
    host: Annotated[
        str,
        typer.Option(
            help="The address to listen on. 0.0.0.0: all of this machine, so that "
            "others can reach it."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0: any that is free.")
    ] = 8000,
    threads: Annotated[int, typer.Option(min=1, help="Of each framework.")] = 1,
) -> None:
    """Open a page to draw digits on, answered by every framework, and an HTTP API.

    The page is at /, the API's description at /docs. Ctrl-C ends it, after the
    requests that are being answered.
    """
    from paripassu.serve import check_installed

    check_installed()
    from paripassu.process import WorkerFailed
    from paripassu.serve.server import serve as run

    status = _console(stderr=True).status("starting each framework …")

    def announce(address: str, ours_alone: bool) -> None:
        status.stop()
        if not ours_alone:
            _complain(
                f"others on the network can reach it: {host} is not the loopback. It "
                "asks nobody for a password."
            )
        typer.echo(address)

    try:
        with status:
            run(
                model,
                host=host,
                port=port,
                threads=threads,
                tell=_complain,
                announce=announce,
            )
    except WorkerFailed as failure:
        _complain(str(failure))
        raise typer.Exit(1) from None


@app.command(epilog="**Example**\n\n- `paripassu report runs/mine`")
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a comparison.")],
    as_json: JsonOption = False,
) -> None:
    """Rebuild a comparison's page and JSON from its records."""
    from paripassu.compare import report as rebuild
    from paripassu.summary import summary_table

    result = rebuild(folder)
    if as_json:
        _print_json(result.model_dump())
    else:
        _console().print(summary_table(result))
        typer.echo(f"report: {folder / 'report.html'}")


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
    from paripassu.recipe_book import entries
    from paripassu.summary import recipes_table

    found = entries()
    if as_json:
        _print_json([entry.as_dict() for entry in found])
    else:
        _console().print(recipes_table(found))


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
            autocompletion=_recipe_names,
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Print a recipe as TOML: every value, with its source and published figure.

    What it prints is itself a recipe file.
    """
    from paripassu.recipe_book import show

    recipe = _load_recipe(name, None)
    if as_json or context.obj:
        _print_json(recipe.model_dump())
    else:
        typer.echo(show(recipe), nl=False)


@app.command(epilog="**Example**\n\n- `paripassu info --json`")
def info(as_json: JsonOption = False) -> None:
    """Describe this machine and which frameworks work on it."""
    from paripassu.info import info as describe
    from paripassu.summary import info_table

    with _console(stderr=True).status("trying each framework …"):
        found = describe()
    if as_json:
        _print_json(found)
    else:
        _console().print(info_table(found))


def _version(wanted: bool) -> None:
    if wanted:
        from paripassu import __version__

        typer.echo(f"paripassu {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    del version
