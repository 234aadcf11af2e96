"""Train one framework once: the parent's side of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from paripassu.core import record
from paripassu.core.recipe import Recipe
from paripassu.frameworks import registry
from paripassu.processes.conditions import DEFAULT, Conditions
from paripassu.processes.executors import train_here
from paripassu.processes.launch import Event
from paripassu.processes.requests import TrainRequest


def train(
    framework: str,
    recipe: Recipe,
    *,
    out: str | Path,
    conditions: Conditions = DEFAULT,
    on_event: Callable[[Event], None] = lambda _event: None,
) -> record.RunRecord:
    """Train in a process of its own, going on where an interrupted run stopped.

    Args:
        framework: a name or an alias from the registry.
        recipe: the experiment; its seed and epochs too.
        out: the run folder; a finished run in it is used as it is.
        conditions: data, threads and device.
        on_event: called with every event of the worker, for progress.

    Raises:
        UserError: the framework is missing or can't run the recipe, the folder holds
            another run or is in use, the data are damaged, or the training diverges.
        WorkerError: the worker crashed; everything up to its last epoch is kept.
    """
    chosen = registry.find(framework)
    chosen.check(recipe)
    if not conditions.command:
        conditions = replace(conditions, command=f"train {framework} in {out}")
    request = TrainRequest(
        framework=chosen.name, conditions=conditions, folder=Path(out), recipe=recipe
    )
    train_here(request, on_event)
    return record.load_record(Path(out))
