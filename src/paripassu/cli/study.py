"""The command that runs a study: a grid of recipes, frameworks, seeds and settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paripassu.cli.base import (
    DataOption,
    Device,
    DeviceOption,
    EpochsOption,
    ExclusiveOption,
    JsonOption,
    OnOption,
    RetriesOption,
    StorageOption,
    TakeOption,
    ThreadsOption,
    app,
    conditions_of,
    executor_of,
    exit_unless,
    show,
    terminal,
    typed_command,
)

if TYPE_CHECKING:
    from paripassu.studies.study import Planned


@app.command(
    epilog="**Examples**\n\n"
    "- `paripassu study studies/book.toml --dry-run`\n\n"
    "- `paripassu study studies/book.toml --epochs 1 --out runs/book`\n\n"
    "- `paripassu study mine.toml --on ray://10.0.0.1:10001`"
)
def study(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="STUDY",
            help="A TOML file: recipes, frameworks, seeds, set, grid, timed.",
        ),
    ],
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what would be run, and how long it would take."
        ),
    ] = False,
    epochs: EpochsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The output folder. Default: runs/study-NAME"),
    ] = None,
    data: DataOption = None,
    threads: ThreadsOption = 0,
    device: DeviceOption = Device.auto,
    on: OnOption = None,
    storage: StorageOption = None,
    exclusive: ExclusiveOption = False,
    take: TakeOption = None,
    retries: RetriesOption = 3,
    as_json: JsonOption = False,
) -> None:
    """Run a grid of recipes, frameworks, seeds and settings; report it as one.

    Each run has one thread, and as many go on at once as there are cores; a study
    whose times matter (timed = true) runs one after the other, with --threads.
    Resumable: repeat the command and finished runs are reused. Leaves study.json,
    report.html and study.svg.
    """
    from paripassu.studies import plan_file
    from paripassu.studies.study import PAGE_FILE, prepare
    from paripassu.studies.study import study as run
    from paripassu.terminal.study import plan_table, study_table, watching_study

    plan = plan_file.read(file, epochs=epochs, command=typed_command())
    folder = out or (storage or Path("runs")) / f"study-{plan.name}"
    conditions = conditions_of(data, threads, device)
    executor = executor_of(on, storage, exclusive, take, retries, device)
    if dry_run:
        planned = prepare(plan, out=folder, conditions=conditions, executor=executor)
        show(_as_json(planned), as_json, lambda: plan_table(planned))
        return
    with watching_study(terminal(stderr=True)) as on_event:
        result = run(
            plan,
            out=folder,
            conditions=conditions,
            executor=executor,
            on_event=on_event,
        )
    show(result, as_json, lambda: study_table(result))
    if not as_json:
        typer.echo(f"report: {folder / PAGE_FILE}")
    exit_unless(result.done == result.planned)


def _as_json(planned: Planned) -> dict[str, Any]:
    plan, forecast = planned.plan, planned.forecast
    return {
        "kind": "study plan",
        "name": plan.name,
        "runs": planned.done + len(forecast.seconds),
        "finished": planned.done,
        "at_once": planned.places,
        "seconds": forecast.lasts(planned.places),
        "seconds_one_after_the_other": forecast.total,
        "guessed": len(forecast.seconds) - forecast.known,
        "absent": list(plan.absent),
        "left": [
            {
                "recipe": plan.variants[number].recipe.name,
                "settings": list(plan.variants[number].settings),
                "framework": framework,
                "seed": seed,
                "seconds": seconds,
            }
            for (number, framework, seed), seconds in forecast.seconds.items()
        ],
    }
