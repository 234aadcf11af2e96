"""A user's model under examination, and what listens to it as it runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from paripassu.core.errors import PariPassuError, UserError
from paripassu.core.layer_spec import Array, relative_error
from paripassu.core.layout import hash_arrays
from paripassu.port_check.align import Store
from paripassu.port_check.folding import MAIN, Fold
from paripassu.port_check.match import INPUT
from paripassu.port_check.pieces import Piece
from paripassu.port_check.randomness import Randomness
from paripassu.port_check.results import Model
from paripassu.port_check.tolerance import EPS32, FLOOR
from paripassu.sides.contract import (
    Arrays,
    Blind,
    Block,
    Call,
    Draw,
    Drawing,
    Probe,
    Step,
)
from paripassu.sides.observing import WatchError
from paripassu.sides.recorded import RecordedProbe


class ModelError(PariPassuError):
    """A user's model raised."""

    def __init__(self, which: str, source: str, error: Exception):
        super().__init__(f"the {which} model, {source}, raised {type(error).__name__}")
        self.which, self.source, self.error = which, source, error


Ran = tuple[Arrays, tuple[Draw, ...]]  # outputs, and draws


@dataclass
class ExaminedModel:
    """The left or the right model, opened."""

    which: str
    probe: Probe
    source: str
    versions: Mapping[str, str] = field(default_factory=dict)
    cuts: dict[str, list[Piece]] = field(default_factory=dict)
    folds: dict[str, Fold] = field(default_factory=dict)  # by name
    _written: _Written | None = None

    def blocks(self) -> list[Block]:
        """All weights; of blocks that are cut, the pieces; of folds, these."""
        found = self.unfolded()
        if not self.folds:
            return found
        by_name = {x.name: x for x in found}
        folds = {x.base: x.of(by_name) for x in self.folds.values()}
        inside = {x.other for x in self.folds.values()}
        return [folds.get(x.name, x) for x in found if x.name not in inside]

    def unfolded(self) -> list[Block]:
        """All weights; of blocks that are cut, the pieces."""
        found = []
        for block in self.probe.blocks():
            pieces = self.cuts.get(block.name)
            found += [block] if pieces is None else [x.of(block) for x in pieces]
        return found

    def wholes(self) -> dict[str, Block]:
        """By the name of each piece, the block that it is cut out of."""
        return {
            piece.name: block
            for block in self.probe.blocks()
            for piece in self.cuts.get(block.name, ())
        }

    def write(self, name: str, weights: Arrays) -> None:
        """Give a block, a piece of one, or a fold other weights."""
        if fold := self.folds.get(name):
            blocks = {x.name: x for x in self.unfolded()}
            for base, arrays in fold.put(blocks, weights).items():
                self.write(base, arrays)
            return
        for whole, pieces in self.cuts.items():
            for piece in pieces:
                if piece.name == name:
                    block = next(x for x in self.probe.blocks() if x.name == whole)
                    self._write(whole, piece.put(block, weights))
                    return
        self._write(name, weights)

    def _write(self, name: str, weights: Arrays) -> None:
        if self._written:
            self._written.keep(name, weights)
        self.probe.write(name, weights)

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Put back what is written meanwhile."""
        before = self._written
        with closing(Store()) as store:
            self._written = _Written(store, {x.name: x for x in self.probe.blocks()})
            try:
                yield
            finally:
                for name, weights in self._written.before():
                    self.probe.write(name, weights)
                self._written = before

    @property
    def recorded(self) -> RecordedProbe | None:
        """What replays a recording, if that is what the model is."""
        return self.probe if isinstance(self.probe, RecordedProbe) else None

    @property
    def kind(self) -> str:
        """The name of its class."""
        if self.recorded:
            return self.recorded.found.model
        return type(self.probe.model).__name__

    def run(self, inputs: Arrays, watcher: Any = None, **how: bool) -> Arrays:
        """See `sides.contract.Probe.run`; what the model raises is `ModelError`."""
        with self._their_errors():
            return self.probe.run(inputs, watcher or Blind(), **how)

    def step(
        self, inputs: Arrays, cotangents: Arrays, *, training: bool = True
    ) -> Step:
        """See `sides.contract.Probe.step`; what the model raises is `ModelError`."""
        with self._their_errors():
            step = self.probe.step(inputs, cotangents, training=training)
        if not self.cuts and not self.folds:
            return step
        gradients = dict(step.gradients)
        for name, pieces in self.cuts.items():
            whole = gradients.pop(name)
            gradients |= {x.name: x.take(whole) for x in pieces}
        blocks = {x.name: x for x in self.unfolded()} if self.folds else {}
        for name, fold in self.folds.items():
            gradients[name] = fold.take(blocks, gradients)
        return replace(step, gradients=gradients)

    def moved_of_pieces(
        self, moved: Mapping[tuple[str, str], float]
    ) -> dict[tuple[str, str], float]:
        """How far gradients moved, by block and name; of pieces, their block's."""
        found = dict(moved)
        for block, pieces in self.cuts.items():
            for piece in pieces:
                for name, (source, _) in piece.weights.items():
                    if (block, source) in moved:
                        found[piece.name, name] = moved[block, source]
        for name, fold in self.folds.items():
            ends = [x for (y, _), x in found.items() if y in (fold.base, fold.other)]
            found |= {(name, x): max(ends, default=0.0) for x in (*MAIN, "bias")}
        return found

    def describe(self, blocks: Collection[Block]) -> Model:
        """What a result says of it."""
        sizes = (
            math.prod(shape)
            for block in blocks
            for name, shape in block.shapes.items()
            if name not in ("mean", "variance")
        )
        return Model(
            source=self.source,
            framework=self.probe.side,
            kind=self.kind,
            parameters=sum(sizes),
            layers=len(blocks),
            versions=dict(self.versions),
        )

    @contextmanager
    def _their_errors(self) -> Iterator[None]:
        try:
            yield
        except (UserError, WatchError):
            raise
        except Exception as error:
            raise ModelError(self.which, self.source, error) from error

    @contextmanager
    def drawing(self, what: Drawing, seeds: int = 0) -> Iterator[None]:
        """While it is given other draws, or those of a later seed."""
        probe = self.probe
        before, probe.drawing = probe.drawing, what
        probe.seed += seeds
        try:
            yield
        finally:
            probe.drawing = before
            probe.seed -= seeds

    def run_noting_draws(self, *given: Any, **how: Any) -> Ran:
        """`run`, and what it drew."""
        return self.run(*given, **how), tuple(self.probe.draws)

    def find_randomness(
        self, inputs: Arrays, *, training: bool, ran: Ran | None = None
    ) -> Randomness:
        """What it draws, and where its outputs hang on another seed all the same.

        Args:
            inputs: of it.
            training: in training mode.
            ran: what `run_noting_draws` gave, where that has been asked before.
        """
        if self.recorded:
            return Randomness(*self.recorded.randomness(training=training))
        outputs, draws = ran or self.run_noting_draws(inputs, training=training)
        with self.drawing("shared", seeds=1):
            others = self.run(inputs, training=training)
        if not _part(outputs, others):
            if draws:
                with self.drawing("own"):
                    others = self.run(inputs, training=training)
            return Randomness(draws if _part(outputs, others) else (), None)
        first, second = Fingerprints(), Fingerprints()
        self.run(inputs, first, training=training)
        with self.drawing("shared", seeds=1):
            self.run(inputs, second, training=training)
        own = (x for x in draws if not x.shared)
        line = next((f", {x.line}" for x in own if x.line), "")
        return Randomness(draws, (first.first_differing(second) or "output") + line)


