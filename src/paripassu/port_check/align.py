"""Aligns the layers of two models: groups, the arrays that are kept, comparing."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from paripassu.core import files
from paripassu.core.layer_spec import Array, LayerSpec, relative_error
from paripassu.port_check.match import Pair
from paripassu.port_check.output_pairs import select_steps
from paripassu.port_check.pieces import PRODUCTS
from paripassu.sides.contract import Block, Call

End = Literal["in", "out"]
Point = tuple[int, int, str]  # a group's number, which visit of it, and which end
Region = tuple[slice, ...]
SEQUENCES = ("lstm", "gru", "rnn")


def channel_orders(array: Array) -> tuple[Array, ...]:
    """An array; if it has space, also with channels moved to the end and to axis 1."""
    if array.ndim < 3:
        return (array,)
    return array, np.moveaxis(array, 1, -1), np.moveaxis(array, -1, 1)


@dataclass
class Group:
    """Layers of the left model that are layers of the right one, mostly one and one.

    Attributes:
        left, right: names of layers, in the order of their calls.
        blocks: the pairs of blocks in them.
        rows: where the left's inputs lie in the right's, which flattened another
            order: `right = left[:, rows]`.
        flattened: the shape of the image that was flattened, (h, w, c).
        steps: of the sequences, where one model calls a cell for each.
    """

    left: list[str]
    right: list[str]
    blocks: list[tuple[Block, Block]]
    rows: Array | None = None
    flattened: tuple[int, ...] | None = None
    steps: int = 0

    @property
    def cells(self) -> Literal["left", "right"] | None:
        """Which model calls cells, step by step, where the other one has a layer."""
        left, right = ("_cell" in x.spec.settings for x in self.blocks[0])
        if left == right:
            return None
        return "left" if left else "right"

    @property
    def kind(self) -> str:
        """Of its first layer."""
        return self.blocks[0][0].kind

    def carry_weight(self, name: str, weight: Array) -> Array:
        """A left block's weight, with the rows of the right one."""
        if self.rows is None:
            return weight
        wanted = name in ("kernel", "gamma", "beta", "mean", "variance")
        return turn_rows(weight, self.rows) if wanted else weight

    def carry(self, end: End, array: Array, like: Array) -> Array | None:
        """What the right model should have where the left one has `array`."""
        array = self._folded(end, array)
        if end == "in" and self.rows is not None and array.shape == like.shape:
            return array[..., self.rows]
        if {"dense"} < {x.kind for pair in self.blocks for x in pair} or any(
            "_cut" in x.spec.settings or _product(x)
            for pair in self.blocks
            for x in pair
        ):
            return self._across(end, array, like)
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
                laid = halves[bool(of.spec.settings.get("reverse"))]
            last = next(y for _, y in self.blocks if y.layer == self.right[-1])
            if last.spec.settings.get("flipped") and laid.ndim == 3:
                laid = laid[:, ::-1]
            return laid if laid.shape == like.shape else None
        for order in channel_orders(array):
            if order.shape == like.shape:
                return np.ascontiguousarray(order)
        return _folded(array, like)

    def _folded(self, end: End, array: Array) -> Array:
        """The same, where one model does in its weights what the other does outside."""
        for pair in self.blocks:
            for block, inside in zip(pair, ("out", "in"), strict=True):
                if affine := block.spec.settings.get(f"_{end}"):
                    scale, shift = affine
                    made = array * scale + shift
                    if end != inside:
                        made = (array - shift) / scale
                    array = made.astype(array.dtype)
        return array

    def _across(self, end: End, array: Array, like: Array) -> Array | None:
        """The same, where one model splits what the other one fuses.

        What cannot be compared is as the right model has it.
        """
        last = [
            (x, y)
            for x, y in self.blocks
            if (x.layer, y.layer) == (self.left[-1], self.right[-1])
        ]
        ends = [_product(x) for pair in last for x in pair]
        if end == "out" and (not last or ({*ends} - {"", "output"})):
            return like
        if end == "in" and self.kind == "embedding":
            return like  # numbers of rows, which lie elsewhere
        cuts = [x.spec.settings.get("_cut") for x in last[-1]] if last else [None, None]
        if end == "out" and cuts[0] is not None and not cuts[0].rows:
            array = cuts[0].take(array)
        if end == "out" and cuts[1] is not None and not cuts[1].rows:
            part = cuts[1].take(like)
            found = _folded(array, part)
            if found is None:
                return None
            made = like.copy()
            cuts[1].put(made, found)
            return made
        folded = _folded(array, like)
        if folded is None and {"dense", "conv"} <= {
            x.kind for pair in self.blocks for x in pair
        }:
            return like  # an image, and its patches
        return folded

    def entry(self, side: Literal["left", "right"]) -> int | None:
        """Of an attention that is split here, which input is the other one's first.

        Query, value and key are inputs 0, 1 and 2. None: it is not split.
        """
        here, there = (0, 1) if side == "left" else (1, 0)
        first = (self.left, self.right)[there][0]
        for pair in self.blocks:
            if (product := _product(pair[here])) and pair[there].layer == first:
                return {"query": 0, "value": 1, "key": 2}.get(product, 0)
        return 0 if any(_product(pair[here]) for pair in self.blocks) else None

    def _padded(self, array: Array, like: Array) -> Array | None:
        """A convolution's input, where one model pads in a layer before it."""
        paddings = self._spatial("padding", array, like)
        if paddings is None:
            return None
        more = [(a[0] - b[0], a[1] - b[1]) for a, b in zip(*paddings, strict=True)]
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
        crops = self._spatial("crop", array, like)
        if crops is None:
            return None
        here, there = [slice(None)], [slice(None)]
        sizes = array.shape[1:-1], like.shape[1:-1]
        for left, right, size, like_size in zip(*crops, *sizes, strict=True):
            begin, end = left[0] - right[0], left[1] - right[1]
            if like_size - begin - end != size:
                return None
            there.append(slice(max(begin, 0), like_size - max(end, 0)))
            here.append(slice(max(-begin, 0), size - max(-end, 0)))
        return tuple(here), tuple(there)

    def _spatial(self, name: str, array: Array, like: Array) -> list[Any] | None:
        """A setting of both layers that is a pair of numbers for each axis."""
        found = [x.spec.settings.get(name) for x in self.blocks[0]]
        if name == "padding":
            found = [
                _same_padding(x, each.shape) if setting == "same" else setting
                for setting, x, each in zip(
                    found, self.blocks[0], (array, like), strict=True
                )
            ]
        usable = array.ndim == like.ndim and all(
            x and type(x) is not str for x in found
        )
        return found if usable else None

    def _last(self, steps: Array) -> Array:
        """Of outputs of all steps (N, t, c), the one that was computed last."""
        ends = [block.spec.settings.get("reverse") for block, _ in self.blocks]
        top = ends[-2:] if len(self.left) == 1 and True in ends else ends[-1:]
        if len(top) == 2 and top[0] != top[1]:
            half = steps.shape[-1] // 2
            return np.concatenate([steps[:, -1, :half], steps[:, 0, half:]], axis=-1)
        return steps[:, 0 if top[-1] else -1]


