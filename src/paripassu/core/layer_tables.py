"""Layers as a recipe has them: for each kind a table of settings, checked.

What a layer computes is pinned by `core.layer_spec`; which shape it gives, and what
fits behind what, by `core.assembly`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError

from paripassu.core.errors import did_you_mean
from paripassu.core.part import Part

Whole = Annotated[int, Field(ge=1, le=100_000)]
Pair = Annotated[tuple[Whole, Whole], Field(strict=False)]
Size = Whole | Pair
Border = Annotated[int, Field(ge=0, le=10_000)]
Padding = Literal["valid", "same"] | Border
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Channels = Annotated[tuple[Border, ...], Field(strict=False, min_length=1)]
Connections = Annotated[tuple[Channels, ...], Field(strict=False, min_length=1)]


class LayerTable(Part):
    """What every layer may say."""

    name: Name | None = Field(
        None, description="of the layer; else its kind and a number, conv1"
    )
    inputs: Names | None = Field(
        None,
        description="the layers whose outputs it takes, by name, or 'input' for the "
        "images; else the layer before",
    )


class Conv(LayerTable):
    """A convolution over height and width."""

    kind: Literal["conv"] = Field("conv", description="convolution")
    channels: Whole = Field(description="how many leave it")
    kernel: Size = Field(3, description="its size, one number or [height, width]")
    stride: Size = Field(1, description="by how many pixels the kernel moves")
    padding: Padding = Field(
        "valid",
        description="zeros around the image: none (valid), so many that the output has "
        "size / stride pixels, the odd one right and below (same), or a number for "
        "each side",
    )
    dilation: Size = Field(1, description="from one pixel of the kernel to the next")
    groups: Whole = Field(
        1, description="of channels, each with kernels for itself alone"
    )
    bias: bool = Field(True, description="whether each channel has a number added")
    connections: Connections | None = Field(
        None,
        description="of each output channel the input channels that it sees, counted "
        "from 0; else all",
    )


class DepthwiseConv(LayerTable):
    """A convolution that keeps channels apart: as many groups as channels."""

    kind: Literal["depthwise_conv"] = Field(
        "depthwise_conv", description="convolution of each channel by itself"
    )
    multiplier: Whole = Field(1, description="output channels for each input channel")
    kernel: Size = Field(3, description="its size, one number or [height, width]")
    stride: Size = Field(1, description="by how many pixels the kernel moves")
    padding: Padding = Field("valid", description="as of conv")
    dilation: Size = Field(1, description="from one pixel of the kernel to the next")
    bias: bool = Field(True, description="whether each channel has a number added")


class Dense(LayerTable):
    """Every output is a weighted sum of all inputs."""

    kind: Literal["dense"] = Field("dense", description="fully connected")
    units: Whole = Field(description="how many numbers leave it")
    bias: bool = Field(True, description="whether each unit has a number added")


Epsilon = Annotated[float, Field(gt=0, le=1, description="added to the variance")]


class BatchNorm(LayerTable):
    """Each channel normalised by mean and variance of the batch, biased."""

    kind: Literal["batch_norm"] = Field("batch_norm", description="over the batch")
    epsilon: Epsilon = 1e-5
    momentum: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="share of the old running statistics that stays at each step "
        "(PyTorch's momentum is 1 less this)",
    )


class LayerNorm(LayerTable):
    """The channels of each pixel, or the numbers of each vector, normalised."""

    kind: Literal["layer_norm"] = Field("layer_norm", description="over the channels")
    epsilon: Epsilon = 1e-5


class GroupNorm(LayerTable):
    """Each group of channels of each image normalised, over all pixels."""

    kind: Literal["group_norm"] = Field("group_norm", description="over groups")
    groups: Whole = Field(description="of channels that follow one another")
    epsilon: Epsilon = 1e-5


class Relu(LayerTable):
    """max(x, 0)."""

    kind: Literal["relu"] = Field("relu", description="max(x, 0)")


class LeakyRelu(LayerTable):
    """x where it is positive, else slope x."""

    kind: Literal["leaky_relu"] = Field("leaky_relu", description="x or slope x")
    slope: float = Field(0.01, ge=0, lt=1, description="below 0")


class Elu(LayerTable):
    """x where it is positive, else alpha (exp(x) - 1)."""

    kind: Literal["elu"] = Field("elu", description="x or alpha (exp(x) - 1)")
    alpha: float = Field(1.0, gt=0, description="what it tends to below 0, negative")


class Gelu(LayerTable):
    """x times the normal distribution's share below x."""

    kind: Literal["gelu"] = Field("gelu", description="x Phi(x)")
    approximate: bool = Field(
        False, description="by a tanh (Flax's default), or exact (PyTorch, Keras)"
    )


class Silu(LayerTable):
    """x sigmoid(x), also called swish."""

    kind: Literal["silu"] = Field("silu", description="x sigmoid(x), swish")


