"""What a recipe may ask for: the lesson's parts, and others beside them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paripassu.core.recipe import Recipe
from paripassu.frameworks.pytorch import layers, lesson, optimizers

Loss = Callable[[Tensor, Tensor], Tensor]
BYTE_RATES = frozenset(n / 256 for n in range(1, 256))


def make_network(recipe: Recipe) -> Any:
    """The recipe's network, `nn.Module`, with a softmax if it has one.

    Its children have the names of the architecture.
    """
    if recipe.layers is not None:
        return layers.Layers(recipe.architecture, recipe.dropout)
    network = _class_of(recipe.network)(**recipe.dropout)
    if recipe.output == "probabilities":
        network.softmax = nn.Softmax(dim=1)
        if not isinstance(network, nn.Sequential):  # which runs every child
            network.register_forward_hook(
                lambda module, _inputs, logits: module.softmax(logits)
            )
    return network


def compute_in_bfloat16(network: Any, device: str) -> None:
    """Autocast the network: weights and logits stay float32, layers do not."""
    forward = torch.autocast(device, torch.bfloat16)(network.forward)
    network.forward = lambda x: forward(x).float()


def drop_by_bytes(network: nn.Module) -> None:
    """Let dropout on a CPU draw 8 random bits for a number instead of 53.

    Where PyTorch draws without MKL's generator, on other processors than
    Intel's, `bernoulli_` goes from number to number and takes a sixth of a
    training step. A byte is as good where the rate is a multiple of 1/256: the
    chance of each number to be dropped is exactly the rate, and the numbers
    stay independent. Other rates are left as they are. The layers stay
    `nn.Dropout`, so that files and `repr` do not change.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Dropout) and layer.p in BYTE_RATES:
            layer.forward = partial(_dropped, layer)  # type: ignore[method-assign]


def _dropped(layer: nn.Dropout, x: Tensor) -> Tensor:
    if not layer.training:
        return x
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64)
    words.random_(-(2**63), None)  # all 64 bits
    noise = words.view(torch.uint8)[: x.numel()].view(x.shape)
    kept = (noise >= round(layer.p * 256)).to(x.dtype)
    return x * kept.mul_(1 / (1 - layer.p))


def _class_of(network: str) -> Any:
    if network == "article":
        return lesson.Network
    module = network.replace("-", "_")
    folder = "paripassu.frameworks.pytorch.networks"
    return importlib.import_module(f"{folder}.{module}").Network


def make_loss(recipe: Recipe) -> Loss:
    """From what leaves the network and labels to the mean loss, a scalar."""
    if recipe.loss == "cross_entropy_on_probabilities":
        return cross_entropy_on_probabilities
    if recipe.label_smoothing:
        return nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    return lesson.cross_entropy


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer, in its form, with what happens at its steps."""
    optimizer: torch.optim.Optimizer
    if recipe.optimizer.kind == "adadelta":
        optimizer = lesson.make_optimizer(network, recipe)
    else:
        optimizer = optimizers.make(network.parameters(), recipe.optimizer)
    if recipe.clip_global_norm:
        optimizers.clip_global_norm(optimizer, recipe.clip_global_norm)
    if recipe.average_decay:
        optimizers.keep_average(optimizer, recipe.average_decay)
    return optimizer


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe) -> Any:
    """The recipe's schedule; whoever steps it decides the unit."""
    decay = recipe.decay
    if decay.shape == "exponential":
        return lesson.make_schedule(optimizer, recipe)
    if decay.shape == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer,
            "max",
            decay.factor,
            decay.patience - 1,  # so many are borne, and the next is too much
            threshold=0.0,
            threshold_mode="abs",
            min_lr=decay.final * recipe.optimizer.learning_rate,
            eps=0.0,
        )

    def factor(finished: int) -> float:
        if finished < decay.warm_up:
            if decay.shape == "one_cycle":
                return _between(decay.start, 1.0, finished / decay.warm_up)
            return (finished + 1) / decay.warm_up
        left = max(0.0, decay.interval - finished)
        share = left / (decay.interval - decay.warm_up)
        if decay.shape == "linear":
            return share
        return _between(decay.final, 1.0, share)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def end_epoch(schedule: Any, recipe: Recipe, accuracy: float) -> None:
    """Tell the schedule that an epoch is over, if it is one of epochs."""
    if recipe.decay.shape == "plateau":
        schedule.step(accuracy)
    elif recipe.decay.unit == "epoch":
        schedule.step()


def _between(low: float, high: float, share: float) -> float:
    """From one to the other by half a cosine, as share goes from 0 to 1."""
    return high + (low - high) / 2 * (1 + math.cos(math.pi * share))


def cross_entropy_on_probabilities(
    probabilities: Tensor, labels: Tensor
) -> Tensor:
    """The mean of -log p of the right class; p that is 0 counts as tiny."""
    tiny = torch.finfo(probabilities.dtype).tiny
    return F.nll_loss(probabilities.clamp_min(tiny).log(), labels)
