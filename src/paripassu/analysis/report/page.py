"""Puts the page together: what each section says, and the template around it."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Template
from markupsafe import Markup

from paripassu.analysis.proof.ladder import CONTROL_RUNG, DRAWS_RUNG
from paripassu.analysis.proof.parity import LARGEST
from paripassu.analysis.report import (
    benchmark,
    costs,
    divergence,
    figures,
    panes,
    speed,
    svg,
    tables,
    words,
)
from paripassu.analysis.report.figures import Framework
from paripassu.analysis.report.gather import Runs, read_pictures, read_runs
from paripassu.analysis.report.next_step import next_step
from paripassu.analysis.report.templates import style, templates
from paripassu.analysis.schema import Comparison, Disagreement, Pair, Proof, RungResult
from paripassu.analysis.text import counted, display_name, together

GLYPHS = {"equivalent": "≈", "different": "≠", "undecided": "?"}
UNPRINTABLE = re.compile(
    r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)


@dataclass(frozen=True)
class Verdict:
    """One pair's verdict, and what can be said of its speed."""

    pair: str
    call: str
    glyph: str
    sentence: str
    speed: str | None


@dataclass(frozen=True)
class Gallery:
    """Where two frameworks disagree."""

    left: Framework
    right: Framework
    items: Sequence[Disagreement]
    lead: str


def render(folder: Path, comparison: Comparison) -> str:
    """The page as HTML."""
    runs = read_runs(folder, comparison)
    shown = _frameworks(comparison, runs)
    trained = [item for item in shown if item.runs]
    proof = comparison.proof
    found = (tables.confusions(item, runs.confusion(item.name)) for item in trained)
    matrices = [table for table in found if table]
    bench_figure, bench_problems = benchmark.figure(folder)
    rows, without_lesson = panes.align([item.name for item in shown])
    html = _template().render(
        css=style(),
        comparison=comparison,
        shown=shown,
        trained=trained,
        verdicts=_verdicts(comparison, trained),
        no_pair=_no_pair(comparison),
        step=next_step(comparison, trained),
        notices=[item for item in shown if item.summary.message],
        warnings=[*comparison.warnings, *runs.problems, *bench_problems],
        key_figures=tables.key_figures(comparison, shown),
        accuracy=[
            *figures.accuracy(trained),
            *(
                figure
                for number, pair in enumerate(comparison.pairs)
                for figure in figures.difference(pair, number, trained)
            ),
        ],
        together=together(comparison),
        tests=[(_names(pair), [*tables.tests(pair)]) for pair in _judged(comparison)],
        curves=figures.learning_curves(trained, _split(trained)),
        split=_split(trained),
        times=costs.times(trained),
        memory=costs.memory_and_latency(trained),
        bench_figure=bench_figure,
        galleries=_galleries(comparison, shown),
        pictures=read_pictures(comparison),
        matrices=matrices,
        top=tables.top_confusions(matrices),
        proof_lead=_proof_lead(proof),
        proof_figure=proof and divergence.figure(proof.curves),
        lesson_rows=rows,
        without_lesson=[display_name(name) for name in without_lesson],
        lessons=[item for item in shown if item.name not in without_lesson],
        recipe=[
            (key, value)
            for key, value in tables.flat(comparison.recipe)
            if value and key not in ("description", "source")
        ],
        environment=tables.environment(trained),
        run_rows=tables.run_rows(comparison, trained),
        limits=_limits(comparison, trained),
    )
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", html)


@functools.cache
def _template() -> Template:
    environment = templates()
    environment.filters.update(
        percent=words.percent, scientific=words.scientific, display_name=display_name
    )
    environment.globals.update(mark=_mark, rung_difference=_rung_difference)
    return environment.get_template("report.html")


def _frameworks(comparison: Comparison, runs: Runs) -> list[Framework]:
    known = figures.styles(comparison.frameworks)
    return [
        Framework(name, display_name(name), known[name], summary, runs.of(name))
        for name, summary in comparison.frameworks.items()
    ]


def _mark(style: int) -> Markup:
    """The colour and the mark of a framework, beside its name."""
    return Markup(
        '<svg aria-hidden="true" class="swatch" viewBox="0 0 12 12">'
        f"{svg.marker(style, 6, 6, 4.4)}</svg>"
    )


def _names(pair: Pair) -> str:
    return f"{display_name(pair.left)} and {display_name(pair.right)}"


def _judged(comparison: Comparison) -> list[Pair]:
    return [pair for pair in comparison.pairs if pair.seeds]


def _verdicts(comparison: Comparison, trained: Sequence[Framework]) -> list[Verdict]:
    return [
        Verdict(
            pair=_names(pair),
            call=_call(pair),
            glyph=GLYPHS[pair.verdict],
            sentence=pair.sentence,
            speed=speed.sentence(pair, trained),
        )
        for pair in _judged(comparison)
    ]


def _call(pair: Pair) -> str:
    """What is known of a pair, in a line."""
    known = {
        "equivalent": "equivalent",
        "different": "different",
        "undecided": "no difference shown",
    }
    return f"Accuracy: {known[pair.verdict]}, n = {len(pair.seeds)}"


