"""What differs between two layers with weights: functions, and how they are wired.

Both models' calls between the same layers are compared by the values that they return.
The first call of the left model whose values the right one has nowhere, and the first
of the right one that the left has nowhere, are where the models part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from paripassu.core.layer_spec import Array, LayerSpec, relative_error
from paripassu.port_check import causes
from paripassu.port_check.matching import INPUT
from paripassu.port_check.results import Cause
from paripassu.reference import layers
from paripassu.sides.contract import Call

NEUTRAL = {
    *("flatten", "reshape", "permute", "dropout", "identity", "cast"),
}
ARITHMETIC = {"add", "subtract", "multiply", "scale", "other"}
GUESSED = 1e-7  # relative: TensorFlow's GELU of float64 has constants of float32
ALIKE = 1e-9  # relative, in float64: what rounds alike is far closer


@dataclass(frozen=True)
class Seen:
    """A call and its arrays."""

    call: Call
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]


@dataclass(frozen=True)
class Parted:
    """Where two segments part: names for readers, and why."""

    left: str
    right: str
    size: float | None
    cause: Cause | None


def alike(one: Array, two: Array) -> bool:
    """Whether two arrays have the same values, wherever their channels are."""
    return apart(one, two) <= ALIKE


def apart(one: Array, two: Array) -> float:
    """The smallest relative difference, channels last or first."""
    found = relative_error(one, two) if one.shape == two.shape else float("inf")
    if one.ndim > 2 and one.size == two.size and found > ALIKE:
        for moved in (np.moveaxis(one, 1, -1), np.moveaxis(one, -1, 1)):
            if moved.shape == two.shape:
                found = min(found, relative_error(moved, two))
    if found > ALIKE and one.size == two.size and one.ndim != two.ndim:
        found = min(found, *(_flat(one, two)))
    return found


def _flat(one: Array, two: Array) -> Iterator[float]:
    """Arrays that one of the models has flattened, or has kept axes of size 1 in."""
    less = one if one.ndim < two.ndim else two
    more = two if less is one else one
    for moved in (more, np.moveaxis(more, 1, -1), np.moveaxis(more, -1, 1)):
        if len(moved) == len(less):
            yield relative_error(less, moved.reshape(less.shape))


def between(calls: Sequence[Seen], target: int | None, stops: set[int]) -> list[Seen]:
    """The calls whose values reach the call `target` from the layers `stops`.

    Args:
        calls: of a whole run, by serial.
        target: the serial of the call that they lead to; None: the model's outputs.
        stops: serials of calls that the other model has as well.
    """
    if target is None:
        pending, end = [calls[-1].call.serial], len(calls)
    else:
        pending, end = list(calls[target].call.sources), target
    found: set[int] = set()
    complete = bool(pending)
    while pending:
        serial = pending.pop()
        if serial < 0 or serial in stops or serial in found:
            continue
        found.add(serial)
        sources = calls[serial].call.sources
        complete = complete and bool(sources)
        pending += sources
    if not complete:
        # Some value came by a way that is not watched: all calls since the last layer.
        begin = max((x for x in stops if x < end), default=-1)
        found |= set(range(begin + 1, end)) - stops
    return [
        calls[n] for n in sorted(found) if calls[n].call.kind not in NEUTRAL and n < end
    ]


@dataclass(frozen=True)
class Target:
    """What two segments lead to, and after which layers they begin.

    Attributes:
        left, right: names of the calls that they lead to.
        wanted, got: what these are given.
        left_after, right_after: names of the layers before.
        left_kind: the kind of that on the left.
        left_end, right_end: serials of the calls; None: the models' outputs.
    """

    left: str
    right: str
    wanted: Array
    got: Array
    left_after: str
    right_after: str
    left_kind: str
    left_end: int | None
    right_end: int | None


def part(
    left: Sequence[Seen],
    right: Sequence[Seen],
    left_all: Sequence[Seen],
    right_all: Sequence[Seen],
    target: Target,
) -> Parted:
    """Find where two segments part.

    Args:
        left, right: the calls of the segments.
        left_all, right_all: the calls of the whole runs.
        target: what they lead to.
    """
    mine = _leading(left_all, left, target.left_end, right_all)
    other = _leading(right_all, right, target.right_end, left_all)
    size = None
    if target.wanted.shape == target.got.shape:
        size = relative_error(target.wanted, target.got)
    if mine and other:
        one, two = _unpadded(mine), _unpadded(other)
        if {_family(one), _family(two)} <= causes.POOLS:
            return _both(one, two, padded=mine[0] is not one or other[0] is not two)
        one, two = mine[0], other[0]
        counts = [Counter(map(_family, found)) for found in (mine, other)]
        if _family(one) != _family(two):
            # The other model's call comes later on this side: this one is too much.
            fewer = _family(one) in counts[0] - counts[1]
            more = _family(two) in counts[1] - counts[0]
            if more and not fewer:
                return _extra(two, left_all, right_all, target, size)
            if fewer and not more:
                return _missing(one, left_all, right_all, target, size)
            if not fewer and not more:
                text = f"left {_title(one)} comes first, right {_title(two)}"
                cause = Cause(key="layer-order", sentence=text)
                return Parted(one.call.name, two.call.name, size, cause)
        return _both(one, two)
    if mine:
        return _missing(mine[0], left_all, right_all, target, size)
    if other:
        return _extra(other[0], left_all, right_all, target, size)
    return _wired(left, left_all, target, size)


def _leading(
    calls: Sequence[Seen],
    segment: Sequence[Seen],
    end: int | None,
    other: Sequence[Seen],
) -> list[Seen]:
    """The calls of a segment from its end back to what the other model has as well.

    A call whose value the other model has nowhere, but which leads to one that it has,
    is another way to the same: a layer that pads before a pool.
    """
    alone = {x.call.serial: x for x in _alone(segment, other)}
    inside = {x.call.serial for x in segment}
    pending = [calls[-1].call.serial] if end is None else list(calls[end].call.sources)
    found: set[int] = set()
    passed: set[int] = set()
    while pending:
        serial = pending.pop()
        if serial < 0 or serial in passed:
            continue
        passed.add(serial)
        call = calls[serial].call
        if serial in alone:
            found.add(serial)
        elif serial in inside or call.kind not in NEUTRAL:
            continue
        if not call.sources:
            return list(alone.values())  # its values came by a way not watched
        pending += call.sources
    if not found and (end is None or not calls[end].call.sources):
        return list(alone.values())
    return [alone[x] for x in sorted(found)]


def _unpadded(found: Sequence[Seen]) -> Seen:
    """The first call, or the pool for which it pads."""
    padding = found[0].call.kind == "pad" or found[0].call.name.endswith("pad")
    if len(found) > 1 and padding and _family(found[1]) in causes.POOLS:
        return found[1]
    return found[0]


def _family(seen: Seen) -> str:
    """A kind, the same for what may be called by either of two names."""
    kind = identified(seen).kind
    return {"mean": "global_average_pool", "amax": "max"}.get(kind, kind)


def _missing(
    one: Seen,
    left_all: Sequence[Seen],
    right_all: Sequence[Seen],
    target: Target,
    size: float | None,
) -> Parted:
    kind = identified(one).kind
    key = causes.missing_key(kind)
    sentence = f"only the left model calls {_title(one)}"
    if kind != "add" and _elsewhere(one, right_all, left_all):
        key, sentence = "layer-order", f"{sentence} here; the right one does elsewhere"
    elif (kind == "scale" and one.inputs[0].dtype.kind in "iu") or kind == "embedding":
        key = "position"
    elif target.left_after == INPUT and kind in ARITHMETIC:
        key = "input-scale"
    cause = Cause(key=key, sentence=sentence)
    after = _source(one, right_all) or target.right_after
    return Parted(one.call.name, f"after {after}", size, cause)


def _extra(
    two: Seen,
    left_all: Sequence[Seen],
    right_all: Sequence[Seen],
    target: Target,
    size: float | None,
) -> Parted:
    kind = identified(two).kind
    key = causes.extra_key(kind)
    sentence = f"only the right model calls {_title(two)}"
    if _elsewhere(two, left_all, right_all):
        key, sentence = "layer-order", f"{sentence} here; the left one does elsewhere"
    elif "equal" in two.call.name or two.outputs[0].dtype.kind == "b":
        key = "mask"
    elif kind in ("scale", "multiply") and two.inputs[0].dtype.kind in "iu":
        key = "position"
    elif kind in ("scale", "multiply") and target.left_kind == "embedding":
        key = "embedding-scale"
    elif target.right_after == INPUT and kind not in (*causes.ACTIVATIONS, "pad"):
        key = "input-scale"
    cause = Cause(key=key, sentence=sentence)
    place = f"after {_source(two, left_all) or target.left_after}"
    if key == "layer-order" or target.right_after == INPUT:
        place = target.left
    return Parted(place, two.call.name, size, cause)


def _source(seen: Seen, other: Sequence[Seen]) -> str | None:
    """The call of the other model that made the same as what this one is given."""
    for one in reversed(other):
        if seen.inputs and any(alike(seen.inputs[0], x) for x in one.outputs):
            return one.call.name
    return None


def _elsewhere(seen: Seen, calls: Sequence[Seen], other: Sequence[Seen]) -> bool:
    """Whether `calls` have one of this kind whose result the other has nowhere."""
    family = _family(seen)
    same = [x for x in calls if not x.call.weighted and _family(x) == family]
    # What only inherits a difference is not another call.
    return any(
        family in causes.POOLS
        or all(any(alike(x, y) for z in other for y in z.outputs) for x in one.inputs)
        for one in _alone(same, other)
    )


def _alone(calls: Sequence[Seen], other: Sequence[Seen]) -> list[Seen]:
    """The calls whose result the other model has nowhere, in their order."""
    return [
        seen
        for seen in calls
        if seen.outputs
        and not any(alike(seen.outputs[0], x) for y in other for x in y.outputs)
    ]


GUESSES = (
    *(LayerSpec(x) for x in ("relu", "relu6", "selu", "silu", "sigmoid", "tanh")),
    *(LayerSpec(x) for x in ("hard_sigmoid", "hard_swish", "softplus", "mish")),
    *(LayerSpec("gelu", {"approximate": x}) for x in (False, True)),
    *(LayerSpec("leaky_relu", {"slope": x}) for x in (0.01, 0.1, 0.2, 0.3)),
    *(LayerSpec("elu", {"alpha": x}) for x in (1.0, 0.1)),
    LayerSpec("softmax", {"axis": -1}),
)


def identified(seen: Seen) -> LayerSpec:
    """What a function does that says nothing of itself: found by trying."""
    told = seen.call.described
    if told.kind != "other" or len(seen.inputs) != 1 or not seen.outputs:
        return told
    given, made = seen.inputs[0], seen.outputs[0]
    if given.shape != made.shape or given.dtype.kind != "f":
        return told
    for guess in GUESSES:
        if relative_error(made, layers.apply(guess, [given])) <= GUESSED:
            return guess
    return told


def _both(one: Seen, two: Seen, *, padded: bool = False) -> Parted:
    size = apart(one.outputs[0], two.outputs[0])
    finite = size if np.isfinite(size) else None
    names = one.call.name, two.call.name
    mine, other = identified(one), identified(two)
    sentence = f"the left model calls {_title(one)}, the right one {_title(two)}"
    if mine.kind == other.kind == "concatenate":
        matched = [any(alike(x, y) for y in two.inputs) for x in one.inputs]
        if all(matched) and len(one.inputs) == len(two.inputs):
            cause = Cause(
                key="concat-order", sentence="the same parts come in another order"
            )
            return Parted(*names, finite, cause)
    titles = (one.call.name + two.call.name).replace("_", "")
    if "getitem" in titles or "flip" in titles:
        pools = mine.kind in causes.POOLS
        cause = Cause(key="pool-kind" if pools else "last-step", sentence=sentence)
        return Parted(*names, finite, cause)
    if padded and mine.kind == other.kind:
        return Parted(*names, finite, Cause(key="pool-padding", sentence=sentence))
    if mine.kind == other.kind and mine.kind != "other":
        wanted, inputs = _laid(one.outputs[0], two.outputs[0]), list(two.inputs)
        found = None
        if wanted is not None:
            found = causes.of_layer([mine], [other], inputs, wanted, two.outputs[0])
        elif differing := causes.differences([mine], [other]):
            found = Cause(
                key=causes.key_of(mine, other, differing[0]),
                sentence=f"left {causes.told(mine.settings)}; "
                f"right {causes.told(other.settings)}",
            )
        return Parted(*names, finite, found or _inputs(one, two))
    if _family(one) == _family(two):
        key = "axis" if mine.kind != "other" else "layer-kind"
    else:
        key = causes.kinds_key(mine.kind, other.kind)
    return Parted(*names, finite, Cause(key=key, sentence=sentence))


def _inputs(one: Seen, two: Seen) -> Cause | None:
    """Two calls of one function with other inputs."""
    for number, array in enumerate(one.inputs):
        if not any(alike(array, x) for x in two.inputs):
            key = "residual-missing" if one.call.kind == "add" else "layer-order"
            if one.call.kind == "add" and len(one.inputs) == len(two.inputs):
                key = "position" if array.ndim < 3 or len(array) == 1 else "layer-order"
            sentence = f"input {number + 1} of {_title(one)} comes from elsewhere"
            return Cause(key=key, sentence=sentence)
    return None


def _laid(wanted: Array, like: Array) -> Array | None:
    """The left's array with the right's axes."""
    if wanted.shape == like.shape:
        return wanted
    for moved in (np.moveaxis(wanted, 1, -1), np.moveaxis(wanted, -1, 1)):
        if wanted.ndim > 2 and moved.shape == like.shape:
            return moved
    return None


def _wired(
    left: Sequence[Seen],
    left_all: Sequence[Seen],
    target: Target,
    size: float | None,
) -> Parted:
    """Every value is there on both sides, but another one is used."""
    used = [x for x in left_all if x.outputs and alike(x.outputs[0], target.got)]
    ends = [x for x in left if x.outputs and alike(x.outputs[0], target.wanted)]
    after = f"after {target.right_after}"
    if used:
        sentence = (
            f"what goes into {target.right} is what the left model has after "
            f"{used[-1].call.name}"
        )
        cause = Cause(key="layer-order", sentence=sentence)
        if ends and ends[-1].call.kind == "add":
            given = ends[-1].inputs
            if any(alike(x, target.got) for x in given):
                cause = Cause(key="residual-missing", sentence=sentence)
                return Parted(ends[-1].call.name, after, size, cause)
        return Parted(target.left, target.right, size, cause)
    before = f"after {target.left_after}"
    if sorted_alike(target.wanted, target.got):
        cause = Cause(key="axis", sentence="the same values come in another order")
        return Parted(before, after, size, cause)
    if target.left_kind in ("lstm", "gru", "rnn"):
        text = "another state, or that of another step, is used"
        return Parted(before, after, size, Cause(key="state-kind", sentence=text))
    return Parted(before, after, size, None)


def sorted_alike(one: Array, two: Array) -> bool:
    """Whether two arrays have the same values in any order."""
    return one.size == two.size and alike(
        np.sort(one, axis=None), np.sort(two, axis=None)
    )


def _title(seen: Seen) -> str:
    return seen.call.title.splitlines()[0]
