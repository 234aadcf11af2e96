"""Walks two traces of twins and holds their differences against the bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.analysis.schema import ProofRow
from paripassu.analysis.tolerance import FLOAT64

Trace = Mapping[str, npt.NDArray[Any]]


def difference(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> float:
    """`max|left - right| / max|left|`; 0 for equal arrays, infinite for NaN or shapes.

    Shapes are never made to agree: a transposed array is a different array.
    """
    if left.shape != right.shape:
        return float("inf")
    gap = float(np.max(np.abs(left - right), initial=0.0))
    if gap == 0:
        return 0.0
    size = float(np.max(np.abs(left)))
    return gap / size if np.isfinite(gap) and size > 0 else float("inf")


def compare_traces(left: str, right: str, a: Trace, b: Trace) -> list[ProofRow]:
    """One row for each quantity: its largest difference over all steps.

    Args:
        left: the name of the framework that made `a`.
        right: the name of the framework that made `b`.
        a: arrays as `paripassu.frameworks.Framework.trace` names them.
        b: the same of the other framework.
    """
    largest: dict[str, float] = {}
    for name in a.keys() | b.keys():
        quantity = _quantity(name)
        gap = difference(a[name], b[name]) if name in a and name in b else float("inf")
        largest[quantity] = max(gap, largest.get(quantity, 0.0))
    rows = []
    for quantity in sorted(largest, key=_order):
        bound = FLOAT64[quantity.split()[0]].size
        rows.append(
            ProofRow(
                left=left,
                right=right,
                quantity=quantity,
                difference=min(largest[quantity], 1e300),
                bound=bound,
                holds=largest[quantity] <= bound,
            )
        )
    return rows


def _quantity(name: str) -> str:
    """`"3.gradient.conv1.kernel"` -> `"gradient conv1.kernel"`."""
    if name == "logits":
        return name
    _step, kind, *rest = name.split(".")
    return " ".join([kind, ".".join(rest)]).strip()


def _order(quantity: str) -> tuple[int, str]:
    return list(FLOAT64).index(quantity.split(maxsplit=1)[0]), quantity
