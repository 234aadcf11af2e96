"""The common form of weights, from and to the state of a Flax module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from paripassu.core import layout
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays

LAYOUTS: dict[str, str] = {}  # the common layout is the one that Flax has


def to_common(recipe: Recipe, state: Any) -> Arrays:
    """The parameters of a module, or their gradients, as canonical arrays.

    Raises:
        UserError: these are not those of the recipe's network.
    """
    arrays = {
        ".".join(path): np.array(x[...]) for path, x in nnx.to_flat_state(state)
    }
    return layout.to_canonical(recipe.architecture, arrays, LAYOUTS)


def from_common(recipe: Recipe, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Canonical arrays as a tree for `nnx.update`: layer -> name -> array.

    Raises:
        UserError: these are not the weights of the recipe's network.
    """
    arrays = layout.from_canonical(recipe.architecture, dict(weights), LAYOUTS)
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        layer, _, part = name.partition(".")
        kept = jnp.asarray(array, getattr(jnp, recipe.storage))
        tree.setdefault(layer, {})[part] = kept
    return tree
