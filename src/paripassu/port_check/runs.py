"""Runs both models and compares them at their groups; what rounding may do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from paripassu.core.layer_spec import Array, relative_error
from paripassu.port_check.align import (
    Anchors,
    Comparer,
    End,
    Point,
    Store,
)
from paripassu.port_check.examined import ExaminedModel
from paripassu.port_check.output_pairs import Outputs, masks_of, pair_outputs
from paripassu.port_check.pairing import PairedModels
from paripassu.port_check.results import Place, finite
from paripassu.port_check.rounding import RoundedCall, effect, find_rounded
from paripassu.port_check.tolerance import EPS64, FLOOR, ROUNDINGS, allow
from paripassu.sides.contract import Arrays, Blind, Call, Step, Watcher

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Run:
    """The errors of one run, and the outputs of the model."""

    errors: Mapping[Point, float]
    outputs: Arrays


@dataclass(frozen=True)
class Runs:
    """Both models on the same inputs, in one precision.

    Attributes:
        eps: of the precision.
        plan: which outputs are compared.
        left: the outputs of the left model.
        forced: the right model, each group of layers given the left's inputs.
        free: the right model as it is.
        own_control: the left model, each group given its inputs moved by one ulp.
        control: the left model, the inputs of the whole moved by one ulp.
        rounding: what calls that round to float32 may do to the outputs in float64.
        random: points that hang on draws which both models cannot be given: any error
            is allowed there.
        random_outputs: whether the outputs do so, each group given the left's inputs.
    """

    eps: float
    plan: Outputs
    left: Arrays
    forced: Run
    free: Run
    own_control: Run
    control: Run
    rounding: float = 0.0
    random: frozenset[Point] = frozenset()
    random_outputs: bool = False

    def bound(self, point: Point) -> float:
        """What rounding may do at one point."""
        if point in self.random:
            return math.inf
        return allow(self.own_control.errors.get(point, 0.0), self.eps)

    def parting(self, least: float = 0.0) -> list[Point]:
        """The points where the models part by themselves, by more than `least`."""
        return [
            point
            for point, error in self.forced.errors.items()
            if error > max(self.bound(point), least)
        ]

    @property
    def output_control(self) -> float:
        """What one ulp at the inputs does to the left model's outputs."""
        return apart(self.left, self.control.outputs, self.plan)

    @property
    def output_bound(self) -> float:
        """What rounding may do to the outputs."""
        if self.random_outputs:
            return math.inf
        return max(allow(self.output_control, self.eps), self.rounding)

    def output_error(self, outputs: Arrays) -> float:
        """How far the right model's outputs are from the left's, at most."""
        pairs = pair_outputs(self.plan, self.left, outputs)
        return max((relative_error(x, y) for *_, x, y in pairs), default=0)


def apart(outputs: Arrays, moved: Arrays, plan: Outputs) -> float:
    """How far the left outputs that are compared are from themselves, moved."""
    errors = (relative_error(outputs[x], moved[x]) for x, _ in plan.pairs)
    return max(errors, default=0.0)


def perturb_one_ulp(array: Array, random: np.random.Generator) -> Array:
    """Each value moved by one unit in the last place, up or down, as is drawn."""
    if not np.issubdtype(array.dtype, np.floating):
        return array
    signs = random.choice((-np.inf, np.inf), size=array.shape)
    moved: Array = np.nextafter(array, signs.astype(array.dtype))
    return moved


@dataclass(frozen=True)
class Beside:
    """How far the outputs of two models are apart, and how far they may be."""

    error: float
    bound: float

    @property
    def equal(self) -> bool:
        """Whether rounding explains it."""
        return self.error <= self.bound


class Perturbed:
    """A watcher for the control of a model whose inputs are whole numbers.

    What calls make of them alone, such as an embedding's rows, is moved by one unit in
    the last place, and shown to another watcher.
    """

    def __init__(self, perturb: Callable[[Array], Array], inner: Watcher | None = None):
        self.perturb, self.inner = perturb, inner or Blind()
        self._whole = False

    def enter(self, call: Call, inputs: Sequence[Array]) -> Sequence[Array] | None:
        """See whether any input is of floats."""
        self._whole = bool(inputs) and all(x.dtype.kind in "iub" for x in inputs)
        return self.inner.enter(call, inputs)

    def leave(self, call: Call, outputs: Sequence[Array]) -> Sequence[Array] | None:
        """Move what is made of whole numbers."""
        if not self._whole or not outputs or outputs[0].dtype.kind != "f":
            return self.inner.leave(call, outputs)
        self._whole = False
        moved = [self.perturb(outputs[0]), *outputs[1:]]
        return self.inner.leave(call, moved) or moved


