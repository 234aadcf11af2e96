"""Weights whose forms differ are mapped: split, fused, in heads, cut, reshaped."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random

import paripassu
from paripassu import UserError
from paripassu.core.layer_spec import LayerSpec
from paripassu.port_check.check import read_map, write_map
from paripassu.port_check.pieces import (
    columns,
    cut_block,
    in_heads,
    pieces_named,
    split_attention,
)
from paripassu.sides.contract import Block

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
nn, functional, L = torch.nn, torch.nn.functional, keras.layers
WIDTH, HEADS, SIZE, STEPS = 12, 3, 4, 5
STEPS_IN = random(2, STEPS, WIDTH).astype(np.float32)


def dense(name: str = "fused", width: int = 9) -> Block:
    weights = {"kernel": random(6, width), "bias": random(width, seed=1)}
    return Block(name, name, LayerSpec("dense", {}, weights))


def attend(query, key, value):
    """Over heads that lie side by side."""
    heads = (x.unflatten(-1, (HEADS, SIZE)) for x in (query, key, value))
    made = functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in heads))
    return made.transpose(1, 2).flatten(2)


class Split(nn.Module):
    """Attention of four layers, under the names given, in this order of calls."""

    def __init__(self, names="query_proj key_proj value_proj out", turn=False):
        super().__init__()
        torch.manual_seed(0)
        self.names, self.turn = names.split(), turn
        for name in self.names:
            self.add_module(name, nn.Linear(WIDTH, WIDTH))

    def forward(self, x):
        *three, last = (getattr(self, name) for name in self.names)
        query, key, value = (layer(x) for layer in three)
        query, key = (key, query) if self.turn else (query, key)
        return last(attend(query, key, value))


class Fused(nn.Module):
    """One layer for three; the parts of each head side by side, or of each product."""

    def __init__(self, in_heads=False):
        super().__init__()
        torch.manual_seed(1)
        self.in_heads = in_heads
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        made = self.qkv(x)
        if self.in_heads:
            made = made.unflatten(-1, (HEADS, 3, SIZE)).transpose(-2, -3).flatten(-3)
        return self.out(attend(*made.chunk(3, dim=-1)))


def keras_attention(**settings):
    x = keras.Input((STEPS, WIDTH))
    made = L.MultiHeadAttention(HEADS, SIZE, name="mha", **settings)(x, x)
    return keras.Model(x, made)


def keras_einsum():
    """Projections to (heads, size), as large language models have them."""
    x = keras.Input((STEPS, WIDTH))
    query, key, value = (
        L.EinsumDense("bti,ihd->bthd", (STEPS, HEADS, SIZE), bias_axes="hd", name=name)(
            x
        )
        for name in ("a", "b", "c")
    )
    scores = keras.ops.einsum("bqhd,bkhd->bhqk", query, key) / SIZE**0.5
    made = keras.ops.einsum("bhqk,bkhd->bqhd", keras.ops.softmax(scores), value)
    last = L.EinsumDense("bthd,hdo->bto", (STEPS, WIDTH), bias_axes="o", name="d")
    return keras.Model(x, last(made))


def names(found):
    return {(x.left, x.right) for x in found.pairs}


def gradients(found):
    return next(x for x in found.checks if x.name == "gradients, float64")


PRODUCTS = ("query", "key", "value", "output")


def test_an_attention_of_four_layers_is_mapped_to_one_and_back():
    found = paripassu.check(Split, keras_attention, STEPS_IN, copy="left-to-right")
    assert found.equal
    left = ("query_proj", "key_proj", "value_proj", "out")
    assert names(found) == {
        (x, f"mha/{y}") for x, y in zip(left, PRODUCTS, strict=True)
    }
    assert gradients(found).detail.startswith("8 of 8 equal")
    back = paripassu.check(keras_attention, Split, STEPS_IN, copy="right-to-left")
    assert back.equal


def test_a_fused_product_is_cut_as_what_is_computed_says():
    """In thirds at first; with the parts of each head together, the outputs say so."""
    found = paripassu.check(Fused, keras_attention, STEPS_IN, copy="left-to-right")
    assert found.equal
    thirds = [f"qkv[{n}:{n + WIDTH}]" for n in (0, WIDTH, 2 * WIDTH)]
    assert names(found) >= set(
        zip(thirds, map("mha/{}".format, PRODUCTS), strict=False)
    )
    assert gradients(found).detail.startswith("8 of 8 equal")

    def interleaved():
        return Fused(in_heads=True)

    found = paripassu.check(
        interleaved, keras_einsum, STEPS_IN, copy="right-to-left", gradients=False
    )
    assert found.equal
    assert names(found) >= {("qkv[0 of 3x3]", "a"), ("qkv[2 of 3x3]", "c")}


def test_layers_without_telling_names_are_told_apart_by_what_they_compute():
    def nameless():
        return Split("first second third fourth")

    def turned():
        return Split("one two three four", turn=True)

    found = paripassu.check(
        nameless, turned, STEPS_IN, copy="left-to-right", gradients=False
    )
    assert found.equal
    assert names(found) >= {("first", "two"), ("second", "one"), ("third", "three")}


def test_a_fused_layer_that_names_its_order_is_not_read_in_another():
    """The fault is the split model's: what it calls the key is used as the query."""

    def turned():
        return Split("query_proj key_proj value_proj out", turn=True)

    found = paripassu.check(
        Fused, turned, STEPS_IN, copy="left-to-right", gradients=False
    )
    assert not found.equal
    assert names(found) >= {("qkv[0:12]", "query_proj"), ("qkv[12:24]", "key_proj")}

    class Nameless(Fused):
        """Its name does not say what it holds."""

        def __init__(self):
            super().__init__()
            self.inside = self.qkv
            del self.qkv

        def forward(self, x):
            return self.out(attend(*self.inside(x).chunk(3, dim=-1)))

    found = paripassu.check(
        Nameless, turned, STEPS_IN, copy="left-to-right", gradients=False
    )
    assert found.equal
    assert ("inside[0:12]", "key_proj") in names(found)
    whys = {x.left: x.why for x in found.pairs}
    assert whys["inside[0:12]"] == "what they compute"


