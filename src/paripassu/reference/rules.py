"""Every optimizer's rule by hand, in float64: what PyTorch's and Keras's are made of.

A rule has settings, which are numbers, and forms, which say where a number goes: both
frameworks have an Adam with an epsilon, and do not add it at the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Path = list[dict[str, Floats]]
State = dict[str, Floats]

FAMILIES = (
    "sgd",
    "adam",
    "adadelta",
    "adagrad",
    "rmsprop",
    "adamax",
    "nadam",
    "other",
)
# What passes through float32 on the way: nothing; what Keras 3.15 casts; of that the
# weight decay only, in subclasses; the product of momentums in PyTorch's NAdam.
CONSTANTS = ("exact", "float32", "float32 decay", "float32 product")
# A key that does nothing unless the other is set
GATES = {
    "decay_form": "weight_decay",
    "momentum_form": "momentum",
    "nesterov": "momentum",
    "dampening": "momentum",
}


@dataclass(frozen=True)
class OptimizerRule:
    """What an optimizer does to a parameter.

    Attributes:
        family: one of `FAMILIES`; "other" has no rule here.
        settings: numbers, by the names that `step_all` reads: learning_rate (a number
            or a list of one for each step), weight_decay, clip_norm, clip_global_norm,
            clip_value, maximize, and of each family its own.
        forms: decay_form "l2" or "decoupled"; momentum_form "rate_outside" or
            "rate_inside"; epsilon_form "outside", "hat", "inside" or "maximum";
            clip_form "plain" or "plus 1e-6"; constants one of `CONSTANTS`.
        name: of the class, as a user writes it, such as `torch.optim.Adam`.
        because: why the family is "other".
    """

    family: str
    settings: Mapping[str, Any]
    forms: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    because: str = ""

    def get(self, key: str) -> Any:
        """A setting or a form; None where the rule has none."""
        return self.settings.get(key, self.forms.get(key))

    def taking(self, keys: Iterable[str], other: OptimizerRule) -> OptimizerRule:
        """The same rule with some settings and forms of another."""
        settings, forms = dict(self.settings), dict(self.forms)
        for key in keys:
            for mine, theirs in ((settings, other.settings), (forms, other.forms)):
                if key in theirs:
                    mine[key] = theirs[key]
                elif key in mine:
                    del mine[key]
        return replace(self, settings=settings, forms=forms)

    def rounded(self, constants: str) -> OptimizerRule:
        """The same rule with one of `CONSTANTS`."""
        return replace(self, forms={**self.forms, "constants": constants})

    def learning_rate(self, step: int) -> float:
        """Of a step counted from 1; the last of a list goes on."""
        rate = self.settings["learning_rate"]
        if isinstance(rate, Sequence):
            return float(rate[min(step, len(rate)) - 1])
        return float(rate)

    def cast(self, key: str, otherwise: float = 0.0) -> float:
        """A constant as Keras 3.15 casts it: a Python float becomes float32 first."""
        value = float(self.settings.get(key) or otherwise)
        constants = self.forms.get("constants")
        if constants == "float32" or (constants, key) == (
            "float32 decay",
            "weight_decay",
        ):
            return float(np.float32(value))
        return value

    def number(self, key: str, otherwise: float = 0.0) -> float:
        """A constant as it is written."""
        return float(self.settings.get(key) or otherwise)


def step_all(
    rule: OptimizerRule,
    parameters: Mapping[str, npt.NDArray[Any]],
    gradients: Sequence[Mapping[str, npt.NDArray[Any]]],
) -> Path:
    """Follow a rule through all the gradients.

    In a step gradients are clipped, then weights decay, then they move.

    Args:
        rule: of a family that is not "other".
        parameters: by name, of any shape.
        gradients: of each step, those of every parameter.

    Returns:
        The parameters after each step, float64.

    Raises:
        ValueError: there is no rule of that family.
    """
    if rule.family not in RULES:
        raise ValueError(f"no rule of the family {rule.family!r}")
    move = RULES[rule.family]
    weights = {name: np.asarray(x, np.float64) for name, x in parameters.items()}
    states: dict[str, State] = {name: {} for name in weights}
    path: Path = []
    for step, given in enumerate(gradients, start=1):
        rate = rule.learning_rate(step)
        # 0 / 0 without an epsilon is the user's own, and is compared as NaN.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            clipped = clip(rule, given)
            weights = {
                name: move(
                    rule, *decay(rule, x, clipped[name], rate), states[name], rate, step
                )
                for name, x in weights.items()
            }
        path.append(weights)
    return path


def clip(
    rule: OptimizerRule, gradients: Mapping[str, npt.NDArray[Any]]
) -> dict[str, Floats]:
    """Bound the gradients of one step, and turn them where the rule maximizes.

    clip_norm:        g * min(1, c / norm), each parameter for itself; in the form
                      "plus 1e-6" g * min(1, c / (norm + 1e-6))
    clip_global_norm: the same with the norm of all parameters together
    clip_value:       each number between -c and c

    Sources: Keras's `BaseOptimizer`; PyTorch's `clip_grad_norm_`, `clip_grad_value_`.
    """
    sign = -1.0 if rule.settings.get("maximize") else 1.0
    found = {name: sign * np.asarray(x, np.float64) for name, x in gradients.items()}
    more = 1e-6 if rule.forms.get("clip_form") == "plus 1e-6" else 0.0
    norms = {name: float(np.sqrt(np.sum(x**2))) + more for name, x in found.items()}
    if bound := rule.number("clip_norm"):
        return {name: x * bound / max(norms[name], bound) for name, x in found.items()}
    if bound := rule.number("clip_global_norm"):
        norm = float(np.sqrt(sum(float(np.sum(x**2)) for x in found.values()))) + more
        return {name: x * bound / max(norm, bound) for name, x in found.items()}
    if bound := rule.number("clip_value"):
        return {name: np.clip(x, -bound, bound) for name, x in found.items()}
    return found


def decay(
    rule: OptimizerRule, weight: Floats, gradient: Floats, rate: float
) -> tuple[Floats, Floats]:
    """Draw weights to zero: in the gradient ("l2"), or past it ("decoupled").

    Sources: Loshchilov and Hutter 2019 (arXiv:1711.05101), with the learning rate as a
    factor, as both frameworks have it.
    """
    if not rule.number("weight_decay"):
        return weight, gradient
    if rule.forms.get("decay_form") == "l2":
        return weight, gradient + rule.number("weight_decay") * weight
    return weight - weight * rule.cast("weight_decay") * rate, gradient


def _sgd(
    rule: OptimizerRule,
    weight: Floats,
    gradient: Floats,
    state: State,
    rate: float,
    _: int,
) -> Floats:
    """Momentum with the rate outside is PyTorch's `SGD`, inside Keras's.

    PyTorch dampens every gradient but the first.
    """
    momentum = rule.cast("momentum")
    if momentum == 0:
        return weight - rate * gradient
    before = state.get("velocity")
    nesterov = bool(rule.settings.get("nesterov"))
    kept = 0.0 if before is None else momentum * before
    part = 1.0 if before is None else 1.0 - rule.number("dampening")
    if rule.forms.get("momentum_form") == "rate_inside":
        velocity = kept - rate * part * gradient
        state["velocity"] = velocity
        move = momentum * velocity - rate * gradient if nesterov else velocity
        return weight + move
    velocity = kept + part * gradient
    state["velocity"] = velocity
    return weight - rate * (gradient + momentum * velocity if nesterov else velocity)


def _means(
    rule: OptimizerRule, gradient: Floats, state: State
) -> tuple[Floats, Floats]:
    """Adam's running means of the gradient and of its square, in place of the old."""
    beta1, beta2 = rule.number("beta1"), rule.number("beta2")
    if rule.family == "nadam":
        beta1, beta2 = rule.cast("beta1"), rule.cast("beta2")
    zeros = np.zeros_like(gradient)
    mean = beta1 * state.get("mean", zeros) + (1 - beta1) * gradient
    square = beta2 * state.get("square", zeros) + (1 - beta2) * gradient**2
    state["mean"], state["square"] = mean, square
    return mean, square


