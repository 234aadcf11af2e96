"""Values that do not hang on what a model is given: buffers, tables, learned queries.

They are compared as values. How two models make them, slice or repeat them, says
nothing; what they are, and what a mask hides, does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np

from paripassu.core.layer_spec import Array, relative_error
from paripassu.port_check.examined import ExaminedModel, ModelError
from paripassu.port_check.results import Cause
from paripassu.port_check.seen import Seen
from paripassu.port_check.tolerance import SAME_WEIGHT
from paripassu.port_check.weights import have_same_values
from paripassu.sides.contract import Arrays, Blind, Call

HIDDEN = -1e3  # a score so low has no weight after a softmax
ARRANGED = 8  # fewer values may be the same by chance
AXES = 5  # of arrays whose axes are tried in every order


class _Again(Blind):
    """Compares the calls of a run with those of an earlier one, on other inputs."""

    def __init__(self, seen: Sequence[Seen]):
        self.seen = seen
        self.inputs: dict[int, list[bool]] = {}
        self.outputs: dict[int, bool] = {}

    def _before(self, call: Call) -> Seen | None:
        found = self.seen[call.serial] if call.serial < len(self.seen) else None
        return found if found and found.call.name == call.name else None

    def enter(self, call: Call, inputs: Sequence[Array]) -> None:
        """See which inputs are the same."""
        if (seen := self._before(call)) and len(seen.inputs) == len(inputs):
            pairs = zip(seen.inputs, inputs, strict=True)
            self.inputs[call.serial] = [np.array_equal(x, y) for x, y in pairs]

    def leave(self, call: Call, outputs: Sequence[Array]) -> None:
        """See whether the output is the same."""
        if (seen := self._before(call)) and seen.outputs and outputs:
            same = np.array_equal(seen.outputs[0], outputs[0])
            self.outputs[call.serial] = same


def find_constants(
    model: ExaminedModel, inputs: Arrays, seen: Sequence[Seen]
) -> list[Seen]:
    """The calls, each told which values do not hang on the model's inputs.

    Found by running the model on other inputs, its own values in another order: a value
    may come by a way that is not watched. What a layer with weights makes of the same
    is its own. A recording cannot be run.
    """
    if model.recorded:
        return list(seen)
    random = np.random.Generator(np.random.Philox(11))
    again = _Again(seen)
    try:
        model.run({k: _other(x, random) for k, x in inputs.items()}, again)
    except (ModelError, ValueError):
        return list(seen)  # not every order can be an input
    rooted = {-1}
    told = dict[int, Sequence[Array]]()  # what layers make that are told the same
    found = []
    for one in seen:
        call = one.call
        stays = again.outputs.get(call.serial, False)
        if stays and (call.weighted or _all_in(call.sources, told, again.outputs)):
            told[call.serial] = one.outputs
        if call.weighted or rooted & {*call.sources}:
            rooted.add(call.serial)
        constant = call.serial not in rooted and stays
        same = again.inputs.get(call.serial, [False] * len(one.inputs))
        made = [y for x in call.sources for y in told.get(x, ())]
        given = [
            x
            for x, y in zip(one.inputs, same, strict=True)
            if y and not _is_among(x, made)
        ]
        beside = [x for x in call.constants if not _is_among(x, one.inputs)]
        varying = [x for x, y in zip(one.inputs, same, strict=True) if not y]
        found.append(
            replace(
                one,
                constant=constant,
                constants=(*given, *beside),
                varying=tuple(varying),
            )
        )
    return found


def _is_among(array: Array, others: Sequence[Array]) -> bool:
    return any(array is x or np.array_equal(array, x) for x in others)


def _all_in(
    sources: Collection[int], told: Collection[int], same: Mapping[int, bool]
) -> bool:
    """Whether a call is fed by such layers, and by nothing that is not the same."""
    fed = any(x in told for x in sources)
    return fed and all(same.get(x, False) for x in sources)


def _other(array: Array, random: np.random.Generator) -> Array:
    other = random.permutation(array.ravel()).reshape(array.shape)
    return other * array.dtype.type(0.875) if array.dtype.kind == "f" else other


def plain(array: Array) -> Array:
    """An array without the axes along which it only repeats."""
    for axis, length in enumerate(array.shape):
        first = array.take([0], axis) if length else array
        if length > 1 and np.array_equal(array, np.broadcast_to(first, array.shape)):
            array = first
    return array.squeeze()


def are_same(left: Array, right: Array) -> bool:
    """Whether two constants are, but for repeats; a mask may say what it keeps."""
    left, right = plain(left), plain(right)
    if left.shape != right.shape:
        return False
    if left.dtype.kind == right.dtype.kind == "b":
        return np.array_equal(left, right) or np.array_equal(left, ~right)
    return relative_error(left, right) <= SAME_WEIGHT


def compare_constants(left: Seen, right: Seen) -> Cause | None:
    """The constant in which two calls of one function differ; None: in none."""
    lefts, rights = (
        [y for x in seen.constants for y in unless_repeated(x)]
        for seen in (left, right)
    )
    alone = [x for x in lefts if not any(are_same(x, y) for y in rights)]
    others = [x for x in rights if not any(are_same(x, y) for y in lefts)]
    if not alone or not others:
        return None
    wanted, got = plain(alone[0]), plain(others[0])
    if wanted.dtype.kind == got.dtype.kind == "b":
        return Cause(key="mask", sentence=f"another mask: {_how(wanted, got)}")
    return Cause(
        key="constant",
        sentence=f"a constant of shape {alone[0].shape} that is no weight has other "
        f"values: {_how(wanted, got)}",
        write="make it as the left model does, or copy it from there",
    )


def unless_repeated(array: Array) -> list[Array]:
    """An array if it holds more than one value; a number is a setting."""
    return [array] if array.size and plain(array).size > 1 else []


def _how(wanted: Array, got: Array) -> str:
    if order := find_axes(wanted, got):
        return f"its axes come in the order {order} of the left one's"
    if wanted.shape != got.shape:
        return f"left {wanted.shape}, right {got.shape}"
    width = wanted.shape[-1]
    halves = np.concatenate([wanted[..., 0::2], wanted[..., 1::2]], axis=-1)
    if width > 2 and relative_error(halves, got) <= SAME_WEIGHT:
        return "right side by side (all even columns, then all odd), left interleaved"
    halves = np.concatenate([got[..., 0::2], got[..., 1::2]], axis=-1)
    if width > 2 and relative_error(wanted, halves) <= SAME_WEIGHT:
        return "left side by side (all even columns, then all odd), right interleaved"
    if have_same_values(wanted, got, SAME_WEIGHT):
        return "the same values in another arrangement"
    if wanted.dtype.kind == "b":
        return f"{np.mean(wanted != got):.0%} of it differs"
    wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    scale = float(np.vdot(wanted, wanted))
    factor = float(np.vdot(wanted, got)) / scale if scale else 0.0
    if factor and relative_error(wanted * factor, got) <= SAME_WEIGHT:
        return f"{factor:.6g} times the left one's"
    place = np.unravel_index(np.argmax(np.abs(wanted - got)), wanted.shape)
    where = ", ".join(map(str, map(int, place)))
    return f"at [{where}], left {wanted[place]:.6g}, right {got[place]:.6g}"


def find_axes(wanted: Array, got: Array) -> tuple[int, ...] | None:
    """In which order the left one's axes give the right one; None: in no other."""
    if wanted.ndim != got.ndim or not 2 <= wanted.ndim <= AXES:
        return None
    if wanted.size < ARRANGED or not have_same_values(wanted, got, SAME_WEIGHT):
        return None
    for order in permutations(range(wanted.ndim)):
        turned = wanted.transpose(order)
        if turned.shape == got.shape and relative_error(turned, got) <= SAME_WEIGHT:
            return order if order != tuple(range(wanted.ndim)) else None
    return None


