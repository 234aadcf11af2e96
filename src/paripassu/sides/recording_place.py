"""Where recordings are, and how much they hold: what can be told without reading one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

SUFFIX = ".recording"
TEXT = "recording.json"

Level = Literal["full", "boundaries", "outputs"]


def is_recording(text: str | Path) -> bool:
    """Whether a text names a recording: by its suffix, or by what the folder holds."""
    path = Path(text)
    return path.suffix == SUFFIX or (path / TEXT).is_file()
