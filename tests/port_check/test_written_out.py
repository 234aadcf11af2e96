"""Attentions, norms, activations and dense layers that one model writes out."""

from __future__ import annotations

import numpy as np
import pytest

import paripassu

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
nn, L, ops = torch.nn, keras.layers, keras.ops
F = nn.functional

pytestmark = pytest.mark.usefixtures("one_thread")
GIVEN = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)


class Block(nn.Module):
    """Attention by PyTorch's function, and a feed-forward part; two residuals."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.norm, self.inner, self.outer = (
            nn.LayerNorm(8),
            nn.Linear(8, 6),
            nn.Linear(6, 8),
        )
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)
        nn.init.normal_(self.norm.bias)

    def forward(self, x):
        products = self.query(x), self.key(x), self.value(x)
        q, k, v = (y.view(len(x), 5, 4, 2).transpose(1, 2) for y in products)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        y = self.inner(self.norm(x))
        y = 0.5 * y * (1 + torch.tanh((2 / np.pi) ** 0.5 * (y + 0.044715 * y**3)))
        return x + self.outer(y)


class OwnNorm(L.Layer):
    """A norm of the last axis, with gamma and beta of its own."""

    def __init__(self, axis=-1, epsilon=1e-5, less=0):
        super().__init__()
        self.settings = axis, epsilon, less

    def build(self, shape):
        self.g = self.add_weight(shape=(shape[-1],), initializer="ones", name="g")
        self.b = self.add_weight(shape=(shape[-1],), initializer="zeros", name="b")

    def call(self, x):
        axis, epsilon, less = self.settings
        centre = x - ops.mean(x, axis, keepdims=True)
        variance = ops.mean(centre * centre, axis, keepdims=True)
        variance = variance * x.shape[-1] / (x.shape[-1] - less)
        return centre / ops.sqrt(variance + epsilon) * self.g + self.b


class OwnDense(L.Layer):
    """A dense layer with weights of its own."""

    def __init__(self, units):
        super().__init__()
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units), name="w")
        self.b = self.add_weight(shape=(self.units,), name="b")

    def call(self, x):
        return ops.matmul(x, self.w) + self.b


class Port(keras.Model):
    """The same, all written out."""

    def __init__(self, *, heads=4, swapped=False, reverse=False, gelu=True, **norm):
        super().__init__()
        self.how = heads, swapped, reverse, gelu
        self.query, self.key, self.value, self.out = (L.Dense(8) for _ in range(4))
        self.norm, self.inner, self.outer = OwnNorm(**norm), OwnDense(6), L.Dense(8)

    def call(self, x):
        heads, swapped, reverse, gelu = self.how
        products = self.query(x), self.key(x), self.value(x)
        q, k, v = (ops.reshape(y, (-1, 5, heads, 8 // heads)) for y in products)
        if swapped:
            k, v = v, k
        scores = ops.einsum("nqhd,nkhd->nhqk", q, k) * (8 / heads) ** -0.5
        later = np.triu(np.ones((5, 5)), 1)
        scores -= 1e9 * (later.T if reverse else later)
        y = ops.einsum("nhqk,nkhd->nqhd", ops.softmax(scores), v)
        x = x + self.out(ops.reshape(y, (-1, 5, 8)))
        y = self.inner(self.norm(x))
        return x + self.outer(keras.activations.gelu(y, approximate=gelu))


def causes(found):
    return [(x.key, x.places[0]) for x in found.causes]


def test_parts_that_are_written_out_are_mapped_and_equal():
    found = paripassu.check(Block, Port, GIVEN, copy="left-to-right")
    assert found.equal, found.causes
    assert not [x for x in found.pairs if not x.left or not x.right]


@pytest.mark.parametrize(
    ("mistake", "key", "words"),
    [
        ({"heads": 2}, "attention-heads", "left 4, right 2"),
        ({"swapped": True}, "inputs-exchanged", "its key is the left model's value"),
        ({"reverse": True}, "mask", "right hides what comes before"),
        ({"gelu": False}, "gelu-form", "approximate"),
        ({"axis": 1}, "axis", "axes (2,) on the left, (1,) right"),
        ({"less": 1}, "variance-divisor", "by n on the left, by n - 1 right"),
    ],
)
def test_mistakes_in_them_are_named(mistake, key, words):
    found = paripassu.check(
        Block, lambda: Port(**mistake), GIVEN, copy="left-to-right", gradients=False
    )
    ((told, _),) = causes(found)
    assert told == key
    assert words in found.causes[0].sentence


class Mixed(nn.Module):
    """A number of a list of parameters, and weights (out, in) of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mixes = nn.ParameterList([torch.randn(8, 8) for _ in range(2)])
        self.weight = nn.Parameter(torch.randn(8, 8))
        self.bias = nn.Parameter(torch.randn(8))

    def forward(self, x):
        for mix in self.mixes:
            x = torch.tanh(x @ mix)
        return F.linear(x, self.weight, self.bias)


def test_lists_of_parameters_and_square_kernels_that_lie_transposed():
    layers = [L.Dense(8, use_bias=False, activation="tanh") for _ in range(2)]
    right = keras.Sequential([keras.Input((5, 8)), *layers, L.Dense(8)])
    found = paripassu.check(Mixed, right, GIVEN, copy="left-to-right")
    assert found.equal, found.causes


def test_a_function_is_placed_at_the_layer_that_holds_it():
    class Two(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.first, self.second = Gate(2.0), Gate(factor)

        def forward(self, x):
            return self.second(self.first(x))

    class Gate(nn.Module):
        def __init__(self, factor):
            super().__init__()
            torch.manual_seed(0)
            self.factor, self.fc = factor, nn.Linear(8, 8)

        def forward(self, x):
            return self.fc(x) * self.factor

    found = paripassu.check(
        Two(2.0), Two(3.0), GIVEN, copy="left-to-right", gradients=False
    )
    assert causes(found) == [("constant", ("second:mul", "second:mul"))]
    (source,) = found.causes[0].sources
    assert source[0].startswith("test_written_out.py:")