def test_fused_keys_and_values_that_are_called_before_the_query():
    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.kv, self.q = nn.Linear(6, 2 * WIDTH), nn.Linear(6, WIDTH)
            self.first, self.o = nn.Linear(6, 6), nn.Linear(WIDTH, 6)

        def forward(self, x, context):
            key, value = self.kv(self.first(context)).chunk(2, dim=-1)
            return self.o(attend(self.q(x), key, value))

    class KerasCross(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.mha = L.Dense(6), L.MultiHeadAttention(HEADS, SIZE)

        def call(self, x, context):
            return self.mha(x, self.first(context))

    inputs = {"x": random(2, STEPS, 6), "context": random(2, 4, 6, seed=1)}
    inputs = {name: x.astype(np.float32) for name, x in inputs.items()}
    found = paripassu.check(
        Cross, KerasCross, inputs, copy="left-to-right", gradients=False
    )
    assert found.equal
    assert names(found) >= {("kv[0:12]", "mha/key"), ("q", "mha/query")}


def test_the_weights_of_a_recording_are_mapped_as_well(tmp_path):
    paripassu.record(Fused, STEPS_IN, out=tmp_path / "left.recording")
    left = str(tmp_path / "left.recording")
    found = paripassu.check(left, keras_attention, copy="left-to-right")
    assert found.equal
    assert gradients(found).detail.startswith("8 of 8 equal")


@pytest.mark.slow
def test_the_dense_layers_of_transformers_are_known_by_name():
    transformers = pytest.importorskip("transformers")
    dense = transformers.pytorch_utils.Conv1D(6, WIDTH)
    found = paripassu.check(
        nn.Sequential(dense), nn.Linear(WIDTH, 6), STEPS_IN, copy="left-to-right"
    )
    assert found.equal
    assert names(found) == {("0", "model")}


def test_names_that_tell_are_not_overruled_by_what_would_be_equal():
    """The fault is the model's: what it calls the key is used as the query."""
    found = paripassu.check(
        Split,
        lambda: Split("q k v o", turn=True),
        STEPS_IN,
        copy="left-to-right",
        gradients=False,
    )
    assert not found.equal
    assert names(found) >= {("query_proj", "q"), ("key_proj", "k"), ("value_proj", "v")}


def give(model, split, order):
    """Write the weights of four layers into Keras's attention, in this order."""
    values = []
    for name in order:
        layer = getattr(split, name)
        kernel = layer.weight.detach().numpy().T
        bias = layer.bias.detach().numpy()
        if name == "out":
            values += [kernel.reshape(HEADS, SIZE, WIDTH), bias]
        else:
            values += [kernel.reshape(WIDTH, HEADS, SIZE), bias.reshape(HEADS, SIZE)]
    model.set_weights(values)
    return model


def test_weights_given_by_hand_are_found_and_exchanged_ones_are_told():
    split = Split()
    order = ["query_proj", "key_proj", "value_proj", "out"]
    right = give(keras_attention(), split, order)
    found = paripassu.check(split, right, STEPS_IN)
    assert found.equal
    order[:2] = order[1::-1]
    wrong = give(keras_attention(), split, order)
    found = paripassu.check(split, wrong, STEPS_IN, gradients=False)
    assert not found.equal
    assert found.faults[0].cause.key == "weights-exchanged"


def test_a_layer_that_is_missing_is_named_as_it_is():
    def without():
        x = keras.Input((STEPS, WIDTH))
        return keras.Model(x, L.Dense(7, name="last")(x))

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.mha = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
            self.last = nn.Linear(WIDTH, 7)

        def forward(self, x):
            return self.last(self.mha(x, x, x)[0])

    found = paripassu.check(
        Both, without, STEPS_IN, copy="left-to-right", gradients=False
    )
    assert not found.equal
    assert names(found) == {("mha", None), ("last", "last")}


@pytest.mark.parametrize(
    ("fault", "key", "said"),
    [
        ({"scale": WIDTH**-0.5}, "attention-scale", "left 0.288675, right 0.5"),
        ({"is_causal": True}, "mask", "left True, right False"),
    ],
)
def test_the_setting_of_an_attention_that_is_written_out_is_named(fault, key, said):
    class Own(Split):
        def forward(self, x):
            *three, last = (getattr(self, name) for name in self.names)
            parts = (y(x).unflatten(-1, (HEADS, SIZE)).transpose(1, 2) for y in three)
            made = functional.scaled_dot_product_attention(*parts, **fault)
            return last(made.transpose(1, 2).flatten(2))

    found = paripassu.check(
        Own, keras_attention, STEPS_IN, copy="left-to-right", gradients=False
    )
    assert not found.equal
    assert (found.faults[0].cause.key, found.faults[0].right) == (key, "mha")
    assert said in found.faults[0].cause.sentence
    found = paripassu.check(
        keras_attention, Own, STEPS_IN, copy="left-to-right", gradients=False
    )
    assert found.faults[0].cause.key == key


class Norm(nn.Module):
    """A root mean square norm of a user's own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH) + 0.5)

    def forward(self, x):
        return self.weight * x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()


class Forms(nn.Module):
    """Tables, norms, slopes and products in PyTorch's forms."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.tokens = nn.Embedding(11, WIDTH, padding_idx=0)
        self.offset = nn.Embedding(STEPS + 3, WIDTH)  # the first three are not used
        self.place = nn.Parameter(torch.randn(1, STEPS, WIDTH))
        self.first, self.second = Norm(), Norm()
        self.mix = nn.Linear(WIDTH, 6)
        self.slope = nn.PReLU(6)
        self.slope.weight.data.uniform_(0.1, 0.5)

    def forward(self, ids):
        x = self.tokens(ids) + self.place
        x = self.first(x) + self.offset(torch.arange(3, STEPS + 3))
        x = self.mix(self.second(x))
        return self.slope(x.transpose(1, 2)).transpose(1, 2)


class KerasForms(keras.Model):
    """The same, in Keras's."""

    def __init__(self):
        super().__init__()
        self.words = L.Embedding(11, WIDTH)
        self.position = L.Embedding(STEPS, WIDTH)
        self.more = L.Embedding(STEPS, WIDTH)
        self.norm_a, self.norm_b = (L.RMSNormalization(epsilon=1e-6) for _ in range(2))
        self.mix_conv = L.Conv1D(6, 1)
        self.turn = L.PReLU(shared_axes=[1])

    def call(self, ids):
        steps = keras.ops.arange(STEPS)
        x = self.norm_a(self.words(ids) + self.position(steps))
        x = self.norm_b(x + self.more(steps))
        return self.turn(self.mix_conv(x))


def test_tables_norms_slopes_and_products_of_other_forms_are_mapped():
    ids = np.random.default_rng(0).integers(0, 11, (2, STEPS))
    ids[0, 0] = 0  # which only Keras trains
    found = paripassu.check(Forms, KerasForms, ids, copy="left-to-right")
    assert found.equal
    assert any("never trains row 0 of tokens" in x for x in found.notes)
    assert names(found) == {
        ("tokens", "words"),
        ("place", "position"),
        (f"offset[3:{STEPS + 3}]", "more"),
        ("first.weight", "norm_a"),
        ("second.weight", "norm_b"),
        ("mix", "mix_conv"),
        ("slope", "turn"),
    }
    left = Forms()
    kept = left.offset.weight.detach().numpy().copy()
    found = paripassu.check(
        left, KerasForms, ids, copy="right-to-left", gradients=False
    )
    assert found.equal
    assert np.array_equal(left.offset.weight.detach().numpy()[:3], kept[:3])


def test_a_map_fuses_and_splits_and_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "map.toml"
    path.write_text('[blocks]\n"qkv" = ["mha/query", "mha/key", "mha/value"]\n')
    given = read_map(path)

    def check(block_map):
        return paripassu.check(
            Fused,
            keras_attention,
            STEPS_IN,
            copy="left-to-right",
            block_map=block_map,
            gradients=False,
        )

    found = check(given)
    assert found.equal
    assert {x.why for x in found.pairs if x.left.startswith("qkv")} == {"the map"}
    write_map(path, found)
    again = check(read_map(path))
    assert again.equal
    assert names(again) == names(found)
    assert not check({"qkv": ["mha/key", "mha/query", "mha/value"]}).equal
    some = check({"qkv[0:12]": "mha/query"})
    assert names(some) >= {("qkv[0:12]", "mha/query")}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"qkv/query": "mha/query"}, "which is no piece of it"),
        ({"qkv[0:99]": "mha/query"}, "Of its 36 columns"),
        ({"qkv[0:12]": "mha/keys"}, "mha/query, mha/key, mha/value, mha/output"),
        ({"qkv[0:12]": "mha/key", "qkv[6:18]": "mha/value"}, "values of qkv twice"),
        ({"qkv": "mha/key", "qkv[0:12]": "mha/value"}, "'qkv' of the left model twice"),
        ({"qkv": ["mha/query", "mha/key"]}, "not the columns of its kernel (12, 36)"),
        ({"qkv": "mha/query"}, "kernel (12, 36)"),
        ({"out[0 of 5x3]": "mha/output"}, "no piece"),
        ({"qkv": ["mha/query", "mha/nothing", "mha/value"]}, "mha/nothing"),
        ({"nothing": ["mha/query"]}, "'nothing', which the left model"),
        ({"out": "qkv"}, "'qkv', which the right model does not have"),
    ],
)
def test_a_map_that_cannot_be_followed_is_refused(wrong, told):
    with pytest.raises(UserError) as error:
        paripassu.check(Fused, keras_attention, STEPS_IN, block_map=wrong)
    assert told in str(error.value)


