"""Pairs the blocks of two models of which one may split what the other one fuses.

Blocks that are left without a partner are cut into pieces (`pieces`), and all are
matched again: an attention into its four products, a fused product into what the other
model has side by side, a table with more rows than the other one's. Cuts whose pieces
find no partners are taken back. Where several cuts or pairs are possible, and no name
tells which, they are a `Choice`, which what the models compute decides (`deciding`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Literal

from paripassu.core.errors import UserError
from paripassu.port_check.examined import CallOrder, ExaminedModel
from paripassu.port_check.folding import fold_named
from paripassu.port_check.match import (
    NORMS,
    Pair,
    Placed,
    can_pair,
    describe_shapes,
    match_blocks,
    role_of,
    squeezed,
    table_shape,
)
from paripassu.port_check.pieces import (
    PRODUCTS,
    TURNED,
    Cut,
    Piece,
    columns,
    cut_block,
    in_groups,
    in_heads,
    pieces_named,
    split_attention,
    split_weights,
    swapped_last,
    turn_parameter,
    turns,
)
from paripassu.sides.contract import Block

BlockMap = Mapping[str, str | Sequence[str]]  # left name to right name, or names
Which = Literal["left", "right"]
Cuts = dict[str, list[Piece]]
HEADS = (2, 3, 4, 6, 8, 12, 16)  # tried where no layer says how many there are
FUSED = ("qkv", "query_key_value", "kv", "gate_up")  # in names of fused layers
# Roles of layers that have one input.
SHARED = (["key", "value"], ["key", "query", "value"], ["gate", "up"])
RIVALS = 3  # blocks that may be exchanged with each other, at most


@dataclass(frozen=True)
class Choice:
    """Ways to pair that shapes and names leave open; what is paired is the first.

    Attributes:
        cuts: other cuts of blocks of one side, all of one way at a time; as many pieces
            in the same order, so that their partners stay.
        which: the side that is cut.
        partners: or, other partners of left blocks.
        telling: whether equal weights decide, too: no mistake gives them.
    """

    cuts: tuple[Cuts, ...] = ()
    which: Which = "left"
    partners: tuple[dict[str, str], ...] = ()
    telling: bool = False


@dataclass
class _Found:
    """Blocks to cut, of each side."""

    left: Cuts = field(default_factory=dict)
    right: Cuts = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)


Placings = tuple[list[Placed], list[Placed]]


def pair_blocks(
    left: ExaminedModel,
    right: ExaminedModel,
    calls: tuple[CallOrder, CallOrder],
    given: BlockMap,
) -> tuple[list[Pair], list[Choice]]:
    """Pair the blocks of two models, and cut them where that takes it.

    Raises:
        UserError: `given` names what is not there, or cannot be cut so.
    """
    fixed = _read_given(left, right, given)
    named = {*left.cuts}, {*right.cuts}

    def match() -> tuple[list[Pair], Placings]:
        placed = _place(left, calls[0]), _place(right, calls[1])
        return match_blocks(*placed, fixed), placed

    pairs, placed = match()
    choices: list[Choice] = []
    for find in FINDERS:
        found = find(pairs, placed)
        if found.left or found.right:
            left.cuts |= found.left
            right.cuts |= found.right
            choices += found.choices
            pairs, placed = match()
    if _take_back(pairs, (left, right), named):
        pairs, placed = match()
    kept = [x for x in choices if _holds(x, left, right)]
    return pairs, [*kept, *_rivals(pairs)]


def _place(model: ExaminedModel, calls: CallOrder) -> list[Placed]:
    """The blocks in the order of their calls."""
    placed = []
    alike = Counter[tuple[int, ...]]()
    wholes = model.wholes()
    nth_use: dict[str, int] = {}  # pieces have that of their block
    # A copy that is not trained is not what is used where the weight itself is there.
    for number, block in sorted(enumerate(model.blocks()), key=_is_frozen):
        name, unused = block.layer, False
        begin = calls.order.get(name, calls.begun.get(name, calls.count + number))
        depth, parents = calls.depths.get(name), calls.parents.get(name)
        if name not in calls.order:
            # Of weights with the same values, each has one of their uses, in order.
            whole = wholes.get(block.name, block)
            uses = calls.used_by(whole.spec.weights.values())
            if whole.name not in nth_use:
                nth_use[whole.name] = alike[tuple(uses)]
                alike[tuple(uses)] += 1
            if (nth := nth_use[whole.name]) < len(uses):
                begin = uses[nth]
                depth, parents = calls.place_of(begin)
            else:
                unused = not block.trainable
        end = block.name.removeprefix(name)
        if end == "/output":
            parents = frozenset((name,))
        elif end.startswith("/") and end[1:] in PRODUCTS and depth:
            depth -= 1
        placed.append(Placed(block, begin + 1e-4 * number, depth, parents, unused))
    return sorted(placed, key=lambda x: x.order)


def _is_frozen(numbered: tuple[int, Block]) -> bool:
    return not numbered[1].trainable


def _without_partner(pairs: Sequence[Pair], placed: Placings) -> Placings:
    """The blocks of each side that have none, or one of other shapes."""
    whole = [x for x in pairs if x.whole]
    taken = {x.left for x in whole}, {x.right for x in whole}
    return (
        [x for x in placed[0] if x.block.name not in taken[0]],
        [x for x in placed[1] if x.block.name not in taken[1]],
    )


def _split_attentions(pairs: Sequence[Pair], placed: Placings) -> _Found:
    """Attentions whose other model has none that is left."""
    found = _Found()
    alone = (
        {x.left for x in pairs if not x.right},
        {x.right for x in pairs if not x.left},
    )
    for cuts, blocks, names in zip(
        (found.left, found.right), placed, alone, strict=True
    ):
        for one in blocks:
            if one.block.kind == "attention" and one.block.name in names:
                cuts[one.block.name] = split_attention(one.block)
    return found


def _split_weights(pairs: Sequence[Pair], placed: Placings) -> _Found:
    """Layers whose other model has parameters of its own instead."""
    found = _Found()
    alone = _without_partner(pairs, placed)
    sides: tuple[Which, Which] = ("left", "right")
    for which, own, others, cuts in zip(
        sides, alone, alone[::-1], (found.left, found.right), strict=True
    ):
        loose = Counter(
            squeezed(x.block.shapes["value"])
            for x in others
            if x.block.kind == "parameter"
        )
        square: dict[str, Cuts] = {}
        for block in (
            x.block for x in own if x.block.kind in (*NORMS, "dense", "conv")
        ):
            ways = [split_weights(block, turned=x) for x in (False, True)]
            wanted = [
                Counter(squeezed(x.of(block).shapes["value"]) for x in way)
                for way in ways
            ]
            fitting = [n for n, x in enumerate(wanted) if x <= loose]
            if not fitting:
                continue
            cuts[block.name] = ways[fitting[0]]
            loose -= wanted[fitting[0]]
            if len(fitting) > 1 and "kernel" in block.shapes:
                signature = re.sub(r"\d+", "#", block.name)
                square.setdefault(signature, {})[block.name] = ways[1]
        found.choices += [Choice((way,), which) for way in square.values()]
    return found


def _turn_parameters(pairs: Sequence[Pair], placed: Placings) -> _Found:
    """Parameters (out, in, *window) whose other model has (*window, in, out)."""
    found = _Found()
    alone = _without_partner(pairs, placed)
    rights = [x.block for x in alone[1] if _is_kernel(x.block)]
    for one in (x.block for x in alone[0] if _is_kernel(x.block)):
        shape = one.shapes["value"]
        for other, axes in [(x, y) for x in rights for y in turns(len(shape))]:
            its = other.shapes["value"]
            if len(its) == len(shape) and tuple(its[n] for n in axes) == shape:
                found.right[other.name] = turn_parameter(other, axes)
                rights.remove(other)
                break
    # Of some shapes both are possible: as they are at first.
    blocks = {x.block.name: x.block for x in placed[1]}
    lefts = {x.block.name: x.block.kind for x in placed[0]}
    ways: dict[tuple[int, ...], list[Cuts]] = {}
    for pair in pairs:
        two = blocks.get(pair.right or "")
        if two is None or not pair.whole or lefts[pair.left or ""] != "parameter":
            continue
        if _is_kernel(two):
            shape = two.shapes["value"]
            # Of an expert's kernels as well, which lie in one parameter.
            for axes in sorted({turns(len(shape))[0], swapped_last(len(shape))}):
                if tuple(shape[n] for n in axes) == shape:
                    found.right[two.name] = turn_parameter(two, (*range(len(shape)),))
                    way = {two.name: turn_parameter(two, axes)}
                    ways.setdefault(axes, []).append(way)
    for each in ways.values():
        together = {name: x for way in each for name, x in way.items()}
        tried = [together, *each] if len(each) > 1 else each
        found.choices += [Choice((way,), "right") for way in tried]
    return found


def _is_kernel(block: Block) -> bool:
    """Whether it is a whole parameter of several rows and columns."""
    shape = block.shapes.get("value", ())
    whole = not block.name.startswith(f"{block.layer}/")
    return (
        block.kind == "parameter"
        and whole
        and len(shape) > 1
        and len(squeezed(shape)) > 1
    )


def _kernel(block: Block) -> tuple[int, ...]:
    return block.shapes.get("kernel", ()) if block.kind == "dense" else ()


def _runs(blocks: Sequence[Placed]) -> Iterator[list[Placed]]:
    """Two or three dense layers of one input, side by side."""
    dense = [x for x in blocks if len(_kernel(x.block)) == 2]
    for count in (3, 2):
        for begin in range(len(dense) - count + 1):
            run = dense[begin : begin + count]
            first = run[0]
            if all(
                x.parents == first.parents
                and _kernel(x.block)[0] == _kernel(first.block)[0]
                for x in run
            ):
                yield run


def _is_by_chance(pair: Pair) -> bool:
    """Whether names tell of one that it is fused, and what part of it the other is."""
    names = pair.left or "", pair.right or ""
    fused = [any(x in _last_word(name) for x in FUSED) for name in names]
    return fused[0] != fused[1] and bool(role_of(names[fused[0]]))


def _split_fused(pairs: Sequence[Pair], placed: Placings) -> _Found:
    """Dense layers without a partner that are as wide as some of the other model."""
    found = _Found()
    alone = _without_partner([x for x in pairs if not _is_by_chance(x)], placed)
    sides: tuple[Which, Which] = ("left", "right")
    for which, own, others, cuts in zip(
        sides, alone, placed[::-1], (found.left, found.right), strict=True
    ):
        lonely = {x.block.name for x in alone[which == "left"]}
        used: set[str] = set()
        ways: dict[tuple[str, int], list[Cuts]] = {}
        also: dict[tuple[str, int], list[Cuts]] = {}  # of the other model's own fused
        for one in own:
            kernel = _kernel(one.block)
            fitting = [
                run
                for run in _runs(others)
                if len(kernel) == 2
                and _kernel(run[0].block)[0] == kernel[0]
                and sum(_kernel(x.block)[1] for x in run) == kernel[1]
                and not used & {x.block.name for x in run}
                and lonely & {x.block.name for x in run}
            ]
            if not fitting:
                continue
            # Where one of them has found a partner by chance, it is not the best,
            # unless names tell that they share an input.
            run = max(
                fitting,
                key=lambda x: (
                    sorted(role_of(y.block.name) for y in x) in SHARED,
                    sum(y.block.name in lonely for y in x),
                ),
            )
            used |= {x.block.name for x in run}
            parts = []
            for block in (x.block for x in run):
                halves = _halves(block) if len(run) == 2 else []
                if halves:
                    its = found.right if which == "left" else found.left
                    its[block.name] = halves[0]
                    other = re.sub(r"\d+", "#", block.name), -len(halves)
                    per = also.setdefault(other, [{} for _ in halves[1:]])
                    for number, way in enumerate(halves[1:]):
                        per[number][block.name] = way
                parts += [x.of(block) for x in halves[0]] if halves else [block]
            first, *more = _ways_to_cut(one.block, parts)
            cuts[one.block.name] = first
            for number, way in enumerate(more):
                signature = re.sub(r"\d+", "#", one.block.name), len(more)
                per = ways.setdefault(signature, [{} for _ in more])
                per[number][one.block.name] = way
        found.choices += [Choice(tuple(x), which) for x in ways.values()]
        there: Which = "right" if which == "left" else "left"
        found.choices += [Choice(tuple(x), there) for x in also.values()]
    return found


def _halves(block: Block) -> list[list[Piece]]:
    """How a layer that is itself fused may hold two, as its name tells; or none."""
    word, width = _last_word(block.name), _kernel(block)[1]
    roles = next((x for told, x in TOLD.items() if told in word), ())
    if roles != PRODUCTS[1:3] or width % 2:
        return []
    heads = [x for x in HEADS if width // 2 % x == 0]
    return [
        _named_pieces(block, way, roles)
        for way in (columns([width // 2] * 2), *(in_heads(x, 2) for x in heads))
    ]


def _named_pieces(
    block: Block, cuts: Sequence[Cut], roles: Sequence[str]
) -> list[Piece]:
    """Pieces that are known to be these parts of an attention."""
    return [
        replace(piece, settings={**piece.settings, "_role": role})
        for piece, role in zip(cut_block(block, cuts), roles, strict=True)
    ]


def _ways_to_cut(block: Block, run: Sequence[Block]) -> list[list[Piece]]:
    """How a fused layer may hold others, the likeliest first."""
    sizes = [_kernel(x)[1] for x in run]
    roles = [str(x.spec.settings.get("_role") or role_of(x.name)) for x in run]
    orders = _orders(block.name, roles)
    ways = [_in_order(sizes, orders[0])]
    if len(set(sizes)) == 1:
        known = {x.spec.settings.get("_heads", 0) for x in (block, *run)} - {0}
        heads = sorted(known) or [x for x in HEADS if sizes[0] % x == 0]
        ways += [in_heads(x, len(run)) for x in heads if x > 1]
    elif len(run) == 3 and sizes[1] == sizes[2] and sizes[0] % sizes[1] == 0:
        # Queries that share a key and a value, group by group.
        parts = (sizes[0] // sizes[1], 1, 1)
        ways += [in_groups(x, parts) for x in HEADS if sizes[1] % x == 0]
    for order in orders[1:]:
        ways.append(_in_order(sizes, order))
    return [_named_pieces(block, way, roles) for way in ways]


TOLD = {
    "qkv": PRODUCTS[:3],
    "query_key_value": PRODUCTS[:3],
    "kv": PRODUCTS[1:3],
    "key_value": PRODUCTS[1:3],
    "gate_up": ("gate", "up"),
    "up_gate": ("up", "gate"),
}


def _orders(name: str, roles: Sequence[str]) -> list[tuple[int, ...]]:
    """In which orders a fused layer may hold layers; what names tell is not asked."""
    word = _last_word(name)
    for told, products in TOLD.items():
        if told in word and sorted(roles) == sorted(products):
            return [tuple(roles.index(x) for x in products)]
    return list(permutations(range(len(roles))))


def _last_word(name: str) -> str:
    """Of a block's name, what the layer itself is called."""
    return re.split(r"[./]", name)[-1].lower()


