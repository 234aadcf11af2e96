"""What a probe tells of a layer at work, for the tests of sides and reference."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Kept:
    """A watcher that keeps all calls."""

    calls: list = field(default_factory=list)
    entered: dict = field(default_factory=dict)

    def enter(self, call, inputs):
        self.entered[call.serial] = [np.array(x) for x in inputs]

    def leave(self, call, outputs):
        self.calls.append((call, self.entered[call.serial], np.array(outputs[0])))


def last_call(probe, x):
    """Of a run in float64: the last call, its inputs and its first output."""
    probe.set_dtype("float64")
    kept = Kept()
    probe.run({"input": x}, kept)
    return kept.calls[-1]
