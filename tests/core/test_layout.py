"""Layouts: every move of axes held against explicit loops, and the hash of weights."""

from __future__ import annotations

import ast
import hashlib
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import paripassu
from paripassu.core.errors import UserError
from paripassu.core.layout import (
    check_weights,
    from_canonical,
    hash_weights,
    relayout,
    to_canonical,
)
from paripassu.core.networks import (
    ARTICLE,
    KERAS_EXAMPLE,
    LENET5,
    NETWORKS,
    Layer,
    Network,
    Weight,
)

PYTORCH = {
    "h w i o": "o i h w",
    "i o": "o i",
    "(h w c) o": "o (c h w)",
    "(h w c)": "(c h w)",
}
FRAMEWORKS = Path(paripassu.__file__).parent / "frameworks"


def some_weights(network: Network = ARTICLE, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {x.name: generator.normal(size=x.shape) for x in network.weights}


def small_network(h: int, w: int, c: int, i: int, o: int) -> Network:
    """Axes of every kind, in sizes that differ."""
    weights = (
        Weight("a.kernel", (h, w, i, c), "h w i o", {}, 1, 1),
        Weight("a.bias", (c,), "o", {}, 1, 1),
        Weight("b.kernel", (h * w * c, o), "(h w c) o", {"h": h, "w": w, "c": c}, 1, 1),
        Weight("c.kernel", (o, i), "i o", {}, 1, 1),
    )
    return Network("small", (h, w, i), i, (Layer("a", "dense", (i,), weights),))


sizes = st.integers(1, 4)
networks = st.builds(small_network, sizes, sizes, sizes, sizes, sizes)


# Index by index


@given(st.tuples(sizes, sizes, sizes, sizes))
def test_convolution_kernels(shape):
    h, w, i, o = shape
    kernel = np.random.default_rng(0).normal(size=shape)
    moved = relayout(kernel, "h w i o -> o i h w")
    assert moved.shape == (o, i, h, w)
    for y, x, a, b in itertools.product(range(h), range(w), range(i), range(o)):
        assert moved[b, a, y, x] == kernel[y, x, a, b]


@given(sizes, sizes)
def test_dense_kernels(i, o):
    kernel = np.random.default_rng(0).normal(size=(i, o))
    moved = relayout(kernel, "i o -> o i")
    assert all(moved[b, a] == kernel[a, b] for a in range(i) for b in range(o))


@given(sizes, sizes, sizes, sizes)
def test_the_first_dense_kernel_after_a_flatten(h, w, c, o):
    kernel = np.random.default_rng(0).normal(size=(h * w * c, o))
    moved = relayout(kernel, "(h w c) o -> o (c h w)", h=h, w=w, c=c)
    assert moved.shape == (o, c * h * w)
    for y, x, k, b in itertools.product(range(h), range(w), range(c), range(o)):
        row = (y * w + x) * c + k  # of an image stored (h, w, c)
        column = (k * h + y) * w + x  # of the same image stored (c, h, w)
        assert moved[b, column] == kernel[row, b]


def test_a_flattened_image_gives_the_same_in_both_layouts():
    """What the pattern is for: both frameworks compute the same units."""
    generator = np.random.default_rng(0)
    image = generator.integers(-9, 9, (12, 12, 64)).astype(float)  # sums are exact
    kernel = generator.integers(-9, 9, (9216, 128)).astype(float)
    moved = relayout(kernel, "(h w c) o -> o (c h w)", h=12, w=12, c=64)
    channels_first = image.transpose(2, 0, 1).ravel()
    assert (moved @ channels_first == image.ravel() @ kernel).all()
    # Red: a plain transpose has the same shape and is wrong.
    plain = relayout(kernel, "i o -> o i")
    assert plain.shape == moved.shape
    assert not (plain == moved).all()
    assert not (plain @ channels_first == image.ravel() @ kernel).any()


def test_all_of_the_article_for_pytorch():
    weights = some_weights()
    moved = from_canonical(ARTICLE, weights, PYTORCH)
    assert list(moved) == list(weights)
    for name in ("conv1.kernel", "conv2.kernel"):
        assert (moved[name] == weights[name].transpose(3, 2, 0, 1)).all()
    expected = weights["dense1.kernel"].reshape(12, 12, 64, 128).transpose(3, 2, 0, 1)
    assert (moved["dense1.kernel"] == expected.reshape(128, 9216)).all()
    assert not (moved["dense1.kernel"] == weights["dense1.kernel"].T).all()
    assert (moved["dense2.kernel"] == weights["dense2.kernel"].T).all()
    for name in ("conv1.bias", "conv2.bias", "dense1.bias", "dense2.bias"):
        assert (moved[name] == weights[name]).all()


def test_networks_of_the_book_for_pytorch():
    weights = some_weights(KERAS_EXAMPLE)
    kernel = weights["dense1.kernel"]
    moved = from_canonical(KERAS_EXAMPLE, weights, PYTORCH)["dense1.kernel"]
    expected = kernel.reshape(5, 5, 64, 10).transpose(3, 2, 0, 1).reshape(10, 1600)
    assert (moved == expected).all()
    assert not (moved == kernel.T).all()

    weights = some_weights(LENET5)
    moved = from_canonical(LENET5, weights, PYTORCH)
    for name in ("conv1.kernel", "conv2.kernel", "conv3.kernel"):
        assert (moved[name] == weights[name].transpose(3, 2, 0, 1)).all()
    # Maps of one pixel: there is nothing to exchange but the axes.
    for name in ("dense1.kernel", "dense2.kernel"):
        assert (moved[name] == weights[name].T).all()
    for name in weights:
        if not name.endswith(".kernel"):
            assert (moved[name] == weights[name]).all()


@pytest.mark.parametrize("network", NETWORKS.values(), ids=lambda x: x.name)
def test_every_network_there_and_back(network):
    weights = some_weights(network)
    for layouts in (PYTORCH, {}):
        moved = from_canonical(network, weights, layouts)
        back = to_canonical(network, moved, layouts)
        assert hash_weights(back) == hash_weights(weights)


def test_the_frameworks_declare_the_layouts_that_are_tested_here():
    assert layouts_of("pytorch") == PYTORCH
    assert layouts_of("tensorflow") == {}


def layouts_of(framework: str) -> dict[str, str]:
    text = (FRAMEWORKS / framework / "weights.py").read_text()
    (value,) = re.findall(r"^LAYOUTS[^=]* = (\{.*?\})", text, re.MULTILINE | re.DOTALL)
    return ast.literal_eval(value)


# There and back


@given(networks, st.integers(0, 99), st.sampled_from([PYTORCH, {}]))
def test_there_and_back_gives_the_same(network, seed, layouts):
    weights = some_weights(network, seed)
    back = to_canonical(network, from_canonical(network, weights, layouts), layouts)
    assert list(back) == list(weights)
    assert hash_weights(back) == hash_weights(weights)


@given(networks)
def test_results_are_new_contiguous_arrays(network):
    weights = some_weights(network)
    for layouts in (PYTORCH, {}):
        moved = from_canonical(network, weights, layouts)
        back = to_canonical(network, moved, layouts)
        for one, other in ((weights, moved), (moved, back), (weights, back)):
            for name in weights:
                assert not np.shares_memory(one[name], other[name])
                assert other[name].flags.c_contiguous
                assert other[name].flags.writeable


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "bool"])
def test_relayout_keeps_the_type(dtype):
    assert relayout(np.ones((2, 3), dtype), "i o -> o i").dtype == dtype


