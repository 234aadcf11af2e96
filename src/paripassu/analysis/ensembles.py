"""What networks of several seeds say together, and how far apart seeds should be."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from paripassu.analysis.reading import Run
from paripassu.analysis.schema import Estimate, SeedSpread
from paripassu.analysis.statistics import wilson


def ensemble_accuracy(runs: Sequence[Run]) -> Estimate | None:
    """The test accuracy of the mean of all runs' probabilities; None of one run.

    The interval is Wilson's: over test images drawn anew, of these networks.
    """
    if len(runs) < 2:
        return None
    total = sum(run.probabilities for run in runs)
    correct = int((np.argmax(total, axis=1) == runs[0].labels).sum())
    found = wilson(correct, len(runs[0].labels))
    return found.model_copy(update={"n": len(runs)})


def seed_spread(runs: Sequence[Run]) -> SeedSpread | None:
    """How far the test accuracies of seeds part, and how far they should.

    If the seeds of a recipe erred on each image independently of the other images,
    image `i` with probability `p`, the variance of accuracy between seeds on these N
    images would be `sum(p (1 - p)) / N**2` (the independent errors of Jordan 2023,
    "Calibrated Chaos", arXiv:2304.01910). Both are without bias. None of one run.
    """
    n = len(runs)
    if n < 2:
        return None
    correct = np.stack([run.correct for run in runs])
    errors = 1 - correct.mean(axis=0)
    expected = float((errors * (1 - errors)).sum()) * n / (n - 1)
    return SeedSpread(
        measured=float(correct.mean(axis=1).std(ddof=1)),
        expected=math.sqrt(expected) / correct.shape[1],
    )
