"""What differs between two layers with weights: functions, and how they are wired.

Both models' calls between the same layers are compared by the values that they return.
The first call of the left model whose values the right one has nowhere, and the first
of the right one that the left has nowhere, are where the models part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from paripassu.core.layer_spec import Array, LayerSpec, relative_error
from paripassu.port_check import causes
from paripassu.port_check.align import SEQUENCES, channel_orders
from paripassu.port_check.constants import (
    are_same,
    arranged_otherwise,
    compare_constants,
    compare_masks,
    hidden,
    unless_repeated,
)
from paripassu.port_check.cores import compare_cores
from paripassu.port_check.match import INPUT
from paripassu.port_check.norm_forms import compare_norms
from paripassu.port_check.results import Cause
from paripassu.port_check.seen import Seen
from paripassu.port_check.tolerance import ALIKE, GUESSED
from paripassu.port_check.weights import have_same_values
from paripassu.reference import layers
from paripassu.sides.contract import Call, Watcher

NEUTRAL = {"flatten", "reshape", "permute", "dropout", "identity", "cast"}
SHOWN = 12  # rows of a table that are told
ARITHMETIC = {"add", "subtract", "multiply", "scale", "other"}


def _is_neutral(call: Call) -> bool:
    """Whether it leaves values as they are; a dropout at work has its rate."""
    at_work = call.kind == "dropout" and call.spec.settings
    return call.kind in NEUTRAL and not at_work


@dataclass(frozen=True)
class Parted:
    """Where two segments part: names for readers, and why."""

    left: str
    right: str
    size: float | None
    cause: Cause | None


def alike(left: Array, right: Array, bound: float = ALIKE) -> bool:
    """Whether right arrays have the same values, wherever their channels are."""
    return _distance(left, right) <= bound


def _distance(left: Array, right: Array) -> float:
    """The smallest relative difference, channels last or first."""
    found = relative_error(left, right) if left.shape == right.shape else float("inf")
    if found > ALIKE:
        moved = channel_orders(left)[1:]
        found = min([found, *(relative_error(x, right) for x in moved)])
    if found > ALIKE and left.size == right.size and left.ndim != right.ndim:
        found = min([found, *_flat(left, right)])
    return found


def _flat(left: Array, right: Array) -> Iterator[float]:
    """Arrays that one of the models has flattened, or has kept axes of size 1 in."""
    less, more = sorted((left, right), key=lambda x: x.ndim)
    for moved in channel_orders(more):
        lengths = [[n for n in x.shape if n != 1] for x in (less, moved)]
        if lengths[0] == lengths[1] or less.shape[:1] == moved.shape[:1]:
            yield relative_error(less, moved.reshape(less.shape))


class CallRecorder:
    """Keeps the arrays of all calls, and lets another watcher replace them."""

    def __init__(self, inner: Watcher):
        self.inner = inner
        self.seen: list[Seen] = []

    def enter(self, call: Call, inputs: Sequence[Array]) -> Sequence[Array] | None:
        """Keep the inputs as they came."""
        assert call.serial == len(self.seen)
        self.seen.append(Seen(call, tuple(inputs), ()))
        return self.inner.enter(call, inputs)

    def leave(self, call: Call, outputs: Sequence[Array]) -> Sequence[Array] | None:
        """Keep the outputs; where they are replaced, those that the model had."""
        given = self.inner.leave(call, outputs)
        seen = self.seen[call.serial]
        self.seen[call.serial] = Seen(call, seen.inputs, tuple(outputs))
        return given


def _joined(calls: Sequence[Seen]) -> Seen:
    """The calls of a cell, one for each step, as one call of a layer."""
    given, made = (
        np.stack(x, 1)
        for x in zip(*((x.inputs[0], x.outputs[0]) for x in calls), strict=True)
    )
    return replace(calls[0], inputs=(given,), outputs=(made,))


class Trace:
    """All calls of a run, by serial; `layers` names those that have a partner.

    Args:
        calls: all.
        layers: the names.
        steps: of cells whose partner is a layer, how many of their calls are one of it.
    """

    def __init__(
        self,
        calls: Sequence[Seen],
        layers: Collection[str],
        steps: Mapping[str, int] | None = None,
    ):
        self.calls, self.steps = calls, steps or {}
        self.stops = {
            x.call.serial for x in calls if x.call.weighted and x.call.name in layers
        }

    def layer_calls(self, name: str) -> list[Seen]:
        """The calls of a layer with weights."""
        found = [x for x in self.calls if x.call.weighted and x.call.name == name]
        if count := self.steps.get(name, 0):
            ends = range(count, len(found) + 1, count)
            return [_joined(found[x - count : x]) for x in ends]
        return found

    def last_stop(self, end: int | None) -> Seen | None:
        """The last layer with a partner before a call; None: the model's input."""
        before = [x for x in self.stops if end is None or x < end]
        return self.calls[max(before)] if before else None

    def locate(self, place: str, end: int | None) -> tuple[str, str]:
        """A place with the layer that holds it, and its line of code, or "".

        Args:
            place: the name of a call, or "after" it; the last one before `end`.
            end: the serial of a call; None: all calls.
        """
        name = place.removeprefix("after ")
        calls = self.calls if end is None else self.calls[: end + 1]
        call = next((x.call for x in reversed(calls) if x.call.name == name), None)
        if call is None:
            return place, ""
        if call.of_function and (holders := call.inside[1:]):
            place = place.removesuffix(name) + f"{holders[-1]}:{name}"
        return place, call.line

    def feeding(self, target: int | None) -> set[int]:
        """The layers with a partner whose values reach a call, or the outputs."""
        if target is None:
            pending = [self.calls[-1].call.serial]
        else:
            pending = list(self.calls[target].call.sources)
        found: set[int] = set()
        while pending:
            serial = pending.pop()
            if serial < 0 or serial in found:
                continue
            found.add(serial)
            if serial not in self.stops:
                pending += self.calls[serial].call.sources
        return found & self.stops

    def segment(self, target: int | None) -> list[Seen]:
        """The calls whose values reach `target` from the layers that have a partner.

        Args:
            target: the serial of the call that they lead to; None: the outputs.
        """
        if not self.calls:
            return []  # the model gives back what it was given
        if target is None:
            pending, end = [self.calls[-1].call.serial], len(self.calls)
        else:
            pending, end = list(self.calls[target].call.sources), target
        found: set[int] = set()
        complete = bool(pending)
        while pending:
            serial = pending.pop()
            if serial < 0 or serial in self.stops or serial in found:
                continue
            if self.calls[serial].constant:
                continue
            found.add(serial)
            sources = self.calls[serial].call.sources
            known = [x for x in sources if x < 0 or not self.calls[x].constant]
            complete = complete and bool(known or self.calls[serial].call.weighted)
            pending += sources
        if not complete:
            # Some value came by a way that is not watched: all since the last layer.
            begin = max((x for x in self.stops if x < end), default=-1)
            found |= set(range(begin + 1, end)) - self.stops
        return [
            self.calls[n]
            for n in sorted(found)
            if not _is_neutral(self.calls[n].call)
            and not self.calls[n].constant
            and n < end
        ]


