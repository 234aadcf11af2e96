"""What torchvision before 0.10 kept: `processed/training.pt` and `processed/test.pt`.

They are pickled tensors. A process of its own reads them, within bounds of time and
memory, with the unpickler of PyTorch that takes tensors and nothing else.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from paripassu.core import files
from paripassu.core.datasets.reading import (
    OTHER_DATA,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Found,
    Piece,
    check_shape,
    explained,
    piece_of,
    to_labels,
    with_channels,
)
from paripassu.core.errors import UserError

FILES = ("training.pt", "test.pt")
READER = "paripassu.frameworks.pytorch._image_files"
SECONDS = 120  # by the clock; the process itself bounds what it computes


def read(folder: Path) -> Found:
    """Read both files: uint8 `(N, h, w, c)` and `(N,)`.

    Raises:
        UserError: a file is missing or damaged, holds something else than images and
            labels, or PyTorch is not there to read it.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} is not complete: expected {' and '.join(FILES)}, missing: "
            f"{', '.join(missing)}. Add what is missing, or {OTHER_DATA}."
        )
    training, test = (folder / name for name in FILES)
    return Found(
        {
            **_pieces(training, TRAIN_IMAGES, TRAIN_LABELS),
            **_pieces(test, TEST_IMAGES, TEST_LABELS),
        }
    )


def _pieces(path: Path, images: str, labels: str) -> dict[str, Piece]:
    where = str(path)
    with explained(where), files.scratch() as scratch:
        out = scratch / "arrays.safetensors"
        try:
            done = subprocess.run(
                [sys.executable, "-m", READER, str(path.resolve()), str(out)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            said = done.stderr.strip().splitlines()
        except subprocess.TimeoutExpired:
            said = [f"it took more than {SECONDS} seconds"]
        if not out.exists():
            reason = said[-1] if said else "its reader was ended"
            raise UserError(f"cannot read {where}: {reason}: {OTHER_DATA}.")
        arrays, _metadata = files.read_tensors(out)
    for role, key in ((images, "images"), (labels, "labels")):
        check_shape(where, arrays[key].shape, role)
    return {
        images: piece_of(where, images, with_channels(arrays["images"]), path),
        labels: piece_of(where, labels, to_labels(where, arrays["labels"]), path),
    }
