"""Intervals, tests and verdicts: functions over numbers, deterministic.

Intervals have 95% confidence unless a docstring says otherwise. Accuracies and their
differences are fractions 0..1. Why these methods: `docs/fairness.md`. SciPy is
imported where it is used: it takes most of a second.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from paripassu.analysis.schema import Equivalence, Estimate, Spread

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
FEWEST_SEEDS = 5  # below: no verdict, and no bootstrap
MOST_SEEDS = 200
POWER = 0.8
EXACT_FLIPS = 16  # up to 2 ** 16 sign patterns are enumerated
RESAMPLES = 9_999
TYPICAL_SD = 0.0008  # of paired differences in accuracy, when nothing is known yet
ROUNDING = 1e-12  # differences of accuracies that are closer are the same number

Verdict = Literal["equivalent", "different", "undecided"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Decision:
    """A verdict on paired differences, and all that it was drawn from."""

    verdict: Verdict
    difference: Estimate | None  # None without any pair
    equivalence: Equivalence | None  # None below two pairs
    sign_flip_p: float | None  # None below two pairs
    small_but_there: bool  # equivalent, and yet significantly not zero
    more_seeds: int | None  # only when undecided; None too if 200 would not do
    margin: float  # fraction 0..1
    assumed_sd: float  # that `more_seeds` took below two pairs


def spread(values: Sequence[float]) -> Spread:
    """Median and range of at least one measured value, in the unit of `values`."""
    array = _finite(values)
    return Spread(
        median=float(np.median(array)),
        low=float(array.min()),
        high=float(array.max()),
        n=array.size,
    )


def wilson(correct: int, count: int) -> Estimate:
    """Share of successes with the score interval of one run (Wilson 1927).

    The interval is over test images drawn anew, not over seeds. No continuity
    correction.
    """
    if not 0 <= correct <= count or count == 0:
        raise ValueError(f"expected 0 <= correct <= count > 0, got {correct}, {count}")
    from scipy.stats import norm

    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    share = correct / count
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = (
        z
        * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
        / (1 + z**2 / count)
    )
    return Estimate(
        mean=share,
        low=0.0 if correct == 0 else centre - half,
        high=1.0 if correct == count else centre + half,
        n=1,
        method="wilson",
    )


def mean_estimate(values: Sequence[float]) -> Estimate:
    """Mean of runs with different seeds, with Student's interval (Student 1908).

    Equal values have an interval of no width, but below 5 none: so few show nothing.
    """
    array = _finite(values)
    mean, n = float(array.mean()), array.size
    if n == 1:
        return Estimate(mean=mean, low=None, high=None, n=1, method="single value")
    if _all_equal(array):
        mean = float(np.median(array))
        end = mean if n >= FEWEST_SEEDS else None
        return Estimate(mean=mean, low=end, high=end, n=n, method="all values equal")
    half = _t_quantile((1 + CONFIDENCE) / 2, n - 1) * _standard_error(array)
    low, high = mean - half, mean + half
    return Estimate(mean=mean, low=low, high=high, n=n, method="student t")


def as_share(estimate: Estimate) -> Estimate:
    """An estimate whose interval ends at 0 and 1."""
    if estimate.low is None or estimate.high is None:
        return estimate
    bounds = {"low": max(0.0, estimate.low), "high": min(1.0, estimate.high)}
    return estimate.model_copy(update=bounds)


def bootstrap_estimate(values: Sequence[float]) -> Estimate:
    """Mean with the bias-corrected and accelerated bootstrap interval (Efron 1987).

    Resamples 9,999 times from a fixed seed. Below 5 values the range of their
    resampled means covers the true mean far too rarely (2 values: half the time), so
    that Student's interval is given there; `method` says which.
    """
    array = _finite(values)
    if array.size < FEWEST_SEEDS or _all_equal(array):
        return mean_estimate(values)
    from scipy.stats import bootstrap

    interval = bootstrap(
        (array,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="BCa",
        random_state=np.random.default_rng(0),  # the name that SciPy 1.13 knows
    ).confidence_interval
    return Estimate(
        mean=float(array.mean()),
        low=float(interval.low),
        high=float(interval.high),
        n=array.size,
        method="bca bootstrap",
    )


def equivalence(differences: Sequence[float], margin: float) -> Equivalence | None:
    """Two one-sided paired t tests of |mean| >= margin (Schuirmann 1987).

    Their p, the larger of the two, is below 0.05 exactly when the 90% interval lies
    inside +-margin. Differences without any spread decide by themselves: p is 0
    inside the margin, otherwise 1. None below two differences.
    """
    _check_margin(margin)
    array = _finite(differences)
    if array.size < 2:
        return None
    mean = float(array.mean())
    if _all_equal(array):
        inside = abs(mean) < margin - ROUNDING
        return Equivalence(margin=margin, p=0.0 if inside else 1.0, low=mean, high=mean)
    from scipy.stats import t

    freedom = array.size - 1
    error = _standard_error(array)
    half = _t_quantile(1 - SIGNIFICANCE, freedom) * error
    return Equivalence(
        margin=margin,
        p=float(t.sf((margin - abs(mean)) / error, freedom)),
        low=mean - half,
        high=mean + half,
    )


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p of "each difference might as well have the other sign".

    The sign-flip randomization test of the mean (Fisher 1935). Exact, over all 2^n
    patterns, up to n = 16; above, 20,000 patterns from a fixed seed, the observed
    one counted in (Phipson and Smyth 2010). The smallest exact p is 2 / 2^n: 0.0625
    at n = 5, 0.03125 at n = 6.
    """
    array = _finite(differences)
    size = array.size
    observed = abs(array.sum()) - ROUNDING * size
    if size <= EXACT_FLIPS:
        patterns = np.arange(2**size)[:, np.newaxis] >> np.arange(size) & 1
        sums = np.abs((1 - 2 * patterns) @ array)
        return float(np.mean(sums >= observed))
    draws = np.random.default_rng(0).integers(0, 2, size=(20_000, size), dtype=np.int8)
    sums = np.abs((1 - 2 * draws) @ array)
    return float((1 + np.sum(sums >= observed)) / (1 + len(draws)))


