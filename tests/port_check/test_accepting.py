"""Accepted differences: taken out, so that the rest is judged, and never more."""

import ast
from pathlib import Path

import numpy as np
import pytest

import paripassu
from paripassu.port_check import causes, markdown, page
from paripassu.port_check.acceptance import CAUSES

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGES = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype("float32")


class Net(nn.Module):
    """A norm, activations, a dropout, a dense layer; and what may be wrong."""

    def __init__(self, epsilon=1e-5, momentum=0.1, slope=0.01, bias=0, **more):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4, eps=epsilon, momentum=momentum)
        self.norm.running_var.uniform_(0.5, 2)
        self.act = nn.LeakyReLU(slope)
        self.gelu = nn.GELU(more.get("gelu", "none"))
        self.fc = nn.Linear(4, 3)
        self.fc.bias.data += bias
        self.more = more

    def forward(self, x):
        x = self.act(self.norm(self.conv(x)))
        x = x.detach() if self.more.get("detach") else x
        return self.fc(self.gelu(x).mean((2, 3))) * self.more.get("scale", 1)


def check(accept, gradients=True, **faults):
    right = Net(**faults)
    return paripassu.check(Net(), right, IMAGES, accept=accept, gradients=gradients)


def test_the_rest_is_judged_without_what_is_accepted():
    accept = ["epsilon@nor*", "momentum", "negative-slope@act", "gelu-form", "alpha@a"]
    faults = {"epsilon": 0.01, "momentum": 0.3, "slope": 0.2, "gelu": "tanh"}
    found = check(accept, **faults)
    assert found.equal
    assert found.headline == "Equal but for 4 accepted differences"
    names = {"epsilon@norm", "momentum@norm", "negative-slope@act", "gelu-form@gelu"}
    assert {x.name for x in found.accepted} == names
    assert all(x.removed for x in found.accepted)
    assert found.unused == ("alpha@a",)
    assert "unused: alpha@a; there was: epsilon@norm, neg" in found.unused_told
    assert {x.state for x in found.checks} == {"holds"}
    for text in (markdown.render(found), page.render(found)):
        assert "epsilon: left 1e-05, right 0.01" in text
        assert found.unused_told in text


def test_weights_are_accepted_and_the_model_is_left_as_it_was():
    right = Net(bias=0.3)
    paripassu.assert_equivalent(Net(), right, IMAGES, accept=["weights-differ@fc"])
    assert torch.allclose(right.fc.bias, Net().fc.bias + 0.3)


@pytest.mark.parametrize(
    ("accept", "faults", "key"),
    [
        ("epsilon", {"epsilon": 0.01, "detach": True}, "stop-gradient"),
        ("epsilon", {"epsilon": 0.01, "momentum": 0.3}, "momentum"),
        ("epsilon@fc", {"epsilon": 0.01}, "epsilon"),
    ],
)
def test_what_is_accepted_hides_no_other_difference(accept, faults, key):
    found = check([accept], **faults)
    assert found.verdict == "differs"
    assert [x.key for x in found.causes] == [key]


def test_what_cannot_be_taken_out_leaves_the_rest_undecided():
    found = check("input-scale", scale=1.01)
    assert found.verdict == "undecided"
    assert "lies beyond input-scale@after mul, which is accepted" in found.next
    assert not [x for x in found.checks if x.state == "fails"]


def test_a_keras_model_is_compared_without_it_in_both_float_types():
    keras = pytest.importorskip("keras")

    def right():
        layers = keras.layers
        return keras.Sequential(
            [keras.Input((5,)), layers.Dense(4), layers.LayerNormalization(epsilon=0.1)]
        )

    left = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4))
    found = paripassu.check(
        left, right, "3,5", copy="left-to-right", accept=["epsilon@1"]
    )
    assert (found.verdict, found.faults) == ("equal", ())
    assert [x.removed for x in found.accepted] == [True]
    assert {x.state for x in found.checks} == {"holds"}


@pytest.mark.parametrize("text", ["epsilom@norm", "epsilon@", "@norm"])
def test_no_such_cause_is_refused(text):
    near = "Near are: epsilon" if text == "epsilom@norm" else "CAUSE@PLACE"
    with pytest.raises(paripassu.UserError, match=near):
        check([text])


def test_all_causes_can_be_accepted():
    found = set(causes.KEYS.values()) - {"size"}
    for path in Path(causes.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "key":
                found |= _texts(node.value)
            if isinstance(node, ast.Return | ast.Yield) and "weights" in path.name:
                pair = getattr(node.value, "elts", [])
                found |= _texts(pair[0]) if pair else set()
    assert {"epsilon", "mask", "weights-differ"} <= found
    assert found <= CAUSES | {"family"}  # of optimizers


def _texts(node):
    parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    return {x.value for x in parts if isinstance(x, ast.Constant)}
