"""Compares a step of training: outputs, BatchNorm's statistics and gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace

import numpy as np

from paripassu.core.layer_spec import Array, LayerSpec, relative_error
from paripassu.port_check.align import Store
from paripassu.port_check.behaviour import after_a_step
from paripassu.port_check.input_pairs import same_inputs
from paripassu.port_check.pairing import PairedModels, fit_weight
from paripassu.port_check.results import (
    Cause,
    Findings,
    describe_error,
    finite,
    list_some,
)
from paripassu.port_check.runs import (
    Runner,
    Runs,
    apart,
    outputs_apart,
    perturbed_step,
)
from paripassu.port_check.tolerance import (
    CANCELLED,
    EPS32,
    EPS64,
    FLOOR,
    ROUNDED,
    ROUNDINGS,
    SAME_FACTOR,
    STATISTICS,
    UNMOVED,
    allow,
)
from paripassu.port_check.training_draws import TrainingDraws
from paripassu.sides.advice import advise
from paripassu.sides.contract import Arrays, Block, Step
from paripassu.sides.recorded import RecordedProbe

# Signs of what float32 rounds: of each value by itself, and of all alike, as where a
# factor is rounded.
ROUNDED_BY = ((-1, 1), (1,))


class TrainingStep:
    """Compares both models in training mode, on the same draws; `go` adds findings.

    Args:
        runner: of the models.
        findings: get checks, faults and notes.
        runs: of both models in evaluation mode.
    """

    def __init__(self, runner: Runner, findings: Findings, runs: Runs):
        self.runner, self.findings, self.runs = runner, findings, runs
        self.models, self.eps = runner.models, runner.eps
        self.draws = TrainingDraws(self.models, findings)
        self.training = True
        self.dtype = "float64" if self.eps == EPS64 else "float32"

    @property
    def least(self) -> float:
        """What is rounding in any case, of gradients."""
        return ROUNDED if self.findings.rounded_gradients else 0.0

    def go(self) -> None:
        """All of it."""
        models = self.models
        self.runner.progress("comparing gradients", 0.75)
        compares_own = self._can_compare_own_losses()
        recorded = models.left.recorded
        if recorded and not recorded.has_step():
            self._miss_step(recorded)
            return
        if norms := self._folded_norms():
            self.training = False
            what = "training mode" + (" and gradients" if recorded else "")
            self.findings.check("training mode", "not run", f"folded: {norms}")
            self.findings.not_compared.append(
                f"{what}: only one model has the BatchNorm of {norms}, which is folded "
                "into weights in the other one, so that they train otherwise. "
                "--forward-only compares what inference needs"
            )
            if recorded:
                return
        cotangents = self._draw_cotangents()
        if cotangents is None:
            self.findings.check("gradients", "not run", "outputs have other shapes")
            return
        draws = self.draws.chosen() if self.training else nullcontext()
        with closing(Store()) as store, draws:
            kept = _KeptGradients(store)
            how = {"training": self.training}
            left = kept.keep(models.left.step(models.inputs, cotangents[0], **how))

            def moved_step() -> Step:
                perturb = self.runner.perturb
                return perturbed_step(
                    models.left, models.inputs, cotangents[0], perturb, **how
                )

            ulp = _OneUlp(models, left, kept, moved_step)
            self.runner.progress("comparing gradients", 0.85)
            self.runner.give_back_memory()
            right = models.right.step(models.right_inputs, cotangents[1], **how)
            part = False
            if self.training:
                part = self._compare_outputs(left, right, ulp)
                self._compare_statistics(left, right, cotangents[0])
            part = (
                self._compare_gradients(kept, right, ulp, cotangents[0], explained=part)
                or part
            )
            part = self._compare_input_gradients(left, right, ulp) or part
            if not part and self._lacks_partners():
                self._compare_after_a_step(kept, right)
            if compares_own:
                self._compare_own_losses()

    def _can_compare_own_losses(self) -> bool:
        """Whether both models have losses of their own; says so of one alone."""
        models = self.models.left, self.models.right
        both = all(x.probe.own_losses for x in models) and not models[0].recorded
        for model in models:
            if (told := model.probe.own_losses) and not both:
                self.findings.not_compared.append(
                    f"the {model.which} model has a loss of its own "
                    f"({', '.join(told)}), which training adds to its gradients; "
                    "gradients were compared without it"
                )
        return both

    def _compare_own_losses(self) -> None:
        """Compare what both models add to any loss, and the gradients of that alone."""
        models = self.models
        left, right = (
            model.step(inputs, {})
            for model, inputs in (
                (models.left, models.inputs),
                (models.right, models.right_inputs),
            )
        )
        moved = perturbed_step(models.left, models.inputs, {}, self.runner.perturb)
        sums = [np.array(x.own_loss) for x in (left, moved, right)]
        error = relative_error(sums[0], sums[2])
        control = relative_error(sums[0], sums[1])
        bad = []
        for _, block, other in models.block_pairs():
            carry = models.carrier(block.name)
            for name, key in models.weight_names(block, other).items():
                wanted = left.gradients.get(block.name, {}).get(name)
                got = right.gradients.get(other.name, {}).get(key)
                if wanted is None or got is None:
                    continue
                fitting = fit_weight(key, carry(name, wanted), other)
                ulp = relative_error(wanted, moved.gradients[block.name][name])
                bound = max(allow(ulp, self.eps), self.least)
                if key in fitting and relative_error(fitting[key], got) > bound:
                    bad.append((block.layer, other.layer))
        good = not bad and error <= max(allow(control, self.eps), self.least)
        self.findings.compared.append("losses of the models' own, and their gradients")
        told = (
            f"{describe_error(error, self.eps)}; gradients of {len(bad)} weights part"
        )
        self.findings.check(
            f"own losses, {self.dtype}", "holds" if good else "fails", told
        )
        if good:
            return
        sides = (("left", models.left, left), ("right", models.right, right))
        added = (
            f"{which} {step.own_loss:.6g} ({', '.join(model.probe.own_losses)})"
            for which, model, step in sides
        )
        cause = Cause(
            key="regularizers",
            sentence=f"what training adds to any loss differs: {'; '.join(added)}",
            write="the left model's regularizers and `add_loss`, at the same weights",
        )
        names = bad[0] if bad else ("output", "output")
        self.findings.fault("gradients", names[0], names[1], error, cause)

    def _folded_norms(self) -> str:
        """The folds of BatchNorms that normalise by the batch's statistics."""
        models, names = self.models, []
        for model, inputs in (
            (models.left, models.inputs),
            (models.right, models.right_inputs),
        ):
            norms = {x.name for x in model.unfolded() if x.kind == "batch_norm"}
            folds = [x.name for x in model.folds.values() if x.other in norms]
            if not folds:
                continue
            with model.drawing("off"):
                one, two = (model.run(inputs, training=x) for x in (False, True))
            if any(
                relative_error(x, two[k]) > FLOOR * self.eps for k, x in one.items()
            ):
                names += folds
        return list_some(names)

    def _miss_step(self, recorded: RecordedProbe) -> None:
        """Say that the recording has no step, or one in another float type."""
        step = recorded.found.step
        text = "training mode and gradients: the recording holds "
        if step is None:
            self.findings.not_asked.append(f"{text}none")
        else:
            self.findings.not_compared.append(f"{text}them in {step.dtype} only")
        detail = f"the recording holds no step in {self.dtype}"
        self.findings.check("training mode", "not run", detail)

    @property
    def _may_round(self) -> bool:
        """Whether float32 is used in float64, and what it does can be measured."""
        recorded = self.models.left.recorded is not None
        return self.findings.rounded_gradients and not recorded

    def _rounded_step(self, cotangents: Arrays, signs: tuple[int, ...]) -> Step:
        """A step of the left model, its inputs as far away as float32 rounds them."""

        def move(array: Array) -> Array:
            if array.dtype.kind != "f":
                return array
            by = self.runner.random.choice(signs, array.shape) * EPS32 / 2
            return np.asarray(array * (1 + by), array.dtype)

        left = self.models.left, self.models.inputs
        return perturbed_step(*left, cotangents, move, training=self.training)

    def _lacks_partners(self) -> bool:
        """Whether weights are trained whose gradients could not be compared."""
        paired = [(x, y) for _, x, y in self.models.block_pairs()]
        names = {x.name for x, _ in paired}, {y.name for _, y in paired}
        sides = self.models.left_blocks, self.models.right_blocks
        return bool(self.models.lone_weights()) or any(
            block.trainable and block.name not in known
            for blocks, known in zip(sides, names, strict=True)
            for block in blocks.values()
        )

    def _compare_input_gradients(self, left: Step, right: Step, ulp: _OneUlp) -> bool:
        """Whether the gradients of the inputs part."""
        if not left.input_gradients or not right.input_gradients:
            return False
        worst, bad, floor = 0.0, False, max(allow(0.0, self.eps), self.least)
        models = self.models
        for name, other, way in same_inputs(models.inputs, models.right_inputs):
            wanted = left.input_gradients.get(name)
            wanted = None if wanted is None else way(wanted)
            got = right.input_gradients.get(other)
            if wanted is None or got is None:
                continue
            error = relative_error(wanted, got)
            worst = max(worst, error)
            # One that casts its input gives back what float32 holds of the gradient.
            if error <= EPS32 and _is_float32(wanted) != _is_float32(got):
                continue
            if error > floor and error > allow(ulp.of_inputs[name], self.eps):
                bad = True
                if not self.findings.faults:
                    text = "both compute the same forward, but not the gradient of "
                    text += f"input {name}: a stop_gradient or detach before it, or a "
                    text += "function with a gradient of its own"
                    cause = Cause(key="stop-gradient", sentence=text)
                    self.findings.fault("gradients", name, other, error, cause)
        self.findings.compared.append("gradients of the inputs")
        self.findings.check(
            f"input gradients, {self.dtype}",
            "fails" if bad else "holds",
            describe_error(worst, self.eps),
        )
        return bad

    def _compare_after_a_step(self, kept: _KeptGradients, right: Step) -> None:
        """Where weights have no partner, compare what a step of SGD makes of both."""
        recorded = self.models.left.recorded
        if recorded and not recorded.has("after-a-step"):
            text = "gradients of weights without a partner: the left model is recorded"
            self.findings.not_compared.append(text)
            return
        found = after_a_step(
            self.runner,
            kept.get,
            lambda block, name: right.gradients.get(block, {}).get(name),
        )
        self.findings.compared.append("outputs after one step of SGD")
        self.findings.check(
            f"outputs after one step of SGD, {self.dtype}",
            "holds" if found.equal else "fails",
            describe_error(found.error, self.eps),
        )
        if found.equal:
            return
        for alone in (lone := self.models.lone_weights()):
            text = f"only the {alone.which} model has {alone.names}: it does nothing "
            cause = Cause(
                key="bias-missing" if alone.names == "bias" else "weight-missing",
                sentence=text + "until a step of training moves it",
            )
            places = alone.left, alone.right
            self.findings.fault("gradients", *places, found.error, cause)
        if not lone:
            text = "the gradients of weights without a partner differ"
            cause = Cause(key="gradients", sentence=text)
            self.findings.fault("gradients", "output", "output", found.error, cause)

    def _draw_cotangents(self) -> tuple[Arrays, Arrays] | None:
        """What the outputs of both are multiplied with; None where shapes differ."""
        lefts, rights = self.runs.left, self.runs.free.outputs
        drawn: tuple[Arrays, Arrays] = ({}, {})
        recorded = self.models.left.recorded
        given = recorded.cotangents() if recorded else {}
        plan = self.models.outputs
        if not set(given) <= {name for name, _ in plan.pairs}:
            return None  # of the recording, which has outputs that are not compared
        for name, other in plan.pairs:
            left, right = lefts[name], rights[other]
            if (way := plan.way(name, left, right)) is None:
                return None
            here = given.get(name)
            if here is None:
                here = self.runner.random.standard_normal(left.shape)
            kept = plan.kept.get(name)
            if kept is not None and kept.shape == here.shape[:2]:
                here = np.where(
                    kept.reshape(*kept.shape, *(1,) * (here.ndim - 2)), here, 0.0
                )
            drawn[0][name], drawn[1][other] = here, way.turn(here)
        return drawn

    def _compare_outputs(self, left: Step, right: Step, ulp: _OneUlp) -> bool:
        """Whether the outputs part."""
        plan = self.models.outputs
        worst = outputs_apart(plan, left.outputs, right.outputs)
        bound = max(allow(0.0, self.eps), self.findings.least, self.runs.rounding)
        if worst > bound:
            control = apart(left.outputs, ulp.outputs, plan)
            bound = max(bound, allow(control, self.eps))
        good = worst <= bound
        self.findings.compared.append("outputs in training mode")
        self.findings.check(
            f"training mode, {self.dtype}",
            "holds" if good else "fails",
            f"outputs {describe_error(worst, self.eps)}{self.draws.told}",
        )
        before = len(self.findings.faults)
        self.draws.judge()
        told = len(self.findings.faults) > before and self.draws.mode == "shared"
        if not good and not before and not told:
            self._explain_outputs(worst)
        return not good

    def _explain_outputs(self, worst: float) -> None:
        """Where the models part in training mode only."""
        with closing(Store()) as store:
            runs = self.runner.compare(store, "training mode", 0.85, training=True)
        point = next(iter(runs.parting(self.findings.least)), None)
        if point is None:
            self.findings.fault("training mode", "output", "output", worst, None)
            return
        group = self.models.groups[point[0]]
        cause = None
        if group.kind == "batch_norm":
            cause = Cause(
                key="frozen",
                sentence="one normalises with the batch's statistics in training "
                "mode, the other with the running ones",
            )
        made = [x.spec.settings.get("_made_by") for x in group.blocks[0]]
        if made[0] != made[1]:
            sides = [f"by {x}" if x else "as it is" for x in made]
            cause = Cause(
                key="weight-made",
                sentence="each pass in training mode makes the weight anew: left "
                f"{sides[0]}, right {sides[1]}",
                write="the same on both sides, or for inference alone --forward-only",
            )
        names = ", ".join(group.left), ", ".join(group.right)
        error = runs.forced.errors[point]
        self.findings.fault("training mode", *names, error, cause)

    def _compare_statistics(self, left: Step, right: Step, cotangents: Arrays) -> None:
        if not left.statistics:
            return
        bad, unbiased = [], 0.0
        steps: list[Step] = []
        limit = max(STATISTICS, FLOOR * self.eps)
        for _, block, other in self.models.block_pairs():
            one = left.statistics.get(block.name)
            two = right.statistics.get(other.name)
            weights = block.spec.weights
            if one is None or two is None or not {"mean", "variance"} <= {*weights}:
                continue
            given = (block, other), one, two, self.models.carrier(block.name)
            cause, error = _compare_running(*given, limit)
            if cause and cause.key == "statistics" and self._may_round:
                steps = steps or [self._rounded_step(cotangents, x) for x in ROUNDED_BY]
                moved = (
                    _running_errors(block.spec, one, one, found)
                    for found in (x.statistics[block.name] for x in steps)
                )
                most = max(x for errors in moved for x in errors.values())
                cause, error = _compare_running(*given, max(limit, ROUNDINGS * most))
            if cause is None:
                unbiased = max(unbiased, error)
                continue
            bad.append(block.name)
            inherited = cause.key == "statistics" and bool(self.findings.faults)
            told = cause.key != "momentum" and any(
                x.left == block.layer for x in self.findings.faults
            )
            if not (inherited or told):
                names = block.layer, other.layer
                self.findings.fault("statistics", *names, error, cause)
        sides = self.models.left.probe.side, self.models.right.probe.side
        if unbiased > limit and sides[0] != sides[1]:
            self.findings.notes.append(
                "PyTorch keeps the unbiased variance of a batch, Keras the biased one "
                "(n / (n - 1) between them): running variances part by up to "
                f"{unbiased:.1e} in this step. No setting of either changes that"
            )
        self.findings.compared.append("BatchNorm's statistics after one step")
        self.findings.check(
            "BatchNorm statistics",
            "fails" if bad else "holds",
            f"after one step: {', '.join(bad)} part"
            if bad
            else f"layers: {len(left.statistics)}, after one step",
        )

    def _untrained(self, left: Block, right: Block) -> list[int]:
        """Rows of a table that one of the models alone never trains."""
        rows = [x.spec.settings.get("_untrained_row") for x in (left, right)]
        if rows[0] == rows[1]:
            return []
        for which, block, row in zip(
            ("left", "right"), (left, right), rows, strict=True
        ):
            if row is not None:
                self.findings.notes.append(
                    f"the {which} model never trains row {row} of {block.name} "
                    "(padding_idx), the other one does: its gradients were not compared"
                )
        return [x for x in rows if x is not None]

    def _compare_gradients(
        self,
        kept: _KeptGradients,
        right: Step,
        ulp: _OneUlp,
        cotangents: Arrays,
        *,
        explained: bool,
    ) -> bool:
        """Whether the gradients of weights part."""
        worst, total, floor = 0.0, 0, max(allow(0.0, self.eps), self.least)
        bad: list[_PartedGradient] = []
        for _, block, other in self.models.block_pairs():
            if block.trainable != other.trainable:
                continue
            carry = self.models.carrier(block.name)
            gradients = right.gradients[other.name]
            for name, key in self.models.weight_names(block, other).items():
                before = kept.get(block.name, name)
                if before is None or key not in gradients:
                    continue
                got = gradients[key]
                fitting = fit_weight(key, carry(name, before), other)
                if key not in fitting:
                    continue  # which has been told of the weights
                wanted = fitting[key]
                if rows := self._untrained(block, other):
                    wanted, got = wanted.copy(), got.copy()
                    wanted[rows], got[rows] = 0.0, 0.0
                total += 1
                error = relative_error(wanted, got)
                # Gradients that cancel to nothing are rounding on both sides.
                difference = float(np.abs(wanted - got).max(initial=0))
                scale = kept.scales[block.name]
                of_block = difference / scale if scale else error
                if of_block <= max(CANCELLED, self.least):
                    worst = max(worst, min(of_block, error))
                    continue
                control = ulp.of_weights[block.name, name] if error > floor else 0.0
                if error > max(allow(control, self.eps), self.least):
                    sums = float(np.abs(wanted).sum()), float(np.abs(got).sum())
                    bad.append(
                        _PartedGradient(block.name, other.name, name, *sums, error)
                    )
                else:
                    worst = max(worst, error)
        if bad and self._may_round:
            rounded = kept.distances(self._rounded_step(cotangents, (-1, 1)))
            worst = max(worst, *(x.error for x in bad))  # shown if all is rounding
            bad = [x for x in bad if x.error > ROUNDINGS * rounded[x.left, x.name]]
        self.findings.compared.append(f"gradients of {total} weights")
        if not bad:
            size = describe_error(worst, self.eps)
            detail = f"{total} of {total} equal, at most {size}"
            self.findings.check(f"gradients, {self.dtype}", "holds", detail)
            return False
        names = list_some([f"{x.left}.{x.name}" for x in bad])
        self.findings.check(
            f"gradients, {self.dtype}",
            "fails",
            f"{len(bad)} of {total} part: {names}; at most "
            f"{describe_error(max(x.error for x in bad), self.eps)}",
        )
        if self.findings.faults or explained:
            return True
        last = bad[-1]
        which = "right" if last.right_sum < last.left_sum else "left"
        share = "less gradient" if last.right_sum and last.left_sum else "no gradient"
        cause = Cause(
            key="stop-gradient",
            sentence=f"both compute the same forward, but {share} reaches it in the "
            f"{which} model: a stop_gradient or detach after it, or a function without "
            "a gradient",
        )
        self.findings.fault("gradients", last.left, last.right, last.error, cause)
        return True


