"""Causes that are told in the words of the framework where they are to be mended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import paripassu
from paripassu.port_check import markdown, training_step

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
nn, L = torch.nn, keras.layers
RANDOM = np.random.default_rng(0)


pytestmark = pytest.mark.usefixtures("one_thread")


def array(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def causes(found):
    return [(x.left, x.cause.key if x.cause else "") for x in found.faults]


class Steps(nn.Module):
    """The outputs of a GRU."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.GRU(4, 5, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


def test_the_order_of_gates_is_told_as_the_right_framework_has_them():
    left = Steps()
    right = keras.Sequential([keras.Input((6, 4)), L.GRU(5, return_sequences=True)])
    names = "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"
    kernel, recurrent, *biases = (
        getattr(left.rnn, x).detach().numpy().T for x in names
    )
    right.layers[0].set_weights([kernel, recurrent, np.stack(biases)])
    found = paripassu.check(left, right, array(2, 6, 4), gradients=False)
    assert {key for _, key in causes(found)} == {"gate-order"}
    assert "order r, z, n where z, r, n is meant" in found.faults[0].cause.sentence


def test_epsilon_and_momentum_of_one_layer_are_both_told():
    left = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    right = keras.Sequential(
        [keras.Input((6,)), L.Dense(5), L.BatchNormalization(), L.ReLU(), L.Dense(3)]
    )
    found = paripassu.check(left, right, array(8, 6), copy="left-to-right")
    assert causes(found) == [("1", "epsilon"), ("1", "momentum")]


def test_slopes_of_each_place_are_told_with_shared_axes():
    left = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 4, 1))
    right = keras.Sequential(
        [keras.Input((7, 7, 3)), L.Conv2D(8, 3), L.PReLU(), L.Conv2D(4, 1)]
    )
    found = paripassu.check(
        left, right, array(2, 3, 7, 7), copy="left-to-right", gradients=False
    )
    assert causes(found)[0] == ("1", "weights-shape")
    assert "shared_axes=[1, 2]" in found.faults[0].cause.write


def test_a_loss_of_its_own_leaves_the_step_undecided(tmp_path):
    left = nn.Sequential(nn.Linear(6, 1))
    dense = L.Dense(1, kernel_regularizer=keras.regularizers.L2(3.0))
    right = keras.Sequential([keras.Input((6,)), dense])
    found = paripassu.check(left, right, array(4, 6), copy="left-to-right")
    assert found.verdict == "undecided"
    assert "L2 regularizer" in found.not_compared[0]
    found = paripassu.check(left, right, array(4, 6), gradients=False)
    assert found.verdict == "equal"
    recording = tmp_path / "right.recording"
    paripassu.record(right, array(4, 6), out=recording)
    found = paripassu.check(recording, left)
    assert found.verdict == "undecided"
    assert "L2 regularizer" in found.not_compared[0]


class Charged(L.Layer):
    """Adds a loss of what it is given."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def call(self, x):
        self.add_loss(self.rate * keras.ops.mean(x * x))
        return x

    def get_config(self):
        return {"rate": self.rate}


def regularized(second, rate=0.1):
    L2 = keras.regularizers.L2
    dense = (
        L.Dense(5, kernel_regularizer=L2(0.3)),
        L.Dense(1, kernel_regularizer=second),
    )
    return keras.Sequential([keras.Input((6,)), dense[0], Charged(rate), dense[1]])


def test_losses_that_both_models_have_are_compared():
    left, x = regularized(keras.regularizers.L2(0.2)), array(4, 6)

    def check(right):
        return paripassu.check(left, right, x, copy="left-to-right")

    found = check(regularized(keras.regularizers.L2(0.2)))
    assert found.equal, found.not_compared
    assert "losses of the models' own, and their gradients" in found.compared
    for right in (regularized(keras.regularizers.L2(0.1)), regularized(None)):
        (fault,) = check(right).faults
        assert (fault.left, fault.cause.key) == (left.layers[2].name, "regularizers")
    (fault,) = check(regularized(keras.regularizers.L2(0.2), rate=0.4)).faults
    assert (fault.left, fault.cause.key) == (left.layers[0].name, "regularizers")


class Scores(nn.Module):
    """Attention written out, its scores times a factor."""

    def __init__(self, factor):
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key, self.out = (nn.Linear(6, 6) for _ in range(3))
        self.factor = factor

    def forward(self, x):
        scores = self.query(x) @ self.key(x).mT * self.factor
        return self.out(torch.softmax(scores, -1) @ x)


class Ends(nn.Module):
    """The last step of both directions, which is the first that one of them takes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.LSTM(6, 3, batch_first=True, bidirectional=True)
        self.out = nn.Linear(6, 2)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


