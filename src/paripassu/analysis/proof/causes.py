"""Known mistakes, recognised by the numbers that they leave.

Where the twins part, each known mistake is made on the reference's own numbers; the one
that gives the other framework's numbers is named. What only resembles is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.analysis.proof.parity import difference
from paripassu.analysis.schema import Divergence
from paripassu.core import architecture as networks
from paripassu.core import draws
from paripassu.core.architecture import STATISTICS
from paripassu.core.layer_spec import LayerSpec
from paripassu.core.layout import hash_arrays, relayout
from paripassu.core.recipe import Recipe
from paripassu.reference import layers
from paripassu.reference.losses import cross_entropy, softmax
from paripassu.reference.optimizers import (
    OptimizerRule,
    learning_rate,
    rule_of,
    step_once,
)

Array = npt.NDArray[Any]
Trace = Mapping[str, Array]
SAME = 1e-6  # relative: the twins round differently, and a mistake is far larger
FEW = 4  # images on which a convolution is computed anew


@dataclass(frozen=True)
class Case:
    """What is known where the twins part."""

    found: Divergence
    right: Trace  # of the reference
    wrong: Trace
    recipe: Recipe
    count: int  # of training images

    @property
    def kind(self) -> str:
        """The first word of the quantity: "activation", "gradient", ..."""
        return self.found.quantity.partition(" ")[0]

    @property
    def place(self) -> str:
        """The rest of it: "conv1", "conv1.kernel", ..."""
        return self.found.quantity.partition(" ")[2]

    @cached_property
    def network(self) -> networks.Network:
        """Its layers and weights."""
        return self.recipe.architecture

    @cached_property
    def rule(self) -> OptimizerRule:
        """What the recipe's optimizer does."""
        return rule_of(self.recipe.optimizer, self.recipe.clip_global_norm)

    @cached_property
    def weights(self) -> dict[str, Array]:
        """The initial weights."""
        return draws.initial_weights(self.network, self.recipe)

    @property
    def layer(self) -> networks.Layer:
        """The layer at which they part."""
        return next(x for x in self.network.layers if x.name == self.found.layer)

    @property
    def layer_kind(self) -> str:
        """Its kind, "" where they part at no layer."""
        kinds = (x.kind for x in self.network.layers if x.name == self.found.layer)
        return next(kinds, "")

    def prefix(self) -> str:
        """Of the pass in which a layer differs."""
        return "evaluation." if self.kind == "evaluation" else "0.activation."

    def pair(self, name: str) -> tuple[Array, Array]:
        """An array of the reference's, and the other's."""
        return self.right[name], self.wrong[name]

    def same(self, left: Array, right: Array) -> bool:
        """Whether two arrays are far closer than the twins are where they part."""
        return difference(left, right) <= min(SAME, self.found.difference / 100)

    def factor(self, right: Array, wrong: Array) -> float | None:
        """`c` where `wrong = c * right`; None where it is not."""
        if right.shape != wrong.shape:
            return None
        size = float(np.vdot(right, right))
        if not size:
            return None
        factor = float(np.vdot(right, wrong)) / size
        return factor if self.same(wrong, factor * right) else None

    @property
    def spec(self) -> LayerSpec:
        """The same with its initial weights."""
        layer = self.layer
        weights = {
            x.part: self.weights[x.name]
            for x in layer.weights
            if x.learned or self.kind == "evaluation"
        }
        return LayerSpec(layer.kind, dict(layer.settings), weights)

    def output(self) -> tuple[Array, Array]:
        """What leaves the layer at which they part."""
        return self.pair(self.prefix() + self.layer.name)

    def inputs(self) -> list[Array]:
        """What enters it: the same in both."""
        return [
            self.right[
                "evaluation.input" if x == networks.IMAGES else self.prefix() + x
            ]
            for x in self.layer.inputs
        ]

    def input(self) -> Array:
        """The first of them."""
        return self.inputs()[0]