def _is_float32(array: Array) -> bool:
    """Whether float32 holds all of its values."""
    return np.array_equal(array, array.astype(np.float32))


@dataclass(frozen=True)
class _PartedGradient:
    """A weight whose gradients part: its blocks, name, sums of sizes, and the error."""

    left: str
    right: str
    name: str
    left_sum: float
    right_sum: float
    error: float


class _KeptGradients:
    """The left model's gradients, on disk: one set of them is as large as the model.

    Attributes:
        scales: the largest value of each block's gradients.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.numbers: dict[str, int] = {}
        self.scales: dict[str, float] = {}

    def keep(self, step: Step) -> Step:
        """Keep a step's gradients, and give it back without them."""
        for number, (block, arrays) in enumerate(step.gradients.items()):
            self.numbers[block] = number
            sizes = (np.abs(x).max(initial=0) for x in arrays.values())
            self.scales[block] = float(max(sizes, default=0.0))
            for name, array in arrays.items():
                self.store.put((number, 0, name), [array])
        return replace(step, gradients={})

    def get(self, block: str, name: str) -> Array | None:
        """One gradient."""
        found = self.store.get((self.numbers[block], 0, name))
        return found[0] if found else None

    def distances(self, step: Step) -> dict[tuple[str, str], float]:
        """How far another step's gradients are from those that are kept."""
        found = {}
        for block, arrays in step.gradients.items():
            for name, array in arrays.items():
                kept = self.get(block, name)
                moved = math.inf if kept is None else relative_error(kept, array)
                found[block, name] = moved
        return found


