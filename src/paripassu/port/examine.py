"""Compares two models, layer by layer, in one process: what `paripassu check` does."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paripassu.analysis.ports import causes, segments, weights
from paripassu.analysis.ports.matching import Placed, match
from paripassu.analysis.ports.schema import (
    Cause,
    Check,
    Checked,
    Fault,
    Model,
    Pairing,
    Place,
    State,
    Weight,
)
from paripassu.analysis.ports.segments import Seen
from paripassu.core.errors import UserError
from paripassu.core.layers import Array, Described, relative
from paripassu.core.layout import hash_arrays
from paripassu.core.ports import Arrays, Block, Call, Probe, Step
from paripassu.port.groups import (
    Anchors,
    Comparer,
    Group,
    Recorder,
    Store,
    described,
    grouped,
)

Progress = Callable[[str, float], None]
EPS64, EPS32 = float(np.finfo(np.float64).eps), float(np.finfo(np.float32).eps)
# How many times the left model's own one-ulp control an error may be, and how many eps
# at least: kernels sum in other orders, the control only moves their inputs.
CONTROLS, FLOOR = 64, 64
# A constant or a function that float32 has rounded, in a network of float64.
ROUNDED = 4 * EPS32
EQUAL = 2 * EPS32  # of weights
LATER = ("training mode", "statistics", "gradients")  # phases
ANEW = 1e-2  # a model in float64 and in float32 are closer, were it chaotic not


@dataclass
class Side:
    """A model, as it is examined."""

    which: str
    probe: Probe
    source: str
    versions: Mapping[str, str] = field(default_factory=dict)

    def run(self, inputs: Arrays, watcher: Any, **how: bool) -> Arrays:
        """See `core.ports.Probe.run`; what the model raises is `ModelFailed`."""
        with self._theirs():
            return self.probe.run(inputs, watcher, **how)

    def step(self, inputs: Arrays, cotangents: Arrays) -> Step:
        """See `core.ports.Probe.step`; what the model raises is `ModelFailed`."""
        with self._theirs():
            return self.probe.step(inputs, cotangents)

    @contextmanager
    def _theirs(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            raise ModelFailed(self.which, self.source, error) from error

    def random_at(self, inputs: Arrays, *, training: bool) -> str | None:
        """The first call that gives something else in a second run, or None."""
        prints = [_Prints(), _Prints()]
        for watcher in prints:
            self.run(inputs, watcher, training=training)
        for one, two in zip(prints[0].seen, prints[1].seen, strict=False):
            if one != two:
                return one[0]
        return None


@dataclass
class Wishes:
    """What a check is to do beside comparing.

    Attributes:
        copy: "left-to-right" or "right-to-left", or None.
        given: pairs of blocks that are not to be questioned.
        gradients: also compare training mode and gradients.
    """

    copy: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    gradients: bool = True


@dataclass
class Walk:
    """Errors of one run, by group, visit and end; the outputs of the model."""

    errors: dict[tuple[int, int, str], float]
    outputs: Arrays


class Examination:
    """Two models and their inputs, compared step by step; `go` gives the result."""

    def __init__(
        self,
        left: Side,
        right: Side,
        inputs: tuple[Arrays, Arrays],
        wishes: Wishes,
        progress: Progress = lambda _text, _share: None,
    ):
        self.left, self.right = left, right
        self.inputs, self.right_inputs = inputs
        self.wishes, self.progress = wishes, progress
        self.notes: list[str] = []
        self.found: list[tuple[float, Fault]] = []
        self.checks: list[Check] = []
        self.random = np.random.Generator(np.random.Philox(7))

    # ## The order of things

    def go(self) -> Checked:
        """All of it."""
        begin = time.perf_counter()
        self.progress("finding the layers", 0.05)
        self._pair()
        self._structure()
        self._deterministic()
        store = Store()
        try:
            self._align(store)
            self._compare_weights()
            places32 = self._walks(store, EPS32, "float32", 0.2)
            if self._double():
                self._compare_weights(again=True)
                places = self._walks(store, EPS64, "float64", 0.4)
                self._judge(places, places32)
                if self.wishes.gradients:
                    self._training()
            else:
                places = places32
                self._judge(places, {})
        finally:
            store.close()
        self.progress("done", 1.0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return Checked(
            equal=not self.faults and all(x.state != "fails" for x in self.checks),
            left=self._model(self.left, self.left_blocks),
            right=self._model(self.right, self.right_blocks),
            inputs={k: f"{x.dtype} {x.shape}" for k, x in self.inputs.items()},
            copied=self.wishes.copy,
            pairs=tuple(self.pairings),
            places=tuple(self._places(places, places32)),
            checks=tuple(self.checks),
            faults=tuple(self.faults),
            notes=tuple(dict.fromkeys(self.notes)),
            seconds=time.perf_counter() - begin,
            peak_memory_mib=peak / (2**20 if sys.platform == "darwin" else 2**10),
        )

    def _model(self, side: Side, blocks: Mapping[str, Block]) -> Model:
        count = sum(
            x.size
            for block in blocks.values()
            for name, x in block.described.weights.items()
            if name not in ("mean", "variance")
        )
        return Model(
            source=side.source,
            framework=side.probe.framework,
            kind=type(side.probe.model).__name__,
            parameters=count,
            layers=len(blocks),
            versions=dict(side.versions),
        )

    def _check(self, name: str, state: State, detail: str) -> None:
        self.checks.append(Check(name=name, state=state, detail=detail))

    # ## Which weights are which

    def _pair(self) -> None:
        one, self.left_order = self._placed(self.left, self.inputs)
        two, self.right_order = self._placed(self.right, self.right_inputs)
        self.pairs = match(one, two, self.wishes.given)
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
        listing = _Listing()
        side.run(inputs, listing, sources=True)
        order = listing.order
        last = len(listing.calls)
        placed = []
        for number, block in enumerate(side.probe.blocks()):
            serial = order.get(block.layer, last + number)
            depth = listing.depths.get(block.layer)
            placed.append(Placed(block, serial + 1e-4 * number, depth))
        return sorted(placed, key=lambda x: x.order), order

    def _structure(self) -> None:
        alone_left = [x.left for x in self.pairs if x.right is None and x.left]
        alone_right = [x.right for x in self.pairs if x.left is None and x.right]
        shapes = [x for x in self.pairs if x.doubt.startswith("shapes differ")]
        if alone_left or alone_right or shapes:
            parts = []
            if alone_left:
                parts.append(f"only left: {', '.join(alone_left)}")
            if alone_right:
                parts.append(f"only right: {', '.join(alone_right)}")
            parts += [f"{x.left} and {x.right}: {x.doubt}" for x in shapes]
            self._check("layers", "fails", "; ".join(parts))
            for name in alone_left:
                self._unpaired(name, "-", "layer-missing", "only the left model has it")
            for name in alone_right:
                self._unpaired("-", name, "layer-extra", "only the right model has it")
            for pair in shapes:
                key = "weights-shape"
                self._unpaired(pair.left or "-", pair.right or "-", key, pair.doubt)
        else:
            count = len(self.pairs)
            self._check("layers", "holds", f"{count} of {count} blocks paired")
        doubts = [x for x in self.pairs if x.doubt and x not in shapes]
        for pair in doubts:
            self.notes.append(
                f"{pair.left} was taken for {pair.right}; {pair.doubt}. "
                "To decide it yourself, write the map: --write-map map.toml"
            )

    def _unpaired(self, left: str, right: str, key: str, text: str) -> None:
        layer = self.left_blocks[left].layer if left != "-" else ""
        left = layer or left
        at = self.left_order.get(layer, math.inf if left != "-" else -1)
        cause = Cause(key=key, sentence=text)
        self._fault("layers", left, right, None, cause, at=at)

    def _align(self, store: Store) -> None:
        """Find in which order the right model flattens; copy weights if asked to."""
        shapes = {x.shape[1:] for x in self.inputs.values() if x.ndim > 2}
        self._record(store, shapes)
        watcher = Comparer(self.groups, store, forced=True, shapes=shapes)
        anchors = Anchors(self.groups, "right", watcher, shapes)
        self._run_right(anchors)
        if self.wishes.copy:
            self.copy(self.wishes.copy)

    def copy(self, direction: str) -> None:
        """Give one model the other's weights."""
        for pair in self.pairs:
            if pair.left is None or pair.right is None:
                continue
            one, two = self.left_blocks[pair.left], self.right_blocks[pair.right]
            if direction == "left-to-right":
                fresh = self._carried(one, two)
                self.right.probe.write(pair.right, fresh)
            else:
                self.left.probe.write(pair.left, self._back(one, two))
        self._reread()

    def _reread(self) -> None:
        self.left_blocks = {x.name: x for x in self.left.probe.blocks()}
        self.right_blocks = {x.name: x for x in self.right.probe.blocks()}
        for group in self.groups:
            group.blocks = [
                (self.left_blocks[one.name], self.right_blocks[two.name])
                for one, two in group.blocks
            ]

    def _group_of(self, left: str) -> Group | None:
        return next(
            (x for x in self.groups for one, _ in x.blocks if one.name == left), None
        )

    def _keys(self, one: Block, two: Block) -> dict[str, str]:
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

    def _carried(self, one: Block, two: Block) -> Arrays:
        """The left block's weights as the right block has them."""
        group = self._group_of(one.name)
        carry = group.carry_weight if group else (lambda _name, x: x)
        found = {}
        for name, key in self._keys(one, two).items():
            array = carry(name, one.described.weights[name])
            if array.shape == two.described.weights[key].shape:
                found[key] = array
        return found

    def _back(self, one: Block, two: Block) -> Arrays:
        group = self._group_of(one.name)
        found = {}
        for name, key in self._keys(one, two).items():
            array = two.described.weights[key]
            if group is not None and group.rows is not None:
                order = np.argsort(group.rows)
                if len(array) == len(order) and name in ("kernel", "gamma", "beta"):
                    array = array[order]
            if array.shape == one.described.weights[name].shape:
                found[name] = array
        return found

    def _compare_weights(self, *, again: bool = False) -> None:
        self.pairings: list[Pairing] = []
        self.unequal: dict[str, list[str]] = {}
        count = 0
        for pair in self.pairs:
            one = self.left_blocks.get(pair.left or "")
            two = self.right_blocks.get(pair.right or "")
            found: list[Weight] = []
            if one and two:
                found = list(self._weights(one, two))
                count += sum(x.state == "equal" for x in found)
                bad = [x.name for x in found if x.state == "differs"]
                if bad:
                    self.unequal[one.name] = bad
            kind = one.kind if one else two.kind if two else ""
            self.pairings.append(
                Pairing(
                    left=pair.left,
                    right=pair.right,
                    kind=kind,
                    why=pair.why,
                    doubt=pair.doubt,
                    weights=tuple(found),
                )
            )
        if again:
            return
        for side, blocks in (("left", self.left_blocks), ("right", self.right_blocks)):
            for name, block in blocks.items():
                for key, array in block.described.weights.items():
                    if not np.isfinite(array).all():
                        text = (
                            f"{key} of {name} in the {side} model holds NaN or infinity"
                        )
                        self._check("weights", "fails", text)
                        places = (name, "-") if side == "left" else ("-", name)
                        cause = Cause(key="not-finite", sentence=text)
                        self._fault("weights", *places, None, cause, at=-1)
        total = sum(
            x.state in ("equal", "differs") for p in self.pairings for x in p.weights
        )
        unequal = sum(map(len, self.unequal.values()))
        self.unrelated = bool(total) and unequal >= max(2, 0.9 * total)
        if not unequal:
            self._check("weights", "holds", f"{count} of {total} equal")
        elif self.unrelated:
            self._check(
                "weights",
                "fails",
                f"{unequal} of {total} differ: the models were not given the same "
                "weights. To give them, type: --copy left-to-right",
            )
        else:
            names = ", ".join(f"{x}.{'/'.join(y)}" for x, y in self.unequal.items())
            self._check("weights", "fails", f"{unequal} of {total} differ: {names}")
        self._trainable()

    def _trainable(self) -> None:
        for pair in self.pairs:
            if pair.left is None or pair.right is None:
                continue
            one, two = self.left_blocks[pair.left], self.right_blocks[pair.right]
            if one.trainable != two.trainable:
                words = [
                    "is trained" if x.trainable else "is frozen" for x in (one, two)
                ]
                sentence = f"left {words[0]}, right {words[1]}"
                write = "trainable=True (Keras), requires_grad_(True) (PyTorch)"
                cause = Cause(key="frozen", sentence=sentence, write=write)
                self._fault("layers", one.layer, two.layer, None, cause)

    def _weights(self, one: Block, two: Block) -> Iterator[Weight]:
        mine, other = one.described.weights, two.described.weights
        keys = self._keys(one, two)
        carried = self._carried(one, two)
        for name, array in mine.items():
            if name not in keys:
                yield Weight(name=name, shape=array.shape, state="only left")
            elif keys[name] not in carried:
                yield Weight(name=name, shape=array.shape, state="other shape")
            else:
                apart = relative(carried[keys[name]], other[keys[name]])
                yield Weight(
                    name=name,
                    shape=array.shape,
                    state="equal" if apart <= EQUAL else "differs",
                    apart=_finite(apart),
                )
        for name, array in other.items():
            if name not in keys.values():
                yield Weight(name=name, shape=array.shape, state="only right")

    # ## Forward

    def _run_right(self, watcher: Any, *, training: bool = False) -> Arrays:
        return self.right.run(self.right_inputs, watcher, training=training)

    def _record(
        self,
        store: Store,
        shapes: set[tuple[int, ...]] | None = None,
        *,
        training: bool = False,
    ) -> Arrays:
        anchors = Anchors(self.groups, "left", Recorder(store), shapes)
        return self.left.run(self.inputs, anchors, training=training)

    def _walks(
        self,
        store: Store,
        eps: float,
        name: str,
        share: float,
        *,
        training: bool = False,
    ) -> dict[str, Walk]:
        """The left model; the right one forced and free; the left one nudged."""
        self.progress(f"comparing in {name}", share)
        outputs = self._record(store, training=training)
        found = {"left": Walk({}, outputs)}
        for label, forced in (("forced", True), ("free", False)):
            watcher = Comparer(self.groups, store, forced=forced)
            anchors = Anchors(self.groups, "right", watcher)
            made = self._run_right(anchors, training=training)
            found[label] = Walk(dict(watcher.errors.found), made)
        for label, forced in (("own control", True), ("control", False)):
            self.progress(f"comparing in {name}: the one-ulp control", share + 0.1)
            watcher = Comparer(self.groups, store, forced=forced, nudge=self._nudge)
            anchors = Anchors(self.groups, "left", watcher)
            inputs = {key: self._nudge(x) for key, x in self.inputs.items()}
            made = self.left.run(inputs, anchors, training=training)
            found[label] = Walk(dict(watcher.errors.found), made)
        found["eps"] = Walk({(0, 0, "eps"): eps}, {})
        return found

    def _nudge(self, array: Array) -> Array:
        if not np.issubdtype(array.dtype, np.floating):
            return array
        signs = self.random.choice((-np.inf, np.inf), size=array.shape)
        moved: Array = np.nextafter(array, signs.astype(array.dtype))
        return moved

    def _double(self) -> bool:
        for label, side, inputs in (
            ("left", self.left, self.inputs),
            ("right", self.right, self.right_inputs),
        ):
            try:
                before = side.run(inputs, _Nothing())
                side.probe.set_dtype("float64")
                after = side.run(_doubled(inputs), _Nothing())
                if any(relative(before[x], after[x]) > ANEW for x in before):
                    # Keras's own get_config of a subclassed model leaves out arguments.
                    raise UserError(
                        "made anew from its configuration, it computes something else. "
                        "Give a function that builds it."
                    )
            except UserError as error:
                self.notes.append(
                    f"no float64: {label}: {error} What follows is judged in float32, "
                    "where small differences of constants cannot be told from rounding."
                )
                self._check("float64", "not run", f"the {label} model stays in float32")
                if side is self.right:
                    self.left.probe.set_dtype("float32")
                return False
        self.inputs = _doubled(self.inputs)
        self.right_inputs = _doubled(self.right_inputs)
        self._reread()
        self._smooth()
        return True

    def _smooth(self) -> None:
        """Make weights that differ by float32's rounding the same bits."""
        for pair in self.pairs:
            if pair.left is None or pair.right is None or pair.left in self.unequal:
                continue
            one, two = self.left_blocks[pair.left], self.right_blocks[pair.right]
            other = two.described.weights
            fresh = {
                key: x
                for key, x in self._carried(one, two).items()
                if not np.array_equal(x, other[key])
            }
            if fresh:
                self.right.probe.write(pair.right, fresh)
        self._reread()

    def _deterministic(self) -> None:
        """Whether two runs are the same bits; random networks cannot be compared.

        Raises:
            UserError: a model is random in evaluation mode.
        """
        found = {}
        for side, inputs in ((self.left, self.inputs), (self.right, self.right_inputs)):
            if place := side.random_at(inputs, training=False):
                raise UserError(
                    f"the {side.which} model, {side.source}, is random in evaluation "
                    f"mode: two runs with the same input part at {place}. Give a model "
                    "without it, or draw the numbers outside and give them as an input."
                )
            if place := side.random_at(inputs, training=True):
                found[side.which] = place
        self.random_layers = found
        if found:
            places = ", ".join(f"{which} at {place}" for which, place in found.items())
            text = f"random in training mode, dropout off: {places}"
            self._check("determinism", "note", text)
        else:
            text = "two runs are the same bits, dropout off"
            self._check("determinism", "holds", text)

    # ## What is rounding and what is not

    def _bound(self, walks: Mapping[str, Walk], key: tuple[int, int, str]) -> float:
        eps = walks["eps"].errors[0, 0, "eps"]
        control = walks["own control"].errors.get(key, 0.0)
        control = control if math.isfinite(control) else 0.0
        return max(CONTROLS * control, FLOOR * eps)

    def _places(
        self, walks: Mapping[str, Walk], single: Mapping[str, Walk]
    ) -> Iterator[Place]:
        visits = sorted({(g, v) for g, v, _ in walks["free"].errors})
        order = {(g, v): n for n, (g, v, e) in enumerate(self._arrivals) if e == "out"}
        for g, v in sorted(visits, key=lambda x: order.get(x, 10**9)):
            group = self.groups[g]
            ends: dict[str, Any] = {
                "entering": _finite(walks["forced"].errors.get((g, v, "in"))),
                "own": _finite(walks["forced"].errors.get((g, v, "out"))),
                "total": _finite(walks["free"].errors.get((g, v, "out"))),
                "control": _finite(walks["control"].errors.get((g, v, "out"))),
            }
            if single and single is not walks:
                name = "total_float32"
                ends[name] = _finite(single["free"].errors.get((g, v, "out")))
                name = "control_float32"
                ends[name] = _finite(single["control"].errors.get((g, v, "out")))
            yield Place(
                left=", ".join(group.left),
                right=", ".join(group.right),
                kind=group.kind,
                visit=v,
                bound=self._bound(walks, (g, v, "out")),
                entering_bound=self._bound(walks, (g, v, "in")),
                **ends,
            )

    def _judge(self, walks: dict[str, Walk], single: Mapping[str, Walk]) -> None:
        self.progress("looking for causes", 0.6)
        eps = walks["eps"].errors[0, 0, "eps"]
        name = "float64" if eps == EPS64 else "float32"
        self._arrivals = list(walks["free"].errors)
        found = self._output_errors(walks)
        worst = max(found.values(), default=0.0)
        bound = self._output_bound(walks)
        faulty = [
            key
            for key, error in walks["forced"].errors.items()
            if error > self._bound(walks, key)
        ]
        rounded = [
            key
            for key in faulty
            if eps == EPS64 and walks["forced"].errors[key] <= ROUNDED
        ]
        faulty = [key for key in faulty if key not in rounded]
        output_parts = self._forced_output_error(walks) > max(
            bound, ROUNDED if eps == EPS64 else 0.0
        )
        if rounded:
            places = ", ".join(
                dict.fromkeys(", ".join(self.groups[g].right) for g, _, _ in rounded)
            )
            self.notes.append(
                f"at {places}, one of the models computes something in float32 even in "
                f"float64 (errors up to {ROUNDED:.0e}); that is rounding, not a fault"
            )
        if faulty or output_parts or self.unequal:
            self._explain(walks)
        limit = max(bound, ROUNDED if rounded else 0.0)
        state: State = "holds" if worst <= limit and not faulty else "fails"
        self._check(
            f"forward, {name}",
            state,
            f"outputs {_said(worst, eps)}; "
            f"one-ulp control {_said(bound / CONTROLS, eps)}",
        )
        if single and single is not walks:
            self._single(single, state)

    def _single(self, walks: Mapping[str, Walk], state: State) -> None:
        """In float32, against float32's own control."""
        worst = max(self._output_errors(walks).values(), default=0.0)
        bound = self._output_bound(walks)
        good = worst <= bound
        detail = f"outputs {_said(worst, EPS32)}; one-ulp control "
        detail += _said(bound / CONTROLS, EPS32)
        self._check("forward, float32", "holds" if good else "fails", detail)
        if good or state == "fails":
            return
        first = next(
            (
                key
                for key, error in walks["forced"].errors.items()
                if error > self._bound(walks, key)
            ),
            None,
        )
        group = self.groups[first[0]] if first else None
        cause = Cause(
            key="float32-arithmetic",
            sentence="in float64 both compute the same; in float32 one of them rounds "
            "far more than it need: fewer digits inside (TF32, bfloat16), or a formula "
            "that cancels",
        )
        self._fault(
            "forward, float32",
            ", ".join(group.left) if group else "output",
            ", ".join(group.right) if group else "output",
            worst,
            cause,
            eps=EPS32,
        )

    def _outputs(
        self, left: Arrays, right: Arrays
    ) -> Iterator[tuple[str, Array, Array]]:
        """Pairs of outputs, by name where both have the same names, else in order."""
        names = list(left) if set(left) == set(right) else None
        if len(left) != len(right):
            raise UserError(
                f"the left model has {len(left)} outputs ({', '.join(left)}), the "
                f"right one {len(right)} ({', '.join(right)}). "
                "Return the same from both."
            )
        pairs = zip(names or left, names or right, strict=True)
        for one, two in pairs:
            wanted, got = left[one], right[two]
            if wanted.ndim > 2 and wanted.size == got.size:
                ways = [wanted, np.moveaxis(wanted, 1, -1), np.moveaxis(wanted, -1, 1)]
                fit = [x for x in ways if x.shape == got.shape]
                if fit:
                    wanted = min(fit, key=lambda x: relative(x, got))
            yield one, wanted, got

    def _output_errors(self, walks: Mapping[str, Walk], which: str = "free") -> Any:
        return {
            name: relative(one, two)
            for name, one, two in self._outputs(
                walks["left"].outputs, walks[which].outputs
            )
        }

    def _forced_output_error(self, walks: Mapping[str, Walk]) -> float:
        return float(max(self._output_errors(walks, "forced").values(), default=0.0))

    def _output_bound(self, walks: Mapping[str, Walk]) -> float:
        left, control = walks["left"].outputs, walks["control"].outputs
        moved = max((relative(left[x], control[x]) for x in left), default=0.0)
        eps = walks["eps"].errors[0, 0, "eps"]
        return max(CONTROLS * (moved if math.isfinite(moved) else 0.0), FLOOR * eps)

    # ## Why

    def _fault(
        self,
        phase: str,
        left: str,
        right: str,
        size: float | None,
        cause: Cause | None,
        *,
        eps: float = EPS64,
        jump: float | None = None,
        at: float | None = None,
    ) -> None:
        finite = None if size is None else _finite(size)
        jump = _finite(jump)
        if at is None:
            at = self.left_order.get(left.partition(", ")[0], math.inf)
        fault = (
            at,
            Fault(
                phase=phase,
                left=left,
                right=right,
                size=finite,
                eps=finite / eps if finite is not None else None,
                jump=jump,
                cause=cause,
            ),
        )
        self.found.append(fault)

    @property
    def faults(self) -> list[Fault]:
        """In the order in which the left model computes; training mode is after it."""
        return [
            x for _, x in sorted(self.found, key=lambda x: (x[1].phase in LATER, x[0]))
        ]

    def _explain(self, walks: dict[str, Walk]) -> None:  # noqa: PLR0912
        """Name a cause for each faulty place.

        Weights first: with the left's weights in the right model, what is left of the
        errors is not the weights'.
        """
        before = walks["forced"].errors
        kept: dict[str, Arrays] = {}
        if self.unequal:
            for pair in self.pairs:
                if pair.left in self.unequal and pair.right is not None:
                    one, two = (
                        self.left_blocks[pair.left],
                        self.right_blocks[pair.right],
                    )
                    kept[pair.right] = dict(two.described.weights)
                    kept[pair.right] = {
                        k: np.array(x) for k, x in kept[pair.right].items()
                    }
                    self.right.probe.write(pair.right, self._carried(one, two))
            self._reread()
        store = Store()
        try:
            left_calls = self._details(store)
            right_calls, errors, made = self._details_right(store)
            if kept:
                self._weight_faults(kept, before, errors)
            seen: set[str] = set()
            for key in errors:
                if errors[key] <= max(self._bound(walks, key), ROUNDED):
                    continue
                number, visit, end = key
                group = self.groups[number]
                if self._misshapen(group):
                    continue
                jump = errors[key] / self._bound(walks, key)
                if end == "out":
                    self._layer_fault(
                        group, visit, errors[key], jump, left_calls, right_calls
                    )
                else:
                    self._segment_fault(key, jump, left_calls, right_calls, seen)
            error = max(
                (
                    relative(one, two)
                    for _, one, two in self._outputs(walks["left"].outputs, made)
                ),
                default=0.0,
            )
            told = self.faults and not math.isfinite(error)
            if error > max(self._output_bound(walks), ROUNDED) and not told:
                self._output_fault(walks, made, error, left_calls, right_calls, seen)
        finally:
            store.close()
            for name, old in kept.items():
                self.right.probe.write(name, old)
            if kept:
                self._reread()

    def _misshapen(self, group: Group) -> bool:
        """Whether its weights' shapes differ, which has been told already."""
        names = {one.name for one, _ in group.blocks}
        return any(
            x.left in names and x.doubt.startswith("shapes differ") for x in self.pairs
        )

    def _weight_faults(
        self,
        kept: Mapping[str, Arrays],
        before: Mapping[tuple[int, int, str], float],
        after: Mapping[tuple[int, int, str], float],
    ) -> None:
        if self.unrelated:
            cause = Cause(
                key="weights-not-copied",
                sentence="the models were not given the same weights",
                write="--copy left-to-right compares them with the left's weights",
            )
            first = next(iter(self.unequal))
            pair = next(x for x in self.pairs if x.left == first)
            self._fault("weights", first, pair.right or "-", None, cause)
            return
        others = {
            (name, key): array
            for name, block in self.left_blocks.items()
            for key, array in block.described.weights.items()
        }
        for pair in self.pairs:
            if pair.left not in self.unequal or pair.right is None:
                continue
            one = self.left_blocks[pair.left]
            two = self.right_blocks[pair.right]
            keys, group = self._keys(one, two), self._group_of(pair.left)
            carried = self._carried(one, two)
            number = self.groups.index(group) if group else -1
            ends = [k for k in before if k[0] == number and k[2] == "out"]
            for name in self.unequal[pair.left]:
                key = keys[name]
                wanted, got = carried[key], kept[pair.right][key]
                rest = {k: v for k, v in others.items() if k != (pair.left, name)}
                bias = one.described.settings.get("_input_bias")
                second = one.described.weights.get("recurrent_bias")
                found = weights.recognise(
                    one.kind,
                    name,
                    wanted,
                    got,
                    others=rest,
                    flattened=group.flattened if group else None,
                    input_bias=bias,
                    recurrent_bias=second,
                )
                cause = Cause(
                    key=found[0],
                    sentence=f"{key} of {pair.right}: {found[1]}",
                    write="--copy left-to-right writes it as the left model has it",
                    before=_finite(max((before[k] for k in ends), default=math.inf)),
                    after=_finite(max((after[k] for k in ends), default=math.inf)),
                )
                size = relative(wanted, got)
                self._fault("weights", one.layer, two.layer, size, cause)

    def _details(self, store: Store) -> list[Seen]:
        everything = _Everything(Anchors(self.groups, "left", Recorder(store)))
        self.left.run(self.inputs, everything, sources=True)
        return everything.seen

    def _details_right(
        self, store: Store
    ) -> tuple[list[Seen], dict[tuple[int, int, str], float], Arrays]:
        watcher = Comparer(self.groups, store, forced=True)
        everything = _Everything(Anchors(self.groups, "right", watcher))
        made = self.right.run(self.right_inputs, everything, sources=True)
        return everything.seen, dict(watcher.errors.found), made

    def _layer_fault(
        self,
        group: Group,
        visit: int,
        size: float,
        jump: float,
        left_calls: Sequence[Seen],
        right_calls: Sequence[Seen],
    ) -> None:
        left, right = described(group)
        one = [
            x for x in left_calls if x.call.name == group.left[-1] and x.call.weighted
        ]
        two = [
            x for x in right_calls if x.call.name == group.right[-1] and x.call.weighted
        ]
        begin = [
            x for x in right_calls if x.call.name == group.right[0] and x.call.weighted
        ]
        first = [
            x for x in left_calls if x.call.name == group.left[0] and x.call.weighted
        ]
        cause = None
        if visit < min(len(one), len(two)):
            # Settings are read again at the call: padding may depend on it.
            right = _updated(right, two[visit].call)
            left = _updated(left, one[visit].call)
            got = two[visit].outputs[0]
            wanted = group.carry("out", one[visit].outputs[0], got)
            regions = None
            if group.kind == "conv_transpose" and wanted is not None:
                regions = group.regions(one[visit].outputs[0], got)
            if regions and one[visit].outputs[0].shape != got.shape:
                # The right model crops later: look at what the left one has kept.
                wanted, got = one[visit].outputs[0][regions[0]], got[regions[1]]
                crop = {"crop": left[0].settings["crop"]}
                right = [
                    Described(x.kind, {**x.settings, **crop}, x.weights) for x in right
                ]
            inputs = []
            for x, y in zip(first[visit].inputs, begin[visit].inputs, strict=False):
                carried = group.carry("in", x, y)
                inputs.append(y if carried is None else carried)
            if wanted is None:
                cause = _other_shape(left, right, one[visit].outputs[0], got)
            else:
                cause = causes.of_layer(left, right, inputs, wanted, got, _shape(group))
        names = ", ".join(group.left), ", ".join(group.right)
        self._fault("forward", *names, size, cause, jump=jump)

    def _serials(self, calls: Sequence[Seen], side: str) -> dict[str, list[int]]:
        names = {
            name
            for group in self.groups
            for name in (group.left if side == "left" else group.right)
        }
        found: dict[str, list[int]] = {}
        for seen in calls:
            if seen.call.weighted and seen.call.name in names:
                found.setdefault(seen.call.name, []).append(seen.call.serial)
        return found

    def _segment_fault(
        self,
        key: tuple[int, int, str],
        jump: float,
        left_calls: Sequence[Seen],
        right_calls: Sequence[Seen],
        seen: set[str],
    ) -> None:
        number, visit, _ = key
        group = self.groups[number]
        one = self._serials(left_calls, "left")
        two = self._serials(right_calls, "right")
        starts = one.get(group.left[0], []), two.get(group.right[0], [])
        if visit >= min(map(len, starts)):
            return
        target_left, target_right = starts[0][visit], starts[1][visit]
        stops_left = {x for found in one.values() for x in found}
        stops_right = {x for found in two.values() for x in found}
        left = segments.between(left_calls, target_left, stops_left)
        right = segments.between(right_calls, target_right, stops_right)
        got = right_calls[target_right].inputs[0]
        kept = left_calls[target_left].inputs[0]
        wanted = group.carry("in", kept, got)
        parted = segments.part(
            left,
            right,
            left_calls,
            right_calls,
            segments.Target(
                group.left[0],
                group.right[0],
                kept if wanted is None else wanted,
                got,
                _before(left_calls, target_left, stops_left),
                _before(right_calls, target_right, stops_right),
                _kind_before(left_calls, target_left, stops_left),
                target_left,
                target_right,
            ),
        )
        self._parted(parted, target_left, jump, seen)

    def _parted(
        self, parted: segments.Parted, serial: int, jump: float, seen: set[str]
    ) -> None:
        label = f"{parted.left} {parted.right}"
        if label not in seen:
            seen.add(label)
            names = parted.left, parted.right
            self._fault(
                "forward", *names, parted.size, parted.cause, jump=jump, at=serial - 0.5
            )

    def _output_fault(
        self,
        walks: Mapping[str, Walk],
        made: Arrays,
        error: float,
        left_calls: Sequence[Seen],
        right_calls: Sequence[Seen],
        seen: set[str],
    ) -> None:
        one = self._serials(left_calls, "left")
        two = self._serials(right_calls, "right")
        stops_left = {x for found in one.values() for x in found}
        stops_right = {x for found in two.values() for x in found}
        left = segments.between(left_calls, None, stops_left)
        right = segments.between(right_calls, None, stops_right)
        name, wanted, got = max(
            self._outputs(walks["left"].outputs, made),
            key=lambda x: relative(x[1], x[2]),
        )
        parted = segments.part(
            left,
            right,
            left_calls,
            right_calls,
            segments.Target(
                name,
                name,
                wanted,
                got,
                _before(left_calls, len(left_calls), stops_left),
                _before(right_calls, len(right_calls), stops_right),
                _kind_before(left_calls, len(left_calls), stops_left),
                None,
                None,
            ),
        )
        jump = error / self._output_bound(walks)
        self._parted(parted, len(left_calls), jump, seen)

    # ## Training mode and gradients

    def _training(self) -> None:
        if self.random_layers:
            self._check("training mode", "not run", "a model is random in it")
            return
        self.progress("comparing gradients", 0.75)
        shapes = self.left.run(self.inputs, _Nothing())
        others = self.right.run(self.right_inputs, _Nothing())
        drawn: Arrays = {}
        drawn_right: Arrays = {}
        names = list(zip(shapes, others, strict=True))
        if set(shapes) == set(others):
            names = [(x, x) for x in shapes]
        for one, two in names:
            cotangent = self.random.standard_normal(shapes[one].shape)
            drawn[one] = cotangent
            laid = (shapes[one], *_moved(shapes[one]))
            fits = [
                (relative(x, others[two]), n)
                for n, x in enumerate(laid)
                if x.shape == others[two].shape
            ]
            if not fits:
                self._check("gradients", "not run", "outputs have other shapes")
                return
            drawn_right[two] = (cotangent, *_moved(cotangent))[min(fits)[1]]
        left = self.left.step(self.inputs, drawn)
        nudged = {key: self._nudge(x) for key, x in self.inputs.items()}
        control = self.left.step(nudged, drawn)
        self.progress("comparing gradients", 0.85)
        right = self.right.step(self.right_inputs, drawn_right)
        parted = self._compare_training(left, right, control)
        self._compare_statistics(left, right)
        self._compare_gradients(left, right, control, parted)

    def _compare_training(self, left: Step, right: Step, control: Step) -> bool:
        worst, bound = 0.0, FLOOR * EPS64
        for name, one, two in self._outputs(left.outputs, right.outputs):
            worst = max(worst, relative(one, two))
            moved = relative(left.outputs[name], control.outputs[name])
            bound = max(bound, CONTROLS * (moved if math.isfinite(moved) else 0.0))
        good = worst <= max(bound, ROUNDED if self._has_rounded() else 0.0)
        self._check(
            "training mode, float64",
            "holds" if good else "fails",
            f"outputs {_said(worst, EPS64)}; dropout off",
        )
        if not good and not self.faults:
            self._training_fault(worst)
        return not good

    def _has_rounded(self) -> bool:
        return any("in float32 even in" in x for x in self.notes)

    def _training_fault(self, worst: float) -> None:
        """Where the models part in training mode only."""
        store = Store()
        try:
            walks = self._walks(store, EPS64, "training mode", 0.85, training=True)
        finally:
            store.close()
        for key, error in walks["forced"].errors.items():
            if error > max(self._bound(walks, key), ROUNDED):
                group = self.groups[key[0]]
                cause = None
                if group.kind == "batch_norm":
                    cause = Cause(
                        key="frozen",
                        sentence="one normalises with the batch's statistics in "
                        "training mode, the other with the running ones",
                    )
                names = ", ".join(group.left), ", ".join(group.right)
                self._fault("training mode", *names, error, cause)
                return
        self._fault("training mode", "output", "output", worst, None)

    def _compare_statistics(self, left: Step, right: Step) -> None:
        found, unbiased = [], []
        for pair in self.pairs:
            one, two = pair.left or "", pair.right or ""
            if one not in left.statistics or two not in right.statistics:
                continue
            mine, other = left.statistics[one], right.statistics[two]
            group = self._group_of(one)
            carry = group.carry_weight if group else (lambda _name, x: x)
            blocks = self.left_blocks[one], self.right_blocks[two]
            if any(x not in blocks[0].described.weights for x in ("mean", "variance")):
                continue
            cause, apart = _statistics(blocks, mine, other, carry)
            if cause is None and apart > 1e-9:
                unbiased.append((one, apart))
            elif cause is not None:
                found.append(one)
                inherited = cause.key == "statistics" and bool(self.faults)
                told = any(x.left == blocks[0].layer for x in self.faults)
                if not (inherited or told):
                    names = blocks[0].layer, blocks[1].layer
                    self._fault("statistics", *names, apart, cause)
        if not left.statistics:
            return
        if unbiased and self.left.probe.framework != self.right.probe.framework:
            worst = max(x for _, x in unbiased)
            self.notes.append(
                "PyTorch keeps the unbiased variance of a batch, Keras the biased one "
                "(n / (n - 1) between them): running variances part by up to "
                f"{worst:.1e} in this step. No setting of either changes that"
            )
        self._check(
            "BatchNorm statistics",
            "fails" if found else "holds",
            f"after one step: {', '.join(found)} part"
            if found
            else f"{len(left.statistics)} layers, after one step",
        )

    def _compare_gradients(
        self, left: Step, right: Step, control: Step, parted: bool
    ) -> None:
        worst, bad, total = 0.0, [], 0
        for pair in self.pairs:
            if pair.left is None or pair.right is None:
                continue
            one, two = self.left_blocks[pair.left], self.right_blocks[pair.right]
            mine, other = left.gradients[pair.left], right.gradients[pair.right]
            if one.trainable != two.trainable:
                continue
            group = self._group_of(pair.left)
            carry = group.carry_weight if group else (lambda _name, x: x)
            for name, key in self._keys(one, two).items():
                if name not in mine or key not in other:
                    continue
                total += 1
                wanted = carry(name, mine[name])
                error = relative(wanted, other[key])
                moved = relative(mine[name], control.gradients[pair.left][name])
                moved = moved if math.isfinite(moved) else 0.0
                bound = max(CONTROLS * moved, FLOOR * EPS64)
                # Gradients that cancel to nothing are rounding on both sides.
                scale = max(
                    (np.abs(x).max(initial=0) for x in mine.values()), default=0.0
                )
                small = np.abs(wanted - other[key]).max(initial=0) <= scale * 1e-12
                if (
                    error > max(bound, ROUNDED if self._has_rounded() else 0)
                    and not small
                ):
                    bad.append((pair, name, wanted, other[key], error))
                elif error <= bound:
                    worst = max(worst, error)
        if not bad:
            detail = f"{total} of {total} equal, at most {_said(worst, EPS64)}"
            self._check("gradients, float64", "holds", detail)
            return
        names = ", ".join(f"{pair.left}.{name}" for pair, name, *_ in bad[:6])
        more = f" and {len(bad) - 6} more" if len(bad) > 6 else ""
        self._check(
            "gradients, float64", "fails", f"{len(bad)} of {total} part: {names}{more}"
        )
        if self.faults or parted:
            return
        pair, _, wanted, got, error = bad[-1]
        whose = "right" if np.abs(got).sum() < np.abs(wanted).sum() else "left"
        share = "no gradient" if not (got.any() and wanted.any()) else "less gradient"
        cause = Cause(
            key="stop-gradient",
            sentence=f"both compute the same forward, but {share} reaches it in the "
            f"{whose} model: a stop_gradient or detach after it, or a function without "
            "a gradient",
        )
        self._fault("gradients", pair.left or "-", pair.right or "-", error, cause)


