"""Networks of layers for tests: a zoo that has every kind, and random ones."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Table = dict[str, Any]


def _conv(channels: int, **more: Any) -> Table:
    return {"kind": "conv", "channels": channels, **more}


def _kinds(*names: str) -> list[Table]:
    return [{"kind": name} for name in names]


# As a newcomer writes it from the docs: two blocks, and a projection between them.
RESIDUAL: Table = {
    "name": "residual",
    "input_shape": [16, 16, 3],
    "layers": [
        _conv(8, padding="same", bias=False, name="stem"),
        *_kinds("batch_norm", "relu"),
        _conv(8, padding="same", bias=False),
        *_kinds("batch_norm", "relu"),
        _conv(8, padding="same", bias=False),
        *_kinds("batch_norm"),
        {"kind": "add", "inputs": ["relu1", "batch_norm3"]},
        *_kinds("relu"),
        _conv(12, padding="same", stride=2, bias=False, name="down"),
        *_kinds("batch_norm", "relu"),
        _conv(12, padding="same", bias=False),
        *_kinds("batch_norm"),
        _conv(12, kernel=1, stride=2, bias=False, name="shortcut", inputs=["relu3"]),
        *_kinds("batch_norm"),
        {"kind": "add", "inputs": ["batch_norm5", "batch_norm6"]},
        *_kinds("relu", "global_average_pool"),
        {"kind": "dropout", "rate": 0.25},
        {"kind": "dense", "units": 10},
    ],
}
# The others, in two: images of two sizes that no number of strides divides.
BRANCHES: Table = {
    "name": "branches",
    "input_shape": [13, 11, 3],
    "layers": [
        _conv(8, kernel=[3, 2], padding=1),
        {"kind": "leaky_relu", "slope": 0.1},
        {"kind": "max_pool", "size": 3, "stride": 2, "padding": "same"},
        _conv(8, groups=2, dilation=2, padding="same"),
        {"kind": "group_norm", "groups": 4},
        *_kinds("silu"),
        {"kind": "depthwise_conv", "padding": "same", "stride": 2},
        {"kind": "gelu", "approximate": True},
        {"kind": "max_pool", "size": 3, "stride": 2, "padding": 1, "inputs": ["silu1"]},
        {"kind": "elu", "alpha": 0.7},
        {"kind": "concatenate", "inputs": ["gelu1", "elu1"]},
        *_kinds("layer_norm", "silu"),
        {"kind": "average_pool", "size": 2, "stride": 1, "padding": "same"},
        _conv(6, kernel=2, bias=False),
        *_kinds("batch_norm", "tanh", "flatten", "layer_norm", "relu"),
        {"kind": "dense", "units": 9, "bias": False},
        *_kinds("batch_norm", "softplus"),
        {"kind": "dropout", "rate": 0.5},
        {"kind": "dense", "units": 5},
    ],
}
HEADS: Table = {
    "name": "heads",
    "input_shape": [12, 12, 1],
    "layers": [
        {"kind": "pad", "size": 2},
        _conv(
            6,
            kernel=3,
            stride=2,
            padding="same",
            name="mixed",
        ),
        {"kind": "tanh", "amplitude": 1.7159, "slope": 2 / 3},
        _conv(4, connections=[[0, 1], [2, 3, 4], [5], [0, 5]], padding="same"),
        *_kinds("gelu"),
        *_kinds("subsample"),
        *_kinds("sigmoid"),
        {"kind": "depthwise_conv", "kernel": 2, "multiplier": 2, "bias": False},
        {"kind": "average_pool", "size": 2, "stride": 1},
        {"kind": "group_norm", "groups": 1},
        {"kind": "global_max_pool", "name": "largest"},
        {"kind": "global_average_pool", "inputs": ["group_norm1"], "name": "mean"},
        {"kind": "concatenate", "inputs": ["largest", "mean"]},
        {"kind": "group_norm", "groups": 2},
        {"kind": "dense", "units": 4},
    ],
}
ZOO = {x["name"]: x for x in (RESIDUAL, BRANCHES, HEADS)}

_SIZES = st.integers(1, 3)
_PAIRS = _SIZES | st.lists(_SIZES, min_size=2, max_size=2)
_ELEMENTWISE = ("relu", "elu", "gelu", "silu", "tanh", "sigmoid", "softplus")


@st.composite
def networks(draw: st.DrawFn) -> Table:
    """A recipe of a few layers in random order and of random settings, that fit."""
    channels = 2  # always even, so that two groups can share them
    layers: list[Table] = []

    def put(kind: str, **settings: Any) -> None:
        layers.append({"kind": kind, "name": f"l{len(layers)}", **settings})

    for _ in range(draw(st.integers(0, 5))):
        what = draw(
            st.sampled_from(("conv", "depthwise", "pool", "norm", "act", "join"))
        )
        padding = draw(st.sampled_from(("same", "same", 1)))
        if what == "conv":
            out = draw(st.sampled_from((2, 4)))
            groups = draw(st.sampled_from((1, 2)))
            strides = draw(st.sampled_from(({}, {"stride": 2}, {"dilation": 2})))
            put(
                "conv",
                channels=out,
                kernel=draw(_PAIRS),
                padding="same",
                groups=groups,
                **strides,
            )
            channels = out
        elif what == "depthwise":
            many = draw(st.sampled_from((1, 1, 2))) if channels < 8 else 1
            put("depthwise_conv", kernel=draw(_PAIRS), padding="same", multiplier=many)
            channels *= many
        elif what == "pool":
            kind = draw(st.sampled_from(("max_pool", "average_pool")))
            padding = padding if kind == "max_pool" else "same"
            put(kind, size=draw(st.integers(2, 3)), stride=2, padding=padding)
        elif what == "norm":
            kind = draw(st.sampled_from(("batch_norm", "layer_norm", "group_norm")))
            put("relu")  # so that no bias before it is for nothing
            if kind == "group_norm":
                put(kind, groups=1)
            else:
                put(kind, epsilon=draw(st.sampled_from((1e-3, 1e-5))))
        elif what == "act":
            put(draw(st.sampled_from(_ELEMENTWISE)))
        elif layers:
            before = layers[-1]["name"]
            put("relu")
            put(draw(st.sampled_from(("add", "concatenate"))), inputs=[before, "?"])
            layers[-1]["inputs"][1] = layers[-2]["name"]
            if layers[-1]["kind"] == "concatenate":
                channels *= 2
    put(draw(st.sampled_from(("flatten", "global_average_pool", "global_max_pool"))))
    if draw(st.booleans()):
        put("dropout", rate=0.5)
    put("dense", units=draw(st.integers(2, 4)), bias=draw(st.booleans()))
    size = st.integers(7, 9)
    return {
        "input_shape": [draw(size), draw(size), 2],
        "layers": layers,
        "precision": "float64",
    }
