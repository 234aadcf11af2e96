"""Which block is which: by kind, shapes, order, names, and what feeds it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

from paripassu.core.layer_spec import LayerSpec
from paripassu.port_check import align, match
from paripassu.port_check.match import INPUT, Placed, match_blocks
from paripassu.sides.contract import Block


def conv(name, order, depth, parents, *, size=1, width=8):
    weights = {"kernel": np.zeros((size, size, 8, width))}
    block = Block(name, name, LayerSpec("conv", {}, weights))
    return Placed(block, order, depth, frozenset(parents))


def pairs(left, right):
    return {x.left: x.right for x in match_blocks(left, right)}


def test_branches_of_equal_shapes_are_told_apart_by_what_feeds_them():
    """One model calls its shortcut after the branch, the other before it."""
    left = [
        conv("stem", 0, 1, [INPUT], size=3),
        conv("reduce", 1, 2, ["stem"], width=4),
        conv("shortcut", 2, 2, ["stem"]),
        conv("expand", 3, 3, ["reduce"]),
    ]
    right = [
        conv("a", 0, 1, [INPUT], size=3),
        conv("b", 1, 2, ["a"], width=4),
        conv("c", 2, 3, ["b"]),
        conv("d", 3, 2, ["a"]),
    ]
    wanted = {"stem": "a", "reduce": "b", "shortcut": "d", "expand": "c"}
    assert pairs(left, right) == wanted
    before = [right[0], right[3], right[1], right[2]]
    before = [Placed(x.block, n, x.depth, x.parents) for n, x in enumerate(before)]
    assert pairs(left, before) == wanted


def test_a_layer_that_one_model_lacks_moves_no_other_pair():
    def chain(names, widths):
        fed = [INPUT, *names]
        return [
            conv(name, n, n + 1, [fed[n]], width=width)
            for n, (name, width) in enumerate(zip(names, widths, strict=True))
        ]

    left = chain("abcdef", [8, 8, 4, 8, 8, 8])
    right = chain("uvwxy", [8, 8, 8, 8, 8])
    found = pairs(left, right)
    assert found["c"] is None
    assert [found[x] for x in "abdef"] == list("uvwxy")


def test_names_decide_where_all_else_is_equal():
    left = [conv("query", 0, 1, [INPUT]), conv("key", 1, 1, [INPUT])]
    right = [conv("key", 0, 1, [INPUT]), conv("query", 1, 1, [INPUT])]
    assert pairs(left, right) == {"query": "query", "key": "key"}
    left = [conv(x, n, 1, [INPUT]) for n, x in enumerate(("layer.0.a", "layer.1.a"))]
    right = [conv(x, n, 1, [INPUT]) for n, x in enumerate(("layers.1.a", "layers.0.a"))]
    wanted = {"layer.0.a": "layers.0.a", "layer.1.a": "layers.1.a"}
    assert pairs(left, right) == wanted


def test_what_would_do_as_well_is_said():
    left = [conv("a", 0, 1, [INPUT]), conv("b", 1, 1, [INPUT])]
    right = [conv("x", 0, 1, [INPUT]), conv("y", 1, 1, [INPUT])]
    found = match_blocks(left, right)
    assert [(x.left, x.right) for x in found] == [("a", "x"), ("b", "y")]
    assert "y would do as well" in found[0].doubt
    sure = match_blocks([left[0]], [right[0]])
    assert not sure[0].doubt


def test_features_of_steps_are_not_rearranged_by_chance():
    """Only what is the same in another order is: nearer is not enough."""
    random = np.random.default_rng(0)
    block = Block("dense", "dense", LayerSpec("dense", {}, {"kernel": np.eye(32)}))
    left = random.standard_normal((2, 5, 32))
    order = np.moveaxis(np.arange(32).reshape(2, 2, 8), -1, 0).ravel()
    for noise, rows in ((0.5, False), (0.0, True)):
        group = align.Group(["dense"], ["dense"], [(block, block)])
        right = left[..., order] + noise * random.standard_normal(left.shape)
        align.find_rows(group, left, right, {(2, 2, 8)})
        assert (group.rows is not None) == rows


def test_the_cheapest_pairs_are_found_with_and_without_scipy():
    random = np.random.default_rng(0)
    costs = [random.random((n, m)) for n, m in ((3, 3), (4, 6), (6, 4), (5, 5))]
    costs += [np.eye(4)[::-1] * -1.0, np.zeros((3, 3)), np.zeros((2, 0))]
    for cost in costs:
        rows, columns = scipy.optimize.linear_sum_assignment(cost)
        found = match._assign_cheapest(cost)
        assert list(found) == list(rows)
        assert sum(cost[x, y] for x, y in found.items()) == pytest.approx(
            float(cost[rows, columns].sum())
        )
