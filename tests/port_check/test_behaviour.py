"""The verdict is what models compute; how they are written only explains it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

import paripassu
from paripassu.port_check import examine, markdown
from paripassu.port_check.tolerance import ROUNDED
from paripassu.sides.registry import float32_kinds
from paripassu.terminal.port_check import checked_view

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
RANDOM = np.random.default_rng(0)


pytestmark = pytest.mark.usefixtures("one_thread")


def array(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


class Net(nn.Module):
    """Some layers of the same weights each time, and what a test computes with them."""

    def __init__(self, compute, **layers):
        super().__init__()
        torch.manual_seed(0)
        self.compute = compute
        for name, make in layers.items():
            setattr(self, name, make())
        self.eval()

    def forward(self, *inputs):
        return self.compute(self, *inputs)


def check(left, right, inputs, **more):
    return paripassu.check(left, right, inputs, **more)


def dense():
    return nn.Linear(6, 6)


def conv(padding):
    return lambda: nn.Conv2d(3, 4, 3, padding=padding)


def point():
    return nn.Conv2d(4, 2, 1)


IMAGES, ROWS = array(2, 3, 8, 8), array(4, 6)
PAIR = {"input": array(4, 6), "input1": array(4, 6)}
# Two ways to write the same function: left, right, inputs.
SAME = {
    "padded by a function": (
        Net(lambda n, x: n.b(n.a(F.pad(x, (1, 1, 1, 1)))), a=conv(0), b=point),
        Net(lambda n, x: n.b(n.a(x)), a=conv(1), b=point),
        IMAGES,
    ),
    "shared layer called in another order": (
        Net(lambda n, x, y: torch.tanh(n.a(x)) - torch.sigmoid(n.a(y)), a=dense),
        Net(lambda n, x, y: -torch.sigmoid(n.a(y)) + torch.tanh(n.a(x)), a=dense),
        PAIR,
    ),
    "branches computed in another order": (
        Net(lambda n, x: n.a(x) + torch.relu(n.b(x)), a=dense, b=dense),
        Net(lambda n, x: torch.relu(n.b(x)) + n.a(x), a=dense, b=dense),
        ROWS,
    ),
    "a layer that nothing uses": (
        Net(lambda n, x: n.a(x), a=dense),
        Net(lambda n, x: n.a(x), a=dense, spare=lambda: nn.Linear(3, 3)),
        ROWS,
    ),
    "a layer whose result nothing uses": (
        Net(lambda n, x: n.a(x), a=dense),
        Net(lambda n, x: (n.spare(x), n.a(x))[1], a=dense, spare=dense),
        ROWS,
    ),
    "an activation that changes nothing here": (
        Net(lambda n, x: n.a(torch.relu(x)), a=dense),
        Net(lambda n, x: n.a(torch.relu(torch.relu(x))), a=dense),
        ROWS,
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_what_computes_the_same_is_equal(name):
    left, right, inputs = SAME[name]
    for pair in ((left, right), (right, left)):
        found = check(*pair, inputs)
        assert found.verdict == "equal", [str(x) for x in found.causes]
        assert not found.faults
        assert found.compared


def normed(epsilon, gamma):
    def norm():
        layer = nn.LayerNorm(6, eps=epsilon)
        nn.init.constant_(layer.weight, gamma)
        return layer

    return norm


def test_a_difference_that_is_multiplied_by_zero_is_none_the_less_one():
    """Residual branches often begin with zeros; outputs agree until they are not."""

    def net(epsilon):
        return Net(lambda n, x: x + n.norm(n.a(x)), a=dense, norm=normed(epsilon, 0.0))

    x = ROWS
    left, right = net(1e-5), net(1e-1)
    with torch.no_grad():
        assert torch.equal(left(torch.tensor(x)), right(torch.tensor(x)))
    found = check(left, right, x)
    assert found.verdict == "differs"
    assert check(left, net(1e-5), x).equal


def test_a_small_difference_is_not_float32_where_nothing_is_of_float32():
    def net(epsilon):
        return Net(
            lambda n, x: n.b(n.norm(n.a(x))), a=dense, norm=normed(epsilon, 1), b=dense
        )

    found = check(net(1e-12), net(1e-8), ROWS)
    assert found.verdict == "differs"
    assert found.faults[0].size < ROUNDED
    assert found.faults[0].left == "norm"
    assert found.faults[0].cause.key == "epsilon"


def rms(x, epsilon=1e-6):
    """RMSNorm as language models have it: in float32 whatever they compute in."""
    y = x.float()
    return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + epsilon)).to(x.dtype)


def exact(x, epsilon=1e-6):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)


def sines(x, dtype=None):
    """A table of positions, computed in a float type and used in that of x."""
    steps = torch.arange(7, dtype=dtype or x.dtype)
    return torch.sin(torch.outer(steps[:4], steps[1:] / 7)).to(x.dtype)


def test_what_computes_in_float32_is_named_and_measured():
    left = Net(lambda n, x: n.b(rms(n.a(x))), a=dense, b=dense)
    right = Net(lambda n, x: n.b(exact(n.a(x))), a=dense, b=dense)
    found = check(left, right, ROWS)
    assert found.equal, [str(x) for x in found.causes]
    (note,) = [x for x in found.notes if "float32 is used even in float64" in x]
    assert "(left): computes in float32" in note
    # A fault beside it is larger than what it rounds, and is found.
    wrong = Net(lambda n, x: n.b(exact(n.a(x), 1e-3)), a=dense, b=dense)
    assert check(left, wrong, ROWS).verdict == "differs"


def test_a_constant_of_float32_is_named():
    def net(dtype, offset=0.0):
        return Net(
            lambda n, x: n.b(n.a(x) + (sines(x, dtype) + offset)), a=dense, b=dense
        )

    found = check(net(torch.float32), net(None), ROWS)
    assert found.equal, [str(x) for x in found.causes]
    assert any("has a constant of float32" in x for x in found.notes)
    wrong = check(net(torch.float32), net(None, 1e-5), ROWS)
    assert wrong.verdict == "differs"
    # Where no constant is of float32, nothing of its size passes.
    assert check(net(None), net(None, 1e-8), ROWS).verdict == "differs"


def test_the_gradient_of_hard_sigmoid_has_a_constant_of_float32():
    """1 / 6, in PyTorch: the table that says so is measured here, both ways."""
    x = torch.linspace(-2.9, 2.9, 9, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(F.hardsigmoid(x).sum(), x)
    error = (gradient - 1 / 6).abs().max().item() * 6
    assert 1e-9 < error < ROUNDED
    assert float32_kinds("pytorch") == ((), ("hard_sigmoid",))
    left = Net(lambda n, x: n.b(F.hardsigmoid(n.a(x))), a=dense, b=dense)
    right = Net(lambda n, x: n.b((n.a(x) / 6 + 0.5).clamp(0, 1)), a=dense, b=dense)
    found = check(left, right, ROWS)
    assert found.equal, [str(x) for x in found.causes]
    assert any("its gradient's constant" in x for x in found.notes)


ORDER = [3, 0, 5, 1, 4, 2]


class Shuffled(nn.Module):
    """The dense layers a and b, the rows of a in two layers, in an order of its own."""

    def __init__(self, *, stop):
        super().__init__()
        torch.manual_seed(0)
        whole, self.stop = dense(), stop
        self.b = dense()
        self.first, self.second = nn.Linear(6, 3), nn.Linear(6, 3)
        with torch.no_grad():
            for part, rows in ((self.first, ORDER[:3]), (self.second, ORDER[3:])):
                part.weight.copy_(whole.weight[rows])
                part.bias.copy_(whole.bias[rows])
        self.eval()

    def forward(self, x):
        first = self.first(x)
        first = first.detach() if self.stop else first
        both = torch.cat([first, self.second(x)], -1)
        return self.b(both[..., np.argsort(ORDER)])


def test_weights_without_a_partner_are_compared_after_a_step():
    left = Net(lambda n, x: n.b(n.a(x)), a=dense, b=dense)
    found = check(left, Shuffled(stop=False), ROWS)
    assert found.equal, [str(x) for x in found.causes]
    assert "outputs after one step of SGD" in found.compared
    wrong = check(left, Shuffled(stop=True), ROWS)
    assert wrong.verdict == "differs"
    assert {x.name for x in wrong.checks if x.state == "fails"}


def test_whole_numbers_as_inputs_have_a_control_too():
    layers = [lambda: nn.Embedding(9, 8)] + [lambda: nn.Linear(8, 8)] * 6
    names = dict(zip("abcdefg", layers, strict=True))

    def compute(n, x):
        x = n.a(x)
        for name in "bcdefg":
            x = x + torch.tanh(getattr(n, name)(x))
        return x

    found = check(Net(compute, **names), Net(compute, **names), np.arange(8)[None])
    assert found.equal
    assert all(x.control for x in found.places[1:])


def test_an_error_of_our_own_ends_in_a_verdict(monkeypatch):
    def breaks(*_args, **_kwargs):
        raise ZeroDivisionError("of our own")

    monkeypatch.setattr(examine, "TrainingStep", breaks)
    left = Net(lambda n, x: n.a(x), a=dense)
    found = check(left, Net(lambda n, x: n.a(x), a=dense), ROWS)
    assert found.verdict == "undecided"
    assert not found.equal
    assert "ZeroDivisionError" in found.not_compared[0]
    with pytest.raises(paripassu.NotEquivalent, match="Undecided"):
        paripassu.assert_equivalent(left, left, ROWS)
    # What was found before stays the verdict.
    right = Net(lambda n, x: torch.tanh(n.a(x)), a=dense)
    assert check(left, right, ROWS).verdict == "differs"


def test_faults_of_one_cause_are_told_once():
    def net(epsilon):
        layers = {"a": dense, "one": normed(epsilon, 1), "two": normed(epsilon, 1)}
        return Net(lambda n, x: torch.tanh(n.two(n.a(n.one(x)))), **layers)

    found = check(net(1e-5), net(1e-2), ROWS)
    assert len(found.faults) == 2
    (cause,) = found.causes
    assert cause.key == "epsilon"
    assert [x[0] for x in cause.places] == ["one", "two"]
    assert found.headline == "Not equal: 1 cause"
    assert found.next == cause.write
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(checked_view(found))
    text = console.export_text()
    assert text.startswith("Not equal: 1 cause")
    assert text.count("left 1e-05, right 0.01") == 1
    written = markdown.render(found)
    assert written.startswith("**Not equal: 1 cause**: `left` and `right`\n")
    assert "1. epsilon: left 1e-05, right 0.01\n   - at `one` (test_b" in written
    assert f"   - write: {cause.write}\n" in written
    equal = markdown.render(check(net(1e-5), net(1e-5), ROWS))
    assert equal.startswith("**Equal: the two models compute the same**")


def test_the_scale_of_attention_is_a_constant_of_float32_in_keras():
    """1 / sqrt(8) is: the table that says so is measured here, both ways."""
    keras = pytest.importorskip("keras")
    from paripassu.core.layer_spec import LayerSpec, relative_error
    from paripassu.reference import layers
    from paripassu.sides import keras_layers

    assert float32_kinds("keras") == (("attention",), ())
    assert float32_kinds("of nobody") == ((), ())
    x = RANDOM.standard_normal((2, 5, 6))
    for width, low, high in ((4, 0, 1e-14), (8, 1e-10, ROUNDED)):
        layer = keras.layers.MultiHeadAttention(2, width, dtype="float64")
        made = np.asarray(layer(x, x))
        (part,) = keras_layers.parts("mha", layer)
        settings = {**keras_layers.describe(layer).settings, "causal": False}
        spec = LayerSpec("attention", settings, part.read())
        assert low <= relative_error(layers.apply(spec, [x]), made) <= high


def test_a_rounded_scale_is_seen_in_a_check():
    keras = pytest.importorskip("keras")

    def port():
        x = keras.Input((5, 8))
        return keras.Model(x, keras.layers.MultiHeadAttention(1, 8, name="mha")(x, x))

    left = nn.MultiheadAttention(8, 1, batch_first=True)
    net = Net(lambda n, x: n.mha(x, x, x)[0], mha=lambda: left)
    found = check(net, port, array(2, 5, 8), copy="left-to-right")
    assert found.equal, [str(x) for x in found.causes]
    assert any("its scale is a constant of float32" in x for x in found.notes)


def test_a_rounded_function_of_ones_own_is_seen_in_many_values():
    """More than are looked at: some rows tell."""
    keras = pytest.importorskip("keras")

    def gelu(x):
        return keras.activations.gelu(x, approximate=True)

    def port():
        x = keras.Input((64, 16))
        hidden = keras.layers.Dense(1024, activation=gelu, name="a")(x)
        return keras.Model(x, keras.layers.Dense(3, name="b")(hidden))

    net = nn.Sequential(nn.Linear(16, 1024), nn.GELU("tanh"), nn.Linear(1024, 3))
    found = check(net, port, array(3, 64, 16), copy="left-to-right")
    assert found.equal, [str(x) for x in found.causes]
    assert any("from the float64 reference" in x for x in found.notes)


def test_whole_numbers_in_float32_are_not_rounded():
    """Positions counted in float32, as tokens' often are: moved, they are others."""

    def net(offset, dtype):
        def compute(n, x):
            steps = torch.cumsum(torch.ones(x.shape[1], dtype=dtype), 0)
            return n.b(n.table((steps - 1 + offset).to(torch.int64)) + n.b(x))

        return Net(compute, table=lambda: nn.Embedding(9, 6), b=dense)

    x = array(2, 4, 6)
    assert check(net(0, torch.float32), net(0, torch.float64), x).equal
    wrong = check(net(0, torch.float32), net(1, torch.float64), x)
    assert wrong.verdict == "differs"
    assert wrong.faults
    assert not any("float32 is used" in note for note in wrong.notes)


