"""What a check of two optimizers found, on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from paripassu.port_check.optimizer_advice import shown
from paripassu.port_check.optimizer_verdict import OptimizerChecked


def optimizer_view(found: OptimizerChecked, left: str, right: str) -> RenderableType:
    """Both rules side by side, where they part, why, and what to write.

    Args:
        found: what was found.
        left, right: how the user named them.
    """
    parts: list[RenderableType] = [_rules(found, left, right)]
    if found.parted:
        parts += ["", _parted(found)]
    for line in found.write:
        parts.append(Text(f"write: {line}", style="green"))
    for note in found.notes:
        parts += ["", Text(f"Note: {note}", style="yellow")]
    parts += ["", _verdict(found)]
    return Group(*parts)


def _rules(found: OptimizerChecked, left: str, right: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", Text(left), Text(right), "Apart", "With the left's"):
        table.add_column(heading, overflow="fold")
    table.add_row("optimizer", Text(found.left.name), Text(found.right.name), "", "")
    rows = {x.key: x for x in found.differences}
    sides = [{**x.settings, **x.forms} for x in (found.left, found.right)]
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        row = rows.get(key)
        values = [_value(x.get(key)) for x in sides]
        if row:
            values = [row.left, row.right]
        style = "bold red" if row and row.cause else "yellow" if row else ""
        table.add_row(
            key.replace("_", " "),
            *(Text(x, style=style) for x in values),
            _size(row.before if row else None),
            _size(row.after if row else None),
        )
    return table


def _value(value: Any) -> str:
    return "–" if value is None else shown(value)


def _size(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _parted(found: OptimizerChecked) -> Text:
    parted = found.parted
    assert parted is not None
    text = Text("First apart: ", style="bold red")
    text.append(f"step {parted.step}, {parted.parameter}", style="bold")
    size = f", {parted.relative:.1e} of its largest step"
    if parted.rates is not None:
        size += f", {parted.rates:.1e} learning rates"
    return text.append(size, style="not bold default")


def _verdict(found: OptimizerChecked) -> Text:
    size = f"{found.steps} steps, at most {found.apart:.1e} of a largest step apart"
    if found.equal:
        return Text("Equal: the same steps", style="bold green").append(
            f". {size}", style="not bold default"
        )
    causes = ", ".join(x.replace("_", " ") for x in found.causes)
    text = Text("Not equal", style="bold red")
    text.append(f"{': ' + causes if causes else ''}. {size}", style="not bold default")
    return text
