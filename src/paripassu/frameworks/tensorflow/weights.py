"""The common form of weights, from and to the layers of a Keras model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from paripassu.core import layout
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays

LAYOUTS: dict[str, str] = {}  # the common layout is the one that Keras has


def to_common(recipe: Recipe, network: Any) -> Arrays:
    """The weights of a model as canonical arrays, `conv1.kernel`.

    Raises:
        UserError: it is not the recipe's network.
    """
    arrays = {
        f"{layer.name}.{weight.name}": keras.ops.convert_to_numpy(weight)
        for layer in network.layers
        for weight in layer.weights
    }
    return layout.to_canonical(recipe.architecture, arrays, LAYOUTS)


def from_common(
    recipe: Recipe, network: Any, weights: Mapping[str, Any]
) -> None:
    """Give a model canonical arrays.

    Raises:
        UserError: these are not the weights of the recipe's network.
    """
    arrays = layout.from_canonical(recipe.architecture, dict(weights), LAYOUTS)
    for layer in network.layers:
        for weight in layer.weights:
            weight.assign(arrays[f"{layer.name}.{weight.name}"])
