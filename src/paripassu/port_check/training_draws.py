"""Whether two models drop alike in training mode, and with which draws to compare them.

Given the same draws, two models agree in training mode where they drop at the same
places at the same rates; that is compared by their outputs. The rest of a step, with
dropout and noise off. What differs is said: another rate or place is a fault; a dropout
that only one model has is a note, as ports made for inference leave it out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from paripassu.core.layer_spec import relative_error
from paripassu.port_check.output_pairs import pair_outputs
from paripassu.port_check.pairing import PairedModels
from paripassu.port_check.randomness import (
    DropoutDifference,
    compare_dropout,
    describe_draws,
    has_unknown_rates,
)
from paripassu.port_check.results import (
    PLACES_SHOWN,
    Cause,
    Findings,
    finite,
    list_some,
)
from paripassu.port_check.tolerance import ALIKE
from paripassu.sides.contract import Draw, Drawing

CLOSED = 0.1  # of the difference: what is left of it was not dropout's
RECURRENT = ("lstm", "gru", "rnn")


class TrainingDraws:
    """What both models draw in training mode; `judge` adds to the findings."""

    def __init__(self, models: PairedModels, findings: Findings):
        self.models, self.findings = models, findings
        self.mode: Drawing = "shared"
        self.errors: dict[Drawing, float] = {}
        self.drawn: tuple[Sequence[Draw], Sequence[Draw]] = ((), ())

    @contextmanager
    def chosen(self) -> Iterator[None]:
        """While both are given draws with which they can be compared."""
        self.errors["shared"] = self._run("shared")
        self.found = compare_dropout(*self.drawn, self.models.left_names)
        if any(self.drawn):
            self.errors["off"] = self._run("off")
            # Not for one that drops by numbers of its own, beside a layer that does.
            if self.errors["off"] <= max(self.errors["shared"], ALIKE):
                self.mode = "off"
        if self.models.left.recorded:
            self.mode = "off"  # as its step was recorded
        with self.models.left.drawing(self.mode), self.models.right.drawing(self.mode):
            yield

    def _run(self, mode: Drawing) -> float:
        """How far outputs are apart in training mode."""
        models, outputs = self.models, []
        draws = []
        for model, inputs in (
            (models.left, models.inputs),
            (models.right, models.right_inputs),
        ):
            with model.drawing(mode):
                outputs.append(model.run(inputs, training=True))
            draws.append(model.probe.draws)
        self.drawn = draws[0], draws[1]
        pairs = pair_outputs(models.outputs, outputs[0], outputs[1])
        return max((relative_error(x, y) for *_, x, y in pairs), default=math.inf)

    @property
    def part(self) -> bool:
        """Whether it is by dropout or noise that the models part."""
        shared, off = self.errors["shared"], self.errors.get("off", math.inf)
        return shared > ALIKE and off < (1.0 if self.found else CLOSED) * shared

    @property
    def told(self) -> str:
        """How they were compared, for readers."""
        if not any(self.drawn):
            return ""
        if self.mode == "shared":
            return "; both were given the same draws"
        same = "" if self.part else ", and on the same draws"
        return f"; with dropout and noise off{same}"

    def judge(self) -> None:
        """Say where they drop otherwise."""
        new = [x for x in self.found if not self._is_told(x)]
        told: list[str] = []
        for one in new:
            cause = one.cause(
                training=True,
                before=self.errors["shared"] if self.part else None,
                after=self.errors["off"] if self.part else None,
            )
            if self._is_fault(one):
                size = self.errors["shared"] if self.part else None
                self.findings.fault("training mode", *one.places, size, cause)
            elif self.part or not has_unknown_rates(*self.drawn):
                told.append(cause.sentence)
        if told:
            text = list_some(told, "; ", PLACES_SHOWN)
            self.findings.notes.append(f"in training mode, {text}")
        if self.part and not self.found:
            self._judge_places()

    def _is_fault(self, one: DropoutDifference) -> bool:
        """Whether it is a slip: both drop there, and not alike."""
        if not one.left or not one.right:
            return False
        if one.is_rate:
            return self.part
        # A recurrent layer's own dropout is the same at each step in Keras, and is not
        # in PyTorch: no setting changes that.
        blocks = (*self.models.left_blocks.values(), *self.models.right_blocks.values())
        recurrent = {x.layer for x in blocks if x.kind in RECURRENT}
        return not {one.left.place, one.right.place} & recurrent

    def _judge_places(self) -> None:
        """They draw alike, and part by it all the same."""
        cause = Cause(
            key="dropout-place",
            sentence="with dropout and noise off both compute the same: one drops at "
            "another place, or adds other noise",
            before=finite(self.errors["shared"]),
            after=finite(self.errors["off"]),
        )
        pairs = list(zip(*self.drawn, strict=False))
        if not pairs:
            which, draws = next(
                (x, y) for x, y in zip(("left", "right"), self.drawn, strict=True) if y
            )
            self.findings.notes.append(
                f"in training mode, only the {which} model draws: "
                f"{describe_draws(draws)}"
            )
            return
        names = self.models.left_names
        moved = [x for x in pairs if x[0].after != names.get(x[1].after, x[1].after)]
        left, right = (x.place for x in (moved or pairs)[0])
        size = self.errors["shared"]
        self.findings.fault("training mode", left, right, size, cause)

    def _is_told(self, found: DropoutDifference) -> bool:
        """Whether it is a fault already, of evaluation mode."""
        faults = self.findings.faults
        places = {x.left for x in faults} | {x.right for x in faults}
        return any(x.place in places for x in (found.left, found.right) if x)
