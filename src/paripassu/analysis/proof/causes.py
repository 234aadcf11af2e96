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
from paripassu.core import draws, networks
from paripassu.core.layout import hash_arrays, relayout
from paripassu.core.recipe import Adadelta, Recipe
from paripassu.reference.softmax import softmax

Array = npt.NDArray[Any]
Trace = Mapping[str, Array]
SAME = 1e-6  # relative: the twins round differently, and a mistake is far larger
FEW = 4  # images on which a layer is computed anew


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
        """The architecture."""
        return self.recipe.architecture

    @cached_property
    def weights(self) -> dict[str, Array]:
        """The initial weights."""
        return dict(draws.initial_weights(self.network, self.recipe))

    @property
    def layer(self) -> networks.Layer:
        """The layer at which they part."""
        return next(x for x in self.network.layers if x.name == self.found.layer)

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

    def output(self) -> tuple[Array, Array]:
        """What leaves the layer at which they part."""
        return self.pair(self.prefix() + self.layer.name)

    def input(self) -> Array:
        """What enters it: the same in both."""
        names = ["input", *(x.name for x in self.network.layers)]
        before = names[names.index(self.layer.name) - 1]
        if before == "input":
            return self.right["evaluation.input"]
        return self.right[self.prefix() + before]


def likely_cause(
    found: Divergence, right: Trace, wrong: Trace, *, recipe: Recipe, count: int
) -> str | None:
    """The known mistake that gives the numbers of `wrong`, in words.

    Args:
        found: where they part first.
        right: the evidence of the reference.
        wrong: the evidence of the framework that parts.
        recipe: of the proof.
        count: how many training images there are.

    Returns:
        None if no known mistake gives them.
    """
    case = Case(found, right, wrong, recipe, count)
    for explain in _RULES[found.rung] if found.rung < len(_RULES) else ():
        try:
            cause = explain(case)
        except (KeyError, ValueError, StopIteration):
            continue  # an array is missing, or of another shape: not this mistake
        if cause:
            return cause
    return None


# Rung 0: what was drawn


def _order(case: Case) -> str | None:
    if case.place != "order":
        return None
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
        return (
            "the images are not shuffled"
            if recipe.shuffle
            else "the images are shuffled, and the recipe says not to"
        )
    if np.array_equal(came, hashed(recipe.shuffle, True)):
        return "the last, short batch of each epoch is dropped"
    return None


def _images(case: Case) -> str | None:
    if case.place != "images":
        return None
    right, wrong = case.pair("evaluation.input")
    if case.same(right.swapaxes(1, 2), wrong):
        return "height and width of the images are exchanged"
    mean, std = case.recipe.normalization.mean, case.recipe.normalization.std
    slope, offset = np.polyfit(right.ravel(), wrong.ravel(), 1)
    if not case.same(wrong, slope * right + offset):
        return None
    if not isinstance(mean, str) and not isinstance(std, str):
        twice = np.allclose([slope, offset], [1 / std, -mean / std], rtol=1e-3)
        if twice:
            return "the images are normalised twice"
    return f"the images are normalised otherwise: {slope:.4g} x {offset:+.4g}"


def _masks(case: Case) -> str | None:
    if case.place != "masks":
        return None
    layers = case.network.layers
    dropout = case.network.layers_of("dropout")[0]
    before = layers[layers.index(dropout) - 1]
    right, wrong = case.pair(f"0.activation.{dropout.name}")
    alive = case.right[f"0.activation.{before.name}"] != 0
    if np.array_equal((right != 0)[alive], (wrong == 0)[alive]):
        return "the masks are inverted: they say what to drop, not what to keep"
    return None


def _labels(case: Case) -> str | None:
    if case.place != "labels":
        return None
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


