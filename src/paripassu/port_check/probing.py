"""Further inputs: what one draw may hide, such as a mask where no id is padding."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from paripassu.core.layer_spec import Array
from paripassu.port_check.examined import as_float32_holds
from paripassu.sides.contract import Arrays

SEED = 21
PADDING = 0  # the id that frameworks mask, if none is named
AMPLIFIED = (10, 100)


@dataclass(frozen=True)
class Probing:
    """Inputs of the shapes that were given, and why they are tried.

    Attributes:
        name: for readers, such as "padding at the end".
        why: what another model may do with them.
        inputs: by name, of the left model.
        kept: (N, t), which steps are no padding; None: all.
        padded: whether it is padding that it tries.
        extreme: whether a right model may well do otherwise, or overflow: a difference
            is said, and is no fault.
    """

    name: str
    why: str
    inputs: Arrays
    kept: Array | None = None
    padded: bool = False
    extreme: bool = False


def further_inputs(
    inputs: Arrays,
    *,
    ids_below: Mapping[str, int],
    masks: Collection[str] = (),
    paddings: Collection[int] = (),
    batch_free: bool = False,
) -> list[Probing]:
    """Sets of inputs beyond one that was given or drawn.

    Args:
        inputs: by name, the first axis is the batch.
        ids_below: for each input of ids, what they stay below. Of others, whole numbers
            stay as they are.
        masks: names of inputs of 0 and 1 (or false and true), 1 where a step counts.
        paddings: ids that tables name as padding, beside 0.
        batch_free: whether batches of other lengths may be tried.

    Returns:
        Those that apply, of the types that came, floats as float32 has them; all but
        batches of the same shapes.
    """
    random = np.random.Generator(np.random.Philox(SEED))
    padding_ids = sorted({PADDING, *paddings})
    drawn = _draw(inputs, ids_below, masks, padding_ids, random)
    found = [Probing("another draw", "one draw may hide a branch", drawn)]
    for padding in padding_ids:
        found += _padded(drawn, ids_below, masks, padding)
    found += _masked(drawn, masks)
    found += _scaled(inputs, masks)
    if batch_free:
        found += _batches(inputs, drawn)
    return [replace(x, inputs=as_float32_holds(x.inputs)) for x in found]


def _draw(
    inputs: Arrays,
    ids_below: Mapping[str, int],
    masks: Collection[str],
    paddings: Sequence[int],
    random: np.random.Generator,
) -> Arrays:
    """The same anew: floats as large as before, ids of all of a table but padding."""
    made: Arrays = {}
    for name, x in inputs.items():
        if name in ids_below:
            all_ids = np.arange(ids_below[name])
            some = np.setdiff1d(all_ids, paddings)
            made[name] = random.choice(some if some.size else all_ids, x.shape)
            made[name] = made[name].astype(x.dtype)
        elif name in masks or not _is_float(x):
            made[name] = x
        elif x.min(initial=0) >= 0:  # such as pixels
            made[name] = random.uniform(x.min(), x.max(), x.shape).astype(x.dtype)
        else:
            fresh = random.normal(x.mean(), x.std(), x.shape)
            made[name] = fresh.astype(x.dtype)
    return made


def _is_float(x: Array) -> bool:
    return x.size > 0 and np.issubdtype(x.dtype, np.floating)


def _padded(
    inputs: Arrays,
    ids_below: Mapping[str, int],
    masks: Collection[str],
    padding: int,
) -> Iterator[Probing]:
    """Padding at either end, in ids and masks alike."""
    # Segments and other flags are no ids that are padded.
    ids = [x for x, below in ids_below.items() if below > 2 and inputs[x].ndim == 2]
    own = [x for x in masks if inputs[x].ndim == 2]
    shapes = {inputs[x].shape for x in (*ids, *own)}
    for shape in sorted(shapes):
        if shape[1] < 2:
            continue
        ends = {"end": _counted(shape), "beginning": _counted(shape)[:, ::-1]}
        for end, kept in ends.items():
            made = dict(inputs)
            for name in (x for x in ids if inputs[x].shape == shape):
                fill = np.array(padding, inputs[name].dtype)
                made[name] = np.where(kept, inputs[name], fill)
            for name in (x for x in own if inputs[x].shape == shape):
                made[name] = kept.astype(inputs[name].dtype)
            why = "one model may mask padding, and the other compute on through it"
            # Without a mask, who counts ids that are not padding takes it to be at the
            # end, as `pack_padded_sequence` does.
            alone = end == "beginning" and not own
            name = f"padding at the {end}"
            if padding != PADDING:
                name += f" (id {padding})"
            yield Probing(name, why, made, kept, padded=True, extreme=alone)


def _masked(inputs: Arrays, masks: Collection[str]) -> Iterator[Probing]:
    """Masks of ones, and with a row of zeros."""
    for mask in (x for x in masks if inputs[x].ndim == 2 and inputs[x].shape[1] > 1):
        x = inputs[mask]
        ones = {**inputs, mask: np.ones_like(x)}
        yield Probing(f"{mask} of ones", "a mask may be turned round", ones)
        nothing = np.array(x)
        nothing[0] = 0
        yield Probing(
            f"{mask} with an empty row",
            "what attention to nothing gives is nobody's rule",
            {**inputs, mask: nothing},
            extreme=True,
        )


def _counted(shape: tuple[int, ...]) -> Array:
    """Which steps count: fewer in each row, as packed sequences are sorted."""
    rows, steps = shape
    less = max(1, steps // (rows + 1))
    lengths = np.maximum(steps - less * (1 + np.arange(rows)), 1)
    return np.arange(steps) < lengths[:, None]


def _scaled(inputs: Arrays, masks: Collection[str]) -> Iterator[Probing]:
    """Floats that reach clamps, ties and zeros."""
    floats = [k for k, x in inputs.items() if k not in masks and _is_float(x)]
    if not floats:
        return

    def made(change: object) -> Arrays:
        assert callable(change)
        return {
            name: change(x).astype(x.dtype) if name in floats else x
            for name, x in inputs.items()
        }

    clamps = "clamps may be out of reach: ReLU6, hard swish, clip"
    for factor in AMPLIFIED:
        name = f"inputs times {factor}"
        yield Probing(name, clamps, made(lambda x, n=factor: x * n))
    yield Probing("negative inputs", "branches by sign", made(lambda x: -np.abs(x)))
    yield Probing(
        "whole numbers", "ties: which of two equal values counts", made(np.round)
    )
    yield Probing(
        "a constant",
        "no variance, so that epsilons count",
        made(lambda x: np.full_like(x, 0.5)),
    )


def _batches(inputs: Arrays, drawn: Arrays) -> Iterator[Probing]:
    """A batch of one, and one that is twice as long."""
    lengths = {x.shape[0] if x.ndim else 0 for x in inputs.values()}
    if len(lengths) != 1 or 0 in lengths:
        return
    if lengths != {1}:
        one = {name: x[:1] for name, x in inputs.items()}
        yield Probing("a batch of one", "squeezed axes, and sums over the batch", one)
    two = {name: np.concatenate([x, drawn[name]]) for name, x in inputs.items()}
    yield Probing("a longer batch", "examples that see each other", two)
