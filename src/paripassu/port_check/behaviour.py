"""What two models compute, whatever they are made of: with other weights, after a step.

Layers in another order or form, or that only one model has, are no fault where both
compute the same function. That outputs agree does not show it: a branch may be
multiplied by zero, as a residual block's first steps often are. So the weights are
moved, the same way in both models, and the outputs are compared again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from paripassu.core.layer_spec import Array
from paripassu.port_check.examined import ExaminedModel
from paripassu.port_check.pairing import PairedModels
from paripassu.port_check.runs import Beside, Runner, apart
from paripassu.port_check.tolerance import allow
from paripassu.sides.contract import Block

SHARE = 0.1  # of a weight's spread, by which it is moved
LEAST_SPREAD = 0.1  # of weights that are all the same: zeros, a norm's ones
AMPLIFIED = 8
STEP = 0.01  # of the largest weight, by which a training step moves


def with_other_weights(runner: Runner) -> Beside:
    """Both models' outputs with their weights moved alike; the weights are put back."""
    models = runner.models
    if recorded := models.left.recorded:
        with put_back(models), recorded.changed("other-weights", move):
            _copy_moved(models)
            return runner.beside()
    return with_weights_changed(runner, move)


def with_weights_changed(
    runner: Runner, change: Callable[[str, str, Array], Array]
) -> Beside:
    """Both models' outputs with their weights changed alike; they are put back.

    Where clamps hide what one ulp at the inputs does, one ulp at each weight shows what
    rounding within the models may do.
    """
    models = runner.models
    with weights_changed(models, change):
        found = runner.beside()
        if found.equal:
            return found
        left = models.left.run(models.inputs)
    with weights_changed(models, lambda *x: runner.perturb(change(*x))):
        control = apart(left, models.left.run(models.inputs), models.outputs)
    return replace(found, bound=max(found.bound, allow(control, runner.eps)))


@contextmanager
def weights_changed(
    models: PairedModels, change: Callable[[str, str, Array], Array]
) -> Iterator[None]:
    """While weights that both models have are changed alike; neither is recorded.

    Args:
        models: with equal weights.
        change: is given a left block, the name of a weight, and its values.
    """
    with put_back(models):
        changed = set()
        for _, left, right in models.block_pairs():
            fresh = {}
            for name in _carried(models, left, right):
                array = left.spec.weights[name]
                if (made := change(left.name, name, array)) is not array:
                    fresh[name] = made
            if fresh:
                models.left.write(left.name, fresh)
                changed.add(left.name)
        _copy_moved(models, changed)
        yield


def all_carried(models: PairedModels) -> bool:
    """Whether the right model has all weights of the left one."""
    carried = {
        (left.name, name)
        for _, left, right in models.block_pairs()
        for name in _carried(models, left, right)
    }
    return all(
        (block.name, name) in carried
        for block in models.left_blocks.values()
        for name in block.shapes
    )


def _carried(models: PairedModels, left: Block, right: Block) -> list[str]:
    carried = models.carry_to_right(left, right)
    names = models.weight_names(left, right)
    return [name for name, other in names.items() if other in carried]


def _copy_moved(models: PairedModels, blocks: Container[str] | None = None) -> None:
    """Copy blocks of the left model, by name, to the right one; None: all."""
    models.reread()
    for _, left, right in models.block_pairs():
        if blocks is None or left.name in blocks:
            models.right.write(right.name, models.carry_to_right(left, right))
    models.reread()


def move(block: str, name: str, array: Array) -> Array:
    """A weight moved a little: the same way whoever does it, and whenever."""
    seed = zlib.crc32(f"{block}/{name}".encode())
    drawn = np.random.Generator(np.random.Philox(seed)).standard_normal(array.shape)
    if name == "variance":
        moved = array * np.exp(SHARE * drawn)
    else:
        spread = max(float(np.std(array)), LEAST_SPREAD)
        moved = array + SHARE * spread * drawn
    return np.asarray(moved, array.dtype)


def amplify(_block: str, name: str, array: Array) -> Array:
    """Weights that scale what a layer gives, enlarged, so that it reaches clamps."""
    large = array * AMPLIFIED if name in ("kernel", "gamma") else array
    return np.asarray(large, array.dtype)


Gradients = Callable[[str, str], Array | None]  # of a block and a weight's name


def after_a_step(runner: Runner, left: Gradients, right: Gradients) -> Beside:
    """Both models' outputs after a step of SGD; the weights are put back.

    A step along the gradient is the same however weights are split, joined, transposed
    or reshaped, so it shows whether gradients agree where weights have no partner.
    """
    models = runner.models
    recorded = models.left.recorded
    rate = recorded.rate if recorded else step_size(models.left_blocks.values(), left)
    with put_back(models):
        take_step(models.right, models.right_blocks.values(), right, rate)
        if recorded:
            with recorded.changed("after-a-step", None):
                return runner.beside()
        take_step(models.left, models.left_blocks.values(), left, rate)
        models.reread()
        return runner.beside()


def step_size(blocks: Iterable[Block], gradients: Gradients) -> float:
    """The learning rate of the step."""
    largest = {"weight": 0.0, "gradient": 0.0}
    for block in blocks:
        for name, weight in block.spec.weights.items():
            if (gradient := gradients(block.name, name)) is not None:
                for key, array in (("weight", weight), ("gradient", gradient)):
                    size = float(np.abs(array).max(initial=0))
                    largest[key] = max(largest[key], size)
    return STEP * largest["weight"] / (largest["gradient"] or 1.0)


def take_step(
    model: ExaminedModel,
    blocks: Iterable[Block],
    gradients: Gradients,
    rate: float,
) -> None:
    """Write weights after a step of SGD."""
    for block in blocks:
        fresh = {}
        for name, weight in block.spec.weights.items():
            gradient = gradients(block.name, name)
            if gradient is not None and gradient.shape == weight.shape:
                fresh[name] = np.asarray(weight - rate * gradient, weight.dtype)
        if fresh:
            model.write(block.name, fresh)


@contextmanager
def put_back(models: PairedModels) -> Iterator[None]:
    """Put weights back that are written meanwhile."""
    with models.left.put_back(), models.right.put_back():
        yield
    models.reread()