def test_pieces_read_and_write_a_block_and_leave_its_other_values():
    for whole, cuts in (
        (dense(), columns([2, 3, 4])),
        (dense(), in_heads(1, 3)),
        (dense(width=12), in_heads(2, 3)),
    ):
        for piece in cut_block(whole, cuts):
            one = piece.of(whole)
            kernel = one.spec.weights["kernel"]
            assert one.shapes["kernel"] == kernel.shape
            fresh = piece.put(whole, {"kernel": kernel + 1})["kernel"]
            moved = fresh - whole.spec.weights["kernel"]
            assert np.isclose(moved, 1).sum() == kernel.size
            assert (moved == 0).sum() == moved.size - kernel.size
            assert np.array_equal(piece.take({"kernel": fresh})["kernel"], kernel + 1)


def test_what_a_map_leaves_out_of_a_block_are_pieces_too():
    found = pieces_named(dense(), ["fused[3:5]"])
    assert [x.name for x in found] == ["fused[3:5]", "fused[0:3]", "fused[5:9]"]
    found = pieces_named(dense(), ["fused[1 of 1x3]"])
    assert [x.name for x in found][1:] == ["fused[0 of 1x3]", "fused[2 of 1x3]"]


def test_an_attention_without_biases_has_four_products():
    weights = {x: random(4, 4) for x in PRODUCTS}
    block = Block("mha", "mha", LayerSpec("attention", {"heads": 2}, weights))
    pieces = split_attention(block)
    assert [x.name for x in pieces] == [f"mha/{x}" for x in PRODUCTS]
    assert all([*x.weights] == ["kernel"] for x in pieces)


