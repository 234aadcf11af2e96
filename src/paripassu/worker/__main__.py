"""The process in which one framework works: a request comes in, events go out.

Started as `python -m paripassu.worker`. One line of JSON on standard input is the
request; standard input then stays open, and its end means that the parent is gone.
Events are lines of JSON on what was standard output; whatever a framework prints goes
to standard error. Exit code 0: done; 2: the user can put it right; 1: a crash.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from paripassu.core import draws, files, record
from paripassu.core.errors import UserError
from paripassu.core.experiment import read_data
from paripassu.core.recipe import Recipe, validate
from paripassu.frameworks import registry
from paripassu.worker import native
from paripassu.worker.benchmark import bench, reach
from paripassu.worker.evidence import prove
from paripassu.worker.run import Emit, Run
from paripassu.worker.trajectory import follow


def main() -> int:
    """Answer the one request on standard input."""
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def emit(event: str, **values: Any) -> None:
        events.write(json.dumps({"event": event, **values}) + "\n")

    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
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
            case "check":
                from paripassu.port_check.session import answer

                answer(request, emit)
            case "describe":
                describe(request, emit)
    except UserError as error:
        emit("error", message=str(error))
        return 2
    return 0


def _end_with_parent() -> None:
    # A parent that was killed must not leave a process that goes on writing.
    # `os.read`, because at exit a daemon thread may not hold the lock of `sys.stdin`.
    while os.read(0, 4096):
        pass
    os._exit(1)


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
    sys.exit(main())
