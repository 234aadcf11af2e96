"""What the benchmarks know of one framework alone: a file each, found by its name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from paripassu.frameworks.registry import FRAMEWORKS


def each() -> dict[str, Any]:
    """The files of the frameworks that have one, by name."""
    return {
        name: importlib.import_module(f"parts.{name}")
        for name in FRAMEWORKS
        if (Path(__file__).parent / f"{name}.py").exists()
    }
