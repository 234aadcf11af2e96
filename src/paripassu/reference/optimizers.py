"""Every optimizer's rule by hand, in float64: PyTorch's, Keras's and recipes'.

A rule has settings, which are numbers, and forms, which say where a number goes: both
frameworks have an Adam with an epsilon, and do not add it at the same place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core.recipe import Decay, Nadam, Optimizer, Recipe
from paripassu.core.steps import accuracies

Floats = npt.NDArray[np.float64]
Path = list[dict[str, Floats]]
State = dict[str, Floats]

# What passes through float32 on the way: nothing; what Keras 3.15 casts; of that the
# weight decay only, in subclasses; the product of momentums in PyTorch's NAdam.
CONSTANTS = ("exact", "float32", "float32 decay", "float32 product")
# A key that does nothing unless the other is set
GATES = {
    "decay_form": "weight_decay",
    "momentum_form": "momentum",
    "nesterov": "momentum",
    "dampening": "momentum",
    "amsgrad_form": "amsgrad",
}


@dataclass(frozen=True)
class OptimizerRule:
    """What an optimizer does to a parameter.

    Attributes:
        family: a key of `FAMILIES`, or "other": there is no rule here.
        settings: numbers, by the names that `FAMILIES` read: learning_rate (a number
            or a list of one for each step), weight_decay, clip_norm, clip_global_norm,
            clip_value, maximize, and of each family its own.
        forms: decay_form "l2" or "decoupled"; momentum_form "rate_outside" or
            "rate_inside"; epsilon_form "outside", "hat", "inside" or "maximum";
            amsgrad_form "raw" or "corrected";
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
        """A setting or a form; of what is not set, what that is the same as."""
        neutral = "" if key.endswith("_form") else 0.0
        value = self.settings.get(key, self.forms.get(key))
        return neutral if value is None else value

    def taking(self, keys: Iterable[str], other: OptimizerRule) -> OptimizerRule:
        """The same rule with some settings and forms of another."""
        chosen = set(keys)

        def merged(own: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
            kept = {key: x for key, x in own.items() if key not in chosen}
            return kept | {key: x for key, x in others.items() if key in chosen}

        return replace(
            self,
            settings=merged(self.settings, other.settings),
            forms=merged(self.forms, other.forms),
        )

    def rounded(self, constants: str) -> OptimizerRule:
        """The same rule with one of `CONSTANTS`."""
        return replace(self, forms={**self.forms, "constants": constants})

    def learning_rate(self, step: int) -> float:
        """Of a step counted from 1; the last of a list goes on."""
        rate = self.settings["learning_rate"]
        if isinstance(rate, Sequence):
            return float(rate[min(step, len(rate)) - 1])
        return float(rate)

    def cast(self, key: str) -> float:
        """A constant as Keras 3.15 casts it: a Python float becomes float32 first."""
        constants, value = self.forms.get("constants"), self.number(key)
        if constants == "float32" or (
            constants == "float32 decay" and key == "weight_decay"
        ):
            return float(np.float32(value))
        return value

    def number(self, key: str) -> float:
        """A constant as it is written; 0 where there is none."""
        return float(self.settings.get(key) or 0.0)


def rule_of(chosen: Optimizer, clip_global_norm: float = 0.0) -> OptimizerRule:
    """The rule of a recipe's optimizer, and the bound of its gradients' norm."""
    fields = chosen.model_dump(exclude={"kind"})
    forms = {
        key.removeprefix("weight_"): fields.pop(key)
        for key in list(fields)
        if key.endswith("_form")
    }
    if clip_global_norm:
        fields["clip_global_norm"] = clip_global_norm
    return OptimizerRule(chosen.kind, fields, forms)


def average(
    states: Mapping[str, State], weights: Mapping[str, Floats], share: float
) -> dict[str, State]:
    """Take the weights after a step into their running mean, the state "average".

    average = share * average + (1 - share) * weight, and the weight itself at first,
    as PyTorch's `AveragedModel` and Keras's `use_ema` have it.

    Args:
        states: of the step before, by the names of the weights; some have no mean yet.
        weights: after the step.
        share: that it keeps.

    Returns:
        The means alone, as states.
    """
    found: dict[str, State] = {}
    for name, weight in weights.items():
        before = states[name].get("average", weight)
        found[name] = {"average": share * before + (1 - share) * weight}
    return found


def step_once(
    rule: OptimizerRule,
    weights: Mapping[str, Floats],
    gradients: Mapping[str, npt.NDArray[Any]],
    states: Mapping[str, State],
    *,
    rate: float,
    step: int,
) -> tuple[dict[str, Floats], dict[str, State]]:
    """Take one step: clip the gradients, let weights decay, move them.

    Args:
        rule: of a family in `FAMILIES`.
        weights: by name, of any shape.
        gradients: of the same names and shapes.
        states: by the names of the weights; all empty before the first step.
        rate: the learning rate of this step.
        step: counted from 1.

    Returns:
        The new weights and states; nothing is changed in place.

    Raises:
        ValueError: there is no rule of that family.
    """
    if rule.family not in FAMILIES:
        raise ValueError(f"no rule of the family {rule.family!r}")
    moved, kept = {}, {}
    clipped = clip(rule, gradients)
    for name, weight in weights.items():
        decayed, gradient = decay(rule, weight, clipped[name], rate)
        move, kept[name] = FAMILIES[rule.family](
            rule, gradient, states[name], rate, step
        )
        moved[name] = decayed - move
    return moved, kept


def step_all(
    rule: OptimizerRule,
    parameters: Mapping[str, npt.NDArray[Any]],
    gradients: Sequence[Mapping[str, npt.NDArray[Any]]],
) -> Path:
    """Follow a rule through all the gradients.

    Args:
        rule: of a family in `FAMILIES`.
        parameters: by name, of any shape.
        gradients: of each step, those of every parameter.

    Returns:
        The parameters after each step, float64.

    Raises:
        ValueError: there is no rule of that family.
    """
    weights = {name: np.asarray(x, np.float64) for name, x in parameters.items()}
    states: dict[str, State] = {name: {} for name in weights}
    path: Path = []
    for step, given in enumerate(gradients, start=1):
        rate = rule.learning_rate(step)
        # 0 / 0 without an epsilon is the user's own, and is compared as NaN.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            weights, states = step_once(
                rule, weights, given, states, rate=rate, step=step
            )
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
    if bound := rule.number("clip_norm"):
        norms = {name: float(np.sqrt(np.sum(x**2))) + more for name, x in found.items()}
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
    """Draw a weight to zero, before the optimizer's step.

    l2:        gradient = gradient + weight_decay * weight
    decoupled: weight   = weight - rate * weight_decay * weight

    The first is the gradient of weight_decay / 2 * weight**2, added to the loss: it
    goes through momentum and running means. The second goes past them. Source:
    Loshchilov and Hutter 2019 (arXiv:1711.05101), with the learning rate as a factor,
    as PyTorch's `AdamW` and Keras's `weight_decay` have it.

    Returns:
        The weight and the gradient that the step starts from.
    """
    if not rule.number("weight_decay"):
        return weight, gradient
    if rule.forms.get("decay_form") == "l2":
        return weight, gradient + rule.number("weight_decay") * weight
    return weight - rate * rule.cast("weight_decay") * weight, gradient


