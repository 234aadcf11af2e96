"""What the verbs tell while they work, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from paripassu.core.record import RunRecord
from paripassu.processes.launch import Event
from paripassu.proof.short_proof import ProofEvent


@dataclass(frozen=True)
class Warned:
    """Something that the user should know; the work goes on."""

    text: str


@dataclass(frozen=True)
class RunStarted:
    """A training begins, or a finished one is about to be used."""

    name: str
    number: int  # counted from 1
    runs: int  # of all
    epochs: int  # of each


@dataclass(frozen=True)
class RunTold:
    """An event of the training's own process, such as a step or an epoch."""

    name: str
    event: Event


@dataclass(frozen=True)
class RunEnded:
    """A training has ended; `failure` says why, if it did not finish."""

    name: str
    failure: str | None


@dataclass(frozen=True)
class Scheduled:
    """The trainings are about to begin, several at a time."""

    epochs: Mapping[str, int]  # of each run that is missing, by its title
    reused: int  # runs that are finished already


@dataclass(frozen=True)
class RunFinished:
    """A run is over."""

    title: str
    outcome: RunRecord | str  # its record, or why it failed


ComparisonEvent = Warned | ProofEvent | RunStarted | RunTold | RunEnded
OnEvent = Callable[[ComparisonEvent], None]