@dataclass(frozen=True)
class Target:
    """What two segments lead to: two layers that are a pair, or the models' outputs.

    Attributes:
        left, right: their names.
        wanted, got: what these are given.
        left_end, right_end: serials of the calls; None: the models' outputs.
    """

    left: str
    right: str
    wanted: Array
    got: Array
    left_end: int | None
    right_end: int | None


class Segments:
    """The calls of two whole runs that lead to a target.

    Args:
        left, right: the runs.
        target: which.
        least: as far apart values may be and count as the same, where constants of
            float32 are used in float64.
    """

    def __init__(self, left: Trace, right: Trace, target: Target, least: float = 0.0):
        self.bound = max(ALIKE, least)
        self.left, self.right, self.target = left.calls, right.calls, target
        self.left_segment = left.segment(target.left_end)
        self.right_segment = right.segment(target.right_end)
        before = left.last_stop(target.left_end), right.last_stop(target.right_end)
        self.left_after, self.right_after = (
            x.call.name if x else INPUT for x in before
        )
        self.left_kind = before[0].call.kind if before[0] else ""
        self.size = None
        if target.wanted.shape == target.got.shape:
            self.size = relative_error(target.wanted, target.got)

    def part(self) -> Parted:
        """Where they part, and why."""
        target = self.target
        lefts, rights = (
            _leading(calls, segment, end, other, self.bound)
            for calls, segment, end, other in (
                (self.left, self.left_segment, target.left_end, self.right),
                (self.right, self.right_segment, target.right_end, self.left),
            )
        )
        if not lefts and not rights:
            return self._wired()
        if counted := self._find_positions(lefts, rights):
            return counted
        lefts, rights = _without_ids(lefts), _without_ids(rights)
        if written := self._find_written_out(lefts, rights):
            return written
        lefts = self._with_activation(lefts, self.left_segment, rights)
        rights = self._with_activation(rights, self.right_segment, lefts)
        if not rights:
            rights = self._activated_like(lefts[0], self.right_segment)
        elif not lefts:
            lefts = self._activated_like(rights[0], self.left_segment)
        if not rights:
            return self._missing(lefts[0])
        if not lefts:
            return self._extra(rights[0])
        left, right = _unpadded(lefts), _unpadded(rights)
        if {_family(left), _family(right)} <= causes.POOLS:
            padded = lefts[0] is not left or rights[0] is not right
            return _both(left, right, self.bound, padded=padded)
        left, right = lefts[0], rights[0]
        if found := compare_masks(left, right):
            size = _distance(left.outputs[0], right.outputs[0])
            places = left.call.name, right.call.name
            return Parted(*places, size if np.isfinite(size) else None, found)
        different = _family(left) != _family(right)
        given = (lefts, rights) if different else ([left], [right])
        if same := self._find_same_but(*given):
            return same
        if different and (other := self._ordered_otherwise(lefts, rights)):
            return other
        return self._placed(_both(left, right, self.bound))

    def _with_activation(
        self, own: list[Seen], segment: Sequence[Seen], others: Sequence[Seen]
    ) -> list[Seen]:
        """The calls, the first one an activation where that is written out."""
        if not own or identified(own[0]).kind in causes.ACTIVATIONS:
            return own
        for given in map(_given, (*own[:1], *others[:1])):
            if found := _as_activation(own[0], given, segment):
                return [found, *own[1:]]
        return own

    def _activated_like(self, seen: Seen, segment: Sequence[Seen]) -> list[Seen]:
        """The activation of a segment that is given what another one is."""
        given = _given(seen)
        if identified(seen).kind not in causes.ACTIVATIONS or given is None:
            return []
        return [
            x
            for x in segment
            if identified(x).kind in causes.ACTIVATIONS
            and alike(x.inputs[0], given, self.bound)
        ][:1]

    def _ordered_otherwise(
        self, lefts: Sequence[Seen], rights: Sequence[Seen]
    ) -> Parted | None:
        """Whether one model calls something more, or the same in another order."""
        left, right = lefts[0], rights[0]
        counts = [Counter(map(_family, found)) for found in (lefts, rights)]
        # The other model's call comes later on this side: this one is too much.
        fewer = _family(left) in counts[0] - counts[1]
        more = _family(right) in counts[1] - counts[0]
        if more and not fewer:
            return self._extra(right)
        if fewer and not more:
            return self._missing(left)
        if fewer:
            return None
        text = f"left {_title(left)} comes first, right {_title(right)}"
        cause = Cause(key="layer-order", sentence=text)
        return Parted(left.call.name, right.call.name, self.size, cause)

    def _find_written_out(
        self, lefts: Sequence[Seen], rights: Sequence[Seen]
    ) -> Parted | None:
        """Whether attentions or norms differ that are layers, or written out."""
        if not lefts and not rights:
            return None
        if lefts and rights and compare_masks(lefts[0], rights[0]):
            return None
        segments = self.left_segment, self.right_segment
        arrays = [self.target.wanted, *(x for y in segments[0] for x in y.inputs)]
        count = next((len(x) for x in arrays if x.ndim), 0)  # of images or texts
        found = compare_cores(*segments, count) if count else None
        if not (found := found or compare_norms(*segments)):
            return None
        left, right = (
            (alone or every)[0].call.name
            for alone, every in zip((lefts, rights), segments, strict=True)
        )
        return Parted(left, right, self.size, found)

    def _find_same_but(
        self, lefts: Sequence[Seen], rights: Sequence[Seen]
    ) -> Parted | None:
        """Two calls of one function that are given the same beside another constant.

        Calls before them may have no partner: one model squares, where the other one
        takes a power that is not seen.
        """
        for left in lefts:
            for right in rights:
                if _family(left) != _family(right) or not left.varying:
                    continue
                if not _varies_alike(left, right, self.bound):
                    continue
                specs = identified(left), identified(right)
                cause = compare_constants(left, right)
                names = left.call.name, right.call.name
                if cause is not None:
                    return Parted(*names, self.size, cause)
                if specs[0].kind == "scale" and causes.differences(
                    specs[:1], specs[1:]
                ):
                    return self._placed(_both(left, right, self.bound))
        return None

    def _placed(self, parted: Parted) -> Parted:
        """A factor is named by where it is: at the input, or before a softmax."""
        cause = parted.cause
        if cause is None or cause.key != "input-scale" or self.left_after == INPUT:
            return parted
        scores = any(identified(x).kind == "softmax" for x in self.left_segment)
        key = "attention-scale" if scores else "constant"
        return replace(parted, cause=cause.model_copy(update={"key": key}))

    def _takes_step(self, seen: Seen) -> bool:
        """Whether a call takes a step of what a recurrent layer gives."""
        return self.left_kind in SEQUENCES and seen.call.name == "getitem"

    def _find_positions(
        self, lefts: Sequence[Seen], rights: Sequence[Seen]
    ) -> Parted | None:
        """Whether a table's rows are looked up at positions that one model finds."""
        for which, own, other, every in (
            ("left", lefts, rights, self.right),
            ("right", rights, lefts, self.left),
        ):
            if not own or own[0].outputs[0].dtype.kind not in "iub":
                continue
            tables = [x for x in own if identified(x).kind == "embedding" and _grows(x)]
            if not tables or _is_known(tables[0].outputs[0], every):
                continue
            rows = np.atleast_2d(tables[0].inputs[0])[-1][:SHOWN].tolist()
            cause = Cause(
                key="position",
                sentence=f"only the {which} model finds positions by {_title(own[0])}: "
                f"of the last example, they are the rows {', '.join(map(str, rows))}",
            )
            places = tables[0].call.name, other[0].call.name if other else "-"
            left, right = places if which == "left" else places[::-1]
            return Parted(left, right, None, cause)
        return None

    def _missing(self, seen: Seen) -> Parted:
        """A call that only the left model has."""
        kind = identified(seen).kind
        key = causes.lone_key(kind, "missing")
        sentence = f"only the left model calls {_title(seen)}"
        if kind != "add" and _elsewhere(seen, self.right, self.left, self.bound):
            key = "layer-order"
            sentence += " here; the right one does elsewhere"
        elif self._takes_step(seen):
            key = "last-step"
        elif hidden(seen) is not None:
            key = "mask"
        elif (
            (kind == "embedding" and _grows(seen))
            or (kind == "scale" and _counts(seen))
            or _adds_table(seen, self.left)
        ):
            key = "position"
        elif self.left_after == INPUT and kind in ARITHMETIC:
            key = "input-scale"
        cause = Cause(key=key, sentence=sentence)
        after = _source(seen, self.right, self.bound) or self.right_after
        return Parted(seen.call.name, f"after {after}", self.size, cause)

    def _extra(self, seen: Seen) -> Parted:
        """A call that only the right model has."""
        kind = identified(seen).kind
        key = causes.lone_key(kind, "extra")
        sentence = f"only the right model calls {_title(seen)}"
        if _elsewhere(seen, self.left, self.right, self.bound):
            key = "layer-order"
            sentence += " here; the left one does elsewhere"
        elif self._takes_step(seen):
            key = "last-step"
        elif (
            "equal" in seen.call.name
            or seen.outputs[0].dtype.kind == "b"
            or hidden(seen) is not None
        ):
            key = "mask"
        elif _adds_table(seen, self.right) or (
            kind in ("scale", "multiply") and _counts(seen)
        ):
            key = "position"
        elif kind in ("scale", "multiply") and self.left_kind == "embedding":
            key = "embedding-scale"
        elif self.right_after == INPUT and kind not in (*causes.ACTIVATIONS, "pad"):
            key = "input-scale"
        cause = Cause(key=key, sentence=sentence)
        place = f"after {_source(seen, self.left, self.bound) or self.left_after}"
        if key == "layer-order" or self.right_after == INPUT:
            place = self.target.left
        return Parted(place, seen.call.name, self.size, cause)

    def _wired(self) -> Parted:
        """Every value is there on both sides, but another one is used."""
        target, after = self.target, f"after {self.right_after}"
        if found := arranged_otherwise(target.wanted, target.got):
            return Parted(target.left, target.right, self.size, found)
        used = [
            x
            for x in self.left
            if x.outputs and alike(x.outputs[0], target.got, self.bound)
        ]
        ends = [
            x
            for x in self.left_segment
            if x.outputs and alike(x.outputs[0], target.wanted, self.bound)
        ]
        if used:
            sentence = (
                f"what goes into {target.right} is what the left model has after "
                f"{used[-1].call.name}"
            )
            added = ends and ends[-1].call.kind == "add"
            if added and any(alike(x, target.got, self.bound) for x in ends[-1].inputs):
                cause = Cause(key="residual-missing", sentence=sentence)
                return Parted(ends[-1].call.name, after, self.size, cause)
            cause = Cause(key="layer-order", sentence=sentence)
            return Parted(target.left, target.right, self.size, cause)
        found = None
        if self.left_kind in ("lstm", "gru", "rnn"):
            text = "another state, or that of another step, is used"
            found = Cause(key="state-kind", sentence=text)
        return Parted(f"after {self.left_after}", after, self.size, found)


