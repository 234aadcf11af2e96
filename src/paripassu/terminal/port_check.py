"""What a check of a port found, on the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from paripassu.port_check.results import (
    PLACES_SHOWN,
    CauseGroup,
    Checked,
    Fault,
    LayerCount,
    Pairing,
    Place,
    list_some,
)

MARKS = {
    "holds": Text("✓", style="green"),
    "fails": Text("✗", style="bold red"),
    "note": Text("!", style="yellow"),
    "not run": Text("–", style="dim"),
}
STYLES = {"equal": "bold green", "differs": "bold red", "undecided": "bold yellow"}
KINDS = 12  # of layers, that are shown
SHOWN = 40  # rows of a table, of longer ones the middle is left out


@contextlib.contextmanager
def watching(console: Console) -> Iterator[Any]:
    """Show what is being done; yields the function that takes a text and a share."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("starting", total=1.0)
        yield lambda text, share: progress.update(
            task, description=text, completed=share
        )


def checked_view(found: Checked, *, full: bool = False) -> RenderableType:
    """The verdict and its causes first; then models, checks, weights, the curve."""
    parts: list[RenderableType] = [_headline(found)]
    for number, cause in enumerate(found.causes, 1):
        parts += ["", cause_view(found, cause, number, full=full)]
    if found.accepted or found.unused:
        parts += ["", *accepted_lines(found)]
    for text in found.not_compared:
        parts += ["", Text(f"Not compared: {text}", style="yellow")]
    parts += ["", _head(found), "", _checks(found)]
    if full or not found.equal:
        if differing := [x for x in found.layers if x.left != x.right]:
            parts += ["", layer_table(differing, full=full)]
        parts += ["", map_table(found.pairs, full=full)]
        if found.places:
            parts += ["", place_table(found.places, full=full)]
    for note in found.notes:
        parts += ["", Text(f"Note: {note}", style="yellow")]
    return Group(*parts, "", _coverage(found))


def _headline(found: Checked) -> Text:
    text = Text(found.headline, style=STYLES[found.verdict])
    if found.copied:
        text.append(f" (weights copied {found.copied})", style="not bold default")
    return text


def _coverage(found: Checked) -> Text:
    """What was compared, what was not asked for, and what it took."""
    text = Text(f"Compared: {'; '.join(found.compared) or 'nothing'}.", style="dim")
    if found.not_asked:
        text.append(f" Left out: {'; '.join(found.not_asked)}.")
    took = f" {found.time_told}; peak memory {found.peak_memory_mib:,.0f} MiB."
    return text.append(took)


def _head(found: Checked) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "Model", "Framework", "Blocks", "Parameters"):
        table.add_column(heading, overflow="fold")
    for name, model in (("left", found.left), ("right", found.right)):
        versions = ", ".join(f"{k} {v}" for k, v in model.versions.items())
        table.add_row(
            name,
            Text(f"{model.source} ({model.kind})"),
            versions or model.framework,
            str(model.layers),
            f"{model.parameters:,}",
        )
    return table


def _checks(found: Checked) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in found.checks:
        table.add_row(MARKS[check.state], check.name, Text(check.detail))
    return table


