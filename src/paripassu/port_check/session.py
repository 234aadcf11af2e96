"""Builds both models and examines them: in a worker for the command line, or here."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from paripassu.core import machine
from paripassu.core.errors import UserError
from paripassu.port_check import targets
from paripassu.port_check.acceptance import parse_acceptance
from paripassu.port_check.accepting import find_accepted, settle
from paripassu.port_check.examine import Examination, Options
from paripassu.port_check.layer_counts import count_layers
from paripassu.port_check.prepare import (
    AnyExamination,
    Inputs,
    open_with_inputs,
    prepare,
    title_of,
    users_crash_told,
)
from paripassu.port_check.record import Recorded
from paripassu.port_check.recorder import Recorder, Wish
from paripassu.port_check.requests import CheckRequest, RecordRequest
from paripassu.port_check.results import Accepted, Checked, LayerCount
from paripassu.port_check.runs import Progress
from paripassu.processes.child import Emit
from paripassu.sides import registry
from paripassu.sides.recording import Recording, check_place
from paripassu.sides.recording_place import is_recording


class Stages:
    """Tells what is being done, from the start of the process on.

    Attributes:
        import_seconds: how long it took to start, and to import.
    """

    def __init__(self, emit: Emit):
        self.emit, self.import_seconds = emit, 0.0
        self.begin: float | None = time.perf_counter() - machine.seconds_since_start()

    def __call__(self, text: str, share: float) -> None:
        """What comes next, and the share of all that is done."""
        now = time.perf_counter()
        if self.begin is not None:
            self.import_seconds += now - self.begin
        self.begin = now if text.startswith(targets.IMPORTING) else None
        self.emit("progress", text=text, done=share)


def prepare_process(stages: Stages) -> None:
    """Set up a process that is to run users' code in both frameworks."""
    faulthandler.enable()  # what a crash of a user's code leaves
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow's allocator with oneDNN keeps all that it ever had.
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
    stages(f"{targets.IMPORTING} {registry.SIDES[0].title}", 0.0)
    with contextlib.suppress(ImportError):
        # The first of the table: PyTorch after TensorFlow has crashed.
        importlib.import_module(registry.SIDES[0].import_roots[0])


def check_models(request: CheckRequest, emit: Emit, progress: Stages) -> None:
    """Do what `paripassu check` asks."""
    found = [
        targets.find(request.left, request.left_args, "left", progress),
        targets.find(request.right, request.right_args, "right", progress),
    ]
    progress("running both models", 0.03)
    inputs = _read_inputs(request.inputs, request.shapes)
    examination = prepare(
        found[0],
        found[1],
        inputs,
        Options(
            request.copy_weights,
            request.blocks,
            request.gradients,
            request.pairs,
            request.outputs,
            [parse_acceptance(x) for x in request.accept],
        ),
        progress,
    )
    del found  # Keras makes another model in float64: the first one can go
    to_right = request.copy_weights == "left-to-right"
    given = examination.right if to_right else examination.left
    side = registry.find(given.probe.side) if request.save else registry.SIDES[0]
    if request.save and not request.save.name.endswith(side.suffixes):
        raise UserError(
            f"--save {request.save}: the model that is written is {side.title}'s, "
            f"whose files end in {' or '.join(side.suffixes)}."
        )

    def on_layers(layers: Sequence[LayerCount]) -> None:
        emit("layers", layers=[x.model_dump() for x in layers])

    checked = examine(examination, on_layers)
    if request.save:
        given.probe.set_dtype("float32")
        side.model_module().save(given.probe.model, request.save)
    timed = checked.model_copy(update={"import_seconds": progress.import_seconds})
    emit("checked", result=timed.model_dump(mode="json"))


def record_model(request: RecordRequest, emit: Emit, progress: Stages) -> None:
    """Do what `paripassu record` asks."""
    target = targets.find(request.model, request.model_args, "model", progress)
    progress("running the model", 0.03)
    wish = Wish(request.out, request.level, request.gradients, request.model_args)
    done = record(target, _read_inputs(request.inputs, request.shapes), wish, progress)
    emit(
        "recorded",
        path=str(done.path),
        size=done.size,
        calls=done.calls,
        notes=done.notes,
    )