def _statistics(
    blocks: tuple[Block, Block],
    left: Arrays,
    right: Arrays,
    carry: Callable[[str, Array], Array],
) -> tuple[Cause | None, float]:
    """Compare running statistics; None: equal, or biased beside unbiased."""
    one, two = (x.described for x in blocks)
    apart = {key: relative(carry(key, left[key]), right[key]) for key in left}
    worst = max(apart.values())
    if worst <= 1e-9:
        return None, worst
    momenta = [float(x.settings.get("momentum", 0.0)) for x in (one, two)]
    sentence = f"momentum: left keeps {momenta[0]:.6g}, right {momenta[1]:.6g}"
    if abs(momenta[0] - momenta[1]) > 1e-12:
        share = 1 - momenta[0]
        batch = (
            (left["mean"] - momenta[0] * one.weights["mean"]) / share if share else 0
        )
        other = momenta[1] * one.weights["mean"] + (1 - momenta[1]) * batch
        after = relative(carry("mean", np.asarray(other)), right["mean"])
        write = (
            f"Keras: momentum={momenta[0]:.6g}; PyTorch: momentum={1 - momenta[0]:.6g} "
            "(the share of the new)"
        )
        return (
            Cause(
                key="momentum",
                sentence=sentence,
                write=write,
                before=_finite(worst),
                after=after if after < 1e-6 else None,
            ),
            worst,
        )
    old_mean = carry("mean", one.weights["mean"])
    if apart["mean"] > 1e-9:
        if relative(old_mean, right["mean"]) <= 1e-12:
            text = "the right model does not update its running statistics"
            return Cause(key="frozen", sentence=text), worst
        return Cause(key="statistics", sentence="running means part"), worst
    # Means agree: is it the factor n / (n - 1)?
    share = 1 - momenta[0]
    old = carry("variance", one.weights["variance"])
    mine = (carry("variance", left["variance"]) - momenta[0] * old) / share
    theirs = (right["variance"] - momenta[0] * old) / share
    safe = np.abs(theirs) > 1e-12
    ratio = mine[safe] / theirs[safe]
    if ratio.size and np.ptp(ratio) <= 1e-6 * abs(ratio.mean()):
        return None, worst
    return Cause(key="statistics", sentence="running variances part"), worst


