"""Pools by slices: the values and gradients of Flax's own, among equal values too."""

from __future__ import annotations

import json
import subprocess
import sys

from helpers import environment

PROGRAM = """
import json
import jax
import jax.numpy as jnp
import numpy as np
from paripassu.frameworks.jax import layers, lesson, recipes

rng = np.random.default_rng(0)
found = []
for shape in ((2, 6, 6, 3), (2, 7, 5, 3), (1, 24, 24, 4), (3, 2, 9, 1), (1, 1, 4, 2)):
    for values in (1, 3, 1000):
        x = jnp.asarray(rng.integers(-values, values, shape), "float32")
        y, back = jax.vjp(lesson.max_pool, x)
        z, other = jax.vjp(recipes.max_pool, x)
        slope = jnp.asarray(rng.normal(size=y.shape), "float32")
        same = np.array_equal(back(slope)[0], other(slope)[0])
        found.append([np.array_equal(y, z), same])
square = {"size": (2, 2)}
kinds = {
    "plain": square,
    "same": {**square, "strides": (2, 2)},
    "close": {**square, "strides": (1, 1)},
    "large": {"size": (3, 3), "strides": (2, 2)},
    "padded": {**square, "padding": ((1, 0), (0, 0))},
}
network = type("Network", (), {})()
network.pool, network.other = lesson.max_pool, len
for name, settings in kinds.items():
    made = layers.function("max_pool", tuple(sorted(settings.items())))
    setattr(network, name, made)
mean = layers.function("average_pool", tuple(square.items()))
network.mean = mean
said = recipes.pool_by_slices(network)
found.append([said, not recipes.pool_by_slices(type("Empty", (), {})())])
found.append([network.pool is recipes.max_pool, network.other is len])
found.append([network.mean is mean])
for name in kinds:
    changed = getattr(network, name) is recipes.max_pool
    found.append([changed == (name in ("plain", "same"))])
print(json.dumps(found))
"""


def test_pools_by_slices_are_pools():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert len(found) == 23
    assert all(all(x) for x in found), found
