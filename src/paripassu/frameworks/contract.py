"""What a framework's folder holds: a protocol for each of its modules.

NumPy arrays go in and come out; nothing is inherited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from paripassu.core.datasets import Split
from paripassu.core.steps import Arrays, TwinStep


@dataclass(frozen=True)
class EpochReport:
    """What a trainer tells after an epoch (counted from 0)."""

    epoch: int
    seconds: float
    evaluation_seconds: float
    learning_rate: float
    training_loss: float
    training_accuracy: float
    monitor_loss: float
    monitor_accuracy: float


class Trainer(Protocol):
    """A lesson under a harness: one network, built for one recipe.

    Made by `trainer.Trainer(recipe, weights=..., threads=..., device=...)`;
    `device` is "auto", "cpu" or "gpu".
    """

    MODEL_FILE: str  # the framework's own format

    device: str  # "cpu" or the accelerator's own name
    versions: dict[str, str]
    settings: dict[str, str]

    def warm_up(self, training: Split) -> None:
        """Run a few steps, so that compilation is over, and undo them."""

    def train(
        self,
        training: Split,
        monitored: Split,
        *,
        first_epoch: int,
        on_step: Callable[[int, float, float], None],
        on_epoch: Callable[[EpochReport], None],
    ) -> None:
        """Train to the recipe's last epoch.

        `on_step` gets, now and then, the number of steps finished in the epoch,
        and the mean loss and accuracy so far; `on_epoch` comes when training
        and evaluation of the epoch are over and the state is ready to be saved.
        """

    def evaluate(self, split: Split) -> tuple[float, float]:
        """Mean loss per image and accuracy 0..1, dropout off."""

    def logits(self, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """`(N, 28, 28)` in, `(N, classes)` out, dropout off."""

    def weights(self) -> Arrays:
        """The weights, canonical names and layout."""

    def state(self) -> Arrays:
        """All that training goes on from: weights, optimizer, generators."""

    def load_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go back to a `state()`."""

    def save(self, path: Path) -> None:
        """Write the framework's own format."""

    def load(self, path: Path) -> None:
        """Read the framework's own format back."""

    def peak_accelerator_bytes(self) -> int | None:
        """The most accelerator memory held at once, where there is one."""


class Twin(Protocol):
    """A lesson taken step by step, under given weights, batches and masks.

    Made by `twin.Twin(recipe, weights=..., threads=..., device=...)`, in the
    recipe's precision. Arrays have canonical names and layouts, channels last.
    All that a twin goes on from is in `state()`: it draws nothing itself.
    """

    def evaluate(self, images: npt.NDArray[np.float32]) -> Arrays:
        """Layer -> what leaves it, dropout off, and the images as `input`."""

    def logits(self, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """`(N, 28, 28)` in, `(N, classes)` out, as the lesson does it."""

    def begin_epoch(self, epoch: int) -> None:
        """Take the learning rate of an epoch, counted from 0 upward."""

    def learning_rates(self, length: int) -> npt.NDArray[np.float64]:
        """The learning rate of every step of the recipe, `(epochs * length,)`.

        As the lesson's schedule gives it, without training; the twin stays as
        it is.
        """

    def step(self, step: TwinStep) -> Arrays:
        """Train one step: `activation.<layer>`, `loss`, `gradient.<weight>`."""

    def advance(self, step: TwinStep) -> float:
        """Train one step, quickly: its loss."""

    def state(self) -> Arrays:
        """`weight.<weight>` and the optimizer's `slot.<weight>.<name>`."""

    def load_state(
        self,
        state: Mapping[str, npt.NDArray[Any]],
        *,
        epoch: int,
        step: int,
    ) -> None:
        """Go to the state before a step, counted from 0 over all epochs.

        The state may come from another framework, in another precision.
        """
