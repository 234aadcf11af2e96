"""What each difference between two recipes does: `ablation.json`, from records only.

Every figure of an ablation is the mean over seeds of a sum of runs with signs. The
forward effect of a difference is that of adding it where the differences before it
are there already; the back effect that of it where those after it are there. Their
mean, over all differences, adds up to the total exactly; where forward and back
differ, the difference works together with others.

Accuracies and their differences are fractions 0..1, losses nats per test image.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import model_validator

from paripassu.analysis.ablation.differences import Difference, Walk
from paripassu.analysis.plan import run_name_by_hash
from paripassu.analysis.reading import checked
from paripassu.analysis.schema import Estimate
from paripassu.analysis.statistics import as_share, mean_estimate
from paripassu.analysis.text import counted, display_name
from paripassu.core.files import write_text
from paripassu.core.record import Environment, Model, RunRecord

ABLATION_FILE = "ablation.json"

Metric = Literal["test_accuracy", "test_cross_entropy", "first_epoch_accuracy"]
METRICS: tuple[Metric, ...] = get_args(Metric)
End = Literal["FROM", "TO"]
Figures = dict[Metric, Estimate | None]  # None: no seed has the runs that it needs
Cell = tuple[str, int]  # a framework, and the index of a stop
Key = tuple[str, int, int]  # the same, and a seed
Weights = dict[Cell, float]


class StopRun(Model):
    """The figures of one finished run."""

    framework: str
    seed: int
    run: str  # its folder, in `runs` of the ablation's
    test_accuracy: float
    test_cross_entropy: float | None  # None in records made before it was measured
    first_epoch_accuracy: float
    monitor: Literal["test", "validation"]  # the images of the first epoch's


class AblationStop(Model):
    """A recipe on the walk, and its runs."""

    label: str
    taken: list[int]  # the differences that are as in TO, by index; the others as FROM
    runs: list[StopRun]


class Effect(Model):
    """What one difference does to one metric, TO's value less FROM's."""

    both: Estimate | None  # the mean of forward and back
    forward: Estimate | None  # where all before it are as in TO, the others as in FROM
    back: Estimate | None  # where all after it are as in TO, the others as in FROM
    order: Estimate | None  # forward - back; None too where it is the only difference


class Level(Model):
    """An end point in one framework."""

    framework: str
    end: End
    figures: Figures


class FrameworkEffect(Level):
    """An end point in another framework minus the same one in the ablation's own."""


class Gap(Model):
    """TO in one framework minus FROM in another: as they would be published."""

    start_framework: str
    end_framework: str
    figures: Figures
    rest: Figures  # what the differences leave unexplained: the gap minus the total


class Ablation(Model):
    """Everything that an ablation says, for programs."""

    kind: Literal["ablation"] = "ablation"
    version: Literal[1] = 1
    command: str
    start: dict[str, Any]  # the recipe FROM
    end: dict[str, Any]  # the recipe TO
    framework: str  # that of all stops
    frameworks: list[str]  # those that train the end points, in the project's order
    data: dict[str, str]  # file -> SHA-256
    whose_data: str = ""  # and how many; older records do not say it
    seeds: list[int]  # that were asked for
    complete: list[int]  # that have every run
    metrics: list[Metric]  # those that all runs have in common
    differences: list[Difference]
    stops: list[AblationStop]
    forward: list[int]  # indices of stops, from FROM to TO
    back: list[int]  # from TO to FROM
    effects: list[dict[Metric, Effect]]  # of each difference
    levels: list[Level]
    total: Figures  # TO - FROM, in the ablation's framework
    framework_effects: list[FrameworkEffect]
    gaps: list[Gap]  # of every two frameworks, the first of them at FROM
    environments: dict[str, Environment]  # framework -> of its first run
    proofs: dict[End, bool]  # whether the twins were proven equal on that recipe
    failures: dict[str, str]  # run -> what went wrong
    notes: list[str]  # whatever limits the figures

    @model_validator(mode="before")
    @classmethod
    def _with_gaps(cls, values: Any) -> Any:
        """Read records of when there was one gap, between two frameworks, or none."""
        if not isinstance(values, dict) or "gap" not in values:
            return values
        gap = values["gap"]
        others = {name: x for name, x in values.items() if name != "gap"}
        return {**others, "gaps": [gap] if gap else []}

    def level(self, framework: str, end: End) -> Figures:
        """The figures of an end point; empty for a framework that is not there."""
        found = {(x.framework, x.end): x.figures for x in self.levels}
        return found.get((framework, end), {})


