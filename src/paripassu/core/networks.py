"""Architectures: every network's layers and weights, with names, axes and shapes.

It says what a network is without a framework, so that each framework's own code can
be held against it. Shapes are without the batch axis; images are `(h, w, c)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

# Of `core.layer_spec`, those that recipes train.
Kind = Literal[
    "pad",
    "conv",
    "relu",
    "tanh",
    "max_pool",
    "subsample",
    "dropout",
    "flatten",
    "dense",
    "softmax",
]
Shape = tuple[int, ...]
Table = tuple[tuple[int, ...], ...]  # of each output channel, its input channels


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
    fan_in: int  # of the layer, for its bias too; with a table, as if it were full
    fan_out: int
    table: Table = ()  # of a convolution in which not all channels are connected

    @property
    def part(self) -> str:
        """Its name within the layer: "kernel"."""
        return self.name.rpartition(".")[2]

    @property
    def is_bias(self) -> bool:
        """Whether it is added rather than multiplied."""
        return self.part == "bias"

    @property
    def connected(self) -> npt.NDArray[np.bool_]:
        """Which input channel feeds which output channel: bool `(i, o)`.

        Raises:
            ValueError: the weight has no table: all channels are connected.
        """
        if not self.table:
            raise ValueError(f"{self.name} has no table of connections")
        *_, inputs, outputs = self.shape
        mask = np.zeros((inputs, outputs), np.bool_)
        for output, channels in enumerate(self.table):
            mask[list(channels), output] = True
        return mask

    @property
    def count(self) -> int:
        """How many numbers of it are learned."""
        if not self.table:
            return math.prod(self.shape)
        return int(self.connected.sum()) * math.prod(self.shape[:-2])

    @property
    def fans_in(self) -> float | npt.NDArray[np.float64]:
        """`fan_in`; with a table that of each output channel, `(o,)`."""
        if not self.table:
            return float(self.fan_in)
        of_each: npt.NDArray[np.float64] = self.connected.mean(axis=0) * self.fan_in
        return of_each


@dataclass(frozen=True)
class Layer:
    """One step of a network, and the shape that leaves it.

    Kind and settings are those of `core.layer_spec`.
    """

    name: str
    kind: Kind
    output_shape: Shape
    weights: tuple[Weight, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def flops(self) -> int:
        """Of a convolution or dense layer, forward, for one image; else 0."""
        if self.kind not in ("conv", "dense"):
            return 0
        places = math.prod(self.output_shape[:-1])  # 1 for a dense layer
        return 2 * places * self.weights[0].count


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
        return sum(weight.count for weight in self.weights)

    @property
    def forward_flops(self) -> int:
        """Floating-point operations for one image, two for each multiply and add.

        Of convolutions and dense layers; all others together are below 1% of them in
        the networks here.
        """
        return sum(layer.flops for layer in self.layers)

    @property
    def training_flops(self) -> int:
        """Floating-point operations for one image, forward and backward.

        Backward takes as many again for the gradients of the weights and for those of
        the layer's input, which the first layer with weights need not have.
        """
        first = next((layer.flops for layer in self.layers if layer.flops), 0)
        return 3 * self.forward_flops - first

    def layers_of(self, kind: Kind) -> tuple[Layer, ...]:
        """The layers of one kind, in order."""
        return tuple(layer for layer in self.layers if layer.kind == kind)

    def with_softmax(self) -> Network:
        """The same network with a softmax at its end, as the layer `softmax`."""
        softmax = Layer("softmax", "softmax", self.layers[-1].output_shape)
        return replace(self, layers=(*self.layers, softmax))


Step = Callable[[tuple[Layer, ...], Shape], Layer]


def _conv(name: str, channels: int, size: int, table: Table = ()) -> Step:
    """A square kernel, stride 1, no padding ("valid")."""

    def step(_before: tuple[Layer, ...], shape: Shape) -> Layer:
        h, w, c = shape
        fans = size * size * c, size * size * channels
        kernel = (size, size, c, channels)
        weights = (
            Weight(f"{name}.kernel", kernel, "h w i o", {}, *fans, table),
            Weight(f"{name}.bias", (channels,), "o", {}, *fans),
        )
        return Layer(name, "conv", (h - size + 1, w - size + 1, channels), weights)

    return step


def _pad(name: str, size: int) -> Step:
    """As many zeros on each of the four sides."""

    def step(_before: tuple[Layer, ...], shape: Shape) -> Layer:
        h, w, c = shape
        padded = (h + 2 * size, w + 2 * size, c)
        return Layer(name, "pad", padded, settings={"padding": ((size, size),) * 2})

    return step


def _subsample(name: str) -> Step:
    """Sums of 2x2 pixels, times a coefficient and plus a bias of the channel's own."""

    def step(_before: tuple[Layer, ...], shape: Shape) -> Layer:
        h, w, c = shape
        weights = (
            Weight(f"{name}.coefficient", (c,), "o", {}, fan_in=4, fan_out=1),
            Weight(f"{name}.bias", (c,), "o", {}, fan_in=4, fan_out=1),
        )
        half = (h // 2, w // 2, c)
        return Layer(name, "subsample", half, weights, {"size": (2, 2)})

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
        weights = (
            Weight(f"{name}.kernel", (inputs, units), axes, sizes, inputs, units),
            Weight(f"{name}.bias", (units,), "o", {}, inputs, units),
        )
        return Layer(name, "dense", (units,), weights)

    return step


def _max_pool(name: str, size: int) -> Step:
    def step(_before: tuple[Layer, ...], shape: Shape) -> Layer:
        h, w, c = shape
        pooled = (h // size, w // size, c)
        return Layer(name, "max_pool", pooled, settings={"size": (size, size)})

    return step


def _elementwise(name: str, kind: Kind, **settings: float) -> Step:
    return lambda _before, shape: Layer(name, kind, shape, settings=settings)


def _tanh(name: str) -> Step:
    """The squashing function of LeCun et al. 1998, appendix A.

    It is chosen there so that f(1) = 1 and f(-1) = -1, with the largest second
    derivative in these points.
    """
    return _elementwise(name, "tanh", amplitude=1.7159, slope=2 / 3)


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
    _conv("conv1", 32, 3),
    _elementwise("relu1", "relu"),
    _conv("conv2", 64, 3),
    _max_pool("pool", 2),
    _elementwise("relu2", "relu"),
    _elementwise("dropout1", "dropout"),
    _flatten("flatten"),
    _dense("dense1", 128),
    _elementwise("relu3", "relu"),
    _elementwise("dropout2", "dropout"),
    _dense("dense2", 10),
)

# Keras's "Simple MNIST convnet". ReLU after the pools, as above.
KERAS_EXAMPLE = _chain(
    "keras-example",
    (28, 28, 1),
    _conv("conv1", 32, 3),
    _max_pool("pool1", 2),
    _elementwise("relu1", "relu"),
    _conv("conv2", 64, 3),
    _max_pool("pool2", 2),
    _elementwise("relu2", "relu"),
    _flatten("flatten"),
    _elementwise("dropout1", "dropout"),
    _dense("dense1", 10),
)

# LeCun et al. 1998, table I: which maps of S2 each map of C3 sees.
LENET5_TABLE: Table = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5)),
    *((0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)

# LeNet-5, LeCun et al. 1998, section II.B: C1, S2, C3, S4, C5, F6 and the output. Each
# is followed by the paper's squashing function, 1.7159 tanh(2/3 x). The output is a
# dense layer where the paper has radial basis functions with fixed centres.
LENET5 = _chain(
    "lenet5",
    (28, 28, 1),
    _pad("pad", 2),
    _conv("conv1", 6, 5),
    _tanh("tanh1"),
    _subsample("subsample1"),
    _tanh("tanh2"),
    _conv("conv2", 16, 5, LENET5_TABLE),
    _tanh("tanh3"),
    _subsample("subsample2"),
    _tanh("tanh4"),
    _conv("conv3", 120, 5),
    _tanh("tanh5"),
    _flatten("flatten"),
    _dense("dense1", 84),
    _tanh("tanh6"),
    _dense("dense2", 10),
)

# "train_mnist_fast" of T. Oksanen (github.com/tuomaso/train_mnist_fast).
FAST = _chain(
    "fast",
    (28, 28, 1),
    _conv("conv1", 24, 5),
    _max_pool("pool1", 2),
    _elementwise("relu1", "relu"),
    _conv("conv2", 32, 3),
    _max_pool("pool2", 2),
    _elementwise("relu2", "relu"),
    _flatten("flatten"),
    _dense("dense1", 256),
    _elementwise("relu3", "relu"),
    _dense("dense2", 10),
)

NETWORKS = {x.name: x for x in (ARTICLE, KERAS_EXAMPLE, LENET5, FAST)}
