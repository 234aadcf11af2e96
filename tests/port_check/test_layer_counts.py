"""The layers of both models are counted by what they are, before they are compared."""

import io

import pytest
from rich.console import Console

import paripassu
from paripassu.port_check import page
from paripassu.terminal.port_check import layer_table

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = pytest.mark.usefixtures("one_thread")


def build(stride=1):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(4, 4, (3, 1), stride=stride, groups=2),
        nn.BatchNorm2d(4, eps=1e-3),
        nn.Flatten(2),
        nn.LSTM(24 if stride == 1 else 6, 5, num_layers=2),
    )


def test_layers_are_counted_side_by_side():
    found = paripassu.check(build(), build(2), "2,3,8,8", gradients=False)
    told = [(x.title, x.left, x.right) for x in found.layers]
    assert told == [
        ("conv 3x3 3 to 4", 1, 1),
        ("conv 3x1 2 to 4, groups 2", 1, 0),
        ("batch norm 4, epsilon 0.001", 1, 1),
        ("lstm 24 to 5, 2 parts", 1, 0),
        ("conv 3x1 2 to 4, stride 2, groups 2", 0, 1),
        ("lstm 6 to 5, 2 parts", 0, 1),
    ]
    assert "conv 3x1 2 to 4, stride 2, groups 2" in page.render(found)
    many = [found.layers[0].model_copy(update={"title": str(n)}) for n in range(20)]
    text = io.StringIO()
    Console(file=text).print(layer_table([*many, *found.layers], full=False))
    assert "stride 2" in text.getvalue()  # what differs is not left out
    assert "and 14 more kinds" in text.getvalue()
