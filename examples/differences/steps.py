"""Optimizers: where defaults differ."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # isort: skip, before TensorFlow

import keras
from shared import Measured, argument, difference

from paripassu import check_optimizer
from paripassu.frameworks.tensorflow import optimizers as ours


def stepped(left: Any, right: Any) -> float:
    """How far two optimizers are apart, over the largest step: `check-optimizer`."""
    return float(check_optimizer(left, right).apart)


def optimizer(
    one: Any, two: Any, names: tuple[str, str], left: Any, right: Any
) -> Measured:
    """Defaults of two optimizers, and the two made equal."""
    return Measured(
        f"{names[0]}={argument(one, names[0])!r}",
        f"{names[1]}={argument(two, names[1])!r}",
        stepped(one, two),
        stepped(left, right),
    )


def rated(cls: Any, **settings: Any) -> Callable[..., Any]:
    return lambda parameters: cls(parameters, **settings)


TORCH, KERAS = torch.optim, keras.optimizers


@difference(
    "Optimizers",
    "SGD: learning rate",
    "the same `lr` and `learning_rate`",
    "learning_rate",
    rest=1e-6,
)
def sgd_rate() -> Measured:
    names = ("lr", "learning_rate")
    return optimizer(TORCH.SGD, KERAS.SGD, names, rated(TORCH.SGD, lr=0.01), KERAS.SGD)


OURS = (
    "Keras's own cannot; `paripassu.frameworks.tensorflow.optimizers.Adam("
    "epsilon=1e-8, epsilon_outside=True)` can"
)


@difference(
    "Optimizers",
    "Adam: epsilon, its value, and whether the root is corrected before it is added",
    OURS,
    "epsilon, epsilon_form",
    rest=1e-6,
)
def adam_epsilon() -> Measured:
    same = ours.Adam(0.001, epsilon=1e-8, epsilon_outside=True)
    return Measured(
        f"eps={argument(TORCH.Adam, 'eps')!r}",
        f"epsilon={argument(KERAS.Adam, 'epsilon')!r}",
        stepped(TORCH.Adam, KERAS.Adam),
        stepped(TORCH.Adam, same),
    )


@difference(
    "Optimizers",
    "SGD: weight decay, in the gradient, or apart from it",
    "with momentum no setting of Keras; without it, none is needed. "
    "`paripassu.frameworks.tensorflow.optimizers.SGD(l2=0.1)`",
    "decay_form",
    rest=1e-6,
)
def sgd_weight_decay() -> Measured:
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    return Measured(
        "weight_decay: L2",
        "weight_decay: decoupled",
        stepped(
            rated(TORCH.SGD, **settings),
            KERAS.SGD(0.1, momentum=0.9, weight_decay=0.1),
        ),
        stepped(rated(TORCH.SGD, **settings), ours.SGD(0.1, momentum=0.9, l2=0.1)),
    )


@difference(
    "Optimizers",
    "AdamW: weight decay",
    "`AdamW(weight_decay=0.01)`; epsilon as of Adam",
    "weight_decay",
    rest=1e-6,
)
def adamw_decay() -> Measured:
    same = ours.Adam(0.001, epsilon=1e-8, epsilon_outside=True, weight_decay=0.01)
    names = ("weight_decay", "weight_decay")
    return optimizer(TORCH.AdamW, KERAS.AdamW, names, TORCH.AdamW, same)


@difference(
    "Optimizers",
    "Adadelta: learning rate, rho and epsilon",
    "`Adadelta(1.0, rho=0.9, epsilon=1e-6)`",
    "learning_rate",
    rest=1e-5,
)
def adadelta_defaults() -> Measured:
    return Measured(
        f"lr={argument(TORCH.Adadelta, 'lr')}, rho={argument(TORCH.Adadelta, 'rho')}, "
        f"eps={argument(TORCH.Adadelta, 'eps')}",
        f"{argument(KERAS.Adadelta, 'learning_rate')}, "
        f"rho={argument(KERAS.Adadelta, 'rho')}, "
        f"epsilon={argument(KERAS.Adadelta, 'epsilon')}",
        stepped(TORCH.Adadelta, KERAS.Adadelta),
        stepped(TORCH.Adadelta, KERAS.Adadelta(1.0, rho=0.9, epsilon=1e-6)),
    )


@difference(
    "Optimizers",
    "RMSprop: rate, decay, epsilon, and where epsilon is added",
    "Keras's own keeps epsilon inside the root; "
    "`paripassu.frameworks.tensorflow.optimizers.RMSpropOutside`",
    "epsilon_form",
    rest=1e-6,
)
def rmsprop_defaults() -> Measured:
    same = ours.RMSpropOutside(0.01, rho=0.99, epsilon=1e-8)
    return Measured(
        f"lr={argument(TORCH.RMSprop, 'lr')}, "
        f"alpha={argument(TORCH.RMSprop, 'alpha')}, "
        f"eps={argument(TORCH.RMSprop, 'eps')}",
        f"{argument(KERAS.RMSprop, 'learning_rate')}, "
        f"rho={argument(KERAS.RMSprop, 'rho')}, "
        f"epsilon={argument(KERAS.RMSprop, 'epsilon')}",
        stepped(TORCH.RMSprop, KERAS.RMSprop),
        stepped(TORCH.RMSprop, same),
    )


@difference(
    "Optimizers",
    "Adagrad: the sum that it begins with, and epsilon",
    "`Adagrad(0.01, initial_accumulator_value=0)`; epsilon stays inside the root",
    "epsilon_form",
    rest=10.0,
)
def adagrad_defaults() -> Measured:
    name = "initial_accumulator_value"
    same = KERAS.Adagrad(0.01, initial_accumulator_value=0.0, epsilon=1e-10)
    return Measured(
        f"{name}={argument(TORCH.Adagrad, name)}, lr={argument(TORCH.Adagrad, 'lr')}",
        f"{name}={argument(KERAS.Adagrad, name)}, "
        f"{argument(KERAS.Adagrad, 'learning_rate')}",
        stepped(TORCH.Adagrad, KERAS.Adagrad),
        stepped(TORCH.Adagrad, same),
    )


@difference(
    "Optimizers",
    "Adamax: learning rate, and whether epsilon is in the maximum",
    "`lr=0.001`; epsilon stays outside the maximum in Keras",
    "learning_rate",
    rest=10.0,
)
def adamax_defaults() -> Measured:
    names = ("lr", "learning_rate")
    same = rated(TORCH.Adamax, lr=0.001, eps=1e-7)
    return optimizer(TORCH.Adamax, KERAS.Adamax, names, same, KERAS.Adamax)


@difference(
    "Optimizers",
    "Nadam: learning rate and the decay of momentum",
    "`torch.optim.NAdam(lr=0.001, momentum_decay=1.0)`; epsilon as of Adam",
    "learning_rate",
    rest=10.0,
)
def nadam_defaults() -> Measured:
    decay = argument(TORCH.NAdam, "momentum_decay")
    same = rated(TORCH.NAdam, lr=0.001, momentum_decay=1.0, eps=1e-7)
    return Measured(
        f"lr={argument(TORCH.NAdam, 'lr')}, momentum_decay={decay}",
        f"{argument(KERAS.Nadam, 'learning_rate')}, momentum decay 1",
        stepped(TORCH.NAdam, KERAS.Nadam),
        stepped(same, KERAS.Nadam),
    )


@difference(
    "Optimizers",
    "Momentum and a learning rate that changes: the rate is outside the velocity in "
    "PyTorch, inside it in Keras",
    "a constant rate is equal; else "
    "`paripassu.frameworks.tensorflow.optimizers.SGD(rate_outside=True)`",
    "momentum_form",
    rest=1e-6,
)
def momentum_form() -> Measured:
    def scheduled(parameters: Any) -> Any:
        made = TORCH.SGD(parameters, lr=0.1, momentum=0.9)
        return made, torch.optim.lr_scheduler.ExponentialLR(made, 0.5)

    schedule = KERAS.schedules.ExponentialDecay(0.1, 1, 0.5)
    same = ours.SGD(schedule, momentum=0.9, rate_outside=True)
    return Measured(
        "rate outside",
        "rate inside",
        stepped(scheduled, KERAS.SGD(schedule, momentum=0.9)),
        stepped(scheduled, same),
    )
