"""The optimizers beside the lesson's: Keras's own where the form is right.

Keras's `SGD` multiplies each gradient by the rate before the velocity takes it
up; its `Adam` adds epsilon before the mean square is corrected, its `RMSprop`
inside the square root; every `weight_decay` goes past the gradient. The other
forms, PyTorch's, are subclasses here: they keep the same state under the same
names, and take another step with it.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from paripassu.core import recipe


def make(
    chosen: recipe.Adadelta | recipe.SGD | recipe.Adam | recipe.RMSprop,
    rate: Any,
) -> Any:
    """The optimizer that a recipe has chosen, in its form.

    Args:
        chosen: the kind, its constants and forms.
        rate: the learning rate, or a schedule of it.
    """
    # Keras rounds the constants that are Python floats to float32 on the way.
    exact = np.float64 if keras.config.floatx() == "float64" else float
    if isinstance(chosen, recipe.Adadelta):
        return keras.optimizers.Adadelta(rate, chosen.rho, chosen.epsilon)
    if isinstance(chosen, recipe.RMSprop):
        outside = chosen.epsilon_form == "outside"
        rmsprop = RMSpropOutside if outside else keras.optimizers.RMSprop
        return rmsprop(rate, chosen.rho, epsilon=chosen.epsilon)
    l2, decay = 0.0, exact(chosen.weight_decay)
    if chosen.weight_decay_form == "l2":
        l2, decay = decay, 0.0
    decoupled = {"weight_decay": decay or None}
    if isinstance(chosen, recipe.Adam):
        betas = exact(chosen.beta1), exact(chosen.beta2)
        outside = chosen.epsilon_form == "outside"
        if outside or l2:
            return Adam(
                rate,
                *betas,
                chosen.epsilon,
                **decoupled,
                epsilon_outside=outside,
                epsilon_root=chosen.epsilon_root,
                l2=l2,
            )
        return keras.optimizers.Adam(rate, *betas, chosen.epsilon, **decoupled)
    momentum = exact(chosen.momentum)
    outside = momentum > 0 and chosen.momentum_form == "rate_outside"
    if outside or l2:
        return SGD(rate, momentum, **decoupled, rate_outside=outside, l2=l2)
    return keras.optimizers.SGD(rate, momentum, **decoupled)


def update_in_one_pass(optimizer: keras.optimizers.Adadelta) -> None:
    """Let Adadelta on a CPU take its step in TensorFlow's own operation for it.

    Keras composes the step of a dozen operations, each of which goes through
    all weights: a tenth of the training time in bfloat16. The optimizer stays
    Keras's, with its variables, so that files do not change.
    """
    optimizer.update_step = partial(_apply_adadelta, optimizer)


def _apply_adadelta(
    optimizer: Any, gradient: Any, variable: Any, learning_rate: Any
) -> None:
    index = optimizer._get_variable_index(variable)
    dtype = variable.dtype
    tf.raw_ops.ResourceApplyAdadelta(
        var=variable.handle,
        accum=optimizer._accumulated_grads[index].value.handle,
        accum_update=optimizer._accumulated_delta_vars[index].value.handle,
        lr=tf.cast(learning_rate, dtype),
        rho=tf.constant(optimizer.rho, dtype),
        epsilon=tf.constant(optimizer.epsilon, dtype),
        grad=tf.cast(gradient, dtype),
    )


def _l2_rule(l2: float) -> dict[str, Any]:
    return {"weight_decay": float(l2), "decay_form": "l2"} if l2 else {}


@keras.saving.register_keras_serializable("paripassu")
class SGD(keras.optimizers.SGD):  # type: ignore[misc]
    """`keras.optimizers.SGD` with PyTorch's momentum and weight decay."""

    def __init__(
        self,
        *arguments: Any,
        rate_outside: bool = False,
        l2: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.rate_outside, self.l2 = rate_outside, l2

    @property
    def rule_changes(self) -> dict[str, Any]:
        """How its rule differs from its base's; see `sides.contract`."""
        outside = {"momentum_form": "rate_outside", "nesterov": False}
        return (outside if self.rate_outside else {}) | _l2_rule(self.l2)

    def update_step(
        self, gradient: Any, variable: Any, learning_rate: Any
    ) -> None:
        """Update one variable and its velocity."""
        if self.l2:
            gradient = gradient + variable * self.l2
        if not self.rate_outside:
            super().update_step(gradient, variable, learning_rate)
            return
        rate = ops.cast(learning_rate, variable.dtype)
        velocity = self.momentums[self._get_variable_index(variable)]
        self.assign(velocity, velocity * self.momentum + gradient)
        self.assign_sub(variable, rate * velocity)

    def get_config(self) -> dict[str, Any]:
        """What Keras saves of it."""
        own = {"rate_outside": self.rate_outside, "l2": self.l2}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("paripassu")
class Adam(keras.optimizers.Adam):  # type: ignore[misc]
    """`keras.optimizers.Adam` with PyTorch's epsilon and weight decay.

    With its epsilon outside, it may have optax's under the root, too.
    """

    def __init__(
        self,
        *arguments: Any,
        epsilon_outside: bool = False,
        epsilon_root: float = 0.0,
        l2: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.epsilon_outside, self.l2 = epsilon_outside, l2
        self.epsilon_root = epsilon_root

    @property
    def rule_changes(self) -> dict[str, Any]:
        """How its rule differs from its base's; see `sides.contract`."""
        outside = {
            "epsilon_form": "outside",
            "epsilon_root": self.epsilon_root,
            "amsgrad": False,
        }
        return (outside if self.epsilon_outside else {}) | _l2_rule(self.l2)

    def update_step(
        self, gradient: Any, variable: Any, learning_rate: Any
    ) -> None:
        """Update one variable and its running means."""
        if self.l2:
            gradient = gradient + variable * self.l2
        if not self.epsilon_outside:
            super().update_step(gradient, variable, learning_rate)
            return
        rate = ops.cast(learning_rate, variable.dtype)
        step = ops.cast(self.iterations + 1, variable.dtype)
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        self.assign_add(mean, (gradient - mean) * (1 - self.beta_1))
        self.assign_add(square, (gradient**2 - square) * (1 - self.beta_2))
        square = square / (1 - self.beta_2**step)
        if self.epsilon_root:
            square = square + self.epsilon_root
        root = ops.sqrt(square) + self.epsilon
        self.assign_sub(variable, rate / (1 - self.beta_1**step) * mean / root)

    def get_config(self) -> dict[str, Any]:
        """What Keras saves of it."""
        names = ("epsilon_outside", "epsilon_root", "l2")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("paripassu")
class RMSpropOutside(keras.optimizers.RMSprop):  # type: ignore[misc]
    """`keras.optimizers.RMSprop` with PyTorch's epsilon, outside the root."""

    rule_changes: ClassVar = {
        "epsilon_form": "outside",
        "momentum": 0.0,
        "centered": False,
    }

    def update_step(
        self, gradient: Any, variable: Any, learning_rate: Any
    ) -> None:
        """Update one variable and its running mean."""
        rate = ops.cast(learning_rate, variable.dtype)
        square = self._velocities[self._get_variable_index(variable)]
        self.assign_add(square, (gradient**2 - square) * (1 - self.rho))
        root = ops.sqrt(square) + self.epsilon
        self.assign_sub(variable, rate * gradient / root)


@keras.saving.register_keras_serializable("paripassu")
class LinearDecay(
    keras.optimizers.schedules.LearningRateSchedule  # type: ignore[misc]
):
    """A rise to the whole rate in `warm_up` steps, and a fall to 0."""

    def __init__(self, rate: float, warm_up: float, interval: float) -> None:
        self.rate, self.warm_up, self.interval = rate, warm_up, interval

    def __call__(self, step: Any) -> Any:
        """The rate of a step, counted from 0."""
        finished = ops.cast(step, keras.config.floatx())
        left = ops.maximum(self.interval - finished, 0)
        falling = left / (self.interval - self.warm_up)
        if not self.warm_up:
            return self.rate * falling
        rising = (finished + 1) / self.warm_up
        return self.rate * ops.where(finished < self.warm_up, rising, falling)

    def get_config(self) -> dict[str, Any]:
        """What Keras saves of it."""
        return {
            "rate": self.rate,
            "warm_up": self.warm_up,
            "interval": self.interval,
        }


@keras.saving.register_keras_serializable("paripassu")
class ExponentialDecay(
    keras.optimizers.schedules.ExponentialDecay  # type: ignore[misc]
):
    """Keras's schedule in the number type that is set.

    Keras's own, in version 3.15.1, is in float32 whatever `floatx` says: in
    float64 its rates are some 1e-8 off.
    """

    def __call__(self, step: Any) -> Any:
        """The rate of a step, counted from 0."""
        finished = ops.cast(step, keras.config.floatx()) / self.decay_steps
        return self.initial_learning_rate * self.decay_rate**finished
