"""Says of Keras's layers and functions what `core.layer_spec` has words for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from paripassu.core.layer_spec import Array, LayerSpec
from paripassu.sides import observing
from paripassu.sides.observing import SAME, Attributes, Move, Settings, Slot
from paripassu.sides.tables import (
    OTHER,
    Row,
    Weights,
    find_base,
    find_layer,
    named_alike,
    scale_by,
)

L = keras.layers


class Part(observing.Part):
    """A block of weights in a layer's variables."""

    def to_array(self, holder: Any) -> Array:
        """Copy a variable's value."""
        return np.asarray(holder)

    def assign(self, slot: Slot, array: Array) -> None:
        """Write a variable, or a row of it."""
        if slot.rows is not None:
            whole = np.asarray(slot.holder).copy()
            slot.cut(whole)[...] = array
            array = whole
        slot.holder.assign(array.reshape(slot.holder.shape))


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


# ## Settings

ATTRIBUTES: Attributes = {
    "epsilon": ("epsilon", float),
    "momentum": ("momentum", float),
    "slope": ("negative_slope", float),
    "alpha": ("alpha", float),
    "rate": ("rate", float),
}


def _axes(value: Any, count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value)


def _padding(value: str, count: int) -> Any:
    return "same" if value == "same" else ((0, 0),) * count


def _steps(layer: Any) -> Settings:
    """How a kernel moves."""
    return {
        "strides": _axes(layer.strides, layer.rank),
        "dilation": _axes(layer.dilation_rate, layer.rank),
        "padding": _padding(layer.padding, layer.rank),
    }


def _conv(layer: Any) -> Settings:
    settings = _steps(layer) | {"groups": layer.groups}
    if layer.padding == "causal":
        reach = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
        settings["padding"] = ((reach, 0),)
    return settings


def _depthwise(layer: Any) -> Settings:
    # Its input channels are its kernel's, which is not there before it is built.
    return _steps(layer) | {"groups": layer.kernel.shape[-2] if layer.built else None}


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


def _epsilon(layer: Any) -> Settings:
    return {"epsilon": layer.epsilon}


def _batch_norm(layer: Any) -> Settings:
    return _epsilon(layer) | {"momentum": layer.momentum, "axis": int(layer.axis)}


def _layer_norm(layer: Any) -> Settings | LayerSpec:
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    settings = _epsilon(layer) | {"axes": len(axes)}
    if list(axes) not in ([-1], *([*range(1, n)] for n in range(2, 6))):
        settings["axis"] = list(axes)
    if getattr(layer, "rms_scaling", False):
        return LayerSpec("rms_norm", settings)
    return settings


CELLS: dict[type, str] = {
    L.LSTMCell: "lstm",
    L.GRUCell: "gru",
    L.SimpleRNNCell: "rnn",
}


def _gates(cell: Any) -> Settings:
    """Of a recurrent layer's cell."""
    settings: Settings = {"activation": activation(cell.activation).kind}
    if hasattr(cell, "recurrent_activation"):
        gate = activation(cell.recurrent_activation).kind
        settings["recurrent_activation"] = gate
    if hasattr(cell, "reset_after"):
        settings["reset_after"] = bool(cell.reset_after)
        settings["_gates"] = "zrn"
    return settings


def _recurrent(layer: Any) -> Settings | LayerSpec:
    cells = _cells(layer)
    kinds = {_kind_of_cell(x) for x in cells}
    settings = _gates(cells[0]) if "" not in kinds else {}
    settings["last"] = not layer.return_sequences
    if layer.go_backwards:
        settings["reverse"] = True
        # Keras leaves the outputs in the order in which they were computed.
        settings["flipped"] = bool(layer.return_sequences)
    return LayerSpec((kinds.pop() if len(kinds) == 1 else "") or "other", settings)


def _cells(layer: Any) -> list[Any]:
    """What runs over the steps: one cell, or several of which each feeds the next."""
    return list(getattr(layer.cell, "cells", [layer.cell]))


