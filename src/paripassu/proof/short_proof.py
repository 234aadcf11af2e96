"""The short proof that goes before trainings: made once, kept, and used again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from paripassu.analysis import comparison
from paripassu.analysis.schema import Proof
from paripassu.core import files
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe
from paripassu.frameworks import registry
from paripassu.frameworks.registry import FRAMEWORKS
from paripassu.processes.conditions import Conditions
from paripassu.proof.verify import short_proof
from paripassu.terminal.proof import divergence_text, watching


def prove_once(
    path: Path,
    names: Sequence[str],
    recipe: Recipe,
    *,
    conditions: Conditions,
    console: Console,
    title: str = "proof",
) -> Proof:
    """The proof on few steps, once for these frameworks at these versions.

    Args:
        path: where the proof is kept; one that holds for the same is used as it is.
        names: frameworks that are installed.
        recipe: the experiment.
        conditions: data.
        console: where it is said how the proof goes.
        title: what it is called there.

    Raises:
        UserError: data or recipe are not usable, or `path` cannot be written.
    """
    versions = {name: str(registry.find(name).version) for name in names}
    if earlier := _earlier(path, versions, recipe):
        console.print(f"{title}: holds already", markup=False, highlight=False)
        return earlier
    with watching(console) as on_progress:
        proof = short_proof(
            names, recipe, conditions=conditions, on_progress=on_progress
        )
    files.write_text(path, proof.model_dump_json(indent=1) + "\n")
    _say(proof, title, console)
    return proof


def _earlier(path: Path, versions: dict[str, str], recipe: Recipe) -> Proof | None:
    """The proof that is there, if it holds for the same recipe and versions."""
    try:
        earlier = comparison.load_proof(path) if path.exists() else None
    except UserError:
        return None  # damaged: it is made anew
    if earlier is None or not earlier.holds:
        return None
    proven = {n: v for n, v in earlier.versions.items() if n in FRAMEWORKS}
    same = proven == versions and earlier.recipe == recipe.model_dump()
    return earlier if same else None


def _say(proof: Proof, title: str, console: Console) -> None:
    if proof.holds:
        rungs = len({rung.rung for rung in proof.rungs if rung.status == "holds"})
        console.print(f"{title}: holds on {rungs} rungs", markup=False, highlight=False)
        return
    made = any(rung.status != "not run" for rung in proof.rungs)
    words = "does not hold" if made else "could not be made"
    console.print(f"{title}: {words}", style="red", markup=False)
    if proof.message:
        console.print(proof.message, style="red", markup=False, highlight=False)
    if proof.divergence:
        console.print(divergence_text(proof.divergence))
