"""CIFAR-10 in its binary version: six files of 10,000 images.

Format: A. Krizhevsky, "The CIFAR-10 dataset", section "Binary version": of each image a
byte with its label, then 1,024 bytes each of red, green and blue, row by row.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paripassu.core import limits
from paripassu.core.datasets.reading import (
    FETCH_AGAIN,
    MAX_COUNT,
    OTHER_DATA,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Bytes,
    Found,
    Piece,
    explained,
    piece_of,
)
from paripassu.core.errors import UserError

TRAINING = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = ("test_batch.bin",)
FILES = (*TRAINING, *TEST)
PICKLED = "data_batch_1"  # of the version for Python
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE


def read(folder: Path) -> Found:
    """Read all six files: uint8 `(N, 32, 32, 3)` and `(N,)`.

    Raises:
        UserError: a file is missing, or is not a whole number of images.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} is not complete: expected the six files of CIFAR-10's binary "
            f"version, missing: {', '.join(missing)}. {FETCH_AGAIN}"
        )
    return Found(
        {
            **_pieces(folder, TRAINING, TRAIN_IMAGES, TRAIN_LABELS),
            **_pieces(folder, TEST, TEST_IMAGES, TEST_LABELS),
        },
        name="cifar-10",
        classes=CLASSES,
    )


def _pieces(
    folder: Path, names: tuple[str, ...], images: str, labels: str
) -> dict[str, Piece]:
    records = np.concatenate([_records(folder / name) for name in names])
    pixels = records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    where = str(folder / names[0])
    return {
        images: piece_of(where, images, pixels),
        labels: piece_of(where, labels, records[:, 0]),
    }


def _records(path: Path) -> Bytes:
    """The bytes of each image and its label: `(N, 3073)`."""
    where = str(path)
    with explained(where):
        size = path.stat().st_size
        count, rest = divmod(size, RECORD)
        if rest or not 0 < count <= MAX_COUNT:
            raise UserError(
                f"{where}: expected images of {RECORD} bytes each, got {size} bytes, "
                f"which are {count} images and {rest} bytes. {FETCH_AGAIN}"
            )
        limits.check_promise(where, size, None, advice=FETCH_AGAIN)
        records = np.fromfile(path, np.uint8).reshape(count, RECORD)
    if records[:, 0].max() >= len(CLASSES):
        index = int((records[:, 0] >= len(CLASSES)).argmax())
        raise UserError(
            f"{where}: expected labels 0..9, got {records[index, 0]} at index {index}: "
            f"it is not CIFAR-10's binary version. {FETCH_AGAIN}"
        )
    return records


def refuse_pickles(folder: Path) -> None:
    """Say what to fetch in place of the version that is pickled.

    Raises:
        UserError: the folder holds that version.
    """
    if (folder / PICKLED).is_file():
        raise UserError(
            f"{folder} holds CIFAR-10's version for Python: pickles, which could run "
            "code when read: refused. Fetch cifar-10-binary.tar.gz, the expected "
            f"binary version with data_batch_1.bin and so on, or {OTHER_DATA}."
        )
