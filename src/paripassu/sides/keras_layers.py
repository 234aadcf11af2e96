"""Says of Keras's layers and functions what `core.layer_spec` has words for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from paripassu.core.layer_spec import Array, LayerSpec
from paripassu.sides.contract import Live

Settings = dict[str, Any]
Move = Callable[[Array], Array]
L = keras.layers


@dataclass(frozen=True)
class Slot:
    """Where a weight lies, and how its axes move to the canonical ones and back."""

    variable: Any
    there: Move = np.asarray
    back: Move = np.asarray


@dataclass(frozen=True)
class Part:
    """A block of weights in a layer; see `paripassu.sides.contract.Block`."""

    name: str
    layer: str
    kind: str
    settings: Settings = field(default_factory=dict)
    slots: dict[str, Slot] = field(default_factory=dict)

    def read(self, slopes: Mapping[int, Array] | None = None) -> dict[str, Array]:
        """Weights with canonical axes; with `slopes`, gradients by variables' ids."""
        found = {}
        for name, slot in self.slots.items():
            if slopes is None:
                found[name] = slot.there(np.asarray(slot.variable))
            elif id(slot.variable) in slopes:
                found[name] = slot.there(slopes[id(slot.variable)])
        return found

    def live(self) -> Live:
        """Its weights, read when they are asked for."""
        shapes = {}
        for name, slot in self.slots.items():
            one = np.broadcast_to(np.float32(0), tuple(slot.variable.shape))
            shapes[name] = slot.there(one).shape
        return Live(shapes, self._one)

    def _one(self, name: str) -> Array:
        return replace(self, slots={name: self.slots[name]}).read()[name]

    def write(self, weights: Mapping[str, Array]) -> None:
        """Copy canonical weights in."""
        for name, array in weights.items():
            slot = self.slots[name]
            slot.variable.assign(slot.back(array).reshape(slot.variable.shape))


def is_container(layer: Any) -> bool:
    """Whether it is looked into: a model, or a layer of a user's own."""
    if isinstance(layer, keras.Model):
        return True
    return not type(layer).__module__.startswith("keras.") and not any(
        cls.__module__.startswith("keras.") and cls is not L.Layer
        for cls in type(layer).__mro__
        if issubclass(cls, L.Layer)
    )


def children(layer: Any) -> list[tuple[str, Any]]:
    """The layers in a container, with the names by which a reader knows them."""
    if isinstance(layer, keras.Sequential) or hasattr(layer, "operations"):
        return [(x.name, x) for x in layer.layers]
    found: dict[int, tuple[str, Any]] = {}
    for name, value in vars(layer).items():
        if name.startswith("_"):
            continue
        for path, item in _layers_in(name, value):
            found.setdefault(id(item), (path, item))
    for item in layer._layers:
        found.setdefault(id(item), (item.name, item))
    return list(found.values())