def _dropout(case: Case) -> str | None:
    if case.layer.kind != "dropout":
        return None
    right, wrong = case.output()
    rate = case.recipe.dropout[case.layer.name]
    if case.kind == "evaluation":
        share = float(np.mean(wrong[right != 0] == 0))
        return (
            f"dropout is on in evaluation: {share:.0%} of what enters is dropped"
            if share > 0
            else None
        )
    factor = case.factor(right, wrong)
    if factor is None:
        return None
    if abs(factor - (1 - rate)) < SAME:
        return "what dropout keeps is not divided by 1 - rate"
    return f"dropout divides by {(1 - rate) / factor:.4g}, not by {1 - rate:.4g}"


def _flatten(case: Case) -> str | None:
    if case.layer.kind != "flatten":
        return None
    right, wrong = case.output()
    layers = case.network.layers
    h, w, c = layers[layers.index(case.layer) - 1].output_shape
    sizes = {"h": h, "w": w, "c": c}
    for order in ("n (h w c) -> n (c h w)", "n (c h w) -> n (h w c)"):
        if case.same(relayout(right, order, **sizes), wrong):
            return (
                "the images are flattened in another order than the kernel's: (h w c) "
                "and (c h w) are exchanged"
            )
    return None


def _convolve(x: Array, kernel: Array, bias: Array) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    sums: Array = np.einsum("npqihw,hwio->npqo", windows, kernel, optimize=True)
    return sums + bias


def _convolution(case: Case) -> str | None:
    if case.layer.kind != "convolution":
        return None
    wrong = case.output()[1][:FEW]
    x = case.input()[:FEW]
    kernel = case.weights[f"{case.layer.name}.kernel"]
    bias = case.weights[f"{case.layer.name}.bias"]
    h, w = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(x, ((0, 0), (h, h), (w, w), (0, 0)))
    mistakes = {
        "height and width of the kernel are exchanged": (
            x,
            kernel.swapaxes(0, 1),
            bias,
        ),
        "the kernel is turned around, as in the mathematical convolution": (
            x,
            kernel[::-1, ::-1],
            bias,
        ),
        "the biases are added to the wrong channels": (x, kernel, bias[::-1]),
        "input and output channels of the kernel are exchanged": (
            x,
            kernel.swapaxes(2, 3),
            bias,
        ),
        "the input is padded": (padded, kernel, bias),
    }
    for sentence, (given, of_kernel, of_bias) in mistakes.items():
        if of_kernel.shape[2] != x.shape[3]:
            continue
        made = _convolve(given, of_kernel, of_bias)
        if case.same(made[:, : wrong.shape[1], : wrong.shape[2]], wrong):
            return sentence
    return None


def _pool(case: Case) -> str | None:
    if case.layer.kind != "max_pool":
        return None
    x = case.input()
    h, w, _ = case.layer.output_shape
    size = x.shape[1] // h
    mean = relayout(
        x[:, : h * size, : w * size], "n (p a) (q b) c -> n p q c a b", a=size, b=size
    ).mean(axis=(-2, -1))
    return (
        "pooling takes the mean, not the maximum"
        if case.same(mean, case.output()[1])
        else None
    )


def _relu(case: Case) -> str | None:
    if case.layer.kind != "relu":
        return None
    x, wrong = case.input(), case.output()[1]
    if case.same(x, wrong):
        return "the ReLU is missing"
    slope = case.factor(np.minimum(x, 0), wrong - np.maximum(x, 0))
    return f"the ReLU leaks: its slope below zero is {slope:.3g}" if slope else None


def _tanh(case: Case) -> str | None:
    if case.layer.kind != "tanh":
        return None
    x, wrong = case.input(), case.output()[1]
    return "the tanh is not scaled" if case.same(np.tanh(x), wrong) else None


def _subsample(case: Case) -> str | None:
    if case.layer.kind != "subsample":
        return None
    right, wrong = case.output()
    bias = case.weights[f"{case.layer.name}.bias"]
    factor = case.factor(right - bias, wrong - bias)
    if factor and abs(factor - 0.25) < SAME:
        return "subsampling takes the mean of four pixels, not their sum"
    return None


