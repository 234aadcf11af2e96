"""Matches the blocks of weights of two models.

Blocks can be a pair where kind and shapes agree. Among those, what decides is the order
in which they are called, how many layers with weights come before, and names that say
the same. Values do not: exchanged weights would look like exchanged layers. Of all
assignments the cheapest is taken (`scipy.optimize.linear_sum_assignment`, the Hungarian
method).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paripassu.core.errors import UserError
from paripassu.sides.contract import Block

INPUT = "the input"
NEVER = 1e6
ROUNDS = 5  # of assigning anew
WIRED = 2.0
LOOSE = ("other", "parameter")  # kinds that say nothing
NORMS = {"layer_norm", "group_norm", "rms_norm"}
MAIN = ("kernel", "table", "gamma", "query", "mean", "slope", "value", "recurrent")


@dataclass(frozen=True)
class Pair:
    """A block of the left model and one of the right; None where it has no partner.

    Attributes:
        left, right: names of blocks.
        why: what spoke for the pair.
        doubt: another pair that would do as well, or how shapes differ.
        shapes_differ: whether their weights cannot be compared at all.
        rivals: the right blocks that would do as well.
    """

    left: str | None
    right: str | None
    why: str = ""
    doubt: str = ""
    shapes_differ: bool = False
    rivals: frozenset[str] = frozenset()

    @property
    def whole(self) -> bool:
        """Whether both blocks are there, and of shapes that can be compared."""
        return None not in (self.left, self.right) and not self.shapes_differ


@dataclass(frozen=True)
class Placed:
    """A block as it is called first.

    Attributes:
        block: the block.
        order: when it is called.
        depth: how many layers with weights come before, at most; None: not known.
        parents: the nearest layers with weights that it is fed by.
        unused: whether no call is given it and training leaves it alone.
    """

    block: Block
    order: float
    depth: int | None
    parents: frozenset[str] | None = None
    unused: bool = False


def match_blocks(
    left: Sequence[Placed],
    right: Sequence[Placed],
    given: Mapping[str, str] | None = None,
) -> list[Pair]:
    """Pair the blocks of two models.

    Args:
        left, right: all blocks, in the order of their calls.
        given: pairs that are not to be questioned, left name to right name.

    Returns:
        Every block once, pairs in the order of the left model, then those without.

    Raises:
        UserError: `given` names a block that is not there.
    """
    pairs = _take_given(left, right, given or {})
    for pair_up in (_assign, _pair_leftovers):
        taken = {x.left for x in pairs}, {x.right for x in pairs}
        pairs += pair_up(
            [x for x in left if x.block.name not in taken[0]],
            [x for x in right if x.block.name not in taken[1]],
        )
    order = {x.block.name: n for n, x in enumerate(left)}
    after = {x.block.name: n for n, x in enumerate(right)}
    return sorted(
        pairs,
        key=lambda x: (
            (order[x.left], 0)
            if x.left is not None
            else (len(order), after[x.right or ""])
        ),
    )


def _take_given(
    left: Sequence[Placed], right: Sequence[Placed], given: Mapping[str, str]
) -> list[Pair]:
    for side, blocks, names in (
        ("left", left, list(given)),
        ("right", right, list(given.values())),
    ):
        known = [x.block.name for x in blocks]
        for name in names:
            if name not in known:
                raise UserError(
                    f"the map names {name!r}, which the {side} model does not have. "
                    f"It has {', '.join(known)}."
                )
        if len(set(names)) < len(names):
            double = next(x for x in names if names.count(x) > 1)
            raise UserError(f"the map gives {double!r} of the {side} model twice.")
    return [Pair(one, two, "the map") for one, two in given.items()]


def can_pair(left: Block, right: Block) -> bool:
    """Whether kinds and shapes allow two blocks to be a pair."""
    one, two = left.shapes, right.shapes
    common = one.keys() & two.keys()
    if left.kind == right.kind and left.kind not in LOOSE:
        if not common & set(MAIN):
            return False
        flat = squeezed if left.kind == "prelu" else tuple
        if all(flat(one[x]) == flat(two[x]) for x in common):
            return True
    if left.kind in LOOSE or right.kind in LOOSE or {left.kind, right.kind} <= NORMS:
        shapes = [sorted(map(squeezed, x.values())) for x in (one, two)]
        return shapes[0] == shapes[1]
    if {left.kind, right.kind} <= {"conv", "dense"}:
        flats = _as_matrix(left), _as_matrix(right)
        biases = one.get("bias"), two.get("bias")
        return None not in flats and flats[0] == flats[1] and biases[0] == biases[1]
    return False


def squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without axes of size 1."""
    return tuple(x for x in shape if x != 1)