def _before(calls: Sequence[Seen], end: int, stops: set[int]) -> str:
    """The name of the last layer of the other model as well, before a call."""
    last = max((x for x in stops if x < end), default=-1)
    return calls[last].call.name if last >= 0 else segments.INPUT


def _kind_before(calls: Sequence[Seen], end: int, stops: set[int]) -> str:
    last = max((x for x in stops if x < end), default=-1)
    return calls[last].call.kind if last >= 0 else ""


def _moved(array: Array) -> tuple[Array, ...]:
    if array.ndim < 3:
        return ()
    return np.moveaxis(array, 1, -1), np.moveaxis(array, -1, 1)


def _updated(parts: Sequence[Any], call: Call) -> list[Any]:
    more = dict(call.described.settings)
    if len(parts) > 1:
        more = {key: x for key, x in more.items() if key in ("last", "merge")}
    return [type(x)(x.kind, {**x.settings, **more}, x.weights) for x in parts]


def _shape(group: Group) -> causes.Shape:
    """How the parts of a recurrent layer lie: on each other, or in two directions."""
    names = [x.name for x, _ in group.blocks]
    if not any(x.endswith("/reverse") for x in names):
        names = [x.name for _, x in group.blocks]
    counts: list[int] = []
    for name in names:
        if name.endswith("/reverse") and counts:
            counts[-1] += 1
        else:
            counts.append(1)
    half = None
    last = [n for n, (_, x) in enumerate(group.blocks) if x.layer == group.right[-1]]
    if counts[-1] == 2 and len(last) == 1:
        half = int(last[0] == len(names) - 1)
    return causes.Shape(tuple(counts), half)


