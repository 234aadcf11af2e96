"""Predictions for people and programs: table, JSON and progress."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from paripassu.analysis.text import counted, printable, probability
from paripassu.prediction.predict import Asked, Prediction

WIDEST_NAME = 60  # characters of a column of names; longer ones push their row


def _row(found: Prediction, models: int) -> list[str]:
    name = printable(found.path)
    if found.problem:
        return [name, *[""] * (_columns(models) - 2), f"not read: {found.problem}"]
    warning = "; ".join(found.warnings.values())
    if found.probabilities is None:
        return [name, "–", *[""] * (_columns(models) - 3), warning]
    triples = zip(found.probabilities, found.answers, found.runners_up, strict=True)
    cells = []
    for shares, answer, second in triples:
        cells += [
            str(answer),
            probability(float(shares[answer])),
            f"{second} {probability(float(shares[second]))}",
        ]
    if models == 1:
        return [name, *cells, warning]
    joined = [
        " ".join(cells[i : i + 2]) + f", {cells[i + 2]}"
        for i in range(0, len(cells), 3)
    ]
    gap = f"{found.largest_difference:.1e}{' ≠' if found.differ else ''}"
    return [name, *joined, gap, warning]


def _columns(models: int) -> int:
    return 5 if models == 1 else models + 3


def table(
    predictions: Iterable[Prediction], asked: Sequence[Asked], names: Iterable[str]
) -> Iterator[Text]:
    """A line for the heads and one for each prediction, as they come.

    Args:
        predictions: any number; none is kept.
        asked: the models, in the order of the probabilities.
        names: of all pictures, so that the first column is wide enough.
    """
    models = len(asked)
    if models == 1:
        heads = ["file", "answer", "probability", "runner-up", "warning"]
        widths = [0, 6, 11, 9, 0]
    else:
        heads = ["file", *[x.label for x in asked], "difference", "warning"]
        cell = len("0 >99.99%, 0 99.99%")
        widths = [0, *[max(cell, cell_len(x.label)) for x in asked], 10, 0]
    longest = max((cell_len(printable(x)) for x in names), default=0)
    widths[0] = max(4, min(WIDEST_NAME, longest))

    def line(cells: Sequence[str]) -> str:
        padded = [
            x + " " * (width - cell_len(x))
            for x, width in zip(cells, widths, strict=True)
        ]
        return "  ".join(padded).rstrip()

    yield Text(line(heads), style="bold")
    for found in predictions:
        style = "red" if found.problem else "yellow" if found.warnings else ""
        if found.differ and not found.problem:
            style = "bold yellow"
        yield Text(line(_row(found, models)), style=style)


def summary(predictions: Sequence[Prediction], skipped: int) -> str:
    """What became of all pictures, in a line or two."""
    read = [x for x in predictions if not x.problem]
    answered = [x for x in read if x.probabilities is not None]
    parts = [f"{len(answered):,} of {counted(len(predictions), 'picture')} answered"]
    if count := len(read) - len(answered):
        parts.append(f"{count:,} without ink")
    if count := len(predictions) - len(read):
        parts.append(f"{count:,} not read")
    if count := sum(bool(x.warnings) for x in answered):
        parts.append(f"{count:,} with a warning")
    if skipped:
        parts.append(f"{counted(skipped, 'other file')} left out")
    text = ", ".join(parts)
    gaps = [x for x in answered if x.largest_difference is not None]
    if gaps:
        worst = max(gaps, key=lambda x: x.largest_difference or 0.0)
        text += (
            f"\nanswers differ on {sum(x.differ for x in gaps):,} of "
            f"{counted(len(gaps), 'picture')}; largest difference of a probability "
            f"{worst.largest_difference:.1e}, on {printable(worst.path)}"
        )
    return text


def as_json(predictions: Iterable[Prediction], asked: Sequence[Asked]) -> Iterator[str]:
    """The text of one JSON object, piece by piece, so that it is never held whole.

    `models` says what was asked, `pictures` has an object for each picture in order:
    `file`; `problem`, why it could not be read, or null; `answers`, empty where there
    is none, else for each model `answer`, `probability`, `runner_up`,
    `runner_up_probability` and `probabilities` by class; `largest_difference` of any
    probability between two models, or null; `differ`; and `warnings`, each with its
    `measure` and `text`.
    """
    models = [
        {
            "model": str(x.source.path),
            "label": x.label,
            "framework": x.framework,
            "recipe": x.source.recipe.name,
            "network": x.source.recipe.network,
        }
        for x in asked
    ]
    yield f'{{\n"models": {json.dumps(models)},\n"pictures": ['
    comma = ""
    for found in predictions:
        yield f"{comma}\n{json.dumps(_as_dict(found), allow_nan=False)}"
        comma = ","
    yield "\n]\n}\n"


def _as_dict(found: Prediction) -> dict[str, Any]:
    answers = []
    if found.probabilities is not None:
        triples = zip(found.probabilities, found.answers, found.runners_up, strict=True)
        for row, answer, second in triples:
            # 9 digits are all that float32 has.
            shares = [float(f"{share:.9g}") for share in row.tolist()]
            answers.append(
                {
                    "answer": answer,
                    "probability": shares[answer],
                    "runner_up": second,
                    "runner_up_probability": shares[second],
                    "probabilities": shares,
                }
            )
    return {
        "file": found.path,
        "problem": found.problem,
        "answers": answers,
        "largest_difference": found.largest_difference,
        "differ": found.differ,
        "warnings": [{"measure": k, "text": v} for k, v in found.warnings.items()],
    }


@contextlib.contextmanager
def watching(console: Console, total: int) -> Iterator[Callable[[str, int], None]]:
    """Show a bar while the block lasts, on a terminal; elsewhere nothing.

    Yields the function that takes what is being done and how many are done.
    """
    if not console.is_terminal:
        yield lambda _what, _done: None
        return
    progress = Progress(
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with progress:
        task = progress.add_task("reading the model", total=total)
        yield lambda what, done: progress.update(task, description=what, completed=done)
