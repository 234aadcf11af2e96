"""Evaluate a finished run on the test set, in any framework."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from paripassu.core import record
from paripassu.core.errors import UserError
from paripassu.core.recipe import validate
from paripassu.frameworks import registry
from paripassu.processes.conditions import Conditions
from paripassu.processes.launch import work
from paripassu.processes.requests import EvaluateRequest


def evaluate(
    folder: Path, *, conditions: Conditions, framework: str | None = None
) -> dict[str, Any]:
    """Load the model that a run left and measure its loss and accuracy again.

    Args:
        folder: a finished run.
        conditions: the data are the run's own unless others are given.
        framework: None for the run's own, which loads its own format; another loads
            the weights in the common format.

    Returns:
        `framework`, `test_loss` (mean per image), `test_accuracy` (0..1), `test_count`,
        `device`, `data` (whose they are), `notes` (how the images were turned, or
        would have to be), and `recorded_accuracy`, which the run itself measured.

    Raises:
        UserError: no finished run there, a framework that is missing or can't run its
            recipe, or damaged files.
        WorkerError: the worker crashed.
    """
    finished = record.load_record(folder)
    if finished.result is None:
        raise UserError(
            f"the run in {folder} is not finished: it has {len(finished.epochs)} of "
            f"{finished.recipe['epochs']} epochs. To go on, type: {finished.command}"
        )
    chosen = registry.find(framework or finished.framework)
    chosen.check(validate(finished.recipe))
    if conditions.data is None and finished.dataset.source != "package":
        conditions = replace(conditions, data=Path(finished.dataset.source))
    answer = work(
        EvaluateRequest(framework=chosen.name, conditions=conditions, folder=folder)
    )
    return {
        "framework": chosen.name,
        **answer,
        "recorded_accuracy": finished.result.test_accuracy,
    }