def _adam(
    rule: OptimizerRule,
    weight: Floats,
    gradient: Floats,
    state: State,
    rate: float,
    step: int,
) -> Floats:
    """Epsilon "outside" is algorithm 1 and PyTorch's, "hat" the remark and Keras's.

    Sources: Kingma and Ba 2015 (arXiv:1412.6980); amsgrad: Reddi et al. 2018, with the
    maximum taken before the correction, as both frameworks do.
    """
    mean, square = _means(rule, gradient, state)
    if rule.settings.get("amsgrad"):
        square = np.maximum(state.get("largest", np.zeros_like(square)), square)
        state["largest"] = square
    c1, c2 = 1 - rule.cast("beta1") ** step, 1 - rule.cast("beta2") ** step
    epsilon = rule.number("epsilon")
    if rule.forms.get("epsilon_form") == "hat":
        root = np.sqrt(square) + epsilon
        return np.asarray(weight - rate * np.sqrt(c2) / c1 * mean / root)
    root = np.sqrt(square / c2) + epsilon
    return np.asarray(weight - rate / c1 * mean / root)


def _nadam(
    rule: OptimizerRule,
    weight: Floats,
    gradient: Floats,
    state: State,
    rate: float,
    step: int,
) -> Floats:
    """Adam with Nesterov's momentum: beta1 * (1 - 0.96 ** (step * decay) / 2).

    Sources: Dozat 2016; PyTorch's `NAdam`, and Keras's `Nadam`, which has the decay 1.
    """
    mean, square = _means(rule, gradient, state)
    constants = rule.forms.get("constants")
    base = float(np.float32(0.96)) if constants == "float32" else 0.96
    slower = rule.number("momentum_decay")

    def momentum(beta: float, root: float, at: int) -> float:
        return beta * (1 - 0.5 * float(np.power(root, at * slower)))

    now = momentum(rule.cast("beta1"), base, step)
    after = momentum(rule.cast("beta1"), base, step + 1)
    exact = momentum(rule.number("beta1"), 0.96, step)
    before = float(state.get("product", np.ones(())))
    product = before * exact
    if constants == "float32 product":
        product = float(np.float32(before) * np.float32(exact))
    state["product"] = np.array(product)
    c2 = 1 - rule.cast("beta2") ** step
    ahead = after * mean / (1 - product * after) + (1 - now) * gradient / (1 - product)
    root = np.sqrt(square / c2) + rule.number("epsilon")
    return np.asarray(weight - rate * ahead / root)


