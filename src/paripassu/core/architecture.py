"""Architectures: every network's layers and weights, with names, axes and shapes.

It says what a network is without a framework, so that each framework's own code can
be held against it. Shapes are without the batch axis; images are `(h, w, c)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

# Of `core.layer_spec`, those that recipes train.
Kind = Literal[
    "pad",
    "conv",
    "batch_norm",
    "layer_norm",
    "group_norm",
    "relu",
    "leaky_relu",
    "elu",
    "gelu",
    "silu",
    "tanh",
    "sigmoid",
    "softplus",
    "max_pool",
    "average_pool",
    "global_average_pool",
    "global_max_pool",
    "subsample",
    "dropout",
    "flatten",
    "add",
    "concatenate",
    "dense",
    "softmax",
]
Shape = tuple[int, ...]
Table = tuple[tuple[int, ...], ...]  # of each output channel, its input channels
IMAGES = "input"  # what enters a network, where a layer names what it takes
STATISTICS = ("mean", "variance")  # parts that training moves, and no gradient
ADDED = ("bias", "beta")  # parts that are added rather than multiplied
SCALES = ("gamma", "variance")  # parts that begin at 1


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
        return self.part in ADDED

    @property
    def learned(self) -> bool:
        """Whether it has a gradient: running statistics have none."""
        return self.part not in STATISTICS

    @property
    def starts_at(self) -> float | None:
        """The number that it begins as; None: it is drawn."""
        if self.part in SCALES:
            return 1.0
        return 0.0 if self.part in ("beta", "mean") else None

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
        if not self.learned:
            return 0
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

    Attributes:
        inputs: the layers whose outputs it takes, `IMAGES` for the images.
        flattened: of a vector whose numbers are those of an image, in the order of
            `(h, w, c)`, that image's shape; else empty. Frameworks with the channels
            first have them in another order.
    """

    name: str
    kind: Kind
    output_shape: Shape
    weights: tuple[Weight, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    flattened: Shape = ()

    @property
    def flops(self) -> int:
        """Of a convolution or dense layer, forward, for one image; else 0."""
        if self.kind not in ("conv", "dense"):
            return 0
        places = math.prod(self.output_shape[:-1])  # 1 for a dense layer
        return 2 * places * self.weights[0].count


@dataclass(frozen=True)
class Network:
    """A directed graph of layers, each behind those that it takes.

    The last one's output is the network's.
    """

    name: str
    input_shape: Shape  # (h, w, c)
    num_classes: int
    layers: tuple[Layer, ...]

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Every array of weights, in the order of the layers, kernel before bias.

        Running statistics are among them: they are state, and belong to a network.
        """
        return tuple(weight for layer in self.layers for weight in layer.weights)

    @property
    def learned(self) -> tuple[Weight, ...]:
        """The weights that have gradients."""
        return tuple(weight for weight in self.weights if weight.learned)

    @property
    def trainable(self) -> Network:
        """The same with only those weights."""
        layers = (
            replace(x, weights=tuple(w for w in x.weights if w.learned))
            for x in self.layers
        )
        return replace(self, layers=tuple(layers))

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

    @property
    def controls(self) -> tuple[str, ...]:
        """The kernels that a control of a proof moves by an ulp: two, or one."""
        kernels = [x for x in self.weights if x.part == "kernel"]
        found = [x.name for x in kernels[:1]]
        found += [x.name for x in kernels if len(x.shape) == 2][:1]
        return tuple(dict.fromkeys(found or [self.learned[0].name]))

    def layers_of(self, kind: Kind) -> tuple[Layer, ...]:
        """The layers of one kind, in order."""
        return tuple(layer for layer in self.layers if layer.kind == kind)

    def layer(self, name: str) -> Layer:
        """The layer of that name.

        Raises:
            KeyError: there is none.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def shape_of(self, name: str) -> Shape:
        """What leaves a layer, or `IMAGES`."""
        return self.input_shape if name == IMAGES else self.layer(name).output_shape

    def with_softmax(self) -> Network:
        """The same network with a softmax at its end, as the layer `softmax`."""
        last = self.layers[-1]
        softmax = Layer("softmax", "softmax", last.output_shape, inputs=(last.name,))
        return replace(self, layers=(*self.layers, softmax))
