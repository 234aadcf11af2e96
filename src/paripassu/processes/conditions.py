"""Under which conditions a framework works: data, threads, device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paripassu.core import machine


@dataclass(frozen=True)
class Conditions:
    """What does not decide the result but the speed: the same for every framework."""

    data: Path | None = None  # None: the package's MNIST
    threads: int = 0  # 0: one for each usable core
    device: str = "auto"  # "auto", "cpu" or "gpu"
    command: str = ""  # what was typed, for the record

    def request(self, task: str, framework: str, **values: Any) -> dict[str, Any]:
        """A request to the worker under these conditions."""
        return {
            "task": task,
            "framework": framework,
            "data": str(self.data.resolve()) if self.data else None,
            "threads": self.thread_count,
            "device": self.device,
            "command": self.command,
            **values,
        }

    def with_threads(self, threads: int) -> Conditions:
        """The same conditions with another number of threads."""
        return replace(self, threads=threads)

    @property
    def thread_count(self) -> int:
        """How many threads each framework may use."""
        return self.threads or machine.usable_cores()