def _leading(
    calls: Sequence[Seen],
    segment: Sequence[Seen],
    end: int | None,
    other: Sequence[Seen],
    bound: float,
) -> list[Seen]:
    """The calls of a segment from its end back to what the other model has as well.

    A call whose value the other model has nowhere, but which leads to one that it has,
    is another way to the same: a layer that pads before a pool.
    """
    if not calls:
        return []
    alone = {x.call.serial: x for x in _alone(segment, other, bound)}
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
        if calls[serial].constant:
            continue
        if serial in alone:
            found.add(serial)
        elif serial in inside or not _is_neutral(call):
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


def _counts(seen: Seen) -> bool:
    """Whether it is given whole numbers."""
    return bool(seen.inputs) and seen.inputs[0].dtype.kind in "iu"


def _grows(seen: Seen) -> bool:
    """Whether it is given positions."""
    return _counts(seen) and bool(np.any(np.diff(seen.inputs[0]) > 0))


def _is_known(array: Array, calls: Sequence[Seen]) -> bool:
    """Whether a call is given or gives these values, but for repeats."""
    return any(
        are_same(array, x) for seen in calls for x in (*seen.inputs, *seen.outputs)
    )


def _without_ids(found: list[Seen]) -> list[Seen]:
    """The calls but those that find out which rows of a table are looked up."""
    if not any(identified(x).kind == "embedding" for x in found):
        return found
    return [x for x in found if x.outputs[0].dtype.kind not in "iub"]