def _same_padding(block: Block, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """What "same" adds to an image of this shape: the odd one comes after."""
    settings, kernel = block.spec.settings, block.shapes["kernel"]
    found = []
    for size, width, stride, apart in zip(
        shape[1:-1], kernel, settings["strides"], settings["dilation"], strict=False
    ):
        reach = (width - 1) * apart + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        found.append((total // 2, total - total // 2))
    return tuple(found)


def _product(block: Block) -> str:
    """Which product of an attention a piece of one is; "" for other blocks."""
    end = block.name.removeprefix(block.layer)
    return end[1:] if end.startswith("/") and end[1:] in PRODUCTS else ""


def _folded(array: Array, like: Array) -> Array | None:
    """An array with other axes of space, or with its channels in heads."""
    if array.shape == like.shape:
        return array
    for order in channel_orders(array):
        if order.shape == like.shape:
            return np.ascontiguousarray(order)
    if array.size != like.size or not array.ndim or not like.ndim:
        return None
    one, two = sorted((array.shape, like.shape), key=len)
    heads = one[:-1] == two[: len(one) - 1]
    space = one[-1] == two[-1]  # axes before it may be one, or with N
    return array.reshape(like.shape) if heads or space else None


def group_layers(
    pairs: Sequence[Pair],
    left_blocks: Mapping[str, Block],
    right_blocks: Mapping[str, Block],
    left_order: Mapping[str, int],
    right_order: Mapping[str, int],
) -> list[Group]:
    """Join pairs that share a layer: an LSTM of two layers and two LSTMs of one."""
    groups: list[Group] = []
    for pair in pairs:
        if pair.left is None or pair.right is None:
            continue
        blocks = left_blocks[pair.left], right_blocks[pair.right]
        left, right = (x.layer for x in blocks)
        more = [list(x.spec.settings.get("_layers", ())) for x in blocks]
        if "parameter" in (x.kind for x in blocks):
            continue
        if left not in left_order or right not in right_order:
            continue
        joined = Group([left, *more[0]], [right, *more[1]], [])
        for group in [x for x in groups if left in x.left or right in x.right]:
            groups.remove(group)
            joined.left += group.left
            joined.right += group.right
            joined.blocks += group.blocks
        joined.left = sorted(set(joined.left), key=lambda x: left_order[x])
        joined.right = sorted(set(joined.right), key=lambda x: right_order[x])
        joined.blocks.append(blocks)
        groups.append(joined)
    return sorted(groups, key=lambda x: left_order[x.left[0]])


class Store:
    """Arrays by key, on disk: activations of a whole model are not held in memory."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._folder = self._stack.enter_context(files.scratch())
        self.paths: dict[Point, list[Path]] = {}

    def put(self, key: Point, arrays: Sequence[Array]) -> None:
        """Keep arrays."""
        self.paths[key] = []
        for number, array in enumerate(arrays):
            path = self._folder / "-".join(map(str, (*key, number)))
            with path.open("wb") as file:
                np.save(file, array)
            self.paths[key].append(path)

    def record(self, group: int, visit: int, end: End, arrays: Sequence[Array]) -> None:
        """Keep what the left model has at a group, for `Anchors`."""
        self.put((group, visit, end), arrays)

    def get(self, key: Point) -> list[Array] | None:
        """What was kept, or None."""
        if key not in self.paths:
            return None
        return [np.load(path) for path in self.paths[key]]

    def close(self) -> None:
        """Remove what was kept."""
        self._stack.close()


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
        self.groups, self.side = groups, side
        self.at, self.shapes = at, shapes
        self.first: dict[str, int] = {}
        self.last: dict[str, int] = {}
        for number, group in enumerate(groups):
            names = group.left if side == "left" else group.right
            self.first[names[0]] = number
            self.last[names[-1]] = number
        self.visits: dict[int, int] = {}

    def enter(self, call: Call, inputs: Sequence[Array]) -> Sequence[Array] | None:
        """See `sides.contract.Watcher`."""
        if not call.weighted or call.name not in self.first:
            return None
        number = self.first[call.name]
        visit = self.visits.get(number, 0)
        entry = None
        if call.kind == "attention":
            entry = self.groups[number].entry(self.side)
        if entry is None:
            return self.at(number, visit, "in", data_inputs(call, inputs))
        entry = min(entry, len(inputs) - 1)
        given = self.at(number, visit, "in", inputs[entry : entry + 1])
        return None if given is None else [*inputs[:entry], *given]

    def leave(self, call: Call, outputs: Sequence[Array]) -> Sequence[Array] | None:
        """See `sides.contract.Watcher`."""
        if self.shapes is not None and outputs and outputs[0].ndim > 2:
            self.shapes.add(outputs[0].shape[1:])
        if not call.weighted or call.name not in self.last:
            return None
        number = self.last[call.name]
        visit = self.visits.get(number, 0)
        self.visits[number] = visit + 1
        return self.at(number, visit, "out", outputs[:1])


def data_inputs(call: Call, inputs: Sequence[Array]) -> Sequence[Array]:
    """Inputs without masks and initial states."""
    return inputs[: 3 if call.kind == "attention" else 1]


@dataclass
class Comparer:
    """Compares the right model at its groups, and gives it the left's arrays.

    Args:
        groups: all.
        store: what the left model had.
        forced: give the right model the left's arrays, so that each error is its own.
        shapes: of images, to find out in which order the right model flattens one.
        perturb: of the left model's own control: what it is given is moved by one unit
            in the last place.
        masks: which steps (N, t) of arrays (N, t, ...) are compared.
        free: groups whose outputs stay the right model's own.

    Attributes:
        errors: how far arrays are from those that were kept, relative.
    """

    groups: Sequence[Group]
    store: Store
    forced: bool
    shapes: set[tuple[int, ...]] | None = None
    perturb: Callable[[Array], Array] | None = None
    masks: Sequence[Array] = ()
    free: Collection[int] = ()
    errors: dict[Point, float] = field(default_factory=dict)

    def __call__(
        self, number: int, visit: int, end: End, arrays: Sequence[Array]
    ) -> Sequence[Array] | None:
        """Compare, and perhaps replace."""
        group = self.groups[number]
        point: Point = number, visit, end
        if group.cells:
            kept, point = self._of_cells(group, point, arrays[0])
        else:
            kept = self.store.get(point)
        if kept is None:
            self.errors[point] = float("inf")
            return None
        if self.shapes is not None and end == "in":
            find_rows(group, kept[0], arrays[0], self.shapes)
        worst, given = 0.0, []
        for left, array in zip(kept, arrays, strict=False):
            wanted = left if self.perturb else group.carry(end, left, array)
            if wanted is None:
                worst = float("inf")
                given.append(array)
                continue
            one, two = wanted, array
            for mask in self.masks:
                one, two = select_steps(mask, one, two)
            worst = max(worst, relative_error(one, two))
            given.append(self.perturb(wanted) if self.perturb else wanted)
        self.errors[point] = max(worst, self.errors.get(point, 0.0))
        own = end == "out" and number in self.free
        if group.cells == "right" and end == "out" and not self.perturb:
            own = True  # its state is its own, as a layer's is
        return given if self.forced and not own else None

    def _of_cells(
        self, group: Group, point: Point, like: Array
    ) -> tuple[list[Array] | None, Point]:
        """What was kept where one model calls a cell for each step of a layer.

        Returns:
            Also the point that it is of: all steps are one visit.
        """
        number, visit, end = point
        if group.cells == "right" and not self.perturb:
            whole = self.store.get((number, 0, "in"))
            if whole is not None:
                group.steps = whole[0].shape[1]
        elif group.cells == "left" and like.ndim == 3 and end == "in":
            group.steps = like.shape[1]
        if not group.steps:
            return ([like] if not self.perturb else self.store.get(point)), point
        of_cells = (group.cells == "left") == bool(self.perturb)
        joined = number, visit // group.steps if of_cells else visit, end
        if self.perturb:
            return self.store.get(point), joined
        ends = {
            bool(x.spec.settings.get("reverse")) for pair in group.blocks for x in pair
        }
        if len(group.blocks) > 1 and len(ends) > 1:
            return [like], joined  # two directions, one loop after the other
        if group.cells == "left":
            return self._joined(group, point, like), joined
        kept = self.store.get(joined)
        step = visit % group.steps
        return kept and [_step(group, end, step, kept[0], like)], joined

    def _joined(self, group: Group, point: Point, like: Array) -> list[Array] | None:
        """All steps of the left model's cell, (N, t, c), or the last one (N, c)."""
        number, visit, end = point
        visits = range(visit * group.steps, (visit + 1) * group.steps)
        if like.ndim == 2:
            return self.store.get((number, visits[-1], end))
        found = [self.store.get((number, x, end)) for x in visits]
        steps = [x[0] for x in found if x is not None]
        if len(steps) < len(found):
            return None
        if group.blocks[0][1].spec.settings.get("reverse"):
            steps.reverse()
        return [np.stack(steps, 1)]


def _step(group: Group, end: str, step: int, whole: Array, like: Array) -> Array:
    """What a layer is given or gives at the step that a cell makes as this one."""
    last = step == group.steps - 1
    if whole.ndim == 2:
        return whole if last else like
    settings = group.blocks[0][0].spec.settings
    if settings.get("reverse") and not (end == "out" and settings.get("flipped")):
        step = group.steps - 1 - step
    return whole[:, step]


REARRANGED = 1e-3  # apart, values are the same in another order


def turn_rows(weight: Array, rows: Array) -> Array:
    """A weight with its rows in another order; of a convolution, those of a window."""
    if weight.ndim > 2 and len(weight) != len(rows):
        flat = weight.reshape(-1, weight.shape[-1])
        return flat[rows] if len(flat) == len(rows) else weight
    return weight[rows] if len(weight) == len(rows) else weight


def find_rows(
    group: Group, left: Array, right: Array, shapes: set[tuple[int, ...]]
) -> None:
    """Find the order of rows in which a flattened image comes, or its patches."""
    kinds = {x.kind for x in group.blocks[0]}
    patches: set[tuple[int, ...]] = set()
    if kinds == {"dense", "conv"}:
        left, right, patches = _as_patches(group, left, right)
    flat = left.ndim == 2 or (left.ndim > 2 and "dense" in kinds)
    if group.rows is not None or not flat or left.shape != right.shape:
        return
    rows = np.arange(left.shape[-1])
    best, least = rows, relative_error(right, left)
    if left.ndim > 2:  # any feature of a step may be nearer by chance
        least = min(least, REARRANGED)
    for shape in {*shapes, *patches, *_squares(len(rows), shapes)}:
        if np.prod(shape) != len(rows) or sorted(shape)[-1] == len(rows):
            continue
        # Channels may be the last or the first of what was seen.
        for image in {shape, (*shape[1:], shape[0])}:
            *space, channels = image
            first = np.moveaxis(rows.reshape(*space, channels), -1, 0).ravel()
            for order in (first, np.argsort(first)):
                if (error := relative_error(right, left[..., order])) < least:
                    best, least = order, error
                    group.flattened = image
    if not np.array_equal(best, rows):
        group.rows = best


def _squares(size: int, shapes: set[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """Square patches of so many values, of the images that were seen."""
    found: set[tuple[int, ...]] = set()
    for channels in {x for y in shapes if len(y) == 3 for x in y if x}:
        side = math.isqrt(size // channels)
        if side > 1 and side * side * channels == size:
            found.add((side, side, channels))
    return found


def _as_patches(
    group: Group, left: Array, right: Array
) -> tuple[Array, Array, set[tuple[int, ...]]]:
    """What a convolution without overlap and a dense layer are given, alike.

    Returns:
        Both arrays as (N, patches, values), and the shape of a patch.
    """
    windows = set()
    arrays = []
    for block, array in zip(group.blocks[0], (left, right), strict=True):
        if block.kind != "conv":
            arrays.append(array)
            continue
        *size, channels, _ = block.shapes["kernel"]
        space = array.shape[1:-1]
        if len(space) != len(size) or any(
            n % k for n, k in zip(space, size, strict=True)
        ):
            return left, right, set()
        split = [array.shape[0]]
        for n, k in zip(space, size, strict=True):
            split += [n // k, k]
        axes = range(1, 2 * len(size) + 1)
        order = [0, *axes[::2], *axes[1::2], 2 * len(size) + 1]
        windows.add((*size, channels))
        cut = array.reshape(*split, channels).transpose(order)
        arrays.append(cut.reshape(array.shape[0], -1, math.prod(size) * channels))
    if len(windows) == 1 and arrays[0].size == arrays[1].size:
        whole = next(x for x in arrays if x.ndim == 3)
        arrays = [x.reshape(whole.shape) for x in arrays]
    return arrays[0], arrays[1], windows


def layer_specs(group: Group) -> tuple[list[LayerSpec], list[LayerSpec]]:
    """The layers of a group on both sides, the left's weights with the right's rows."""
    left, right = zip(*group.blocks, strict=True)
    specs = [
        LayerSpec(
            x.kind,
            x.spec.settings,
            {k: group.carry_weight(k, w) for k, w in x.spec.weights.items()},
        )
        for x in left
    ]
    return specs, [x.spec for x in right]
