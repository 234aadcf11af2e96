"""The short proof: given the same weights, images and masks, the same numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from paripassu.analysis.parity import compare_traces
from paripassu.analysis.schema import Proof, ProofRow
from paripassu.core.files import read_tensors
from paripassu.core.recipe import Recipe
from paripassu.process import WorkerFailed, work
from paripassu.train import Conditions

STEPS = 3


def short_proof(
    names: Sequence[str], recipe: Recipe, *, conditions: Conditions
) -> Proof:
    """Take the twins through a few training steps in float64 and compare everything.

    Each framework works in its own process, on the CPU, with the recipe's own batches
    and dropout masks. Compared are the logits without dropout and, step by step, every
    activation, the loss, every gradient and the updated weights.

    Args:
        names: frameworks, at least two.
        recipe: the experiment; its precision is replaced by float64.
        conditions: data and threads; the device is always the CPU.

    Returns:
        What was found. A framework that crashes fails the proof.
    """
    exact = recipe.changed(precision="float64")
    with tempfile.TemporaryDirectory(prefix="paripassu-") as folder:
        traces = {}
        for name in names:
            out = Path(folder) / f"{name}.safetensors"
            request = conditions.request(
                "trace",
                name,
                recipe=exact.model_dump(),
                device="cpu",
                steps=STEPS,
                out=str(out),
            )
            try:
                work(request, lambda _event: None, threads=conditions.thread_count)
            except WorkerFailed as failure:
                return Proof(
                    precision="float64", holds=False, rows=[], message=str(failure)
                )
            traces[name], _metadata = read_tensors(out)
    rows: list[ProofRow] = []
    for left, right in pairwise(names):
        rows += compare_traces(left, right, traces[left], traces[right])
    return Proof(
        precision="float64",
        holds=bool(rows) and all(row.holds for row in rows),
        rows=rows,
        message=None,
    )
