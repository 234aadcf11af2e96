"""Draws: the streams are a contract, held against a generator written here by hand."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from itertools import count, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from paripassu.core import draws
from paripassu.core.networks import ARTICLE, LENET5
from paripassu.core.recipe import Initializer, Recipe

WORD = 2**64 - 1
SIGMAS = 5


def philox(key: int, block: int) -> list[int]:
    """Philox4x64-10 as in Salmon et al. 2011, section 3.3, in plain integers."""
    low, high = key & WORD, key >> 64
    x0, x1, x2, x3 = (block >> 64 * i & WORD for i in range(4))
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * x0, 0xCA5A826395121157 * x2
        x0, x1, x2, x3 = b >> 64 ^ x1 ^ low, b & WORD, a >> 64 ^ x3 ^ high, a & WORD
        low = low + 0x9E3779B97F4A7C15 & WORD
        high = high + 0xBB67AE8584CAA73B & WORD
    return [x0, x1, x2, x3]


def stream(text: str) -> Iterator[int]:
    """The 64-bit numbers of `seed:purpose:index...`; NumPy counts blocks from 1."""
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")
    for block in count(1):
        yield from philox(key, block)


def words(text: str, size: int) -> list[int]:
    return list(islice(stream(text), size))


def test_the_generator_of_this_test_gives_the_known_answers():
    # Random123's file kat_vectors, "philox4x64 10".
    assert philox(0, 0) == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]
    assert philox(2**128 - 1, 2**256 - 1) == [
        0x87B092C3013FE90B,
        0x438C3C67BE8D0224,
        0x9CC7D7C69CD777B6,
        0xA09CAEBF594F0BA0,
    ]


# The contract: these numbers may never change, or no run could be repeated.

seeds = st.integers(0, 2**31 - 1)
purposes = st.text(st.characters(codec="utf-8"), max_size=10)
indices = st.lists(st.integers(0, 10**6), max_size=3)


def name(seed: int, purpose: str, index: list[int]) -> str:
    return ":".join(map(str, [seed, purpose, *index]))


@settings(max_examples=30)
@given(seeds, purposes, indices, st.integers(0, 9))
def test_uniform_is_the_documented_stream(seed, purpose, index, size):
    came = draws.uniform((size,), seed, purpose, *index)
    expected = [x // 2**11 / 2**53 for x in words(name(seed, purpose, index), size)]
    assert came.dtype == np.float64
    assert came.tolist() == expected


@settings(max_examples=30)
@given(seeds, purposes, indices, st.integers(0, 20))
def test_permutation_is_the_documented_stream(seed, purpose, index, size):
    came = draws.permutation(size, seed, purpose, *index)
    bits = words(name(seed, purpose, index), size)
    assert came.dtype == np.int64
    assert came.tolist() == sorted(range(size), key=bits.__getitem__)


@settings(max_examples=30)
@given(seeds, purposes, indices, st.integers(0, 20), st.integers(0, 65535))
def test_keep_mask_is_the_documented_stream(seed, purpose, index, size, threshold):
    came = draws.keep_mask((size,), threshold / 65536, seed, purpose, *index)
    bits = words(name(seed, purpose, index), -(-size // 4))
    sixteenths = [x >> 16 * i & 0xFFFF for x in bits for i in range(4)][:size]
    assert came.dtype == np.bool_
    assert came.tolist() == [x >= threshold for x in sixteenths]


def test_known_numbers():
    """The same contract in numbers, should somebody change both sides of it."""
    assert words("42:order:0", 2) == [5456285037666429593, 14035606092152513159]
    assert draws.permutation(8, 42, "order", 0).tolist() == [3, 6, 0, 5, 4, 2, 1, 7]
    kept = draws.keep_mask((8,), 0.5, 42, "mask")
    assert kept.astype(int).tolist() == [1, 1, 0, 1, 1, 0, 0, 1]


# Purity


def test_equal_arguments_give_equal_bytes_and_keep_no_state():
    first = draws.uniform((5, 7), 1, "x", 2).tobytes()
    np.random.seed(3)
    draws.uniform((100,), 1, "y")
    assert draws.uniform((5, 7), 1, "x", 2).tobytes() == first
    assert draws.uniform((35,), 1, "x", 2).tobytes() == first


def test_a_shorter_draw_begins_a_longer_one():
    whole = draws.uniform((100,), 1, "x")
    assert (draws.uniform((37,), 1, "x") == whole[:37]).all()


@pytest.mark.parametrize(
    "other",
    [(2, "x", 3), (1, "y", 3), (1, "x", 4), (1, "x"), (1, "x", 3, 0), (1, "x:", 3)],
    ids=str,
)
def test_another_seed_purpose_or_index_gives_another_draw(other):
    one = draws.uniform((1000,), 1, "x", 3)
    another = draws.uniform((1000,), *other)
    assert not (one == another).any()
    correlation = np.corrcoef(one, another)[0, 1]
    assert abs(correlation) < SIGMAS / math.sqrt(1000)


def test_empty_draws_are_empty():
    assert draws.uniform((0, 3), 1, "x").shape == (0, 3)
    assert draws.permutation(0, 1, "x").shape == (0,)
    assert draws.keep_mask((0,), 0.5, 1, "x").shape == (0,)
    assert draws.uniform((), 1, "x").shape == ()


# Distribution


@pytest.mark.parametrize("seed", [0, 42, 2**31 - 1])
def test_uniform_is_uniform(seed):
    numbers = draws.uniform((100_000,), seed, "uniform")
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers, "uniform").pvalue > 1e-6
    counts = np.bincount((numbers * 256).astype(int), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-6


def test_first_numbers_of_neighbouring_seeds_and_steps_are_uniform():
    by_seed = [draws.uniform((), seed, "x") for seed in range(3000)]
    by_step = [draws.uniform((), 42, "mask dropout1", 0, step) for step in range(3000)]
    assert stats.kstest(by_seed, "uniform").pvalue > 1e-6
    assert stats.kstest(by_step, "uniform").pvalue > 1e-6


def test_the_test_of_uniformity_can_fail():
    """Red: a draw that is a little off is seen at this size."""
    numbers = draws.uniform((100_000,), 0, "uniform")
    assert stats.kstest(numbers**1.05, "uniform").pvalue < 1e-6


@given(st.integers(0, 300), seeds)
def test_permutation_holds_every_number_once(size, seed):
    assert sorted(draws.permutation(size, seed, "order")) == list(range(size))


def test_every_permutation_is_equally_likely():
    orders = [tuple(draws.permutation(4, seed, "order")) for seed in range(4800)]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == math.factorial(4)
    assert stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.parametrize("rate", [0.01, 0.25, 0.5, 0.9])
def test_a_mask_drops_its_rate(rate):
    size = 1_000_000
    dropped = size - draws.keep_mask((size,), rate, 42, "mask").sum()
    assert abs(dropped - rate * size) < SIGMAS * math.sqrt(size * rate * (1 - rate))


def test_a_mask_resolves_its_rate_to_a_65536th():
    # 16 bits a number: among 2**20 numbers, each value comes about 16 times.
    kept = {
        k: draws.keep_mask((2**20,), k / 65536, 1, "x") for k in (0, 1, 2, 3, 65535)
    }
    assert kept[0].all()
    for k in (1, 2, 3):
        assert 0 < (kept[k - 1] & ~kept[k]).sum() < 60
        assert not (kept[k] & ~kept[k - 1]).any()
    assert 0 < kept[65535].sum() < 60
    # Any other rate is that of the nearest of these.
    almost = draws.keep_mask((2**20,), 2.4 / 65536, 1, "x")
    assert (almost == kept[2]).all()


# Initial weights

# By hand: fan in and fan out of each layer of the article's network.
FANS = {
    "conv1": (9, 288),  # 3 * 3 * 1, 3 * 3 * 32
    "conv2": (288, 576),  # 3 * 3 * 32, 3 * 3 * 64
    "dense1": (9216, 128),  # 12 * 12 * 64
    "dense2": (128, 10),
}
LIMITS = {
    "glorot_uniform": lambda fan_in, fan_out: math.sqrt(6 / (fan_in + fan_out)),
    "he_uniform": lambda fan_in, _fan_out: math.sqrt(6 / fan_in),
    "fan_in_uniform": lambda fan_in, _fan_out: 1 / math.sqrt(fan_in),
    "lecun_1998_uniform": lambda fan_in, _fan_out: 2.4 / fan_in,
}


def check_uniform_within(array: np.ndarray, limit: float) -> None:
    size = array.size
    assert np.abs(array).max() <= limit
    # The largest of n uniform numbers: P(all < 1 - 20/n) = exp(-20) or less.
    assert np.abs(array).max() >= limit * (1 - 20 / size)
    sigma = limit / math.sqrt(3)
    assert abs(array.mean()) < SIGMAS * sigma / math.sqrt(size)
    # Of the sample's deviation: the fourth moment of a uniform is 9/5 sigma**4.
    assert abs(array.std() / sigma - 1) < SIGMAS * math.sqrt(0.8 / size) / 2


@pytest.mark.parametrize("scheme", LIMITS)
def test_kernels_are_uniform_within_the_schemes_limit(scheme):
    recipe = Recipe(initializer=Initializer(kernel=scheme))
    weights = draws.initial_weights(ARTICLE, recipe)
    for layer, fans in FANS.items():
        check_uniform_within(weights[f"{layer}.kernel"], LIMITS[scheme](*fans))
        assert (weights[f"{layer}.bias"] == 0).all()


def test_biases_may_be_uniform_by_the_fan_in_of_their_layer():
    recipe = Recipe(initializer=Initializer(bias="fan_in_uniform"))
    weights = draws.initial_weights(ARTICLE, recipe)
    for layer, (fan_in, _fan_out) in FANS.items():
        bias = weights[f"{layer}.bias"]
        assert 0 < np.abs(bias).max() <= 1 / math.sqrt(fan_in)
    check_uniform_within(weights["dense1.bias"], 1 / 96)  # sqrt(9216) = 96


# LeCun et al. 1998, appendix A: within 2.4 over the fan in, by hand for its network.
# The third convolution of 25 pixels sees 3, 4 or all 6 maps: table I of the paper.
LENET5_LIMITS = {
    "conv1": 2.4 / 25,
    "subsample1": 2.4 / 4,
    "subsample2": 2.4 / 4,
    "conv3": 2.4 / 400,
    "dense1": 2.4 / 120,
    "dense2": 2.4 / 84,
}
TABLE_LIMITS = [2.4 / 75] * 6 + [2.4 / 100] * 9 + [2.4 / 150]
SEEN = [  # of each map of C3, which maps of S2 it sees
    *("012", "123", "234", "345", "045", "015"),
    *("0123", "1234", "2345", "0345", "0145", "0125", "0134", "1245", "0235"),
    "012345",
]


def test_weights_of_lenet5_are_within_those_of_the_paper():
    chosen = Initializer(kernel="lecun_1998_uniform", bias="lecun_1998_uniform")
    weights = draws.initial_weights(LENET5, Recipe(initializer=chosen))
    for layer, limit in LENET5_LIMITS.items():
        for part in ("kernel", "coefficient", "bias"):
            array = weights.get(f"{layer}.{part}")
            if array is not None:
                check_uniform_within(array, limit)
    # A bias has the fan in that its layer would have without the table.
    check_uniform_within(weights["conv2.bias"], 2.4 / 150)


@pytest.mark.parametrize(
    ("scheme", "limits"),
    [
        ("lecun_1998_uniform", TABLE_LIMITS),
        ("fan_in_uniform", [(limit / 2.4) ** 0.5 for limit in TABLE_LIMITS]),
        ("he_uniform", [(limit / 0.4) ** 0.5 for limit in TABLE_LIMITS]),
    ],
)
def test_a_table_gives_each_channel_its_own_limit_and_zeros(scheme, limits):
    recipe = Recipe(initializer=Initializer(kernel=scheme))
    kernel = draws.initial_weights(LENET5, recipe)["conv2.kernel"]
    assert kernel.shape == (5, 5, 6, 16)
    numbers = draws.uniform(kernel.shape, 42, "initial conv2.kernel")
    for channel, limit in enumerate(limits):
        seen = [int(digit) for digit in SEEN[channel]]
        others = [i for i in range(6) if i not in seen]
        assert not kernel[:, :, others, channel].any()
        check_uniform_within(kernel[:, :, seen, channel], limit)
        expected = limit * (2 * numbers[:, :, seen, channel] - 1)
        np.testing.assert_allclose(kernel[:, :, seen, channel], expected, rtol=1e-14)
    # Red: the limit of a channel that sees all is not that of one that sees three.
    with pytest.raises(AssertionError):
        check_uniform_within(kernel[:, :, [0, 1, 2], 0], limits[-1])
    with pytest.raises(AssertionError):
        check_uniform_within(kernel[:, :, :, 15], limits[0])


def test_zeros_are_zeros():
    recipe = Recipe(initializer=Initializer(kernel="zeros"))
    for array in draws.initial_weights(ARTICLE, recipe).values():
        assert (array == 0).all()


def test_the_article_starts_from_known_weights():
    weights = draws.initial_weights(ARTICLE, Recipe(seed=42))
    bits = np.array(words("42:initial conv1.kernel", 288), np.uint64)
    expected = math.sqrt(6 / 297) * (2 * ((bits >> 11) / 2**53) - 1)
    assert weights["conv1.kernel"].dtype == np.float64
    assert weights["conv1.kernel"].shape == (3, 3, 1, 32)
    np.testing.assert_allclose(
        weights["conv1.kernel"].ravel(), expected, rtol=0, atol=1e-15
    )


def test_each_array_has_its_own_numbers_and_each_seed_its_own_weights():
    recipe = Recipe(initializer=Initializer(bias="fan_in_uniform"))
    one = draws.initial_weights(ARTICLE, recipe)
    other = draws.initial_weights(ARTICLE, recipe.changed(seed=43))
    assert list(one) == [
        f"{layer}.{part}" for layer in FANS for part in ("kernel", "bias")
    ]
    numbers = {array.flat[0] / np.abs(array).max() for array in one.values()}
    assert len(numbers) == len(one)
    assert all((one[key] != other[key]).all() for key in one)


# Batches


def test_batches_cover_every_row_once_and_keep_the_short_last():
    recipe = Recipe(batch_size=64)
    batches = draws.batches(recipe, 1000, 0)
    assert [len(rows) for rows in batches] == [64] * 15 + [40]
    assert sorted(np.concatenate(batches)) == list(range(1000))
    assert all(rows.dtype == np.int64 for rows in batches)


@given(st.integers(1, 200), st.integers(1, 250), st.booleans(), st.integers(0, 9))
def test_batches_cover_every_row_once(count_, batch_size, shuffle, epoch):
    recipe = Recipe(batch_size=batch_size, shuffle=shuffle)
    batches = draws.batches(recipe, count_, epoch)
    assert len(batches) == math.ceil(count_ / batch_size)
    assert {len(rows) for rows in batches[:-1]} <= {batch_size}
    assert sorted(np.concatenate(batches)) == list(range(count_))


def test_unshuffled_batches_are_in_order_in_every_epoch():
    recipe = Recipe(batch_size=3, shuffle=False)
    for epoch in range(3):
        came = [rows.tolist() for rows in draws.batches(recipe, 7, epoch)]
        assert came == [[0, 1, 2], [3, 4, 5], [6]]


def test_every_epoch_and_seed_has_its_own_order():
    orders = [
        tuple(np.concatenate(draws.batches(Recipe(seed=seed), 100, epoch)))
        for seed in (0, 1)
        for epoch in range(5)
    ]
    assert len(set(orders)) == len(orders)


def test_batches_follow_the_stream_of_their_epoch():
    bits = words("42:order:3", 10)
    expected = sorted(range(10), key=bits.__getitem__)
    rows = np.concatenate(draws.batches(Recipe(seed=42, batch_size=4), 10, 3))
    assert rows.tolist() == expected


# Masks of dropout


def test_masks_have_the_shapes_of_the_architecture():
    masks = draws.dropout_masks(ARTICLE, Recipe(), 5, 0, 0)
    shapes = {layer: mask.shape for layer, mask in masks.items()}
    assert shapes == {"dropout1": (5, 12, 12, 64), "dropout2": (5, 128)}
    assert all(mask.dtype == np.bool_ for mask in masks.values())


def test_masks_drop_their_own_layers_rate():
    recipe = Recipe(dropout={"dropout1": 0.1, "dropout2": 0.8})
    masks = draws.dropout_masks(ARTICLE, recipe, 64, 0, 0)
    for layer, rate in recipe.dropout.items():
        mask = masks[layer]
        sigma = math.sqrt(rate * (1 - rate) / mask.size)
        assert abs((1 - mask.mean()) - rate) < SIGMAS * sigma


def test_masks_follow_the_stream_of_their_step():
    masks = draws.dropout_masks(ARTICLE, Recipe(seed=42), 2, 3, 11)
    bits = words("42:mask dropout2:3:11", 2 * 128 // 4)
    kept = [(x >> 16 * i & 0xFFFF) >= 32768 for x in bits for i in range(4)]
    assert masks["dropout2"].ravel().tolist() == kept


def test_every_step_and_epoch_has_its_own_masks():
    masks = [
        draws.dropout_masks(ARTICLE, Recipe(), 2, epoch, step)["dropout2"].tobytes()
        for epoch in range(3)
        for step in range(3)
    ]
    assert len(set(masks)) == len(masks)
