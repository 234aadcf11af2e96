"""What a described layer computes, in NumPy and float64: the reference of two models.

Kinds, settings and axes are those of `paripassu.core.layer_spec`. A missing setting is
neutral: stride 1, no padding, no dilation, one group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import erf, expit

from paripassu.core.layer_spec import Array, LayerSpec, same_padding
from paripassu.reference.recurrent import RECURRENT

Settings = Mapping[str, Any]
Pairs = tuple[tuple[int, int], ...]


class Unknown(LookupError):
    """A kind or a setting that the reference does not compute."""


def apply(
    layer: LayerSpec, inputs: Sequence[Array], *, training: bool = False
) -> Array:
    """What a layer makes of its inputs, float64.

    Args:
        layer: kind, settings and weights.
        inputs: arrays with channels last; one, but for `add`, `attention` and so on.
        training: BatchNorm with the batch's own statistics.

    Raises:
        Unknown: the kind or a setting is not one that is computed here.
    """
    values = [
        x if layer.kind == "embedding" else np.asarray(x, np.float64) for x in inputs
    ]
    weights = {name: np.asarray(x, np.float64) for name, x in layer.weights.items()}
    if layer.kind == "batch_norm":
        return _batch_norm(values[0], weights, layer.settings, training)
    if layer.kind in ALONE:
        return ALONE[layer.kind](values[0], layer.settings)
    if layer.kind in WEIGHTED:
        return WEIGHTED[layer.kind](values[0], weights, layer.settings)
    if layer.kind in SEVERAL:
        return SEVERAL[layer.kind](values, weights, layer.settings)
    raise Unknown(layer.kind)


# ## Convolutions


def _explicit(padding: Any, space: Sequence[int], windows: Sequence[Any]) -> Pairs:
    """Padding as pairs; `windows` has (size, stride, dilation) of each axis."""
    if padding is None:
        return ((0, 0),) * len(space)
    if padding == "same":
        return tuple(
            same_padding(n, *window) for n, window in zip(space, windows, strict=True)
        )
    return tuple((int(a), int(b)) for a, b in padding)


MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _padded(x: Array, pairs: Pairs, mode: str = "zeros", value: float = 0.0) -> Array:
    whole = ((0, 0), *pairs, (0, 0))
    if not any(map(any, pairs)):
        return x
    if mode in ("zeros", "constant"):
        return np.pad(x, whole, constant_values=value)
    if mode not in MODES:
        raise Unknown(f"padding_mode {mode}")
    return np.pad(x, whole, mode=MODES[mode])  # type: ignore[call-overload, no-any-return]


def _axes(settings: Settings, name: str, count: int) -> tuple[int, ...]:
    value = settings.get(name, 1)
    return (value,) * count if isinstance(value, int) else tuple(value)


def _windows(
    x: Array, size: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> Array:
    """Windows (N, *positions, c, *size), a view."""
    rank = len(size)
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    axes = tuple(range(1, rank + 1))
    seen = np.lib.stride_tricks.sliding_window_view(x, reach, axis=axes)
    steps = tuple(slice(None, None, s) for s in strides)
    inside = tuple(slice(None, None, d) for d in dilation)
    return seen[(slice(None), *steps, slice(None), *inside)]


def _conv(x: Array, weights: Mapping[str, Array], settings: Settings) -> Array:
    kernel = weights["kernel"]
    *size, inner, outer = kernel.shape
    rank = len(size)
    strides, dilation = (
        _axes(settings, "strides", rank),
        _axes(settings, "dilation", rank),
    )
    windows = list(zip(size, strides, dilation, strict=True))
    pairs = _explicit(settings.get("padding"), x.shape[1:-1], windows)
    x = _padded(x, pairs, settings.get("padding_mode", "zeros"))
    groups = settings.get("groups") or 1
    share = outer // groups
    made = []
    for group in range(groups):
        part = x[..., group * inner : (group + 1) * inner]
        seen = np.moveaxis(_windows(part, size, strides, dilation), rank + 1, -1)
        rows = seen.reshape(*seen.shape[: rank + 1], -1)
        columns = kernel[..., group * share : (group + 1) * share].reshape(-1, share)
        made.append(rows @ columns)
    return _biased(np.concatenate(made, axis=-1), weights)


def _conv_transpose(
    x: Array, weights: Mapping[str, Array], settings: Settings
) -> Array:
    """Each input value adds its multiple of the kernel to the output."""
    kernel = weights["kernel"]
    *size, inner, outer = kernel.shape
    rank = len(size)
    strides, dilation = (
        _axes(settings, "strides", rank),
        _axes(settings, "dilation", rank),
    )
    groups = settings.get("groups") or 1
    space = x.shape[1:-1]
    full = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(space, strides, size, dilation, strict=True)
    ]
    made = np.zeros((len(x), *full, outer * groups))
    share = inner // groups
    for place in np.ndindex(*size):
        where = tuple(
            slice(k * d, k * d + (n - 1) * s + 1, s)
            for k, d, n, s in zip(place, dilation, space, strides, strict=True)
        )
        for group in range(groups):
            given = slice(group * share, (group + 1) * share)
            to = slice(group * outer, (group + 1) * outer)
            made[(slice(None), *where, to)] += x[..., given] @ kernel[place][given]
    crop = settings.get("crop") or ((0, 0),) * rank
    made = np.pad(made, ((0, 0), *(tuple(max(-x, 0) for x in c) for c in crop), (0, 0)))
    cut = tuple(
        slice(max(a, 0), n - max(b, 0) if b > 0 else None)
        for (a, b), n in zip(crop, made.shape[1:-1], strict=True)
    )
    return _biased(made[(slice(None), *cut)], weights)


def _biased(x: Array, weights: Mapping[str, Array]) -> Array:
    return x + weights["bias"] if "bias" in weights else x


def _dense(x: Array, weights: Mapping[str, Array], _settings: Settings) -> Array:
    return _biased(x @ weights["kernel"], weights)


def _embedding(x: Array, weights: Mapping[str, Array], _settings: Settings) -> Array:
    return weights["table"][x.astype(np.int64)]


def _prelu(x: Array, weights: Mapping[str, Array], _settings: Settings) -> Array:
    return np.where(x > 0, x, weights["slope"] * x)


# ## Normalisation


def _scaled(x: Array, weights: Mapping[str, Array]) -> Array:
    if "gamma" in weights:
        x = x * weights["gamma"]
    return x + weights["beta"] if "beta" in weights else x


def _batch_norm(
    x: Array, weights: Mapping[str, Array], settings: Settings, training: bool
) -> Array:
    if settings.get("axis", -1) not in (-1, x.ndim - 1):
        raise Unknown("batch_norm over another axis")
    mean, variance = weights.get("mean"), weights.get("variance")
    if training or mean is None or variance is None:
        axes = tuple(range(x.ndim - 1))
        mean, variance = x.mean(axes), x.var(axes)
    return _scaled((x - mean) / np.sqrt(variance + settings["epsilon"]), weights)


def statistics_after(layer: LayerSpec, x: Array) -> dict[str, Array]:
    """A BatchNorm's mean and variance after a step of training on `x`.

    Setting `unbiased`: whether the batch's variance is divided by n - 1.
    """
    axes = tuple(range(x.ndim - 1))
    kept = layer.settings["momentum"]
    count = int(bool(layer.settings.get("unbiased")))
    mean, variance = x.mean(axes), x.var(axes, ddof=count)
    return {
        "mean": kept * layer.weights["mean"] + (1 - kept) * mean,
        "variance": kept * layer.weights["variance"] + (1 - kept) * variance,
    }


def _layer_norm(x: Array, weights: Mapping[str, Array], settings: Settings) -> Array:
    if "axis" in settings:
        axes: tuple[int, ...] = tuple(settings["axis"])
    else:
        axes = tuple(range(-settings.get("axes", 1), 0))
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return _scaled((x - mean) / np.sqrt(variance + settings["epsilon"]), weights)


def _rms_norm(x: Array, weights: Mapping[str, Array], settings: Settings) -> Array:
    axes = tuple(range(-settings.get("axes", 1), 0))
    square = np.mean(x**2, axes, keepdims=True)
    return _scaled(x / np.sqrt(square + settings.get("epsilon", 0.0)), weights)


def _group_norm(x: Array, weights: Mapping[str, Array], settings: Settings) -> Array:
    groups = settings["groups"] if settings["groups"] > 0 else x.shape[-1]
    split = x.reshape(len(x), -1, groups, x.shape[-1] // groups)
    mean = split.mean((1, 3), keepdims=True)
    variance = split.var((1, 3), keepdims=True)
    normal = (split - mean) / np.sqrt(variance + settings["epsilon"])
    return _scaled(normal.reshape(x.shape), weights)


# ## Attention


def _attention(
    inputs: Sequence[Array], weights: Mapping[str, Array], settings: Settings
) -> Array:
    query, value = inputs[0], inputs[1] if len(inputs) > 1 else inputs[0]
    key = inputs[2] if len(inputs) > 2 else value
    heads = settings["heads"]

    def split(x: Array, name: str) -> Array:
        made = x @ weights[name] + weights.get(f"{name}_bias", 0.0)
        return made.reshape(*made.shape[:-1], heads, -1).swapaxes(1, 2)

    q, k, v = split(query, "query"), split(key, "key"), split(value, "value")
    scores = q @ k.swapaxes(-1, -2) * settings["scale"]
    if settings.get("causal"):
        later = np.triu(np.ones(scores.shape[-2:], bool), 1)
        scores = np.where(later, -np.inf, scores)
    made = (_softmax(scores, {}) @ v).swapaxes(1, 2)
    joined = made.reshape(*made.shape[:2], -1)
    return joined @ weights["output"] + weights.get("output_bias", 0.0)


# ## Pools and sizes


def _pool(x: Array, settings: Settings, *, largest: bool) -> Array:
    size = tuple(settings["size"])
    rank = len(size)
    strides = tuple(settings.get("strides") or size)
    windows = [(k, s, 1) for k, s in zip(size, strides, strict=True)]
    pairs = _explicit(settings.get("padding"), x.shape[1:-1], windows)
    ends = list(pairs)
    if settings.get("ceil"):
        for axis, (n, k, s) in enumerate(
            zip(x.shape[1:-1], size, strides, strict=True)
        ):
            before, after = pairs[axis]
            count = -(-(n + before + after - k) // s) + 1
            if (count - 1) * s >= n + before:  # a window must begin inside
                count -= 1
            ends[axis] = (before, max((count - 1) * s + k - n - before, 0))
    fill = -np.inf if largest else 0.0
    seen = _windows(_padded(x, tuple(ends), value=fill), size, strides, (1,) * rank)
    inside = tuple(range(-rank, 0))
    if largest:
        return np.asarray(seen.max(inside))
    ones = np.ones_like(x[:1])
    if settings.get("count_padding", True):
        ones = _padded(ones, pairs, value=1.0)
        more = tuple((0, b - d) for (_, b), (_, d) in zip(ends, pairs, strict=True))
        counted = _padded(ones, more)
    else:
        counted = _padded(ones, tuple(ends))
    return np.asarray(
        seen.sum(inside) / _windows(counted, size, strides, (1,) * rank).sum(inside)
    )


def _upsample(x: Array, settings: Settings) -> Array:
    for axis, factor in enumerate(settings["factor"], start=1):
        x = _resized(x, axis, float(factor), settings)
    return x


def _resized(x: Array, axis: int, factor: float, settings: Settings) -> Array:
    n = x.shape[axis]
    size = int(n * factor)
    places = np.arange(size)
    if settings["mode"] == "nearest":
        found: Array = np.take(
            x, np.minimum((places / factor).astype(int), n - 1), axis
        )
        return found
    if settings["mode"] != "bilinear":
        raise Unknown(f"mode {settings['mode']}")
    if settings.get("align_corners"):
        at = places * (n - 1) / max(size - 1, 1)
    else:
        at = np.clip((places + 0.5) / factor - 0.5, 0, None)
    low = np.minimum(np.floor(at).astype(int), n - 1)
    high = np.minimum(low + 1, n - 1)
    shape = [1] * x.ndim
    shape[axis] = size
    part = (at - low).reshape(shape)
    made: Array = np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part
    return made


def _global(x: Array, settings: Settings, *, largest: bool) -> Array:
    axes = tuple(range(1, x.ndim - 1))
    kept = bool(settings.get("keepdims"))
    made = x.max(axes, keepdims=kept) if largest else x.mean(axes, keepdims=kept)
    return np.asarray(made)


def _pad(x: Array, settings: Settings) -> Array:
    mode = settings.get("padding_mode", "zeros")
    return _padded(x, tuple(settings["padding"]), mode, settings.get("value", 0.0))


def _crop(x: Array, settings: Settings) -> Array:
    cuts = zip(settings["crop"], x.shape[1:-1], strict=True)
    return x[:, *(slice(begin, n - end) for (begin, end), n in cuts)]


# ## Functions


def _softmax(x: Array, settings: Settings) -> Array:
    axis = settings.get("axis", -1)
    made = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(made / made.sum(axis, keepdims=True))


def _gelu(x: Array, settings: Settings) -> Array:
    if settings.get("approximate"):
        inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        return np.asarray(0.5 * x * (1 + np.tanh(inner)))
    return np.asarray(0.5 * x * (1 + erf(x / np.sqrt(2))))


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # arXiv:1706.02515


def _hard_sigmoid(x: Array) -> Array:
    return np.clip(x / 6 + 0.5, 0, 1)


def _axis(settings: Settings) -> Any:
    axis = settings.get("axis")
    return tuple(axis) if isinstance(axis, list) else axis


ALONE: dict[str, Callable[[Array, Settings], Array]] = {
    "relu": lambda x, _: np.maximum(x, 0),
    "relu6": lambda x, _: np.clip(x, 0, 6),
    "leaky_relu": lambda x, s: np.where(x > 0, x, s["slope"] * x),
    "elu": lambda x, s: _elu(x, s.get("alpha", 1.0)),
    "celu": lambda x, s: np.where(
        x > 0, x, s.get("alpha", 1.0) * np.expm1(np.minimum(x, 0) / s.get("alpha", 1.0))
    ),
    "selu": lambda x, _: SELU_SCALE * _elu(x, SELU_ALPHA),
    "gelu": _gelu,
    "silu": lambda x, _: x * expit(x),
    "sigmoid": lambda x, _: expit(x),
    "hard_sigmoid": lambda x, _: _hard_sigmoid(x),
    "hard_swish": lambda x, _: x * _hard_sigmoid(x),
    "tanh": lambda x, _: np.tanh(x),
    "softplus": lambda x, _: np.logaddexp(x, 0),
    "mish": lambda x, _: x * np.tanh(np.logaddexp(x, 0)),
    "softmax": _softmax,
    "log_softmax": lambda x, s: np.log(_softmax(x, s)),
    "identity": lambda x, _: x,
    "dropout": lambda x, _: x,
    "cast": lambda x, _: x,
    "max_pool": lambda x, s: _pool(x, s, largest=True),
    "average_pool": lambda x, s: _pool(x, s, largest=False),
    "global_average_pool": lambda x, s: _global(x, s, largest=False),
    "global_max_pool": lambda x, s: _global(x, s, largest=True),
    "upsample": _upsample,
    "pad": _pad,
    "crop": _crop,
    "flatten": lambda x, _: x.reshape(len(x), -1),
    "mean": lambda x, s: x.mean(_axis(s)),
    "sum": lambda x, s: x.sum(_axis(s)),
    "scale": lambda x, s: x * s.get("factor", 1.0) + s.get("offset", 0.0),
}
WEIGHTED: dict[str, Callable[[Array, Mapping[str, Array], Settings], Array]] = {
    "dense": _dense,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "embedding": _embedding,
    "prelu": _prelu,
    **RECURRENT,
}
SEVERAL: dict[
    str, Callable[[Sequence[Array], Mapping[str, Array], Settings], Array]
] = {
    "attention": _attention,
    "add": lambda x, _w, _s: np.sum(x, axis=0),
    "multiply": lambda x, _w, _s: np.prod(x, axis=0),
    "subtract": lambda x, _w, _s: x[0] - x[1],
    "concatenate": lambda x, _w, s: np.concatenate(x, axis=s.get("axis", -1)),
}
