"""From logits to probabilities, for those who read what a framework has answered."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def softmax(logits: npt.NDArray[Any], axis: int = 1) -> npt.NDArray[np.float64]:
    """Shares that add up to 1 along `axis`, computed in float64.

    Args:
        logits: of any shape and float type, or logarithms of probabilities.
        axis: that of the classes.
    """
    exact = logits.astype(np.float64)
    exponentials = np.exp(exact - exact.max(axis=axis, keepdims=True))
    shares: npt.NDArray[np.float64] = exponentials / exponentials.sum(
        axis=axis, keepdims=True
    )
    return shares