@dataclass(frozen=True)
class Inquiry:
    """What an ablation sets out to find, and what happened beside the runs."""

    walk: Walk
    framework: str
    frameworks: tuple[str, ...]  # the ablation's own among them
    seeds: tuple[int, ...]
    data: Mapping[str, str]
    whose_data: str = ""
    command: str = ""
    proofs: Mapping[End, bool] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def cells(self) -> list[Cell]:
        """All that is run with every seed: each stop once, the ends everywhere."""
        ends = (self.walk.start, self.walk.end)
        return [(self.framework, stop) for stop in range(len(self.walk.stops))] + [
            (name, stop)
            for name in self.frameworks
            if name != self.framework
            for stop in ends
        ]


def attribute(inquiry: Inquiry, records: Mapping[Key, RunRecord]) -> Ablation:
    """What the finished runs say.

    Seeds that have every run make up all figures, so that these add up. Where there
    is no such seed, each figure is of the seeds that have the runs it needs.
    """
    own, walk = inquiry.framework, inquiry.walk
    runs = {key: _figures_of(record) for key, record in records.items()}
    complete = [
        seed
        for seed in inquiry.seeds
        if all((*cell, seed) in runs for cell in inquiry.cells)
    ]
    pool = complete or list(inquiry.seeds)
    metrics, remarks = _metrics(inquiry, runs)
    used = {key: run for key, run in runs.items() if key[2] in pool}
    tables = {
        metric: _Table({k: float(getattr(x, metric)) for k, x in used.items()}, pool)
        for metric in metrics
    }

    def figures(weights: Weights, share: bool = False) -> Figures:
        found = {x: table.mean_of(weights) for x, table in tables.items()}
        return {x: _level(x, y) if share else y for x, y in found.items()}

    ends: dict[End, int] = {"FROM": walk.start, "TO": walk.end}
    total = _step(own, walk.start, walk.end)
    gaps = []
    for first, second in itertools.combinations(inquiry.frameworks, 2):
        published = _sum((1, {(second, walk.end): 1}), (-1, {(first, walk.start): 1}))
        gaps.append(
            Gap(
                start_framework=first,
                end_framework=second,
                figures=figures(published),
                rest=figures(_sum((1, published), (-1, total))),
            )
        )
    return Ablation(
        command=inquiry.command,
        start=walk.stops[walk.start].recipe.model_dump(),
        end=walk.stops[walk.end].recipe.model_dump(),
        framework=own,
        frameworks=list(inquiry.frameworks),
        data=dict(inquiry.data),
        whose_data=inquiry.whose_data,
        seeds=list(inquiry.seeds),
        complete=complete,
        metrics=metrics,
        differences=list(walk.differences),
        stops=[
            AblationStop(
                label=stop.label,
                taken=list(stop.taken),
                runs=[
                    runs[name, index, seed]
                    for name in inquiry.frameworks
                    for seed in inquiry.seeds
                    if (name, index, seed) in runs
                ],
            )
            for index, stop in enumerate(walk.stops)
        ],
        forward=list(walk.forward),
        back=list(walk.back),
        effects=[
            {x: _effect(table, inquiry, number) for x, table in tables.items()}
            for number in range(len(walk.differences))
        ],
        levels=[
            Level(framework=name, end=end, figures=figures({(name, stop): 1}, True))
            for name in inquiry.frameworks
            for end, stop in ends.items()
        ],
        total=figures(total),
        framework_effects=[
            FrameworkEffect(
                framework=name,
                end=end,
                figures=figures(_sum((1, {(name, stop): 1}), (-1, {(own, stop): 1}))),
            )
            for name in inquiry.frameworks
            if name != own
            for end, stop in ends.items()
        ],
        gaps=gaps,
        environments=_environments(inquiry, records),
        proofs=dict(inquiry.proofs),
        failures=dict(inquiry.failures),
        notes=[
            *inquiry.notes,
            *_notes_on_seeds(inquiry, complete),
            *remarks,
            *_notes_on_runs(records),
        ],
    )


def save(folder: Path, ablation: Ablation) -> None:
    """Write `ablation.json`, whole or not at all."""
    write_text(folder / ABLATION_FILE, ablation.model_dump_json(indent=1) + "\n")


def load(folder: Path) -> Ablation:
    """Read `ablation.json`.

    Raises:
        UserError: there is none, or it is damaged.
    """
    return checked(Ablation, folder / ABLATION_FILE)


