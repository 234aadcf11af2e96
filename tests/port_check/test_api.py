"""`paripassu.check` and `assert_equivalent` on small models, one fault of each kind."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import paripassu
from paripassu.port_check import page

torch = pytest.importorskip("torch")
nn = torch.nn


pytestmark = pytest.mark.usefixtures("one_thread")


class Image(nn.Module):
    """A convolution, BatchNorm, an activation, a pool and a dense layer."""

    def __init__(
        self,
        *,
        epsilon=1e-5,
        momentum=0.1,
        padding=1,
        bias=True,
        activation=None,
        pool=None,
        activation_first=False,
        extra=None,
        detach=False,
        outputs=5,
    ):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=padding)
        self.norm = nn.BatchNorm2d(4, eps=epsilon, momentum=momentum)
        self.norm.running_mean.uniform_(-0.5, 0.5)
        self.norm.running_var.uniform_(0.5, 2)
        self.activation = activation or nn.ReLU()
        self.pool = pool or nn.MaxPool2d(2)
        self.dense = nn.LazyLinear(outputs, bias=bias)
        self.extra = extra or nn.Identity()
        self.activation_first, self.detach = activation_first, detach
        with torch.no_grad():
            self.eval()(torch.zeros(1, 3, 8, 8))

    def forward(self, x):
        x = self.conv(x)
        if self.detach:
            x = x.detach()
        if self.activation_first:
            x = self.norm(self.activation(x))
        else:
            x = self.activation(self.norm(x))
        x = self.pool(x)
        return self.extra(self.dense(torch.flatten(x, 1)))


class Text(nn.Module):
    """An embedding, LayerNorm, an LSTM and logits by the embedding's own table."""

    def __init__(self, *, epsilon=1e-5, tied=True, last=True, cell=nn.LSTM):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(11, 6)
        self.norm = nn.LayerNorm(6, eps=epsilon)
        self.lstm = cell(6, 6, batch_first=True)
        self.logits = nn.Linear(6, 11, bias=False)
        self.logits.weight = (
            self.embedding.weight
            if tied
            else nn.Parameter(self.embedding.weight.detach().clone())
        )
        self.last = last

    def forward(self, x):
        steps, _ = self.lstm(self.norm(self.embedding(x)))
        return self.logits(steps[:, -1] if self.last else steps.mean(1))


def changed(model, change):
    """The model after `change`, which is given it, has written its weights."""
    with torch.no_grad():
        change(model.eval())
    return model


def transpose_gate(model):
    """Write the recurrent matrices of an LSTM without transposing them."""
    weight = model.lstm.weight_hh_l0
    weight.copy_(torch.cat([x.T for x in weight.chunk(4)]))


def exchange_gates(model):
    """Write the gates i, f, g, o in the order i, g, f, o."""
    for weight in model.lstm.parameters():
        i, f, g, o = weight.chunk(4)
        weight.copy_(torch.cat([i, g, f, o]))


def forget_statistics(model):
    model.norm.running_mean.zero_()
    model.norm.running_var.fill_(1)


def transpose_kernel(model):
    weight = model.conv.weight
    weight.copy_(weight.transpose(2, 3).clone())


def image(**settings):
    return Image(**settings).eval()


def text(**settings):
    return Text(**settings).eval()


PIXELS = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).numpy()
TOKENS = torch.arange(14).reshape(2, 7).remainder(11).numpy()

# What is wrong with the right model, the first place that is named, and the cause.
FAULTS = {
    "epsilon": (image, {"epsilon": 1e-3}, "norm", "epsilon"),
    "momentum": (image, {"momentum": 0.01}, "norm", "momentum"),
    "padding": (image, {"padding": 0}, "conv", "padding"),
    "no bias": (image, {"bias": False}, "dense", "bias-missing"),
    "activation": (image, {"activation": nn.GELU()}, "activation", "activation-kind"),
    "none": (
        *(image, {"activation": nn.Identity()}),
        *("activation", "activation-missing"),
    ),
    "pool": (image, {"pool": nn.AvgPool2d(2)}, "pool", "pool-kind"),
    "order": (image, {"activation_first": True}, "activation", "layer-order"),
    "extra": (image, {"extra": nn.Linear(5, 5)}, "extra", "layer-extra"),
    "function": (image, {"extra": nn.Tanh()}, "extra", "activation-extra"),
    "detached": (image, {"detach": True}, "conv", "stop-gradient"),
    "shapes": (image, {"outputs": 6}, "dense", "weights-shape"),
    "layer norm": (text, {"epsilon": 1e-3}, "norm", "epsilon"),
    "last step": (text, {"last": False}, "mean", "last-step"),
    "untied": (text, {"tied": False}, "logits", "layer-extra"),
    "cell": (text, {"cell": nn.GRU}, "lstm", "layer-kind"),
    "statistics": (image, forget_statistics, "norm", "statistics-not-copied"),
    "transposed": (image, transpose_kernel, "conv", "kernel-axes"),
    "gates transposed": (text, transpose_gate, "lstm", "kernel-transposed"),
    "gate order": (text, exchange_gates, "lstm", "gate-order"),
}


