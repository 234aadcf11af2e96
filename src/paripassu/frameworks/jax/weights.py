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
# Flax's names of arrays, by the canonical ones.
PARTS = {"gamma": "scale", "beta": "bias", "variance": "var"}
# What belongs to a network: what it learns, and the statistics that it keeps.
KEPT = nnx.Any(nnx.Param, nnx.BatchStat)


def own_name(name: str) -> str:
    """Flax's name of an array: `norm1.scale` for `norm1.gamma`."""
    layer, _, part = name.rpartition(".")
    return f"{layer}.{PARTS.get(part, part)}"


def canonical(recipe: Recipe, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays of Flax's names under canonical ones; unknown ones stay."""
    names = {own_name(x.name): x.name for x in recipe.architecture.weights}
    return {names.get(name, name): array for name, array in arrays.items()}


def to_common(recipe: Recipe, state: Any, *, learned: bool = False) -> Arrays:
    """The arrays of a module's state, or gradients, as canonical arrays.

    Args:
        recipe: whose network it is.
        state: of `KEPT`, or gradients.
        learned: whether it is of what has gradients alone.

    Raises:
        UserError: these are not those of the recipe's network.
    """
    network = recipe.architecture
    arrays = {
        ".".join(path): np.array(x[...]) for path, x in nnx.to_flat_state(state)
    }
    return layout.to_canonical(
        network.trainable if learned else network,
        canonical(recipe, arrays),
        LAYOUTS,
    )


def from_common(recipe: Recipe, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Canonical arrays as a tree for `nnx.update`: layer -> name -> array.

    Raises:
        UserError: these are not the weights of the recipe's network.
    """
    arrays = layout.from_canonical(recipe.architecture, dict(weights), LAYOUTS)
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        layer, _, part = own_name(name).rpartition(".")
        kept = jnp.asarray(array, getattr(jnp, recipe.storage))
        tree.setdefault(layer, {})[part] = kept
    return tree
