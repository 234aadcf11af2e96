"""What a check finds: the record, as JSON and as an object, and how it is gathered."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, computed_field

from paripassu.port_check.tolerance import EPS64, ROUNDED

State = Literal["holds", "fails", "note", "not run"]
Verdict = Literal["equal", "differs", "undecided"]


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


class LayerCount(Frozen):
    """How many layers of both models are of one kind and size."""

    title: str
    left: int
    right: int


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
        bound: what `own` may be; None: anything, as it hangs on what is drawn.
    """

    left: str
    right: str
    kind: str
    visit: int
    entering: float | None
    own: float | None
    total: float | None
    control: float | None
    bound: float | None
    entering_bound: float | None
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
    """A difference that closes the gap: its size `before` and `after` it is removed.

    Attributes:
        also: the keys of further settings that it consists of.
        settings: with which the right layer would be like the left one.
    """

    key: str
    sentence: str
    write: str = ""
    before: float | None = None
    after: float | None = None
    also: tuple[str, ...] = ()
    settings: dict[str, Any] = {}

    @property
    def shown(self) -> bool:
        """Whether it was tried and closed the gap."""
        return self.after is not None


class Fault(Frozen):
    """A place where the models part by more than rounding.

    Attributes:
        phase: in which it was found.
        left, right: the layers or functions.
        source: the lines of code that call or make them: `net.py:42`, or "".
        size, eps: how far they are apart, over the largest value, and in eps.
        jump: the same, over what rounding may do.
        cause: why, where it was found.
    """

    phase: str
    left: str
    right: str
    source: tuple[str, str] = ("", "")
    size: float | None
    eps: float | None
    jump: float | None
    cause: Cause | None = None

    @property
    def key(self) -> str:
        """The key of its cause."""
        return self.cause.key if self.cause else "unknown"

    @property
    def at(self) -> tuple[str, str]:
        """Both names, each with its line: `norm (net.py:42)`."""
        names = zip((self.left, self.right), self.source, strict=True)
        left, right = (f"{name} ({x})" if x else name for name, x in names)
        return left, right


class Accepted(Frozen):
    """A difference that is there, and that was accepted.

    Attributes:
        by: what accepts it, as it was given.
        fault: what it would be.
        removed: whether the right model was compared without it.
    """

    by: str
    fault: Fault
    removed: bool

    @property
    def name(self) -> str:
        """Its cause and its place, as they are accepted."""
        return f"{self.fault.key}@{self.fault.left}"


class Check(Frozen):
    """A line of the verdict."""

    name: str
    state: State
    detail: str


class CauseGroup(Frozen):
    """A cause and all the places that it explains.

    Attributes:
        key, sentence, write: as of `Cause`; the key is "unknown" where none was found.
        phase: in which it was found first.
        places: left and right names.
        sources: the lines of code of each.
        faults: which of the faults these are, counted from 0.
    """

    key: str
    sentence: str
    write: str
    phase: str
    places: tuple[tuple[str, str], ...]
    sources: tuple[tuple[str, str], ...]
    faults: tuple[int, ...]

    def __str__(self) -> str:
        """The key and the sentence, but not the same word twice."""
        if self.sentence.startswith(self.key.replace("-", " ")):
            return self.sentence
        return f"{self.key}: {self.sentence}"


