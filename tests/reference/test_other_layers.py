"""Layers that `check` computes and no recipe trains, by definition, in no framework.

`test_layers_beside_frameworks.py` holds them against the frameworks' own.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import random

from paripassu.core.layer_spec import LayerSpec, UnknownLayerError
from paripassu.reference import layers


def forward(kind: str, *inputs: Any, weights: Any = None, **settings: Any) -> Any:
    layer = LayerSpec(kind, settings, weights or {})
    return layers.apply(layer, [np.asarray(x) for x in inputs])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


def elu(x: float, alpha: float, beta: float) -> float:
    return x if x > 0 else alpha * (math.exp(x / beta) - 1)


def hard_sigmoid(x: float) -> float:
    return min(max(x + 3, 0), 6) / 6


def gelu(x: float) -> float:
    return x * statistics.NormalDist().cdf(x)


# arXiv:1706.02515, section 2
SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772
POINTS = np.array([-7.0, -2.5, -0.3, 0.0, 0.2, 1.5, 6.5])
SCALARS: dict[str, tuple[dict[str, float], Callable[[float], float]]] = {
    "identity": ({}, lambda x: x),
    "cast": ({}, lambda x: x),
    "relu6": ({}, lambda x: min(max(x, 0), 6)),
    "leaky_relu": ({"slope": 0.1}, lambda x: x if x > 0 else 0.1 * x),
    "elu": ({"alpha": 0.7}, lambda x: elu(x, 0.7, 1)),
    "celu": ({"alpha": 0.7}, lambda x: elu(x, 0.7, 0.7)),
    "selu": ({}, lambda x: SCALE * elu(x, ALPHA, 1)),
    "gelu": ({}, gelu),
    "silu": ({}, lambda x: x * sigmoid(x)),
    "sigmoid": ({}, sigmoid),
    "hard_sigmoid": ({}, hard_sigmoid),
    "hard_swish": ({}, lambda x: x * hard_sigmoid(x)),
    "softplus": ({}, softplus),
    "mish": ({}, lambda x: x * math.tanh(softplus(x))),
    "scale": ({"factor": 3.0, "offset": -1.0}, lambda x: 3 * x - 1),
}


@pytest.mark.parametrize("kind", SCALARS)
def test_a_function_of_one_number(kind):
    settings, function = SCALARS[kind]
    expected = [function(x) for x in POINTS]
    assert forward(kind, POINTS, **settings) == pytest.approx(expected, abs=1e-14)


def test_the_other_gelu_is_near_and_not_the_same():
    gaps = np.abs(forward("gelu", POINTS, approximate=True) - forward("gelu", POINTS))
    assert 1e-5 < gaps.max() < 1e-3


def test_prelu_has_a_slope_for_each_channel():
    slopes = {"slope": np.array([0.5, 0.25])}
    found = forward("prelu", [[-4.0, -4.0], [1.0, 2.0]], weights=slopes)
    assert found.tolist() == [[-2, -1], [1, 2]]


def test_log_softmax_in_closed_form():
    found = forward("log_softmax", np.log([[1.0, 2.0, 5.0]]))
    assert found[0] == pytest.approx(np.log([1 / 8, 2 / 8, 5 / 8]), rel=1e-14)


ONE, TWO = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0], [7.0, 8.0]])
SEVERAL: dict[str, tuple[list[Any], dict[str, Any], Any]] = {
    "add": ([ONE, TWO, TWO], {}, [[11, 14], [17, 20]]),
    "multiply": ([ONE, TWO], {}, [[5, 12], [21, 32]]),
    "subtract": ([ONE, TWO], {}, [[-4, -4], [-4, -4]]),
    "concatenate": ([ONE, TWO], {"axis": 0}, [[1, 2], [3, 4], [5, 6], [7, 8]]),
    "mean": ([ONE], {"axis": [1]}, [1.5, 3.5]),
    "sum": ([ONE], {"axis": 0}, [4, 6]),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_arithmetic(kind):
    inputs, settings, expected = SEVERAL[kind]
    assert forward(kind, *inputs, **settings).tolist() == expected


def test_an_embedding_looks_rows_up():
    table = {"table": random(5, 3)}
    found = forward("embedding", [[4, 0]], weights=table)
    assert np.array_equal(found[0], table["table"][[4, 0]])


def normal(values: Any, epsilon: float, mean: float | None = None) -> list[float]:
    """Of a flat list, by the statistics of the standard library."""
    values = [float(x) for x in np.ravel(values)]
    middle = statistics.fmean(values) if mean is None else mean
    spread = statistics.fmean((x - middle) ** 2 for x in values)
    return [(x - middle) / math.sqrt(spread + epsilon) for x in values]


def test_norms_by_definition():
    x, epsilon = random(2, 3, 3, 4), 0.1
    weights = {"gamma": random(4, seed=1), "beta": random(4, seed=2)}

    def scaled(each: Any) -> Any:
        return np.reshape(each, x.shape) * weights["gamma"] + weights["beta"]

    rows = x.reshape(-1, 4)
    by_channel = np.array([normal(rows[:, c], epsilon) for c in range(4)]).T
    found = forward("batch_norm", x, weights=weights, epsilon=epsilon)
    assert found == pytest.approx(scaled(by_channel), abs=1e-13)
    found = forward("layer_norm", x, weights=weights, epsilon=epsilon)
    expected = scaled([normal(row, epsilon) for row in rows])
    assert found == pytest.approx(expected, abs=1e-13)
    found = forward("rms_norm", x, weights={"gamma": weights["gamma"]}, epsilon=epsilon)
    expected = scaled([normal(row, epsilon, mean=0) for row in rows]) - weights["beta"]
    assert found == pytest.approx(expected, abs=1e-13)
    grouped = np.empty_like(x)
    for n in range(2):
        for part in (slice(0, 2), slice(2, 4)):
            own = x[n, ..., part]
            grouped[n, ..., part] = np.reshape(normal(own, epsilon), own.shape)
    found = forward("group_norm", x, weights=weights, epsilon=epsilon, groups=2)
    assert found == pytest.approx(scaled(grouped), abs=1e-13)


def test_batch_norm_by_the_statistics_that_are_kept():
    weights = {"mean": np.array([1.0, 2.0]), "variance": np.array([3.0, 8.0])}
    found = forward("batch_norm", [[3.0, 5.0]], weights=weights, epsilon=1.0)
    assert found.tolist() == [[1, 1]]


def test_attention_against_loops():
    heads, width, steps = 2, 3, 4
    names = ("query", "key", "value")
    weights = {name: random(5, heads * width, seed=i) for i, name in enumerate(names)}
    weights |= {
        f"{n}_bias": random(heads * width, seed=9 + i) for i, n in enumerate(names)
    }
    weights["output"] = random(heads * width, 6, seed=7)
    x, scale = random(1, steps, 5, seed=8), 0.3
    for causal in (False, True):
        q, k, v = (x[0] @ weights[n] + weights[f"{n}_bias"] for n in names)
        joined = np.zeros((steps, heads * width))
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            for t in range(steps):
                seen = range(t + 1 if causal else steps)
                shares = [math.exp(scale * (q[t, own] @ k[s, own])) for s in seen]
                for s, share in zip(seen, shares, strict=True):
                    joined[t, own] += share / sum(shares) * v[s, own]
        settings = {"heads": heads, "scale": scale, "causal": causal}
        found = forward("attention", x, weights=weights, **settings)
        assert found[0] == pytest.approx(joined @ weights["output"], abs=1e-13)


def test_recurrent_layers_of_one_unit():
    """One input, one unit, numbers: the equations of the papers, step by step."""
    xs = [0.5, -1.0, 2.0]
    x = np.array(xs).reshape(1, 3, 1)
    weights = {"kernel": random(1, 4), "recurrent": random(1, 4, seed=1)}
    weights["bias"] = random(4, seed=2)
    (w,), (u,), b = weights["kernel"], weights["recurrent"], weights["bias"]
    hidden = cell = 0.0
    for given in xs:
        i, f, g, o = w * given + u * hidden + b
        cell = sigmoid(f) * cell + sigmoid(i) * math.tanh(g)
        hidden = sigmoid(o) * math.tanh(cell)
    found = forward("lstm", x, weights=weights)
    assert found[0, -1, 0] == pytest.approx(hidden, rel=1e-14)

    (w,), (u,), b = w[None, :3], u[None, :3], b[:3]
    second = random(3, seed=3)
    weights = {"kernel": w[None], "recurrent": u[None], "input_bias": b}
    weights["recurrent_bias"] = second
    for after in (True, False):
        hidden = 0.0
        for given in xs:
            r, z, n = w * given + b
            r = sigmoid(r + u[0] * hidden + second[0])
            z = sigmoid(z + u[1] * hidden + second[1])
            if after:
                n = math.tanh(n + r * (u[2] * hidden + second[2]))
            else:
                n = math.tanh(n + u[2] * (r * hidden) + second[2])
            hidden = z * hidden + (1 - z) * n
        found = forward("gru", x, weights=weights, reset_after=after, last=True)
        assert found[0, 0] == pytest.approx(hidden, rel=1e-14)

    weights = {"kernel": w[None, :1], "recurrent": u[None, :1], "bias": b[:1]}
    hidden = 0.0
    for given in reversed(xs):
        hidden = max(w[0] * given + u[0] * hidden + b[0], 0)
    settings = {"reverse": True, "activation": "relu"}
    found = forward("rnn", x, weights=weights, **settings)
    assert found[0, 0, 0] == pytest.approx(hidden, rel=1e-14)


def test_a_transposed_convolution_is_the_gradient_of_a_convolution():
    kernel = random(3, 2, 2, 6)  # from 3 of 6 channels to 2 of 4, in either group
    settings = {"strides": (2, 1), "dilation": (1, 2), "groups": 2}
    y = random(2, 3, 4, 6, seed=1)
    conv = LayerSpec("conv", settings, {"kernel": kernel})
    x = np.zeros((2, 7, 6, 4))
    expected, _ = layers.BACKWARD["conv"](conv, x, y, y)
    # Its kernel has the channels that are put in first, and those of one group last.
    turned = {"kernel": kernel.swapaxes(2, 3)}
    found = forward("conv_transpose", y, weights=turned, **settings)
    assert found == pytest.approx(expected, abs=1e-13)
    cut = forward(
        "conv_transpose", y, weights=turned, crop=((1, 2), (0, -1)), **settings
    )
    assert np.array_equal(cut[:, :, :6], found[:, 1:5])
    assert not cut[:, :, 6].any()


def test_average_pools_by_hand():
    x = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]).reshape(1, 3, 3, 1)

    def pooled(**settings: Any) -> Any:
        return forward("average_pool", x, size=(2, 2), **settings)[0, :, :, 0].tolist()

    assert pooled(strides=(1, 1)) == [[3, 4], [6, 7]]
    assert pooled() == [[3]]
    frame = ((1, 0), (1, 0))
    assert pooled(padding=frame) == [[1 / 4, 5 / 4], [11 / 4, 7]]
    assert pooled(padding=frame, count_padding=False) == [[1, 2.5], [5.5, 7]]
    assert pooled(ceil=True) == [[3, 4.5], [7.5, 9]]
    assert forward("global_average_pool", x).tolist() == [[5]]
    assert forward("global_max_pool", x, keepdims=True).tolist() == [[[[9]]]]


def test_a_window_far_larger_than_the_image_costs_nothing():
    """As EfficientNet's last pool has it: 1,280 x 1,280, over an image of 2 x 3."""
    x = np.arange(6.0).reshape(1, 2, 3, 1)
    size = {"size": (20_000, 20_000), "ceil": True}
    assert forward("average_pool", x, **size).tolist() == [[[[2.5]]]]
    assert forward("max_pool", x, **size).tolist() == [[[[5.0]]]]


