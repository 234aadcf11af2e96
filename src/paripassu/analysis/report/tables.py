"""The tables of the report: cells of text, ready for the template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paripassu.analysis.report import speed, words
from paripassu.analysis.report.figures import Framework
from paripassu.analysis.report.gather import Counts, Run
from paripassu.analysis.schema import Comparison, Estimate, Pair, Spread
from paripassu.analysis.statistics import EXACT_FLIPS
from paripassu.analysis.text import counted, p_value, points

MOST_CONFUSIONS = 8


@dataclass(frozen=True)
class Cell:
    """A figure, what stands under it, and whether it is ahead beyond doubt."""

    main: str
    note: str = ""
    ahead: bool = False


@dataclass(frozen=True)
class Line:
    """A row of a table with the frameworks as columns."""

    heading: str
    note: str
    cells: list[Cell]


@dataclass(frozen=True)
class Confusions:
    """Answers of one framework to each digit, summed over its runs."""

    framework: Framework
    rows: list[list[int]]
    largest: int  # off the diagonal
    count: str


@dataclass(frozen=True)
class TopConfusions:
    """The mistakes made most often, over all frameworks."""

    rows: list[tuple[int, int, list[int]]]  # label, answer, count by framework
    total: list[int]


NOTHING = Cell("–")


def key_figures(comparison: Comparison, shown: Sequence[Framework]) -> list[Line]:
    """The few figures that the page opens with."""
    sizes = {i.summary.inference.batch_size for i in shown if i.summary.inference}
    batch = f", batch of {sizes.pop()}" if len(sizes) == 1 else ", batch"
    lines = [
        Line(
            "Test accuracy",
            "95% interval",
            [_accuracy(item, comparison.pairs) for item in shown],
        ),
        Line(
            "All seeds together",
            "mean of probabilities",
            [_together(item) for item in shown],
        ),
        Line("Test loss", "nats per image", [_loss(item) for item in shown]),
        Line(
            "Time per epoch",
            "training, median",
            [_epoch_time(item, comparison.pairs, shown) for item in shown],
        ),
        Line(
            "First steps", "compilation", [_time(i, "warm_up_seconds") for i in shown]
        ),
        Line("Start-up", "import", [_time(i, "start_up_seconds") for i in shown]),
        Line(
            "Peak memory",
            "of the process",
            [_memory(item, item.summary.peak_memory_bytes) for item in shown],
        ),
        Line("Latency, one image", "median", [_latency(i, one=True) for i in shown]),
        Line(
            f"Latency{batch}",
            "median",
            [_latency(item, one=False) for item in shown],
        ),
    ]
    if any(item.summary.peak_accelerator_bytes for item in shown):
        cells = [_memory(x, x.summary.peak_accelerator_bytes) for x in shown]
        lines.insert(7, Line("Peak accelerator memory", "median", cells))
    return [line for line in lines if any(cell != NOTHING for cell in line.cells)]


def _accuracy(item: Framework, pairs: Sequence[Pair]) -> Cell:
    estimate = item.summary.test_accuracy
    if estimate is None:
        return NOTHING
    own = [pair for pair in pairs if item.name in (pair.left, pair.right)]
    ahead = bool(own) and all(
        pair.verdict == "different"
        and pair.difference is not None
        and (pair.difference.mean > 0) == (pair.left == item.name)
        for pair in own
    )
    return _share(estimate, "run", ahead=ahead)


def _together(item: Framework) -> Cell:
    estimate = item.summary.ensemble_accuracy
    return _share(estimate, "network") if estimate else NOTHING


def _share(estimate: Estimate, noun: str, *, ahead: bool = False) -> Cell:
    """An accuracy with its interval, and how many stand behind it."""
    parts = (words.accuracy_interval(estimate), words.n(estimate.n, noun))
    return Cell(words.percent(estimate.mean), ", ".join(filter(None, parts)), ahead)


def _loss(item: Framework) -> Cell:
    estimate = item.summary.test_loss
    if estimate is None:
        return NOTHING
    note = words.n(estimate.n, "run")
    if estimate.low is not None and estimate.high is not None:
        note = f"{estimate.low:.4f} to {estimate.high:.4f}, {note}"
    return Cell(f"{estimate.mean:.4f}", note)


def _spread(spread: Spread | None, noun: str = "run", ahead: bool = False) -> Cell:
    if spread is None:
        return NOTHING
    n = words.n(spread.n, noun)
    reach = words.seconds_range(spread)
    note = f"{reach}, {n}" if reach else n
    return Cell(words.seconds(spread.median), note, ahead)


def _epoch_time(
    item: Framework, pairs: Sequence[Pair], shown: Sequence[Framework]
) -> Cell:
    ahead = [
        speed.quicker(pair, shown) == ("left" if pair.left == item.name else "right")
        for pair in pairs
        if item.name in (pair.left, pair.right)
    ]
    return _spread(item.summary.epoch_seconds, "epoch", bool(ahead) and all(ahead))


def _time(item: Framework, name: str) -> Cell:
    return _spread(getattr(item.summary, name), "session")


def _memory(item: Framework, size: int | None) -> Cell:
    return Cell(words.memory(size), item.n) if size else NOTHING


def _latency(item: Framework, *, one: bool) -> Cell:
    inference = item.summary.inference
    if inference is None:
        return NOTHING
    return _spread(inference.single_seconds if one else inference.batch_seconds)


# Tests


def tests(pair: Pair) -> Iterator[tuple[str, str, str]]:
    """What was tested on a pair: name, result, and how."""
    n = counted(len(pair.seeds), "paired seed")
    if found := pair.difference:
        yield (
            "Mean difference",
            f"{points(found.mean)} points{_in_brackets(found.low, found.high)}",
            f"{n}; {words.method(found)}",
        )
    if test := pair.equivalence:
        yield (
            f"Equivalence within ±{100 * test.margin:.2g} points",
            p_value(test.p) + _in_brackets(test.low, test.high, "90% "),
            f"{n}; two one-sided paired t tests (Schuirmann 1987)",
        )
    if pair.sign_flip_p is not None:
        exact = len(pair.seeds) <= EXACT_FLIPS
        yield (
            "Test of no difference",
            p_value(pair.sign_flip_p),
            f"{n}; sign-flip permutation test, two-sided, "
            f"{'exact' if exact else 'by 20,000 random patterns'}",
        )
    if pair.mcnemar_p is not None:
        yield (
            "Test that these two networks are equally accurate",
            p_value(pair.mcnemar_p),
            "one seed; exact McNemar test: of two networks, not of two frameworks",
        )
    if churn := pair.churn:
        reach = words.accuracy_interval(churn)
        yield (
            "Churn",
            words.percent(churn.mean) + (f" ({reach})" if reach else ""),
            f"share of test images that the two answer differently; {n}; "
            f"{words.method(churn)}",
        )


def _in_brackets(low: float | None, high: float | None, what: str = "95% ") -> str:
    if low is None or high is None:
        return ""
    return f" ({what}{points(low)} to {points(high)})"


# Confusion


def confusions(item: Framework, counts: Counts | None) -> Confusions | None:
    """The table of one framework, None without readable predictions."""
    if counts is None:
        return None
    off = counts.copy()
    off[range(len(off)), range(len(off))] = 0
    known = [run for run in item.runs if run.confusion is not None]
    images = int(counts.sum()) // max(1, len(known))
    count = f"{counted(len(known), 'run')} × {images:,} images"
    return Confusions(item, counts.tolist(), int(off.max()), count)


def top_confusions(tables: Sequence[Confusions]) -> TopConfusions:
    """The most frequent mistakes, each with its count in every table."""
    size = min((len(table.rows) for table in tables), default=0)
    mistakes = [
        (label, answer, [table.rows[label][answer] for table in tables])
        for label in range(size)
        for answer in range(size)
        if label != answer
    ]
    known = [mistake for mistake in mistakes if sum(mistake[2])]
    known.sort(key=lambda mistake: -sum(mistake[2]))
    total = [sum(mistake[2][i] for mistake in known) for i in range(len(tables))]
    return TopConfusions(known[:MOST_CONFUSIONS], total)


# Conditions


def flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as dotted keys, in their order; what is None is left out."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{key}.")
        elif value is not None:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            yield f"{before}{key}", text


def environment(shown: Sequence[Framework]) -> list[tuple[str, list[str]]]:
    """Where the first run of each framework ran, one cell if all say the same."""
    records = [item.runs[0].record for item in shown if item.runs]
    if not records:
        return []
    first = [each.environment for each in records]
    rows: list[tuple[str, list[str]]] = [
        ("Processor", [each.processor for each in first]),
        ("Cores that could be used", [str(each.cores) for each in first]),
        ("Threads", [str(each.threads) for each in first]),
        ("Memory", [words.memory(each.memory_bytes) for each in first]),
        ("Device", [each.device for each in first]),
        ("Platform", [each.platform for each in first]),
        ("Python", [each.python for each in first]),
        ("Data", [each.dataset.sentence for each in records]),
    ]
    for kind in ("versions", "settings"):
        tables = [getattr(each, kind) for each in first]
        keys = dict.fromkeys(key for table in tables for key in table)
        rows += [(key, [table.get(key, "–") for table in tables]) for key in keys]
    return [
        (name, values[:1] if len(set(values)) == 1 else values) for name, values in rows
    ]


def run_rows(
    comparison: Comparison, shown: Sequence[Framework]
) -> list[tuple[Framework, Run, list[str]]]:
    """Every finished run in the order of the plan, with its figures."""
    planned = {name: place for place, name in enumerate(comparison.order)}
    rows = []
    for item in shown:
        for run in item.runs:
            record = run.record
            loads = [epoch.other_load for epoch in record.epochs]
            result, peak = record.result, record.peak_memory_bytes
            cells = [
                str(record.seed),
                words.percent(result.test_accuracy) if result else "–",
                f"{result.test_loss:.4f}" if result else "–",
                str(len(record.epochs)),
                words.seconds(run.training_seconds),
                words.memory(peak) if peak else "–",
                f"{max(loads):.0%}" if loads else "–",
                str(len(record.sessions)),
            ]
            rows.append((item, run, cells))
    return sorted(rows, key=lambda row: planned.get(row[1].name, len(planned)))