# Refusals


@pytest.mark.parametrize(
    ("shape", "pattern", "sizes_"),
    [
        ((2, 3, 4), "i o -> o i", {}),
        ((2, 3), "h w i o -> o i h w", {}),
        ((7, 3), "(h w c) o -> o (c h w)", {"h": 2, "w": 2, "c": 2}),
        ((8, 3), "(h w c) o -> o (c h w)", {"h": 2}),
    ],
)
def test_an_array_that_does_not_fit_the_pattern(shape, pattern, sizes_):
    with pytest.raises(UserError) as caught:
        relayout(np.zeros(shape), pattern, **sizes_)
    assert str(shape) in str(caught.value)
    assert pattern in str(caught.value)


def test_right_weights_are_accepted():
    check_weights(ARTICLE, some_weights())


def remove(weights):
    del weights["conv2.bias"]


def add(weights):
    weights["conv3.kernel"] = np.zeros(3)


def transpose(weights):
    weights["dense2.kernel"] = weights["dense2.kernel"].T


def flatten(weights):
    weights["conv1.kernel"] = weights["conv1.kernel"].ravel()


def put_nan(weights):
    weights["conv2.kernel"][2, 2, 31, 63] = np.nan


def put_infinity(weights):
    weights["dense1.bias"][127] = -np.inf