def mcnemar_p(
    left_correct: npt.NDArray[np.bool_], right_correct: npt.NDArray[np.bool_]
) -> float:
    """Exact two-sided p of equal accuracy on the same images (McNemar 1947).

    The binomial test on the images that just one of the two answers right. It speaks
    of two trained networks, not of two frameworks: seeds do not enter.
    """
    left_only, right_only = discordant(left_correct, right_correct)
    if left_only + right_only == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(left_only, left_only + right_only).pvalue)


def discordant(
    left_correct: npt.NDArray[np.bool_], right_correct: npt.NDArray[np.bool_]
) -> tuple[int, int]:
    """How many images only the left, and only the right, answers right."""
    _check_shapes(left_correct, right_correct)
    return (
        int(np.sum(left_correct & ~right_correct)),
        int(np.sum(right_correct & ~left_correct)),
    )


def churn(left_answers: npt.NDArray[Any], right_answers: npt.NDArray[Any]) -> float:
    """Share 0..1 of images that two networks answer differently, rightly or not.

    Milani Fard et al. 2016, "Launch and iterate: reducing prediction churn".
    """
    _check_shapes(left_answers, right_answers)
    return float(np.mean(left_answers != right_answers))


def decide(
    differences: Sequence[float], margin: float, assumed_sd: float = TYPICAL_SD
) -> Decision:
    """A verdict on paired differences in accuracy; never one from less than 5.

    "equivalent": the two one-sided tests hold (p < 0.05), whether or not a difference
    within the margin is there. "different": they do not, and the bootstrap interval
    and the sign-flip test agree that the mean is not 0 (arXiv:2511.19794); the
    smallest sign-flip p makes that possible from 6 seeds on. Otherwise "undecided".
    """
    _check_margin(margin)
    count = len(differences)
    estimate = bootstrap_estimate(differences) if count else None
    test = equivalence(differences, margin) if count > 1 else None
    flip = sign_flip_p(differences) if count > 1 else None
    verdict: Verdict = "undecided"
    there = False
    if count >= FEWEST_SEEDS and estimate and test and flip is not None:
        there = flip < SIGNIFICANCE and excludes_zero(estimate)
        if test.p < SIGNIFICANCE:
            verdict = "equivalent"
        elif there:
            verdict = "different"
    undecided = verdict == "undecided"
    return Decision(
        verdict=verdict,
        difference=estimate,
        equivalence=test,
        sign_flip_p=flip,
        small_but_there=verdict == "equivalent" and there,
        more_seeds=more_seeds(differences, margin, assumed_sd) if undecided else None,
        margin=margin,
        assumed_sd=assumed_sd,
    )


