"""The worker's side of a lockstep training: a twin, step after step, on shared draws.

In its folder it leaves `trajectory.safetensors`: `losses` float64 `(steps,)`, the loss
of every batch; `weight.<weight>`, the final weights in the precision of the recipe;
and where it was asked for, `logits` `(N, classes)` of the test set. Until then,
`checkpoint.safetensors` holds the state to go on from.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core import datasets, draws, files, machine
from paripassu.core.augmentation import augment
from paripassu.core.errors import UserError
from paripassu.core.experiment import read_data, steps_per_epoch
from paripassu.core.recipe import Recipe
from paripassu.core.record import TRAJECTORY_FILE
from paripassu.core.steps import Arrays, TwinStep
from paripassu.frameworks import registry
from paripassu.frameworks.contract import Twin
from paripassu.processes.child import Emit
from paripassu.processes.requests import FollowRequest

Losses = npt.NDArray[np.float64]
CHECKPOINT_FILE = "checkpoint.safetensors"
CHECKPOINT_SECONDS = 60.0  # beside one at the end of every epoch
REPORT_SECONDS = 0.2


def shared_step(
    recipe: Recipe, training: datasets.Split, rows: Any, epoch: int, step: int
) -> TwinStep:
    """Images, labels and dropout masks of one step of an epoch."""
    some = augment(recipe, training[rows], epoch, step)
    return TwinStep(
        images=some.images,
        labels=some.labels,
        masks=draws.dropout_masks(recipe.architecture, recipe, len(rows), epoch, step),
    )


def perturbed(weights: Arrays, name: str, recipe: Recipe) -> Arrays:
    """The weights with one array moved up by one unit in the last place."""
    rounded = weights[name].astype(recipe.storage)
    return {**weights, name: np.nextafter(rounded, np.inf, dtype=rounded.dtype)}


def weights_in(state: Arrays) -> Arrays:
    """The `weight.` arrays of a twin's state."""
    return {name: x for name, x in state.items() if name.startswith("weight.")}


def follow(request: FollowRequest, emit: Emit) -> None:
    """Train `steps` steps in lockstep, going on where an earlier process stopped.

    Raises:
        UserError: the folder holds another trajectory, or is in use.
    """
    with files.working_in(request.folder):
        _follow(request, emit)
    emit("followed")


def _follow(request: FollowRequest, emit: Emit) -> None:
    recipe, conditions = request.recipe, request.conditions
    data, prepared = read_data(recipe, conditions.data)
    framework = registry.find(request.framework)
    identity = recipe.hash(
        *sorted(datasets.describe(data, prepared).sha256.values()),
        framework.name,
        str(framework.version),
        str(request.threads),
        str(request.steps),
        str(request.perturbed),
        str(request.predict),
    )
    path = request.folder / TRAJECTORY_FILE
    if path.exists():
        _arrays, metadata = files.read_tensors(path)
        _check_identity(path, metadata, identity)
        return
    weights = draws.initial_weights(recipe.architecture, recipe)
    if request.perturbed:
        weights = perturbed(weights, request.perturbed, recipe)
    twin = framework.make_twin(
        recipe, weights=weights, threads=conditions.threads, device=conditions.device
    )
    losses, before = np.zeros(0), 0.0
    checkpoint = request.folder / CHECKPOINT_FILE
    length = steps_per_epoch(recipe, len(prepared.training.labels))
    if checkpoint.exists():
        arrays, metadata = files.read_tensors(checkpoint)
        _check_identity(checkpoint, metadata, identity)
        losses, before = arrays.pop("losses"), float(metadata["seconds"])
        twin.load_state(arrays, epoch=len(losses) // length, step=len(losses))

    def write(path: Path, losses: Losses, seconds: float, arrays: Arrays) -> None:
        metadata = {
            "identity": identity,
            "seconds": str(seconds),
            "framework": framework.name,
            "version": str(framework.version),
            "processor": machine.processor(),
        }
        files.write_tensors(path, {"losses": losses, **arrays}, metadata)

    def save(losses: Losses, more: float) -> None:
        write(checkpoint, losses, before + more, twin.state())

    losses, more = _train(
        twin, recipe, prepared.training, losses, request.steps, emit, save
    )
    result = weights_in(twin.state())
    if request.predict:
        result["logits"] = twin.logits(prepared.test.images)
    write(path, losses, before + more, result)
    checkpoint.unlink(missing_ok=True)


def _train(
    twin: Twin,
    recipe: Recipe,
    training: datasets.Split,
    losses: Losses,
    steps: int,
    emit: Emit,
    save: Callable[[Losses, float], None],
) -> tuple[Losses, float]:
    """Go on from `len(losses)` to `steps`; all losses, and seconds of computing."""
    length = steps_per_epoch(recipe, len(training.labels))
    found = losses.tolist()
    start = saved = reported = time.monotonic()
    batches: list[Any] = []
    epoch = -1
    for number in range(len(found), steps):
        if number // length != epoch:
            epoch = number // length
            batches = draws.batches(recipe, len(training.labels), epoch)
            twin.begin_epoch(epoch)
        step = number % length
        found.append(
            twin.advance(shared_step(recipe, training, batches[step], epoch, step))
        )
        if not np.isfinite(found[-1]):
            raise UserError(f"the loss is {found[-1]} at step {number + 1}.")
        now = time.monotonic()
        if now - reported >= REPORT_SECONDS:
            reported = now
            emit("step", done=number + 1, steps=steps, loss=found[-1])
        if step == length - 1 or now - saved >= CHECKPOINT_SECONDS:
            saved = now
            save(np.array(found), now - start)
    return np.array(found), time.monotonic() - start


def _check_identity(path: Path, metadata: dict[str, str], identity: str) -> None:
    if metadata.get("identity") != identity:
        raise UserError(
            f"{path} belongs to another proof: its recipe, data, versions, threads or "
            "steps differ. Choose another folder with --out, or delete that one."
        )
