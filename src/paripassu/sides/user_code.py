"""Runs a user's code; what it raises is told as theirs, with their traceback."""

from __future__ import annotations

import functools
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from paripassu.core.errors import UserError
from paripassu.sides.registry import SIDES

T = TypeVar("T")
OURS = str(Path(__file__).parents[1])
LIBRARY = sysconfig.get_path("stdlib")
# What runs users' code: frameworks, and what Keras walks nests with.
MACHINERY = (*(x for y in SIDES for x in y.import_roots), "optree", "absl")


def run(call: Callable[[], T], what: str) -> T:
    """Run a user's code.

    Args:
        call: runs it.
        what: names it, for the message.

    Raises:
        UserError: it raised; with the traceback, without our own frames.
    """
    try:
        return call()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(describe_error(error, what)) from error


def describe_error(error: BaseException, what: str) -> str:
    """A message with a user's traceback, from their own first frame on."""
    frames = [
        x
        for x in traceback.extract_tb(error.__traceback__)
        if not x.filename.startswith(OURS) and "importlib" not in x.filename
    ]
    begin = next(
        (n for n, x in enumerate(frames) if not x.filename.startswith(sys.prefix)), 0
    )
    lines = traceback.format_list(frames[begin:])
    lines += traceback.format_exception_only(error)
    text = "".join(lines).rstrip()
    return f"{what} raised {type(error).__name__}; this comes from its code:\n\n{text}"


def told(error: Exception) -> str:
    """An error in a line: its type, and what its message begins with."""
    words = re.sub(r"\x1b\[[\d;]*m", "", str(error)).split()
    text = " ".join(words)
    return f"{type(error).__name__}: {text[:200]}{'...' if text[200:] else ''}"


def calling_line() -> str:
    """The line at work of the user's code, or of a library of models: `net.py:42`.

    Nothing, where only a framework's own code is at work.
    """
    frame = sys._getframe()
    while frame:
        name = frame.f_code.co_filename
        if not _is_machinery(name):
            return f"{Path(name).name}:{frame.f_lineno}"
        if name.startswith(OURS) and frame.f_code.co_name in ("run", "step"):
            break  # a probe, which calls the model: beyond it is whoever checks it
        frame = frame.f_back  # type: ignore[assignment]
    return ""


@functools.cache
def _is_machinery(file: str) -> bool:
    """Whether a file is a framework's, Python's or ours."""
    if file.startswith((OURS, "<")):
        return True
    _, installed, inside = file.partition("site-packages")
    if installed:
        return inside[1:].replace("\\", "/").partition("/")[0] in MACHINERY
    return file.startswith(LIBRARY)
