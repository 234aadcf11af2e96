"""Two models whose blocks are paired, and weights that go from one to the other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from paripassu.port_check.groups import Group, grouped
from paripassu.port_check.matching import Placed, match
from paripassu.port_check.sides import Side
from paripassu.port_check.watchers import Listing
from paripassu.sides.contract import Arrays, Block


class Models:
    """Both models, their inputs, and which blocks are which.

    Args:
        left, right: the models.
        inputs: of the left one and of the right one, by name.
        given: pairs of blocks that are not to be questioned.

    Attributes:
        pairs: of blocks; groups: of layers that are compared as they work.
        left_blocks, right_blocks: blocks by name, with their weights as they are.
        left_order, right_order: when layers are called.
        unequal: names of weights that differ, by the left block's name.
        unrelated: whether so many differ that they were not copied at all.
    """

    def __init__(
        self,
        left: Side,
        right: Side,
        inputs: tuple[Arrays, Arrays],
        given: Mapping[str, str],
    ):
        self.left, self.right = left, right
        self.inputs, self.right_inputs = inputs
        self.unequal: dict[str, list[str]] = {}
        self.unrelated = False
        one, self.left_order = self._placed(self.left, self.inputs)
        two, self.right_order = self._placed(self.right, self.right_inputs)
        self.pairs = match(one, two, given)
        self.left_blocks = {x.block.name: x.block for x in one}
        self.right_blocks = {x.block.name: x.block for x in two}
        self.groups = grouped(
            self.pairs,
            self.left_blocks,
            self.right_blocks,
            self.left_order,
            self.right_order,
        )

    def _placed(
        self, side: Side, inputs: Arrays
    ) -> tuple[list[Placed], dict[str, int]]:
        listing = Listing()
        side.run(inputs, listing, sources=True)
        order = listing.order
        last = len(listing.calls)
        placed = []
        for number, block in enumerate(side.probe.blocks()):
            serial = order.get(block.layer, last + number)
            depth = listing.depths.get(block.layer)
            parents = listing.parents.get(block.layer)
            placed.append(Placed(block, serial + 1e-4 * number, depth, parents))
        return sorted(placed, key=lambda x: x.order), order

    def copy(self, direction: str) -> None:
        """Give one model the other's weights."""
        for pair in self.pairs:
            if pair.left is None or pair.right is None:
                continue
            one, two = self.left_blocks[pair.left], self.right_blocks[pair.right]
            if direction == "left-to-right":
                fresh = self.carried(one, two)
                self.right.probe.write(pair.right, fresh)
            else:
                self.left.probe.write(pair.left, self.back(one, two))
        self.reread()

    def reread(self) -> None:
        """Read the weights again."""
        self.left_blocks = {x.name: x for x in self.left.probe.blocks()}
        self.right_blocks = {x.name: x for x in self.right.probe.blocks()}
        for group in self.groups:
            group.blocks = [
                (self.left_blocks[one.name], self.right_blocks[two.name])
                for one, two in group.blocks
            ]

    def group_of(self, left: str) -> Group | None:
        """The group that holds a left block."""
        return next(
            (x for x in self.groups for one, _ in x.blocks if one.name == left), None
        )

    def keys(self, one: Block, two: Block) -> dict[str, str]:
        """Names of weights, left to right: the same, or by shape where one is loose."""
        mine, other = one.described.weights, two.described.weights
        if one.kind == two.kind or mine.keys() & other.keys():
            keys = {x: x for x in mine if x in other}
            if one.kind == "gru" and len(mine) != len(other):
                keys.pop("input_bias", None)  # with two biases, and with one
            return keys
        found: dict[str, str] = {}
        for name, array in mine.items():
            for key, value in other.items():
                if value.shape == array.shape and key not in found.values():
                    found[name] = key
                    break
        return found

    def carried(self, one: Block, two: Block) -> Arrays:
        """The left block's weights as the right block has them."""
        group = self.group_of(one.name)
        carry = group.carry_weight if group else (lambda _name, x: x)
        found = {}
        for name, key in self.keys(one, two).items():
            array = carry(name, one.described.weights[name])
            if array.shape == two.described.weights[key].shape:
                found[key] = array
        return found

    def back(self, one: Block, two: Block) -> Arrays:
        """The right block's weights as the left block has them."""
        group = self.group_of(one.name)
        found = {}
        for name, key in self.keys(one, two).items():
            array = two.described.weights[key]
            if group is not None and group.rows is not None:
                order = np.argsort(group.rows)
                if len(array) == len(order) and name in ("kernel", "gamma", "beta"):
                    array = array[order]
            if array.shape == one.described.weights[name].shape:
                found[name] = array
        return found

    def smooth(self) -> None:
        """Make weights that differ by float32's rounding the same bits."""
        for pair in self.pairs:
            if pair.left is None or pair.right is None or pair.left in self.unequal:
                continue
            one, two = self.left_blocks[pair.left], self.right_blocks[pair.right]
            other = two.described.weights
            fresh = {
                key: x
                for key, x in self.carried(one, two).items()
                if not np.array_equal(x, other[key])
            }
            if fresh:
                self.right.probe.write(pair.right, fresh)
        self.reread()