@dataclass(frozen=True)
class _Table:
    """One metric of all runs."""

    values: Mapping[Key, float]
    seeds: Sequence[int]

    def mean_of(self, weights: Weights) -> Estimate | None:
        """The mean, over the seeds that have all runs, of their weighted sum."""
        terms = {cell: weight for cell, weight in weights.items() if weight}
        sums = [
            sum(weight * self.values[*cell, seed] for cell, weight in terms.items())
            for seed in self.seeds
            if terms and all((*cell, seed) in self.values for cell in terms)
        ]
        return mean_estimate(sums) if sums else None


def _effect(table: _Table, inquiry: Inquiry, number: int) -> Effect:
    own, walk = inquiry.framework, inquiry.walk
    forward = _step(own, walk.forward[number], walk.forward[number + 1])
    back = _step(own, walk.back[number + 1], walk.back[number])
    return Effect(
        both=table.mean_of(_sum((0.5, forward), (0.5, back))),
        forward=table.mean_of(forward),
        back=table.mean_of(back),
        order=table.mean_of(_sum((1, forward), (-1, back))),
    )


def _step(framework: str, before: int, after: int) -> Weights:
    return {(framework, after): 1, (framework, before): -1}


def _sum(*parts: tuple[float, Weights]) -> Weights:
    result: Weights = defaultdict(float)
    for factor, weights in parts:
        for cell, weight in weights.items():
            result[cell] += factor * weight
    return dict(result)


def _level(metric: Metric, estimate: Estimate | None) -> Estimate | None:
    if estimate is None or metric == "test_cross_entropy":
        return estimate
    return as_share(estimate)


def _figures_of(record: RunRecord) -> StopRun:
    result = record.result
    assert result is not None  # finished
    return StopRun(
        framework=record.framework,
        seed=record.seed,
        run=run_name_by_hash(record.framework, record.recipe_hash, record.seed),
        test_accuracy=result.test_accuracy,
        test_cross_entropy=result.test_cross_entropy,
        first_epoch_accuracy=record.epochs[0].monitor_accuracy,
        monitor=record.monitor,
    )


def _metrics(
    inquiry: Inquiry, runs: Mapping[Key, StopRun]
) -> tuple[list[Metric], list[str]]:
    """Those that can be compared, and why others can't."""
    walk = inquiry.walk
    start, end = walk.stops[walk.start].recipe, walk.stops[walk.end].recipe
    metrics, notes = list(METRICS), []
    if any(run.test_cross_entropy is None for run in runs.values()):
        metrics.remove("test_cross_entropy")
        notes.append(
            "The test loss is left out: some runs predate the common measure for all "
            "losses. Delete their folders to repeat them."
        )
    if start.validation_size != end.validation_size:
        metrics.remove("first_epoch_accuracy")
        notes.append(
            "The accuracy after the first epoch is left out: validation_size is one of "
            "the differences, so it is not always measured on the same images."
        )
    elif start.validation_size:
        notes.append(
            "The accuracy after the first epoch is that on the validation images."
        )
    if start.epochs != end.epochs:
        notes.append(
            "The number of epochs is one of the differences: test accuracy and loss "
            "are taken after each stop's own last epoch."
        )
    return metrics, notes


def _notes_on_seeds(inquiry: Inquiry, complete: Sequence[int]) -> list[str]:
    asked = counted(len(inquiry.seeds), "seed")
    if len(complete) == len(inquiry.seeds):
        return []
    if complete:
        return [
            f"Runs are missing: all figures are of the {len(complete)} of {asked} that "
            "have all runs."
        ]
    return [
        f"Runs are missing for each of {asked}: each figure is of the seeds that have "
        "the runs it needs, so effects may not add up to the total."
    ]


def _environments(
    inquiry: Inquiry, records: Mapping[Key, RunRecord]
) -> dict[str, Environment]:
    found: dict[str, Environment] = {}
    for key in sorted(records, key=lambda key: (key[2], key[1])):
        found.setdefault(key[0], records[key].environment)
    return {name: found[name] for name in inquiry.frameworks if name in found}


def _notes_on_runs(records: Mapping[Key, RunRecord]) -> list[str]:
    """Whether one framework's runs come from different machines or versions."""
    notes = []
    for name in dict.fromkeys(key[0] for key in records):
        environments = [x.environment for key, x in records.items() if key[0] == name]
        aspects = {
            "versions": {json.dumps(x.versions, sort_keys=True) for x in environments},
            "devices": {x.device for x in environments},
            "processors": {x.processor for x in environments},
        }
        notes += [
            f"The runs in {display_name(name)} were not all made on the same "
            f"{what}: {'; '.join(sorted(kinds))}."
            for what, kinds in aspects.items()
            if len(kinds) > 1
        ]
    return notes
