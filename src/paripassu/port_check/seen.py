"""A call of a run, with its arrays."""

from __future__ import annotations

from dataclasses import dataclass

from paripassu.core.layer_spec import Array
from paripassu.sides.contract import Call


@dataclass(frozen=True)
class Seen:
    """A call and its arrays.

    Attributes:
        constant: whether its output does not hang on the model's inputs.
        constants: what it is given that does not.
        varying: those inputs that do, or of which it is not known.
    """

    call: Call
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    constant: bool = False
    constants: tuple[Array, ...] = ()
    varying: tuple[Array, ...] = ()
