"""Any network of a recipe's `[[layers]]` as a functional Keras model.

A layer is Keras's own wherever one computes what `paripassu.core.layer_spec`
says. A plain model has none but Keras's, for files that open without our code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from paripassu.core.architecture import IMAGES, Layer, Network, Weight
from paripassu.core.errors import UserError
from paripassu.core.layer_spec import same_padding
from paripassu.frameworks.tensorflow.networks.lenet5 import (
    Subsample,
    TableConv2D,
)

Pairs = tuple[tuple[int, int], tuple[int, int]]
NONE: Pairs = ((0, 0), (0, 0))
# Keras's names of arrays, and the canonical ones.
PARTS = {"moving_mean": "mean", "moving_variance": "variance"}


def make_network(
    network: Network, rates: Mapping[str, float], *, plain: bool = False
) -> Any:
    """The model, whose layers have the names of the network's."""
    images = keras.Input(network.input_shape)
    outputs = {IMAGES: images}
    for layer in network.layers:
        given = [outputs[source] for source in layer.inputs]
        x = given if layer.kind in ("add", "concatenate") else given[0]
        shape = network.shape_of(layer.inputs[0])
        outputs[layer.name] = _applied(layer, x, shape, rates, plain)
    return keras.Model(images, outputs[network.layers[-1].name])


def _applied(
    layer: Layer,
    x: Any,
    shape: tuple[int, ...],
    rates: Mapping[str, float],
    plain: bool,
) -> Any:
    """What a layer makes of `x`, of a shape."""
    if layer.kind == "conv":
        return _convolution(layer, x, shape, plain)
    if layer.kind in ("max_pool", "average_pool"):
        return _pool(layer, x, shape)
    if plain and layer.kind in PLAIN:
        return PLAIN[layer.kind](layer, x)
    if layer.kind == "dropout":
        return layers.Dropout(rates[layer.name], name=layer.name)(x)
    return _made(layer)(x)


def _made(layer: Layer) -> Any:
    """The Keras layer of one that has no window."""
    settings, name = layer.settings, layer.name
    match layer.kind:
        case "dense":
            units, bias = layer.output_shape[0], len(layer.weights) > 1
            return layers.Dense(units, use_bias=bias, name=name)
        case "batch_norm":
            return layers.BatchNormalization(
                momentum=settings["momentum"],
                epsilon=settings["epsilon"],
                name=name,
            )
        case "layer_norm":
            epsilon = settings["epsilon"]
            return layers.LayerNormalization(epsilon=epsilon, name=name)
        case "group_norm":
            return layers.GroupNormalization(
                settings["groups"], epsilon=settings["epsilon"], name=name
            )
        case "leaky_relu":
            leaky = LeakyReLU64 if _is_wide() else layers.LeakyReLU
            return leaky(settings["slope"], name=name)
        case "elu":
            return layers.ELU(settings["alpha"], name=name)
        case "gelu" if _is_wide():
            return Gelu64(settings["approximate"], name=name)
        case "gelu" if settings["approximate"]:
            return GeluByTanh(name=name)
        case "tanh" if not _is_plain_tanh(layer):
            scales = settings["amplitude"], settings["slope"]
            return ScaledTanh(*scales, name=name)
        case "gelu" | "silu" | "sigmoid" | "softplus" | "tanh":
            return layers.Activation(layer.kind, name=name)
        case "pad":
            return layers.ZeroPadding2D(settings["padding"], name=name)
        case _:
            return OTHERS[layer.kind](name=name)


OTHERS: dict[str, Any] = {
    "relu": layers.ReLU,
    "global_average_pool": layers.GlobalAveragePooling2D,
    "global_max_pool": layers.GlobalMaxPooling2D,
    "flatten": layers.Flatten,
    "add": layers.Add,
    "concatenate": layers.Concatenate,
    "subsample": Subsample,
    "softmax": layers.Softmax,
}


