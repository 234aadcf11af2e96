"""Puts every seeded fault into every framework: the proof must find each, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from paripassu.analysis.proof.parity import compare_traces
from paripassu.analysis.schema import FaultResult
from paripassu.core.experiment import read_data
from paripassu.core.files import scratch
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays
from paripassu.frameworks.faults import FAULTS, find_fault
from paripassu.frameworks.registry import REFERENCE
from paripassu.processes.conditions import DEFAULT, Conditions
from paripassu.processes.pool import run_all
from paripassu.processes.requests import TRACED, ProveRequest
from paripassu.proof.verify import find_divergence, taken

BATCH_SIZE = 7  # small, for speed, and with a short last batch of 60,000 images


def check_faults(
    frameworks: Sequence[str],
    recipe: Recipe,
    *,
    conditions: Conditions = DEFAULT,
    faults: Sequence[str] = tuple(FAULTS),
    on_result: Callable[[FaultResult], None] = lambda _result: None,
) -> list[FaultResult]:
    """Try each fault in each framework, in float64, on small batches.

    A fault that would change nothing of the recipe is left out.

    Args:
        frameworks: their names.
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
    count = len(read_data(small, conditions.data)[1].training.labels)
    results = []
    with scratch() as folder:

        def request(name: str, seeded: Iterable[str] = ()) -> ProveRequest:
            return ProveRequest(
                framework=name,
                conditions=conditions.for_proofs(),
                recipe=small,
                steps=TRACED,
                folder=folder,
                faults=tuple(seeded),
            )

        ((_, _, reference),) = _traces([request(REFERENCE.name)])
        for name, seeded, arrays in _traces([request(x, expected) for x in frameworks]):
            rows = compare_traces(
                REFERENCE.name, name, reference, arrays, network=small.architecture
            )
            found = find_divergence(rows, reference, arrays, small, count)
            fault = expected[str(seeded)]
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


def _traces(
    requests: Sequence[ProveRequest],
) -> Iterator[tuple[str, str | None, Arrays]]:
    """The framework, the fault and the arrays of each trace, as they come."""
    for name, event in run_all({x.framework: x for x in requests}):
        if isinstance(event, Exception):
            raise event
        if event and event["event"] == "traced":
            yield name, event["fault"], taken(Path(event["file"]))