def _as_matrix(block: Block) -> tuple[int, int] | None:
    """The shape of a kernel whose windows do not overlap, as that of a dense layer."""
    shape, settings = block.shapes.get("kernel", ()), block.spec.settings
    if len(shape) < 2 or settings.get("groups", 1) != 1:
        return None
    *size, rows, units = shape
    still = all(x == 1 for x in size)  # nothing to pad
    padding = settings.get("padding", ())
    apart = padding != "same" and not np.any(padding)
    apart = apart and list(settings.get("strides", ())) == size
    return (int(np.prod([*size, rows])), units) if still or apart else None


@functools.lru_cache(maxsize=4096)
def _plain(name: str) -> str:
    """A name without signs, and without the plural of its words: layers.0, layer_0."""
    return re.sub(r"s(?![a-z])|[^a-z0-9]", "", name.lower())


ROLES = {
    "query": "q query q_proj query_proj to_q q_lin wq w_q query_dense q_dense",
    "key": "k key k_proj key_proj to_k k_lin wk w_k key_dense k_dense",
    "value": "v value v_proj value_proj to_v v_lin wv w_v value_dense v_dense",
    "output": "o o_proj out_proj out_lin to_out wo w_o output_dense attention_output",
    "gate": "gate gate_proj gate_dense feedforward_gate_dense gate_projector",
    "up": "up up_proj up_dense feedforward_intermediate_dense",
    "gamma": "gamma weight scale g a",
    "beta": "beta bias shift offset b",
}
ROLE_OF = {name: role for role, names in ROLES.items() for name in names.split()}


@functools.lru_cache(maxsize=4096)
def role_of(name: str) -> str:
    """What a layer is in an attention, as its name tells; "" where it doesn't."""
    for part in reversed(re.split(r"[./]", name)):
        word = re.sub(r"_?\d+$", "", part.split("[")[0].lower()).strip("_")
        word = re.sub(r"_(projector|projection|linear|layer)$", "_proj", word)
        if role := ROLE_OF.get(word):
            return role
        if word:
            return ""
    return ""


# Of a model of several inputs, each with layers of its own: words of their names.
TOWERS = {
    **dict.fromkeys(("text", "txt"), "text"),
    **dict.fromkeys(("vision", "visual", "image", "img"), "image"),
    **dict.fromkeys(("audio", "speech"), "audio"),
}


@functools.lru_cache(maxsize=4096)
def tower_of(name: str) -> str:
    """Which of several inputs a layer works on, as its name tells; or ""."""
    words = re.split(r"[^a-z]+", name.lower())
    found = {TOWERS[x] for x in words if x in TOWERS}
    return found.pop() if len(found) == 1 else ""


def _role(block: Block) -> str:
    """What it is in an attention: as it was cut to be, or as its name tells."""
    return str(block.spec.settings.get("_role") or role_of(block.name))


def _are_pieces(one: Block, other: Block) -> bool:
    """Whether both are cut out of one block, so that how it is cut decides."""
    return one.layer == other.layer and "_cut" in one.spec.settings


