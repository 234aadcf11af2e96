"""Any network of a recipe's `[[layers]]` as an `nn.Module`.

A layer is a module of PyTorch's own wherever one computes what
`paripassu.core.layer_spec` says; the others are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paripassu.core.architecture import IMAGES, Layer, Network
from paripassu.frameworks.pytorch.networks.lenet5 import Subsample

# PyTorch takes softplus for x above a threshold of 20, which is 2e-9 off there.
EXACT = 40.0


class Layers(nn.Module):
    """Layers by name, each applied to what its inputs gave."""

    def __init__(self, network: Network, rates: Mapping[str, float]) -> None:
        super().__init__()
        self._graph = [(x.name, x.inputs) for x in network.layers]
        for layer in network.layers:
            shape = network.shape_of(layer.inputs[0])
            module = _module(layer, shape, rates)
            self.add_module(layer.name, module)

    def forward(self, x: Tensor) -> Tensor:  # (N, c, h, w)
        """From images to what the last layer gives."""
        outputs = {IMAGES: x}
        for name, inputs in self._graph:
            given = (outputs[source] for source in inputs)
            x = outputs[name] = self.get_submodule(name)(*given)
        return x


def _module(
    layer: Layer, shape: tuple[int, ...], rates: Mapping[str, float]
) -> nn.Module:
    """The module of a layer that takes `shape`."""
    match layer.kind:
        case "conv":
            return _convolution(layer)
        case "dense":
            inputs, units = layer.weights[0].shape
            return nn.Linear(inputs, units, bias=len(layer.weights) > 1)
        case "batch_norm" | "layer_norm" | "group_norm":
            return _norm(layer, shape)
        case "max_pool" | "average_pool":
            return _pool(layer)
        case "dropout":
            return nn.Dropout(rates[layer.name])
        case "pad":
            (top, bottom), (left, right) = layer.settings["padding"]
            return nn.ZeroPad2d((left, right, top, bottom))
        case "subsample":
            return Subsample(shape[-1])
        case _:
            made: nn.Module = PLAIN[layer.kind](**layer.settings)
            return made


def _norm(layer: Layer, shape: tuple[int, ...]) -> nn.Module:
    channels, epsilon = shape[-1], layer.settings["epsilon"]
    image = len(shape) == 3
    if layer.kind == "batch_norm":
        batch_norm = BatchNorm2d if image else BatchNorm1d
        share = 1 - layer.settings["momentum"]  # of the new statistics
        return batch_norm(channels, epsilon, share)
    if layer.kind == "layer_norm":
        layer_norm = ChannelNorm if image else nn.LayerNorm
        return layer_norm(channels, epsilon)
    return nn.GroupNorm(layer.settings["groups"], channels, epsilon)


def _convolution(layer: Layer) -> nn.Module:
    kernel, settings = layer.weights[0], layer.settings
    *size, inner, outputs = kernel.shape
    groups = settings.get("groups", 1)
    (top, bottom), (left, right) = settings.get("padding", ((0, 0), (0, 0)))
    even = top == bottom and left == right
    options: dict[str, Any] = {
        "stride": settings.get("strides", 1),
        "padding": (top, left) if even else 0,
        "dilation": settings.get("dilation", 1),
        "groups": groups,
        "bias": len(layer.weights) > 1,
    }
    made = inner * groups, outputs, (size[0], size[1])
    if even and not kernel.table:
        pointwise = tuple(size) == (1, 1) and options["stride"] != 1
        return (PointwiseConv2d if pointwise else nn.Conv2d)(*made, **options)
    conv = PaddedConv2d(*made, **options)
    if not even:
        conv.border = (left, right, top, bottom)
    if kernel.table:
        conv.table = torch.from_numpy(kernel.connected.T[:, :, None, None])
    return conv


def _pool(layer: Layer) -> nn.Module:
    settings = layer.settings
    size = settings["size"]
    strides = settings.get("strides", size)
    (top, bottom), (left, right) = settings.get("padding", ((0, 0), (0, 0)))
    if top == bottom and left == right:
        if layer.kind == "max_pool":
            return nn.MaxPool2d(size, strides, (top, left))
        return nn.AvgPool2d(size, strides, (top, left), count_include_pad=False)
    border = left, right, top, bottom
    pool = PaddedMaxPool2d if layer.kind == "max_pool" else PaddedAvgPool2d
    made = pool(size, strides)
    made.border = border
    return made


class PointwiseConv2d(nn.Conv2d):
    """A kernel of one pixel that skips pixels: these are left out first.

    The same numbers. oneDNN's own kernel for it, with the channels last in
    memory, has been seen to write beyond its memory (PyTorch 2.13, x86-64).
    """

    def forward(self, x: Tensor) -> Tensor:
        """One pixel in stride by stride."""
        if self.padding != (0, 0):
            return super().forward(x)
        rows, columns = self.stride
        x = x[:, :, ::rows, ::columns]
        return F.conv2d(x, self.weight, self.bias, groups=self.groups)


class PaddedConv2d(nn.Conv2d):
    """A convolution with more zeros on one side, or a table of connections.

    PyTorch's `padding="same"` takes no stride.
    """

    border: tuple[int, ...] = ()  # left, right, top, bottom

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.table: Tensor | None
        self.register_buffer("table", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution, with zeros where nothing is connected."""
        if self.border:
            x = F.pad(x, self.border)
        weight = self.weight if self.table is None else self.weight * self.table
        return self._conv_forward(x, weight, self.bias)


