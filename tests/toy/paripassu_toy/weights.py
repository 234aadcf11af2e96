"""The common form of weights, from and to the toy's: output channels come first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paripassu.core import layout
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays

# The canonical axes, and the toy's.
LAYOUTS = {"h w i o": "o h w i", "i o": "o i", "(h w c) o": "o (h w c)"}


def to_common(recipe: Recipe, arrays: Mapping[str, Any]) -> Arrays:
    """The toy's arrays as canonical ones."""
    return layout.to_canonical(recipe.architecture, dict(arrays), LAYOUTS)


def from_common(recipe: Recipe, weights: Mapping[str, Any]) -> Arrays:
    """Canonical arrays as the toy's."""
    return layout.from_canonical(recipe.architecture, dict(weights), LAYOUTS)
