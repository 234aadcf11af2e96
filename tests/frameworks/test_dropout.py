"""Dropout by bytes: chances, scale, gradient, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from helpers import FIRST_FAST, environment

PYTORCH = """
import torch
from torch import nn
from paripassu.frameworks.pytorch import recipes

layers = [nn.Dropout(rate) for rate in RATES]
recipes.drop_by_bytes(nn.Sequential(*layers))
taken = lambda layer: "forward" in vars(layer)
layer_of = getattr

def seed(number):
    torch.manual_seed(number)

def drop(layer, x, training=True, dtype="float32"):
    layer.train(training)
    return layer(torch.tensor(x, dtype=getattr(torch, dtype)))

def numbers(y):
    return y.double().numpy()

def gradient(layer, x, slope):
    x = torch.tensor(x).to(memory_format=torch.channels_last).requires_grad_()
    y = layer(x)
    y.backward(torch.full_like(y, slope))
    assert y.is_contiguous(memory_format=torch.channels_last)
    return y.detach().numpy(), x.grad.numpy()
"""

TENSORFLOW = """
import keras
import tensorflow as tf
from paripassu.frameworks.tensorflow import recipes

layers = [keras.layers.Dropout(rate) for rate in RATES]
network = keras.Sequential([keras.Input((8, 8, 8)), *layers])
recipes.drop_by_bytes(network)
taken = lambda layer: "call" in vars(layer)
layer_of = lambda network, name: network.get_layer(name)

def seed(number):
    for layer in layers:
        if layer.rate > 0:
            layer.seed_generator.state.assign([number, 0])

def drop(layer, x, training=True, dtype="float32"):
    return layer.call(tf.constant(x, dtype), training=training)

def numbers(y):
    return tf.cast(y, "float64").numpy()

def gradient(layer, x, slope):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.function(layer.call)(x, training=True)
    return y.numpy(), tape.gradient(y, x, tf.fill(y.shape, slope)).numpy()
"""

JAX = """
from types import SimpleNamespace
import jax
import jax.numpy as jnp
from flax import nnx
from paripassu.frameworks.jax import recipes

jax.config.update("jax_enable_x64", True)
layers = [nnx.Dropout(rate, rngs=nnx.Rngs(0)) for rate in RATES]
recipes.drop_by_bytes(SimpleNamespace(**{f"x{n}": x for n, x in enumerate(layers)}))
taken = lambda layer: type(layer) is recipes.ByteDropout
layer_of = getattr

def seed(number):
    for layer in layers:
        layer.rngs.key.set_value(jax.random.key(number))
        layer.rngs.count.set_value(jnp.uint32(0))

def drop(layer, x, training=True, dtype="float32"):
    layer.deterministic = not training
    return layer(jnp.asarray(x, dtype))

def numbers(y):
    return np.asarray(y, "float64")

def gradient(layer, x, slope):
    y, back = nnx.vjp(lambda layer, x: layer(x), layer, jnp.asarray(x), graph=False)
    return np.asarray(y), np.asarray(back(jnp.full_like(y, slope))[1])
"""

DRAWN = """
layer = layers[0]
seed(1)
found = {"ours": [rate for rate, x in zip(RATES, layers) if taken(x)]}
y, slope = gradient(layer, np.full((250, 8, 8, 8), 3.0, np.float32), 5.0)
found["values"], found["gradients"] = np.unique(y).tolist(), np.unique(slope).tolist()
found["same"] = bool(np.array_equal(y == 0, slope == 0))
ones = np.ones(640_000, np.float32)
found["shares"] = {
    rate: (numbers(drop(x, ones)) == 0).reshape(-1, 8).mean(0).tolist()
    for rate, x in zip(RATES[:4], layers)
}
zero = (numbers(drop(layer, ones)) == 0) - 0.25
found["neighbours"] = [
    float((zero[:-lag] * zero[lag:]).mean() / zero.var()) for lag in range(1, 17)
]
few = ones[:1001]
seed(7)
first = numbers(drop(layer, few))
seed(7)
again, next_one = (numbers(drop(layer, few)) for _ in "12")
found["seeded"] = bool((first == again).all() and not (first == next_one).all())
found["dtypes"] = [
    str(drop(layer, few, dtype=x).dtype) for x in ("float64", "bfloat16")
]
found["evaluating"] = all(
    bool((numbers(drop(x, few, training=False)) == 1).all()) for x in layers[:5]
)
found["trained"] = [taken(layer_of(made.network, name)) for name in recipe.dropout]
print(json.dumps(found))
"""
MADE = """
import json
import numpy as np
from paripassu.core import draws
from paripassu.core.recipe import Recipe
from paripassu.frameworks import registry

recipe = Recipe()
weights = draws.initial_weights(recipe.architecture, recipe)
made = registry.find(NAME).make_trainer(
    recipe, weights=weights, threads=1, device="cpu"
)
"""
CODE = {"pytorch": PYTORCH, "tensorflow": TENSORFLOW, "jax": JAX}
RATES = [0.25, 0.5, 1 / 256, 255 / 256, 0.1, 0.0]


@pytest.fixture(scope="module", params=FIRST_FAST)
def drawn(request):
    head = f"NAME, RATES = {request.param!r}, {RATES}\n{MADE}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", head + CODE[request.param] + DRAWN],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_only_rates_that_a_byte_can_have(drawn):
    assert drawn["ours"] == [0.25, 0.5, 1 / 256, 255 / 256]


def test_a_trainer_on_a_cpu_drops_so(drawn):
    assert drawn["trained"] == [True, True]


def test_each_place_in_a_word_has_the_chance(drawn):
    """Red: a draw of 63 bits, whose last byte is never above 127."""
    for rate, shares in drawn["shares"].items():
        chance = float(rate)
        error = np.sqrt(chance * (1 - chance) / 80_000)
        assert np.abs(np.array(shares) - chance).max() < 5 * error, rate


def test_numbers_are_dropped_independently(drawn):
    assert np.abs(drawn["neighbours"]).max() < 5 / np.sqrt(640_000)


def test_what_is_kept_is_scaled_and_has_the_gradient(drawn):
    assert drawn["values"] == [0, 4]
    assert drawn["gradients"] == pytest.approx([0, 20 / 3])
    assert drawn["same"]


def test_seed_number_type_and_evaluation_are_as_in_the_framework(drawn):
    assert drawn["seeded"]
    left, right = drawn["dtypes"]
    assert "float64" in left
    assert "bfloat16" in right
    assert drawn["evaluating"]
