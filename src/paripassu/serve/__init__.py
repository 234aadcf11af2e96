"""Trained networks behind a page and an HTTP API: draw a digit, see every answer."""

from __future__ import annotations

import importlib.util

from paripassu.core.errors import UserError


def check_installed() -> None:
    """Check that the libraries of the server are there, without importing them.

    Raises:
        UserError: they are not; the message has the line to type.
    """
    missing = [x for x in ("fastapi", "uvicorn") if not importlib.util.find_spec(x)]
    if missing:
        raise UserError(
            f"paripassu serve needs {' and '.join(missing)}. "
            f"Type: pip install {' '.join(missing)}"
        )
