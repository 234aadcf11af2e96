"""Runs the toy's lesson for a record: see `paripassu.frameworks.contract.Trainer`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core import draws
from paripassu.core.datasets import Split
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays
from paripassu.frameworks.contract import EpochReport
from paripassu_toy import lesson


class Trainer:
    """One network; the reference has its optimizer and its schedule."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        weights: Mapping[str, npt.NDArray[Any]],
        threads: int,  # noqa: ARG002
        device: str,
    ) -> None:
        if device == "gpu":
            raise UserError("Toy has no GPU. Type --device cpu.")
        self.device = "cpu"
        self.versions = {"toy": "0.1"}
        self.settings = {"mode": "toy"}
        self._recipe = recipe
        self.network = lesson.Network(recipe, weights)

    def warm_up(self, training: Split) -> None:
        before = self.state()
        rows = np.arange(min(self._recipe.batch_size, len(training)))
        list(lesson.train_epoch(self.network, training, [rows], 0))
        self.load_state(before)

    def train(
        self,
        training: Split,
        monitored: Split,
        *,
        first_epoch: int,
        on_step: Callable[[int, float, float], None],
        on_epoch: Callable[[EpochReport], None],
    ) -> None:
        for epoch in range(first_epoch, self._recipe.epochs):
            batches = draws.batches(self._recipe, len(training), epoch)
            rates = self.network.twin.learning_rates(len(batches))
            start = time.perf_counter()
            loss, right, seen = 0.0, 0, 0
            steps = lesson.train_epoch(self.network, training, batches, epoch)
            for number, (mean, correct) in enumerate(steps):
                size = len(batches[number])
                loss, right, seen = loss + mean * size, right + correct, seen + size
                on_step(number + 1, loss / seen, right / seen)
            trained = time.perf_counter()
            monitor_loss, monitor_accuracy = self.evaluate(monitored)
            # The next epoch begins where this one ends.
            self.network.epoch = epoch + 1
            on_epoch(
                EpochReport(
                    epoch=epoch,
                    seconds=trained - start,
                    evaluation_seconds=time.perf_counter() - trained,
                    learning_rate=float(rates[epoch * len(batches)]),
                    training_loss=loss / seen,
                    training_accuracy=right / seen,
                    monitor_loss=monitor_loss,
                    monitor_accuracy=monitor_accuracy,
                )
            )

    def evaluate(self, split: Split) -> tuple[float, float]:
        return lesson.evaluate(self.network, split)

    def logits(self, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        return self.network.twin.logits(images).astype(self._recipe.storage)

    def weights(self) -> Arrays:
        return self.network.arrays("weight.")

    def state(self) -> Arrays:
        place = np.array([self.network.epoch, self.network.finished])
        return {**self.network.arrays(""), "place": place}

    def load_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        arrays = dict(state)
        epoch, step = arrays.pop("place").tolist()
        self.network.restore(arrays, epoch, step)

    def peak_accelerator_bytes(self) -> int | None:
        return None
