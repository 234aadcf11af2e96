"""Where the steps of a proof start, beside the initial weights.

The first steps from small weights leave much unseen: a ReLU that is cut off at 6, a
kernel that may not grow, a gradient that is clipped. So the reference writes two more
starts, and every framework takes a step from each: `moved`, the state at the end of its
trajectory, and `amplified`, in which kernels, biases and images of both signs are as
large as the reference can still compute with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core import draws, files
from paripassu.core.layer_spec import relative_error
from paripassu.core.recipe import Recipe
from paripassu.core.steps import STARTS, Arrays, TwinStep
from paripassu.reference.twin import Twin

IMAGES = 8  # of a batch; enough for every branch
GAINS = (16.0, 8.0, 4.0, 2.0)
# How far a unit in the last place of every weight may move the reference: a tenth of
# the bounds of rungs 1 to 3. Adadelta's slots move most, by 2e-12.
STEADY = {"activation": 1e-13, "loss": 1e-13}
STEADY_AFTER = 1e-11  # gradients and what follows from them


@dataclass(frozen=True)
class Start:
    """A state, as `Twin.load_state` takes it, and the step to take from it."""

    state: Arrays
    number: int  # of the step, counted from 0 over all epochs
    step: TwinStep


def first_images(step: TwinStep) -> TwinStep:
    """The step with the first images only."""
    return TwinStep(
        images=step.images[:IMAGES],
        labels=step.labels[:IMAGES],
        masks={name: mask[:IMAGES] for name, mask in step.masks.items()},
    )


def amplified(recipe: Recipe, weights: Arrays, step: TwinStep) -> Start:
    """The largest start at which the reference keeps its digits."""
    found = _by(1.0, recipe, weights, step)
    for gain in GAINS:
        start = _by(gain, recipe, weights, step)
        if _is_steady(recipe, start):
            return start
    return found


def _by(gain: float, recipe: Recipe, weights: Arrays, step: TwinStep) -> Start:
    state = {}
    for weight in recipe.architecture.weights:
        name, array = weight.name, weights[weight.name]
        if weight.is_bias or weight.part == "mean":
            noise = draws.uniform(array.shape, recipe.seed, f"amplified {name}")
            array = 2 * noise - 1
        state[f"weight.{name}"] = array * gain
    signs = np.where(np.arange(len(step.images)) % 2, -gain, gain)
    images = step.images * signs[:, None, None, None].astype(np.float32)
    return Start(state, 0, replace(step, images=images))


def _is_steady(recipe: Recipe, start: Start) -> bool:
    """Whether rounding stays rounding, and no probability is too small to be told."""
    moved = {
        name: np.nextafter(array, np.inf, dtype=array.dtype)
        if np.all(array)  # zeros are connections that there are not
        else array * (1 + 2.0**-52)
        for name, array in start.state.items()
    }
    with np.errstate(all="ignore"):
        right, other = (
            _results(recipe, replace(start, state=state))
            for state in (start.state, moved)
        )
    if recipe.output == "probabilities":
        last = right[f"activation.{recipe.architecture.layers[-1].name}"]
        if last.min() < 1e-200:
            return False
    return all(
        np.isfinite(array).all()
        and relative_error(array, other[name])
        <= STEADY.get(name.partition(".")[0], STEADY_AFTER)
        for name, array in right.items()
    )


def _results(recipe: Recipe, start: Start) -> Arrays:
    weights = {n.removeprefix("weight."): x for n, x in start.state.items()}
    twin = Twin(recipe, weights=weights, threads=1, device="cpu")
    return {**twin.step(start.step), **twin.state()}


def write(path: Path, starts: dict[str, Start]) -> None:
    """Keep starts for the other frameworks."""
    arrays: Arrays = {}
    for name, start in starts.items():
        step = start.step
        given: Arrays = {f"mask.{n}": mask for n, mask in step.masks.items()}
        given |= {"images": step.images, "labels": step.labels}
        for prefix, each in (("state", start.state), ("given", given)):
            arrays |= {f"{name}.{prefix}.{key}": x for key, x in each.items()}
    numbers = {name: str(start.number) for name, start in starts.items()}
    files.write_tensors(path, arrays, numbers)


def read(path: Path) -> dict[str, Start]:
    """The starts of `write`."""
    arrays, numbers = files.read_tensors(path)

    def under(prefix: str) -> dict[str, npt.NDArray[Any]]:
        return {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }

    return {
        name: Start(
            state=under(f"{name}.state."),
            number=int(numbers[name]),
            step=TwinStep(
                images=arrays[f"{name}.given.images"],
                labels=arrays[f"{name}.given.labels"],
                masks=under(f"{name}.given.mask."),
            ),
        )
        for name in ("initial", *STARTS)
        if name in numbers
    }
