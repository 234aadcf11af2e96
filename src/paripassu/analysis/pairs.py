"""Two frameworks against each other, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from paripassu.analysis.plan import Plan, run_name
from paripassu.analysis.reading import Run, Runs
from paripassu.analysis.schema import Disagreement, Estimate, Pair
from paripassu.analysis.statistics import (
    TYPICAL_SD,
    as_share,
    bootstrap_estimate,
    churn,
    decide,
    discordant,
    mcnemar_p,
    wilson,
)
from paripassu.analysis.text import sentence

MOST_DISAGREEMENTS = 24


def judge_pair(plan: Plan, left: str, right: str, runs: Runs) -> Pair:
    """The verdict on two frameworks, from the seeds that both have finished."""
    couples = [
        (runs[run_name(left, seed)], runs[run_name(right, seed)])
        for seed in dict.fromkeys(plan.seeds)
        if run_name(left, seed) in runs and run_name(right, seed) in runs
    ]
    differences = [
        (one.result.test_correct - other.result.test_correct) / one.result.test_count
        for one, other in couples
    ]
    decision = decide(differences, plan.margin, _assumed_sd(couples))
    single = couples[0] if len(couples) == 1 else None
    found = [item for couple in couples for item in _disagreements(*couple)]
    return Pair(
        left=left,
        right=right,
        seeds=[one.record.seed for one, _ in couples],
        difference=decision.difference,
        equivalence=decision.equivalence,
        sign_flip_p=decision.sign_flip_p,
        mcnemar_p=mcnemar_p(single[0].correct, single[1].correct) if single else None,
        verdict=decision.verdict,
        more_seeds=decision.more_seeds,
        sentence=sentence(left, right, decision),
        churn=_churn(couples),
        disagreements=_most_confident(found),
        disagreement_count=len(found),
    )


def _assumed_sd(couples: Sequence[tuple[Run, Run]]) -> float:
    """What to expect of the spread over seeds, before two pairs have shown it.

    The usual 0.0008 of 10,000 MNIST images or, on a small or hard test set, the
    larger sqrt(discordant) / images: McNemar's variance if neither side is better.
    """
    if not couples:
        return TYPICAL_SD
    one, other = couples[0]
    images = sum(discordant(one.correct, other.correct))
    return max(TYPICAL_SD, math.sqrt(images) / len(one.labels))


def _churn(couples: Sequence[tuple[Run, Run]]) -> Estimate | None:
    if not couples:
        return None
    if len(couples) == 1:
        one, other = couples[0]
        return wilson(int(np.sum(one.answers != other.answers)), len(one.answers))
    shares = [churn(one.answers, other.answers) for one, other in couples]
    return as_share(bootstrap_estimate(shares))


def _disagreements(one: Run, other: Run) -> list[Disagreement]:
    return [
        Disagreement(
            index=int(index),
            label=int(one.labels[index]),
            seed=one.record.seed,
            left=int(one.answers[index]),
            right=int(other.answers[index]),
            left_probability=float(one.probabilities[index].max()),
            right_probability=float(other.probabilities[index].max()),
        )
        for index in np.flatnonzero(one.answers != other.answers)
    ]


def _most_confident(found: Sequence[Disagreement]) -> list[Disagreement]:
    """Up to 24 images, each once, where the less sure of the two is the surest."""
    by_confidence = sorted(
        found,
        key=lambda x: (-min(x.left_probability, x.right_probability), x.index, x.seed),
    )
    distinct: dict[int, Disagreement] = {}
    for item in by_confidence:
        distinct.setdefault(item.index, item)
    return list(distinct.values())[:MOST_DISAGREEMENTS]
