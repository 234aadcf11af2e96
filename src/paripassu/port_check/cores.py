"""The core of an attention that is written out: softmax(scale * q @ k + bias) @ v.

Of each model it is found by what its calls compute: heads, scale and mask are read off
their values, and hold only if they give what the model has. If both cores are given the
same queries, keys and values, what differs in them is the cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from paripassu.core.layer_spec import Array, relative_error
from paripassu.port_check.constants import HIDDEN, tell_hidden
from paripassu.port_check.results import Cause
from paripassu.port_check.seen import Seen
from paripassu.port_check.tolerance import GUESSED
from paripassu.reference.losses import softmax

WHOLE = ("scaled_dot_product_attention", "dot_product_attention")
PRODUCTS = ("query", "key", "value")
SAME_FACTOR = 1e-6  # by which scales may be apart, relative


@dataclass(frozen=True)
class Core:
    """An attention without its dense layers.

    Attributes:
        inputs: query, key and value, each (N, heads, steps, width).
        scale: of the scores.
        hidden: which scores have no weight, (N, heads, queries, keys).
        bias: that is added to the other scores, or None.
    """

    inputs: tuple[Array, Array, Array]
    scale: float
    hidden: Array
    bias: Array | None

    @property
    def heads(self) -> int:
        """How many there are."""
        return int(self.inputs[0].shape[1])

    def joined(self) -> list[Array]:
        """Query, key and value with their heads side by side, (N, steps, channels)."""
        turned = (x.swapaxes(1, 2) for x in self.inputs)
        return [x.reshape(*x.shape[:2], -1) for x in turned]


@np.errstate(all="ignore")
def compare_cores(
    left: Sequence[Seen], right: Sequence[Seen], count: int
) -> Cause | None:
    """What differs in the first attention of two segments that has the same inputs.

    Args:
        left, right: the calls.
        count: of examples.
    """
    pairs = zip(_find_cores(left, count), _find_cores(right, count), strict=False)
    return next((x for x in (_compare(*pair) for pair in pairs) if x), None)


def _compare(left: Core, right: Core) -> Cause | None:
    order = _find_order(left.joined(), right.joined())
    if order is None:
        return None
    names, factors = order
    found: list[tuple[str, str]] = []
    if names != PRODUCTS:
        told = zip(PRODUCTS, names, strict=True)
        text = ", ".join(f"its {x} is the left model's {y}" for x, y in told if x != y)
        found.append(("inputs-exchanged", text))
    widths = [x.inputs[0].shape[-1] for x in (left, right)]
    scales = left.scale, right.scale * factors[0] * factors[1]
    if left.heads != right.heads:
        found.append(
            ("attention-heads", f"heads: left {left.heads}, right {right.heads}")
        )
        natural = [abs(x * n**0.5 - 1) for x, n in zip(scales, widths, strict=True)]
        scaled = max(natural) > SAME_FACTOR
    else:
        scaled = True
    if scaled and abs(scales[1] / scales[0] - 1) > SAME_FACTOR:
        text = f"scale of the scores: left {scales[0]:.6g}, right {scales[1]:.6g}"
        found.append(("attention-scale", text))
    masks = left.hidden, right.hidden
    if left.heads != right.heads:
        masks = left.hidden[:, :1], right.hidden[:, :1]
    elif _differ(left.bias, right.bias):
        return None
    one, two = np.broadcast_arrays(*masks)
    if not np.array_equal(one, two):
        told_masks = zip(("left", "right"), masks, strict=True)
        text = "; ".join(f"{x} hides {tell_hidden(y)}" for x, y in told_masks)
        found.append(("mask", text))
    if not found:
        return None
    key, *also = (x for x, _ in found)
    text = "; ".join(x for _, x in found)
    return Cause(key=key, sentence=text, also=tuple(also))


def _differ(left: Array | None, right: Array | None) -> bool:
    if left is None or right is None:
        return left is not right
    return left.shape != right.shape or relative_error(left, right) > GUESSED


def _find_order(
    left: Sequence[Array], right: Sequence[Array]
) -> tuple[tuple[str, ...], list[float]] | None:
    """Which of the left one's inputs each right one is, and how many times it."""
    for order in permutations(range(3)):
        factors = [_factor(left[n], x) for n, x in zip(order, right, strict=True)]
        known = [x for x in factors if x is not None]
        if len(known) == 3 and abs(known[2] - 1) <= SAME_FACTOR:
            return tuple(PRODUCTS[n] for n in order), known
    return None


def _factor(left: Array, right: Array) -> float | None:
    """By which number the one is the other times; None: by none."""
    if left.shape != right.shape or not (size := float(np.vdot(left, left))):
        return None
    factor = float(np.vdot(left, right)) / size
    return (
        factor if factor and relative_error(left * factor, right) <= GUESSED else None
    )


def _find_cores(calls: Sequence[Seen], count: int) -> Iterator[Core]:
    for number, seen in enumerate(calls):
        if not seen.outputs or not seen.inputs:
            continue
        if seen.call.name in WHOLE:
            if core := _of_function(seen):
                yield core
        elif _is_softmax(seen) and (core := _written_out(calls, number, count)):
            yield core


def _is_softmax(seen: Seen) -> bool:
    made = seen.outputs[0]
    if made.dtype.kind != "f" or made.ndim < 3 or made.shape[-1] < 2:
        return False
    return (
        seen.inputs[0].shape == made.shape
        and made.min() >= 0
        and bool(np.allclose(made.sum(-1), 1, atol=GUESSED))
    )


