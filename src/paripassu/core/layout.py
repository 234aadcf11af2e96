"""The only place where axes move.

A layout is written as a pattern, `"h w i o -> o i h w"`: h and w are height and width,
i and o input and output channels (or units), c the channels of a flattened image.
Three patterns take the canonical layout, which is Keras's, to PyTorch's:

- `h w i o -> o i h w` for the kernel of a convolution,
- `i o -> o i` for the kernel of a dense layer,
- `(h w c) o -> o (c h w)` for the first dense layer after a flatten, where a plain
  transpose would be wrong without changing any shape.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import einops
import numpy as np
import numpy.typing as npt

from paripassu.core.errors import UserError
from paripassu.core.networks import Network

Weights = dict[str, npt.NDArray[Any]]
Layouts = Mapping[str, str]


def relayout(array: npt.NDArray[Any], pattern: str, **sizes: int) -> npt.NDArray[Any]:
    """Move the axes of `array` as `pattern` says (einops' notation).

    Args:
        array: any dtype.
        pattern: `"from -> to"`, the same axis names on both sides.
        sizes: the sizes of axes inside a group, where the shape alone can't tell.

    Returns:
        A new contiguous array of the same dtype.

    Raises:
        UserError: the array does not have the axes of the pattern's left side.
    """
    try:
        return np.array(einops.rearrange(array, pattern, **sizes), order="C")
    except einops.EinopsError as error:
        raise UserError(
            f"an array of shape {array.shape} does not fit the layout {pattern!r}: "
            f"{str(error).splitlines()[-1].strip()}"
        ) from error


def from_canonical(
    network: Network, weights: Mapping[str, npt.NDArray[Any]], layouts: Layouts
) -> Weights:
    """Take all weights of a network from the canonical layout to a framework's.

    `layouts` maps canonical axes to the framework's, `{"h w i o": "o i h w"}`; axes
    that it does not name stay as they are.

    Raises:
        UserError: `weights` are not those of `network`.
    """
    check_weights(network, weights)
    return {
        weight.name: relayout(
            weights[weight.name],
            f"{weight.axes} -> {layouts.get(weight.axes, weight.axes)}",
            **weight.sizes,
        )
        for weight in network.weights
    }


def to_canonical(
    network: Network, weights: Mapping[str, npt.NDArray[Any]], layouts: Layouts
) -> Weights:
    """Take all weights of a network from a framework's layout to the canonical one.

    Raises:
        UserError: a name is missing or unknown, or a shape does not fit.
    """
    _check_names(network, weights)
    return {
        weight.name: relayout(
            weights[weight.name],
            f"{layouts.get(weight.axes, weight.axes)} -> {weight.axes}",
            **weight.sizes,
        )
        for weight in network.weights
    }


def hash_weights(weights: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 of the bytes of all arrays, by name: equal only for equal bits."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.asarray(weights[name], order="C")
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def hash_arrays(arrays: Iterable[npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
    """SHA-256, uint8 `(32,)`, of dtypes, shapes and bytes of arrays in their order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.asarray(array, order="C").tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def check_weights(network: Network, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Check that `weights` are exactly those of `network`, canonical and finite.

    Raises:
        UserError: a name is missing or unknown, a shape differs, or a value is NaN
            or infinite.
    """
    _check_names(network, weights)
    for weight in network.weights:
        if weights[weight.name].shape != weight.shape:
            raise UserError(
                f"{weight.name} of {network.name!r} has shape {weight.shape}, but "
                f"{weights[weight.name].shape} came."
            )
        if not np.isfinite(weights[weight.name]).all():
            raise UserError(f"{weight.name} holds NaN or infinity: not usable weights.")
        if weight.part == "variance" and weights[weight.name].min() < 0:
            raise UserError(f"{weight.name} holds a number below 0: no variance does.")


def _check_names(network: Network, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    expected = [weight.name for weight in network.weights]
    if missing := sorted(set(expected) - weights.keys()):
        raise UserError(f"weights of {network.name!r} lack {', '.join(missing)}.")
    if surplus := sorted(weights.keys() - set(expected)):
        raise UserError(
            f"{', '.join(surplus)}: not in {network.name!r}, which has "
            f"{', '.join(expected)}."
        )