def _other_shape(
    left: Sequence[Described], right: Sequence[Described], wanted: Array, got: Array
) -> Cause | None:
    differing = causes.differences(left, right)
    if not differing:
        return None
    return Cause(
        key=causes.key_of(left[0], right[0], differing[0]),
        sentence=f"shapes {wanted.shape} and {got.shape}: left "
        f"{causes.told(left[0].settings)}; right {causes.told(right[0].settings)}",
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _doubled(arrays: Arrays) -> Arrays:
    return {
        name: x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) else x
        for name, x in arrays.items()
    }


def _said(error: float, eps: float) -> str:
    """An error in words: relative, and in eps."""
    if not math.isfinite(error):
        return "of other shapes, or not finite"
    return f"{error:.1e} apart ({error / eps:.3g} eps)"


class ModelFailed(Exception):
    """A user's model raised."""

    def __init__(self, which: str, source: str, error: Exception):
        super().__init__(f"the {which} model, {source}, raised {type(error).__name__}")
        self.which, self.source, self.error = which, source, error


class _Nothing:
    def enter(self, call: Call, inputs: Sequence[Array]) -> None:
        """Nothing."""

    def leave(self, call: Call, outputs: Sequence[Array]) -> None:
        """Nothing."""


class _Prints:
    """The outputs of all calls, as a hash."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def enter(self, call: Call, inputs: Sequence[Array]) -> None:
        """Nothing."""

    def leave(self, call: Call, outputs: Sequence[Array]) -> None:
        """Take the hash of the outputs."""
        digest = bytes(hash_arrays(np.ascontiguousarray(x) for x in outputs)).hex()
        self.seen.append((call.title.partition("(")[0] + f" ({call.name})", digest))


class _Listing:
    """In which order layers with weights are called, and how deep they lie."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.order: dict[str, int] = {}
        self.depths: dict[str, int] = {}
        self._depth: dict[int, int | None] = {-1: 0}

    def enter(self, call: Call, inputs: Sequence[Array]) -> None:
        """Note the order."""
        del inputs
        self.calls.append(call)
        if call.weighted:
            self.order.setdefault(call.name, call.serial)
        found = [self._depth.get(x) for x in call.sources]
        known = [x for x in found if x is not None]
        depth = None
        if found and len(known) == len(found):
            depth = max(known) + int(call.weighted)
            if call.weighted:
                self.depths.setdefault(call.name, depth)
        self._depth[call.serial] = depth

    def leave(self, call: Call, outputs: Sequence[Array]) -> None:
        """Nothing."""


class _Everything:
    """Keeps the arrays of all calls, and lets another watcher replace them."""

    def __init__(self, inner: Anchors):
        self.inner = inner
        self.seen: list[Seen] = []
        self.inputs: dict[int, tuple[Array, ...]] = {}
        self.calls: list[Call] = []

    def enter(self, call: Call, inputs: Sequence[Array]) -> Sequence[Array] | None:
        """Keep the inputs as they came."""
        self.inputs[call.serial] = tuple(inputs)
        assert call.serial == len(self.seen)
        self.seen.append(Seen(call, tuple(inputs), ()))
        return self.inner.enter(call, inputs)

    def leave(self, call: Call, outputs: Sequence[Array]) -> Sequence[Array] | None:
        """Keep the outputs; where they are replaced, those that the other model had."""
        given = self.inner.leave(call, outputs)
        self.seen[call.serial] = Seen(call, self.inputs[call.serial], tuple(outputs))
        return given
