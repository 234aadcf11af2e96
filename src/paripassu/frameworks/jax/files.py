"""JAX's native files: msgpack of `{"params": layer -> name -> array}`.

Running statistics are beside them, in `batch_stats`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization

from paripassu.core import layout
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays, Given
from paripassu.frameworks.jax.weights import LAYOUTS, canonical, own_name

PARAMS = "params"
STATISTICS = "batch_stats"  # the collection of them that Flax's users know
NOTES = "paripassu"  # another collection, beside the parameters


def write(
    recipe: Recipe, weights: Given, path: Path, notes: Mapping[str, str]
) -> None:
    """Write a file that `flax.serialization.msgpack_restore` reads.

    Args:
        recipe: whose network it is.
        weights: canonical names and layout.
        path: of the file.
        notes: kept in the file, under `paripassu`.
    """
    arrays = layout.from_canonical(recipe.architecture, weights, LAYOUTS)
    content: dict[str, dict[str, Any]] = {PARAMS: {}}
    for weight in recipe.architecture.weights:
        tree = content.setdefault(PARAMS if weight.learned else STATISTICS, {})
        layer, _, part = own_name(weight.name).rpartition(".")
        array = arrays[weight.name].astype(recipe.storage)
        tree.setdefault(layer, {})[part] = array
    content[NOTES] = dict(notes)
    path.write_bytes(serialization.msgpack_serialize(content))


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The arrays of a file, and the notes with it.

    Msgpack holds data alone: nothing in the file is made or called.

    Returns:
        Arrays under canonical names, `conv1.kernel`, and the notes, or none.

    Raises:
        UserError: the file holds no parameters, or is damaged.
    """
    try:
        content = serialization.msgpack_restore(path.read_bytes())
    except (
        Exception
    ) as error:  # msgpack and NumPy meet foreign bytes with any kind
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise _refused(path, words[0]) from None
    params = content.get(PARAMS) if isinstance(content, dict) else None
    if not isinstance(params, dict):
        raise _refused(path, f"it has no {PARAMS!r}")
    arrays = {}
    statistics = content.get(STATISTICS, {})
    if not isinstance(statistics, dict):
        raise _refused(path, f"{STATISTICS!r} is no table of layers")
    for layer, parts in [*params.items(), *statistics.items()]:
        if not isinstance(parts, dict):
            raise _refused(path, f"{layer} is no layer with its parameters")
        for part, array in parts.items():
            name = f"{layer}.{part}"
            if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
                raise _refused(path, f"{name} is no array of float numbers")
            arrays[name] = array
    notes = content.get(NOTES)
    if not isinstance(notes, dict):
        notes = {}
    return arrays, {str(key): str(value) for key, value in notes.items()}


def _refused(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not a whole file of Flax's parameters: {why}. Expected "
        "what flax.serialization.msgpack_serialize makes of "
        "{'params': {'conv1': {'kernel': ...}}}."
    )


def to_canonical(recipe: Recipe, arrays: Mapping[str, Any]) -> Arrays:
    """What `read` has read, in the canonical layout.

    Raises:
        UserError: these are not the weights of the recipe's network.
    """
    found = canonical(recipe, arrays)
    return layout.to_canonical(recipe.architecture, found, LAYOUTS)
