"""Why a layer computes something else than the other model's: found by trying.

Of two layers of one kind, each setting that differs is put in the right one's place, in
the NumPy reference; the one that gives the left's output from the same input is named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from paripassu.core.layer_spec import (
    Array,
    LayerSpec,
    UnknownLayerError,
    relative_error,
)
from paripassu.port_check.results import Cause
from paripassu.reference import layers
from paripassu.reference.recurrent import RECURRENT
from paripassu.sides.advice import advise

IGNORED = ("bidirectional", "layers", "function", "flipped")
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
    "rate": "dropout-rate",
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
    before = relative_error(wanted, got)
    if cause := _misplaced_bias(right, inputs, got, before):
        return cause
    differing = differences(left, right)
    if not differing:
        return None
    for count in (1, 2, 3):
        for names in combinations(differing, count):
            after = _after(left, right, names, inputs, wanted, got, shape)
            if after is not None and after <= CLOSED * min(before, 1.0):
                return _cause(left, right, names, before, after)
    if len(differing) == 1:  # nothing else can be meant; not tried
        return _cause(left, right, tuple(differing), before, None)
    return None


def _misplaced_bias(
    parts: Sequence[LayerSpec], inputs: Sequence[Array], got: Array, before: float
) -> Cause | None:
    """A bias of n channels that was added along another axis, of n numbers too."""
    bias = parts[0].weights.get("bias") if parts[0].kind == "conv" else None
    if bias is None or len(parts) > 1 or len(bias) not in got.shape[1:-1]:
        return None
    weights = {k: x for k, x in parts[0].weights.items() if k != "bias"}
    try:
        made = layers.apply(LayerSpec("conv", parts[0].settings, weights), inputs)
    except (UnknownLayerError, ArithmeticError, LookupError, TypeError, ValueError):
        return None
    for axis in range(1, made.ndim - 1):
        if made.shape[axis] != len(bias):
            continue
        places = [-1 if n == axis else 1 for n in range(made.ndim)]
        after = relative_error(got, made + bias.reshape(places))
        if after <= ALIKE and after <= CLOSED * before:
            return Cause(
                key="bias-axis",
                sentence=f"its bias is added along axis {axis} of (N, h, w, channels), "
                f"which has as many numbers as there are channels, {len(bias)}",
                write="Keras on TensorFlow does so with channels first where the last "
                "axis is as long as there are channels: set data_format to "
                "'channels_last', or try another size of image",
                before=before if np.isfinite(before) else None,
                after=after,
            )
    return None


def differences(left: Sequence[LayerSpec], right: Sequence[LayerSpec]) -> list[str]:
    """What differs, by name, what says most first: "kind", settings, "weight bias"."""
    return list(_differing(left, right))


def _differing(
    left: Sequence[LayerSpec], right: Sequence[LayerSpec]
) -> dict[str, tuple[Any, Any]]:
    """Of all that differs, the values in the first parts that do."""
    found: dict[str, tuple[Any, Any]] = {}
    for parts in zip(left, right, strict=False):
        said = [_said(x) for x in parts]
        names = (*said[0], *said[1])
        for name in sorted(names, key=lambda x: x.startswith(WEIGHT)):
            neutral = "has none" if name.startswith(WEIGHT) else NEUTRAL.get(name)
            values = said[0].get(name, neutral), said[1].get(name, neutral)
            if values[0] != values[1]:
                found.setdefault(name, values)
    return found


WEIGHT = "weight "
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


def _said(spec: LayerSpec) -> dict[str, Any]:
    """A layer's kind, settings and which weights it has, to be compared."""
    said = {"kind": spec.kind, **spec.settings}
    if said.get("axis") == 3:
        said["axis"] = -1  # of images (N, h, w, c)
    if spec.kind in RECURRENT:
        said.pop("last", None)  # the step that is used shows after the layer
    said |= {f"{WEIGHT}{name}": "has one" for name in spec.weights}
    return {
        name: value
        for name, value in said.items()
        if name not in IGNORED and not name.startswith("_")
    }


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
    except (UnknownLayerError, ArithmeticError, LookupError, TypeError, ValueError):
        return None  # the reference has no such layer


def _changed(left: LayerSpec, right: LayerSpec, names: Sequence[str]) -> LayerSpec:
    """The right layer with what the left one has of these names."""
    if "kind" in names:
        return left
    weights = {x.removeprefix(WEIGHT) for x in names if x.startswith(WEIGHT)}
    if "reset_after" in names:  # its biases are of other forms, too
        weights |= {x for x in (*left.weights, *right.weights) if "bias" in x}
    return LayerSpec(
        right.kind,
        _taking(right.settings, left.settings, names),
        _taking(right.weights, left.weights, weights),
    )


def _taking(
    own: Mapping[str, Any], others: Mapping[str, Any], names: Collection[str]
) -> dict[str, Any]:
    """Its own values, but those of these names as the other has them, or not at all."""
    kept = {name: x for name, x in own.items() if name not in names}
    return kept | {name: x for name, x in others.items() if name in names}


