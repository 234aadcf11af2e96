"""Forms of one layer: cells in a loop, normed weights, turned axes, folded norms."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random

import paripassu
from paripassu.port_check.check import write_map

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
nn, L, ops = torch.nn, keras.layers, keras.ops
F, P = nn.functional, nn.utils.parametrizations

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = random(2, 4, 6).astype(np.float32)
IMAGES = random(2, 3, 5, 5).astype(np.float32)


def drawn(model):
    """With weights and statistics that are no norm's first ones."""
    torch.manual_seed(0)
    for array in model.parameters():
        array.data = 0.5 * torch.randn_like(array) + 0.3
    for name, array in model.named_buffers():
        if name.endswith(("mean", "var")):
            array.copy_(torch.rand_like(array) + 0.5)
    return model


def places(found):
    return [(x.key, *x.places[0]) for x in found.causes]


# ## Cells, weight_norm, and a weight (out, in)


class Net(nn.Module):
    """A cell in a loop, a layer under a norm of its weight, a head of cosines."""

    def __init__(self, norm=P.weight_norm):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.inner = nn.LSTMCell(6, 5), norm(nn.Linear(5, 8))
        self.head = nn.Parameter(torch.randn(4, 8))

    def forward(self, x):
        state = x.new_zeros(len(x), 5), x.new_zeros(len(x), 5)
        for step in x.unbind(1):
            state = self.cell(step, state)
        y = torch.tanh(self.inner(state[0]))
        return F.linear(F.normalize(y), F.normalize(self.head))


class Cosines(L.Layer):
    """The same head, its weight (in, out)."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 4), name="w")

    def call(self, x):
        x, w = (
            ops.normalize(y, axis=n, epsilon=1e-12) for y, n in ((x, 1), (self.w, 0))
        )
        return ops.matmul(x, w)


def port(activation="tanh", units=5):
    given = keras.Input((4, 6))
    y = L.LSTM(units, activation=activation, name="lstm")(given)
    y = L.Dense(8, activation="tanh", name="inner")(y)
    return keras.Model(given, Cosines(name="cosines")(y))


def test_cells_normed_and_turned_weights_are_equal():
    found = paripassu.check(Net, port, STEPS, copy="left-to-right")
    assert found.equal, found.causes
    assert all(x.left and x.right for x in found.pairs)
    assert any("made of others: by weight_norm the left" in x for x in found.notes)


def test_a_cell_with_another_activation_is_named():
    found = paripassu.check(
        Net, lambda: port("relu"), STEPS, copy="left-to-right", gradients=False
    )
    assert places(found) == [("activation-kind", "cell", "lstm")]


def test_what_spectral_norm_does_in_training_is_told():
    found = paripassu.check(
        lambda: Net(P.spectral_norm), port, STEPS, copy="left-to-right"
    )
    assert [x.phase for x in found.faults] == ["training mode"]
    assert places(found) == [("weight-made", "inner", "inner")]


def test_keras_makes_a_weight_anew_in_training_too():
    def dense(wrapped):
        keras.utils.set_random_seed(0)
        inner = L.Dense(4, name="inner")
        given = keras.Input((6,))
        y = (
            L.SpectralNormalization(inner, name="inner")(given)
            if wrapped
            else inner(given)
        )
        return keras.Model(given, L.Dense(2, name="last")(y))

    rows = random(3, 6).astype(np.float32)
    assert paripassu.check(lambda: dense(True), lambda: dense(True), rows).equal
    found = paripassu.check(
        lambda: dense(True), lambda: dense(False), rows, copy="left-to-right"
    )
    assert [x.phase for x in found.faults] == ["training mode"]
    assert places(found) == [("weight-made", "inner", "inner")]


def test_a_map_says_how_axes_are_turned(tmp_path):
    found = paripassu.check(Net, port, STEPS, copy="left-to-right", gradients=False)
    write_map(path := tmp_path / "map.toml", found)
    assert "cosines.w.transpose(1, 0)" in path.read_text()


class Stacked(nn.Module):
    """Two layers, and the last step."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 5, num_layers=2, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0][:, -1]


