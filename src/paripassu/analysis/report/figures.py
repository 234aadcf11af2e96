"""The charts of accuracy and of learning, and what their captions say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from paripassu.analysis.report import charts, words
from paripassu.analysis.report.charts import Curve, DotRow, Text
from paripassu.analysis.report.gather import Run, mean_curve
from paripassu.analysis.schema import FrameworkSummary, Pair
from paripassu.analysis.text import counted, display_name, points
from paripassu.core.record import Epoch
from paripassu.frameworks.registry import FRAMEWORKS

STYLES = 6  # colours, of which each has its mark
MOST_POINTS = 6_000  # of one framework in a chart of curves


@dataclass(frozen=True)
class Framework:
    """One framework as the page shows it; `style` picks its colour and its mark."""

    name: str
    title: str
    style: int
    summary: FrameworkSummary
    runs: list[Run]

    @property
    def timed(self) -> list[Run]:
        """Its runs on the kind of machine that figures of time are of."""
        return [run for run in self.runs if run.timed]

    @property
    def n(self) -> str:
        """How many runs it has: "n = 10 runs"."""
        return words.n(len(self.runs), "run")


def styles(names: Iterable[str]) -> dict[str, int]:
    """Of each framework its colour and mark: a known one always has the same."""
    order = list(dict.fromkeys([*FRAMEWORKS, *names]))
    return {name: place % STYLES for place, name in enumerate(order)}


@dataclass(frozen=True)
class Figure:
    """A chart with its heading and its caption."""

    title: str
    picture: Markup
    caption: str


def accuracy(shown: Sequence[Framework]) -> list[Figure]:
    """Every run's test accuracy, and each framework's mean with its interval."""
    rows, methods = [], []
    for item in shown:
        estimate = item.summary.test_accuracy
        values = [r.test_accuracy for r in item.runs if r.test_accuracy is not None]
        if estimate is None or not values:
            continue
        interval = _interval(estimate.low, estimate.high)
        note = words.percent(estimate.mean)
        rows.append(
            DotRow(item.style, item.title, note, values, estimate.mean, interval)
        )
        n = words.n(estimate.n, "run")
        methods.append((item.title, f"{n}, {words.method(estimate)}"))
    if not rows:
        return []
    text = Text(
        "accuracy-runs",
        "Test accuracy of every run",
        "; ".join(f"{row.label} {row.note}" for row in rows),
        "test accuracy after the last epoch",
    )
    caption = "One mark a run; below, mean and interval. " + words.for_each(methods)
    return [Figure(text.title, charts.dot_plot(text, rows, percent_tick), caption)]


def difference(pair: Pair, number: int, shown: Sequence[Framework]) -> list[Figure]:
    """The paired differences of two frameworks by seed."""
    by_seed = paired(pair, shown, lambda run: run.test_accuracy)
    if not by_seed or pair.difference is None:
        return []
    estimate, test = pair.difference, pair.equivalence
    left, right = display_name(pair.left), display_name(pair.right)
    intervals = {}
    if estimate.low is not None and estimate.high is not None:
        intervals["95%"] = (estimate.low, estimate.high)
    if test is not None:
        intervals["90%"] = (test.low, test.high)
    text = Text(
        f"difference-{number}",
        f"{left} − {right}, seed by seed",
        f"Mean difference {points(estimate.mean)} points over "
        f"{counted(estimate.n, 'paired seed')}.",
        "difference in test accuracy, points",
    )
    drawn = charts.Differences(
        left,
        right,
        [(seed, one - other) for seed, one, other in by_seed],
        estimate.mean,
        intervals,
        test.margin if test else None,
    )
    caption = f"{words.n(estimate.n, 'paired seed')}."
    if estimate.low is not None:
        caption += f" 95%: {words.method(estimate)}."
    if test is not None:
        caption += (
            " 90%: the interval of the two one-sided t tests; equivalent if it lies "
            f"inside the band, ±{100 * test.margin:.2g} points."
        )
    picture = charts.difference_plot(text, drawn, lambda v, d: points(v, max(0, d - 2)))
    return [Figure(text.title, picture, caption)]


def learning_curves(shown: Sequence[Framework], split: str) -> list[Figure]:
    """Accuracy and loss on the monitored split, and the training loss, by epoch."""
    accuracy, loss = f"Accuracy, {split} set", f"Loss, {split} set"
    kinds: list[tuple[str, str, Callable[[Epoch], float], charts.TickFormat]] = [
        ("monitor-accuracy", accuracy, lambda e: e.monitor_accuracy, percent_tick),
        ("monitor-loss", loss, lambda e: e.monitor_loss, plain_tick),
        ("training-loss", "Training loss", lambda e: e.training_loss, plain_tick),
    ]
    captions = {
        "monitor-accuracy": "Share answered right, after each epoch, dropout off.",
        "monitor-loss": "Cross-entropy, nats per image, after each epoch, dropout off.",
        "training-loss": "Mean over the epoch, dropout on, while the weights change: "
        "no wonder that it lies higher.",
    }
    figures = []
    for name, title, value, tick in kinds:
        curves, ends = [], []
        for item in shown:
            runs = [
                [(float(epoch.epoch), value(epoch)) for epoch in epochs]
                for run in item.runs
                if (epochs := _thinned(run.record.epochs, len(item.runs)))
            ]
            if runs:
                mean = mean_curve(runs)
                curves.append(Curve(item.style, runs, mean))
                if mean:
                    ends.append(f"{item.title} ends at {mean[-1][1]:.4g}")
        if curves:
            text = Text(f"curve-{name}", title, "; ".join(ends), "epoch")
            picture = charts.line_chart(text, curves, tick)
            figures.append(Figure(title, picture, captions[name]))
    return figures


def _thinned(epochs: Sequence[Epoch], runs: int) -> list[Epoch]:
    """Fewer epochs where there are thousands of points, with the first and the last."""
    every = 1 + len(epochs) * runs // MOST_POINTS
    return [*epochs[:-1:every], *epochs[-1:]]


def paired(
    pair: Pair, shown: Sequence[Framework], value: Callable[[Run], float | None]
) -> list[tuple[int, float, float]]:
    """Seed, left's and right's value, of the seeds that both have finished."""
    sides = []
    for name in (pair.left, pair.right):
        runs = [run for item in shown if item.name == name for run in item.runs]
        sides.append({run.record.seed: value(run) for run in runs})
    found = []
    for seed in pair.seeds:
        one, other = sides[0].get(seed), sides[1].get(seed)
        if one is not None and other is not None:
            found.append((seed, one, other))
    return found


def _interval(low: float | None, high: float | None) -> charts.Interval | None:
    return None if low is None or high is None else (low, high)


def percent_tick(value: float, decimals: int) -> str:
    """A tick of an axis of fractions, as a percentage."""
    return words.percent(value, max(0, decimals - 2))


def plain_tick(value: float, decimals: int) -> str:
    """A tick of any other axis."""
    return f"{value:.{decimals}f}"