def padding_of(layer: Layer, shape: tuple[int, ...]) -> str | Pairs:
    """What Keras calls a layer's padding, or the zeros that go before it."""
    settings = layer.settings
    pads: Pairs = settings.get("padding", NONE)
    if pads == NONE:
        return "valid"
    if layer.kind == "conv":
        size = layer.weights[0].shape[:2]
        strides = settings.get("strides", (1, 1))
    else:
        size = settings["size"]
        strides = settings.get("strides", size)
    dilation = settings.get("dilation", (1, 1))
    each = zip(shape[:2], size, strides, dilation, strict=True)
    return "same" if pads == tuple(same_padding(*x) for x in each) else pads


def is_depthwise(layer: Layer) -> bool:
    """Whether a layer is Keras's `DepthwiseConv2D`."""
    rows, columns = layer.settings.get("strides", (1, 1))
    return (
        layer.kind == "conv"
        and layer.settings.get("groups", 1) > 1
        and layer.weights[0].shape[2] == 1
        and rows == columns  # TensorFlow's have one stride
    )


def _convolution(
    layer: Layer, x: Any, shape: tuple[int, ...], plain: bool
) -> Any:
    kernel, settings = layer.weights[0], layer.settings
    *size, _, filters = kernel.shape
    padding = padding_of(layer, shape)
    if not isinstance(padding, str):
        x = layers.ZeroPadding2D(padding, name=f"{layer.name}-border")(x)
        padding = "valid"
    options: dict[str, Any] = {
        "strides": settings.get("strides", (1, 1)),
        "padding": padding,
        "dilation_rate": settings.get("dilation", (1, 1)),
        "use_bias": len(layer.weights) > 1,
        "name": layer.name,
    }
    if is_depthwise(layer):
        multiplier = filters // shape[-1]
        conv = layers.DepthwiseConv2D(
            size, depth_multiplier=multiplier, **options
        )
    elif kernel.table and not plain:
        conv = TableConv2D(filters, tuple(size), kernel.table, **options)
    else:
        groups = settings.get("groups", 1)
        skips = size == [1, 1] and max(options["strides"]) > 1 and not plain
        kind = PointwiseConv2D if skips else layers.Conv2D
        conv = kind(filters, size, groups=groups, **options)
    return conv(x)


class PointwiseConv2D(layers.Conv2D):  # type: ignore[misc]
    """A kernel of one pixel that skips pixels: these are left out first.

    The same numbers. oneDNN's own kernel for it has been seen to write beyond
    its memory (TensorFlow 2.21, x86-64).
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """One pixel in stride by stride, times the kernel."""
        rows, columns = self.strides
        some = inputs[:, ::rows, ::columns]
        return ops.conv(some, kernel, data_format="channels_last")


def _pool(layer: Layer, x: Any, shape: tuple[int, ...]) -> Any:
    size = layer.settings["size"]
    strides = layer.settings.get("strides", size)
    padding = padding_of(layer, shape)
    if layer.kind == "average_pool":
        pool = layers.AveragePooling2D
    else:
        pool = layers.MaxPooling2D
    if not isinstance(padding, str):
        frame = ((0, 0), *padding, (0, 0))
        x = ops.pad(x, frame, constant_values=float("-inf"))
        padding = "valid"
    return pool(size, strides, padding, name=layer.name)(x)


def _is_wide() -> bool:
    """Whether float64 is computed in, where some constants are float32's."""
    return bool(keras.config.floatx() == "float64")


@keras.saving.register_keras_serializable("paripassu")
class LeakyReLU64(layers.LeakyReLU):  # type: ignore[misc]
    """In float64, TensorFlow rounds the slope to float32."""

    def call(self, inputs: Any) -> Any:
        """Of the same shape."""
        return ops.where(inputs > 0, inputs, self.negative_slope * inputs)


@keras.saving.register_keras_serializable("paripassu")
class Gelu64(layers.Layer):  # type: ignore[misc]
    """In float64, TensorFlow rounds the constants of GELU to float32."""

    def __init__(self, approximate: bool, **options: Any) -> None:
        super().__init__(**options)
        self.approximate = approximate

    def call(self, x: Any) -> Any:
        """Of the same shape."""
        if self.approximate:
            inner = ops.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))
        else:
            inner = ops.erf(x / 2**0.5)
        return 0.5 * x * (1 + inner)

    def get_config(self) -> dict[str, Any]:
        """What Keras saves of it."""
        return {**super().get_config(), "approximate": self.approximate}


