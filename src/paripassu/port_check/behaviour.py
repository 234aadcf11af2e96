"""What two models compute, whatever they are made of: with other weights, after a step.

Layers in another order or form, or that only one model has, are no fault where both
compute the same function. That outputs agree does not show it: a branch may be
multiplied by zero, as a residual block's first steps often are. So the weights are
moved, the same way in both models, and the outputs are compared again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager

import numpy as np

from paripassu.core.layer_spec import Array
from paripassu.port_check.align import Store
from paripassu.port_check.examined import ExaminedModel
from paripassu.port_check.pairing import PairedModels
from paripassu.port_check.runs import Beside, Runner
from paripassu.sides.contract import Block

SHARE = 0.1  # of a weight's spread, by which it is moved
LEAST_SPREAD = 0.1  # of weights that are all the same: zeros, a norm's ones
STEP = 0.01  # of the largest weight, by which a training step moves


def with_other_weights(models: PairedModels, runner: Runner) -> Beside:
    """Both models' outputs with their weights moved alike; the weights are put back."""
    with closing(Store()) as store, _kept(models, store):
        for _, left, right in models.block_pairs():
            carried = models.carry_to_right(left, right)
            fresh = {
                name: _move(name, left.spec.weights[name], runner.random)
                for name, other in models.weight_names(left, right).items()
                if other in carried
            }
            models.left.write(left.name, fresh)
        models.reread()
        for _, left, right in models.block_pairs():
            models.right.write(right.name, models.carry_to_right(left, right))
        models.reread()
        return runner.beside()


def _move(name: str, array: Array, random: np.random.Generator) -> Array:
    drawn = random.standard_normal(array.shape)
    if name == "variance":
        moved = array * np.exp(SHARE * drawn)
    else:
        spread = max(float(np.std(array)), LEAST_SPREAD)
        moved = array + SHARE * spread * drawn
    return np.asarray(moved, array.dtype)


Gradients = Callable[[str, str], Array | None]  # of a block and a weight's name


def after_a_step(
    models: PairedModels,
    runner: Runner,
    left: Gradients,
    right: Gradients,
    eps: float,
) -> Beside:
    """Both models' outputs after a step of SGD; the weights are put back.

    A step along the gradient is the same however weights are split, joined, transposed
    or reshaped, so it shows whether gradients agree where weights have no partner.
    """
    largest = {"weight": 0.0, "gradient": 0.0}
    for block in models.left_blocks.values():
        for name, weight in block.spec.weights.items():
            if (gradient := left(block.name, name)) is not None:
                for key, array in (("weight", weight), ("gradient", gradient)):
                    size = float(np.abs(array).max(initial=0))
                    largest[key] = max(largest[key], size)
    rate = STEP * largest["weight"] / (largest["gradient"] or 1.0)
    with closing(Store()) as store, _kept(models, store):
        for model, blocks, gradients in (
            (models.left, models.left_blocks, left),
            (models.right, models.right_blocks, right),
        ):
            _step(model, blocks, gradients, rate)
        models.reread()
        return runner.beside(eps)


def _step(
    model: ExaminedModel,
    blocks: Mapping[str, Block],
    gradients: Gradients,
    rate: float,
) -> None:
    for block in blocks.values():
        fresh = {}
        for name, weight in block.spec.weights.items():
            gradient = gradients(block.name, name)
            if gradient is not None and gradient.shape == weight.shape:
                fresh[name] = np.asarray(weight - rate * gradient, weight.dtype)
        if fresh:
            model.write(block.name, fresh)


@contextmanager
def _kept(models: PairedModels, store: Store) -> Iterator[None]:
    """Put all weights of both models back."""
    sides = (
        (0, models.left, list(models.left_blocks.values())),
        (1, models.right, list(models.right_blocks.values())),
    )
    for side, _, blocks in sides:
        for number, block in enumerate(blocks):
            for name, array in block.spec.weights.items():
                store.put((side, number, name), [array])
    try:
        yield
    finally:
        for side, model, blocks in sides:
            for number, block in enumerate(blocks):
                kept = {}
                for name in block.shapes:
                    if found := store.get((side, number, name)):
                        kept[name] = found[0]
                model.write(block.name, kept)
        models.reread()
