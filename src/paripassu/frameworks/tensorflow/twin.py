"""The TensorFlow lesson step by step, under given weights, images and masks.

It uses the lesson's network, loss and optimizer and defines no layer itself:
it walks the network's layers, with the given masks in place of dropout's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

from paripassu.core.recipe import Recipe
from paripassu.frameworks import Arrays, TwinStep
from paripassu.frameworks.tensorflow import lesson
from paripassu.frameworks.tensorflow.trainer import Trainer


def trace(
    recipe: Recipe,
    *,
    weights: Mapping[str, npt.NDArray[Any]],
    steps: Sequence[TwinStep],
    threads: int,
    device: str,
) -> Arrays:
    """What the network computes: see `paripassu.frameworks.Framework.trace`."""
    trainer = Trainer(recipe, weights=weights, threads=threads, device=device)
    network, cross_entropy = trainer.network, lesson.make_loss()
    arrays: Arrays = {"logits": trainer.logits(steps[0].images)}
    for number, step in enumerate(steps):
        x, labels = lesson.to_arrays(step)
        outputs: dict[str, Any] = {}
        with tf.GradientTape() as tape:
            for layer in network.layers:
                if isinstance(layer, keras.layers.Dropout):
                    mask = tf.cast(step.masks[layer.name], x.dtype)
                    x = x * mask / (1 - layer.rate)
                else:
                    x = layer(x, training=True)
                outputs[layer.name] = x
            loss = cross_entropy(labels, x)
        variables = network.trainable_variables
        gradients = tape.gradient(loss, variables)
        network.optimizer.apply_gradients(
            zip(gradients, variables, strict=True)
        )
        arrays[f"{number}.loss"] = loss.numpy()
        for name, output in outputs.items():
            arrays[f"{number}.activation.{name}"] = output.numpy()
        names = [
            f"{layer.name}.{weight.name}"
            for layer in network.layers
            for weight in layer.trainable_weights
        ]
        for name, gradient in zip(names, gradients, strict=True):
            arrays[f"{number}.gradient.{name}"] = gradient.numpy()
        for name, array in trainer.weights().items():
            arrays[f"{number}.weight.{name}"] = array
    return arrays
