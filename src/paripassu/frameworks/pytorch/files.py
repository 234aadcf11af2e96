"""PyTorch's native files: `state_dict`s, written, read and used."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from paripassu.core import layout
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays, Given
from paripassu.frameworks.pytorch import recipes
from paripassu.frameworks.pytorch.weights import LAYOUTS, from_common

NOTES = (
    "paripassu"  # among the state's own notes, which are kept for each module
)


def write(
    recipe: Recipe, weights: Given, path: Path, notes: Mapping[str, str]
) -> None:
    """Write a `state_dict` that `torch.load` reads with `weights_only=True`.

    Args:
        recipe: whose network it is.
        weights: canonical names and layout.
        path: of the file.
        notes: kept in the file, in the `state_dict`'s `_metadata`.
    """
    network = recipes.make_network(recipe).to(getattr(torch, recipe.storage))
    network.load_state_dict(from_common(recipe, dict(weights)))
    state = network.state_dict()
    state._metadata[NOTES] = dict(notes)
    torch.save(state, path)


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The arrays of a `state_dict`, in PyTorch's layout, and the notes with it.

    Nothing but tensors in plain containers is unpickled.

    Returns:
        Arrays under canonical names, `conv1.kernel`, and the notes, or none.

    Raises:
        UserError: the file is no `state_dict`, or is damaged.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
    ) as error:
        reason = str(error).strip().splitlines()[0].partition(". ")[0]
        raise UserError(
            f"{path} is not a state_dict that is safe to load: {reason}. "
            "Expected what torch.save(network.state_dict(), path) writes."
        ) from None
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor)
        for key, value in state.items()
    ):
        raise UserError(
            f"{path} holds {type(state).__name__}, and a state_dict was "
            "expected: names and tensors, nothing else."
        )
    arrays = {
        name.replace("weight", "kernel"): tensor.numpy(force=True)
        for name, tensor in state.items()
    }
    kept = getattr(state, "_metadata", None)
    notes = kept.get(NOTES) if isinstance(kept, dict) else None
    if not isinstance(notes, dict):
        notes = {}
    return arrays, {str(key): str(value) for key, value in notes.items()}


def to_canonical(recipe: Recipe, arrays: Mapping[str, Any]) -> Arrays:
    """What `read` has read, in the canonical layout.

    Raises:
        UserError: these are not the weights of the recipe's network.
    """
    return layout.to_canonical(recipe.architecture, arrays, LAYOUTS)
