"""The common form of weights, from and to a `state_dict`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from paripassu.core import layout
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays

# The architecture's axes, and PyTorch's.
LAYOUTS = {"h w i o": "o i h w", "i o": "o i", "(h w c) o": "o (c h w)"}


def to_common(recipe: Recipe, state: Mapping[str, Any]) -> Arrays:
    """The tensors of a `state_dict` as canonical arrays, `conv1.kernel`.

    Raises:
        UserError: these are not the tensors of the recipe's network.
    """
    arrays = {
        name.replace("weight", "kernel"): tensor.numpy(force=True)
        for name, tensor in state.items()
    }
    return layout.to_canonical(recipe.architecture, arrays, LAYOUTS)


def from_common(recipe: Recipe, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Canonical arrays as a `state_dict`, `conv1.weight`, PyTorch's layout.

    Raises:
        UserError: these are not the weights of the recipe's network.
    """
    arrays = layout.from_canonical(recipe.architecture, dict(weights), LAYOUTS)
    return {
        name.replace("kernel", "weight"): torch.from_numpy(array)
        for name, array in arrays.items()
    }
