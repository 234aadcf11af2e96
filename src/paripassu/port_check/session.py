"""Builds both models and examines them: in a worker for the command line, or here."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paripassu.core.errors import UserError
from paripassu.port_check import targets
from paripassu.port_check.examine import Examination
from paripassu.port_check.optimizers import check_request as optimizers
from paripassu.port_check.results import Checked
from paripassu.port_check.sides import ModelError, Side, Wishes
from paripassu.port_check.walks import Progress
from paripassu.sides.contract import Arrays, Probe

SUFFIXES = {
    "pytorch": (".safetensors", ".pt", ".pth"),
    "tensorflow": (".keras", ".weights.h5"),
}
NAMES = {"pytorch": "PyTorch", "tensorflow": "Keras"}
PROBES = {
    "pytorch": "paripassu.sides.torch_module",
    "tensorflow": "paripassu.sides.keras_model",
}


def answer(request: Mapping[str, Any], emit: Callable[..., None]) -> None:
    """Do what `paripassu check` and `check-optimizer` ask of a worker."""
    faulthandler.enable()  # what a crash of a user's code leaves
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow's allocator with oneDNN keeps all that it ever had.
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
    with contextlib.suppress(ImportError):
        importlib.import_module("torch")  # before TensorFlow: the other way has crashed
    if "steps" in request:
        emit("checked", result=optimizers(request).model_dump(mode="json"))
    else:
        _check(request, emit)


def _check(request: Mapping[str, Any], emit: Callable[..., None]) -> None:
    found = [
        targets.find(request[which], request[f"{which}_args"], which)
        for which in ("left", "right")
    ]
    inputs: Any = None
    if request["inputs"]:
        inputs = targets.read_inputs(Path(request["inputs"]))
    elif request["input"]:
        inputs = [targets.parse_input(x, n) for n, x in enumerate(request["input"])]

    def progress(text: str, share: float) -> None:
        emit("progress", text=text, done=share)

    examination = prepare(
        found[0],
        found[1],
        inputs,
        Wishes(request["copy"], request["map"], request["gradients"]),
        progress,
    )
    del found  # Keras makes another model in float64: the first one can go
    if request["save"]:
        _check_suffix(examination, request["save"], request["copy"])
    checked = _told(examination)
    if request["save"]:
        _save(examination, Path(request["save"]), request["copy"])
    emit("checked", result=checked.model_dump(mode="json"))


def _told(examination: Examination) -> Checked:
    try:
        return examination.go()
    except ModelError as failed:
        what = f"{failed.which}, {failed.source}, computing"
        hint = ""
        if "embedding" in str(failed.error).lower() or "indices" in str(failed.error):
            hint = "\n\nWhole numbers as input are written --input 2,16:int:1000."
        raise UserError(targets.told(failed.error, what) + hint) from failed


def prepare(
    left: targets.Target,
    right: targets.Target,
    inputs: list[targets.Wanted] | Arrays | None,
    wishes: Wishes,
    progress: Progress,
) -> Examination:
    """Open both models and make their inputs.

    Raises:
        UserError: a model is of no framework that we know, or inputs do not fit.
    """
    sides = [_framework(x, which) for x, which in ((left, "left"), (right, "right"))]
    if inputs is None:
        inputs = _declared(left, sides[0])
    first = _open(left, sides[0], "left")
    if isinstance(inputs, list):
        needs = [x for x in inputs if x.dtype == "int" and x.below is None]
        blocks = []
        if first is not None:
            blocks = first.blocks()
        elif needs:
            raise UserError(
                f"--input {needs[0].name}: say below what its whole numbers are, as in "
                "2,16:int:1000."
            )
        inputs = targets.make_inputs(inputs, blocks)
    inputs = {name: np.asarray(x) for name, x in inputs.items()}
    shapes = None
    if sides[1] == "tensorflow":
        shapes = _keras_shapes(right.model)
    other = targets.for_right(inputs, shapes, move=sides[0] != sides[1])
    if sides[0] == "tensorflow":
        _built(left, inputs, "left")
    if sides[1] == "tensorflow":
        _built(right, other, "right")
    one = first or _open(left, sides[0], "left", inputs)
    two = _open(right, sides[1], "right", other)
    assert one is not None
    assert two is not None
    return Examination(
        Side("left", one, left.source, _versions(sides[0])),
        Side("right", two, right.source, _versions(sides[1])),
        (inputs, other),
        wishes,
        progress,
    )


def _framework(target: targets.Target, which: str) -> str:
    found = targets.framework_of(target.model)
    if found is None:
        raise UserError(
            f"{which}: {target.source} gives an object of type "
            f"{type(target.model).__name__}. "
            "A torch.nn.Module or a keras.Model is expected."
        )
    if found == "tensorflow" and _backend() != "tensorflow":
        raise UserError(
            f"{which}: Keras computes with {_backend()} here, but TensorFlow is "
            "expected. Type: KERAS_BACKEND=tensorflow paripassu check ..."
        )
    return found


def _backend() -> str:
    return str(importlib.import_module("keras").config.backend())


def _open(
    target: targets.Target,
    framework: str,
    which: str,
    inputs: Arrays | None = None,
) -> Probe | None:
    """A probe; None of a Keras model that is not built yet."""
    module = importlib.import_module(PROBES[framework])
    if framework == "pytorch":
        return module.Probe(target.model)  # type: ignore[no-any-return]
    if not target.model.built and inputs is None:
        return None
    build, what = target.build, f"{which}, {target.source}, building it"
    if build is not None:

        def rebuild() -> Any:
            made = targets.run_theirs(build, what)
            if not (made.built and made.weights) and inputs is not None:
                _call(made, inputs)
            return made

        return module.Probe(target.model, rebuild)  # type: ignore[no-any-return]
    return module.Probe(target.model)  # type: ignore[no-any-return]


def _call(model: Any, inputs: Arrays) -> None:
    """Call a Keras model once, so that it makes its weights."""
    module = importlib.import_module("paripassu.sides.keras_model")
    module.build(model, inputs)


def _built(target: targets.Target, inputs: Arrays, which: str) -> None:
    if not target.model.built:
        what = f"{which}, {target.source}, called with {_shapes(inputs)},"
        targets.run_theirs(lambda: _call(target.model, inputs), what)


def _shapes(inputs: Arrays) -> str:
    return ", ".join(f"{name} {x.shape}" for name, x in inputs.items())


def _keras_shapes(model: Any) -> dict[str, tuple[int | None, ...]] | None:
    """The shapes that a Keras model declares, by name."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return None
    return {x.name: tuple(x.shape) for x in inputs}


