"""Compares a model with a recording that holds inputs and outputs only."""

from __future__ import annotations

import numpy as np

from paripassu.core import machine
from paripassu.core.errors import UserError
from paripassu.core.layer_spec import relative_error
from paripassu.port_check.examined import ExaminedModel, in_float64
from paripassu.port_check.output_pairs import Outputs, Paired, pair_outputs
from paripassu.port_check.randomness import compare_inference
from paripassu.port_check.results import (
    Checked,
    Findings,
    describe_error,
)
from paripassu.port_check.runs import Progress, perturb_one_ulp
from paripassu.port_check.tolerance import CONTROLS, EPS32, EPS64, FLOOR, allow
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
        paired: Paired,
    ):
        assert left.recorded
        self.left, self.right, self.progress = left, right, progress
        self.recorded = left.recorded
        self.inputs, self.right_inputs = inputs
        self.findings, self.paired = Findings(), paired
        paired.tell(self.findings)

    def go(self) -> Checked:
        """All of it."""
        findings, found = self.findings, self.recorded.found
        random = self.right.find_randomness(self.right_inputs, training=False)
        drawn, _ = self.recorded.randomness(training=False)
        for places, cause in compare_inference(drawn, random.draws, {}):
            findings.fault("forward", *places, None, cause)
        if random.unshared:
            findings.not_compared.append(
                "outputs: the right model is random in evaluation mode, at "
                f"{random.unshared}. Draw the numbers outside: give them as an input"
            )
        passes = [x for x in EPS if x in found.passes and not random.unshared]
        for number, dtype in enumerate(passes):
            self.progress(f"comparing in {dtype}", 0.2 + 0.4 * number)
            self._compare(dtype)
        for name in ("layers", "weights", "training mode", "gradients"):
            findings.check(name, "not run", f"{self.left.source} holds none")
        findings.notes.append(
            f"{self.left.source} holds inputs and outputs only: those were compared"
        )
        self.progress("done", 1.0)
        findings.not_asked.append("what the recording does not hold")
        return conclude(self.left, self.right, self.inputs, findings, self.paired)

    def _compare(self, dtype: PassName) -> None:
        """Compare the outputs in one float type."""
        inputs = self.right_inputs
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
        of = "the recording" if one.control else "the right model"
        plan = self.paired.outputs
        check_outputs(self.findings, dtype, plan, (left, right), (base, moved, of))


def check_outputs(
    findings: Findings,
    dtype: PassName,
    plan: Outputs,
    outputs: tuple[Arrays, Arrays],
    control: tuple[Arrays, Arrays, str],
) -> None:
    """Compare outputs by name.

    Args:
        findings: to add to.
        dtype: of the pass.
        plan: which of them are compared.
        outputs: of both models.
        control: outputs of one of them, without and with its inputs moved by one ulp,
            and whose they are; none where nobody has measured it.
    """
    eps, name = EPS[dtype], f"forward, {dtype}"
    findings.compared.append(f"outputs in evaluation mode, in {dtype}")
    base, moved, of = control
    ulp = max((relative_error(x, moved[k]) for k, x in base.items()), default=0.0)
    bound, worst = allow(ulp, eps), 0.0
    for output, other, wanted, got in pair_outputs(plan, *outputs):
        error = relative_error(wanted, got)
        worst = max(worst, error)
        if error > bound:
            findings.fault(
                name, output, other, error, None, eps=eps, jump=error / bound
            )
    measured = f"one-ulp control of {of} {describe_error(bound / CONTROLS, eps)}"
    findings.check(
        name,
        "holds" if worst <= bound else "fails",
        f"outputs {describe_error(worst, eps)}; "
        + (measured if base else f"no one-ulp control, so {FLOOR} eps are rounding"),
    )


def conclude(
    left: ExaminedModel,
    right: ExaminedModel,
    inputs: Arrays,
    findings: Findings,
    paired: Paired,
) -> Checked:
    """The result, where no layer of the two was paired."""
    return Checked(
        verdict=findings.verdict,
        left=left.describe(left.probe.blocks()),
        right=right.describe(right.probe.blocks()),
        inputs={k: f"{x.dtype} {x.shape}" for k, x in inputs.items()},
        input_pairs=paired.inputs,
        output_pairs=paired.outputs.partners,
        copied=None,
        pairs=(),
        places=(),
        checks=tuple(findings.checks),
        faults=tuple(findings.faults),
        notes=tuple(findings.notes),
        compared=tuple(findings.compared),
        not_compared=tuple(findings.not_compared),
        not_asked=tuple(findings.not_asked),
        peak_memory_mib=machine.peak_memory_bytes() / 2**20,
    )
