"""The PyTorch lesson taken step by step: see `paripassu.frameworks.Twin`.

It takes its steps by the lesson's loop and defines no layer itself: hooks read
what each layer computes, and put the given masks in dropout's place.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from paripassu.core.layout import relayout
from paripassu.core.networks import Network
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays, Given, TwinStep, accuracies
from paripassu.frameworks.contract import Saw
from paripassu.frameworks.pytorch import recipes
from paripassu.frameworks.pytorch.trainer import Trainer, under
from paripassu.frameworks.pytorch.weights import from_common, to_common

# Each optimizer's own names of what it keeps, and the reference's.
SLOTS = {
    "adadelta": {"square_avg": "square_gradient", "acc_delta": "square_update"},
    "sgd": {"momentum_buffer": "velocity"},
    "adam": {"exp_avg": "mean_gradient", "exp_avg_sq": "square_gradient"},
    "nadam": {"exp_avg": "mean_gradient", "exp_avg_sq": "square_gradient"},
    "rmsprop": {"square_avg": "square_gradient"},
}
AVERAGE = {"average": "average"}  # beside them: the running mean of the weights

Override = Callable[..., Tensor]  # of a module, and what enters it


class _Batch:
    """One batch for the lesson's loop, which asks for it by rows."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self._both = images, labels

    def __getitem__(self, _rows: object) -> tuple[Tensor, Tensor]:
        return self._both


