"""Puts every seeded fault into every framework: the proof must find each, and where."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paripassu.analysis.proof.causes import likely_cause
from paripassu.analysis.proof.parity import compare_traces, first_divergence
from paripassu.analysis.schema import FaultResult
from paripassu.core.experiment import read_data
from paripassu.core.files import read_tensors
from paripassu.core.recipe import Recipe
from paripassu.frameworks.faults import FAULTS, find_fault
from paripassu.frameworks.registry import REFERENCE
from paripassu.processes.conditions import Conditions
from paripassu.processes.pool import EVIDENCE, TRACED, hear

BATCH_SIZE = 7  # small, for speed, and with a short last batch of 60,000 images


def check_faults(
    names: Sequence[str],
    recipe: Recipe,
    *,
    conditions: Conditions,
    faults: Sequence[str] = tuple(FAULTS),
    on_result: Callable[[FaultResult], None] = lambda _result: None,
) -> list[FaultResult]:
    """Try each fault in each framework, in float64, on small batches.

    A fault that would change nothing of the recipe is left out.

    Args:
        names: frameworks.
        recipe: the experiment; batch size and precision are replaced.
        conditions: the data.
        faults: their names.
        on_result: called with every result as it comes.

    Raises:
        UserError: an unknown fault, or unusable data.
        WorkerError: a framework crashed: no fault may do that.
    """
    small = recipe.changed(precision="float64", batch_size=BATCH_SIZE)
    known = [find_fault(name) for name in faults]
    expected = {x.name: x for x in known if x.applies_to(small)}
    data = str(conditions.data) if conditions.data else None
    count = len(read_data(small, data)[1].training.labels)
    results = []
    with tempfile.TemporaryDirectory(prefix="paripassu-") as folder:
        base = {
            **EVIDENCE,
            "recipe": small.model_dump(),
            "steps": TRACED,
            "folder": folder,
        }
        alone = conditions.with_threads(1)
        right: dict[str, Any] = {}
        for _name, event in hear({"": alone.request("prove", REFERENCE.name, **base)}):
            if isinstance(event, Exception):
                raise event
            if event and event["event"] == "evidence":
                right, _metadata = read_tensors(Path(event["file"]))
        base["faults"] = list(expected)
        requests = {name: alone.request("prove", name, **base) for name in names}
        for name, event in hear(requests):
            if isinstance(event, Exception):
                raise event
            if not event or event["event"] != "evidence":
                continue
            path = Path(event["file"])
            wrong, _metadata = read_tensors(path)
            path.unlink()
            fault = expected[event["fault"]]
            rows = compare_traces(
                REFERENCE.name, name, right, wrong, network=small.architecture
            )
            found = first_divergence(rows)
            if found:
                cause = likely_cause(found, right, wrong, recipe=small, count=count)
                found = found.model_copy(update={"cause": cause})
            rung, quantity = fault.expected(small)
            results.append(
                FaultResult(
                    fault=fault.name,
                    summary=fault.summary,
                    framework=name,
                    rung=rung,
                    quantity=quantity,
                    located=found is not None
                    and found.rung == rung
                    and found.quantity.startswith(quantity),
                    divergence=found,
                )
            )
            on_result(results[-1])
    return results
