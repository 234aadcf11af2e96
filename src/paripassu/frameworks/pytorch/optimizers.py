"""The optimizers beside the lesson's: PyTorch's own where the form is right.

PyTorch's `SGD` multiplies the velocity by the rate; its `Adam` adds epsilon
after the mean square is corrected, its `RMSprop` outside the square root; all
but `AdamW` have weight decay in the gradient. The other forms, Keras's, are
subclasses here: they keep the same state under the same names, and take another
step with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from paripassu.core import recipe

Parameters = Iterable[nn.Parameter]


def make(
    parameters: Parameters,
    chosen: recipe.SGD | recipe.Adam | recipe.RMSprop | recipe.Nadam,
) -> torch.optim.Optimizer:
    """The optimizer that a recipe has chosen, in its form."""
    rate = chosen.learning_rate
    if isinstance(chosen, recipe.Nadam):
        return Nadam(
            parameters,
            rate,
            (chosen.beta1, chosen.beta2),
            chosen.epsilon,
            momentum_decay=chosen.momentum_decay,
        )
    if isinstance(chosen, recipe.RMSprop):
        inside = chosen.epsilon_form == "inside"
        rmsprop = RMSpropInside if inside else torch.optim.RMSprop
        return rmsprop(parameters, rate, alpha=chosen.rho, eps=chosen.epsilon)
    decay = chosen.weight_decay
    decoupled = decay > 0 and chosen.weight_decay_form == "decoupled"
    if isinstance(chosen, recipe.Adam):
        betas, epsilon = (chosen.beta1, chosen.beta2), chosen.epsilon
        constants = parameters, rate, betas, epsilon, decay
        if chosen.epsilon_form == "hat":
            return AdamHat(*constants, decoupled=decoupled)
        if chosen.epsilon_root:
            root = chosen.epsilon_root
            return AdamRoot(*constants, decoupled=decoupled, epsilon_root=root)
        adam = torch.optim.AdamW if decoupled else torch.optim.Adam
        return adam(*constants)
    inside = chosen.momentum > 0 and chosen.momentum_form == "rate_inside"
    if inside or decoupled:
        return SGD(
            parameters,
            rate,
            chosen.momentum,
            decay,
            rate_inside=inside,
            decoupled=decoupled,
        )
    return torch.optim.SGD(
        parameters, rate, chosen.momentum, weight_decay=decay
    )


class SGD(torch.optim.SGD):
    """`torch.optim.SGD` with Keras's forms of momentum and of weight decay."""

    def __init__(
        self,
        parameters: Parameters,
        lr: float,
        momentum: float,
        weight_decay: float,
        *,
        rate_inside: bool,
        decoupled: bool,
    ) -> None:
        super().__init__(parameters, lr, momentum, weight_decay=weight_decay)
        self.rate_inside, self.decoupled = rate_inside, decoupled

    @property
    def rule_changes(self) -> dict[str, Any]:
        """How its rule differs from its base's; see `sides.contract`."""
        inside = "rate_inside" if self.rate_inside else "rate_outside"
        return {"momentum_form": inside, **_decay_form(self.decoupled)}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = _loss(closure)
        for group, parameter, gradient in _gradients(self, self.decoupled):
            rate, momentum = group["lr"], group["momentum"]
            if momentum == 0:
                parameter.sub_(gradient, alpha=rate)
                continue
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            velocity = state["momentum_buffer"].mul_(momentum)
            if self.rate_inside:
                parameter.add_(velocity.sub_(gradient, alpha=rate))
            else:
                parameter.sub_(velocity.add_(gradient), alpha=rate)
        return loss


class AdamHat(torch.optim.Adam):
    """`torch.optim.Adam` with Keras's epsilon, before the correction."""

    def __init__(
        self,
        parameters: Parameters,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        *,
        decoupled: bool,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay)
        self.decoupled = decoupled

    @property
    def rule_changes(self) -> dict[str, Any]:
        """How its rule differs from its base's; see `sides.contract`."""
        return {"epsilon_form": "hat", **_decay_form(self.decoupled)}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = _loss(closure)
        for group, parameter, gradient in _gradients(self, self.decoupled):
            beta1, beta2 = betas = group["betas"]
            state = self.state[parameter]
            step, mean, square = _moments(state, parameter, gradient, betas)
            c1, c2 = 1 - beta1**step, 1 - beta2**step
            root, factor = self._root(square, group["eps"], c2)
            rate = group["lr"] * factor / c1
            parameter.addcdiv_(mean, root, value=-rate)
        return loss

    def _root(
        self, square: Tensor, eps: float, c2: float
    ) -> tuple[Tensor, float]:
        """What the mean is divided by, and what it is multiplied by."""
        return square.sqrt().add_(eps), math.sqrt(c2)


