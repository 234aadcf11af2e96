"""Seeded faults in Keras's own words: see `paripassu.frameworks.faults`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from paripassu.core.architecture import Layer
from paripassu.frameworks.faults import faulty_layer, instead
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


def _kernel(conv: Any) -> Any:
    """What the layer convolves with: some have a table of connections."""
    if not hasattr(conv, "table"):
        return conv.kernel
    connected = np.zeros(conv.kernel.shape[2:])
    for output, channels in enumerate(conv.table):
        connected[channels, output] = 1
    return conv.kernel * tf.constant(connected, conv.kernel.dtype)


def _padding(conv: Any, x: Any, _training: bool) -> Any:
    size = conv.kernel_size[0] // 2
    padded = tf.pad(x, ((0, 0), (size, size), (size, size), (0, 0)))
    cut = slice(None, -2 * size)
    return ops.conv(padded, _kernel(conv))[:, cut, cut] + conv.bias


def _kernel_transposed(conv: Any, x: Any, _training: bool) -> Any:
    return ops.conv(x, ops.transpose(_kernel(conv), (1, 0, 2, 3))) + conv.bias


def _kernel_flipped(conv: Any, x: Any, _training: bool) -> Any:
    return ops.conv(x, ops.flip(_kernel(conv), (0, 1))) + conv.bias


def _swapped_bias(conv: Any, x: Any, _training: bool) -> Any:
    return ops.conv(x, _kernel(conv)) + ops.flip(conv.bias)


def _frozen_kernel(conv: Any, x: Any, _training: bool) -> Any:
    frozen = tf.stop_gradient(conv.kernel) + 0 * conv.kernel
    return ops.conv(x, frozen) + conv.bias


def _table_ignored(conv: Any, x: Any, _training: bool) -> Any:
    return ops.conv(x, conv.kernel) + conv.bias


def _subsample_mean(layer: Any, x: Any, _training: bool) -> Any:
    return (type(layer).call(layer, x) - layer.bias) / 4 + layer.bias


def _border(_layer: Any, x: Any, _training: bool) -> Any:
    for _ in range(2):
        x = tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "SYMMETRIC")
    return x


def _reduced_precision(conv: Any, x: Any, _training: bool) -> Any:
    less = "float32" if x.dtype == tf.float64 else "bfloat16"
    y = ops.conv(tf.cast(x, less), tf.cast(_kernel(conv), less))
    return tf.cast(y, x.dtype) + conv.bias


def _flatten_order(_layer: Any, x: Any, _training: bool) -> Any:
    moved = ops.transpose(x, (0, 3, 1, 2))
    return ops.reshape(moved, (ops.shape(x)[0], -1))


def _override(layer: str, function: Override) -> Callable[[Twin], None]:
    def put(twin: Twin) -> None:
        twin.overrides[layer] = function

    return put


def _softmax_twice(twin: Twin) -> None:
    # Keras looks for a softmax before its loss and undoes it, with a warning:
    # this one is written so that it is not seen.
    right = twin.trainer.loss
    twin.loss = lambda labels, logits: right(
        labels, tf.exp(tf.nn.log_softmax(logits))
    )


def _softmax_once(twin: Twin) -> None:
    twin.loss = keras.losses.SparseCategoricalCrossentropy()


def _summed_loss(twin: Twin) -> None:
    right = twin.trainer.loss
    twin.loss = lambda labels, output: (
        right(labels, output) * ops.cast(ops.shape(output)[0], output.dtype)
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


def _in(
    fault: str, change: Callable[[Any, Layer], None]
) -> Callable[[Twin], None]:
    """A fault that changes a setting of its layer."""

    def put(twin: Twin) -> None:
        layer = faulty_layer(fault, twin.recipe)
        change(twin.network.get_layer(layer.name), layer)

    return put


def _other_epsilon(made: Any, layer: Layer) -> None:
    made.epsilon = 1e-3 if layer.settings["epsilon"] != 1e-3 else 1e-5


def _other_momentum(made: Any, layer: Layer) -> None:
    made.momentum = 0.99 if layer.settings["momentum"] != 0.99 else 0.9


def _batch_statistics(_layer: Layer) -> Override:
    def normalise(made: Any, x: Any, training: bool) -> Any:
        if training:
            return type(made).call(made, x, training=True)
        mean, variance = ops.moments(x, list(range(len(x.shape) - 1)))
        return ops.batch_normalization(
            x, mean, variance, -1, made.beta, made.gamma, made.epsilon
        )

    return normalise


def _unbiased(_layer: Layer) -> Override:
    def normalise(made: Any, x: Any, training: bool) -> Any:
        y = type(made).call(made, x, training=training)
        if training:
            variance = ops.moments(x, list(range(len(x.shape) - 1)))[1]
            count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
            more = (1 - made.momentum) * variance / (count - 1)
            made.moving_variance.assign_add(more)
        return y

    return normalise


def _padded_before(layer: Layer) -> Override:
    frame = ((0, 0), *(x[::-1] for x in layer.settings["padding"]), (0, 0))

    def padded(made: Any, x: Any, _training: bool) -> Any:
        if layer.kind == "max_pool":
            x = ops.pad(x, frame, constant_values=float("-inf"))
            return ops.max_pool(x, made.pool_size, made.strides)
        y = ops.conv(
            ops.pad(x, frame),
            made.kernel,
            made.strides,
            dilation_rate=made.dilation_rate,
        )
        return y + made.bias if made.use_bias else y

    return padded


def _padding_counts(layer: Layer) -> Override:
    frame = ((0, 0), *layer.settings["padding"], (0, 0))
    return lambda made, x, _: ops.average_pool(
        ops.pad(x, frame), made.pool_size, made.strides
    )


def _other_slope(made: Any, layer: Layer) -> None:
    made.negative_slope = 0.3 if layer.settings["slope"] != 0.3 else 0.01


def _other_alpha(made: Any, layer: Layer) -> None:
    made.alpha = layer.settings["alpha"] / 2


def _other_gelu(layer: Layer) -> Override:
    other = not layer.settings["approximate"]
    return lambda _, x, __: ops.gelu(x, approximate=other)


def _flipped_channels(_layer: Layer) -> Override:
    return lambda made, x, _: type(made).call(made, ops.flip(x, -1))


def _rectified_first(_layer: Layer) -> Override:
    return lambda _, x, __: sum(ops.relu(each) for each in x)


def _without_last(_layer: Layer) -> Override:
    return lambda _, x, __: x[0] + sum(x[1:-1]) + 0 * x[-1]


NATIVE: dict[str, Callable[[Twin], None]] = {
    "dropout-in-evaluation": _dropout_in_evaluation,
    "dropout-unscaled": _dropout_unscaled,
    "flatten-order": instead("flatten-order", lambda _: _flatten_order),
    "batch-norm-epsilon": _in("batch-norm-epsilon", _other_epsilon),
    "batch-norm-in-evaluation": instead(
        "batch-norm-in-evaluation", _batch_statistics
    ),
    "batch-norm-momentum": _in("batch-norm-momentum", _other_momentum),
    "batch-norm-variance": instead("batch-norm-variance", _unbiased),
    "layer-norm-epsilon": _in("layer-norm-epsilon", _other_epsilon),
    "group-norm-epsilon": _in("group-norm-epsilon", _other_epsilon),
    "padding-before": instead("padding-before", _padded_before),
    "padding-counts": instead("padding-counts", _padding_counts),
    "leaky-slope": _in("leaky-slope", _other_slope),
    "elu-alpha": _in("elu-alpha", _other_alpha),
    "gelu-form": instead("gelu-form", _other_gelu),
    "groups": instead("groups", _flipped_channels),
    "relu-before-addition": instead("relu-before-addition", _rectified_first),
    "addition-left-out": instead("addition-left-out", _without_last),
    "concatenation-order": instead(
        "concatenation-order",
        lambda _: lambda _, x, __: ops.concatenate(x[::-1], -1),
    ),
    "padding": _override("conv2", _padding),
    "kernel-transposed": _override("conv2", _kernel_transposed),
    "kernel-flipped": _override("conv1", _kernel_flipped),
    "average-pool": _override("pool", lambda _, x, __: ops.average_pool(x, 2)),
    "leaky-relu": _override("relu1", lambda _, x, __: ops.leaky_relu(x, 0.01)),
    "missing-relu": _override("relu3", lambda _, x, __: x),
    "plain-tanh": _override("tanh1", lambda _, x, __: ops.tanh(x)),
    "subsample-mean": _override("subsample1", _subsample_mean),
    "border": _override("pad", _border),
    "softmax-axis": _override(
        "softmax", lambda _, x, __: ops.softmax(x, axis=0)
    ),
    "reduced-precision": _override("conv2", _reduced_precision),
    "softmax-twice": _softmax_twice,
    "softmax-once": _softmax_once,
    "summed-loss": _summed_loss,
    "swapped-bias": _override("conv2", _swapped_bias),
    "table-ignored": _override("conv2", _table_ignored),
    "frozen-kernel": _override("conv1", _frozen_kernel),
    "weight-decay": _weight_decay,
    "gradients-accumulate": _gradients_accumulate,
    "optimizer-reset": _optimizer_reset,
}
