"""The process in which one framework works: a request comes in, events go out.

Started as `python -m paripassu.worker`; see `paripassu.processes.child`.
"""

from __future__ import annotations

import sys

from paripassu.core import draws
from paripassu.core.recipe import Recipe
from paripassu.frameworks import registry
from paripassu.processes import requests
from paripassu.processes.child import Emit, Tasks, serve
from paripassu.worker import benchmark, evaluation, native, run, traces, trajectory


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
    requests.EvaluateRequest: evaluation.evaluate,
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
