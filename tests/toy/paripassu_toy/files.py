"""The toy's native files: safetensors, with the output channels first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors.numpy import save_file

from paripassu.core.files import read_tensors
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays
from paripassu_toy.weights import from_common, to_common


def write(
    recipe: Recipe,
    weights: Mapping[str, npt.NDArray[Any]],
    path: Path,
    notes: Mapping[str, str],
) -> None:
    """Write a file from canonical weights, and notes with it."""
    save_file(from_common(recipe, weights), path, dict(notes))


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The arrays of a file, in the toy's layout, and the notes with it."""
    arrays, notes = read_tensors(path)
    return dict(arrays), notes


def to_canonical(recipe: Recipe, arrays: Mapping[str, Any]) -> Arrays:
    """What `read` has read, in the canonical layout."""
    return to_common(recipe, arrays)