class Checked(Frozen):
    """The whole of it.

    Attributes:
        verdict: "equal", "differs", or "undecided": nothing differs, but something
            that counts could not be compared.
        layers: with weights, of both models, counted by what they are.
        accepted: differences that were accepted, which are no faults.
        unused: what was accepted, and did not occur.
        compared: what was compared, in words.
        not_compared: what was not, and why.
        not_asked: what was left out because it was asked to be, or took too long.
        seconds: that one waited for it.
        import_seconds: those of them in which a process started and imported the
            frameworks and the models' modules.
    """

    schema_version: Literal[3] = 3
    verdict: Verdict
    left: Model
    right: Model
    layers: tuple[LayerCount, ...] = ()
    inputs: dict[str, str]
    input_pairs: tuple[Partner, ...] = ()
    output_pairs: tuple[Partner, ...] = ()
    copied: str | None
    pairs: tuple[Pairing, ...]
    places: tuple[Place, ...]
    checks: tuple[Check, ...]
    faults: tuple[Fault, ...]
    accepted: tuple[Accepted, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...]
    compared: tuple[str, ...] = ()
    not_compared: tuple[str, ...] = ()
    not_asked: tuple[str, ...] = ()
    seconds: float = 0.0
    import_seconds: float = 0.0
    peak_memory_mib: float
    command: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def equal(self) -> bool:
        """Whether the verdict is "equal"."""
        return self.verdict == "equal"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def causes(self) -> tuple[CauseGroup, ...]:
        """The faults grouped by their cause, in the order of the first of each."""
        return _grouped(self.faults)

    @property
    def accepted_causes(self) -> tuple[CauseGroup, ...]:
        """The same of what was accepted; `faults` are numbers in `accepted`."""
        return _grouped([x.fault for x in self.accepted])

    @property
    def headline(self) -> str:
        """The verdict in a line."""
        count = len(self.accepted_causes)
        accepted = f"{count} accepted difference{'s' if count > 1 else ''}"
        if self.verdict == "equal":
            if count:
                return f"Equal but for {accepted}"
            return "Equal: the two models compute the same"
        if self.verdict == "undecided":
            but = f" but {accepted}, and" if count else ", but"
            return f"Undecided: nothing differs{but} not everything could be compared"
        beside = f", beside {accepted}" if count else ""
        causes = len(self.causes)
        if not causes:
            return f"Not equal{beside}"
        return f"Not equal: {causes} cause{'s' if causes > 1 else ''}{beside}"

    @property
    def time_told(self) -> str:
        """How long it took, and how much of that imports took, if it is much."""
        of = f", {self.import_seconds:.0f} s of it to import frameworks and models"
        long = self.import_seconds >= 0.2 * self.seconds and self.import_seconds >= 1
        return f"{self.seconds:.0f} s{of if long else ''}"

    @property
    def unused_told(self) -> str:
        """What was accepted and did not occur, and what there was; or nothing."""
        if not self.unused:
            return ""
        faults = (*(x.fault for x in self.accepted), *self.faults)
        there = dict.fromkeys(f"{x.key}@{x.left}" for x in faults)
        told = list_some([*there], ", ") or "no difference"
        return f"accepted, but unused: {', '.join(self.unused)}; there was: {told}"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def next(self) -> str:
        """What to do next, in a sentence."""
        if self.verdict == "equal":
            return ""
        if self.verdict == "undecided":
            return f"make comparable what was not: {'; '.join(self.not_compared)}"
        if not self.causes:
            return "see the checks that fail"
        first = self.causes[0]
        left, right = first.places[0]
        return first.write or f"compare {left} with {right}: {first.sentence}"


