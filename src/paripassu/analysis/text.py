"""The judges' sentences, and the names and numbers in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paripassu.analysis.plan import Plan
from paripassu.analysis.schema import Comparison, Estimate
from paripassu.analysis.statistics import FEWEST_SEEDS, MOST_SEEDS, Decision
from paripassu.core.record import RunRecord
from paripassu.frameworks.registry import REFERENCE, title_of

_WORDS = {2: "Two", 3: "Three", 4: "Four"}


def display_name(framework: str) -> str:
    """A framework's name as its makers write it; "the reference" for what proves."""
    if framework == REFERENCE.name:
        return "the reference"
    return title_of(framework)


def points(fraction: float, decimals: int = 2) -> str:
    """A signed fraction as percentage points: 0.0012 -> "+0.12", and never "-0.00"."""
    return signed(100 * fraction, decimals)


def signed(value: float, decimals: int) -> str:
    """A number with its sign: 0.5 -> "+0.50", -0.5 -> "−0.50", and never "−0.00"."""
    value = round(value, decimals)
    if value == 0:
        return f"{0:.{decimals}f}"
    return f"{value:+.{decimals}f}".replace("-", "−")


def mebibytes(count: float) -> str:
    """Bytes, whole MiB: 1554653184 -> "1,483 MiB"."""
    return f"{count / 2**20:,.0f} MiB"


def counted(count: int, noun: str) -> str:
    """1 -> "1 run", 2 -> "2 runs", 2000 -> "2,000 runs"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def printable(name: str) -> str:
    """A file's name, with what would disturb a terminal written as escapes."""
    return "".join(
        x if x.isprintable() else x.encode("unicode_escape").decode() for x in name
    )


def probability(share: float) -> str:
    """A probability with two digits, never rounded to certainty."""
    if share > 0.9999:
        return ">99.99%"
    return "<0.01%" if share < 0.0001 else f"{share:.2%}"


def together(comparison: Comparison) -> list[str]:
    """What networks of several seeds say together, and how far apart seeds are."""
    found = []
    for name, item in comparison.frameworks.items():
        title, whole, seeds = (
            display_name(name),
            item.ensemble_accuracy,
            item.seed_spread,
        )
        if whole and item.test_accuracy and seeds:
            found.append(
                f"{title}: {whole.n} networks that answer together "
                f"{whole.mean:.2%}, one alone {item.test_accuracy.mean:.2%}. Seeds are "
                f"{100 * seeds.measured:.3f} points apart (standard deviation); errors "
                "that are independent from image to image make it "
                f"{100 * seeds.expected:.3f}."
            )
    if whole := comparison.ensemble_accuracy:
        found.append(f"All {whole.n} networks together: {whole.mean:.2%}.")
    return found


def listed_seeds(seeds: Sequence[int]) -> str:
    """Such as "42", "42 to 44", "42, 44"."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def fate(
    plan: Plan,
    name: str,
    records: Mapping[str, RunRecord],
    damage: Mapping[str, str] | None = None,
) -> str:
    """Why a run is not among the finished ones; `damage` tells it by name of run."""
    if damage and name in damage:
        return damage[name]
    if name in plan.failures:
        return f"failed: {plan.failures[name]}"
    if name in records:
        return f"stopped after {counted(len(records[name].epochs), 'epoch')}"
    return "not started"


def sentence(left: str, right: str, decision: Decision) -> str:
    """A verdict in two or three plain sentences, with n and in percentage points."""
    one, other = display_name(left), display_name(right)
    if decision.difference is None:
        return (
            f"No seed was finished in both {one} and {other}: there is nothing to "
            f"compare. At least {FEWEST_SEEDS} paired seeds are needed for a verdict."
        )
    write = {"equivalent": _equivalent, "different": _different}.get(
        decision.verdict, _undecided
    )
    return write(one, other, decision, decision.difference)


def _equivalent(one: str, other: str, decision: Decision, estimate: Estimate) -> str:
    test = decision.equivalence
    assert test is not None
    decimals = _decimals(decision.margin)
    text = (
        f"Over {estimate.n} paired seeds, {one} and {other} are equivalent: the mean "
        f"difference in test accuracy ({one} − {other}) is "
        f"{points(estimate.mean, decimals)} points (90% interval "
        f"{points(test.low, decimals)} to {points(test.high, decimals)}), inside the "
        f"margin of {_margin(decision)} points (two one-sided t tests, "
        f"{p_value(test.p)})."
    )
    if decision.small_but_there:
        text += (
            " A difference of such a size is there (sign-flip test, "
            f"{p_value(decision.sign_flip_p)}), but it is smaller than the margin."
        )
    return text


def _different(one: str, other: str, decision: Decision, estimate: Estimate) -> str:
    better = one if estimate.mean > 0 else other
    return (
        f"Over {estimate.n} paired seeds, {one} and {other} differ: the mean "
        f"difference in test accuracy ({one} − {other}) is "
        f"{_with_interval(decision, estimate)}, so that {better} is the more accurate "
        f"(sign-flip test, {p_value(decision.sign_flip_p)}). Equivalence within "
        f"{_margin(decision)} points is not shown."
    )


def _undecided(one: str, other: str, decision: Decision, estimate: Estimate) -> str:
    seen = f"in test accuracy ({one} − {other}) is {_with_interval(decision, estimate)}"
    more = f"Even {MOST_SEEDS} seeds would hardly decide"
    if decision.more_seeds is not None:
        more = f"About {counted(decision.more_seeds, 'more seed')} would decide"
    if estimate.n == 1:
        return (
            f"One seed is not enough for a verdict (at least {FEWEST_SEEDS} are "
            f"needed): the difference {seen}. {more}, if the two are equally good and "
            f"their difference varies by {100 * decision.assumed_sd:.2f} points "
            "(standard deviation) from seed to seed, which is an assumption."
        )
    if estimate.n < FEWEST_SEEDS:
        return (
            f"{_WORDS[estimate.n]} paired seeds are not enough for a verdict (at least "
            f"{FEWEST_SEEDS} are needed): the mean difference {seen}. {more}, if mean "
            "and spread stay as they are."
        )
    return (
        f"Over {estimate.n} paired seeds, nothing is decided between {one} and "
        f"{other}: the mean difference {seen}. That shows neither equivalence within "
        f"{_margin(decision)} points nor a difference. {more}, if mean and spread stay "
        "as they are."
    )


def _with_interval(decision: Decision, estimate: Estimate) -> str:
    decimals = _decimals(decision.margin)
    text = f"{points(estimate.mean, decimals)} points"
    if estimate.low is None or estimate.high is None:
        return text
    return (
        f"{text} (95% interval {points(estimate.low, decimals)} to "
        f"{points(estimate.high, decimals)})"
    )


def _decimals(margin: float) -> int:
    return 2 if margin >= 0.0005 else 3


def _margin(decision: Decision) -> str:
    return f"±{100 * decision.margin:.{_decimals(decision.margin)}f}"


def p_value(value: float | None) -> str:
    """A p value with three digits: "p < 0.001", "p = 0.0123"."""
    assert value is not None
    return "p < 0.001" if value < 0.001 else f"p = {value:.3g}"
