"""What the verbs tell while they work, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


ComparisonEvent = Warned | ProofEvent | RunStarted | RunTold | RunEnded
OnEvent = Callable[[ComparisonEvent], None]
