"""What `paripassu bench` times in the toy."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from paripassu.core import datasets, draws
from paripassu.core.recipe import Recipe, load
from paripassu_toy import lesson
from paripassu_toy.trainer import Trainer


def device() -> str:
    """What this process computes on."""
    return "cpu"


def matrix_product(size: int, recipe: Recipe, threads: int) -> list[float]:  # noqa: ARG001
    """Seconds of each of five products of two square matrices."""
    left, right = np.ones((2, size, size), np.float32)
    return list(_seconds(5, lambda: left @ right))


def kernels(recipe: Recipe, threads: int) -> float:  # noqa: ARG001
    """Seconds of a step's matrix product, which is all that the toy can name."""
    left = np.ones((recipe.batch_size, 784), np.float32)
    right = np.ones((784, 10), np.float32)
    return min(_seconds(5, lambda: left @ right))


def lesson_epoch(trainer: Trainer, recipe: Recipe, training: datasets.Split) -> float:
    """Seconds of one epoch of the lesson's loop, with nothing around it."""
    order = draws.batches(recipe, len(training), 0)
    start = time.perf_counter()
    list(lesson.train_epoch(trainer.network, training, order, 0))
    return time.perf_counter() - start


class Notebook:
    """A training in the style of a notebook: the lesson, once more."""

    def __init__(self, raw: datasets.ImageData, *, threads: int, seed: int) -> None:
        recipe = load("fast").changed(seed=seed, precision="float32")
        self._data = datasets.prepare(raw, mean=0.1307, std=0.3081)
        first = draws.initial_weights(recipe.architecture, recipe)
        self._recipe = recipe
        self._trainer = Trainer(recipe, weights=first, threads=threads, device="cpu")

    def epoch(self) -> float:
        """Train once on all images: seconds."""
        return lesson_epoch(self._trainer, self._recipe, self._data.training)

    def accuracy(self) -> float:
        """The share of right answers on the test images."""
        return self._trainer.evaluate(self._data.test)[1]


def _seconds(count: int, work) -> Iterator[float]:
    for _ in range(count):
        start = time.perf_counter()
        work()
        yield time.perf_counter() - start
