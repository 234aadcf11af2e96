"""The bounds of the proof, each with its reason: one table.

Differences are relative to the largest value of the array, `max|a - b| / max|a|`, so
that one bound serves arrays of any scale and no element is excused by a mean.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """The largest difference that rounding explains."""

    size: float
    reason: str


FLOAT64 = {
    "logits": Bound(1e-12, "sums of up to 9,216 products, eps 2.2e-16"),
    "loss": Bound(1e-12, "a mean of such logits"),
    "activation": Bound(1e-12, "sums of up to 9,216 products, eps 2.2e-16"),
    "gradient": Bound(1e-10, "sums over images and pixels, with cancellation"),
    "weight": Bound(1e-10, "one step of the optimizer on such gradients"),
}