def _running_errors(
    spec: LayerSpec, left: Arrays, carried: Arrays, right: Arrays
) -> dict[str, float]:
    """How far running statistics are apart.

    Of means, by the deviation of the batch as well: a mean that cancels is rounding, as
    behind a dense layer of normalised values.
    """
    errors = {key: relative_error(x, right[key]) for key, x in carried.items()}
    momentum = float(spec.settings.get("momentum", 0.0))
    moved = left["variance"] - momentum * spec.weights["variance"]
    spread = np.sqrt(np.abs((1 - momentum) * moved).max(initial=0))
    means = (np.append(x["mean"], spread) for x in (carried, right))
    return errors | {"mean": relative_error(*means)}


class _OneUlp:
    """What one ulp at its inputs does to the left model's step.

    It is measured when it is first asked for: most models agree without it.

    Args:
        step: of the left model, its gradients in `kept`.
        moved_step: takes the step from inputs that are moved.
    """

    def __init__(
        self,
        models: PairedModels,
        step: Step,
        kept: _KeptGradients,
        moved_step: Callable[[], Step],
    ):
        self.models, self.step, self.kept = models, step, kept
        self.moved_step = moved_step

    @functools.cached_property
    def _measured(self) -> tuple[Arrays, Mapping[tuple[str, str], float], Arrays]:
        """Outputs, how far gradients of weights are moved, gradients of inputs."""
        if recorded := self.models.left.recorded:
            outputs, moved = recorded.step_control()
            return outputs, self.models.left.moved_of_pieces(moved), {}
        found = self.moved_step()
        return found.outputs, self.kept.distances(found), found.input_gradients

    @property
    def outputs(self) -> Arrays:
        """Those of the step."""
        return self._measured[0]

    @property
    def of_weights(self) -> Mapping[tuple[str, str], float]:
        """How far gradients move, by block and name."""
        return self._measured[1]

    @property
    def of_inputs(self) -> Mapping[str, float]:
        """How far gradients of inputs move, by name."""
        if recorded := self.models.left.recorded:
            return recorded.inputs_moved()
        moved, own = self._measured[2], self.step.input_gradients
        return {name: relative_error(x, moved[name]) for name, x in own.items()}


