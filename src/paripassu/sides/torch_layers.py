"""Says of PyTorch's layers and functions what `core.layer_spec` has words for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from paripassu.core.layer_spec import Array, LayerSpec
from paripassu.sides.contract import Live

Settings = dict[str, Any]
Slopes = Mapping[int, torch.Tensor]
Move = Callable[[Array], Array]

# Of no interest between layers: questions about a tensor, and copies of it.
QUIET = frozenset(
    (
        "size",
        "dim",
        "shape",
        "__get__",
        "numel",
        "is_floating_point",
        "to",
        "contiguous",
        "clone",
        "detach_",
        "device",
        "dtype",
        "ndim",
        "float",
        "double",
        "type",
        "type_as",
        "__len__",
        "unbind",
        "__iter__",
        "is_contiguous",
        "stride",
        "requires_grad_",
        "__set__",
        "__bool__",
        "item",
        "any",
        "all",
        "__eq__",
        "__ne__",
        "__lt__",
        "__gt__",
        "__le__",
        "__ge__",
        "ndimension",
        "data_ptr",
        "element_size",
        "is_complex",
    )
)


@dataclass(frozen=True)
class Slot:
    """Where a weight lies, and how its axes move to the canonical ones and back."""

    tensor: torch.Tensor
    there: Move = np.asarray
    back: Move = np.asarray
    rows: tuple[int | None, int | None] = (None, None)


@dataclass(frozen=True)
class Part:
    """A block of weights in a module; see `paripassu.sides.contract.Block`."""

    name: str
    layer: str
    kind: str
    settings: Settings = field(default_factory=dict)
    slots: dict[str, Slot] = field(default_factory=dict)
    second_bias: torch.Tensor | None = None  # added to "bias"

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All of its tensors."""
        more = [] if self.second_bias is None else [self.second_bias]
        return [slot.tensor for slot in self.slots.values()] + more

    def read(self, slopes: Slopes | None = None) -> dict[str, Array]:
        """Weights with canonical axes; with `slopes`, gradients by tensors' ids."""
        found = {}
        for name, slot in self.slots.items():
            tensor = slot.tensor if slopes is None else slopes.get(id(slot.tensor))
            if tensor is None:
                continue
            array = slot.there(tensor.detach().numpy()[slice(*slot.rows)])
            if name == "bias" and self.second_bias is not None and not slopes:
                array = array + self.second_bias.detach().numpy()
            found[name] = array
        return found

    def live(self) -> Live:
        """Its weights, read when they are asked for."""
        shapes = {}
        for name, slot in self.slots.items():
            one = np.broadcast_to(np.float32(0), tuple(slot.tensor.shape))
            shapes[name] = slot.there(one[slice(*slot.rows)]).shape
        return Live(shapes, self._one)

    def _one(self, name: str) -> Array:
        return replace(self, slots={name: self.slots[name]}).read()[name]

    def write(self, weights: Mapping[str, Array]) -> None:
        """Copy canonical weights in."""
        with torch.no_grad():
            for name, array in weights.items():
                slot = self.slots[name]
                fresh = np.ascontiguousarray(slot.back(array))
                slot.tensor[slice(*slot.rows)].copy_(torch.from_numpy(fresh))
                if name == "bias" and self.second_bias is not None:
                    self.second_bias.zero_()


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


def is_leaf(module: nn.Module) -> bool:
    """Whether it is watched as a whole."""
    if isinstance(module, nn.MultiheadAttention):
        return True
    # A module made by a user, or torch.nn's Transformer layers, are looked into.
    own = any(cls.__module__.startswith("torch.") for cls in type(module).__mro__[:-2])
    return own and not any(module.children()) and type(module) is not nn.Module


def _known(module: nn.Module) -> bool:
    return any(
        cls.__module__.startswith("torch.nn.modules") and cls is not nn.Module
        for cls in type(module).__mro__
    )