def _kind_of_cell(cell: Any) -> str:
    """As of a layer of this cell; "" of one that a user made."""
    kind, overridden = find_base(type(cell), CELLS, ("call",))
    return "" if kind is None or overridden else kind


def _bidirectional(layer: Any) -> LayerSpec:
    inner = describe(layer.forward_layer)
    settings = {k: v for k, v in inner.settings.items() if k != "reverse"}
    more = {"bidirectional": True, "merge": layer.merge_mode}
    return LayerSpec(inner.kind, settings | more)


def _dense_like(layer: Any) -> Settings | LayerSpec:
    """Whether it multiplies the last axes by a matrix, as Dense does."""
    letters = _letters(layer)
    if letters is None:
        return LayerSpec("other")
    kept = letters[1]
    if not layer.built:
        return {}
    sizes = dict(zip(_kernel_letters(layer), layer.kernel.shape, strict=True))
    # Seen by nobody but whoever cuts heads out of it.
    return {} if len(kept) == 1 else {"_heads": sizes[kept[0]]}


def _kernel_letters(layer: Any) -> str:
    kernel: str = layer.equation.partition("->")[0].partition(",")[2]
    return kernel


def _letters(layer: Any) -> tuple[str, str] | None:
    """The axes of an einsum's kernel as (summed over, kept), where it is a matrix."""
    left, _, right = layer.equation.partition("->")
    given, _, kernel = left.partition(",")
    summed = "".join(x for x in given if x in kernel)
    kept = "".join(x for x in right if x in kernel)
    whole = given[: len(given) - len(summed)]
    good = (
        given.endswith(summed)
        and right == whole + kept
        and sorted(kernel) == sorted(summed + kept)
        and summed
        and kept
    )
    bias = getattr(layer, "bias_axes", None)
    return (summed, kept) if good and (not bias or {*bias} == {*kept}) else None


def _einsum_parts(name: str, layer: Any, spec: LayerSpec) -> Iterator[Part]:
    letters = _letters(layer)
    if letters is None:
        slots = {x.name: Slot(x) for x in layer.weights}
        yield Part(name, name, spec.kind, spec.settings, slots)
        return
    kernel = _kernel_letters(layer)
    order = [kernel.index(x) for x in "".join(letters)]
    shape = [layer.kernel.shape[x] for x in order]
    rows = int(np.prod(shape[: len(letters[0])]))

    def there(array: Array) -> Array:
        return array.transpose(order).reshape(rows, -1)

    def back(array: Array) -> Array:
        return array.reshape(shape).transpose(np.argsort(order))

    slots = {"kernel": Slot(layer.kernel, Move(there, back))}
    if layer.bias is not None:
        slots["bias"] = Slot(layer.bias, FLAT)
    yield Part(name, name, spec.kind, spec.settings, slots)


def _pool(layer: Any) -> Settings:
    count = len(layer.pool_size)
    return {
        "size": tuple(layer.pool_size),
        "strides": _axes(layer.strides, count),
        "padding": _padding(layer.padding, count),
    }


def _average_pool(layer: Any) -> Settings:
    return _pool(layer) | {"count_padding": False}


def _global(layer: Any) -> Settings:
    settings: Settings = {"keepdims": bool(layer.keepdims)}
    if layer.data_format == "channels_first":
        settings["axis"] = "all but 1"
    return settings


def _upsample(layer: Any) -> Settings | LayerSpec:
    mode = layer.interpolation
    if mode not in ("nearest", "bilinear"):
        return LayerSpec("other", {"mode": mode})
    corners = {"align_corners": False} if mode == "bilinear" else {}
    return {"factor": tuple(layer.size), "mode": mode} | corners


def _pairs(value: Any) -> tuple[Any, ...]:
    """(before, after) for each axis of space; of one axis Keras has the pair alone."""
    return (tuple(value),) if np.ndim(value) == 1 else tuple(map(tuple, value))