def record(
    target: targets.Target,
    inputs: Inputs,
    wish: Wish,
    progress: Progress = lambda _text, _share: None,
) -> Recorded:
    """Record a model.

    Raises:
        UserError: it is of no framework that we know, or inputs do not fit.
    """
    if isinstance(target.model, Recording):
        raise UserError(f"{target.source} is a recording already.")
    check_place(wish.out)
    if not isinstance(inputs, dict):
        wish = replace(wish, seed=targets.SEED)
    with users_crash_told():
        model, given, notes = open_with_inputs(target, "model", inputs)
        done = Recorder(model, given, wish, progress).go()
    return replace(done, notes=(*notes, *done.notes))


def _read_inputs(path: Path | None, shapes: Sequence[str]) -> Any:
    if path:
        return targets.read_inputs(path)
    return [targets.parse_input(x, n) for n, x in enumerate(shapes)] or None


def examine(
    examination: AnyExamination,
    on_layers: Callable[[Sequence[LayerCount]], None] = lambda _layers: None,
) -> Checked:
    """Compare both models.

    Args:
        examination: of them, prepared.
        on_layers: is told of the layers of both before.

    Where channels may be at either axis of the right model's inputs, the arrangement
    counts in which the models agree.

    Raises:
        UserError: a model raised; with the traceback.
    """
    sides = (x.probe.blocks() for x in (examination.left, examination.right))
    on_layers(layers := count_layers(*sides))
    with users_crash_told():
        return _examine(examination).model_copy(update={"layers": layers})


def _examine(examination: AnyExamination) -> Checked:
    if not isinstance(examination, Examination):
        return examination.go()
    found = _examine_without_accepted(examination)
    if found.equal:
        return found
    for other in examination.others():
        if (again := _examine_without_accepted(other)).equal:
            return again
    return found


def _examine_without_accepted(examination: Examination) -> Checked:
    """Compare both models; where only accepted differences are found, without those."""
    accepted, found = examination.options.accept, examination.go()
    removed: list[Accepted] = []
    with contextlib.ExitStack() as stack:
        while pairs := list(find_accepted(found.faults, accepted)):
            before = {(x.fault.key, x.fault.left) for x in removed}
            fresh = [x for x, _ in pairs if (x.key, x.left) not in before]
            if not fresh or len(pairs) < len(found.faults):
                break
            if not (again := examination.without(fresh, stack)):
                break
            examination, out = again
            removed += [
                Accepted(by=by, fault=x, removed=True) for x, by in pairs if x in out
            ]
            found = examination.go()
    return settle(found, accepted, removed)


def take(value: Any, which: str, *, copied: bool) -> targets.Target:
    """A model that is here, or what builds one.

    Args:
        value: of the user.
        which: "left" or "right".
        copied: whether it is to get weights; if not, its copy is examined.

    Raises:
        UserError: it is neither.
    """
    if isinstance(value, (str, Path)) and is_recording(value):
        return targets.Target(str(value), Recording(Path(value)), None)
    if side := registry.is_model(value) and registry.side_of_model(value):
        own = value if copied else side.model_module().own_copy(value)
        return targets.Target(which, own, None)
    if callable(value):
        name = getattr(value, "__qualname__", which)
        source = f"{which} ({name})"
        made = targets.build_noted(value, f"{title_of(which, source)}, building it,")
        return targets.Target(source, made, value)
    raise UserError(
        f"{which} is a {type(value).__name__}. A {registry.MODEL_TYPES}, or a function "
        "that builds one is expected."
    )


@contextlib.contextmanager
def kept(*models: Any) -> Iterator[None]:
    """Leave models in the float type that they came in."""
    with contextlib.ExitStack() as stack:
        for model in models:
            if side := registry.side_of_model(model):
                stack.enter_context(side.model_module().float_type_kept(model))
        yield