def _source(seen: Seen, other: Sequence[Seen], bound: float) -> str | None:
    """The call of the other model that made the same as what this one is given."""
    for one in reversed(other):
        if seen.inputs and any(alike(seen.inputs[0], x, bound) for x in one.outputs):
            return one.call.name
    return None


def _elsewhere(
    seen: Seen, calls: Sequence[Seen], other: Sequence[Seen], bound: float
) -> bool:
    """Whether `calls` have one of this kind whose result the other has nowhere."""
    family = _family(seen)
    same = [x for x in calls if not x.call.weighted and _family(x) == family]
    # What only inherits a difference is not another call.
    return any(
        family in causes.POOLS
        or all(
            any(alike(x, y, bound) for z in other for y in z.outputs)
            for x in one.inputs
        )
        for one in _alone(same, other, bound)
    )


def _alone(calls: Sequence[Seen], other: Sequence[Seen], bound: float) -> list[Seen]:
    """The calls whose result the other model has nowhere, in their order."""
    return [
        seen
        for seen in calls
        if seen.outputs
        and not any(alike(seen.outputs[0], x, bound) for y in other for x in y.outputs)
    ]


GUESSES = (
    *(LayerSpec(x) for x in ("relu", "relu6", "selu", "silu", "sigmoid", "tanh")),
    *(LayerSpec(x) for x in ("hard_sigmoid", "hard_swish", "softplus", "mish")),
    *(LayerSpec("gelu", {"approximate": x}) for x in (False, True)),
    *(LayerSpec("leaky_relu", {"slope": x}) for x in (0.01, 0.1, 0.2, 0.3)),
    *(LayerSpec("elu", {"alpha": x}) for x in (1.0, 0.1)),
    LayerSpec("softmax", {"axis": -1}),
)