def _in_order(sizes: Sequence[int], order: Sequence[int]) -> list[Cut]:
    """Cuts that lie in another order than the layers that they are."""
    cuts = columns([sizes[x] for x in order])
    return [cuts[order.index(n)] for n in range(len(sizes))]


def _stacked(block: Block) -> tuple[int, ...]:
    """The shape of the kernels of several experts in one parameter."""
    shape = block.shapes.get("value", ()) if block.kind == "parameter" else ()
    return shape if len(shape) == 3 and min(shape) > 1 else ()


def _split_stacked(pairs: Sequence[Pair], placed: Placings) -> _Found:
    """Kernels of experts that lie the other way round, or are fused in one model."""
    found = _Found()
    stacked = [[x.block for x in side if _stacked(x.block)] for side in placed]
    alone = _without_partner(pairs, placed)
    # One may have a partner of its shape by chance: the kernel of another product.
    if not any(_stacked(x.block) for side in alone for x in side):
        return found
    sides: tuple[Which, Which] = ("left", "right")
    used: tuple[set[str], set[str]] = set(), set()
    counts = [Counter(_either_way(x) for x in side) for side in stacked]
    for side, which in enumerate(sides):
        more = counts[side] - counts[1 - side]  # one is fused: has not its own partner
        rest, cuts = stacked[1 - side], found.left if which == "left" else found.right
        ways: dict[str, list[Cuts]] = {}
        turned = False  # as the fused ones are, so the others; and square ones last
        for many in (2, 1):
            for block in sorted(stacked[side], key=_is_square):
                if many == 2 and not more[_either_way(block)]:
                    continue
                free = [x for x in rest if x.name not in used[1 - side]]
                fitting = _stacked_parts(_stacked(block), free, many, turned)
                if block.name in used[side] or fitting is None:
                    continue
                run, turned = fitting
                used[side].add(block.name)
                used[1 - side].update(x.name for x in run)
                if many == 1 and not turned:
                    continue
                first, *others = _ways_to_unstack(block, len(run), turned=turned)
                cuts[block.name] = first
                if others:
                    signature = re.sub(r"\d+", "#", block.name)
                    per = ways.setdefault(signature, [{} for _ in others])
                    for number, way in enumerate(others):
                        per[number][block.name] = way
        found.choices += [Choice(tuple(x), which) for x in ways.values()]
    return found


