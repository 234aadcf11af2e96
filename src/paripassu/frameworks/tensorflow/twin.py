"""The TensorFlow lesson taken step by step: see `paripassu.frameworks.Twin`.

It takes the steps that `fit` takes and defines no layer itself: each call of a
layer is passed on and read, and the given masks take the place of dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from paripassu.core.recipe import Nadam, Recipe
from paripassu.core.steps import Arrays, Given, TwinStep, accuracies
from paripassu.frameworks.contract import Saw
from paripassu.frameworks.tensorflow import lesson, optimizers, recipes
from paripassu.frameworks.tensorflow.trainer import Trainer
from paripassu.frameworks.tensorflow.weights import from_common
from paripassu.reference.optimizers import product_of_momentums

# Each optimizer's own names of what it keeps, and the reference's.
SLOTS = {
    "adadelta": {
        "accumulated_grad": "square_gradient",
        "accumulated_delta_var": "square_update",
    },
    "sgd": {"momentum": "velocity"},
    "adam": {"momentum": "mean_gradient", "velocity": "square_gradient"},
    "nadam": {"momentum": "mean_gradient", "velocity": "square_gradient"},
    "rmsprop": {"velocity": "square_gradient"},
}
AVERAGE = {"average": "average"}  # beside them: the running mean of the weights

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
        self.loss: Callable[[Any, Any], Any] | None = (
            None  # None: the trainer's
        )
        self.overrides: dict[str, Override] = {}
        self.masks: Mapping[str, Any] = {}
        self._outputs: dict[str, Any] = {}
        self._seen: dict[str, Any] = {}  # of the step: its loss, its gradients
        self._saw: Saw | None = None
        known = {layer.name for layer in recipe.architecture.layers}
        self._shapes = {x.name: x.shape for x in recipe.architecture.weights}
        for layer in self.network.layers:
            if layer.name not in known:
                continue  # Keras's input, or a border that another layer has
            if isinstance(layer, keras.layers.Dropout):
                self.overrides[layer.name] = self._given_mask
            layer.call = partial(self._call, layer, layer.call)
        network, optimizer = self.network, self.network.optimizer
        network.compute_loss = partial(self._loss, network.compute_loss)
        optimizer.apply = partial(self._apply, optimizer.apply)
        self._restart()
        self._graph = tf.function(self._train, reduce_retracing=False)

    def evaluate(self, images: npt.NDArray[np.float32]) -> Arrays:
        x = images.astype(keras.config.floatx())
        with optimizers.averaged(self.network):
            self.network(tf.constant(x), training=False)
        outputs = {n: y.numpy() for n, y in self._outputs.items()}
        return {"input": x, **outputs}

    def logits(self, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        return self.trainer.logits(images)

    def _restart(self) -> None:
        """Be before the first epoch."""
        self._epoch = 0
        self._schedule = recipes.make_schedule(self.recipe)
        for callback in self._schedule:
            callback.set_model(self.network)

    def begin_epoch(self, epoch: int) -> None:
        seen = accuracies(epoch, self.recipe.decay.patience)
        for callback in self._schedule:
            for finished in range(self._epoch, epoch):
                callback.on_epoch_end(
                    finished, {recipes.ACCURACY: seen[finished]}
                )
            callback.on_epoch_begin(epoch)
        self._epoch = max(epoch, self._epoch)

    def learning_rates(self, length: int) -> npt.NDArray[np.float64]:
        epochs = self.recipe.epochs
        optimizer = recipes.make_optimizer(self.recipe)
        if self.recipe.decay.unit == "step":
            schedule = optimizer._learning_rate
            rates = schedule(tf.range(epochs * length, dtype=tf.int64))
            return np.asarray(keras.ops.convert_to_numpy(rates), np.float64)
        rates = []
        seen = accuracies(epochs, self.recipe.decay.patience)
        for callback in recipes.make_schedule(self.recipe):
            callback.set_model(_Rated(optimizer))
            for epoch, accuracy in enumerate(seen):
                callback.on_epoch_begin(epoch)
                rates.append(float(optimizer.learning_rate.numpy()))
                callback.on_epoch_end(epoch, {recipes.ACCURACY: accuracy})
        return np.repeat(rates, length)

    def step(self, step: TwinStep) -> Arrays:
        loss, outputs, gradients = self._graph(*self._given(step), traced=True)
        found = {f"activation.{n}": y.numpy() for n, y in outputs.items()}
        for name, gradient in zip(self._names(), gradients, strict=True):
            shape = self._shapes[name]  # a depthwise kernel has another here
            found[f"gradient.{name}"] = gradient.numpy().reshape(shape)
        return {"loss": loss.numpy(), **found}

    def advance(self, step: TwinStep) -> float:
        return float(self._graph(*self._given(step), traced=False))

    def watched(self, saw: Saw) -> Trainer:
        """The trainer, which tells `saw` every batch that it trains on."""
        self._saw = saw
        self.network.jit_compile = False  # compiled, nothing can be told
        return self.trainer

    def state(self) -> Arrays:
        state = {
            f"weight.{n}": x for n, x in self.trainer.own_weights().items()
        }
        for name, variable in self.slots().items():
            shape = self._shapes[name.rpartition(".")[0]]
            array = keras.ops.convert_to_numpy(variable).reshape(shape)
            state[f"slot.{name}"] = array.copy()
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
            if given is None:
                given = np.zeros(variable.shape)
            variable.assign(np.reshape(given, variable.shape))
        self.network.optimizer.iterations.assign(step)
        if isinstance(self.recipe.optimizer, Nadam):
            product = product_of_momentums(self.recipe.optimizer, step)
            self.network.optimizer._u_product.assign(product)
        self._restart()
        if self.recipe.decay.unit == "epoch":
            rate = self.recipe.optimizer.learning_rate
            self.network.optimizer.learning_rate = rate
        self.begin_epoch(epoch)

    def _given(self, step: TwinStep) -> tuple[Any, Any, dict[str, Any]]:
        images, labels = lesson.to_arrays(step)
        masks = {n: tf.constant(mask) for n, mask in step.masks.items()}
        return tf.constant(images), tf.constant(labels), masks

    def _train(
        self, x: Any, labels: Any, masks: Mapping[str, Any], *, traced: bool
    ) -> Any:
        self.masks = masks
        self.network.train_step((x, labels))
        loss, gradients = self._seen["loss"], self._seen["gradients"]
        return (loss, dict(self._outputs), gradients) if traced else loss

    # What `train_step` calls, passed on.

    def _call(self, layer: Any, own: Any, x: Any, **options: Any) -> Any:
        override = self.overrides.get(layer.name)
        if override:
            y = override(layer, x, options.get("training", False))
        else:
            y = own(x, **options)
        self._outputs[layer.name] = y
        return y

    def _loss(
        self,
        own: Any,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        if training and self._saw:
            tf.numpy_function(self._tell, [x, y], [])
        if self.loss:
            found = self.loss(y, y_pred)
        else:
            found = own(x, y, y_pred, sample_weight, training=training)
        self._seen["loss"] = found
        return found

    def _apply(self, own: Any, gradients: Any, variables: Any = None) -> Any:
        self._seen["gradients"] = gradients
        return own(gradients, variables)

    def _tell(self, images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
        assert self._saw
        self._saw(images, labels)

    def _given_mask(self, layer: Any, x: Any, training: bool) -> Any:
        if not training or not layer.rate:
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
        names = SLOTS[self.recipe.optimizer.kind] | AVERAGE
        known = {
            f"{weight.path.replace('/', '_')}_{own}": (
                f"{layer.name}.{weight.name}.{slot}"
            )
            for layer in self.network.layers
            for weight in layer.trainable_weights
            for own, slot in names.items()
        }
        return {
            known[variable.name]: variable
            for variable in self.network.optimizer.variables
            if variable.name in known
        }
