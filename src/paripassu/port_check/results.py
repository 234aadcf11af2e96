"""What a check of a port finds: a record, as JSON and as an object."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

State = Literal["holds", "fails", "note", "not run"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Model(_Frozen):
    """One of the two models."""

    source: str
    framework: str
    kind: str
    parameters: int
    layers: int
    versions: dict[str, str]


class Weight(_Frozen):
    """A weight of a pair: `apart` is the largest difference over the largest value."""

    name: str
    shape: tuple[int, ...]
    state: Literal["equal", "differs", "only left", "only right", "other shape"]
    apart: float | None = None


class Pairing(_Frozen):
    """Two blocks of weights that are taken to be the same."""

    left: str | None
    right: str | None
    kind: str
    why: str
    doubt: str
    weights: tuple[Weight, ...]


class Place(_Frozen):
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


class Cause(_Frozen):
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


class Fault(_Frozen):
    """A place where the models part by more than rounding."""

    phase: str
    left: str
    right: str
    size: float | None
    eps: float | None
    jump: float | None
    cause: Cause | None = None


class Check(_Frozen):
    """A line of the verdict."""

    name: str
    state: State
    detail: str


class Checked(_Frozen):
    """The whole of it."""

    schema_version: Literal[1] = 1
    equal: bool
    left: Model
    right: Model
    inputs: dict[str, str]
    copied: str | None
    pairs: tuple[Pairing, ...]
    places: tuple[Place, ...]
    checks: tuple[Check, ...]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    seconds: float
    peak_memory_mib: float
    command: str = ""