def _adamax(
    rule: OptimizerRule,
    weight: Floats,
    gradient: Floats,
    state: State,
    rate: float,
    step: int,
) -> Floats:
    """Epsilon "outside" is added to the norm (Keras), "maximum" within it (PyTorch).

    Source: Kingma and Ba 2015, section 7.1, who have none.
    """
    beta1, beta2 = rule.number("beta1"), rule.number("beta2")
    epsilon = rule.number("epsilon")
    zeros = np.zeros_like(gradient)
    within = rule.forms.get("epsilon_form") == "maximum"
    mean = beta1 * state.get("mean", zeros) + (1 - beta1) * gradient
    size = np.abs(gradient) + epsilon if within else np.abs(gradient)
    norm = np.maximum(beta2 * state.get("norm", zeros), size)
    state["mean"], state["norm"] = mean, norm
    c1 = 1 - rule.cast("beta1") ** step
    return weight - rate / c1 * mean / (norm if within else norm + epsilon)


def _root(rule: OptimizerRule, square: Floats) -> Floats:
    epsilon = rule.number("epsilon")
    if rule.forms.get("epsilon_form") == "inside":
        return np.sqrt(square + epsilon)
    return np.sqrt(square) + epsilon


def _rmsprop(
    rule: OptimizerRule,
    weight: Floats,
    gradient: Floats,
    state: State,
    rate: float,
    _: int,
) -> Floats:
    """Epsilon "outside" the root is PyTorch's, "inside" Keras's, and so momentum.

    Centered, the square of the mean gradient is taken off the mean square: Graves 2013
    (arXiv:1308.0850).
    """
    rho, momentum = rule.number("rho"), rule.number("momentum")
    zeros = np.zeros_like(gradient)
    square = rho * state.get("square", zeros) + (1 - rho) * gradient**2
    state["square"] = square
    if rule.settings.get("centered"):
        mean = rho * state.get("mean", zeros) + (1 - rho) * gradient
        state["mean"] = mean
        square = square - mean**2
    move = gradient / _root(rule, square)
    if momentum == 0:
        return weight - rate * move
    inside = rule.forms.get("momentum_form") == "rate_inside"
    velocity = momentum * state.get("velocity", zeros)
    velocity = velocity + (rate * move if inside else move)
    state["velocity"] = velocity
    return weight - (velocity if inside else rate * velocity)


def _adagrad(
    rule: OptimizerRule,
    weight: Floats,
    gradient: Floats,
    state: State,
    rate: float,
    step: int,
) -> Floats:
    """Epsilon "outside" the root is PyTorch's, "inside" Keras's.

    Source: Duchi et al. 2011; PyTorch's `lr_decay` makes the rate smaller by itself.
    """
    start = np.full_like(gradient, rule.cast("accumulator"))
    total = state.get("total", start) + gradient**2
    state["total"] = total
    rate = rate / (1 + (step - 1) * rule.number("learning_rate_decay"))
    return weight - rate * gradient / _root(rule, total)


def _adadelta(
    rule: OptimizerRule,
    weight: Floats,
    gradient: Floats,
    state: State,
    rate: float,
    _: int,
) -> Floats:
    """The same in both frameworks. Source: Zeiler 2012 (arXiv:1212.5701)."""
    rho, epsilon = rule.number("rho"), rule.number("epsilon")
    zeros = np.zeros_like(gradient)
    square = rho * state.get("square", zeros) + (1 - rho) * gradient**2
    before = state.get("moves", zeros)
    move = np.sqrt(before + epsilon) / np.sqrt(square + epsilon) * gradient
    state["square"], state["moves"] = square, rho * before + (1 - rho) * move**2
    return weight - rate * move


RULES: dict[str, Callable[..., Floats]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adadelta": _adadelta,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "adamax": _adamax,
    "nadam": _nadam,
}
