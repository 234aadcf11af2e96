"""The common form of weights, from and to a `state_dict`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from paripassu.core import layout
from paripassu.core.architecture import Network, Weight
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays

# The architecture's axes, and PyTorch's.
LAYOUTS = {
    "h w i o": "o i h w",
    "i o": "o i",
    "(h w c) o": "o (c h w)",
    "(h w c)": "(c h w)",
}
PARTS = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "mean": "running_mean",
    "variance": "running_var",
}
COUNTED = "num_batches_tracked"  # of a batch norm: it changes nothing here


def own_name(weight: Weight) -> str:
    """The name of an array in a `state_dict`: `conv1.weight`."""
    layer, _, part = weight.name.rpartition(".")
    return f"{layer}.{PARTS.get(part, part)}"


def renamed(network: Network, state: Mapping[str, Any]) -> dict[str, Any]:
    """What a `state_dict` holds, under canonical names; unknown ones stay."""
    names = {own_name(weight): weight.name for weight in network.weights}
    return {
        names.get(name, name): tensor
        for name, tensor in state.items()
        if not name.endswith(f".{COUNTED}")
    }


def to_common(
    recipe: Recipe, state: Mapping[str, Any], *, learned: bool = False
) -> Arrays:
    """The tensors of a `state_dict` as canonical arrays, `conv1.kernel`.

    Args:
        recipe: whose network it is.
        state: names of PyTorch's, and tensors.
        learned: whether it is of what has gradients alone.

    Raises:
        UserError: these are not the tensors of the recipe's network.
    """
    network = recipe.architecture
    network = network.trainable if learned else network
    arrays = {
        name: tensor.numpy(force=True)
        for name, tensor in renamed(network, state).items()
    }
    return layout.to_canonical(network, arrays, LAYOUTS)


def from_common(
    recipe: Recipe, weights: Mapping[str, Any], *, learned: bool = False
) -> dict[str, Any]:
    """Canonical arrays as a `state_dict`, `conv1.weight`, PyTorch's layout.

    Raises:
        UserError: these are not the weights of the recipe's network.
    """
    network = recipe.architecture
    network = network.trainable if learned else network
    arrays = layout.from_canonical(network, dict(weights), LAYOUTS)
    state = {
        own_name(weight): torch.from_numpy(arrays[weight.name])
        for weight in network.weights
    }
    if not learned:
        for layer in network.layers_of("batch_norm"):
            state[f"{layer.name}.{COUNTED}"] = torch.tensor(0)
    return state
