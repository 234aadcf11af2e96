"""Runs both models and compares them at their groups; what rounding may do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from paripassu.core.errors import UserError
from paripassu.core.layer_spec import Array, relative_error
from paripassu.port_check.findings import EPS32, finite
from paripassu.port_check.groups import Anchors, Comparer, Recorder, Store
from paripassu.port_check.mapping import Models
from paripassu.port_check.results import Place
from paripassu.sides.contract import Arrays

Progress = Callable[[str, float], None]
# How many times the left model's own one-ulp control an error may be, and how many eps
# at least: kernels sum in other orders, the control only moves their inputs.
CONTROLS, FLOOR = 64, 64
# A constant or a function that float32 has rounded, in a network of float64.
ROUNDED = 4 * EPS32


@dataclass
class Walk:
    """Errors of one run, by group, visit and end; the outputs of the model."""

    errors: dict[tuple[int, int, str], float]
    outputs: Arrays


class Walker:
    """Runs the models of `models`."""

    def __init__(self, models: Models, progress: Progress):
        self.models, self.progress = models, progress
        self.random = np.random.Generator(np.random.Philox(7))

    def align(self, store: Store) -> None:
        """Find in which order the right model flattens."""
        shapes = {x.shape[1:] for x in self.models.inputs.values() if x.ndim > 2}
        self.record(store, shapes)
        watcher = Comparer(self.models.groups, store, forced=True, shapes=shapes)
        anchors = Anchors(self.models.groups, "right", watcher, shapes)
        self.run_right(anchors)

    def run_right(self, watcher: Any, *, training: bool = False) -> Arrays:
        """Run the right model."""
        return self.models.right.run(
            self.models.right_inputs, watcher, training=training
        )

    def record(
        self,
        store: Store,
        shapes: set[tuple[int, ...]] | None = None,
        *,
        training: bool = False,
    ) -> Arrays:
        """Run the left model and keep what it has at its groups."""
        anchors = Anchors(self.models.groups, "left", Recorder(store), shapes)
        return self.models.left.run(self.models.inputs, anchors, training=training)

    def walks(
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
        outputs = self.record(store, training=training)
        found = {"left": Walk({}, outputs)}
        for label, forced in (("forced", True), ("free", False)):
            watcher = Comparer(self.models.groups, store, forced=forced)
            anchors = Anchors(self.models.groups, "right", watcher)
            made = self.run_right(anchors, training=training)
            found[label] = Walk(dict(watcher.errors.found), made)
        for label, forced in (("own control", True), ("control", False)):
            self.progress(f"comparing in {name}: the one-ulp control", share + 0.1)
            watcher = Comparer(
                self.models.groups, store, forced=forced, nudge=self.nudge
            )
            anchors = Anchors(self.models.groups, "left", watcher)
            inputs = {key: self.nudge(x) for key, x in self.models.inputs.items()}
            made = self.models.left.run(inputs, anchors, training=training)
            found[label] = Walk(dict(watcher.errors.found), made)
        found["eps"] = Walk({(0, 0, "eps"): eps}, {})
        return found

    def nudge(self, array: Array) -> Array:
        """Each value moved by one unit in the last place, up or down."""
        if not np.issubdtype(array.dtype, np.floating):
            return array
        signs = self.random.choice((-np.inf, np.inf), size=array.shape)
        moved: Array = np.nextafter(array, signs.astype(array.dtype))
        return moved

    def bound(self, walks: Mapping[str, Walk], key: tuple[int, int, str]) -> float:
        """What rounding may do at one place."""
        eps = walks["eps"].errors[0, 0, "eps"]
        control = walks["own control"].errors.get(key, 0.0)
        control = control if math.isfinite(control) else 0.0
        return max(CONTROLS * control, FLOOR * eps)

    def places(
        self, walks: Mapping[str, Walk], single: Mapping[str, Walk]
    ) -> Iterator[Place]:
        """All places, as they come."""
        visits = sorted({(g, v) for g, v, _ in walks["free"].errors})
        order = {
            (g, v): n for n, (g, v, e) in enumerate(walks["free"].errors) if e == "out"
        }
        for g, v in sorted(visits, key=lambda x: order.get(x, 10**9)):
            group = self.models.groups[g]
            ends: dict[str, Any] = {
                "entering": finite(walks["forced"].errors.get((g, v, "in"))),
                "own": finite(walks["forced"].errors.get((g, v, "out"))),
                "total": finite(walks["free"].errors.get((g, v, "out"))),
                "control": finite(walks["control"].errors.get((g, v, "out"))),
            }
            if single and single is not walks:
                name = "total_float32"
                ends[name] = finite(single["free"].errors.get((g, v, "out")))
                name = "control_float32"
                ends[name] = finite(single["control"].errors.get((g, v, "out")))
            yield Place(
                left=", ".join(group.left),
                right=", ".join(group.right),
                kind=group.kind,
                visit=v,
                bound=self.bound(walks, (g, v, "out")),
                entering_bound=self.bound(walks, (g, v, "in")),
                **ends,
            )

    def outputs(
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
                    wanted = min(fit, key=lambda x: relative_error(x, got))
            yield one, wanted, got

    def output_errors(self, walks: Mapping[str, Walk], which: str = "free") -> Any:
        """How far outputs are apart, by name."""
        return {
            name: relative_error(one, two)
            for name, one, two in self.outputs(
                walks["left"].outputs, walks[which].outputs
            )
        }

    def forced_output_error(self, walks: Mapping[str, Walk]) -> float:
        """The same, where each layer was given the left model's input."""
        return float(max(self.output_errors(walks, "forced").values(), default=0.0))

    def output_bound(self, walks: Mapping[str, Walk]) -> float:
        """What rounding may do to outputs."""
        left, control = walks["left"].outputs, walks["control"].outputs
        moved = max((relative_error(left[x], control[x]) for x in left), default=0.0)
        eps = walks["eps"].errors[0, 0, "eps"]
        return max(CONTROLS * (moved if math.isfinite(moved) else 0.0), FLOOR * eps)
