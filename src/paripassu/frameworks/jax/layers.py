"""Any network of a recipe's `[[layers]]` as an `nnx.Module`.

A layer is Flax's own wherever one computes what `paripassu.core.layer_spec`
says; what has neither weights nor randomness is a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from paripassu.core.architecture import IMAGES, Layer, Network
from paripassu.frameworks.jax.lesson import flatten
from paripassu.frameworks.jax.networks.lenet5 import Subsample

NONE = ((0, 0), (0, 0))
# A variance in one pass, E[x**2] - E[x]**2, is fast and loses digits.
EXACT = {"use_fast_variance": False}


class Layers(nnx.Module):  # type: ignore[misc]
    """Layers by name, each applied to what its inputs gave."""

    def __init__(
        self, network: Network, rates: Mapping[str, float], *, rngs: nnx.Rngs
    ) -> None:
        self.graph = nnx.static(
            tuple((x.name, x.inputs) for x in network.layers)
        )
        for layer in network.layers:
            shape = network.shape_of(layer.inputs[0])
            setattr(self, layer.name, _made(layer, shape, rates, rngs))

    def __call__(self, x: Any) -> Any:  # (N, h, w, c)
        """From images to what the last layer gives."""
        outputs = {IMAGES: x}
        for name, inputs in self.graph:
            given = (outputs[source] for source in inputs)
            x = outputs[name] = getattr(self, name)(*given)
        return x


def _made(
    layer: Layer,
    shape: tuple[int, ...],
    rates: Mapping[str, float],
    rngs: nnx.Rngs,
) -> Any:
    """The module or the function of a layer that takes `shape`."""
    settings = layer.settings
    match layer.kind:
        case "conv":
            return _convolution(layer, shape, rngs)
        case "dense":
            inputs, units = layer.weights[0].shape
            bias = len(layer.weights) > 1
            return nnx.Linear(inputs, units, use_bias=bias, rngs=rngs)
        case "batch_norm":
            return nnx.BatchNorm(shape[-1], **settings, **EXACT, rngs=rngs)
        case "layer_norm":
            return nnx.LayerNorm(shape[-1], **settings, **EXACT, rngs=rngs)
        case "group_norm":
            groups, epsilon = settings["groups"], settings["epsilon"]
            return nnx.GroupNorm(
                shape[-1], groups, epsilon=epsilon, **EXACT, rngs=rngs
            )
        case "dropout":
            return nnx.Dropout(rates[layer.name], rngs=rngs)
        case "subsample":
            return Subsample(shape[-1])
        case _:
            return function(layer.kind, tuple(sorted(settings.items())))


def _convolution(layer: Layer, shape: tuple[int, ...], rngs: nnx.Rngs) -> Any:
    kernel, settings = layer.weights[0], layer.settings
    *size, _, outputs = kernel.shape
    options = {}
    if kernel.table:
        connected = np.broadcast_to(kernel.connected, kernel.shape)
        options["mask"] = nnx.data(jnp.asarray(connected, jnp.float32))
    return nnx.Conv(
        shape[-1],
        outputs,
        tuple(size),
        strides=settings.get("strides", (1, 1)),
        padding=settings.get("padding", NONE),
        kernel_dilation=settings.get("dilation", (1, 1)),
        feature_group_count=settings.get("groups", 1),
        use_bias=len(layer.weights) > 1,
        rngs=rngs,
        **options,
    )


@cache  # one function, so that what was compiled for it is found again
def function(kind: str, settings: tuple[tuple[str, Any], ...]) -> Any:
    """What a layer without weights computes."""
    known: dict[str, Callable[..., Any]] = {
        "relu": nnx.relu,
        "leaky_relu": leaky_relu,
        "elu": nnx.elu,
        "gelu": nnx.gelu,
        "silu": nnx.silu,
        "sigmoid": nnx.sigmoid,
        "softplus": nnx.softplus,
        "tanh": tanh,
        "max_pool": max_pool,
        "average_pool": average_pool,
        "global_average_pool": partial(jnp.mean, axis=(1, 2)),
        "global_max_pool": partial(jnp.max, axis=(1, 2)),
        "flatten": flatten,
        "add": add,
        "concatenate": concatenate,
        "pad": pad,
        "softmax": nnx.softmax,
    }
    return partial(known[kind], **dict(settings)) if settings else known[kind]


def leaky_relu(x: Any, *, slope: float) -> Any:
    """At 0 its slope is that of below; `nnx.leaky_relu` has that of above."""
    return jnp.where(x > 0, x, slope * x)


def tanh(x: Any, *, amplitude: float, slope: float) -> Any:
    """A tanh with two scales."""
    return amplitude * nnx.tanh(slope * x)


def max_pool(
    x: Any, *, size: Any, strides: Any = None, padding: Any = NONE
) -> Any:
    """The largest of each window."""
    return nnx.max_pool(x, size, strides or size, padding)


def average_pool(
    x: Any,
    *,
    size: Any,
    strides: Any = None,
    padding: Any = NONE,
    count_padding: bool = True,
) -> Any:
    """The mean of each window, of what of it lies inside the image."""
    sums = nnx.avg_pool(x, size, strides or size, padding)
    if count_padding:
        return sums
    inside = jnp.ones((1, *x.shape[1:-1], 1), x.dtype)
    return sums / nnx.avg_pool(inside, size, strides or size, padding)


def add(x: Any, *others: Any) -> Any:
    """The sum of several layers."""
    for other in others:
        x = x + other
    return x


def concatenate(*inputs: Any) -> Any:
    """The channels of several layers, side by side."""
    return jnp.concatenate(inputs, axis=-1)


def pad(x: Any, *, padding: Any) -> Any:
    """A frame of zeros."""
    return jnp.pad(x, ((0, 0), *padding, (0, 0)))


def convolve(
    x: Any,
    kernel: Any,
    strides: Any = (1, 1),
    padding: Any = NONE,
    *,
    rhs_dilation: Any = None,
    feature_group_count: int = 1,
    **others: Any,
) -> Any:
    """A convolution as one matrix product, channels last.

    The input as many times as the kernel has places, each time moved, side by
    side: `(N, h, w, places * i)`, times the kernel as a matrix. Grouped ones
    are XLA's own.
    """
    if padding == "VALID":
        padding = NONE
    if feature_group_count > 1:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            strides,
            padding,
            rhs_dilation=rhs_dilation,
            feature_group_count=feature_group_count,
            **others,
        )
    if any(map(any, padding)):
        x = pad(x, padding=padding)
    rows, columns, _, channels = kernel.shape
    (s, t), (d, e) = strides, rhs_dilation or (1, 1)
    h = (x.shape[1] - (rows - 1) * d - 1) // s + 1
    w = (x.shape[2] - (columns - 1) * e - 1) // t + 1
    moved = [
        x[
            :,
            row * d : row * d + (h - 1) * s + 1 : s,
            column * e : column * e + (w - 1) * t + 1 : t,
        ]
        for row in range(rows)
        for column in range(columns)
    ]
    return jnp.concatenate(moved, axis=-1) @ kernel.reshape(-1, channels)
