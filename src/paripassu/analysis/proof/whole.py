"""How far two whole trainings have parted: in losses, weights and answers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.analysis.schema import WholeRun

Array = npt.NDArray[Any]
Key = tuple[str, str, str]  # framework, precision, the perturbed weights or ""
DIGITS = (3, 6, 9, 12, 15)
MOST_DIGITS = 17.0  # of a float64; equal numbers count as so many


def compare_whole(
    found: Mapping[Key, Mapping[str, Array]],
    labels: npt.NDArray[np.int64],
    seconds: Mapping[Key, float],
) -> list[WholeRun]:
    """Every pair of frameworks in each precision, and each against its control.

    `found` holds `losses`, `weight.<weight>` and `logits` of each training.
    """
    pairs = [
        (a, b)
        for a, b in itertools.combinations(found, 2)
        if (a[1] == b[1] and not a[2] and not b[2]) or (a[:2] == b[:2] and a[2] != b[2])
    ]
    return [
        _compare(a, b, found[a], found[b], labels, seconds[a] + seconds[b])
        for a, b in pairs
    ]


def _compare(
    left: Key,
    right: Key,
    a: Mapping[str, Array],
    b: Mapping[str, Array],
    labels: npt.NDArray[np.int64],
    seconds: float,
) -> WholeRun:
    gaps = np.abs(a["losses"] - b["losses"])
    names = [name for name in a if name.startswith("weight.")]
    ours = np.concatenate([a[name].ravel() for name in names]).astype(np.float64)
    theirs = np.concatenate([b[name].ravel() for name in names]).astype(np.float64)
    digits = leading_digits(ours, theirs)
    answers = a["logits"].argmax(axis=1), b["logits"].argmax(axis=1)
    return WholeRun(
        left=left[0],
        right=right[0],
        precision=left[1],
        control=left[2] != right[2],
        steps=gaps.size,
        largest_loss_gap=float(gaps.max()),
        largest_loss_step=int(gaps.argmax()) + 1,
        weight_count=ours.size,
        largest_weight_gap=float(np.abs(ours - theirs).max()),
        fewest_digits=float(digits.min()),
        median_digits=float(np.median(digits)),
        equal_digits={str(n): float(np.mean(digits >= n)) for n in DIGITS},
        test_count=labels.size,
        equal_predictions=int((answers[0] == answers[1]).sum()),
        left_accuracy=float(np.mean(answers[0] == labels)),
        right_accuracy=float(np.mean(answers[1] == labels)),
        seconds=seconds,
    )


def leading_digits(left: Array, right: Array) -> npt.NDArray[np.float64]:
    """In how many leading decimal digits numbers agree: `-log10(|a - b| / |a|)`.

    The larger of the two is `a`. Equal numbers agree in 17 digits, all that a float64
    can have; numbers of other signs, or ten times as large, in none.
    """
    size = np.maximum(np.abs(left), np.abs(right))
    gap = np.abs(left - right)
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = -np.log10(gap / size)
    return np.clip(np.where(gap == 0, MOST_DIGITS, digits), 0.0, MOST_DIGITS)