@np.errstate(all="ignore")
def identified(seen: Seen) -> LayerSpec:
    """What a function does that says nothing of itself: found by trying."""
    told = seen.call.spec
    if told.kind != "other" or len(seen.inputs) != 1 or not seen.outputs:
        return told
    given, made = seen.inputs[0], seen.outputs[0]
    if given.shape != made.shape or given.dtype.kind != "f" or not given.size:
        return told
    given, made = np.atleast_1d(given), np.atleast_1d(made)
    for guess in GUESSES:
        if relative_error(made, layers.apply(guess, [given])) <= GUESSED:
            return guess
    return told


def _as_activation(
    seen: Seen, given: Array | None, segment: Sequence[Seen]
) -> Seen | None:
    """The activation that begins with a call, if it is written out."""
    if given is None or given.dtype.kind != "f":
        return None
    for one in segment:
        if one.call.serial < seen.call.serial or not one.outputs:
            continue
        made = one.outputs[0]
        call = replace(seen.call, spec=LayerSpec("other"), title="")
        found = identified(replace(seen, call=call, inputs=(given,), outputs=(made,)))
        if found.kind != "other" and not np.array_equal(given, made):
            call = replace(call, spec=found, title=found.kind)
            return replace(seen, call=call, inputs=(given,), outputs=(made,))
    return None


