"""Seeded faults in the toy's own words: see `paripassu.frameworks.faults`."""

from __future__ import annotations

from collections.abc import Callable

from paripassu.core.steps import Arrays
from paripassu_toy.twin import Twin


def _optimizer_reset(twin: Twin) -> None:
    def without_slots(state: Arrays) -> Arrays:
        return {n: x for n, x in state.items() if n.startswith("weight.")}

    twin.spoil = without_slots


def _weight_decay(twin: Twin) -> None:
    def shrunk(state: Arrays) -> Arrays:
        return {
            n: x * 0.999 if n.startswith("weight.") else x for n, x in state.items()
        }

    twin.spoil = shrunk


NATIVE: dict[str, Callable[[Twin], None]] = {
    "optimizer-reset": _optimizer_reset,
    "weight-decay": _weight_decay,
}
