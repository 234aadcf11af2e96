"""Names a cause for each place where two models part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paripassu.core.layer_spec import Array, LayerSpec, relative_error
from paripassu.port_check import causes, segments, weights
from paripassu.port_check.findings import Findings, finite
from paripassu.port_check.groups import (
    Anchors,
    Comparer,
    Group,
    Recorder,
    Store,
    described,
)
from paripassu.port_check.mapping import Models
from paripassu.port_check.matching import INPUT
from paripassu.port_check.results import Cause
from paripassu.port_check.segments import Seen
from paripassu.port_check.walks import ROUNDED, Walk, Walker
from paripassu.port_check.watchers import Everything
from paripassu.sides.contract import Arrays, Call


class Explainer:
    """Looks for causes; `explain` adds them to the findings."""

    def __init__(self, models: Models, findings: Findings, walker: Walker):
        self.models, self.findings, self.walker = models, findings, walker

    def explain(self, walks: dict[str, Walk]) -> None:  # noqa: PLR0912
        """Name a cause for each faulty place.

        Weights first: with the left's weights in the right model, what is left of the
        errors is not the weights'.
        """
        before = walks["forced"].errors
        kept: dict[str, Arrays] = {}
        if self.models.unequal:
            for pair in self.models.pairs:
                if pair.left in self.models.unequal and pair.right is not None:
                    one, two = (
                        self.models.left_blocks[pair.left],
                        self.models.right_blocks[pair.right],
                    )
                    kept[pair.right] = dict(two.described.weights)
                    kept[pair.right] = {
                        k: np.array(x) for k, x in kept[pair.right].items()
                    }
                    self.models.right.probe.write(
                        pair.right, self.models.carried(one, two)
                    )
            self.models.reread()
        store = Store()
        try:
            left_calls = self._details(store)
            right_calls, errors, made = self._details_right(store)
            if kept:
                self._weight_faults(kept, before, errors)
            seen: set[str] = set()
            for key in errors:
                if errors[key] <= max(self.walker.bound(walks, key), ROUNDED):
                    continue
                number, visit, end = key
                group = self.models.groups[number]
                if self._misshapen(group):
                    continue
                jump = errors[key] / self.walker.bound(walks, key)
                if end == "out":
                    self._layer_fault(
                        group, visit, errors[key], jump, left_calls, right_calls
                    )
                else:
                    self._segment_fault(key, jump, left_calls, right_calls, seen)
            error = max(
                (
                    relative_error(one, two)
                    for _, one, two in self.walker.outputs(walks["left"].outputs, made)
                ),
                default=0.0,
            )
            told = self.findings.faults and not math.isfinite(error)
            if error > max(self.walker.output_bound(walks), ROUNDED) and not told:
                self._output_fault(walks, made, error, left_calls, right_calls, seen)
        finally:
            store.close()
            for name, old in kept.items():
                self.models.right.probe.write(name, old)
            if kept:
                self.models.reread()

    def _misshapen(self, group: Group) -> bool:
        """Whether its weights' shapes differ, which has been told already."""
        names = {one.name for one, _ in group.blocks}
        return any(
            x.left in names and x.doubt.startswith("shapes differ")
            for x in self.models.pairs
        )

    def _weight_faults(
        self,
        kept: Mapping[str, Arrays],
        before: Mapping[tuple[int, int, str], float],
        after: Mapping[tuple[int, int, str], float],
    ) -> None:
        if self.models.unrelated:
            cause = Cause(
                key="weights-not-copied",
                sentence="the models were not given the same weights",
                write="--copy left-to-right compares them with the left's weights",
            )
            first = next(iter(self.models.unequal))
            pair = next(x for x in self.models.pairs if x.left == first)
            self.findings.fault("weights", first, pair.right or "-", None, cause)
            return
        others = {
            (name, key): array
            for name, block in self.models.left_blocks.items()
            for key, array in block.described.weights.items()
        }
        for pair in self.models.pairs:
            if pair.left not in self.models.unequal or pair.right is None:
                continue
            one = self.models.left_blocks[pair.left]
            two = self.models.right_blocks[pair.right]
            keys, group = self.models.keys(one, two), self.models.group_of(pair.left)
            carried = self.models.carried(one, two)
            number = self.models.groups.index(group) if group else -1
            ends = [k for k in before if k[0] == number and k[2] == "out"]
            for name in self.models.unequal[pair.left]:
                key = keys[name]
                wanted, got = carried[key], kept[pair.right][key]
                rest = {k: v for k, v in others.items() if k != (pair.left, name)}
                bias = one.described.settings.get("_input_bias")
                second = one.described.weights.get("recurrent_bias")
                found = weights.recognise(
                    one.kind,
                    name,
                    wanted,
                    got,
                    others=rest,
                    flattened=group.flattened if group else None,
                    input_bias=bias,
                    recurrent_bias=second,
                )
                cause = Cause(
                    key=found[0],
                    sentence=f"{key} of {pair.right}: {found[1]}",
                    write="--copy left-to-right writes it as the left model has it",
                    before=finite(max((before[k] for k in ends), default=math.inf)),
                    after=finite(max((after[k] for k in ends), default=math.inf)),
                )
                size = relative_error(wanted, got)
                self.findings.fault("weights", one.layer, two.layer, size, cause)

    def _details(self, store: Store) -> list[Seen]:
        everything = Everything(Anchors(self.models.groups, "left", Recorder(store)))
        self.models.left.run(self.models.inputs, everything, sources=True)
        return everything.seen

    def _details_right(
        self, store: Store
    ) -> tuple[list[Seen], dict[tuple[int, int, str], float], Arrays]:
        watcher = Comparer(self.models.groups, store, forced=True)
        everything = Everything(Anchors(self.models.groups, "right", watcher))
        made = self.models.right.run(self.models.right_inputs, everything, sources=True)
        return everything.seen, dict(watcher.errors.found), made

    def _layer_fault(
        self,
        group: Group,
        visit: int,
        size: float,
        jump: float,
        left_calls: Sequence[Seen],
        right_calls: Sequence[Seen],
    ) -> None:
        left, right = described(group)
        one = [
            x for x in left_calls if x.call.name == group.left[-1] and x.call.weighted
        ]
        two = [
            x for x in right_calls if x.call.name == group.right[-1] and x.call.weighted
        ]
        begin = [
            x for x in right_calls if x.call.name == group.right[0] and x.call.weighted
        ]
        first = [
            x for x in left_calls if x.call.name == group.left[0] and x.call.weighted
        ]
        cause = None
        if visit < min(len(one), len(two)):
            # Settings are read again at the call: padding may depend on it.
            right = _updated(right, two[visit].call)
            left = _updated(left, one[visit].call)
            got = two[visit].outputs[0]
            wanted = group.carry("out", one[visit].outputs[0], got)
            regions = None
            if group.kind == "conv_transpose" and wanted is not None:
                regions = group.regions(one[visit].outputs[0], got)
            if regions and one[visit].outputs[0].shape != got.shape:
                # The right model crops later: look at what the left one has kept.
                wanted, got = one[visit].outputs[0][regions[0]], got[regions[1]]
                crop = {"crop": left[0].settings["crop"]}
                right = [
                    LayerSpec(x.kind, {**x.settings, **crop}, x.weights) for x in right
                ]
            inputs = []
            for x, y in zip(first[visit].inputs, begin[visit].inputs, strict=False):
                carried = group.carry("in", x, y)
                inputs.append(y if carried is None else carried)
            if wanted is None:
                cause = _other_shape(left, right, one[visit].outputs[0], got)
            else:
                cause = causes.of_layer(left, right, inputs, wanted, got, _shape(group))
        names = ", ".join(group.left), ", ".join(group.right)
        self.findings.fault("forward", *names, size, cause, jump=jump)

    def _serials(self, calls: Sequence[Seen], side: str) -> dict[str, list[int]]:
        names = {
            name
            for group in self.models.groups
            for name in (group.left if side == "left" else group.right)
        }
        found: dict[str, list[int]] = {}
        for seen in calls:
            if seen.call.weighted and seen.call.name in names:
                found.setdefault(seen.call.name, []).append(seen.call.serial)
        return found

    def _segment_fault(
        self,
        key: tuple[int, int, str],
        jump: float,
        left_calls: Sequence[Seen],
        right_calls: Sequence[Seen],
        seen: set[str],
    ) -> None:
        number, visit, _ = key
        group = self.models.groups[number]
        one = self._serials(left_calls, "left")
        two = self._serials(right_calls, "right")
        starts = one.get(group.left[0], []), two.get(group.right[0], [])
        if visit >= min(map(len, starts)):
            return
        target_left, target_right = starts[0][visit], starts[1][visit]
        stops_left = {x for found in one.values() for x in found}
        stops_right = {x for found in two.values() for x in found}
        left = segments.between(left_calls, target_left, stops_left)
        right = segments.between(right_calls, target_right, stops_right)
        got = right_calls[target_right].inputs[0]
        kept = left_calls[target_left].inputs[0]
        wanted = group.carry("in", kept, got)
        parted = segments.part(
            left,
            right,
            left_calls,
            right_calls,
            segments.Target(
                group.left[0],
                group.right[0],
                kept if wanted is None else wanted,
                got,
                _before(left_calls, target_left, stops_left),
                _before(right_calls, target_right, stops_right),
                _kind_before(left_calls, target_left, stops_left),
                target_left,
                target_right,
            ),
        )
        self._parted(parted, target_left, jump, seen)

    def _parted(
        self, parted: segments.Parted, serial: int, jump: float, seen: set[str]
    ) -> None:
        label = f"{parted.left} {parted.right}"
        if label not in seen:
            seen.add(label)
            names = parted.left, parted.right
            self.findings.fault(
                "forward", *names, parted.size, parted.cause, jump=jump, at=serial - 0.5
            )

    def _output_fault(
        self,
        walks: Mapping[str, Walk],
        made: Arrays,
        error: float,
        left_calls: Sequence[Seen],
        right_calls: Sequence[Seen],
        seen: set[str],
    ) -> None:
        one = self._serials(left_calls, "left")
        two = self._serials(right_calls, "right")
        stops_left = {x for found in one.values() for x in found}
        stops_right = {x for found in two.values() for x in found}
        left = segments.between(left_calls, None, stops_left)
        right = segments.between(right_calls, None, stops_right)
        name, wanted, got = max(
            self.walker.outputs(walks["left"].outputs, made),
            key=lambda x: relative_error(x[1], x[2]),
        )
        parted = segments.part(
            left,
            right,
            left_calls,
            right_calls,
            segments.Target(
                name,
                name,
                wanted,
                got,
                _before(left_calls, len(left_calls), stops_left),
                _before(right_calls, len(right_calls), stops_right),
                _kind_before(left_calls, len(left_calls), stops_left),
                None,
                None,
            ),
        )
        jump = error / self.walker.output_bound(walks)
        self._parted(parted, len(left_calls), jump, seen)