class Scale(nn.Module):
    """A factor for each channel."""

    def __init__(self):
        super().__init__()
        self.by = nn.Parameter(torch.ones(6))

    def forward(self, x):
        return x * self.by


class Scaled(nn.Module):
    """Blocks that scale what they add, by layers or by parameters that these hold."""

    def __init__(self, *, layers, epsilon=1e-5, order=(0, 1, 2, 3)):
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.norms = nn.ModuleList(nn.LayerNorm(6, epsilon) for _ in range(4))
        self.dense = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        self.layers, self.scales = layers, nn.ModuleList(Scale() for _ in range(4))
        given = [torch.randn(6, generator=random) for _ in range(4)]
        with torch.no_grad():
            for scale, n in zip(self.scales, order, strict=True):
                scale.by.copy_(given[n])
            for dense in self.dense:
                dense.weight.copy_(torch.randn(6, 6, generator=random))
                dense.bias.zero_()

    def forward(self, x):
        for n in range(4):
            y = self.dense[n](self.norms[n](x))
            scale = self.scales[n]
            x = x + (scale(y) if self.layers else scale.by * y)
        return x


def test_parameters_are_placed_where_they_are_used_and_paired_so_beside_a_fault():
    left, x = Scaled(layers=False), random(3, 6)
    found = paripassu.check(left, Scaled(layers=True, epsilon=1e-2), x)
    assert [x.key for x in found.causes] == ["epsilon"]
    exchanged = Scaled(layers=True, epsilon=1e-2, order=(1, 0, 2, 3))
    found = paripassu.check(left, exchanged, x)
    assert [x.key for x in found.causes] == ["epsilon", "weights-exchanged"]
    assert "and so 1 more weight" in found.causes[1].sentence


