"""What hangs on no input is compared as values; what lies elsewhere is an axis."""

from __future__ import annotations

import math

import numpy as np
import pytest

import paripassu

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
STEPS, WIDTH = 7, 8
ROWS = np.random.default_rng(0).standard_normal((2, STEPS, WIDTH)).astype(np.float32)


pytestmark = pytest.mark.usefixtures("one_thread")


def sines(base=10000.0, side=False, length=STEPS):
    angles = torch.arange(length)[:, None] * torch.exp(
        torch.arange(0, WIDTH, 2) * (-math.log(base) / WIDTH)
    )
    made = torch.stack([torch.sin(angles), torch.cos(angles)], -1)
    return (made.transpose(1, 2) if side else made).reshape(length, WIDTH)


class Net(nn.Module):
    """Two layers and a buffer, and what a test computes with them."""

    def __init__(self, compute, table=None):
        super().__init__()
        torch.manual_seed(0)
        self.compute = compute
        self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.q, self.k = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.attend = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.register_buffer("table", table)
        self.eval()

    def forward(self, x):
        return self.compute(self, x)


def added(net, x):
    return net.b(torch.tanh(net.a(x) + net.table))


def sliced(net, x):
    length = x.shape[1]
    return net.b(torch.tanh(net.a(x) + net.table[:length].expand(len(x), -1, -1)))


def forgotten(net, x):
    return net.b(torch.tanh(net.a(x)))


def masked(fill=-1e9):
    def compute(net, x):
        scores = net.q(x) @ net.k(x).transpose(1, 2)
        mask = net.table[: x.shape[1], : x.shape[1]]
        return net.b(F.softmax(scores.masked_fill(mask == 0, fill), -1) @ net.a(x))

    return compute


def biased(net, x):
    return net.b(F.softmax(net.q(x) @ net.k(x).mT + net.table, -1) @ net.a(x))


def heads(turned):
    def compute(net, x):
        query, key, value = (
            y.view(len(x), STEPS, 2, 4).transpose(1, 2)
            if turned
            else y.reshape(len(x), 2, STEPS, 4)
            for y in (net.q(x), net.k(x), net.a(x))
        )
        made = torch.softmax(query @ key.mT, -1) @ value
        return net.b(made.transpose(1, 2).reshape(x.shape))

    return compute


def scores(turned):
    def compute(net, x):
        found = torch.softmax(net.q(x) @ net.k(x).mT, -1)
        return found.mT if turned else found

    return compute


def crossed(order):
    def compute(net, x):
        given = [net.table.expand(len(x), -1, -1), torch.sin(net.a(x)), net.k(x)]
        made, _ = net.attend(*(given[n] for n in order))
        return net.b(made)

    return compute


def residual(adds):
    def compute(net, x):
        query = net.table.expand(len(x), -1, -1)
        made, _ = net.attend(query, net.a(x), net.k(x))
        return net.b(query + made if adds else made)

    return compute


BELOW = torch.tril(torch.ones(STEPS + 2, STEPS + 2))
BIAS = torch.full((STEPS, STEPS), -1e9).triu(1)
QUERIES = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1))
# left, right, the key, what the sentence says, where
FAULTS = {
    "another base": (
        Net(sliced, sines(length=STEPS + 3)),
        Net(added, sines(1000.0)),
        ("constant", "at [", "add"),
    ),
    "side by side": (
        Net(sliced, sines(length=STEPS + 3)),
        Net(added, sines(side=True)),
        ("constant", "side by side", "add"),
    ),
    "a factor": (
        Net(added, sines()),
        Net(sliced, 2 * sines()),
        ("constant", "2 times", "add"),
    ),
    "forgotten": (Net(added, sines()), Net(forgotten), ("position", "add", "add")),
    "mask the other way": (
        Net(masked(-math.inf), BELOW),
        Net(masked(), BELOW.T.contiguous()),
        ("mask", "right hides what comes before", "masked_fill"),
    ),
    "mask as a bias": (
        Net(masked(-math.inf), BELOW),
        Net(biased, BIAS.T.contiguous()),
        ("mask", "left hides what comes after", "masked_fill"),
    ),
    "heads without a transpose": (
        Net(heads(turned=True)),
        Net(heads(turned=False)),
        ("axis", "lie in another order", "matmul"),
    ),
    "output transposed": (
        Net(scores(turned=False)),
        Net(scores(turned=True)),
        ("axis", "axes (0, 2, 1)", "output"),
    ),
    "key and value exchanged": (
        Net(crossed((0, 1, 2)), QUERIES),
        Net(crossed((0, 2, 1)), QUERIES),
        ("inputs-exchanged", "its value is the left model's key", "attend"),
    ),
    "learned queries not added": (
        Net(residual(adds=True), QUERIES),
        Net(residual(adds=False), QUERIES),
        ("residual-missing", "add", "add"),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_constants_and_axes_are_named(name):
    left, right, (key, words, place) = FAULTS[name]
    found = paripassu.check(left, right, ROWS, gradients=False)
    assert found.verdict == "differs"
    first = found.faults[0]
    assert first.cause is not None
    assert (first.cause.key, place in f"{first.left} {first.right}") == (key, True)
    assert words in first.cause.sentence


# Ways to have the same constants.
SAME = {
    "a longer table, sliced": (
        Net(sliced, sines(length=STEPS + 3)),
        Net(added, sines()),
    ),
    "a mask as a bias": (Net(masked(-math.inf), BELOW), Net(biased, BIAS)),
}


@pytest.mark.parametrize("name", SAME)
def test_how_a_constant_is_made_does_not_matter(name):
    assert paripassu.check(*SAME[name], ROWS, gradients=False).verdict == "equal"


def test_where_one_layer_differs_equal_constants_are_not_blamed():
    left, right = Net(sliced, sines(length=STEPS + 3)), Net(added, sines())
    right.compute = lambda net, x: net.b(torch.relu(net.a(x) + net.table))
    found = paripassu.check(left, right, ROWS, gradients=False)
    assert [x.cause.key for x in found.faults if x.cause] == ["activation-kind"]
