"""The optimizers beside the lesson's: optax's own where the form is right.

optax's `trace` keeps the velocity without the rate; its `scale_by_adam` adds
epsilon after the mean square is corrected; `add_decayed_weights` is L2 before
them in a chain, and decoupled behind them. A chain in another order is another
form; only Adam with its epsilon "hat" needs a step of its own.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from paripassu.core import recipe

Chosen = recipe.Adadelta | recipe.SGD | recipe.Adam | recipe.RMSprop
Transformation = Any  # `optax.GradientTransformation`


def make(chosen: Chosen, rate: Any) -> Transformation:
    """The optimizer that a recipe has chosen, in its form.

    Args:
        chosen: the kind, its constants and forms.
        rate: the learning rate, or a schedule of it.

    Returns:
        It keeps its rate in its state, under `hyperparams`.
    """

    def chain(learning_rate: Any) -> Transformation:
        return optax.chain(*_links(chosen, learning_rate))

    return optax.inject_hyperparams(chain)(rate)


def _links(chosen: Chosen, rate: Any) -> list[Transformation]:
    step = optax.scale_by_learning_rate(rate)
    if isinstance(chosen, recipe.Adadelta):
        return [optax.scale_by_adadelta(chosen.rho, chosen.epsilon), step]
    if isinstance(chosen, recipe.RMSprop):
        inside = chosen.epsilon_form == "inside"
        rms = optax.scale_by_rms(chosen.rho, chosen.epsilon, eps_in_sqrt=inside)
        return [rms, step]
    rule = _rule(chosen)
    decay = chosen.weight_decay
    decayed = [optax.add_decayed_weights(decay)] if decay else []
    l2 = chosen.weight_decay_form == "l2"
    before, behind = (decayed, []) if l2 else ([], decayed)
    if isinstance(chosen, recipe.SGD) and chosen.momentum_form == "rate_inside":
        if behind:  # it comes after the rate, and must have it
            behind = [optax.add_decayed_weights(-rate * decay)]
        return [*before, step, *rule, *behind]
    return [*before, *rule, *behind, step]


def _rule(chosen: recipe.SGD | recipe.Adam) -> list[Transformation]:
    if isinstance(chosen, recipe.SGD):
        return [optax.trace(chosen.momentum)] if chosen.momentum else []
    constants = chosen.beta1, chosen.beta2, chosen.epsilon
    if chosen.epsilon_form == "hat":
        return [scale_by_adam_hat(*constants)]
    return [optax.scale_by_adam(*constants, eps_root=chosen.epsilon_root)]


def scale_by_adam_hat(b1: float, b2: float, eps: float) -> Transformation:
    """`optax.scale_by_adam` with Keras's epsilon, before the correction."""
    right = optax.scale_by_adam(b1, b2, eps)

    def update(gradients: Any, state: Any, _weights: Any = None) -> Any:
        _updates, state = right.update(gradients, state)
        count = state.count
        scale = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        updates = jax.tree.map(
            lambda mean, square: scale * mean / (jnp.sqrt(square) + eps),
            state.mu,
            state.nu,
        )
        return updates, state

    # What `sides.contract` reads: a transformation has no class that says it.
    update.rule_changes = {  # type: ignore[attr-defined]
        "family": "adam",
        "beta1": b1,
        "beta2": b2,
        "epsilon": eps,
        "epsilon_form": "hat",
    }
    return optax.GradientTransformation(right.init, update)