def layer_table(layers: Sequence[LayerCount], *, full: bool) -> Table:
    """The layers with weights of both models; where counts differ, in colour."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Layers", overflow="fold")
    table.add_column("Left", justify="right")
    table.add_column("Right", justify="right")
    # What differs comes first, of what is left out.
    order = sorted(layers, key=lambda x: x.left == x.right)
    shown = [x for x in layers if full or x in order[:KINDS]]
    for layer in shown:
        style = "" if layer.left == layer.right else "yellow"
        counts = (f"{x} x" if x else "–" for x in (layer.left, layer.right))
        table.add_row(Text(layer.title), *counts, style=style)
    if more := len(layers) - len(shown):
        table.add_row(f"and {more} more kinds", "", "", style="dim")
    return table


def map_table(pairs: Sequence[Pairing], *, full: bool) -> Table:
    """Which block of weights is taken for which."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("Left", "Right", "Kind", "Weights", "Why"):
        table.add_column(heading, overflow="fold")
    for pair in _middle_out(pairs, full):
        if pair is None:
            table.add_row("…", "…", "", "", "")
            continue
        states = [x for x in pair.weights if x.state != "equal"]
        words = ", ".join(f"{x.name} {x.state}" for x in states) or "equal"
        style = "red" if states or not (pair.left and pair.right) else ""
        table.add_row(
            Text(pair.left or "–"),
            Text(pair.right or "–"),
            pair.kind,
            Text(words if pair.weights else "no partner", style=style),
            Text(pair.doubt or pair.why, style="yellow" if pair.doubt else "dim"),
        )
    return table


def place_table(places: Sequence[Place], *, full: bool) -> Table:
    """How far the models are apart, layer by layer."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("Left", "Right"):
        table.add_column(heading, overflow="fold")
    for heading in ("Enters", "Own", "In all", "One ulp"):
        table.add_column(heading, justify="right", no_wrap=True)
    for place in _middle_out(places, full):
        if place is None:
            table.add_row("…", "…", "", "", "", "")
            continue
        table.add_row(
            Text(place.left),
            Text(place.right),
            _size(place.entering, place.entering_bound),
            _size(place.own, place.bound),
            _size(place.total, None),
            _size(place.control, None),
        )
    return table


def _middle_out(rows: Sequence[Any], full: bool) -> list[Any]:
    if full or len(rows) <= SHOWN:
        return list(rows)
    half = SHOWN // 2
    return [*rows[:half], None, *rows[-half:]]


def _size(value: float | None, bound: float | None) -> Text:
    if value is None:
        return Text("no size", style="red")
    bad = bound is not None and value > bound
    return Text(f"{value:.1e}", style="bold red" if bad else "")


def cause_view(
    found: Checked, cause: CauseGroup, number: int, *, full: bool = False
) -> RenderableType:
    """A cause, where it is seen, what was tried and what to write."""
    faults = [found.faults[x] for x in cause.faults]
    head = Text(f"{number}. {cause}", style="bold")
    places = list({(x.left, x.right): x for x in reversed(faults)}.values())[::-1]
    shown = places if full else places[:PLACES_SHOWN]
    lines = [Text(f"at {_place(x)}") for x in shown]
    if (more := len(places) - len(lines)) > 0:
        lines.append(Text(f"and at {more} more place{'s' * (more > 1)}", style="dim"))
    tried = faults[0].cause
    if tried is not None and tried.after is not None:
        before = "shapes differ" if tried.before is None else f"{tried.before:.1e}"
        text = f"tried: {before} apart before, {tried.after:.1e} after"
        lines.append(Text(text, style="dim"))
    if cause.write:
        lines.append(Text(f"write: {cause.write}", style="green"))
    return Group(head, *(Text("   ").append_text(line) for line in lines))


def accepted_lines(found: Checked) -> Iterator[Text]:
    """What was accepted, with its places; and what did not occur."""
    for cause in found.accepted_causes:
        places = list_some([f"{x} | {y}" for x, y in cause.places], shown=PLACES_SHOWN)
        yield Text(f"Accepted: {cause}, at {places}", style="yellow")
    if found.unused:
        told = found.unused_told
        yield Text(told[:1].upper() + told[1:], style="yellow")


def _place(fault: Fault) -> str:
    size = [fault.phase]
    if fault.size is not None and fault.eps is not None:
        size.append(f"{fault.size:.1e} of the largest value, {fault.eps:.3g} eps")
    if fault.jump is not None:
        size.append(f"{fault.jump:.2g} times what rounding may do here")
    return f"{' | '.join(fault.at)}  ({'; '.join(size)})"