def _is_product(seen: Seen) -> bool:
    words = ("matmul", "einsum", "bmm", "dot")
    return any(x in seen.call.name for x in words) and len(seen.inputs) == 2


def _written_out(calls: Sequence[Seen], number: int, count: int) -> Core | None:
    """The core around a softmax."""
    logits, weights = calls[number].inputs[0], calls[number].outputs[0]
    before = [
        (n, x)
        for n, x in enumerate(calls[:number])
        if _is_product(x) and x.outputs[0].shape == weights.shape
    ]
    after = [x for x in calls[number + 1 :] if _is_product(x)]
    if not before or not after:
        return None
    first, product = before[-1]
    raw = product.outputs[0].astype(np.float64)
    scaled = 1.0
    for seen in calls[first + 1 : number]:
        made = seen.outputs[0] if seen.outputs else raw[:0]
        if made.shape == raw.shape and made.dtype.kind == "f":
            scaled = _factor(raw, made) or scaled
    if (factor := _factor(raw, logits)) is not None:
        scaled = factor
    scores, logits, weights = (
        _in_heads(x, count) for x in (raw, logits.astype(np.float64), weights)
    )
    hidden = logits < HIDDEN
    bias = np.where(hidden, 0.0, logits - scaled * scores)
    bound = GUESSED * max(float(np.abs(scaled * scores).max()), 1.0)
    beside = None if np.abs(bias).max() <= bound else bias
    for query, key in _layouts(product.inputs, count):
        if query.shape[:2] == key.shape[:2] and query.shape[-1] == key.shape[-1]:
            factor = _factor(query @ key.swapaxes(-1, -2), scores)
            if factor is not None:
                break
    else:
        return None
    for given in after[0].inputs:
        for value in _each_layout(given, count):
            if (
                value.shape[:2] != weights.shape[:2]
                or value.shape[-2] != weights.shape[-1]
            ):
                continue
            made = weights @ value
            if any(
                x.shape == made.shape and relative_error(made, x) <= GUESSED
                for x in _each_layout(after[0].outputs[0], count)
            ):
                inputs = query, key, value
                return Core(inputs, scaled * factor, hidden, beside)
    return None


def _in_heads(array: Array, count: int) -> Array:
    """(N, heads, ...) of what may have both in one axis, or no heads."""
    if array.ndim == 4:
        return array
    heads = len(array) // count
    return array.reshape(count, max(heads, 1), *array.shape[1:])


def _each_layout(array: Array, count: int) -> Iterator[Array]:
    """As (N, heads, steps, width), of all ways in which its axes may lie."""
    if array.ndim not in (3, 4) or len(array) % count:
        return
    array = _in_heads(array.astype(np.float64), count)
    for turned in (array, array.swapaxes(1, 2)):
        yield turned
        yield turned.swapaxes(-1, -2)


def _layouts(arrays: Sequence[Array], count: int) -> Iterator[tuple[Array, Array]]:
    for query in _each_layout(arrays[0], count):
        for key in _each_layout(arrays[1], count):
            yield query, key


def _of_function(seen: Seen) -> Core | None:
    """The core that a function of the framework computes."""
    arrays = [x for x in seen.inputs if x.dtype.kind == "f" and x.ndim == 4]
    made = seen.outputs[0].astype(np.float64)
    if len(arrays) < 3 or made.ndim != 4:
        return None
    turn = seen.call.name == WHOLE[1]  # heads come after steps
    query, key, value = (
        (x.swapaxes(1, 2) if turn else x).astype(np.float64) for x in arrays[:3]
    )
    made = made.swapaxes(1, 2) if turn else made
    if query.shape[1] % key.shape[1]:
        return None
    key, value = (x.repeat(query.shape[1] // x.shape[1], 1) for x in (key, value))
    scores = query @ key.swapaxes(-1, -2)
    none = np.zeros(scores.shape, bool)
    later = np.broadcast_to(np.triu(none[0, 0] | True, 1), scores.shape)
    given = [x for x in (*seen.inputs, *seen.constants) if x.ndim >= 2]
    masks = [np.broadcast_to(x, scores.shape) for x in given if _fits(x, scores)]
    told = float(seen.call.spec.settings.get("scale") or query.shape[-1] ** -0.5)
    for hidden, bias in (
        (none, None),
        (later, None),
        *((~x, None) for x in masks if x.dtype.kind == "b"),
        *((x < HIDDEN, x) for x in masks if x.dtype.kind == "f"),
    ):
        for scale in dict.fromkeys(
            (told, 1.0, (made.shape[1] * made.shape[-1]) ** -0.5)
        ):
            logits = scale * scores
            if bias is not None:
                logits = logits + np.where(hidden, 0.0, bias)
            logits = np.where(hidden, -1e30, logits)
            if relative_error(softmax(logits) @ value, made) <= GUESSED:
                beside = None if bias is None else np.where(hidden, 0.0, bias)
                if beside is not None and not beside.any():
                    beside = None
                return Core((query, key, value), scale, hidden, beside)
    return None


def _fits(array: Array, scores: Array) -> bool:
    """Whether it can be a mask of scores."""
    try:
        return np.broadcast_shapes(array.shape, scores.shape) == scores.shape
    except ValueError:
        return False
