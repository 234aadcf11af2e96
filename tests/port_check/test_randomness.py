"""Models that drop, add noise or draw: compared on the same draws if they can be."""

from __future__ import annotations

import random

import numpy as np
import pytest

import paripassu
from paripassu.port_check.randomness import compare_dropout
from paripassu.sides.contract import Draw

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
X = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
STEPS = np.random.default_rng(1).normal(size=(2, 5, 8)).astype(np.float32)


class Net(nn.Module):
    """Two dense layers, and between them what a test gives."""

    def __init__(self, between=lambda _, x: x, *parts):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 3)
        self.parts, self.between = nn.ModuleList(parts), between

    def forward(self, x):
        return self.b(self.between(self, self.a(x)))


class StaysOn(nn.Dropout):
    """Drops in evaluation mode as well."""

    def train(self, mode=True):
        del mode
        return super().train(True)


def drop(self, x):
    return self.parts[0](x)


def training(function):
    """In training mode only."""
    return lambda self, x: function(x) if self.training else x


def drop_path(x):
    shape = len(x), *(1 for _ in x.shape[1:])
    return x * x.new_empty(shape).bernoulli_(0.8).div_(0.8)


def drop_path_by_uniform(x):
    return x / 0.8 * torch.floor(0.8 + torch.rand(len(x), 1, 1))


def attend(rate):
    def function(self, x):
        off = 0.0 if not self.training else rate
        return F.scaled_dot_product_attention(x, x, x, dropout_p=off)

    return function


def keys(found):
    return [x.cause.key for x in found.faults if x.cause]


def details(found, name):
    return next(x.detail for x in found.checks if x.name == name)


INFERENCE = {
    "function": (lambda _, x: F.dropout(x, 0.5), (), "dropout"),
    "module": (drop, (StaysOn(0.5),), "parts.0"),
}


@pytest.mark.parametrize("name", INFERENCE)
def test_dropout_at_inference_is_a_fault_at_its_place(name):
    between, parts, place = INFERENCE[name]
    for pair in ((Net(between, *parts), Net()), (Net(), Net(between, *parts))):
        found = paripassu.check(*pair, X)
        assert not found.equal
        first = found.faults[0]
        assert place in (first.left, first.right)
        assert keys(found) == ["dropout-at-inference"]


def test_models_that_both_drop_at_inference_are_compared_and_it_is_said():
    found = paripassu.check(*(Net(drop, StaysOn(0.5)) for _ in range(2)), X)
    assert found.equal
    assert "both models are random in evaluation mode" in " ".join(found.notes)
    found = paripassu.check(Net(drop, StaysOn(0.5)), Net(drop, StaysOn(0.4)), X)
    assert not found.equal
    assert keys(found)[0] == "dropout-rate"


def test_noise_at_inference_is_a_fault():
    found = paripassu.check(Net(), Net(lambda _, x: x + torch.randn_like(x)), X)
    assert not found.equal
    assert "random-at-inference" in keys(found)


def test_dropout_before_what_does_not_see_its_scale_is_still_a_fault():
    def normalised(self, x):
        return F.normalize(self.parts[0](x), eps=0)

    pair = Net(normalised, StaysOn(0.5)), Net(normalised, nn.Dropout(0.5))
    found = paripassu.check(*pair, X)
    assert keys(found) == ["dropout-at-inference"]


# In training mode, of the left and the right model: what is between, and the cause.
TRAINING = {
    "rates": ((drop, nn.Dropout(0.5)), (drop, nn.Dropout(0.1)), "dropout-rate"),
    "attention": ((attend(0.3),), (attend(0.1),), "dropout-rate"),
    "place": (
        (lambda self, x: torch.sigmoid(self.parts[0](x)), nn.Dropout(0.4)),
        (lambda self, x: self.parts[0](torch.sigmoid(x)), nn.Dropout(0.4)),
        "dropout-place",
    ),
    "channels": (
        (drop, nn.Dropout(0.4)),
        (lambda self, x: self.parts[0](x.mT).mT, nn.Dropout1d(0.4)),
        "dropout-mask",
    ),
}


