"""Names a cause for each place where two models part."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Literal

import numpy as np

from paripassu.core.layer_spec import Array, LayerSpec, relative_error
from paripassu.port_check import causes, directions, segments, weights
from paripassu.port_check.align import (
    SEQUENCES,
    Anchors,
    Comparer,
    Group,
    Point,
    Store,
    data_inputs,
    layer_specs,
)
from paripassu.port_check.constants import find_constants
from paripassu.port_check.fold_finding import find_mistake
from paripassu.port_check.match import INPUT
from paripassu.port_check.output_pairs import masks_of, pair_outputs
from paripassu.port_check.pairing import PairedModels
from paripassu.port_check.results import WEIGHTS, Cause, Findings, finite
from paripassu.port_check.runs import Run, Runner, Runs
from paripassu.port_check.seen import Seen
from paripassu.port_check.segments import CallRecorder, Trace
from paripassu.port_check.tolerance import ALIKE
from paripassu.sides.contract import Arrays, Call

SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
PRODUCTS = ("query", "value", "key")  # of an attention's inputs, in their order
SHOWN = 12  # rows of a table that are told
NOT_COPIED = "weights-not-copied"
RECORDED_LAYERS = (
    "the recording holds layers with weights only: which function between two of them "
    "differs is told by one of --level full"
)


# What is compared between layers: names, ends, arrays, and how far beyond the bound.
Between = tuple[tuple[str, str], tuple[int | None, int | None], Array, Array, float]


class Explainer:
    """Looks for causes; `explain` adds them to the findings."""

    def __init__(self, models: PairedModels, findings: Findings, runner: Runner):
        self.models, self.findings, self.runner = models, findings, runner

    def explain(self, runs: Runs) -> None:
        """Name a cause for each faulty place.

        Weights first: with the left's weights in the right model, what is left of the
        errors is not the weights'.
        """
        own = self._exchange_weights()
        try:
            with closing(Store()) as store:
                self._trace(store, runs)
            if own:
                self._explain_weights(own, runs.forced.errors, self.run.errors)
            self._explain_places(runs)
        finally:
            for name, arrays in own.items():
                self.models.right.write(name, arrays)
            if own:
                self.models.reread()

    def _exchange_weights(self) -> dict[str, Arrays]:
        """Give the right model the left's weights; return its own that were unequal."""
        own: dict[str, Arrays] = {}
        for _, left, right in self.models.block_pairs():
            if left.name in self.models.unequal:
                own[right.name] = {
                    name: np.array(x) for name, x in right.spec.weights.items()
                }
                fresh = self.models.carry_to_right(left, right)
                self.models.right.write(right.name, fresh)
        if own:
            self.models.reread()
        return own

    def _trace(self, store: Store, runs: Runs) -> None:
        """Run both, the right one forced, and keep the arrays of all calls."""
        models, groups = self.models, self.models.groups
        recorder = CallRecorder(Anchors(groups, "left", store.record))
        models.left.run(models.inputs, recorder, sources=True)
        left = find_constants(models.left, models.inputs, recorder.seen)
        self.left = self._traced("left", left)
        self._trace_right(store)
        # A factor may stand in one model's layer, and after the other's.
        faulty = {
            x[0] for x in self.run.errors if x[2] == "out" and self._is_off(x, runs)
        }
        self.made_up: set[int] = set()
        if faulty:
            self._trace_right(store, faulty)
            self.made_up = self._find_made_up(faulty, runs)
            if self.made_up != faulty:
                self._trace_right(store, self.made_up)
        self.told: set[tuple[str, str]] = set()
        self.explained: list[tuple[Array, Array]] = []
        self.hidden: list[Between] = []

    def _trace_right(self, store: Store, free: Collection[int] = ()) -> None:
        """Run the right model; outputs of some groups stay its own."""
        models, groups = self.models, self.models.groups
        comparer = Comparer(groups, store, forced=True, free=free)
        recorder = CallRecorder(Anchors(groups, "right", comparer))
        outputs = models.right.run(models.right_inputs, recorder, sources=True)
        self.run = Run(comparer.errors, outputs)
        right = find_constants(models.right, models.right_inputs, recorder.seen)
        self.right = self._traced("right", right)

    def _traced(self, which: Literal["left", "right"], calls: Sequence[Seen]) -> Trace:
        """The calls of one model, with the layers that have a partner."""
        groups = [
            (x, x.left if which == "left" else x.right) for x in self.models.groups
        ]
        layers = {name for _, names in groups for name in names}
        cells = [(x, names) for x, names in groups if x.cells == which]
        steps = {name: x.steps for x, names in cells for name in names}
        return Trace(calls, layers, steps)

    def _is_off(self, point: Point, runs: Runs) -> bool:
        """Whether it is further off than rounding makes it."""
        return self.run.errors[point] > max(runs.bound(point), self.findings.least)

    def _find_made_up(self, faulty: Collection[int], runs: Runs) -> set[int]:
        """Of groups, those whose outputs only go into what both models have."""
        groups, calls = self.models.groups, self.right.layer_calls
        number_of = {
            x.call.serial: number
            for number in faulty
            for x in calls(groups[number].right[-1])
        }
        output = runs.output_error(self.run.outputs) > runs.output_bound
        ends = [(self.right.feeding(None), output)]
        for point in self.run.errors:
            its = calls(groups[point[0]].right[0])
            if point[2] == "in" and point[1] < len(its):
                fed = self.right.feeding(its[point[1]].call.serial)
                ends.append((fed, self._is_off(point, runs)))
        off: dict[int, list[bool]] = {}
        for fed, is_off in ends:
            for serial in fed & number_of.keys():
                off.setdefault(number_of[serial], []).append(is_off)
        return {number for number, found in off.items() if not any(found)}

    def _explain_places(self, runs: Runs) -> None:
        later: list[tuple[Group, int, float, float]] = []
        for point, error in self.run.errors.items():
            bound = runs.bound(point)
            group = self.models.groups[point[0]]
            if error <= max(bound, self.findings.least) or self._has_other_shapes(
                group
            ):
                continue
            if point[2] == "out":
                if point[0] in self.made_up:
                    later.append((group, point[1], error, error / bound))
                else:
                    self._explain_layer(group, point[1], error, error / bound)
            else:
                self._explain_segment(group, point[1], error / bound)
        error = runs.output_error(self.run.outputs)
        told = self.findings.faults and not math.isfinite(error)
        if error > runs.output_bound and not told:
            self._explain_outputs(runs, error / runs.output_bound)
        if not self.findings.faults:
            for layer in later:
                self._explain_layer(*layer)
            for names, ends, wanted, got, jump in self.hidden:
                self._explain_parted(names, ends, wanted, got, jump)

    def _has_other_shapes(self, group: Group) -> bool:
        """Whether its weights' shapes differ, which has been told already."""
        names = {block.name for block, _ in group.blocks}
        return any(x.left in names and x.shapes_differ for x in self.models.pairs)

    def _explain_weights(
        self,
        own: Mapping[str, Arrays],
        before: Mapping[Point, float],
        after: Mapping[Point, float],
    ) -> None:
        models = self.models
        unequal = [x for x in models.block_pairs() if x[1].name in models.unequal]
        if models.unrelated:
            cause = Cause(
                key=NOT_COPIED,
                sentence="the models were not given the same weights",
                write="--copy left-to-right compares them with the left's weights",
            )
            _, left, right = unequal[0]
            self.findings.fault(WEIGHTS, left.name, right.name, None, cause)
            return
        others = {
            (block.name, name): array
            for block in models.left_blocks.values()
            for name, array in block.spec.weights.items()
        }
        for _, left, right in unequal:
            names, group = models.weight_names(left, right), models.group_of(left.name)
            carried = models.carry_to_right(left, right)
            number = models.groups.index(group) if group else -1
            ends = [x for x in before if x[0] == number and x[2] == "out"]
            errors = [
                max((x[k] for k in ends), default=math.inf) for x in (before, after)
            ]
            told: dict[str, tuple[str, str, float]] = {}
            for name in models.unequal[left.name]:
                wanted, got = carried[names[name]], own[right.name][names[name]]
                key, sentence = find_mistake(
                    left, right, name, wanted, got
                ) or weights.recognise(
                    left.kind,
                    name,
                    wanted,
                    got,
                    others={k: x for k, x in others.items() if k != (left.name, name)},
                    flattened=group.flattened if group else None,
                    input_bias=left.spec.settings.get("_input_bias"),
                    recurrent_bias=left.spec.weights.get("recurrent_bias"),
                    gates=right.spec.settings.get("_gates"),
                )
                told[name] = key, sentence, relative_error(wanted, got)
            whole = any(key == NOT_COPIED for key, *_ in told.values())
            for name, (key, sentence, size) in told.items():
                # A bias as it was made, of a layer that was not copied at all.
                forgotten = whole and key == "bias-not-copied"
                cause = Cause(
                    key=NOT_COPIED if forgotten else key,
                    sentence=f"{names[name]} of {right.name}: {sentence}",
                    write="--copy left-to-right writes it as the left model has it",
                    before=finite(errors[0]),
                    after=finite(errors[1]),
                )
                self.findings.fault(WEIGHTS, left.layer, right.layer, size, cause)

    def _explain_layer(
        self, group: Group, visit: int, size: float, jump: float
    ) -> None:
        ends = [
            trace.layer_calls(names[-1])
            for trace, names in ((self.left, group.left), (self.right, group.right))
        ]
        cause = None
        if visit < min(map(len, ends)):
            if self._runs_backwards(group, visit):
                cause = self._find_order(group, visit)
                if cause is None:
                    return  # it is the same in both
            else:
                cause = self._find_rows(group, visit)
                cause = cause or self._find_attention(group, visit)
                cause = cause or self._find_setting(group, visit)
        names = ", ".join(group.left), ", ".join(group.right)
        self.findings.fault("forward", *names, size, cause, jump=jump)

    def _runs_backwards(self, group: Group, visit: int) -> bool:
        """Whether one layer runs backwards, and the other is given reversed steps."""
        if group.kind not in SEQUENCES:
            return False
        left = self.left.layer_calls(group.left[0])[visit]
        right = self.right.layer_calls(group.right[0])[visit]
        return directions.one_runs_backwards(*layer_specs(group), (left, right))

    def _find_order(self, group: Group, visit: int) -> Cause | None:
        """In which order the steps of such layers come out."""
        left, right = layer_specs(group)
        ends = (
            self.left.layer_calls(group.left[-1])[visit],
            self.right.layer_calls(group.right[-1])[visit],
        )
        calls = self.left.calls, self.right.calls
        return directions.compare_orders((left[0], right[0]), ends, calls)

    def _find_rows(self, group: Group, visit: int) -> Cause | None:
        """Which rows are looked up, of tables of which one has more than the other."""
        if group.kind != "embedding" or len(group.blocks) != 1:
            return None
        rows = []
        for trace, block in zip((self.left, self.right), group.blocks[0], strict=True):
            begin = getattr(block.spec.settings.get("_cut"), "begin", 0)
            given = trace.layer_calls(block.layer)[visit].inputs[0]
            rows.append(np.atleast_2d(given.astype(np.int64) - begin))
        try:
            left, right = np.broadcast_arrays(*rows)
        except ValueError:
            return None
        differing = np.flatnonzero((left != right).reshape(len(left), -1).any(1))
        if not differing.size:
            return None
        told = [
            ", ".join(map(str, x[differing[0]].ravel()[:SHOWN])) for x in (left, right)
        ]
        return Cause(
            key="position",
            sentence=f"of example {differing[0]}, left looks up rows {told[0]}, right "
            f"{told[1]}, counted as in the smaller table",
        )

    def _find_attention(self, group: Group, visit: int) -> Cause | None:
        """The setting that parts an attention from one that is written out."""
        models, end = self.models, (group.left[-1], group.right[-1])
        left_out = self.left.layer_calls(end[0])[visit].outputs[0]
        right_out = self.right.layer_calls(end[1])[visit].outputs[0]
        wanted = group.carry("out", left_out, right_out)
        attentions = [
            {x.layer: x for x in model.probe.blocks() if x.kind == "attention"}
            for model in (models.left, models.right)
        ]
        if (
            wanted is None
            or len({x in y for x, y in zip(end, attentions, strict=True)}) < 2
        ):
            return None
        is_left = end[0] in attentions[0]
        trace = self.left if is_left else self.right
        call = trace.layer_calls(end[not is_left])[visit]
        inputs = [x for x in call.inputs if x.dtype.kind == "f"][:3]
        masks = [x for x in call.inputs if x.dtype.kind in "biu" and x.ndim > 1]
        entry = group.entry("left" if is_left else "right") or 0
        if not is_left:
            # What it was given was replaced by what the left model has.
            given = self.left.layer_calls(group.left[0])[visit].inputs[0]
            place = min(entry, len(inputs) - 1)
            if (carried := group.carry("in", given, inputs[place])) is not None:
                own = inputs[place]
                inputs = [carried if np.array_equal(x, own) else x for x in inputs]
        known = attentions[not is_left][end[not is_left]]
        spec = replace(known.spec, settings=dict(known.spec.settings))
        spec.settings.update(call.call.spec.settings)
        outputs = (wanted, right_out) if is_left else (right_out, wanted)
        return causes.of_attention(spec, inputs, masks, *outputs, is_left)

    def _find_setting(self, group: Group, visit: int) -> Cause | None:
        """The setting of a layer that makes the difference."""
        begin = self.left.layer_calls(group.left[0])[visit]
        right_begin = self.right.layer_calls(group.right[0])[visit]
        end = self.left.layer_calls(group.left[-1])[visit]
        right_end = self.right.layer_calls(group.right[-1])[visit]
        left, right = layer_specs(group)
        # Settings are read again at the call: padding may depend on it.
        left, right = _update(left, end.call), _update(right, right_end.call)
        made, got = end.outputs[0], right_end.outputs[0]
        wanted = group.carry("out", made, got)
        regions = None
        if group.kind == "conv_transpose" and wanted is not None:
            regions = group.regions(made, got)
        if regions and made.shape != got.shape:
            # The right model crops later: look at what the left one has kept.
            wanted, got = made[regions[0]], got[regions[1]]
            crop = {"crop": left[0].settings["crop"]}
            right = [replace(x, settings={**x.settings, **crop}) for x in right]
        if wanted is None:
            return _explain_shapes(left, right, made, got)
        inputs = []
        for array, like in zip(begin.inputs, right_begin.inputs, strict=False):
            carried = group.carry("in", array, like)
            inputs.append(like if carried is None else carried)
        return causes.of_layer(left, right, inputs, wanted, got, _shape(group))

    def _explain_segment(self, group: Group, visit: int, jump: float) -> None:
        left = self.left.layer_calls(group.left[0])
        right = self.right.layer_calls(group.right[0])
        if visit >= min(len(left), len(right)):
            return
        if self._runs_backwards(group, visit):
            return  # what that makes of the layer is told there
        end, right_end = left[visit], right[visit]
        names = group.left[0], group.right[0]
        pairs = _pair_inputs(group, end, right_end)
        cause = _find_exchanged(end, pairs)
        if not end.varying and not right_end.varying:
            cause = cause or self._find_rows(group, visit)
        if cause:
            size = relative_error(*pairs[0])
            self.findings.fault("forward", *names, size, cause, jump=jump)
            return
        wanted, got = max(pairs, key=lambda x: relative_error(*x))
        if any(_are_equal((wanted, got), x) for x in self.explained):
            return  # it is given what another layer is: query, key and value
        self.explained.append((wanted, got))
        ends = end.call.serial, right_end.call.serial
        self._explain_between(names, ends, wanted, got, jump)

    def _explain_outputs(self, runs: Runs, jump: float) -> None:
        name, other, wanted, got = max(
            pair_outputs(runs.plan, runs.left, self.run.outputs),
            key=lambda x: relative_error(x[2], x[3]),
        )
        self._explain_between((name, other), (None, None), wanted, got, jump)

    def _explain_between(
        self,
        names: tuple[str, str],
        ends: tuple[int | None, int | None],
        wanted: Array,
        got: Array,
        jump: float,
    ) -> None:
        """What lies between the last layers that are groups and a layer or the end.

        What differs only at steps that a mask hides is told where nothing else is:
        a layer that looks at them is a fault of its own.
        """
        if self._are_hidden(wanted, got):
            self.hidden.append((names, ends, wanted, got, jump))
        else:
            self._explain_parted(names, ends, wanted, got, jump)

    def _are_hidden(self, wanted: Array, got: Array) -> bool:
        """Whether both are the same but for steps that a given mask hides."""
        masks = masks_of(self.models.inputs).values()
        fitting = [x for x in masks if x.shape == wanted.shape[:2]]
        if wanted.shape != got.shape or len(fitting) != 1 or fitting[0].all():
            return False
        error = relative_error(wanted[fitting[0]], got[fitting[0]])
        return error <= max(ALIKE, self.findings.least)

    def _explain_parted(
        self,
        names: tuple[str, str],
        ends: tuple[int | None, int | None],
        wanted: Array,
        got: Array,
        jump: float,
    ) -> None:
        if (recorded := self.models.left.recorded) and recorded.found.level != "full":
            # The functions between layers were not recorded.
            self.findings.notes.append(RECORDED_LAYERS)
            stops = self.left.last_stop(ends[0]), self.right.last_stop(ends[1])
            left, right = (f"after {x.call.name if x else INPUT}" for x in stops)
            parted = segments.Parted(left, right, relative_error(wanted, got), None)
        else:
            target = segments.Target(*names, wanted, got, *ends)
            parted = segments.Segments(
                self.left, self.right, target, self.findings.least
            ).part()
        if parted.cause and self._is_told(parted, parted.cause.key):
            return  # a layer without a partner
        (left, line), (right, its_line) = (
            trace.locate(place, end)
            for trace, place, end in (
                (self.left, parted.left, ends[0]),
                (self.right, parted.right, ends[1]),
            )
        )
        if (left, right) not in self.told:
            self.told.add((left, right))
            at = len(self.left.calls) if ends[0] is None else ends[0]
            self.findings.fault(
                "forward",
                left,
                right,
                parted.size,
                parted.cause,
                jump=jump,
                at=at - 0.5,
                source=(line, its_line),
            )

    def _is_told(self, parted: segments.Parted, key: str) -> bool:
        """Whether it has been told of this place already."""
        told = [x for x in self.findings.faults if x.cause and x.cause.key == key]
        extra = key == "layer-extra"
        return any(
            x.left == parted.left or (extra and x.right == parted.right) for x in told
        )