class Parts(nn.Module):
    """Products, fused or not; queries, keys and values are as wide as a gate."""

    def __init__(self, *, fused):
        super().__init__()
        torch.manual_seed(int(fused))
        self.sizes = (
            (("q_proj", "k_proj", "v_proj"), (12, 6, 6)),
            (
                ("gate_proj", "up_proj"),
                (24, 24),
            ),
        )
        for (names, sizes), whole in zip(
            self.sizes, ("qkv_proj", "gate_up_proj"), strict=True
        ):
            wanted = (
                {whole: sum(sizes)} if fused else dict(zip(names, sizes, strict=True))
            )
            for name, size in wanted.items():
                setattr(self, name, nn.Linear(WIDTH, size))
        self.down, self.fused = nn.Linear(24, WIDTH), fused

    def parts(self, x, number, whole):
        names, sizes = self.sizes[number]
        if self.fused:
            return getattr(self, whole)(x).split(sizes, -1)
        return [getattr(self, name)(x) for name in names]

    def forward(self, x):
        query, key, value = self.parts(x, 0, "qkv_proj")
        x = x + query * torch.tanh(torch.cat([key, value], -1))
        gate, up = self.parts(x, 1, "gate_up_proj")
        return self.down(functional.silu(gate) * up)


def test_a_fused_layer_is_not_taken_for_one_of_its_width():
    models = Parts(fused=True), Parts(fused=False)
    found = paripassu.check(*models, STEPS_IN, copy="left-to-right")
    assert found.equal
    assert ("gate_up_proj[24:48]", "up_proj") in names(found)


class Grouped(nn.Module):
    """Queries that share keys and values in two groups; fused group by group (Falcon),
    or queries alone, and keys and values in one layer."""

    def __init__(self, *, fused):
        super().__init__()
        torch.manual_seed(int(fused))
        self.fused = fused
        if fused:
            self.query_key_value = nn.Linear(WIDTH, 2 * WIDTH)
        else:
            self.q_proj, self.kv_proj = nn.Linear(WIDTH, 12), nn.Linear(WIDTH, 12)

    def forward(self, x):
        if self.fused:  # in each of two groups: two queries, a key, a value
            made = self.query_key_value(x).unflatten(-1, (2, 4, 3))
            query, key, value = made[..., :2, :], made[..., 2, :], made[..., 3, :]
        else:
            query = self.q_proj(x).unflatten(-1, (2, 2, 3))
            key, value = self.kv_proj(x).unflatten(-1, (2, 2, 3)).unbind(-3)
        scores = torch.einsum("ntgqd,nsgd->ngqts", query, key).softmax(-1)
        return torch.einsum("ngqts,nsgd->ntgqd", scores, value).flatten(2)


def test_a_fused_layer_may_stand_beside_one_that_fuses_less():
    found = paripassu.check(
        Grouped(fused=True), Grouped(fused=False), STEPS_IN, copy="left-to-right"
    )
    assert found.equal
    pieces = [("[0:2 of 2x4]", "q_proj"), ("[2 of 2x4]", "kv_proj[0:6]")]
    assert {(f"query_key_value{x}", y) for x, y in pieces} <= names(found)
    back = paripassu.check(
        Grouped(fused=False), Grouped(fused=True), STEPS_IN, copy="left-to-right"
    )
    assert back.equal
