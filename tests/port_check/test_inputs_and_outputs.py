"""Pairs that take and return what people's models do: dicts, caches, images, states."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

import paripassu
from paripassu.core.errors import UserError
from paripassu.core.layer_spec import relative_error

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
if keras.config.backend() != "tensorflow":
    pytest.skip("Keras computes with another backend", allow_module_level=True)
nn, layers, ops = torch.nn, keras.layers, keras.ops


@dataclass
class Result:
    """As models of transformers return it, with what is no tensor."""

    last_hidden_state: object
    past_key_values: object = None
    attentions: object = None


class Left(nn.Module):
    """Two linear layers; `give` makes what is returned, of x, h and y."""

    def __init__(self, give):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.give = nn.Linear(4, 6), nn.Linear(6, 3), give

    def forward(self, x):
        hidden = self.a(x)
        return self.give(SimpleNamespace(x=x, h=hidden, y=self.b(hidden)))


class Right(keras.Model):
    """The same."""

    def __init__(self, give):
        super().__init__()
        self.a, self.b, self.give = layers.Dense(6), layers.Dense(3), give

    def call(self, x):
        hidden = self.a(x)
        return self.give(SimpleNamespace(x=x, h=hidden, y=self.b(hidden)))


def check(left, right, inputs="2,4", **how):
    return paripassu.check(left, right, inputs, copy="left-to-right", **how)


def of_pair(left, right, **how):
    return check(lambda: Left(left), lambda: Right(right), **how)


def compared(found):
    return {x.left: x.right for x in found.output_pairs if x.left and x.right}


def test_nests_are_compared_by_name_and_the_rest_is_said():
    found = of_pair(
        lambda m: Result(m.h, SimpleNamespace(layers=[m.h, (m.y, None)])),
        lambda m: {"sequence_output": m.h},
    )
    assert found.equal
    assert compared(found) == {"last_hidden_state": "sequence_output"}
    alone = {x.left for x in found.output_pairs if x.right is None}
    assert alone == {"past_key_values.layers.0", "past_key_values.layers.1.0"}
    assert any("past_key_values (2 arrays)" in x for x in found.notes)


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (lambda m: (m.y, m.y.argmax(-1), m.y > 0), None, True),
        (lambda m: m.y.mean(), lambda m: ops.mean(m.y), True),
        (lambda m: m.y.mean(), lambda m: ops.sum(m.y), False),
        (lambda m: m.x, lambda m: m.x, True),
        (lambda m: (m.y, (m.h, None)), lambda m: (m.y, m.h + 1), False),
        (lambda m: (m.y, m.h), lambda m: (m.y, m.h[:, :2]), False),
        (lambda m: m.y.mean(1), lambda m: ops.mean(m.y, 1)[:, None], False),
    ],
)
def test_any_outputs_end_in_a_verdict(left, right, equal):
    def same(m):
        return m.y, ops.argmax(m.y, -1), m.y > 0

    found = of_pair(left, right or same)
    assert found.equal == equal
    assert bool(found.faults) != equal


def test_the_output_that_is_meant():
    left = lambda m: {"logits": m.y, "hidden": m.h}  # noqa: E731
    right = lambda m: (m.h + 1, m.y)  # noqa: E731
    assert not of_pair(left, right).equal
    assert of_pair(left, right, outputs="logits").equal
    assert not of_pair(left, right, outputs={"hidden": "output"}).equal
    named = lambda m: {"logits": m.y, "box": m.h[:, :2]}  # noqa: E731
    assert of_pair(left, named).verdict == "undecided"
    with pytest.raises(UserError, match="boxes"):
        of_pair(left, right, outputs=["boxes"])


class Words(nn.Module):
    """Takes ids and a mask."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.fc = nn.Embedding(20, 4), nn.Linear(4, 2)

    def forward(self, input_ids=None, attention_mask=None, **more):
        del more  # as of transformers, where a wrong name would go unseen
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return self.fc((self.table(input_ids) * mask[..., None]).sum(1))


def words(*more):
    """The same, with its inputs by name: Keras sorts them, the mask first."""
    names = ("token_ids", "padding_mask", *more)
    given = {x: keras.Input((6,), dtype="int32", name=x) for x in names}
    x = layers.Embedding(20, 4)(given["token_ids"])
    x = x * ops.expand_dims(ops.cast(given["padding_mask"], x.dtype), -1)
    return keras.Model(given, layers.Dense(2)(ops.sum(x, axis=1)))


class WordsOfDict(keras.Model):
    """The same, subclassed, with a dict."""

    def __init__(self):
        super().__init__()
        self.table, self.fc = layers.Embedding(20, 4), layers.Dense(2)

    def call(self, inputs, **more):
        del more
        mask = ops.cast(inputs["mask"], "float32")[..., None]
        x = self.table(inputs["ids"])
        return self.fc(ops.sum(x * ops.cast(mask, x.dtype), axis=1))


class WordsOfList(WordsOfDict):
    """The same, with a list."""

    def call(self, inputs):
        ids, mask = inputs
        return super().call({"ids": ids, "mask": mask})