@dataclass
class _Written:
    """Weights that were written, as they were before: on disk."""

    store: Store
    blocks: Mapping[str, Block]
    names: dict[str, list[str]] = field(default_factory=dict)  # of weights, by block

    def keep(self, block: str, names: Iterable[str]) -> None:
        """Keep those of a block that are not kept yet."""
        known = self.names.setdefault(block, [])
        for name in names:
            if name not in known:
                weight = self.blocks[block].spec.weights[name]
                self.store.put((list(self.blocks).index(block), 0, name), [weight])
                known.append(name)

    def before(self) -> Iterator[tuple[str, Arrays]]:
        """Blocks and their weights."""
        for block, names in self.names.items():
            number = list(self.blocks).index(block)
            kept = {name: self.store.get((number, 0, name)) for name in names}
            yield block, {name: x[0] for name, x in kept.items() if x}


def _part(left: Arrays, right: Arrays) -> bool:
    """Whether two runs part by more than the order in which a kernel sums."""
    if left.keys() != right.keys():
        return True
    return any(relative_error(x, right[k]) > FLOOR * EPS32 for k, x in left.items())


class Fingerprints(Blind):
    """The inputs and outputs of all calls, as hashes."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.seen: list[tuple[str, str, str]] = []

    def enter(self, call: Call, inputs: Sequence[Array]) -> None:
        """Take the hash of the inputs."""
        del call
        self.given.append(_digest(inputs))

    def leave(self, call: Call, outputs: Sequence[Array]) -> None:
        """Take the hash of the outputs."""
        name = call.title.partition("(")[0] + f" ({call.name})"
        self.seen.append((name, self.given[-1], _digest(outputs)))

    def first_differing(self, other: Fingerprints) -> str | None:
        """The first call that gives something else for the same; or for anything.

        What only makes room for numbers has none of its own yet.
        """
        pairs = [
            (name, given == also_given)
            for (name, given, made), (_, also_given, also_made) in zip(
                self.seen, other.seen, strict=False
            )
            if made != also_made and "empty" not in name
        ]
        same = (name for name, alike in pairs if alike)
        return next(same, next((name for name, _ in pairs), None))


def _digest(arrays: Sequence[Array]) -> str:
    return bytes(hash_arrays(np.ascontiguousarray(x) for x in arrays)).hex()


class CallOrder(Blind):
    """In which order layers with weights are called, and how deep they lie.

    Attributes:
        count: of all calls.
        order: the serial of a layer's first call.
        depths: how many layers with weights come before it, at most.
        parents: the nearest layers with weights that it is fed by.
        begun: the serial of the first call in each layer that is looked into.
        uses: the serials of the calls that are given an array beside their inputs, by
            its hash: weights that no layer of their own holds.
        lines: of the code that calls each layer first.
    """

    def __init__(self) -> None:
        self.count = 0
        self.order: dict[str, int] = {}
        self.depths: dict[str, int] = {}
        self.parents: dict[str, frozenset[str]] = {}
        self.begun: dict[str, int] = {}
        self.uses: dict[str, list[int]] = {}
        self.lines: dict[str, str] = {}
        self._depth: dict[int, int | None] = {-1: 0}
        self._names: dict[int, frozenset[str]] = {-1: frozenset((INPUT,))}

    def enter(self, call: Call, inputs: Sequence[Array]) -> None:
        """Note the order."""
        del inputs
        self.count += 1
        for array in call.constants:
            self.uses.setdefault(_digest([array]), []).append(call.serial)
        if call.weighted:
            self.order.setdefault(call.name, call.serial)
            self.lines.setdefault(call.name, call.line)
        for name in call.inside:
            self.begun.setdefault(name, call.serial)
        depths = [self._depth.get(x) for x in call.sources]
        known = [x for x in depths if x is not None]
        self._depth[call.serial] = None
        if not depths or len(known) < len(depths):
            return
        # An attention may be written as layers of its own, one after the other.
        more = 2 if call.kind == "attention" else int(call.weighted)
        depth = self._depth[call.serial] = max(known) + more
        names = [self._names.get(x, frozenset()) for x in call.sources]
        parents: frozenset[str] = frozenset().union(*names)
        if call.weighted:
            self.depths.setdefault(call.name, depth)
            self.parents.setdefault(call.name, parents)
            parents = frozenset((call.name,))
        self._names[call.serial] = parents

    def used_by(self, weights: Iterable[Array]) -> list[int]:
        """The calls that are given one of these arrays beside their inputs."""
        found = (self.uses.get(_digest([x]), []) for x in weights)
        return sorted({serial for serials in found for serial in serials})

    def place_of(self, serial: int) -> tuple[int | None, frozenset[str] | None]:
        """A call's depth, and the nearest layers with weights that it is fed by."""
        return self._depth.get(serial), self._names.get(serial)


def in_float64(arrays: Arrays) -> Arrays:
    """The arrays, floats in float64."""
    return {
        name: x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) else x
        for name, x in arrays.items()
    }


def as_float32_holds(arrays: Arrays) -> Arrays:
    """The arrays, of their types, without digits that a model in float32 never sees.

    One that casts its inputs to float32 loses nothing of them then, in float64 either.
    """
    return {
        name: _held(x) if x.dtype == np.float64 else x for name, x in arrays.items()
    }


def _held(array: Array) -> Array:
    with np.errstate(over="ignore"):
        found = array.astype(np.float32).astype(np.float64)
    return np.where(np.isfinite(found), found, array)
