"""Seeded faults in Keras's own words: see `paripassu.frameworks.faults`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from paripassu.frameworks.tensorflow.twin import Override, Twin


def _dropout_in_evaluation(twin: Twin) -> None:
    given = twin.overrides["dropout1"]

    def dropout(layer: Any, x: Any, training: bool) -> Any:
        if training:
            return given(layer, x, training)
        return tf.nn.dropout(x, layer.rate)

    twin.overrides["dropout1"] = dropout


def _dropout_unscaled(twin: Twin) -> None:
    given = twin.overrides["dropout1"]

    def dropout(layer: Any, x: Any, training: bool) -> Any:
        scale = 1 - layer.rate if training else 1
        return given(layer, x, training) * scale

    twin.overrides["dropout1"] = dropout


def _padding(conv: Any, x: Any, _training: bool) -> Any:
    padded = tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return ops.conv(padded, conv.kernel)[:, :-2, :-2] + conv.bias


def _kernel_transposed(conv: Any, x: Any, _training: bool) -> Any:
    return ops.conv(x, ops.transpose(conv.kernel, (1, 0, 2, 3))) + conv.bias


def _kernel_flipped(conv: Any, x: Any, _training: bool) -> Any:
    return ops.conv(x, ops.flip(conv.kernel, (0, 1))) + conv.bias


def _swapped_bias(conv: Any, x: Any, _training: bool) -> Any:
    return ops.conv(x, conv.kernel) + ops.flip(conv.bias)


def _frozen_kernel(conv: Any, x: Any, _training: bool) -> Any:
    frozen = tf.stop_gradient(conv.kernel) + 0 * conv.kernel
    return ops.conv(x, frozen) + conv.bias


def _reduced_precision(conv: Any, x: Any, _training: bool) -> Any:
    less = "float32" if x.dtype == tf.float64 else "bfloat16"
    y = ops.conv(tf.cast(x, less), tf.cast(conv.kernel, less))
    return tf.cast(y, x.dtype) + conv.bias


def _flatten_order(_layer: Any, x: Any, _training: bool) -> Any:
    return ops.reshape(ops.transpose(x, (0, 3, 1, 2)), (-1, 9216))


def _override(layer: str, function: Override) -> Callable[[Twin], None]:
    def put(twin: Twin) -> None:
        twin.overrides[layer] = function

    return put


def _softmax_twice(twin: Twin) -> None:
    # Keras looks for a softmax before its loss and undoes it, with a warning:
    # this one is written so that it is not seen.
    right = twin.loss
    twin.loss = lambda labels, logits: right(
        labels, tf.exp(tf.nn.log_softmax(logits))
    )


def _summed_loss(twin: Twin) -> None:
    twin.loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="sum"
    )


def _weight_decay(twin: Twin) -> None:
    twin.network.optimizer.weight_decay = 1e-4


def _gradients_accumulate(twin: Twin) -> None:
    optimizer = twin.network.optimizer
    apply = optimizer.apply
    variables = twin.network.trainable_variables
    sums = [tf.Variable(tf.zeros(x.shape, x.dtype)) for x in variables]

    def accumulate(gradients: Any, variables: Any) -> None:
        for total, gradient in zip(sums, gradients, strict=True):
            total.assign_add(gradient)
        apply([total.value() for total in sums], variables)

    optimizer.apply = accumulate


def _optimizer_reset(twin: Twin) -> None:
    optimizer = twin.network.optimizer
    apply = optimizer.apply

    def forget(gradients: Any, variables: Any) -> None:
        for slot in twin.slots().values():
            slot.assign(tf.zeros(slot.shape, slot.dtype))
        apply(gradients, variables)

    optimizer.apply = forget


NATIVE: dict[str, Callable[[Twin], None]] = {
    "dropout-in-evaluation": _dropout_in_evaluation,
    "dropout-unscaled": _dropout_unscaled,
    "flatten-order": _override("flatten", _flatten_order),
    "padding": _override("conv2", _padding),
    "kernel-transposed": _override("conv2", _kernel_transposed),
    "kernel-flipped": _override("conv1", _kernel_flipped),
    "average-pool": _override("pool", lambda _, x, __: ops.average_pool(x, 2)),
    "leaky-relu": _override("relu1", lambda _, x, __: ops.leaky_relu(x, 0.01)),
    "missing-relu": _override("relu3", lambda _, x, __: x),
    "reduced-precision": _override("conv2", _reduced_precision),
    "softmax-twice": _softmax_twice,
    "summed-loss": _summed_loss,
    "swapped-bias": _override("conv2", _swapped_bias),
    "frozen-kernel": _override("conv1", _frozen_kernel),
    "weight-decay": _weight_decay,
    "gradients-accumulate": _gradients_accumulate,
    "optimizer-reset": _optimizer_reset,
}
