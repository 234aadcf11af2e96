"""Layers that recipes train: forward by definition, backward by finite differences.

Kinds that only `check` computes are held against the frameworks' layers, in
`test_layers_beside_frameworks.py`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers import random, slopes

from paripassu.core import draws, networks
from paripassu.core.assembly import assemble
from paripassu.core.layer_spec import LayerSpec
from paripassu.core.layer_tables import read_layers
from paripassu.core.recipe import Recipe
from paripassu.reference import layers, twin
from paripassu.reference.losses import LOSSES, cross_entropy, softmax

Floats = npt.NDArray[np.float64]


def forward(kind: str, x: Floats, *weights: Floats, **settings: Any) -> Floats:
    return layers.FORWARD[kind](spec(kind, *weights, **settings), x)


def backward(
    kind: str, x: Floats, gradient: Floats, *weights: Floats, **settings: Any
) -> tuple[Floats, dict[str, Floats]]:
    layer = spec(kind, *weights, **settings)
    y = layers.FORWARD[kind](layer, x)
    return layers.BACKWARD[kind](layer, x, y, gradient)


def spec(kind: str, *weights: Floats, **settings: Any) -> LayerSpec:
    """A layer; its weights are named in the order of the table in `layer_spec`."""
    names = ("coefficient" if kind == "subsample" else "kernel", "bias")
    return LayerSpec(kind, settings, dict(zip(names, weights, strict=False)))


@pytest.mark.parametrize(
    ("image", "kernel"),
    [((4, 5, 2), (3, 3, 2, 3)), ((3, 3, 1), (3, 3, 1, 2)), ((5, 4, 3), (2, 1, 3, 1))],
)
def test_convolution_against_loops(image, kernel):
    x, k = random(2, *image), random(*kernel, seed=1)
    bias = random(kernel[-1], seed=2)
    y = forward("conv", x, k, bias)
    h, w, inputs, outputs = kernel
    expected = np.zeros((2, image[0] - h + 1, image[1] - w + 1, outputs))
    for n, p, q, o in np.ndindex(expected.shape):
        total = bias[o]
        for a, b, i in np.ndindex(h, w, inputs):
            total += x[n, p + a, q + b, i] * k[a, b, i, o]
        expected[n, p, q, o] = total
    assert y.shape == expected.shape
    assert np.abs(y - expected).max() < 1e-14  # at most 27 products below 1


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (4, 7), (2, 3)])
def test_max_pool_against_loops(size):
    x = random(2, *size, 3)
    y = forward("max_pool", x, size=(2, 2))
    expected = np.zeros((2, size[0] // 2, size[1] // 2, 3))
    for n, p, q, c in np.ndindex(expected.shape):
        expected[n, p, q, c] = max(
            x[n, 2 * p, 2 * q, c],
            x[n, 2 * p, 2 * q + 1, c],
            x[n, 2 * p + 1, 2 * q, c],
            x[n, 2 * p + 1, 2 * q + 1, c],
        )
    assert np.array_equal(y, expected)


@pytest.mark.parametrize(
    ("window", "first"),
    [
        ([[1, 1], [1, 1]], (0, 0)),
        ([[0, 1], [1, 1]], (0, 1)),
        ([[0, 0], [1, 1]], (1, 0)),
        ([[-2, -1], [-3, -1]], (0, 1)),
        ([[0, 0], [0, 1]], (1, 1)),
    ],
)
def test_max_pool_gives_the_gradient_to_the_first_of_equal_maxima(window, first):
    x = np.tile(np.array(window, float), (2, 1))[None, :, :, None]  # two windows
    gradient = np.array([3.0, 5.0]).reshape(1, 2, 1, 1)
    to_x, to_weights = backward("max_pool", x, gradient, size=(2, 2))
    expected = np.zeros((4, 2))
    expected[first] = 3.0
    expected[first[0] + 2, first[1]] = 5.0
    assert np.array_equal(to_x[0, :, :, 0], expected)
    assert to_weights == {}


def test_max_pool_gives_no_gradient_to_the_odd_row_and_column():
    x, gradient = random(1, 5, 3, 2), np.ones((1, 2, 1, 2))
    to_x, _ = backward("max_pool", x, gradient, size=(2, 2))
    assert to_x.shape == (1, 5, 3, 2)
    assert to_x.sum() == 4
    assert not to_x[:, 4].any()
    assert not to_x[:, :, 2].any()


def test_relu_and_its_slope_at_zero():
    x = np.array([-2.0, 0.0, 3.0])
    assert forward("relu", x).tolist() == [0, 0, 3]
    assert backward("relu", x, np.array([5.0, 5, 5]))[0].tolist() == [0, 0, 5]


def test_dropout_enlarges_what_it_keeps_forward_and_backward():
    x, mask = np.array([1.0, 2, 3, 4]), np.array([True, False, True, True])
    assert forward("dropout", x, mask=mask, rate=0.75).tolist() == [4, 0, 12, 16]
    to_x, _ = backward("dropout", x, x, mask=mask, rate=0.75)
    assert to_x.tolist() == [4, 0, 12, 16]
    assert np.array_equal(forward("dropout", x), x)  # off


def test_dropout_keeps_the_mean():
    x = np.ones(200_000)
    mask = draws.keep_mask(x.shape, 0.25, 0, "mean")
    y = forward("dropout", x, mask=mask, rate=0.25)
    assert abs(y.mean() - 1) < 5 * math.sqrt(0.25 / 0.75 / x.size)  # 5 deviations


def test_flatten_runs_through_height_width_channels():
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    y = forward("flatten", x)
    assert y[0, (1 * 3 + 2) * 4 + 3] == x[0, 1, 2, 3]
    assert np.array_equal(backward("flatten", x, y)[0], x)


def test_dense_by_hand():
    kernel = np.array([[1.0, 2], [3, 4], [5, 6]])
    y = forward("dense", np.array([[1.0, 0, -1]]), kernel, np.array([10.0, 20]))
    assert y.tolist() == [[6, 16]]


def test_padding_by_hand():
    x = np.array([[1.0, 2, 3], [4, 5, 6]]).reshape(1, 2, 3, 1)
    y = forward("pad", x, padding=((1, 1), (1, 1)))
    assert y[0, :, :, 0].tolist() == [
        [0, 0, 0, 0, 0],
        [0, 1, 2, 3, 0],
        [0, 4, 5, 6, 0],
        [0, 0, 0, 0, 0],
    ]
    gradient = np.arange(20.0).reshape(1, 4, 5, 1)
    to_x, to_weights = backward("pad", x, gradient, padding=((1, 1), (1, 1)))
    assert to_x[0, :, :, 0].tolist() == [[6, 7, 8], [11, 12, 13]]
    assert to_weights == {}
    wide = forward("pad", random(2, 5, 4, 3), padding=((2, 2), (2, 1)))
    assert wide.shape == (2, 9, 7, 3)


SQUASHING = dict(networks.LENET5.layers_of("tanh")[0].settings)


def test_tanh_is_the_papers_squashing_function():
    """LeCun et al. 1998, appendix A: f(1) = 1, f(-1) = -1, and at most 1.7159."""
    x = np.array([-1e3, -1.0, 0.0, 1.0, 1e3])
    y = forward("tanh", x, **SQUASHING)
    assert y == pytest.approx([-1.7159, -1, 0, 1, 1.7159], abs=1e-4)
    # tanh z = (exp(2 z) - 1) / (exp(2 z) + 1) at z = 2/3.
    e = math.exp(4 / 3)
    assert y[3] == pytest.approx(1.7159 * (e - 1) / (e + 1), rel=1e-15)
    slope, to_weights = backward("tanh", x, np.ones(5), **SQUASHING)
    assert slope[2] == pytest.approx(1.7159 * 2 / 3, rel=1e-15)
    assert slope[[0, 4]].tolist() == [0, 0]
    assert to_weights == {}
    # "The absolute value of the second derivative of f is a maximum at +1 and -1."
    points = np.linspace(0, 3, 601)
    slopes_there, _ = backward("tanh", points, np.ones(601), **SQUASHING)
    bends = np.abs(np.diff(slopes_there))
    assert points[bends.argmax()] == pytest.approx(1, abs=0.02)


def test_subsample_against_loops():
    x, coefficient, bias = random(2, 4, 6, 3), random(3, seed=1), random(3, seed=2)
    y = forward("subsample", x, coefficient, bias, size=(2, 2))
    expected = np.zeros((2, 2, 3, 3))
    for n, p, q, c in np.ndindex(expected.shape):
        total = sum(x[n, 2 * p + a, 2 * q + b, c] for a in (0, 1) for b in (0, 1))
        expected[n, p, q, c] = bias[c] + coefficient[c] * total
    assert y.shape == expected.shape
    assert np.abs(y - expected).max() < 1e-15


def test_softmax_in_closed_form():
    y = forward("softmax", np.array([[math.log(1), math.log(2), math.log(5)]]))
    assert y[0] == pytest.approx([1 / 8, 2 / 8, 5 / 8], rel=1e-15)
    x = 3 * random(4, 5)
    expected = np.zeros((4, 5))
    for n in range(4):
        whole = sum(math.exp(x[n, j]) for j in range(5))
        for k in range(5):
            expected[n, k] = math.exp(x[n, k]) / whole
    assert np.abs(softmax(x) - expected).max() < 1e-15
    # A constant for each image changes nothing, and nothing overflows.
    moved = softmax(x + 1000 * random(4, 1, seed=1))
    assert np.abs(moved - expected).max() < 1e-12
    huge = softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]]))
    assert huge.tolist() == [[1, 0], [0.5, 0.5]]


def test_softmax_gives_no_gradient_to_a_constant_of_all_classes():
    to_x, _ = backward("softmax", random(3, 4), np.ones((3, 4)))
    assert np.abs(to_x).max() < 1e-15  # the probabilities always add up to 1
    to_x, _ = backward("softmax", random(3, 4), random(3, 4, seed=1))
    assert np.abs(to_x.sum(axis=1)).max() < 1e-15
    assert np.abs(to_x).max() > 0.01


def test_a_table_leaves_connections_out_forward_and_backward():
    """A convolution of 1x1: each output sees the inputs that the table names."""
    table = ((0,), (1, 2), (0, 1, 2))
    conv = {"kind": "conv", "channels": 3, "kernel": 1, "connections": table}
    given = read_layers([conv, {"kind": "flatten"}], None)[0]
    whole = assemble("tabled", (2, 3, 3), given)
    network = replace(whole, layers=whole.layers[:1])
    kernel, bias = random(1, 1, 3, 3), random(3, seed=1)
    weights, x = {"conv1.kernel": kernel, "conv1.bias": bias}, random(2, 2, 3, 3)
    calls = twin.forward(network, Recipe(), weights, x, None)
    for output, seen in enumerate(table):
        expected = bias[output] + sum(x[..., i] * kernel[0, 0, i, output] for i in seen)
        assert np.abs(calls[0].y[..., output] - expected).max() < 1e-15
    gradient = random(2, 2, 3, 3, seed=2)
    found = twin.backward(calls, gradient)["conv1.kernel"]
    for i, output in np.ndindex(3, 3):
        expected = (
            (x[..., i] * gradient[..., output]).sum() if i in table[output] else 0
        )
        assert found[0, 0, i, output] == pytest.approx(expected, abs=1e-14)


def test_nothing_hides_a_nan():
    x = random(1, 4, 4, 1)
    x[0, 1, 1, 0] = np.nan
    mask, zeros = np.zeros(x.shape, np.bool_), np.zeros(1)
    for layer in (
        spec("pad", padding=((2, 2), (2, 2))),
        spec("tanh"),
        spec("subsample", zeros, zeros, size=(2, 2)),
        spec("softmax"),
        spec("relu"),
        spec("max_pool", size=(2, 2)),
        spec("dropout", mask=mask, rate=0.5),
        spec("conv", np.zeros((3, 3, 1, 1)), zeros),
    ):
        assert np.isnan(layers.FORWARD[layer.kind](layer, x)).any(), layer.kind
    for loss in LOSSES.values():
        assert np.isnan(loss(np.array([[np.nan, np.nan]]), np.array([1]))[0])
    assert np.isnan(cross_entropy(np.array([[np.nan, 0.0]]), np.array([1]))[0])


# Backward, by finite differences


def spaced(*shape: int) -> Floats:
    """Numbers in random order, 0.02 from each other and 0.01 from zero or more.

    So a step of 1e-4 changes neither the sign of one nor the largest of some.
    """
    count = math.prod(shape)
    levels = 0.02 * (np.arange(count) - count // 2) + 0.01
    return levels[draws.permutation(count, 0, "apart")].reshape(shape)


MASK = draws.keep_mask((3, 4), 0.4, 0, "differences")
# The kind, arrays that are moved (x and weights), and settings.
DIFFERENTIATED: dict[str, tuple[str, list[Floats], dict[str, Any]]] = {
    "conv": (
        "conv",
        [random(2, 5, 6, 2), random(3, 3, 2, 4, seed=1), random(4, seed=2)],
        {},
    ),
    "conv, oblong kernel": (
        "conv",
        [random(2, 4, 5, 3), random(1, 2, 3, 2, seed=1), random(2, seed=2)],
        {},
    ),
    "conv, all settings": (
        "conv",
        [random(2, 6, 5, 4), random(3, 2, 2, 6, seed=1)],
        {"strides": (2, 1), "dilation": (1, 2), "groups": 2, "padding": "same"},
    ),
    "dense": ("dense", [random(3, 5), random(5, 4, seed=1), random(4, seed=2)], {}),
    "dense of steps": ("dense", [random(2, 3, 5), random(5, 4, seed=1)], {}),
    "relu": ("relu", [spaced(2, 3, 3, 2)], {}),
    "max_pool": ("max_pool", [spaced(2, 4, 6, 3)], {"size": (2, 2)}),
    "max_pool, odd": ("max_pool", [spaced(2, 5, 3, 2)], {"size": (2, 2)}),
    "max_pool, overlapping": (
        "max_pool",
        [spaced(2, 5, 6, 2)],
        {"size": (3, 2), "strides": (2, 1), "padding": ((1, 1), (0, 0))},
    ),
    "dropout": ("dropout", [random(3, 4)], {"mask": MASK, "rate": 0.4}),
    "flatten": ("flatten", [random(2, 3, 2, 4)], {}),
    "pad": ("pad", [random(2, 3, 2, 4)], {"padding": ((2, 2), (1, 0))}),
    "tanh": ("tanh", [2 * random(2, 3, 2, 2)], SQUASHING),
    "subsample": (
        "subsample",
        [random(2, 4, 6, 3), random(3, seed=1), random(3, seed=2)],
        {"size": (2, 2)},
    ),
    "average_pool": (
        "average_pool",
        [random(2, 5, 6, 2)],
        {"size": (3, 2), "strides": (2, 1), "padding": "same", "count_padding": False},
    ),
    "global_average_pool": ("global_average_pool", [random(2, 3, 4, 2)], {}),
    "global_max_pool": ("global_max_pool", [spaced(2, 3, 4, 2)], {}),
    "leaky_relu": ("leaky_relu", [spaced(2, 3, 3, 2)], {"slope": 0.2}),
    "elu": ("elu", [spaced(2, 3, 3, 2)], {"alpha": 1.3}),
    "gelu": ("gelu", [random(2, 3, 4)], {}),
    "gelu, by a tanh": ("gelu", [random(2, 3, 4)], {"approximate": True}),
    "silu": ("silu", [random(2, 3, 4)], {}),
    "sigmoid": ("sigmoid", [random(2, 3, 4)], {}),
    "softplus": ("softplus", [random(2, 3, 4)], {}),
    "softmax": ("softmax", [3 * random(4, 5)], {}),
    "softmax, another axis": ("softmax", [3 * random(4, 5)], {"axis": 0}),
}
CURVED = ("tanh", "softmax", "elu", "gelu", "silu", "sigmoid", "softplus")
# Their gradients go through statistics: `test_graphs.py` has them in networks.
NORMS = {"batch_norm", "layer_norm", "group_norm"}


@pytest.mark.parametrize("case", DIFFERENTIATED)
def test_backward_of_every_layer_against_differences(case):
    kind, (x, *weights), settings = DIFFERENTIATED[case]
    layer = spec(kind, *weights, **settings)
    y = layers.FORWARD[kind](layer, x)
    gradient = random(*y.shape, seed=3)
    to_x, to_weights = layers.BACKWARD[kind](layer, x, y, gradient)

    def total() -> float:
        return float((layers.FORWARD[kind](layer, x) * gradient).sum())

    # The total is linear in each entry, so the difference has no error but rounding: a
    # total below 100, in float64, over 2e-4: about 1e-10. Where it is curved, also
    # h**2 / 6 times a third derivative of at most 2.
    h = 1e-5 if kind in CURVED else 1e-4
    assert to_weights.keys() == layer.weights.keys()
    for array, found in (
        (x, to_x),
        *((layer.weights[n], to_weights[n]) for n in to_weights),
    ):
        assert found.shape == array.shape
        assert np.abs(slopes(total, array, h) - found).max() < 1e-9


def test_every_kind_of_layer_is_differentiated():
    differentiated = {kind for kind, *_ in DIFFERENTIATED.values()}
    assert differentiated | NORMS == set(layers.BACKWARD)
    assert not differentiated & NORMS
