"""How weights follow their gradients, and how fast, by hand.

An optimizer's step takes one array of weights, its gradient and its state, and
returns the new weights and state; nothing is changed in place. A state is empty
before the first step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core.recipe import SGD, Adadelta, Adam, Recipe, RMSprop

Floats = npt.NDArray[np.float64]
State = dict[str, Floats]


def sgd(
    weight: Floats,
    *,
    gradient: Floats,
    state: State,
    learning_rate: float,
    step: int,  # noqa: ARG001
    chosen: SGD,
) -> tuple[Floats, State]:
    """Go down the slope, with some of the speed of the steps before.

    Without momentum: weight = weight - learning_rate * gradient. With it, as

    rate_outside: velocity = momentum * velocity + gradient
                  weight   = weight - learning_rate * velocity
    rate_inside:  velocity = momentum * velocity - learning_rate * gradient
                  weight   = weight + velocity

    The velocity begins at 0. At a constant rate both are the same, the second
    velocity being -learning_rate times the first. When the rate falls, it slows
    the whole velocity in the first form, in the second only what is added.
    Sources: rate_outside is PyTorch's `SGD`; rate_inside is Keras's, and that
    of Sutskever et al. 2013. For weight decay see `decayed`.

    Args:
        weight: any shape.
        gradient: the same shape.
        state: the velocity, or empty.
        learning_rate: the factor of the gradient, at this step.
        step: not used.
        chosen: momentum, weight decay and their forms.

    Returns:
        The new weights and state.
    """
    weight, gradient = decayed(
        weight, gradient=gradient, learning_rate=learning_rate, chosen=chosen
    )
    if chosen.momentum == 0:
        return weight - learning_rate * gradient, state
    velocity = chosen.momentum * state.get("velocity", np.zeros_like(weight))
    if chosen.momentum_form == "rate_outside":
        velocity = velocity + gradient
        return weight - learning_rate * velocity, {"velocity": velocity}
    velocity = velocity - learning_rate * gradient
    return weight + velocity, {"velocity": velocity}


def decayed(
    weight: Floats,
    *,
    gradient: Floats,
    learning_rate: float,
    chosen: SGD | Adam,
) -> tuple[Floats, Floats]:
    """Draw the weight to zero, before the optimizer's step.

    l2:        gradient = gradient + weight_decay * weight
    decoupled: weight   = weight - learning_rate * weight_decay * weight

    The first is the gradient of weight_decay / 2 * weight**2, added to the
    loss: it goes through momentum and running means. The second goes past them.
    Source: Loshchilov and Hutter 2019 (arXiv:1711.05101), with the learning
    rate as a factor, as PyTorch's `AdamW` and Keras's `weight_decay` have it.

    Returns:
        The weight and the gradient that the step starts from.
    """
    if chosen.weight_decay_form == "l2":
        return weight, gradient + chosen.weight_decay * weight
    return weight - learning_rate * chosen.weight_decay * weight, gradient


def adam(
    weight: Floats,
    *,
    gradient: Floats,
    state: State,
    learning_rate: float,
    step: int,
    chosen: Adam,
) -> tuple[Floats, State]:
    """Go down by the mean gradient, measured by the root of its mean square.

    mean_gradient   = beta1 * mean_gradient + (1 - beta1) * gradient
    square_gradient = beta2 * square_gradient + (1 - beta2) * gradient**2

    Both means begin at 0, so the first ones are too small: by the factors
    c1 = 1 - beta1**step and c2 = 1 - beta2**step. With these, as

    outside: weight = weight - learning_rate * (mean_gradient / c1)
                      / (sqrt(square_gradient / c2) + epsilon)
    hat:     weight = weight - learning_rate * sqrt(c2) / c1 * mean_gradient
                      / (sqrt(square_gradient) + epsilon)

    The second is the first with epsilon / sqrt(c2) for epsilon: 32 times as
    much at the first step with beta2 = 0.999, the same in the end. Source:
    Kingma and Ba 2015 (arXiv:1412.6980): outside is algorithm 1 and PyTorch's
    `Adam`; hat is the remark at the end of section 2, and Keras's `Adam`. For
    weight decay see `decayed`.

    Args:
        weight: any shape.
        gradient: the same shape.
        state: the two running means, or empty.
        learning_rate: the factor of the update, at this step.
        step: counted from 1.
        chosen: beta1, beta2, epsilon, weight decay and their forms.

    Returns:
        The new weights and state.
    """
    beta1, beta2, epsilon = chosen.beta1, chosen.beta2, chosen.epsilon
    weight, gradient = decayed(
        weight, gradient=gradient, learning_rate=learning_rate, chosen=chosen
    )
    zeros = np.zeros_like(weight)
    mean_gradient = state.get("mean_gradient", zeros)
    square_gradient = state.get("square_gradient", zeros)

    mean_gradient = beta1 * mean_gradient + (1 - beta1) * gradient
    square_gradient = beta2 * square_gradient + (1 - beta2) * gradient**2
    c1, c2 = 1 - beta1**step, 1 - beta2**step
    if chosen.epsilon_form == "outside":
        update = (mean_gradient / c1) / (np.sqrt(square_gradient / c2) + epsilon)
    else:
        root = np.sqrt(square_gradient) + epsilon
        update = np.sqrt(c2) / c1 * mean_gradient / root
    return weight - learning_rate * update, {
        "mean_gradient": mean_gradient,
        "square_gradient": square_gradient,
    }


def rmsprop(
    weight: Floats,
    *,
    gradient: Floats,
    state: State,
    learning_rate: float,
    step: int,  # noqa: ARG001
    chosen: RMSprop,
) -> tuple[Floats, State]:
    """Go down the slope, measured by the root of its mean square.

    square_gradient = rho * square_gradient + (1 - rho) * gradient**2

    The mean begins at 0. Then, as

    outside: weight = weight - learning_rate * gradient
                      / (sqrt(square_gradient) + epsilon)
    inside:  weight = weight - learning_rate * gradient
                      / sqrt(square_gradient + epsilon)

    Where gradients are small, the same epsilon counts for more inside:
    sqrt(1e-7) is 3e-4. Source: Tieleman and Hinton 2012 (lecture 6.5 of "Neural
    networks for machine learning"), who have no epsilon; outside is PyTorch's
    `RMSprop`, inside Keras's.

    Args:
        weight: any shape.
        gradient: the same shape.
        state: the running mean, or empty.
        learning_rate: the factor of the update, at this step.
        step: not used.
        chosen: rho, epsilon and its form.

    Returns:
        The new weights and state.
    """
    rho, epsilon = chosen.rho, chosen.epsilon
    square_gradient = state.get("square_gradient", np.zeros_like(weight))
    square_gradient = rho * square_gradient + (1 - rho) * gradient**2
    if chosen.epsilon_form == "outside":
        root = np.sqrt(square_gradient) + epsilon
    else:
        root = np.sqrt(square_gradient + epsilon)
    return weight - learning_rate * gradient / root, {
        "square_gradient": square_gradient
    }


def adadelta(
    weight: Floats,
    *,
    gradient: Floats,
    state: State,
    learning_rate: float,
    step: int,  # noqa: ARG001
    chosen: Adadelta,
) -> tuple[Floats, State]:
    """Go down by a step whose size each weight finds from its own history.

    square_gradient = rho * square_gradient + (1 - rho) * gradient**2
    update          = sqrt(square_update + epsilon)
                      / sqrt(square_gradient + epsilon) * gradient
    square_update   = rho * square_update + (1 - rho) * update**2
    weight          = weight - learning_rate * update

    Both running means begin at 0. The update uses the new mean of gradients and
    the old one of updates. Source: Zeiler 2012 (arXiv:1212.5701), algorithm 1;
    the learning rate is an addition of the frameworks.

    Args:
        weight: any shape.
        gradient: the same shape.
        state: the two running means, or empty.
        learning_rate: the factor of the update, at this step.
        step: not used.
        chosen: rho and epsilon.

    Returns:
        The new weights and state.
    """
    rho, epsilon = chosen.rho, chosen.epsilon
    zeros = np.zeros_like(weight)
    square_gradient = state.get("square_gradient", zeros)
    square_update = state.get("square_update", zeros)

    square_gradient = rho * square_gradient + (1 - rho) * gradient**2
    ratio = np.sqrt(square_update + epsilon) / np.sqrt(square_gradient + epsilon)
    update = ratio * gradient
    square_update = rho * square_update + (1 - rho) * update**2
    return weight - learning_rate * update, {
        "square_gradient": square_gradient,
        "square_update": square_update,
    }


OPTIMIZERS: dict[str, Callable[..., tuple[Floats, State]]] = {
    "adadelta": adadelta,
    "sgd": sgd,
    "adam": adam,
    "rmsprop": rmsprop,
}


def update(
    weight: Floats,
    *,
    gradient: Floats,
    state: State,
    learning_rate: float,
    step: int,
    recipe: Recipe,
) -> tuple[Floats, State]:
    """One step, counted from 1, of the optimizer that the recipe has chosen."""
    chosen: Any = recipe.optimizer
    return OPTIMIZERS[chosen.kind](
        weight,
        gradient=gradient,
        state=state,
        learning_rate=learning_rate,
        step=step,
        chosen=chosen,
    )


def learning_rate(recipe: Recipe, *, epoch: int, step: int) -> float:
    """The learning rate of one training step.

    Exponential: learning_rate * factor ** (finished / interval). Linear: up to
    the whole rate in `warm_up`, then down to 0 at `interval`. Epochs or steps
    are counted, as the recipe says.

    Args:
        recipe: its optimizer's rate and its decay.
        epoch: how many epochs are finished.
        step: how many steps are finished, over all epochs.
    """
    decay = recipe.decay
    finished = epoch if decay.unit == "epoch" else step
    start = recipe.optimizer.learning_rate
    if decay.shape == "exponential":
        return start * decay.factor ** (finished / decay.interval)
    if finished < decay.warm_up:
        return start * (finished + 1) / decay.warm_up
    left = max(0.0, decay.interval - finished)
    return start * left / (decay.interval - decay.warm_up)
