"""Further inputs: what they are, and what they bring to light."""

from __future__ import annotations

import numpy as np
import pytest

import paripassu
from paripassu.port_check.input_pairs import carry_inputs
from paripassu.port_check.probing import further_inputs

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, 5, 4)).astype(np.float32)
IDS = RANDOM.integers(1, 20, (3, 6))


def by_name(inputs, **more):
    return {x.name: x for x in further_inputs(inputs, **more)}


def test_ids_stay_in_their_table_and_types_and_shapes_are_kept():
    mask = np.ones((3, 6), bool)
    segments = np.zeros((3, 6), np.int32)
    inputs = {"ids": IDS, "mask": mask, "segments": segments, "x": X}
    found = by_name(inputs, ids_below={"ids": 20, "segments": 2}, masks=["mask"])
    for probing in found.values():
        for name, array in probing.inputs.items():
            assert (array.shape, array.dtype) == (
                inputs[name].shape,
                inputs[name].dtype,
            )
        assert 0 <= probing.inputs["ids"].min() <= probing.inputs["ids"].max() < 20
        assert probing.inputs["segments"].max() < 2
        assert probing.why
    assert not np.array_equal(found["another draw"].inputs["ids"], IDS)
    end = found["padding at the end"]
    assert np.array_equal(end.inputs["mask"], end.inputs["ids"] != 0)
    assert np.array_equal(end.inputs["mask"].sum(1), [5, 4, 3])  # as packing sorts them
    beginning = found["padding at the beginning"].inputs["ids"]
    assert (beginning[:, 0] == 0).all()
    assert (beginning[:, -1] != 0).all()
    assert found["mask of ones"].inputs["mask"].all()
    assert not found["mask with an empty row"].inputs["mask"][0].any()
    assert found["mask with an empty row"].extreme


def test_floats_reach_clamps_ties_and_signs_and_masks_do_not():
    inputs = {"x": X, "mask": np.ones((3, 5), np.float32)}
    found = by_name(inputs, ids_below={}, masks=["mask"])
    assert np.abs(found["inputs times 100"].inputs["x"]).max() > 100
    assert found["negative inputs"].inputs["x"].max() <= 0
    assert np.unique(found["whole numbers"].inputs["x"]).size < 10
    assert np.ptp(found["a constant"].inputs["x"]) == 0
    for probing in found.values():
        assert set(np.unique(probing.inputs["mask"])) <= {0, 1}
    pixels = by_name({"x": np.abs(X)}, ids_below={})["another draw"].inputs["x"]
    assert pixels.min() >= 0


def test_batches_of_other_lengths_only_where_they_may_be():
    assert "a batch of one" not in by_name({"x": X}, ids_below={})
    found = by_name({"x": X}, ids_below={}, batch_free=True)
    assert found["a batch of one"].inputs["x"].shape == (1, 5, 4)
    assert found["a longer batch"].inputs["x"].shape == (6, 5, 4)
    assert "a batch of one" not in by_name({"x": X[:1]}, ids_below={}, batch_free=True)


def test_the_right_inputs_follow_by_meaning_and_channels():
    image = RANDOM.normal(size=(2, 3, 4, 4))
    left = {"attention_mask": IDS > 0, "flags": IDS > 0, "image": image}
    right = {"flags": IDS > 0, "padding_mask": IDS > 0, "x": np.moveaxis(image, 1, -1)}
    fresh = {"attention_mask": IDS > 9, "flags": IDS > 5, "image": -image}
    made = carry_inputs(left, right, fresh)
    assert np.array_equal(made["padding_mask"], IDS > 9)
    assert np.array_equal(made["flags"], IDS > 5)
    assert np.array_equal(made["x"], -np.moveaxis(image, 1, -1))


torch = pytest.importorskip("torch")
nn = torch.nn


class Clamped(nn.Module):
    """A dense layer and what a test gives."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)
        self.function = function

    def forward(self, x):
        return self.second(self.function(self.first(x)))


CLAMPS = {
    "relu6": (torch.relu, nn.functional.relu6),
    "clip": (lambda x: x, lambda x: x.clamp(-5, 5)),
    "threshold": (lambda x: x, lambda x: torch.where(x > 3, 2 * x, x)),
}


@pytest.mark.parametrize("name", CLAMPS)
def test_a_clamp_out_of_reach_is_found(name):
    left, right = CLAMPS[name]
    assert paripassu.check(Clamped(left), Clamped(left), X).equal
    found = paripassu.check(Clamped(left), Clamped(right), 0.1 * X)
    assert not found.equal
    assert any(x.name == "further inputs" and x.state == "fails" for x in found.checks)
    assert "times" in " ".join(found.notes)


class Normed(nn.Module):
    """What comes out of a norm is as large whatever goes in."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.function = (
            nn.Linear(4, 6),
            nn.LayerNorm(6),
            function,
        )

    def forward(self, x):
        return self.function(self.norm(self.first(x)))


