"""What is no fault: beside one, and by itself."""

from __future__ import annotations

import numpy as np
import pytest

import paripassu

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = np.random.default_rng(0).integers(0, 20, (2, 5))


class Text(nn.Module):
    """Tokens, with positions of their own, and a type of text that is always 0."""

    def __init__(self, *, typed=False, head=False, gelu="none", places=(0, 1, 2, 3, 4)):
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.positions = nn.Embedding(20, 6), nn.Embedding(5, 6)
        self.dense, self.last = nn.Linear(6, 8), nn.Linear(8, 4)
        self.types = nn.Embedding(1, 6) if typed else None
        self.head = nn.Linear(4, 3) if head else None
        self.gelu = gelu
        self.register_buffer("places", torch.tensor([places]))

    def forward(self, ids):
        x = self.tokens(ids)
        if self.types is not None:
            x = x + self.types(torch.zeros_like(ids))
        x = x + self.positions(self.places)
        x = self.last(nn.functional.gelu(self.dense(x), approximate=self.gelu))
        if self.head is None:
            return {"hidden": x}
        return {"hidden": x, "pooled": torch.tanh(self.head(x))}


def keys(left, right):
    found = paripassu.check(left, right, IDS, gradients=False)
    assert found.verdict == ("differs" if found.causes else "equal")
    return [x.key for x in found.causes]


def test_a_head_whose_output_is_not_compared_is_no_cause():
    assert keys(Text(), Text(head=True)) == []
    assert keys(Text(), Text(head=True, gelu="tanh")) == ["gelu-form"]
    assert keys(Text(head=True), Text(gelu="tanh")) == ["gelu-form"]


def test_what_a_layer_makes_that_one_model_lacks_is_no_constant():
    assert keys(Text(typed=True), Text()) == ["layer-missing"]
    assert keys(Text(), Text(typed=True)) == ["layer-extra"]
    both = keys(Text(typed=True), Text(gelu="tanh"))
    assert sorted(both) == ["gelu-form", "layer-missing"]


def test_positions_that_were_never_filled_in_are_told():
    found = paripassu.check(Text(), Text(places=(0, 0, 0, 0, 0)), IDS, gradients=False)
    assert [x.key for x in found.causes] == ["position"]
    assert "left looks up rows 0, 1, 2, 3, 4, right 0, 0, 0, 0, 0" in (
        found.causes[0].sentence
    )


class Cast(nn.Module):
    """Takes its input as float32 has it, as many models of images do."""

    def __init__(self, *, cast):
        super().__init__()
        torch.manual_seed(0)
        self.dense, self.last = nn.Linear(8, 6), nn.Linear(6, 3)
        self.cast = cast

    def forward(self, x):
        x = x.float().to(self.dense.weight.dtype) if self.cast else x
        return self.last(torch.tanh(self.dense(x)))


@pytest.mark.parametrize("cast", [True, False])
def test_a_cast_of_the_input_is_no_fault(cast):
    given = np.random.default_rng(0).standard_normal((4, 8))  # float64, all digits
    assert paripassu.check(Cast(cast=cast), Cast(cast=not cast), given).equal
