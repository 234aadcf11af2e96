"""An ablation on the terminal: its runs while they go on, and its table."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from paripassu.ablation.ablate import AblationEvent
from paripassu.analysis.ablation.attribution import (
    Ablation,
    Effect,
    End,
    Figures,
    Metric,
)
from paripassu.analysis.schema import Estimate
from paripassu.analysis.statistics import excludes_zero
from paripassu.analysis.text import counted, display_name, listed_seeds, points, signed
from paripassu.terminal.board import watching_runs
from paripassu.terminal.proof import watching_short_proofs
from paripassu.training.events import RunFinished, RunTold, Scheduled, Warned

HEADINGS: dict[Metric, str] = {
    "test_accuracy": "test accuracy",
    "test_cross_entropy": "test loss",
    "first_epoch_accuracy": "epoch 1",
}
NO_MARK = " "  # where others have a mark


@contextlib.contextmanager
def watching_ablation(console: Console) -> Iterator[Callable[[AblationEvent], None]]:
    """Warnings, the proofs, and the runs, as `ablate` tells them."""
    with watching_short_proofs(console) as on_proof, watching_runs(console) as on_runs:

        def on_event(event: AblationEvent) -> None:
            match event:
                case Warned() | Scheduled() | RunTold() | RunFinished():
                    on_runs(event)
                case _:
                    on_proof(event)

        yield on_event


def ablation_table(ablation: Ablation) -> RenderableType:
    """A row for each difference between those of the ends, and what it all means."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", overflow="fold", min_width=20)
    for metric in ablation.metrics:
        table.add_column(HEADINGS[metric], justify="right", no_wrap=True)
        if metric == "test_accuracy":
            table.add_column("forward", justify="right", no_wrap=True)
            table.add_column("back", justify="right", no_wrap=True)
    _add_end(table, ablation, "FROM")
    for difference, effects in zip(ablation.differences, ablation.effects, strict=True):
        label = Text(f"{difference.name}\n").append(f"  {difference}", "dim")
        table.add_row(label, *_effect_cells(ablation, effects))
    _add_end(table, ablation, "TO")
    table.add_row("")
    own = display_name(ablation.framework)
    table.add_row("total, TO − FROM", *_cells(ablation, ablation.total))
    for effect in ablation.framework_effects:
        other = display_name(effect.framework)
        label_text = f"{effect.end} in {other} − in {own}"
        table.add_row(label_text, *_cells(ablation, effect.figures))
    for gap in ablation.gaps:
        table.add_row(
            f"gap, TO in {display_name(gap.end_framework)} − FROM in "
            f"{display_name(gap.start_framework)}",
            *_cells(ablation, gap.figures),
        )
        table.add_row("unexplained rest, gap − total", *_cells(ablation, gap.rest))
    heading = Text(f"FROM {ablation.start['name']} TO {ablation.end['name']}, in {own}")
    parts: list[RenderableType] = [Text(""), heading, Text(""), table, Text("")]
    parts.append(Text(_method(ablation)))
    if ablation.whose_data:
        parts.append(Text(f"Data: {ablation.whose_data}."))
    for end, holds in ablation.proofs.items():
        if not holds:
            text = f"The proof that the twins are equal does not hold on {end}."
            parts.append(Text(text, "red"))
    parts += [Text(f"note: {text}", "yellow") for text in ablation.notes]
    parts += [Text(f"failed: {text}", "red") for text in ablation.failures.values()]
    return Group(*parts)


def _add_end(table: Table, ablation: Ablation, end: End) -> None:
    for framework in ablation.frameworks:
        figures = ablation.level(framework, end)
        cells = []
        for metric in ablation.metrics:
            estimate = figures[metric]
            if metric == "test_accuracy":
                cells += [_level(metric, estimate, interval=True) + NO_MARK, "", ""]
            else:
                cells.append(_level(metric, estimate, interval=False) + NO_MARK)
        table.add_row(Text(f"{end} in {display_name(framework)}", "bold"), *cells)


def _effect_cells(ablation: Ablation, effects: Mapping[Metric, Effect]) -> list[str]:
    cells = []
    for metric in ablation.metrics:
        effect = effects[metric]
        whole = metric == "test_accuracy"
        cells.append(_change(metric, effect.both, interval=whole))
        if whole:
            cells.append(_mean(metric, effect.forward))
            mark = "†" if effect.order and excludes_zero(effect.order) else NO_MARK
            cells.append(_mean(metric, effect.back) + mark)
    return cells


def _cells(ablation: Ablation, figures: Figures) -> list[str]:
    cells = []
    for metric in ablation.metrics:
        whole = metric == "test_accuracy"
        cells.append(_change(metric, figures[metric], interval=whole))
        cells += ["", ""] if whole else []
    return cells


def _change(metric: Metric, estimate: Estimate | None, *, interval: bool) -> str:
    if estimate is None:
        return "–" + NO_MARK
    text = _mean(metric, estimate)
    if interval and estimate.low is not None and estimate.high is not None:
        text += f" ({points(estimate.low)} to {points(estimate.high)})"
    return text + ("*" if excludes_zero(estimate) else NO_MARK)


def _mean(metric: Metric, estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    if metric == "test_cross_entropy":
        return signed(estimate.mean, 4)
    return points(estimate.mean)


def _level(metric: Metric, estimate: Estimate | None, *, interval: bool) -> str:
    if estimate is None:
        return "–"
    if metric == "test_cross_entropy":
        return f"{estimate.mean:.4f}"
    text = f"{estimate.mean:.2%}"
    if interval and estimate.low is not None and estimate.high is not None:
        text += f" ({100 * estimate.low:.2f} to {100 * estimate.high:.2f})"
    return text


def _method(ablation: Ablation) -> str:
    """How to read the table, and over how many seeds."""
    used = ablation.complete or ablation.seeds
    lines = [
        f"n = {counted(len(used), 'seed')} ({listed_seeds(used)}). An effect is the "
        "mean of two: forward, with the differences above it as in TO and those below "
        "as in FROM, and back, the other way round. The effects add up to the total. "
        "Accuracy in percentage points, loss in nats per test image, epoch 1: accuracy "
        "after the first epoch."
    ]
    if len(used) > 1:
        lines.append(
            "In brackets: 95% interval over paired seeds, Student's t. * the interval "
            "excludes 0. † the interval of forward − back excludes 0: the difference "
            "interacts with others."
        )
    else:
        lines.append("One seed has no interval: other seeds may give other results.")
    return "\n".join(lines)
