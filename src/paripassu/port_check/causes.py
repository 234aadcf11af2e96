"""Why a layer computes something else than the other model's: found by trying.

Of two layers of one kind, each setting that differs is put in the right one's place, in
the NumPy reference; the one that gives the left's output from the same input is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from paripassu.core.layer_spec import Array, LayerSpec, UnknownLayer, relative_error
from paripassu.port_check.results import Cause
from paripassu.reference import layers

IGNORED = ("bidirectional", "layers", "function", "flipped")
NORMS = ("layer_norm", "group_norm", "rms_norm", "batch_norm")
CLOSED = 1e-3  # of the gap; what closes it leaves rounding, far less
ALIKE = 1e-5  # the reference computes what the layer did

KEYS = {
    "epsilon": "epsilon",
    "momentum": "momentum",
    "padding": "padding",
    "padding_mode": "padding",
    "strides": "strides",
    "dilation": "dilation",
    "groups": "groups",
    "crop": "crop",
    "heads": "attention-heads",
    "scale": "attention-scale",
    "causal": "mask",
    "activation": "activation-kind",
    "recurrent_activation": "recurrent-activation",
    "reset_after": "reset-after",
    "approximate": "gelu-form",
    "slope": "negative-slope",
    "alpha": "alpha",
    "size": "pool-size",
    "ceil": "pool-padding",
    "count_padding": "pool-padding",
    "axis": "axis",
    "axes": "axis",
    "mode": "upsample-mode",
    "align_corners": "upsample-mode",
    "factor": "upsample-mode",
    "reverse": "direction",
    "merge": "concat-order",
    "last": "last-step",
    "keepdims": "axis",
    "value": "padding",
    "offset": "input-scale",
}
ACTIVATIONS = {
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "sigmoid"),
    *("hard_sigmoid", "hard_swish", "tanh", "softplus", "softmax", "log_softmax"),
    *("mish", "prelu", "identity"),
}
POOLS = {
    *("max_pool", "average_pool", "global_average_pool", "global_max_pool", "mean"),
    *("sum", "max", "amax"),
}
Compute = Callable[[Sequence[LayerSpec], Sequence[Array]], Array]


@dataclass(frozen=True)
class Shape:
    """How the parts of a recurrent layer lie.

    Attributes:
        counts: of each layer, 2 where it has two directions.
        half: which direction's output is looked at; None: both, or the only one.
    """

    counts: tuple[int, ...] = (1,)
    half: int | None = None


def of_layer(
    left: Sequence[LayerSpec],
    right: Sequence[LayerSpec],
    inputs: Sequence[Array],
    wanted: Array,
    got: Array,
    shape: Shape = Shape(),
) -> Cause | None:
    """The setting, or the few of them, that closes the gap; else what differs.

    Args:
        left, right: the parts of a layer; mostly one.
        inputs: of both.
        wanted, got: what the left and the right one give.
        shape: of a recurrent layer.
    """
    differing = differences(left, right)
    if not differing:
        return None
    before = relative_error(wanted, got)
    for count in (1, 2, 3):
        for names in combinations(differing, count):
            after = _after(left, right, names, inputs, wanted, got, shape)
            if after is not None and after <= CLOSED * min(before, 1.0):
                return _cause(left, right, names, before, after)
    if len(differing) == 1:  # nothing else can be meant; not tried
        return _cause(left, right, tuple(differing), before, None)
    return None


def differences(left: Sequence[LayerSpec], right: Sequence[LayerSpec]) -> list[str]:
    """The settings that differ, those that say most first; "kind", "weights" too."""
    names: dict[str, None] = {}
    for one, two in zip(left, right, strict=False):
        if one.kind != two.kind:
            names["kind"] = None
        for name in (*one.settings, *two.settings):
            if name.startswith("_") or name in IGNORED:
                continue
            if name == "last" and one.kind in ("lstm", "gru", "rnn"):
                continue  # the step that is used shows after the layer
            if _setting(one, name) != _setting(two, name):
                names[name] = None
        for name in (*one.weights, *two.weights):
            if (name in one.weights) != (name in two.weights):
                names[f"weight {name}"] = None
    return list(names)


NEUTRAL: dict[str, Any] = {
    "groups": 1,
    "reverse": False,
    "last": False,
    "ceil": False,
    "causal": False,
    "approximate": False,
    "padding_mode": "zeros",
    "merge": "concat",
}


def _setting(told: LayerSpec, name: str) -> Any:
    value = told.settings.get(name, NEUTRAL.get(name))
    if name == "axis" and value in (3, -1):
        return -1  # of images (N, h, w, c)
    return value


def _after(
    left: Sequence[LayerSpec],
    right: Sequence[LayerSpec],
    names: Sequence[str],
    inputs: Sequence[Array],
    wanted: Array,
    got: Array,
    shape: Shape,
) -> float | None:
    """The gap when the right layer has the left's settings of these names."""
    try:
        if relative_error(got, compute(right, inputs, shape)) > ALIKE:
            return None
        changed = [
            _changed(one, two, names) for one, two in zip(left, right, strict=False)
        ]
        return relative_error(wanted, compute(changed, inputs, shape))
    except (UnknownLayer, KeyError, ValueError, IndexError, TypeError):
        return None


def _changed(one: LayerSpec, two: LayerSpec, names: Sequence[str]) -> LayerSpec:
    settings, weights, kind = dict(two.settings), dict(two.weights), two.kind
    for name in names:
        if name == "kind":
            kind, settings, weights = one.kind, dict(one.settings), dict(one.weights)
        elif name.startswith("weight "):
            key = name.removeprefix("weight ")
            weights.pop(key, None)
            if key in one.weights:
                weights[key] = one.weights[key]
        elif name == "reset_after":
            # Its biases are of other forms, too.
            settings[name] = one.settings.get(name)
            weights = {k: x for k, x in weights.items() if "bias" not in k}
            weights |= {k: x for k, x in one.weights.items() if "bias" in k}
        elif name in one.settings:
            settings[name] = one.settings[name]
        else:
            settings.pop(name, None)
    return LayerSpec(kind, settings, weights)


