"""LeNet-5 in Flax, after LeCun et al. 1998, section II.B."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from paripassu.core.networks import LENET5_TABLE
from paripassu.frameworks.jax.lesson import flatten


def scaled_tanh(x: Any) -> Any:
    """1.7159 tanh(2/3 x), the paper's squashing function."""
    return 1.7159 * nnx.tanh(2 / 3 * x)


def pad(x: Any) -> Any:
    """Two zeros on each of the four sides."""
    return jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))


class Subsample(nnx.Module):  # type: ignore[misc]
    """Sums of 2x2 pixels, times a learned number and plus a learned number."""

    def __init__(self, channels: int) -> None:
        self.coefficient = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Any) -> Any:  # (N, h, w, c)
        """Half the height and width."""
        sums = 4 * nnx.avg_pool(x, (2, 2), (2, 2))
        return sums * self.coefficient[...] + self.bias[...]


def connections(inputs: int, size: int, table: Sequence[Sequence[int]]) -> Any:
    """Which weights of a kernel there are: 1, or 0 where nothing connects."""
    connected = np.zeros((size, size, inputs, len(table)), np.float32)
    for output, channels in enumerate(table):
        connected[:, :, list(channels), output] = 1
    return jnp.asarray(connected)


class Network(nnx.Module):  # type: ignore[misc]
    """60,000 parameters up to `tanh6`, and 850 of the output layer."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        conv = partial(nnx.Conv, kernel_size=(5, 5), padding="VALID", rngs=rngs)
        table = connections(6, 5, LENET5_TABLE)
        self.pad = pad  # (N, 32, 32, 1)
        self.conv1 = conv(1, 6)  # C1 (N, 28, 28, 6)
        self.tanh1 = scaled_tanh
        self.subsample1 = Subsample(6)  # S2 (N, 14, 14, 6)
        self.tanh2 = scaled_tanh
        self.conv2 = conv(6, 16, mask=nnx.data(table))  # C3 (N, 10, 10, 16)
        self.tanh3 = scaled_tanh
        self.subsample2 = Subsample(16)  # S4 (N, 5, 5, 16)
        self.tanh4 = scaled_tanh
        self.conv3 = conv(16, 120)  # C5 (N, 1, 1, 120)
        self.tanh5 = scaled_tanh
        self.flatten = flatten  # (N, 120)
        self.dense1 = nnx.Linear(120, 84, rngs=rngs)  # F6
        self.tanh6 = scaled_tanh
        self.dense2 = nnx.Linear(84, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:  # (N, 28, 28, 1)
        """From images to logits."""
        x = self.tanh1(self.conv1(self.pad(x)))
        x = self.tanh2(self.subsample1(x))
        x = self.tanh3(self.conv2(x))
        x = self.tanh4(self.subsample2(x))
        x = self.flatten(self.tanh5(self.conv3(x)))
        return self.dense2(self.tanh6(self.dense1(x)))  # (N, 10)
