"""Compares a step of training: outputs, BatchNorm's statistics and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from paripassu.core.layer_spec import Array, relative_error
from paripassu.port_check.findings import EPS64, Findings, finite, said
from paripassu.port_check.groups import Store
from paripassu.port_check.mapping import Models
from paripassu.port_check.results import Cause
from paripassu.port_check.walks import CONTROLS, FLOOR, ROUNDED, Walker
from paripassu.port_check.watchers import Nothing
from paripassu.sides.contract import Arrays, Block, Step


class Training:
    """Compares both models in training mode, dropout off; `go` adds to the findings."""

    def __init__(self, models: Models, findings: Findings, walker: Walker):
        self.models, self.findings, self.walker = models, findings, walker

    def go(self) -> None:
        """All of it."""
        self.walker.progress("comparing gradients", 0.75)
        shapes = self.models.left.run(self.models.inputs, Nothing())
        others = self.models.right.run(self.models.right_inputs, Nothing())
        drawn: Arrays = {}
        drawn_right: Arrays = {}
        names = list(zip(shapes, others, strict=True))
        if set(shapes) == set(others):
            names = [(x, x) for x in shapes]
        for one, two in names:
            cotangent = self.walker.random.standard_normal(shapes[one].shape)
            drawn[one] = cotangent
            laid = (shapes[one], *_moved(shapes[one]))
            fits = [
                (relative_error(x, others[two]), n)
                for n, x in enumerate(laid)
                if x.shape == others[two].shape
            ]
            if not fits:
                self.findings.check("gradients", "not run", "outputs have other shapes")
                return
            drawn_right[two] = (cotangent, *_moved(cotangent))[min(fits)[1]]
        nudged = {key: self.walker.nudge(x) for key, x in self.models.inputs.items()}
        slopes = _Slopes()
        try:
            left = slopes.keep(self.models.left.step(self.models.inputs, drawn))
            control = slopes.compare(self.models.left.step(nudged, drawn))
            self.walker.progress("comparing gradients", 0.85)
            right = self.models.right.step(self.models.right_inputs, drawn_right)
            parted = self._compare_training(left, right, control)
            self._compare_statistics(left, right)
            self._compare_gradients(slopes, right, parted)
        finally:
            slopes.store.close()

    def _compare_training(self, left: Step, right: Step, control: Step) -> bool:
        worst, bound = 0.0, FLOOR * EPS64
        for name, one, two in self.walker.outputs(left.outputs, right.outputs):
            worst = max(worst, relative_error(one, two))
            moved = relative_error(left.outputs[name], control.outputs[name])
            bound = max(bound, CONTROLS * (moved if math.isfinite(moved) else 0.0))
        good = worst <= max(bound, ROUNDED if self._has_rounded() else 0.0)
        self.findings.check(
            "training mode, float64",
            "holds" if good else "fails",
            f"outputs {said(worst, EPS64)}; dropout off",
        )
        if not good and not self.findings.faults:
            self._training_fault(worst)
        return not good

    def _has_rounded(self) -> bool:
        return any("in float32 even in" in x for x in self.findings.notes)

    def _training_fault(self, worst: float) -> None:
        """Where the models part in training mode only."""
        store = Store()
        try:
            walks = self.walker.walks(
                store, EPS64, "training mode", 0.85, training=True
            )
        finally:
            store.close()
        for key, error in walks["forced"].errors.items():
            if error > max(self.walker.bound(walks, key), ROUNDED):
                group = self.models.groups[key[0]]
                cause = None
                if group.kind == "batch_norm":
                    cause = Cause(
                        key="frozen",
                        sentence="one normalises with the batch's statistics in "
                        "training mode, the other with the running ones",
                    )
                names = ", ".join(group.left), ", ".join(group.right)
                self.findings.fault("training mode", *names, error, cause)
                return
        self.findings.fault("training mode", "output", "output", worst, None)

    def _compare_statistics(self, left: Step, right: Step) -> None:
        found, unbiased = [], []
        for pair in self.models.pairs:
            one, two = pair.left or "", pair.right or ""
            if one not in left.statistics or two not in right.statistics:
                continue
            mine, other = left.statistics[one], right.statistics[two]
            group = self.models.group_of(one)
            carry = group.carry_weight if group else (lambda _name, x: x)
            blocks = self.models.left_blocks[one], self.models.right_blocks[two]
            if any(x not in blocks[0].described.weights for x in ("mean", "variance")):
                continue
            cause, apart = _statistics(blocks, mine, other, carry)
            if cause is None and apart > 1e-9:
                unbiased.append((one, apart))
            elif cause is not None:
                found.append(one)
                inherited = cause.key == "statistics" and bool(self.findings.faults)
                told = any(x.left == blocks[0].layer for x in self.findings.faults)
                if not (inherited or told):
                    names = blocks[0].layer, blocks[1].layer
                    self.findings.fault("statistics", *names, apart, cause)
        if not left.statistics:
            return
        if unbiased and self.models.left.probe.side != self.models.right.probe.side:
            worst = max(x for _, x in unbiased)
            self.findings.notes.append(
                "PyTorch keeps the unbiased variance of a batch, Keras the biased one "
                "(n / (n - 1) between them): running variances part by up to "
                f"{worst:.1e} in this step. No setting of either changes that"
            )
        self.findings.check(
            "BatchNorm statistics",
            "fails" if found else "holds",
            f"after one step: {', '.join(found)} part"
            if found
            else f"{len(left.statistics)} layers, after one step",
        )

    def _compare_gradients(self, slopes: _Slopes, right: Step, parted: bool) -> None:
        worst, total = 0.0, 0
        bad: list[_Bad] = []
        for pair in self.models.pairs:
            if pair.left is None or pair.right is None:
                continue
            one, two = (
                self.models.left_blocks[pair.left],
                self.models.right_blocks[pair.right],
            )
            other = right.gradients[pair.right]
            if one.trainable != two.trainable:
                continue
            group = self.models.group_of(pair.left)
            carry = group.carry_weight if group else (lambda _name, x: x)
            for name, key in self.models.keys(one, two).items():
                kept = slopes.get(pair.left, name)
                if kept is None or key not in other:
                    continue
                total += 1
                wanted, got = carry(name, kept), other[key]
                error = relative_error(wanted, got)
                bound = max(CONTROLS * slopes.moved[pair.left, name], FLOOR * EPS64)
                # Gradients that cancel to nothing are rounding on both sides.
                scale = slopes.scales[pair.left]
                small = np.abs(wanted - got).max(initial=0) <= scale * 1e-12
                if (
                    error > max(bound, ROUNDED if self._has_rounded() else 0)
                    and not small
                ):
                    sums = float(np.abs(wanted).sum()), float(np.abs(got).sum())
                    bad.append(_Bad(pair.left, pair.right, name, *sums, error))
                elif error <= bound and not small:
                    worst = max(worst, error)
        if not bad:
            detail = f"{total} of {total} equal, at most {said(worst, EPS64)}"
            self.findings.check("gradients, float64", "holds", detail)
            return
        names = ", ".join(f"{x.left}.{x.name}" for x in bad[:6])
        more = f" and {len(bad) - 6} more" if len(bad) > 6 else ""
        self.findings.check(
            "gradients, float64", "fails", f"{len(bad)} of {total} part: {names}{more}"
        )
        if self.findings.faults or parted:
            return
        last = bad[-1]
        whose = "right" if last.got < last.wanted else "left"
        share = "less gradient" if last.got and last.wanted else "no gradient"
        cause = Cause(
            key="stop-gradient",
            sentence=f"both compute the same forward, but {share} reaches it in the "
            f"{whose} model: a stop_gradient or detach after it, or a function without "
            "a gradient",
        )
        self.findings.fault("gradients", last.left, last.right, last.error, cause)


@dataclass(frozen=True)
class _Bad:
    """A weight whose gradients part: its blocks, name, sums of sizes, and the error."""

    left: str
    right: str
    name: str
    wanted: float
    got: float
    error: float


class _Slopes:
    """The left model's gradients, on disk: one set of them is as large as the model.

    Attributes:
        scales: the largest value of each block's gradients.
        moved: what the one-ulp control does to each, relative.
    """

    def __init__(self) -> None:
        self.store = Store()
        self.numbers: dict[str, int] = {}
        self.scales: dict[str, float] = {}
        self.moved: dict[tuple[str, str], float] = {}

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

    def compare(self, step: Step) -> Step:
        """Take the control's, and give it back without gradients."""
        for block, arrays in step.gradients.items():
            for name, array in arrays.items():
                kept = self.get(block, name)
                apart = math.inf if kept is None else relative_error(kept, array)
                self.moved[block, name] = apart if math.isfinite(apart) else 0.0
        return replace(step, gradients={})