# A family takes the rule, the gradient, the state of the step before (empty before the
# first), the learning rate and the number of the step, from 1. It returns what is taken
# from the weight, and the new state. All running means begin at 0.

Move = tuple[Floats, State]


def sgd(
    rule: OptimizerRule, gradient: Floats, state: State, rate: float, _step: int
) -> Move:
    """Go down the slope, with some of the speed of the steps before.

    Without momentum: weight = weight - rate * gradient. With it, as

    rate_outside: velocity = momentum * velocity + gradient
                  weight   = weight - rate * velocity
    rate_inside:  velocity = momentum * velocity - rate * gradient
                  weight   = weight + velocity

    At a constant rate both are the same, the second velocity being -rate times the
    first. When the rate falls, it slows the whole velocity in the first form, in the
    second only what is added. With nesterov, the weight moves by gradient + momentum *
    velocity, in the second form momentum * velocity - rate * gradient. Every gradient
    but the first is multiplied by 1 - dampening. Sources: rate_outside and dampening
    are PyTorch's `SGD`; rate_inside is Keras's, and that of Sutskever et al. 2013.
    """
    momentum, nesterov = rule.cast("momentum"), bool(rule.settings.get("nesterov"))
    if momentum == 0:
        return rate * gradient, {}
    part = 1 - rule.number("dampening") if "velocity" in state else 1.0
    velocity = momentum * state.get("velocity", np.zeros_like(gradient))
    if rule.forms.get("momentum_form") == "rate_inside":
        velocity = velocity - rate * part * gradient
        ahead = momentum * velocity - rate * gradient if nesterov else velocity
        return -ahead, {"velocity": velocity}
    velocity = velocity + part * gradient
    ahead = gradient + momentum * velocity if nesterov else velocity
    return rate * ahead, {"velocity": velocity}


