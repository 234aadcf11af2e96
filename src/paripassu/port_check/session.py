"""Builds both models and examines them: in a worker for the command line, or here."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from paripassu.core.errors import UserError
from paripassu.port_check import targets
from paripassu.port_check.examine import Examination, Options
from paripassu.port_check.examined import ExaminedModel, ModelError
from paripassu.port_check.outputs import OutputsExamination
from paripassu.port_check.record import Recorded
from paripassu.port_check.recorder import Recorder, Wish
from paripassu.port_check.recordings import RecordingsExamination
from paripassu.port_check.requests import CheckRequest, RecordRequest
from paripassu.port_check.results import Checked
from paripassu.port_check.runs import Progress
from paripassu.processes.child import Emit
from paripassu.sides import registry, user_code
from paripassu.sides.contract import Arrays, Block, Declared, ModelModule, Probe
from paripassu.sides.recorded import RecordedProbe
from paripassu.sides.recording import Recording, check_place, is_recording

AnyExamination = Examination | OutputsExamination | RecordingsExamination


def prepare_process() -> None:
    """Set up a process that is to run users' code in both frameworks."""
    faulthandler.enable()  # what a crash of a user's code leaves
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow's allocator with oneDNN keeps all that it ever had.
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
    with contextlib.suppress(ImportError):
        # The first of the table: PyTorch after TensorFlow has crashed.
        importlib.import_module(registry.SIDES[0].import_roots[0])


