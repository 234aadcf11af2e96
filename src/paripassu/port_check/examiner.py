"""The process that opens users' models and optimizers and compares them.

Started as `python -m paripassu.port_check.examiner`; see `paripassu.processes.child`.
"""

from __future__ import annotations

import sys

from paripassu.port_check.requests import (
    CheckOptimizerRequest,
    CheckRequest,
    RecordRequest,
)
from paripassu.port_check.session import (
    Stages,
    check_models,
    prepare_process,
    record_model,
)
from paripassu.processes.child import Emit, Tasks, serve


def check(request: CheckRequest, emit: Emit) -> None:
    """Compare two models."""
    stages = Stages(emit)
    prepare_process(stages)
    check_models(request, emit, stages)


def record(request: RecordRequest, emit: Emit) -> None:
    """Record a model."""
    stages = Stages(emit)
    prepare_process(stages)
    record_model(request, emit, stages)


def check_optimizer(request: CheckOptimizerRequest, emit: Emit) -> None:
    """Step two optimizers."""
    from paripassu.port_check.optimizer import check_request  # late: models need none

    prepare_process(Stages(emit))
    emit("checked", result=check_request(request).model_dump(mode="json"))


TASKS: Tasks = {
    CheckRequest: check,
    RecordRequest: record,
    CheckOptimizerRequest: check_optimizer,
}

if __name__ == "__main__":
    sys.exit(serve(TASKS))
