"""Walk the traces of twins, rung by rung, to the first place where they part.

A trace is named arrays, as `paripassu.worker.traces` makes them:

- `draws.<what>`: SHA-256 of what a framework was given, uint8 `(32,)`;
- `evaluation.<layer>` and `logits`: the first batch, dropout off;
- `<step>.activation.<layer>`, `<step>.loss`, `<step>.gradient.<weight>`,
  `<step>.slot.<weight>.<slot>`, `<step>.weight.<weight>`: a training step;
- `moved.` and `amplified.` before any of these but the step: from another start, see
  `paripassu.worker.starts`;
- `trained.<what>`: what a trainer's own short training reports and ends at, see
  `paripassu.worker.rehearsal`;
- `given.labels`: of the first batch, to find causes by, not compared;
- `rate`: the learning rate of every step; `losses`: those of the trajectory;
  `final.weight.<weight>`: what it ends at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.analysis.proof.tolerance import (
    EPS,
    RUNG_OF,
    TRAJECTORY_CONTROL,
    bound_of,
    rate_bound,
)
from paripassu.analysis.schema import Divergence, ProofRow
from paripassu.core.layer_spec import relative_error
from paripassu.core.networks import ARTICLE, Network
from paripassu.core.steps import STARTS

Trace = Mapping[str, npt.NDArray[Any]]
LARGEST = 1e300  # stands for infinity, which JSON has not


@dataclass(frozen=True)
class Name:
    """A name in a trace, taken apart."""

    step: int | None
    kind: str  # what its bound hangs on
    quantity: str  # as a person reads it
    start: str = ""  # one of STARTS, or the initial weights


def read_name(name: str) -> Name:
    """`"0.gradient.conv1.kernel"` -> step 0, "gradient", "gradient conv1.kernel"."""
    first, _, rest = name.partition(".")
    if first in STARTS:
        kind, _, place = rest.partition(".")
        return Name(None, kind, f"{kind} {place}".strip(), first)
    if first.isdigit():
        word, _, place = rest.partition(".")
        kind = word if first == "0" else "later"
        return Name(int(first), kind, f"{word} {place}".strip())
    kind = "later" if first in ("losses", "final") else first
    if first in ("final", "trained"):
        rest = rest.removeprefix("weight.")
    return Name(None, kind, f"{first} {rest}".strip())


def difference(
    left: npt.NDArray[Any], right: npt.NDArray[Any], *, norm: bool = False
) -> float:
    """`max|left - right| / max|left|`, or the same of norms.

    0 for equal arrays, infinite where shapes differ or anything is not finite. Shapes
    are never made to agree: a transposed array is a different array.
    """
    if left.shape != right.shape or not (np.isfinite(left) & np.isfinite(right)).all():
        return float("inf")
    if not norm or np.array_equal(left, right):
        return relative_error(left, right)
    exact = left.astype(np.float64)
    gap, size = float(np.linalg.norm(exact - right)), float(np.linalg.norm(exact))
    return gap / size if size > 0 else float("inf")


def compare_traces(
    left: str,
    right: str,
    a: Trace,
    b: Trace,
    *,
    precision: str = "float64",
    network: Network = ARTICLE,
) -> list[ProofRow]:
    """One row for each array, in the order in which an error would spread.

    `left` made the trace `a`, the yardstick, and `right` the trace `b`; arrays that
    only one has do not hold. The bounds are those of `precision`, "float64" or
    "float32"; the layers have the order of `network`.
    """
    rows = []
    for text in sorted(a.keys() | b.keys()):
        if text.startswith("given."):
            continue
        name = read_name(text)
        kind = name.kind
        bound = bound_of(kind, precision)
        size = rate_bound(a[text].size) if text == "rate" and text in a else bound.size
        gap, step = float("inf"), name.step
        if text in a and text in b:
            if name.kind == "draws":
                gap = 0.0 if np.array_equal(a[text], b[text]) else float("inf")
            elif text in ("losses", "rate"):
                gap, step = _first_gap(a[text], b[text], size)
            else:
                gap = difference(a[text], b[text], norm=bound.norm)
        rows.append(
            ProofRow(
                left=left,
                right=right,
                quantity=name.quantity,
                difference=min(gap, LARGEST),
                bound=size,
                holds=gap <= size,
                rung=RUNG_OF[kind],
                step=step,
                start=name.start,
                precision=precision,
            )
        )
    return sorted(rows, key=_order(network))


def beside_control(
    rows: Sequence[ProofRow], a: Trace, b: Trace, control: Trace
) -> list[ProofRow]:
    """The rows of a trajectory, judged by how far the reference parts from itself.

    `rows` are those of `compare_traces` for the traces `a` of the reference and `b`;
    `control` holds the reference's losses and final weights, perturbed by one ulp. Each
    loss may differ by as much as the control's losses differ up to there, times
    `TRAJECTORY_CONTROL`. Rows of other rungs stay as they are, and all in their order.
    """
    judged = []
    for row in rows:
        name = row.quantity.replace("final ", "final.weight.", 1)
        if row.rung != RUNG_OF["later"] or row.holds or name not in control:
            judged.append(row)
            continue
        if name == "losses":
            allowed = np.maximum.accumulate(_gaps(a[name], control[name]))
            bounds = np.maximum(row.bound, TRAJECTORY_CONTROL * allowed)
            over = ~(_gaps(a[name], b[name]) <= bounds)
            step = int(np.flatnonzero(over)[0]) if over.any() else None
            bound = float(bounds.max())
            holds = step is None
        else:
            own = TRAJECTORY_CONTROL * difference(a[name], control[name])
            bound, step = max(row.bound, own), row.step
            holds = row.difference <= bound
        found = {"bound": min(bound, LARGEST), "holds": holds, "step": step}
        judged.append(row.model_copy(update=found))
    return judged


def _first_gap(
    left: npt.NDArray[Any], right: npt.NDArray[Any], bound: float
) -> tuple[float, int | None]:
    """The largest relative gap of two series, and the first step over the bound."""
    if left.shape != right.shape:
        return float("inf"), min(left.size, right.size)
    gaps = _gaps(left, right)
    over = np.flatnonzero(~(gaps <= bound))
    return float(gaps.max(initial=0.0)), int(over[0]) if over.size else None


def _gaps(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The relative gap of each pair of numbers; infinite where one is not finite."""
    with np.errstate(invalid="ignore"):
        size = np.maximum(np.abs(left), np.finfo(np.float64).tiny)
        gaps = np.abs(left - right) / size
    return np.where(np.isfinite(left) & np.isfinite(right), gaps, np.inf)


