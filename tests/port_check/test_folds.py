"""Weights that are folded: BatchNorm, products, sums and rows that one model lacks."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random

import paripassu
from paripassu import UserError
from paripassu.port_check.check import read_map, write_map

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
nn, functional, L = torch.nn, torch.nn.functional, keras.layers
IMAGES = random(2, 3, 6, 6).astype(np.float32)
STEPS = random(2, 5, 12).astype(np.float32)
IDS = np.random.default_rng(0).integers(0, 11, (2, 5))
EPSILON = 1e-3


def drawn(model):
    """With weights and statistics that are no norm's first ones."""
    torch.manual_seed(0)
    for array in model.parameters():
        array.data = 0.4 * torch.randn_like(array) + 0.3
    for name, array in model.named_buffers():
        if name.endswith(("mean", "var")):
            array.copy_(torch.rand_like(array) + 0.5)
    return model


class Net(nn.Module):
    """A convolution, perhaps with BatchNorm after it, and a dense layer."""

    def __init__(self, norm=True, bias=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(6, eps=EPSILON) if norm else nn.Identity()
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = functional.relu(self.norm(self.conv(x)))
        return self.head(x.mean((2, 3)))


def folded_net():
    return Net(norm=False, bias=True)


def keras_net():
    x = given = keras.Input((6, 6, 3))
    x = L.Conv2D(6, 3, padding="same", activation="relu", name="folded")(x)
    return keras.Model(given, L.Dense(4, name="head")(L.GlobalAveragePooling2D()(x)))


def fold(left, epsilon=EPSILON, mean=True):
    """A net without the norm, folded by hand."""
    right, norm = folded_net(), left.norm
    scale = norm.weight / (norm.running_var + epsilon) ** 0.5
    right.conv.weight.data = (left.conv.weight * scale[:, None, None, None]).detach()
    right.conv.bias.data = (norm.bias - norm.running_mean * scale * mean).detach()
    right.head.load_state_dict(left.head.state_dict())
    return right


def names(found):
    return {(x.left, x.right) for x in found.pairs}


def state(found, check):
    return next(x.state for x in found.checks if x.name == check)


def test_a_folded_norm_is_equal_in_evaluation_mode_and_training_is_not_compared():
    left = drawn(Net())
    found = paripassu.check(left, fold(left), IMAGES)
    assert found.verdict == "undecided"
    assert names(found) == {("conv & norm", "conv"), ("head", "head")}
    assert state(found, "forward, float64") == state(found, "gradients, float64")
    assert state(found, "gradients, float64") == "holds"
    assert state(found, "training mode") == "not run"
    assert "conv & norm" in found.not_compared[0]
    found = paripassu.check(left, fold(left), IMAGES, gradients=False)
    assert found.equal


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"epsilon": 0.0}, "without norm's epsilon, 0.001"),
        ({"epsilon": 1e-5}, "with an epsilon of 1e-05, not 0.001"),
        ({"mean": False}, "without the mean of norm"),
    ],
)
def test_what_is_wrong_with_a_fold_is_told_at_its_layer(wrong, told):
    left = drawn(Net())
    found = paripassu.check(left, fold(left, **wrong), IMAGES, gradients=False)
    assert not found.equal
    assert found.faults[0].cause.key == "folded-wrongly"
    assert told in found.faults[0].cause.sentence
    assert {(x.left, x.right) for x in found.faults} == {("conv", "conv")}


def test_a_norm_is_folded_and_unfolded_by_copying(tmp_path):
    left = drawn(Net())
    left.norm.weight.data[2] = 0.0  # through which nothing can be given back
    found = paripassu.check(
        left, keras_net, IMAGES, copy="left-to-right", gradients=False
    )
    assert found.equal
    assert names(found) >= {("conv & norm", "folded")}
    path = tmp_path / "map.toml"
    write_map(path, found)
    right = keras_net()
    found = paripassu.check(
        left,
        right,
        IMAGES,
        copy="right-to-left",
        block_map=read_map(path),
        gradients=False,
    )
    assert found.equal
    kernel = right.get_layer("folded").get_weights()[0]
    assert np.abs(kernel).max() > 0  # the right model's own ones were copied
    assert left.norm.weight[2] != 0


def test_a_norm_that_was_forgotten_is_not_taken_for_a_folded_one():
    left = drawn(Net(bias=True))
    found = paripassu.check(
        left, folded_net, IMAGES, copy="left-to-right", gradients=False
    )
    assert not found.equal
    assert "layer-missing" in {x.cause.key for x in found.faults}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("made", [drawn, lambda x: x])