class PaddedMaxPool2d(nn.MaxPool2d):
    """The largest of each window, with a border of which nothing is large."""

    border: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Half the pixels, or as many as the stride leaves."""
        return super().forward(F.pad(x, self.border, value=float("-inf")))


class PaddedAvgPool2d(nn.AvgPool2d):
    """The mean of each window, of what of it lies inside the image."""

    border: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Half the pixels, or as many as the stride leaves."""
        counts = self._sums(torch.ones_like(x[:1, :1]))
        return self._sums(x) / counts

    def _sums(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(
            F.pad(x, self.border),
            self.kernel_size,
            self.stride,
            divisor_override=1,
        )


class _BiasedRunningVariance:
    """Keeps the biased variance, as Keras and Flax do; PyTorch's has n - 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalised, and in training the running statistics moved."""
        module: Any = self
        if not module.training:
            return super().forward(x)  # type: ignore[misc]
        count = x.numel() // x.shape[1]
        if count == 1:
            return _of_one(module, x)
        kept = (1 - module.momentum) * module.running_var
        y: Tensor = super().forward(x)  # type: ignore[misc]
        with torch.no_grad():
            new = (module.running_var - kept) * ((count - 1) / count)
            module.running_var = kept + new  # backward still has the other
        return y


def _of_one(norm: Any, x: Tensor) -> Tensor:
    """What is normalised by itself is 0: PyTorch refuses to."""
    shape = [1, -1, *(1,) * (x.ndim - 2)]
    with torch.no_grad():
        norm.running_mean.lerp_(x.flatten(), norm.momentum)
        norm.running_var.mul_(1 - norm.momentum)
    return (x - x) * norm.weight.view(shape) + norm.bias.view(shape)


class BatchNorm2d(_BiasedRunningVariance, nn.BatchNorm2d):
    """Of images."""


class BatchNorm1d(_BiasedRunningVariance, nn.BatchNorm1d):
    """Of vectors."""


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def forward(self, x: Tensor) -> Tensor:  # (N, c, h, w)
        """Of the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ScaledTanh(nn.Module):
    """A tanh with two scales."""

    def __init__(self, amplitude: float, slope: float) -> None:
        super().__init__()
        self.amplitude, self.slope = amplitude, slope

    def forward(self, x: Tensor) -> Tensor:
        """Amplitude * tanh(slope * x)."""
        return self.amplitude * torch.tanh(self.slope * x)


class GlobalAveragePool(nn.Module):
    """The mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, h, w) -> (N, c)."""
        return x.mean((2, 3))


class GlobalMaxPool(nn.Module):
    """The largest value of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, h, w) -> (N, c)."""
        return x.amax((2, 3))


class Add(nn.Module):
    """The sum of several layers."""

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """Of the same shape."""
        for other in others:
            x = x + other
        return x


class Concatenate(nn.Module):
    """The channels of several layers, side by side."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Channels are the second axis."""
        return torch.cat(inputs, 1)


def _leaky_relu(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope)


def _tanh(amplitude: float, slope: float) -> nn.Module:
    same = amplitude == slope == 1
    return nn.Tanh() if same else ScaledTanh(amplitude, slope)


PLAIN: dict[str, Any] = {
    "relu": nn.ReLU,
    "leaky_relu": _leaky_relu,
    "elu": nn.ELU,
    "gelu": lambda approximate: nn.GELU("tanh" if approximate else "none"),
    "tanh": _tanh,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "softplus": lambda: nn.Softplus(threshold=EXACT),
    "global_average_pool": GlobalAveragePool,
    "global_max_pool": GlobalMaxPool,
    "flatten": nn.Flatten,
    "add": Add,
    "concatenate": Concatenate,
    "softmax": lambda: nn.Softmax(dim=1),
}
