"""What every request to a child process is."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Request(BaseModel):
    """A task for a child process.

    Attributes:
        module: what the process runs; it ends in `processes.child.serve`.
        task: which task it is, different for each type of one module.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    module: ClassVar[str] = "paripassu.worker"
    task: str

    @property
    def title(self) -> str:
        """Whose process it is, for messages."""
        return self.task

    @property
    def threads(self) -> int:
        """How many the libraries of the process may use."""
        return 1
