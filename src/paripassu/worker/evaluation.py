"""Evaluates a run's model, and looks why it knows nothing of some images."""

from __future__ import annotations

import numpy as np

from paripassu.core import datasets, files, limits, record
from paripassu.core.datasets import Split
from paripassu.core.experiment import read_data
from paripassu.core.recipe import validate
from paripassu.frameworks import registry
from paripassu.frameworks.contract import Trainer
from paripassu.processes import requests
from paripassu.processes.child import Emit

FAIR = 0.7  # accuracy, 0..1: a network with less does not know such images
CLEARLY = 0.2  # more than before
TRIED = 1000  # images, in another form


def evaluate(request: requests.EvaluateRequest, emit: Emit) -> None:
    """Load a finished run's model and evaluate it on the test set."""
    finished = record.load_record(request.folder)
    recipe = validate(finished.recipe)
    data, prepared = read_data(recipe, request.conditions.data)
    framework = registry.find(request.framework)
    if request.framework == finished.framework:
        path = request.folder / finished.files["model"]
        with limits.reading(path):
            arrays, _notes = framework.files.read(path)
        weights = framework.files.to_canonical(recipe, arrays)
    else:
        weights, _notes = files.read_tensors(request.folder / record.WEIGHTS_FILE)
    trainer = framework.make_trainer(
        recipe,
        weights=weights,
        threads=request.threads,
        device=request.conditions.device,
    )
    loss, accuracy = trainer.evaluate(prepared.test)
    emit(
        "evaluated",
        test_loss=loss,
        test_accuracy=accuracy,
        test_count=len(prepared.test.labels),
        device=trainer.device,
        data=datasets.describe(data, prepared).sentence,
        notes=[*data.notes, *orientation_hints(trainer, prepared.test, accuracy)],
    )


def orientation_hints(trainer: Trainer, test: Split, accuracy: float) -> list[str]:
    """In what other form a network would know images that it does not know.

    Args:
        trainer: of the network.
        test: images and labels.
        accuracy: on them, 0..1; where it is fair, nothing is tried.
    """
    if accuracy >= FAIR:
        return []
    some = test[:TRIED]
    hints = []
    for name, turned in {
        "transposed": some.pixels.transpose(0, 2, 1, 3),
        "upside down": some.pixels[:, ::-1, ::-1],
        "mirrored": some.pixels[:, :, ::-1],
        "inverted (black for white)": 255 - some.pixels,
    }.items():
        if turned.shape != some.pixels.shape:
            continue  # of another height than width, and turned
        other = Split(np.ascontiguousarray(turned), some.labels, some.levels)
        found = trainer.evaluate(other)[1]
        if found >= max(FAIR, accuracy + CLEARLY):
            hints.append(
                f"the images look {name}: with each of the first {len(some):,} turned "
                f"back, {found:.1%} are right"
            )
    return hints