def inputs_of(build):
    return PIXELS if build is image else TOKENS


@pytest.mark.parametrize("build", [image, text])
def test_equal_models_are_equal(build):
    found = paripassu.check(build(), build(), inputs_of(build))
    assert found.equal
    assert not found.faults
    assert {x.state for x in found.checks} == {"holds"}
    names = {x.name for x in found.checks}
    assert names >= {"layers", "weights", "forward, float64", "gradients, float64"}
    assert paripassu.assert_equivalent(build(), build(), inputs_of(build)) is None


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_with_its_place_and_cause(name):
    build, fault, place, cause = FAULTS[name]
    right = changed(build(), fault) if callable(fault) else build(**fault)
    found = paripassu.check(build(), right, inputs_of(build))
    assert not found.equal
    first = found.faults[0]
    assert place in f"{first.left} {first.right}".split()
    assert first.cause.key == cause
    html = page.render(found)
    assert cause in html
    assert "Not equal: " in html


def test_the_error_says_where_and_why():
    with pytest.raises(paripassu.NotEquivalent) as caught:
        paripassu.assert_equivalent(image(), image(epsilon=1e-3), PIXELS)
    assert isinstance(caught.value, AssertionError)
    assert isinstance(caught.value, paripassu.PariPassuError)
    message = str(caught.value)
    assert re.search(r"at norm \(test_api.py:\d+\) / norm \(test_api", message)
    assert "epsilon: left 1e-05, right 0.001" in message
    assert caught.value.checked.faults[0].left == "norm"


def test_both_verbs_take_the_same():
    check, equivalent = paripassu.check, paripassu.assert_equivalent
    taken = [inspect.signature(x).parameters for x in (check, equivalent)]
    assert taken[0] == taken[1]
    assert list(taken[0]) == [
        "left",
        "right",
        "inputs",
        "copy",
        "block_map",
        "gradients",
        "pairs",
        "outputs",
        "accept",
    ]


@pytest.mark.parametrize(
    ("direction", "changes"), [("left-to-right", 1), ("right-to-left", 0)]
)
def test_weights_are_copied_to_the_model_that_is_said(direction, changes):
    pair = [image(), changed(image(), forget_statistics)]
    pair[1].conv.weight.data.normal_()
    before = [x.conv.weight.detach().clone() for x in pair]
    found = paripassu.check(*pair, PIXELS, copy=direction)
    assert found.equal
    assert found.copied == direction
    same = [torch.equal(x.conv.weight, y) for x, y in zip(pair, before, strict=True)]
    assert same == [changes == 1, changes == 0]
    assert pair[changes].conv.weight.dtype == torch.float32


def test_a_check_leaves_the_models_as_they_were():
    pair = [image(), image(epsilon=1e-3)]
    before = [{k: v.clone() for k, v in x.state_dict().items()} for x in pair]
    paripassu.check(*pair, PIXELS)
    for model, weights in zip(pair, before, strict=True):
        for name, value in model.state_dict().items():
            assert torch.equal(value, weights[name])


def twins():
    torch.manual_seed(0)
    return nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})


class Branches(nn.Module):
    def __init__(self, *, exchanged=False):
        super().__init__()
        self.parts, self.exchanged = twins(), exchanged

    def forward(self, x):
        first, second = ("b", "a") if self.exchanged else ("a", "b")
        return self.parts[second](torch.relu(self.parts[first](x)))


def test_a_map_of_blocks_is_not_questioned():
    x = np.ones((2, 4), np.float32)
    given = {"parts.a": "parts.b", "parts.b": "parts.a"}
    found = paripassu.check(Branches(), Branches(), x, block_map=given)
    assert {p.left: p.right for p in found.pairs} == given
    assert {p.why for p in found.pairs} == {"the map"}
    assert not found.equal
    with pytest.raises(paripassu.UserError, match=r"'parts\.c', which the left"):
        paripassu.check(Branches(), Branches(), x, block_map={"parts.c": "parts.a"})


