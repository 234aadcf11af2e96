"""What public libraries write otherwise: experts, norms within an attention, axes."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random

import paripassu

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
nn, functional, L = torch.nn, torch.nn.functional, keras.layers
WIDTH, STEPS, EXPERTS, INNER = 12, 5, 3, 8
STEPS_IN = random(2, STEPS, WIDTH).astype(np.float32)


def drawn(*shape):
    return nn.Parameter(torch.randn(*shape) / shape[-1] ** 0.5)


class Experts(nn.Module):
    """All experts at once; gate and up fused and (out, in), as transformers has them,
    or three parameters (in, out), as keras-hub has them."""

    def __init__(self, *, fused, swapped=False):
        super().__init__()
        torch.manual_seed(int(fused))
        self.fused, self.swapped = fused, swapped
        self.router = nn.Linear(WIDTH, EXPERTS, bias=False)
        if fused:
            self.gate_up_proj = drawn(EXPERTS, 2 * INNER, WIDTH)
            self.down_proj = drawn(EXPERTS, WIDTH, INNER)
        else:
            self.gate_dense = drawn(EXPERTS, WIDTH, INNER)
            self.intermediate_dense = drawn(EXPERTS, WIDTH, INNER)
            self.output_dense = drawn(EXPERTS, INNER, WIDTH)

    def forward(self, x):
        weights = self.router(x).softmax(-1)
        if self.fused:
            made = torch.einsum("nti,eoi->etno", x, self.gate_up_proj)
            gate, up = made.chunk(2, -1)
            down = self.down_proj.transpose(1, 2)
        else:
            gate = torch.einsum("nti,eio->etno", x, self.gate_dense)
            up = torch.einsum("nti,eio->etno", x, self.intermediate_dense)
            down = self.output_dense
        gate, up = (up, gate) if self.swapped else (gate, up)
        made = torch.einsum("etno,eoi->etni", functional.silu(gate) * up, down)
        return torch.einsum("etni,nte->nti", made, weights)


@pytest.mark.parametrize("copy", ["left-to-right", "right-to-left"])
def test_kernels_of_experts_are_turned_and_split(copy):
    models = Experts(fused=True), Experts(fused=False)
    found = paripassu.check(*models, STEPS_IN, copy=copy)
    assert found.equal
    pairs = {(x.left, x.right) for x in found.pairs}
    assert ("gate_up_proj[0:8].T", "gate_dense") in pairs
    assert ("down_proj[0:12].T", "output_dense") in pairs
    written = {x: y for x, y in pairs if x and y}
    again = paripassu.check(*models, STEPS_IN, block_map=written)
    assert again.equal


class SquareExperts(nn.Module):
    """Two layers of experts, with kernels that are square, (in, out) or (out, in)."""

    def __init__(self, inner, *, turned):
        super().__init__()
        torch.manual_seed(int(turned))
        self.turned = turned
        shapes = (WIDTH, 2 * inner), (inner, WIDTH)
        shapes = [x[::-1] if turned else x for x in shapes]
        self.up = nn.ParameterList(drawn(EXPERTS, *shapes[0]) for _ in range(2))
        self.down = nn.ParameterList(drawn(EXPERTS, *shapes[1]) for _ in range(2))

    def forward(self, x):
        told = "nti,eoi->neto" if self.turned else "nti,eio->neto"
        again = "neti,eoi->nto" if self.turned else "neti,eio->nto"
        for up, down in zip(self.up, self.down, strict=True):
            gate, linear = torch.einsum(told, x, up).chunk(2, -1)
            x = x + torch.einsum(again, functional.silu(gate) * linear, down)
        return x


@pytest.mark.parametrize("inner", [WIDTH // 2, WIDTH])
@pytest.mark.parametrize("copy", ["left-to-right", "right-to-left"])
def test_square_kernels_of_experts_are_turned(copy, inner):
    left, right = (SquareExperts(inner, turned=x) for x in (True, False))
    assert paripassu.check(left, right, STEPS_IN, copy=copy).equal
    # Which way they lie is not told by weights, where nothing says that they fit.
    torch.manual_seed(3)
    left.down[1] = drawn(*left.down[1].shape)
    found = paripassu.check(left, right, STEPS_IN)
    assert found.verdict == "differs"
    assert {x.key for x in found.causes} == {"weights-not-copied"}


class Normed(nn.Module):
    """Queries and keys with norms of their own, in float32, and the product of them."""

    def __init__(self, epsilon):
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.weights = nn.ParameterList([drawn(WIDTH), drawn(WIDTH)])
        self.epsilon = epsilon

    def norm(self, x, number):
        wide = x.to(torch.float32)
        root = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon[number])
        return self.weights[number] * (wide * root).to(x.dtype)

    def forward(self, x):
        query, key = self.norm(self.query(x), 0), self.norm(self.key(x), 1)
        return query @ key.transpose(1, 2)


@pytest.mark.parametrize("epsilon", [(1e-4, 1e-6), (1e-6, 1e-4), (1e-4, 1e-4)])
def test_the_epsilon_of_any_norm_in_float32_is_named(epsilon):
    left, right = Normed((1e-6, 1e-6)), Normed(epsilon)
    found = paripassu.check(left, right, STEPS_IN, gradients=False)
    assert found.verdict == "differs"
    assert {x.key for x in found.causes} == {"epsilon"}


class Sound(nn.Module):
    """A convolution over sound that comes without an axis of channels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(1, 4, 3)

    def forward(self, values):
        return self.conv(values[:, None]).transpose(1, 2)


