"""What a recipe may ask for: the lesson's parts, and others beside them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers

from paripassu.core.recipe import Recipe
from paripassu.frameworks.tensorflow import layers as own_layers
from paripassu.frameworks.tensorflow import lesson, optimizers

BYTE_RATES = frozenset(n / 256 for n in range(1, 256))
ACCURACY = "val_accuracy"  # what Keras calls that of the validation images


def set_precision(recipe: Recipe) -> None:
    """Set the number type of all Keras, and the place of the channels."""
    keras.config.set_floatx(recipe.storage)
    mixed = recipe.precision == "bfloat16"
    keras.config.set_dtype_policy("mixed_bfloat16" if mixed else recipe.storage)
    keras.config.set_image_data_format("channels_last")


def module_of(recipe: Recipe) -> Any:
    """The module with the recipe's network."""
    if recipe.network == "article":
        return lesson
    module = recipe.network.replace("-", "_")
    folder = "paripassu.frameworks.tensorflow.networks"
    return importlib.import_module(f"{folder}.{module}")


def make_network(recipe: Recipe, *, plain: bool = False) -> Any:
    """The recipe's network, a Keras model, with a softmax if it has one.

    Its layers have the names of the architecture; a plain one has Keras's own
    layers alone.
    """
    if recipe.layers is not None:
        return own_layers.make_network(
            recipe.architecture, recipe.dropout, plain=plain
        )
    module = module_of(recipe)
    if plain and hasattr(module, "make_plain_network"):
        network = module.make_plain_network()
    else:
        network = module.make_network(**recipe.dropout)
    if recipe.output == "probabilities":
        network.add(layers.Softmax(name="softmax"))
    return network