def likely_cause(
    found: Divergence, right: Trace, wrong: Trace, *, recipe: Recipe, count: int
) -> str | None:
    """The known mistake that gives the numbers of `wrong`, in words, or None.

    `right` is the evidence of the reference, `wrong` that of the framework that parts
    from it at `found`; there are `count` training images.
    """
    if found.start:
        return None  # made elsewhere, it would have been found at the first step
    case = Case(found, right, wrong, recipe, count)
    words = {0: case.place, 1: case.layer_kind}
    key = found.rung, words.get(found.rung, case.kind)
    for explain in (*RULES.get(key, ()), *LAST.get(found.rung, ())):
        try:
            cause = explain(case)
        except (KeyError, ValueError, StopIteration):
            continue  # an array is missing, or of another shape: not this mistake
        if cause:
            return cause
    return None


# Rung 0: what was drawn


def _order(case: Case) -> str | None:
    recipe, count = case.recipe, case.count

    def hashed(shuffle: bool, whole: bool) -> Array:
        changed = recipe.changed(shuffle=shuffle)
        epochs = (draws.batches(changed, count, x) for x in range(recipe.epochs))
        return hash_arrays(
            rows
            for epoch in epochs
            for rows in epoch
            if not whole or len(rows) == recipe.batch_size
        )

    came = case.wrong["draws.order"]
    if np.array_equal(came, hashed(not recipe.shuffle, False)):
        shuffled = "the images are shuffled, and the recipe says not to"
        return "the images are not shuffled" if recipe.shuffle else shuffled
    if np.array_equal(came, hashed(recipe.shuffle, True)):
        return "the last, short batch of each epoch is dropped"
    return None


def _images(case: Case) -> str | None:
    right, wrong = case.pair("evaluation.input")
    if case.same(right.swapaxes(1, 2), wrong):
        return "height and width of the images are swapped"
    mean, std = case.recipe.normalization.mean, case.recipe.normalization.std
    slope, offset = np.polyfit(right.ravel(), wrong.ravel(), 1)
    if not case.same(wrong, slope * right + offset):
        return None
    if isinstance(mean, float) and isinstance(std, float):
        twice = np.allclose([slope, offset], [1 / std, -mean / std], rtol=1e-3)
        if twice:
            return "the images are normalised twice"
    return f"the images are normalised otherwise: {slope:.4g} x {offset:+.4g}"


def _masks(case: Case) -> str | None:
    dropout = case.network.layers_of("dropout")[0]
    before = dropout.inputs[0]
    right, wrong = case.pair(f"0.activation.{dropout.name}")
    given = "evaluation" if before == networks.IMAGES else "0.activation"
    alive = case.right[f"{given}.{before}"] != 0
    if np.array_equal((right != 0)[alive], (wrong == 0)[alive]):
        return "the masks are inverted: they say what to drop, not what to keep"
    return None


def _labels(case: Case) -> str | None:
    right, wrong = case.pair("given.labels")
    for shift in (1, -1):
        if np.array_equal(np.roll(right, shift), wrong):
            way = "before" if shift == 1 else "after"
            return f"each image has the label of the one {way} it"
    return None


def _initial(case: Case) -> str | None:
    if not case.place.startswith("weight."):
        return None
    return "the weights begin elsewhere: another initialiser, seed or layout"


# Rung 1: forward