def _mean(state: State, name: str, share: float, value: Floats) -> Floats:
    """A running mean that keeps `share` of what it was."""
    return share * state.get(name, np.zeros_like(value)) + (1 - share) * value


def adam(
    rule: OptimizerRule, gradient: Floats, state: State, rate: float, step: int
) -> Move:
    """Go down by the mean gradient, measured by the root of its mean square.

    mean_gradient   = beta1 * mean_gradient + (1 - beta1) * gradient
    square_gradient = beta2 * square_gradient + (1 - beta2) * gradient**2

    The first means are too small: by the factors c1 = 1 - beta1**step and
    c2 = 1 - beta2**step. With these, as

    outside: weight = weight - rate * (mean_gradient / c1)
                      / (sqrt(square_gradient / c2) + epsilon)
    hat:     weight = weight - rate * sqrt(c2) / c1 * mean_gradient
                      / (sqrt(square_gradient) + epsilon)

    The second is the first with epsilon / sqrt(c2) for epsilon: 32 times as much at the
    first step with beta2 = 0.999, the same in the end. epsilon_root is added under the
    root. With amsgrad, the largest square_gradient so far is in its place; in the form
    "corrected", the largest square_gradient / c2. Sources: Kingma and Ba 2015
    (arXiv:1412.6980): outside is algorithm 1, PyTorch's `Adam` and optax's, whose
    `eps_root` is the other; hat is the remark at the end of section 2, and Keras's.
    Amsgrad: Reddi et al. 2018, who correct nothing; the maximum is taken before the
    correction in PyTorch and Keras, after it in optax.
    """
    mean = _mean(state, "mean_gradient", rule.number("beta1"), gradient)
    square = _mean(state, "square_gradient", rule.number("beta2"), gradient**2)
    kept = {"mean_gradient": mean, "square_gradient": square}
    c1, c2 = 1 - rule.cast("beta1") ** step, 1 - rule.cast("beta2") ** step
    if rule.settings.get("amsgrad"):
        part = c2 if rule.forms.get("amsgrad_form") == "corrected" else 1.0
        before = state.get("largest_square", np.zeros_like(square))
        kept["largest_square"] = np.maximum(before, square / part)
        square = kept["largest_square"] * part
    epsilon, root = rule.number("epsilon"), rule.number("epsilon_root")
    if rule.forms.get("epsilon_form") == "hat":
        size = np.sqrt(square + root) + epsilon
        return rate * (np.sqrt(c2) / c1 * mean / size), kept
    return rate * ((mean / c1) / (np.sqrt(square / c2 + root) + epsilon)), kept