def test_scores_of_another_factor_and_the_wrong_step_of_two_directions():
    found = paripassu.check(Scores(6**-0.5), Scores(3**-0.5), array(2, 5, 6))
    assert {x.key for x in found.causes} == {"attention-scale"}
    layers = L.Bidirectional(L.LSTM(3)), L.Dense(2)
    right = keras.Sequential([keras.Input((5, 6)), *layers])
    found = paripassu.check(Ends(), right, array(2, 5, 6), copy="left-to-right")
    assert {x.key for x in found.causes} == {"last-step"}


class Words(nn.Module):
    """Scores of words, by the table that reads them or by another one."""

    def __init__(self, tied):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.mix = nn.Embedding(9, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 9, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, ids):
        return self.head(self.mix(self.words(ids)))


def test_a_head_that_is_not_tied_is_told():
    found = paripassu.check(
        Words(tied=True), Words(tied=False), np.arange(8).reshape(2, 4), gradients=False
    )
    assert ("head", "weights-not-shared") in causes(found)


class Backwards(nn.Module):
    """An LSTM on reversed steps, which may be put back into the order of time."""

    def __init__(self, back):
        super().__init__()
        torch.manual_seed(0)
        self.back = back
        self.rnn, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        made = self.rnn(torch.flip(x, [1]))[0]
        return self.head(torch.flip(made, [1]) if self.back else made)


def test_steps_that_come_out_reversed_are_told():
    def right():
        lstm = L.LSTM(5, return_sequences=True, go_backwards=True)
        return keras.Sequential([keras.Input((6, 4)), lstm, L.Dense(3)])

    how = {"copy": "left-to-right", "gradients": False}
    found = paripassu.check(Backwards(back=True), right, array(2, 6, 4), **how)
    assert causes(found)[0] == ("rnn", "direction")
    assert "order of the steps is reversed" in found.faults[0].cause.sentence
    found = paripassu.check(Backwards(back=False), right, array(2, 6, 4), **how)
    assert found.verdict == "equal"


