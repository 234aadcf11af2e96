"""Reads which differences a user accepts: `epsilon@norm*`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paripassu.core.errors import UserError

if TYPE_CHECKING:
    from paripassu.port_check.results import Fault

# Every key of a cause; a test finds those that are missing here.
CAUSES = frozenset(
    (
        *("activation-extra", "activation-kind", "activation-missing", "alpha"),
        *("attention-heads", "attention-scale", "axis", "bias-axis", "bias-missing"),
        *("bias-not-copied", "bias-summed", "broadcast", "concat-order", "constant"),
        *("crop", "dilation", "direction", "dropout-at-inference", "dropout-mask"),
        *("dropout-place", "dropout-rate", "embedding-scale", "epsilon"),
        *("flatten-order", "float32-arithmetic", "folded-wrongly", "frozen"),
        *("gate-order", "gelu-form"),
        *(
            "gradients",
            "groups",
            "index-offset",
            "input-scale",
            "inputs-exchanged",
            "interleaving",
        ),
        *("kernel-axes", "kernel-flipped", "kernel-transposed", "last-step"),
        *("layer-extra", "layer-kind", "layer-missing", "layer-order", "mask"),
        *("momentum", "negative-slope", "not-finite", "output-order", "padding"),
        *("pool-kind", "pool-padding", "pool-size", "position"),
        *("random-at-inference", "recurrent-activation", "reset-after"),
        *("residual-extra", "residual-missing", "state-kind", "statistics"),
        *("statistics-not-copied", "stop-gradient", "strides", "unknown"),
        *("upsample-mode", "weight-made", "weight-missing", "weights-differ"),
        *("weights-exchanged", "weights-not-copied", "weights-not-shared"),
        *("weights-scaled", "weights-shape"),
        "regularizers",
    )
)
FORM = "--accept CAUSE@PLACE, as in epsilon@norm or epsilon@encoder.*, or CAUSE alone"


@dataclass(frozen=True)
class Acceptance:
    """What a user accepts.

    Attributes:
        text: as it was typed.
        cause: the key of a cause.
        place: a layer's name in either model, `*` for any letters.
    """

    text: str
    cause: str
    place: str = "*"

    def covers(self, key: str, fault: Fault) -> bool:
        """Whether it accepts this cause at the place of a fault."""
        pattern = re.escape(self.place).replace(r"\*", ".*")
        return key == self.cause and any(
            re.fullmatch(pattern, x) for x in _names(fault)
        )


def parse_acceptance(text: str) -> Acceptance:
    """Read `epsilon@norm*`.

    Raises:
        UserError: it has not that form, or there is no such cause.
    """
    cause, at, place = text.partition("@")
    if not cause or (at and not place):
        raise UserError(f"--accept {text!r} is not understood. Type: {FORM}")
    if cause not in CAUSES:
        near = difflib.get_close_matches(cause, sorted(CAUSES), n=3, cutoff=0.5)
        known = f"Near are: {', '.join(near)}." if near else f"Type: {FORM}"
        raise UserError(f"--accept {text!r}: there is no cause {cause!r}. {known}")
    return Acceptance(text, cause, place or "*")


def _names(fault: Fault) -> Iterator[str]:
    """What a place may be called: whole, or each layer of it."""
    for text in (fault.left, fault.right):
        yield text
        for name in text.split(", "):
            plain = name.removeprefix("after ")
            yield from (name, plain, plain.partition(":")[0])