def test_gradients_can_be_left_out():
    right = image(detach=True)
    assert paripassu.check(image(), right, PIXELS, gradients=False).equal


@pytest.mark.parametrize(
    ("left", "right", "inputs", "more", "message"),
    [
        (image, image, np.zeros((2, 5, 8, 8), np.float32), {}, "^left model raised"),
        (image, image, None, {}, "--input is missing"),
        (image, image, "1,x", {}, "'1,x' is not understood"),
        (image, image, {"x": "1,x"}, {}, "'x=1,x' is not understood"),
        (image, image, ["1,3,8,8", PIXELS], {}, "both arrays and texts"),
        (image, image, [["a"]], {}, "an array of <U1, but one of numbers is expected"),
        (image, image, PIXELS, {"copy": "both"}, "copy is 'both', but one of"),
        (image, lambda: 7, PIXELS, {}, "right is a int.*keras.Model"),
        (image, lambda: lambda: 1 / 0, PIXELS, {}, "raised ZeroDivisionError"),
    ],
)
def test_what_cannot_be_checked_is_refused(left, right, inputs, more, message):
    with pytest.raises(paripassu.UserError, match=message):
        paripassu.check(left(), right(), inputs, **more)


class Product(nn.Module):
    """Two inputs, of which the second counts twice."""

    def forward(self, one, two):
        return one * two * two


@pytest.mark.parametrize(
    "inputs",
    [
        ["2,4", "2,4"],
        {"one": "2,4", "two": "2,4"},
        (np.full((2, 4), 2.0), np.full((2, 4), 3.0)),
        [torch.ones(2, 4), np.ones((2, 4))],
    ],
)
def test_several_inputs_in_a_list_or_dict(inputs):
    found = paripassu.check(Product(), Product(), inputs)
    assert found.equal
    assert not found.notes


# One process for all cases: it takes longer to load TensorFlow than to check them.
BESIDE_KERAS = """
import json, sys
import numpy as np
import torch
from torch import nn
import keras
from keras import layers
import paripassu

torch.set_num_threads(1)


class Source(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.dense = nn.Linear(64, 5)

    def forward(self, x):
        return self.dense(torch.flatten(torch.relu(self.norm(self.conv(x))), 1))


def port(*, epsilon=1e-5, momentum=0.9, same=False, permuted=True, act="relu"):
    x = inputs = keras.Input((8, 8, 3))
    if not same:
        x = layers.ZeroPadding2D(1)(x)
    padding = "same" if same else "valid"
    x = layers.Conv2D(4, 3, strides=2, padding=padding, name="conv")(x)
    x = layers.BatchNormalization(epsilon=epsilon, momentum=momentum, name="norm")(x)
    x = layers.Activation(act, name="act")(x)
    if permuted:
        x = layers.Permute((3, 1, 2))(x)
    return keras.Model(inputs, layers.Dense(5, name="dense")(layers.Flatten()(x)))


x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
found = {}
for name, settings in {
    "right": {},
    "flattened channels last": {"permuted": False},
    "epsilon": {"epsilon": 1e-3},
    "momentum": {"momentum": 0.99},
    "same": {"same": True},
    "activation": {"act": "gelu"},
}.items():
    result = paripassu.check(Source(), port(**settings), x, copy="left-to-right")
    first = result.faults[0] if result.faults else None
    found[name] = [result.equal, first and first.right, first and first.cause.key]
back = paripassu.check(Source(), port(), x, copy="right-to-left")
found["right to left"] = [back.equal, back.copied, None]
print("@@" + json.dumps(found))
"""


def test_a_port_to_keras(tmp_path):
    pytest.importorskip("tensorflow")
    script = tmp_path / "beside_keras.py"
    script.write_text(BESIDE_KERAS)
    result = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    line = next(x for x in result.stdout.splitlines() if x.startswith("@@"))
    assert json.loads(line.removeprefix("@@")) == {
        "right": [True, None, None],
        "flattened channels last": [True, None, None],
        "epsilon": [False, "norm", "epsilon"],
        "momentum": [False, "norm", "momentum"],
        "same": [False, "conv", "padding"],
        "activation": [False, "act", "activation-kind"],
        "right to left": [True, "right-to-left", None],
    }
