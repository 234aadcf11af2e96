"""Judge traces into a proof: the rungs of the ladder, and where it breaks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.analysis.proof.tolerance import (
    CONTROL_FLOOR,
    CONTROL_SIZE,
    CONTROL_TIME,
    EPS,
    LADDER,
)
from paripassu.analysis.schema import Curve, Pair, Proof, ProofRow, RungResult
from paripassu.analysis.text import display_name

Losses = npt.NDArray[np.float64]
DRAWS_RUNG, CONTROL_RUNG, ACCURACY_RUNG = 0, 6, 7
POINTS = 400  # of a curve, that a page draws


def rungs_of(
    rows: Sequence[ProofRow],
    curves: Sequence[Curve] = (),
    pairs: Sequence[Pair] = (),
) -> list[RungResult]:
    """Every rung in every precision that it has, in the order of the ladder."""
    found = [
        _judge_rows(
            rung.number,
            precision,
            [x for x in rows if (x.rung, x.precision) == (rung.number, precision)],
        )
        for precision in ("float64", "float32")
        for rung in LADDER
        if any(precision in bounds for bounds in rung.bounds.values())
    ]
    return [*found, _judge_control(curves), _judge_accuracy(pairs)]


def with_accuracy(proof: Proof, pairs: Sequence[Pair]) -> Proof:
    """The proof with rung 7 judged on a comparison's pairs.

    It is shown, and does not decide: at 5% significance one of twenty comparisons of
    equals says "different".
    """
    rungs = [
        _judge_accuracy(pairs) if rung.rung == ACCURACY_RUNG else rung
        for rung in proof.rungs
    ]
    return proof.model_copy(update={"rungs": rungs})


def _result(number: int, precision: str, status: Any, **values: Any) -> RungResult:
    rung = LADDER[number]
    open_values = dict.fromkeys(("quantity", "difference", "bound", "note"))
    return RungResult(
        rung=number,
        name=rung.name,
        claim=rung.claim,
        precision=precision,
        status=status,
        **{"count": 0, **open_values, **values},
    )


def _judge_rows(number: int, precision: str, rows: Sequence[ProofRow]) -> RungResult:
    if not rows:
        return _result(number, precision, "not run")
    worst = max(rows, key=nearness)
    return _result(
        number,
        precision,
        "holds" if all(row.holds for row in rows) else "fails",
        count=len(rows),
        quantity=f"{worst.quantity}, {worst.start}" if worst.start else worst.quantity,
        difference=worst.difference,
        bound=worst.bound,
    )


def nearness(row: ProofRow) -> tuple[bool, float]:
    """How near a row is to its bound, or how far over it."""
    return not row.holds, row.difference / (row.bound or EPS["float64"])


def gap_curve(label: str, kind: Any, a: Losses, b: Losses, precision: str) -> Curve:
    """The largest gap of the losses so far, thinned out to what can be seen.

    Raises:
        ValueError: the two trainings are not of the same length.
    """
    if a.shape != b.shape:
        raise ValueError(f"expected as many losses, got {a.size} and {b.size}")
    gaps = np.where(np.isfinite(a) & np.isfinite(b), np.abs(a - b), np.inf)
    highest = np.minimum(np.maximum.accumulate(gaps), 1e300)
    steps = np.unique(np.geomspace(1, highest.size, POINTS).round().astype(int))
    return Curve(
        label=label,
        precision=precision,
        kind=kind,
        steps=steps.tolist(),
        gaps=highest[steps - 1].tolist(),
    )


def all_curves(losses: Mapping[tuple[str, str, str], Losses]) -> list[Curve]:
    """Gaps between frameworks, and of each from itself, perturbed by an ulp.

    The key of losses: framework, precision, and the weights that were perturbed, or "".
    """
    found = []
    for precision in ("float64", "float32"):
        names = [n for n, p, perturbed in losses if p == precision and not perturbed]
        names = [name for name in names if name != "numpy"]
        for left, right in itertools.combinations(names, 2):
            label = f"{display_name(left)} and {display_name(right)}"
            a, b = losses[left, precision, ""], losses[right, precision, ""]
            found.append(gap_curve(label, "frameworks", a, b, precision))
        for (left, other, perturbed), b in losses.items():
            if other == precision and perturbed:
                label = f"{display_name(left)}, {perturbed} moved by an ulp"
                a = losses[left, precision, ""]
                found.append(gap_curve(label, "control", a, b, precision))
    return found


def _judge_control(curves: Sequence[Curve]) -> RungResult:
    """No pair of frameworks may part faster than the fastest control."""
    single = [curve for curve in curves if curve.precision == "float32"]
    pairs = [curve for curve in single if curve.kind == "frameworks"]
    controls = [curve for curve in single if curve.kind == "control"]
    if not pairs or not controls:
        return _result(CONTROL_RUNG, "float32", "not run")
    worst, where = 0.0, (pairs[0], 1)
    for pair in pairs:
        for step, gap in zip(pair.steps, pair.gaps, strict=True):
            allowed = max(_gap_at(x, CONTROL_TIME * step) for x in controls)
            share = gap / (CONTROL_SIZE * max(allowed, CONTROL_FLOOR))
            if share > worst:
                worst, where = share, (pair, step)
    pair, step = where
    return _result(
        CONTROL_RUNG,
        "float32",
        "holds" if worst <= 1 else "fails",
        count=sum(len(x.steps) for x in pairs),
        quantity=f"{pair.label}, step {step}",
        difference=min(worst, 1e300),
        bound=1.0,
        note=f"{worst:.2g} of what is allowed: {CONTROL_SIZE:g} times the control's "
        f"gap at {CONTROL_TIME:g} times the step",
    )


def _gap_at(curve: Curve, step: float) -> float:
    """The curve's value at the last of its steps up to `step`."""
    return max(
        (gap for at, gap in zip(curve.steps, curve.gaps, strict=True) if at <= step),
        default=0.0,
    )


def _judge_accuracy(pairs: Sequence[Pair]) -> RungResult:
    judged = [pair for pair in pairs if pair.verdict != "undecided"]
    if not judged:
        note = pairs[0].sentence if pairs else None
        return _result(ACCURACY_RUNG, "float32", "not run", note=note)
    return _result(
        ACCURACY_RUNG,
        "float32",
        "holds" if all(x.verdict == "equivalent" for x in judged) else "fails",
        count=sum(len(x.seeds) for x in judged),
        note=" ".join(x.sentence for x in judged),
    )


def shortened(rows: Sequence[ProofRow]) -> list[ProofRow]:
    """All rows that do not hold, and of the others each quantity's worst step."""
    kept: dict[tuple[str, ...], ProofRow] = {}
    for row in rows:
        key = (row.right, row.precision, row.quantity, row.start)
        if row.holds and (key not in kept or nearness(row) > nearness(kept[key])):
            kept[key] = row
    chosen = set(map(id, kept.values()))
    return [row for row in rows if not row.holds or id(row) in chosen]
