"""The referee: the network of the score sheet, taken step by step in float64.

It knows no network. It walks the layers that the score sheet names, forward and
backward, so a new network needs code here only if it has a new kind of layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core import networks
from paripassu.core.layout import check_weights
from paripassu.core.networks import Layer, Network
from paripassu.core.recipe import Recipe
from paripassu.frameworks import Arrays, TwinStep
from paripassu.frameworks.numpy.layers import LAYERS, Floats, Mask
from paripassu.frameworks.numpy.loss import LOSSES
from paripassu.frameworks.numpy.optimizers import (
    State,
    learning_rate,
    update,
)

Weights = Mapping[str, Floats]
Masks = Mapping[str, Mask]


def trace(
    recipe: Recipe,
    *,
    weights: Mapping[str, npt.NDArray[Any]],
    steps: Sequence[TwinStep],
    threads: int,  # noqa: ARG001
    device: str,  # noqa: ARG001
) -> Arrays:
    """What the network computes: see `paripassu.frameworks.Framework.trace`.

    Always in float64 and on the CPU, whatever the recipe's precision and the
    device: this is the yardstick. NumPy takes its threads from the environment.
    All steps belong to the first epoch.

    Raises:
        UserError: `weights` are not those of the network, or not finite.
    """
    network = networks.find(recipe.network)
    check_weights(network, weights)
    current: dict[str, Floats] = {
        weight.name: np.asarray(weights[weight.name], np.float64)
        for weight in network.weights
    }
    states: dict[str, State] = {name: {} for name in current}
    outputs, _ = forward(network, recipe, current, steps[0].images, None)
    arrays: Arrays = {"logits": outputs[network.layers[-1].name]}
    for number, step in enumerate(steps):
        outputs, memories = forward(
            network, recipe, current, step.images, step.masks
        )
        logits = outputs[network.layers[-1].name]
        loss, gradient = LOSSES[recipe.loss](logits, step.labels)
        gradients = backward(network, gradient, memories)
        rate = learning_rate(recipe, epoch=0, step=number)
        for name, weight in current.items():
            current[name], states[name] = update(
                weight,
                gradient=gradients[name],
                state=states[name],
                learning_rate=rate,
                recipe=recipe,
            )
        arrays[f"{number}.loss"] = loss
        for kind, named in (
            ("activation", outputs),
            ("gradient", gradients),
            ("weight", current),
        ):
            for name, array in named.items():
                arrays[f"{number}.{kind}.{name}"] = array
    return arrays


def forward(
    network: Network,
    recipe: Recipe,
    weights: Weights,
    images: npt.NDArray[Any],
    masks: Masks | None,
) -> tuple[dict[str, Floats], dict[str, Any]]:
    """From images to logits.

    Args:
        network: the layers to walk.
        recipe: the rates of dropout.
        weights: canonical names and layout.
        images: `(N, h, w)` or `(N, h, w, c)`, any float type.
        masks: dropout layer -> what it keeps; None turns dropout off.

    Returns:
        Layer -> output, and layer -> memory for `backward`.
    """
    x = images.astype(np.float64).reshape(len(images), *network.input_shape)
    outputs, memories = {}, {}
    for layer in network.layers:
        layer_forward, _ = LAYERS[layer.kind]
        if layer.kind == "dropout":
            given = _dropout(layer, x, recipe, masks)
        else:
            given = tuple(weights[weight.name] for weight in layer.weights)
        x, memories[layer.name] = layer_forward(x, *given)
        if x.shape[1:] != layer.output_shape:
            raise ValueError(
                f"{layer.name}: the score sheet says {layer.output_shape}, "
                f"but {x.shape[1:]} came out."
            )
        outputs[layer.name] = x
    return outputs, memories


def _dropout(
    layer: Layer, x: Floats, recipe: Recipe, masks: Masks | None
) -> tuple[Any, ...]:
    if masks is None:
        return np.ones(x.shape, np.bool_), 0.0
    return masks[layer.name], recipe.dropout[layer.name]


def backward(
    network: Network, gradient: Floats, memories: Mapping[str, Any]
) -> dict[str, Floats]:
    """From the gradient of the logits to the gradient of every weight."""
    gradients: dict[str, Floats] = {}
    for layer in reversed(network.layers):
        _, layer_backward = LAYERS[layer.kind]
        gradient, found = layer_backward(gradient, memories[layer.name])
        names = [weight.name for weight in layer.weights]
        gradients |= zip(names, found, strict=True)
    return gradients