def test_a_model_that_cannot_be_made_anew_is_judged_as_it_is():
    """Its configuration forgets the factor: in float64 it would be another model."""
    keras = pytest.importorskip("keras")

    class Scaled(keras.Model):
        def __init__(self, factor=1.0, **more):
            super().__init__(**more)
            self.factor, self.a = factor, keras.layers.Dense(6)

        def call(self, x):
            return self.a(x) * self.factor

        def get_config(self):
            return {"name": self.name}

    model = Scaled(3.0)
    model(ROWS)
    left = Net(lambda n, x: n.a(x) * 3.0, a=dense)
    for pair in ((left, model), (model, left)):
        found = check(*pair, ROWS, copy="left-to-right")
        assert found.equal, [str(x) for x in found.causes]
        assert any("it computes something else" in x for x in found.notes)
        assert "outputs in evaluation mode, in float32" in found.compared


def test_an_error_of_our_own_before_any_layer_is_paired(monkeypatch):
    def breaks(*_args, **_kwargs):
        raise ZeroDivisionError("of our own")

    monkeypatch.setattr(examine, "PairedModels", breaks)
    left = Net(lambda n, x: n.a(x), a=dense)
    found = check(left, left, ROWS)
    assert found.verdict == "undecided"
    assert "while pairing the layers" in found.not_compared[0]
    assert not found.compared


