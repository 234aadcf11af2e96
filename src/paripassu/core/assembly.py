"""From tables of layers to a network: shapes inferred, and what does not fit refused.

Every error names the layer, the shapes, and what to type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from paripassu.core import layer_tables as tables
from paripassu.core.architecture import IMAGES, Kind, Layer, Network, Shape, Weight
from paripassu.core.errors import PariPassuError, did_you_mean
from paripassu.core.layer_spec import same_padding
from paripassu.core.layer_tables import JOINING, LayerTable

LARGEST = 2**31  # numbers in one array: more is a slip of the pen


class LayerError(PariPassuError, ValueError):
    """A layer that does not fit where it is."""


@lru_cache(maxsize=256)
def assemble(name: str, input_shape: Shape, layers: tuple[LayerTable, ...]) -> Network:
    """The network that tables describe.

    Args:
        name: the network's.
        input_shape: `(h, w, c)` of the images.
        layers: in an order in which each stands behind those that it takes; each has
            its name.

    Raises:
        LayerError: a layer does not fit, or nothing takes what it gives.
    """
    made: list[Layer] = []
    for table in layers:
        made.append(_made(table, tuple(made), input_shape, layers))
    last = made[-1]
    if len(last.output_shape) != 1 or last.output_shape[0] < 2:
        raise LayerError(
            f"layers: {last.name}, the last one, gives {last.output_shape}; expected a "
            "vector with a number for each of two classes or more. End with a dense "
            "layer: kind = 'dense', units = 10, behind a flatten or a "
            "global_average_pool"
        )
    network = Network(name, input_shape, last.output_shape[0], tuple(made))
    _check_uses(network)
    _check_biases(network)
    if not network.learned:
        raise LayerError("layers: none of them learns: add a dense layer")
    return network


def _made(
    table: LayerTable,
    before: tuple[Layer, ...],
    images: Shape,
    all_tables: Sequence[LayerTable],
) -> Layer:
    """One layer, behind those before it."""
    name, kind = str(table.name), _kind(table)
    sources = _sources(table, before, all_tables)
    known = {x.name: x for x in before}
    shapes = [images if x == IMAGES else known[x].output_shape for x in sources]
    flat = [known[x].flattened if x in known else () for x in sources]
    builder = _BUILDERS[kind]
    made = builder(table, sources, shapes, flat)
    layer = Layer(
        name,
        _CORE_KINDS.get(kind, kind),  # type: ignore[arg-type]
        made.shape,
        made.weights,
        made.settings,
        sources,
        made.flattened,
    )
    if math.prod(layer.output_shape) > LARGEST or any(
        math.prod(x.shape) > LARGEST for x in layer.weights
    ):
        raise LayerError(
            f"layers: {name} makes {layer.output_shape} of {shapes[0]}, with arrays of "
            f"over {LARGEST:,} numbers. Expected less"
        )
    return layer


def _kind(table: LayerTable) -> str:
    return str(table.kind)  # type: ignore[attr-defined]


def _sources(
    table: LayerTable, before: Sequence[Layer], all_tables: Sequence[LayerTable]
) -> tuple[str, ...]:
    """The names of what a layer takes."""
    name, kind = table.name, _kind(table)
    here = [x.name for x in before]
    if table.inputs is None:
        if kind in JOINING:
            shown = [*here[-2:]] if len(here) > 1 else ["relu1", "conv2"]
            raise LayerError(
                f"layers: {name}: inputs is missing: {kind} takes two layers or more, "
                f"by name, such as inputs = {shown}"
            )
        return (here[-1] if here else IMAGES,)
    for source in table.inputs:
        if source == IMAGES or source in here:
            continue
        later = any(x.name == source for x in all_tables)
        why = (
            f"{source} stands behind {name}. Put it before"
            if later and source != name
            else f"there is no layer {source!r}.{did_you_mean(source, here)} Known "
            f"before {name}: {', '.join([IMAGES, *here])}"
        )
        raise LayerError(f"layers: {name}: inputs: {why}")
    if kind in JOINING and len(table.inputs) < 2:
        raise LayerError(
            f"layers: {name}: inputs: {kind} takes two layers or more, got "
            f"{list(table.inputs)}"
        )
    if kind not in JOINING and len(table.inputs) > 1:
        raise LayerError(
            f"layers: {name}: inputs: {kind} takes one layer, got "
            f"{list(table.inputs)}. Join them first, with a layer of kind 'add' or "
            "'concatenate'"
        )
    return table.inputs


class _Made:
    """What a builder gives."""

    def __init__(
        self,
        shape: Shape,
        weights: tuple[Weight, ...] = (),
        flattened: Shape = (),
        **settings: Any,
    ) -> None:
        self.shape, self.weights = shape, weights
        self.settings, self.flattened = settings, flattened


Builder = Callable[[Any, tuple[str, ...], list[Shape], list[Shape]], _Made]


def _image(table: LayerTable, sources: Sequence[str], shape: Shape) -> Shape:
    """The shape of an image that enters a layer."""
    if len(shape) != 3:
        raise LayerError(
            f"layers: {table.name}: {_kind(table)} takes an image (h, w, c), and "
            f"{sources[0]} gives {shape}, a vector. Put it before the flatten or the "
            "global pool"
        )
    return shape


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


Pairs = tuple[tuple[int, int], tuple[int, int]]


def _window(
    table: Any,
    sources: Sequence[str],
    shape: Shape,
    size: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[tuple[int, int], Pairs]:
    """How many windows there are along each axis, and the padding of each."""
    counts, pads = [], []
    for n, k, s, d in zip(shape[:2], size, stride, dilation, strict=True):
        reach = (k - 1) * d + 1
        if table.padding == "same":
            pad = same_padding(n, k, s, d)
        else:
            border = 0 if table.padding == "valid" else table.padding
            pad = (border, border)
        count = (n + sum(pad) - reach) // s + 1
        if count < 1:
            reaches = tuple(
                (x - 1) * y + 1 for x, y in zip(size, dilation, strict=True)
            )
            raise LayerError(
                f"layers: {table.name}: {sources[0]} gives {shape}, and its window "
                f"reaches over {reaches} pixels: nothing would be left. "
                "Type a smaller one, or padding = 'same'"
            )
        counts.append(count)
        pads.append(pad)
    return (counts[0], counts[1]), (pads[0], pads[1])


def _neutral(**settings: Any) -> dict[str, Any]:
    """Settings without those that change nothing."""
    neutral = ((1, 1), 1, ((0, 0), (0, 0)))
    return {key: x for key, x in settings.items() if x not in neutral}


def _conv(
    table: tables.Conv, sources: tuple[str, ...], shapes: list[Shape], _flat: Any
) -> _Made:
    shape = _image(table, sources, shapes[0])
    inputs, outputs, groups = shape[-1], table.channels, table.groups
    for what, count in (("channels", outputs), (f"what {sources[0]} gives", inputs)):
        if count % groups:
            raise LayerError(
                f"layers: {table.name}: groups = {groups} does not divide {what}, "
                f"{count}: {sources[0]} gives {shape}, and channels = {outputs}. Type "
                "a number that divides both"
            )
    return _convolution(table, sources, shape, outputs, groups, table.connections)


def _depthwise(
    table: tables.DepthwiseConv,
    sources: tuple[str, ...],
    shapes: list[Shape],
    _flat: Any,
) -> _Made:
    shape = _image(table, sources, shapes[0])
    channels = shape[-1]
    return _convolution(table, sources, shape, channels * table.multiplier, channels)


def _convolution(
    table: Any,
    sources: tuple[str, ...],
    shape: Shape,
    outputs: int,
    groups: int,
    connections: Any = None,
) -> _Made:
    size, stride, dilation = map(_pair, (table.kernel, table.stride, table.dilation))
    if max(stride) > 1 and max(dilation) > 1:
        raise LayerError(
            f"layers: {table.name}: stride = {table.stride} and dilation = "
            f"{table.dilation}: TensorFlow has no convolution with both. Type 1 for one"
        )
    counts, pads = _window(table, sources, shape, size, stride, dilation)
    inputs = shape[-1] // groups
    own = _connections(table, sources, shape, outputs, groups, connections)
    fans = size[0] * size[1] * inputs, size[0] * size[1] * outputs
    kernel = (*size, inputs, outputs)
    weights = [Weight(f"{table.name}.kernel", kernel, "h w i o", {}, *fans, own)]
    if table.bias:
        weights.append(Weight(f"{table.name}.bias", (outputs,), "o", {}, *fans))
    settings = _neutral(strides=stride, dilation=dilation, groups=groups, padding=pads)
    return _Made((*counts, outputs), tuple(weights), **settings)


def _connections(
    table: Any,
    sources: tuple[str, ...],
    shape: Shape,
    outputs: int,
    groups: int,
    given: Any,
) -> tuple[tuple[int, ...], ...]:
    if given is None:
        return ()
    where = f"layers: {table.name}: connections"
    if groups > 1:
        raise LayerError(
            f"{where}: groups = {groups} says what is connected. Leave one"
        )
    if len(given) != outputs:
        raise LayerError(
            f"{where}: expected a list for each of channels = {outputs}, got "
            f"{len(given)}"
        )
    for channels in given:
        if max(channels) >= shape[-1] or len(set(channels)) < len(channels):
            raise LayerError(
                f"{where}: {sources[0]} gives {shape}: expected different numbers from "
                f"0 to {shape[-1] - 1}, got {list(channels)}"
            )
    return tuple(map(tuple, given))


def _dense(
    table: tables.Dense,
    sources: tuple[str, ...],
    shapes: list[Shape],
    flat: list[Shape],
) -> _Made:
    (shape,) = shapes
    if len(shape) != 1:
        raise LayerError(
            f"layers: {table.name}: dense takes a vector, and {sources[0]} gives "
            f"{shape}. Put a layer of kind 'flatten' or 'global_average_pool' before it"
        )
    inputs, units = shape[0], table.units
    axes, sizes = ("(h w c) o", _sizes(flat[0])) if flat[0] else ("i o", {})
    # Rows of the kernel follow the flattened image: frameworks differ here.
    kernel = (inputs, units)
    weights = [Weight(f"{table.name}.kernel", kernel, axes, sizes, inputs, units)]
    if table.bias:
        weights.append(Weight(f"{table.name}.bias", (units,), "o", {}, inputs, units))
    return _Made((units,), tuple(weights))


def _sizes(flat: Shape) -> dict[str, int]:
    return dict(zip("hwc", flat, strict=True))


def _scales(
    table: LayerTable, shape: Shape, flat: Shape, parts: Sequence[str]
) -> tuple[Weight, ...]:
    """A number of each channel for each part."""
    axes, sizes = ("(h w c)", _sizes(flat)) if flat else ("o", {})
    return tuple(
        Weight(f"{table.name}.{x}", shape[-1:], axes, sizes, fan_in=1, fan_out=1)
        for x in parts
    )


def _batch_norm(
    table: tables.BatchNorm, _sources: Any, shapes: list[Shape], flat: list[Shape]
) -> _Made:
    parts = ("gamma", "beta", "mean", "variance")
    weights = _scales(table, shapes[0], flat[0], parts)
    settings = {"epsilon": table.epsilon, "momentum": table.momentum}
    return _Made(shapes[0], weights, flat[0], **settings)


def _layer_norm(
    table: tables.LayerNorm, sources: Any, shapes: list[Shape], flat: list[Shape]
) -> _Made:
    if shapes[0][-1] < 2:
        raise LayerError(
            f"layers: {table.name}: {sources[0]} gives {shapes[0]}: a single channel "
            "normalised by itself is 0. Take it out, or give more channels"
        )
    weights = _scales(table, shapes[0], flat[0], ("gamma", "beta"))
    return _Made(shapes[0], weights, flat[0], epsilon=table.epsilon)


def _group_norm(
    table: tables.GroupNorm, sources: Any, shapes: list[Shape], flat: list[Shape]
) -> _Made:
    (shape,) = shapes
    if shape[-1] % table.groups:
        raise LayerError(
            f"layers: {table.name}: groups = {table.groups} does not divide the "
            f"{shape[-1]} channels that {sources[0]} gives, {shape}"
        )
    if math.prod(shape) // table.groups < 2:
        raise LayerError(
            f"layers: {table.name}: {sources[0]} gives {shape}: a group of one number "
            f"normalised by itself is 0. Type fewer groups than {table.groups}"
        )
    if flat[0] and flat[0][:2] != (1, 1):
        raise LayerError(
            f"layers: {table.name}: {sources[0]} gives {shape}, a flattened image "
            f"{flat[0]}, whose order of numbers, and so groups, differs between "
            "frameworks. Put it before the flatten"
        )
    weights = _scales(table, shape, flat[0], ("gamma", "beta"))
    return _Made(shape, weights, flat[0], epsilon=table.epsilon, groups=table.groups)


def _pool(
    table: Any, sources: tuple[str, ...], shapes: list[Shape], _flat: Any
) -> _Made:
    shape = _image(table, sources, shapes[0])
    size = _pair(table.size)
    stride = _pair(table.size if table.stride is None else table.stride)
    if isinstance(table.padding, int) and 2 * table.padding > min(size):
        raise LayerError(
            f"layers: {table.name}: padding = {table.padding} is more than half of its "
            f"size {size}: a window would lie outside {shape}. Type a smaller one"
        )
    counts, pads = _window(table, sources, shape, size, stride, (1, 1))
    settings: dict[str, Any] = {"size": size}
    if stride != size:
        settings["strides"] = stride
    if any(map(any, pads)):
        settings["padding"] = pads
        if _kind(table) == "average_pool":
            settings["count_padding"] = False
    return _Made((*counts, shape[-1]), **settings)


def _global_pool(
    table: LayerTable, sources: tuple[str, ...], shapes: list[Shape], _flat: Any
) -> _Made:
    return _Made(_image(table, sources, shapes[0])[-1:])


def _flatten(
    table: LayerTable, sources: tuple[str, ...], shapes: list[Shape], _flat: Any
) -> _Made:
    shape = _image(table, sources, shapes[0])
    return _Made((math.prod(shape),), flattened=shape)


def _same(
    table: LayerTable, _sources: Any, shapes: list[Shape], flat: list[Shape]
) -> _Made:
    """Shape and order as they come."""
    kept = {"slope", "alpha", "approximate", "amplitude"} & type(
        table
    ).model_fields.keys()
    settings = {key: getattr(table, key) for key in sorted(kept)}
    return _Made(shapes[0], flattened=flat[0], **settings)


def _add(
    table: LayerTable, sources: tuple[str, ...], shapes: list[Shape], flat: list[Shape]
) -> _Made:
    for source, shape in zip(sources[1:], shapes[1:], strict=True):
        if shape != shapes[0]:
            raise LayerError(
                f"layers: {table.name}: it adds {sources[0]} of {shapes[0]} and "
                f"{source} of {shape}: expected equal shapes. Where a block changes "
                "them, put a conv with kernel = 1 and the block's channels and stride "
                "on the shorter way"
            )
    _check_order(table, sources, flat)
    return _Made(shapes[0], flattened=flat[0])


def _check_order(
    table: LayerTable, sources: Sequence[str], flat: Sequence[Shape]
) -> None:
    """Vectors that are joined must have their numbers in one order everywhere."""
    ordered = [x if x[:2] != (1, 1) else () for x in flat]
    kind = _kind(table)
    same = len(set(ordered)) == 1
    if same and (kind == "add" or not ordered[0]):
        return
    one = next(i for i, x in enumerate(ordered) if x)
    raise LayerError(
        f"layers: {table.name}: {sources[one]} is a flattened image {ordered[one]}, "
        f"whose order of numbers differs between frameworks. {kind.capitalize()} "
        "before the flatten, or put a global_average_pool in its place"
    )


def _concatenate(
    table: LayerTable, sources: tuple[str, ...], shapes: list[Shape], flat: list[Shape]
) -> _Made:
    for source, shape in zip(sources[1:], shapes[1:], strict=True):
        if shape[:-1] != shapes[0][:-1] or len(shape) != len(shapes[0]):
            raise LayerError(
                f"layers: {table.name}: it joins the channels of {sources[0]} of "
                f"{shapes[0]} and {source} of {shape}: expected the same height and "
                "width. Give both ways the same strides and padding"
            )
    _check_order(table, sources, flat)
    return _Made((*shapes[0][:-1], sum(x[-1] for x in shapes)))


def _pad(
    table: tables.Pad, sources: tuple[str, ...], shapes: list[Shape], _flat: Any
) -> _Made:
    h, w, c = _image(table, sources, shapes[0])
    size = table.size
    return _Made((h + 2 * size, w + 2 * size, c), padding=((size, size),) * 2)


def _subsample(
    table: LayerTable, sources: tuple[str, ...], shapes: list[Shape], _flat: Any
) -> _Made:
    h, w, c = _image(table, sources, shapes[0])
    if min(h, w) < 2:
        raise LayerError(
            f"layers: {table.name}: {sources[0]} gives {shapes[0]}: expected 2 pixels "
            "or more each way"
        )
    weights = tuple(
        Weight(f"{table.name}.{x}", (c,), "o", {}, fan_in=4, fan_out=1)
        for x in ("coefficient", "bias")
    )
    return _Made((h // 2, w // 2, c), weights, size=(2, 2))


_CORE_KINDS: dict[str, Kind] = {"depthwise_conv": "conv"}
_BUILDERS: dict[str, Builder] = {
    "conv": _conv,
    "depthwise_conv": _depthwise,
    "dense": _dense,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "max_pool": _pool,
    "average_pool": _pool,
    "global_average_pool": _global_pool,
    "global_max_pool": _global_pool,
    "flatten": _flatten,
    "add": _add,
    "concatenate": _concatenate,
    "pad": _pad,
    "subsample": _subsample,
    **dict.fromkeys(
        (
            *("relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"),
            *("softplus", "dropout"),
        ),
        _same,
    ),
}


def _check_uses(network: Network) -> None:
    """Every layer but the last is taken by another."""
    used = {source for layer in network.layers for source in layer.inputs}
    for layer in network.layers[:-1]:
        if layer.name not in used:
            raise LayerError(
                f"layers: nothing takes what {layer.name} gives, {layer.output_shape}: "
                f"the network ends with {network.layers[-1].name}. Name it in the "
                "inputs of another layer, or take it out"
            )
    if IMAGES not in used:
        raise LayerError(f"layers: no layer takes the images, {network.input_shape}")


# What gives a constant more where a constant more comes in, channel by channel.
_CARRIES = (
    *("conv", "dense", "subsample", "max_pool", "average_pool", "flatten"),
    *("global_average_pool", "global_max_pool", "add", "concatenate"),
)


def _check_biases(network: Network) -> None:
    """Refuse what is added only to be taken away again by a normalisation.

    Its gradient is zero, and rounding alone would move it: differently in every
    framework, and, under Adam or Adadelta, as far as any weight that learns.
    """
    takers: dict[str, list[Layer]] = {x.name: [] for x in network.layers}
    for layer in network.layers:
        for source in layer.inputs:
            if source != IMAGES:
                takers[source].append(layer)

    cancelled: dict[str, str] = {}  # the layer, and what takes its constant away

    def absorbs(layer: Layer) -> str | None:
        channels = layer.output_shape[-1]
        if layer.kind == "batch_norm":
            return layer.name
        if layer.kind == "group_norm" and layer.settings["groups"] == channels:
            return layer.name
        carries = layer.kind in _CARRIES
        if layer.kind == "conv" and "padding" in layer.settings:
            carries = False  # zeros at the border do not move
        return cancelled.get(layer.name) if carries else None

    for layer in reversed(network.layers):
        by = [absorbs(x) for x in takers[layer.name]]
        if by and all(by):
            cancelled[layer.name] = str(by[0])
    for layer in network.layers:
        added = [x for x in layer.weights if x.is_bias and x.learned]
        if not added or layer.name not in cancelled:
            continue
        norm = cancelled[layer.name]
        if layer.kind in ("conv", "dense"):
            advice = f"Type bias = false for {layer.name}"
        else:
            advice = "Take one of them out, or put an activation between them"
        raise LayerError(
            f"layers: {added[0].name} does nothing: {norm} takes away the mean, and "
            f"with it what {layer.name} adds. {advice}"
        )
