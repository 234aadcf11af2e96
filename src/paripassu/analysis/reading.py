"""Reads the runs of a comparison, and checks that they belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from paripassu.analysis.plan import RUNS_FOLDER, Plan, planned_runs
from paripassu.core.errors import UserError
from paripassu.core.files import read_json, read_tensors
from paripassu.core.record import (
    PREDICTIONS_FILE,
    RUN_FILE,
    Model,
    Result,
    RunRecord,
    load_record,
)
from paripassu.reference.losses import softmax

Checked = TypeVar("Checked", bound=Model)


@dataclass(frozen=True)
class Run:
    """A finished run: its record, and its answers to the test images."""

    name: str
    record: RunRecord
    result: Result
    labels: npt.NDArray[np.int64]  # (N,)
    answers: npt.NDArray[np.int64]  # (N,)
    correct: npt.NDArray[np.bool_]  # (N,)
    probabilities: npt.NDArray[np.float64]  # (N, classes), 0..1


Runs = Mapping[str, Run]  # finished runs by name, in the order of the plan
_images = attrgetter("sha256", "train_size", "validation_size", "test_size")


def checked(model: type[Checked], path: Path) -> Checked:
    """Read a JSON file of that shape; a UserError if it is missing or damaged."""
    advice = "Delete it and run the comparison again: finished runs are kept."
    try:
        return model.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise UserError(
            f"{path} is damaged: {where}: {first['msg']}. {advice}"
        ) from error
    except UserError as error:
        if not path.exists():
            raise
        raise UserError(f"{error} {advice}") from error


def load_runs(
    folder: Path, plan: Plan
) -> tuple[dict[str, RunRecord], dict[str, Run], dict[str, str]]:
    """All that can be read of the planned runs, by name and in their order.

    Returns:
        The records of the runs that were at least begun; those that are finished, with
        their predictions; and of the damaged, which are in neither, what is wrong and
        what to do.
    """
    records: dict[str, RunRecord] = {}
    runs: dict[str, Run] = {}
    damage: dict[str, str] = {}
    for framework, seed, name in planned_runs(plan):
        path = folder / RUNS_FOLDER / name
        if framework in plan.unavailable or not (path / RUN_FILE).exists():
            continue
        try:
            record = _load_record(path, framework, seed)
            if record.status == "finished":
                runs[name] = _load_run(path, record)
            records[name] = record
        except UserError as error:
            damage[name] = (
                f"{error} The run is left out. Delete {path} and type the command "
                "again: that run is then repeated."
            )
    return records, runs, damage


def _load_record(folder: Path, framework: str, seed: int) -> RunRecord:
    record = load_record(folder)
    if (record.framework, record.seed) != (framework, seed):
        raise UserError(
            f"{folder / RUN_FILE}: expected {framework} with seed {seed}, got "
            f"{record.framework} with seed {record.seed}."
        )
    return record


def _load_run(folder: Path, record: RunRecord) -> Run:
    """A finished run with its predictions; a UserError if they do not fit it."""
    path = folder / PREDICTIONS_FILE
    if record.result is None:
        raise UserError(
            f"{folder / RUN_FILE} says that the run is finished, but has no result."
        )
    try:
        tensors, _ = read_tensors(path)
    except UserError as error:
        what = error.__cause__ or "there is no such file"
        raise UserError(f"{path} cannot be read: {what}.") from error
    problem = _problem_of(tensors, record.result)
    if problem:
        raise UserError(f"{path} is damaged: {problem}.")
    logits, labels = tensors["logits"], tensors["labels"].astype(np.int64)
    answers = logits.argmax(axis=1)
    return Run(
        name=folder.name,
        record=record,
        result=record.result,
        labels=labels,
        answers=answers,
        correct=answers == labels,
        probabilities=softmax(logits),
    )


def _problem_of(tensors: Mapping[str, npt.NDArray[Any]], result: Result) -> str | None:
    """What is wrong with the tensors of a predictions file, if anything."""
    missing = {"logits", "labels"} - tensors.keys()
    if missing:
        return f"expected logits and labels, {' and '.join(sorted(missing))} missing"
    logits, labels = tensors["logits"], tensors["labels"]
    count = result.test_count
    fits = logits.ndim == 2 and len(logits) == count and labels.shape == (count,)
    if count < 1 or not fits:
        return (
            f"expected logits ({count}, classes) and labels ({count},), got "
            f"{logits.shape} and {labels.shape}"
        )
    if not np.isfinite(logits).all():
        return "some logits are not finite"
    if not (labels.min() >= 0 and labels.max() < logits.shape[1]):
        return f"expected labels 0..{logits.shape[1] - 1}, got others"
    own = logits[np.arange(count), labels.astype(np.int64)]
    among_best = own == logits.max(axis=1)
    alone = (logits == own[:, np.newaxis]).sum(axis=1) == 1
    if not (among_best & alone).sum() <= result.test_correct <= among_best.sum():
        return (
            f"{among_best.sum()} of its answers are right, but {RUN_FILE} says "
            f"{result.test_correct}"
        )
    return None


def check_same_experiment(runs: Runs) -> None:
    """Raise a UserError unless all saw the same images, by the same recipe per seed."""
    first = next(iter(runs.values()), None)
    if first is None:
        return
    by_seed: dict[int, Run] = {}
    for run in runs.values():
        if _images(run.record.dataset) != _images(first.record.dataset) or (
            not np.array_equal(run.labels, first.labels)
        ):
            raise UserError(
                f"{run.name} was trained or tested on other images than {first.name}: "
                "they cannot be compared. Compare into a new folder with --out."
            )
        same_seed = by_seed.setdefault(run.record.seed, run)
        if run.record.recipe_hash != same_seed.record.recipe_hash:
            raise UserError(
                f"{run.name} followed another recipe than {same_seed.name}: they "
                "cannot be compared. Compare into a new folder with --out."
            )
