"""Numbers against closed forms, published examples and brute force."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from paripassu.analysis import statistics as judged

MARGIN = 0.001
# Darwin's maize, crossed minus self-fertilised, 1/8 inch (Fisher 1935, section 17).
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]

# Differences in accuracy as they come: whole images of a test set of 10,000.
images = st.integers(-60, 60).map(lambda count: count / 10_000)


def pairs(least: int, most: int) -> st.SearchStrategy[list[float]]:
    return st.lists(images, min_size=least, max_size=most)


# Spread


def test_spread_is_median_and_range():
    spread = judged.spread([3.0, 1.0, 2.0, 10.0])
    assert (spread.median, spread.low, spread.high, spread.n) == (2.5, 1.0, 10.0, 4)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_nothing_and_not_a_number_are_refused(values):
    for function in (judged.spread, judged.mean_estimate, judged.bootstrap_estimate):
        with pytest.raises(ValueError, match="finite"):
            function(values)


# Wilson


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_the_published_table(correct, count, low, high):
    estimate = judged.wilson(correct, count)
    assert estimate.mean == correct / count
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (low, high)
    assert estimate.n == 1


@given(st.integers(1, 20_000), st.data())
def test_wilson_bounds_solve_the_score_equation(count, data):
    correct = data.draw(st.integers(0, count))
    estimate = judged.wilson(correct, count)
    z = NormalDist().inv_cdf(0.975)
    for bound in (estimate.low, estimate.high):
        score = z * math.sqrt(max(0.0, bound * (1 - bound)) / count)
        assert abs(estimate.mean - bound) == pytest.approx(score, abs=1e-9)
    assert 0 <= estimate.low <= estimate.mean <= estimate.high <= 1


@pytest.mark.parametrize(("correct", "count"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_impossible_counts(correct, count):
    with pytest.raises(ValueError, match="correct <= count"):
        judged.wilson(correct, count)


# Means


def test_students_interval_against_the_table_of_t():
    estimate = judged.mean_estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.776445 * math.sqrt(2.5 / 5)  # t(0.975, 4)
    assert estimate.mean == 3.0
    assert estimate.low == pytest.approx(3 - half, rel=1e-6)
    assert estimate.high == pytest.approx(3 + half, rel=1e-6)


@pytest.mark.parametrize("function", [judged.mean_estimate, judged.bootstrap_estimate])
def test_one_value_has_no_interval(function):
    estimate = function([0.5])
    assert (estimate.mean, estimate.low, estimate.high, estimate.n) == (
        0.5,
        None,
        None,
        1,
    )


@pytest.mark.parametrize("function", [judged.mean_estimate, judged.bootstrap_estimate])
@pytest.mark.parametrize(("count", "bound"), [(2, None), (4, None), (5, 0.1), (9, 0.1)])
def test_equal_values_have_no_width_and_too_few_no_interval(function, count, bound):
    estimate = function([0.1] * count)
    assert (estimate.mean, estimate.low, estimate.high) == (0.1, bound, bound)


def all_resamples_bca(values):
    """Efron's interval with all n^n resamples in place of random ones."""
    array = np.asarray(values)
    size = len(array)
    means = np.array([np.mean(x) for x in itertools.product(array, repeat=size)])
    normal = NormalDist()
    below = (np.mean(means < array.mean()) + np.mean(means <= array.mean())) / 2
    bias = normal.inv_cdf(float(below))
    left_out = np.array([np.delete(array, i).mean() for i in range(size)])
    gap = left_out.mean() - left_out
    acceleration = (gap**3).sum() / (6 * (gap**2).sum() ** 1.5)
    bounds = []
    for z in (normal.inv_cdf(0.025), normal.inv_cdf(0.975)):
        level = normal.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        bounds.append(float(np.quantile(means, level)))
    return bounds


@pytest.mark.parametrize(
    "values", [[1.0, 2.5, 3.1, 4.7, 9.2], [-2.0, -0.3, 0.1, 0.2, 0.9]]
)
def test_bootstrap_against_all_resamples(values):
    estimate = judged.bootstrap_estimate(values)
    low, high = all_resamples_bca(values)
    assert estimate.method == "bca bootstrap"
    assert estimate.low == pytest.approx(low, abs=0.02 * (high - low))
    assert estimate.high == pytest.approx(high, abs=0.02 * (high - low))


