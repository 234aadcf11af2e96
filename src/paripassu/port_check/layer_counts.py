"""Counts the layers with weights of both models, by what they are, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from paripassu.port_check.results import LayerCount
from paripassu.sides.contract import Block


def count_layers(
    left: Iterable[Block], right: Iterable[Block]
) -> tuple[LayerCount, ...]:
    """The layers of both models, each with how often it comes, in the left's order."""
    counts = [Counter(_titles(x)) for x in (left, right)]
    return tuple(
        LayerCount(title=title, left=counts[0][title], right=counts[1][title])
        for title in dict.fromkeys((*counts[0], *counts[1]))
    )


def _titles(blocks: Iterable[Block]) -> Iterator[str]:
    layers: dict[str, list[Block]] = {}
    for block in blocks:
        layers.setdefault(block.layer, []).append(block)
    for parts in layers.values():
        more = f", {len(parts)} parts" if len(parts) > 1 else ""
        yield f"{_title(parts[0])}{more}"


def _title(block: Block) -> str:
    """What it is: "conv 3x3 16 to 32, stride 2"."""
    settings = block.spec.settings
    told = [f"{block.kind.replace('_', ' ')} {_sizes(block)}".strip()]
    if stride := _unless_one(settings.get("strides")):
        told.append(f"stride {stride}")
    if dilation := _unless_one(settings.get("dilation")):
        told.append(f"dilation {dilation}")
    if (groups := settings.get("groups")) and groups != 1:
        told.append(f"groups {groups}")
    if heads := settings.get("heads"):
        told.append(f"heads {heads}")
    if epsilon := settings.get("epsilon"):
        told.append(f"epsilon {epsilon:.3g}")
    return ", ".join(told)


def _sizes(block: Block) -> str:
    shapes = block.shapes
    if recurrent := shapes.get("recurrent"):
        return f"{shapes['kernel'][0]} to {recurrent[0]}"
    if kernel := shapes.get("kernel"):
        *space, given, made = kernel
        window = f"{_times(space)} " if space else ""
        return f"{window}{given} to {made}"
    first = next(iter(shapes.values()), ())
    return _times(first)


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _unless_one(steps: Any) -> str:
    """Steps along axes, once where they are the same; "" where all are 1."""
    steps = tuple(steps or ())
    if {*steps} <= {1}:
        return ""
    return str(steps[0]) if len({*steps}) == 1 else _times(steps)
