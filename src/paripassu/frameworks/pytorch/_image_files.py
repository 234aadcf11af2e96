"""Reads a pair of tensors, images and labels: `FILE.pt OUT.safetensors`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from paripassu.core import files, limits
from paripassu.core.errors import UserError


def main() -> None:
    """Write `images`, uint8, and `labels`, whole numbers."""
    path, out = map(Path, sys.argv[1:])
    with limits.reading(path, "images"):
        content = torch.load(path, map_location="cpu", weights_only=True)
        arrays = _arrays(path, content)
    files.write_tensors(out, arrays)


def _arrays(path: Path, content: Any) -> dict[str, Any]:
    tensors = content if isinstance(content, tuple | list) else ()
    if len(tensors) not in (2, 3) or not all(
        isinstance(x, torch.Tensor) for x in tensors[:2]
    ):
        raise UserError("expected a pair of tensors, images and labels")
    images, labels = tensors[:2]
    if images.dtype != torch.uint8:
        raise UserError(f"expected images of uint8, got {images.dtype}")
    if labels.dtype.is_floating_point or labels.dtype.is_complex:
        raise UserError(f"expected labels of whole numbers, got {labels.dtype}")
    for tensor in (images, labels):
        if tensor.layout is not torch.strided or tensor.is_meta:
            raise UserError("expected tensors that hold all their numbers")
        if tensor.nbytes > path.stat().st_size:  # a view of few numbers
            raise UserError("it promises more numbers than it holds")
    return {"images": images.numpy(), "labels": labels.numpy()}


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