class AdamRoot(AdamHat):
    """`torch.optim.Adam` with optax's second epsilon, under the root."""

    def __init__(
        self, *arguments: Any, epsilon_root: float, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.epsilon_root = epsilon_root

    @property
    def rule_changes(self) -> dict[str, Any]:
        """How its rule differs from its base's; see `sides.contract`."""
        return {
            "epsilon_root": self.epsilon_root,
            **_decay_form(self.decoupled),
        }

    def _root(
        self, square: Tensor, eps: float, c2: float
    ) -> tuple[Tensor, float]:
        return (square / c2).add_(self.epsilon_root).sqrt_().add_(eps), 1.0


class RMSpropInside(torch.optim.RMSprop):
    """`torch.optim.RMSprop` with Keras's epsilon, inside the square root."""

    rule_changes: ClassVar = {"epsilon_form": "inside"}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = _loss(closure)
        for group, parameter, gradient in _gradients(self):
            rho = group["alpha"]
            state = self.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0)  # the base class wants it
                state["square_avg"] = torch.zeros_like(parameter)
            state["step"] += 1
            square = state["square_avg"].mul_(rho)
            square.addcmul_(gradient, gradient, value=1 - rho)
            root = square.add(group["eps"]).sqrt_()
            parameter.addcdiv_(gradient, root, value=-group["lr"])
        return loss


class Nadam(torch.optim.NAdam):
    """`torch.optim.NAdam` with the product of its momentums exact.

    PyTorch keeps it in float32, whatever the weights are: in float64 the first
    step is some 1e-8 off. Here it is no state: it follows from the step.
    """

    rule_changes: ClassVar = {"constants": "exact"}
    known = 0, 1.0  # a step, and the product until there

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state; the base class would want the product in it."""
        torch.optim.Optimizer.__setstate__(self, state)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = _loss(closure)
        for group, parameter, gradient in _gradients(self):
            _, beta2 = betas = group["betas"]
            state = self.state[parameter]
            step, mean, square = _moments(state, parameter, gradient, betas)
            product = self._product(group, step)
            now, ahead = (_momentum(group, x) for x in (step, step + 1))
            root = (square / (1 - beta2**step)).sqrt_().add_(group["eps"])
            fresh = group["lr"] * (1 - now) / (1 - product)
            parameter.addcdiv_(gradient, root, value=-fresh)
            kept = group["lr"] * ahead / (1 - product * ahead)
            parameter.addcdiv_(mean, root, value=-kept)
        return loss

    def _product(self, group: dict[str, Any], step: int) -> float:
        """Of the momentums until a step."""
        known, product = self.known
        if known > step:
            known, product = 0, 1.0
        for number in range(known + 1, step + 1):
            product *= _momentum(group, number)
        self.known = step, product
        return product


def _momentum(group: dict[str, Any], step: int) -> float:
    """Nadam's of one step."""
    slower: float = 0.96 ** (step * group["momentum_decay"])
    return float(group["betas"][0]) * (1 - 0.5 * slower)


def clip_global_norm(optimizer: torch.optim.Optimizer, bound: float) -> None:
    """Bound the norm of all gradients together before each step.

    `clip_grad_norm_` adds 1e-6 to the norm; Keras and optax do not.
    """

    def clip(*_: object) -> None:
        gradients = [
            x.grad
            for group in optimizer.param_groups
            for x in group["params"]
            if x.grad is not None
        ]
        norm = torch.nn.utils.get_total_norm(gradients)
        share = bound / norm.clamp_min(bound)
        for gradient in gradients:
            gradient.mul_(share)

    optimizer.register_step_pre_hook(clip)


def keep_average(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Keep a running mean of the weights, as the state `average` of each.

    It begins with the weights after the first step, as that of
    `torch.optim.swa_utils.AveragedModel`.
    """

    def average(*_: object) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                state, weight = optimizer.state[parameter], parameter.detach()
                if "average" in state:
                    state["average"].lerp_(weight, 1 - share)
                else:
                    state["average"] = weight.clone()

    optimizer.register_step_post_hook(average)


def _moments(
    state: dict[str, Any],
    parameter: Tensor,
    gradient: Tensor,
    betas: tuple[float, float],
) -> tuple[int, Tensor, Tensor]:
    """Adam's step, mean gradient and mean square, brought up to a gradient."""
    if not state:
        state["step"] = torch.tensor(0.0)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
    state["step"] += 1
    mean, square = state["exp_avg"], state["exp_avg_sq"]
    beta1, beta2 = betas
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    return int(state["step"].item()), mean, square


def _decay_form(decoupled: bool) -> dict[str, Any]:
    return {"decay_form": "decoupled" if decoupled else "l2"}


def _loss(closure: Any) -> Any:
    with torch.enable_grad():
        return closure() if closure else None


def _gradients(
    optimizer: torch.optim.Optimizer, decoupled: bool = False
) -> Iterator[tuple[dict[str, Any], Tensor, Tensor]]:
    """Groups, parameters and gradients, weight decay done."""
    for group in optimizer.param_groups:
        decay = group["weight_decay"]
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            if decoupled:
                parameter.mul_(1 - group["lr"] * decay)
            elif decay:
                gradient = gradient.add(parameter, alpha=decay)
            yield group, parameter, gradient
