"""The commands that prove the twins equal, and test the proof with known mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paripassu.cli.base import (
    DataOption,
    Device,
    EpochsOption,
    JsonOption,
    NamesOption,
    Precision,
    RecipeOption,
    SetOption,
    app,
    conditions_of,
    exit_unless,
    fault_names,
    framework_list,
    framework_names,
    load_recipe,
    output_folder,
    show,
    terminal,
)
from paripassu.core.errors import UserError

faults_app = typer.Typer(rich_markup_mode="markdown")
app.add_typer(faults_app, name="faults")


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu verify`\n\n"
    "- `paripassu verify --fault rho --fault-in tensorflow`\n\n"
    "- `paripassu verify --full --out runs/proof --json > proof.json`"
)
def verify(
    names: NamesOption = None,
    recipe: RecipeOption = "article",
    settings: SetOption = None,
    epochs: EpochsOption = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Steps of the trajectories; at most the recipe's. Default: 60"
        ),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="float64 proves the mathematics, float32 the arithmetic. Default: both"
        ),
    ] = None,
    rungs: Annotated[
        str, typer.Option(metavar="0-7", help="The rungs to test, for example 0-3,6.")
    ] = "0-7",
    fault: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Seed a known mistake in one framework: the proof must fail. "
            "'paripassu faults' lists them.",
            autocompletion=fault_names,
        ),
    ] = None,
    fault_in: Annotated[
        str | None,
        typer.Option(
            metavar="FRAMEWORK",
            help="The framework that gets the mistake. Default: the last one",
            autocompletion=framework_names,
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Also train the whole recipe in lockstep: for article about 100 "
            "minutes on 2 cores. Resumable.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder for the trainings of --full. Default: "
            "runs/proof-RECIPE-HASH"
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
    as_json: JsonOption = False,
) -> None:
    """Prove that the twins compute the same, or show where they diverge.

    Rung by rung: the draws, every activation, every gradient, one optimizer step,
    the schedule, a trajectory; in float64, then in float32 against a control that is
    perturbed by one ulp. Exit code 0: all rungs hold; 1: they do not.
    """
    from paripassu.proof.lockstep import lockstep, with_whole_runs
    from paripassu.proof.verify import STEPS, parse_rungs
    from paripassu.proof.verify import verify as prove
    from paripassu.terminal.proof import proof_view, watching, watching_trainings

    if fault == "all":
        raise UserError("--fault takes one name. For all, type: paripassu faults check")
    chosen = load_recipe(recipe, settings, epochs=epochs)
    listed = framework_list(names)
    precisions = [precision.value] if precision else ["float64", "float32"]
    conditions = conditions_of(data, 1, Device.cpu)
    console = terminal(stderr=True)
    with watching(console) as on_progress:
        proof = prove(
            listed,
            chosen,
            conditions=conditions,
            steps=STEPS if steps is None else steps,
            precisions=precisions,
            rungs=parse_rungs(rungs),
            fault=fault,
            fault_in=fault_in,
            pairs_of=runs,
            on_progress=on_progress,
        )
    if full and proof.holds:
        folder = output_folder(out, "proof", chosen, data=data)
        console.print(f"whole trainings in {folder}", markup=False, highlight=False)
        with watching_trainings(console) as on_trainings:
            found, curves = lockstep(
                listed,
                chosen,
                out=folder,
                conditions=conditions,
                precisions=precisions,
                on_progress=on_trainings,
            )
        proof = with_whole_runs(proof, found, curves)
    show(proof, as_json, lambda: proof_view(proof))
    exit_unless(proof.holds)


@faults_app.callback(
    invoke_without_command=True,
    epilog="**Examples**\n\n- `paripassu faults`\n\n- `paripassu faults check`",
)
def faults(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the known mistakes that the proof must find, or test that it does."""
    context.obj = as_json
    if context.invoked_subcommand:
        return
    from paripassu.frameworks.faults import FAULTS

    listed = [
        {"name": x.name, "rung": x.rung, "summary": x.summary} for x in FAULTS.values()
    ]
    show(
        listed,
        as_json,
        lambda: "\n".join(
            f"{x['name']:22} rung {x['rung']}  {x['summary']}" for x in listed
        ),
    )


@faults_app.command(
    "check",
    epilog="**Examples**\n\n"
    "- `paripassu faults check`\n\n"
    "- `paripassu faults check --frameworks pytorch --recipe lenet5`",
)
def check_all(
    context: typer.Context,
    names: NamesOption = None,
    recipe: RecipeOption = "article",
    settings: SetOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Seed each mistake in each framework: the proof must find all of them.

    Exit code 0: each was found at its rung and place; 1: one was not.
    """
    from paripassu.proof.faults import check_faults
    from paripassu.terminal.proof import fault_line

    console = terminal(stderr=True)
    results = check_faults(
        framework_list(names),
        load_recipe(recipe, settings),
        conditions=conditions_of(data, 1, Device.cpu),
        on_result=lambda result: console.print(fault_line(result)),
    )
    located = sum(result.located for result in results)
    show(
        results,
        as_json or context.obj,
        lambda: f"{located} of {len(results)} faults found, each at its place",
    )
    exit_unless(located == len(results))
