"""From the records of a study's runs to `study.json`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from paripassu.analysis.kinds import kind_of, main_kind
from paripassu.analysis.schema import Estimate, Spread
from paripassu.analysis.statistics import (
    Verdict,
    as_share,
    decide,
    mean_estimate,
    spread,
    wilson,
)
from paripassu.analysis.text import sentence
from paripassu.core.recipe import Recipe
from paripassu.core.record import Model, RunRecord

STUDY_FILE = "study.json"
MARGIN = 0.001  # of accuracy: the standard error of 99% on 10,000 images

Key = tuple[int, str, int]  # number of the variant, framework, seed


@dataclass(frozen=True)
class Variant:
    """A recipe with settings of the grid.

    Attributes:
        recipe: with them; its seed is that of the first run.
        settings: what the grid has set, as KEY=VALUE.
        seeds: those of its runs.
    """

    recipe: Recipe
    settings: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def title(self) -> str:
        """For people: the recipe's name and its settings."""
        return ", ".join((self.recipe.name, *self.settings))


@dataclass(frozen=True)
class Plan:
    """All that a study is to run.

    Attributes:
        name: the study's.
        description: what it is for.
        variants: every recipe with every combination of settings.
        frameworks: of each variant, those that train it, in their order.
        absent: what is not run, and why.
        timed: whether times matter: then runs of one machine are made in turn.
        command: what was typed.
    """

    name: str
    description: str
    variants: tuple[Variant, ...]
    frameworks: tuple[tuple[str, ...], ...]
    absent: tuple[str, ...]
    timed: bool
    command: str

    @property
    def keys(self) -> list[Key]:
        """Every run; those of a seed stand together, so that pairs end early."""
        most = max(len(x.seeds) for x in self.variants)
        return [
            (number, framework, variant.seeds[index])
            for index in range(most)
            for number, variant in enumerate(self.variants)
            for framework in self.frameworks[number]
            if index < len(variant.seeds)
        ]


class Cell(Model):
    """One recipe with its settings, in one framework."""

    recipe: str
    settings: list[str]
    framework: str
    epochs: int
    planned: int  # runs
    seeds: list[int]  # of the finished runs
    accuracy: Estimate | None
    loss: Estimate | None
    published_accuracy: float | None  # fraction 0..1, as the recipe's source states it
    epoch_seconds: Spread | None  # of runs on one kind of machine, if they are timed


class Match(Model):
    """Two frameworks on one recipe with its settings."""

    recipe: str
    settings: list[str]
    left: str
    right: str
    difference: Estimate | None  # test accuracy, left - right, fraction
    verdict: Verdict
    sentence: str  # the verdict in words, with n


class Study(Model):
    """What the runs of a study say: `study.json`."""

    kind: Literal["study"] = "study"
    version: Literal[1] = 1
    name: str
    description: str
    command: str
    data: dict[str, str]  # file -> SHA-256
    timed: bool
    timed_on: str | None  # the kind of machine that times are of
    cells: list[Cell]
    matches: list[Match]
    notes: list[str]
    failures: dict[str, str]  # what, by the folder of the run

    @property
    def planned(self) -> int:
        """How many runs there are to be."""
        return sum(x.planned for x in self.cells)

    @property
    def done(self) -> int:
        """How many are finished."""
        return sum(len(x.seeds) for x in self.cells)


def judge(
    plan: Plan,
    records: Mapping[Key, RunRecord],
    *,
    data: Mapping[str, str],
    notes: Sequence[str] = (),
    failures: Mapping[str, str] | None = None,
) -> Study:
    """What the finished runs say, however many there are of them."""
    kind = main_kind(records.values()) if plan.timed else None
    cells, matches = [], []
    for number, variant in enumerate(plan.variants):
        known = {
            name: {
                seed: records[number, name, seed]
                for seed in variant.seeds
                if (number, name, seed) in records
            }
            for name in plan.frameworks[number]
        }
        what: dict[str, Any] = {
            "recipe": variant.recipe.name,
            "settings": list(variant.settings),
        }
        for name, runs in known.items():
            found = list(runs.values())
            cells.append(
                Cell(
                    **what,
                    framework=name,
                    epochs=variant.recipe.epochs,
                    planned=len(variant.seeds),
                    seeds=list(runs),
                    accuracy=_accuracy(found),
                    loss=_loss(found),
                    published_accuracy=variant.recipe.published_accuracy,
                    epoch_seconds=_seconds(found, kind),
                )
            )
        for left, right in itertools.combinations(known, 2):
            matches.append(_match(what, left, right, known[left], known[right]))
    other = [] if kind is None else _untimed(records, kind)
    return Study(
        name=plan.name,
        description=plan.description,
        command=plan.command,
        data=dict(data),
        timed=plan.timed,
        timed_on=kind,
        cells=cells,
        matches=matches,
        notes=[*plan.absent, *notes, *other],
        failures=dict(failures or {}),
    )


def _match(
    what: Mapping[str, Any],
    left: str,
    right: str,
    one: Mapping[int, RunRecord],
    other: Mapping[int, RunRecord],
) -> Match:
    differences = [
        _share(one[seed]) - _share(other[seed]) for seed in one if seed in other
    ]
    decision = decide(differences, MARGIN)
    return Match(
        **what,
        left=left,
        right=right,
        difference=decision.difference,
        verdict=decision.verdict,
        sentence=sentence(left, right, decision),
    )


def _share(record: RunRecord) -> float:
    assert record.result is not None
    return record.result.test_correct / record.result.test_count


def _accuracy(records: Sequence[RunRecord]) -> Estimate | None:
    if not records:
        return None
    if len(records) == 1 and (result := records[0].result):
        return wilson(result.test_correct, result.test_count)
    return as_share(mean_estimate([_share(x) for x in records]))


def _loss(records: Sequence[RunRecord]) -> Estimate | None:
    losses = [x.result.test_loss for x in records if x.result]
    return mean_estimate(losses) if losses else None


def _seconds(records: Sequence[RunRecord], kind: str | None) -> Spread | None:
    epochs = [
        epoch.seconds
        for record in records
        if kind_of(record.environment) == kind
        for epoch in record.epochs
    ]
    return spread(epochs) if epochs else None


def _untimed(records: Mapping[Key, RunRecord], kind: str) -> list[str]:
    others = sum(kind_of(x.environment) != kind for x in records.values())
    if not others:
        return []
    return [
        f"Times are those of runs on one kind of machine ({kind}): {others} of "
        f"{len(records)} runs were made on others. Accuracy is of all."
    ]