def _relu(layer: Any) -> Settings | LayerSpec:
    if layer.max_value == 6 and not layer.negative_slope:
        return LayerSpec("relu6")
    if layer.negative_slope and layer.max_value is None:
        return LayerSpec("leaky_relu", _slope(layer))
    return {}


def _slope(layer: Any) -> Settings:
    return {"slope": float(layer.negative_slope)}


def _rescaling(layer: Any) -> Settings | LayerSpec:
    factor, offset = layer.scale, layer.offset
    if np.ndim(factor) or np.ndim(offset):
        return LayerSpec("other")
    return {"factor": float(factor), "offset": float(offset)}


def _axis(layer: Any) -> Settings:
    return {"axis": layer.axis}


# ## Weights: of each the attribute, and how its axes move

LAST_TWO = Move(lambda x: x.swapaxes(-1, -2), lambda x: x.swapaxes(-1, -2))
# Keras has a depthwise kernel (*size, c, m): that of c groups is (*size, 1, c m).
GROUPED = Move(lambda x: x.reshape(*x.shape[:-2], 1, -1))
FLAT = Move(lambda x: x.reshape(-1))
HEADS_LAST = Move(lambda x: x.reshape(len(x), -1))
HEADS_FIRST = Move(lambda x: x.reshape(-1, x.shape[-1]))


def _swap_gates(array: Array) -> Array:
    """Swap the thirds: Keras has a GRU's update gate z before its reset r."""
    one, two, three = np.split(array, 3, axis=-1)
    return np.concatenate([two, one, three], axis=-1)


GATES = Move(_swap_gates, _swap_gates)
ROW_OF_GATES = Move(lambda x: _swap_gates(x[0]), lambda x: _swap_gates(x)[None])
BIAS = {"bias": ("bias", SAME)}
KERNEL = {"kernel": ("kernel", SAME)} | BIAS
GAMMA_BETA = {"gamma": ("gamma", SAME), "beta": ("beta", SAME)}
STATISTICS = {"mean": ("moving_mean", SAME), "variance": ("moving_variance", SAME)}


def _slots(layer: Any, weights: Weights) -> dict[str, Slot]:
    found = {
        name: (getattr(layer, key, None), move) for name, (key, move) in weights.items()
    }
    return {name: Slot(x, move) for name, (x, move) in found.items() if x is not None}


def _cell(cell: Any) -> dict[str, Slot]:
    move = GATES if isinstance(cell, L.GRUCell) else SAME
    names = {"kernel": ("kernel", move), "recurrent": ("recurrent_kernel", move)}
    if move is SAME:
        return _slots(cell, names | BIAS)
    slots, bias = _slots(cell, names), cell.bias
    if bias is not None and cell.reset_after:
        slots["input_bias"] = Slot(bias, ROW_OF_GATES, (0, 1))
        slots["recurrent_bias"] = Slot(bias, ROW_OF_GATES, (1, 2))
    elif bias is not None:
        slots["input_bias"] = Slot(bias, GATES)
    return slots


def _recurrent_parts(name: str, layer: Any, spec: LayerSpec) -> Iterator[Part]:
    cells = _cells(layer)
    for number, cell in enumerate(cells):
        label = name if len(cells) == 1 else f"{name}/{number}"
        settings = {**spec.settings, **_gates(cell)}
        yield Part(label, name, _kind_of_cell(cell), settings, _cell(cell))


def _cell_parts(name: str, cell: Any, _spec: LayerSpec) -> Iterator[Part]:
    """The weights of a cell that is called step by step."""
    settings = _gates(cell) | {"_cell": True}
    yield Part(name, name, _kind_of_cell(cell) or "other", settings, _cell(cell))


