"""Pieces of a block of weights, where one model splits what the other one fuses.

An attention is four dense layers: `mha/query`, `mha/key`, `mha/value`, `mha/output`. A
fused product is several: `qkv[0:64]` are the columns of a kernel and the values of a
bias, `qkv[0 of 4x3]` the first of three in each of four heads, of a table of vectors
`table[2:34]` are rows, and of kernels of experts in one parameter `up[0:64].T` are
columns after the last two axes were exchanged. A piece is read, written and given
gradients like a block; the block's other values stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from paripassu.core.errors import UserError
from paripassu.core.layer_spec import Array, LayerSpec
from paripassu.sides.contract import Arrays, Block, Live

PRODUCTS = ("query", "key", "value", "output")  # of an attention


@dataclass(frozen=True)
class Cut:
    """Some of a weight's values.

    Attributes:
        begin, end: of its columns, or rows; None: all.
        rows: whether rows are meant.
        heads, parts: where not 0, columns are (heads, parts, width), and `begin` and
            `end` say which parts.
        turned: whether the last two axes are exchanged, first of all.
        axes: the order of its axes, where it is another one.
    """

    begin: int = 0
    end: int | None = None
    rows: bool = False
    heads: int = 0
    parts: int = 0
    turned: bool = False
    axes: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """As a map has it."""
        if self.heads:
            several = self.end != self.begin + 1
            parts = f"{self.begin}:{self.end}" if several else f"{self.begin}"
            name = f"[{parts} of {self.heads}x{self.parts}]"
        else:
            name = f"[{self.begin}:{self.end}]"
        return f"{name}.T" if self.turned else name

    def view(self, whole: Array) -> Array:
        """The values, where they lie."""
        if self.turned:
            whole = whole.swapaxes(-1, -2)
        if self.end is None:
            return whole.transpose(self.axes) if self.axes else whole
        if self.heads:
            split = whole.reshape(*whole.shape[:-1], self.heads, self.parts, -1)
            return split[..., self.begin : self.end, :]
        if self.rows:
            return whole[self.begin : self.end]
        return whole[..., self.begin : self.end]

    def take(self, whole: Array) -> Array:
        """The values, with the axes of the whole."""
        found = self.view(whole)
        return found.reshape(*found.shape[:-3], -1) if self.heads else found

    def put(self, whole: Array, values: Array) -> None:
        """Write them into the whole."""
        target = self.view(whole)
        target[...] = values.reshape(target.shape)


@dataclass(frozen=True)
class Piece:
    """A block that is a part of another one.

    Attributes:
        name: the block's, and which part.
        kind, settings: of the part.
        weights: by its own names, the block's, and which values of that.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]
    weights: Mapping[str, tuple[str, Cut]]

    def of(self, block: Block) -> Block:
        """The piece, as a block."""
        weights = block.spec.weights
        shapes = {}
        for name, (source, cut) in self.weights.items():
            zeros = np.broadcast_to(np.float32(0), block.shapes[source])
            shapes[name] = cut.take(zeros).shape

        def read(name: str) -> Array:
            source, cut = self.weights[name]
            return cut.take(weights[source])

        spec = LayerSpec(self.kind, dict(self.settings), Live(shapes, read))
        return Block(self.name, block.layer, spec, block.trainable)

    def take(self, arrays: Mapping[str, Array]) -> Arrays:
        """Its own of what there is for the block's weights."""
        return {
            name: cut.take(arrays[source])
            for name, (source, cut) in self.weights.items()
            if source in arrays
        }

    def put(self, block: Block, arrays: Mapping[str, Array]) -> Arrays:
        """The block's weights with these values in them."""
        found: Arrays = {}
        for name, array in arrays.items():
            source, cut = self.weights[name]
            whole = np.array(block.spec.weights[source])
            cut.put(whole, array)
            found[source] = whole
        return found


def split_attention(block: Block) -> list[Piece]:
    """An attention as its four products."""
    return [
        Piece(
            f"{block.name}/{product}",
            "dense",
            {"_heads": block.spec.settings.get("heads", 0)},
            {
                own: (source, Cut())
                for own, source in (("kernel", product), ("bias", f"{product}_bias"))
                if source in block.shapes
            },
        )
        for product in PRODUCTS
        if product in block.shapes
    ]


def split_weights(block: Block, *, turned: bool = False) -> list[Piece]:
    """A layer's weights, as parameters.

    Args:
        block: the layer.
        turned: whether its kernel is to be (out, in, *window).
    """
    return [
        Piece(
            f"{block.name}/{name}",
            "parameter",
            {"_role": name} if name in ("gamma", "beta") else {},
            {"value": (name, _turning(len(shape), turned and name == "kernel"))},
        )
        for name, shape in block.shapes.items()
    ]


def _turning(rank: int, turned: bool) -> Cut:
    return Cut(axes=turns(rank)[1] if turned else ())