def test_bootstrap_covers_the_true_mean_and_not_a_far_one():
    draws = np.random.default_rng(5).normal(0.3, 1.0, size=(120, 12))
    estimates = [judged.bootstrap_estimate(list(row)) for row in draws]
    covered = np.mean([x.low <= 0.3 <= x.high for x in estimates])
    far = np.mean([x.low <= 1.8 <= x.high for x in estimates])
    assert 0.86 <= covered <= 0.99  # BCa is a little short at n = 12
    assert far < 0.05


@given(pairs(5, 12))
@settings(max_examples=40, deadline=None)
def test_bootstrap_is_finite_ordered_and_repeatable(values):
    estimate = judged.bootstrap_estimate(values)
    assert min(values) - 1e-12 <= estimate.low <= estimate.high
    assert estimate.high <= max(values) + 1e-12
    assert judged.bootstrap_estimate(values) == estimate


def test_bootstrap_below_five_is_students():
    estimate = judged.bootstrap_estimate([0.1, 0.2, 0.4])
    assert estimate == judged.mean_estimate([0.1, 0.2, 0.4])
    assert estimate.method == "student t"


# Equivalence


@given(pairs(2, 20), st.sampled_from([0.0005, 0.001, 0.002]))
def test_equivalence_is_the_larger_p_of_two_t_tests(differences, margin):
    assume(np.ptp(differences) > 0)
    found = judged.equivalence(differences, margin)
    above = scipy.stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = scipy.stats.ttest_1samp(differences, margin, alternative="less").pvalue
    assert found.p == pytest.approx(max(above, below), abs=1e-9)


@given(pairs(2, 20), st.floats(1e-5, 0.01))
def test_equivalence_and_the_90_percent_interval_say_the_same(differences, margin):
    found = judged.equivalence(differences, margin)
    edge = min(margin - found.high, margin + found.low)
    assume(abs(edge) > 1e-9)
    assert (found.p < 0.05) == (edge > 0)
    if np.ptp(differences) > 0:
        interval = scipy.stats.ttest_1samp(differences, 0).confidence_interval(0.9)
        assert (found.low, found.high) == pytest.approx(
            (interval.low, interval.high), abs=1e-12
        )


@pytest.mark.parametrize(
    ("value", "p"), [(0.0, 0.0), (0.0009, 0.0), (-0.0009, 0.0), (0.001, 1.0), (0.2, 1)]
)
def test_equivalence_without_spread(value, p):
    found = judged.equivalence([value] * 6, MARGIN)
    assert (found.p, found.low, found.high) == pytest.approx((p, value, value))


def test_accuracies_that_differ_by_rounding_alone_have_no_spread():
    differences = [0.99 - 0.98, 0.5 - 0.49, 0.01]
    assert len(set(differences)) > 1
    assert judged.equivalence(differences, 0.02).p == 0.0
    assert judged.equivalence(differences, 0.01).p == 1.0


def test_equivalence_needs_two():
    assert judged.equivalence([0.1], MARGIN) is None


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan, math.inf])
def test_a_margin_is_above_zero(margin):
    for function in (judged.equivalence, judged.decide, judged.more_seeds):
        with pytest.raises(ValueError, match="margin"):
            function([0.1, 0.2], margin)


# Sign flips


def test_sign_flips_of_darwins_maize():
    assert judged.sign_flip_p(MAIZE) == 1726 / 2**15  # Fisher 1935, section 21


@given(pairs(1, 9))
def test_sign_flips_against_enumeration(differences):
    counts = [round(10_000 * value) for value in differences]  # exact in integers
    patterns = itertools.product((1, -1), repeat=len(counts))
    sums = [abs(sum(s * c for s, c in zip(x, counts, strict=True))) for x in patterns]
    expected = sum(x >= abs(sum(counts)) for x in sums) / len(sums)
    assert judged.sign_flip_p(differences) == expected