def _bidirectional_parts(name: str, layer: Any, spec: LayerSpec) -> Iterator[Part]:
    ends = {"forward": layer.forward_layer, "reverse": layer.backward_layer}
    for end, one in ends.items():
        settings = describe(one).settings | {"reverse": end == "reverse"}
        settings.pop("flipped", None)  # the wrapper turns them back
        cell = _cell(one.cell)
        yield Part(f"{name}/{end}", name, spec.kind, settings, cell)


def _separable_parts(name: str, layer: Any, _spec: LayerSpec) -> Iterator[Part]:
    rank = layer.rank
    depthwise = _steps(layer) | {"groups": layer.depthwise_kernel.shape[-2]}
    slots = {"kernel": Slot(layer.depthwise_kernel, GROUPED)}
    yield Part(f"{name}/depthwise", name, "conv", depthwise, slots)
    pointwise: Settings = {
        "strides": (1,) * rank,
        "dilation": (1,) * rank,
        "padding": ((0, 0),) * rank,
        "groups": 1,
    }
    slots = _slots(layer, {"kernel": ("pointwise_kernel", SAME)} | BIAS)
    yield Part(f"{name}/pointwise", name, "conv", pointwise, slots)


def _attention_parts(name: str, layer: Any, spec: LayerSpec) -> Iterator[Part]:
    slots: dict[str, Slot] = {}
    for key in ("query", "key", "value", "output"):
        kernel, bias = (HEADS_FIRST, SAME) if key == "output" else (HEADS_LAST, FLAT)
        places = {key: ("kernel", kernel), f"{key}_bias": ("bias", bias)}
        slots |= _slots(getattr(layer, f"_{key}_dense"), places)
    yield Part(name, name, spec.kind, spec.settings, slots)


def is_normed(layer: Any) -> bool:
    """Whether it divides a layer's kernel by its largest singular value, in training."""
    return isinstance(layer, L.SpectralNormalization) and layer.built


def _normed_parts(name: str, layer: Any, _spec: LayerSpec) -> Iterator[observing.Part]:
    for part in parts(name, layer.layer):
        made = {"_made_by": type(layer).__name__}
        yield replace(part, settings=part.settings | made)


# ## The tables


def _each_rank(name: str, layer: Row, ranks: str = "123") -> dict[type, Row]:
    """The same for `Conv1D`, `Conv2D` and `Conv3D`."""
    return {getattr(L, name.format(x)): layer for x in ranks}


