"""Compares a model with a recording that holds inputs and outputs only."""

from __future__ import annotations

import time

import numpy as np

from paripassu.core import machine
from paripassu.core.errors import UserError
from paripassu.core.layer_spec import relative_error
from paripassu.port_check.examined import ExaminedModel, in_float64
from paripassu.port_check.results import (
    Checked,
    Findings,
    Model,
    describe_error,
)
from paripassu.port_check.runs import Progress, pair_outputs, perturb_one_ulp
from paripassu.port_check.tolerance import CONTROLS, EPS32, EPS64, allow
from paripassu.sides.contract import Arrays
from paripassu.sides.recording import PassName

EPS: dict[PassName, float] = {"float32": EPS32, "float64": EPS64}


class OutputsExamination:
    """A recording of outputs and a right model; `go` gives the result."""

    def __init__(
        self,
        left: ExaminedModel,
        right: ExaminedModel,
        inputs: tuple[Arrays, Arrays],
        progress: Progress,
    ):
        assert left.recorded
        self.left, self.right, self.progress = left, right, progress
        self.recorded = left.recorded
        self.inputs, self.right_inputs = inputs
        self.findings = Findings()

    def go(self) -> Checked:
        """All of it."""
        begin = time.perf_counter()
        findings, found = self.findings, self.recorded.found
        if place := self.right.find_randomness(self.right_inputs, training=False):
            raise UserError(
                f"the right model, {self.right.source}, is random in evaluation mode: "
                f"two runs with the same input part at {place}."
            )
        for number, dtype in enumerate(x for x in EPS if x in found.passes):
            self.progress(f"comparing in {dtype}", 0.2 + 0.4 * number)
            self._compare(dtype)
        for name in ("layers", "weights", "training mode", "gradients"):
            findings.check(name, "not run", f"{self.left.source} holds none")
        findings.notes.append(
            f"{self.left.source} holds inputs and outputs only: those were compared"
        )
        self.progress("done", 1.0)
        return Checked(
            equal=not findings.faults,
            left=Model(
                source=self.left.source,
                framework=found.framework,
                kind=self.left.kind,
                parameters=0,
                layers=0,
                versions=found.versions,
            ),
            right=self.right.describe(self.right.probe.blocks()),
            inputs={k: f"{x.dtype} {x.shape}" for k, x in self.inputs.items()},
            copied=None,
            pairs=(),
            places=(),
            checks=tuple(findings.checks),
            faults=tuple(findings.faults),
            notes=tuple(findings.notes),
            seconds=time.perf_counter() - begin,
            peak_memory_mib=machine.peak_memory_bytes() / 2**20,
        )

    def _compare(self, dtype: PassName) -> None:
        """Compare the outputs in one float type."""
        inputs, eps = self.right_inputs, EPS[dtype]
        name = f"forward, {dtype}"
        if dtype == "float64":
            try:
                self.right.probe.set_dtype(dtype)
            except UserError as refused:
                self.findings.check(name, "not run", f"right: {refused}")
                return
            inputs = in_float64(inputs)
        one = self.recorded.found.passes[dtype]
        left = self.recorded.model.read_all(f"{dtype}/outputs", one.outputs)
        right = self.right.run(inputs)
        if one.control:
            base = left
            moved = self.recorded.model.read_all(f"{dtype}/control", one.outputs)
        else:
            random = np.random.Generator(np.random.Philox(7))
            base = right
            moved = self.right.run(
                {k: perturb_one_ulp(x, random) for k, x in inputs.items()}
            )
        control = max(relative_error(x, moved[k]) for k, x in base.items())
        bound, worst = allow(control, eps), 0.0
        for output, wanted, got in pair_outputs(left, right):
            error = relative_error(wanted, got)
            worst = max(worst, error)
            if error > bound:
                jump = error / bound
                self.findings.fault(
                    name, output, output, error, None, eps=eps, jump=jump
                )
        of = "the recording" if one.control else "the right model"
        self.findings.check(
            name,
            "holds" if worst <= bound else "fails",
            f"outputs {describe_error(worst, eps)}; one-ulp control of {of} "
            f"{describe_error(bound / CONTROLS, eps)}",
        )