def _grouped(faults: Sequence[Fault]) -> tuple[CauseGroup, ...]:
    """Faults by their cause, in the order of the first of each.

    A function that is called at one line, in each of several layers, is one cause.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, fault in enumerate(faults):
        sentence = fault.cause.sentence if fault.cause else NO_CAUSE
        if fault.phase == WEIGHTS:
            sentence = WEIGHTS  # each names its weight
        told: tuple[str, ...] = (sentence,)
        if all(":" in x for x in (fault.left, fault.right)) and all(fault.source):
            told = fault.source
        groups.setdefault((fault.key, *told), []).append(number)
    return tuple(_group_of(faults, numbers) for numbers in groups.values())


def _group_of(faults: Sequence[Fault], numbers: Sequence[int]) -> CauseGroup:
    first, more = faults[numbers[0]], len(numbers) - 1
    sentence = first.cause.sentence if first.cause else NO_CAUSE
    if first.phase == WEIGHTS and more:
        sentence += f"; and so {more} more weight{'s' if more > 1 else ''}"
    places: dict[tuple[str, str], tuple[str, str]] = {}
    for fault in (faults[x] for x in numbers):
        places.setdefault((fault.left, fault.right), fault.source)
    return CauseGroup(
        key=first.key,
        sentence=sentence,
        write=first.cause.write if first.cause else "",
        phase=first.phase,
        places=tuple(places),
        sources=tuple(places.values()),
        faults=tuple(numbers),
    )


NO_CAUSE = "no cause was found: compare the code of the two at this place"
PLACES_SHOWN = 3  # of one cause, in a short text
WEIGHTS = "weights"  # the phase of weights that are not the left model's
UNPAIRED = "layers"  # the phase of what has no partner
LATER = ("training mode", "statistics", "gradients")  # phases after evaluation


class Findings:
    """Checks, faults and notes, as they come.

    Attributes:
        order: of the left model's layers, as they are called.
        lines: of the left and the right model's code, by the names of layers.
        rounded: whether a model computes something in float32 even in float64.
        rounded_gradients: whether this is so, or is in the pass back.
        compared, not_compared, not_asked: what the verdict stands on, and lacks.
    """

    def __init__(self) -> None:
        self.order: Mapping[str, int] = {}
        self.lines: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})
        self.notes: list[str] = []
        self.found: list[tuple[float, Fault]] = []
        self.checks: list[Check] = []
        self.compared: list[str] = []
        self.not_compared: list[str] = []
        self.not_asked: list[str] = []
        self.rounded = self.rounded_gradients = False

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
        source: tuple[str, str] | None = None,
    ) -> None:
        """Add a fault.

        Args:
            phase, left, right, size, cause, jump: see `Fault`.
            eps: of the float type.
            at: where the left model computes it, if not at `left`.
            source: lines of code, if not those of the layers.
        """
        size = finite(size)
        if source is None:
            names = (re.split(", |/", x)[0] for x in (left, right))
            one, two = (x.get(y, "") for x, y in zip(self.lines, names, strict=True))
            source = one, two
        if at is None:
            at = self.order.get(left.partition(", ")[0], math.inf)
        fault = Fault(
            phase=phase,
            left=left,
            right=right,
            source=source,
            size=size,
            eps=None if size is None else size / eps,
            jump=finite(jump),
            cause=cause,
        )
        self.found.append((at, fault))

    @property
    def least(self) -> float:
        """What a layer may be off in any case, in float64."""
        return ROUNDED if self.rounded else 0.0

    @property
    def verdict(self) -> Verdict:
        """Equal only where nothing differs, and all that counts was compared."""
        if self.found or any(x.state == "fails" for x in self.checks):
            return "differs"
        return "undecided" if self.not_compared else "equal"

    @property
    def faults(self) -> list[Fault]:
        """In the order in which the left model computes.

        What training mode shows comes after it, and layers without a partner after
        those that have one.
        """
        return [
            x
            for _, x in sorted(
                self.found,
                key=lambda x: (x[1].phase in LATER, x[1].phase == UNPAIRED, x[0]),
            )
        ]


def list_some(texts: Sequence[str], between: str = ", ", shown: int = 6) -> str:
    """The first few of some texts, and how many more there are: "a, b and 3 more"."""
    more = f" and {len(texts) - shown} more" if len(texts) > shown else ""
    return between.join(texts[:shown]) + more


def finite(value: float | None) -> float | None:
    """A number that JSON can hold, or None."""
    return value if value is not None and math.isfinite(value) else None


def describe_error(error: float, eps: float) -> str:
    """An error in words: relative, and in eps."""
    if not math.isfinite(error):
        return "of other shapes, or not finite"
    return f"{error:.1e} apart ({error / eps:.3g} eps)"
