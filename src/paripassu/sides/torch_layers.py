"""Says of PyTorch's layers and functions what `core.layer_spec` has words for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from paripassu.core.layer_spec import Array, LayerSpec
from paripassu.sides import observing
from paripassu.sides.observing import SAME, Attributes, Move, Settings, Slot
from paripassu.sides.tables import (
    Row,
    find_layer,
    named_alike,
    scale_by,
)
from paripassu.sides.torch_made import Made, is_made, made_by, makes

# Of no interest between layers: questions about a tensor, and copies of it.
QUESTIONS = (
    "size dim shape __get__ numel is_floating_point to contiguous clone detach_ device "
    "dtype ndim float double type type_as __len__ unbind __iter__ is_contiguous stride "
    "_weight_norm requires_grad_ __set__ __bool__ item any all __eq__ __ne__ __lt__ __gt__ __le__ "
    "__ge__ ndimension data_ptr element_size is_complex"
)
QUIET = frozenset(QUESTIONS.split())

NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)


class Part(observing.Part):
    """A block of weights in a module's tensors."""

    def to_array(self, holder: Any) -> Array:
        """Share a tensor's memory, unless it is made of others."""
        return array_of(holder.value() if isinstance(holder, Made) else holder)

    def assign(self, slot: Slot, array: Array) -> None:
        """Copy into a tensor, or into some rows of it."""
        with torch.no_grad():
            if isinstance(slot.holder, Made):
                like = slot.holder.value()
                fresh = torch.from_numpy(array).reshape(like.shape).to(like)
                slot.holder.copy_(fresh)
                return
            target = slot.cut(slot.holder)
            target.copy_(torch.from_numpy(array).reshape(target.shape))


def array_of(tensor: torch.Tensor) -> Array:
    """A tensor's values, of any layout; what NumPy has no type for, in float32."""
    found = tensor.detach()
    if found.is_quantized:
        found = found.dequantize()
    if found.layout != torch.strided:
        found = found.to_dense()
    if found.is_floating_point() and found.dtype not in NUMPY_FLOATS:
        found = found.float()
    array: Array = found.resolve_conj().resolve_neg().cpu().numpy()
    return array


def leaves(model: nn.Module) -> list[nn.Module]:
    """The modules that are watched as a whole: PyTorch's own, but not containers."""
    found: list[nn.Module] = []
    inside: set[int] = set()
    for module in model.modules():
        if id(module) in inside:
            continue
        if is_leaf(module):
            found.append(module)
            inside.update(map(id, module.modules()))
    return found


def containers(model: nn.Module) -> list[nn.Module]:
    """The modules that are looked into."""
    inside = {id(x) for leaf in leaves(model) for x in leaf.modules()}
    return [x for x in model.modules() if id(x) not in inside]


def is_leaf(module: nn.Module) -> bool:
    """Whether it is watched as a whole."""
    if isinstance(module, nn.MultiheadAttention) or _foreign(module):
        return True
    # A module made by a user, or torch.nn's Transformer layers, are looked into.
    own = any(cls.__module__.startswith("torch.") for cls in type(module).__mro__[:-2])
    whole = is_made(module) or not any(module.children())
    return own and whole and type(module) is not nn.Module


# ## Settings


def _axes(value: Any, count: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (int(value),) * count


def _conv(module: Any) -> Settings:
    padding = module.padding
    if padding == "valid":
        padding = 0
    # PyTorch's "same" allows no stride; the odd one comes after, as TensorFlow's.
    if padding != "same":
        padding = tuple((x, x) for x in _axes(padding, len(module.kernel_size)))
    settings: Settings = {
        "strides": tuple(module.stride),
        "dilation": tuple(module.dilation),
        "groups": module.groups,
        "padding": padding,
    }
    if module.padding_mode != "zeros":
        settings["padding_mode"] = module.padding_mode
    return settings


def _conv_transpose(module: Any) -> Settings:
    pairs = zip(module.padding, module.output_padding, strict=True)
    return {
        "strides": tuple(module.stride),
        "dilation": tuple(module.dilation),
        "groups": module.groups,
        "crop": tuple((p, p - more) for p, more in pairs),
    }


def _rms_norm(module: Any) -> Settings:
    settings: Settings = {"axes": len(module.normalized_shape)}
    return settings if module.eps is None else settings | {"epsilon": module.eps}


CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}


