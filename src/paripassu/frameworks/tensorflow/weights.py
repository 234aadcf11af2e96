"""The common form of weights, from and to the layers of a Keras model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from paripassu.core import layout
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays
from paripassu.frameworks.tensorflow.layers import PARTS, canonical_shapes

LAYOUTS: dict[str, str] = {}  # the common layout is the one that Keras has


def named_weights(network: Any) -> dict[str, Any]:
    """The variables of a model's layers by their canonical names."""
    return {
        f"{layer.name}.{PARTS.get(weight.name, weight.name)}": weight
        for layer in network.layers
        for weight in layer.weights
    }


def to_common(recipe: Recipe, network: Any) -> Arrays:
    """The weights of a model as canonical arrays, `conv1.kernel`.

    Raises:
        UserError: it is not the recipe's network.
    """
    arrays = {
        name: keras.ops.convert_to_numpy(weight)
        for name, weight in named_weights(network).items()
    }
    arrays = canonical_shapes(recipe.architecture, arrays)
    return layout.to_canonical(recipe.architecture, arrays, LAYOUTS)


def from_common(
    recipe: Recipe, network: Any, weights: Mapping[str, Any]
) -> None:
    """Give a model canonical arrays.

    Raises:
        UserError: these are not the weights of the recipe's network.
    """
    arrays = layout.from_canonical(recipe.architecture, dict(weights), LAYOUTS)
    assign(network, arrays)


def assign(network: Any, arrays: Mapping[str, Any]) -> None:
    """Give a model's variables the numbers of arrays of canonical names."""
    for name, weight in named_weights(network).items():
        weight.assign(arrays[name].reshape(weight.shape))