CONV_TRANSPOSE = Row(
    "conv_transpose", _conv_transpose, {"kernel": ("kernel", LAST_TWO)} | BIAS
)
DEPTHWISE = Row("conv", _depthwise, {"kernel": ("kernel", GROUPED)} | BIAS)
DROPOUT = Row("dropout")
LAYERS: dict[type, Row] = {
    L.Dense: Row("dense", weights=KERNEL),
    L.EinsumDense: Row("dense", _dense_like, _einsum_parts),
    **_each_rank("Conv{}D", Row("conv", _conv, KERNEL)),
    **_each_rank("Conv{}DTranspose", CONV_TRANSPOSE),
    **_each_rank("DepthwiseConv{}D", DEPTHWISE, "12"),
    **_each_rank("SeparableConv{}D", Row("separable", weights=_separable_parts), "12"),
    L.BatchNormalization: Row("batch_norm", _batch_norm, GAMMA_BETA | STATISTICS),
    L.LayerNormalization: Row("layer_norm", _layer_norm, GAMMA_BETA),
    L.RMSNormalization: Row(
        "rms_norm", lambda x: _epsilon(x) | {"axes": 1}, {"gamma": ("scale", SAME)}
    ),
    L.GroupNormalization: Row(
        "group_norm", lambda x: _epsilon(x) | {"groups": x.groups}, GAMMA_BETA
    ),
    L.Embedding: Row("embedding", weights={"table": ("_embeddings", SAME)}),
    L.Bidirectional: Row("other", _bidirectional, _bidirectional_parts),
    L.LSTM: Row("lstm", _recurrent, _recurrent_parts),
    L.GRU: Row("gru", _recurrent, _recurrent_parts),
    L.SimpleRNN: Row("rnn", _recurrent, _recurrent_parts),
    L.RNN: Row("other", _recurrent, _recurrent_parts),
    **{x: Row("cell", weights=_cell_parts) for x in CELLS},
    L.SpectralNormalization: Row("other", lambda x: describe(x.layer), _normed_parts),
    L.MultiHeadAttention: Row(
        "attention",
        lambda x: {"heads": x.num_heads, "scale": float(x._inverse_sqrt_key_dim)},
        _attention_parts,
    ),
    L.PReLU: Row("prelu", weights={"slope": ("alpha", SAME)}),
    **_each_rank("MaxPooling{}D", Row("max_pool", _pool)),
    **_each_rank("AveragePooling{}D", Row("average_pool", _average_pool)),
    **_each_rank("GlobalMaxPooling{}D", Row("global_max_pool", _global)),
    **_each_rank("GlobalAveragePooling{}D", Row("global_average_pool", _global)),
    L.UpSampling2D: Row("upsample", _upsample),
    **_each_rank("Cropping{}D", Row("crop", lambda x: {"crop": _pairs(x.cropping)})),
    **_each_rank(
        "ZeroPadding{}D",
        Row("pad", lambda x: {"padding": _pairs(x.padding), "value": 0.0}),
    ),
    L.Activation: Row("other", lambda x: activation(x.activation)),
    L.ReLU: Row("relu", _relu),
    L.LeakyReLU: Row("leaky_relu", _slope),
    L.ELU: Row("elu", lambda x: {"alpha": float(x.alpha)}),
    L.Softmax: Row("softmax", _axis),
    L.Concatenate: Row("concatenate", _axis),
    L.Rescaling: Row("scale", _rescaling),
    **{x: Row(x.__name__.lower()) for x in (L.Add, L.Multiply, L.Subtract)},
    **{x: Row(x.__name__.lower()) for x in (L.Flatten, L.Reshape, L.Identity)},
    L.Permute: Row("permute"),
    **_each_rank("SpatialDropout{}D", DROPOUT),
    **dict.fromkeys(
        (L.Dropout, L.AlphaDropout, L.GaussianDropout, L.GaussianNoise), DROPOUT
    ),
}


def _find(layer: Any) -> Row:
    if isinstance(layer, keras.Operation) and not isinstance(layer, L.Layer):
        name = snake_case(type(layer).__name__)
        return Row("other", lambda x: function(name, vars(x)))
    return find_layer(type(layer), LAYERS, "call", "dropout")


def describe(layer: Any) -> LayerSpec:
    """A layer's kind and settings; of its weights, only which there are."""
    spec = _find(layer).describe(layer)
    names = {str(x.path): np.empty(0) for x in layer.weights if "seed" not in x.path}
    return LayerSpec(spec.kind, dict(spec.settings), names)


def parts(name: str, layer: Any) -> Iterator[observing.Part]:
    """The blocks of weights that a layer itself has.

    Of a user's class with a base of Keras, also weights that the base has not.
    """
    if is_container(layer):  # the layers in it have theirs
        own = layer._trainable_variables + layer._non_trainable_variables
        yield from _parameters(name, ((x.name, x) for x in own))
        return
    found = list(_known_parts(name, layer))
    yield from found
    if not found or type(layer).__module__.startswith("keras."):
        return
    inside = ((f"/{x.path}".rpartition(f"/{layer.name}/")[2], x) for x in layer.weights)
    yield from _parameters(name, inside, found)


def _parameters(
    name: str, variables: Iterable[tuple[str, Any]], but: Iterable[observing.Part] = ()
) -> Iterator[Part]:
    named = (
        (f"{name}.{label.replace('/', '.')}".lstrip("."), variable)
        for label, variable in variables
        if "seed" not in variable.path
    )
    yield from observing.parameters(Part, name, named, but)