def _is_square(block: Block) -> bool:
    """Whether the shape cannot tell which axis is the input's."""
    shape = _stacked(block)
    return shape[-1] == shape[-2]


def _either_way(block: Block) -> tuple[int, ...]:
    """The shape, whichever axis is the input's."""
    count, *sizes = _stacked(block)
    return (count, *sorted(sizes))


def _stacked_parts(
    shape: tuple[int, ...], others: Sequence[Block], many: int, first: bool
) -> tuple[list[Block], bool] | None:
    """So many that such a parameter holds, and whether its axes are exchanged."""
    for turned in (first, not first):
        count, rows, width = (shape[0], *(shape[:0:-1] if turned else shape[1:]))
        wanted = (count, rows, width // many)
        run = [x for x in others if _stacked(x) == wanted][:many]
        if len(run) == many and width % many == 0:
            return run, turned
    return None


def _ways_to_unstack(block: Block, many: int, *, turned: bool) -> list[list[Piece]]:
    """How a parameter may hold kernels: side by side, in turn, the other way round."""
    width = _stacked(block)[1 if turned else 2] // many
    sizes = [width] * many
    every = [_in_order(sizes, x) for x in permutations(range(many))]
    if many == 2:
        every.insert(1, in_heads(width, 2))
    return [cut_block(block, [replace(x, turned=turned) for x in way]) for way in every]


def _cut_tables(pairs: Sequence[Pair], placed: Placings) -> _Found:
    """Tables of vectors that have more rows than their partners."""
    found = _Found()
    blocks = [{x.block.name: x.block for x in side} for side in placed]
    for pair in pairs:
        if not pair.shapes_differ:
            continue
        one, two = blocks[0][pair.left or ""], blocks[1][pair.right or ""]
        tables = [table_shape(x) for x in (one, two)]
        if None in tables or "embedding" not in (one.kind, two.kind):
            continue
        (rows, width), (others, its) = (x or (0, 0) for x in tables)
        if width != its or rows == others:
            continue
        which: Which = "left" if rows > others else "right"
        more, block = (rows, one) if rows > others else (others, two)
        less = min(rows, others)
        if len(squeezed(next(iter(block.shapes.values())))) != len(
            next(iter(block.shapes.values()))
        ):
            continue
        first, last = (
            cut_block(block, [Cut(x, x + less, rows=True)]) for x in (0, more - less)
        )
        cuts = found.left if which == "left" else found.right
        cuts[block.name] = first
        choice = Choice(({block.name: last},), which, telling=True)
        found.choices.append(choice)
    return found


FINDERS = (
    _split_attentions,
    _split_weights,
    _split_fused,
    _split_stacked,
    _turn_parameters,
    _cut_tables,
)


def _take_back(
    pairs: Sequence[Pair],
    models: tuple[ExaminedModel, ExaminedModel],
    named: tuple[set[str], set[str]],
) -> bool:
    """Undo cuts of which no more than half the pieces have found partners."""
    whole = [x for x in pairs if x.whole]
    paired = {x.left for x in whole}, {x.right for x in whole}
    changed = False
    for model, names, kept in zip(models, paired, named, strict=True):
        for block, pieces in list(model.cuts.items()):
            count = sum(x.name in names for x in pieces)
            if block not in kept and 2 * count <= len(pieces):
                del model.cuts[block]
                changed = True
    return changed


def _holds(choice: Choice, left: ExaminedModel, right: ExaminedModel) -> bool:
    """Whether the blocks that it is about are still cut."""
    cuts = left.cuts if choice.which == "left" else right.cuts
    return all(name in cuts for way in choice.cuts for name in way)


def _rivals(pairs: Sequence[Pair]) -> Iterator[Choice]:
    """Pairs that could be exchanged with each other, all alike in a model at once."""
    partner = {x.right: x for x in pairs if x.right}
    groups: dict[tuple[str, ...], list[list[Pair]]] = {}
    seen: set[str | None] = set()
    for pair in pairs:
        if not pair.rivals or pair.left in seen:
            continue
        group = [pair, *(partner[x] for x in sorted(pair.rivals) if x in partner)]
        seen |= {x.left for x in group}
        if 1 < len(group) <= RIVALS:
            key = tuple(re.sub(r"\d+", "#", x.left or "") for x in group)
            groups.setdefault(key, []).append(group)
    for alike in groups.values():
        ways = []
        for order in list(permutations(range(len(alike[0]))))[1:]:
            way = {}
            for group in alike:
                for one, other in zip(group, order, strict=True):
                    way[one.left or ""] = group[other].right or ""
            ways.append(way)
        yield Choice(partners=tuple(ways))


# ## A map that is given


def _read_given(
    left: ExaminedModel, right: ExaminedModel, given: BlockMap
) -> dict[str, str]:
    """Cut both models as a map says; its pairs, of blocks and pieces."""
    if not given:
        return {}
    wanted: list[tuple[str, str]] = []
    lists: dict[str, list[str]] = {}
    for name, value in given.items():
        if isinstance(value, str):
            wanted.append((name, value))
        else:
            lists[name] = list(value)
    rights = [x for _, x in wanted] + [x for names in lists.values() for x in names]
    _fold_as_named(left, [x for x, _ in wanted])
    _fold_as_named(right, rights)
    _cut_as_named(right, rights)
    others = {x.name: x for x in right.blocks()}
    blocks = {x.name: x for x in left.blocks()}
    for name, names in lists.items():
        if name not in blocks:
            raise UserError(
                f"the map names {name!r}, which the left model does not have. "
                f"It has {', '.join(blocks)}."
            )
        if unknown := [x for x in names if x not in others]:
            raise UserError(
                f"the map names {unknown[0]!r}, which the right model does not have. "
                f"It has {', '.join(others)}."
            )
        found = _fuse(blocks[name], [others[x] for x in names])
        left.cuts[name] = found
        wanted += zip((x.name for x in found), names, strict=False)
    _cut_as_named(left, [x for x, _ in wanted])
    pairs: dict[str, str] = {}
    for one, two in wanted:
        if one in pairs:
            raise UserError(f"the map gives {one!r} of the left model twice.")
        pairs[one] = two
    others = {x.name: x for x in right.blocks()}
    blocks = {x.name: x for x in left.blocks()}
    for one, two in pairs.items():
        if not can_pair(blocks[one], others[two]):
            raise UserError(
                f"the map pairs {one} with {two}, but the weights of one cannot be "
                f"those of the other: {describe_shapes(blocks[one])} of kind "
                f"{blocks[one].kind}, and {describe_shapes(others[two])} of kind "
                f"{others[two].kind}."
            )
    return pairs


def _fuse(block: Block, parts: Sequence[Block]) -> list[Piece]:
    """A left block in pieces that are as wide as those of the right model."""
    if block.kind == "attention" and len(parts) == len(split_attention(block)):
        return split_attention(block)
    sizes = [_kernel(x)[1] if len(_kernel(x)) == 2 else 0 for x in parts]
    kernel = _kernel(block)
    names = ", ".join(x.name for x in parts)
    if len(kernel) != 2 or 0 in sizes or sum(sizes) != kernel[1]:
        widths = " + ".join(map(str, sizes))
        raise UserError(
            f"the map fuses {names} to {block.name}, but their kernels are not the "
            f"columns of its kernel {kernel}: {widths}. An attention is a list of "
            f"{', '.join(PRODUCTS)}, in that order."
        )
    return cut_block(block, columns(sizes))


def _fold_as_named(model: ExaminedModel, names: Sequence[str]) -> None:
    """Fold the blocks of which a map says so."""
    blocks = {x.name: x for x in model.blocks()}
    for name in names:
        fold = None if name in blocks else fold_named(name, blocks.get)
        if fold is None:
            continue
        try:
            made = fold.of(blocks).spec.weights
            shapes = {key: made[key].shape for key in made}
        except (ValueError, KeyError):
            shapes = {}
        if not {*shapes.items()} >= {*blocks[fold.base].shapes.items()}:
            raise UserError(
                f"the map names {name!r}, which cannot be: "
                f"{describe_shapes(blocks[fold.base])} of kind "
                f"{blocks[fold.base].kind}."
            )
        model.folds[name] = fold


def _cut_as_named(model: ExaminedModel, names: Sequence[str]) -> None:
    """Cut the blocks of which a map names pieces."""
    blocks = {x.name: x for x in model.blocks()}
    pieces: dict[str, list[str]] = {}
    for name in names:
        if name in blocks:
            continue
        bases = [
            x
            for x in blocks
            if name.startswith((f"{x}/", f"{x}[")) or x == TURNED.sub("", name)
        ]
        if not bases:
            raise UserError(
                f"the map names {name!r}, which the {model.which} model does not have. "
                f"It has {', '.join(blocks)}."
            )
        pieces.setdefault(max(bases, key=len), []).append(name)
    for base, found in pieces.items():
        if base in names:
            raise UserError(
                f"the map gives {base!r} of the {model.which} model twice: whole, and "
                f"in pieces."
            )
        if len(set(found)) < len(found):
            double = next(x for x in found if found.count(x) > 1)
            raise UserError(
                f"the map gives {double!r} of the {model.which} model twice."
            )
        model.cuts[base] = pieces_named(blocks[base], found)