class Normed(nn.Module):
    """A norm and an activation."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        x = self.norm(x)
        return torch.relu(x)


def test_places_have_the_lines_of_both_models():
    def right():
        given = keras.Input((4,))
        norm = keras.layers.LayerNormalization(epsilon=0.1)
        return keras.Model(given, keras.ops.tanh(norm(given)))

    found = paripassu.check(Normed(), right, "3,4")
    file = Path(__file__)
    lines = file.read_text().splitlines()
    told = []
    for fault in found.faults:
        for source in fault.source:
            name, _, number = source.partition(":")
            assert name == file.name
            told.append(lines[int(number) - 1].strip())
    assert told == [
        "x = self.norm(x)",
        "norm = keras.layers.LayerNormalization(epsilon=0.1)",
        "return torch.relu(x)",
        "return keras.Model(given, keras.ops.tanh(norm(given)))",
    ]
    assert f"`norm` ({found.faults[0].source[0]})" in markdown.render(found)


def test_pairs_that_are_interleaved_are_told_from_halves():
    """As a rotation of positions may have them, in either model."""

    def rotated(library, x, interleaved):
        one = x[..., 0::2] if interleaved else x[..., :4]
        two = x[..., 1::2] if interleaved else x[..., 4:]
        return library(0.8 * one - 0.6 * two)

    class Left(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(4, 3)

        def forward(self, x):
            return self.b(rotated(torch.tanh, self.a(x), interleaved=True))

    class Right(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = L.Dense(8), L.Dense(3)

        def call(self, x):
            return self.b(rotated(keras.ops.tanh, self.a(x), interleaved=False))

    found = paripassu.check(Left, Right, array(2, 6), copy="left-to-right")
    assert causes(found) == [("getitem", "interleaving")]
    assert "every second value from 0 to 7 of axis 1" in found.faults[0].cause.sentence


def test_constants_of_layers_of_ones_own_are_told_though_written_otherwise():
    """A norm's epsilon, where only one model's square is seen; angles of positions."""

    def angles(base):
        return np.outer(np.arange(5.0), base ** (-np.arange(0, 8, 2) / 8))

    class Left(nn.Module):
        def __init__(self, epsilon, base):
            super().__init__()
            torch.manual_seed(0)
            self.epsilon, self.cos = epsilon, torch.tensor(np.cos(angles(base)))
            for name in ("q", "k", "o"):
                setattr(self, name, nn.Linear(4, 4))

        def forward(self, x):
            x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon)
            turned = self.k(x)[:, None] * self.cos.to(x.dtype)
            return self.o(self.q(x) + turned[:, 0])

    class Right(keras.Model):
        def __init__(self, epsilon, base):
            super().__init__()
            self.epsilon, self.cos = epsilon, np.cos(angles(base))
            for name in ("q", "k", "o"):
                setattr(self, name, L.Dense(4))

        def call(self, x):
            mean = keras.ops.mean(keras.ops.power(x, 2), -1, keepdims=True)
            x = x * keras.ops.rsqrt(mean + self.epsilon)
            cos = keras.ops.cast(self.cos, x.dtype)[:, None]
            turned = keras.ops.expand_dims(self.k(x), 2) * cos
            return self.o(self.q(x) + turned[:, :, 0])

    given = array(2, 5, 4) / 30

    def found(epsilon, base):
        return paripassu.check(
            lambda: Left(1e-5, 1e4),
            lambda: Right(epsilon, base),
            given,
            copy="left-to-right",
            gradients=False,
        )

    assert found(1e-5, 1e4).equal
    assert [key for _, key in causes(found(1e-3, 1e4))] == ["epsilon"]
    assert [key for _, key in causes(found(1e-5, 500.0))] == ["constant"]


@pytest.mark.parametrize("kept", [0.9, 0.99])
def test_a_running_mean_that_cancels_is_rounding(kept):
    """The mean of a dense layer of normalised values is nought but for rounding."""
    torch.manual_seed(0)
    norm = {"eps": 1e-3, "momentum": 0.1}
    left = nn.Sequential(
        *(nn.Linear(6, 5), nn.BatchNorm1d(5, **norm)),
        *(nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4, **norm)),
    )
    right = keras.Sequential(
        [
            *(keras.Input((6,)), L.Dense(5), L.BatchNormalization(momentum=0.9)),
            *(L.Dense(4, use_bias=False), L.BatchNormalization(momentum=kept)),
        ]
    )
    found = paripassu.check(left, right, array(8, 6), copy="right-to-left")
    assert causes(found) == ([] if kept == 0.9 else [("3", "momentum")])


def test_a_layer_that_does_nothing_is_no_cause():
    """As `Normalization` of Keras before it has statistics; with them, it is one."""
    left = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    given = array(4, 6)
    for adapted in (False, True):
        normalize = L.Normalization()
        right = keras.Sequential(
            [
                *(keras.Input((6,)), normalize),
                *(L.Dense(5, "tanh"), L.Dense(3)),
            ]
        )
        if adapted:
            normalize.adapt(given * 3)
        found = paripassu.check(left, right, given, copy="left-to-right")
        keys = {x.key for x in found.causes}
        assert "layer-extra" in keys if adapted else keys == {"activation-kind"}


class Scaled(nn.Module):
    """Bytes to numbers up to one, and a normalised layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.dense = nn.Linear(6, 5)
        self.norm = nn.BatchNorm1d(5, eps=1e-3, momentum=0.01)

    def forward(self, x):
        return self.norm(self.dense(x / 255)).relu()


def test_statistics_of_what_rounds_to_float32_are_rounding(monkeypatch):
    """Keras' Rescaling has a factor of float32; red: where nothing is measured."""
    right = keras.Sequential(
        [
            *(keras.Input((6,)), L.Rescaling(1 / 255), L.Dense(5)),
            *(L.BatchNormalization(), L.ReLU()),
        ]
    )
    given = RANDOM.integers(0, 255, (8, 6)).astype(np.float32)
    found = paripassu.check(Scaled(), right, given, copy="right-to-left")
    assert not causes(found)
    monkeypatch.setattr(training_step, "ROUNDINGS", 0)
    found = paripassu.check(Scaled(), right, given, copy="right-to-left")
    assert causes(found) == [("norm", "statistics")]