def _no_pair(comparison: Comparison) -> str:
    """Why there is no verdict at all; "" if there is one."""
    if _judged(comparison):
        return ""
    finished = [n for n, summary in comparison.frameworks.items() if summary.runs]
    if not finished:
        return "No verdict: no run has finished."
    if len(finished) == 1:
        return (
            f"No verdict: only {display_name(finished[0])} has finished runs, and it "
            "takes two to compare."
        )
    return "No verdict: no seed has finished in two frameworks."


def _split(trained: Sequence[Framework]) -> str:
    monitors = {run.record.monitor for item in trained for run in item.runs}
    return " or ".join(sorted(monitors)) or "test"


def _galleries(comparison: Comparison, shown: Sequence[Framework]) -> list[Gallery]:
    by_name = {item.name: item for item in shown}
    galleries = []
    for pair in _judged(comparison):
        left, right = by_name[pair.left], by_name[pair.right]
        n = counted(len(pair.seeds), "paired seed")
        lead = f"{left.title} and {right.title} answer every test image alike ({n})."
        if pair.disagreement_count:
            times = counted(pair.disagreement_count, "time")
            lead = f"{left.title} and {right.title} disagree {times} over {n}"
            if pair.churn is not None:
                lead += f", {words.percent(pair.churn.mean)} of all answers"
            listed = len(pair.disagreements)
            if listed < pair.disagreement_count:
                lead += (
                    f". Here are the {listed} images on which the less sure of the two "
                    "is surest, each at one seed"
                )
            lead += "."
        galleries.append(Gallery(left, right, pair.disagreements, lead))
    return galleries


def _rung_difference(rung: RungResult) -> str:
    if rung.difference is None:
        return "–"
    if rung.rung == DRAWS_RUNG:
        return "other bytes" if rung.difference else "same bytes"
    if rung.difference >= LARGEST:
        return "infinite"
    if rung.rung == CONTROL_RUNG:
        return f"{rung.difference:.2g} of the allowed"
    return words.scientific(rung.difference)


def _proof_lead(proof: Proof | None) -> str:
    if proof is None:
        return "There is no proof in this comparison."
    if proof.message:
        return (
            "The proof could not be made: a framework crashed. So it is not "
            "known whether the figures below compare like with like."
        )
    if not proof.rows:
        return f"The proof {'holds' if proof.holds else 'does not hold'}."
    worst = max(
        proof.rows, key=lambda row: (not row.holds, row.difference / (row.bound or 1))
    )
    count = counted(len(proof.rows), "quantity").replace("quantitys", "quantities")
    if proof.holds:
        return (
            f"The proof holds. Given the same weights, images and dropout masks, in "
            f"{proof.precision}, the twins give the same numbers in {count}; the one "
            f"nearest its bound, {worst.quantity}, differs by "
            f"{words.scientific(worst.difference)} of its size."
        )
    off = sum(not row.holds for row in proof.rows)
    if not off:
        fallen = [rung.name for rung in proof.rungs if rung.status == "fails"]
        return (
            "The proof does not hold: "
            f"{', '.join(fallen) or 'a framework could not take part'}."
        )
    return (
        f"The proof does not hold: {off} of {count} differ by more than rounding can. "
        f"The worst is {worst.quantity} ({display_name(worst.left)} and "
        f"{display_name(worst.right)}), {words.scientific(worst.difference)} where "
        f"{words.scientific(worst.bound, 0)} is allowed. The two do not train the same "
        "network: figures of accuracy below compare unlike things."
    )


def _limits(comparison: Comparison, trained: Sequence[Framework]) -> list[str]:
    """What the page can't tell, honestly and with this comparison's numbers."""
    where = comparison.environment
    machine = (
        f"One machine ({where.processor}, {where.device})" if where else "One machine"
    )
    limits = [
        f"{machine}, at one time. On other hardware the ratio of the times may be "
        "another, or turn round.",
        "One network and one recipe. A framework that is faster here may be slower for "
        "a transformer, or for large images.",
    ]
    accuracies = [x.mean for item in trained if (x := item.summary.test_accuracy)]
    if comparison.dataset and accuracies:
        share = sum(accuracies) / len(accuracies)
        count = comparison.dataset.test_size
        error = 100 * math.sqrt(share * (1 - share) / count)
        limits.append(
            f"{count:,} test images. Drawn anew, they alone would move an accuracy of "
            f"{words.percent(share)} by about {error:.2f} points (binomial standard "
            "error). Intervals over seeds do not contain this; Wilson’s contains "
            "nothing else."
        )
    limits += [
        "Runs of one seed share initial weights and the order of images, not the "
        "dropout masks, which each framework draws itself. That makes seeds pairs; it "
        "does not make runs identical, and rounding alone would part them.",
        "Peak memory is that of a whole process, and mostly the framework itself. "
        "Times are wall-clock times: they include whatever else the machine was doing.",
        "Equivalent means: closer than the margin. The margin is a choice, made before "
        "the runs. How pleasant a framework is to write, debug and deploy is not "
        "measured here; the code below lets you judge the first.",
    ]
    return limits
