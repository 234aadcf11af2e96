"""What this package raises for its users to catch: one base class, one class a kind."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class PariPassuError(Exception):
    """Anything that this package raises on purpose.

    Attributes:
        exit_code: of a command that ends with it.
    """

    exit_code: ClassVar[int] = 1


class UserError(PariPassuError):
    """Bad input or an unusable machine: something that a user can put right.

    The message says what was expected, what came, and what to type next.
    """

    exit_code = 2


class WorkerError(PariPassuError):
    """A worker crashed; the message holds its exit code and the end of its stderr.

    Attributes:
        signal: the number of the signal that ended it; 0: none did.
    """

    def __init__(self, message: str, signal: int = 0) -> None:
        super().__init__(message)
        self.signal = signal


class ConversionError(PariPassuError):
    """A written file answers differently from its source; it was not kept."""


class NotebookError(PariPassuError):
    """A cell of a notebook raised; the message is its traceback."""


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """ " Did you mean pytorch?" after a name that is nearly a known one, else ""."""
    near = difflib.get_close_matches(text, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""
