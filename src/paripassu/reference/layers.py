"""Every kind of layer in NumPy and float64, by hand: forward, and backward if trained.

Kinds, settings and axes are those of `core.layer_spec`; channels are last. Forward
takes the layer and its inputs. Backward takes the layer, its input x, its output y and
the gradient, which here always means that of the loss with respect to y. It returns the
gradient with respect to x and those with respect to the weights, by name.

Each backward is the chain rule: x[j] moves the loss through every y[i] that it has a
part in, so dL/dx[j] is the sum over i of dL/dy[i] * dy[i]/dx[j].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from paripassu.core.layer_spec import Array, LayerSpec, UnknownLayerError
from paripassu.reference import activations, windows
from paripassu.reference.losses import softmax
from paripassu.reference.recurrent import RECURRENT

Gradients = tuple[Array, dict[str, Array]]
Statistics = dict[str, Array]


def apply(layer: LayerSpec, inputs: Sequence[Array]) -> Array:
    """What a layer makes of its inputs, float64.

    Args:
        layer: kind, settings and weights.
        inputs: arrays with channels last; one, but for `add`, `attention` and so on.

    Raises:
        UnknownLayerError: the kind or a setting is not one that is computed here.
    """
    if layer.kind not in FORWARD:
        raise UnknownLayerError(layer.kind)
    weights = {name: np.asarray(x, np.float64) for name, x in layer.weights.items()}
    exact = LayerSpec(layer.kind, layer.settings, weights)
    return FORWARD[layer.kind](exact, *(np.asarray(x, np.float64) for x in inputs))


def dense(layer: LayerSpec, x: Array) -> Array:
    """Every output is a weighted sum of all inputs: y = x @ kernel + bias."""
    y = x @ layer.weights["kernel"]
    return y + layer.weights["bias"] if "bias" in layer.weights else y


def dense_backward(layer: LayerSpec, x: Array, _y: Array, gradient: Array) -> Gradients:
    """Send the gradient back to x, the kernel and the bias.

    dL/dx      = gradient @ kernel.T
    dL/dkernel = x.T @ gradient
    dL/dbias   = sum over the rows of gradient
    """
    kernel = layer.weights["kernel"]
    rows = gradient.reshape(-1, gradient.shape[-1])
    found = {"kernel": x.reshape(-1, x.shape[-1]).T @ rows}
    if "bias" in layer.weights:
        found["bias"] = rows.sum(axis=0)
    return gradient @ kernel.T, found


def dropout(layer: LayerSpec, x: Array) -> Array:
    """Keep what the mask keeps, enlarged: y = x * mask / (1 - rate).

    The mask is True with probability 1 - rate, so that on average y is x, and nothing
    has to be rescaled when dropout is off: without a mask, y is x.
    """
    if layer.settings.get("mask") is None:
        return x
    return np.asarray(x * layer.settings["mask"] / (1 - layer.settings["rate"]))


def dropout_backward(
    layer: LayerSpec, _x: Array, _y: Array, gradient: Array
) -> Gradients:
    """dL/dx = gradient * mask / (1 - rate)."""
    return dropout(layer, gradient), {}


def flatten_backward(
    _layer: LayerSpec, x: Array, _y: Array, gradient: Array
) -> Gradients:
    """The same numbers in the shape of x."""
    return gradient.reshape(x.shape), {}


def _scaled(layer: LayerSpec, x: Array, mean: Array, variance: Array) -> Array:
    """Normalised, times gamma and plus beta where there are any."""
    x = (x - mean) / np.sqrt(variance + layer.settings.get("epsilon", 0.0))
    if "gamma" in layer.weights:
        x = x * layer.weights["gamma"]
    return x + layer.weights["beta"] if "beta" in layer.weights else x


def batch_norm(layer: LayerSpec, x: Array) -> Array:
    """By the statistics that are kept, or of the batch where none are."""
    if layer.settings.get("axis", -1) not in (-1, x.ndim - 1):
        raise UnknownLayerError("batch_norm over another axis")
    mean, variance = layer.weights.get("mean"), layer.weights.get("variance")
    if mean is None or variance is None:
        axes = tuple(range(x.ndim - 1))
        mean, variance = x.mean(axes), x.var(axes)
    return _scaled(layer, x, mean, variance)


def _scaled_backward(
    layer: LayerSpec, x: Array, gradient: Array, axes: tuple[int, ...]
) -> Gradients:
    """Send the gradient through a normalisation over `axes` of what is there.

    With n the normalised x and s its standard deviation, epsilon within:

    dL/dn     = gradient * gamma
    dL/dx     = (dL/dn - mean(dL/dn) - n * mean(dL/dn * n)) / s
    dL/dgamma = sum of gradient * n, dL/dbeta = sum of gradient, for each channel

    since every x moves mean and variance, and through them all numbers beside it.
    """
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    root = np.sqrt(variance + layer.settings.get("epsilon", 0.0))
    normal = (x - mean) / root
    to_normal, found = gradient, {}
    if "gamma" in layer.weights:
        size = layer.weights["gamma"].size
        found["gamma"] = (gradient * normal).reshape(-1, size).sum(0)
        to_normal = gradient * layer.weights["gamma"].reshape(x.shape[-1:])
    if "beta" in layer.weights:
        found["beta"] = gradient.reshape(-1, layer.weights["beta"].size).sum(0)
    pulled = to_normal - to_normal.mean(axes, keepdims=True)
    pulled -= normal * (to_normal * normal).mean(axes, keepdims=True)
    return pulled / root, found


def batch_norm_backward(
    layer: LayerSpec, x: Array, _y: Array, gradient: Array
) -> Gradients:
    """As in training: by the statistics of the batch, which x moves."""
    return _scaled_backward(layer, x, gradient, tuple(range(x.ndim - 1)))


def running_statistics(layer: LayerSpec, x: Array, kept: Statistics) -> Statistics:
    """What a step of training makes of the running mean and variance.

    new = momentum * old + (1 - momentum) * that of the batch

    The variance is the biased one, a mean over the batch, here as where it normalises:
    so Keras and Flax. PyTorch keeps the unbiased one.
    """
    axes, momentum = tuple(range(x.ndim - 1)), layer.settings["momentum"]
    batch = {"mean": x.mean(axes), "variance": x.var(axes)}
    return {
        name: momentum * kept[name] + (1 - momentum) * now
        for name, now in batch.items()
    }


def _last_axes(layer: LayerSpec) -> tuple[int, ...]:
    return tuple(range(-layer.settings.get("axes", 1), 0))


def layer_norm(layer: LayerSpec, x: Array) -> Array:
    """By the mean and variance of each example."""
    axes = tuple(layer.settings.get("axis") or _last_axes(layer))
    return _scaled(layer, x, x.mean(axes, keepdims=True), x.var(axes, keepdims=True))


def layer_norm_backward(
    layer: LayerSpec, x: Array, _y: Array, gradient: Array
) -> Gradients:
    """Each example, or each pixel of it, by itself."""
    return _scaled_backward(layer, x, gradient, _last_axes(layer))


def rms_norm(layer: LayerSpec, x: Array) -> Array:
    """By the root of the mean square."""
    square = np.mean(x**2, _last_axes(layer), keepdims=True)
    return _scaled(layer, x, np.zeros(()), square)


def group_norm(layer: LayerSpec, x: Array) -> Array:
    """By the mean and variance of each group of channels of each example."""
    groups = layer.settings["groups"]
    groups = groups if groups > 0 else x.shape[-1]
    split = x.reshape(len(x), -1, groups, x.shape[-1] // groups)

    def of_each(statistic: Array) -> Array:
        """One number for each channel, in the shape of x."""
        each = statistic.repeat(split.shape[-1], axis=-1)
        return each.reshape(len(x), *(1,) * (x.ndim - 2), x.shape[-1])

    return _scaled(layer, x, of_each(split.mean((1, 3))), of_each(split.var((1, 3))))


def group_norm_backward(
    layer: LayerSpec, x: Array, _y: Array, gradient: Array
) -> Gradients:
    """Each group of channels of each example by itself."""
    groups = layer.settings["groups"]
    channels = x.shape[-1]
    split = (len(x), -1, groups, channels // groups)
    gamma, plain = layer.weights.get("gamma"), layer.changed()
    plain = LayerSpec(plain.kind, plain.settings, {})
    to_normal = gradient if gamma is None else gradient * gamma
    to_x, _ = _scaled_backward(
        plain, x.reshape(split), to_normal.reshape(split), (1, 3)
    )
    rows = gradient.reshape(-1, channels)
    normal = group_norm(plain, x).reshape(-1, channels)
    found = {"gamma": (rows * normal).sum(0)} if gamma is not None else {}
    if "beta" in layer.weights:
        found["beta"] = rows.sum(0)
    return to_x.reshape(x.shape), found


def add_backward(
    _layer: LayerSpec, inputs: Sequence[Array], gradient: Array
) -> list[Array]:
    """Each of what is added moves the sum as much as it moves itself."""
    return [gradient] * len(inputs)


def concatenate_backward(
    layer: LayerSpec, inputs: Sequence[Array], gradient: Array
) -> list[Array]:
    """Each gets back its own channels."""
    axis = layer.settings.get("axis", -1)
    ends = np.cumsum([x.shape[axis] for x in inputs])[:-1]
    return np.split(gradient, ends, axis=axis)


HIDDEN = -1e30  # a score that no softmax shows


def attention(layer: LayerSpec, query: Array, *others: Array) -> Array:
    """Of several heads; value and key, where not given, are the one before.

    A setting `mask`, (n, heads or 1, queries or 1, keys), is true where a query sees a
    key; one that sees none sees all alike.
    """
    value = others[0] if others else query
    key = others[1] if len(others) > 1 else value
    weights, settings = layer.weights, layer.settings

    def split(x: Array, name: str) -> Array:
        made = x @ weights[name] + weights.get(f"{name}_bias", 0.0)
        return made.reshape(*made.shape[:-1], settings["heads"], -1).swapaxes(1, 2)

    q, k, v = split(query, "query"), split(key, "key"), split(value, "value")
    scores = q @ k.swapaxes(-1, -2) * settings["scale"]
    if settings.get("causal"):
        later = np.triu(np.ones(scores.shape[-2:], bool), 1)
        scores = np.where(later, -np.inf, scores)
    if (mask := settings.get("mask")) is not None:
        scores = np.where(mask, scores, HIDDEN)
    made = (softmax(scores) @ v).swapaxes(1, 2)
    joined = made.reshape(*made.shape[:2], -1)
    return np.asarray(joined @ weights["output"] + weights.get("output_bias", 0.0))


def _axis(layer: LayerSpec) -> Any:
    axis = layer.settings.get("axis")
    return tuple(axis) if isinstance(axis, list) else axis


FORWARD: dict[str, Callable[..., Array]] = {
    **activations.ACTIVATIONS,
    **RECURRENT,
    "dense": dense,
    "conv": windows.conv,
    "conv_transpose": windows.conv_transpose,
    "embedding": lambda layer, x: layer.weights["table"][x.astype(np.int64)],
    "attention": attention,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "max_pool": windows.max_pool,
    "average_pool": windows.average_pool,
    "subsample": windows.subsample,
    "global_average_pool": windows.global_pool,
    "global_max_pool": windows.global_pool,
    "upsample": windows.upsample,
    "pad": windows.pad,
    "crop": windows.crop,
    "dropout": dropout,
    "cast": lambda _, x: x,
    "flatten": lambda _, x: x.reshape(len(x), -1),
    "mean": lambda layer, x: x.mean(_axis(layer)),
    "sum": lambda layer, x: x.sum(_axis(layer)),
    "scale": lambda layer, x: (
        x * layer.settings.get("factor", 1.0) + layer.settings.get("offset", 0.0)
    ),
    "add": lambda _, *x: np.sum(x, axis=0),
    "multiply": lambda _, *x: np.prod(x, axis=0),
    "subtract": lambda _, left, right: left - right,
    "concatenate": lambda layer, *x: np.concatenate(
        x, axis=layer.settings.get("axis", -1)
    ),
}
BACKWARD: dict[str, Callable[[LayerSpec, Array, Array, Array], Gradients]] = {
    "dense": dense_backward,
    "conv": windows.conv_backward,
    "batch_norm": batch_norm_backward,
    "layer_norm": layer_norm_backward,
    "group_norm": group_norm_backward,
    "max_pool": windows.max_pool_backward,
    "average_pool": windows.average_pool_backward,
    "global_average_pool": windows.global_average_pool_backward,
    "global_max_pool": windows.global_max_pool_backward,
    "subsample": windows.subsample_backward,
    "pad": windows.pad_backward,
    "dropout": dropout_backward,
    "flatten": flatten_backward,
    "relu": activations.relu_backward,
    "leaky_relu": activations.leaky_relu_backward,
    "elu": activations.elu_backward,
    "gelu": activations.gelu_backward,
    "silu": activations.silu_backward,
    "tanh": activations.tanh_backward,
    "sigmoid": activations.sigmoid_backward,
    "softplus": activations.softplus_backward,
    "softmax": activations.softmax_backward,
}
# Of layers that take several: from inputs and gradient to the gradient of each input.
JOINS_BACKWARD: dict[
    str, Callable[[LayerSpec, Sequence[Array], Array], list[Array]]
] = {
    "add": add_backward,
    "concatenate": concatenate_backward,
}
