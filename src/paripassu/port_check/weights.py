"""Says what was done to a weight on its way: transposed, flipped, exchanged, forgotten.

A mistake is made on the left model's weight, and is named where it gives the right's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations

import numpy as np

from paripassu.core.layer_spec import Array, relative_error
from paripassu.port_check.tolerance import SAME_WEIGHT, UNRELATED

Named = tuple[str, str]
Others = Mapping[tuple[str, str], Array]
GATES = {"lstm": "ifgo", "gru": "rzn"}


def recognise(
    kind: str,
    name: str,
    wanted: Array,
    got: Array,
    *,
    others: Others,
    flattened: tuple[int, ...] | None = None,
    input_bias: Array | None = None,
    recurrent_bias: Array | None = None,
    gates: str | None = None,
) -> Named:
    """The key of a cause, and a sentence.

    Args:
        kind, name: of the layer, and of its weight.
        wanted: the left model's, with the right's axes.
        got: the right model's.
        others: all other weights of the left model, by block and name.
        flattened: (h, w, c) where its rows are a flattened image's.
        input_bias: of two biases that are added, the first one.
        recurrent_bias: of two that are not added, the second one.
        gates: letters of gates in the order in which the right model's framework has
            them, where it is another than `GATES`.
    """
    for key, sentence, made in _mistakes(
        kind, name, wanted, flattened, input_bias, recurrent_bias, gates
    ):
        if made.shape == got.shape and relative_error(made, got) <= SAME_WEIGHT:
            return key, sentence
    if found := _constant(name, wanted, got):
        return found
    if found := _another(got, others):
        return found
    if wanted.shape == got.shape and (scale := _factor(wanted, got)):
        key = "weights-scaled"
        if kind == "attention" and name in ("query", "query_bias", "key"):
            key = "attention-scale"
        return key, f"it is the left model's times {scale:.6g}"
    if have_same_values(wanted, got, SAME_WEIGHT):
        key = "kernel-transposed" if wanted.ndim < 3 else "kernel-axes"
        return key, "it has the left model's values in another order"
    if wanted.size > 2 and abs(_correlation(wanted, got)) < UNRELATED:
        return "weights-not-copied", "its values have nothing of the left model's"
    return "weights-differ", "its values are not the left model's"


def _another(got: Array, others: Others) -> Named | None:
    """Another weight of the left model, as it is or transposed."""
    for (block, weight), array in others.items():
        for turned, how in ((array, ""), (array.T, "transposed ")):
            if turned.shape != got.shape or np.ptp(turned) == 0:
                continue
            if relative_error(turned, got) <= SAME_WEIGHT:
                text = f"it is the left model's {how}{weight} of {block}"
                return "weights-exchanged", text
    return None


def _correlation(one: Array, two: Array) -> float:
    if one.shape != two.shape or np.ptp(one) == 0 or np.ptp(two) == 0:
        return 1.0
    return float(np.corrcoef(one.ravel(), two.ravel())[0, 1])


def _mistakes(
    kind: str,
    name: str,
    wanted: Array,
    flattened: tuple[int, ...] | None,
    input_bias: Array | None,
    recurrent_bias: Array | None,
    gates: str | None,
) -> Iterator[tuple[str, str, Array]]:
    """What is often done wrong, and what comes of it."""
    if recurrent_bias is not None and name == "input_bias":
        both = "it is the sum of the left model's two biases"
        yield "bias-summed", both, wanted + recurrent_bias
    main = name in ("kernel", "recurrent", "query", "key", "value", "output")
    if flattened and name == "kernel":
        yield from _flattened(wanted, flattened)
    if kind in GATES and not (wanted.shape[-1] % len(GATES[kind])):
        yield from _gates(kind, name, wanted, gates)
    if main and wanted.ndim == 2:
        yield "kernel-transposed", "it is the left model's, not transposed", wanted.T
        if kind == "attention":
            yield from _heads(wanted)
        yield (
            "kernel-transposed",
            "it was reshaped where it should have been transposed",
            wanted.T.reshape(wanted.shape),
        )
    if wanted.ndim > 2:
        yield from _axes(wanted)
    if name == "table":
        for shift in (1, -1):
            moved = np.roll(wanted, shift, axis=0)
            yield "index-offset", f"its rows are shifted by {shift}", moved
            moved = moved.copy()
            moved[0 if shift == 1 else -1] = 0
            yield "index-offset", f"its rows are shifted by {shift}", moved
    if input_bias is not None and name == "bias":
        both = "the left layer has two biases, which are added, and"
        yield "bias-not-copied", f"{both} only the first was copied", input_bias
        second = wanted - input_bias
        yield "bias-not-copied", f"{both} only the second was copied", second
    if name == "variance":
        yield "statistics-not-copied", "it is the standard deviation", np.sqrt(wanted)
        yield "statistics-not-copied", "it is one over the variance", 1 / wanted


def _flattened(
    wanted: Array, flattened: tuple[int, ...]
) -> Iterator[tuple[str, str, Array]]:
    *space, channels = flattened
    sentence = (
        "its rows are in the order in which the left model flattens (channels first), "
        "but the right one flattens with channels last"
    )
    rows = np.arange(wanted.shape[0])
    first = rows.reshape(*space, channels)
    order = np.moveaxis(first, -1, 0).ravel()
    yield "flatten-order", sentence, wanted[order]
    yield "flatten-order", sentence, wanted[np.argsort(order)]
    if len(space) == 2:
        turned = first.swapaxes(0, 1).ravel()
        yield (
            "flatten-order",
            "height and width are swapped in its rows",
            wanted[turned],
        )


def _reorderings(count: int) -> list[tuple[int, ...]]:
    """All orders of so many but their own, which is the first."""
    return list(permutations(range(count)))[1:]


def _gates(
    kind: str, name: str, wanted: Array, meant: str | None
) -> Iterator[tuple[str, str, Array]]:
    letters = GATES[kind]
    meant = meant or letters
    blocks = np.split(wanted, len(letters), axis=-1)
    for order in _reorderings(len(letters)):
        turned = np.concatenate([blocks[n] for n in order], axis=-1)
        text = ", ".join(letters[order[letters.index(x)]] for x in meant)
        sentence = (
            f"its gates are in the order {text} where {', '.join(meant)} is meant"
        )
        yield "gate-order", sentence, turned
    if name == "recurrent":
        turned = np.concatenate([x.T for x in blocks], axis=-1)
        yield "kernel-transposed", "each gate's matrix is not transposed", turned
        whole = np.concatenate(blocks, axis=0)
        if whole.T.shape == wanted.shape:
            yield "kernel-transposed", "it is not transposed", whole.T
        side = wanted.shape[0]
        if wanted.shape == (side, side):
            yield "kernel-transposed", "it is not transposed", wanted.T
    # Of all gates at once: the matrix (4h, h) read as (h, 4h).
    yield (
        "kernel-transposed",
        "it was reshaped where it should have been transposed",
        wanted.T.reshape(wanted.shape),
    )


def _heads(wanted: Array) -> Iterator[tuple[str, str, Array]]:
    for heads in range(2, 17):
        if wanted.shape[1] % heads == 0:
            split = wanted.reshape(wanted.shape[0], heads, -1)
            turned = split.swapaxes(1, 2).reshape(wanted.shape)
            yield "kernel-axes", "its heads are interleaved", turned
        if wanted.shape[0] % heads == 0:
            split = wanted.reshape(heads, -1, wanted.shape[1])
            turned = split.swapaxes(0, 1).reshape(wanted.shape)
            yield "kernel-axes", "its heads are interleaved", turned


def _axes(wanted: Array) -> Iterator[tuple[str, str, Array]]:
    dimensions = wanted.ndim
    space = dimensions - 2
    names = [*"dhw"[3 - space :], "in", "out"]
    for order in _reorderings(dimensions):
        moved = [f"{names[a]} and {names[b]}" for a, b in enumerate(order) if a < b]
        turned = wanted.transpose(order)
        yield "kernel-axes", f"its axes {' and '.join(moved)} are swapped", turned
    for mask in range(1, 2**space):
        axes = tuple(n for n in range(space) if mask >> n & 1)
        turned = np.flip(wanted, axes)
        label = " and ".join(names[n] for n in axes)
        yield "kernel-flipped", f"it is mirrored along {label}", turned
        for order in _reorderings(dimensions):
            both = np.flip(wanted.transpose(order), axes)
            yield "kernel-flipped", f"it is mirrored along {label}", both
    for order in _reorderings(dimensions):
        read = wanted.transpose(order).reshape(wanted.shape)
        sentence = "it was reshaped where its axes should have moved"
        yield "kernel-axes", sentence, read


def _constant(name: str, wanted: Array, got: Array) -> Named | None:
    """Values that nobody learned: all zeros or ones, as a layer is made."""
    values = np.unique(got)
    made = len(values) == 1 or set(values) == {0.0, 1.0}
    if not made or got.size == 1 or np.isin(wanted, values).all():
        return None
    sentence = "its values are " + " and ".join(f"{x:g}" for x in values)
    sentence += ", as it was made"
    if name in ("mean", "variance"):
        return "statistics-not-copied", sentence
    if "bias" in name or name == "beta":
        return "bias-not-copied", sentence
    return "weights-not-copied", sentence


def _factor(wanted: Array, got: Array) -> float | None:
    """`c` where `got = c * wanted`."""
    where = np.unravel_index(np.argmax(np.abs(wanted)), wanted.shape)
    if wanted[where] == 0 or not np.isfinite(wanted).all():
        return None
    factor = float(got[where] / wanted[where])
    close = factor and relative_error(wanted * factor, got) <= SAME_WEIGHT
    return factor if close and abs(factor - 1) > SAME_WEIGHT else None


def have_same_values(wanted: Array, got: Array, bound: float) -> bool:
    """Whether two arrays have the same values, in whatever order."""
    return (
        wanted.size == got.size
        and relative_error(np.sort(wanted, axis=None), np.sort(got, axis=None)) <= bound
    )