@pytest.mark.parametrize("name", TRAINING)
def test_another_dropout_is_a_fault_of_training_mode(name):
    left, right, cause = TRAINING[name]
    found = paripassu.check(Net(*left), Net(*right), STEPS)
    assert not found.equal
    assert keys(found) == [cause]
    assert {x.phase for x in found.faults} == {"training mode"}
    if cause != "dropout-mask":
        assert found.faults[0].cause.shown  # with dropout off they are equal


# What only one model has; what is left of a step is compared without.
LONE = {
    "dropout": ((drop, nn.Dropout(0.5)), "dropout: left rate 0.5 at parts.0"),
    "attention": ((attend(0.3),), "dropout: left rate 0.3 at scaled_dot_product"),
    "noise": (
        (training(lambda x: x + torch.randn_like(x)),),
        "only the left model draws: normal at randn_like",
    ),
}


@pytest.mark.parametrize("name", LONE)
def test_what_only_one_model_drops_is_said(name):
    left, text = LONE[name]
    right = (attend(0.0),) if name == "attention" else ()
    found = paripassu.check(Net(*left), Net(*right), STEPS)
    assert found.equal
    assert text in " ".join(found.notes)
    assert "noise off" in details(found, "training mode, float64")


# Written otherwise, and the same.
ALIKE = {
    "module and function": (
        (drop, nn.Dropout(0.3)),
        (training(lambda x: F.dropout(x, 0.3)),),
    ),
    "stochastic depth": ((training(drop_path),), (training(drop_path_by_uniform),)),
    "noise": (
        (training(lambda x: x + 0.3 * torch.randn_like(x)),),
        (training(lambda x: x + torch.empty_like(x).normal_(0, 0.3)),),
    ),
    "attention": (
        (attend(0.3),),
        (
            lambda self, x: (
                F.dropout(torch.softmax(x @ x.mT / 8**0.5, -1), 0.3, self.training) @ x
            ),
        ),
    ),
}


@pytest.mark.parametrize("name", ALIKE)
def test_the_same_randomness_is_equal(name):
    left, right = ALIKE[name]
    found = paripassu.check(Net(*left), Net(*right), STEPS)
    assert found.equal
    assert {x.state for x in found.checks} == {"holds"}
    assert "same draws" in details(found, "training mode, float64")


def test_what_cannot_be_shared_is_said_and_generators_stay():
    between = training(lambda x: x[:, torch.randperm(8)] * random.random())
    pair = Net(between), Net()
    torch.manual_seed(3)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    found = paripassu.check(*pair, X)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert np.array_equal(before[2], np.random.get_state()[1])
    assert "random in training mode: getitem (getitem)" in details(found, "determinism")
    assert "test_randomness.py:" in details(found, "determinism")
    assert found.verdict == "undecided"
    assert "cannot be switched off" in found.not_compared[0]


def test_a_recording_holds_what_was_drawn(tmp_path):
    out = tmp_path / "left.recording"
    paripassu.record(Net(drop, StaysOn(0.5)), X, out=out)
    assert paripassu.check(out, Net(lambda _, x: F.dropout(x, 0.5))).equal
    assert keys(paripassu.check(out, Net()))[0] == "dropout-at-inference"
    paripassu.record(Net(), X, out=tmp_path / "outputs.recording", level="outputs")
    found = paripassu.check(tmp_path / "outputs.recording", Net(drop, StaysOn(0.5)))
    assert keys(found)[0] == "dropout-at-inference"
    paripassu.record(Net(drop, nn.Dropout(0.5)), X, out=tmp_path / "other.recording")
    found = paripassu.check(tmp_path / "other.recording", Net(drop, nn.Dropout(0.4)))
    assert keys(found) == ["dropout-rate"]


def permuted(_, x):
    return x[:, torch.randperm(8)]