def turns(rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How kernels (out, in, *window) and (*window, in, out) become each other."""
    window = range(2, rank)
    return (*window, 1, 0), (rank - 1, rank - 2, *range(rank - 2))


def swapped_last(rank: int) -> tuple[int, ...]:
    """How kernels (..., out, in) and (..., in, out) become each other."""
    return (*range(rank - 2), rank - 1, rank - 2)


TURNED = re.compile(r"\.transpose\(([\d, ]+)\)$")  # ends a parameter's name


def turn_parameter(block: Block, axes: tuple[int, ...]) -> list[Piece]:
    """A parameter with its axes in this order."""
    name = f"{block.name}.transpose({', '.join(map(str, axes))})"
    return [Piece(name, block.kind, {}, {"value": ("value", Cut(axes=axes))})]


def cut_block(block: Block, cuts: Sequence[Cut]) -> list[Piece]:
    """A dense layer or a table of vectors in pieces."""
    found = []
    for cut in cuts:
        settings = block.spec.settings | {"_cut": cut}
        row = settings.pop("_untrained_row", None)
        if row is not None and cut.begin <= row < (cut.end or 0):
            settings["_untrained_row"] = row - cut.begin
        weights = {name: (name, cut) for name in block.shapes}
        name = f"{block.name}{cut.label}"
        found.append(Piece(name, block.kind, settings, weights))
    return found


def columns(sizes: Sequence[int]) -> list[Cut]:
    """Cuts of these sizes, one after the other."""
    ends = np.cumsum([0, *sizes])
    return [Cut(int(a), int(b)) for a, b in pairwise(ends)]


def in_heads(heads: int, parts: int) -> list[Cut]:
    """Cuts that come in turn in each head."""
    return [Cut(n, n + 1, heads=heads, parts=parts) for n in range(parts)]


def in_groups(heads: int, sizes: Sequence[int]) -> list[Cut]:
    """Cuts that come in turn in each head, some of them several parts wide."""
    ends = np.cumsum([0, *sizes])
    return [
        Cut(int(a), int(b), heads=heads, parts=int(ends[-1])) for a, b in pairwise(ends)
    ]


def pieces_named(block: Block, names: Sequence[str]) -> list[Piece]:
    """The pieces of a block that a map names, and what is between them.

    Raises:
        UserError: it has no such piece.
    """
    labels = [name.removeprefix(block.name) for name in names]
    if block.kind == "attention" and all(x.startswith("/") for x in labels):
        found = split_attention(block)
        if unknown := {*names} - {x.name for x in found}:
            raise UserError(
                f"the map names {min(unknown)!r}, but {block.name} has "
                f"{', '.join(x.name for x in found)}."
            )
        return found
    if len(labels) == 1 and (order := TURNED.fullmatch(labels[0])):
        axes = tuple(int(x) for x in order[1].split(","))
        if sorted(axes) == [*range(len(block.shapes.get("value", ())))]:
            return turn_parameter(block, axes)
    cuts = _cuts_named(block, labels)
    turned = cuts[0].turned
    between = _between(_columns_of(block, turned=turned), cuts)
    return cut_block(block, [*cuts, *(replace(x, turned=turned) for x in between)])


def _columns_of(block: Block, *, turned: bool) -> int:
    """How many columns its kernel has, or that of each expert."""
    return _main_shape(block)[-2 if turned else -1]


def _between(size: int, cuts: Sequence[Cut]) -> list[Cut]:
    """The columns that no cut has; the rest of a table's rows is of no use."""
    if cuts[0].rows:
        return []
    if cuts[0].heads:
        given = {n for x in cuts for n in range(x.begin, x.end or 0)}
        every = in_heads(cuts[0].heads, cuts[0].parts)
        return [x for x in every if x.begin not in given]
    found, begin = [], 0
    for cut in sorted(cuts, key=_begin):
        if begin < cut.begin:
            found.append(Cut(begin, cut.begin))
        begin = cut.end or 0
    if begin < size:
        found.append(Cut(begin, size))
    return found


def _main_shape(block: Block) -> tuple[int, ...]:
    names = {"dense": "kernel", "embedding": "table", "parameter": "value"}
    return block.shapes.get(names.get(block.kind, ""), ())


def _cuts_named(block: Block, labels: Sequence[str]) -> list[Cut]:
    main = _main_shape(block)
    stacked = block.kind == "parameter" and len(main) == 3  # kernels of experts
    if len(main) != 2 and not stacked:
        raise UserError(
            f"the map names {block.name}{labels[0]}, but a layer of kind {block.kind} "
            "cannot be cut. Dense layers and tables of vectors can, and an attention "
            f"has {', '.join(f'/{x}' for x in PRODUCTS)}."
        )
    rows = block.kind != "dense" and not stacked
    turned = stacked and labels[0].endswith(".T")
    size = main[0] if rows else _columns_of(block, turned=turned)
    found = []
    for whole in labels:
        label = whole.removesuffix(".T") if turned else whole
        if each := re.fullmatch(r"\[(\d+)(?::(\d+))? of (\d+)x(\d+)\]", label):
            begin, heads, parts = (int(each[n]) for n in (1, 3, 4))
            end = int(each[2] or begin + 1)
            good = not rows and begin < end <= parts and heads
            good = good and size % (heads * parts) == 0
            cut = Cut(begin, end, heads=heads, parts=parts, turned=turned)
        elif each := re.fullmatch(r"\[(\d+):(\d+)\]", label):
            begin, end = map(int, each.groups())
            good, cut = begin < end <= size, Cut(begin, end, rows, turned=turned)
        else:
            good = False
        if not good:
            raise UserError(
                f"the map names {block.name}{whole}, which is no piece of it. Of its "
                f"{size} {'rows' if rows else 'columns'}, the first are written "
                f"{block.name}[0:{max(size // 2, 1)}]."
            )
        found.append(cut)
    if len({x.heads for x in found}) > 1 or any(
        one.end is not None and two.begin < one.end
        for one, two in zip(
            sorted(found, key=_begin), sorted(found, key=_begin)[1:], strict=False
        )
    ):
        raise UserError(f"the map gives values of {block.name} twice.")
    return found


def _begin(cut: Cut) -> int:
    return cut.begin
