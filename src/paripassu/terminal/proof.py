"""The proof on the terminal: a live table of rungs, and what was found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from paripassu.analysis.proof.tolerance import EPS, LADDER
from paripassu.analysis.schema import (
    Divergence,
    FaultResult,
    Proof,
    RungResult,
    WholeRun,
)
from paripassu.analysis.text import display_name
from paripassu.proof.short_proof import ProofEvent, Proved
from paripassu.proof.verify import Progress

MARKS = {
    "holds": Text("✓ holds", style="green"),
    "fails": Text("✗ fails", style="bold red"),
    "not run": Text("– not run", style="dim"),
}


def rung_table(rungs: Sequence[RungResult]) -> Table:
    """A row for each rung and precision: status, and the quantity nearest its bound."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("Rung", "In", "", "Largest difference"):
        table.add_column(heading, no_wrap=True)
    table.add_column("At", overflow="fold")
    for rung in rungs:
        table.add_row(
            f"{rung.rung} {rung.name}",
            rung.precision,
            MARKS[rung.status],
            _size(rung),
            rung.quantity or "",
        )
    return table


def _size(rung: RungResult) -> str:
    if rung.difference is None or rung.bound is None:
        return ""
    if rung.name == "one-ulp control":
        return f"{rung.difference:.2g} of the allowed"
    if rung.name == "draws":
        return "other bytes" if rung.difference else "same bytes"
    size = _relative(rung.difference)
    if rung.precision == "float32" and rung.difference < 1:
        size += f" ({rung.difference / EPS['float32']:.1f} eps)"
    return f"{size} of {rung.bound:.0e}"


def _relative(difference: float) -> str:
    return "infinite" if difference >= 1e300 else f"{difference:.1e}"


def divergence_text(found: Divergence) -> Text:
    """Where the twins part first: rung, step, layer, quantity, size, cause."""
    rung = LADDER[found.rung]
    parts = [
        f"{display_name(found.framework)} parts from the reference on rung "
        f"{found.rung}, {rung.name}, in {found.precision}:",
        "  step        " + ("–" if found.step is None else str(found.step + 1)),
        *([f"  weights     {found.start}"] if found.start else []),
        f"  layer       {found.layer or '–'}",
        f"  quantity    {found.quantity}",
        f"  difference  {_relative(found.difference)}; at most {found.bound:.0e} holds",
        f"  cause       {found.cause or 'no known mistake gives these numbers'}",
    ]
    return Text("\n".join(parts), style="red")


def whole_run_text(runs: Sequence[WholeRun]) -> Text:
    """Each pair of whole trainings in a few lines."""
    lines = []
    for run in runs:
        right = (
            "itself, perturbed by one ulp" if run.control else display_name(run.right)
        )
        lines.append(
            f"{run.precision}, {display_name(run.left)} and {right}, "
            f"{run.steps:,} steps: batch losses within {run.largest_loss_gap:.1e}, "
            f"all {run.weight_count:,} weights to {run.fewest_digits:.1f} digits "
            f"(median {run.median_digits:.1f}), {run.equal_predictions:,} of "
            f"{run.test_count:,} answers the same "
            f"({run.left_accuracy:.2%} and {run.right_accuracy:.2%} right)"
        )
    return Text("\n".join(lines))


def proof_view(proof: Proof) -> RenderableType:
    """The rungs, the first divergence, whole runs, and the verdict."""
    parts: list[RenderableType] = [rung_table(proof.rungs), Text("")]
    if proof.whose_data:
        parts.append(Text(f"Data: {proof.whose_data}."))
    if proof.message:
        parts.append(Text(proof.message, style="red"))
    if proof.divergence:
        parts.append(divergence_text(proof.divergence))
    notes = [rung.note for rung in proof.rungs if rung.note and rung.status == "fails"]
    parts += [Text(note, style="red") for note in notes]
    if proof.whole_runs:
        parts += [whole_run_text(proof.whole_runs), Text("")]
    verdict = "The proof holds." if proof.holds else "The proof does not hold."
    parts.append(Text(verdict, style="bold green" if proof.holds else "bold red"))
    return Group(*parts)


def fault_line(result: FaultResult) -> Text:
    """One seeded fault: found and located, or not."""
    found = result.divergence
    mark = "✓" if result.located else "✗"
    where = (
        f"rung {found.rung}, {found.quantity}: {found.cause or 'cause not recognised'}"
        if found
        else "not found: the proof held"
    )
    return Text(
        f"{mark} {result.fault:22} {display_name(result.framework):11} {where}",
        style="" if result.located else "red",
    )


@contextlib.contextmanager
def watching(console: Console) -> Iterator[Callable[[Progress], None]]:
    """A table that grows while the proof runs; nothing where no terminal is."""
    with _live(console) as update:
        yield lambda progress: update(
            Group(rung_table(progress.rungs), *_doing(progress.doing))
        )


@contextlib.contextmanager
def watching_short_proofs(console: Console) -> Iterator[Callable[[ProofEvent], None]]:
    """The table while a short proof is made, then a line of what came of it."""
    with contextlib.ExitStack() as table:
        update: Callable[[Progress], None] | None = None

        def on_event(event: ProofEvent) -> None:
            nonlocal update
            if isinstance(event, Proved):
                table.close()
                update = None
                _say(event, console)
                return
            update = update or table.enter_context(watching(console))
            update(event)

        yield on_event


def _say(proved: Proved, console: Console) -> None:
    proof, title = proved.proof, proved.title
    if proof.holds:
        rungs = len({rung.rung for rung in proof.rungs if rung.status == "holds"})
        words = "holds already" if proved.reused else f"holds on {rungs} rungs"
        console.print(f"{title}: {words}", markup=False, highlight=False)
        return
    made = any(rung.status != "not run" for rung in proof.rungs)
    words = "does not hold" if made else "could not be made"
    console.print(f"{title}: {words}", style="red", markup=False)
    if proof.message:
        console.print(proof.message, style="red", markup=False, highlight=False)
    if proof.divergence:
        console.print(divergence_text(proof.divergence))


@contextlib.contextmanager
def watching_trainings(
    console: Console,
) -> Iterator[Callable[[Mapping[str, str]], None]]:
    """What each training is at; a line now and then where no terminal is."""
    said: dict[str, str] = {}
    with _live(console) as update:

        def show(doing: Mapping[str, str]) -> None:
            update(Group(*_doing(doing)))
            if console.is_terminal:
                return
            for name, what in doing.items():
                if what in ("done", "failed") and said.get(name) != what:
                    said[name] = what
                    console.print(f"{name}: {what}", highlight=False)

        yield show


@contextlib.contextmanager
def _live(console: Console) -> Iterator[Callable[[Any], None]]:
    if not console.is_terminal:
        yield lambda _shown: None
        return
    with Live(console=console, transient=True, refresh_per_second=4) as live:
        yield live.update


def _doing(doing: Mapping[str, str]) -> list[Text]:
    return [
        Text(f"{name:26} {what}", style="dim") for name, what in sorted(doing.items())
    ]