def _given(seen: Seen) -> Array | None:
    """The first of its inputs that hang on the model's."""
    return next(iter(seen.varying or seen.inputs), None)


def _both(left: Seen, right: Seen, bound: float, *, padded: bool = False) -> Parted:
    size = _distance(left.outputs[0], right.outputs[0])
    finite = size if np.isfinite(size) else None
    names = left.call.name, right.call.name
    spec, right_spec = identified(left), identified(right)
    sentence = f"the left model calls {_title(left)}, the right one {_title(right)}"
    if spec.kind == right_spec.kind == "concatenate":
        matched = [any(alike(x, y, bound) for y in right.inputs) for x in left.inputs]
        if all(matched) and len(left.inputs) == len(right.inputs):
            cause = Cause(
                key="concat-order", sentence="the same parts come in another order"
            )
            return Parted(*names, finite, cause)
    titles = (left.call.name + right.call.name).replace("_", "")
    if "getitem" in titles or "flip" in titles:
        key = "pool-kind" if spec.kind in causes.POOLS else "last-step"
        cause = _slices(left, right) or Cause(key=key, sentence=sentence)
        return Parted(*names, finite, cause)
    if padded and spec.kind == right_spec.kind:
        return Parted(*names, finite, Cause(key="pool-padding", sentence=sentence))
    if found := _broadcast(left, right) or _arrangement(left, right, bound):
        return Parted(*names, finite, found)
    if spec.kind == right_spec.kind and spec.kind != "other":
        got, found = right.outputs[0], None
        orders = channel_orders(left.outputs[0])
        wanted = next((x for x in orders if x.shape == got.shape), None)
        if wanted is not None:
            found = causes.of_layer(
                [spec], [right_spec], list(right.inputs), wanted, got
            )
        elif causes.differences([spec], [right_spec]):
            shapes = left.outputs[0].shape, got.shape
            found = causes.of_shapes([spec], [right_spec], shapes)
        found = found or _inputs(left, right, bound)
        if found is None and left.call.weighted and right.call.weighted:
            found = Cause(
                key="weights-not-shared",
                sentence=f"{left.call.name} and {right.call.name} have other weights: "
                "one model shares them with another layer, in the other one they are "
                "its own",
                write="compute with the other layer's weight: "
                "keras.ops.matmul(x, keras.ops.transpose(embedding.embeddings)), "
                "head.weight = embedding.weight",
            )
        return Parted(*names, finite, found)
    if _family(left) == _family(right):
        key = "axis" if spec.kind != "other" else "layer-kind"
    else:
        key = causes.kinds_key(spec.kind, right_spec.kind)
    # Without names of layers: one cause in many places.
    kinds = f"the left model calls {spec.kind}, the right one {right_spec.kind}"
    sentence = kinds if key == "activation-kind" else sentence
    return Parted(*names, finite, Cause(key=key, sentence=sentence))


