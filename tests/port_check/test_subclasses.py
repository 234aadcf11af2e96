"""Classes of users with a base of the framework, and weights that the base has not."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random

import paripassu

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
nn, L, ops = torch.nn, keras.layers, keras.ops

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = random(2, 5, 8).astype(np.float32)


class Adapted(nn.Linear):
    """A dense layer with a product of low rank beside it."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.down = nn.Parameter(torch.randn(2, inputs))
        self.up = nn.Parameter(torch.randn(outputs, 2))

    def forward(self, x):
        return super().forward(x) + 0.5 * x @ self.down.T @ self.up.T


class AdaptedDense(L.Dense):
    """The same in Keras; by how much the product counts."""

    def __init__(self, units, share=0.5, **more):
        super().__init__(units, **more)
        self.share = share

    def build(self, shape):
        super().build(shape)
        self.down = self.add_weight(shape=(shape[-1], 2), name="down")
        self.up = self.add_weight(shape=(2, self.units), name="up")

    def call(self, x):
        return super().call(x) + self.share * (x @ self.down @ self.up)

    def get_config(self):
        return super().get_config() | {"share": self.share}


class Placed(L.MultiHeadAttention):
    """An attention with a bias for each two places."""

    def build(self, query_shape, value_shape, key_shape=None):
        super().build(query_shape, value_shape, key_shape)
        shape = (self.num_heads, 5, 5)
        self.table = self.add_weight(name="table", shape=shape, initializer="normal")

    def _compute_attention(self, query, key, value, *_args, **_more):
        scores = ops.einsum("bqhd,bkhd->bhqk", query, key)
        scores = scores * self._inverse_sqrt_key_dim + self.table
        shares = ops.softmax(scores, axis=-1)
        return ops.einsum("bhqk,bkhd->bqhd", shares, value), shares


class WrittenOut(nn.Module):
    """The same attention, written out."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.places = nn.Parameter(torch.randn(2, 5, 5))
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        count, steps, _ = x.shape
        q, k, v = (
            layer(x).view(count, steps, 2, 4).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        shares = (q @ k.transpose(-1, -2) / 2 + self.places).softmax(-1)
        return self.last(self.o((shares @ v).transpose(1, 2).flatten(2)))


class Inside(nn.Linear):
    """A dense layer that has two others in it."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.down = nn.Linear(inputs, 2, bias=False)
        self.up = nn.Linear(2, outputs, bias=False)

    def forward(self, x):
        return super().forward(x) + 0.5 * self.up(self.down(x))


class InsideDense(L.Dense):
    """The same in Keras."""

    def __init__(self, units, **more):
        super().__init__(units, **more)
        self.down = L.Dense(2, use_bias=False, dtype=self.dtype_policy, name="down")
        self.up = L.Dense(units, use_bias=False, dtype=self.dtype_policy, name="up")

    def build(self, shape):
        super().build(shape)
        self.down.build(shape)
        self.up.build((*shape[:-1], 2))

    def call(self, x):
        return super().call(x) + 0.5 * self.up(self.down(x))


def written(share=0.5):
    given = keras.Input((5, 8))
    x = AdaptedDense(6, share, name="first")(given)
    return keras.Model(given, L.Dense(3, name="last")(ops.tanh(x)))


def placed():
    given = keras.Input((5, 8))
    attended = Placed(2, 4, name="attention")(given, given)
    return keras.Model(given, L.Dense(3, name="last")(attended))


@pytest.mark.parametrize("copy", ["left-to-right", "right-to-left"])
def test_weights_beside_those_of_the_base_are_paired_and_copied(copy):
    torch.manual_seed(0)
    left = nn.Sequential(Adapted(8, 6), nn.Tanh(), nn.Linear(6, 3))
    found = paripassu.check(left, written(), STEPS, copy=copy)
    assert found.equal, found.causes
    assert not [x for x in found.notes if "float32" in x]  # nor in its inputs
    pairs = {(x.left, x.right) for x in found.pairs}
    assert {("0.up", "first.up"), ("0.down", "first.down")} <= {
        (x, str(y).partition(".transpose")[0]) for x, y in pairs
    }
    wrong = paripassu.check(left, written(0.25), STEPS, copy=copy, gradients=False)
    assert wrong.verdict == "differs"
    assert {x.places[0] for x in wrong.causes} <= {("0", "first")}


def test_an_attention_with_a_bias_of_its_own():
    torch.manual_seed(0)
    left, right = WrittenOut(), placed()
    assert paripassu.check(left, right, STEPS, copy="left-to-right").equal
    table = right.get_layer("attention").table
    table.assign(np.asarray(table) + np.eye(5, dtype=np.float32))
    found = paripassu.check(left, right, STEPS, gradients=False)
    assert found.verdict == "differs"
    assert {x.phase for x in found.causes} == {"weights"}, found.causes


def test_layers_within_a_layer_of_the_framework():
    torch.manual_seed(0)
    left = nn.Sequential(Inside(8, 6), nn.Tanh(), nn.Linear(6, 3))
    given = keras.Input((5, 8))
    x = ops.tanh(InsideDense(6, name="first")(given))
    right = keras.Model(given, L.Dense(3, name="last")(x))
    found = paripassu.check(left, right, STEPS, copy="left-to-right")
    assert found.equal, found.causes
    assert all(x.left and x.right for x in found.pairs), found.pairs


class Box(L.Layer):
    """A layer of no base, with a weight of its own and a layer inside."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(4,), name="scale")
        self.dense = L.Dense(4)
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x) * self.scale


class Scaled(nn.Module):
    """The same in PyTorch."""

    def __init__(self):
        super().__init__()
        self.scale, self.dense = nn.Parameter(torch.randn(4)), nn.Linear(8, 4)

    def forward(self, x):
        return self.dense(x) * self.scale


def test_each_weight_of_a_layer_that_has_others_inside_is_one_block():
    torch.manual_seed(0)
    given = keras.Input((5, 8))
    right = keras.Model(given, Box(name="box")(given))
    found = paripassu.check(Scaled(), right, STEPS, copy="left-to-right")
    assert found.equal, found.causes
    pairs = {(x.left, x.right) for x in found.pairs}
    assert pairs == {("scale", "box.scale"), ("dense", "box.dense")}


class FrozenNorm(nn.Module):
    """A BatchNorm of numbers that are not trained, as in libraries of detection."""

    def __init__(self, count):
        super().__init__()
        torch.manual_seed(0)
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(count) + 0.5)

    def forward(self, x):
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_a_frozen_norm_of_buffers(epsilon):
    torch.manual_seed(1)
    left = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), FrozenNorm(4), nn.ReLU(), nn.Conv2d(4, 2, 3)
    )
    given = keras.Input((6, 6, 3))
    norm = L.BatchNormalization(epsilon=epsilon, name="norm")
    norm.trainable = False
    x = ops.relu(norm(L.Conv2D(4, 3, use_bias=False)(given)))
    right = keras.Model(given, L.Conv2D(2, 3)(x))
    images = random(2, 3, 6, 6).astype(np.float32)
    found = paripassu.check(left, right, images, copy="left-to-right")
    assert found.equal == (epsilon == 1e-5), found.causes
    causes = [(x.key, x.places) for x in found.causes]
    assert causes == ([] if found.equal else [("epsilon", (("1", "norm"),))])