def _before(calls: Sequence[Seen], end: int, stops: set[int]) -> str:
    """The name of the last layer of the other model as well, before a call."""
    last = max((x for x in stops if x < end), default=-1)
    return calls[last].call.name if last >= 0 else INPUT


def _kind_before(calls: Sequence[Seen], end: int, stops: set[int]) -> str:
    last = max((x for x in stops if x < end), default=-1)
    return calls[last].call.kind if last >= 0 else ""


def _updated(parts: Sequence[Any], call: Call) -> list[Any]:
    more = dict(call.described.settings)
    if len(parts) > 1:
        more = {key: x for key, x in more.items() if key in ("last", "merge")}
    return [type(x)(x.kind, {**x.settings, **more}, x.weights) for x in parts]


def _shape(group: Group) -> causes.Shape:
    """How the parts of a recurrent layer lie: on each other, or in two directions."""
    names = [x.name for x, _ in group.blocks]
    if not any(x.endswith("/reverse") for x in names):
        names = [x.name for _, x in group.blocks]
    counts: list[int] = []
    for name in names:
        if name.endswith("/reverse") and counts:
            counts[-1] += 1
        else:
            counts.append(1)
    half = None
    last = [n for n, (_, x) in enumerate(group.blocks) if x.layer == group.right[-1]]
    if counts[-1] == 2 and len(last) == 1:
        half = int(last[0] == len(names) - 1)
    return causes.Shape(tuple(counts), half)


def _other_shape(
    left: Sequence[LayerSpec], right: Sequence[LayerSpec], wanted: Array, got: Array
) -> Cause | None:
    differing = causes.differences(left, right)
    if not differing:
        return None
    return Cause(
        key=causes.key_of(left[0], right[0], differing[0]),
        sentence=f"shapes {wanted.shape} and {got.shape}: left "
        f"{causes.told(left[0].settings)}; right {causes.told(right[0].settings)}",
    )