def nadam(
    rule: OptimizerRule, gradient: Floats, state: State, rate: float, step: int
) -> Move:
    """Adam with Nesterov's momentum: beta1 * (1 - 0.96 ** (step * decay) / 2).

    Sources: Dozat 2016; PyTorch's `NAdam`, and Keras's `Nadam`, which has the decay 1.
    """
    mean = _mean(state, "mean_gradient", rule.cast("beta1"), gradient)
    square = _mean(state, "square_gradient", rule.cast("beta2"), gradient**2)
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
    c2 = 1 - rule.cast("beta2") ** step
    ahead = after * mean / (1 - product * after) + (1 - now) * gradient / (1 - product)
    return rate * ahead / (np.sqrt(square / c2) + rule.number("epsilon")), {
        "mean_gradient": mean,
        "square_gradient": square,
        "product": np.array(product),
    }


PRODUCT = "product"  # a state of Nadam's


def product_of_momentums(chosen: Nadam, step: int) -> float:
    """The product of Nadam's momentums of the first steps, exactly."""
    return math.prod(
        chosen.beta1 * (1 - 0.5 * 0.96 ** (number * chosen.momentum_decay))
        for number in range(1, step + 1)
    )


def adamax(
    rule: OptimizerRule, gradient: Floats, state: State, rate: float, step: int
) -> Move:
    """Adam with the largest gradient, fading, for the root of the mean square.

    Epsilon "outside" is added to that norm (Keras), "maximum" within it (PyTorch).
    Source: Kingma and Ba 2015, section 7.1, who have none.
    """
    within = rule.forms.get("epsilon_form") == "maximum"
    epsilon, beta2 = rule.number("epsilon"), rule.number("beta2")
    mean = _mean(state, "mean_gradient", rule.number("beta1"), gradient)
    size = np.abs(gradient) + epsilon if within else np.abs(gradient)
    norm = np.maximum(beta2 * state.get("norm", np.zeros_like(gradient)), size)
    c1 = 1 - rule.cast("beta1") ** step
    return rate / c1 * mean / (norm if within else norm + epsilon), {
        "mean_gradient": mean,
        "norm": norm,
    }


def _root(rule: OptimizerRule, square: Floats) -> Floats:
    """With epsilon under it ("inside") or added to it."""
    epsilon = rule.number("epsilon")
    if rule.forms.get("epsilon_form") == "inside":
        return np.sqrt(square + epsilon)
    return np.sqrt(square) + epsilon


def rmsprop(
    rule: OptimizerRule, gradient: Floats, state: State, rate: float, _step: int
) -> Move:
    """Go down the slope, measured by the root of its mean square.

    square_gradient = rho * square_gradient + (1 - rho) * gradient**2

    outside: weight = weight - rate * gradient / (sqrt(square_gradient) + epsilon)
    inside:  weight = weight - rate * gradient / sqrt(square_gradient + epsilon)

    Where gradients are small, the same epsilon counts for more inside: sqrt(1e-7) is
    3e-4. Centered, the square of the mean gradient is taken off the mean square (Graves
    2013, arXiv:1308.0850). Source: Tieleman and Hinton 2012 (lecture 6.5 of "Neural
    networks for machine learning"), who have no epsilon; outside is PyTorch's
    `RMSprop`, inside Keras's and optax's, and so the forms of momentum; nesterov is
    optax's.
    """
    rho, momentum = rule.number("rho"), rule.number("momentum")
    square = _mean(state, "square_gradient", rho, gradient**2)
    kept = {"square_gradient": square}
    if rule.settings.get("centered"):
        kept["mean_gradient"] = _mean(state, "mean_gradient", rho, gradient)
        square = square - kept["mean_gradient"] ** 2
    root = _root(rule, square)
    if momentum == 0:
        return rate * gradient / root, kept
    inside = rule.forms.get("momentum_form") == "rate_inside"
    part = (rate * gradient if inside else gradient) / root
    velocity = momentum * state.get("velocity", np.zeros_like(gradient)) + part
    ahead = part + momentum * velocity if rule.settings.get("nesterov") else velocity
    return ahead if inside else rate * ahead, {**kept, "velocity": velocity}