def _are_equal(left: Sequence[Array], right: Sequence[Array]) -> bool:
    return all(map(np.array_equal, left, right))


def _pair_inputs(group: Group, left: Seen, right: Seen) -> list[tuple[Array, Array]]:
    """What both calls should be given, and are; of a split attention, its first."""
    split = any(group.entry(side) is not None for side in SIDES)
    begins = [
        (group.entry(side) or 0 if seen.call.kind == "attention" else 0)
        for side, seen in zip(SIDES, (left, right), strict=True)
    ]
    given = [
        seen.inputs[min(n, len(seen.inputs) - 1) :][:1]
        if split
        else data_inputs(seen.call, seen.inputs)
        for n, seen in zip(begins, (left, right), strict=True)
    ]
    found = []
    for array, got in zip(*given, strict=False):
        wanted = group.carry("in", array, got)
        found.append((array if wanted is None else wanted, got))
    return found


def _find_exchanged(left: Seen, pairs: Sequence[tuple[Array, Array]]) -> Cause | None:
    """Whether an attention is given the left one's inputs in another order."""
    if left.call.kind != "attention" or len(pairs) < len(PRODUCTS):
        return None
    order: list[int] = []
    for _, got in pairs:
        same = [n for n, (x, _) in enumerate(pairs) if segments.alike(x, got)]
        order.append(len(order) if len(order) in same else next(iter(same), -1))
    if sorted(order) != list(range(len(pairs))) or order == sorted(order):
        return None
    told = (
        f"its {PRODUCTS[n]} is the left model's {PRODUCTS[x]}"
        for n, x in enumerate(order)
        if n != x
    )
    return Cause(
        key="inputs-exchanged",
        sentence=", ".join(told),
        write="PyTorch takes (query, key, value), Keras (query, value, key)",
    )


def _update(parts: Sequence[LayerSpec], call: Call) -> list[LayerSpec]:
    more = dict(call.spec.settings)
    if len(parts) > 1:
        more = {key: x for key, x in more.items() if key in ("last", "merge")}
    return [replace(x, settings={**x.settings, **more}) for x in parts]


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


def _explain_shapes(
    left: Sequence[LayerSpec], right: Sequence[LayerSpec], wanted: Array, got: Array
) -> Cause | None:
    if not causes.differences(left, right):
        return None
    return causes.of_shapes(left, right, (wanted.shape, got.shape))
