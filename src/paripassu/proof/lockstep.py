"""Whole trainings in lockstep: every step of a recipe, and how far the twins part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paripassu.analysis.proof.ladder import all_curves
from paripassu.analysis.proof.whole import compare_whole
from paripassu.analysis.schema import Curve, WholeRun
from paripassu.core import files
from paripassu.core.experiment import read_data, steps_per_epoch
from paripassu.core.recipe import Recipe
from paripassu.core.record import TRAJECTORY_FILE
from paripassu.processes.conditions import Conditions
from paripassu.processes.pool import CONTROLS, hear


@dataclass(frozen=True)
class Training:
    """One of the trainings."""

    framework: str
    precision: str
    nudge: str  # the weights moved by an ulp, or ""

    @property
    def name(self) -> str:
        """Its folder."""
        mark = "-nudged" if self.nudge else ""
        return f"{self.framework}-{self.precision}{mark}"


def trainings(names: Sequence[str], precisions: Sequence[str]) -> list[Training]:
    """Each framework in each precision, and in float32 its own control."""
    plain = [Training(name, x, "") for x in precisions for name in names]
    controls = [Training(name, "float32", CONTROLS[0]) for name in names]
    return plain + (controls if "float32" in precisions else [])


def lockstep(
    names: Sequence[str],
    recipe: Recipe,
    *,
    out: Path,
    conditions: Conditions,
    precisions: Sequence[str] = ("float64", "float32"),
    on_progress: Callable[[Mapping[str, str]], None] = lambda _progress: None,
) -> tuple[list[WholeRun], list[Curve]]:
    """Train the whole recipe in every framework on shared draws, dropout included.

    Each training has a folder in `out`, a checkpoint every minute, and one thread;
    as many run at a time as there are cores. Finished ones are used as they are.

    Args:
        names: frameworks.
        recipe: the experiment; its precision is replaced.
        out: where the trainings are kept.
        conditions: the data.
        precisions: "float64", "float32"; with float32 each framework trains once more
            with one kernel moved by an ulp.
        on_progress: gets what each training is at, by its name.

    Raises:
        UserError: `out` holds other trainings, is in use or cannot be written.
        WorkerError: a framework crashed; the others have finished by then.
    """
    data = str(conditions.data) if conditions.data else None
    _raw, prepared = read_data(recipe, data)
    steps = recipe.epochs * steps_per_epoch(recipe, len(prepared.training.labels))
    files.make_folder(out)
    wanted = {x.name: x for x in trainings(names, precisions)}
    requests = {
        name: conditions.with_threads(1).request(
            "follow",
            x.framework,
            device="cpu",
            recipe=recipe.changed(precision=x.precision).model_dump(),
            steps=steps,
            nudge=x.nudge or None,
            predict=True,
            folder=str((out / name).resolve()),
        )
        for name, x in wanted.items()
    }
    doing = dict.fromkeys(wanted, "waits")
    failure: Exception | None = None
    for name, event in hear(requests):
        if isinstance(event, Exception):
            failure, doing[name] = event, "failed"
        elif event is None:
            doing[name] = "done"
        elif event["event"] == "step":
            doing[name] = f"step {event['done']:,} of {event['steps']:,}"
        on_progress(doing)
    if failure:
        raise failure
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    seconds = {}
    for x in wanted.values():
        key = x.framework, x.precision, x.nudge
        found[key], metadata = files.read_tensors(out / x.name / TRAJECTORY_FILE)
        seconds[key] = float(metadata["seconds"])
    curves = all_curves({key: arrays["losses"] for key, arrays in found.items()})
    return compare_whole(found, prepared.test.labels, seconds), curves
