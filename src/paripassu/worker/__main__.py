"""The process in which one framework works: a request comes in, events go out.

Started as `python -m paripassu.worker`; see `paripassu.processes.child`.
"""

from __future__ import annotations

import sys

from paripassu.core import draws, files, limits, record
from paripassu.core.experiment import read_data
from paripassu.core.recipe import Recipe, validate
from paripassu.frameworks import registry
from paripassu.processes import requests
from paripassu.processes.child import Emit, Tasks, serve
from paripassu.worker import benchmark, native, run, traces, trajectory


def evaluate(request: requests.EvaluateRequest, emit: Emit) -> None:
    """Load a finished run's model and evaluate it on the test set."""
    finished = record.load_record(request.folder)
    recipe = validate(finished.recipe)
    _data, prepared = read_data(recipe, request.conditions.data)
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
    )


def describe(request: requests.DescribeRequest, emit: Emit) -> None:
    """Say what the framework is and where it would compute."""
    trainer = registry.find(request.framework).make_trainer(
        Recipe(),
        weights=draws.initial_weights(Recipe().architecture, Recipe()),
        threads=request.threads,
        device=request.conditions.device,
    )
    emit(
        "described",
        device=trainer.device,
        versions=trainer.versions,
        settings=trainer.settings,
        threads=request.threads,
    )


TASKS: Tasks = {
    requests.TrainRequest: run.train,
    requests.EvaluateRequest: evaluate,
    requests.DescribeRequest: describe,
    requests.ProveRequest: traces.prove,
    requests.FollowRequest: trajectory.follow,
    requests.ReadRequest: native.read,
    requests.WriteRequest: native.write,
    requests.LogitsRequest: native.answer_images,
    requests.BenchRequest: benchmark.bench,
    requests.ReachRequest: benchmark.reach,
}

if __name__ == "__main__":
    sys.exit(serve(TASKS))