class Twin:
    """The lesson's network; `overrides` and `loss` are for seeded faults."""

    def __init__(
        self, recipe: Recipe, *, weights: Given, threads: int, device: str
    ) -> None:
        self.recipe = recipe
        self.trainer = Trainer(
            recipe, weights=weights, threads=threads, device=device
        )
        self.network = self.trainer.network
        self.overrides: dict[str, Override] = {}
        self.rates: dict[str, float] = {}
        self.masks: Mapping[str, npt.NDArray[np.bool_]] = {}
        self._outputs: dict[str, Tensor] | None = None
        self._gradients: dict[str, Tensor | None] = {}
        self._epoch = 0
        self._slots = SLOTS[recipe.optimizer.kind] | AVERAGE
        self._flat = _flattened(recipe.architecture)
        for name, module in self.network.named_children():
            if isinstance(module, nn.Dropout):
                self.overrides[name] = self._given_mask(name)
                # Its own draw would cost time and be thrown away.
                self.rates[name], module.p = module.p, 0.0
            module.register_forward_hook(self._hook(name))
        self._read_gradients()

    @property
    def loss(self) -> recipes.Loss:
        """What the trainer minimises."""
        return self.trainer.loss

    @loss.setter
    def loss(self, loss: recipes.Loss) -> None:
        self.trainer.loss = loss

    def evaluate(self, images: npt.NDArray[np.float32]) -> Arrays:
        self._outputs = {}
        self.network.eval()
        with self.trainer.averaged(), torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2)
            x = x.to(**self.trainer.place)
            self.network(x)
        return {"input": _channels_last(x), **self._take_outputs()}

    def logits(self, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        return self.trainer.logits(images)

    def begin_epoch(self, epoch: int) -> None:
        seen = accuracies(epoch, self.recipe.decay.patience)
        for accuracy in seen[self._epoch :]:
            recipes.end_epoch(self.trainer.schedule, self.recipe, accuracy)
        self._epoch = max(epoch, self._epoch)

    def learning_rates(self, length: int) -> npt.NDArray[np.float64]:
        optimizer = recipes.make_optimizer(self.network, self.recipe)
        schedule = recipes.make_schedule(optimizer, self.recipe)
        per_step = self.recipe.decay.unit == "step"
        rates = []
        seen = accuracies(self.recipe.epochs, self.recipe.decay.patience)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no step of the optimizer is made
            for accuracy in seen:
                for _ in range(length):
                    rates.append(optimizer.param_groups[0]["lr"])
                    if per_step:
                        schedule.step()
                recipes.end_epoch(schedule, self.recipe, accuracy)
        return np.array(rates)

    def step(self, step: TwinStep) -> Arrays:
        self._outputs = {}
        loss = self._step(step)
        gradients, self._gradients = self._gradients, {}
        return {
            "loss": loss.numpy(force=True).copy(),
            **_prefixed("activation.", self._take_outputs()),
            **_prefixed("gradient.", self._common(gradients)),
        }

    def advance(self, step: TwinStep) -> float:
        return float(self._step(step))

    def _step(self, step: TwinStep) -> Tensor:
        self.masks = step.masks
        place = self.trainer.place
        images = torch.from_numpy(step.images).permute(0, 3, 1, 2).to(**place)
        labels = torch.from_numpy(step.labels).to(place["device"])
        batch = _Batch(images, labels)
        ((loss, _right),) = self.trainer.steps(batch, [None])
        if self.recipe.decay.unit == "step":
            self.trainer.schedule.step()
        return torch.as_tensor(loss)

    def watched(self, saw: Saw) -> Trainer:
        """The trainer, which tells `saw` every batch that it trains on."""
        images: list[Tensor] = []
        loss = self.loss

        def remember(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if network.training:
                images[:] = inputs

        def tell(output: Tensor, labels: Tensor) -> Tensor:
            if self.network.training:
                (x,) = images
                saw(_channels_last(x), labels.numpy(force=True))
            return loss(output, labels)

        self.network.register_forward_pre_hook(remember)
        self.loss = tell
        return self.trainer

    def state(self) -> Arrays:
        slots: dict[str, dict[str, Tensor]] = {}
        for name, parameter in self.network.named_parameters():
            kept = self.trainer.optimizer.state.get(parameter, {})
            for own, slot in self._slots.items():
                if own in kept:
                    slots.setdefault(slot, {})[name] = kept[own]
        state = _prefixed("weight.", self.trainer.own_weights())
        for slot, tensors in slots.items():
            for name, array in self._common(tensors).items():
                state[f"slot.{name}.{slot}"] = array
        return state

    def load_state(self, state: Given, *, epoch: int, step: int) -> None:
        weights = from_common(self.recipe, under("weight.", state))
        self.network.load_state_dict(weights)
        optimizer = recipes.make_optimizer(self.network, self.recipe)
        self.trainer.optimizer = optimizer
        self._read_gradients()
        self.trainer.schedule = recipes.make_schedule(optimizer, self.recipe)
        slots: dict[str, dict[str, Any]] = {}
        for name, array in under("slot.", state).items():
            weight, _, slot = name.rpartition(".")
            slots.setdefault(slot, {})[weight] = array
        parameters = dict(self.network.named_parameters())
        for own, slot in self._slots.items():
            if slot not in slots:
                continue
            moved = from_common(self.recipe, slots[slot], learned=True)
            for name, parameter in parameters.items():
                kept = optimizer.state[parameter]
                kept[own] = moved[name].to(parameter)
                kept["step"] = torch.tensor(float(step))
        self._epoch = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no step was made before
            self.begin_epoch(epoch)
            if self.recipe.decay.unit == "step":
                for _ in range(step):
                    self.trainer.schedule.step()

    def _read_gradients(self) -> None:
        """Have the optimizer show the gradients that it takes a step with."""

        def read(*_: object) -> None:
            if self._outputs is not None:
                self._gradients = {
                    name: None if x.grad is None else x.grad.clone()
                    for name, x in self.network.named_parameters()
                }

        optimizer = self.trainer.optimizer
        handle = optimizer.register_step_pre_hook(read)
        # First, as they came from the loss: another may clip them.
        optimizer._optimizer_step_pre_hooks.move_to_end(handle.id, last=False)

    def _common(self, tensors: Mapping[str, Any]) -> Arrays:
        return to_common(self.recipe, tensors, learned=True)

    def _hook(
        self, name: str
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(
            module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
        ) -> Tensor:
            if name in self.overrides:
                output = self.overrides[name](module, *inputs)
            if self._outputs is not None:
                self._outputs[name] = output
            return output

        return hook

    def _given_mask(self, name: str) -> Override:
        def masked(module: nn.Module, x: Tensor) -> Tensor:
            if not module.training or not self.rates[name]:
                return x
            given = self.masks[name]
            if name in self._flat:
                sizes = self._flat[name]
                given = relayout(given, "n (h w c) -> n (c h w)", **sizes)
            mask = torch.from_numpy(given).to(x.device)
            if mask.ndim == 4:
                mask = mask.permute(0, 3, 1, 2)  # (N, h, w, c) -> (N, c, h, w)
            return x * mask / (1 - self.rates[name])

        return masked

    def _take_outputs(self) -> Arrays:
        """The activations with their axes as in the architecture."""
        outputs, self._outputs = self._outputs or {}, None
        found = {}
        for layer in self.recipe.architecture.layers:
            output = outputs[layer.name]
            if layer.name in self._flat:
                found[layer.name] = relayout(
                    output.numpy(force=True),
                    "n (c h w) -> n (h w c)",
                    **self._flat[layer.name],
                )
            else:
                found[layer.name] = _channels_last(output)
        return found


def _flattened(network: Network) -> dict[str, dict[str, int]]:
    """Of each layer whose numbers are those of an image, that image's shape.

    There PyTorch has the channels first, and the architecture has them last.
    """
    return {
        x.name: dict(zip("hwc", x.flattened, strict=True))
        for x in network.layers
        if x.flattened
    }


def _channels_last(tensor: Tensor) -> npt.NDArray[Any]:
    array = tensor.numpy(force=True)
    if array.ndim == 4:
        return relayout(array, "n c h w -> n h w c")
    return array.copy()


def _prefixed(prefix: str, arrays: Arrays) -> Arrays:
    return {prefix + name: array for name, array in arrays.items()}
