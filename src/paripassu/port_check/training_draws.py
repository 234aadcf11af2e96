"""Whether two models drop alike in training mode, and whether they part by that."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from paripassu.core.layer_spec import relative_error
from paripassu.port_check.examined import ExaminedModel
from paripassu.port_check.output_pairs import pair_outputs
from paripassu.port_check.pairing import PairedModels
from paripassu.port_check.randomness import (
    DropoutDifference,
    compare_dropout,
    has_unknown_rates,
)
from paripassu.port_check.results import Cause, Findings, finite
from paripassu.sides.contract import Draw

Explain = Callable[[float, Cause | None], None]


class TrainingDraws:
    """What both models drew in the training step; `judge` adds to the findings."""

    def __init__(self, models: PairedModels, findings: Findings):
        self.models, self.findings = models, findings
        self.drawn: dict[str, Sequence[Draw]] = {"left": (), "right": ()}

    def take(self, model: ExaminedModel) -> None:
        """Keep what a model drew in its last step."""
        self.drawn[model.which] = model.probe.draws

    @property
    def any(self) -> bool:
        """Whether either drew anything."""
        return any(self.drawn.values())

    def judge(self, worst: float, bound: float, explain: Explain) -> bool:
        """Compare where they drop, and see what is left with dropout off.

        Args:
            worst: how far the outputs are apart in training mode.
            bound: what rounding may do to them.
            explain: finds a cause for an error, or the place of one that is known.

        Returns:
            Whether the difference is explained.
        """
        left, right = self.drawn["left"], self.drawn["right"]
        found = compare_dropout(left, right, self.models.left_names)
        new = [x for x in found if not self._is_told(x)]
        if worst <= bound:
            self._judge_alike(new)
            return False
        if not self.any:
            return False
        after = self._run_without_dropout()
        closed = after <= bound
        known = bool(self.findings.faults)
        for one in new:
            cause = one.cause(
                training=True, before=worst, after=after if closed else None
            )
            self.findings.fault("training mode", *one.places, worst, cause)
        if closed and not found:
            explain(worst, _elsewhere(worst, after))
        elif not closed and not known and found and math.isfinite(after):
            with self._dropout_off():
                explain(after, None)
        return closed or bool(found)

    def _judge_alike(self, found: Sequence[DropoutDifference]) -> None:
        """Differences that no output shows."""
        for one in found:
            cause = one.cause(training=True, before=None, after=None)
            if not one.is_rate:
                self.findings.fault("training mode", *one.places, None, cause)
            elif not has_unknown_rates(*self.drawn.values()):
                # Split or fused, perhaps.
                self.findings.notes.append(
                    f"{cause.sentence}. With all kept, both compute the same"
                )

    def _is_told(self, found: DropoutDifference) -> bool:
        """Whether it is a fault already, of evaluation mode."""
        places = {
            x for fault in self.findings.faults for x in (fault.left, fault.right)
        }
        return any(x.place in places for x in (found.left, found.right) if x)

    def _run_without_dropout(self) -> float:
        """How far outputs are apart in training mode, dropout and noise off."""
        with self._dropout_off():
            left = self.models.left.run(self.models.inputs, training=True)
            right = self.models.right.run(self.models.right_inputs, training=True)
        plan = self.models.outputs
        errors = (relative_error(x, y) for *_, x, y in pair_outputs(plan, left, right))
        return max(errors, default=math.inf)

    @contextmanager
    def _dropout_off(self) -> Iterator[None]:
        with self.models.left.drawing("off"), self.models.right.drawing("off"):
            yield


def _elsewhere(before: float, after: float) -> Cause:
    return Cause(
        key="dropout-place",
        sentence="with dropout and noise off both compute the same: one drops at "
        "another place, or adds other noise",
        before=finite(before),
        after=finite(after),
    )
