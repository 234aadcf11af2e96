"""A study on the terminal: its plan, its runs while they go on, and its table."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from paripassu.analysis.report.study_page import reading, rows
from paripassu.analysis.study.results import Study
from paripassu.analysis.text import counted, display_name, listed_seeds
from paripassu.studies.study import Planned, StudyEvent
from paripassu.terminal.board import watching_runs
from paripassu.terminal.progress import duration


@contextlib.contextmanager
def watching_study(console: Console) -> Iterator[Callable[[StudyEvent], None]]:
    """Warnings, the plan, and the runs, as `study` tells them."""
    with watching_runs(console) as on_runs:

        def on_event(event: StudyEvent) -> None:
            if isinstance(event, Planned):
                console.print(outlook(event), highlight=False, markup=False)
            else:
                on_runs(event)

        yield on_event


def outlook(planned: Planned) -> str:
    """How much is to be done, and how long it will take, in a line or two."""
    forecast = planned.forecast
    left = len(forecast.seconds)
    total = planned.done + left
    text = f"{planned.plan.name}: {counted(total, 'run')}, {planned.done:,} finished"
    if not left:
        return f"{text}."
    lasts = duration(forecast.lasts(planned.places))
    text += (
        f". The rest will take about {lasts}, {planned.places:,} at a time "
        f"({duration(forecast.total)} one after the other)"
    )
    if guessed := left - forecast.known:
        text += (
            f"; {counted(guessed, 'run')} of it guessed from the number of "
            "operations, until a run in that framework is finished"
        )
    return f"{text}."


def plan_table(planned: Planned) -> RenderableType:
    """A row for each recipe with its settings, and what is still to be done."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("recipe", "epochs", "frameworks", "seeds"):
        table.add_column(heading, overflow="fold")
    table.add_column("runs left", justify="right")
    table.add_column("one takes", justify="right")
    plan, seconds = planned.plan, planned.forecast.seconds
    for number, variant in enumerate(plan.variants):
        left = [x for key, x in seconds.items() if key[0] == number]
        table.add_row(
            Text(variant.title),
            str(variant.recipe.epochs),
            ", ".join(map(display_name, plan.frameworks[number])) or "none",
            listed_seeds(variant.seeds),
            str(len(left)),
            duration(sum(left) / len(left)) if left else "–",
        )
    notes = [Text(text, "yellow") for text in plan.absent]
    return Group(table, Text(""), Text(outlook(planned)), *notes)


def study_table(study: Study) -> RenderableType:
    """A row for each cell, the verdicts, and what is missing."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("recipe", "framework"):
        table.add_column(heading, overflow="fold")
    headings = ["runs", "test accuracy", "published", "test loss"]
    for heading in [*headings, *(["an epoch"] if study.timed else [])]:
        table.add_column(heading, justify="right", no_wrap=True)
    last = ""
    for row in rows(study):
        cells = [row.runs, row.accuracy, row.published, row.loss]
        cells += [row.seconds] if study.timed else []
        title = row.title if row.title != last else ""
        table.add_row(Text(title), row.framework, *cells)
        last = row.title
    parts: list[RenderableType] = [Text(study.name, "bold"), Text(""), table, Text("")]
    parts.append(Text(reading(study)))
    parts += [
        Text(f"{', '.join((x.recipe, *x.settings))}: {x.sentence}")
        for x in study.matches
    ]
    parts += [Text(f"note: {text}", "yellow") for text in study.notes]
    parts += [Text(f"failed: {text}", "red") for text in study.failures.values()]
    return Group(*parts)
