"""The charts of time and memory, and what their captions say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from paripassu.analysis.report import charts, words
from paripassu.analysis.report.charts import Bar, BarGroup, DotRow, Text
from paripassu.analysis.report.figures import Figure, Framework, plain_tick
from paripassu.analysis.report.gather import middle
from paripassu.analysis.schema import FrameworkSummary, InferenceTime, Spread
from paripassu.analysis.text import counted

MOST_DOTS = 240  # more epochs than that are shown as one dot a run

Stages = Sequence[tuple[str, Callable[[FrameworkSummary], Spread | None]]]


def times(shown: Sequence[Framework]) -> list[Figure]:
    """Time per epoch, where the time of a run goes, and what comes before training."""
    return [*_epoch_times(shown), *_whole_runs(shown), *_before_training(shown)]


def _epoch_times(shown: Sequence[Framework]) -> list[Figure]:
    many = sum(len(r.record.epochs) for item in shown for r in item.timed) > MOST_DOTS
    rows, counts = [], []
    for item in shown:
        spread = item.summary.epoch_seconds
        if many:
            values = [x for r in item.timed if (x := r.epoch_seconds) is not None]
        else:
            values = [e.seconds for r in item.timed for e in r.record.epochs]
        if spread is None or not values:
            continue
        note = words.seconds(spread.median)
        rows.append(DotRow(item.style, item.title, note, values, spread.median))
        n = f"{words.n(spread.n, 'epoch')} of {counted(len(item.timed), 'run')}"
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
        if not item.timed:
            continue
        training = middle(r.training_seconds for r in item.timed) or 0.0
        evaluation = middle(r.evaluation_seconds for r in item.timed) or 0.0
        rest = middle(r.other_seconds for r in item.timed) or 0.0
        note = (
            f"training {words.seconds(training)}, evaluation "
            f"{words.seconds(evaluation)}, all else {words.seconds(rest)}"
        )
        parts = (training, evaluation, rest)
        bars.append(Bar(item.style, item.title, parts, note=note))
    text = Text(
        "whole-runs",
        "Where the time of a run goes",
        "; ".join(f"{bar.label}: {bar.note}" for bar in bars),
    )
    counts = words.for_each(
        [(i.title, words.n(len(i.timed), "run")) for i in shown if i.timed]
    )
    caption = (
        "Full shade: training. Half: evaluation after each epoch. Pale: all else, from "
        f"the start of the process to the last file. Medians over runs. {counts}"
    )
    return _figure(text, [BarGroup("", bars)] if bars else [], caption)


def _before_training(shown: Sequence[Framework]) -> list[Figure]:
    stages: Stages = [
        ("Start-up: process and import", lambda s: s.start_up_seconds),
        ("Reading the data", lambda s: s.data_seconds),
        ("Building the network", lambda s: s.build_seconds),
        ("Warm-up: the first steps, compilation", lambda s: s.warm_up_seconds),
    ]
    groups = _groups(shown, stages)
    text = Text("before-training", "Before training begins", _described(groups))
    n = _n(shown, stages, "session")
    return _figure(text, groups, f"Medians, and whiskers from least to most. {n}")


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
    if len(groups) == 1:
        groups = [BarGroup("", groups[0].bars)]
    text = Text("memory", "Peak memory", _described(groups, words.memory))
    counts = words.for_each(
        [(i.title, i.n) for i in shown if i.summary.peak_memory_bytes]
    )
    caption = (
        "The most that the process held at once: framework, data and network "
        f"together. Medians over runs. {counts}"
    )
    return _figure(text, groups, caption, words.memory)


def _latencies(shown: Sequence[Framework]) -> list[Figure]:
    sizes = sorted(
        {i.summary.inference.batch_size for i in shown if i.summary.inference}
    )
    batch = f"a batch of {' or '.join(map(str, sizes))} images"
    kinds: list[tuple[str, str, Callable[[InferenceTime], Spread]]] = [
        ("latency-one", "one image", lambda x: x.single_seconds),
        ("latency-batch", batch, lambda x: x.batch_seconds),
    ]
    figures = []
    for name, what, value in kinds:
        stages = [("", lambda s, of=value: of(s.inference) if s.inference else None)]
        groups = _groups(shown, stages)
        text = Text(name, f"Answering: {what}", _described(groups))
        caption = (
            "A forward pass, NumPy in to NumPy out. Each run gives the median of "
            "its repeats; bars are medians over runs, whiskers least to most. "
            f"{_n(shown, stages, 'run')}"
        )
        figures += _figure(text, groups, caption)
    return figures


def _figure(
    text: Text,
    groups: Sequence[BarGroup],
    caption: str,
    unit: charts.Format = words.seconds,
) -> list[Figure]:
    """A chart of bars; none without bars."""
    if not groups:
        return []
    return [Figure(text.title, charts.bar_chart(text, groups, unit), caption)]


def _groups(shown: Sequence[Framework], stages: Stages) -> list[BarGroup]:
    groups = []
    for heading, value in stages:
        bars = [
            Bar(item.style, item.title, (spread.median,), (spread.low, spread.high))
            for item in shown
            if (spread := value(item.summary))
        ]
        if bars:
            groups.append(BarGroup(heading, bars))
    return groups


def _described(groups: Sequence[BarGroup], unit: charts.Format = words.seconds) -> str:
    return "; ".join(
        f"{group.heading}: ".removeprefix(": ")
        + ", ".join(f"{bar.label} {unit(sum(bar.parts))}" for bar in group.bars)
        for group in groups
    )


def _n(shown: Sequence[Framework], stages: Stages, noun: str) -> str:
    counts = []
    for item in shown:
        known = [x.n for _, value in stages if (x := value(item.summary))]
        if known:
            counts.append((item.title, words.n(known[0], noun)))
    return words.for_each(counts)
