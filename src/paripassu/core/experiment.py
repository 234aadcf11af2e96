"""An experiment: a recipe and the data that it is run on."""

from __future__ import annotations

from pathlib import Path

from paripassu.core import datasets, record
from paripassu.core.recipe import Recipe


def read_data(
    recipe: Recipe, path: str | Path | None
) -> tuple[datasets.ImageData, datasets.Prepared]:
    """Read the data at `path` (None: the package's MNIST) as the recipe wants them.

    Raises:
        UserError: the data are damaged, or do not fit the recipe.
    """
    data = datasets.load(path)
    data.check_fits(recipe.architecture)
    prepared = datasets.prepare(
        data,
        mean=recipe.normalization.mean,
        std=recipe.normalization.std,
        validation_size=recipe.validation_size,
    )
    return data, prepared


def identify(recipe: Recipe, dataset: record.Dataset) -> str:
    """The hash of all that decides a run's result: recipe and data."""
    return recipe.hash(*sorted(dataset.sha256.values()))


def steps_per_epoch(recipe: Recipe, count: int) -> int:
    """How many batches `count` images make; the last may be short."""
    return -(-count // recipe.batch_size)
