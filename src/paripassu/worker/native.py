"""The worker's side of a conversion: native files written, read and tried."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paripassu.core import files, limits
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe, validate
from paripassu.core.recognition import recipe_of, recognised
from paripassu.core.steps import Arrays
from paripassu.frameworks import registry
from paripassu.processes.child import Emit
from paripassu.processes.requests import LogitsRequest, ReadRequest, WriteRequest
from paripassu.worker.run import read_checkpoint


def read(request: ReadRequest, emit: Emit) -> None:
    """Write the canonical weights of a native file or of a run's checkpoint.

    Raises:
        UserError: the file is damaged, or does not hold the weights of the recipe.
    """
    path = request.path
    if path.is_dir():
        recipe, weights = _of_checkpoint(path, request.threads)
        notes: dict[str, str] = {}
    else:
        native = registry.find(request.framework).files
        with limits.reading(path):
            arrays, notes = native.read(path)
        expected = request.recipe or recipe_of(notes, path)
        recipe, weights = recognised(path, arrays, expected, native.to_canonical)
    files.write_tensors(request.out, weights)
    emit("read", recipe=recipe.model_dump(), notes=notes)


def _of_checkpoint(folder: Path, threads: int) -> tuple[Recipe, Arrays]:
    current, state = read_checkpoint(folder)
    if current is None or state is None:
        raise UserError(
            f"the run in {folder} has not finished an epoch: there is nothing to use."
        )
    recipe = validate(current.recipe)
    trainer = registry.find(current.framework).make_trainer(
        recipe,
        weights={x.name: np.zeros(x.shape) for x in recipe.architecture.weights},
        threads=threads,
        device="cpu",
    )
    trainer.load_state(state)
    return recipe, trainer.weights()


def write(request: WriteRequest, emit: Emit) -> None:
    """Write a native file from canonical weights."""
    weights, _metadata = files.read_tensors(request.weights)
    native = registry.find(request.framework).files
    native.write(request.recipe, weights, request.path, request.notes)
    emit("written")


def answer_images(request: LogitsRequest, emit: Emit) -> None:
    """What a framework answers with canonical weights."""
    weights, _metadata = files.read_tensors(request.weights)
    images, _metadata = files.read_tensors(request.images)
    framework = registry.find(request.framework)
    make = (
        framework.make_twin
        if framework is registry.REFERENCE
        else framework.make_trainer
    )
    recipe, threads = request.recipe.for_use, request.threads
    model = make(recipe, weights=weights, threads=threads, device="cpu")
    files.write_tensors(request.out, {"logits": model.logits(images["images"])})
    emit("answered")
