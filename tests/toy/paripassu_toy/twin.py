"""The toy's lesson step by step: see `paripassu.frameworks.contract.Twin`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays, TwinStep
from paripassu.frameworks.contract import Saw
from paripassu_toy import lesson
from paripassu_toy.trainer import Trainer


class Twin:
    """The lesson's network; `spoil` is for seeded faults: it changes the state."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        weights: Mapping[str, npt.NDArray[Any]],
        threads: int,  # noqa: ARG002
        device: str,  # noqa: ARG002
    ) -> None:
        self.recipe = recipe
        self.network = lesson.Network(recipe, weights)
        self.spoil: Callable[[Arrays], Arrays] = lambda state: state

    def evaluate(self, images: npt.NDArray[np.float32]) -> Arrays:
        return self._kept(self.network.twin.evaluate(images))

    def logits(self, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        return self.network.twin.logits(images).astype(self.recipe.storage)

    def begin_epoch(self, epoch: int) -> None:
        self.network.twin.begin_epoch(epoch)
        self.network.epoch = epoch

    def learning_rates(self, length: int) -> npt.NDArray[np.float64]:
        return self.network.twin.learning_rates(length)

    def step(self, step: TwinStep) -> Arrays:
        found = self.network.twin.step(step)
        state = self.spoil(self.network.twin.state())
        self.network.restore(state, self.network.epoch, self.network.finished + 1)
        return self._kept(found)

    def advance(self, step: TwinStep) -> float:
        return float(self.step(step)["loss"])

    def watched(self, saw: Saw) -> Trainer:
        weights = self.network.arrays("weight.")
        trainer = Trainer(self.recipe, weights=weights, threads=1, device="cpu")
        step = trainer.network.twin.step

        def told(given: TwinStep) -> Arrays:
            saw(given.images, given.labels)
            return step(given)

        trainer.network.twin.step = told
        return trainer

    def state(self) -> Arrays:
        return self.network.arrays("")

    def load_state(
        self, state: Mapping[str, npt.NDArray[Any]], *, epoch: int, step: int
    ) -> None:
        self.network.restore(dict(state), epoch, step)

    def _kept(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        return {n: np.asarray(x, self.recipe.storage) for n, x in arrays.items()}
