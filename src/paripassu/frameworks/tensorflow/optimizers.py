"""The optimizers beside the lesson's: Keras's own where the form is right.

Keras's `SGD` multiplies each gradient by the rate before the velocity takes it
up; its `Adam` adds epsilon before the mean square is corrected, its `RMSprop`
inside the square root; every `weight_decay` goes past the gradient. The other
forms, PyTorch's, are subclasses here: they keep the same state under the same
names, and take another step with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from paripassu.core import recipe


def make(
    chosen: recipe.Optimizer,
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
    if isinstance(chosen, recipe.Nadam):
        betas = exact(chosen.beta1), exact(chosen.beta2)
        slower = exact(chosen.momentum_decay)
        return Nadam(rate, *betas, chosen.epsilon, momentum_decay=slower)
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
class Nadam(keras.optimizers.Nadam):  # type: ignore[misc]
    """`keras.optimizers.Nadam` with a momentum decay, and exact constants.

    Keras's own, in version 3.15.1, has the decay 1, rounds 0.96 to float32, and
    leaves the product of momentums out of what it saves.
    """

    def __init__(
        self, *arguments: Any, momentum_decay: float = 1.0, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.momentum_decay = momentum_decay

    @property
    def rule_changes(self) -> dict[str, Any]:
        """How its rule differs from its base's; see `sides.contract`."""
        slower = float(self.momentum_decay)
        return {"momentum_decay": slower, "constants": "exact"}

    def build(self, variables: Any) -> None:
        """Make the means of each variable, and the product of momentums."""
        if self.built:
            return
        super().build(variables)
        dtype = variables[0].dtype if variables else keras.config.floatx()
        self._u_product = self.add_variable((), "ones", dtype, name="product")

    def _momentum(self, ahead: int) -> Any:
        """Of the step so many after the last one."""
        dtype = self._u_product.dtype
        step = ops.cast(self.iterations + ahead, dtype)
        root = tf.constant(0.96, dtype) ** (step * self.momentum_decay)
        return self.beta_1 * (1 - root / 2)

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        self.assign(self._u_product, self._u_product * self._momentum(1))
        # Past Keras's own, which would multiply once more.
        super(keras.optimizers.Nadam, self)._backend_update_step(
            grads, trainable_variables, learning_rate
        )

    def update_step(
        self, gradient: Any, variable: Any, learning_rate: Any
    ) -> None:
        """Update one variable and its running means."""
        rate = ops.cast(learning_rate, variable.dtype)
        step = ops.cast(self.iterations + 1, variable.dtype)
        now, ahead = self._momentum(1), self._momentum(2)
        product = ops.convert_to_tensor(self._u_product)
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        self.assign_add(mean, (gradient - mean) * (1 - self.beta_1))
        self.assign_add(square, (gradient**2 - square) * (1 - self.beta_2))
        root = ops.sqrt(square / (1 - self.beta_2**step)) + self.epsilon
        kept = ahead * mean / (1 - product * ahead)
        fresh = (1 - now) * gradient / (1 - product)
        self.assign_sub(variable, rate * (kept + fresh) / root)

    def get_config(self) -> dict[str, Any]:
        """What Keras saves of it."""
        slower = float(self.momentum_decay)
        return {**super().get_config(), "momentum_decay": slower}


def keep_average(optimizer: Any, share: float) -> None:
    """Let an optimizer that is not built keep a running mean of the weights.

    Keras would write it over the weights when `fit` ends: they stay apart, so
    that a training can go on.
    """
    exact = np.float64 if keras.config.floatx() == "float64" else float
    optimizer.use_ema = True
    optimizer.ema_momentum = exact(share)
    optimizer.finalize_variable_values = lambda _variables: None


@contextmanager
def averaged(network: Any) -> Iterator[None]:
    """With the running means in the weights' place, where there are some."""
    optimizer = getattr(network, "optimizer", None)
    means: list[Any] = []
    if optimizer is not None and optimizer.use_ema and optimizer.iterations > 0:
        means = optimizer._model_variables_moving_average
    pairs = list(zip(network.trainable_variables, means, strict=False))
    kept = [ops.convert_to_numpy(weight).copy() for weight, _mean in pairs]
    for weight, mean in pairs:
        weight.assign(mean)
    try:
        yield
    finally:
        for (weight, _mean), before in zip(pairs, kept, strict=True):
            weight.assign(before)


class EvaluateAverage(keras.callbacks.Callback):  # type: ignore[misc]
    """Lets `fit` evaluate the running means of the weights."""

    def on_test_begin(self, logs: Any = None) -> None:  # noqa: ARG002
        """Put them in the weights' place."""
        self._place = averaged(self.model)
        self._place.__enter__()

    def on_test_end(self, logs: Any = None) -> None:  # noqa: ARG002
        """Put the weights back."""
        self._place.__exit__(None, None, None)


@keras.saving.register_keras_serializable("paripassu")
class CosineDecay(
    keras.optimizers.schedules.LearningRateSchedule  # type: ignore[misc]
):
    """A rise to the whole rate, and a fall to a share of it by half a cosine.

    The rise is by half a cosine too if it begins at a share, `start`; if that
    is 0, as that of `LinearDecay`.
    """

    def __init__(
        self,
        rate: float,
        warm_up: float,
        interval: float,
        start: float,
        final: float,
    ) -> None:
        self.rate, self.start, self.final = rate, start, final
        self.warm_up, self.interval = warm_up, interval

    def __call__(self, step: Any) -> Any:
        """The rate of a step, counted from 0."""
        finished = ops.cast(step, keras.config.floatx())
        left = ops.maximum(self.interval - finished, 0)
        share = left / (self.interval - self.warm_up)
        factor = self._between(self.final, share)
        if self.warm_up:
            rising = (finished + 1) / self.warm_up
            if self.start:
                rising = self._between(self.start, finished / self.warm_up)
            factor = ops.where(finished < self.warm_up, rising, factor)
        return self.rate * factor

    @staticmethod
    def _between(low: float, share: Any) -> Any:
        """From `low` to 1 as share goes from 0 to 1."""
        return 1 + (low - 1) / 2 * (1 + ops.cos(np.pi * share))

    def get_config(self) -> dict[str, Any]:
        """What Keras saves of it."""
        names = ("rate", "warm_up", "interval", "start", "final")
        return {name: getattr(self, name) for name in names}


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
