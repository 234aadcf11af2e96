"""Whole trainings in lockstep: every step of a recipe, and how far the twins part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paripassu.analysis.proof.ladder import all_curves, rungs_of
from paripassu.analysis.proof.tolerance import bound_of
from paripassu.analysis.proof.whole import compare_whole
from paripassu.analysis.schema import Curve, Proof, ProofRow, WholeRun
from paripassu.core import files
from paripassu.core.experiment import read_data, steps_per_epoch
from paripassu.core.recipe import Recipe
from paripassu.core.record import TRAJECTORY_FILE
from paripassu.processes.conditions import DEFAULT, Conditions
from paripassu.processes.pool import run_all
from paripassu.processes.requests import FollowRequest


@dataclass(frozen=True)
class Training:
    """One of the trainings."""

    framework: str
    precision: str
    perturbed: str  # the weights moved by an ulp, or ""

    @property
    def name(self) -> str:
        """Its folder."""
        mark = "-perturbed" if self.perturbed else ""
        return f"{self.framework}-{self.precision}{mark}"


def trainings(
    names: Sequence[str], precisions: Sequence[str], control: str
) -> list[Training]:
    """Each framework in each precision, and in float32 once more, `control` moved."""
    plain = [Training(name, x, "") for x in precisions for name in names]
    controls = [Training(name, "float32", control) for name in names]
    return plain + (controls if "float32" in precisions else [])


def lockstep(
    frameworks: Sequence[str],
    recipe: Recipe,
    *,
    out: Path,
    conditions: Conditions = DEFAULT,
    precisions: Sequence[str] = ("float64", "float32"),
    on_progress: Callable[[Mapping[str, str]], None] = lambda _progress: None,
) -> tuple[list[WholeRun], list[Curve]]:
    """Train the whole recipe in every framework on shared draws, dropout included.

    Each training has a folder in `out`, a checkpoint every minute, and one thread;
    as many run at a time as there are cores. Finished ones are used as they are.

    Args:
        frameworks: their names.
        recipe: the experiment; its precision is replaced.
        out: where the trainings are kept.
        conditions: the data.
        precisions: "float64", "float32"; with float32 each framework trains once more
            with perturbed by one ulp in one kernel.
        on_progress: gets what each training is at, by its name.

    Raises:
        UserError: `out` holds other trainings, is in use or cannot be written.
        WorkerError: a framework crashed; the others have finished by then.
    """
    _raw, prepared = read_data(recipe, conditions.data)
    steps = recipe.epochs * steps_per_epoch(recipe, len(prepared.training.labels))
    files.make_folder(out)
    control = recipe.architecture.controls[0]
    wanted = {x.name: x for x in trainings(frameworks, precisions, control)}
    requests = {
        name: FollowRequest(
            framework=x.framework,
            conditions=conditions.for_proofs(),
            folder=out / name,
            recipe=recipe.changed(precision=x.precision),
            steps=steps,
            perturbed=x.perturbed or None,
            predict=True,
        )
        for name, x in wanted.items()
    }
    doing = dict.fromkeys(wanted, "waits")
    failure: Exception | None = None
    for name, event in run_all(requests):
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
        key = x.framework, x.precision, x.perturbed
        found[key], metadata = files.read_tensors(out / x.name / TRAJECTORY_FILE)
        seconds[key] = float(metadata["seconds"])
    curves = all_curves({key: arrays["losses"] for key, arrays in found.items()})
    return compare_whole(found, prepared.test.labels, seconds), curves


def with_whole_runs(
    proof: Proof, runs: Sequence[WholeRun], curves: Sequence[Curve]
) -> Proof:
    """A proof with whole trainings added: rung 5 and 6 are judged on all their steps.

    In float64, losses must agree to the bound of rung 5 and all answers be the same.
    """
    bound = bound_of("later", "float64").size
    rows = [
        ProofRow(
            left=run.left,
            right=run.right,
            quantity=quantity,
            difference=gap,
            bound=allowed,
            holds=gap <= allowed,
            rung=5,
            step=None,
            precision="float64",
        )
        for run in runs
        if run.precision == "float64"
        for quantity, gap, allowed in (
            ("losses of the whole run", run.largest_loss_gap, bound),
            ("weights of the whole run", run.largest_weight_gap, bound),
            (
                "answers after the whole run",
                1 - run.equal_predictions / run.test_count,
                0.0,
            ),
        )
    ]
    whole = rungs_of([*proof.rows, *rows], curves)
    judged = [
        old if old.rung not in (5, 6) or new.status == "not run" else new
        for old, new in zip(proof.rungs, whole, strict=True)
    ]
    return proof.model_copy(
        update={
            "rows": [*proof.rows, *rows],
            "rungs": judged,
            "holds": proof.holds and not any(x.status == "fails" for x in judged),
            "curves": list(curves),
            "whole_runs": list(runs),
        }
    )