def _told_apart(one: Block, two: Block) -> bool:
    """Whether names say that two blocks are the same."""
    if _plain(one.name) == _plain(two.name):
        return True
    role = _role(one)
    # Any layer may have a gamma: it tells which weight, not of which layer.
    return role not in ("", "gamma", "beta") and role == _role(two)


def _assign(left: Sequence[Placed], right: Sequence[Placed]) -> list[Pair]:
    if not left or not right:
        return []
    cost = np.full((len(left), len(right)), NEVER)
    may = np.array([[can_pair(x.block, y.block) for y in right] for x in left])
    # Ranks are counted among the blocks that either of two could be.
    before, after = (np.cumsum(may, axis) - may for axis in (0, 1))
    aligned = _align_sequences(left, right, may)
    for row, column in zip(*np.nonzero(may), strict=True):
        one, two = left[row], right[column]
        cost[row, column] = 0.25 * abs(before[row, column] - after[row, column])
        cost[row, column] += _cost(one, two) + ((row, column) not in aligned)
    partner = _assign_cheapest(cost)
    for _ in range(ROUNDS):
        wired = cost + _wiring_cost(left, right, partner)
        if (better := _assign_cheapest(wired)) == partner:
            break
        partner = better
    cost = cost + _wiring_cost(left, right, partner)
    found = []
    for row, column in partner.items():
        one, two = left[row], right[column]
        same_name = _plain(one.block.name) == _plain(two.block.name)
        doubt, rivals = "", set[str]()
        for other, its in partner.items():
            if other == row or _told_apart(one.block, two.block):
                continue
            if _told_apart(left[other].block, right[its].block):
                continue
            if _are_pieces(one.block, left[other].block) or _are_pieces(
                two.block, right[its].block
            ):
                continue
            swapped = cost[row, its] + cost[other, column]
            cheap = swapped <= cost[row, column] + cost[other, its] + 0.5
            # Branches that the same layers feed: only the order of calls tells.
            alike = swapped < NEVER and (
                one.parents == left[other].parents
                and two.parents == right[its].parents
                and bool(one.parents)
            )
            if alike or (
                cheap and (one.depth is None or one.depth == left[other].depth)
            ):
                doubt = f"{right[its].block.name} would do as well"
                rivals.add(right[its].block.name)
        why = "kind, shapes and name" if same_name else "kind, shapes and order"
        names = one.block.name, two.block.name
        found.append(Pair(*names, why, doubt, rivals=frozenset(rivals)))
    return found


def _assign_cheapest(cost: npt.NDArray[np.float64]) -> dict[int, int]:
    if not cost.size:
        return {}
    rows, columns = np.arange(len(cost)), cost.argmin(axis=1)
    # Where each row's cheapest is its own alone, there is no other such assignment.
    single = (cost == cost.min(axis=1, keepdims=True)).sum(axis=1) == 1
    if not single.all() or len(set(columns)) < len(columns):
        from scipy.optimize import linear_sum_assignment  # late: half a second

        rows, columns = linear_sum_assignment(cost)
    return {
        int(row): int(column)
        for row, column in zip(rows, columns, strict=True)
        if cost[row, column] < NEVER
    }


def _wiring_cost(
    left: Sequence[Placed], right: Sequence[Placed], partner: Mapping[int, int]
) -> npt.NDArray[np.float64]:
    """What a pair costs whose layers are not fed by layers that are a pair."""
    layers: dict[str, set[str]] = {INPUT: {INPUT}}
    for row, column in partner.items():
        name = left[row].block.layer
        layers.setdefault(name, set()).add(right[column].block.layer)
    cost = np.zeros((len(left), len(right)))
    for row, one in enumerate(left):
        if not one.parents:
            continue
        fed = [layers.get(x, set()) for x in one.parents]
        for column, two in enumerate(right):
            if two.parents:
                same = sum(bool(x & two.parents) for x in fed)
                cost[row, column] = WIRED * (1 - same / max(len(fed), len(two.parents)))
    return cost