def test_a_norm_that_was_forgotten_beside_the_same_weights_is_missing(made, bias):
    """Also one that was just made, which without its epsilon does nothing."""
    left, right = made(Net(bias=bias)), Net(norm=False, bias=bias)
    right.load_state_dict(left.state_dict(), strict=False)
    found = paripassu.check(left, right, IMAGES, gradients=False)
    assert not found.equal
    assert [(x.key, x.places) for x in found.causes] == [
        ("layer-missing", (("norm", "-"),))
    ]


class Forms(nn.Module):
    """Products and sums beside weights, or folded into them."""

    def __init__(self, apart=True):
        super().__init__()
        self.words, self.places = nn.Embedding(11, 12), nn.Embedding(5, 12)
        self.first, self.query = nn.Linear(12, 12), nn.Linear(12, 12)
        self.norm = nn.Parameter(torch.ones(12))
        self.apart = apart
        if apart:
            self.types = nn.Embedding(2, 12)
            self.gamma = nn.Parameter(torch.ones(12))

    def forward(self, ids):
        words, places = self.words(ids), self.places(torch.arange(5))
        if self.apart:
            x = words * 12**0.5 + places + self.types(torch.zeros_like(ids))
            x = x + self.first(x) * self.gamma
            x = x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * (1 + self.norm)
            query = self.query(x) * 0.25
        else:
            x = words + places
            x = x + self.first(x)
            x = x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * self.norm
            query = self.query(x)
        return (query @ x.transpose(1, 2)).softmax(-1) @ x


FOLDS = {
    "words * 3.4641016151377544": "words",
    "places + types[0]": "places",
    "first * gamma": "first",
    "norm + 1": "norm",
    "query * 0.25": "query",
}


def folded_forms(left):
    right = Forms(apart=False)
    right.load_state_dict(left.state_dict(), strict=False)
    with torch.no_grad():
        right.words.weight.mul_(12**0.5)
        right.places.weight.add_(left.types.weight[0])
        right.first.weight.mul_(left.gamma[:, None])
        right.first.bias.mul_(left.gamma)
        right.norm.add_(1)
        right.query.weight.mul_(0.25)
        right.query.bias.mul_(0.25)
    return right


def test_products_and_sums_in_given_weights_are_found_where_they_compute_the_same():
    left = drawn(Forms())
    found = paripassu.check(left, folded_forms(left), IDS)
    assert found.equal
    assert names(found) == {*FOLDS.items()}
    assert state(found, "gradients, float64") == "holds"


def test_products_and_sums_are_copied_both_ways_where_a_map_says_so():
    def copy(direction, block_map):
        return paripassu.check(
            drawn(Forms()),
            Forms(apart=False),
            IDS,
            copy=direction,
            block_map=block_map,
            gradients=False,
        )

    assert copy("left-to-right", FOLDS).equal
    assert copy("right-to-left", FOLDS).equal
    wrong = {k: x for k, x in FOLDS.items() if x != "query"} | {"query * 0.5": "query"}
    # Else a product that was forgotten would be copied away.
    assert not copy("left-to-right", {}).equal
    assert not copy("left-to-right", wrong).equal


@pytest.mark.parametrize(("shift", "padding"), [(0.0, 1), (-1.0, 0), (-1.0, 1)])
def test_an_input_that_is_scaled_in_the_first_weights(shift, padding):
    """A shift cannot be, where the convolution pads: there it is a fault."""

    class Scaled(nn.Module):
        def __init__(self, scale, shift):
            super().__init__()
            self.scale, self.shift = scale, shift
            self.conv = nn.Conv2d(3, 6, 3, padding=padding)

        def forward(self, x):
            return self.conv(x * self.scale + self.shift)

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3, padding=padding)

        def forward(self, x):
            return self.conv(x)

    left, right = drawn(Scaled(1 / 127.5, shift)), Plain()
    conv = left.conv
    right.conv.weight.data = conv.weight.detach() / 127.5
    added = shift * conv.weight.detach().sum((1, 2, 3))
    right.conv.bias.data = conv.bias.detach() + added
    found = paripassu.check(left, right, 100 * IMAGES)
    assert found.equal == (not (shift and padding))
    if found.equal:
        assert state(found, "gradients, float64") == "holds"
        assert found.pairs[0].left.startswith("conv(x * 0.0078431")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("conv & nothing", "there is no 'nothing'"),
        ("conv & head", "only a convolution or a dense layer and the BatchNorm"),
        ("head * conv", "which cannot be: kernel (6, 4)"),
    ],
)
def test_a_map_of_folds_that_cannot_be_is_refused(wrong, told):
    with pytest.raises(UserError) as error:
        paripassu.check(Net, folded_net, IMAGES, block_map={wrong: "conv"})
    assert told in str(error.value)