def test_a_clamp_behind_a_norm_is_found():
    assert paripassu.check(Normed(torch.relu), Normed(torch.relu), X).equal
    right = Normed(nn.functional.relu6)
    before = right.norm.weight.detach().clone()
    found = paripassu.check(Normed(torch.relu), right, X)
    assert not found.equal
    assert found.faults[0].cause.key == "activation-kind"
    assert "larger weights" in " ".join(found.notes)
    assert torch.equal(right.norm.weight, before)


class Words(nn.Module):
    """The last state of an LSTM over words, packed or not."""

    def __init__(self, *, packed=False):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.packed = nn.Embedding(20, 5), packed
        self.lstm = nn.LSTM(5, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, ids):
        x = self.embedding(ids)
        if self.packed:
            lengths = (ids != 0).sum(1)
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return self.head(self.lstm(x)[1][0][0])


def test_a_mask_that_no_given_id_needs_is_found():
    assert paripassu.check(Words(packed=True), Words(packed=True), {"ids": IDS}).equal
    found = paripassu.check(Words(packed=True), Words(), {"ids": IDS})
    assert not found.equal
    assert {x.cause.key for x in found.faults} == {"mask"}
    assert "padding at the end" in " ".join(found.notes)


def test_a_mask_is_the_cause_where_the_given_ids_are_padded():
    ids = np.array([[3, 4, 5, 6, 7, 8], [3, 4, 5, 6, 0, 0]])
    found = paripassu.check(Words(packed=True), Words(), {"ids": ids})
    (fault,) = (x for x in found.faults if x.phase == "forward")
    assert (fault.left, fault.cause.key) == ("lstm", "mask")


class Attention(nn.Module):
    """Attention to steps that count; at others, it gives what it gives."""

    def __init__(self, *, padded=1.0, hidden=-torch.inf):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.padded, self.hidden = nn.Embedding(20, 5), padded, hidden

    def forward(self, ids, mask):
        x = self.embedding(ids)
        scores = (x @ x.mT).masked_fill(~mask[:, None], self.hidden)
        y = torch.softmax(scores, -1) @ x
        return torch.where(mask[..., None], y, self.padded * y)


def test_steps_of_padding_and_empty_rows_are_notes():
    inputs = {"ids": IDS, "mask": np.ones((3, 6), bool)}
    found = paripassu.check(Attention(), Attention(padded=2.0), inputs)
    assert found.equal
    assert "at steps of padding only" in " ".join(found.notes)
    found = paripassu.check(Attention(), Attention(hidden=-1e9), inputs)
    assert found.equal
    assert "mask with an empty row" in " ".join(found.notes)


class Placed(nn.Module):
    """Words and the places where they stand, counted by a mask or not."""

    def __init__(self, *, counted):
        super().__init__()
        torch.manual_seed(int(counted))
        self.words = nn.Embedding(20, 8, padding_idx=1)
        self.places = nn.Embedding(8 if counted else 6, 8)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)
        self.counted = counted

    def forward(self, ids, mask):
        steps = torch.arange(ids.shape[1]).expand(ids.shape)
        if self.counted:
            steps = 1 + (mask.cumsum(1) * mask).long()  # 1 is padding
        y = self.norm(self.words(ids) + self.places(steps))
        kept = mask[..., None].to(y.dtype)
        return self.head(y), (y * kept).sum(1) / kept.sum(1)


def test_places_that_are_counted_from_a_mask():
    def check(mask):
        inputs = {"ids": np.where(mask, IDS, 1), "mask": mask}
        models = Placed(counted=True), Placed(counted=False)
        return paripassu.check(*models, inputs, copy="left-to-right")

    kept = np.arange(6) < np.array([[6], [4], [3]])
    found = check(kept.astype(np.int64))
    assert found.equal
    assert "places[2:8]" in [x.left for x in found.pairs]
    notes = " ".join(found.notes)
    assert "at steps that the mask hides, outputs are" in notes
    assert "one counts positions from the first step that is no padding" in notes
    found = check(kept[:, ::-1].astype(np.int64))
    assert [x.key for x in found.causes] == ["position"]
    assert found.causes[0].places[0][0] == "places"
