"""The one exception for anything that a user can put right."""

from __future__ import annotations


class UserError(Exception):
    """Bad input or an unusable machine: the command line prints it and exits with 2.

    The message says what was expected, what came, and what to type next.
    """
