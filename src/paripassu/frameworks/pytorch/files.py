"""PyTorch's native files: `state_dict`s, written, read and used."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from paripassu.core import layout
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays, Given
from paripassu.frameworks.pytorch import recipes
from paripassu.frameworks.pytorch.weights import (
    COUNTED,
    LAYOUTS,
    from_common,
    own_name,
)

NOTES = (
    "paripassu"  # among the state's own notes, which are kept for each module
)


# What wraps a network puts before the names of its weights: torch.compile,
# DataParallel and DistributedDataParallel, and modules of Lightning by habit.
WRAPPERS = ("_orig_mod.", "module.", "model.", "net.", "network.")


def write(
    recipe: Recipe, weights: Given, path: Path, notes: Mapping[str, str]
) -> None:
    """Write a `state_dict` that `torch.load` reads with `weights_only=True`.

    Args:
        recipe: whose network it is.
        weights: canonical names and layout.
        path: of the file.
        notes: kept in the file, in the `state_dict`'s `_metadata`.
    """
    network = recipes.make_network(recipe).to(getattr(torch, recipe.storage))
    network.load_state_dict(from_common(recipe, dict(weights)))
    state = network.state_dict()
    state._metadata[NOTES] = dict(notes)
    torch.save(state, path)


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The arrays of a `state_dict`, in PyTorch's layout, and the notes with it.

    Nothing but tensors in plain containers is unpickled. Of a checkpoint that
    holds more than a `state_dict`, that one counts; what `torch.compile` and
    the like put before all names is taken away.

    Returns:
        Arrays under canonical names, `conv1.kernel`, and the notes, or none.

    Raises:
        UserError: the file is no `state_dict`, or is damaged.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # its unpickler meets foreign bytes with any kind
        words = str(error).strip().splitlines() or [type(error).__name__]
        reason = words[0].partition(". ")[0]
        raise UserError(
            f"{path} is not a state_dict that is safe to load: {reason}. "
            "Expected what torch.save(network.state_dict(), path) writes."
        ) from None
    state = _state_in(path, state)
    prefix = _wrapping(state)
    arrays = {
        _canonical(name.removeprefix(prefix)): _array(path, name, tensor)
        for name, tensor in state.items()
        if not name.endswith(f".{COUNTED}")
    }
    kept = getattr(state, "_metadata", None)
    notes = kept.get(NOTES) if isinstance(kept, dict) else None
    if not isinstance(notes, dict):
        notes = {}
    return arrays, {str(key): str(value) for key, value in notes.items()}


def _state_in(path: Path, content: Any) -> Mapping[str, torch.Tensor]:
    """The `state_dict` that a file holds, alone or among other things."""
    if _is_state(content):
        return content
    held = content if isinstance(content, dict) else {}
    states = {str(key): x for key, x in held.items() if _is_state(x) and x}
    if len(states) == 1:
        return next(iter(states.values()))
    came = type(content).__name__
    if states:
        came = f"several of them, {', '.join(states)}"
    raise UserError(
        f"{path} holds {came}, and a state_dict was expected: names and "
        "tensors, alone or as the only one in a checkpoint."
    )


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(x, torch.Tensor)
        for key, x in value.items()
    )


def _wrapping(names: Collection[str]) -> str:
    """What wrappers of the whole network put before all names."""
    prefix, more = "", bool(names)
    while more:
        longer = (prefix + x for x in WRAPPERS)
        fitting = [x for x in longer if all(n.startswith(x) for n in names)]
        prefix, more = (fitting or [prefix])[0], bool(fitting)
    return prefix


def _array(path: Path, name: str, tensor: torch.Tensor) -> Any:
    """A tensor of a file as an array: plain, and all of it there."""
    name, size = f"{path}: {name}", path.stat().st_size
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_nested:
        raise UserError(
            f"{name} is a sparse, nested or meta tensor: expected one that "
            "holds all its numbers."
        )
    if tensor.nbytes > size:  # a view of few numbers
        raise UserError(
            f"{name} has {tensor.nbytes:,} bytes, and its file {size:,}."
        )
    try:
        return tensor.numpy(force=True)
    except TypeError:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise UserError(
            f"{name} is of type {kind}: expected float32 or float64."
        ) from None


def to_canonical(recipe: Recipe, arrays: Mapping[str, Any]) -> Arrays:
    """What `read` has read, in the canonical layout.

    Raises:
        UserError: these are not the weights of the recipe's network.
    """
    network = recipe.architecture
    names = {_canonical(own_name(x)): x.name for x in network.weights}
    found = {names.get(name, name): array for name, array in arrays.items()}
    return layout.to_canonical(network, found, LAYOUTS)


def _canonical(name: str) -> str:
    """The name of a layer's array where the layer has a kernel."""
    layer, dot, part = name.rpartition(".")
    return f"{layer}{dot}{'kernel' if part == 'weight' else part}"
