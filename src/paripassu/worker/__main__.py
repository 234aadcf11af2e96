"""The process in which one framework works: a request comes in, events go out.

Started as `python -m paripassu.worker`; see `paripassu.processes.child`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from paripassu.core import draws, files, record
from paripassu.core.experiment import read_data
from paripassu.core.recipe import Recipe, validate
from paripassu.frameworks import registry
from paripassu.processes.child import serve_request
from paripassu.worker import native
from paripassu.worker.benchmark import bench, reach
from paripassu.worker.evidence import prove
from paripassu.worker.run import Emit, Run
from paripassu.worker.trajectory import follow


def answer(request: dict[str, Any], emit: Emit) -> None:
    """Do what a request asks."""
    match request["task"]:
        case "train":
            Run(request, emit).go()
        case "evaluate":
            evaluate(request, emit)
        case "prove":
            prove(request, emit)
        case "follow":
            follow(request, emit)
        case "read":
            native.read(request, emit)
        case "write":
            native.write(request, emit)
        case "logits":
            native.logits_of(request, emit)
        case "bench":
            bench(request, emit)
        case "reach":
            reach(request, emit)
        case "describe":
            describe(request, emit)
        case unknown:
            raise ValueError(f"there is no task {unknown!r}")


def evaluate(request: dict[str, Any], emit: Emit) -> None:
    """Load a finished run's model and evaluate it on the test set."""
    folder = Path(request["folder"])
    finished = record.load_record(folder)
    recipe = validate(finished.recipe)
    _data, prepared = read_data(recipe, request["data"])
    weights, _metadata = files.read_tensors(folder / record.WEIGHTS_FILE)
    trainer = registry.find(request["framework"]).make_trainer(
        recipe,
        weights=weights,
        threads=int(request["threads"]),
        device=str(request["device"]),
    )
    if request["framework"] == finished.framework:
        trainer.load(folder / finished.files["model"])
    loss, accuracy = trainer.evaluate(prepared.test)
    emit(
        "evaluated",
        test_loss=loss,
        test_accuracy=accuracy,
        test_count=len(prepared.test.labels),
        device=trainer.device,
    )


def describe(request: dict[str, Any], emit: Emit) -> None:
    """Say what the framework is and where it would compute."""
    trainer = registry.find(request["framework"]).make_trainer(
        Recipe(),
        weights=draws.initial_weights(Recipe().architecture, Recipe()),
        threads=int(request["threads"]),
        device="auto",
    )
    emit(
        "described",
        device=trainer.device,
        versions=trainer.versions,
        settings=trainer.settings,
        threads=int(request["threads"]),
    )


if __name__ == "__main__":
    sys.exit(serve_request(answer))
