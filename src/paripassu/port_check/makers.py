"""Which outputs of a model are images or signals: by what made them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paripassu.core.layer_spec import Array
from paripassu.core.layout import hash_arrays
from paripassu.port_check.causes import ACTIVATIONS
from paripassu.sides.contract import Arrays, Blind, Call

# Layers that work on space, whose channels are at one axis or the other.
SPATIAL = {
    *("conv", "conv_transpose", "batch_norm", "group_norm", "max_pool"),
    *("average_pool", "upsample", "pad", "crop", "subsample"),
}
# What they are followed by, without a change of axes.
ELEMENTWISE = {
    *(*ACTIVATIONS, "add", "subtract", "multiply", "scale", "dropout", "cast"),
    *("identity", "concatenate"),
}


class Makers(Blind):
    """Which call made which array, and of what kind the calls are.

    The run must ask for sources.
    """

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}
        self.made: dict[bytes, int] = {}

    def enter(self, call: Call, inputs: Sequence[Array]) -> None:
        """Note the call."""
        del inputs
        self.calls[call.serial] = call

    def leave(self, call: Call, outputs: Sequence[Array]) -> None:
        """Note what it made, with channels last and first."""
        for array in outputs[:1]:
            self.made[_digest(array)] = call.serial
            if array.ndim > 2:
                self.made[_digest(np.moveaxis(array, -1, 1))] = call.serial

    def is_spatial(self, array: Array) -> bool | None:
        """Whether layers that work on space made it; None: unknown."""
        serial = self.made.get(_digest(array))
        while serial is not None and serial in self.calls:
            call = self.calls[serial]
            if call.kind in SPATIAL:
                return True
            if call.kind not in ELEMENTWISE:
                return False
            serial = call.sources[0] if call.sources else None
        return None

    def spatial(self, outputs: Arrays, moved: set[int]) -> frozenset[str]:
        """The names of the outputs of the run that are images or signals.

        Args:
            outputs: by name.
            moved: how many axes those of its inputs have whose channels are elsewhere
                in the other model. What is not known to be made otherwise is taken for
                spatial if it has as many.
        """
        found = {name: self.is_spatial(x) for name, x in outputs.items()}
        return frozenset(
            name
            for name, known in found.items()
            if known or (known is None and outputs[name].ndim in moved)
        )


def _digest(array: Array) -> bytes:
    shape = str(array.shape).encode()
    return shape + bytes(hash_arrays([np.ascontiguousarray(array)]))