def _gates(module: Any) -> Settings:
    """Of a recurrent layer, or of its cell."""
    if isinstance(module, (nn.RNN, nn.RNNCell)):
        return {"activation": module.nonlinearity}
    settings: Settings = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    if isinstance(module, (nn.GRU, nn.GRUCell)):
        settings["reset_after"] = True
    return settings


def _recurrent(module: Any) -> Settings:
    settings: Settings = {"layers": module.num_layers} | _gates(module)
    if module.bidirectional:
        settings["bidirectional"] = True
    return settings


def _pool(count: int, size: Any, stride: Any, padding: Any, ceil: Any) -> Settings:
    settings: Settings = {
        "size": _axes(size, count),
        "strides": _axes(size if stride in (None, (), []) else stride, count),
        "padding": tuple((x, x) for x in _axes(padding or 0, count)),
    }
    return settings | ({"ceil": True} if ceil else {})


def _pool_layer(module: Any) -> Settings:
    rank = type(module).__name__[-2:-1]
    given = module.kernel_size, module.stride, module.padding, module.ceil_mode
    settings = _pool(int(rank) if rank.isdigit() else 2, *given)
    if isinstance(module, nn.modules.pooling._AvgPoolNd):
        settings["count_padding"] = bool(module.count_include_pad)
    return settings


def _global(size: Any) -> Settings | LayerSpec:
    sizes = size if isinstance(size, (tuple, list)) else (size,)
    if all(x == 1 for x in sizes):
        return {"keepdims": True}
    return LayerSpec("other", {"size": tuple(sizes)})


