"""What a norm that is written out computes: over which axes, with which epsilon.

It is read off values: an output of a segment is a norm of its input if it is the input,
centred or not, over one root for all that it is taken over. What the root adds to the
variance is the epsilon, the same everywhere, if n or n - 1 and the form are right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, product
from typing import Any

import numpy as np

from paripassu.core.layer_spec import Array, relative_error
from paripassu.port_check.results import Cause
from paripassu.port_check.seen import Seen
from paripassu.port_check.tolerance import GUESSED, GUESSED_32

LARGEST = 0.5  # no epsilon is larger
LEAST = 1e-9  # of the variance; a smaller epsilon is rounding
SAME_EPSILON = 1e-3  # relative
LAYERS = ("layer_norm", "rms_norm")
FIRST = 2  # examples that are looked at
SPREAD = 1e-6  # of what is added, relative to the variance: float32 may be used
NORMS = 4  # that are looked at in a segment
AXES = 4  # of arrays whose axes are tried


@dataclass(frozen=True)
class Norm:
    """A norm of one input.

    Attributes:
        axes: over which it is taken.
        centred: whether the mean is taken away.
        less: 1, where the variance is divided by n - 1.
        outside: whether the epsilon is added to the root.
        epsilon: what is added, and how far off it may be.
    """

    axes: tuple[int, ...]
    centred: bool
    less: int
    outside: bool
    epsilon: float
    doubt: float = 0.0


@np.errstate(all="ignore")
def compare_norms(left: Sequence[Seen], right: Sequence[Seen]) -> Cause | None:
    """What differs in the norms of two segments; None: nothing, or no norms."""
    weights = [x for seen in (*left, *right) for x in seen.constants]
    ones, twos = (list(islice(_find_norms(x, weights), NORMS)) for x in (left, right))
    for given, one in ones:
        for other, two in twos:
            if _is_same(given, other):
                if found := _compare(one, two):
                    return found
                break
    return None


def _is_same(one: Array, other: Array) -> bool:
    return one.shape == other.shape and relative_error(one, other) <= GUESSED


def _compare(one: Norm, two: Norm) -> Cause | None:
    """What differs in two norms of the same input."""
    told: list[tuple[str, str]] = []
    if one.axes != two.axes:
        told.append(
            ("axis", f"it is over axes {one.axes} on the left, {two.axes} right")
        )
    if one.centred != two.centred:
        which = "left" if one.centred else "right"
        told.append(("layer-kind", f"only the {which} one takes the mean away"))
    if one.less != two.less:
        names = [f"n{' - 1' if x.less else ''}" for x in (one, two)]
        text = f"the variance is divided by {names[0]} on the left, by {names[1]} right"
        told.append(("variance-divisor", text))
    epsilons = one.epsilon, two.epsilon
    if one.outside != two.outside:
        places = ["outside" if x.outside else "under" for x in (one, two)]
        text = f"epsilon: left {places[0]} the root, right {places[1]}"
        told.append(("epsilon", text))
    elif abs(epsilons[0] - epsilons[1]) > max(
        SAME_EPSILON * max(epsilons), one.doubt, two.doubt
    ):
        text = f"epsilon: left {epsilons[0]:.3g}, right {epsilons[1]:.3g}"
        told.append(("epsilon", text))
    if not told:
        return None
    key, *also = (x for x, _ in told)
    return Cause(key=key, sentence="; ".join(x for _, x in told), also=tuple(also))


def _find_norms(
    calls: Sequence[Seen], weights: Sequence[Array]
) -> Iterator[tuple[Array, Norm]]:
    """The norms of a segment, each of another input, and what they are given."""
    known: list[Array] = []
    for number, begin in enumerate(calls):
        if not (begin.varying or begin.inputs):
            continue
        given = (begin.varying or begin.inputs)[0]
        if not 2 <= given.ndim <= AXES or given.dtype.kind != "f":
            continue
        if any(_is_same(given, x) for x in known):
            continue
        if begin.call.kind in LAYERS:
            if "epsilon" in begin.call.spec.settings:
                known.append(given)
                yield given, _of_layer(begin.call.spec.settings, given.ndim, begin)
            continue
        if norm := _first_norm(given, calls[number:], weights):
            known.append(given)
            yield given, norm


def _first_norm(
    whole: Array, calls: Sequence[Seen], weights: Sequence[Array]
) -> Norm | None:
    """The first of what is called that is a norm of an input."""
    given = whole[:FIRST].astype(np.float64)
    scales = [
        x.astype(np.float64)
        for x in weights
        if x.dtype.kind == "f" and 1 < x.size <= given.size
    ]
    for seen in calls:
        for made in seen.outputs[:1]:
            if made.ndim != given.ndim or made.dtype.kind != "f":
                continue
            if made[:FIRST].shape == given.shape:
                near = GUESSED_32 if made.dtype == np.float32 else GUESSED
                wide = made[:FIRST].astype(np.float64)
                if norm := _as_norm(given, wide, scales, near):
                    return norm
    return None


def _of_layer(settings: Mapping[str, Any], count: int, seen: Seen) -> Norm:
    axes = settings.get("axis") or range(-settings.get("axes", 1), 0)
    axes = tuple(sorted(x % count for x in axes))
    centred = seen.call.kind == "layer_norm"
    return Norm(axes, centred, 0, False, float(settings["epsilon"]))


def _as_norm(
    given: Array, made: Array, weights: Sequence[Array], near: float
) -> Norm | None:
    """The norm that one array is of another one, times a weight or not."""
    for weight in (None, *weights):
        try:
            plain = made if weight is None else made / weight
        except ValueError:
            continue
        if plain.shape != given.shape or not np.isfinite(plain).all():
            continue
        for axes, centred in product(_axes(given.ndim), (True, False)):
            mean = given.mean(axes, keepdims=True) if centred else 0.0
            if norm := _with_root(given - mean, plain, axes, centred, near):
                return norm
    return None


def _axes(count: int) -> Iterator[tuple[int, ...]]:
    """Those over which norms are taken: the last one first."""
    for size in range(1, count):
        yield from reversed([*combinations(range(1, count), size)])


def _with_root(
    centre: Array, made: Array, axes: tuple[int, ...], centred: bool, near: float
) -> Norm | None:
    squares = (made**2).sum(axes, keepdims=True)
    if not squares.all():
        return None
    root = (centre * made).sum(axes, keepdims=True) / squares
    if root.size < 2 or not (root > 0).all():
        return None
    if np.ptp(root) <= near * root.max() or relative_error(centre, made * root) > near:
        return None
    variance = (centre**2).mean(axes, keepdims=True)
    count = centre.size // variance.size
    best: tuple[float, Norm] | None = None
    for less, outside in product((0, 1) if count > 1 else (0,), (False, True)):
        whole = variance * count / (count - less)
        added = root - np.sqrt(whole) if outside else root**2 - whole
        spread = float(np.ptp(added)) / float(whole.max())
        epsilon = max(float(np.median(added)), 0.0)
        if float(np.median(added)) < -LEAST * float(whole.max()) or epsilon > LARGEST:
            continue
        if best is None or spread < best[0]:
            doubt = float(np.ptp(added))
            best = spread, Norm(axes, centred, less, outside, epsilon, doubt)
    return best[1] if best and best[0] <= SPREAD else None