class Tanh(LayerTable):
    """amplitude tanh(slope x)."""

    kind: Literal["tanh"] = Field("tanh", description="amplitude tanh(slope x)")
    amplitude: float = Field(1.0, gt=0, description="what multiplies the tanh")
    slope: float = Field(1.0, gt=0, description="what multiplies x")


class Sigmoid(LayerTable):
    """1 / (1 + exp(-x))."""

    kind: Literal["sigmoid"] = Field("sigmoid", description="1 / (1 + exp(-x))")


class Softplus(LayerTable):
    """log(1 + exp(x))."""

    kind: Literal["softplus"] = Field("softplus", description="log(1 + exp(x))")


class MaxPool(LayerTable):
    """The largest value of each window."""

    kind: Literal["max_pool"] = Field("max_pool", description="largest of a window")
    size: Size = Field(2, description="of the window, one number or [height, width]")
    stride: Size | None = Field(None, description="else the size")
    padding: Padding = Field("valid", description="as of conv; it is never the largest")


class AveragePool(LayerTable):
    """The mean of each window, of what of it lies inside the image."""

    kind: Literal["average_pool"] = Field(
        "average_pool", description="mean of a window"
    )
    size: Size = Field(2, description="of the window, one number or [height, width]")
    stride: Size | None = Field(None, description="else the size")
    padding: Literal["valid", "same"] = Field(
        "valid", description="as of conv; what is outside does not count"
    )


class GlobalAveragePool(LayerTable):
    """The mean of each channel: a vector."""

    kind: Literal["global_average_pool"] = Field(
        "global_average_pool", description="mean of a channel"
    )


class GlobalMaxPool(LayerTable):
    """The largest value of each channel: a vector."""

    kind: Literal["global_max_pool"] = Field(
        "global_max_pool", description="largest of a channel"
    )


class Dropout(LayerTable):
    """Some numbers become 0 in training, the others are enlarged."""

    kind: Literal["dropout"] = Field("dropout", description="drops numbers in training")


class Flatten(LayerTable):
    """An image as a vector."""

    kind: Literal["flatten"] = Field("flatten", description="an image as a vector")


class Add(LayerTable):
    """The sum of layers of one shape."""

    kind: Literal["add"] = Field("add", description="sum; names two or more inputs")


class Concatenate(LayerTable):
    """The channels of several layers, in the order of `inputs`."""

    kind: Literal["concatenate"] = Field(
        "concatenate", description="channels side by side; names two or more inputs"
    )


class Pad(LayerTable):
    """Zeros on each of the four sides."""

    kind: Literal["pad"] = Field("pad", description="zeros on the four sides")
    size: Border = Field(1, description="how many on each side")


class Subsample(LayerTable):
    """Sums of 2x2 pixels, times and plus a learned number of each channel.

    Source: LeCun et al. 1998, layers S2 and S4.
    """

    kind: Literal["subsample"] = Field(
        "subsample", description="LeNet-5's learned subsampling of 2x2 pixels"
    )


AnyLayer = (
    Conv
    | DepthwiseConv
    | Dense
    | BatchNorm
    | LayerNorm
    | GroupNorm
    | Relu
    | LeakyRelu
    | Elu
    | Gelu
    | Silu
    | Tanh
    | Sigmoid
    | Softplus
    | MaxPool
    | AveragePool
    | GlobalAveragePool
    | GlobalMaxPool
    | Dropout
    | Flatten
    | Add
    | Concatenate
    | Pad
    | Subsample
)
KINDS: dict[str, type[LayerTable]] = {
    x.model_fields["kind"].default: x for x in get_args(AnyLayer)
}
JOINING = ("add", "concatenate")  # kinds that take several layers

# A layer becomes an attribute of a module, which has attributes of its own: these are
# those of `torch.nn.Module` and `flax.nnx.Module`, and names that have a meaning here.
_RESERVED = """
add_module and apply as assert async await bfloat16 break buffers call_super_init
children class compile continue cpu cuda def del double dump_patches elif else eval
except extra_repr finally float for forward from get_buffer get_extra_state
get_parameter get_submodule global gradients graph half if images import in input
input_layer int ipu is iter_children iter_modules jax jnp keras lambda layer layers len
list load_state_dict logits map math modules mtia named_buffers named_children
named_modules named_parameters network nn nnx nonlocal not np ops optax or outputs
parameters partial pass path perturb print probabilities raise range
register_backward_hook register_buffer register_forward_hook register_forward_pre_hook
register_full_backward_hook register_full_backward_pre_hook
register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module
register_parameter register_state_dict_post_hook register_state_dict_pre_hook
requires_grad_ return self set_attributes set_extra_state set_submodule share_memory
softmax sow state_dict sum super tf to to_empty torch train training try type while with
x xpu yield zero_grad zip
"""
RESERVED = frozenset(_RESERVED.split())


