"""Compares two models, layer by layer, in one process: what `paripassu check` does."""

from __future__ import annotations

import time
from collections.abc import Mapping

from paripassu.core import machine
from paripassu.core.errors import UserError
from paripassu.core.layer_spec import relative_error
from paripassu.port_check.explain import Explainer
from paripassu.port_check.findings import EPS32, EPS64, Findings, said
from paripassu.port_check.groups import Store
from paripassu.port_check.mapping import Models
from paripassu.port_check.results import Cause, Checked, Model, State
from paripassu.port_check.sides import Side, Wishes, doubled
from paripassu.port_check.structure import Structure
from paripassu.port_check.training import Training
from paripassu.port_check.walks import CONTROLS, ROUNDED, Progress, Walk, Walker
from paripassu.port_check.watchers import Nothing
from paripassu.sides.contract import Arrays, Block

ANEW = 1e-2  # a model in float64 and in float32 are closer, were it chaotic not


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
        self.left, self.right, self.given = left, right, inputs
        self.wishes, self.progress = wishes, progress
        self.findings = Findings()

    def go(self) -> Checked:
        """All of it."""
        begin = time.perf_counter()
        self.progress("finding the layers", 0.05)
        self.models = Models(self.left, self.right, self.given, self.wishes.given)
        self.findings.order = self.models.left_order
        self.structure = Structure(self.models, self.findings)
        self.walker = Walker(self.models, self.progress)
        self.structure.layers()
        self._deterministic()
        store = Store()
        try:
            self.walker.align(store)
            if self.wishes.copy:
                self.models.copy(self.wishes.copy)
            self.structure.weights()
            places32 = self.walker.walks(store, EPS32, "float32", 0.2)
            if self._double():
                self.structure.weights(again=True)
                places = self.walker.walks(store, EPS64, "float64", 0.4)
                self._judge(places, places32)
                if self.wishes.gradients and self.random_layers:
                    what = "a model is random in it"
                    self.findings.check("training mode", "not run", what)
                elif self.wishes.gradients:
                    Training(self.models, self.findings, self.walker).go()
            else:
                places = places32
                self._judge(places, {})
        finally:
            store.close()
        if self.findings.faults:
            self.structure.doubts()
        self.progress("done", 1.0)
        return Checked(
            equal=not self.findings.faults
            and all(x.state != "fails" for x in self.findings.checks),
            left=self._model(self.left, self.models.left_blocks),
            right=self._model(self.right, self.models.right_blocks),
            inputs={k: f"{x.dtype} {x.shape}" for k, x in self.models.inputs.items()},
            copied=self.wishes.copy,
            pairs=tuple(self.structure.pairings),
            places=tuple(self.walker.places(places, places32)),
            checks=tuple(self.findings.checks),
            faults=tuple(self.findings.faults),
            notes=tuple(dict.fromkeys(self.findings.notes)),
            seconds=time.perf_counter() - begin,
            peak_memory_mib=machine.peak_memory_bytes() / 2**20,
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
            framework=side.probe.side,
            kind=type(side.probe.model).__name__,
            parameters=count,
            layers=len(blocks),
            versions=dict(side.versions),
        )

    def _double(self) -> bool:
        for label, side, inputs in (
            ("left", self.left, self.models.inputs),
            ("right", self.right, self.models.right_inputs),
        ):
            try:
                before = side.run(inputs, Nothing())
                side.probe.set_dtype("float64")
                after = side.run(doubled(inputs), Nothing())
                if any(relative_error(before[x], after[x]) > ANEW for x in before):
                    # Keras's own get_config of a subclassed model leaves out arguments.
                    raise UserError(
                        "made anew from its configuration, it computes something else. "
                        "Give a function that builds it."
                    )
            except UserError as error:
                self.findings.notes.append(
                    f"no float64: {label}: {error} What follows is judged in float32, "
                    "where small differences of constants cannot be told from rounding."
                )
                self.findings.check(
                    "float64", "not run", f"the {label} model stays in float32"
                )
                if side is self.right:
                    self.left.probe.set_dtype("float32")
                return False
        self.models.inputs = doubled(self.models.inputs)
        self.models.right_inputs = doubled(self.models.right_inputs)
        self.models.reread()
        self.models.smooth()
        return True

    def _deterministic(self) -> None:
        """Whether two runs are the same bits; random networks cannot be compared.

        Raises:
            UserError: a model is random in evaluation mode.
        """
        found = {}
        for side, inputs in (
            (self.left, self.models.inputs),
            (self.right, self.models.right_inputs),
        ):
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
            self.findings.check("determinism", "note", text)
        else:
            text = "two runs are the same bits, dropout off"
            self.findings.check("determinism", "holds", text)

    def _judge(self, walks: dict[str, Walk], single: Mapping[str, Walk]) -> None:
        self.progress("looking for causes", 0.6)
        eps = walks["eps"].errors[0, 0, "eps"]
        name = "float64" if eps == EPS64 else "float32"
        found = self.walker.output_errors(walks)
        worst = max(found.values(), default=0.0)
        bound = self.walker.output_bound(walks)
        faulty = [
            key
            for key, error in walks["forced"].errors.items()
            if error > self.walker.bound(walks, key)
        ]
        rounded = [
            key
            for key in faulty
            if eps == EPS64 and walks["forced"].errors[key] <= ROUNDED
        ]
        faulty = [key for key in faulty if key not in rounded]
        output_parts = self.walker.forced_output_error(walks) > max(
            bound, ROUNDED if eps == EPS64 else 0.0
        )
        if rounded:
            places = ", ".join(
                dict.fromkeys(
                    ", ".join(self.models.groups[g].right) for g, _, _ in rounded
                )
            )
            self.findings.notes.append(
                f"at {places}, one of the models computes something in float32 even in "
                f"float64 (errors up to {ROUNDED:.0e}); that is rounding, not a fault"
            )
        if faulty or output_parts or self.models.unequal:
            Explainer(self.models, self.findings, self.walker).explain(walks)
        limit = max(bound, ROUNDED if rounded else 0.0)
        state: State = "holds" if worst <= limit and not faulty else "fails"
        self.findings.check(
            f"forward, {name}",
            state,
            f"outputs {said(worst, eps)}; "
            f"one-ulp control {said(bound / CONTROLS, eps)}",
        )
        if single and single is not walks:
            self._single(single, state)

    def _single(self, walks: Mapping[str, Walk], state: State) -> None:
        """In float32, against float32's own control."""
        worst = max(self.walker.output_errors(walks).values(), default=0.0)
        bound = self.walker.output_bound(walks)
        good = worst <= bound
        detail = f"outputs {said(worst, EPS32)}; one-ulp control "
        detail += said(bound / CONTROLS, EPS32)
        self.findings.check("forward, float32", "holds" if good else "fails", detail)
        if good or state == "fails":
            return
        first = next(
            (
                key
                for key, error in walks["forced"].errors.items()
                if error > self.walker.bound(walks, key)
            ),
            None,
        )
        group = self.models.groups[first[0]] if first else None
        cause = Cause(
            key="float32-arithmetic",
            sentence="in float64 both compute the same; in float32 one of them rounds "
            "far more than it need: fewer digits inside (TF32, bfloat16), or a formula "
            "that cancels",
        )
        self.findings.fault(
            "forward, float32",
            ", ".join(group.left) if group else "output",
            ", ".join(group.right) if group else "output",
            worst,
            cause,
            eps=EPS32,
        )
