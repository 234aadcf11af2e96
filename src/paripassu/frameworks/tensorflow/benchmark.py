"""What `paripassu bench` times in TensorFlow."""

from __future__ import annotations

import statistics
import time
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from paripassu.core import datasets
from paripassu.core.recipe import Recipe
from paripassu.frameworks.tensorflow import lesson, recipes
from paripassu.frameworks.tensorflow.trainer import (
    Trainer,
    device_name,
    set_threads,
)

WARM_UP = 1.0  # seconds of products before those that count
PRODUCTS = 20
TURNS = 40  # of each layer's kernels; the first half is not counted


def device() -> str:
    """What this process computes on: "cpu", or the name of a GPU."""
    return device_name()


def matrix_product(size: int, recipe: Recipe, threads: int) -> list[float]:
    """Seconds of each of twenty products of two square matrices, warmed up."""
    set_threads(threads)
    left, right = (
        tf.cast(tf.random.uniform((size, size)), recipe.precision)
        for _ in range(2)
    )
    tf.matmul(left, right)[0, 0].numpy()
    end = time.perf_counter() + WARM_UP
    seconds: list[float] = []
    while time.perf_counter() < end or len(seconds) < PRODUCTS:
        start = time.perf_counter()
        tf.matmul(left, right)[0, 0].numpy()
        seconds.append(time.perf_counter() - start)
    return seconds[-PRODUCTS:]


def kernels(recipe: Recipe, threads: int) -> float:
    """Seconds of a step's convolutions and matrix products, and nothing else.

    Each layer with weights runs alone, forward and backward as in training, on
    what a batch of random images gives it; the sum of their medians.
    """
    set_threads(threads)
    recipes.set_precision(recipe)
    network = recipes.make_network(recipe)
    x = tf.random.uniform((recipe.batch_size, *recipe.architecture.input_shape))
    known = {x.name: x.kind for x in recipe.architecture.layers}
    timed = [
        layer
        for layer in network.layers
        if layer.trainable_weights and not known[layer.name].endswith("_norm")
    ]
    inputs = keras.Model(network.inputs, [layer.input for layer in timed])(x)
    return sum(
        _layer_seconds(layer, given, is_first=number == 0)
        for number, (layer, given) in enumerate(
            zip(timed, tf.nest.flatten(inputs), strict=True)
        )
    )


def _layer_seconds(layer: Any, x: Any, *, is_first: bool) -> float:
    slope = tf.random.uniform(layer(x).shape)
    slope = tf.cast(slope, layer.compute_dtype)
    wanted = layer.trainable_variables

    @tf.function  # type: ignore[untyped-decorator]
    def gradients(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        # No gradient goes to the images. What is not returned is not computed.
        sources = wanted if is_first else [*wanted, x]
        return y, tape.gradient(y, sources, slope)

    seconds: list[float] = []
    for _ in range(TURNS):
        start = time.perf_counter()
        gradients(x)
        tf.test.experimental.sync_devices()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[TURNS // 2 :])


def lesson_epoch(
    trainer: Trainer, recipe: Recipe, training: datasets.Split
) -> float:
    """Seconds of one epoch of the lesson's `fit`, with nothing around it."""
    clock = _Clock()
    once = recipe.changed(epochs=1)
    lesson.train(trainer.network, once, trainer.fed(training), None, [clock])
    return clock.seconds


class Notebook:
    """A training in the style of the article's TensorFlow notebook.

    Written by us: `fit` on NumPy arrays with one-hot labels, the article's
    network, optimizer and schedule.
    """

    def __init__(
        self, raw: datasets.ImageData, *, threads: int, seed: int
    ) -> None:
        set_threads(threads)
        keras.utils.set_random_seed(seed)
        prepared = datasets.prepare(raw, mean=0.1307, std=0.3081)
        self._training = _with_one_hot(prepared.training)
        self._test = _with_one_hot(prepared.test)
        self._network = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                layers.Conv2D(32, 3, activation="relu"),
                layers.Conv2D(64, 3, activation="relu"),
                layers.MaxPooling2D(),
                layers.Dropout(0.25),
                layers.Flatten(),
                layers.Dense(128, activation="relu"),
                layers.Dropout(0.5),
                layers.Dense(10, activation="softmax"),
            ]
        )
        schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 60_000, 0.7)
        self._network.compile(
            optimizer=keras.optimizers.Adadelta(schedule),
            loss="categorical_crossentropy",
            metrics=["accuracy"],
        )
        start = self._network.get_weights()
        few = [x[:192] for x in self._training]  # compilation is not timed
        self._network.fit(*few, batch_size=64, verbose=0)
        self._network.set_weights(start)

    def epoch(self) -> float:
        """Train once on all images: seconds."""
        start = time.perf_counter()
        self._network.fit(*self._training, batch_size=64, verbose=0)
        return time.perf_counter() - start

    def accuracy(self) -> float:
        """The share of right answers on the test images, not timed."""
        found = self._network.evaluate(*self._test, batch_size=1000, verbose=0)
        return round(float(found[1]), 6)


def _with_one_hot(split: datasets.Split) -> tuple[Any, Any]:
    labels = keras.utils.to_categorical(split.labels, 10)
    return split.images, labels


class _Clock(keras.callbacks.Callback):  # type: ignore[misc]
    """From the beginning of an epoch, without validation, to its end."""

    seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Start."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Stop."""
        self.seconds = time.perf_counter() - self._start
