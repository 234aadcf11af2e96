"""The worker's side of a conversion: native files written, read and tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from paripassu.core import files
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe, validate
from paripassu.core.recognition import recipe_of, recognised
from paripassu.core.steps import Arrays
from paripassu.frameworks import registry
from paripassu.worker.run import Emit, read_checkpoint


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
        native = registry.find(request["framework"]).module("files")
        arrays, notes = native.read(path)
        recipe, weights = recognised(
            path, arrays, given or recipe_of(notes, path), native.to_canonical
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
    trainer = registry.find(current.framework).make_trainer(
        recipe,
        weights={x.name: np.zeros(x.shape) for x in recipe.architecture.weights},
        threads=int(request["threads"]),
        device="cpu",
    )
    trainer.load_state(state)
    return recipe, trainer.weights()


def write(request: dict[str, Any], emit: Emit) -> None:
    """Write a native file from canonical weights.

    Args:
        request: `recipe`; `weights`, a safetensors file; `path`; `notes`.
        emit: gets `written`.
    """
    weights, _metadata = files.read_tensors(Path(request["weights"]))
    registry.find(request["framework"]).module("files").write(
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
    framework = registry.find(request["framework"])
    options = {
        "weights": weights,
        "threads": int(request["threads"]),
        "device": "cpu",
    }
    recipe = validate(request["recipe"]).for_use
    model = (
        framework.make_twin(recipe, **options)
        if framework is registry.REFERENCE
        else framework.make_trainer(recipe, **options)
    )
    files.write_tensors(request["out"], {"logits": model.logits(images["images"])})
    emit("answered", out=request["out"])