def test_sizes_by_hand():
    x = np.array([1.0, 2, 4]).reshape(1, 3, 1)

    def resized(mode: str, **settings: Any) -> Any:
        return forward("upsample", x, factor=(2,), mode=mode, **settings)[0, :, 0]

    assert resized("nearest").tolist() == [1, 1, 2, 2, 4, 4]
    assert resized("bilinear").tolist() == [1, 1.25, 1.75, 2.5, 3.5, 4]
    corners = resized("bilinear", align_corners=True)
    assert corners == pytest.approx([1, 1.4, 1.8, 2.4, 3.2, 4])
    assert forward("crop", x, crop=((1, 0),))[0, :, 0].tolist() == [2, 4]
    for mode, expected in {
        "reflect": [2, 1, 2, 4, 2],
        "replicate": [1, 1, 2, 4, 4],
        "circular": [4, 1, 2, 4, 1],
        "symmetric": [1, 1, 2, 4, 4],
    }.items():
        padded = forward("pad", x, padding=((1, 1),), padding_mode=mode)
        assert padded[0, :, 0].tolist() == expected


def test_every_kind_is_tested():
    by_name = {
        *("prelu", "log_softmax", "embedding", "attention", "conv_transpose"),
        *("batch_norm", "layer_norm", "rms_norm", "group_norm", "lstm", "gru", "rnn"),
        *("average_pool", "global_average_pool", "global_max_pool", "upsample", "crop"),
    }
    here = {*SCALARS, *SEVERAL, *by_name}
    assert here | layers.BACKWARD.keys() == layers.FORWARD.keys()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("unheard of", {}),
        ("pad", {"padding": ((1, 1),), "padding_mode": "unheard of"}),
        ("upsample", {"factor": (2,), "mode": "unheard of"}),
        ("batch_norm", {"axis": 1, "epsilon": 0.1}),
    ],
)
def test_what_is_not_computed_is_said(kind, settings):
    with pytest.raises(UnknownLayerError, match=r"unheard of|another axis"):
        forward(kind, np.ones((1, 3, 1)), **settings)