def some_words():
    mask = np.ones((2, 6), np.int64)
    mask[0, 4:] = 0
    ids = np.random.default_rng(0).integers(0, 20, (2, 6))
    return {"input_ids": ids, "attention_mask": mask}


def test_inputs_go_where_their_names_say():
    found = check(Words, words, some_words())
    assert found.equal
    pairs = {(x.left, x.right) for x in found.input_pairs}
    assert pairs == {("input_ids", "token_ids"), ("attention_mask", "padding_mask")}
    found = check(Words, lambda: words("segment_ids"), some_words())
    assert found.equal
    assert any("segment_ids" in x and "zeros" in x for x in found.notes)
    assert paripassu.check(
        words,
        Words,
        {"token_ids": some_words()["input_ids"]},
        copy="left-to-right",
    ).equal
    named = ["input_ids=ids", "attention_mask=mask"]
    assert check(Words, WordsOfDict, some_words(), pairs=named).equal
    found = check(Words, WordsOfList, some_words())
    assert found.equal
    assert any("in this order: input_ids, attention_mask" in x for x in found.notes)
    crossed = ["input_ids=padding_mask", "attention_mask=token_ids"]
    assert not check(Words, words, some_words(), pairs=crossed).equal


def image(order="channels_last", size=(8, 6)):
    """Convolutions, a norm and a pool in Keras."""
    first = order == "channels_first"
    x = given = keras.Input((3, *size) if first else (*size, 3))
    x = layers.Conv2D(4, 3, padding="same", data_format=order)(x)
    x = layers.BatchNormalization(axis=1 if first else -1, epsilon=1e-5, momentum=0.9)(
        x
    )
    x = layers.MaxPooling2D(data_format=order)(layers.ReLU()(x))
    return keras.Model(given, layers.DepthwiseConv2D(2, data_format=order)(x))


def torch_image():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 2, groups=4),
    )


def test_channels_are_where_each_model_has_them():
    first = lambda: image("channels_first")  # noqa: E731
    assert check(image, torch_image, None).equal
    assert check(torch_image, first, "2,3,8,6").equal
    assert check(first, torch_image, None).equal
    as_wide = lambda: image("channels_first", (8, 4))  # noqa: E731
    found = check(torch_image, as_wide, "2,3,8,4")
    assert [x.key for x in found.causes] == ["bias-axis"]


def test_groups_have_gradients_on_a_cpu():
    def grouped():
        return keras.Sequential(
            [
                keras.Input((9, 8, 4)),
                layers.Conv2D(6, 3, groups=2, strides=(2, 1)),
                layers.Conv2D(12, 3, groups=6, padding="same"),
            ]
        )

    def of_torch():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(4, 6, 3, groups=2, stride=(2, 1)),
            nn.Conv2d(6, 12, 3, groups=6, padding=1),
        )

    assert check(of_torch, grouped, "2,4,9,8").equal


def test_pools_of_three_axes_compute_in_float64_on_a_cpu():
    def pooled():
        return keras.Sequential(
            [
                keras.Input((4, 7, 6, 3)),
                layers.Conv3D(4, 1, activation="relu"),
                layers.MaxPooling3D((1, 3, 2), (1, 2, 2), padding="same"),
                layers.AveragePooling3D(2, (2, 1, 1)),
            ]
        )

    def of_torch(average=nn.AvgPool3d(2, (2, 1, 1))):  # noqa: B008
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv3d(3, 4, 1),
            nn.ReLU(),
            nn.MaxPool3d((1, 3, 2), (1, 2, 2), padding=(0, 1, 0)),
            average,
        )

    found = check(of_torch, pooled, "2,3,4,7,6")
    assert found.equal
    assert not any("float64" in x for x in found.notes)
    other = lambda: of_torch(nn.MaxPool3d(2, (2, 1, 1)))  # noqa: E731
    assert [x.key for x in check(other, pooled, "2,3,4,7,6").causes] == ["pool-kind"]