def _slices(left: Seen, right: Seen) -> Cause | None:
    """Other values of one axis: neighbours of pairs, or halves; or another part."""
    taken = [x for x in (_slice(left), _slice(right)) if x]
    if len(taken) < 2 or taken[0] == taken[1]:
        return None
    told = [
        f"{'every second' if x.step == 2 else 'each'} value from {x.start} to {x.stop} "
        f"of axis {axis}"
        for axis, x in taken
    ]
    sentence = f"left takes {told[0]}, right {told[1]}"
    (axis, one), (other, two) = taken
    if axis == other and {one.step, two.step} == {1, 2}:
        sentence += ": one has pairs interleaved, the other one in halves"
        return Cause(key="interleaving", sentence=sentence)
    return Cause(key="crop", sentence=sentence)


def _slice(seen: Seen) -> tuple[int, slice] | None:
    """The axis and the part of it that a call takes of its input; None: another."""
    if "getitem" not in seen.call.name or not seen.inputs or not seen.outputs:
        return None
    given, made = seen.inputs[0], seen.outputs[0]
    if given.ndim != made.ndim:
        return None
    axes = [x for x in range(given.ndim) if given.shape[x] != made.shape[x]]
    if len(axes) != 1:
        return None
    (axis,), length = axes, made.shape[axes[0]]
    for step in (1, 2):
        for start in range(given.shape[axis] - step * (length - 1)):
            part = slice(start, start + step * (length - 1) + 1, step)
            cut = (slice(None),) * axis + (part,)
            if np.array_equal(given[cut], made):
                return axis, part
    return None


def _broadcast(left: Seen, right: Seen) -> Cause | None:
    """Two calls of several inputs whose results are not of one size."""
    made = left.outputs[0], right.outputs[0]
    if made[0].size == made[1].size or min(len(left.inputs), len(right.inputs)) < 2:
        return None
    told = [
        " and ".join(str(x.shape) for x in seen.inputs) + f" give {array.shape}"
        for seen, array in zip((left, right), made, strict=True)
    ]
    wide = [
        array.size > max(x.size for x in seen.inputs)
        for seen, array in zip((left, right), made, strict=True)
    ]
    if not any(wide) or _family(left) != _family(right):
        return None
    return Cause(
        key="broadcast",
        sentence=f"left {told[0]}, right {told[1]}: shapes are broadcast on one side",
        write="give both the same shape before, as with x.flatten()",
    )


def _adds_table(seen: Seen, calls: Sequence[Seen]) -> bool:
    """Whether it adds a table that is used nowhere else."""
    if identified(seen).kind != "add":
        return False
    tables = [x for table in seen.constants for x in unless_repeated(table)]
    return any(
        not any(
            given is table or np.array_equal(given, table)
            for other in calls
            if other.call.serial != seen.call.serial and not other.constant
            for given in other.inputs
        )
        for table in tables
    )


def _varies_alike(left: Seen, right: Seen, bound: float) -> bool:
    """Whether what two calls are given beside constants is the same, axes aside."""

    def same(x: Array, y: Array) -> bool:
        turned = sorted(x.shape) == sorted(y.shape) and x.ndim > 2
        return alike(x, y, bound) or (turned and have_same_values(x, y, bound))

    return len(left.varying) == len(right.varying) and all(
        any(same(x, y) for y in right.varying) for x in left.varying
    )


def _arrangement(left: Seen, right: Seen, bound: float) -> Cause | None:
    """Two calls of one function, one of whose inputs has the same values elsewhere."""
    if _family(left) != _family(right) or len(left.inputs) != len(right.inputs):
        return None
    for wanted, got in zip(left.inputs, right.inputs, strict=True):
        if not alike(wanted, got, bound) and (found := arranged_otherwise(wanted, got)):
            return found
    return None


def _inputs(left: Seen, right: Seen, bound: float) -> Cause | None:
    """Two calls of one function with other inputs."""
    for number, array in enumerate(left.inputs):
        if not any(alike(array, x, bound) for x in right.inputs):
            key = "residual-missing" if left.call.kind == "add" else "layer-order"
            if left.call.kind == "add" and len(left.inputs) == len(right.inputs):
                key = "position" if array.ndim < 3 or len(array) == 1 else "layer-order"
            sentence = f"input {number + 1} of {_title(left)} comes from elsewhere"
            return Cause(key=key, sentence=sentence)
    return None


def _title(seen: Seen) -> str:
    """What it is, as a reader would write it; of a layer, without its name."""
    return seen.call.title.splitlines()[0].rpartition(":")[2]
