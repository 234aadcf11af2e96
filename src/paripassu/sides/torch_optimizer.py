"""Opens any PyTorch optimizer: its rule, and the steps that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from paripassu.core.errors import UserError
from paripassu.core.layer_spec import Array
from paripassu.reference.optimizers import OptimizerRule
from paripassu.sides import user_code
from paripassu.sides.contract import RULE_CHANGES
from paripassu.sides.tables import find_base, read_settings

Scheduler = torch.optim.lr_scheduler.LRScheduler
EXAMPLE = "def make(parameters): return torch.optim.Adam(parameters, lr=1e-3)"


def _maker(found: Any, source: str) -> Callable[[list[Any]], tuple[Any, Any]]:
    """A function that makes a user's optimizer and its schedule, or None.

    Raises:
        UserError: none can be made; from the function: it raises, or returns
            something else.
    """
    if isinstance(found, torch.optim.Optimizer):
        raise UserError(
            f"{source} is a {type(found).__name__}, which is bound to its "
            "parameters. A function of parameters, or a class of optimizers, "
            f"is expected: {EXAMPLE}."
        )
    if not callable(found):
        raise UserError(
            f"{source} is an object of type {type(found).__name__}. A function "
            "of parameters, or a class of optimizers, is expected: "
            f"{EXAMPLE}."
        )

    return lambda parameters: _split(
        user_code.run(lambda: found(parameters), source), source
    )


def examine(
    found: Any,
    source: str,
    parameters: Mapping[str, Array],
    gradients: Sequence[Mapping[str, Array]],
    horizon: int = 0,
) -> tuple[OptimizerRule, list[dict[str, Array]]]:
    """See `paripassu.sides.contract.OptimizerModule`."""
    make = _maker(found, source)
    steps = max(horizon, len(gradients))
    rule = _describe(*make(_tensors(parameters)), steps)
    return rule, _follow(make, parameters, gradients)


def _describe(optimizer: Any, scheduler: Any, steps: int) -> OptimizerRule:
    """What an optimizer that is not stepped yet is made of; its schedule is used up."""
    name = _name(type(optimizer))
    groups = optimizer.param_groups
    constants = [
        {key: x for key, x in group.items() if key in CONSTANTS} for group in groups
    ]
    family, settings, forms = _rule(optimizer, constants[0])
    because = "" if family != "other" else f"{name} is not known here"
    differing = sorted(
        key
        for key in constants[0]
        if any(other.get(key) != constants[0][key] for other in constants[1:])
    )
    if family != "other" and differing:
        because = f"its groups of parameters differ in {', '.join(differing)}"
    clipping = _clipping(optimizer)
    if clipping is None and not because:
        because = "a hook changes the gradients before its step"
    if "lr" in groups[0]:
        settings["learning_rate"] = _rates(optimizer, scheduler, steps)
    elif family != "other":
        because = "it has no learning rate"
    for key, x in (clipping or {}).items():
        (forms if key.endswith("_form") else settings)[key] = x
    family = "other" if because else family
    return OptimizerRule(family, settings, forms, name, because)


def _follow(
    make: Callable[[list[Any]], tuple[Any, Any]],
    parameters: Mapping[str, Array],
    gradients: Sequence[Mapping[str, Array]],
) -> list[dict[str, Array]]:
    """The parameters after each step; a scheduler is stepped after the optimizer."""
    tensors = _tensors(parameters)
    optimizer, scheduler = make(tensors)
    path = []
    for given in gradients:
        for name, tensor in zip(parameters, tensors, strict=True):
            tensor.grad = torch.from_numpy(np.array(given[name], np.float64))
        user_code.run(optimizer.step, f"{_name(type(optimizer))}.step()")
        if scheduler is not None:
            user_code.run(scheduler.step, f"{type(scheduler).__name__}.step()")
        values = [np.array(x.detach().numpy()) for x in tensors]
        path.append(dict(zip(parameters, values, strict=True)))
    return path


def _tensors(parameters: Mapping[str, Array]) -> list[Any]:
    return [
        nn.Parameter(torch.from_numpy(np.array(x, np.float64)))
        for x in parameters.values()
    ]


def _split(made: Any, source: str) -> tuple[Any, Any]:
    """The optimizer and its schedule or None.

    Raises:
        UserError: it is something else.
    """
    pair = made if isinstance(made, tuple) else (made, None)
    if len(pair) == 2 and isinstance(pair[0], torch.optim.Optimizer):
        optimizer, scheduler = pair
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise UserError(
                f"{source} returns a ReduceLROnPlateau, whose rates follow the "
                "loss, and there is none here. One of steps is expected; "
                "to check the optimizer by itself, return it alone."
            )
        if scheduler is None or isinstance(scheduler, Scheduler):
            return optimizer, scheduler
    what = type(made).__name__
    if isinstance(made, tuple):
        what = f"({', '.join(type(x).__name__ for x in made)})"
    raise UserError(
        f"{source} returns {what}. A torch.optim.Optimizer, or (Optimizer, "
        f"LRScheduler), is expected: {EXAMPLE}."
    )


def _name(cls: type) -> str:
    if cls.__module__.startswith("torch.optim"):
        return f"torch.optim.{cls.__name__}"
    return f"{cls.__module__}.{cls.__name__}"


CONSTANTS = (
    "lr",
    "momentum",
    "nesterov",
    "dampening",
    "weight_decay",
    "betas",
    "eps",
    "amsgrad",
    "alpha",
    "rho",
    "centered",
    "initial_accumulator_value",
    "lr_decay",
    "momentum_decay",
    "maximize",
    "decoupled_weight_decay",
)


ADAM_FORMS = {"epsilon_form": "outside", "amsgrad_form": "raw"}
# Of each class: the family, the group's key of each setting, and forms.
OPTIMIZERS: dict[type, tuple[str, dict[str, str], dict[str, str]]] = {
    torch.optim.SGD: (
        "sgd",
        {"momentum": "momentum", "nesterov": "nesterov", "dampening": "dampening"},
        {"momentum_form": "rate_outside"},
    ),
    torch.optim.Adam: ("adam", {"amsgrad": "amsgrad"}, ADAM_FORMS),
    torch.optim.AdamW: ("adam", {"amsgrad": "amsgrad"}, ADAM_FORMS),
    torch.optim.NAdam: ("nadam", {"momentum_decay": "momentum_decay"}, {}),
    torch.optim.Adamax: ("adamax", {}, {"epsilon_form": "maximum"}),
    torch.optim.RMSprop: (
        "rmsprop",
        {"rho": "alpha", "momentum": "momentum", "centered": "centered"},
        {"momentum_form": "rate_outside", "epsilon_form": "outside"},
    ),
    torch.optim.Adagrad: (
        "adagrad",
        {
            "accumulator": "initial_accumulator_value",
            "learning_rate_decay": "lr_decay",
        },
        {"epsilon_form": "outside"},
    ),
    torch.optim.Adadelta: ("adadelta", {"rho": "rho"}, {}),
}


def _rule(
    optimizer: Any, found: Mapping[str, Any]
) -> tuple[str, dict[str, Any], dict[str, str]]:
    """The family, settings and forms of a class that is known."""
    known, changed = find_base(type(optimizer), OPTIMIZERS, ("step",), RULE_CHANGES)
    if known is None or changed:
        return "other", {}, {}
    family, keys, forms = known
    decoupled = found.get("decoupled_weight_decay")
    forms = {"decay_form": "decoupled" if decoupled else "l2", **forms}
    settings: dict[str, Any] = {
        "weight_decay": float(found.get("weight_decay") or 0),
        "maximize": bool(found.get("maximize")),
    }
    if "betas" in found:
        settings |= {f"beta{i + 1}": float(x) for i, x in enumerate(found["betas"])}
    if "eps" in found:
        settings["epsilon"] = float(found["eps"])
    settings |= read_settings(found, keys)
    for key, value in getattr(optimizer, RULE_CHANGES, {}).items():
        (forms if key.endswith("_form") else settings)[key] = value
    return family, settings, forms


def _rates(optimizer: Any, scheduler: Any, steps: int) -> float | list[float]:
    """The rate of each step; one number where none changes it."""
    group = optimizer.param_groups[0]
    if scheduler is None:
        return float(group["lr"])
    for parameter in (x for y in optimizer.param_groups for x in y["params"]):
        parameter.grad = torch.zeros_like(parameter)
    rates = []
    for _ in range(steps):
        rates.append(float(group["lr"]))
        # Schedules warn if they are stepped before it.
        user_code.run(optimizer.step, f"{type(optimizer).__name__}.step()")
        user_code.run(scheduler.step, f"{type(scheduler).__name__}.step()")
    return rates if len(set(rates)) > 1 else rates[0]


def _clipping(optimizer: Any) -> dict[str, Any] | None:
    """What hooks before the step do to gradients; None: it is not known."""
    hooks = list(getattr(optimizer, "_optimizer_step_pre_hooks", {}).values())
    parameters = [x for group in optimizer.param_groups for x in group["params"]]
    if not hooks or len(parameters) < 2:
        return {} if not hooks else None
    random = torch.Generator().manual_seed(20)
    drawn = [torch.randn(x.shape, generator=random, dtype=x.dtype) for x in parameters]
    given = [x * 1e6 for x in drawn]
    taken = _after(hooks, optimizer, parameters, given)
    if taken is None:
        return None
    if all(torch.equal(x, y) for x, y in zip(given, taken, strict=True)):
        return {}
    value = float(taken[0].abs().max())
    if all(
        torch.equal(y, x.clamp(-value, value))
        for x, y in zip(given, taken, strict=True)
    ):
        return {"clip_value": value}
    norms = [float(x.norm()) for x in taken]
    factors = [float(y.norm() / x.norm()) for x, y in zip(given, taken, strict=True)]
    if np.allclose(factors, factors[0], rtol=1e-9, atol=0):
        key, bound = "clip_global_norm", float(np.linalg.norm(norms))
        whole = float(np.linalg.norm([float(x.norm()) for x in drawn]))
        given = [x / whole * 2 * bound for x in drawn]
    elif np.allclose(norms, norms[0], rtol=1e-9, atol=0):
        key, bound = "clip_norm", norms[0]
        given = [x / x.norm() * 2 * bound for x in drawn]
    else:
        return None
    bound = float(f"{bound:.11g}")
    taken = _after(hooks, optimizer, parameters, given)
    if taken is None:
        return None
    half = float(taken[0].norm() / given[0].norm())
    if abs(half * 2 - 1) > 1e-3 + 1e-6 / bound:  # it does not clip
        return None
    more = abs(half * 2 - 1) > 1e-7 / bound
    return {key: bound, "clip_form": "plus 1e-6" if more else "plain"}


def _after(
    hooks: Sequence[Any], optimizer: Any, parameters: Sequence[Any], given: Any
) -> list[Any] | None:
    """The gradients that hooks make of those that are given."""
    for parameter, gradient in zip(parameters, given, strict=True):
        parameter.grad = gradient.clone()
    for hook in hooks:
        user_code.run(partial(hook, optimizer, (), {}), "a hook of its step")
    taken = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    return None if any(x is None for x in taken) else taken
