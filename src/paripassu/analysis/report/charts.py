"""The kinds of chart in the report, drawn with `svg`; numbers in, SVG out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from paripassu.analysis.report import svg
from paripassu.analysis.report.svg import WIDTH, Point, Scale

EDGE = 1.0
INDENT = 16.0  # of text and bars after the mark of their series
LETTER = 7.2  # about the width of one, in the size of labels
MOST_SEED_ROWS = 24  # more paired differences than that stand in one swarm

Format = Callable[[float], str]
TickFormat = Callable[[float, int], str]  # a value, the decimals that tell ticks apart
Interval = tuple[float, float]


@dataclass(frozen=True)
class Text:
    """What a chart is called, and what it shows, in words."""

    name: str  # unique on the page
    title: str
    description: str
    axis: str = ""


@dataclass(frozen=True)
class Curve:
    """Lines of one framework: a thin one for each run, and their mean."""

    style: int
    runs: Sequence[Sequence[Point]]
    mean: Sequence[Point]


@dataclass(frozen=True)
class DotRow:
    """Measured values of one framework, their middle and perhaps an interval."""

    style: int
    label: str
    note: str
    values: Sequence[float]
    middle: float
    interval: Interval | None = None


@dataclass(frozen=True)
class Bar:
    """One bar from zero; its parts lie end to end and fade from part to part."""

    style: int
    label: str  # shown where the group has no heading
    parts: Sequence[float]
    interval: Interval | None = None
    note: str = ""


@dataclass(frozen=True)
class BarGroup:
    """Bars under one heading."""

    heading: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Differences:
    """Paired differences (left - right) by seed, and what was made of them."""

    left: str
    right: str
    by_seed: Sequence[tuple[int, float]]
    mean: float
    intervals: dict[str, Interval]  # by label: "95%", "90%"
    margin: float | None


def line_chart(text: Text, curves: Sequence[Curve], tick: TickFormat) -> Markup:
    """Values by epoch: thin lines for runs, a bold one with marks for their mean."""
    top, bottom = 12.0, 196.0
    points = [p for c in curves for run in (*c.runs, c.mean) for p in run]
    up = svg.scale([y for _, y in points], bottom, top, least=1e-4)
    labels = _labels(up, tick)
    left = EDGE + 9 + LETTER * max(map(len, labels))
    last = max((x for x, _ in points), default=1.0)
    across = Scale(1.0, last, left + 10, WIDTH - EDGE - 5)
    if last <= 1:
        across = Scale(0.0, 2.0, left, WIDTH - EDGE)
    parts = []
    for level, label in zip(up.ticks(), labels, strict=True):
        parts.append(svg.line((left, up(level)), (WIDTH - EDGE, up(level)), "grid"))
        parts.append(svg.text(left - 6, up(level) + 4, label, "tick", "end"))
    for epoch in _whole_ticks(int(last)):
        parts.append(svg.text(across(epoch), bottom + 18, str(epoch), "tick", "middle"))
    middle = (left + WIDTH - EDGE) / 2
    parts.append(svg.text(middle, bottom + 35, text.axis, "caption", "middle"))
    for curve in curves:
        for run in curve.runs if len(curve.runs) > 1 else ():
            line = [(across(x), up(y)) for x, y in run]
            parts.append(svg.path(line, f"thin hue{curve.style}"))
    for curve in curves:
        mean = [(across(x), up(y)) for x, y in curve.mean]
        parts.append(svg.path(mean, f"bold hue{curve.style}"))
        every = 1 + len(mean) // 25
        parts += [svg.marker(curve.style, x, y) for x, y in mean[::every]]
    return svg.drawing(text.name, text.title, text.description, bottom + 40, parts)


def dot_plot(text: Text, rows: Sequence[DotRow], tick: TickFormat) -> Markup:
    """One strip a framework: every value as a mark, below it middle and interval."""
    row_height, top = 76.0, 2.0
    bottom = top + row_height * len(rows) + 2
    everything = [
        value
        for row in rows
        for value in (*row.values, row.middle, *(row.interval or ()))
    ]
    across = svg.scale(everything, EDGE + 10, WIDTH - EDGE - 10, least=1e-4)
    parts = svg.x_axis(across, top + 20, bottom, _labels(across, tick), text.axis)
    for index, row in enumerate(rows):
        y = top + row_height * index
        parts += _row_heading(row.style, row.label, row.note, y + 14)
        xs = [across(value) for value in row.values]
        for x, offset in zip(xs, svg.swarm(xs, 3.2, 12), strict=True):
            parts.append(svg.marker(row.style, x, y + 38 + offset, 3.2, "dot"))
        if row.interval:
            parts.append(_span(across, y + 62, row.interval, f"span hue{row.style}"))
        x = across(row.middle)
        parts.append(svg.line((x, y + 55), (x, y + 69), "middle"))
    return svg.drawing(text.name, text.title, text.description, bottom + 36, parts)


def difference_plot(text: Text, shown: Differences, tick: TickFormat) -> Markup:
    """Paired differences by seed against zero and the margin, and their mean."""
    by_seed = sorted(shown.by_seed)
    in_rows = len(by_seed) <= MOST_SEED_ROWS
    row_height = min(20.0, max(13.0, 240.0 / max(1, len(by_seed))))
    top = 24.0
    middle = top + (row_height * len(by_seed) if in_rows else 60.0) + 6
    bottom = middle + 20.0 * len(shown.intervals)
    margin = shown.margin or 0.0
    reach = [value for _, value in by_seed] + [shown.mean, margin, 1e-4]
    reach += [end for interval in shown.intervals.values() for end in interval]
    # As far to the left of zero as to the right, so that neither side looks favoured.
    most = 1.08 * max(map(abs, reach))
    across = Scale(-most, most, 64.0, WIDTH - EDGE)
    zero = across(0)
    parts = []
    if margin:
        wide = across(margin) - across(-margin)
        height = bottom - top + 4
        parts.append(svg.rectangle(across(-margin), top - 4, wide, height, "band"))
    parts += svg.x_axis(across, top - 4, bottom, _labels(across, tick), text.axis)
    parts.append(svg.line((zero, top - 4), (zero, bottom), "zero"))
    parts.append(svg.text(zero - 10, 12, f"← {shown.right} ahead", "tick", "end"))
    parts.append(svg.text(zero + 10, 12, f"{shown.left} ahead →", "tick"))
    if in_rows:
        for index, (seed, value) in enumerate(by_seed):
            y = top + row_height * (index + 0.5)
            parts.append(svg.text(54, y + 4, f"seed {seed}", "tick", "end"))
            parts.append(svg.line((zero, y), (across(value), y), "stem"))
            parts.append(svg.circle(across(value), y, 3.2, "plain"))
    else:
        xs = [across(value) for _, value in by_seed]
        for x, offset in zip(xs, svg.swarm(xs, 3, 24), strict=True):
            parts.append(svg.circle(x, top + 30 + offset, 3, "plain"))
    x = across(shown.mean)
    for index, (label, interval) in enumerate(shown.intervals.items()):
        y = middle + 20.0 * index + 8
        parts.append(svg.text(54, y + 4, label, "heading", "end"))
        parts.append(_span(across, y, interval, "span"))
        parts.append(svg.line((x, y - 6), (x, y + 6), "middle"))
    return svg.drawing(text.name, text.title, text.description, bottom + 36, parts)


def bar_chart(text: Text, groups: Sequence[BarGroup], unit: Format) -> Markup:
    """Bars from zero in groups, each with its value; whiskers from low to high."""
    bars = [bar for group in groups for bar in group.bars]
    longest = max((len(unit(sum(bar.parts))) for bar in bars), default=0)
    most = max((max(sum(b.parts), *(b.interval or (0,))) for b in bars), default=0.0)
    end = WIDTH - EDGE - LETTER * longest - 8
    across = Scale(0.0, max(most, 1e-9), EDGE + INDENT, end)
    parts: list[str] = []
    y = 2.0
    for group in groups:
        if group.heading:
            parts.append(svg.text(EDGE, y + 13, group.heading, "heading"))
            y += 19
        for bar in group.bars:
            if not group.heading:
                parts += _row_heading(bar.style, bar.label, "", y + 13)
                y += 19
            else:
                parts.append(svg.marker(bar.style, EDGE + 5, y + 7, 4))
            parts += _bar(across, y, bar, unit)
            y += 20
            if bar.note:
                parts.append(svg.text(EDGE + INDENT, y + 11, bar.note, "tick"))
                y += 18
        y += 10
    return svg.drawing(text.name, text.title, text.description, y, parts)


def _bar(across: Scale, y: float, bar: Bar, unit: Format) -> list[str]:
    parts = []
    start = 0.0
    for index, part in enumerate(bar.parts):
        wide = max(across(part) - across(0), 0.4)
        kind = f"bar hue{bar.style} part{index}"
        parts.append(svg.rectangle(across(start), y, wide, 14, kind))
        start += part
    end = start
    if bar.interval and bar.interval[1] > bar.interval[0]:
        parts.append(_span(across, y + 7, bar.interval, "whisker"))
        end = max(end, bar.interval[1])
    label = unit(sum(bar.parts))
    parts.append(svg.text(across(end) + 7, y + 11.5, label, "value"))
    return parts


def _row_heading(style: int, label: str, note: str, y: float) -> list[str]:
    return [
        svg.marker(style, EDGE + 5, y - 4, 4),
        svg.text(EDGE + INDENT, y, label, "heading"),
        svg.text(WIDTH - EDGE, y, note, "value", "end"),
    ]


def _span(across: Scale, y: float, interval: Interval, kind: str) -> str:
    low, high = across(interval[0]), across(interval[1])
    ends = [svg.line((x, y - 4), (x, y + 4), kind) for x in (low, high)]
    return svg.line((low, y), (high, y), kind) + "".join(ends)


def _labels(along: Scale, tick: TickFormat) -> list[str]:
    values = along.ticks()
    digits = svg.decimals_for(values)
    return [tick(value, digits) for value in values]


def _whole_ticks(last: int) -> list[int]:
    steps = (factor * 10**power for power in range(9) for factor in (1, 2, 5))
    step = next(step for step in steps if last <= 10 * step)
    return [1, *(number for number in range(step, last + 1, step) if number > 1)]
