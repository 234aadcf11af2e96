"""What a check of a port found, on the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from paripassu.port_check.results import Cause, Checked, Fault, Pairing, Place

MARKS = {
    "holds": Text("✓", style="green"),
    "fails": Text("✗", style="bold red"),
    "note": Text("!", style="yellow"),
    "not run": Text("–", style="dim"),
}
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
    """The verdict, the checks, the map of weights, the curve, and the faults."""
    parts: list[RenderableType] = [_head(found), "", _checks(found)]
    if full or not found.equal:
        parts += ["", map_table(found.pairs, full=full)]
        if found.places:
            parts += ["", place_table(found.places, full=full)]
    for number, fault in enumerate(found.faults):
        parts += ["", fault_view(fault, first=number == 0)]
    for note in found.notes:
        parts += ["", Text(f"Note: {note}", style="yellow")]
    parts += ["", _verdict(found)]
    return Group(*parts)


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


def fault_view(fault: Fault, *, first: bool) -> RenderableType:
    """A place where the models part, and why."""
    head = Text("First apart: " if first else "Also apart: ", style="bold red")
    head.append(f"{fault.left}  |  {fault.right}", style="bold")
    size = []
    if fault.size is not None and fault.eps is not None:
        size.append(f"{fault.size:.2e} of the largest value, {fault.eps:.3g} eps")
    if fault.jump is not None:
        size.append(
            f"{fault.jump:.2g} times what rounding may do here: a jump, not growth"
        )
    lines: list[Text] = [
        Text(f"{fault.phase}; {'; '.join(size)}" if size else fault.phase, style="dim")
    ]
    if fault.cause is None:
        lines.append(
            Text("No cause was found: compare the code of the two, and their settings.")
        )
    else:
        lines += _cause(fault.cause)
    return Group(head, *(Text("  ").append_text(line) for line in lines))


def _cause(cause: Cause) -> Iterator[Text]:
    text = Text()
    text.append(f"{cause.key}: ", style="bold")
    text.append(cause.sentence)
    yield text
    if cause.after is not None:
        before = "shapes differ" if cause.before is None else f"{cause.before:.1e}"
        yield Text(f"tried: apart by {before} before, by {cause.after:.1e} after")
    if cause.write:
        yield Text(f"write: {cause.write}", style="green")


def _verdict(found: Checked) -> Text:
    took = f"{found.seconds:.0f} s, peak memory {found.peak_memory_mib:,.0f} MiB"
    if found.equal:
        copied = f" (weights copied {found.copied})" if found.copied else ""
        text = Text("Equal: the two models compute the same", style="bold green")
        return text.append(f"{copied}. {took}", style="not bold default")
    text = Text("Not equal", style="bold red")
    return text.append(f". {took}", style="not bold default")