def _zero_padding(case: Case) -> str | None:
    if case.layer.kind != "zero_padding":
        return None
    x, wrong = case.input(), case.output()[1]
    size = (wrong.shape[1] - x.shape[1]) // 2
    frame = ((0, 0), (size, size), (size, size), (0, 0))
    for mode, words in (
        ("edge", "its nearest pixels"),
        ("reflect", "its mirror image"),
        ("symmetric", "its mirror image"),
        ("wrap", "its other side"),
    ):
        if case.same(np.pad(x, frame, mode=mode), wrong):  # type: ignore[call-overload]
            return f"the border is padded with {words}, not with zeros"
    return None


def _softmax_layer(case: Case) -> str | None:
    if case.layer.kind != "softmax":
        return None
    if case.same(softmax(case.input(), axis=0), case.output()[1]):
        return "the softmax runs over the images of the batch, not over the classes"
    return None


def _fewer_digits(case: Case) -> str | None:
    for low, high, name in (
        (1e-9, 1e-5, "float32"),
        (1e-5, 3e-2, "TF32, float16 or bfloat16"),
    ):
        if case.found.precision == "float64" and low < case.found.difference < high:
            return f"this layer computes in fewer digits: about those of {name}"
    return None


# Rung 2: loss and gradients


def _cross_entropy(logits: Array, labels: Array) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-logarithms[np.arange(len(labels)), labels].mean())


def _loss(case: Case) -> str | None:
    if case.kind != "loss":
        return None
    right, wrong = (float(x) for x in case.pair("0.loss"))
    output = case.right[f"0.activation.{case.network.layers[-1].name}"]
    twice = case.recipe.output == "probabilities"
    if case.recipe.loss == "cross_entropy_on_probabilities":
        output, twice = np.log(output), False  # the loss takes no softmax of them
    labels = case.right["given.labels"]
    near = SAME * abs(wrong)
    if twice and abs(wrong - _cross_entropy(np.log(output), labels)) <= near:
        return "softmax is applied once: the recipe's loss applies it to probabilities"
    logits, probabilities = output, softmax(output, axis=1)
    if abs(wrong - right * len(labels)) <= near:
        return "the loss is the sum over the batch, not its mean"
    if abs(wrong - _cross_entropy(probabilities, labels)) <= near:
        return "softmax is applied twice: the loss takes probabilities for logits"
    for shift in (1, -1):
        if abs(wrong - _cross_entropy(logits, np.roll(labels, shift))) <= near:
            return "the labels are shifted by one"
    return None


def _gradient(case: Case) -> str | None:
    if case.kind != "gradient":
        return None
    right, wrong = case.pair(f"0.gradient.{case.place}")
    weight = next(x for x in case.network.weights if x.name == case.place)
    if weight.table and wrong[:, :, ~weight.connected].any():
        return "a gradient reaches connections that the table leaves out"
    if not wrong.any():
        return "no gradient reaches these weights: they are frozen or detached"
    if case.place.endswith("bias") and case.same(right[::-1], wrong):
        return "the biases are added to the wrong channels"
    factor = case.factor(right, wrong)
    return f"the gradient is {factor:.6g} times the right one" if factor else None


# Rung 3: one step of the optimizer


def _adadelta(case: Case) -> str | None:
    chosen = case.recipe.optimizer
    if not isinstance(chosen, Adadelta) or case.kind != "slot":
        return None
    name = case.place.rpartition(".")[0]
    gradient = case.right[f"0.gradient.{name}"]
    some = np.abs(gradient) > 1e-3 * np.abs(gradient).max()
    square = case.wrong[f"0.slot.{name}.square_gradient"][some]
    rho = 1 - float(np.median(square / gradient[some] ** 2))
    if abs(rho - chosen.rho) > SAME and case.same(
        square, (1 - rho) * gradient[some] ** 2
    ):
        return f"rho is {rho:.6g}, and the recipe says {chosen.rho:g}"
    # update**2 = epsilon / (square + epsilon) * gradient**2, solved for epsilon
    update = case.wrong[f"0.slot.{name}.square_update"][some] / (1 - chosen.rho)
    epsilon = float(np.median(update * square / (gradient[some] ** 2 - update)))
    made = (1 - chosen.rho) * epsilon / (square + epsilon) * gradient[some] ** 2
    came = case.wrong[f"0.slot.{name}.square_update"][some]
    if abs(epsilon / chosen.epsilon - 1) > 1e-3 and difference(made, came) < 1e-3:
        return f"epsilon is {epsilon:.3g}, and the recipe says {chosen.epsilon:g}"
    return None