def test_one_mistake_in_activations_of_many_layers_is_one_cause():
    left = nn.Sequential(
        *(nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 4), nn.SiLU(), nn.Linear(4, 3))
    )
    right = keras.Sequential(
        [
            *(keras.Input((6,)), L.Dense(5, "relu"), L.Dense(4), L.Activation("relu")),
            L.Dense(3),
        ]
    )
    found = paripassu.check(left, right, array(8, 6), copy="left-to-right")
    assert [(x.key, len(x.places)) for x in found.causes] == [("activation-kind", 2)]


def test_a_rounded_factor_moves_all_values_alike():
    """Over 4,096 values, what rounds each by itself would average to far less."""
    left = nn.Linear(4096, 3)
    with torch.no_grad():
        left.weight.abs_()
    right = keras.Sequential([keras.Input((4096,)), L.Rescaling(1 / 255), L.Dense(3)])
    scaled = nn.Sequential(Divided(), left)
    given = RANDOM.uniform(0, 255, (2, 4096)).astype(np.float32)
    assert paripassu.check(scaled, right, given, copy="left-to-right").equal


class Divided(nn.Module):
    """Bytes to numbers up to one."""

    def forward(self, x):
        return x / 255


class Added(nn.Module):
    """A table of positions, and a dense layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.positions = nn.Parameter(torch.randn(1, 6, 4))
        self.dense = nn.Linear(4, 3)

    def forward(self, x):
        return self.dense(x + self.positions)


class Kept(L.Layer):
    """The same beside the table as it was read, unused, as keras-hub's DINOv2."""

    def build(self, shape):
        given = {"shape": (1, *shape[1:]), "initializer": "random_normal"}
        self.positions = self.add_weight(**given, trainable=False, name="positions")
        self.resized = self.add_weight(**given, name="resized")
        self.resized.assign(self.positions)

    def call(self, x):
        return x + self.resized


def test_a_frozen_weight_that_nothing_uses_is_no_partner():
    layers = Kept(name="kept"), L.Dense(3, name="dense")
    right = keras.Sequential([keras.Input((6, 4)), *layers])
    found = paripassu.check(Added(), right, array(2, 6, 4), copy="left-to-right")
    pairs = {x.left: x.right for x in found.pairs if x.left}
    assert pairs == {"positions": "kept.resized", "dense": "dense"}
    assert found.equal  # on other inputs, too, which float32 would round


class Towers(nn.Module):
    """An image and a text, each with two layers of its own, of the same shapes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        kinds = {"vision": nn.Tanh(), "text": nn.ReLU()}
        for name, activation in kinds.items():
            layers = nn.Linear(4, 4), activation, nn.Linear(4, 4)
            setattr(self, f"{name}_model", nn.Sequential(*layers))

    def forward(self, image, text):
        return self.vision_model(image) * self.text_model(text)


def test_layers_of_towers_are_told_apart_by_their_names():
    """The same layers in both: the text's come first in Keras."""
    text, image = (keras.Input((4,), name=x) for x in ("text", "image"))
    made = {}
    for name, x, activation in (("text", text, "relu"), ("vision", image, "tanh")):
        first = L.Dense(4, activation, name=f"{name}_encoder_dense_1")
        made[name] = L.Dense(4, name=f"{name}_encoder_dense_2")(first(x))
    output = L.Multiply()([made["text"], made["vision"]])
    right = keras.Model({"text": text, "image": image}, output)
    given = {"image": array(3, 4), "text": array(3, 4)}
    found = paripassu.check(
        Towers(), right, given, copy="left-to-right", gradients=False
    )
    assert {x.left: x.right for x in found.pairs} == {
        "vision_model.0": "vision_encoder_dense_1",
        "vision_model.2": "vision_encoder_dense_2",
        "text_model.0": "text_encoder_dense_1",
        "text_model.2": "text_encoder_dense_2",
    }
    assert not found.faults
