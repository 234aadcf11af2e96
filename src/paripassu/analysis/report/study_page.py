"""The report of a study: one page with a table, and a picture of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from paripassu.analysis.report import svg
from paripassu.analysis.report.figures import percent_tick
from paripassu.analysis.report.templates import style, templates
from paripassu.analysis.report.words import percent, seconds
from paripassu.analysis.schema import Estimate
from paripassu.analysis.study.results import Cell, Study
from paripassu.analysis.text import counted, display_name

WIDTH = 720.0
PLOT, PLOT_END = 300.0, 570.0
VALUES = 584.0
LETTERS = 40  # of a title that fit beside the plot
HEADING, LINE = 22.0, 18.0


@dataclass(frozen=True)
class Row:
    """A cell in words."""

    title: str
    framework: str
    runs: str
    accuracy: str
    published: str
    loss: str
    seconds: str


def title_of(cell: Cell) -> str:
    """The recipe's name and its settings."""
    return ", ".join((cell.recipe, *cell.settings))


def rows(study: Study) -> list[Row]:
    """The table of a study, for page and terminal."""
    return [
        Row(
            title=title_of(cell),
            framework=display_name(cell.framework),
            runs=f"{len(cell.seeds)} of {cell.planned}",
            accuracy=_interval(cell.accuracy),
            published="–"
            if cell.published_accuracy is None
            else percent(cell.published_accuracy),
            loss="–" if cell.loss is None else f"{cell.loss.mean:.4f}",
            seconds="–"
            if cell.epoch_seconds is None
            else seconds(cell.epoch_seconds.median),
        )
        for cell in study.cells
    ]


def reading(study: Study) -> str:
    """How to read the figures, with n."""
    text = (
        f"{counted(study.done, 'run')} of {study.planned:,}. Test accuracy after the "
        "last epoch: the mean over seeds and its 95% interval (Student's t; of a "
        "single run Wilson's, over test images)."
    )
    if study.timed:
        text += f" Times: medians over epochs, on {study.timed_on}."
    return text


def page(study: Study) -> str:
    """The report as one HTML file, which loads nothing."""
    return (
        templates()
        .get_template("study.html")
        .render(
            study=study,
            css=style(),
            picture=_drawing(study),
            rows=rows(study),
            reading=reading(study),
        )
    )


def picture(study: Study) -> str:
    """The accuracies as an SVG file of its own, for light and for dark pages."""
    return svg.standalone(_drawing(study), WIDTH)


def _drawing(study: Study) -> Markup:
    parts = list(_parts(study))
    groups = _groups(study)
    height = 60 + sum(HEADING + LINE * len(cells) for _, cells in groups)
    told = "; ".join(f"{x.title} in {x.framework}: {x.accuracy}" for x in rows(study))
    title = f"Test accuracy, {study.name}"
    return svg.drawing("study", title, told, height + 20, parts, width=WIDTH)


def _groups(study: Study) -> list[tuple[str, list[Cell]]]:
    found: dict[str, list[Cell]] = {}
    for cell in study.cells:
        found.setdefault(title_of(cell), []).append(cell)
    return list(found.items())


def _parts(study: Study) -> Iterator[str]:
    title = f"{study.name}: test accuracy after the last epoch"
    yield svg.text(10, 22, _cut(title, 90), "title")
    known = [x for cell in study.cells for x in _reach(cell)]
    if not known:
        yield svg.text(10, 46, "No run is finished yet.")
        return
    across = svg.scale(known, PLOT, PLOT_END, least=1e-4)
    groups = _groups(study)
    bottom = 40 + sum(HEADING + LINE * len(cells) for _, cells in groups)
    ticks = across.ticks()
    digits = svg.decimals_for(ticks)
    for value in ticks:
        x = across(value)
        yield svg.line((x, 36), (x, bottom), "grid")
        yield svg.text(x, bottom + 16, percent_tick(value, digits), "tick", "middle")
    styles = {x.framework: n for n, x in enumerate(_first_of_each(study.cells))}
    y = 40.0
    for name, cells in groups:
        yield svg.text(10, y + 14, _cut(name, LETTERS), "heading")
        if (published := cells[0].published_accuracy) is not None:
            x = across(published)
            end = y + HEADING + LINE * len(cells)
            yield svg.line((x, y + 4), (x, end), "join")
        y += HEADING
        for cell in cells:
            yield from _cell(cell, styles[cell.framework], across, y)
            y += LINE
    if any(x.published_accuracy is not None for x in study.cells):
        yield svg.text(10, bottom + 34, "Dashed: as the recipe’s source states it.")


def _cell(cell: Cell, style: int, across: svg.Scale, y: float) -> Iterator[str]:
    middle = y + 6
    yield svg.marker(style, 24, middle)
    yield svg.text(36, middle + 4, display_name(cell.framework))
    estimate = cell.accuracy
    if estimate is None:
        yield svg.text(VALUES, middle + 4, "no run is finished", "value")
        return
    if estimate.low is not None and estimate.high is not None:
        ends = (across(estimate.low), middle), (across(estimate.high), middle)
        yield svg.line(*ends, f"span hue{style}")
    yield svg.marker(style, across(estimate.mean), middle)
    text = f"{percent(estimate.mean)}, n = {estimate.n}"
    yield svg.text(VALUES, middle + 4, text, "value")


def _first_of_each(cells: Sequence[Cell]) -> list[Cell]:
    return list({x.framework: x for x in reversed(cells)}.values())[::-1]


def _reach(cell: Cell) -> list[float]:
    estimate = cell.accuracy
    ends = [] if estimate is None else [estimate.low, estimate.mean, estimate.high]
    return [x for x in (*ends, cell.published_accuracy) if x is not None]


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return percent(estimate.mean)
    low, high = 100 * estimate.low, 100 * estimate.high
    return f"{percent(estimate.mean)} ({low:.2f} to {high:.2f})"


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"