@pytest.mark.parametrize(("count", "p"), [(5, 0.0625), (6, 0.03125), (16, 2**-15)])
def test_smallest_sign_flip_p(count, p):
    assert judged.sign_flip_p([0.001] * count) == p


def test_random_sign_flips_are_near_the_exact_ones():
    differences = [*MAIZE, 5, -20]
    signs = np.array(list(itertools.product((1, -1), repeat=len(differences))))
    exact = np.mean(np.abs(signs @ np.array(differences)) >= abs(sum(differences)))
    assert len(differences) > judged.EXACT_FLIPS
    assert judged.sign_flip_p(differences) == pytest.approx(exact, abs=0.01)
    assert judged.sign_flip_p([1.0] * 40) == 1 / 20_001


# McNemar and churn


@pytest.mark.parametrize(
    ("left_only", "right_only"), [(1, 8), (0, 5), (10, 10), (3, 0)]
)
def test_mcnemar_is_the_binomial_of_discordant_images(left_only, right_only):
    both = 50
    left = np.array([True] * (both + left_only) + [False] * right_only)
    right = np.array([True] * both + [False] * left_only + [True] * right_only)
    total = left_only + right_only
    tail = sum(math.comb(total, k) for k in range(min(left_only, right_only) + 1))
    assert judged.mcnemar_p(left, right) == pytest.approx(min(1, 2 * tail / 2**total))
    assert judged.discordant(left, right) == (left_only, right_only)


def test_mcnemar_without_discordant_images():
    answers = np.array([True, False])
    assert judged.mcnemar_p(answers, answers) == 1.0


def test_churn_counts_answers_not_errors():
    assert judged.churn(np.array([1, 2, 3, 4]), np.array([1, 7, 8, 4])) == 0.5


def test_answers_to_other_images_are_refused():
    for function in (judged.churn, judged.mcnemar_p):
        with pytest.raises(ValueError, match="same images"):
            function(np.array([True]), np.array([True, False]))


# Power


@pytest.mark.parametrize(
    ("count", "sd", "margin", "power"),
    [  # percentage points, as in the table that the margin was chosen by
        (5, 0.05, 0.1, 0.95),
        (10, 0.08, 0.1, 0.95),
        (20, 0.12, 0.1, 0.95),
        (10, 0.12, 0.2, 1.00),
    ],
)
def test_power_of_equivalence_against_the_published_figures(count, sd, margin, power):
    found = judged.equivalence_power(count, 0.0, sd, margin)
    assert round(found, 2) == power


def test_three_seeds_have_no_power():
    assert judged.equivalence_power(3, 0.0, 0.05, 0.1) < 0.6


@pytest.mark.parametrize(
    ("count", "mean", "sd"), [(5, 0.0, 0.0006), (8, 0.0004, 0.0008), (3, 0.0, 0.001)]
)
def test_power_of_equivalence_against_simulation(count, mean, sd):
    draws = np.random.default_rng(3).normal(mean, sd, size=(40_000, count))
    half = scipy.stats.t.ppf(0.95, count - 1) * draws.std(axis=1, ddof=1)
    inside = np.abs(draws.mean(axis=1)) + half / math.sqrt(count) < MARGIN
    found = judged.equivalence_power(count, mean, sd, MARGIN)
    assert found == pytest.approx(inside.mean(), abs=0.01)


def test_power_of_a_difference():
    # 34 pairs give 80% at an effect of half a standard deviation (Cohen 1988)
    assert judged.difference_power(34, 0.5, 1.0) == pytest.approx(0.808, abs=0.001)
    assert judged.difference_power(33, 0.5, 1.0) < 0.8
    assert judged.difference_power(20, 0.0, 1.0) == pytest.approx(0.05, abs=1e-4)
    assert judged.difference_power(5, 9.0, 1.0) == 0.0


def test_power_without_spread():
    assert judged.equivalence_power(5, 0.0, 0.0, MARGIN) == 1.0
    assert judged.equivalence_power(5, 0.002, 0.0, MARGIN) == 0.0
    assert judged.difference_power(6, 0.002, 0.0) == 1.0
    assert judged.difference_power(6, 0.0, 0.0) == 0.0


