"""The short proof that goes before trainings: made once, kept, and used again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from paripassu.analysis import comparison
from paripassu.analysis.schema import Proof
from paripassu.core import files
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe
from paripassu.frameworks import registry
from paripassu.frameworks.registry import FRAMEWORKS
from paripassu.processes.conditions import Conditions
from paripassu.proof.verify import Progress, verify


@dataclass(frozen=True)
class Proved:
    """A short proof has been made, or found where it was kept."""

    title: str  # what it is called
    proof: Proof
    reused: bool


STEPS = 20
ProofEvent = Progress | Proved


def prove_once(
    path: Path,
    names: Sequence[str],
    recipe: Recipe,
    *,
    conditions: Conditions,
    title: str = "proof",
    on_event: Callable[[ProofEvent], None] = lambda _event: None,
) -> Proof:
    """The proof on few steps, once for these frameworks at these versions.

    Args:
        path: where the proof is kept; one that holds for the same is used as it is.
        names: frameworks that are installed.
        recipe: the experiment.
        conditions: data.
        title: what it is called.
        on_event: called while it is made, and once with what came of it.

    Raises:
        UserError: data or recipe are not usable, or `path` cannot be written.
    """
    versions = {name: str(registry.find(name).version) for name in names}
    if earlier := _earlier(path, versions, recipe):
        on_event(Proved(title, earlier, reused=True))
        return earlier
    proof = verify(
        names, recipe, conditions=conditions, steps=STEPS, on_progress=on_event
    )
    files.write_text(path, proof.model_dump_json(indent=1) + "\n")
    on_event(Proved(title, proof, reused=False))
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
