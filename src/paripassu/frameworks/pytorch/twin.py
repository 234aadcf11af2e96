"""The PyTorch lesson taken step by step, under given weights, images and masks.

It uses the lesson's network, loss and optimizer and defines no layer itself:
hooks read what each layer computes, and put the given masks in dropout's place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from paripassu.core import networks
from paripassu.core.layout import relayout
from paripassu.core.recipe import Recipe
from paripassu.frameworks import Arrays, TwinStep
from paripassu.frameworks.pytorch import lesson
from paripassu.frameworks.pytorch.trainer import Trainer


def trace(
    recipe: Recipe,
    *,
    weights: Mapping[str, npt.NDArray[Any]],
    steps: Sequence[TwinStep],
    threads: int,
    device: str,
) -> Arrays:
    """What the network computes: see `paripassu.frameworks.Framework.trace`."""
    trainer = Trainer(recipe, weights=weights, threads=threads, device=device)
    network, optimizer = trainer.network, trainer.optimizer
    arrays: Arrays = {"logits": trainer.logits(steps[0].images)}
    network.train()
    for number, step in enumerate(steps):
        images, labels = lesson.to_tensors(step, **trainer.place)
        outputs: dict[str, Tensor] = {}
        hooks = [
            module.register_forward_hook(_read(name, outputs, step.masks))
            for name, module in network.named_children()
        ]
        loss = lesson.cross_entropy(network(images), labels)
        for hook in hooks:
            hook.remove()
        optimizer.zero_grad()
        loss.backward()
        gradients = {name: p.grad for name, p in network.named_parameters()}
        optimizer.step()
        if recipe.decay.unit == "step":
            trainer.schedule.step()
        arrays[f"{number}.loss"] = loss.numpy(force=True).copy()
        for name, output in outputs.items():
            array = _canonical(recipe, name, output.numpy(force=True))
            arrays[f"{number}.activation.{name}"] = array
        for name, array in lesson.to_common(gradients).items():
            arrays[f"{number}.gradient.{name}"] = array
        for name, array in lesson.to_common(network.state_dict()).items():
            arrays[f"{number}.weight.{name}"] = array
    return arrays


def _read(
    name: str, outputs: dict[str, Tensor], masks: Mapping[str, npt.NDArray[Any]]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(
        module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
    ) -> Tensor:
        if isinstance(module, nn.Dropout):
            (x,) = inputs
            mask = torch.from_numpy(masks[name]).to(x.device)
            if mask.ndim == 4:
                mask = mask.permute(0, 3, 1, 2)  # (N, h, w, c) -> (N, c, h, w)
            output = x * mask / (1 - module.p)
        outputs[name] = output
        return output

    return hook


def _canonical(
    recipe: Recipe, name: str, activation: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """An activation of PyTorch's with its axes as on the score sheet."""
    layers = networks.find(recipe.network).layers
    position = [layer.name for layer in layers].index(name)
    if activation.ndim == 4:
        return relayout(activation, "n c h w -> n h w c")
    if layers[position].kind == "flatten":
        h, w, c = layers[position - 1].output_shape
        return relayout(activation, "n (c h w) -> n (h w c)", h=h, w=w, c=c)
    return activation.copy()
