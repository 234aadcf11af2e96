"""Under which conditions a framework works: data, threads, device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from paripassu.core import machine
from paripassu.core.record import Node


@dataclass(frozen=True)
class Conditions:
    """What does not decide the result but the speed: the same for every framework."""

    data: str | Path | None = None  # None: the package's MNIST
    threads: int = 0  # 0: one for each usable core
    device: str = "auto"  # "auto", "cpu" or "gpu"
    command: str = ""  # what was typed, for the record
    source: str = ""  # what the record calls the place of the data; "": where they are
    node: Node | None = None  # of a cluster; None: this machine

    @property
    def thread_count(self) -> int:
        """How many threads each framework may use."""
        return self.threads or machine.usable_cores()

    def resolved(self) -> Conditions:
        """The same for a process elsewhere: an absolute path, a number of threads."""
        data = Path(self.data).resolve() if self.data else None
        return replace(self, data=data, threads=self.thread_count)

    def for_proofs(self) -> Conditions:
        """One thread on the CPU: a proof is not timed, and several run at once."""
        return replace(self, threads=1, device="cpu")


DEFAULT = Conditions()
SINGLE = Conditions(threads=1, device="cpu")
