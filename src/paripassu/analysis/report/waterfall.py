"""The picture of an ablation: from one recipe to another, a bar for each difference."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from paripassu.analysis.ablation.attribution import Ablation, Effect, End, Metric
from paripassu.analysis.report import svg
from paripassu.analysis.report.figures import percent_tick, plain_tick, styles
from paripassu.analysis.report.svg import Scale
from paripassu.analysis.report.words import n, percent
from paripassu.analysis.schema import Estimate
from paripassu.analysis.text import display_name, listed_seeds, points, signed

WIDTH = 720.0
LABELS = 10.0  # where labels begin
PLOT, PLOT_END = 238.0, 538.0
VALUES = 551.0
KEY_LETTERS, DETAIL_LETTERS = 30, 36  # that fit beside the plot
MOST_DETAIL_LINES = 3
TITLE_LETTERS = 80
LINE = 15.0
BAR = 13.0
TITLES: dict[Metric, str] = {
    "test_accuracy": "Test accuracy after the last epoch",
    "test_cross_entropy": "Test loss after the last epoch, nats per image",
    "first_epoch_accuracy": "Accuracy after the first epoch",
}


@dataclass(frozen=True)
class _Row:
    """A line of a panel: an end point, or a difference with what lies before it."""

    label: str
    details: Sequence[str]  # below the label
    end: End | None = None
    effect: Effect | None = None
    before: float = 0.0  # the level that the bar starts from

    def height(self, frameworks: int) -> float:
        below = len(self.details) if self.end is None else max(1, frameworks) - 1
        return 30.0 + LINE * below


def picture(ablation: Ablation) -> str:
    """The ablation as an SVG file of its own, for light and for dark pages."""
    parts = list(_heading(ablation))
    y = 58.0
    for number, metric in enumerate(ablation.metrics):
        panel, y = _panel(ablation, metric, y + 16, detailed=number == 0)
        parts += panel
    parts += list(_key(y + 24, alone=len(ablation.complete or ablation.seeds) == 1))
    title = f"From {_name(ablation, 'FROM')} to {_name(ablation, 'TO')}"
    drawn = svg.drawing(
        "ablation", title, " ".join(_told(ablation)), y + 100, parts, width=WIDTH
    )
    return svg.standalone(drawn, WIDTH)


def _heading(ablation: Ablation) -> Iterator[str]:
    seeds = ablation.complete or ablation.seeds
    epochs = dict.fromkeys(int(x["epochs"]) for x in (ablation.start, ablation.end))
    text = f"{_name(ablation, 'FROM')} → {_name(ablation, 'TO')}"
    yield svg.text(LABELS, 22, _cut(text, TITLE_LETTERS), "title")
    yield svg.text(
        LABELS,
        43,
        f"{' and '.join(map(str, epochs))} epochs in "
        f"{display_name(ablation.framework)}; {n(len(seeds), 'seed')} "
        f"({listed_seeds(seeds)}); changes of accuracy in percentage points",
    )


def _panel(
    ablation: Ablation, metric: Metric, top: float, *, detailed: bool
) -> tuple[list[str], float]:
    """One metric: its bars, its axis, and the rest; and where it ends."""
    title = TITLES[metric]
    parts = [svg.text(LABELS, top + 12, title, "title")]
    rows = _rows(ablation, metric, detailed=detailed)
    across = _scale(ablation, metric, rows)
    if across is None:
        parts.append(
            svg.text(LABELS, top + 36, "No run of FROM or TO is finished yet.")
        )
        return parts, top + 44
    heights = [row.height(len(ablation.frameworks)) for row in rows]
    first, last = top + 24, top + 24 + sum(heights)
    ticks = across.ticks()
    digits = svg.decimals_for(ticks)
    tick = plain_tick if _is_loss(metric) else percent_tick
    for value in ticks:
        x = across(value)
        parts.append(svg.line((x, first), (x, last), "grid"))
        parts.append(svg.text(x, last + 16, tick(value, digits), "tick", "middle"))
    y = first
    for row, height in zip(rows, heights, strict=True):
        if row.end:
            parts += _end(ablation, metric, row, row.end, across, y)
        else:
            parts += _bar(metric, row, across, y, height)
        y += height
    y = last + 24
    for gap in ablation.gaps:
        if not gap.rest[metric]:
            continue
        text = (
            f"TO in {display_name(gap.end_framework)} − FROM in "
            f"{display_name(gap.start_framework)} "
            f"{_change(metric, gap.figures[metric], False)}; total "
            f"{_change(metric, ablation.total[metric], False)}; unexplained rest "
            f"{_change(metric, gap.rest[metric], True)}"
        )
        parts.append(svg.text(LABELS, y + 14, text))
        y += 20
    return parts, y


def _rows(ablation: Ablation, metric: Metric, *, detailed: bool) -> list[_Row]:
    start = ablation.level(ablation.framework, "FROM").get(metric)
    level = start.mean if start else 0.0
    rows = [_Row(f"FROM {_name(ablation, 'FROM')}", (), "FROM")]
    for difference, effects in zip(ablation.differences, ablation.effects, strict=True):
        details: list[str] = []
        if detailed:
            details = textwrap.wrap(str(difference), DETAIL_LETTERS)
            if len(details) > MOST_DETAIL_LINES:
                details = [*details[: MOST_DETAIL_LINES - 1], "…"]
        effect = effects[metric]
        rows.append(_Row(difference.name, details, None, effect, level))
        level += effect.both.mean if effect.both else 0.0
    return [*rows, _Row(f"TO {_name(ablation, 'TO')}", (), "TO")]


def _scale(ablation: Ablation, metric: Metric, rows: Sequence[_Row]) -> Scale | None:
    """An axis that holds every bar and mark; of intervals, what is not too wide."""
    own = ablation.framework
    if not (
        ablation.level(own, "FROM").get(metric) or ablation.level(own, "TO").get(metric)
    ):
        return None
    levels = [x for level in ablation.levels if (x := level.figures.get(metric))]
    marks = [x.mean for x in levels]
    reaches = [end for x in levels for end in (x.low, x.high) if end is not None]
    for row in rows:
        if row.effect is None:
            continue
        both, ways = row.effect.both, (row.effect.forward, row.effect.back)
        marks += [row.before, *(row.before + x.mean for x in (both, *ways) if x)]
        if both and both.low is not None and both.high is not None:
            reaches += [row.before + both.low, row.before + both.high]
    low, high = min(marks), max(marks)
    # Few seeds have intervals many times as wide: these would leave the bars no room.
    room = max(0.6 * (high - low), 1e-4)
    low = max(low - room, min([low, *reaches]))
    high = min(high + room, max([high, *reaches]))
    return svg.scale([low, high], PLOT, PLOT_END, least=1e-4)


def _end(
    ablation: Ablation, metric: Metric, row: _Row, end: End, across: Scale, y: float
) -> list[str]:
    """An end point: a mark and an interval for each framework, and their values."""
    parts = [svg.text(LABELS, y + 17, _cut(row.label, KEY_LETTERS), "heading")]
    known = styles(ablation.frameworks)
    own_first = sorted(ablation.frameworks, key=lambda name: name != ablation.framework)
    for number, name in enumerate(own_first):
        estimate = ablation.level(name, end).get(metric)
        style, middle = known[name], y + 13 + LINE * number
        value = "–" if estimate is None else _level(metric, estimate)
        parts.append(svg.marker(style, VALUES + 5, middle))
        parts.append(
            svg.text(VALUES + 15, middle + 4, f"{display_name(name)} {value}", "value")
        )
        if estimate is None:
            continue
        low, high = estimate.low, estimate.high
        parts += _interval(across, low, high, middle, f"span hue{style}")
        parts.append(svg.marker(style, across(estimate.mean), middle))
    return parts


def _bar(
    metric: Metric, row: _Row, across: Scale, y: float, height: float
) -> list[str]:
    """A difference: from the level before it to the one after it."""
    parts = [svg.text(LABELS, y + 17, _cut(row.label, KEY_LETTERS), "heading")]
    for number, detail in enumerate(row.details, start=1):
        parts.append(svg.text(LABELS, y + 17 + LINE * number, detail))
    effect = row.effect
    assert effect is not None
    parts.append(svg.text(VALUES, y + 17, _change(metric, effect.both, True), "value"))
    middle, start = y + 13, across(row.before)
    if effect.both:
        end = across(row.before + effect.both.mean)
        wide = end - start if abs(end - start) >= 1 else 1.0
        kind = f"bar {_kind(metric, effect.both)}"
        parts.append(svg.line((start, y - 7), (start, middle), "join"))
        parts.append(svg.line((end, middle), (end, y + height + 6), "join"))
        parts.append(svg.rectangle(start, middle - BAR / 2, wide, BAR, kind))
        low, high = effect.both.low, effect.both.high
        if low is not None and high is not None:
            low, high = row.before + low, row.before + high
            parts += _interval(across, low, high, middle, "whisker")
    for way, side in ((effect.forward, -1), (effect.back, 1)):
        if way:
            parts.append(_way(across(row.before + way.mean), middle, side))
    return parts


def _kind(metric: Metric, effect: Estimate) -> str:
    """Better or worse, and whether that is shown: the interval has no zero in it."""
    better = (effect.mean < 0) if _is_loss(metric) else (effect.mean >= 0)
    low, high = effect.low, effect.high
    unsure = low is not None and high is not None and low <= 0 <= high
    return f"{'better' if better else 'worse'}{' unsure' if unsure else ''}"


def _way(x: float, middle: float, side: int) -> str:
    """A small triangle above the bar (side -1, forward) or below it (1, back)."""
    tip = middle + side * (BAR / 2 + 0.5)
    base = tip + side * 5
    return svg.path([(x, tip), (x + 3.4, base), (x - 3.4, base), (x, tip)], "way")


def _interval(
    across: Scale, low: float | None, high: float | None, y: float, kind: str
) -> list[str]:
    """A whisker; an end outside the axis has no stroke across, but an arrow."""
    if low is None or high is None or high <= low:
        return []
    start, end = max(across(low), across.start - 4), min(across(high), across.end + 4)
    parts = [svg.line((start, y), (end, y), kind)]
    for x, value, way in ((start, low, -1), (end, high, 1)):
        if x != across(value):
            parts.append(svg.line((x - 4 * way, y - 3.5), (x, y), kind))
            parts.append(svg.line((x - 4 * way, y + 3.5), (x, y), kind))
        else:
            parts.append(svg.line((x, y - 3.5), (x, y + 3.5), kind))
    return parts


def _key(y: float, *, alone: bool) -> Iterator[str]:
    middle = y + 8
    x = LABELS
    for place, kind in enumerate(("better", "worse", "better unsure", "worse unsure")):
        left = x + 18 * place + 100 * (place > 1)
        yield svg.rectangle(left, middle - BAR / 2, 14, BAR, f"bar {kind}")
    yield svg.text(x + 38, middle + 4, "better, worse")
    text = "pale: not shown, zero is in the interval; each the mean of both ways"
    yield svg.text(x + 176, middle + 4, text)
    middle += 22
    yield _way(x + 7, middle + 9.5, -1)
    yield svg.text(x + 16, middle + 4, "forward")
    yield _way(x + 77, middle - 9.5, 1)
    yield svg.text(x + 86, middle + 4, "back")
    if alone:
        yield svg.text(x + 135, middle + 4, "one seed has no interval")
    else:
        for a, b, c, d in ((0, 0, 24, 0), (0, -3.5, 0, 3.5), (24, -3.5, 24, 3.5)):
            start, end = (x + 135 + a, middle + b), (x + 135 + c, middle + d)
            yield svg.line(start, end, "whisker")
        text = "95% interval over seeds, Student’s t; an arrow: it goes on"
        yield svg.text(x + 166, middle + 4, text)
    text = (
        "Forward: the differences above it are as in TO already, those below still as "
        "in FROM. Back: the other way round."
    )
    yield svg.text(x, middle + 26, text)


def _told(ablation: Ablation) -> Iterator[str]:
    """The picture in words."""
    for metric in ablation.metrics:
        pairs = zip(ablation.differences, ablation.effects, strict=True)
        changes = [
            f"{difference.name} ({difference}) "
            f"{_change(metric, effects[metric].both, True)}"
            for difference, effects in pairs
        ]
        total = _change(metric, ablation.total[metric], True)
        yield f"{TITLES[metric]}: {'; '.join(changes)}; total {total}."


def _name(ablation: Ablation, end: End) -> str:
    return str((ablation.start if end == "FROM" else ablation.end)["name"])


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _is_loss(metric: Metric) -> bool:
    return metric == "test_cross_entropy"


def _level(metric: Metric, estimate: Estimate) -> str:
    return f"{estimate.mean:.4f}" if _is_loss(metric) else percent(estimate.mean)


def _change(metric: Metric, estimate: Estimate | None, interval: bool) -> str:
    """Such as "+0.12 (−0.10 to +0.34)": percentage points, or nats."""
    if estimate is None:
        return "not known"
    low, high = estimate.low, estimate.high
    write = partial(signed, decimals=3) if _is_loss(metric) else points
    text = write(estimate.mean)
    if not interval or low is None or high is None:
        return text
    return f"{text} ({write(low)} to {write(high)})"
