"""Pairs of layers that are compared as they work, and the arrays that are kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from paripassu.core.layer_spec import Array, LayerSpec, relative_error
from paripassu.port_check.matching import Pair
from paripassu.sides.contract import Block, Call

End = Literal["in", "out"]
Region = tuple[slice, ...]
SEQUENCES = ("lstm", "gru", "rnn")


@dataclass
class Group:
    """Layers of the left model that are layers of the right one, mostly one and one.

    Attributes:
        left, right: names of layers, in the order of their calls.
        blocks: the pairs of blocks in them.
        rows: where the left's inputs lie in the right's, which flattened another
            order: `right = left[:, rows]`.
        flattened: the shape of the image that was flattened, (h, w, c).
    """

    left: list[str]
    right: list[str]
    blocks: list[tuple[Block, Block]]
    rows: Array | None = None
    flattened: tuple[int, ...] | None = None

    @property
    def kind(self) -> str:
        """Of its first layer."""
        return self.blocks[0][0].kind

    def carry_weight(self, name: str, weight: Array) -> Array:
        """A left block's weight, with the rows of the right one."""
        if self.rows is None or len(weight) != len(self.rows):
            return weight
        wanted = name in ("kernel", "gamma", "beta", "mean", "variance")
        return weight[self.rows] if wanted else weight

    def carry(self, end: End, array: Array, like: Array) -> Array | None:
        """What the right model should have where the left one has `array`."""
        if end == "in" and self.rows is not None and array.shape == like.shape:
            return array[..., self.rows]
        if end == "in" and self.kind == "conv" and array.shape != like.shape:
            return self._padded(array, like)
        if end == "out" and self.kind == "conv_transpose" and array.shape != like.shape:
            return self._uncropped(array, like)
        sequence = self.kind in SEQUENCES and array.ndim == 3 and end == "out"
        if array.shape == like.shape and not sequence:
            return array
        if sequence:
            laid = array if like.ndim == 3 else self._last(array)
            if laid.shape[-1] == 2 * like.shape[-1]:
                # Of two directions, the one that is a layer of its own on the right.
                of = next(x for x, y in self.blocks if y.layer == self.right[-1])
                halves = np.split(laid, 2, axis=-1)
                laid = halves[bool(of.described.settings.get("reverse"))]
            last = next(y for _, y in self.blocks if y.layer == self.right[-1])
            if last.described.settings.get("flipped") and laid.ndim == 3:
                laid = laid[:, ::-1]
            return laid if laid.shape == like.shape else None
        for order in (np.moveaxis(array, 1, -1), np.moveaxis(array, -1, 1)):
            if array.ndim > 2 and order.shape == like.shape:
                return np.ascontiguousarray(order)
        return None

    def _padded(self, array: Array, like: Array) -> Array | None:
        """A convolution's input, where one model pads in a layer before it."""
        told: list[Any] = [x.described.settings.get("padding") for x in self.blocks[0]]
        if array.ndim != like.ndim or any(isinstance(x, str) or not x for x in told):
            return None
        more = [
            (a[0] - b[0], a[1] - b[1]) for a, b in zip(told[0], told[1], strict=True)
        ]
        whole = [(0, 0), *more, (0, 0)]
        if len(whole) != array.ndim:
            return None
        padded = np.pad(array, [(max(a, 0), max(b, 0)) for a, b in whole])
        cut = tuple(
            slice(max(-a, 0), n - max(-b, 0))
            for (a, b), n in zip(whole, padded.shape, strict=True)
        )
        return padded[cut] if padded[cut].shape == like.shape else None

    def _uncropped(self, array: Array, like: Array) -> Array | None:
        """A transposed convolution's output, where one model crops in a layer after it.

        The right's own values stay where the left model has cut.
        """
        regions = self.regions(array, like)
        if regions is None:
            return None
        made = like.copy()
        made[regions[1]] = array[regions[0]]
        return made

    def regions(self, array: Array, like: Array) -> tuple[Region, Region] | None:
        """Which part of the left's and the right's output are the same points."""
        told: list[Any] = [x.described.settings.get("crop") for x in self.blocks[0]]
        if array.ndim != like.ndim or any(isinstance(x, str) or not x for x in told):
            return None
        here, there = [slice(None)], [slice(None)]
        sizes = array.shape[1:-1], like.shape[1:-1]
        for one, two, size, other in zip(*told, *sizes, strict=True):
            begin, end = one[0] - two[0], one[1] - two[1]
            if other - begin - end != size:
                return None
            there.append(slice(max(begin, 0), other - max(end, 0)))
            here.append(slice(max(-begin, 0), size - max(-end, 0)))
        return tuple(here), tuple(there)

    def _last(self, steps: Array) -> Array:
        """Of outputs of all steps (N, t, c), the one that was computed last."""
        ends = [block.described.settings.get("reverse") for block, _ in self.blocks]
        top = ends[-2:] if len(self.left) == 1 and True in ends else ends[-1:]
        if len(top) == 2 and top[0] != top[1]:
            half = steps.shape[-1] // 2
            return np.concatenate([steps[:, -1, :half], steps[:, 0, half:]], axis=-1)
        return steps[:, 0 if top[-1] else -1]