def _from_last(flat: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(before, after) for each axis, from what begins with the last axis."""
    pairs = [(flat[n], flat[n + 1]) for n in range(0, len(flat), 2)]
    return tuple(reversed(pairs))


def _pad(mode: str) -> Callable[[Any], Settings]:
    return lambda module: {
        "padding": _from_last(module.padding),
        "padding_mode": mode,
        "value": getattr(module, "value", 0.0),
    }


def _upsample(factor: Any, mode: str, align: Any) -> Settings | LayerSpec:
    if factor is None or mode not in ("nearest", "bilinear", "nearest-exact"):
        return LayerSpec("other", {"mode": mode})
    settings: Settings = {"factor": _axes(factor, 2), "mode": mode}
    if mode == "bilinear":
        settings["align_corners"] = bool(align)
    return settings


def _alpha(module: Any) -> Settings:
    return {"alpha": module.alpha}


def _embedding(module: Any) -> Settings:
    row = module.padding_idx
    return {} if row is None else {"_untrained_row": int(row)}


def _dim(module: Any) -> Settings:
    return {"axis": module.dim}


# ## Weights: of each the parameter or buffer, and how its axes move

TRANSPOSED = Move(np.transpose, np.transpose)


def _moved(to: tuple[int, int]) -> Move:
    """The first two axes to these places."""
    there = lambda x: np.moveaxis(x, (0, 1), to)  # noqa: E731
    return Move(there, lambda x: np.moveaxis(x, to, (0, 1)))


# Of (c, h, w), the channels go last.
CHANNELS_LAST = Move(
    lambda x: np.moveaxis(x, 0, -1) if x.ndim == 3 else x,
    lambda x: np.moveaxis(x, -1, 0) if x.ndim == 3 else x,
)
BIAS = {"bias": ("bias", SAME)}
STATISTICS = {"mean": ("running_mean", SAME), "variance": ("running_var", SAME)}
GAMMA_BETA = {"gamma": ("weight", SAME), "beta": ("bias", SAME)}


def _recurrent_parts(name: str, module: Any, spec: LayerSpec) -> Iterator[Part]:
    directions = ("", "_reverse") if module.bidirectional else ("",)
    ignored = ("layers", "bidirectional")
    settings = {k: v for k, v in spec.settings.items() if k not in ignored}
    for layer in range(module.num_layers):
        for direction in directions:
            label = name
            if module.num_layers > 1:
                label += f"/{layer}"
            if module.bidirectional:
                label += "/reverse" if direction else "/forward"
            own = settings | {"reverse": bool(direction)}
            end = f"_l{layer}{direction}"
            yield _recurrent_part(label, name, module, (spec.kind, own), end)


def _recurrent_part(
    label: str, name: str, module: Any, told: tuple[str, Settings], end: str = ""
) -> Part:
    """The weights of one layer and direction, of kind and settings `told`."""
    kind, settings = told
    given = _tensors(module)
    slots = {
        "kernel": Slot(given[f"weight_ih{end}"], TRANSPOSED),
        "recurrent": Slot(given[f"weight_hh{end}"], TRANSPOSED),
    }
    second = None
    if module.bias and kind == "gru":
        slots["input_bias"] = Slot(given[f"bias_ih{end}"])
        slots["recurrent_bias"] = Slot(given[f"bias_hh{end}"])
    elif module.bias:
        first, second = given[f"bias_ih{end}"], given[f"bias_hh{end}"]
        slots["bias"] = Slot(first)
        # Seen by nobody but whoever asks which of the two was copied.
        settings = settings | {"_input_bias": array_of(first)}
    return Part(label, name, kind, settings, slots, second)


def _cell_parts(name: str, module: Any, _spec: LayerSpec) -> Iterator[Part]:
    """The weights of a cell, which are those of a layer of its kind."""
    kind = next(x for x in ("lstm", "gru", "rnn") if isinstance(module, CELLS[x]))
    settings = _gates(module) | {"_cell": True}
    yield _recurrent_part(name, name, module, (kind, settings))


def _attention_parts(name: str, module: Any, spec: LayerSpec) -> Iterator[Part]:
    width, slots = module.embed_dim, {}
    for number, key in enumerate(("query", "key", "value")):
        rows = number * width, (number + 1) * width
        if module.in_proj_weight is not None:
            slots[key] = Slot(module.in_proj_weight, TRANSPOSED, rows)
        else:
            slots[key] = Slot(getattr(module, f"{key[0]}_proj_weight"), TRANSPOSED)
        if module.in_proj_bias is not None:
            slots[f"{key}_bias"] = Slot(module.in_proj_bias, rows=rows)
    slots["output"] = Slot(module.out_proj.weight, TRANSPOSED)
    if module.out_proj.bias is not None:
        slots["output_bias"] = Slot(module.out_proj.bias)
    yield Part(name, name, spec.kind, spec.settings, slots)


# ## The tables

ATTRIBUTES: Attributes = {
    "epsilon": ("eps", float),
    "momentum": ("momentum", lambda x: 1 - x),
    "slope": ("negative_slope", float),
    "alpha": ("alpha", float),
    "rate": ("p", float),
    "approximate": ("approximate", lambda x: "tanh" if x else "none"),
}

pooling, padding = nn.modules.pooling, nn.modules.padding
LAYERS: dict[type, Row] = {
    nn.Linear: Row("dense", weights={"kernel": ("weight", TRANSPOSED)} | BIAS),
    # A part of an attention, which has its weights.
    nn.modules.linear.NonDynamicallyQuantizableLinear: Row(
        "dense", weights=lambda *_: iter(())
    ),
    nn.modules.conv._ConvNd: Row(
        "conv", _conv, {"kernel": ("weight", _moved((-1, -2)))} | BIAS
    ),
    nn.modules.conv._ConvTransposeNd: Row(
        "conv_transpose",
        _conv_transpose,
        {"kernel": ("weight", _moved((-2, -1)))} | BIAS,
    ),
    nn.modules.batchnorm._BatchNorm: Row(
        "batch_norm",
        lambda x: {"epsilon": x.eps, "momentum": 1 - (x.momentum or 0), "axis": -1},
        GAMMA_BETA | STATISTICS,
    ),
    nn.modules.instancenorm._InstanceNorm: Row(
        "group_norm",
        lambda x: {"epsilon": x.eps, "groups": x.num_features},
        GAMMA_BETA | STATISTICS,
    ),
    nn.LayerNorm: Row(
        "layer_norm",
        lambda x: {"epsilon": x.eps, "axes": len(x.normalized_shape)},
        {"gamma": ("weight", CHANNELS_LAST), "beta": ("bias", CHANNELS_LAST)},
    ),
    nn.RMSNorm: Row("rms_norm", _rms_norm, {"gamma": ("weight", CHANNELS_LAST)}),
    nn.GroupNorm: Row(
        "group_norm",
        lambda x: {"epsilon": x.eps, "groups": x.num_groups},
        GAMMA_BETA,
    ),
    nn.Embedding: Row("embedding", _embedding, {"table": ("weight", SAME)}),
    nn.EmbeddingBag: Row("embedding", _embedding, {"table": ("weight", SAME)}),
    nn.LSTM: Row("lstm", _recurrent, _recurrent_parts),
    nn.GRU: Row("gru", _recurrent, _recurrent_parts),
    nn.RNN: Row("rnn", _recurrent, _recurrent_parts),
    # One step of such a layer: its weights are, its call is not.
    **{x: Row("cell", weights=_cell_parts) for x in CELLS.values()},
    nn.MultiheadAttention: Row(
        "attention",
        lambda x: {
            "heads": x.num_heads,
            "scale": (x.embed_dim // x.num_heads) ** -0.5,
        },
        _attention_parts,
    ),
    nn.PReLU: Row("prelu", weights={"slope": ("weight", SAME)}),
    pooling._MaxPoolNd: Row("max_pool", _pool_layer),
    pooling._AvgPoolNd: Row("average_pool", _pool_layer),
    pooling._AdaptiveAvgPoolNd: Row(
        "global_average_pool", lambda x: _global(x.output_size)
    ),
    pooling._AdaptiveMaxPoolNd: Row(
        "global_max_pool", lambda x: _global(x.output_size)
    ),
    nn.Upsample: Row(
        "upsample", lambda x: _upsample(x.scale_factor, x.mode, x.align_corners)
    ),
    padding._ConstantPadNd: Row("pad", _pad("constant")),
    padding._ReflectionPadNd: Row("pad", _pad("reflect")),
    padding._ReplicationPadNd: Row("pad", _pad("replicate")),
    padding._CircularPadNd: Row("pad", _pad("circular")),
    nn.GELU: Row("gelu", lambda x: {"approximate": x.approximate == "tanh"}),
    nn.LeakyReLU: Row("leaky_relu", lambda x: {"slope": x.negative_slope}),
    nn.ELU: Row("elu", _alpha),
    nn.CELU: Row("celu", _alpha),
    nn.Softmax: Row("softmax", _dim),
    nn.LogSoftmax: Row("log_softmax", _dim),
    nn.modules.dropout._DropoutNd: Row("dropout"),
    nn.Hardsigmoid: Row("hard_sigmoid"),
    nn.Hardswish: Row("hard_swish"),
    **{
        x: Row(x.__name__.lower())
        for x in (nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Tanh)
    },
    **{
        x: Row(x.__name__.lower())
        for x in (nn.Softplus, nn.Mish, nn.Identity, nn.Flatten)
    },
}
# Of other libraries, which are not imported: by module and name.
FOREIGN = {
    # A dense layer of a kernel (in, out).
    "transformers.pytorch_utils.Conv1D": Row(
        "dense", weights={"kernel": ("weight", SAME)} | BIAS
    ),
}
# Kinds of calls that have their channels at axis 1.
SPATIAL = (
    "conv conv_transpose batch_norm group_norm max_pool average_pool upsample "
    "global_average_pool global_max_pool pad prelu"
)


# Many libraries have a class of their own that has nothing else.
FROZEN = {"weight", "bias", "running_mean", "running_var"}
FROZEN_NORM = Row(
    "batch_norm",
    lambda x: {"epsilon": getattr(x, "eps", 1e-5), "momentum": 1.0, "axis": -1},
    GAMMA_BETA | STATISTICS,
)


def _foreign(module: nn.Module) -> Row | None:
    cls = type(module)
    if cls.__module__.startswith("torch."):
        return None
    own = {key for key, _ in module.named_buffers(recurse=False)}
    if own - {"num_batches_tracked"} == FROZEN and not [*module.parameters()]:
        return FROZEN_NORM
    return FOREIGN.get(f"{cls.__module__}.{cls.__qualname__}")


def _find(module: nn.Module) -> Row:
    if row := _foreign(module):
        return row
    return find_layer(type(module), LAYERS, "forward", f"{SPATIAL} dropout")


# Of PyTorch, and yet with weights that are used one by one.
LISTS = (nn.Transformer, nn.ParameterList, nn.ParameterDict)


def describe(module: nn.Module) -> LayerSpec:
    """A module's kind and settings; of its weights, only which there are."""
    spec = _find(module).describe(module)
    names = {name: np.empty(0) for name, _ in module.named_parameters()}
    if _foreign(module) is FROZEN_NORM:
        names = {name: np.empty(0) for name, _ in module.named_buffers()}
    return LayerSpec(spec.kind, spec.settings, names)


def parts(name: str, module: nn.Module) -> Iterator[observing.Part]:
    """The blocks of weights that a module itself has.

    Of a user's class with a base of PyTorch, also parameters that the base has not.
    """
    found = list(_known_parts(name, module))
    yield from found
    if not found or type(module).__module__.startswith("torch."):
        return
    own, kept = module.named_parameters(recurse=False), _tensors(module)
    more = ((f"{name}.{key}", tensor) for key, tensor in own if key in kept)
    yield from observing.parameters(Part, name, more, found)


def _known_parts(name: str, module: nn.Module) -> Iterator[observing.Part]:
    row = _find(module)
    spec, weights = row.describe(module), row.weights
    if not isinstance(weights, Mapping):
        yield from weights(name, module, spec)
        return
    if makes(module):
        return  # the weight of the layer above it, which has it
    tensors = _tensors(module)
    own = _foreign(module) is not None or any(
        cls.__module__.startswith("torch.nn.modules") and cls is not nn.Module
        for cls in type(module).__mro__
    )
    if not own or isinstance(module, LISTS):
        place = "" if name == "model" else f"{name}."
        named = ((f"{place}{key}", tensor) for key, tensor in tensors.items())
        yield from observing.parameters(Part, name, named)
        return
    slots = {key: Slot(tensor) for key, tensor in tensors.items()}
    if weights:
        first, _ = next(iter(weights.values()))
        # Without its first one they keep their own names.
        if first in tensors or not tensors:
            tensors |= dict(module.named_buffers(recurse=False))
            slots = {
                weight: Slot(tensors[key], move)
                for weight, (key, move) in weights.items()
                if key in tensors
            }
    if slots:
        made = {x.by for x in tensors.values() if isinstance(x, Made)}
        settings = spec.settings | ({"_made_by": made.pop()} if made else {})
        yield Part(name, name, spec.kind, settings, slots)


def _tensors(module: nn.Module) -> dict[str, Any]:
    """A module's own parameters by name; those that it makes of others as `Made`."""
    made = made_by(module)
    inside = {key for x in made.values() for key in x.originals}
    own = dict(module.named_parameters(recurse=False))
    found: dict[str, Any] = {key: x for key, x in own.items() if key not in inside}
    return made | found


def time_first(module: nn.Module | None, dimensions: int) -> bool:
    """Whether a recurrent layer's or an attention's sequences are (time, N, c)."""
    return dimensions == 3 and getattr(module, "batch_first", True) is False


def channels_first(spec: LayerSpec, dimensions: int) -> bool:
    """Whether a call of this kind has its channels at axis 1."""
    if spec.kind == "layer_norm":
        return bool(spec.settings["axes"] == 3 and dimensions == 4)
    return spec.kind in SPATIAL.split() and dimensions >= 3


# ## Functions


class Given(NamedTuple):
    """What a function is called with, and of how many axes of space it is."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    rank: int

    def get(self, name: str, place: int, default: Any = None) -> Any:
        """An argument by its name or its place."""
        by_place = self.args[place] if len(self.args) > place else default
        return self.kwargs.get(name, by_place)


def _axis(default: Any) -> Callable[[Given], Settings]:
    return lambda given: {"axis": given.get("dim", 1, default)}


def _alpha_given(given: Given) -> Settings:
    return {"alpha": given.get("alpha", 1, 1.0)}


def _pool_given(given: Given, ceil: int = 5) -> Settings:
    size, stride = given.get("kernel_size", 1), given.get("stride", 2)
    padding, ceiling = given.get("padding", 3), given.get("ceil_mode", ceil, False)
    return _pool(given.rank, size, stride, padding, ceiling)


def _average_pool_given(given: Given) -> Settings:
    counted = bool(given.get("count_include_pad", 5, True))
    return _pool_given(given, ceil=4) | {"count_padding": counted}


def _pad_given(given: Given) -> Settings:
    return {
        "padding": _from_last(given.get("pad", 1)),
        "padding_mode": given.get("mode", 2, "constant"),
        "value": given.get("value", 3) or 0.0,
    }


def _operation(kind: str) -> Callable[[Given], Settings | LayerSpec]:
    return lambda given: scale_by(kind, None, given.get("other", 1))


ADD = Row("add", _operation("add"))
MULTIPLY = Row("multiply", _operation("multiply"))
DIVIDE = Row("other", _operation("divide"))
MAX_POOL = Row("max_pool", _pool_given)
FUNCTIONS: dict[str, Row] = {
    **named_alike("relu relu6 selu silu sigmoid tanh softplus mish flatten matmul"),
    **dict.fromkeys(
        ("view", "reshape", "unflatten", "squeeze", "unsqueeze"), Row("reshape")
    ),
    **dict.fromkeys(("permute", "transpose"), Row("permute")),
    **dict.fromkeys(("cat", "concat", "concatenate"), Row("concatenate", _axis(0))),
    **{x: Row(x, _axis(-1)) for x in ("softmax", "log_softmax")},
    **{x: Row(x, _axis(None)) for x in ("mean", "sum", "amax")},
    **{x: Row(x, _alpha_given) for x in ("elu", "celu")},
    "hardsigmoid": Row("hard_sigmoid"),
    "hardswish": Row("hard_swish"),
    "add": ADD,
    "radd": ADD,
    "mul": MULTIPLY,
    "rmul": MULTIPLY,
    "sub": Row("subtract", _operation("subtract")),
    "div": DIVIDE,
    "truediv": DIVIDE,
    "gelu": Row("gelu", lambda x: {"approximate": x.get("approximate", 9) == "tanh"}),
    "leaky_relu": Row(
        "leaky_relu", lambda x: {"slope": x.get("negative_slope", 1, 0.01)}
    ),
    "max_pool": MAX_POOL,
    "max_pool_with_indices": MAX_POOL,
    "avg_pool": Row("average_pool", _average_pool_given),
    "adaptive_avg_pool": Row(
        "global_average_pool", lambda x: _global(x.get("output_size", 1))
    ),
    "adaptive_max_pool": Row(
        "global_max_pool", lambda x: _global(x.get("output_size", 1))
    ),
    "interpolate": Row(
        "upsample",
        lambda x: _upsample(
            x.get("scale_factor", 2),
            x.get("mode", 3, "nearest"),
            x.get("align_corners", 4),
        ),
    ),
    "pad": Row("pad", _pad_given),
    "scaled_dot_product_attention": Row(
        "other", lambda x: {"scale": x.get("scale", 6)}
    ),
}
IN_PLACE = ("iadd", "imul", "isub", "iradd", "irmul")


def _function(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> LayerSpec:
    of_rank = name[-2:-1].isdigit()
    base = name[:-2] if of_rank else name
    rank = int(name[-2]) if of_rank and name[-1:] == "d" else 2
    found = FUNCTIONS.get(name) or FUNCTIONS.get(base)
    if found is None:
        return LayerSpec("dropout" if "dropout" in name else "other")
    return found.describe(Given(args, kwargs, rank))


def function(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[LayerSpec, str, tuple[Any, ...], dict[str, Any]]:
    """What a function does, what a reader would write, and what to call it with."""
    plain = name.strip("_").removeprefix("torch_")
    if f"__{plain}__" == name and plain in IN_PLACE:
        plain = plain[1:]
    plain = plain.removeprefix("boolean_dispatch").lstrip("_") or name
    spec = _function(plain, args, kwargs)
    shown = [str(x) for x in args[1:] if isinstance(x, (int, float, str, tuple, bool))]
    shown += [
        f"{key}={value}"
        for key, value in kwargs.items()
        if isinstance(value, (int, float, str, tuple, bool))
    ]
    return spec, f"{plain}({', '.join(shown)})", args, kwargs
