"""A short proof in one process, for whoever changes a framework and wants it seen.

A framework takes the ladder up to rung 5 beside the reference, on few images and steps,
the cheapest stage first; the first that does not hold ends it. What the reference
computes is kept in a folder, and made anew for another recipe.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from paripassu.analysis.proof.parity import compare_traces
from paripassu.analysis.schema import ProofRow
from paripassu.core.datasets import Split, load, prepare
from paripassu.core.files import read_tensors, write_tensors
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays
from paripassu.frameworks import registry
from paripassu.frameworks.faults import HEALTHY, Fault
from paripassu.frameworks.registry import REFERENCE
from paripassu.processes.requests import ProveRequest
from paripassu.worker.rehearsal import rehearse
from paripassu.worker.traces import Tracer

IMAGES, BATCH = 190, 6
OPTIONS = {"threads": 1, "device": "cpu"}
# What each stage asks of a worker; a rehearsal is asked for by itself. The last one
# takes the starts that the one before it has written.
STAGES: dict[str, dict[str, Any]] = {
    "first": {"steps": 1, "traced": 1},
    "rehearsal": {},
    "starts": {"steps": 3, "traced": 2, "starts": True},
    "float32": {"steps": 1, "single": True, "only_single": True},
}


def prove(
    framework: str,
    recipe: Recipe,
    folder: Path,
    stages: Sequence[str] = tuple(STAGES),
    fault: Fault = HEALTHY,
) -> list[ProofRow]:
    """What does not hold, of the first stage in which something does not.

    Args:
        framework: its name.
        recipe: number type and batch size are replaced.
        folder: keeps what the reference computes.
        stages: of STAGES.
        fault: seeded, in those of them in which a twin takes steps in float64.
    """
    recipe = recipe.changed(precision="float64", batch_size=BATCH)
    text = repr([recipe.model_dump(), IMAGES, STAGES])
    own = folder / hashlib.sha256(text.encode()).hexdigest()[:12]
    if not (own / "done").exists():
        own.mkdir(parents=True, exist_ok=True)
        for stage in STAGES:
            for precision, arrays in _traces(REFERENCE.name, recipe, own, stage):
                write_tensors(own / f"{stage}-{precision}.safetensors", arrays)
        (own / "done").touch()
    for stage in stages:
        rows: list[ProofRow] = []
        for precision, arrays in _traces(framework, recipe, own, stage, fault):
            rows += compare_traces(
                REFERENCE.name,
                framework,
                read_tensors(own / f"{stage}-{precision}.safetensors")[0],
                arrays,
                precision=precision,
                network=recipe.architecture,
            )
        if wrong := [row for row in rows if not row.holds]:
            return wrong
    return []


def _traces(
    framework: str, recipe: Recipe, folder: Path, stage: str, fault: Fault = HEALTHY
) -> Iterator[tuple[str, Arrays]]:
    few = _training(recipe.normalization.mean, recipe.normalization.std)
    if stage == "rehearsal":
        found = rehearse(registry.find(framework), recipe, few, dict(OPTIONS))
        return iter([("float64", found)])
    asked = STAGES[stage]
    request = ProveRequest(framework=framework, recipe=recipe, folder=folder, **asked)
    traces = Tracer(request, few, lambda *_, **__: None).trace(fault)
    return iter(traces)


@cache
def _training(mean: Any, std: Any) -> Split:
    return prepare(load(), mean=mean, std=std).training[:IMAGES]