def _statistics(
    blocks: tuple[Block, Block],
    left: Arrays,
    right: Arrays,
    carry: Callable[[str, Array], Array],
) -> tuple[Cause | None, float]:
    """Compare running statistics; None: equal, or biased beside unbiased."""
    one, two = (x.described for x in blocks)
    apart = {key: relative_error(carry(key, left[key]), right[key]) for key in left}
    worst = max(apart.values())
    if worst <= 1e-9:
        return None, worst
    momenta = [float(x.settings.get("momentum", 0.0)) for x in (one, two)]
    sentence = f"momentum: left keeps {momenta[0]:.6g}, right {momenta[1]:.6g}"
    if abs(momenta[0] - momenta[1]) > 1e-12:
        share = 1 - momenta[0]
        batch = (
            (left["mean"] - momenta[0] * one.weights["mean"]) / share if share else 0
        )
        other = momenta[1] * one.weights["mean"] + (1 - momenta[1]) * batch
        after = relative_error(carry("mean", np.asarray(other)), right["mean"])
        write = (
            f"Keras: momentum={momenta[0]:.6g}; PyTorch: momentum={1 - momenta[0]:.6g} "
            "(the share of the new)"
        )
        return (
            Cause(
                key="momentum",
                sentence=sentence,
                write=write,
                before=finite(worst),
                after=after if after < 1e-6 else None,
            ),
            worst,
        )
    old_mean = carry("mean", one.weights["mean"])
    if apart["mean"] > 1e-9:
        if relative_error(old_mean, right["mean"]) <= 1e-12:
            text = "the right model does not update its running statistics"
            return Cause(key="frozen", sentence=text), worst
        return Cause(key="statistics", sentence="running means part"), worst
    # Means agree: is it the factor n / (n - 1)?
    share = 1 - momenta[0]
    old = carry("variance", one.weights["variance"])
    mine = (carry("variance", left["variance"]) - momenta[0] * old) / share
    theirs = (right["variance"] - momenta[0] * old) / share
    safe = np.abs(theirs) > 1e-12
    ratio = mine[safe] / theirs[safe]
    if ratio.size and np.ptp(ratio) <= 1e-6 * abs(ratio.mean()):
        return None, worst
    return Cause(key="statistics", sentence="running variances part"), worst


def _moved(array: Array) -> tuple[Array, ...]:
    if array.ndim < 3:
        return ()
    return np.moveaxis(array, 1, -1), np.moveaxis(array, -1, 1)