@given(st.integers(2, 200), st.floats(-1, 1), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_power_is_a_probability(count, mean, sd):
    for power in (
        judged.equivalence_power(count, mean, sd, MARGIN),
        judged.difference_power(count, mean, sd),
    ):
        assert 0 <= power <= 1 + 1e-12


# How many more


@pytest.mark.parametrize("differences", [[], [0.002]])
def test_more_seeds_assumes_a_spread_when_none_is_known(differences):
    total = judged.more_seeds(differences, MARGIN) + len(differences)
    powers = [
        judged.equivalence_power(n, 0.0, 0.0008, MARGIN) for n in (total - 1, total)
    ]
    assert powers[0] < 0.8 <= powers[1]
    more = judged.more_seeds(differences, MARGIN, assumed_sd=0.0016)
    assert more + len(differences) > total


def test_more_seeds_asks_for_five_at_least_and_one_at_least():
    assert judged.more_seeds([0.0, 0.0], MARGIN) == 3
    assert judged.more_seeds([0.0] * 7, MARGIN) == 1
    assert judged.more_seeds([0.005, 0.005], MARGIN) == 4  # a difference needs six


def test_more_seeds_gives_up():
    wild = [0.05, -0.05, 0.04, -0.04]
    assert judged.more_seeds(wild, MARGIN) is None


# Verdicts

NOISE = [-2, -1, 0, 1, 2, -1, 1, 0, 1, -1]  # sums to 0


def around(mean, scale, count):
    return [mean + scale * x for x in NOISE[:count]]


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        (around(0.0, 0.0002, 10), "equivalent"),
        (around(0.0, 0.0002, 5), "equivalent"),
        ([0.0] * 5, "equivalent"),
        (around(0.0005, 0.0001, 10), "equivalent"),
        (around(0.005, 0.0002, 10), "different"),
        (around(-0.005, 0.0002, 6), "different"),
        ([0.005] * 6, "different"),
        (around(0.005, 0.0002, 5), "undecided"),  # the sign-flip p cannot be small
        (around(0.0, 0.003, 10), "undecided"),
        (around(0.001, 0.0001, 4), "undecided"),
        ([0.0] * 4, "undecided"),
        ([0.005], "undecided"),
        ([], "undecided"),
    ],
)
def test_verdicts(differences, verdict):
    decision = judged.decide(differences, MARGIN)
    assert decision.verdict == verdict
    if verdict != "undecided":
        assert decision.more_seeds is None


def test_a_small_difference_is_equivalent_and_there():
    assert judged.decide(around(0.0005, 0.0001, 10), MARGIN).small_but_there
    assert not judged.decide(around(0.0, 0.0002, 10), MARGIN).small_but_there
    assert not judged.decide(around(0.005, 0.0002, 10), MARGIN).small_but_there


@given(pairs(0, 4), st.sampled_from([0.0001, 0.001, 0.01, 0.5]))
@settings(max_examples=40, deadline=None)
def test_less_than_five_seeds_never_decide(differences, margin):
    decision = judged.decide(differences, margin)
    assert decision.verdict == "undecided"
    assert decision.more_seeds is None or (
        decision.more_seeds + len(differences) >= judged.FEWEST_SEEDS
    )


@given(pairs(5, 9))
@settings(max_examples=30, deadline=None)
def test_a_verdict_needs_all_its_evidence_and_has_no_side(differences):
    decision = judged.decide(differences, MARGIN)
    mirrored = judged.decide([-value for value in differences], MARGIN)
    assert (decision.verdict == "equivalent") == (decision.equivalence.p < 0.05)
    assert (mirrored.verdict == "equivalent") == (decision.verdict == "equivalent")
    if decision.verdict == "different":
        assert len(differences) >= 6
        assert decision.sign_flip_p < 0.05
        assert decision.difference.low > 0 or decision.difference.high < 0
        assert decision.equivalence.p >= 0.05


def test_equal_frameworks_are_seldom_called_different():
    draws = np.random.default_rng(8).normal(0.0, 0.002, size=(80, 10))
    verdicts = [judged.decide(list(row), MARGIN).verdict for row in draws]
    assert verdicts.count("different") <= 8
    assert verdicts.count("equivalent") <= 8  # the spread is too large to say so