def adagrad(
    rule: OptimizerRule, gradient: Floats, state: State, rate: float, step: int
) -> Move:
    """Go down the slope, measured by the root of the sum of all its squares.

    Epsilon "outside" the root is PyTorch's, "inside" Keras's. Source: Duchi et al.
    2011; PyTorch's `lr_decay` makes the rate smaller by itself.
    """
    start = np.full_like(gradient, rule.cast("accumulator"))
    total = state.get("sum_of_squares", start) + gradient**2
    rate = rate / (1 + (step - 1) * rule.number("learning_rate_decay"))
    return rate * gradient / _root(rule, total), {"sum_of_squares": total}


def adadelta(
    rule: OptimizerRule, gradient: Floats, state: State, rate: float, _step: int
) -> Move:
    """Go down by a step whose size each weight finds from its own history.

    square_gradient = rho * square_gradient + (1 - rho) * gradient**2
    update          = sqrt(square_update + epsilon)
                      / sqrt(square_gradient + epsilon) * gradient
    square_update   = rho * square_update + (1 - rho) * update**2
    weight          = weight - rate * update

    The update uses the new mean of gradients and the old one of updates. Source: Zeiler
    2012 (arXiv:1212.5701), algorithm 1; the rate is an addition of the frameworks.
    """
    rho, epsilon = rule.number("rho"), rule.number("epsilon")
    square = _mean(state, "square_gradient", rho, gradient**2)
    before = state.get("square_update", np.zeros_like(gradient))
    update = np.sqrt(before + epsilon) / np.sqrt(square + epsilon) * gradient
    return rate * update, {
        "square_gradient": square,
        "square_update": _mean(state, "square_update", rho, update**2),
    }


FAMILIES: dict[str, Callable[[OptimizerRule, Floats, State, float, int], Move]] = {
    "sgd": sgd,
    "adam": adam,
    "adadelta": adadelta,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adamax": adamax,
    "nadam": nadam,
}


def learning_rate(recipe: Recipe, *, epoch: int, step: int) -> float:
    """The learning rate of one training step, as `core.recipe.Decay` says.

    Epochs or steps are counted. On a plateau, the accuracies are invented ones.

    Args:
        recipe: its optimizer's rate and its decay.
        epoch: how many epochs are finished.
        step: how many steps are finished, over all epochs.
    """
    decay = recipe.decay
    if decay.shape == "plateau":
        share = share_on_plateau(decay, accuracies(epoch, decay.patience))
        return recipe.optimizer.learning_rate * share
    finished = epoch if decay.unit == "epoch" else step
    return recipe.optimizer.learning_rate * share_of_rate(decay, finished)


def share_on_plateau(decay: Decay, seen: Iterable[float]) -> float:
    """What multiplies the learning rate after epochs with these accuracies."""
    share, best, waited = 1.0, -math.inf, 0
    for accuracy in seen:
        waited += 1
        if accuracy > best:
            best, waited = accuracy, 0
        elif waited == decay.patience:
            share, waited = max(share * decay.factor, decay.final), 0
    return share


def share_of_rate(decay: Decay, finished: float) -> float:
    """What multiplies the learning rate after so many finished units."""
    if decay.shape == "exponential":
        return float(decay.factor ** (finished / decay.interval))
    if finished < decay.warm_up:
        if decay.shape == "one_cycle":
            rise = 1 - math.cos(math.pi * finished / decay.warm_up)
            return decay.start + (1 - decay.start) * rise / 2
        return (finished + 1) / decay.warm_up
    left = max(0.0, decay.interval - finished) / (decay.interval - decay.warm_up)
    if decay.shape == "linear":
        return left
    fall = 1 - math.cos(math.pi * left)  # the same as 1 + cos(pi (1 - left))
    return decay.final + (1 - decay.final) * fall / 2