class Looped(keras.Model):
    """The same by cells, step by step."""

    def __init__(self, reset_after=True):
        super().__init__()
        self.cells = [L.GRUCell(5, reset_after=reset_after) for _ in range(2)]

    def call(self, x):
        states = [ops.zeros((len(x), 5), dtype=x.dtype) for _ in self.cells]
        for step in ops.unstack(x, axis=1):
            y = step
            for n, cell in enumerate(self.cells):
                y, (states[n],) = cell(y, [states[n]])
        return y


def stacked_cells():
    given = keras.Input((4, 6))
    return keras.Model(given, L.RNN([L.GRUCell(5), L.GRUCell(5)])(given))


@pytest.mark.parametrize("build", [Looped, stacked_cells])
def test_cells_of_keras_are_a_layer_of_pytorch(build):
    found = paripassu.check(Stacked, build, STEPS, copy="left-to-right")
    assert found.equal, found.causes


def test_a_cell_of_another_form_is_not_equal():
    found = paripassu.check(
        Stacked, lambda: Looped(False), STEPS, copy="left-to-right", gradients=False
    )
    assert found.verdict == "differs"
    assert places(found)[0][1] == "rnn"


# ## A weight that a norm makes is read and written as the layer uses it


@pytest.mark.parametrize(
    "norm",
    [P.weight_norm, P.spectral_norm, nn.utils.weight_norm, nn.utils.spectral_norm],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_a_made_weight_is_written_through_what_it_is_made_of(norm):
    from paripassu.sides.torch_module import Probe

    probe = Probe(nn.Sequential(norm(nn.Conv2d(3, 4, 3))).double())
    (block,) = probe.blocks()
    assert (block.kind, block.trainable) == ("conv", True)
    fresh = random(*block.shapes["kernel"])
    probe.write(block.name, {"kernel": fresh})
    assert np.abs(probe.blocks()[0].spec.weights["kernel"] - fresh).max() < 1e-14
    layer = probe.model.eval()[0]
    layer(torch.zeros(1, 3, 3, 3, dtype=torch.float64))
    used = layer.weight.detach().numpy()
    assert np.abs(used.transpose(2, 3, 1, 0) - fresh).max() < 1e-14


# ## Norms that are folded into the layer after them


class Normed(nn.Module):
    """A norm that two layers share."""

    def __init__(self):
        super().__init__()
        self.norm, self.q = nn.LayerNorm(6), nn.Linear(6, 4)
        self.k = nn.Linear(6, 4, bias=False)

    def forward(self, x):
        x = self.norm(x)
        return torch.tanh(self.q(x)) * self.k(x)


def folded(left, shifted=True):
    given = keras.Input((4, 6))
    x = L.LayerNormalization(epsilon=1e-5, center=False, scale=False)(given)
    q, k = L.Dense(4, name="q"), L.Dense(4, name="k")
    model = keras.Model(given, ops.tanh(q(x)) * k(x))
    gamma, beta = (x.detach().numpy() for x in left.norm.parameters())
    for layer, own in ((q, left.q), (k, left.k)):
        kernel = own.weight.detach().numpy().T
        bias = 0 if own.bias is None else own.bias.detach().numpy()
        layer.set_weights([gamma[:, None] * kernel, bias + shifted * beta @ kernel])
    return model


def test_a_layer_norm_is_folded_into_the_layers_after_it():
    left = drawn(Normed())
    found = paripassu.check(left, folded(left), STEPS)
    assert found.equal, found.causes
    assert [x.left for x in found.pairs] == ["norm & q", "norm & k"]
    found = paripassu.check(left, folded(left, False), STEPS, gradients=False)
    assert found.verdict == "differs"


def test_a_batch_norm_is_folded_into_the_layer_after_it():
    left = drawn(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False),
            nn.ReLU(),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 5, 1, bias=False),
        )
    )
    right = drawn(
        nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 5, 1))
    )
    norm, kernel = left[2], left[3].weight
    scale = norm.weight / (norm.running_var + norm.eps) ** 0.5
    right[0].weight.data = left[0].weight.data
    right[2].weight.data = (kernel * scale[:, None, None]).data
    shift = norm.bias - norm.running_mean * scale
    right[2].bias.data = (kernel[:, :, 0, 0] @ shift).data
    found = paripassu.check(left, right, IMAGES)
    assert found.verdict == "undecided", found.causes  # it trains otherwise
    assert "folded" in found.not_compared[0]
    assert paripassu.check(left, right, IMAGES, gradients=False).equal