def _layers_in(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, L.Layer):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _layers_in(f"{name}.{number}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _layers_in(f"{name}.{key}", item)


def leaves(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each layer that is watched as a whole, with its path."""
    for name, layer in children(model):
        path = f"{prefix}{name}"
        if is_container(layer):
            yield from leaves(layer, f"{path}.")
        elif not isinstance(layer, L.InputLayer):
            yield path, layer


def containers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The model and each container in it, with its path."""
    yield prefix.rstrip("."), model
    for name, layer in children(model):
        if is_container(layer):
            yield from containers(layer, f"{prefix}{name}.")


def _axes(value: Any, count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value)


def _padding(value: str, count: int) -> Any:
    return "same" if value == "same" else ((0, 0),) * count


def _conv(layer: Any) -> Settings:
    settings: Settings = {
        "strides": _axes(layer.strides, layer.rank),
        "dilation": _axes(layer.dilation_rate, layer.rank),
        "groups": layer.groups,
        "padding": _padding(layer.padding, layer.rank),
    }
    if layer.padding == "causal":
        reach = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
        settings["padding"] = ((reach, 0),)
    return settings


def _depthwise(layer: Any) -> Settings:
    rank = layer.rank
    return {
        "strides": _axes(layer.strides, rank),
        "dilation": _axes(layer.dilation_rate, rank),
        "padding": _padding(layer.padding, rank),
        # Its input channels are its kernel's, which is not there before it is built.
        "groups": layer.kernel.shape[-2] if layer.built else None,
    }


def _conv_transpose(layer: Any) -> Settings:
    rank = layer.rank
    strides = _axes(layer.strides, rank)
    dilation = _axes(layer.dilation_rate, rank)
    more = layer.output_padding
    extra = _axes(more, rank) if more is not None else (None,) * rank
    crop = []
    for axis in range(rank):
        size = (layer.kernel_size[axis] - 1) * dilation[axis] + 1
        stride, given = strides[axis], extra[axis]
        # The padding of the input that Keras documents for its JAX and PyTorch
        # backends; what is not padded there is cut from the full output here.
        if layer.padding == "valid":
            given = max(size, stride) - size if given is None else given
            before, after = size - 1, size - 1 + given
        else:
            total = stride + size - 2 if given is None else size + size % 2 - 2 + given
            before = min(total // 2 + total % 2, size - 1)
            after = total - before
        crop.append((size - 1 - before, size - 1 - after))
    return {
        "strides": strides,
        "dilation": dilation,
        "crop": tuple(crop),
        "groups": 1,
    }


def described(layer: Any) -> LayerSpec:
    """A layer's kind and settings; of its weights, only which there are."""
    kind, settings = _described(layer)
    names = {str(x.path): np.empty(0) for x in layer.weights if "seed" not in x.path}
    return LayerSpec(kind, settings, names)


def _described(layer: Any) -> tuple[str, Settings]:
    match layer:
        case L.Dense():
            return "dense", {}
        case L.EinsumDense():
            return ("dense", {}) if _dense_like(layer) else ("other", {})
        case L.DepthwiseConv1D() | L.DepthwiseConv2D():
            return "conv", _depthwise(layer)
        case L.SeparableConv1D() | L.SeparableConv2D():
            return "separable", {}
        case L.Conv1DTranspose() | L.Conv2DTranspose() | L.Conv3DTranspose():
            return "conv_transpose", _conv_transpose(layer)
        case L.Conv1D() | L.Conv2D() | L.Conv3D():
            return "conv", _conv(layer)
        case L.BatchNormalization():
            axis = layer.axis
            settings = {"epsilon": layer.epsilon, "momentum": layer.momentum}
            return "batch_norm", settings | {"axis": axis if axis < 0 else int(axis)}
        case L.LayerNormalization():
            axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
            kind = "rms_norm" if getattr(layer, "rms_scaling", False) else "layer_norm"
            settings = {"epsilon": layer.epsilon, "axes": len(axes)}
            if list(axes) not in ([-1], *([*range(1, n)] for n in range(2, 6))):
                settings["axis"] = list(axes)
            return kind, settings
        case L.RMSNormalization():
            return "rms_norm", {"epsilon": layer.epsilon, "axes": 1}
        case L.GroupNormalization():
            groups = layer.groups
            return "group_norm", {"epsilon": layer.epsilon, "groups": groups}
        case L.Embedding():
            return "embedding", {}
        case L.Bidirectional():
            settings = _recurrent(layer.forward_layer) | {"bidirectional": True}
            settings.pop("reverse", None)
            return _recurrent_kind(layer.forward_layer), settings | {
                "merge": layer.merge_mode
            }
        case L.LSTM() | L.GRU() | L.SimpleRNN():
            return _recurrent_kind(layer), _recurrent(layer)
        case L.MultiHeadAttention():
            scale = layer._inverse_sqrt_key_dim
            return "attention", {
                "heads": layer.num_heads,
                "scale": float(scale),
            }
        case L.PReLU():
            return "prelu", {}
        case L.MaxPooling1D() | L.MaxPooling2D() | L.MaxPooling3D():
            return "max_pool", _pool(layer)
        case L.AveragePooling1D() | L.AveragePooling2D() | L.AveragePooling3D():
            return "average_pool", _pool(layer) | {"count_padding": False}
    kind, settings = _weightless(layer)
    return kind, settings


def _weightless(layer: Any) -> tuple[str, Settings]:
    name = type(layer).__name__
    if found := re.fullmatch(r"Global(Average|Max)Pooling\dD", name):
        kind = f"global_{found[1].lower()}_pool"
        settings: Settings = {"keepdims": bool(layer.keepdims)}
        if layer.data_format == "channels_first":
            settings["axis"] = "all but 1"
        return kind, settings
    match layer:
        case L.UpSampling2D():
            mode, factor = layer.interpolation, tuple(layer.size)
            if mode not in ("nearest", "bilinear"):
                return "other", {"mode": mode}
            settings = {"factor": factor, "mode": mode}
            return "upsample", settings | (
                {"align_corners": False} if mode == "bilinear" else {}
            )
        case L.Cropping1D() | L.Cropping2D() | L.Cropping3D():
            crop = layer.cropping
            if isinstance(layer, L.Cropping1D):
                crop = (crop,)
            return "crop", {"crop": tuple(map(tuple, crop))}
        case L.ZeroPadding1D() | L.ZeroPadding2D() | L.ZeroPadding3D():
            padding = layer.padding
            if isinstance(layer, L.ZeroPadding1D):
                padding = (tuple(padding),)
            return "pad", {"padding": tuple(map(tuple, padding)), "value": 0.0}
        case L.Activation():
            told = activation(layer.activation)
            return told.kind, dict(told.settings)
        case L.ReLU():
            if layer.max_value == 6 and not layer.negative_slope:
                return "relu6", {}
            if layer.negative_slope and layer.max_value is None:
                return "leaky_relu", {"slope": float(layer.negative_slope)}
            return "relu", {}
        case L.LeakyReLU():
            return "leaky_relu", {"slope": float(layer.negative_slope)}
        case L.ELU():
            return "elu", {"alpha": float(layer.alpha)}
        case L.Softmax():
            return "softmax", {"axis": layer.axis}
        case L.Add() | L.Multiply() | L.Subtract():
            return name.lower(), {}
        case L.Concatenate():
            return "concatenate", {"axis": layer.axis}
        case L.Flatten() | L.Reshape():
            return name.lower(), {}
        case L.Permute():
            return "permute", {}
        case L.Rescaling():
            factor, offset = layer.scale, layer.offset
            if np.ndim(factor) == 0 and np.ndim(offset) == 0:
                return "scale", {
                    "factor": float(factor),
                    "offset": float(offset),
                }
        case L.Identity():
            return "identity", {}
    if "Dropout" in name or "Noise" in name:
        return "dropout", {}
    if isinstance(layer, keras.Operation) and not isinstance(layer, L.Layer):
        told = function(_snake(name), vars(layer))
        return told.kind, dict(told.settings)
    return "other", {}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _dense_like(layer: Any) -> bool:
    """Whether it multiplies the last axis by a matrix, as Dense does."""
    left, _, right = layer.equation.partition("->")
    given, _, kernel = left.partition(",")
    return (
        len(kernel) == 2 and given[-1:] == kernel[0] and right == given[:-1] + kernel[1]
    )


def _recurrent_kind(layer: Any) -> str:
    names = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn"}
    return next(
        (names[x.__name__] for x in type(layer).__mro__ if x.__name__ in names),
        "other",
    )


def _recurrent(layer: Any) -> Settings:
    settings: Settings = {"activation": activation(layer.activation).kind}
    if not isinstance(layer, L.SimpleRNN):
        gate = activation(layer.recurrent_activation).kind
        settings["recurrent_activation"] = gate
    if isinstance(layer, L.GRU):
        settings["reset_after"] = bool(layer.reset_after)
    settings["last"] = not layer.return_sequences
    if layer.go_backwards:
        settings["reverse"] = True
        # Keras leaves the outputs in the order in which they were computed.
        settings["flipped"] = bool(layer.return_sequences)
    return settings


def _pool(layer: Any) -> Settings:
    count = len(layer.pool_size)
    return {
        "size": tuple(layer.pool_size),
        "strides": _axes(layer.strides, count),
        "padding": _padding(layer.padding, count),
    }


def activation(function_: Any) -> LayerSpec:
    """An activation function of Keras, or "other"."""
    name = getattr(function_, "__name__", type(function_).__name__)
    if isinstance(function_, L.Layer):
        return LayerSpec(*_described(function_))
    if not str(getattr(function_, "__module__", "")).startswith("keras."):
        return LayerSpec("other", {"function": name})
    return function(name, {}, of_activations=True)


ALONE = {
    "linear": "identity",
    "identity": "identity",
    "relu": "relu",
    "relu6": "relu6",
    "selu": "selu",
    "silu": "silu",
    "swish": "silu",
    "sigmoid": "sigmoid",
    "hard_sigmoid": "hard_sigmoid",
    "hard_silu": "hard_swish",
    "hard_swish": "hard_swish",
    "tanh": "tanh",
    "softplus": "softplus",
    "mish": "mish",
    "flatten": "flatten",
    "reshape": "reshape",
    "squeeze": "reshape",
    "expand_dims": "reshape",
    "transpose": "permute",
    "swapaxes": "permute",
    "moveaxis": "permute",
    "matmul": "matmul",
    "add": "add",
    "subtract": "subtract",
    "multiply": "multiply",
}


def function(
    name: str, given: Mapping[str, Any], *, of_activations: bool = False
) -> LayerSpec:
    """What a function of `keras.ops` or `keras.activations` does."""
    if name in ("multiply", "add", "subtract") and "x2" in given:
        one, other = given.get("x1"), given["x2"]
        if isinstance(one, (int, float)):
            one, other = other, one
        if isinstance(other, (int, float)):
            factor = float(other) if name == "multiply" else 1.0
            offset = 0.0 if name == "multiply" else float(other)
            offset = -offset if name == "subtract" else offset
            return LayerSpec("scale", {"factor": factor, "offset": offset})
    if name in ALONE:
        return LayerSpec(ALONE[name])
    match name:
        case "gelu":
            default = not of_activations
            return LayerSpec(
                "gelu", {"approximate": bool(given.get("approximate", default))}
            )
        case "leaky_relu":
            slope = given.get("negative_slope", 0.2)
            return LayerSpec("leaky_relu", {"slope": float(slope)})
        case "elu" | "celu":
            return LayerSpec(name, {"alpha": float(given.get("alpha", 1.0))})
        case "softmax" | "log_softmax":
            return LayerSpec(name, {"axis": given.get("axis", -1)})
        case "concatenate":
            return LayerSpec("concatenate", {"axis": given.get("axis", 0)})
        case "mean" | "sum" | "max":
            return LayerSpec(name, {"axis": given.get("axis")})
        case "max_pool" | "average_pool":
            return LayerSpec(name, _pool_function(name, given))
        case "true_divide" | "divide":
            if isinstance(given.get("x2"), (int, float)):
                factor = 1 / float(given["x2"])
                return LayerSpec("scale", {"factor": factor, "offset": 0.0})
    return LayerSpec("other", {"function": name})


def _pool_function(name: str, given: Mapping[str, Any]) -> Settings:
    size = given.get("pool_size", 2)
    strides = given.get("strides") or size
    settings: Settings = {
        "size": _axes(size, 2),
        "strides": _axes(strides, 2),
        "padding": _padding(given.get("padding", "valid"), len(_axes(size, 2))),
    }
    return settings | ({"count_padding": False} if name == "average_pool" else {})


def parts(name: str, layer: Any) -> Iterator[Part]:
    """The blocks of weights that a layer itself has."""
    if is_container(layer):
        for variable in layer._trainable_variables + layer._non_trainable_variables:
            if "seed" not in variable.path:
                label = f"{name}.{variable.name}".lstrip(".")
                yield Part(label, name, "parameter", {}, {"value": Slot(variable)})
        return
    if not layer.weights:
        return
    kind, settings = _described(layer)
    if isinstance(layer, L.Bidirectional):
        for end, one in (
            ("forward", layer.forward_layer),
            ("reverse", layer.backward_layer),
        ):
            told = _recurrent(one) | {"reverse": end == "reverse"}
            told.pop("flipped", None)  # the wrapper turns them back
            yield Part(f"{name}/{end}", name, kind, told, _cell(one))
        return
    if kind == "separable":
        yield from _separable(name, layer)
        return
    yield Part(name, name, kind, settings, _slots(kind, layer))


def _slots(kind: str, layer: Any) -> dict[str, Slot]:
    match kind:
        case "dense":
            return _given(kernel=Slot(layer.kernel), bias=layer.bias)
        case "conv":
            kernel = Slot(layer.kernel)
            if isinstance(layer, (L.DepthwiseConv1D, L.DepthwiseConv2D)):
                kernel = _grouped(layer.kernel)
            return _given(kernel=kernel, bias=layer.bias if layer.use_bias else None)
        case "conv_transpose":
            kernel = Slot(layer.kernel, _swapped, _swapped)
            return _given(kernel=kernel, bias=layer.bias if layer.use_bias else None)
        case "batch_norm":
            return _given(
                gamma=layer.gamma if layer.scale else None,
                beta=layer.beta if layer.center else None,
                mean=layer.moving_mean,
                variance=layer.moving_variance,
            )
        case "layer_norm" | "group_norm":
            return _given(
                gamma=layer.gamma if layer.scale else None,
                beta=layer.beta if layer.center else None,
            )
        case "rms_norm":
            return _given(gamma=getattr(layer, "gamma", None) or layer.scale)
        case "embedding":
            return _given(table=layer._embeddings)
        case "prelu":
            return _given(slope=layer.alpha)
        case "lstm" | "gru" | "rnn":
            return _cell(layer)
        case "attention":
            return _attention(layer)
    return {x.name: Slot(x) for x in layer.weights}


def _given(**slots: Any) -> dict[str, Slot]:
    return {
        name: value if isinstance(value, Slot) else Slot(value)
        for name, value in slots.items()
        if value is not None
    }


def _swapped(array: Array) -> Array:
    return array.swapaxes(-1, -2)


def _grouped(kernel: Any) -> Slot:
    """A depthwise kernel (*size, c, m) as that of c groups, (*size, 1, c m)."""
    size = tuple(kernel.shape[:-2])
    return Slot(
        kernel,
        lambda x: x.reshape(*size, 1, -1),
        lambda x: x.reshape(kernel.shape),
    )


def _separable(name: str, layer: Any) -> Iterator[Part]:
    rank = layer.rank
    depthwise: Settings = {
        "strides": _axes(layer.strides, rank),
        "dilation": _axes(layer.dilation_rate, rank),
        "padding": _padding(layer.padding, rank),
        "groups": layer.depthwise_kernel.shape[-2],
    }
    slots = {"kernel": _grouped(layer.depthwise_kernel)}
    yield Part(f"{name}/depthwise", name, "conv", depthwise, slots)
    ones: Settings = {
        "strides": (1,) * rank,
        "dilation": (1,) * rank,
        "padding": ((0, 0),) * rank,
        "groups": 1,
    }
    bias = layer.bias if layer.use_bias else None
    slots = _given(kernel=layer.pointwise_kernel, bias=bias)
    yield Part(f"{name}/pointwise", name, "conv", ones, slots)


def _update_first(array: Array) -> Array:
    """Swap the thirds of gates: Keras has a GRU's update gate z before its reset r."""
    one, two, three = np.split(array, 3, axis=-1)
    return np.concatenate([two, one, three], axis=-1)


def _cell(layer: Any) -> dict[str, Slot]:
    cell = layer.cell
    bias = cell.bias if cell.use_bias else None
    if not isinstance(layer, L.GRU):
        return _given(kernel=cell.kernel, recurrent=cell.recurrent_kernel, bias=bias)
    slots = {
        "kernel": Slot(cell.kernel, _update_first, _update_first),
        "recurrent": Slot(cell.recurrent_kernel, _update_first, _update_first),
    }
    if bias is not None and layer.reset_after:
        for row, name in enumerate(("input_bias", "recurrent_bias")):
            slots[name] = _row(bias, row)
    elif bias is not None:
        slots["input_bias"] = Slot(bias, _update_first, _update_first)
    return slots


def _row(bias: Any, row: int) -> Slot:
    def back(array: Array) -> Array:
        whole = np.array(bias)
        whole[row] = _update_first(array)
        return whole

    return Slot(bias, lambda x: _update_first(x[row]), back)


def _attention(layer: Any) -> dict[str, Slot]:
    slots = {}
    for name in ("query", "key", "value"):
        dense = getattr(layer, f"_{name}_dense")
        slots[name] = _flat(dense.kernel, 1)
        if dense.bias is not None:
            slots[f"{name}_bias"] = _flat(dense.bias, 0)
    dense = layer._output_dense
    slots["output"] = Slot(
        dense.kernel,
        lambda x: x.reshape(-1, x.shape[-1]),
        lambda x: x.reshape(dense.kernel.shape),
    )
    if dense.bias is not None:
        slots["output_bias"] = Slot(dense.bias)
    return slots


def _flat(variable: Any, first: int) -> Slot:
    return Slot(
        variable,
        lambda x: x.reshape(*x.shape[:first], -1),
        lambda x: x.reshape(variable.shape),
    )


def time_first(_layer: Any, _dimensions: int) -> bool:
    """Keras has sequences (N, time, c)."""
    return False


def channels_first(layer: Any, dimensions: int) -> bool:
    """Whether a layer was told that channels are at axis 1."""
    return dimensions >= 3 and getattr(layer, "data_format", "") == "channels_first"
