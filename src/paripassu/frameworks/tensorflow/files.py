"""Keras's native files: written for Keras alone to open, read as data."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from paripassu.core import layout
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays, Given
from paripassu.frameworks.tensorflow import recipes
from paripassu.frameworks.tensorflow.weights import LAYOUTS

NOTES = "paripassu.json"  # in the archive, beside Keras's own three files
WEIGHTS = "model.weights.h5"
NAMES = {"0": "kernel", "1": "bias"}  # of a layer's weights, as Keras counts
LARGEST = 2**31  # bytes, of the weights


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
    arrays = getattr(recipes.module_of(recipe), "to_plain", dict)(arrays)
    for layer in network.layers:
        for weight in layer.weights:
            weight.assign(arrays[f"{layer.name}.{weight.name}"])
    network.save(path)
    recipes.set_precision(recipe)  # of all Keras: as it was in a training
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(NOTES, json.dumps(dict(notes)))


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The weights of a `.keras` file by layer, and the notes with it.

    The file is read as an archive of data: no layer, function or configuration
    in it is made or called.

    Returns:
        Arrays under canonical names, `conv1.kernel`, and the notes, or none.

    Raises:
        UserError: the file is no `.keras` file, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(WEIGHTS).file_size
            if size > LARGEST:
                raise UserError(
                    f"{path} holds {size:,} bytes of weights: at most "
                    f"{LARGEST:,} are read."
                )
            content = archive.read(WEIGHTS)
            notes = {}
            if NOTES in archive.namelist():
                notes = json.loads(archive.read(NOTES))
        arrays = {}
        with h5py.File(io.BytesIO(content), "r") as file:
            for group in file["layers"].values():
                own = group["vars"]
                layer = str(own.attrs["name"])
                for number in own:
                    name = NAMES.get(number, number)
                    arrays[f"{layer}.{name}"] = np.asarray(own[number])
    except (
        zipfile.BadZipFile,
        KeyError,
        ValueError,
        OSError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise UserError(
            f"{path} is not a whole .keras file ({error}). Expected what "
            "model.save('name.keras') writes in Keras 3."
        ) from None
    if not isinstance(notes, dict):
        notes = {}
    return arrays, {str(key): str(value) for key, value in notes.items()}


def to_canonical(recipe: Recipe, arrays: Mapping[str, Any]) -> Arrays:
    """What `read` has read, in the canonical layout.

    Raises:
        UserError: these are not the weights of the recipe's network.
    """
    arrays = getattr(recipes.module_of(recipe), "from_plain", dict)(arrays)
    return layout.to_canonical(recipe.architecture, arrays, LAYOUTS)
