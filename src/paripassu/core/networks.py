"""The score sheet: every network's layers and weights, with names, axes and shapes.

It says what a network is without a framework, so that each framework's own code can
be held against it. Shapes are without the batch axis; images are `(h, w, c)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from paripassu.core.errors import UserError

Kind = Literal["convolution", "relu", "max_pool", "dropout", "flatten", "dense"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Weight:
    """One array of weights in the canonical layout.

    `axes` names the axes of `shape` in the notation of `core.layout`; a group such as
    `(h w c)` is one axis whose parts have the sizes in `sizes`.
    """

    name: str  # "conv1.kernel"
    shape: Shape
    axes: str
    sizes: dict[str, int]
    fan_in: int  # of the layer, for its bias too
    fan_out: int

    @property
    def is_bias(self) -> bool:
        """Whether it is added rather than multiplied."""
        return self.name.endswith(".bias")


@dataclass(frozen=True)
class Layer:
    """One step of a network, and the shape that leaves it."""

    name: str
    kind: Kind
    output_shape: Shape
    weights: tuple[Weight, ...] = ()


@dataclass(frozen=True)
class Network:
    """A chain of layers."""

    name: str
    input_shape: Shape  # (h, w, c)
    num_classes: int
    layers: tuple[Layer, ...]

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Every array of weights, in the order of the layers, kernel before bias."""
        return tuple(weight for layer in self.layers for weight in layer.weights)

    @property
    def parameter_count(self) -> int:
        """How many numbers are learned."""
        return sum(math.prod(weight.shape) for weight in self.weights)

    def layers_of(self, kind: Kind) -> tuple[Layer, ...]:
        """The layers of one kind, in order."""
        return tuple(layer for layer in self.layers if layer.kind == kind)


Step = Callable[[tuple[Layer, ...], Shape], Layer]


def _convolution(name: str, channels: int, size: int) -> Step:
    """A square kernel, stride 1, no padding ("valid")."""

    def step(_before: tuple[Layer, ...], shape: Shape) -> Layer:
        h, w, c = shape
        fans = size * size * c, size * size * channels
        kernel = (size, size, c, channels)
        return Layer(
            name,
            "convolution",
            (h - size + 1, w - size + 1, channels),
            (
                Weight(f"{name}.kernel", kernel, "h w i o", {}, *fans),
                Weight(f"{name}.bias", (channels,), "o", {}, *fans),
            ),
        )

    return step


def _dense(name: str, units: int) -> Step:
    def step(before: tuple[Layer, ...], shape: Shape) -> Layer:
        (inputs,) = shape
        axes, sizes = "i o", {}
        flatten = next((x for x in reversed(before) if x.kind == "flatten"), None)
        if flatten and not any(x.kind == "dense" for x in before):
            # Rows of the kernel follow the flattened image: frameworks differ here.
            h, w, c = before[before.index(flatten) - 1].output_shape
            axes, sizes = "(h w c) o", {"h": h, "w": w, "c": c}
        fans = inputs, units
        return Layer(
            name,
            "dense",
            (units,),
            (
                Weight(f"{name}.kernel", (inputs, units), axes, sizes, *fans),
                Weight(f"{name}.bias", (units,), "o", {}, *fans),
            ),
        )

    return step


def _max_pool(name: str, size: int) -> Step:
    def step(_before: tuple[Layer, ...], shape: Shape) -> Layer:
        h, w, c = shape
        return Layer(name, "max_pool", (h // size, w // size, c))

    return step


def _elementwise(name: str, kind: Kind) -> Step:
    return lambda _before, shape: Layer(name, kind, shape)


def _flatten(name: str) -> Step:
    return lambda _before, shape: Layer(name, "flatten", (math.prod(shape),))


def _chain(name: str, input_shape: Shape, *steps: Step) -> Network:
    layers: tuple[Layer, ...] = ()
    for step in steps:
        shape = layers[-1].output_shape if layers else input_shape
        layers = (*layers, step(layers, shape))
    (num_classes,) = layers[-1].output_shape
    return Network(name, input_shape, num_classes, layers)


# "TensorFlow vs PyTorch by example". ReLU stands after the pool: the same function
# and the same gradients as before it (both are monotone), on a quarter of the numbers.
ARTICLE = _chain(
    "article",
    (28, 28, 1),
    _convolution("conv1", 32, 3),
    _elementwise("relu1", "relu"),
    _convolution("conv2", 64, 3),
    _max_pool("pool", 2),
    _elementwise("relu2", "relu"),
    _elementwise("dropout1", "dropout"),
    _flatten("flatten"),
    _dense("dense1", 128),
    _elementwise("relu3", "relu"),
    _elementwise("dropout2", "dropout"),
    _dense("dense2", 10),
)

NETWORKS = {network.name: network for network in (ARTICLE,)}


def find(name: str) -> Network:
    """The network of that name.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    if name not in NETWORKS:
        raise UserError(f"no network {name!r}; known: {', '.join(NETWORKS)}.")
    return NETWORKS[name]
