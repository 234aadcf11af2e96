"""The charts of time and memory, and what their captions say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from paripassu.analysis.report import charts, words
from paripassu.analysis.report.charts import Bar, BarGroup, DotRow, Text
from paripassu.analysis.report.figures import Figure, Framework, plain_tick
from paripassu.analysis.report.gather import middle
from paripassu.analysis.schema import FrameworkSummary, Spread

MOST_DOTS = 240  # more epochs than that are shown as one dot a run


def times(shown: Sequence[Framework]) -> list[Figure]:
    """Time per epoch, where the time of a run goes, and what comes before training."""
    return [*_epoch_times(shown), *_whole_runs(shown), *_before_training(shown)]


def _epoch_times(shown: Sequence[Framework]) -> list[Figure]:
    many = sum(len(r.record.epochs) for item in shown for r in item.runs) > MOST_DOTS
    rows = []
    counts = []
    for item in shown:
        spread = item.summary.epoch_seconds
        if many:
            values = [r.epoch_seconds for r in item.runs if r.epoch_seconds is not None]
        else:
            values = [e.seconds for r in item.runs for e in r.record.epochs]
        if spread is None or not values:
            continue
        note = words.seconds(spread.median)
        rows.append(DotRow(item.style, item.title, note, values, spread.median))
        n = f"{words.n(spread.n, 'epoch')} of {words.counted(len(item.runs), 'run')}"
        counts.append((item.title, n))
    if not rows:
        return []
    text = Text(
        "epoch-times",
        "Time per epoch",
        "; ".join(f"{row.label}: median {row.note}" for row in rows),
        "seconds of training per epoch",
    )
    dots = "the median epoch of each run" if many else "every epoch"
    caption = (
        f"Training alone, compilation and evaluation apart; {dots}, and the median "
        f"below. The axis does not start at zero. {words.for_each(counts)}"
    )
    return [Figure(text.title, charts.dot_plot(text, rows, plain_tick), caption)]


def _whole_runs(shown: Sequence[Framework]) -> list[Figure]:
    bars = []
    for item in shown:
        if not item.runs:
            continue
        training = middle(r.training_seconds for r in item.runs) or 0.0
        evaluation = middle(r.evaluation_seconds for r in item.runs) or 0.0
        rest = middle(r.other_seconds for r in item.runs) or 0.0
        note = (
            f"training {words.seconds(training)}, evaluation "
            f"{words.seconds(evaluation)}, all else {words.seconds(rest)}"
        )
        parts = (training, evaluation, rest)
        bars.append(Bar(item.style, item.title, parts, note=note))
    if not bars:
        return []
    text = Text(
        "whole-runs",
        "Where the time of a run goes",
        "; ".join(f"{bar.label}: {bar.note}" for bar in bars),
    )
    picture = charts.bar_chart(text, [BarGroup("", bars)], words.seconds)
    counts = words.for_each([(i.title, _n_runs(i)) for i in shown if i.runs])
    caption = (
        "Full shade: training. Half: evaluation after each epoch. Pale: all else, from "
        f"the start of the process to the last file. Medians over runs. {counts}"
    )
    return [Figure(text.title, picture, caption)]


def _before_training(shown: Sequence[Framework]) -> list[Figure]:
    stages: list[tuple[str, Callable[[FrameworkSummary], Spread | None]]] = [
        ("Start-up: process and import", lambda s: s.start_up_seconds),
        ("Reading the data", lambda s: s.data_seconds),
        ("Building the network", lambda s: s.build_seconds),
        ("Warm-up: the first steps, compilation", lambda s: s.warm_up_seconds),
    ]
    groups = _groups(shown, stages)
    text = Text("before-training", "Before training begins", _described(groups))
    picture = charts.bar_chart(text, groups, words.seconds)
    n = _n(groups, shown, stages, "session")
    caption = f"Medians, and whiskers from least to most. {n}"
    return [Figure(text.title, picture, caption)] if groups else []


def memory_and_latency(shown: Sequence[Framework]) -> list[Figure]:
    """Peak memory, and the latency of one image and of a batch."""
    return [*_memory(shown), *_latencies(shown)]


def _memory(shown: Sequence[Framework]) -> list[Figure]:
    kinds: list[tuple[str, Callable[[FrameworkSummary], int | None]]] = [
        ("Process, resident", lambda s: s.peak_memory_bytes),
        ("Accelerator", lambda s: s.peak_accelerator_bytes),
    ]
    groups = []
    for heading, value in kinds:
        known = [(item, value(item.summary)) for item in shown]
        bars = [Bar(item.style, item.title, (size,)) for item, size in known if size]
        if bars:
            groups.append(BarGroup(heading, bars))
    if not groups:
        return []
    if len(groups) == 1:
        groups = [BarGroup("", groups[0].bars)]
    text = Text("memory", "Peak memory", _described(groups, words.memory))
    picture = charts.bar_chart(text, groups, words.memory)
    counts = words.for_each(
        [(i.title, _n_runs(i)) for i in shown if i.summary.peak_memory_bytes]
    )
    caption = (
        "The most that the process held at once: framework, data and network "
        f"together. Medians over runs. {counts}"
    )
    return [Figure(text.title, picture, caption)]


def _latencies(shown: Sequence[Framework]) -> list[Figure]:
    sizes = sorted(
        {i.summary.inference.batch_size for i in shown if i.summary.inference}
    )
    batch = f"A batch of {' or '.join(map(str, sizes))} images"
    kinds: list[tuple[str, str, Callable[[FrameworkSummary], Spread | None]]] = [
        (
            "latency-one",
            "One image",
            lambda s: s.inference.single_seconds if s.inference else None,
        ),
        (
            "latency-batch",
            batch,
            lambda s: s.inference.batch_seconds if s.inference else None,
        ),
    ]
    figures = []
    for name, heading, value in kinds:
        stages = [("", value)]
        groups = _groups(shown, stages)
        if groups:
            text = Text(name, f"Answering: {heading.lower()}", _described(groups))
            caption = (
                "A forward pass, NumPy in to NumPy out. Each run gives the median of "
                "its repeats; bars are medians over runs, whiskers least to most. "
                f"{_n(groups, shown, stages, 'run')}"
            )
            picture = charts.bar_chart(text, groups, words.seconds)
            figures.append(Figure(text.title, picture, caption))
    return figures


def _groups(
    shown: Sequence[Framework],
    stages: Sequence[tuple[str, Callable[[FrameworkSummary], Spread | None]]],
) -> list[BarGroup]:
    groups = []
    for heading, value in stages:
        bars = []
        for item in shown:
            spread = value(item.summary)
            if spread is not None:
                interval = (spread.low, spread.high)
                bars.append(Bar(item.style, item.title, (spread.median,), interval))
        if bars:
            groups.append(BarGroup(heading, bars))
    return groups


def _described(groups: Sequence[BarGroup], unit: charts.Format = words.seconds) -> str:
    return "; ".join(
        f"{group.heading}: ".removeprefix(": ")
        + ", ".join(f"{bar.label} {unit(sum(bar.parts))}" for bar in group.bars)
        for group in groups
    )


def _n_runs(item: Framework) -> str:
    return words.n(len(item.runs), "run")


def _n(
    groups: Sequence[BarGroup],
    shown: Sequence[Framework],
    stages: Sequence[tuple[str, Callable[[FrameworkSummary], Spread | None]]],
    noun: str,
) -> str:
    counts = []
    for item in shown:
        spreads = [value(item.summary) for _, value in stages]
        known = [spread.n for spread in spreads if spread is not None]
        if known:
            counts.append((item.title, words.n(known[0], noun)))
    return words.for_each(counts) if groups else ""