def more_seeds(
    differences: Sequence[float], margin: float, assumed_sd: float = TYPICAL_SD
) -> int | None:
    """About how many more paired seeds would decide, with a chance of 80%.

    Takes mean and standard deviation as observed and searches for the smallest total
    of seeds, up to 200, at which either equivalence or a difference would be found.
    From less than two differences nothing is known of their spread: then the mean is
    taken as 0 and the standard deviation as `assumed_sd`. None: 200 would not do.
    """
    _check_margin(margin)
    array = _finite(differences, fewest=0)
    known = array.size >= 2
    mean = float(array.mean()) if known else 0.0
    sd = assumed_sd
    if known:
        sd = 0.0 if _all_equal(array) else float(array.std(ddof=1))
    for total in range(max(array.size + 1, FEWEST_SEEDS), MOST_SEEDS + 1):
        chances = (
            equivalence_power(total, mean, sd, margin),
            difference_power(total, mean, sd),
        )
        if max(chances) >= POWER:
            return total - array.size
    return None


def equivalence_power(count: int, mean: float, sd: float, margin: float) -> float:
    """Chance that `count` normal paired differences pass `equivalence` at p < 0.05.

    Averages the normal probability over the distribution of the observed standard
    deviation (Phillips 1990, here by quadrature at 400 quantiles of chi squared).
    """
    if sd <= ROUNDING:
        return float(abs(mean) < margin - ROUNDING)
    from scipy.special import ndtr

    error = sd / math.sqrt(count)
    errors = error * _likely_ratios(count)
    room = margin - _t_quantile(1 - SIGNIFICANCE, count - 1) * errors
    chances = ndtr((room - mean) / error) - ndtr((-room - mean) / error)
    return float(np.mean(np.where(room > 0, chances, 0.0)))


def difference_power(count: int, mean: float, sd: float) -> float:
    """Chance that `count` normal paired differences show that their mean is not 0.

    That of the two-sided paired t test, by the same quadrature (SciPy 1.17's
    noncentral t is NaN for some large effects), near that of the sign-flip test; 0
    below 6, where that test cannot.
    """
    if 2 * 0.5**count >= SIGNIFICANCE:
        return 0.0
    if sd <= ROUNDING:
        return float(abs(mean) > ROUNDING)
    from scipy.special import ndtr

    error = sd / math.sqrt(count)
    errors = error * _likely_ratios(count)
    bound = _t_quantile(1 - SIGNIFICANCE / 2, count - 1) * errors
    return float(np.mean(ndtr((mean - bound) / error) + ndtr((-mean - bound) / error)))


@functools.cache
def _likely_ratios(count: int) -> Floats:
    """400 equally likely ratios of the observed to the true standard error."""
    from scipy.special import gammaincinv

    freedom = count - 1
    levels = (np.arange(400) + 0.5) / 400
    chi_squared = 2 * gammaincinv(freedom / 2, levels)
    ratios = np.sqrt(chi_squared / freedom, dtype=np.float64)
    ratios.flags.writeable = False
    return ratios


def excludes_zero(estimate: Estimate) -> bool:
    """Whether the interval, if there is one, lies on one side of 0."""
    low, high = estimate.low, estimate.high
    return low is not None and high is not None and (low > 0 or high < 0)


def _finite(values: Sequence[float], fewest: int = 1) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < fewest or not np.isfinite(array).all():
        raise ValueError(f"expected at least {fewest} finite numbers, got {values!r}")
    return array


def _check_margin(margin: float) -> None:
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"expected a margin above 0, got {margin!r}")


def _check_shapes(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> None:
    if left.shape != right.shape or left.size == 0:
        raise ValueError(
            f"expected answers to the same images, got {left.shape} and {right.shape}"
        )


def _all_equal(array: Floats) -> bool:
    return bool(np.ptp(array) <= ROUNDING)


def _standard_error(array: Floats) -> float:
    return float(array.std(ddof=1)) / math.sqrt(array.size)


def _t_quantile(level: float, freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, level))