def test_a_variable_may_be_what_a_layer_is_given():
    class Placed(keras.Model):
        """Positions are a variable, as in the vision towers of keras-hub."""

        def __init__(self):
            super().__init__()
            self.dense, self.table = layers.Dense(4), layers.Embedding(3, 4)
            self.places = self.add_weight(
                shape=(3,), initializer="ones", dtype="int32", trainable=False
            )
            self.places.assign(np.arange(3))

        def call(self, x):
            return self.dense(x) + self.table(self.places)

    class OfTorch(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.dense, self.table = nn.Linear(4, 4), nn.Embedding(3, 4)

        def forward(self, x):
            return self.dense(x) + self.table(torch.arange(3))

    found = check(OfTorch, Placed, "2,3,4")
    assert found.equal
    assert not any("error of paripassu" in x for x in found.not_compared)


def test_where_both_arrangements_run_the_one_that_agrees_counts():
    class Turned(nn.Module):
        """Takes and gives channels last."""

        def __init__(self, order=(0, 3, 1, 2)):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.order = nn.Conv2d(3, 3, 1), order

        def forward(self, x):
            return self.conv(x.permute(*self.order)).permute(0, 2, 3, 1)

    def conv():
        return keras.Sequential([keras.Input((3, 3, 3)), layers.Conv2D(3, 1)])

    assert check(lambda: nn.Conv2d(3, 3, 1), conv, "2,3,3,3").equal
    assert check(conv, lambda: nn.Conv2d(3, 3, 1), None).equal
    found = check(conv, Turned, None)
    assert found.equal
    assert any("either axis" in x for x in found.notes)
    assert not check(conv, lambda: Turned((0, 2, 3, 1)), None).equal


def test_a_transposed_map_is_a_fault():
    class Maps(nn.Module):
        def __init__(self, turned=False):
            super().__init__()
            torch.manual_seed(0)
            self.q, self.turned = nn.Linear(6, 6), turned

        def forward(self, x):
            maps = (self.q(x) @ x.transpose(1, 2)).softmax(-1)
            return maps.transpose(1, 2) if self.turned else maps

    class KerasMaps(keras.Model):
        def __init__(self, turned):
            super().__init__()
            self.q, self.turned = layers.Dense(6), turned

        def call(self, x):
            maps = ops.softmax(ops.matmul(self.q(x), ops.transpose(x, (0, 2, 1))))
            return ops.transpose(maps, (0, 2, 1)) if self.turned else maps

    assert not check(Maps, lambda: Maps(turned=True), "2,7,6").equal
    found = check(Maps, lambda: KerasMaps(turned=True), "2,7,6")
    assert found.faults[0].cause is not None
    assert found.faults[0].cause.key == "axis"
    assert check(Maps, lambda: KerasMaps(turned=False), "2,7,6").equal


def test_signals_move_and_sequences_stay():
    class Sound(nn.Module):
        """A convolution of a signal, then a sequence of features, as in Whisper."""

        def __init__(self, *, features):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.fc = nn.Conv1d(3, 6, 3), nn.Linear(6, 4)
            self.features = features

        def forward(self, x):
            x = torch.relu(self.conv(x))
            return self.fc(x.transpose(1, 2)) if self.features else x

    def sound(*, features, turned):
        x = given = keras.Input((9, 3))
        x = layers.Conv1D(6, 3, activation="relu")(x)
        x = layers.Dense(4)(x) if features else x
        return keras.Model(given, layers.Permute((2, 1))(x) if turned else x)

    for features, turned in ((True, False), (True, True), (False, False)):
        left = lambda: Sound(features=features)  # noqa: B023, E731
        right = lambda: sound(features=features, turned=turned)  # noqa: B023, E731
        assert check(left, right, "2,3,9").equal is not turned


def test_an_output_without_values_decides_nothing():
    found = of_pair(lambda m: m.y[:0], lambda m: m.y[:0])
    assert found.verdict == "undecided"


def test_an_error_of_ours_is_not_told_as_the_users(monkeypatch):
    def fail(*_):
        raise TypeError("ours")

    monkeypatch.setattr("paripassu.port_check.align.Comparer.__call__", fail)
    found = of_pair(lambda m: m.y, lambda m: m.h)
    assert found.verdict != "equal"
    assert any("paripassu's own" in x for x in found.not_compared)


def test_shapes_that_are_broadcast_are_the_cause():
    class Loss(nn.Module):
        def __init__(self, flat):
            super().__init__()
            torch.manual_seed(0)
            self.fc, self.flat = nn.Linear(4, 1), flat

        def forward(self, x, y):
            out = self.fc(x)
            return ((out.flatten() if self.flat else out) - y).square().mean()

    inputs = {"x": np.ones((5, 4), np.float32), "y": np.arange(5, dtype=np.float32)}
    inputs["x"] *= np.arange(5, dtype=np.float32)[:, None]
    found = paripassu.check(lambda: Loss(flat=True), lambda: Loss(flat=False), inputs)
    assert not found.equal
    assert found.faults[0].cause is not None
    assert found.faults[0].cause.key == "broadcast"
    assert "(5, 5)" in found.faults[0].cause.sentence


def test_other_number_types_and_changes_in_place():
    def half():
        return torch_image().to(torch.bfloat16)

    found = check(half, image, "2,3,8,6")
    assert found.equal
    assert any("bfloat16" in x for x in found.notes)
    model = half()
    paripassu.check(model, model, "2,3,8,6")
    assert {x.dtype for x in model.parameters()} == {torch.bfloat16}

    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(x.mul_(2))

    given = np.ones((2, 4), np.float32)
    assert paripassu.check(InPlace, InPlace, given).equal
    assert (given == 1).all()
    assert relative_error(np.array([1 + 1j]), np.array([1 - 1j])) > 1
    assert relative_error(np.array([b"a"]), np.array([b"b"])) == np.inf


def test_a_crash_of_the_users_model_is_told_once():
    class Wrong(nn.Module):
        def forward(self, x):
            raise RuntimeError("mine", x)

    with pytest.raises(UserError, match=r"^left model \(.*Wrong\) raised Run") as told:
        paripassu.check(Wrong, Wrong, "2,4")
    assert str(told.value).count("left") == 1
    assert "mine" in str(told.value)