def compute(
    parts: Sequence[LayerSpec], inputs: Sequence[Array], shape: Shape = Shape()
) -> Array:
    """What a layer of one or more parts gives, by the NumPy reference."""
    if len(parts) == 1:
        return layers.apply(parts[0], inputs)
    if parts[0].kind not in ("lstm", "gru", "rnn"):
        value = list(inputs)
        for part in parts:
            value = [layers.apply(part, value)]
        return value[0]
    steps, begin = inputs[0], 0
    for number, count in enumerate(shape.counts):
        layer = parts[begin : begin + count]
        begin += count
        ends = number == len(shape.counts) - 1
        last = ends and bool(parts[-1].settings.get("last"))
        made = [_direction(part, steps, last=last) for part in layer]
        if layer[-1].settings.get("merge") == "sum":
            steps = np.asarray(np.sum(made, axis=0))
        elif ends and shape.half is not None:
            steps = made[shape.half]
        else:
            steps = np.concatenate(made, axis=-1)
    return steps


def _direction(part: LayerSpec, steps: Array, *, last: bool) -> Array:
    settings = {**part.settings, "last": last}
    return layers.apply(LayerSpec(part.kind, settings, part.weights), [steps])


def _cause(
    left: Sequence[LayerSpec],
    right: Sequence[LayerSpec],
    names: Sequence[str],
    before: float,
    after: float | None,
) -> Cause:
    texts, writes = [], []
    for name in names:
        one, two = _pair(left, right, name)
        texts.append(f"{_words(name)}: left {one}, right {two}")
        if name not in ("kind",) and not name.startswith("weight"):
            writes.append(f"give the right layer {_words(name)} {one}")
    key = key_of(left[0], right[0], names[0])
    finite = before if np.isfinite(before) else None
    write = WRITE.get(key) or "; ".join(writes)
    if any(_setting(one, "padding") == "same" for one in (*left, *right)):
        write = PADDING if key == "padding" else write
    return Cause(
        key=key,
        sentence="; ".join(texts),
        write=write,
        before=finite,
        after=after,
    )


PADDING = (
    "TensorFlow's 'same' pads the end more than the beginning where the stride does "
    "not fit; write keras.layers.ZeroPadding2D with the left's padding, then "
    "padding='valid'"
)
WRITE = {
    "bias-missing": "use_bias=True in Keras, bias=True in PyTorch",
    "gelu-form": "keras.activations.gelu(x, approximate=...) in Keras, "
    "nn.GELU(approximate='none' or 'tanh') in PyTorch",
    "reset-after": "PyTorch's GRU resets after the product: reset_after=True in Keras",
}


def _words(name: str) -> str:
    return {"size": "window", "count_padding": "padding counted"}.get(
        name, name.replace("_", " ").removeprefix("weight ")
    )


def _pair(
    left: Sequence[LayerSpec], right: Sequence[LayerSpec], name: str
) -> tuple[str, str]:
    for one, two in zip(left, right, strict=False):
        if name == "kind" and one.kind != two.kind:
            return one.kind, two.kind
        if name.startswith("weight "):
            key = name.removeprefix("weight ")
            has = ["has one" if key in x.weights else "has none" for x in (one, two)]
            if has[0] != has[1]:
                return has[0], has[1]
        elif _setting(one, name) != _setting(two, name):
            return shown(_setting(one, name)), shown(_setting(two, name))
    return "?", "?"


def shown(value: Any) -> str:
    """A setting's value for a sentence."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)


def key_of(left: LayerSpec, right: LayerSpec, name: str) -> str:
    """The key of a cause that lies in one setting."""
    if name.startswith("weight "):
        return "bias-missing" if "bias" in name or "beta" in name else "weight-missing"
    if name == "kind":
        return kinds_key(left.kind, right.kind)
    if left.kind in ("max_pool", "average_pool") and name in ("padding", "ceil"):
        return "pool-padding"
    if left.kind == "scale" or right.kind == "scale":
        return "input-scale"
    return KEYS.get(name, name)


def kinds_key(left: str, right: str) -> str:
    """The key of two functions that are not the same."""
    if left in ACTIVATIONS and right in ACTIVATIONS:
        return "activation-kind"
    if left in POOLS and right in POOLS:
        return "pool-kind"
    if {left, right} == {"layer_norm", "group_norm"}:
        return "axis"  # over which axes they normalise
    if "upsample" in (left, right):
        return "upsample-mode"
    return "layer-kind"


def missing_key(kind: str) -> str:
    """The key of a function that only the left model calls."""
    if kind in ACTIVATIONS:
        return "activation-missing"
    return {
        "add": "residual-missing",
        "scale": "input-scale",
        "pad": "padding",
        "crop": "crop",
        "concatenate": "concat-order",
    }.get(kind, "layer-missing")


def extra_key(kind: str) -> str:
    """The key of a function that only the right model calls."""
    if kind in ACTIVATIONS:
        return "activation-extra"
    return {
        "add": "residual-extra",
        "scale": "input-scale",
        "pad": "padding",
        "crop": "crop",
    }.get(kind, "layer-extra")


def told(settings: Mapping[str, Any]) -> str:
    """Settings in a line."""
    return ", ".join(f"{name} {shown(x)}" for name, x in settings.items())
