"""What a check finds: the record, as JSON and as an object, and how it is gathered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from paripassu.port_check.tolerance import EPS64

State = Literal["holds", "fails", "note", "not run"]


class Frozen(BaseModel):
    """A record that stays as it is."""

    model_config = ConfigDict(frozen=True)


class Model(Frozen):
    """One of the two models."""

    source: str
    framework: str
    kind: str
    parameters: int
    layers: int
    versions: dict[str, str]


class Weight(Frozen):
    """A weight of a pair, and the largest difference over the largest value."""

    name: str
    shape: tuple[int, ...]
    state: Literal["equal", "differs", "only left", "only right", "other shape"]
    relative_error: float | None = None


class Pairing(Frozen):
    """Two blocks of weights that are taken to be the same."""

    left: str | None
    right: str | None
    kind: str
    why: str
    doubt: str
    weights: tuple[Weight, ...]


class Place(Frozen):
    """A pair of layers at work; errors are relative to the largest value, None: none.

    Attributes:
        entering: of its inputs, where each layer before had been given the left's.
        own: of its outputs, given the left's inputs.
        total: of its outputs as the models run, inherited errors included.
        control: of the left's own outputs, its inputs moved by one unit in the last
            place; a total of this size is rounding.
        bound: what `own` may be.
    """

    left: str
    right: str
    kind: str
    visit: int
    entering: float | None
    own: float | None
    total: float | None
    control: float | None
    bound: float
    entering_bound: float
    total_float32: float | None = None
    control_float32: float | None = None


class Partner(Frozen):
    """An input or an output of the left model and that of the right which is the same.

    Attributes:
        left, right: their names; None: there is none, so it was not compared.
        why: how they were found, or why there is none.
    """

    left: str | None
    right: str | None
    why: str


class Cause(Frozen):
    """A difference that closes the gap: its size `before` and `after` it is removed."""

    key: str
    sentence: str
    write: str = ""
    before: float | None = None
    after: float | None = None

    @property
    def shown(self) -> bool:
        """Whether it was tried and closed the gap."""
        return self.after is not None


class Fault(Frozen):
    """A place where the models part by more than rounding."""

    phase: str
    left: str
    right: str
    size: float | None
    eps: float | None
    jump: float | None
    cause: Cause | None = None


class Check(Frozen):
    """A line of the verdict."""

    name: str
    state: State
    detail: str


class Checked(Frozen):
    """The whole of it."""

    schema_version: Literal[1] = 1
    equal: bool
    left: Model
    right: Model
    inputs: dict[str, str]
    input_pairs: tuple[Partner, ...] = ()
    output_pairs: tuple[Partner, ...] = ()
    copied: str | None
    pairs: tuple[Pairing, ...]
    places: tuple[Place, ...]
    checks: tuple[Check, ...]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    seconds: float
    peak_memory_mib: float
    command: str = ""


LATER = ("training mode", "statistics", "gradients")  # phases after evaluation


class Findings:
    """Checks, faults and notes, as they come.

    Attributes:
        order: of the left model's layers, as they are called.
        rounded: whether a model computes something in float32 even in float64.
    """

    def __init__(self) -> None:
        self.order: Mapping[str, int] = {}
        self.notes: list[str] = []
        self.found: list[tuple[float, Fault]] = []
        self.checks: list[Check] = []
        self.rounded = False

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
        size = finite(size)
        if at is None:
            at = self.order.get(left.partition(", ")[0], math.inf)
        fault = Fault(
            phase=phase,
            left=left,
            right=right,
            size=size,
            eps=None if size is None else size / eps,
            jump=finite(jump),
            cause=cause,
        )
        self.found.append((at, fault))

    @property
    def faults(self) -> list[Fault]:
        """In the order in which the left model computes; training mode is after it."""
        return [
            x for _, x in sorted(self.found, key=lambda x: (x[1].phase in LATER, x[0]))
        ]


def finite(value: float | None) -> float | None:
    """A number that JSON can hold, or None."""
    return value if value is not None and math.isfinite(value) else None


def describe_error(error: float, eps: float) -> str:
    """An error in words: relative, and in eps."""
    if not math.isfinite(error):
        return "of other shapes, or not finite"
    return f"{error:.1e} apart ({error / eps:.3g} eps)"