FAULTS = [
    (remove, ["lack", "conv2.bias"]),
    (add, ["conv3.kernel", "not in 'article'", "dense2.bias"]),
    (transpose, ["dense2.kernel", "(128, 10)", "(10, 128)"]),
    (flatten, ["conv1.kernel", "(3, 3, 1, 32)", "(288,)"]),
    (put_nan, ["conv2.kernel", "NaN"]),
    (put_infinity, ["dense1.bias", "infinity"]),
]


@pytest.mark.parametrize("function", [check_weights, from_canonical])
@pytest.mark.parametrize(("fault", "parts"), FAULTS)
def test_faulty_weights_are_refused_by_name(function, fault, parts):
    weights = some_weights()
    fault(weights)
    with pytest.raises(UserError) as caught:
        function(ARTICLE, weights, *([PYTORCH] if function is from_canonical else []))
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(("fault", "parts"), FAULTS[:2])
def test_a_framework_may_not_lose_or_add_weights(fault, parts):
    """The way out of a framework is where a port with another layer shows."""
    weights = from_canonical(ARTICLE, some_weights(), PYTORCH)
    fault(weights)
    with pytest.raises(UserError) as caught:
        to_canonical(ARTICLE, weights, PYTORCH)
    for part in parts:
        assert part in str(caught.value)


def test_a_frameworks_weights_of_a_wrong_shape_are_refused():
    weights = from_canonical(ARTICLE, some_weights(), PYTORCH)
    weights["dense1.kernel"] = weights["dense1.kernel"][:, 1:]
    with pytest.raises(UserError, match="9215"):
        to_canonical(ARTICLE, weights, PYTORCH)


# The hash


def test_hash_is_the_sha256_of_names_types_shapes_and_bytes():
    expected = hashlib.sha256(
        b"a <f4 (2,)"
        b"\x00\x00\x80?\x00\x00\x00@"  # 1.0 and 2.0
        b"b |u1 (1, 2)"
        b"\x03\x04"
    )
    weights = {"b": np.array([[3, 4]], np.uint8), "a": np.array([1, 2], np.float32)}
    assert hash_weights(weights) == expected.hexdigest()


def test_hash_depends_on_neither_order_nor_memory():
    weights = some_weights()
    expected = hash_weights(weights)
    assert hash_weights(dict(reversed(weights.items()))) == expected
    fortran = {name: np.asfortranarray(x) for name, x in weights.items()}
    assert hash_weights(fortran) == expected


words = arrays(np.uint32, array_shapes(max_dims=3, max_side=4))


@settings(max_examples=50)
@given(words, st.data())
def test_hash_changes_with_any_bit(array, data):
    flat = data.draw(st.integers(0, array.size - 1))
    bit = data.draw(st.integers(0, 31))
    other = array.copy()
    other.flat[flat] ^= np.uint32(1 << bit)
    one = {"a": array.view(np.float32), "b": np.ones(2)}
    changed = {"a": other.view(np.float32), "b": np.ones(2)}
    assert hash_weights(one) != hash_weights(changed)


def test_hash_changes_with_name_type_shape_and_sign():
    array = np.zeros((2, 3), np.float32)
    others = [
        {"a": array},
        {"b": array},
        {"a": array.astype(np.float64)},
        {"a": array.view(np.int32)},
        {"a": array.astype(">f4")},
        {"a": array.reshape(3, 2)},
        {"a": array.reshape(6)},
        {"a": -array},
        {"a": array, "b": array},
        {"a": array[:0]},
        {"a": np.zeros((), np.float32)},
        {"a": np.zeros((1,), np.float32)},
        {},
    ]
    assert len({hash_weights(weights) for weights in others}) == len(others)
