"""Whose weights a file holds: by the recipe in it, or the network that it fits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from paripassu.core import layout
from paripassu.core.errors import UserError
from paripassu.core.networks import NETWORKS
from paripassu.core.recipe import Recipe, parse
from paripassu.core.steps import Arrays

PRECISIONS = ("float32", "float64")


def recipe_of(notes: Mapping[str, str], path: Path) -> Recipe | None:
    """The recipe that travels with a file; None if none does."""
    text = notes.get("recipe")
    return parse(text, f"the recipe in {path}") if text else None


def recognised(
    path: Path,
    arrays: Mapping[str, npt.NDArray[Any]],
    recipe: Recipe | None,
    to_canonical: Any,
) -> tuple[Recipe, Arrays]:
    """Whose weights these are, and what they are in the canonical layout.

    Without a recipe, each architecture is tried.

    Raises:
        UserError: they are nobody's, or not finite numbers of 32 or 64 bits.
    """
    for name, array in arrays.items():
        if array.dtype.name not in PRECISIONS:
            raise UserError(
                f"{path}: {name} is of type {array.dtype}: expected one of "
                f"{', '.join(PRECISIONS)}."
            )
    tried = [recipe] if recipe else _one_recipe_for_each_network()
    problems = []
    for candidate in tried:
        try:
            weights = to_canonical(candidate, arrays)
            layout.check_weights(candidate.architecture, weights)
        except UserError as error:
            problems.append(str(error))
            continue
        return candidate, weights
    if recipe:
        raise UserError(f"{path}: {problems[0]}")
    raise UserError(
        f"{path} holds the weights of no network that is known here. "
        + " ".join(problems)
    )


def _one_recipe_for_each_network() -> list[Recipe]:
    return [
        Recipe(
            name=network.name,
            network=network.name,
            dropout={x.name: 0.0 for x in network.layers_of("dropout")},
        )
        for network in NETWORKS.values()
    ]
