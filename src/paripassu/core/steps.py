"""What a proof feeds to every twin, and what it gets back: NumPy arrays by name."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]
Given = Mapping[str, npt.NDArray[Any]]  # to read only
# Where a step of a proof may start, beside the initial weights: see `worker.starts`.
STARTS = ("moved", "amplified")


@dataclass(frozen=True)
class TwinStep:
    """What a twin is given for one training step."""

    images: npt.NDArray[np.float32]  # (N, h, w, c), normalised
    labels: npt.NDArray[np.int64]  # (N,)
    masks: Mapping[str, npt.NDArray[np.bool_]]  # dropout layer -> what it keeps


def accuracies(epochs: int, patience: int) -> list[float]:
    """Invented accuracies on validation images, for a rate that follows them.

    After a rise come as many epochs without one as a wait of `patience` epochs can
    tell apart: as many, none, one less, and twice as many and one; ties and falls take
    turns. Fewer epochs have the same accuracies. The first is a rise, so that no rate
    falls before epoch `patience + 1`, counted from 0.

    Returns:
        One for each epoch, 0..1 in fewer than 80,000 epochs.
    """
    found: list[float] = []
    for number, wait in enumerate(
        itertools.cycle((patience, 0, patience - 1, 2 * patience + 1))
    ):
        if len(found) >= epochs:
            break
        best = 0.2 + number * 1e-5  # far more than float32 tells apart
        found += [best, *(best - (x % 2) / 10 for x in range(wait))]
    return found[:epochs]