def _compare_running(
    blocks: tuple[Block, Block],
    left: Arrays,
    right: Arrays,
    carry: Callable[[str, Array], Array],
    limit: float,
) -> tuple[Cause | None, float]:
    """Compare running statistics; None: equal, or biased beside unbiased."""
    spec, other = (x.spec for x in blocks)
    momentum, theirs = (float(x.settings.get("momentum", 0.0)) for x in (spec, other))
    share = 1 - momentum  # of the batch
    carried = {key: carry(key, x) for key, x in left.items()}
    errors = _running_errors(spec, left, carried, right)
    worst = max(errors.values())
    if worst <= limit:
        return None, worst
    if abs(momentum - theirs) > UNMOVED:
        mean = spec.weights["mean"]
        batch = (left["mean"] - momentum * mean) / share if share else 0
        expected = np.asarray(theirs * mean + (1 - theirs) * batch)
        after = relative_error(carry("mean", expected), right["mean"])
        cause = Cause(
            key="momentum",
            sentence=f"momentum: left keeps {momentum:.6g}, right {theirs:.6g}",
            settings={"momentum": momentum},
            write=advise("running-momentum", kept=momentum, new=share),
            before=finite(worst),
            after=after if after < SAME_FACTOR else None,
        )
        return cause, worst
    if errors["mean"] > limit:
        before = carry("mean", spec.weights["mean"])
        if relative_error(before, right["mean"]) <= UNMOVED:
            text = "the right model does not update its running statistics"
            return Cause(key="frozen", sentence=text), worst
        return Cause(key="statistics", sentence="running means part"), errors["mean"]
    # Means agree: is it the factor n / (n - 1)?
    before, got = carry("variance", spec.weights["variance"]), right["variance"]
    wanted = carry("variance", left["variance"])
    ours, batch = wanted - momentum * before, got - momentum * before
    factor = float(np.vdot(batch, ours) / (np.vdot(batch, batch) or 1.0))
    unbiased = 0.5 - SAME_FACTOR <= factor <= 2 + SAME_FACTOR
    if unbiased and relative_error(wanted, got + (factor - 1) * batch) <= limit:
        return None, worst
    return Cause(key="statistics", sentence="running variances part"), worst