def grouped(
    pairs: Sequence[Pair],
    left: Mapping[str, Block],
    right: Mapping[str, Block],
    left_order: Mapping[str, int],
    right_order: Mapping[str, int],
) -> list[Group]:
    """Join pairs that share a layer: an LSTM of two layers and two LSTMs of one."""
    groups: list[Group] = []
    for pair in pairs:
        if pair.left is None or pair.right is None:
            continue
        one, two = left[pair.left], right[pair.right]
        if "parameter" in (one.kind, two.kind):
            continue
        if one.layer not in left_order or two.layer not in right_order:
            continue
        mine = [x for x in groups if one.layer in x.left or two.layer in x.right]
        joined = Group([], [], [])
        for group in mine:
            groups.remove(group)
            joined.left += group.left
            joined.right += group.right
            joined.blocks += group.blocks
        joined.left = _ordered([*joined.left, one.layer], left_order)
        joined.right = _ordered([*joined.right, two.layer], right_order)
        joined.blocks.append((one, two))
        groups.append(joined)
    return sorted(groups, key=lambda x: left_order[x.left[0]])


def _ordered(names: list[str], order: Mapping[str, int]) -> list[str]:
    return sorted(dict.fromkeys(names), key=lambda x: order[x])


class Store:
    """Arrays by key, on disk: activations of a whole model are not held in memory."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="paripassu-")
        self.paths: dict[tuple[int, int, str], list[Path]] = {}

    def put(self, key: tuple[int, int, str], arrays: Sequence[Array]) -> None:
        """Keep arrays."""
        self.paths[key] = []
        for number, array in enumerate(arrays):
            path = Path(self.folder.name) / "-".join(map(str, (*key, number)))
            with path.open("wb") as file:
                np.save(file, array)
            self.paths[key].append(path)

    def get(self, key: tuple[int, int, str]) -> list[Array] | None:
        """What was kept, or None."""
        if key not in self.paths:
            return None
        return [np.load(path) for path in self.paths[key]]

    def close(self) -> None:
        """Remove what was kept."""
        self.folder.cleanup()


At = Callable[[int, int, End, Sequence[Array]], "Sequence[Array] | None"]


class Anchors:
    """A watcher that calls `at` where a group's first layer begins and its last ends.

    Args:
        groups: as the model of `side` has them.
        at: called with the group's number, which visit it is, the end, the arrays;
            what it returns takes their place.
        shapes: takes up the shapes of all images that calls return, without N.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        side: Literal["left", "right"],
        at: At,
        shapes: set[tuple[int, ...]] | None = None,
    ):
        self.at, self.shapes = at, shapes
        self.first: dict[str, int] = {}
        self.last: dict[str, int] = {}
        for number, group in enumerate(groups):
            names = group.left if side == "left" else group.right
            self.first[names[0]] = number
            self.last[names[-1]] = number
        self.visits: dict[int, int] = {}

    def enter(self, call: Call, inputs: Sequence[Array]) -> Sequence[Array] | None:
        """See `core.ports.Watcher`."""
        if not call.weighted or call.name not in self.first:
            return None
        number = self.first[call.name]
        return self.at(number, self.visits.get(number, 0), "in", _data(call, inputs))

    def leave(self, call: Call, outputs: Sequence[Array]) -> Sequence[Array] | None:
        """See `core.ports.Watcher`."""
        if self.shapes is not None and outputs and outputs[0].ndim > 2:
            self.shapes.add(outputs[0].shape[1:])
        if not call.weighted or call.name not in self.last:
            return None
        number = self.last[call.name]
        visit = self.visits.get(number, 0)
        self.visits[number] = visit + 1
        return self.at(number, visit, "out", outputs[:1])