def check_models(request: CheckRequest, emit: Emit) -> None:
    """Do what `paripassu check` asks."""
    found = [
        targets.find(request.left, request.left_args, "left"),
        targets.find(request.right, request.right_args, "right"),
    ]
    inputs = _read_inputs(request.inputs, request.shapes)

    def progress(text: str, share: float) -> None:
        emit("progress", text=text, done=share)

    examination = prepare(
        found[0],
        found[1],
        inputs,
        Options(request.copy_weights, request.blocks, request.gradients),
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
    checked = examine(examination)
    if request.save:
        given.probe.set_dtype("float32")
        side.model_module().save(given.probe.model, request.save)
    emit("checked", result=checked.model_dump(mode="json"))


def record_model(request: RecordRequest, emit: Emit) -> None:
    """Do what `paripassu record` asks."""
    target = targets.find(request.model, request.model_args, "model")

    def progress(text: str, share: float) -> None:
        emit("progress", text=text, done=share)

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
    inputs: list[targets.Wanted] | Arrays | None,
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
    side = _side_of(target, "model")
    module = _module(side, "model")
    if not isinstance(inputs, dict):
        wish = replace(wish, seed=targets.SEED)
    given = _inputs_of(target, module, inputs)
    probe = _open(target, module, "model", given)
    model = ExaminedModel("model", probe, target.source, side.versions)
    return Recorder(model, given, wish, progress).go()


def _read_inputs(path: Path | None, shapes: Sequence[str]) -> Any:
    if path:
        return targets.read_inputs(path)
    return [targets.parse_input(x, n) for n, x in enumerate(shapes)] or None


def _inputs_of(
    target: targets.Target,
    module: ModelModule,
    inputs: list[targets.Wanted] | Arrays | None,
) -> Arrays:
    """The inputs of a model, drawn if they are not there."""
    if inputs is None:
        inputs = _declared(module.declared_inputs(target.model))
    if isinstance(inputs, list):
        inputs = targets.make_inputs(inputs, _blocks(target, module, inputs))
    return {name: np.asarray(x) for name, x in inputs.items()}


def examine(examination: AnyExamination) -> Checked:
    """Compare both models.

    Raises:
        UserError: a model raised; with the traceback.
    """
    try:
        return examination.go()
    except ModelError as failed:
        what = f"{failed.which}, {failed.source}, computing"
        hint = ""
        if "embedding" in str(failed.error).lower() or "indices" in str(failed.error):
            hint = "\n\nWhole numbers as input are written --input 2,16:int:1000."
        raise UserError(user_code.describe_error(failed.error, what) + hint) from failed


def prepare(
    left: targets.Target,
    right: targets.Target,
    inputs: list[targets.Wanted] | Arrays | None,
    options: Options | None = None,
    progress: Progress = lambda _text, _share: None,
) -> AnyExamination:
    """Open both models and make their inputs.

    Raises:
        UserError: a model is of no framework that we know, or inputs do not fit.
    """
    options = options or Options()
    if isinstance(left.model, Recording):
        return _prepare_recorded(left, right, inputs, options, progress)
    if isinstance(right.model, Recording):
        raise UserError(
            f"{right.source} is a recording, which can be the left model only. "
            f"Type: paripassu check {right.source} {left.source}"
        )
    sides = _side_of(left, "left"), _side_of(right, "right")
    modules = _module(sides[0], "left"), _module(sides[1], "right")
    inputs = _inputs_of(left, modules[0], inputs)
    declared = modules[1].declared_inputs(right.model)
    shapes = {name: x.shape for name, x in declared.items()}
    other = targets.for_right(inputs, shapes, move=sides[0] is not sides[1])
    found = []
    for which, target, side, module, given in (
        ("left", left, sides[0], modules[0], inputs),
        ("right", right, sides[1], modules[1], other),
    ):
        probe = _open(target, module, which, given)
        found.append(ExaminedModel(which, probe, target.source, side.versions))
    return Examination(found[0], found[1], (inputs, other), options, progress)


def _prepare_recorded(
    left: targets.Target,
    right: targets.Target,
    inputs: list[targets.Wanted] | Arrays | None,
    options: Options,
    progress: Progress,
) -> AnyExamination:
    """The same where the left model is a recording."""
    recording = left.model
    found = recording.description
    if isinstance(right.model, Recording):
        return _prepare_recordings(left, right, inputs, options, progress)
    if inputs is not None:
        raise UserError(
            f"{left.source} holds its inputs ({', '.join(found.inputs)}): give none."
        )
    if options.copy == "right-to-left":
        raise UserError(f"{left.source} is a recording and takes no weights.")
    recorded = ExaminedModel(
        "left", RecordedProbe(recording), left.source, found.versions
    )
    side = _side_of(right, "right")
    module = _module(side, "right")
    declared = module.declared_inputs(right.model)
    shapes = {name: x.shape for name, x in declared.items()}
    move = found.framework != side.name
    other = targets.for_right(recording.inputs, shapes, move=move)
    probe = _open(right, module, "right", other)
    model = ExaminedModel("right", probe, right.source, side.versions)
    given = recording.inputs, other
    if not found.blocks:
        return OutputsExamination(recorded, model, given, progress)
    return Examination(recorded, model, given, options, progress)


def _prepare_recordings(
    left: targets.Target,
    right: targets.Target,
    inputs: list[targets.Wanted] | Arrays | None,
    options: Options,
    progress: Progress,
) -> RecordingsExamination:
    """The same where both are recordings."""
    if inputs is not None or options.copy or options.block_map:
        raise UserError(
            f"{left.source} and {right.source} are recordings: they hold their inputs, "
            "take no weights, and are compared by name."
        )
    first, second = (
        ExaminedModel(
            which, RecordedProbe(x.model), x.source, x.model.description.versions
        )
        for which, x in (("left", left), ("right", right))
    )
    return RecordingsExamination(first, second, progress)


def _side_of(target: targets.Target, which: str) -> registry.Side:
    side = registry.side_of_model(target.model)
    if side is None:
        raise UserError(
            f"{which}: {target.source} gives an object of type "
            f"{type(target.model).__name__}. A {registry.MODEL_TYPES} is expected."
        )
    return side


def _module(side: registry.Side, which: str) -> ModelModule:
    try:
        module = side.model_module()
        module.check_usable()
    except UserError as error:
        raise UserError(f"{which}: {error}") from error
    return module


def _blocks(
    target: targets.Target, module: ModelModule, wanted: list[targets.Wanted]
) -> list[Block]:
    """The model's weights, for the sizes of its tables."""
    if module.is_built(target.model):
        return module.open_model(target.model).blocks()
    if needs := [x.name for x in wanted if x.dtype == "int" and x.below is None]:
        raise UserError(
            f"--input {needs[0]}: say below the upper bound of its integers, as in "
            "2,16:int:1000."
        )
    return []


def _open(
    target: targets.Target, module: ModelModule, which: str, inputs: Arrays
) -> Probe:
    name, make = f"{which}, {target.source}", target.build
    shapes = ", ".join(f"{name} {x.shape}" for name, x in inputs.items())
    if not module.is_built(target.model):
        user_code.run(
            lambda: module.build(target.model, inputs), f"{name}, called with {shapes},"
        )
    if make is None:
        return module.open_model(target.model)
    return module.open_model(
        target.model, lambda: user_code.run(make, f"{name}, building it"), inputs
    )


def _declared(inputs: Mapping[str, Declared]) -> list[targets.Wanted]:
    """Inputs from what a model declares, with two examples."""
    if not inputs or any(None in x.shape[1:] for x in inputs.values()):
        raise UserError(
            "--input is missing: the shape of the left model's input, as in "
            "--input 1,3,224,224."
        )
    return [
        targets.Wanted(
            f"input{n or ''}" if len(inputs) == 1 else name,
            (2, *(int(x) for x in declared.shape[1:] if x is not None)),
            "int" if declared.integer else "float",
            None,
        )
        for n, (name, declared) in enumerate(inputs.items())
    ]


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
        made = user_code.run(value, f"{source}, building it")
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