def _align_sequences(
    left: Sequence[Placed], right: Sequence[Placed], may: npt.NDArray[np.bool_]
) -> set[tuple[int, int]]:
    """The longest common sequence of blocks that can be pairs, as pairs of places.

    A layer that one model lacks then moves no other pair. (Needleman and Wunsch 1970.)
    """
    best = np.zeros((len(left) + 1, len(right) + 1))
    gain = np.zeros((len(left), len(right)))
    for row, one in enumerate(left):
        for column, two in enumerate(right):
            if may[row, column]:
                same = _plain(one.block.name) == _plain(two.block.name)
                gain[row, column] = 1.0 + 0.5 * same
                gain[row, column] -= 0.5 * (one.block.kind != two.block.kind)
    for row in range(len(left)):
        for column in range(len(right)):
            best[row + 1, column + 1] = max(
                best[row, column + 1],
                best[row + 1, column],
                best[row, column] + gain[row, column],
            )
    found: set[tuple[int, int]] = set()
    row, column = len(left), len(right)
    while row and column:
        if best[row, column] == best[row - 1, column]:
            row -= 1
        elif best[row, column] == best[row, column - 1]:
            column -= 1
        else:
            row, column = row - 1, column - 1
            found.add((row, column))
    return found


def _cost(one: Placed, two: Placed) -> float:
    cost = 0.001 * abs(one.order - two.order)
    if one.depth is not None and two.depth is not None:
        cost += 0.25 * abs(one.depth - two.depth)
    if one.block.kind != two.block.kind:
        cost += 5
    if one.unused != two.unused:
        cost += 5
    if len({tower_of(x.block.name) for x in (one, two)} - {""}) == 2:
        cost += 5
    ends = [bool(x.block.spec.settings.get("reverse")) for x in (one, two)]
    if ends[0] != ends[1]:
        cost += 2
    if one.block.shapes.keys() != two.block.shapes.keys():
        cost += 0.2
    if _plain(one.block.name) == _plain(two.block.name):
        cost -= 3
    roles = {_role(one.block), _role(two.block)} - {""}
    if len(roles) == 2:
        cost += 2
    elif roles and _role(one.block) == _role(two.block):
        cost -= 1
    return cost


def _pair_leftovers(left: Sequence[Placed], right: Sequence[Placed]) -> list[Pair]:
    """Blocks of one kind whose shapes differ, in their order; then the others."""
    found = []
    rest = list(right)
    for one in left:
        # Of the same kind at best; tables may be parameters.
        same = [x for x in rest if x.block.kind == one.block.kind]
        tables = [x for x in rest if _are_tables(one.block, x.block)]
        other = next(iter([*tables, *same]), None)
        if other is None:
            found.append(Pair(one.block.name, None))
            continue
        rest.remove(other)
        shapes = f"{describe_shapes(one.block)} and {describe_shapes(other.block)}"
        found.append(
            Pair(
                one.block.name,
                other.block.name,
                "kind and order",
                f"shapes differ: {shapes}",
                shapes_differ=True,
            )
        )
    return found + [Pair(None, x.block.name) for x in rest]


def table_shape(block: Block) -> tuple[int, int] | None:
    """The shape of a table of vectors, which may be a parameter (1, n, c)."""
    shapes = [squeezed(x) for x in block.shapes.values()]
    if block.kind not in ("embedding", "parameter") or len(shapes) != 1:
        return None
    shape = shapes[0]
    return (shape[0], shape[1]) if len(shape) == 2 else None


def _are_tables(left: Block, right: Block) -> bool:
    """Whether both are tables of vectors of one length."""
    one, two = table_shape(left), table_shape(right)
    kinds = {left.kind, right.kind}
    return "embedding" in kinds and None not in (one, two) and one[1:] == two[1:]  # type: ignore[index]


def describe_shapes(block: Block) -> str:
    """The names and shapes of its weights."""
    return ", ".join(f"{name} {shape}" for name, shape in block.shapes.items())
