"""Every random number that frameworks must share.

A draw is a pure function of (seed, purpose, index): nothing is kept between draws, so
a run goes on anywhere without a generator's state to restore. The bits come from the
counter-based generator Philox4x64-10 (Salmon et al. 2011), keyed with a BLAKE2 hash of
the arguments. Everything beyond its raw bits is computed here, because NumPy promises
that raw streams stay the same between versions but not what `Generator` makes of them.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core.networks import Network
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def _bits(count: int, seed: int, purpose: str, *index: int) -> npt.NDArray[np.uint64]:
    text = ":".join([str(seed), purpose, *map(str, index)])
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())
    return np.random.Philox(key=key).random_raw(count)


def uniform(shape: tuple[int, ...], seed: int, purpose: str, *index: int) -> Floats:
    """Float64 numbers in [0, 1), multiples of 2**-53."""
    bits = _bits(math.prod(shape), seed, purpose, *index)
    bits >>= np.uint64(11)  # in place, as below: a training's memory begins here
    numbers = bits.astype(np.float64)
    numbers *= 2.0**-53
    return numbers.reshape(shape)


def permutation(count: int, seed: int, purpose: str, *index: int) -> Indices:
    """The numbers 0..count-1 in random order, int64."""
    return np.argsort(_bits(count, seed, purpose, *index), kind="stable")


def keep_mask(
    shape: tuple[int, ...], rate: float, seed: int, purpose: str, *index: int
) -> Mask:
    """A mask that is False, "dropped", with probability `rate`.

    The rate is resolved to 1/65536, so that a mask costs 16 bits a number.
    """
    count = math.prod(shape)
    bits = _bits(-(-count // 4), seed, purpose, *index).astype("<u8", copy=False)
    return (bits.view("<u2")[:count] >= round(rate * 65536)).reshape(shape)


def words(
    shape: tuple[int, ...], seed: int, purpose: str, *index: int
) -> npt.NDArray[np.uint16]:
    """Whole numbers from 0 to 65,535, uint16."""
    count = math.prod(shape)
    bits = _bits(-(-count // 4), seed, purpose, *index).astype("<u8", copy=False)
    return bits.view("<u2")[:count].astype(np.uint16, copy=False).reshape(shape)


def initial_weights(network: Network, recipe: Recipe) -> Arrays:
    """The weights that a run starts from, canonical layout, float64.

    Sources: Glorot uniform, Glorot and Bengio 2010, as Keras has it; He uniform, He et
    al. 2015; fan-in uniform U(+-1/sqrt(fan_in)), what `torch.nn.Conv2d` and
    `torch.nn.Linear` draw for kernel and bias (PyTorch 2.13, as Kaiming uniform with
    a = sqrt(5)); LeCun et al. 1998, appendix A: U(+-2.4/fan_in). What a table of
    connections leaves out is 0. Norms begin as they all do: gamma and the running
    variance at 1, beta and the running mean at 0.
    """
    weights: Arrays = {}
    for weight in network.weights:
        if weight.starts_at is not None:
            weights[weight.name] = np.full(weight.shape, weight.starts_at)
            continue
        chosen = recipe.initializer
        scheme = chosen.bias if weight.is_bias else chosen.kernel
        fan_in = np.asarray(weight.fans_in)
        limit: Any = {
            "zeros": 0.0,
            "glorot_uniform": np.sqrt(6 / (fan_in + weight.fan_out)),
            "he_uniform": np.sqrt(6 / fan_in),
            "fan_in_uniform": np.sqrt(1 / fan_in),
            "lecun_1998_uniform": 2.4 / fan_in,
        }[scheme]
        numbers = uniform(weight.shape, recipe.seed, f"initial {weight.name}")
        numbers *= 2
        numbers -= 1
        numbers *= limit
        if weight.table:
            numbers *= weight.connected
        weights[weight.name] = numbers
    return weights


def batches(recipe: Recipe, count: int, epoch: int) -> list[Indices]:
    """The rows of each batch of one epoch (counted from 0); the last may be short."""
    rows = (
        permutation(count, recipe.seed, "order", epoch)
        if recipe.shuffle
        else np.arange(count, dtype=np.int64)
    )
    return [
        rows[start : start + recipe.batch_size]
        for start in range(0, count, recipe.batch_size)
    ]


def dropout_masks(
    network: Network, recipe: Recipe, size: int, epoch: int, step: int
) -> dict[str, Mask]:
    """For each dropout layer, what one batch of `size` images keeps: `(size, *shape)`.

    Axes are those of the architecture: height, width, channels.
    """
    masks = {}
    for layer in network.layers_of("dropout"):
        shape, rate = (size, *layer.output_shape), recipe.dropout[layer.name]
        purpose = f"mask {layer.name}"
        masks[layer.name] = keep_mask(shape, rate, recipe.seed, purpose, epoch, step)
    return masks
