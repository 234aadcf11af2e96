"""A short proof in one process, for whoever changes a framework and wants it seen.

A framework takes the ladder up to rung 5 beside the reference, on few images and steps:
first one step, and where that holds, all else. The reference's traces are kept in a
folder, and made anew for another recipe.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from paripassu.analysis.proof.parity import compare_traces
from paripassu.analysis.schema import ProofRow
from paripassu.core.datasets import Split, load, prepare
from paripassu.core.files import read_tensors, write_tensors
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays
from paripassu.frameworks.faults import HEALTHY
from paripassu.frameworks.registry import REFERENCE
from paripassu.processes.requests import ProveRequest
from paripassu.worker.traces import Tracer

IMAGES, BATCH = 190, 6
FIRST = {"steps": 1, "traced": 1}
REST = {"steps": 3, "traced": 2, "beyond": True, "single": True}


def prove(framework: str, recipe: Recipe, folder: Path) -> list[ProofRow]:
    """What does not hold."""
    recipe = recipe.changed(precision="float64", batch_size=BATCH)
    for asked in (FIRST, REST):
        wrong = _prove(framework, recipe, folder, asked)
        if wrong:
            return wrong
    return []


def _prove(
    framework: str, recipe: Recipe, folder: Path, asked: dict[str, Any]
) -> list[ProofRow]:
    text = repr([recipe.model_dump(), IMAGES, asked])
    own = folder / hashlib.sha256(text.encode()).hexdigest()[:12]
    done = own / "done"
    if not done.exists():
        own.mkdir(parents=True, exist_ok=True)
        for precision, arrays in _traces(REFERENCE.name, recipe, own, asked):
            write_tensors(own / f"{precision}.safetensors", arrays)
        done.touch()
    rows: list[ProofRow] = []
    for precision, arrays in _traces(framework, recipe, own, asked):
        rows += compare_traces(
            REFERENCE.name,
            framework,
            read_tensors(own / f"{precision}.safetensors")[0],
            arrays,
            precision=precision,
            network=recipe.architecture,
        )
    return [row for row in rows if not row.holds]


def _traces(
    framework: str, recipe: Recipe, folder: Path, asked: dict[str, Any]
) -> Iterator[tuple[str, Arrays]]:
    request = ProveRequest(framework=framework, recipe=recipe, folder=folder, **asked)
    few = _training(recipe.normalization.mean, recipe.normalization.std)
    return Tracer(request, few, lambda *_, **__: None).trace(HEALTHY)


@cache
def _training(mean: Any, std: Any) -> Split:
    return prepare(load(), mean=mean, std=std).training[:IMAGES]
