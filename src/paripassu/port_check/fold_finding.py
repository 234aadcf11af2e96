"""Finds which blocks of two models are folded: BatchNorm, products, sums, rows.

A BatchNorm without a partner is folded into the layer before it, where the other model
has a bias instead, or weights that are folded of it, rightly or wrongly. Products and
sums are believed only where the models came with such weights and compute the same: to
copy by them would hide a product that one of the models forgot. A map may say it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import chain
from typing import Literal

import numpy as np

from paripassu.core.layer_spec import Array, relative_error
from paripassu.port_check.examined import CallOrder
from paripassu.port_check.folding import FOLDED, MAIN, Fold, Numbers, fold_norm
from paripassu.port_check.match import Pair
from paripassu.port_check.tolerance import SAME_WEIGHT
from paripassu.sides.contract import Block

Which = Literal["left", "right"]
Named = tuple[str, str]  # the key of a cause, and a sentence
Blocks = Mapping[str, Block]
LIMITS = (16, 128, 1024, 4096)  # of denominators of numbers, or of their squares


def find_norms(
    pairs: list[Pair],
    blocks: tuple[Blocks, Blocks],
    calls: tuple[CallOrder, CallOrder],
) -> Iterator[tuple[Which, Fold]]:
    """BatchNorms that only one model has, and whose bias the other one has."""
    sides: tuple[Which, Which] = ("left", "right")
    for here, which in enumerate(sides):
        own, others, order = blocks[here], blocks[1 - here], calls[here]
        partner = {(x.left, x.right)[here]: x for x in pairs if x.whole}
        by_layer = {x.layer: x for x in own.values() if x.kind in FOLDED}
        taken: set[str] = set()
        for norm in own.values():
            if norm.kind != "batch_norm" or norm.name in partner:
                continue
            before = order.parents.get(norm.layer, frozenset())
            base = by_layer.get(next(iter(before))) if len(before) == 1 else None
            pair = partner.get(base.name) if base else None
            if base is None or pair is None or base.name in taken:
                continue
            if (
                pair.why == "the map"
                or norm.shapes["mean"] != base.shapes["kernel"][-1:]
            ):
                continue
            fold = fold_norm(base, norm)
            other = others[(pair.right if here == 0 else pair.left) or ""]
            biased = "bias" in other.shapes and "bias" not in base.shapes
            if biased or _was_folded(fold.of(own), base, other):
                taken.add(base.name)
                yield which, fold


def _was_folded(fold: Block, base: Block, other: Block) -> bool:
    """Whether any weight is folded, rightly or wrongly; not, if it is the layer's own.

    Then BatchNorm was forgotten: one that was just made may do next to nothing.
    """
    own = base.spec.weights
    return any(
        relative_error(fold.spec.weights[name], array) <= SAME_WEIGHT
        or _mistake(fold, name, array) is not None
        for name, array in other.spec.weights.items()
        if name in fold.shapes and fold.shapes[name] == array.shape
        if name not in own or not _same(own[name], array)
    )


def find_mistake(
    left: Block, right: Block, name: str, wanted: Array, got: Array
) -> Named | None:
    """What is wrong with a folded weight: of the side that has what it is folded of."""
    if "_mistakes" in left.spec.settings:
        return _mistake(left, name, got)
    return _mistake(right, name, wanted) if "_mistakes" in right.spec.settings else None


def _mistake(fold: Block, name: str, folded: Array) -> Named | None:
    for key, text, made in fold.spec.settings["_mistakes"](name):
        if np.any(folded) and _same(made, folded.reshape(np.shape(made))):
            return key, text
    return None


def find_folds(
    own: Block,
    other: Block,
    alone: list[Block],
    *,
    first: bool,
) -> Iterator[Fold]:
    """What one side may do beside its weights, that the other one has in them.

    Args:
        own, other: the block, and its partner, that has it in its weights.
        alone: blocks of the own side without a partner.
        first: whether the model's input comes to it as it is.
    """
    names = [
        x for x in MAIN if x in own.shapes and own.shapes[x] == other.shapes.get(x)
    ]
    if len(names) != 1 or "mean" in own.shapes:
        return
    weight, folded = (np.asarray(x.spec.weights[names[0]], float) for x in (own, other))
    if weight.ndim == 0 or not np.any(weight):
        return
    biases = [x.spec.weights.get("bias") for x in (own, other)]
    same_bias = biases[0] is None or (
        biases[1] is not None and _same(biases[0], biases[1])
    )
    by_input = _by_input(own, weight, folded, biases)
    by_scale = _by_scale(own, weight, folded, biases, alone)
    early = first and biases[0] is None
    yield from chain(by_input, by_scale) if early else chain(by_scale, by_input)
    if same_bias and own.kind not in ("dense", "conv"):
        yield from _by_sum(own, weight, folded, alone)


def _by_scale(
    own: Block,
    weight: Array,
    folded: Array,
    biases: list[Array | None],
    alone: list[Block],
) -> Iterator[Fold]:
    """A product after it: one number, or one for each output channel."""
    if (scale := _ratio(weight, folded, -1)) is None:
        return
    if biases[0] is not None and (
        biases[1] is None or not _same(biases[0] * scale, biases[1])
    ):
        return
    if np.ptp(scale) <= SAME_WEIGHT * abs(scale[0]):
        number = _plain_number(float(np.median(scale)))
        if number != 1:
            yield Fold(f"{own.name} * {number!r}", own.name, "scale", scale=number)
        return
    for block in alone:
        shapes = [*block.shapes]
        if len(shapes) == 1:
            values = np.asarray(block.spec.weights[shapes[0]]).ravel()
            if values.shape == scale.shape and _same(values, scale):
                yield Fold(f"{own.name} * {block.name}", own.name, "scale", block.name)
                return


def _by_input(
    own: Block,
    weight: Array,
    folded: Array,
    biases: list[Array | None],
) -> Iterator[Fold]:
    """A product and a sum before it: of all input channels, or of each."""
    if own.kind not in ("dense", "conv") or own.spec.settings.get("groups", 1) != 1:
        return
    if (scale := _ratio(weight, folded, -2)) is None:
        return
    change = np.asarray(biases[1] if biases[1] is not None else 0.0, float)
    change = np.broadcast_to(
        change - (0.0 if biases[0] is None else biases[0]), weight.shape[-1:]
    )
    sums = weight.reshape(-1, *weight.shape[-2:]).sum(0)
    shift = np.zeros(len(sums))
    if not _same(1 + change, np.ones_like(change)):
        shift = np.full(len(sums), _solve(sums.sum(0)[:, None], change)[0])
        if not _same(shift @ sums, change) and 2 * len(sums) <= sums.shape[1]:
            shift = _solve(sums.T, change)
        if not _same(shift @ sums, change):
            return
    numbers: list[Numbers] = [_plain_numbers(scale), _plain_numbers(shift)]
    if all(np.ptp(x) == 0 for x in numbers):
        numbers = [float(np.ravel(x)[0]) for x in numbers]
    made, added = (list(x) if isinstance(x, tuple) else x for x in numbers)
    told = f"x * {made!r}" + (f" + {added!r}" if np.any(added) else "")
    if np.any(np.not_equal(made, 1)) or np.any(added):
        name = f"{own.name}({told})"
        yield Fold(name, own.name, "input", scale=numbers[0], shift=numbers[1])


def _by_sum(
    own: Block, weight: Array, folded: Array, alone: list[Block]
) -> Iterator[Fold]:
    """A sum after it: of one number, or of a row of a table that is added to all."""
    least = SAME_WEIGHT * max(np.abs(weight).max(), np.abs(folded).max())
    change = folded - weight
    if np.ptp(change) <= 2 * least:
        number = round(float(np.median(change)))
        if number and abs(np.median(change) - number) <= least:
            yield Fold(f"{own.name} + {number}", own.name, "add", shift=float(number))
        return
    rows = change.reshape(-1, change.shape[-1])
    if len(rows) < 2 or np.ptp(rows, axis=0).max() > 2 * least:
        return
    for block in alone:
        shapes = [*block.shapes.items()]
        if len(shapes) == 1 and shapes[0][1][-1:] == rows.shape[1:]:
            table = np.asarray(block.spec.weights[shapes[0][0]])
            for number, row in enumerate(table.reshape(-1, table.shape[-1])):
                if np.abs(row - rows.mean(0)).max() <= 2 * least:
                    name = f"{own.name} + {block.name}[{number}]"
                    yield Fold(name, own.name, "add", block.name, number)
                    return


def _ratio(weight: Array, folded: Array, axis: int) -> Array | None:
    """The number for each channel that the one is the other times."""
    if weight.ndim < -axis:
        return None
    one, two = (
        np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) for x in (weight, folded)
    )
    squares = (one**2).sum(1)
    if not squares.all():
        return None
    scale: Array = (one * two).sum(1) / squares
    if not scale.all() or not _same(one * scale[:, None], two):
        return None
    return scale


def _same(one: Array, two: Array) -> bool:
    return relative_error(np.asarray(one, float), np.asarray(two, float)) <= SAME_WEIGHT


def _solve(matrix: Array, wanted: Array) -> Array:
    return np.linalg.lstsq(matrix, wanted, rcond=None)[0]


def _plain_numbers(values: Array) -> tuple[float, ...]:
    return tuple(_plain_number(float(x)) for x in values)


def _plain_number(value: float) -> float:
    """The number that a program would have written: a fraction, or the root of one."""
    if value == 0:
        return 0.0
    for limit in LIMITS:
        for power in (1, 2):
            fraction = Fraction(abs(value) ** power).limit_denominator(limit)
            plain = float(fraction) ** (1 / power)
            if abs(plain / abs(value) - 1) <= SAME_WEIGHT / 4:
                return math.copysign(plain, value)
    return value
