"""A trained network, wherever it is: a run's folder, a checkpoint or a file."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.conversion import onnx_file
from paripassu.conversion.formats import all_formats
from paripassu.core import files, layout, record
from paripassu.core.datasets import Constant
from paripassu.core.errors import UserError, WorkerError
from paripassu.core.recipe import Recipe, validate
from paripassu.core.recognition import recipe_of, recognised
from paripassu.frameworks import registry
from paripassu.processes.launch import work
from paripassu.processes.requests import ReadRequest


@dataclass(frozen=True)
class ModelSource:
    """What is known of a trained network."""

    path: Path
    recipe: Recipe
    weights: dict[str, npt.NDArray[Any]]  # canonical names and layout
    framework: str | None  # that trained it, or whose file it is; None: not known
    mean: Constant  # subtracted from pixels in 0..1: of all channels, or of each
    std: Constant  # what the difference is divided by
    notes: dict[str, str] = field(default_factory=dict)  # what travels with it

    @property
    def title(self) -> str:
        """For tables: short, and different for different files."""
        name = self.path.name if self.path.name else str(self.path.resolve())
        return f"{self.framework}: {name}" if self.framework else name


def read_source(path: Path, recipe: Recipe | None = None) -> ModelSource:
    """Read a trained network; nothing that a file holds is executed.

    Args:
        path: a run's folder, finished or not (then its last epoch counts), a
            `.safetensors` file of ours, a PyTorch `state_dict`, or a `.keras` file.
        recipe: whose network it is; None for the one that travels with the file, or
            for the network that has just these weights.

    Raises:
        UserError: there is nothing, or it is not the weights of a known network.
        WorkerError: a framework crashed on the file.
    """
    if path.is_dir():
        return _of_run(path)
    if not path.exists():
        raise UserError(f"{path} does not exist: {_expected()}.")
    files.check_regular(path)
    if path.suffix in (".safetensors", ".onnx"):
        return _of_neutral(path, recipe)
    if framework := registry.of_suffix(path.suffix):
        return _of_worker(path, framework.name, recipe)
    raise UserError(f"{path}: {_expected()}.")


def _expected() -> str:
    """What a path to a model may be."""
    *others, last = (x for form in all_formats().values() for x in form.suffixes)
    return (
        f"expected a run's folder, or a file that ends in {', '.join(others)} or {last}"
    )


def _of_run(folder: Path) -> ModelSource:
    run = record.load_record(folder)
    recipe = validate(run.recipe)
    if run.status != "finished":
        found = _of_worker(folder, run.framework, recipe)
        notes = {
            "epochs": f"{len(run.epochs)} of {recipe.epochs}",
            "recipe": recipe.to_toml(),
            "mean": str(run.dataset.mean),
            "std": str(run.dataset.std),
        }
        return _made(folder, recipe, found.weights, run.framework, notes)
    path = folder / record.WEIGHTS_FILE
    weights, _metadata = files.read_tensors(path)
    layout.check_weights(recipe.architecture, weights)
    if layout.hash_weights(weights) != run.weights_sha256:
        raise UserError(
            f"{path} is not what the run in {folder} has written: its SHA-256 differs. "
            "Delete the folder and train again, or name another."
        )
    return _made(folder, recipe, weights, run.framework, notes_of(run))


def _made(
    path: Path,
    recipe: Recipe,
    weights: dict[str, npt.NDArray[Any]],
    framework: str | None,
    notes: dict[str, str],
) -> ModelSource:
    """The source, with the normalisation that its notes or its recipe say."""
    found = {}
    for name in ("mean", "std"):
        text = notes.get(name, getattr(recipe.normalization, name))
        if text == "computed":
            raise UserError(
                f"{path}: the recipe takes the {name} of its data, and the file does "
                "not say what it was. Convert the run's folder again, or give a recipe "
                "with numbers."
            )
        channels = recipe.architecture.input_shape[-1]
        found[name] = _constant(path, name, text, channels)
    if 0 in np.atleast_1d(found["std"]):
        raise UserError(f"{path} says that its std is 0: expected more.")
    if "test_accuracy" in notes:
        _share(path, "test_accuracy", notes["test_accuracy"])
    return ModelSource(path, recipe, weights, framework, **found, notes=notes)


def _constant(path: Path, name: str, text: Any, channels: int) -> Constant:
    """A number from 0 to 1, or one for each channel, that travels with a file."""
    numbers = text
    if isinstance(text, str) and text.startswith("["):
        numbers = [x.strip() for x in text.strip("[]").split(",")]
    if not isinstance(numbers, list):
        return _share(path, name, numbers)
    if len(numbers) != channels:
        raise UserError(
            f"{path} says that its {name} is {str(text)[:40]!r}: expected a number, or "
            f"{channels} of them, one for each channel of its network."
        )
    return [_share(path, name, x) for x in numbers]


def _share(path: Path, name: str, text: Any) -> float:
    """A number from 0 to 1 that travels with a file."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise UserError(
            f"{path} says that its {name} is {str(text)[:40]!r}: expected a number "
            "from 0 to 1."
        )
    return number


def notes_of(run: record.RunRecord) -> dict[str, str]:
    """What travels with the weights of a finished run, as text."""
    assert run.result is not None
    return {
        "recipe": validate(run.recipe).to_toml(),
        "recipe_hash": run.recipe_hash,
        "framework": run.framework,
        "versions": ", ".join(f"{k} {v}" for k, v in run.environment.versions.items()),
        "dataset": run.dataset.name,
        "mean": str(run.dataset.mean),
        "std": str(run.dataset.std),
        "test_accuracy": str(run.result.test_accuracy),
        "test_count": str(run.result.test_count),
        "weights_sha256": str(run.weights_sha256),
    }


def _of_neutral(path: Path, recipe: Recipe | None) -> ModelSource:
    onnx = path.suffix == ".onnx"
    arrays, notes = (onnx_file.read if onnx else files.read_tensors)(path)
    if "record" in notes and not onnx:
        return _of_run(path.parent)
    own = recipe or recipe_of(notes, path)
    move = onnx_file.to_canonical if onnx else lambda _recipe, given: dict(given)
    found, weights = recognised(path, arrays, own, move)
    return _made(path, found, weights, notes.get("framework"), notes)


def _of_worker(path: Path, framework: str, recipe: Recipe | None) -> ModelSource:
    if problem := registry.find(framework).problem:
        raise UserError(f"{path} is read by {framework}. {problem}")
    with files.scratch() as folder:
        out = folder / "weights.safetensors"
        request = ReadRequest(framework=framework, path=path, recipe=recipe, out=out)
        try:
            answer = work(request)
        except WorkerError as error:
            if not error.signal:
                raise
            name = signal.Signals(error.signal).name
            raise UserError(
                f"{path} is damaged: reading it was ended by {name}."
            ) from error
        weights, _metadata = files.read_tensors(out)
    found = validate(answer["recipe"])
    return _made(path, found, weights, framework, dict(answer["notes"]))