def test_an_input_may_have_one_axis_of_size_one_more():
    def right():
        return keras.Sequential([L.Input((20, 1)), L.Conv1D(4, 3)])

    found = paripassu.check(
        Sound, right, random(2, 20).astype(np.float32), copy="left-to-right"
    )
    assert found.equal
    assert "input gradients, float64" in {x.name for x in found.checks}


class Rotated(nn.Module):
    """Rotates a part of the features, here all of them: the rest is empty."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.dense, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, x):
        made = self.dense(x)
        turned, rest = made[..., :WIDTH] * 2, made[..., WIDTH:]
        return self.last(torch.cat([turned, rest], -1))


def test_an_array_without_values_is_no_crash():
    assert paripassu.check(Rotated(), Rotated(), STEPS_IN).equal


class Counted(nn.Module):
    """Positions by a mask, as OPT finds them, or one after the other."""

    def __init__(self, *, by_mask, epsilon=1e-5):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places = nn.Embedding(20, WIDTH), nn.Embedding(20, WIDTH)
        self.norm, self.last = nn.LayerNorm(WIDTH, eps=epsilon), nn.Linear(WIDTH, 4)
        self.by_mask = by_mask

    def forward(self, input_ids, attention_mask):
        if self.by_mask:
            places = attention_mask.cumsum(1) * attention_mask
            places = self.places(places + 1)
        else:
            places = self.places.weight[2 : 2 + input_ids.shape[1]]
        return self.last(self.norm(self.words(input_ids) + places))


def test_what_differs_at_padding_alone_is_no_cause_beside_a_fault():
    given = {
        "input_ids": np.arange(10).reshape(2, 5) + 1,
        "attention_mask": np.array([[1] * 5, [1, 1, 1, 0, 0]]),
    }
    left = Counted(by_mask=True)
    assert paripassu.check(left, Counted(by_mask=False), given).equal
    faulty = Counted(by_mask=False, epsilon=1e-2)
    found = paripassu.check(left, faulty, given, gradients=False)
    assert [x.key for x in found.causes] == ["epsilon"]


class Scaled(nn.Embedding):
    """A table whose vectors are scaled when they are looked up, as Gemma's."""

    def forward(self, ids):
        return super().forward(ids) * 3.0


class Words(nn.Module):
    """Scales words in their layer, or after it."""

    def __init__(self, *, inside, epsilon=1e-5):
        super().__init__()
        torch.manual_seed(0)
        self.inside = inside
        self.words = (Scaled if inside else nn.Embedding)(20, WIDTH)
        self.norm, self.last = nn.LayerNorm(WIDTH, eps=epsilon), nn.Linear(WIDTH, 4)

    def forward(self, ids):
        words = self.words(ids)
        return self.last(self.norm(words if self.inside else words * 3.0))


def test_a_factor_within_a_layer_is_no_cause_where_it_stands_after_the_other():
    left, ids = Words(inside=True), np.arange(10).reshape(2, 5)
    assert paripassu.check(left, Words(inside=False), ids).equal
    faulty = Words(inside=False, epsilon=1e-2)
    found = paripassu.check(left, faulty, ids, gradients=False)
    assert [x.key for x in found.causes] == ["epsilon"]