def read_layers(
    given: Any, rates: Mapping[str, Any] | None
) -> tuple[tuple[LayerTable, ...], dict[str, Any]]:
    """The tables of a recipe's `layers`, each with its name, and the rates of dropout.

    Args:
        given: a list of tables, or of layers that were read before.
        rates: those of the recipe's `dropout`, if it has any; a layer may say its own.

    Raises:
        ValueError: says which layer, what of it, what came and what is known.
    """
    if not isinstance(given, list | tuple):
        raise ValueError(
            f"layers: expected a list of tables, [[layers]], got {given!r:.80}"
        )
    if not given:
        raise ValueError("layers: expected at least one layer, got none")
    rates = dict(rates or {})
    counts: Counter[str] = Counter()
    found: list[LayerTable] = []
    for place, one in enumerate(given, start=1):
        read = isinstance(one, LayerTable)
        table = one.model_dump(exclude_none=True) if read else one
        if not isinstance(table, Mapping):
            raise ValueError(
                f"layers: the {_th(place)}: expected a table, got {table!r:.80}"
            )
        layer = _read(dict(table), place, counts, rates)
        if any(layer.name == x.name for x in found):
            raise ValueError(
                f"layers: {layer.name} (the {_th(place)}) has the name of one before "
                "it. Give one of them another: name = ..."
            )
        found.append(layer)
    return tuple(found), rates


def _read(
    table: dict[str, Any], place: int, counts: Counter[str], rates: dict[str, Any]
) -> LayerTable:
    kind = table.get("kind")
    where = f"layers: the {_th(place)}"
    if not isinstance(kind, str) or kind not in KINDS:
        hint = did_you_mean(kind, KINDS) if isinstance(kind, str) else ""
        came = f"got {kind!r:.80}" if "kind" in table else "it has none"
        raise ValueError(
            f"{where}: kind: expected one of {', '.join(KINDS)}; {came}.{hint}"
        )
    counts[kind] += 1
    if table.get("name") is None:
        table["name"] = f"{kind}{counts[kind]}"
    name = table["name"]
    where = f"layers: {name} (the {_th(place)}, of kind {kind})"
    if isinstance(name, str) and name in RESERVED:
        raise ValueError(f"{where}: this name means something else. Choose another")
    if kind == "dropout" and "rate" in table:
        rate = table.pop("rate")
        if rates.setdefault(str(name), rate) != rate:
            raise ValueError(
                f"{where}: rate is {rate!r} here and {rates[name]!r} in [dropout]. "
                "Expected it in one place"
            )
    known = list(KINDS[kind].model_fields)
    if kind == "dropout":
        known.append("rate")
    for key in table:
        if key not in known:
            hint = did_you_mean(key, known)
            raise ValueError(
                f"{where}: unknown setting {key!r}.{hint} Known here: "
                f"{', '.join(known)}"
            )
    try:
        return KINDS[kind].model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        came = repr(table.get(key))
        if first["type"] == "missing":
            about = KINDS[kind].model_fields[key].description
            raise ValueError(f"{where}: {key} is missing: {about}") from None
        raise ValueError(
            f"{where}: {key}: expected {expected(KINDS[kind], key)}, got {came:.80}"
        ) from None


EXPECTED = {
    "name": "small letters, digits and _, a letter first",
    "inputs": "a list of names of layers",
    "padding": "'valid', 'same' or a whole number from 0",
    "bias": "true or false",
    "approximate": "true or false",
    "epsilon": "a number above 0 and up to 1",
    "momentum": "a number from 0.0 to below 1",
    "alpha": "a number above 0",
    "amplitude": "a number above 0",
    "connections": "of each output channel, a list of input channels",
}


def expected(table: type[LayerTable], key: str) -> str:
    """What a setting may be, in words."""
    annotation = table.model_fields[key].annotation
    if key == "slope":
        low = "above 0" if table is Tanh else "from 0.0 to below 1"
        return f"a number {low}"
    if table is AveragePool and key == "padding":
        return "'valid' or 'same'"
    if key in EXPECTED:
        return EXPECTED[key]
    if annotation is not None and tuple in _origins(annotation):
        return "a whole number from 1, or two, [height, width]"
    return "a whole number" if table is Pad else "a whole number from 1"


def _origins(annotation: Any) -> set[Any]:
    parts = get_args(annotation)
    origin = getattr(annotation, "__origin__", annotation)
    return {origin}.union(*map(_origins, parts)) if parts else {origin}


def _th(place: int) -> str:
    tens, ones = place // 10 % 10, place % 10
    ending = "th" if tens == 1 else {1: "st", 2: "nd", 3: "rd"}.get(ones, "th")
    return f"{place}{ending}"


def plain(layers: Sequence[LayerTable]) -> list[dict[str, Any]]:
    """The tables as plain values."""
    return [x.model_dump(exclude_none=True) for x in layers]