def arranged_otherwise(wanted: Array, got: Array) -> Cause | None:
    """Whether two arrays have the same values elsewhere, and in which order of axes."""
    if wanted.size < ARRANGED or wanted.dtype.kind != "f":
        return None
    if order := find_axes(wanted, got):
        return Cause(
            key="axis",
            sentence=f"the same values with axes {order} of the left model's: "
            f"{wanted.shape} and {got.shape}",
            write=f"transpose back: axes {tuple(map(int, np.argsort(order)))}",
        )
    same = have_same_values(wanted, got, SAME_WEIGHT)
    if not same or np.unique(wanted).size < ARRANGED:
        return None
    if wanted.shape == got.shape and relative_error(wanted, got) <= SAME_WEIGHT:
        return None
    return Cause(
        key="axis",
        sentence=f"the same values lie in another order: {wanted.shape} and "
        f"{got.shape}; a reshape where axes have to be transposed too",
    )


def hidden(seen: Seen) -> Array | None:
    """Which scores a call hides, as a mask does before a softmax; None: none."""
    if not seen.outputs or not seen.inputs or seen.outputs[0].dtype.kind != "f":
        return None
    made = seen.outputs[0]
    found = made < HIDDEN
    scores = [x for x in seen.inputs if x.shape == made.shape and x.dtype.kind == "f"]
    open_before = [x for x in scores if not (x < HIDDEN).any()]
    return found if found.any() and not found.all() and open_before else None


def compare_masks(left: Seen, right: Seen) -> Cause | None:
    """Two calls that hide scores, but not the same ones."""
    wanted, got = hidden(left), hidden(right)
    if wanted is None or got is None:
        return None
    if wanted.shape != got.shape or np.array_equal(wanted, got):
        return None
    told = [
        f"{x} hides {tell_hidden(y)}" for x, y in (("left", wanted), ("right", got))
    ]
    return Cause(key="mask", sentence="; ".join(told))


def tell_hidden(mask: Array) -> str:
    """Which scores a mask hides, in words."""
    if not mask.any():
        return "nothing"
    part = f"{mask.mean():.0%} of the scores"
    rows, columns = mask.shape[-2:]
    whole = np.ones((rows, columns), bool)
    for words, like in (
        ("what comes after", np.triu(whole, 1)),
        ("what comes before", np.tril(whole, -1)),
        ("what comes after and each step itself", np.triu(whole)),
        ("what comes before and each step itself", np.tril(whole)),
    ):
        if np.array_equal(mask, np.broadcast_to(like, mask.shape)):
            return words
    return part
