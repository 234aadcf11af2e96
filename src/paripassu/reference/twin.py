"""The reference: any network, taken step by step in float64.

It walks the layers that the architecture names, forward and
backward, so a new network needs code here only if it has a new kind of layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core.layout import check_weights
from paripassu.core.networks import Layer, Network, Weight
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays, TwinStep
from paripassu.reference.layers import LAYERS, Floats, Mask
from paripassu.reference.losses import LOSSES
from paripassu.reference.optimizers import State, learning_rate, update

Weights = Mapping[str, Floats]
Masks = Mapping[str, Mask]


class Twin:
    """The reference, step by step: see `paripassu.frameworks.Twin`.

    Always in float64 and on the CPU, whatever the recipe's precision and the
    device: this is the yardstick. NumPy takes its threads from the environment.

    Raises:
        UserError: `weights` are not those of the network, or not finite.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        weights: Mapping[str, npt.NDArray[Any]],
        threads: int,  # noqa: ARG002
        device: str,  # noqa: ARG002
    ) -> None:
        self.recipe = recipe
        self.network = recipe.architecture
        check_weights(self.network, weights)
        self._weights: dict[str, Floats] = {
            weight.name: np.asarray(weights[weight.name], np.float64)
            for weight in self.network.weights
        }
        self._slots: dict[str, State] = {name: {} for name in self._weights}
        self._epoch = self._finished = 0  # epochs, steps

    def evaluate(self, images: npt.NDArray[Any]) -> Arrays:
        """Layer -> what leaves it, dropout off."""
        outputs, _ = forward(self.network, self.recipe, self._weights, images, None)
        x = images.astype(np.float64).reshape(len(images), *self.network.input_shape)
        return {"input": x, **outputs}

    def logits(self, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """`(N, h, w)` in, `(N, classes)` out; a thousand images at a time."""
        parts = [
            forward(self.network, self.recipe, self._weights, part, None)[0]
            for part in np.split(images, range(1000, len(images), 1000))
        ]
        outputs = np.concatenate([part[self.network.layers[-1].name] for part in parts])
        if self.recipe.output == "logits":
            return outputs
        return np.log(np.maximum(outputs, np.finfo(np.float64).tiny))

    def begin_epoch(self, epoch: int) -> None:
        """The schedule counts from here."""
        self._epoch = epoch

    def learning_rates(self, length: int) -> Floats:
        """The learning rate of every step of the recipe."""
        return np.array(
            [
                learning_rate(self.recipe, epoch=number // length, step=number)
                for number in range(self.recipe.epochs * length)
            ]
        )

    def step(self, step: TwinStep) -> Arrays:
        """Forward, backward and update: everything on the way."""
        outputs, memories = forward(
            self.network, self.recipe, self._weights, step.images, step.masks
        )
        last = outputs[self.network.layers[-1].name]
        loss, gradient = LOSSES[self.recipe.loss](last, step.labels)
        gradients = backward(self.network, gradient, memories)
        rate = learning_rate(self.recipe, epoch=self._epoch, step=self._finished)
        self._finished += 1
        for name, weight in self._weights.items():
            self._weights[name], self._slots[name] = update(
                weight,
                gradient=gradients[name],
                state=self._slots[name],
                learning_rate=rate,
                step=self._finished,
                recipe=self.recipe,
            )
        return {
            "loss": loss,
            **{f"activation.{name}": x for name, x in outputs.items()},
            **{f"gradient.{name}": x for name, x in gradients.items()},
        }

    def advance(self, step: TwinStep) -> float:
        """A step, of which only the loss is told."""
        return float(self.step(step)["loss"])

    def state(self) -> Arrays:
        """Weights and the optimizer's slots."""
        state = {f"weight.{name}": x for name, x in self._weights.items()}
        for name, slots in self._slots.items():
            state |= {f"slot.{name}.{slot}": x for slot, x in slots.items()}
        return state

    def load_state(
        self, state: Mapping[str, npt.NDArray[Any]], *, epoch: int, step: int
    ) -> None:
        """Go on from a state of any framework's."""
        self._slots = {name: {} for name in self._weights}
        for name, array in state.items():
            kind, _, rest = name.partition(".")
            exact = np.asarray(array, np.float64)
            if kind == "weight":
                self._weights[rest] = exact
            elif kind == "slot":
                weight, _, slot = rest.rpartition(".")
                self._slots[weight][slot] = exact
        self._epoch, self._finished = epoch, step


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
        elif layer.kind == "zero_padding":
            given = (layer.padding,)
        else:
            given = tuple(_connected(w, weights[w.name]) for w in layer.weights)
        x, memories[layer.name] = layer_forward(x, *given)
        if x.shape[1:] != layer.output_shape:
            raise ValueError(
                f"{layer.name}: the architecture says {layer.output_shape}, "
                f"but {x.shape[1:]} came out."
            )
        outputs[layer.name] = x
    return outputs, memories


def _connected(weight: Weight, array: Floats) -> Floats:
    """The array with zeros where a table leaves a connection out."""
    return array * weight.connected if weight.table else array


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
        for weight, array in zip(layer.weights, found, strict=True):
            gradients[weight.name] = _connected(weight, array)
    return gradients