def _pairs(value: Any, count: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (int(value),) * count


def _explicit(value: Any, count: int) -> Any:
    if value == "valid":
        return ((0, 0),) * count
    if value == "same":
        # PyTorch's "same" allows no stride; the odd one comes after, as TensorFlow's.
        return "same"
    return tuple((x, x) for x in _pairs(value, count))


def _conv(module: Any) -> Settings:
    count = len(module.kernel_size)
    settings: Settings = {
        "strides": tuple(module.stride),
        "dilation": tuple(module.dilation),
        "groups": module.groups,
    }
    settings["padding"] = _explicit(module.padding, count)
    if module.padding_mode != "zeros":
        settings["padding_mode"] = module.padding_mode
    return settings


def _conv_transpose(module: Any) -> Settings:
    return {
        "strides": tuple(module.stride),
        "dilation": tuple(module.dilation),
        "groups": module.groups,
        "crop": tuple(
            (p, p - more)
            for p, more in zip(module.padding, module.output_padding, strict=True)
        ),
    }


def _pool(kind: str, count: int, *values: Any, **more: Any) -> tuple[str, Settings]:
    size, stride, padding = values
    settings: Settings = {
        "size": _pairs(size, count),
        "strides": _pairs(size if stride in (None, (), []) else stride, count),
        "padding": tuple((x, x) for x in _pairs(padding or 0, count)),
    }
    if more.get("ceil"):
        settings["ceil"] = True
    if kind == "average_pool":
        settings["count_padding"] = bool(more.get("count_padding", True))
    return kind, settings


def _rank(module: nn.Module) -> int:
    return (
        int(type(module).__name__[-2]) if type(module).__name__[-2:-1].isdigit() else 2
    )


def described(module: nn.Module) -> LayerSpec:
    """A module's kind and settings; of its weights, only which there are."""
    kind, settings = _described(module)
    names = {name: np.empty(0) for name, _ in module.named_parameters()}
    return LayerSpec(kind, settings, names)


def _described(module: Any) -> tuple[str, Settings]:
    match module:
        case nn.Linear():
            return "dense", {}
        case nn.ConvTranspose1d() | nn.ConvTranspose2d() | nn.ConvTranspose3d():
            return "conv_transpose", _conv_transpose(module)
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            return "conv", _conv(module)
        case nn.InstanceNorm1d() | nn.InstanceNorm2d() | nn.InstanceNorm3d():
            return "group_norm", {
                "epsilon": module.eps,
                "groups": module.num_features,
            }
        case nn.modules.batchnorm._BatchNorm():
            kept = 1 - (module.momentum or 0)
            return "batch_norm", {
                "epsilon": module.eps,
                "momentum": kept,
                "axis": -1,
            }
        case nn.LayerNorm():
            axes = len(module.normalized_shape)
            return "layer_norm", {"epsilon": module.eps, "axes": axes}
        case nn.RMSNorm():
            eps = module.eps
            axes = len(module.normalized_shape)
            return "rms_norm", {"axes": axes} | (
                {} if eps is None else {"epsilon": eps}
            )
        case nn.GroupNorm():
            return "group_norm", {
                "epsilon": module.eps,
                "groups": module.num_groups,
            }
        case nn.Embedding() | nn.EmbeddingBag():
            return "embedding", {}
        case nn.LSTM():
            return "lstm", {"layers": module.num_layers} | _recurrent(module)
        case nn.GRU():
            return "gru", {"layers": module.num_layers} | _recurrent(module)
        case nn.RNN():
            return "rnn", {"layers": module.num_layers} | _recurrent(module)
        case nn.MultiheadAttention():
            width = module.embed_dim // module.num_heads
            return "attention", {
                "heads": module.num_heads,
                "scale": width**-0.5,
            }
        case nn.PReLU():
            return "prelu", {}
        case nn.MaxPool1d() | nn.MaxPool2d() | nn.MaxPool3d():
            given = (module.kernel_size, module.stride, module.padding)
            return _pool("max_pool", _rank(module), *given, ceil=module.ceil_mode)
        case nn.AvgPool1d() | nn.AvgPool2d() | nn.AvgPool3d():
            given = (module.kernel_size, module.stride, module.padding)
            return _pool(
                "average_pool",
                _rank(module),
                *given,
                ceil=module.ceil_mode,
                count_padding=module.count_include_pad,
            )
        case nn.AdaptiveAvgPool1d() | nn.AdaptiveAvgPool2d() | nn.AdaptiveAvgPool3d():
            return _adaptive("average", module.output_size)
        case nn.AdaptiveMaxPool1d() | nn.AdaptiveMaxPool2d() | nn.AdaptiveMaxPool3d():
            return _adaptive("max", module.output_size)
        case nn.Upsample():
            return _upsample(module.scale_factor, module.mode, module.align_corners)
        case (
            nn.modules.padding._ConstantPadNd()
            | nn.modules.padding._ReflectionPadNd()
            | nn.modules.padding._ReplicationPadNd()
            | nn.modules.padding._CircularPadNd()
        ):
            name = type(module).__name__
            modes = (x for key, x in PADS.items() if name.startswith(key))
            return "pad", {
                "padding": _from_last(module.padding),
                "padding_mode": next(modes, "constant"),
                "value": getattr(module, "value", 0.0),
            }
        case nn.GELU():
            return "gelu", {"approximate": module.approximate == "tanh"}
        case nn.LeakyReLU():
            return "leaky_relu", {"slope": module.negative_slope}
        case nn.ELU() | nn.CELU():
            return type(module).__name__.lower(), {"alpha": module.alpha}
        case nn.Softmax() | nn.LogSoftmax():
            kind = "softmax" if isinstance(module, nn.Softmax) else "log_softmax"
            return kind, {"axis": module.dim}
        case nn.modules.dropout._DropoutNd():
            return "dropout", {}
    kind = PLAIN.get(type(module).__name__, "other")
    return kind, {}


PLAIN = {
    "ReLU": "relu",
    "ReLU6": "relu6",
    "SELU": "selu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
    "Hardsigmoid": "hard_sigmoid",
    "Hardswish": "hard_swish",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Mish": "mish",
    "Identity": "identity",
    "Flatten": "flatten",
}


def _recurrent(module: Any) -> Settings:
    settings: Settings = {
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
    }
    if isinstance(module, nn.GRU):
        settings["reset_after"] = True
    if isinstance(module, nn.RNN):
        settings = {"activation": module.nonlinearity}
    if module.bidirectional:
        settings["bidirectional"] = True
    return settings


def _adaptive(kind: str, size: Any) -> tuple[str, Settings]:
    sizes = size if isinstance(size, (tuple, list)) else (size,)
    if all(x == 1 for x in sizes):
        return f"global_{kind}_pool", {"keepdims": True}
    return "other", {"size": tuple(sizes)}


def _from_last(flat: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(before, after) for each axis, from what begins with the last axis."""
    pairs = [(flat[n], flat[n + 1]) for n in range(0, len(flat), 2)]
    return tuple(reversed(pairs))


def _upsample(factor: Any, mode: str, align: Any) -> tuple[str, Settings]:
    if factor is None or mode not in ("nearest", "bilinear", "nearest-exact"):
        return "other", {"mode": mode}
    settings: Settings = {"factor": _pairs(factor, 2), "mode": mode}
    if mode == "bilinear":
        settings["align_corners"] = bool(align)
    return "upsample", settings


def parts(name: str, module: nn.Module) -> Iterator[Part]:
    """The blocks of weights that a module itself has."""
    if not _known(module) or isinstance(module, nn.Transformer):
        for key, tensor in module.named_parameters(recurse=False):
            label = key if name == "model" else f"{name}.{key}"
            yield Part(label, name, "parameter", {}, {"value": Slot(tensor)})
        return
    if isinstance(module, (nn.LSTM, nn.GRU, nn.RNN)):
        yield from _recurrent_parts(name, module)
        return
    if isinstance(module, nn.MultiheadAttention):
        yield _attention(name, module)
        return
    if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return  # of an attention, which has it
    kind, settings = _described(module)
    tensors = dict(module.named_parameters(recurse=False))
    match kind:
        case "dense":
            slots = {"kernel": _transposed(tensors["weight"])}
        case "conv":
            slots = {"kernel": _moved(tensors["weight"], (-1, -2))}
        case "conv_transpose":
            slots = {"kernel": _moved(tensors["weight"], (-2, -1))}
        case "embedding":
            slots = {"table": Slot(tensors["weight"])}
        case "prelu":
            slots = {"slope": Slot(tensors["weight"])}
        case "batch_norm" | "layer_norm" | "group_norm" | "rms_norm":
            slots = _norm(module, tensors)
        case _:
            slots = {key: Slot(tensor) for key, tensor in tensors.items()}
            tensors = {}
    if "bias" in tensors and kind in ("dense", "conv", "conv_transpose"):
        slots["bias"] = Slot(tensors["bias"])
    if slots:
        yield Part(name, name, kind, settings, slots)


def _transposed(
    tensor: torch.Tensor, rows: tuple[int | None, int | None] = (None, None)
) -> Slot:
    return Slot(tensor, np.transpose, np.transpose, rows)


def _moved(tensor: torch.Tensor, to: tuple[int, int]) -> Slot:
    return Slot(
        tensor,
        lambda x: np.moveaxis(x, (0, 1), to),
        lambda x: np.moveaxis(x, to, (0, 1)),
    )


def _norm(module: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, Slot]:
    found = {
        "gamma": tensors.get("weight"),
        "beta": tensors.get("bias"),
        "mean": getattr(module, "running_mean", None),
        "variance": getattr(module, "running_var", None),
    }
    if len(getattr(module, "normalized_shape", ())) == 3:  # (c, h, w)
        last = (
            lambda x: np.moveaxis(x, 0, -1),
            lambda x: np.moveaxis(x, -1, 0),
        )
        return {name: Slot(x, *last) for name, x in found.items() if x is not None}
    return {name: Slot(x) for name, x in found.items() if x is not None}


def _recurrent_parts(name: str, module: Any) -> Iterator[Part]:
    kind, settings = _described(module)
    given = dict(module.named_parameters())
    directions = ("", "_reverse") if module.bidirectional else ("",)
    for layer in range(module.num_layers):
        for direction in directions:
            end = f"_l{layer}{direction}"
            slots = {
                "kernel": _transposed(given[f"weight_ih{end}"]),
                "recurrent": _transposed(given[f"weight_hh{end}"]),
            }
            second = None
            if module.bias and kind == "gru":
                slots["input_bias"] = Slot(given[f"bias_ih{end}"])
                slots["recurrent_bias"] = Slot(given[f"bias_hh{end}"])
            elif module.bias:
                slots["bias"] = Slot(given[f"bias_ih{end}"])
                second = given[f"bias_hh{end}"]
                # Seen by nobody but whoever asks which of the two was copied.
                one = given[f"bias_ih{end}"].detach().numpy()
                settings = settings | {"_input_bias": one}
            own = {
                k: v
                for k, v in settings.items()
                if k not in ("layers", "bidirectional")
            }
            own["reverse"] = bool(direction)
            label = name
            if module.num_layers > 1:
                label += f"/{layer}"
            if module.bidirectional:
                label += "/reverse" if direction else "/forward"
            yield Part(label, name, kind, own, slots, second)


def _attention(name: str, module: nn.MultiheadAttention) -> Part:
    _, settings = _described(module)
    width = module.embed_dim
    thirds = [(n * width, (n + 1) * width) for n in range(3)]
    slots = {}
    for number, key in enumerate(("query", "key", "value")):
        if module.in_proj_weight is not None:
            rows = thirds[number]
            slots[key] = _transposed(module.in_proj_weight, rows)
        else:
            slots[key] = _transposed(getattr(module, f"{key[0]}_proj_weight"))
        if module.in_proj_bias is not None:
            bias = Slot(module.in_proj_bias, rows=thirds[number])
            slots[f"{key}_bias"] = bias
    slots["output"] = _transposed(module.out_proj.weight)
    if module.out_proj.bias is not None:
        slots["output_bias"] = Slot(module.out_proj.bias)
    return Part(name, name, "attention", settings, slots)


def time_first(module: nn.Module | None, dimensions: int) -> bool:
    """Whether a recurrent layer's or an attention's sequences are (time, N, c)."""
    return dimensions == 3 and getattr(module, "batch_first", True) is False


SPATIAL = (
    "conv",
    "conv_transpose",
    "batch_norm",
    "group_norm",
    "max_pool",
    "average_pool",
    "upsample",
    "global_average_pool",
    "global_max_pool",
    "pad",
    "prelu",
)
PADS = {
    "Reflection": "reflect",
    "Replication": "replicate",
    "Circular": "circular",
}


def channels_first(told: LayerSpec, dimensions: int) -> bool:
    """Whether a call of this kind has its channels at axis 1."""
    if told.kind == "layer_norm":
        return bool(told.settings["axes"] == 3 and dimensions == 4)
    return told.kind in SPATIAL and dimensions >= 3


def function(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[LayerSpec, str, tuple[Any, ...], dict[str, Any]]:
    """What a function does, what a reader would write, and what to call it with."""
    plain = name.strip("_").removeprefix("torch_")
    if plain.startswith("i") and f"__{plain}__" == name and plain[1:] in ARITHMETIC:
        plain = plain[1:]
    plain = plain.removeprefix("boolean_dispatch").lstrip("_") or name
    told = _function(plain, args, kwargs)
    if told.kind == "dropout":
        args, kwargs = args[:1], {"p": 0.0, "training": False}
        if plain not in ("dropout", "feature_dropout", "alpha_dropout"):
            kwargs = {"p": 0.0, "training": False}
    shown = [str(x) for x in args[1:] if isinstance(x, (int, float, str, tuple, bool))]
    shown += [
        f"{key}={value}"
        for key, value in kwargs.items()
        if isinstance(value, (int, float, str, tuple, bool))
    ]
    return told, f"{plain}({', '.join(shown)})", args, kwargs


ARITHMETIC = {"add": "add", "mul": "multiply", "sub": "subtract"}
ARITHMETIC |= {"radd": "add", "rmul": "multiply"}
ALONE = {
    "relu": "relu",
    "relu6": "relu6",
    "selu": "selu",
    "silu": "silu",
    "sigmoid": "sigmoid",
    "hardsigmoid": "hard_sigmoid",
    "hardswish": "hard_swish",
    "tanh": "tanh",
    "softplus": "softplus",
    "mish": "mish",
    "flatten": "flatten",
    "view": "reshape",
    "reshape": "reshape",
    "unflatten": "reshape",
    "squeeze": "reshape",
    "unsqueeze": "reshape",
    "permute": "permute",
    "transpose": "permute",
    "matmul": "matmul",
}


def _function(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LayerSpec:
    def given(key: str, place: int, default: Any = None) -> Any:
        return kwargs.get(key, args[place] if len(args) > place else default)

    if name in ALONE:
        return LayerSpec(ALONE[name])
    if name in ARITHMETIC:
        other = given("other", 1)
        if isinstance(other, (int, float)):
            factor, offset = 1.0, 0.0
            if ARITHMETIC[name] == "multiply":
                factor = float(other)
            else:
                offset = float(other) * (-1 if name == "sub" else 1)
            return LayerSpec("scale", {"factor": factor, "offset": offset})
        return LayerSpec(ARITHMETIC[name])
    if name in ("div", "truediv") and isinstance(given("other", 1), (int, float)):
        return LayerSpec("scale", {"factor": 1 / float(args[1]), "offset": 0.0})
    rank = int(name[-2]) if name[-2:-1].isdigit() and name[-1:] == "d" else 2
    base = name[:-2] if name[-2:-1].isdigit() else name
    match base:
        case "gelu":
            return LayerSpec("gelu", {"approximate": given("approximate", 9) == "tanh"})
        case "leaky_relu":
            return LayerSpec("leaky_relu", {"slope": given("negative_slope", 1, 0.01)})
        case "elu" | "celu":
            return LayerSpec(base, {"alpha": given("alpha", 1, 1.0)})
        case "softmax" | "log_softmax":
            return LayerSpec(base, {"axis": given("dim", 1, -1)})
        case "max_pool" | "max_pool_with_indices":
            values = (
                given("kernel_size", 1),
                given("stride", 2),
                given("padding", 3),
            )
            return LayerSpec(
                *_pool("max_pool", rank, *values, ceil=given("ceil_mode", 5, False))
            )
        case "avg_pool":
            values = (
                given("kernel_size", 1),
                given("stride", 2),
                given("padding", 3),
            )
            return LayerSpec(
                *_pool(
                    "average_pool",
                    rank,
                    *values,
                    ceil=given("ceil_mode", 4, False),
                    count_padding=given("count_include_pad", 5, True),
                )
            )
        case "adaptive_avg_pool":
            return LayerSpec(*_adaptive("average", given("output_size", 1)))
        case "adaptive_max_pool":
            return LayerSpec(*_adaptive("max", given("output_size", 1)))
        case "interpolate":
            return LayerSpec(
                *_upsample(
                    given("scale_factor", 2),
                    given("mode", 3, "nearest"),
                    given("align_corners", 4),
                )
            )
        case "pad":
            return LayerSpec(
                "pad",
                {
                    "padding": _from_last(given("pad", 1)),
                    "padding_mode": given("mode", 2, "constant"),
                    "value": given("value", 3) or 0.0,
                },
            )
        case "cat" | "concat" | "concatenate":
            return LayerSpec("concatenate", {"axis": given("dim", 1, 0)})
        case "mean" | "sum" | "amax":
            axis = given("dim", 1)
            return LayerSpec(base, {"axis": axis})
    if "dropout" in name:
        return LayerSpec("dropout")
    return LayerSpec("other")