def to_plain(recipe: Recipe, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Weights for the recipe's plain network."""
    if recipe.layers is not None:
        return own_layers.to_plain(recipe.architecture, weights)
    change = getattr(module_of(recipe), "to_plain", dict)
    return dict(change(weights))


def from_plain(recipe: Recipe, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays of a `.keras` file for the recipe's network.

    Raises:
        UserError: they are those of another network.
    """
    if recipe.layers is not None:
        return own_layers.from_plain(recipe.architecture, weights)
    change = getattr(module_of(recipe), "from_plain", dict)
    return dict(change(weights))


def drop_by_bytes(network: Any) -> None:
    """Let dropout on a CPU draw 8 random bits for a number, not 32.

    A byte is as good where the rate is a multiple of 1/256: the chance of each
    number to be dropped is exactly the rate, and the numbers stay independent.
    Other rates are left as they are. The layers stay Keras's, with their
    generators, so that files do not change.
    """
    for layer in network.layers:
        if isinstance(layer, layers.Dropout) and layer.rate in BYTE_RATES:
            layer.call = partial(_dropped, layer)


def _dropped(layer: Any, inputs: Any, training: bool = False) -> Any:
    if not training:
        return inputs
    shape = tf.shape(inputs)
    count = tf.reduce_prod(shape)
    words = tf.random.stateless_uniform(
        [(count + 3) // 4],
        layer.seed_generator.next(),
        minval=None,
        maxval=None,  # all 32 bits
        dtype=tf.int32,
    )
    noise = tf.reshape(tf.bitcast(words, tf.uint8), [-1])[:count]
    limit = tf.constant(round(layer.rate * 256), tf.uint8)
    kept = tf.cast(tf.reshape(noise, shape) >= limit, inputs.dtype)
    return inputs * (kept * (1 / (1 - layer.rate)))


def make_loss(recipe: Recipe) -> Any:
    """From labels and what leaves the network to the mean loss, a scalar.

    It keeps the number type that was set when it was made.
    """
    if recipe.label_smoothing:
        return SmoothedCrossEntropy(recipe.label_smoothing)
    if recipe.output == "logits":
        return lesson.make_loss()
    if recipe.loss == "cross_entropy_on_probabilities":
        # Keras sees the softmax and computes from the logits, without overflow.
        return keras.losses.SparseCategoricalCrossentropy()
    return SoftmaxTwice(from_logits=True)


def make_optimizer(recipe: Recipe) -> Any:
    """The optimizer in its form, with the schedule if that counts steps."""
    chosen, decay = recipe.optimizer, recipe.decay
    if decay.unit == "epoch" and chosen.kind == "adadelta":
        optimizer = lesson.make_optimizer(recipe)
    else:
        rate = chosen.learning_rate
        if decay.unit == "step":
            rate = _schedule(recipe)
        optimizer = optimizers.make(chosen, rate)
    if chosen.kind == "adadelta" and not tf.config.get_visible_devices("GPU"):
        optimizers.update_in_one_pass(optimizer)
    if recipe.clip_global_norm:
        optimizer.global_clipnorm = recipe.clip_global_norm
    if recipe.average_decay:
        optimizers.keep_average(optimizer, recipe.average_decay)
    return optimizer


def _schedule(recipe: Recipe) -> Any:
    """The rate by what is finished, units counted from 0."""
    rate, decay = recipe.optimizer.learning_rate, recipe.decay
    if decay.shape == "linear":
        return optimizers.LinearDecay(rate, decay.warm_up, decay.interval)
    if decay.shape != "exponential":
        start = decay.start if decay.shape == "one_cycle" else 0.0
        return optimizers.CosineDecay(
            rate, decay.warm_up, decay.interval, start, decay.final
        )
    return optimizers.ExponentialDecay(rate, decay.interval, decay.factor)


def make_schedule(recipe: Recipe) -> list[Any]:
    """The callbacks that set the rate; none if the optimizer has a schedule."""
    if recipe.decay.unit == "step":
        return []
    decay = recipe.decay
    if decay.shape == "exponential":
        return [lesson.make_schedule(recipe)]
    if decay.shape == "plateau":
        return [
            Plateau(
                ACCURACY,
                decay.factor,
                decay.patience,
                mode="max",
                min_delta=0,
                min_lr=decay.final * recipe.optimizer.learning_rate,
            )
        ]
    schedule = _schedule(recipe)
    return [
        keras.callbacks.LearningRateScheduler(
            lambda epoch: float(schedule(epoch))
        )
    ]


class Plateau(keras.callbacks.ReduceLROnPlateau):  # type: ignore[misc]
    """Keras's, but what it has seen can be kept for a later `fit`."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Forget nothing."""

    @property
    def seen(self) -> npt.NDArray[np.float64]:
        """The best accuracy so far, and the epochs since."""
        best = -np.inf if self.best is None else float(self.best)
        return np.array([best, self.wait], np.float64)

    @seen.setter
    def seen(self, seen: npt.NDArray[np.float64]) -> None:
        best, wait = seen.tolist()
        self.best, self.wait = (best if best >= 0 else None), int(wait)


@keras.saving.register_keras_serializable("paripassu")
class SmoothedCrossEntropy(keras.losses.Loss):  # type: ignore[misc]
    """Cross-entropy of logits with smoothed labels, which are integers.

    Keras smooths one-hot labels only.
    """

    def __init__(self, smoothing: float, **options: Any) -> None:
        super().__init__(**options)
        self.smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each image; a softmax in front of it is left as it is."""
        classes = y_pred.shape[-1]
        numbers = tf.reshape(tf.cast(y_true, tf.int32), [-1])
        right = tf.one_hot(numbers, classes, dtype=y_pred.dtype)
        labels = right * (1 - self.smoothing) + self.smoothing / classes
        return keras.ops.categorical_crossentropy(
            labels, tf.identity(y_pred), from_logits=True
        )

    def get_config(self) -> dict[str, Any]:
        """What Keras saves of it."""
        return {**super().get_config(), "smoothing": self.smoothing}


@keras.saving.register_keras_serializable("paripassu")
class SoftmaxTwice(
    keras.losses.SparseCategoricalCrossentropy  # type: ignore[misc]
):
    """Takes probabilities for logits, as PyTorch's `CrossEntropyLoss` would.

    Keras looks for a softmax in front of its loss and undoes it, with a
    warning: here it finds none.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each image."""
        return super().call(y_true, tf.identity(y_pred))