def test_outputs_in_another_order_are_a_fault():
    """By their shapes it is plain which is which; by position each is another one."""
    left = Net(lambda n, x: (n.a(x), n.a(x).sum(-1)), a=dense)
    right = Net(lambda n, x: (n.a(x).sum(-1), n.a(x)), a=dense)
    found = check(left, right, ROWS)
    assert {x.key for x in found.causes} == {"output-order"}
    assert found.verdict == "differs"
    assert check(left, left, ROWS).equal
    asked = ["output=output1", "output1=output"]
    assert check(left, right, ROWS, outputs=asked).equal


class Straight(nn.Module):
    """x + x - x, whose gradient goes through the last two, transposed or not."""

    def __init__(self, *, transposed):
        super().__init__()
        self.transposed = transposed

    def forward(self, x):
        none = x - x.detach()
        return x * x + (none.transpose(1, 2) if self.transposed else none)


def test_a_transposed_gradient_of_an_input_is_a_fault():
    models = Straight(transposed=False), Straight(transposed=True)
    found = paripassu.check(*models, np.random.default_rng(0).normal(size=(2, 5, 5)))
    (cause,) = found.causes
    assert (cause.key, cause.phase) == ("stop-gradient", "gradients")


class Softmaxed(nn.Module):
    """Attention whose softmax may be in float32; no gradient reaches the keys' bias."""

    def __init__(self, *, single):
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key, self.single = nn.Linear(4, 4), nn.Linear(4, 4), single

    def forward(self, x):
        scores = self.query(x) @ self.key(x).mT
        if self.single:
            return torch.softmax(scores.float(), -1).to(x.dtype) @ x
        return torch.softmax(scores, -1) @ x


def test_a_gradient_that_cancels_is_rounding_where_float32_is_used():
    found = paripassu.check(Softmaxed(single=False), Softmaxed(single=True), "3,5,4")
    assert found.equal
    assert any("float32 is used even in float64" in x for x in found.notes)