def perturbed_step(
    model: ExaminedModel,
    inputs: Arrays,
    cotangents: Arrays,
    perturb: Callable[[Array], Array],
    *,
    training: bool = True,
) -> Step:
    """A model's step of training, its inputs moved by one unit in the last place.

    Whole numbers cannot be moved: the rows of tables are, that they choose.
    """
    moved = {name: perturb(x) for name, x in inputs.items()}
    tables = [x for x in model.blocks() if x.kind == "embedding"]
    if any(x.dtype.kind == "f" for x in inputs.values()):
        tables = []
    own = {x.name: {k: np.array(v) for k, v in x.spec.weights.items()} for x in tables}
    try:
        for name, arrays in own.items():
            model.write(name, {key: perturb(x) for key, x in arrays.items()})
        return model.step(moved, cotangents, training=training)
    finally:
        for name, arrays in own.items():
            model.write(name, arrays)


RoundedCalls = tuple[Mapping[int, RoundedCall], Mapping[int, RoundedCall]]


class Runner:
    """Runs the models of `models`.

    Attributes:
        rounded: the calls of the left and the right model that round to float32 while
            the models compute in float64.
    """

    def __init__(self, models: PairedModels, progress: Progress):
        self.models, self.progress = models, progress
        self.random = np.random.Generator(np.random.Philox(7))
        self.rounded: RoundedCalls = ({}, {})

    def align(self, store: Store) -> None:
        """Find in which order the right model flattens."""
        shapes = {x.shape[1:] for x in self.models.inputs.values() if x.ndim > 2}
        self._record(store, shapes)
        comparer = Comparer(self.models.groups, store, forced=True, shapes=shapes)
        self._run_right(Anchors(self.models.groups, "right", comparer, shapes))

    def compare(
        self,
        store: Store,
        eps: float,
        name: str,
        share: float,
        *,
        training: bool = False,
    ) -> Runs:
        """Run the left model, the right one forced and free, the left one perturbed."""
        self.progress(f"comparing in {name}", share)
        left = self._record(store, training=training)
        right = []
        for forced in (True, False):
            comparer = Comparer(self.models.groups, store, forced=forced)
            anchors = Anchors(self.models.groups, "right", comparer)
            outputs = self._run_right(anchors, training=training)
            right.append(Run(comparer.errors, outputs))
        controls = []
        for own in (True, False):
            self.progress(f"comparing in {name}: the one-ulp control", share + 0.1)
            controls.append(self._control(store, own=own, training=training))
        return Runs(
            eps,
            self.models.outputs,
            left,
            forced=right[0],
            free=right[1],
            own_control=controls[0],
            control=controls[1],
            rounding=self.rounding() if eps == EPS64 else 0.0,
        )

    def find_rounding(self) -> tuple[RoundedCalls, list[str]]:
        """What computes in float32, with these inputs, though set to float64.

        Returns:
            The calls of the left and of the right model by their serials, and those
            whose gradient alone rounds, in words.
        """
        models = self.models
        (left, some), (right, more) = (
            find_rounded(model, inputs, {x.name: x.spec for x in blocks.values()})
            for model, inputs, blocks in (
                (models.left, models.inputs, models.left_blocks),
                (models.right, models.right_inputs, models.right_blocks),
            )
        )
        return (left, right), [*some, *more]

    def rounding(self, rounded: RoundedCalls | None = None) -> float:
        """What rounding to float32 on the way may do to the outputs in float64.

        Args:
            rounded: the calls that round, if not those found for the first inputs.
        """
        models = self.models
        sides = (models.left, models.inputs), (models.right, models.right_inputs)
        total = 0.0
        for (model, inputs), calls in zip(sides, rounded or self.rounded, strict=True):
            if model.recorded:
                total += model.recorded.found.rounding
            else:
                total += effect(model, inputs, calls, self.random)
        return ROUNDINGS * total

    def beside(self, eps: float = EPS64) -> Beside:
        """Compare the outputs of both models as they are, in the precision of `eps`."""
        models = self.models
        left = models.left.run(models.inputs)
        right = models.right.run(models.right_inputs)
        if recorded := models.left.recorded:
            moved = recorded.control(Blind(), own=False, training=False)
        else:
            shifted = Perturbed(self.perturb)
            moved = models.left.run(self.perturbed_inputs(), shifted)
        pairs = pair_outputs(models.outputs, left, right)
        error = max((relative_error(x, y) for *_, x, y in pairs), default=0.0)
        bound = allow(apart(left, moved, models.outputs), eps)
        if error > bound and eps == EPS64:
            # Other weights may reach what rounds: softplus in PyTorch above 20.
            bound = max(bound, self.rounding(self.find_rounding()[0]))
        return Beside(error, bound)

    def perturb(self, array: Array) -> Array:
        """Each value moved by one unit in the last place, up or down."""
        return perturb_one_ulp(array, self.random)

    def perturbed_inputs(self) -> Arrays:
        """The left model's inputs, each value moved by one unit in the last place."""
        return {key: self.perturb(x) for key, x in self.models.inputs.items()}

    def list_places(self, runs: Runs, single: Runs | None) -> Iterator[Place]:
        """All places in the order of the calls; `single`: the runs in float32."""
        ends = [x for x in runs.free.errors if x[2] == "out"]
        ends += [(g, v, "out") for g, v, _ in runs.free.errors]
        for g, v, _ in dict.fromkeys(ends):
            group, begin, end = self.models.groups[g], (g, v, "in"), (g, v, "out")
            in_float32 = {}
            if single:
                in_float32 = {
                    "total_float32": finite(single.free.errors.get(end)),
                    "control_float32": finite(single.control.errors.get(end)),
                }
            yield Place(
                left=", ".join(group.left),
                right=", ".join(group.right),
                kind=group.kind,
                visit=v,
                entering=finite(runs.forced.errors.get(begin)),
                own=finite(runs.forced.errors.get(end)),
                total=finite(runs.free.errors.get(end)),
                control=finite(runs.control.errors.get(end)),
                bound=finite(runs.bound(end)),
                entering_bound=finite(runs.bound(begin)),
                **in_float32,
            )

    def find_random(self, store: Store, runs: Runs) -> Runs:
        """The same runs, told what hangs on draws that the models cannot be given.

        Found with other seeds, each group given the left's inputs.

        Args:
            store: what the left model had in `runs`.
        """
        models, random, outputs = self.models, set[Point](), False
        least = FLOOR * runs.eps
        if not models.left.recorded:
            comparer = Comparer(models.groups, store, forced=True, perturb=np.asarray)
            with models.left.drawing("shared", seeds=1):
                watcher = Anchors(models.groups, "left", comparer)
                others = models.left.run(models.inputs, watcher)
            random |= {x for x, error in comparer.errors.items() if error > least}
            outputs = apart(runs.left, others, runs.plan) > least
        comparer = Comparer(models.groups, store, forced=True)
        with models.right.drawing("shared", seeds=1):
            others = self._run_right(Anchors(models.groups, "right", comparer))
        for point, error in runs.forced.errors.items():
            other = comparer.errors.get(point, math.inf)
            if error != other and not abs(error - other) <= least:
                random.add(point)
        forced = runs.forced.outputs
        outputs |= any(relative_error(x, others[k]) > least for k, x in forced.items())
        return replace(runs, random=frozenset(random), random_outputs=outputs)

    def measure_parting(self, least: float) -> tuple[int, float]:
        """At how many groups, and outputs, the models part by more than `least`.

        Each group of the right model is given the left's inputs. Steps of padding do
        not count.

        Returns:
            How many, and the sum of the errors there, each 1 at most.
        """
        inputs = self.models.inputs
        with closing(Store()) as store:
            left = self._record(store)
            masks = list(masks_of(inputs).values())
            comparer = Comparer(self.models.groups, store, forced=True, masks=masks)
            outputs = self._run_right(Anchors(self.models.groups, "right", comparer))
        errors = list(comparer.errors.values())
        plan = self.models.outputs.without_padding(inputs)
        errors += [
            relative_error(x, y) for *_, x, y in pair_outputs(plan, left, outputs)
        ]
        parting = [x for x in errors if not x <= least]
        return len(parting), sum(min(x, 1.0) for x in parting)

    def _control(self, store: Store, *, own: bool, training: bool) -> Run:
        """What one ulp does to the left model; of a recording, as it was measured."""
        groups, errors = self.models.groups, dict[Point, float]()
        if recorded := self.models.left.recorded:

            def note(number: int, visit: int, end: End, moved: Sequence[Array]) -> None:
                errors[number, visit, end] = float(moved[0])

            anchors = Anchors(groups, "left", note)
            outputs = recorded.control(anchors, own=own, training=training)
            return Run(errors, outputs)
        comparer = Comparer(groups, store, forced=own, perturb=self.perturb)
        watcher = Perturbed(self.perturb, Anchors(groups, "left", comparer))
        inputs = self.perturbed_inputs()
        outputs = self.models.left.run(inputs, watcher, training=training)
        return Run(comparer.errors, outputs)

    def _run_right(self, watcher: Any, *, training: bool = False) -> Arrays:
        return self.models.right.run(
            self.models.right_inputs, watcher, training=training
        )

    def _record(
        self,
        store: Store,
        shapes: set[tuple[int, ...]] | None = None,
        *,
        training: bool = False,
    ) -> Arrays:
        """Run the left model and keep what it has at its groups."""
        anchors = Anchors(self.models.groups, "left", store.record, shapes)
        return self.models.left.run(self.models.inputs, anchors, training=training)
