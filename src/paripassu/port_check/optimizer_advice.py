"""What to write on the right for its optimizer to do as the left's does."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from paripassu.reference.optimizers import OptimizerRule
from paripassu.sides.advice import KERAS, OPTAX, PYTORCH, Advice

FLOAT32 = 5e-7  # of a constant: it may have passed through float32


def advice(
    causes: Sequence[str], left: OptimizerRule, right: OptimizerRule
) -> tuple[str, ...]:
    """What to write on the right for it to do as the left does."""
    keras = right.name.startswith(("keras.", KERAS.subclasses))
    optax = right.name.startswith("optax.")
    found = []
    for key in causes:
        form = {"epsilon": "epsilon_form", "weight_decay": "decay_form"}.get(key)
        if form in causes:  # whose advice says both
            continue
        if key == "family":
            found.append(
                f"{right.name or 'the right'} is another method ({right.family}) than "
                f"{left.name or 'the left'} ({left.family}). Write one of that family."
            )
        elif key == "learning_rate":
            words = OPTAX if optax else KERAS if keras else PYTORCH
            found.append(_rate(left, right, words))
        elif key == "amsgrad_form":
            found.append(AMSGRAD.format(left=left.name, right=right.name))
        elif optax:
            found.append(_of_optax(key, left, right))
        elif key.endswith("_form"):
            found.append(_form(key, left, right, keras))
        else:
            found.append(_setting(key, left, right, keras))
    return tuple(found)


def _setting(key: str, left: OptimizerRule, right: OptimizerRule, keras: bool) -> str:
    value = left.get(key)
    name = right.name or "the right"
    if key.startswith("clip_") and not keras:
        if not value:
            return f"Take the clipping by {key.removeprefix('clip_')} out of {name}."
        return (
            f"Before each step of {name}, with c = {shown(value)}: {PYTORCH.clips[key]}"
        )
    if key in KERAS.settings and key.startswith("clip_") and not value:
        return f"{name}({KERAS.settings[key]}=None): the left does not clip so."
    words = KERAS if keras else PYTORCH
    if key in words.missing:
        return f"{words.title} has no {words.missing[key]}."
    if key == "nesterov" and right.family == "rmsprop":
        return f"{name} has no Nesterov momentum: optax's rmsprop has."
    if keras and key == "amsgrad" and not right.name.endswith(("Adam", "AdamW")):
        return f"{name} has no amsgrad: keras.optimizers.Adam has."
    if not keras and key in ("beta1", "beta2"):
        betas = shown(left.get("beta1")), shown(left.get("beta2"))
        return f"{name}(betas=({', '.join(betas)}))"
    spelled = words.settings.get(key, key)
    if key == "rho" and not keras and right.family == "rmsprop":
        spelled = "alpha"
    if key == "weight_decay" and keras and not value:
        return f"{name}(weight_decay=None)"
    if key == "weight_decay" and left.forms.get("decay_form") == "l2" and keras:
        return f"{name}: the left's weight decay is {shown(value)}, in the gradient."
    text = repr(value) if isinstance(value, bool) else shown(value)
    return f"{name}({spelled}={text})"


def _of_optax(key: str, left: OptimizerRule, right: OptimizerRule) -> str:
    """What to write for an optimizer of optax, which is a chain."""
    value, name, epsilon = left.get(key), right.name, shown(left.get("epsilon"))
    if key in OPTAX.missing:
        return f"optax has no {OPTAX.missing[key]}."
    if key in OPTAX.clips:
        clip = OPTAX.clips[key]
        if not value:
            return f"Take {clip.partition('(')[0]} out of the chain."
        return f"optax.chain({clip.format(shown(value))}, ...): before all else."
    if key in ("weight_decay", "decay_form"):
        link = f"optax.add_decayed_weights({shown(left.number('weight_decay'))})"
        if left.forms.get("decay_form") == "l2":
            return f"optax.chain({link}, ...): before the rule it is in the gradient."
        return (
            f"Put {link} between the rule and optax.scale_by_learning_rate, as "
            "optax.adamw does: there it goes past the gradient."
        )
    if key == "momentum_form":
        place = "behind" if value == "rate_inside" else "before"
        link = f"optax.trace({shown(left.get('momentum'))})"
        return f"Put {link} {place} optax.scale_by_learning_rate in a chain."
    if key == "amsgrad":
        other = "optax.amsgrad" if value else "optax.adam"
        return f"{other}, not {name}: it is another function."
    if key == "epsilon_form":
        return _epsilon_of_optax(epsilon, left, right)
    spelled = OPTAX.settings.get(key, key)
    if key == "rho" and right.family == "rmsprop":
        spelled = "decay"
    text = repr(value) if isinstance(value, bool) else shown(value)
    return f"{name}({spelled}={text})"


def _epsilon_of_optax(epsilon: str, left: OptimizerRule, right: OptimizerRule) -> str:
    if right.family == "adam":
        if left.forms["epsilon_form"] == "outside":
            return f"optax.adam(eps={epsilon}), which corrects before it adds."
        return (
            f"{right.name}(eps={epsilon}) adds it after the correction of the mean "
            "square, the left before it, which no one number maps. Write "
            f"optax.chain({OPTAX.subclasses}.scale_by_adam_hat(b1, b2, {epsilon}), "
            "optax.scale_by_learning_rate(rate))."
        )
    if right.family == "rmsprop":
        inside = left.forms["epsilon_form"] == "inside"
        return f"{right.name}(eps={epsilon}, eps_in_sqrt={inside})"
    return (
        f"{right.name} has its epsilon elsewhere, which no number maps. Write an "
        "epsilon of 1e-30 on both sides, or a transformation with the left's line."
    )


AMSGRAD = (
    "{left} and {right} do not both take the largest mean square before it is "
    "corrected: optax.amsgrad takes it afterwards, PyTorch and Keras before. No "
    "setting maps one to the other: write one of them by hand, or both without it."
)


def _rate(left: OptimizerRule, right: OptimizerRule, words: Advice) -> str:
    rate, other = left.settings["learning_rate"], right.settings["learning_rate"]
    name = words.settings.get("learning_rate", "learning_rate")
    if not isinstance(rate, Sequence):
        also = " and no schedule" if isinstance(other, Sequence) else ""
        return f"{right.name or 'the right'}({name}={shown(rate)}){also}"
    if not isinstance(other, Sequence):
        return (
            f"The left's rate changes: {shown(rate)}. Give the right a schedule of it."
        )
    drops = [i for i in range(1, len(rate)) if rate[i] != rate[i - 1]]
    ladder = len(drops) < len(rate) - 1
    smooth = all(x != y for x, y in itertools.pairwise(other))
    meet = all(i < len(other) and alike(rate[i], other[i]) for i in [0, *drops])
    if ladder and smooth and meet:
        if words.schedule:
            return (
                f"{words.schedule}(..., staircase=True): the left's rate stays for "
                f"{drops[0]} steps and then falls at once; {words.title} counts steps, "
                "and lets it fall with each."
            )
        return (
            f"Step the schedule once in {drops[0]} steps, not in each, with the whole "
            "factor."
        )
    at = next(
        i
        for i in range(max(len(rate), len(other)))
        if not alike(left.learning_rate(i + 1), right.learning_rate(i + 1))
    )
    one, two = left.learning_rate(at + 1), right.learning_rate(at + 1)
    return (
        f"The schedules part at step {at + 1}: {shown(one)} and {shown(two)}. "
        "PyTorch's move when scheduler.step() is called, Keras's and optax's with "
        "every step of the optimizer."
    )


def _form(key: str, left: OptimizerRule, right: OptimizerRule, keras: bool) -> str:
    here = right.name or "the right"
    epsilon = shown(left.get("epsilon"))
    module = (KERAS if keras else PYTORCH).subclasses
    if key == "momentum_form":
        inside = left.forms[key] == "rate_inside"
        subclass = {
            ("sgd", True): f"{module}.SGD(rate, momentum, rate_outside=True)",
            ("sgd", False): f"{module}.SGD(parameters, rate, momentum, weight_decay, "
            "rate_inside=True, decoupled=False)",
        }.get((right.family, keras), "a subclass with the other line")
        lines = ["v = m * v + g, w -= lr * v", "v = m * v + lr * g, w -= v"]
        return (
            f"{here} has {lines[not inside]}; the left has {lines[inside]}. They part "
            "when the rate changes; to map the state, multiply v by the new rate over "
            f"the old at each change. Write {subclass}."
        )
    if key == "decay_form":
        return _decay_form(left, right, keras, module)
    if right.family == "adam":
        l2 = left.forms.get("decay_form") == "l2"
        decay = ""
        if left.number("weight_decay"):
            name = "l2" if l2 else "weight_decay"
            decay = f", {name}={shown(left.number('weight_decay'))}"
        other = (
            f"{module}.Adam(..., epsilon={epsilon}, epsilon_outside=True{decay})"
            if keras
            else f"{module}.AdamHat(parameters, rate, betas, {epsilon}, "
            f"{shown(left.number('weight_decay'))}, decoupled={not l2})"
        )
        outside = left.forms[key] == "outside"
        mapping = (
            f"epsilon = {epsilon} * sqrt(1 - beta2**t) at step t"
            if outside
            else f"epsilon = {epsilon} / sqrt(1 - beta2**t) at step t"
        )
        place = "after the correction of the mean square" if outside else "before it"
        return (
            f"{here}(epsilon={epsilon}) is not the left's: the left adds it {place}, "
            f"{here} does not. The same steps need {mapping}, which no one number is. "
            f"Write {other}."
        )
    if right.family == "adamax":
        return (
            "PyTorch's Adamax takes max(beta2 * u, |g| + epsilon), Keras's divides by "
            "max(beta2 * u, |g|) + epsilon; no number maps one to the other. Write "
            "epsilon=1e-30 on both sides, where it does nothing but keep 0 / 0 away, "
            "or a subclass."
        )
    inside = left.forms[key] == "inside"
    lines = ["sqrt(v) + epsilon", "sqrt(v + epsilon)"]
    subclass = "a subclass with the left's line"
    if right.family == "rmsprop":
        name = "RMSpropOutside(..., epsilon=" if keras else "RMSpropInside(..., eps="
        subclass = f"{module}.{name}{epsilon})"
    return (
        f"{here} divides by {lines[not inside]}, the left by {lines[inside]} with "
        f"epsilon={epsilon}. At "
        "v = 0 they agree where the one inside is the square of the one outside; "
        f"elsewhere no number maps one to the other. Write {subclass}."
    )


def _decay_form(
    left: OptimizerRule, right: OptimizerRule, keras: bool, module: str
) -> str:
    here, decay = right.name or "the right", left.number("weight_decay")
    if left.forms["decay_form"] == "l2":
        if keras:
            return (
                f"Keras's weight_decay goes past the gradient, the left's "
                f"{shown(decay)} into it. Write weight_decay=None and "
                f"kernel_regularizer=keras.regularizers.L2({shown(decay / 2)}), half "
                "of it, for each weight; or for SGD and Adam "
                f"{module}.SGD or .Adam with l2={shown(decay)}."
            )
        return (
            f"{here} decays past the gradient, the left in it. Write "
            f"torch.optim.Adam(weight_decay={shown(decay)}), not AdamW."
        )
    ways = {
        "adam": f"torch.optim.AdamW(weight_decay={shown(decay)})",
        "nadam": f"torch.optim.NAdam(weight_decay={shown(decay)}, "
        "decoupled_weight_decay=True)",
        "sgd": f"{PYTORCH.subclasses}.SGD(parameters, rate, momentum, "
        f"{shown(decay)}, rate_inside=False, decoupled=True)",
    }
    way = ways.get(
        right.family,
        f"weight_decay=0, and before each step p.mul_(1 - rate * {shown(decay)})",
    )
    return (
        f"{here} has weight decay in the gradient, the left's {shown(decay)} goes past "
        f"it. Write {way}."
    )


def alike(left: Any, right: Any) -> bool:
    """Whether two values are the same, or are numbers that agree to float32."""
    if isinstance(left, str) or isinstance(right, str):
        return bool(left == right)
    left, right = (np.atleast_1d(np.asarray(x, np.float64)) for x in (left, right))
    if len(left) > 1 and len(right) > 1 and len(left) != len(right):
        return False
    size = np.maximum(np.abs(left), np.abs(right))
    return bool(np.all(np.abs(left - right) <= FLOAT32 * size))


def shown(value: Any) -> str:
    """A value for a reader; a schedule by its first and last rates."""
    if isinstance(value, str):
        return value or "none"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, Sequence):
        first = ", ".join(f"{x:.6g}" for x in value[:4])
        return f"{first}, ... {value[-1]:.6g}" if len(value) > 4 else first
    text = f"{value:.10g}"
    return text if set(text) & set(".ein") else f"{text}.0"