def _known_parts(name: str, layer: Any) -> Iterator[observing.Part]:
    if not layer.weights:
        return
    row = _find(layer)
    spec = row.describe(layer)
    weights = row.weights if spec.kind != "other" else {}
    if not isinstance(weights, Mapping):
        yield from weights(name, layer, spec)
        return
    slots = _slots(layer, weights) if weights else {}
    slots = slots or {x.name: Slot(x) for x in layer.weights}
    yield Part(name, name, spec.kind, spec.settings, slots)


def channels_first(layer: Any, dimensions: int) -> bool:
    """Whether a layer was told that channels are at axis 1."""
    return dimensions >= 3 and getattr(layer, "data_format", "") == "channels_first"


def normalises_first(kind: str, settings: Mapping[str, Any]) -> bool:
    """Whether it is a BatchNorm whose channels are at axis 1."""
    return kind == "batch_norm" and settings.get("axis") == 1


def snake_case(name: str) -> str:
    """`MaxPool` as max_pool."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


# ## Functions

Given = Mapping[str, Any]  # arguments by name


def _axis_given(default: Any) -> Callable[[Given], Settings]:
    return lambda given: {"axis": given.get("axis", default)}


def _alpha_given(given: Given) -> Settings:
    return {"alpha": float(given.get("alpha", 1.0))}


def _pool_given(given: Given) -> Settings:
    size = given.get("pool_size", 2)
    strides = given.get("strides") or size
    return {
        "size": _axes(size, 2),
        "strides": _axes(strides, 2),
        "padding": _padding(given.get("padding", "valid"), len(_axes(size, 2))),
    }


def _operation(kind: str) -> Callable[[Given], Settings | LayerSpec]:
    return lambda given: scale_by(kind, given.get("x1"), given.get("x2"))


FUNCTIONS: dict[str, Row] = {
    **named_alike(
        "identity relu relu6 selu silu sigmoid hard_sigmoid hard_swish tanh softplus "
        "mish flatten reshape matmul",
    ),
    **dict.fromkeys(("squeeze", "expand_dims"), Row("reshape")),
    **dict.fromkeys(("transpose", "swapaxes", "moveaxis"), Row("permute")),
    **{x: Row(x, _axis_given(-1)) for x in ("softmax", "log_softmax")},
    **{x: Row(x, _axis_given(None)) for x in ("mean", "sum", "max")},
    **{x: Row(x, _alpha_given) for x in ("elu", "celu")},
    "linear": Row("identity"),
    "swish": Row("silu"),
    "hard_silu": Row("hard_swish"),
    **{x: Row(x, _operation(x)) for x in ("add", "subtract", "multiply")},
    **dict.fromkeys(("divide", "true_divide"), Row("other", _operation("divide"))),
    # Of `keras.ops`; that of `keras.activations` is exact.
    "gelu": Row("gelu", lambda x: {"approximate": bool(x.get("approximate", True))}),
    "leaky_relu": Row(
        "leaky_relu", lambda x: {"slope": float(x.get("negative_slope", 0.2))}
    ),
    "concatenate": Row("concatenate", _axis_given(0)),
    "max_pool": Row("max_pool", _pool_given),
    "average_pool": Row(
        "average_pool", lambda x: _pool_given(x) | {"count_padding": False}
    ),
}


def function(name: str, given: Given) -> LayerSpec:
    """What a function of `keras.ops` or `keras.activations` does."""
    spec = FUNCTIONS.get(name, OTHER).describe(given)
    return LayerSpec("other", {"function": name}) if spec.kind == "other" else spec


def activation(function_: Any) -> LayerSpec:
    """An activation function of Keras, or "other"."""
    if isinstance(function_, L.Layer):
        return _find(function_).describe(function_)
    name = getattr(function_, "__name__", type(function_).__name__)
    if not str(getattr(function_, "__module__", "")).startswith("keras."):
        return LayerSpec("other", {"function": name})
    return function(name, {"approximate": False})
