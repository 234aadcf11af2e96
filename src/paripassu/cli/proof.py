"""The command that proves the twins equal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paripassu.cli.base import (
    DataOption,
    Device,
    EpochsOption,
    NamesOption,
    Precision,
    RecipeOption,
    SetOption,
    app,
    conditions_of,
    default_folder,
    fault_names,
    framework_list,
    framework_names,
    load_recipe,
    terminal,
)
from paripassu.core import files

if TYPE_CHECKING:
    from paripassu.analysis.schema import Proof
    from paripassu.core.recipe import Recipe
    from paripassu.processes.conditions import Conditions


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
            autocompletion=fault_names,
        ),
    ] = None,
    fault_in: Annotated[
        str | None,
        typer.Option(
            metavar="FRAMEWORK",
            help="Where to put it. Default: the last of the frameworks",
            autocompletion=framework_names,
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
    from paripassu.frameworks.faults import FAULTS
    from paripassu.proof.verify import STEPS, parse_rungs
    from paripassu.proof.verify import verify as prove
    from paripassu.terminal.proof import fault_line, proof_view, watching

    if list_faults:
        for known in FAULTS.values():
            typer.echo(f"{known.name:22} rung {known.rung}  {known.summary}")
        return
    chosen = load_recipe(recipe, settings, epochs=epochs)
    listed = framework_list(names)
    conditions = conditions_of(data, 1, Device.cpu)
    if json_file:
        make_folder(json_file.resolve().parent)  # before the work, not after it
    console = terminal(stderr=True)
    if fault == "all":
        from paripassu.proof.faults import check_faults

        results = check_faults(
            listed,
            chosen,
            conditions=conditions,
            on_result=lambda result: console.print(fault_line(result)),
        )
        if json_file:
            files.write_json(json_file, [result.model_dump() for result in results])
        located = sum(result.located for result in results)
        typer.echo(f"{located} of {len(results)} faults found, each at its place")
        raise typer.Exit(0 if located == len(results) else 1)
    with watching(console) as on_progress:
        proof = prove(
            listed,
            chosen,
            conditions=conditions,
            steps=STEPS if steps is None else steps,
            precisions=[precision.value] if precision else ["float64", "float32"],
            rungs=parse_rungs(rungs),
            fault=fault,
            fault_in=fault_in,
            pairs_of=runs,
            on_progress=on_progress,
        )
    if full and proof.holds:
        proof = _whole(proof, listed, chosen, precision, out, conditions)
    if json_file:
        files.write_json(json_file, proof.model_dump())
    terminal().print(proof_view(proof))
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
    from paripassu.proof.lockstep import lockstep, with_whole_runs
    from paripassu.terminal.proof import watching_trainings

    folder = out or default_folder("proof", recipe, conditions.data)
    console = terminal(stderr=True)
    console.print(f"whole trainings in {folder}", markup=False, highlight=False)
    with watching_trainings(console) as on_progress:
        found, curves = lockstep(
            names,
            recipe,
            out=folder,
            conditions=conditions,
            precisions=[precision.value] if precision else ["float64", "float32"],
            on_progress=on_progress,
        )
    return with_whole_runs(proof, found, curves)