@keras.saving.register_keras_serializable("paripassu")
class GeluByTanh(layers.Layer):  # type: ignore[misc]
    """GELU by a tanh."""

    def call(self, x: Any) -> Any:
        """Of the same shape."""
        return ops.gelu(x, approximate=True)


@keras.saving.register_keras_serializable("paripassu")
class ScaledTanh(layers.Layer):  # type: ignore[misc]
    """A tanh with two scales."""

    def __init__(self, amplitude: float, slope: float, **options: Any) -> None:
        super().__init__(**options)
        self.amplitude, self.slope = amplitude, slope

    def call(self, x: Any) -> Any:
        """Amplitude * tanh(slope * x)."""
        return self.amplitude * ops.tanh(self.slope * x)

    def get_config(self) -> dict[str, Any]:
        """What Keras saves of it."""
        own = {"amplitude": self.amplitude, "slope": self.slope}
        return {**super().get_config(), **own}


def _is_plain_tanh(layer: Layer) -> bool:
    return layer.settings["amplitude"] == layer.settings["slope"] == 1


# The same of Keras's own layers and operations alone.


def _plain_gelu(layer: Layer, x: Any) -> Any:
    return ops.gelu(x, approximate=layer.settings["approximate"])


def _plain_tanh(layer: Layer, x: Any) -> Any:
    if _is_plain_tanh(layer):
        return layers.Activation("tanh", name=layer.name)(x)
    settings = layer.settings
    x = layers.Rescaling(settings["slope"], name=f"{layer.name}-in")(x)
    x = layers.Activation("tanh", name=layer.name)(x)
    return layers.Rescaling(settings["amplitude"], name=f"{layer.name}-out")(x)


def _plain_subsample(layer: Layer, x: Any) -> Any:
    return layers.DepthwiseConv2D(2, strides=2, name=layer.name)(x)


def _plain_leaky_relu(layer: Layer, x: Any) -> Any:
    return layers.LeakyReLU(layer.settings["slope"], name=layer.name)(x)


PLAIN: dict[str, Any] = {
    "leaky_relu": _plain_leaky_relu,
    "gelu": _plain_gelu,
    "tanh": _plain_tanh,
    "subsample": _plain_subsample,
}


def to_plain(network: Network, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Weights of the network for a plain model."""
    found = dict(weights)
    for layer in network.layers_of("subsample"):
        array = found.pop(f"{layer.name}.coefficient")
        kernel = np.broadcast_to(array[:, None], (2, 2, *array.shape, 1))
        found[f"{layer.name}.kernel"] = kernel
    return found


def from_plain(network: Network, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays of a `.keras` file, numbered, for the network.

    Raises:
        UserError: a subsampling has other than four equal weights.
    """
    found = dict(weights)
    for layer in network.layers_of("subsample"):
        array = found.pop(f"{layer.name}.kernel", None)
        if array is None:
            continue
        if array.shape[:2] != (2, 2) or np.ptp(array, axis=(0, 1)).any():
            raise UserError(
                f"{layer.name}.kernel: expected four equal weights for each "
                "channel, as a subsampling layer has them."
            )
        found[f"{layer.name}.coefficient"] = array[0, 0, :, 0]
    for layer in network.layers:
        if layer.kind in ("batch_norm", "layer_norm", "group_norm"):
            numbered = ("kernel", "bias", "2", "3")
            own = [found.pop(f"{layer.name}.{x}", None) for x in numbered]
            for weight, array in zip(layer.weights, own, strict=False):
                if array is not None:
                    found[weight.name] = array
    return canonical_shapes(network, found)


def canonical_shapes(
    network: Network, weights: Mapping[str, Any]
) -> dict[str, Any]:
    """Kernels of depthwise convolutions, (h, w, c, m), as (h, w, 1, c m)."""
    found = dict(weights)
    for kernel in _depthwise_kernels(network):
        array = found.get(kernel.name)
        if array is not None and array.size == np.prod(kernel.shape):
            found[kernel.name] = array.reshape(kernel.shape)
    return found


def _depthwise_kernels(network: Network) -> list[Weight]:
    return [x.weights[0] for x in network.layers if is_depthwise(x)]
