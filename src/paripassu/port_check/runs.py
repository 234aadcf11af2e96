"""Runs both models and compares them at their groups; what rounding may do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from paripassu.core import machine
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
from paripassu.port_check.tolerance import EPS32, EPS64, FLOOR, ROUNDINGS, allow
from paripassu.sides.contract import Arrays, Blind, Call, Step, Watcher

Progress = Callable[[str, float], None]
LARGE = 2**24  # parameters of a model whose memory is worth a moment


@dataclass(frozen=True)
class Run:
    """The errors of one run, and the outputs of the model."""

    errors: Mapping[Point, float]
    outputs: Arrays


NOT_RUN = Run({}, {})


@dataclass(frozen=True)
class Runs:
    """Both models on the same inputs, in one precision.

    Attributes:
        eps: of the precision.
        plan: which outputs are compared.
        left: the outputs of the left model.
        free: the right model as it is.
        control: the left model, the inputs of the whole moved by one ulp.
        forced: the right model, each group of layers given the left's inputs; empty
            where groups are not compared one by one, as `own_control` is.
        own_control: the left model, each group given its inputs moved by one ulp;
            empty where no group parts by more than is allowed in any case.
        rounding: what calls that round to float32 may do to the outputs in float64.
        random: points that hang on draws which both models cannot be given: any error
            is allowed there.
        random_outputs: whether the outputs do so, each group given the left's inputs.
    """

    eps: float
    plan: Outputs
    left: Arrays
    free: Run
    control: Run
    forced: Run = NOT_RUN
    own_control: Run = NOT_RUN
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

    @property
    def agree(self) -> bool:
        """Whether rounding explains how far the outputs are apart."""
        return self.output_error(self.free.outputs) <= self.output_bound

    def output_error(self, outputs: Arrays) -> float:
        """How far the right model's outputs are from the left's, at most."""
        return outputs_apart(self.plan, self.left, outputs)


def outputs_apart(plan: Outputs, left: Arrays, right: Arrays) -> float:
    """How far the outputs of both models that are compared are apart, at most."""
    pairs = pair_outputs(plan, left, right)
    return max((relative_error(x, y) for *_, x, y in pairs), default=0.0)


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
        eps: of the float type in which they compute now.
        rounded: the calls of the left and the right model that round to float32 while
            the models compute in float64.
    """

    def __init__(self, models: PairedModels, progress: Progress):
        self.models, self.progress = models, progress
        self.eps = EPS32
        self.random = np.random.Generator(np.random.Philox(7))
        self.rounded: RoundedCalls = ({}, {})

    def give_back_memory(self) -> None:
        """What nothing uses, of large models only: looking for it takes a moment."""
        blocks = self.models.left_blocks.values()
        if sum(math.prod(y) for x in blocks for y in x.shapes.values()) >= LARGE:
            machine.give_back_memory()

    def align(self, store: Store) -> Arrays:
        """Find in which order the right model flattens.

        Returns:
            The left model's outputs; `store` has what it has at its groups.
        """
        shapes = {x.shape[1:] for x in self.models.inputs.values() if x.ndim > 2}
        outputs = self._record(store, shapes)
        comparer = Comparer(self.models.groups, store, forced=True, shapes=shapes)
        self._run_right(Anchors(self.models.groups, "right", comparer, shapes))
        return outputs

    def compare(
        self,
        store: Store,
        name: str,
        share: float,
        *,
        training: bool = False,
    ) -> Runs:
        """Run all: `compare_outputs`, and each group of layers by itself."""
        runs = self.compare_outputs(store, name, share, training=training)
        return self.compare_groups(store, runs, training=training)

    def compare_outputs(
        self,
        store: Store,
        name: str,
        share: float,
        *,
        training: bool = False,
        left: Arrays | None = None,
    ) -> Runs:
        """Run the left model, the right one as it is, and the left one perturbed.

        Args:
            store: gets what the left model has at its groups.
            name: of what is compared, for the progress.
            share: of all that is done.
            training: in training mode.
            left: the left model's outputs, where `store` has all already.
        """
        self.progress(f"comparing in {name}", share)
        if left is None:
            left = self._record(store, training=training)
        free = self._compared(store, forced=False, training=training)
        self.progress(f"comparing in {name}: the one-ulp control", share + 0.1)
        control = self._control(store, own=False, training=training)
        # In training mode, only where groups part is asked.
        rounding = 0.0 if training else self.rounding(left, free.outputs)
        plan = self.models.outputs
        return Runs(self.eps, plan, left, free, control, rounding=rounding)

    def compare_groups(
        self, store: Store, runs: Runs, *, training: bool = False
    ) -> Runs:
        """The same runs, and each group of layers given the left's inputs."""
        forced = self._compared(store, forced=True, training=training)
        runs = replace(runs, forced=forced)
        if not runs.parting():
            return runs  # within what rounding does in any case
        own_control = self._control(store, own=True, training=training)
        return replace(runs, own_control=own_control)

    def rounding(
        self,
        left: Arrays,
        right: Arrays,
        error: float = math.inf,
        rounded: RoundedCalls | None = None,
    ) -> float:
        """What rounding to float32 on the way may do to these outputs in float64.

        Args:
            left, right: outputs of both models.
            error: that it is to explain; whether it may do more is not asked.
            rounded: the calls that round, if not those found for the first inputs.
        """
        models = self.models
        sides = (
            (models.left, models.inputs, left),
            (models.right, models.right_inputs, right),
        )
        total = 0.0
        found = rounded or self.rounded
        for (model, inputs, outputs), calls in zip(sides, found, strict=True):
            if model.recorded and self.eps == EPS64:
                total += model.recorded.found.rounding
            else:
                left_over = error / ROUNDINGS - total
                given = model, inputs, outputs, calls, self.random
                total += effect(*given, enough=left_over)
        return ROUNDINGS * total

    def bound(self, error: float, left: Arrays, right: Arrays) -> float:
        """How far these outputs may be apart; measured only as far as `error` asks."""
        bound = allow(0.0, self.eps)
        if not bound < error < math.inf:
            return bound
        bound = max(bound, self.rounding(left, right, error))
        if error <= bound:
            return bound
        if recorded := self.models.left.recorded:
            moved = recorded.control(Blind(), own=False, training=False)
        else:
            shifted = Perturbed(self.perturb)
            moved = self.models.left.run(self.perturbed_inputs(), shifted)
        control = apart(left, moved, self.models.outputs)
        bound = max(bound, allow(control, self.eps))
        if error <= bound or self.eps != EPS64:
            return bound
        # Other inputs or weights may reach what rounds: softplus in PyTorch above 20.
        rounded = (
            find_rounded(self.models.left, self.models.inputs).calls,
            find_rounded(self.models.right, self.models.right_inputs).calls,
        )
        return max(bound, self.rounding(left, right, error, rounded))

    def beside(self) -> Beside:
        """Compare the outputs of both models as they are."""
        models = self.models
        left = models.left.run(models.inputs)
        right = models.right.run(models.right_inputs)
        error = outputs_apart(models.outputs, left, right)
        return Beside(error, self.bound(error, left, right))

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

    def _compared(self, store: Store, *, forced: bool, training: bool) -> Run:
        """The right model beside what the left one had."""
        comparer = Comparer(self.models.groups, store, forced=forced)
        anchors = Anchors(self.models.groups, "right", comparer)
        outputs = self._run_right(anchors, training=training)
        return Run(comparer.errors, outputs)

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