def compute(
    parts: Sequence[LayerSpec], inputs: Sequence[Array], shape: Shape = Shape()
) -> Array:
    """What a layer of one or more parts gives, by the NumPy reference."""
    if len(parts) == 1:
        return layers.apply(parts[0], inputs)
    if parts[0].kind not in RECURRENT:
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
        made = [layers.apply(part.changed(last=last), [steps]) for part in layer]
        if layer[-1].settings.get("merge") == "sum":
            steps = np.asarray(np.sum(made, axis=0))
        elif ends and shape.half is not None:
            steps = made[shape.half]
        else:
            steps = np.concatenate(made, axis=-1)
    return steps


def _cause(
    left: Sequence[LayerSpec],
    right: Sequence[LayerSpec],
    names: Sequence[str],
    before: float,
    after: float | None,
) -> Cause:
    differing, texts, writes = _differing(left, right), [], []
    for name in names:
        one, two = map(shown, differing[name])
        texts.append(f"{_words(name)}: left {one}, right {two}")
        if name != "kind" and not name.startswith(WEIGHT):
            writes.append(f"give the right layer {_words(name)} {one}")
    key, *also = (key_of(left[0], right[0], x) for x in names)
    settings = {x: differing[x][0] for x in names}
    plain = all(isinstance(x, bool | int | float | str) for x in settings.values())
    write = advise(key) or "; ".join(writes)
    if any(x.settings.get("padding") == "same" for x in (*left, *right)):
        write = advise("same-padding") if key == "padding" else write
    return Cause(
        key=key,
        sentence="; ".join(texts),
        write=write,
        before=before if np.isfinite(before) else None,
        after=after,
        also=tuple(x for x in also if x != key),
        settings=settings if plain and len(right) == 1 else {},
    )


def of_shapes(
    left: Sequence[LayerSpec],
    right: Sequence[LayerSpec],
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> Cause:
    """What differs in two layers whose outputs have other shapes: nothing is tried."""
    found = _cause(left, right, differences(left, right), np.inf, None)
    sentence = f"{found.sentence}; the outputs are {shapes[0]} and {shapes[1]}"
    return found.model_copy(update={"sentence": sentence})


def _words(name: str) -> str:
    return {"size": "window", "count_padding": "padding counted"}.get(
        name, name.replace("_", " ").removeprefix(WEIGHT)
    )


def shown(value: Any) -> str:
    """A setting's value for a sentence."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)


def key_of(left: LayerSpec, right: LayerSpec, name: str) -> str:
    """The key of a cause that lies in one setting."""
    if name.startswith(WEIGHT):
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


def lone_key(kind: str, which: Literal["missing", "extra"]) -> str:
    """The key of a function that only the left model calls, or only the right one."""
    if kind in ACTIVATIONS:
        return f"activation-{which}"
    if kind == "add":
        return f"residual-{which}"
    if kind == "concatenate" and which == "missing":
        return "concat-order"
    same = {
        "scale": "input-scale",
        "pad": "padding",
        "crop": "crop",
        "dropout": "dropout-at-inference",
    }
    return same.get(kind, f"layer-{which}")


def of_attention(
    known: LayerSpec,
    inputs: Sequence[Array],
    masks: Sequence[Array],
    own: Array,
    other: Array,
    known_is_left: bool,
) -> Cause | None:
    """The setting of an attention by which one that is written out parts from it.

    Args:
        known: the one that is a layer.
        inputs: query, and value and key where they are not the same.
        masks: that it is given, true or 1 where something is seen, or hidden.
        own, other: what it gives, and what the one of other layers gives.
        known_is_left: which model has it.
    """
    try:
        masked = [known, *(known.changed(mask=x) for x in _masks(masks))]
        known = next(
            x for x in masked if relative_error(own, layers.apply(x, inputs)) <= ALIKE
        )
        before = relative_error(own, other)
        for settings in _attentions(known):
            made = layers.apply(known.changed(**settings), inputs)
            after = relative_error(made, other)
            if after <= CLOSED * min(before, 1.0):
                break
        else:
            return None
    except (UnknownLayerError, LookupError, ValueError, TypeError, StopIteration):
        return None
    texts = []
    for name, value in settings.items():
        pair = shown(known.settings.get(name, NEUTRAL.get(name))), shown(value)
        left, right = pair if known_is_left else pair[::-1]
        texts.append(f"{_words(name)}: left {left}, right {right}")
    return Cause(
        key=KEYS[next(iter(settings))],
        sentence="; ".join(texts),
        before=before if np.isfinite(before) else None,
        after=after,
    )


def _masks(given: Sequence[Array]) -> Iterator[Array]:
    """Which keys are seen, (n, heads, queries, keys): a mask tells these or others."""
    for array in given:
        seen = array.astype(bool)
        while seen.ndim < 4:
            seen = seen[:, None]
        yield seen
        yield ~seen


def _attentions(known: LayerSpec) -> Iterator[dict[str, Any]]:
    """What is often written in place of an attention's settings, alone and two."""
    width = known.weights["query"].shape[-1]
    heads = int(known.settings["heads"])
    scales = (width**-0.5, 1.0, (width / heads) ** 0.5, heads**-0.5)
    alone = [{"scale": x} for x in scales]
    alone += [{"causal": not known.settings.get("causal", False)}]
    yield from alone
    for count in (x for x in range(1, width + 1) if width % x == 0 and x != heads):
        yield {"heads": count, "scale": (width / count) ** -0.5}
        yield {"heads": count}
    for scale in alone[:-1]:
        yield alone[-1] | scale
