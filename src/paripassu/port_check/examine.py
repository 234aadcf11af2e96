"""Compares two models, layer by layer, in one process: what `paripassu check` does."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace

from paripassu.core import machine
from paripassu.core.errors import UserError
from paripassu.core.layer_spec import relative_error
from paripassu.port_check.acceptance import Acceptance
from paripassu.port_check.align import Group, Store
from paripassu.port_check.behaviour import all_carried, with_other_weights
from paripassu.port_check.deciding import decide
from paripassu.port_check.examined import ExaminedModel, ModelError, in_float64
from paripassu.port_check.explain import Explainer
from paripassu.port_check.match import Pair
from paripassu.port_check.output_pairs import Paired
from paripassu.port_check.outputs import conclude
from paripassu.port_check.pairing import (
    PairedModels,
    check_layers,
    check_weights,
    compare_weights,
    find_unpaired,
    note_doubts,
)
from paripassu.port_check.probed import Prober
from paripassu.port_check.randomness import compare_inference, describe_draws
from paripassu.port_check.results import (
    Cause,
    Checked,
    Fault,
    Findings,
    Pairing,
    Place,
    State,
    describe_error,
    list_some,
)
from paripassu.port_check.rounding import Rounded, find_rounded
from paripassu.port_check.runs import Progress, Runner, Runs
from paripassu.port_check.splitting import BlockMap
from paripassu.port_check.tolerance import AGREEING, EPS32, EPS64, REMADE, ROUNDED
from paripassu.port_check.training_step import TrainingStep
from paripassu.sides import user_code
from paripassu.sides.contract import Arrays, Draw

SEEDS = 3  # with which models are compared that draw what cannot be shared


@dataclass(frozen=True)
class Options:
    """What an examination is to do beside comparing.

    Attributes:
        copy: "left-to-right" or "right-to-left", or None.
        block_map: pairs of blocks that are not to be questioned.
        gradients: also compare training mode and gradients.
        pairs: of inputs, `left=right`.
        outputs: that are to be compared, `name` or `left=right`.
        accept: differences that are no faults.
        taken: layers of the left model whose weights the right one is to have.
    """

    copy: str | None = None
    block_map: BlockMap = field(default_factory=dict)
    gradients: bool = True
    pairs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    accept: Sequence[Acceptance] = ()
    taken: frozenset[str] = frozenset()


class Examination:
    """Two models and their inputs, compared step by step; `go` gives the result."""

    def __init__(
        self,
        left: ExaminedModel,
        right: ExaminedModel,
        inputs: tuple[Arrays, Arrays],
        options: Options,
        progress: Progress = lambda _text, _share: None,
        *,
        paired: Paired,
        alternatives: Sequence[Arrays] = (),
    ):
        self.left, self.right, self.given = left, right, inputs
        self.options, self.progress = options, progress
        self.findings = Findings()
        self.evaluation_draws: dict[str, Sequence[Draw]] = {}
        self.unshared: dict[str, str] = {}  # random in evaluation mode, and where
        self.paired, self.alternatives = paired, alternatives
        paired.tell(self.findings)
        self.stage = "pairing the layers"
        self.pairings: tuple[Pairing, ...] = ()
        self.runs: Runs | None = None
        self.single: Runs | None = None

    def go(self) -> Checked:
        """All of it; an error of our own ends in a verdict, too.

        Raises:
            UserError: something that was given cannot be used.
            ModelError: a model raised.
        """
        self.progress("finding the layers", 0.05)
        paired = False
        with closing(Store()) as store:
            try:
                self._pair()
                paired = True
                self._compare(store)
            except (UserError, ModelError):
                raise
            except Exception:
                self.findings.not_compared.append(
                    f"an error of paripassu's own ended the check while "
                    f"{self.stage}; please report it:\n{traceback.format_exc()}"
                )
        self.progress("done", 1.0)
        if not paired:
            given = self.left, self.right, self.given[0], self.findings
            return conclude(*given, self.paired)
        return self._result()

    def _pair(self) -> None:
        """Find which layers are which."""
        models = PairedModels(self.left, self.right, self.given, self.options.block_map)
        models.outputs = self.paired.outputs
        self.findings.order = models.left_order
        self.findings.lines = models.lines
        self.runner = Runner(models, self.progress)
        self.models = models

    def _compare(self, store: Store) -> None:
        """All comparisons, in an order in which the verdict never waits for a cause."""
        models, findings = self.models, self.findings
        random = self._check_determinism()
        lefts = self._pair_weights(store)
        self._enter("comparing in float32", 0.2)
        known = None if self.options.copy == "right-to-left" else lefts
        runs = self.runner.compare_outputs(store, "float32", 0.2, left=known)
        self.runs = runs
        if not runs.agree:
            self.runs = self.runner.compare_groups(store, runs)
        if self._to_float64(runs):
            self.pairings = compare_weights(models)
            self.runner.give_back_memory()  # the models in float32
            self.single = self.runs
            self._enter("comparing in float64", 0.4)
            self.runs = self.runner.compare(store, "float64", 0.4)
        elif runs.agree:
            self.runs = self.runner.compare_groups(store, runs)
        if self.unshared:
            self._judge_random(store, self.runs)
            return
        self._judge(self.runs, self.single)
        self._judge_draws()
        self._probe()
        if not self.options.gradients:
            findings.not_asked.append("training mode and gradients")
        elif random:
            text = f"{random} is random and cannot be switched off"
            findings.check("training mode", "not run", text)
            findings.not_compared.append(f"training mode and gradients: {text}")
        else:
            self._compare_training(self.runs)
        if findings.faults:
            note_doubts(models, findings)

    def _pair_weights(self, store: Store) -> Arrays:
        """Find which weights are which, and copy those that are to be; the outputs."""
        models = self.models
        lefts = self.runner.align(store)
        decide(models, self.runner, self.options.copy)
        if models.choices:
            models.regroup(afresh=True)  # what was aligned by another way is void
            lefts = self.runner.align(store)
            if self.options.copy:
                models.copy_weights(self.options.copy)
        self.pairings = compare_weights(models)
        if self._is_mispaired() and (models.fold_products() or models.unpair_guesses()):
            lefts = self.runner.align(store)
            self.pairings = compare_weights(models)
        if self.options.taken:
            models.copy_weights("left-to-right", self._but(self.options.taken))
            self.pairings = compare_weights(models)
        check_weights(models, self.pairings, self.findings)
        return lefts

    def _compare_training(self, runs: Runs) -> None:
        """Compare training mode, gradients and statistics."""
        self._enter("comparing gradients", 0.75)
        self.runner.give_back_memory()
        try:
            TrainingStep(self.runner, self.findings, runs).go()
        except ModelError as failed:  # which computes its outputs
            text = f"the {failed.which} model raised {user_code.told(failed.error)}"
            self.findings.check("training step", "not run", text)
            self.findings.not_compared.append(f"training mode and gradients: {text}")

    def _judge_random(self, store: Store, runs: Runs) -> None:
        """Compare what does not hang on draws that both cannot be given."""
        self._enter("comparing what is not random", 0.6)
        findings, models = self.findings, self.models
        told = "; ".join(f"{which}: {x}" for which, x in self.unshared.items())
        alone = len(self.unshared) == 1 and not any(
            draws
            for x, draws in self.evaluation_draws.items()
            if x not in self.unshared
        )
        if alone:
            text = f"only one model is random in evaluation mode, {told}"
            cause = Cause(key="random-at-inference", sentence=text)
            left, right = (self.unshared.get(x, "none") for x in ("left", "right"))
            findings.fault("forward", left, right, None, cause)
        self.runs = runs = self.runner.find_random(store, runs)
        same = self._agree_on_seeds()
        groups = {x[0] for x in runs.forced.errors} - {x[0] for x in runs.random}
        each = f"{len(groups)} of {len(models.groups)} layers are not random"
        seeds = f"on the same {SEEDS} seeds, outputs {'agree' if same else 'part'}"
        findings.check("forward", "not run", f"random at {told}; {each}; {seeds}")
        findings.compared.append(f"{each}: those, each given the left's inputs")
        if same:
            findings.compared.append(f"outputs {seeds.partition(',')[0]}")
        check_layers(models, findings, find_unpaired(models), same_function=True)
        findings.not_compared.append(
            "outputs, further inputs, training mode and gradients: random in "
            f"evaluation mode, and its draws cannot be given to both models ({told}). "
            "Draw the numbers outside: give them as an input"
        )
        if models.unequal or (runs.parting(findings.least) and not same):
            Explainer(models, findings, self.runner).explain(runs)

    def _agree_on_seeds(self) -> bool:
        """Whether outputs are the same where both draw from generators alike."""
        for seeds in range(SEEDS):
            with (
                self.left.drawing("shared", seeds),
                self.right.drawing("shared", seeds),
            ):
                found = self.runner.beside()
                # The control of one that no seed holds is as large as any error.
                if not (found.equal and found.error <= AGREEING):
                    return False
        return True

    def _probe(self) -> None:
        """Try further inputs; on models that part already, some without padding."""
        self._enter("trying further inputs", 0.65)
        prober = Prober(self.runner, self.findings)
        if self.findings.faults:
            prober.blame_padding()
        else:
            explainer = Explainer(self.models, self.findings, self.runner)
            prober.go(explainer.explain)

    def _but(self, layers: Collection[str]) -> list[Pair]:
        """The pairs of blocks that are in none of these layers of the left model."""
        return [
            pair
            for pair, left, _ in self.models.block_pairs()
            if left.layer not in layers
        ]

    def _is_mispaired(self) -> bool:
        """Whether the models compute the same, and yet weights of pairs are unequal."""
        asked = self.models.unequal and not self.left.recorded
        return bool(asked) and self.runner.beside().equal

    def _enter(self, stage: str, share: float) -> None:
        self.stage = stage
        self.progress(stage, share)

    def _result(self) -> Checked:
        models, findings = self.models, self.findings
        places: Iterable[Place] = ()
        if self.runs:
            places = self.runner.list_places(self.runs, self.single)
        return Checked(
            verdict=findings.verdict,
            left=self.left.describe(models.left_blocks.values()),
            right=self.right.describe(models.right_blocks.values()),
            inputs={k: f"{x.dtype} {x.shape}" for k, x in models.inputs.items()},
            input_pairs=self.paired.inputs,
            output_pairs=models.outputs.partners,
            copied=self.options.copy,
            pairs=self.pairings,
            places=tuple(places),
            checks=tuple(findings.checks),
            faults=tuple(findings.faults),
            notes=tuple(dict.fromkeys(findings.notes)),
            compared=tuple(findings.compared),
            not_compared=tuple(dict.fromkeys(findings.not_compared)),
            not_asked=tuple(findings.not_asked),
            peak_memory_mib=machine.peak_memory_bytes() / 2**20,
        )

    def without(
        self, faults: Iterable[Fault], stack: ExitStack
    ) -> tuple[Examination, list[Fault]] | None:
        """The same, without those of these differences that can be taken out.

        The right model gets the left's setting, or its weights, where that is all that
        a difference is.

        Args:
            faults: what is accepted.
            stack: puts settings back.

        Returns:
            The examination, and what was taken out; None: nothing can be.
        """
        try:
            for model in (self.left, self.right):
                model.probe.set_dtype("float32")
                model.cuts, model.folds = {}, {}
        except UserError:
            return None
        out, layers = [], set(self.options.taken)
        for fault in faults:
            if fault.phase == "weights":
                layers.add(fault.left)
            elif fault.cause and fault.cause.settings:
                name = fault.right.partition(":")[0]
                undo = self.right.probe.change_settings(name, fault.cause.settings)
                if undo is None:
                    continue
                stack.callback(undo)
            else:
                continue
            out.append(fault)
        if not out:
            return None
        keys = list_some([*dict.fromkeys(f"{x.key} at {x.left}" for x in out)])
        note = f"the right model was compared without what is accepted: {keys}"
        examination = Examination(
            self.left,
            self.right,
            self.given,
            replace(self.options, taken=frozenset(layers)),
            self.progress,
            paired=replace(self.paired, notes=(*self.paired.notes, note)),
        )
        return examination, out

    def others(self) -> Iterator[Examination]:
        """The same with the right model's inputs in each other possible arrangement."""
        for inputs in self.alternatives:
            try:
                for model in (self.left, self.right):
                    model.probe.set_dtype("float32")
            except UserError:
                return  # it can't be made anew: the first arrangement counts
            text = (
                "channels of the right model's inputs may be at either axis: they are "
                "where the models agree, "
                + ", ".join(f"{name} {x.shape}" for name, x in inputs.items())
            )
            yield Examination(
                self.left,
                self.right,
                (self.given[0], inputs),
                self.options,
                self.progress,
                paired=replace(self.paired, notes=(*self.paired.notes, text)),
            )

    def _note_rounding(self, left: Rounded, right: Rounded) -> None:
        """Say what computes in float32 although the models are set to float64."""
        self.runner.rounded = left.calls, right.calls
        calls = [*left.calls.values(), *right.calls.values()]
        gradients = [*left.gradients, *right.gradients]
        self.findings.rounded = bool(calls)
        self.findings.rounded_gradients = bool(calls or gradients)
        names = list(dict.fromkeys((*map(str, calls), *gradients)))
        if not names:
            return
        self.findings.notes.append(
            f"float32 is used even in float64, at {list_some(names, '; ')}. "
            "There, differences up to "
            f"{ROUNDED:.0e} are rounding"
        )

    def _to_float64(self, single: Runs) -> bool:
        """Let both models compute in float64; False if one of them cannot.

        Args:
            single: what they computed in float32.
        """
        changed: list[Callable[[], None]] = []
        rounded = []
        for model, inputs, before in (
            (self.left, self.models.inputs, single.left),
            (self.right, self.models.right_inputs, single.free.outputs),
        ):
            try:
                changed.append(model.probe.set_dtype("float64"))
                found = _run_in_float64(model, inputs)
                rounded.append(found)
                if any(
                    relative_error(x, found.outputs[name]) > REMADE
                    for name, x in before.items()
                ):
                    # Keras's own get_config of a subclassed model leaves out arguments.
                    raise UserError(
                        "made anew from its configuration, it computes something else. "
                        "Give a function that builds it."
                    )
            except UserError as error:
                which = model.which
                self.findings.notes.append(
                    f"no float64: {which}: {error} What follows is judged in float32, "
                    "where small differences of constants cannot be told from rounding."
                )
                self.findings.check(
                    "float64", "not run", f"the {which} model stays in float32"
                )
                for put_back in changed:
                    put_back()
                return False
        self.models.inputs = in_float64(self.models.inputs)
        self.models.right_inputs = in_float64(self.models.right_inputs)
        self.models.reread()
        self.models.remove_rounding()
        self.runner.eps = EPS64
        self._note_rounding(*rounded)
        return True

    def _check_determinism(self) -> str:
        """Where a model remains random in training mode; "" for nowhere."""
        unshared, drawn = {}, {}
        for model, inputs, ran in (
            (self.left, self.models.inputs, self.models.ran[0]),
            (self.right, self.models.right_inputs, self.models.ran[1]),
        ):
            found = model.find_randomness(inputs, training=False, ran=ran)
            if found.unshared:
                self.unshared[model.which] = found.unshared
            self.evaluation_draws[model.which] = found.draws
            found = model.find_randomness(inputs, training=True)
            if found.unshared:
                unshared[model.which] = found.unshared
            if found.draws:
                drawn[model.which] = describe_draws(found.draws)
        places = ", ".join(f"{place} ({which})" for which, place in unshared.items())
        shared = "; ".join(f"{which}: {what}" for which, what in drawn.items())
        detail = "two runs are the same bits"
        if shared:
            detail = f"in training mode, both are given the same draws. {shared}"
        self.findings.check(
            "determinism",
            "note" if unshared else "holds",
            f"random in training mode: {places}" if unshared else detail,
        )
        return places

    def _judge_draws(self) -> None:
        """What is random in evaluation mode: a fault where only one model is."""
        left, right = (self.evaluation_draws[x] for x in ("left", "right"))
        told = {x.cause.key for x in self.findings.faults if x.cause}
        if not left and not right:
            return
        found = compare_inference(left, right, self.models.left_names)
        for places, cause in found:
            if cause.key not in told:
                self.findings.fault("forward", *places, None, cause)
        if not found:
            self.findings.notes.append(
                f"both models are random in evaluation mode ({describe_draws(left)}); "
                "they were compared on the same draws"
            )

    def _judge(self, runs: Runs, single: Runs | None) -> None:
        """Compare in evaluation mode; `single`: the runs in float32, after float64."""
        self._enter("looking for causes", 0.6)
        findings, models = self.findings, self.models
        runs, single = self._leave_padding_out(runs, single)
        worst = runs.output_error(runs.free.outputs)
        if turned := runs.plan.turned(runs.left, runs.free.outputs):
            findings.notes.append(
                f"compared, as the frameworks differ: {', '.join(turned)}"
            )
        same_outputs = worst <= runs.output_bound
        faulty = runs.parting(findings.least)
        unpaired = find_unpaired(models)
        folds = self.left.folds | self.right.folds
        written_alike = not faulty and not unpaired and not folds
        same = False
        asked = same_outputs and not models.unequal and not written_alike
        if asked and (single or folds):
            self._enter("comparing with other weights", 0.6)
            same = self._is_same_function()
            if not same and folds:
                self._blame_folds()
        check_layers(models, findings, unpaired, same_function=same)
        self._check_order_of_outputs()
        good = same_outputs and (same or not faulty)
        self._check_forward("float64" if single else "float32", good, worst, runs)
        dtypes = "float64 and float32" if single else "float32"
        findings.compared.append(f"outputs in evaluation mode, in {dtypes}")
        if same and faulty:
            names = dict.fromkeys(_name_group(models.groups[x[0]]) for x in faulty)
            findings.notes.append(
                f"within, the models differ at {', '.join(names)}, and yet compute the "
                "same: with these weights and with others"
            )
        elif faulty or not same_outputs or models.unequal:
            Explainer(models, findings, self.runner).explain(runs)
        if not single:
            return
        worst = single.output_error(single.free.outputs)
        close = worst <= single.output_bound
        self._check_forward("float32", close, worst, single)
        if good and not close:
            self._explain_float32(single, worst)

    def _leave_padding_out(
        self, runs: Runs, single: Runs | None
    ) -> tuple[Runs, Runs | None]:
        """Compare no steps of padding any more, if the models part at those alone."""
        models = self.models
        plan = models.outputs.without_padding(models.inputs)
        worst = runs.output_error(runs.free.outputs)
        if not plan.kept or worst <= runs.output_bound:
            return runs, single
        fewer = replace(runs, plan=plan)
        if fewer.output_error(runs.free.outputs) > fewer.output_bound:
            return runs, single
        models.outputs = plan
        apart = describe_error(worst, runs.eps)
        self.findings.notes.append(
            f"at steps that the mask hides, outputs are {apart}; only the others were "
            f"compared: {', '.join(plan.kept)}"
        )
        self.runs = fewer
        self.single = single and replace(single, plan=plan)
        return fewer, self.single

    def _check_order_of_outputs(self) -> None:
        """Outputs that are taken by position must come in the same order."""
        for left, right in self.models.outputs.exchanged:
            cause = Cause(
                key="output-order",
                sentence=f"the left model's {left} is the right one's {right}: the "
                "outputs come in another order",
                write=f"return them in the same order, or say --output {left}={right}",
            )
            self.findings.fault("forward", left, right, None, cause)

    def _blame_folds(self) -> None:
        """With the weights that were given the models agree, with others they don't."""
        cause = Cause(
            key="folded-wrongly",
            sentence="with the weights as they are both compute the same, with others "
            "they do not: weights are folded where the function is another one",
        )
        for pair, left, right in self.models.block_pairs():
            if {"_fold"} & {*left.spec.settings, *right.spec.settings}:
                self.findings.fault("weights", left.layer, right.layer, None, cause)
                self.findings.notes.append(f"{pair.left} was taken for {pair.right}")

    def _is_same_function(self) -> bool:
        """Whether outputs agree with other weights, too."""
        recorded = self.left.recorded
        if not recorded or recorded.has("other-weights"):
            same = with_other_weights(self.runner).equal
            # Of a recording all weights were moved, also those without a partner.
            if same or not recorded or all_carried(self.models):
                return same
        self.findings.not_compared.append(
            "outputs with other weights: the models are written otherwise, and a "
            "recording cannot be run. Check the models themselves"
        )
        return True

    def _check_forward(self, dtype: str, good: bool, worst: float, runs: Runs) -> None:
        state: State = "holds" if good else "fails"
        outputs = describe_error(worst, runs.eps)
        control = describe_error(runs.output_control, runs.eps)
        detail = f"outputs {outputs}; one-ulp control {control}"
        if runs.output_bound == runs.rounding:
            rounding = describe_error(runs.rounding, runs.eps)
            detail = f"outputs {outputs}; what rounds to float32 may do {rounding}"
        self.findings.check(f"forward, {dtype}", state, detail)

    def _explain_float32(self, single: Runs, worst: float) -> None:
        """Where models part in float32 that are equal in float64."""
        first = next(iter(single.parting()), None)
        group = self.models.groups[first[0]] if first else None
        cause = Cause(
            key="float32-arithmetic",
            sentence="in float64 both compute the same; in float32 one of them rounds "
            "far more than it need: fewer digits inside (TF32, bfloat16), or a formula "
            "that cancels",
        )
        self.findings.fault(
            "forward, float32",
            ", ".join(group.left) if group else "output",
            ", ".join(group.right) if group else "output",
            worst,
            cause,
            eps=EPS32,
        )


def _name_group(group: Group) -> str:
    """The left layers and the right ones."""
    left, right = ", ".join(group.left), ", ".join(group.right)
    return left if left == right else f"{left} | {right}"


def _run_in_float64(model: ExaminedModel, inputs: Arrays) -> Rounded:
    """Run a model that runs in float32.

    Raises:
        UserError: in float64 it does not, as a framework may lack the kernel.
    """
    try:
        return find_rounded(model, in_float64(inputs))
    except ModelError as failed:
        raise UserError(f"it raised {user_code.told(failed.error)}.") from failed
