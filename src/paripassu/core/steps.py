"""What a proof feeds to every twin, and what it gets back: NumPy arrays by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]
Given = Mapping[str, npt.NDArray[Any]]  # to read only
# Where a step of a proof may start, beside the initial weights: see `worker.starts`.
STARTS = ("moved", "amplified")


@dataclass(frozen=True)
class TwinStep:
    """What a twin is given for one training step."""

    images: npt.NDArray[np.float32]  # (N, h, w, c), normalised
    labels: npt.NDArray[np.int64]  # (N,)
    masks: Mapping[str, npt.NDArray[np.bool_]]  # dropout layer -> what it keeps
