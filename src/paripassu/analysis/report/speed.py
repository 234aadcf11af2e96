"""Who trains faster: paired ratios of the time per epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from paripassu.analysis.report import words
from paripassu.analysis.report.figures import Framework, paired
from paripassu.analysis.schema import Estimate, Pair
from paripassu.analysis.statistics import FEWEST_SEEDS, bootstrap_estimate
from paripassu.analysis.text import counted, display_name
from paripassu.analysis.warnings import is_busy, median_load


def ratio(pair: Pair, shown: Sequence[Framework]) -> Estimate | None:
    """How many times as long an epoch takes in the left: geometric mean over seeds.

    The paired ratios of the runs' median epochs, averaged as logarithms, with the
    interval of `bootstrap_estimate`; None without a pair.
    """
    times = paired(pair, shown, lambda run: run.epoch_seconds)
    if not times or any(min(one, other) <= 0 for _, one, other in times):
        return None
    estimate = bootstrap_estimate([math.log(one / other) for _, one, other in times])
    return estimate.model_copy(
        update={
            "mean": math.exp(estimate.mean),
            "low": None if estimate.low is None else math.exp(estimate.low),
            "high": None if estimate.high is None else math.exp(estimate.high),
        }
    )


def quicker(pair: Pair, shown: Sequence[Framework]) -> str | None:
    """Either "left" or "right", if seeds, interval and a calm machine give it."""
    found = ratio(pair, shown)
    if found is None or found.n < FEWEST_SEEDS or is_busy(_highest_load(pair, shown)):
        return None
    if found.low is None or found.high is None:
        return None
    if found.high < 1:
        return "left"
    return "right" if found.low > 1 else None


def sentence(pair: Pair, shown: Sequence[Framework]) -> str | None:
    """What can be said of the time per epoch, with n; None without a pair."""
    found = ratio(pair, shown)
    if found is None:
        return None
    left, right = display_name(pair.left), display_name(pair.right)
    n = counted(found.n, "paired seed")
    times = paired(pair, shown, lambda run: run.epoch_seconds)
    one = words.seconds(median(value for _, value, _ in times))
    other = words.seconds(median(value for _, _, value in times))
    took = f"An epoch of training took {one} in {left} and {other} in {right}"
    load = _highest_load(pair, shown)
    if is_busy(load):
        return (
            f"{took} (medians, {n}), but the machine was busy: other programs used up "
            f"to {load:.0%} of it in a run's median epoch. No verdict on speed."
        )
    if found.n < FEWEST_SEEDS:
        return f"{took} (medians, {n}: too few for a verdict on speed)."
    interval = f"95% interval {found.low:.2f} to {found.high:.2f}, {n}"
    ahead = quicker(pair, shown)
    if ahead is None:
        return (
            f"Neither trains faster beyond doubt: an epoch in {left} takes "
            f"{found.mean:.2f} times as long as in {right} ({interval})."
        )
    if ahead == "right":
        return (
            f"{right} trains faster here: an epoch in {left} takes {found.mean:.2f} "
            f"times as long ({interval})."
        )
    return (
        f"{left} trains faster here: an epoch takes {found.mean:.2f} times as long as "
        f"in {right} ({interval})."
    )


def _highest_load(pair: Pair, shown: Sequence[Framework]) -> float:
    """What other programs used in the median epoch of the pair's most disturbed run."""
    sides = [item for item in shown if item.name in (pair.left, pair.right)]
    return max((median_load(x.record) for item in sides for x in item.runs), default=0)
