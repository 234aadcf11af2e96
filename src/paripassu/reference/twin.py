"""The reference: any network, taken step by step in float64.

It walks the layers that the architecture names, forward and
backward, so a new network needs code here only if it has a new kind of layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core.architecture import IMAGES, STATISTICS
from paripassu.core.layer_spec import LayerSpec
from paripassu.core.layout import check_weights
from paripassu.core.networks import Layer, Network, Weight
from paripassu.core.recipe import Nadam, Recipe
from paripassu.core.steps import Arrays, Given, TwinStep
from paripassu.reference.layers import (
    BACKWARD,
    FORWARD,
    JOINS_BACKWARD,
    running_statistics,
)
from paripassu.reference.losses import loss_of
from paripassu.reference.optimizers import (
    PRODUCT,
    Floats,
    State,
    average,
    learning_rate,
    product_of_momentums,
    rule_of,
    step_once,
)

Weights = Mapping[str, Floats]
Masks = Mapping[str, npt.NDArray[np.bool_]]


class Twin:
    """The reference, step by step: see `paripassu.frameworks.contract.Twin`.

    Always in float64 and on the CPU, whatever the recipe's precision and the
    device: this is the yardstick. NumPy takes its threads from the environment.

    Raises:
        UserError: `weights` are not those of the network, or not finite.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        weights: Given,
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
        self._slots: dict[str, State] = self._no_slots()
        self._epoch = self._finished = 0  # epochs, steps

    def _no_slots(self) -> dict[str, State]:
        return {weight.name: {} for weight in self.network.learned}

    def evaluate(self, images: npt.NDArray[Any]) -> Arrays:
        """Layer -> what leaves it, dropout off."""
        calls = forward(self.network, self.recipe, self._means, images, None)
        x = as_input(self.network, images)
        return {"input": x, **{call.layer.name: call.y for call in calls}}

    def logits(self, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """`(N, h, w)` in, `(N, classes)` out; a thousand images at a time."""
        outputs = np.concatenate(
            [
                forward(self.network, self.recipe, self._means, part, None)[-1].y
                for part in np.split(images, range(1000, len(images), 1000))
            ]
        )
        if self.recipe.output == "logits":
            return outputs
        return np.log(np.maximum(outputs, np.finfo(np.float64).tiny))

    @property
    def _means(self) -> Weights:
        """What is evaluated: the running means of the weights where there are some."""
        weights = self._weights
        return {n: self._slots.get(n, {}).get("average", x) for n, x in weights.items()}

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
        calls = forward(
            self.network, self.recipe, self._weights, step.images, step.masks
        )
        loss, gradient = loss_of(self.recipe)(calls[-1].y, step.labels)
        gradients = backward(calls, gradient)
        rate = learning_rate(self.recipe, epoch=self._epoch, step=self._finished)
        self._finished += 1
        before = self._slots
        moved, self._slots = step_once(
            rule_of(self.recipe.optimizer, self.recipe.clip_global_norm),
            {name: self._weights[name] for name in gradients},
            gradients,
            before,
            rate=rate,
            step=self._finished,
        )
        self._weights |= {**moved, **self._statistics(calls)}
        if share := self.recipe.average_decay:
            for name, kept in average(before, moved, share).items():
                self._slots[name] |= kept
        return {
            "loss": loss,
            **{f"activation.{call.layer.name}": call.y for call in calls},
            **{f"gradient.{name}": x for name, x in gradients.items()},
        }

    def _statistics(self, calls: Sequence[Call]) -> dict[str, Floats]:
        """The running statistics of every batch norm after a step."""
        found = {}
        for call in calls:
            if call.layer.kind == "batch_norm":
                kept = {
                    part: self._weights[f"{call.layer.name}.{part}"]
                    for part in STATISTICS
                }
                for part, array in running_statistics(call.spec, call.x, kept).items():
                    found[f"{call.layer.name}.{part}"] = array
        return found

    def advance(self, step: TwinStep) -> float:
        """A step, of which only the loss is told."""
        return float(self.step(step)["loss"])

    def state(self) -> Arrays:
        """Weights and the optimizer's slots."""
        state = {f"weight.{name}": x for name, x in self._weights.items()}
        for name, slots in self._slots.items():
            state |= {
                f"slot.{name}.{slot}": x
                for slot, x in slots.items()
                if slot != PRODUCT  # the same of each weight, by the number of steps
            }
        return state

    def load_state(self, state: Given, *, epoch: int, step: int) -> None:
        """Go on from a state of any framework's."""
        self._slots = self._no_slots()
        for name, array in state.items():
            kind, _, rest = name.partition(".")
            exact = np.asarray(array, np.float64)
            if kind == "weight":
                self._weights[rest] = exact
            elif kind == "slot":
                weight, _, slot = rest.rpartition(".")
                self._slots[weight][slot] = exact
        if isinstance(self.recipe.optimizer, Nadam):
            product = product_of_momentums(self.recipe.optimizer, step)
            for slots in self._slots.values():
                slots[PRODUCT] = np.array(product)
        self._epoch, self._finished = epoch, step


@dataclass(frozen=True)
class Call:
    """A layer at work: what it is, with its weights, what enters it and what leaves."""

    layer: Layer
    spec: LayerSpec
    inputs: tuple[Floats, ...]
    y: Floats

    @property
    def x(self) -> Floats:
        """What enters it, or the first of that."""
        return self.inputs[0]


def as_input(network: Network, images: npt.NDArray[Any]) -> Floats:
    """Images as they enter a network: float64 `(N, h, w, c)`."""
    return images.astype(np.float64).reshape(len(images), *network.input_shape)


def forward(
    network: Network,
    recipe: Recipe,
    weights: Weights,
    images: npt.NDArray[Any],
    masks: Masks | None,
) -> list[Call]:
    """From images to what the last layer gives.

    Args:
        network: the layers to walk.
        recipe: the rates of dropout.
        weights: canonical names and layout.
        images: `(N, h, w)` or `(N, h, w, c)`, any float type.
        masks: dropout layer -> what it keeps; None turns dropout off, and has each
            batch norm use its running statistics.

    Returns:
        Every layer at work, in order.

    Raises:
        ValueError: what leaves a layer has not the shape that the network says.
    """
    outputs = {IMAGES: as_input(network, images)}
    calls: list[Call] = []
    for layer in network.layers:
        settings = dict(layer.settings)
        if layer.kind == "dropout" and masks is not None:
            settings |= {"mask": masks[layer.name], "rate": recipe.dropout[layer.name]}
        own = {
            w.part: _connected(w, weights[w.name])
            for w in layer.weights
            if w.learned or masks is None
        }
        spec = LayerSpec(layer.kind, settings, own)
        inputs = tuple(outputs[source] for source in layer.inputs)
        y = FORWARD[layer.kind](spec, *inputs)
        if y.shape[1:] != layer.output_shape:
            raise ValueError(
                f"{layer.name}: {layer.output_shape} is expected to leave it by the "
                f"architecture of {network.name}, but {y.shape[1:]} came out."
            )
        calls.append(Call(layer, spec, inputs, y))
        outputs[layer.name] = y
    return calls


def _connected(weight: Weight, array: Floats) -> Floats:
    """The array with zeros where a table leaves a connection out."""
    return array * weight.connected if weight.table else array


def backward(calls: Sequence[Call], gradient: Floats) -> dict[str, Floats]:
    """From the gradient of what the last layer gives to that of every weight.

    What several layers take gets the sum of what they send back.
    """
    gradients: dict[str, Floats] = {}
    waiting = {calls[-1].layer.name: gradient}
    for call in reversed(calls):
        layer, spec = call.layer, call.spec
        gradient = waiting.pop(layer.name)
        found: Mapping[str, Floats] = {}
        if spec.kind in JOINS_BACKWARD:
            sent = JOINS_BACKWARD[spec.kind](spec, call.inputs, gradient)
        else:
            to_x, found = BACKWARD[spec.kind](spec, call.x, call.y, gradient)
            sent = [to_x]
        for source, array in zip(layer.inputs, sent, strict=True):
            before = waiting.get(source)
            waiting[source] = array if before is None else before + array
        for weight in layer.weights:
            if weight.learned:
                gradients[weight.name] = _connected(weight, found[weight.part])
    return gradients
