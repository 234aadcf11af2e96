"""Compares two recordings: what both hold, without either model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from paripassu.core.errors import UserError
from paripassu.core.layer_spec import Array, relative_error
from paripassu.port_check.align import channel_orders
from paripassu.port_check.examined import ExaminedModel
from paripassu.port_check.output_pairs import (
    Paired,
    describe_partners,
    find_outputs,
)
from paripassu.port_check.outputs import EPS, check_outputs, conclude
from paripassu.port_check.results import (
    Checked,
    Findings,
    State,
    describe_error,
    list_some,
)
from paripassu.port_check.runs import Progress
from paripassu.port_check.tolerance import EPS64, STATISTICS, WEIGHT, allow
from paripassu.sides import registry
from paripassu.sides.contract import Arrays
from paripassu.sides.recorded import RecordedProbe
from paripassu.sides.recording import CallRecord, PassName


class RecordingsExamination:
    """Two recordings; `go` gives the result."""

    def __init__(self, left: ExaminedModel, right: ExaminedModel, progress: Progress):
        assert left.recorded
        assert right.recorded
        self.left, self.right, self.progress = left, right, progress
        self.probes: tuple[RecordedProbe, RecordedProbe]
        self.probes = left.recorded, right.recorded
        self.recordings = self.probes[0].model, self.probes[1].model
        self.findings = Findings()
        sides = [x.found.framework for x in self.probes]
        first = [x in registry.CHANNELS_FIRST for x in sides]
        self.move = None if first[0] == first[1] else (1, -1) if first[0] else (-1, 1)

    def go(self) -> Checked:
        """All of it.

        Raises:
            UserError: the inputs are not the same, or no pass is in both.
        """
        self._check_inputs()
        left, right = (x.found for x in self.probes)
        shared: list[PassName] = [
            x for x in EPS if x in left.passes and x in right.passes
        ]
        if not shared:
            raise UserError(
                f"{self.left.source} holds passes in {', '.join(left.passes)}, "
                f"{self.right.source} in {', '.join(right.passes)}: none is in both."
            )
        self._compare_weights()
        for number, dtype in enumerate(shared):
            self.progress(f"comparing in {dtype}", 0.2 + 0.3 * number)
            self._compare_outputs(dtype)
        self._compare_calls(shared[-1])
        self._compare_step()
        self.findings.notes.append("two recordings: what both hold was compared")
        self.progress("done", 1.0)
        inputs = self.recordings[0].inputs
        self.findings.not_asked.append("what the recording does not hold")
        return conclude(self.left, self.right, inputs, self.findings, self.paired)

    def _check_inputs(self) -> None:
        left, right = (x.inputs for x in self.recordings)
        for name, one, two in _by_name(left, right):
            if _apart(one, two):
                raise UserError(
                    f"{self.left.source} and {self.right.source} were recorded with "
                    f"other inputs ({name}). Write them to a file, numpy.savez("
                    "'inputs.npz', ...), and record both with --inputs inputs.npz."
                )
        if len(left) != len(right):
            raise UserError(
                f"{self.left.source} has the inputs {', '.join(left)}, "
                f"{self.right.source} {', '.join(right)}. The same are expected."
            )

    def _compare_weights(self) -> None:
        first, second = (
            {
                f"{block.name}/{x}": f"weights/{block.name}/{x}"
                for block in probe.found.blocks
                for x in block.weights
            }
            for probe in self.probes
        )
        both = [x for x in first if x in second]
        if not both:
            text = "the recordings have no weight of the same name"
            self.findings.check("weights", "not run", text)
            return
        bad = []
        for name in both:
            one, two = (x.read(first[name]) for x in self.recordings)
            error = relative_error(one, two)
            if error > WEIGHT:
                bad.append(name)
                block = name.rpartition("/")[0]
                self.findings.fault("weights", block, block, error, None)
        alone = sorted({*first, *second} - set(both))
        more = f"; only in one: {list_some(alone)}" if alone else ""
        self.findings.check(
            "weights",
            "fails" if bad else "holds",
            f"{len(bad)} of {len(both)} differ: {list_some(bad)}{more}"
            if bad
            else f"{len(both)} of {len(both)} equal{more}",
        )

    def _compare_outputs(self, dtype: PassName) -> None:
        left, right = (
            x.read_all(f"{dtype}/outputs", x.description.passes[dtype].outputs)
            for x in self.recordings
        )
        plan = find_outputs(left, right, move=self.move, spatial=frozenset(left))
        self.paired = Paired((), plan, ())
        self.findings.notes += describe_partners(plan)
        for probe, base, of in zip(
            self.probes, (left, right), ("left", "right"), strict=True
        ):
            one = probe.found.passes[dtype]
            if one.control:
                moved = probe.model.read_all(f"{dtype}/control", one.outputs)
                control = base, moved, of
                check_outputs(self.findings, dtype, plan, (left, right), control)
                return
        none: tuple[Arrays, Arrays, str] = ({}, {}, "neither")
        check_outputs(self.findings, dtype, plan, (left, right), none)

    def _compare_calls(self, dtype: PassName) -> None:
        """Find the first call that parts, of those that are alike in kind and order."""
        calls = [
            [x for x in probe.found.passes[dtype].calls if x.outputs]
            for probe in self.probes
        ]
        pairs = list(_align(*calls))
        if not pairs:
            text = "the recordings have no layer of the same kind"
            self.findings.check("layers at work", "not run", text)
            return
        for number, (left, right) in enumerate(pairs):
            one, two = (
                x.read(call.outputs[0])
                for x, call in zip(self.recordings, (left, right), strict=True)
            )
            moved = left.control[1] if left.control else None
            error, bound = _apart(one, two), allow(moved or 0.0, EPS[dtype])
            if error <= bound:
                continue
            line = f" ({left.line} | {right.line})" if left.line or right.line else ""
            text = f"the first that parts is {left.name} | {right.name}{line}, "
            text += f"{number + 1} of {len(pairs)}: {describe_error(error, EPS[dtype])}"
            self.findings.check("layers at work", "fails", text)
            names = left.name, right.name
            jump, eps = error / bound, EPS[dtype]
            source = left.line, right.line
            self.findings.fault(
                "forward", *names, error, None, eps=eps, jump=jump, source=source
            )
            return
        alone = sum(map(len, calls)) - 2 * len(pairs)
        more = f"; {alone} that only one has" if alone else ""
        text = f"{len(pairs)} compute the same in {dtype}{more}"
        self.findings.check("layers at work", "holds", text)

    def _compare_step(self) -> None:
        left, right = (x.found.step for x in self.probes)
        if left is None or right is None:
            self.findings.check("gradients", "not run", "only in one, or in none")
            return
        one, two = (x.cotangents() for x in self.probes)
        if any(_apart(a, b) for _, a, b in _by_name(one, two)):
            text = "they were recorded for other cotangents"
            self.findings.check("gradients", "not run", text)
            return
        bad, total, worst = [], 0, 0.0
        for block, moved in left.gradients.items():
            for name, ulp in moved.items():
                if name not in right.gradients.get(block, {}):
                    continue
                total += 1
                array = f"step/gradients/{block}/{name}"
                error = relative_error(*(x.read(array) for x in self.recordings))
                if error > allow(ulp or 0.0, EPS64):
                    bad.append(f"{block}/{name}")
                    if not self.findings.faults:
                        self.findings.fault("gradients", block, block, error, None)
                else:
                    worst = max(worst, error)
        self.findings.check(
            "gradients, float64",
            "fails" if bad else "holds" if total else "not run",
            f"{len(bad)} of {total} part: {list_some(bad)}"
            if bad
            else f"{total} of {total} equal, at most {describe_error(worst, EPS64)}",
        )
        apart = [
            block
            for block, names in left.statistics.items()
            for name in names
            if name in right.statistics.get(block, ())
            and relative_error(
                *(x.read(f"step/statistics/{block}/{name}") for x in self.recordings)
            )
            > STATISTICS
        ]
        if left.statistics and right.statistics:
            text = (
                f"after one step: {list_some(apart)} part"
                if apart
                else "after one step"
            )
            state: State = "fails" if apart else "holds"
            self.findings.check("BatchNorm statistics", state, text)
            for block in dict.fromkeys(apart):
                self.findings.fault("statistics", block, block, None, None)


def _by_name(left: Arrays, right: Arrays) -> Iterator[tuple[str, Array, Array]]:
    """Pairs by name where both have the same names, else in order."""
    names = list(left) if set(left) == set(right) else list(right)
    for name, other in zip(left, names, strict=False):
        yield name, left[name], right[other]


def _apart(left: Array, right: Array) -> float:
    """How far arrays are apart, wherever their channels are."""
    return min(relative_error(x, right) for x in channel_orders(left))


def _align(
    left: Sequence[CallRecord], right: Sequence[CallRecord]
) -> Iterator[tuple[CallRecord, CallRecord]]:
    """Calls of the same kinds in the same order."""
    kinds, others = ([x.kind for x in calls] for calls in (left, right))
    matcher = SequenceMatcher(None, kinds, others, autojunk=False)
    for begin, other, size in matcher.get_matching_blocks():
        yield from zip(
            left[begin : begin + size], right[other : other + size], strict=True
        )