class Patches(nn.Module):
    """Patches of an image by a convolution, or by a dense layer and their order."""

    def __init__(self, order=None):
        super().__init__()
        self.order = order
        self.proj = nn.Linear(27, 4) if order else nn.Conv2d(3, 4, 3, stride=3)

    def forward(self, x):
        if not self.order:
            return self.proj(x).flatten(2).transpose(1, 2)
        cut = x.reshape(len(x), 3, 2, 3, 2, 3).permute(0, 2, 4, *self.order)
        return self.proj(cut.reshape(len(x), 4, 27))


def test_patches_are_mapped_whatever_the_order_of_their_values():
    by_channel, by_pixel = (1, 3, 5), (3, 5, 1)
    for left, right, copy in (
        (None, by_channel, "left-to-right"),
        (by_channel, by_pixel, "right-to-left"),
    ):
        found = paripassu.check(Patches(left), Patches(right), IMAGES, copy=copy)
        assert found.equal
        assert state(found, "gradients, float64") == "holds"
    # With the other order's weights it is a fault.
    left, right = Patches(), Patches(by_pixel)
    right.proj.weight.data = left.proj.weight.detach().flatten(1)
    right.proj.bias.data = left.proj.bias.detach()
    found = paripassu.check(left, right, IMAGES, gradients=False)
    assert [x.cause.key for x in found.faults] == ["kernel-transposed"]


class Groups(nn.Module):
    """Two groups of three queries, a key and a value; fused, or three layers."""

    def __init__(self, fused=True):
        super().__init__()
        self.fused = fused
        if fused:
            self.query_key_value = nn.Linear(12, 20)
        else:
            self.q_proj, self.k_proj, self.v_proj = (
                nn.Linear(12, x) for x in (12, 4, 4)
            )

    def forward(self, x):
        if self.fused:
            made = self.query_key_value(x).unflatten(-1, (2, 5, 2))
            query, key, value = made.split([3, 1, 1], dim=-2)
        else:
            query = self.q_proj(x).unflatten(-1, (2, 3, 2))
            key, value = (
                y(x).unflatten(-1, (2, 1, 2)) for y in (self.k_proj, self.v_proj)
            )
        scores = torch.einsum("btghd,bsgkd->bghts", query, key).softmax(-1)
        return torch.einsum("bghts,bsgkd->btghd", scores, value).flatten(2)


def test_queries_that_share_keys_are_cut_group_by_group():
    found = paripassu.check(
        Groups(), Groups(fused=False), STEPS, copy="left-to-right", gradients=False
    )
    assert found.equal
    assert ("query_key_value[0:3 of 2x5]", "q_proj") in names(found)
    given = {"query_key_value[0:3 of 2x5]": "q_proj"}
    found = paripassu.check(
        Groups(),
        Groups(fused=False),
        STEPS,
        copy="right-to-left",
        block_map=given,
        gradients=False,
    )
    assert found.equal


def test_weights_that_do_nothing_are_no_fault_until_training_moves_them():
    class Own(nn.Module):
        def __init__(self, weights):
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 1, bias=weights)
            self.norm = nn.BatchNorm2d(6, affine=weights)

        def forward(self, x):
            return functional.relu(self.norm(self.conv(x)))

    right = drawn(Own(weights=True))
    found = paripassu.check(
        Own(weights=False), right, IMAGES, copy="left-to-right", gradients=False
    )
    assert found.equal
    assert any("gamma and beta at norm" in x for x in found.notes)
    assert not right.conv.bias.any()
    trained = paripassu.check(Own(weights=False), right, IMAGES, copy="left-to-right")
    assert {(x.key, x.places[0][0]) for x in trained.causes} == {
        ("bias-missing", "conv"),
        ("weight-missing", "norm"),
    }
    left = drawn(Own(weights=True))
    assert not paripassu.check(
        left, Own(weights=False), IMAGES, copy="left-to-right", gradients=False
    ).equal