def test_draws_of_evaluation_that_cannot_be_shared_leave_the_rest_to_be_compared():
    found = paripassu.check(Net(permuted), Net(permuted), X)
    assert found.verdict == "undecided"
    assert "outputs on the same 3 seeds" in found.compared
    assert "test_randomness.py" in found.not_compared[0]
    other = Net(permuted)
    with torch.no_grad():
        other.b.weight *= 1.5
    (cause,) = paripassu.check(Net(permuted), other, X).causes
    assert cause.key == "weights-scaled"
    found = paripassu.check(Net(permuted), Net(lambda _, x: x.flip(1)), X)
    assert keys(found) == ["random-at-inference"]
    # Other numbers that neither has in common: the layers are all that can be told.
    pair = Net(lambda _, x: x * np.random.rand()), Net(lambda _, x: x * random.random())
    found = paripassu.check(*pair, X)
    assert (found.verdict, found.causes) == ("undecided", ())
    assert "outputs part" in details(found, "forward")


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(8, 5, 2, dropout=0.3, batch_first=True)

    def forward(self, x):
        torch.rand(3)  # and is not used
        lengths = torch.tensor([5, 3])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return self.lstm(packed)[1][0][-1]


def test_memory_that_was_never_written_and_draws_not_used_are_not_random():
    found = paripassu.check(Packed(), Packed(), STEPS)
    assert found.equal
    assert {x.state for x in found.checks} == {"holds"}


def draws(*rates, after=("a", "b", "c")):
    return [
        Draw(f"drop{n}", "dropout", rate, 8, after[n], "")
        for n, rate in enumerate(rates)
    ]


def test_dropouts_are_paired_by_the_layer_before_them():
    names = {"A": "a", "B": "b", "C": "c"}
    right = draws(0.1, 0.1, after=("A", "C"))
    (found,) = compare_dropout(draws(0.1, 0.1, 0.1), right, names)
    assert found.left.place == "drop1"
    assert found.right is None
    (found,) = compare_dropout(draws(0.1, 0.2), draws(0.1, 0.3, after="AB"), names)
    assert (found.left.rate, found.right.rate) == (0.2, 0.3)
    assert not compare_dropout(draws(0.1, 0.2), draws(0.2, 0.1), names)


@pytest.mark.slow
def test_keras_drops_as_pytorch_does():
    keras = pytest.importorskip("keras")
    tf = pytest.importorskip("tensorflow")
    L = keras.layers

    def port(between):
        def build():
            x = keras.Input((8,))
            return keras.Model(x, L.Dense(3)(between(L.Dense(8)(x))))

        return build

    @keras.saving.register_keras_serializable("tests")
    class DropPath(L.Layer):
        @tf.function
        def call(self, x, training=False):
            keep = tf.floor(0.8 + tf.random.uniform((len(x), 1), dtype=x.dtype))
            return x / 0.8 * keep if training else x

    noise = training(lambda x: x + 0.3 * torch.randn_like(x))
    pairs = {
        "dropout": ((drop, nn.Dropout(0.3)), L.Dropout(0.3), []),
        "rate": ((drop, nn.Dropout(0.3)), L.Dropout(0.2), ["dropout-rate"]),
        "alpha": ((drop, nn.AlphaDropout(0.6)), L.AlphaDropout(0.6), []),
        "path": ((training(drop_path),), L.Dropout(0.2, noise_shape=(None, 1)), []),
        "own path": ((training(drop_path),), DropPath(), []),
        "noise": ((noise,), L.GaussianNoise(0.3), []),
        "less noise": ((noise,), L.GaussianNoise(0.2), ["dropout-place"]),
        "mask": (
            (drop, nn.Dropout(0.2)),
            L.Dropout(0.2, noise_shape=(None, 1)),
            ["dropout-mask"],
        ),
        "inference": (
            (),
            lambda x: L.Dropout(0.3)(x, training=True),
            ["dropout-at-inference"],
        ),
    }
    for name, (left, between, expected) in pairs.items():
        found = paripassu.check(Net(*left), port(between), X, copy="left-to-right")
        assert (name, keys(found)) == (name, expected)
        assert found.equal == (not expected)
    # Nothing of it stays: the model draws again.
    model = port(L.Dropout(0.5))()
    paripassu.check(Net(drop, nn.Dropout(0.5)), model, X, copy="left-to-right")
    assert not np.allclose(model(X, training=True), model(X, training=True))
    assert not tf.config.functions_run_eagerly()
