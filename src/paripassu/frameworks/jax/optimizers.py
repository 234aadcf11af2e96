"""The optimizers beside the lesson's: optax's own where the form is right.

optax's `trace` keeps the velocity without the rate; its `scale_by_adam` adds
epsilon after the mean square is corrected; `add_decayed_weights` is L2 before
them in a chain, and decoupled behind them. A chain in another order is another
form; only Adam with its epsilon "hat" needs a step of its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from paripassu.core import recipe

Chosen = recipe.Optimizer
Transformation = Any  # `optax.GradientTransformation`


def make(
    chosen: Chosen, rate: Any, *, clip: float = 0.0, average: float = 0.0
) -> Transformation:
    """The optimizer that a recipe has chosen, in its form.

    Args:
        chosen: the kind, its constants and forms.
        rate: the learning rate, or a schedule of it.
        clip: what the norm of all gradients is bound to; 0: to nothing.
        average: what the running mean of the weights keeps; 0: there is none.

    Returns:
        It keeps its rate in its state, under `hyperparams`.
    """

    def chain(learning_rate: Any) -> Transformation:
        before = [optax.clip_by_global_norm(clip)] if clip else []
        behind = [running_mean(average)] if average else []
        links = _links(chosen, learning_rate)
        return optax.chain(*before, *links, *behind)

    return optax.inject_hyperparams(chain)(rate)


def _links(chosen: Chosen, rate: Any) -> list[Transformation]:
    step = optax.scale_by_learning_rate(rate)
    if isinstance(chosen, recipe.Adadelta):
        return [optax.scale_by_adadelta(chosen.rho, chosen.epsilon), step]
    if isinstance(chosen, recipe.RMSprop):
        inside = chosen.epsilon_form == "inside"
        rms = optax.scale_by_rms(chosen.rho, chosen.epsilon, eps_in_sqrt=inside)
        return [rms, step]
    if isinstance(chosen, recipe.Nadam):
        return [scale_by_nadam(chosen), step]
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


class NadamState(NamedTuple):
    """What `scale_by_nadam` keeps."""

    count: Any
    mu: Any
    nu: Any
    product: Any  # of the momentums


def scale_by_nadam(chosen: recipe.Nadam) -> Transformation:
    """Nadam with momentums that grow; optax's has the same at every step."""
    b1, b2, eps = chosen.beta1, chosen.beta2, chosen.epsilon

    def init(weights: Any) -> NadamState:
        mu, nu = (jax.tree.map(jnp.zeros_like, weights) for _ in range(2))
        return NadamState(jnp.zeros((), jnp.int32), mu, nu, jnp.ones(()))

    def momentum(step: Any) -> Any:
        exact = step.astype(jnp.result_type(float))
        return b1 * (1 - 0.96 ** (exact * chosen.momentum_decay) / 2)

    def update(gradients: Any, state: NadamState, _weights: Any = None) -> Any:
        count = state.count + 1
        now, ahead = momentum(count), momentum(count + 1)
        product = state.product * now
        mu = optax.tree.update_moment(gradients, state.mu, b1, 1)
        nu = optax.tree.update_moment(gradients, state.nu, b2, 2)
        c2 = 1 - b2**count

        def move(gradient: Any, mean: Any, square: Any) -> Any:
            kept = ahead * mean / (1 - product * ahead)
            fresh = (1 - now) * gradient / (1 - product)
            return (kept + fresh) / (jnp.sqrt(square / c2) + eps)

        updates = jax.tree.map(move, gradients, mu, nu)
        return updates, NadamState(count, mu, nu, product)

    return optax.GradientTransformation(init, update)


class MeanState(NamedTuple):
    """What `running_mean` keeps."""

    count: Any
    average: Any


def running_mean(share: float) -> Transformation:
    """Keep a running mean of the weights; the last in a chain.

    It begins with the weights after the first step.
    """

    def init(weights: Any) -> MeanState:
        zeros = jax.tree.map(jnp.zeros_like, weights)
        return MeanState(jnp.zeros((), jnp.int32), zeros)

    def update(updates: Any, state: MeanState, weights: Any = None) -> Any:
        moved = optax.apply_updates(weights, updates)
        kept = jnp.where(state.count == 0, 0.0, share)
        average = jax.tree.map(
            lambda mean, new: (kept * mean + (1 - kept) * new).astype(
                new.dtype
            ),
            state.average,
            moved,
        )
        return updates, MeanState(state.count + 1, average)

    return optax.GradientTransformation(init, update)


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
