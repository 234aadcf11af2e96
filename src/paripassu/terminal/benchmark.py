"""A benchmark on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from paripassu.analysis.benchmark import EPOCH, Bench, Race
from paripassu.analysis.report.words import percent, seconds
from paripassu.analysis.schema import Spread
from paripassu.analysis.text import counted, display_name, mebibytes
from paripassu.analysis.warnings import BUSY


class _Columns:
    """A table with a column for each framework."""

    def __init__(self, found: Bench | Race) -> None:
        self._names = found.frameworks
        self.table = Table(box=None, pad_edge=False, header_style="bold")
        self.table.add_column("", no_wrap=True)
        for name in self._names:
            self.table.add_column(display_name(name), justify="right")
        self.row("version", lambda x: found.versions[x])
        self.row("device", found.device)

    def row(self, label: str, cell: Callable[[str], str]) -> None:
        """One row; `cell` is called with each framework."""
        self.table.add_row(label, *map(cell, self._names))


def bench_table(bench: Bench) -> RenderableType:
    """Medians with their range, a column for each framework, and what to make of it."""
    columns = _Columns(bench)
    row = columns.row
    beside = bool(bench.of(bench.frameworks[0], "notebook"))
    if beside:
        row(
            "notebook's style, one epoch",
            lambda x: _seconds(bench.epoch_seconds(x, "notebook")),
        )
    row("lesson, one epoch", lambda x: _seconds(bench.epoch_seconds(x, "lesson")))
    if beside:
        row("lesson / notebook's style", lambda x: _ratio(bench.beside_notebook(x)))
    row(
        "images per second",
        lambda x: f"{bench.images_per_second(x, 'lesson').median:,.0f}",
    )
    row("of the ceiling", lambda x: _share(bench.of_ceiling(x, "lesson"), 0))
    row("  its own matrix product", lambda x: _share(bench.own_product(x), 0))
    row("  its kernels alone", lambda x: _share(bench.of_ceiling(x, "kernels"), 0))
    row("  lesson, of its kernels", lambda x: _share(bench.of_kernels(x), 0))
    row("overhead of a recorded run", lambda x: _share(bench.harness(x), 1))
    row("start to first step", lambda x: _seconds(bench.first_step(x)))
    row("peak memory", lambda x: _mib(bench.memory(x, "lesson")))
    if beside:
        row(
            "of the notebook's style",
            lambda x: _mib(bench.memory(x, "notebook")),
        )
    lines = [
        f"{bench.recipe}, {bench.precision}, {counted(bench.threads, 'thread')}; "
        f"{bench.images:,} images in each of {counted(len(bench.rounds), 'round')}; "
        f"median (least to greatest), seconds for {EPOCH:,} images.",
        *([f"Data: {bench.whose_data}."] if bench.whose_data else []),
        f"Ceiling: {bench.ceiling / 1e9:,.0f} GFLOP/s, a product of two matrices of "
        f"{bench.matrix:,} x {bench.matrix:,}; training takes "
        f"{bench.training_flops / 1e6:.1f} MFLOP an image. Kernels: the framework's "
        "own convolutions and matrix products of this network, nothing in between.",
    ]
    lines += [
        f"{display_name(turn.framework)}'s {turn.style} took {times:.1f} times its "
        f"median in round {number}: this affects the range, hardly the median."
        for turn, number, times in bench.outliers()
    ]
    return _shown(columns, lines, busy=bench.busy)


def race_table(race: Race) -> RenderableType:
    """Seconds to an accuracy, a column for each framework."""
    columns = _Columns(race)
    row = columns.row
    count = len(race.rounds)

    def rows(label: str, style: str) -> None:
        row(f"{label}, training", lambda x: _seconds(race.seconds(x, style)))
        row(
            "  test accuracy, mean",
            lambda x: percent(race.mean_accuracy(x, style), 2),
        )
        row(
            f"  reached {percent(race.target, 2)}",
            lambda x: f"{race.reached(x, style)} of {count}",
        )

    rows(race.recipe, "recipe")
    rows("notebook's style", "notebook")
    row("times faster", lambda x: _in_words(race.times_faster(x), "{:.0f}".format))
    text = (
        f"{counted(race.threads, 'thread')}, {counted(count, 'round')}; median (least "
        "to greatest) of the seconds of training. The notebook's style stops after the "
        f"epoch that reaches the accuracy, or after {race.most_epochs}: then it "
        "would have taken even longer."
    )
    return _shown(columns, [text], busy=race.busy)


def _shown(columns: _Columns, lines: Sequence[str], *, busy: bool) -> RenderableType:
    shown: list[RenderableType] = [Text(""), columns.table, Text("")]
    shown += map(Text, lines)
    if busy:
        text = (
            f"warning: other programs used more than {BUSY:.0%} of the machine: do not "
            "rely on these times"
        )
        shown.append(Text(text, style="yellow"))
    return Group(*shown)


def _seconds(spread: Spread) -> str:
    return _in_words(spread, seconds)


def _ratio(spread: Spread) -> str:
    return _in_words(spread, "{:.2f}".format)


def _share(spread: Spread, digits: int) -> str:
    return _in_words(spread, lambda x: percent(x, digits))


def _in_words(spread: Spread, said: Callable[[float], str]) -> str:
    middle = said(spread.median)
    if spread.n == 1:
        return middle
    return f"{middle} ({said(spread.low)} to {said(spread.high)})"


def _mib(spread: Spread) -> str:
    return mebibytes(spread.median)