def _order(network: Network) -> Any:
    layers = ["input", *(layer.name for layer in network.layers)]
    drawn = ["order", "weight", "images", "labels", "masks", "fed"]
    starts = ["", *STARTS]
    kinds = (
        *("draws", "evaluation", "logits", "activation", "loss"),
        *("gradient", "slot", "weight", "rate", "losses", "final", "trained"),
    )

    def key(row: ProofRow) -> tuple[Any, ...]:
        kind, _, place = row.quantity.partition(" ")
        layer = place.split(".")[0]
        position = layers.index(layer) if layer in layers else -1
        if kind == "gradient":
            position = -position  # backward
        if kind == "draws":
            position = drawn.index(layer)
        slot = place.rpartition(".")[2] if kind == "slot" else ""
        step = row.step
        if step is None:
            last = ("losses", "final", "trained")
            step = 10**9 if kind in last else -1  # last or first
        return (
            row.rung,
            starts.index(row.start),
            step,
            kinds.index(kind),
            slot,
            position,
            place,
        )

    return key


def first_divergence(rows: Sequence[ProofRow]) -> Divergence | None:
    """Where the twins part first: the lowest rung, its first step, its culprit.

    `rows` are in the order of `compare_traces`.

    Within one walk (the layers forward, or the gradients backward) the culprit is the
    row at which the error jumps most over the largest before it, so that a small error
    that later layers enlarge over the bound is found where it was made. The measure is
    that of Muffin (Gu et al., ICSE 2022), with the largest error for the last one.
    """
    failing = [row for row in rows if not row.holds]
    if not failing:
        return None
    first = min(failing, key=lambda row: row.precision != "float64")
    kind = first.quantity.split()[0]
    walk = [
        row
        for row in rows
        if row.quantity.split()[0] == kind
        and (row.right, row.step, row.precision, row.start)
        == (first.right, first.step, first.precision, first.start)
    ]
    culprit = _largest_jump(walk) if kind in WALKS else first
    place = culprit.quantity.partition(" ")[2]
    return Divergence(
        framework=culprit.right,
        rung=first.rung or 0,
        precision=culprit.precision,
        step=culprit.step,
        start=culprit.start,
        layer=place.split(".")[0] or None,
        quantity=culprit.quantity,
        difference=culprit.difference,
        bound=culprit.bound,
        cause=None,
    )


WALKS = ("evaluation", "activation", "gradient")


def _largest_jump(walk: Sequence[ProofRow]) -> ProofRow:
    highest = EPS[walk[0].precision]
    jumps = []
    for row in walk:
        jumps.append(row.difference / highest)
        highest = max(highest, row.difference)
    return walk[int(np.argmax(jumps))]