def _declared(target: targets.Target, framework: str) -> list[targets.Wanted]:
    """Inputs from what a Keras model declares, with two examples."""
    shapes = _keras_shapes(target.model) if framework == "tensorflow" else None
    if not shapes or any(None in x[1:] for x in shapes.values()):
        raise UserError(
            "--input is missing: the shape of the left model's input, as in "
            "--input 1,3,224,224."
        )
    types = {x.name: x.dtype for x in target.model.inputs}
    return [
        targets.Wanted(
            f"input{n or ''}" if len(shapes) == 1 else name,
            (2, *(int(x) for x in shape[1:] if x is not None)),
            "int" if "int" in types[name] else "float",
            None,
        )
        for n, (name, shape) in enumerate(shapes.items())
    ]


def _versions(framework: str) -> dict[str, str]:
    names = {"pytorch": ("torch",), "tensorflow": ("keras", "tensorflow")}[framework]
    return {x: importlib.import_module(x).__version__ for x in names}


def _given(examination: Examination, copy: str | None) -> Side:
    return examination.right if copy == "left-to-right" else examination.left


def _check_suffix(examination: Examination, path: str, copy: str | None) -> None:
    framework = _given(examination, copy).probe.framework
    if not path.endswith(SUFFIXES[framework]):
        raise UserError(
            f"--save {path}: the model that is written is {NAMES[framework]}'s, whose "
            f"files end in {' or '.join(SUFFIXES[framework])}."
        )


def _save(examination: Examination, path: Path, copy: str | None) -> None:
    """Write the model that was given the other's weights."""
    side = _given(examination, copy)
    side.probe.set_dtype("float32")
    module = importlib.import_module(PROBES[side.probe.framework])
    module.save(side.probe.model, path)


def apart(model: Any, copied: bool) -> Any:
    """A model that may be examined: a PyTorch one is copied, unless it gets weights."""
    if targets.framework_of(model) != "pytorch" or copied:
        return model
    module = importlib.import_module("paripassu.sides.torch_module")
    return module.own_copy(model)


@contextlib.contextmanager
def kept(*models: Any) -> Iterator[None]:
    """Leave models in the float type that they came in."""
    before = [
        next((x.dtype for x in model.parameters() if x.is_floating_point()), None)
        if targets.framework_of(model) == "pytorch"
        else None
        for model in models
    ]
    try:
        yield
    finally:
        for model, dtype in zip(models, before, strict=True):
            if dtype is not None:
                model.to(dtype)
