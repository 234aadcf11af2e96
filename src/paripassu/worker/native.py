"""The worker's side of a conversion: native files written, read and tried."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu import frameworks
from paripassu.core import files, layout
from paripassu.core.errors import UserError
from paripassu.core.networks import NETWORKS
from paripassu.core.recipe import Recipe, parse, validate
from paripassu.frameworks import Arrays
from paripassu.worker.run import Emit, read_checkpoint

PRECISIONS = ("float32", "float64")


def _exchange(framework: str) -> Any:
    return importlib.import_module(f"paripassu.frameworks.{framework}.exchange")


def read(request: dict[str, Any], emit: Emit) -> None:
    """Write the canonical weights of a native file or of a run's checkpoint.

    Args:
        request: `path`, a file, or the folder of an unfinished run; `recipe`, or None
            for the one in the file; `out`, where the weights go.
        emit: gets `read` with the `recipe` and the file's `notes`.

    Raises:
        UserError: the file is damaged, or does not hold the weights of the recipe.
    """
    path = Path(request["path"])
    given = validate(request["recipe"]) if request["recipe"] else None
    if path.is_dir():
        recipe, weights = _of_checkpoint(path, request)
        notes: dict[str, str] = {}
    else:
        exchange = _exchange(request["framework"])
        arrays, notes = exchange.read(path)
        recipe, weights = recognised(
            path, arrays, given or recipe_of(notes, path), exchange.to_canonical
        )
    files.write_tensors(request["out"], weights)
    emit("read", recipe=recipe.model_dump(), notes=notes)


def _of_checkpoint(folder: Path, request: dict[str, Any]) -> tuple[Recipe, Arrays]:
    current, state = read_checkpoint(folder)
    if current is None or state is None:
        raise UserError(
            f"the run in {folder} has not finished an epoch: there is nothing to use."
        )
    recipe = validate(current.recipe)
    trainer = frameworks.find(current.framework).make_trainer(
        recipe,
        weights={x.name: np.zeros(x.shape) for x in recipe.score_sheet.weights},
        threads=int(request["threads"]),
        device="cpu",
    )
    trainer.load_state(state)
    return recipe, trainer.weights()


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

    Without a recipe, each network of the score sheet is tried.

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
            layout.check_weights(candidate.score_sheet, weights)
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


def write(request: dict[str, Any], emit: Emit) -> None:
    """Write a native file from canonical weights.

    Args:
        request: `recipe`; `weights`, a safetensors file; `path`; `notes`.
        emit: gets `written`.
    """
    weights, _metadata = files.read_tensors(Path(request["weights"]))
    _exchange(request["framework"]).write(
        validate(request["recipe"]),
        weights,
        Path(request["path"]),
        request["notes"],
    )
    emit("written", path=request["path"])


def logits_of(request: dict[str, Any], emit: Emit) -> None:
    """What a framework answers with canonical weights.

    Args:
        request: `recipe`; `weights`, a safetensors file; `images`, a safetensors file
            with `images` float32 `(N, 28, 28)`, normalised; `out`.
        emit: gets `answered`; `out` then holds `logits`, `(N, classes)`.
    """
    weights, _metadata = files.read_tensors(Path(request["weights"]))
    images, _metadata = files.read_tensors(Path(request["images"]))
    framework = frameworks.find(request["framework"])
    options = {
        "weights": weights,
        "threads": int(request["threads"]),
        "device": "cpu",
    }
    recipe = validate(request["recipe"]).for_use
    model = (
        framework.make_twin(recipe, **options)
        if framework is frameworks.REFEREE
        else framework.make_trainer(recipe, **options)
    )
    files.write_tensors(request["out"], {"logits": model.logits(images["images"])})
    emit("answered", out=request["out"])
