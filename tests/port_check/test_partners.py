"""Which inputs and outputs of two models are taken for the same, and how they lie."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paripassu.core.errors import UserError
from paripassu.core.layer_spec import relative_error
from paripassu.port_check.input_pairs import (
    Layout,
    arrangements,
    fill_in,
    name_inputs,
    pair_inputs,
)
from paripassu.port_check.output_pairs import (
    describe_partners,
    find_outputs,
    pair_outputs,
)
from paripassu.port_check.targets import parse_pair
from paripassu.sides.contract import ANY, Declared
from paripassu.sides.observing import nest_leaves

LAST = (1, -1)
TWO = ("hidden", "logits")


def numbers(*shape: int, dtype: str = "float32") -> np.ndarray:
    drawn = np.random.default_rng(sum(shape)).standard_normal(shape) * 100
    return drawn.astype(dtype)


def ids(*shape: int) -> np.ndarray:
    return np.ones(shape, np.int64)


def pairs(left: dict, right: dict, *asked: str, **how) -> set[tuple[str, str]]:
    return set(find_outputs(left, right, asked, **how).pairs)


def compared(left: np.ndarray, right: np.ndarray, **how) -> tuple[np.ndarray, ...]:
    """The left output as it is compared, and the right one."""
    lefts, rights = {"output": left}, {"output": right}
    plan = find_outputs(lefts, rights, **how)
    ((_, _, wanted, got),) = pair_outputs(plan, lefts, rights)
    return wanted, got


class TestOutputs:
    def test_names_and_meanings_come_before_order(self):
        left = {"last_hidden_state": numbers(2, 5, 4), "pooler_output": numbers(2, 4)}
        right = {"pooled_output": numbers(2, 4), "sequence_output": numbers(2, 5, 4)}
        assert pairs(left, right) == {
            ("last_hidden_state", "sequence_output"),
            ("pooler_output", "pooled_output"),
        }
        left = {"a": numbers(2, 3), "b": numbers(2, 3)}
        assert pairs(left, {"b": numbers(2, 3), "a": numbers(2, 3)}) == {
            ("a", "a"),
            ("b", "b"),
        }

    def test_what_is_left_over_is_data_and_said(self):
        left = {"last_hidden_state": numbers(2, 5, 4), "cache.0": numbers(2, 5, 4)}
        plan = find_outputs(left, {"output": numbers(2, 5, 4)})
        assert [(x.left, x.right) for x in plan.partners] == [
            ("last_hidden_state", "output"),
            ("cache.0", None),
        ]
        assert "cache" in " ".join(describe_partners(plan))
        assert not plan.doubt
        same = {"output": numbers(2, 3)}
        assert not describe_partners(find_outputs(same, same))

    def test_names_that_differ_on_both_sides_are_in_doubt(self):
        left = {"logits": numbers(2, 3), "boxes": numbers(2, 4)}
        right = {"logits": numbers(2, 3), "box": numbers(2, 5)}
        assert "boxes" in find_outputs(left, right).doubt

    def test_one_of_another_shape_is_compared_all_the_same(self):
        """A fault, which no pairing may hide."""
        assert pairs({"output": numbers(2, 3)}, {"output": numbers(2, 4)})
        left = {"output": numbers(2, 3), "output1": numbers(2, 6)}
        right = {"output": numbers(2, 3), "output1": numbers(2, 2)}
        assert ("output1", "output1") in pairs(left, right)

    def test_asked_for(self):
        left = {x: numbers(2, n) for n, x in enumerate(TWO, 3)}
        right = {"output": numbers(2, 4), "output1": numbers(2, 3)}
        assert pairs(left, right, "logits=output") == {("logits", "output")}
        assert pairs(left, right, "hidden") == {("hidden", "output1")}
        for wrong in ("boxes", "logits=boxes", "boxes=output"):
            with pytest.raises(UserError, match="boxes"):
                find_outputs(left, right, [wrong])

    def test_refused_only_where_nothing_pairs(self):
        left = {"output": numbers(2, 3), "output1": numbers(2, 6)}
        with pytest.raises(UserError, match="--output LEFT=RIGHT"):
            find_outputs(left, {"output": numbers(7, 9)})

    def test_channels_move_between_frameworks_only(self):
        image = numbers(2, 3, 8, 6)
        other = np.moveaxis(image, 1, -1)
        assert np.array_equal(*compared(image, other, move=LAST))
        assert relative_error(*compared(image, other)) == np.inf
        plan = find_outputs({"output": image}, {"output": other}, move=LAST)
        assert plan.turned({"output": image}, {"output": other})

    @pytest.mark.parametrize("shape", [(2, 7, 7), (2, 4, 4, 4)])
    @pytest.mark.parametrize("move", [None, LAST, (-1, 1)])
    def test_a_transposed_map_is_not_equal(self, shape, move):
        maps = numbers(*shape)
        assert relative_error(*compared(maps, np.moveaxis(maps, 1, -1), move=move)) > 0

    def test_states_of_recurrent_layers_have_one_axis_more_in_pytorch(self):
        state, column = numbers(1, 5, 4), numbers(5, 1)
        assert np.array_equal(*compared(state, state[0]))
        assert relative_error(*compared(state, state[0], same_side=True)) == np.inf
        # (N, 1) beside (N,) is broadcast somewhere.
        assert relative_error(*compared(column, column[:, 0])) == np.inf


SHAPES = st.lists(st.integers(0, 5), min_size=0, max_size=5).map(tuple)
NAMES = (
    "output",
    "output1",
    "logits",
    "last_hidden_state",
    "sequence_output",
    "a",
    "b",
)
OUTPUTS = st.dictionaries(st.sampled_from(NAMES), SHAPES, min_size=1, max_size=4)


@settings(max_examples=60)
@given(OUTPUTS, OUTPUTS, st.sampled_from([None, LAST, (-1, 1)]), st.booleans())
def test_any_outputs_are_paired_or_refused(left, right, move, same_side):
    """Each output is in the plan once, and what is compared has one shape or none."""
    lefts = {name: numbers(*shape) for name, shape in left.items()}
    rights = {name: numbers(*shape) for name, shape in right.items()}
    try:
        plan = find_outputs(
            lefts, rights, move=move, spatial=frozenset({"output"}), same_side=same_side
        )
    except UserError:
        same = {x.shape for x in lefts.values()} & {x.shape for x in rights.values()}
        assert not same
        return
    assert sorted(x.left for x in plan.partners if x.left) == sorted(left)
    assert sorted(x.right for x in plan.partners if x.right) == sorted(right)
    assert list(plan.pairs)
    describe_partners(plan)
    plan.turned(lefts, rights)
    for name, other, wanted, got in pair_outputs(plan, lefts, rights):
        assert sorted(wanted.ravel()) == sorted(lefts[name].ravel())
        if plan.way(name, lefts[name], rights[other]):
            assert wanted.shape == got.shape


@settings(max_examples=60)
@given(SHAPES, st.data())
def test_moved_values_are_equal_only_where_the_move_is_allowed(shape, data):
    """A false "equal" needs the frameworks to differ, and an image or a signal."""
    array = numbers(*shape)
    axes = data.draw(st.permutations(range(len(shape))))
    turned = np.ascontiguousarray(array.transpose(axes))
    if array.shape == turned.shape and np.array_equal(array, turned):
        return
    wanted, got = compared(array, turned)
    dropped = array.ndim != wanted.ndim
    assert dropped or relative_error(wanted, got) > 0


Point = namedtuple("Point", "x y")


@dataclass
class Made:
    first: object
    second: object = None


LEAVES = st.integers()
NESTS = st.recursive(
    LEAVES | st.none() | st.text(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.tuples(inner, inner).map(lambda x: Point(*x))
        | st.tuples(inner, inner).map(lambda x: Made(*x))
        | inner.map(lambda x: SimpleNamespace(kept=x, _own=1, name="text"))
    ),
    max_leaves=8,
)


def count(value: object) -> int:
    if isinstance(value, int):
        return 1
    if isinstance(value, dict):
        return sum(map(count, value.values()))
    if isinstance(value, tuple | list):
        return sum(map(count, value))
    if isinstance(value, Made):
        return count(value.first) + count(value.second)
    return count(value.kept) if isinstance(value, SimpleNamespace) else 0


@settings(max_examples=60)
@given(NESTS)
def test_all_leaves_of_any_nest_are_found_once(nest):
    found = list(nest_leaves(nest, lambda x: isinstance(x, int)))
    assert len(found) == count(nest)
    paths = [path for path, _ in found]
    assert len(set(paths)) == len(paths)


IDS = Declared((None, 6), integer=True, placed=False)
TAKES = {"padding_mask": IDS, "token_ids": IDS}  # as Keras sorts them


class TestInputs:
    def test_by_meaning_not_by_position(self):
        inputs = {"input_ids": ids(2, 6), "attention_mask": ids(2, 6)}
        found = {x.left: x.right for x in pair_inputs(inputs, TAKES)}
        assert found == {"input_ids": "token_ids", "attention_mask": "padding_mask"}

    def test_encoders_and_decoders(self):
        left = ("input_ids", "attention_mask", "decoder_input_ids")
        takes = ("decoder_token_ids", "encoder_padding_mask", "encoder_token_ids")
        found = pair_inputs(
            {x: ids(2, 6) for x in left},
            {x: Declared((None, None), integer=True, placed=False) for x in takes},
        )
        assert {x.left: x.right for x in found} == {
            "input_ids": "encoder_token_ids",
            "attention_mask": "encoder_padding_mask",
            "decoder_input_ids": "decoder_token_ids",
        }

    def test_in_doubt_it_is_asked_for(self):
        inputs = {"foo": ids(2, 6), "bar": ids(2, 6)}
        with pytest.raises(UserError, match="--pair foo="):
            pair_inputs(inputs, TAKES)
        found = pair_inputs(inputs, TAKES, ["foo=token_ids", "bar=padding_mask"])
        assert {x.left: x.right for x in found} == {
            "foo": "token_ids",
            "bar": "padding_mask",
        }
        for wrong in ("foo=nothing", "nothing=token_ids"):
            with pytest.raises(UserError, match="nothing"):
                pair_inputs(inputs, TAKES, [wrong])
        with pytest.raises(UserError, match="--pair"):
            parse_pair("foo", "--pair")

    def test_names_that_contradict_are_never_joined(self):
        takes = {"a": Declared((None, 6)), "segment_ids": Declared((None, 6))}
        with pytest.raises(UserError, match="attention_mask"):
            pair_inputs({"a": ids(2, 6), "attention_mask": ids(2, 6)}, takes)

    def test_by_shape_and_type(self):
        takes = {
            "p": Declared((None, 4), integer=False, placed=False),
            "q": Declared((None, 6), integer=True, placed=False),
        }
        found = pair_inputs({"x": ids(2, 6), "y": numbers(2, 4)}, takes)
        assert {x.left: x.right for x in found} == {"x": "q", "y": "p"}

    def test_what_is_not_given_has_a_default_that_is_said(self):
        takes = {**TAKES, "segment_ids": Declared((None, 6), integer=True)}
        made, said = fill_in({"token_ids": ids(2, 6)}, takes, "right")
        assert made["padding_mask"].all()
        assert not made["segment_ids"].any()
        assert len(said) == 2
        assert "zeros" in said[1]
        with pytest.raises(UserError, match="image"):
            fill_in({"token_ids": ids(2, 6)}, {**takes, "image": Declared()}, "right")

    def test_the_left_models_own_names(self):
        takes = {
            "input_ids": Declared(required=False),
            "attention_mask": Declared(required=False),
        }
        made, said = name_inputs({"token_ids": ids(2, 6)}, takes, "left")
        assert list(made) == ["input_ids"]
        assert "token_ids" in said[0]
        with pytest.raises(UserError, match="input_ids, attention_mask"):
            name_inputs({"pixel_values": ids(2, 6), "x": ids(2)}, takes, "left")

    def test_a_model_that_takes_others_by_name(self):
        takes = {"input_ids": Declared(required=False), ANY: Declared(required=False)}
        inputs = {"token_ids": ids(2, 6), "bias": ids(2, 6)}
        assert set(name_inputs(inputs, takes, "left")[0]) == {"input_ids", "bias"}
        found = {x.left: x.right for x in pair_inputs(inputs, takes)}
        assert found == {"token_ids": "input_ids", "bias": "bias"}

    @pytest.mark.parametrize(
        ("shape", "declared", "first"),
        [
            ((2, 3, 8, 6), None, (2, 8, 6, 3)),
            ((2, 3, 8, 6), (None, 8, 6, 3), (2, 8, 6, 3)),
            ((2, 3, 8, 6), (None, 3, 8, 6), (2, 3, 8, 6)),
            ((2, 3, 4, 5, 6), None, (2, 4, 5, 6, 3)),
            ((2, 3, 8), None, (2, 3, 8)),
            ((2, 3, 8), (None, 8, 3), (2, 8, 3)),
            ((2, 3), None, (2, 3)),
        ],
    )
    def test_channels_move_where_the_right_model_has_them(self, shape, declared, first):
        takes = {"x": Declared(declared)}
        found = pair_inputs({"x": numbers(*shape)}, takes, move=LAST)
        layout = Layout(left_first=True, right_first=False, same_side=False)
        likely = arrangements({"x": numbers(*shape)}, found, takes, layout)
        assert likely[0]["x"].shape == first
        back = Layout(left_first=False, right_first=True, same_side=False)
        moved = {"x": likely[0]["x"]}
        there = arrangements(moved, found, {"x": Declared(shape)}, back)
        assert np.array_equal(there[0]["x"], numbers(*shape))

    def test_a_shape_that_does_not_fit(self):
        takes = {"x": Declared((None, 5))}
        inputs = {"x": numbers(2, 4)}
        found = pair_inputs(inputs, takes)
        layout = Layout(left_first=True, right_first=True, same_side=True)
        with pytest.raises(UserError, match=r"\(any, 5\)"):
            arrangements(inputs, found, takes, layout)
