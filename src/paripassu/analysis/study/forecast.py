"""How long the runs of a study will take: from those that are finished, or a guess."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from paripassu.analysis.study.results import Key, Plan
from paripassu.core.recipe import Recipe
from paripassu.core.record import RunRecord

# Before any run is known. Of the recipes in results/recipes, one thread of an AMD EPYC
# does between 6e9 (lenet5) and 6e10 (article) operations a second; this is between.
OPERATIONS = 2e10  # a second, one thread
BESIDE = 10.0  # seconds of a run beside its epochs: start-up, data, warm-up, files


@dataclass(frozen=True)
class Forecast:
    """What is still to be done.

    Attributes:
        seconds: of each run that is missing.
        known: how many of them are estimated from finished runs of the same variant
            or framework; the others are a guess from the number of operations.
    """

    seconds: Mapping[Key, float]
    known: int

    @property
    def total(self) -> float:
        """Seconds of all, one after the other."""
        return sum(self.seconds.values())

    def lasts(self, places: int) -> float:
        """Seconds until the last is over, with so many at once, in the plan's order."""
        free = [0.0] * max(1, places)
        for seconds in self.seconds.values():
            heapq.heapreplace(free, free[0] + seconds)
        return max(free)


def forecast(
    plan: Plan, records: Mapping[Key, RunRecord], images: int, threads: int
) -> Forecast:
    """How long each run that is missing will take.

    A finished run of the same recipe and settings in the same framework says it best;
    else the pace of that framework's finished runs, in operations a second.

    Args:
        plan: all runs.
        records: the finished ones.
        images: of the data set, training and validation together.
        threads: of each run.
    """
    paces: dict[str, list[float]] = {}
    same: dict[tuple[int, str], list[float]] = {}
    for (number, name, _), record in records.items():
        seconds = took(record)
        same.setdefault((number, name), []).append(seconds)
        work = operations(plan.variants[number].recipe, images)
        epochs = sum(x.seconds + x.evaluation_seconds for x in record.epochs)
        paces.setdefault(name, []).append(work / max(epochs, 1e-9))
    seconds_of, known = {}, 0
    for key in plan.keys:
        if key in records:
            continue
        number, name, _ = key
        known += name in paces
        if (number, name) in same:
            seconds_of[key] = median(same[number, name])
        else:
            pace = median(paces.get(name, [OPERATIONS * threads]))
            work = operations(plan.variants[number].recipe, images)
            seconds_of[key] = BESIDE + work / pace
    return Forecast(seconds_of, known)


def operations(recipe: Recipe, images: int) -> float:
    """Floating-point operations of a training: see `Network.training_flops`."""
    count = max(1, images - recipe.validation_size)
    return float(recipe.architecture.training_flops) * count * recipe.epochs


def took(record: RunRecord) -> float:
    """The seconds of a run, from the start of its process to its last file."""
    epochs: Sequence[float] = [x.seconds + x.evaluation_seconds for x in record.epochs]
    return sum(epochs) + sum(sum(x.seconds.values()) for x in record.sessions)
