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

from paripassu.core.recipe import SGD, Adadelta, Recipe

Floats = npt.NDArray[np.float64]
State = dict[str, Floats]


def sgd(
    weight: Floats,
    *,
    gradient: Floats,
    state: State,
    learning_rate: float,
    chosen: SGD,  # noqa: ARG001
) -> tuple[Floats, State]:
    """Go down the slope: weight - learning_rate * gradient."""
    return weight - learning_rate * gradient, state


def adadelta(
    weight: Floats,
    *,
    gradient: Floats,
    state: State,
    learning_rate: float,
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
        chosen: rho and epsilon.

    Returns:
        The new weights and state.
    """
    rho, epsilon = chosen.rho, chosen.epsilon
    zeros = np.zeros_like(weight)
    square_gradient = state.get("square_gradient", zeros)
    square_update = state.get("square_update", zeros)

    square_gradient = rho * square_gradient + (1 - rho) * gradient**2
    ratio = np.sqrt(square_update + epsilon) / np.sqrt(
        square_gradient + epsilon
    )
    update = ratio * gradient
    square_update = rho * square_update + (1 - rho) * update**2
    return weight - learning_rate * update, {
        "square_gradient": square_gradient,
        "square_update": square_update,
    }


OPTIMIZERS: dict[str, Callable[..., tuple[Floats, State]]] = {
    "adadelta": adadelta,
    "sgd": sgd,
}


def update(
    weight: Floats,
    *,
    gradient: Floats,
    state: State,
    learning_rate: float,
    recipe: Recipe,
) -> tuple[Floats, State]:
    """One step of the optimizer that the recipe has chosen."""
    chosen: Any = recipe.optimizer
    return OPTIMIZERS[chosen.kind](
        weight,
        gradient=gradient,
        state=state,
        learning_rate=learning_rate,
        chosen=chosen,
    )


def learning_rate(recipe: Recipe, *, epoch: int, step: int) -> float:
    """The learning rate of one training step.

    learning_rate * factor ** (finished / interval), where epochs or steps are
    counted, as the recipe says.

    Args:
        recipe: its optimizer's rate and its decay.
        epoch: how many epochs are finished.
        step: how many steps are finished, over all epochs.
    """
    decay = recipe.decay
    finished = epoch if decay.unit == "epoch" else step
    start = recipe.optimizer.learning_rate
    return start * decay.factor ** (finished / decay.interval)