def _data(call: Call, inputs: Sequence[Array]) -> Sequence[Array]:
    """Inputs without masks and initial states."""
    return inputs[: 3 if call.kind == "attention" else 1]


@dataclass
class Recorder:
    """Keeps what the left model has at its groups."""

    store: Store

    def __call__(
        self, group: int, visit: int, end: End, arrays: Sequence[Array]
    ) -> None:
        """Keep arrays."""
        self.store.put((group, visit, end), arrays)


@dataclass
class Errors:
    """How far arrays are from those that were kept, by group, visit and end."""

    found: dict[tuple[int, int, str], float] = field(default_factory=dict)

    def total(self, end: End) -> dict[tuple[int, int], float]:
        """Those of one end."""
        return {(g, v): x for (g, v, e), x in self.found.items() if e == end}


@dataclass
class Comparer:
    """Compares the right model at its groups, and gives it the left's arrays.

    Args:
        groups: all.
        store: what the left model had.
        forced: give the right model the left's arrays, so that each error is its own.
        shapes: of images, to find out in which order the right model flattens one.
        nudge: of the left model's own control: what it is given is moved by one unit
            in the last place.
    """

    groups: Sequence[Group]
    store: Store
    forced: bool
    shapes: set[tuple[int, ...]] | None = None
    nudge: Callable[[Array], Array] | None = None
    errors: Errors = field(default_factory=Errors)

    def __call__(
        self, number: int, visit: int, end: End, arrays: Sequence[Array]
    ) -> Sequence[Array] | None:
        """Compare, and perhaps replace."""
        group = self.groups[number]
        kept = self.store.get((number, visit, end))
        if kept is None:
            self.errors.found[number, visit, end] = float("inf")
            return None
        if self.shapes is not None and end == "in":
            _align(group, kept[0], arrays[0], self.shapes)
        worst, given = 0.0, []
        for one, two in zip(kept, arrays, strict=False):
            wanted = one if self.nudge else group.carry(end, one, two)
            if wanted is None:
                worst = float("inf")
                given.append(two)
                continue
            worst = max(worst, relative_error(wanted, two))
            given.append(self.nudge(wanted) if self.nudge else wanted)
        self.errors.found[number, visit, end] = worst
        return given if self.forced else None


def _align(
    group: Group, left: Array, right: Array, shapes: set[tuple[int, ...]]
) -> None:
    """Find the order of rows in which a flattened image comes."""
    if group.rows is not None or left.ndim != 2 or left.shape != right.shape:
        return
    rows = np.arange(left.shape[1])
    best, least = rows, relative_error(right, left)
    for shape in shapes:
        if np.prod(shape) != len(rows) or sorted(shape)[-1] == len(rows):
            continue
        # Channels may be the last or the first of what was seen.
        for image in {shape, (*shape[1:], shape[0])}:
            *space, channels = image
            first = np.moveaxis(rows.reshape(*space, channels), -1, 0).ravel()
            for order in (first, np.argsort(first)):
                if (apart := relative_error(right, left[:, order])) < least:
                    best, least = order, apart
                    group.flattened = image
    if not np.array_equal(best, rows):
        group.rows = best


def described(group: Group) -> tuple[list[LayerSpec], list[LayerSpec]]:
    """The layers of a group on both sides, the left's weights with the right's rows."""
    left = [
        LayerSpec(
            one.kind,
            one.described.settings,
            {
                name: group.carry_weight(name, weight)
                for name, weight in one.described.weights.items()
            },
        )
        for one, _ in group.blocks
    ]
    return left, [two.described for _, two in group.blocks]
