"""The picture of a benchmark: how near each style comes to the machine's ceiling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup

from paripassu.analysis.benchmark import BENCH_FILE, EPOCH, Bench, Style
from paripassu.analysis.reading import checked
from paripassu.analysis.report import svg
from paripassu.analysis.report.figures import Figure, styles
from paripassu.analysis.report.svg import Scale
from paripassu.analysis.report.words import percent, seconds
from paripassu.analysis.text import counted, display_name
from paripassu.core.errors import UserError

WIDTH = 720.0
LEFT, PLOT, PLOT_END = 10.0, 195.0, 575.0
ROW, BAR = 26.0, 14.0
TITLE = "Training beside the machine's ceiling"
TITLES: dict[Style, str] = {
    "kernels": "kernels alone",
    "notebook": "notebook's style",
    "lesson": "lesson",
}


def figure(folder: Path) -> tuple[Figure | None, list[str]]:
    """The benchmark in a comparison's folder, if there is one, and what is wrong."""
    path = folder / BENCH_FILE
    if not path.exists():
        return None, []
    try:
        bench = checked(Bench, path)
    except UserError as error:
        return None, [str(error)]
    if not bench.rounds:
        return None, []
    caption = (
        f"{bench.command}; {bench.created}; {bench.processor}. Kernels alone: the "
        "network's own convolutions and matrix products, with nothing between them."
    )
    return Figure(TITLE, _drawing(bench), caption), []


def picture(bench: Bench) -> str:
    """The share of a matrix product's speed that training reaches, as an SVG file."""
    return svg.standalone(_drawing(bench), WIDTH)


def _drawing(bench: Bench) -> Markup:
    parts = list(_heading(bench))
    shown: list[tuple[str, Style]] = [
        (name, style)
        for name in bench.frameworks
        for style in TITLES
        if bench.of(name, style)
    ]
    most = max([1.0, *(bench.of_ceiling(*key).high for key in shown)])
    across = Scale(0.0, most * 1.02, PLOT, PLOT_END)
    top = 62.0
    bottom = top + ROW * len(shown)
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = across(tick)
        parts.append(svg.line((x, top), (x, bottom), "grid"))
        parts.append(svg.text(x, bottom + 16, percent(tick, 0), "tick", "middle"))
    for number, (name, style) in enumerate(shown):
        y = top + ROW * number + ROW / 2
        parts += _bar(bench, name, style, across, y)
    x = across(1.0)
    parts.append(svg.line((x, top - 4), (x, bottom), "whisker"))
    parts.append(
        svg.text(
            PLOT,
            bottom + 34,
            "of the operations per second of a matrix product; whiskers: all rounds",
        )
    )
    text = f"seconds: for an epoch of {EPOCH:,} images, medians"
    parts.append(svg.text(PLOT, bottom + 51, text))
    told = ". ".join(_sentence(bench, *key) for key in shown)
    return svg.drawing("bench", TITLE, told, bottom + 57, parts, width=WIDTH)


def _heading(bench: Bench) -> Iterator[str]:
    yield svg.text(LEFT, 22, TITLE, "title")
    yield svg.text(
        LEFT,
        43,
        f"{bench.recipe}, {bench.precision}, {counted(bench.threads, 'thread')}, "
        f"{bench.images:,} images in each of {counted(len(bench.rounds), 'round')}; "
        f"ceiling {bench.ceiling / 1e9:,.0f} GFLOP/s"
        + ("; the machine was busy: no verdict" if bench.busy else ""),
    )


def _bar(
    bench: Bench, name: str, style: Style, across: Scale, y: float
) -> Iterator[str]:
    share = bench.of_ceiling(name, style)
    hue = f"hue{styles(bench.frameworks)[name]}"
    label = f"{display_name(name)}, {TITLES[style]}"
    yield svg.text(PLOT - 8, y + 4, label, "value", "end")
    width = across(share.median) - PLOT
    yield svg.rectangle(PLOT, y - BAR / 2, width, BAR, f"bar {hue}")
    yield svg.line((across(share.low), y), (across(share.high), y), "whisker")
    taken = seconds(bench.epoch_seconds(name, style).median)
    text = f"{percent(share.median, 0)}, {taken}"
    yield svg.text(PLOT_END + 12, y + 4, text, "value")


def _sentence(bench: Bench, name: str, style: Style) -> str:
    share = bench.of_ceiling(name, style)
    return (
        f"{display_name(name)}, {TITLES[style]}: {percent(share.median, 0)} of the "
        f"ceiling, {percent(share.low, 0)} to {percent(share.high, 0)}"
    )
