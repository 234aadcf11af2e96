"""Templates of pages, and the style that all of them have."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

FOLDER = Path(__file__).parent


def templates(folder: Path = FOLDER) -> Environment:
    """Those of a folder, which may include those of this one.

    Values are escaped, and what is not given is an error.
    """
    return Environment(
        loader=FileSystemLoader([folder, FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def style(*more: Path) -> Markup:
    """The reports' style sheet, and others behind it."""
    sheets = (FOLDER / "report.css", *more)
    return Markup("".join(x.read_text(encoding="utf-8") for x in sheets))
