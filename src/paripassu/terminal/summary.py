"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from paripassu.analysis.schema import Comparison, Estimate, FrameworkSummary, Spread
from paripassu.analysis.text import display_name, mebibytes
from paripassu.conversion.convert import Conversion
from paripassu.core.recipe_book import Entry

TOGETHER = "all seeds together"


def summary_table(result: Comparison) -> RenderableType:
    """Key figures with a column for each framework, the verdict and the warnings."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for name in result.frameworks:
        table.add_column(display_name(name), justify="right")
    for label, cell in _ROWS.items():
        cells = [cell(x) for x in result.frameworks.values()]
        if label != TOGETHER or any(x != "–" for x in cells):
            table.add_row(label, *cells)
    lines: list[RenderableType] = [Text(""), table, Text("")]
    if result.dataset:
        lines.append(Text(f"Data: {result.dataset.sentence}."))
    if result.proof:
        lines.append(_proof_line(result))
    lines += [Text(pair.sentence) for pair in result.pairs]
    lines += [Text(f"warning: {text}", style="yellow") for text in result.warnings]
    return Group(*lines)


def _proof_line(result: Comparison) -> Text:
    proof = result.proof
    assert proof is not None
    if proof.message:
        text = "The proof could not be made: a framework crashed."
        return Text(text, style="red")
    if not proof.holds:
        return Text("The proof does not hold: see the report.", style="red")
    rungs = len({rung.rung for rung in proof.rungs if rung.status == "holds"})
    worst = max(row.difference for row in proof.rows if row.precision == "float64")
    return Text(
        f"The proof holds on {rungs} rungs: same draws, activations, gradients, "
        "optimizer steps, learning\nrates and losses; in float64 within "
        f"{worst:.0e}, in float32 within the one-ulp control."
    )


def _accuracy(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    interval = (
        f" ({estimate.low:.2%} to {estimate.high:.2%})"
        if estimate.low is not None and estimate.high is not None
        else ""
    )
    return f"{estimate.mean:.2%}{interval}"


def _seconds(spread: Spread | None) -> str:
    return "–" if spread is None else f"{spread.median:.1f} s"


def _milliseconds(spread: Spread | None) -> str:
    return "–" if spread is None else f"{spread.median * 1000:.2f} ms"


def _memory(count: int | None) -> str:
    return "–" if count is None else mebibytes(count)


_ROWS: dict[str, Any] = {
    "version": lambda x: x.version or "–",
    "runs finished": lambda x: str(len(x.runs)) if x.status != "missing" else "missing",
    "test accuracy (95%)": lambda x: _accuracy(x.test_accuracy),
    TOGETHER: lambda x: _accuracy(x.ensemble_accuracy),
    "training, one epoch": lambda x: _seconds(x.epoch_seconds),
    "start-up": lambda x: _seconds(x.start_up_seconds),
    "warm-up and compilation": lambda x: _seconds(x.warm_up_seconds),
    "peak memory of the process": lambda x: _memory(x.peak_memory_bytes),
    "one image": lambda x: _milliseconds(_single(x)),
}


def _single(summary: FrameworkSummary) -> Spread | None:
    return summary.inference.single_seconds if summary.inference else None


def info_table(found: dict[str, Any]) -> RenderableType:
    """Machine and frameworks, two columns."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("paripassu", f"{found['paripassu']}, Python {found['python']}")
    table.add_row("system", escape(found["platform"]))
    table.add_row(
        "processor",
        escape(f"{found['processor']}, {found['cores']} usable cores"),
    )
    table.add_row("memory", f"{found['memory_bytes'] / 2**30:.1f} GiB")
    table.add_row("load", f"{found['load_average']:.2f} (mean of the last minute)")
    for entry in found["frameworks"].values():
        if entry["usable"]:
            versions = ", ".join(f"{k} {v}" for k, v in entry["versions"].items())
            settings = ", ".join(f"{k}: {v}" for k, v in entry["settings"].items())
            text = (
                f"[green]works[/] {escape(versions)}; on {escape(entry['device'])}, "
                f"{entry['threads']} threads\n[dim]{escape(settings)}[/]"
            )
        else:
            text = f"[red]not usable[/] {escape(entry['problem'])}"
        if not entry["by_default"]:
            text += "\n[dim]taken where it is named[/]"
        table.add_row(entry["title"], text)
    return table


def recipes_table(entries: Sequence[Entry]) -> RenderableType:
    """A line of figures for each recipe, and its description below."""
    heads = ("name", "network", "optimizer", "epochs", "parameters", "published")
    rows = [
        (
            entry.name,
            entry.network,
            entry.optimizer,
            str(entry.epochs),
            f"{entry.parameters:,}",
            "–"
            if entry.published_accuracy is None
            else f"{entry.published_accuracy:.2%}",
        )
        for entry in entries
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    words = 3  # the first columns stand left, numbers right

    def line(row: Sequence[str]) -> str:
        cells = zip(row, widths, strict=True)
        return " ".join(
            cell.ljust(width) if index < words else cell.rjust(width)
            for index, (cell, width) in enumerate(cells)
        )

    lines = [Text(line(heads), style="bold")]
    for entry, row in zip(entries, rows, strict=True):
        lines += [Text(line(row)), Text(f"  {entry.description}", style="dim")]
    return Group(*lines)


def conversion_lines(found: Conversion) -> list[str]:
    """What a conversion has written, and how far that is from its source."""
    rows = {
        "wrote": f"{found.out} ({found.file_bytes:,} bytes)",
        "network": found.network,
        "weights": "the same bits, read back from it",
        "largest difference": f"{found.largest_probability_difference:.1e} of a "
        f"probability; at most {found.bound:g} holds",
        "same answers": f"{found.same_answers:,} of {found.images:,} test images "
        f"(the source asked in {display_name(found.compared_with)})",
    }
    return [f"{label:20}{text}" for label, text in rows.items()]