def _mistakes(spec: LayerSpec) -> list[tuple[str, LayerSpec]]:
    """Of a layer, each known mistake in words, and the layer with it."""
    if spec.kind == "conv":
        kernel, bias = spec.weights["kernel"], spec.weights.get("bias")
        frame = [(n // 2, n // 2) for n in kernel.shape[:2]]
        reversed_ = {} if bias is None else {"bias": bias[::-1]}
        kernels = {
            "height and width of the kernel are exchanged": kernel.swapaxes(0, 1),
            "the kernel is turned around, as in the mathematical convolution": (
                kernel[::-1, ::-1]
            ),
            "input and output channels of the kernel are exchanged": (
                kernel.swapaxes(2, 3)
            ),
        }
        return [
            *((x, spec.changed(weights={"kernel": y})) for x, y in kernels.items()),
            (BIASES_REVERSED, spec.changed(weights=reversed_)),
            ("the input is padded", spec.changed(padding=frame)),
            *_padded_otherwise(spec),
        ]
    if spec.kind in ("max_pool", "average_pool"):
        return [*_padded_otherwise(spec), *_other_pools(spec)]
    if spec.kind in ("batch_norm", "layer_norm", "group_norm"):
        return _other_norms(spec)
    if spec.kind == "gelu":
        exact = spec.settings.get("approximate", False)
        words = "exactly, not by a tanh" if exact else "by a tanh, not exactly"
        return [(f"GELU is computed {words}", spec.changed(approximate=not exact))]
    if spec.kind == "subsample":
        mean = spec.changed(weights={"coefficient": spec.weights["coefficient"] / 4})
        return [("subsampling takes the mean of four pixels, not their sum", mean)]
    if spec.kind == "pad":
        return [
            (
                f"the border is padded with {words}, not with zeros",
                spec.changed(padding_mode=mode),
            )
            for mode, words in BORDERS.items()
        ]
    mistake = MISTAKES.get(spec.kind)
    return [(mistake[0], spec.changed(**mistake[1]))] if mistake else []


def _padded_otherwise(spec: LayerSpec) -> list[tuple[str, LayerSpec]]:
    pads = spec.settings.get("padding")
    if not pads or all(before == after for before, after in pads):
        return []
    turned = tuple(pair[::-1] for pair in pads)
    words = "the odd zero of padding 'same' is put before the image, not after it"
    return [(words, spec.changed(padding=turned))]


def _other_pools(spec: LayerSpec) -> list[tuple[str, LayerSpec]]:
    if spec.kind == "max_pool":
        return [
            (
                "pooling takes the mean, not the maximum",
                spec.changed(kind="average_pool"),
            )
        ]
    words = "what lies outside the image counts in the mean of a window"
    return [
        ("pooling takes the maximum, not the mean", spec.changed(kind="max_pool")),
        (words, spec.changed(count_padding=True)),
    ]


# Defaults of frameworks, and others.
EPSILONS = (
    1e-3,
    1e-5,
    1e-6,
    1e-7,
    1e-8,
    1e-12,
    0.0,
)


def _other_norms(spec: LayerSpec) -> list[tuple[str, LayerSpec]]:
    meant = spec.settings["epsilon"]
    found = [
        (f"epsilon is {x:g}, and the recipe says {meant:g}", spec.changed(epsilon=x))
        for x in EPSILONS
        if x != meant
    ]
    if "mean" in spec.weights:
        weights = {x: spec.weights[x] for x in ("gamma", "beta")}
        batch = LayerSpec(spec.kind, spec.settings, weights)
        words = "batch norm uses the statistics of the batch in evaluation"
        found.append((words, batch))
    return found


def _joined(case: Case) -> str | None:
    """Of an addition or a concatenation."""
    inputs, wrong = case.inputs(), case.output()[1]
    if case.layer_kind == "concatenate":
        if case.same(layers.apply(case.spec, inputs[::-1]), wrong):
            return f"the inputs are joined in another order than {case.layer.inputs}"
        return None
    for name, lonely in zip(case.layer.inputs, inputs, strict=True):
        if case.same(sum(inputs) - lonely, wrong):
            return f"{name} is not added"
        rectified = sum(inputs) - lonely + np.maximum(lonely, 0)
        if case.same(rectified, wrong):
            return f"{name} goes through a ReLU before the addition, not after it"
    return None


def _statistics(case: Case) -> str | None:
    """Of a running mean or variance after the first step."""
    layer, _, part = case.place.rpartition(".")
    if part not in STATISTICS:
        return None
    right, wrong = case.pair(f"0.weight.{case.place}")
    old = case.weights[case.place]
    meant = case.layer.settings["momentum"]
    batch = old + (right - old) / (1 - meant)
    if (factor := case.factor(batch - old, wrong - old)) is not None:
        return (
            f"the running statistics keep {1 - factor:.4g} of the old, and the recipe "
            f"says {meant:g}"
        )
    scale = case.factor(batch, (wrong - meant * old) / (1 - meant))
    shape = case.right[f"0.activation.{layer}"].shape
    count = np.prod(shape[:-1])
    if part == "variance" and scale and abs(scale - count / (count - 1)) < SAME:
        return "the running variance is the unbiased one, with n - 1"
    return None


BIASES_REVERSED = "the biases are added to the wrong channels"
BORDERS = {
    "replicate": "its nearest pixels",
    "reflect": "its mirror image",
    "symmetric": "its mirror image",
    "circular": "its other side",
}
MISTAKES: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("the ReLU is missing", {"kind": "identity"}),
    "tanh": ("the tanh is not scaled", {"amplitude": 1.0, "slope": 1.0}),
    "softmax": (
        "the softmax runs over the images of the batch, not over the classes",
        {"axis": 0},
    ),
}


def _mistake(case: Case) -> str | None:
    count = FEW if case.layer.kind == "conv" else None
    x, wrong = case.input()[:count], case.output()[1][:count]
    for sentence, spec in _mistakes(case.spec):
        try:
            made = layers.apply(spec, [x])
        except ValueError:
            continue  # such as a kernel whose exchanged axes do not fit the input
        if case.same(made[tuple(slice(n) for n in wrong.shape)], wrong):
            return sentence
    return None


def _dropout(case: Case) -> str | None:
    right, wrong = case.output()
    rate = case.recipe.dropout[case.layer.name]
    if case.kind == "evaluation":
        share = float(np.mean(wrong[right != 0] == 0))
        on = f"dropout is on in evaluation: {share:.0%} of what enters is dropped"
        return on if share > 0 else None
    factor = case.factor(right, wrong)
    if factor is None:
        return None
    if abs(factor - (1 - rate)) < SAME:
        return "dropout does not scale what it keeps by 1 / (1 - rate)"
    return f"dropout divides by {(1 - rate) / factor:.4g}, not by {1 - rate:.4g}"


def _flatten(case: Case) -> str | None:
    right, wrong = case.output()
    h, w, c = case.input().shape[1:]
    for order in ("n (h w c) -> n (c h w)", "n (c h w) -> n (h w c)"):
        if case.same(relayout(right, order, h=h, w=w, c=c), wrong):
            return (
                "the images are flattened in another order than the kernel's: (h w c) "
                "and (c h w) are exchanged"
            )
    return None


def _leak(case: Case) -> str | None:
    x, wrong = case.input(), case.output()[1]
    slope = case.factor(np.minimum(x, 0), wrong - np.maximum(x, 0))
    return f"the ReLU leaks: its slope below zero is {slope:.3g}" if slope else None


def _fewer_digits(case: Case) -> str | None:
    for low, high, name in (
        (1e-9, 1e-5, "float32"),
        (1e-5, 3e-2, "TF32, float16 or bfloat16"),
    ):
        if case.found.precision == "float64" and low < case.found.difference < high:
            return f"this layer computes in fewer digits: about those of {name}"
    return None


# Rung 2: loss and gradients


def _loss(case: Case) -> str | None:
    right, wrong = (float(x) for x in case.pair("0.loss"))
    labels = case.right["given.labels"]
    logits = case.right[f"0.activation.{case.network.layers[-1].name}"]
    smoothing = case.recipe.label_smoothing
    tried = []
    if case.recipe.loss == "cross_entropy_on_probabilities":
        logits = np.log(logits)  # the loss takes no softmax of them
    elif case.recipe.output == "probabilities":
        once = "softmax is applied once: the recipe's loss applies it to probabilities"
        tried.append((once, np.log(logits), labels))
    twice = "softmax is applied twice: the loss gets probabilities instead of logits"
    tried.append((twice, softmax(logits), labels))
    for shift in (1, -1):
        tried.append(("the labels are shifted by one", logits, np.roll(labels, shift)))
    for sentence, given, expected in tried:
        made = float(cross_entropy(given, expected, smoothing)[0])
        if abs(wrong - made) <= SAME * abs(wrong):
            return sentence
    hard = float(cross_entropy(logits, labels)[0])
    if smoothing and abs(wrong - hard) <= SAME * abs(wrong):
        return "the labels are not smoothed"
    if abs(wrong - right * len(labels)) <= SAME * abs(wrong):
        return "the loss is the sum over the batch, not its mean"
    return None


def _gradient(case: Case) -> str | None:
    right, wrong = case.pair(f"0.gradient.{case.place}")
    weight = next(x for x in case.network.weights if x.name == case.place)
    if weight.table and wrong[:, :, ~weight.connected].any():
        return "a gradient reaches connections that the table leaves out"
    if not wrong.any():
        return "no gradient reaches these weights: they are frozen or detached"
    if weight.is_bias and case.same(right[::-1], wrong):
        return BIASES_REVERSED
    factor = case.factor(right, wrong)
    return f"the gradient is {factor:.6g} times the right one" if factor else None


# Rung 3: one step of the optimizer

# The share of the old that each optimizer's mean square keeps.
SHARES = {"adadelta": "rho", "rmsprop": "rho", "adam": "beta2", "nadam": "beta2"}


def _constants(case: Case) -> str | None:
    name, _, slot = case.place.rpartition(".")
    if slot not in ("square_gradient", "square_update"):
        return None
    gradient = case.right[f"0.gradient.{name}"]
    some = np.abs(gradient) > 1e-3 * np.abs(gradient).max()
    squares = gradient[some] ** 2
    square = case.wrong[f"0.slot.{name}.square_gradient"][some]
    key = SHARES[case.rule.family]
    share = 1 - float(np.median(square / squares))
    meant = case.rule.number(key)
    if abs(share - meant) > SAME and case.same(square, (1 - share) * squares):
        return f"{key} is {share:.6g}, and the recipe says {meant:g}"
    # update**2 = epsilon / (square + epsilon) * gradient**2, solved for epsilon
    came = case.wrong[f"0.slot.{name}.square_update"][some]
    update = came / (1 - meant)
    epsilon = float(np.median(update * square / (squares - update)))
    made, meant = epsilon / (square + epsilon) * squares, case.rule.number("epsilon")
    if abs(epsilon / meant - 1) > 1e-3 and difference(made, update) < 1e-3:
        return f"epsilon is {epsilon:.3g}, and the recipe says {meant:g}"
    return None


def _decay_in_gradient(case: Case) -> str | None:
    name = case.place.rpartition(".")[0]
    before, gradient = case.weights[name], case.right[f"0.gradient.{name}"]
    new = 1 - case.rule.number(SHARES[case.rule.family])
    size = np.sqrt(case.wrong[f"0.slot.{name}.square_gradient"] / new)
    added = np.where(gradient < 0, -size, size) - gradient
    usual = np.abs(gradient) > 1e-2 * np.abs(gradient).max()
    factor = case.factor(before[usual], added[usual])
    return f"weight decay of {factor:.3g} is in the gradient" if factor else None


def _decay_past_gradient(case: Case) -> str | None:
    right, wrong = case.pair(f"0.weight.{case.place}")
    share = case.factor(case.weights[case.place], right - wrong)
    return f"weights decay: by {share:.3g} of themselves a step" if share else None


def _learning_rate(case: Case) -> str | None:
    right, wrong = case.pair(f"0.weight.{case.place}")
    before = case.weights[case.place]
    factor = case.factor(right - before, wrong - before)
    another = f"the step is {factor or 0:.6g} times the right one: another rate"
    return another if factor else None


# Rung 4: the schedule


def _schedule(case: Case) -> str | None:
    right, wrong = case.pair("rate")
    decay = case.recipe.decay
    other: dict[str, Any] | None = None
    if decay.shape == "plateau":
        other = {"patience": decay.patience + 1}
        told = "the rate falls an epoch later than patience says"
    elif decay.unit == "epoch":
        other = {"unit": "step"}
        told = "the rate decays after every batch, not after every epoch"
    if other:
        changed = case.recipe.changed(decay={**decay.model_dump(), **other})
        length = len(wrong) // changed.epochs
        rates = [
            learning_rate(changed, epoch=x // length, step=x) for x in range(len(wrong))
        ]
        if np.allclose(wrong, rates, rtol=SAME, atol=1e-300):
            return told
    if np.ptp(wrong) == 0:
        return "the rate does not decay"
    factor = case.factor(right, wrong)
    return f"the rate is {factor:.6g} times the right one" if factor else None


# Rung 5: from step to step


def _second_step(case: Case) -> str | None:
    """Known mistakes between the first step and the second."""
    if case.found.step != 1:
        return None
    name, _, slot = case.place.rpartition(".")
    name = name if case.kind == "slot" else case.place
    came = case.wrong[f"1.{case.kind}.{case.place}"]
    gradient = case.right[f"1.gradient.{name}"]
    added = case.right[f"0.gradient.{name}"] + gradient
    if case.kind == "gradient":
        return GRADIENTS_ADD_UP if case.same(added, came) else None
    begin = f"0.slot.{name}."
    state = {
        key.removeprefix(begin): np.asarray(x, np.float64)
        for key, x in case.right.items()
        if key.startswith(begin)
    }
    before = np.asarray(case.right[f"0.weight.{name}"], np.float64)
    rate = learning_rate(case.recipe, epoch=0, step=1)

    def gives(gradient: Array, state: dict[str, Array]) -> bool:
        weights, states = step_once(
            *(case.rule, {name: before}, {name: gradient}, {name: state}),
            rate=rate,
            step=2,
        )
        made = states[name][slot] if case.kind == "slot" else weights[name]
        return case.same(made, came)

    if gives(added, state):
        return GRADIENTS_ADD_UP
    if state and gives(gradient, {}):
        return "the optimizer has forgotten its state of the step before"
    return None


GRADIENTS_ADD_UP = "gradients add up from step to step: they are not cleared"

Rule = Callable[[Case], str | None]
WITH_SETTINGS = (
    *("conv", "subsample", "pad", "max_pool", "average_pool", "gelu"),
    *("batch_norm", "layer_norm", "group_norm"),
)
# By rung and, on rung 0, what was drawn; on rung 1 the kind of layer; else of quantity.
RULES: dict[tuple[int, str], tuple[Rule, ...]] = {
    (0, "order"): (_order,),
    (0, "images"): (_images,),
    (0, "masks"): (_masks,),
    (0, "labels"): (_labels,),
    **{(1, kind): (_mistake,) for kind in (*WITH_SETTINGS, *MISTAKES)},
    (1, "relu"): (_mistake, _leak),
    (1, "leaky_relu"): (_leak,),
    (1, "add"): (_joined,),
    (1, "concatenate"): (_joined,),
    (1, "dropout"): (_dropout,),
    (1, "flatten"): (_flatten,),
    (2, "loss"): (_loss,),
    (2, "gradient"): (_gradient,),
    (3, "slot"): (_constants, _decay_in_gradient),
    (3, "weight"): (_statistics, _decay_past_gradient, _learning_rate),
    (4, "rate"): (_schedule,),
    **{(5, kind): (_second_step,) for kind in ("gradient", "slot", "weight")},
}
# Those that are tried last, whatever it is.
LAST: dict[int, tuple[Rule, ...]] = {0: (_initial,), 1: (_fewer_digits,)}
