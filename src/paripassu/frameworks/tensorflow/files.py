"""Keras's native files: for Keras alone to open; `_archive` reads them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paripassu.core import layout
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays, Given
from paripassu.frameworks.tensorflow import _archive, recipes
from paripassu.frameworks.tensorflow.weights import LAYOUTS, assign


def write(
    recipe: Recipe, weights: Given, path: Path, notes: Mapping[str, str]
) -> None:
    """Write a model of Keras's own layers, which loads without code of ours.

    Args:
        recipe: whose network it is.
        weights: canonical names and layout.
        path: of the file; it ends in `.keras`.
        notes: kept in the file.
    """
    recipes.set_precision(recipe.for_use)
    network = recipes.make_network(recipe, plain=True)
    arrays = layout.from_canonical(recipe.architecture, weights, LAYOUTS)
    assign(network, recipes.to_plain(recipe, arrays))
    network.save(path)
    recipes.set_precision(recipe)  # of all Keras: as it was in a training
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(_archive.NOTES, json.dumps(dict(notes)))


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The weights of a `.keras` file, without Keras: see `_archive`.

    Raises:
        UserError: it is damaged, points elsewhere, or promises too much.
    """
    return _archive.read(path)


def to_canonical(recipe: Recipe, arrays: Mapping[str, Any]) -> Arrays:
    """What `read` has read, in the canonical layout.

    Raises:
        UserError: these are not the weights of the recipe's network.
    """
    arrays = recipes.from_plain(recipe, arrays)
    return layout.to_canonical(recipe.architecture, arrays, LAYOUTS)
