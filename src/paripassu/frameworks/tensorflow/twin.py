"""The TensorFlow lesson taken step by step: see `paripassu.frameworks.Twin`.

It uses the lesson's network, loss and optimizer and defines no layer itself:
it walks the network's layers, with the given masks in place of dropout's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays, Given, TwinStep
from paripassu.frameworks.tensorflow import lesson, recipes
from paripassu.frameworks.tensorflow.trainer import Trainer
from paripassu.frameworks.tensorflow.weights import from_common

# Each optimizer's own names of what it keeps, and the reference's.
SLOTS = {
    "adadelta": {
        "accumulated_grad": "square_gradient",
        "accumulated_delta_var": "square_update",
    },
    "sgd": {"momentum": "velocity"},
    "adam": {"momentum": "mean_gradient", "velocity": "square_gradient"},
    "rmsprop": {"velocity": "square_gradient"},
}
Override = Callable[[Any, Any, bool], Any]


class _Rated:
    """All of a model that a schedule's callback looks at."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer


class Twin:
    """The lesson's network; `overrides` and `loss` are for seeded faults."""

    def __init__(
        self, recipe: Recipe, *, weights: Given, threads: int, device: str
    ) -> None:
        self.recipe = recipe
        self.trainer = Trainer(
            recipe, weights=weights, threads=threads, device=device
        )
        self.network = self.trainer.network
        self.loss: Callable[[Any, Any], Any] = self.trainer.loss
        self.overrides: dict[str, Override] = {}
        self.masks: Mapping[str, Any] = {}
        for layer in self.network.layers:
            if isinstance(layer, keras.layers.Dropout):
                self.overrides[layer.name] = self._given_mask
        self._schedule = recipes.make_schedule(recipe)
        for callback in self._schedule:
            callback.set_model(self.network)
        self._graph = tf.function(self._train, reduce_retracing=False)

    def evaluate(self, images: npt.NDArray[np.float32]) -> Arrays:
        x = images[..., None].astype(keras.config.floatx())
        outputs = self._walk(tf.constant(x), training=False)
        return {"input": x, **{n: y.numpy() for n, y in outputs.items()}}

    def logits(self, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        return self.trainer.logits(images)

    def begin_epoch(self, epoch: int) -> None:
        for callback in self._schedule:
            callback.on_epoch_begin(epoch)

    def learning_rates(self, length: int) -> npt.NDArray[np.float64]:
        epochs = self.recipe.epochs
        optimizer = recipes.make_optimizer(self.recipe)
        if self.recipe.decay.unit == "step":
            schedule = optimizer._learning_rate
            rates = schedule(tf.range(epochs * length, dtype=tf.int64))
            return np.asarray(keras.ops.convert_to_numpy(rates), np.float64)
        rates = []
        for callback in recipes.make_schedule(self.recipe):
            callback.set_model(_Rated(optimizer))
            for epoch in range(epochs):
                callback.on_epoch_begin(epoch)
                rates.append(float(optimizer.learning_rate.numpy()))
        return np.repeat(rates, length)

    def step(self, step: TwinStep) -> Arrays:
        loss, outputs, gradients = self._graph(*self._given(step), traced=True)
        found = {f"activation.{n}": y.numpy() for n, y in outputs.items()}
        for name, gradient in zip(self._names(), gradients, strict=True):
            found[f"gradient.{name}"] = gradient.numpy()
        return {"loss": loss.numpy(), **found}

    def advance(self, step: TwinStep) -> float:
        return float(self._graph(*self._given(step), traced=False))

    def state(self) -> Arrays:
        state = {f"weight.{n}": x for n, x in self.trainer.weights().items()}
        for name, variable in self.slots().items():
            state[f"slot.{name}"] = keras.ops.convert_to_numpy(variable).copy()
        return state

    def load_state(self, state: Given, *, epoch: int, step: int) -> None:
        weights = {
            name.removeprefix("weight."): array
            for name, array in state.items()
            if name.startswith("weight.")
        }
        from_common(self.recipe, self.network, weights)
        for name, variable in self.slots().items():
            given = state.get(f"slot.{name}")
            variable.assign(
                np.zeros(variable.shape) if given is None else given
            )
        self.network.optimizer.iterations.assign(step)
        self.begin_epoch(epoch)

    def _given(self, step: TwinStep) -> tuple[Any, Any, dict[str, Any]]:
        images, labels = lesson.to_arrays(step)
        masks = {n: tf.constant(mask) for n, mask in step.masks.items()}
        return tf.constant(images), tf.constant(labels), masks

    def _train(
        self, x: Any, labels: Any, masks: Mapping[str, Any], *, traced: bool
    ) -> Any:
        self.masks = masks
        variables = self.network.trainable_variables
        with tf.GradientTape() as tape:
            outputs = self._walk(x, training=True)
            loss = self.loss(labels, outputs[self.network.layers[-1].name])
        gradients = tape.gradient(loss, variables)
        self.network.optimizer.apply(gradients, variables)
        return (loss, outputs, gradients) if traced else loss

    def _walk(self, x: Any, *, training: bool) -> dict[str, Any]:
        outputs = {}
        for layer in self.network.layers:
            override = self.overrides.get(layer.name)
            if override:
                x = override(layer, x, training)
            else:
                x = layer(x, training=training)
            outputs[layer.name] = x
        return outputs

    def _given_mask(self, layer: Any, x: Any, training: bool) -> Any:
        if not training:
            return x
        return x * tf.cast(self.masks[layer.name], x.dtype) / (1 - layer.rate)

    def _names(self) -> list[str]:
        return [
            f"{layer.name}.{weight.name}"
            for layer in self.network.layers
            for weight in layer.trainable_weights
        ]

    def slots(self) -> dict[str, Any]:
        """The optimizer's variables by canonical names.

        Keras names a slot `<model>_<layer>_<weight>_<slot>`.
        """
        names = SLOTS[self.recipe.optimizer.kind]
        found = {}
        for variable in self.network.optimizer.variables:
            for name in self._names():
                start = name.replace(".", "_") + "_"
                slot = names.get(variable.name.partition(start)[2])
                if slot:
                    found[f"{name}.{slot}"] = variable
        return found
