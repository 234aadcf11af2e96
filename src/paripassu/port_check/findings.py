"""What an examination has found: checks, faults and notes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from paripassu.port_check.results import Cause, Check, Fault, State

EPS64, EPS32 = float(np.finfo(np.float64).eps), float(np.finfo(np.float32).eps)
LATER = ("training mode", "statistics", "gradients")  # phases


class Findings:
    """Checks, faults and notes, as they come.

    Attributes:
        order: of the left model's layers, as they are called.
    """

    def __init__(self) -> None:
        self.order: Mapping[str, int] = {}
        self.notes: list[str] = []
        self.found: list[tuple[float, Fault]] = []
        self.checks: list[Check] = []

    def check(self, name: str, state: State, detail: str) -> None:
        """Add a check."""
        self.checks.append(Check(name=name, state=state, detail=detail))

    def fault(
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
        """Add a fault; `at`: where the left model computes it, if not at `left`."""
        known = finite(size)
        jump = finite(jump)
        if at is None:
            at = self.order.get(left.partition(", ")[0], math.inf)
        fault = (
            at,
            Fault(
                phase=phase,
                left=left,
                right=right,
                size=known,
                eps=known / eps if known is not None else None,
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


def finite(value: float | None) -> float | None:
    """A number that JSON can hold, or None."""
    return value if value is not None and math.isfinite(value) else None


def said(error: float, eps: float) -> str:
    """An error in words: relative, and in eps."""
    if not math.isfinite(error):
        return "of other shapes, or not finite"
    return f"{error:.1e} apart ({error / eps:.3g} eps)"