def _weight_decay(case: Case) -> str | None:
    name = case.place if case.kind == "weight" else case.place.rpartition(".")[0]
    before = case.weights[name]
    if case.kind == "weight":
        right, wrong = case.pair(f"0.weight.{name}")
        factor = case.factor(before, right - wrong)
        return (
            f"weights decay: by {factor:.3g} of themselves a step" if factor else None
        )
    gradient = case.right[f"0.gradient.{name}"]
    chosen = case.recipe.optimizer
    if not isinstance(chosen, Adadelta):
        return None
    size = np.sqrt(case.wrong[f"0.slot.{name}.square_gradient"] / (1 - chosen.rho))
    added = np.where(gradient < 0, -size, size) - gradient
    usual = np.abs(gradient) > 1e-2 * np.abs(gradient).max()
    factor = case.factor(before[usual], added[usual])
    return f"weight decay of {factor:.3g} is in the gradient" if factor else None


def _learning_rate(case: Case) -> str | None:
    if case.kind != "weight":
        return None
    right, wrong = case.pair(f"0.weight.{case.place}")
    before = case.weights[case.place]
    factor = case.factor(right - before, wrong - before)
    return (
        f"the step is {factor:.6g} times the right one: another rate"
        if factor
        else None
    )


# Rung 4: the schedule


def _schedule(case: Case) -> str | None:
    right, wrong = case.pair("rate")
    decay, start = case.recipe.decay, case.recipe.optimizer.learning_rate
    steps = np.arange(len(wrong))
    with np.errstate(under="ignore"):
        per_step = start * decay.factor ** (steps / decay.interval)
    exponential = decay.shape == "exponential" and decay.unit == "epoch"
    if exponential and np.allclose(wrong, per_step, rtol=SAME, atol=1e-300):
        return "the rate decays after every batch, not after every epoch"
    if np.ptp(wrong) == 0:
        return "the rate does not decay"
    factor = case.factor(right, wrong)
    return f"the rate is {factor:.6g} times the right one" if factor else None


# Rung 5: from step to step


def _accumulated(case: Case) -> str | None:
    step = case.found.step
    if not step or case.kind not in ("gradient", "slot", "weight"):
        return None
    name = case.place if case.kind != "slot" else case.place.rpartition(".")[0]
    added = case.right[f"0.gradient.{name}"] + case.right[f"{step}.gradient.{name}"]
    if step == 1 and case.kind == "gradient":
        came = case.wrong[f"1.gradient.{name}"]
        return GRADIENTS_ADD_UP if case.same(added, came) else None
    chosen = case.recipe.optimizer
    if not isinstance(chosen, Adadelta) or step != 1:
        return None
    came = case.wrong[f"1.slot.{name}.square_gradient"]
    first = case.right[f"0.slot.{name}.square_gradient"]
    if case.same(chosen.rho * first + (1 - chosen.rho) * added**2, came):
        return GRADIENTS_ADD_UP
    gradient = case.right[f"1.gradient.{name}"]
    if case.same((1 - chosen.rho) * gradient**2, came):
        return "the optimizer has forgotten its state of the step before"
    return None


GRADIENTS_ADD_UP = "gradients add up from step to step: they are not cleared"

_RULES: tuple[tuple[Callable[[Case], str | None], ...], ...] = (
    (_order, _images, _masks, _labels, _initial),
    (
        *(_dropout, _flatten, _convolution, _pool, _relu),
        *(_tanh, _subsample, _zero_padding, _softmax_layer, _fewer_digits),
    ),
    (_loss, _gradient),
    (_adadelta, _weight_decay, _learning_rate),
    (_schedule,),
    (_accumulated,),
)
