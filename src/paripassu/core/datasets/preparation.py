"""From pixels to the numbers that every framework trains on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from paripassu.core import draws, record
from paripassu.core.datasets.loading import ImageData
from paripassu.core.datasets.reading import OTHER_DATA, Bytes
from paripassu.core.errors import UserError

TOLERANCE = 0.0005  # published constants have four digits: 0.1307, 0.3081
_CHUNK = 128  # images; NumPy widens indices to 8 bytes, so not all at once


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, in the bytes that they came in.

    Normalised they would take four times the memory; a pixel is one of 256 values, and
    what becomes of each is in a table.

    Attributes:
        pixels: uint8 `(N, 28, 28)`.
        labels: int64 `(N,)`.
        levels: float32 `(256,)`, what each value of a pixel is normalised to.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    levels: npt.NDArray[np.float32]

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.labels)

    def __getitem__(self, rows: slice | npt.NDArray[np.integer[Any]]) -> Split:
        """Some of the images, by a slice or by their numbers."""
        return Split(self.pixels[rows], self.labels[rows], self.levels)

    @property
    def images(self) -> npt.NDArray[np.float32]:
        """The images normalised, float32 `(N, 28, 28)`, made at each call."""
        result = np.empty(self.pixels.shape, np.float32)
        for rows in _slices(len(self)):
            # No byte is outside 0..255; "clip" only spares NumPy a second buffer.
            np.take(self.levels, self.pixels[rows], out=result[rows], mode="clip")
        return result


@dataclass(frozen=True, eq=False)
class Prepared:
    """The three splits, and the constants that they were normalised with.

    `validation` may have 0 rows. `mean` and `std` are in units of 0..1; `warnings` are
    sentences for the user.
    """

    training: Split
    validation: Split
    test: Split
    mean: float
    std: float
    warnings: list[str]


def prepare(
    data: ImageData,
    *,
    mean: float | Literal["computed"],
    std: float | Literal["computed"],
    validation_size: int = 0,
) -> Prepared:
    """Set a validation split apart and normalise: (pixel / 255 - mean) / std.

    The split is the same for every seed of a recipe. "computed" takes the mean or the
    standard deviation (of the population) of the pixels of the training images that
    remain after the split; numbers are checked against these, and a difference of
    more than 0.0005 is a warning.

    Raises:
        UserError: `validation_size` leaves no training image or is negative, or the
            standard deviation is computed and all pixels are equal.
    """
    count = len(data.train_labels)
    if not 0 <= validation_size < count:
        raise UserError(
            f"validation_size: expected 0 to {count - 1}, because {data.source} has "
            f"{count} training images, got {validation_size}: type "
            f"--set validation_size={count // 10}."
        )
    order = draws.permutation(count, 0, "validation")
    chosen = np.sort(order[:validation_size])
    images, labels = data.train_images, data.train_labels
    if validation_size:
        images, labels = np.delete(images, chosen, 0), np.delete(labels, chosen)

    own_mean, own_std = _mean_and_std(images)
    if std == "computed" and own_std == 0:
        raise UserError(
            f"the standard deviation of the training images of {data.source} cannot "
            "be computed: expected pixels of different values, got all equal: "
            f"{OTHER_DATA}."
        )
    used_mean = own_mean if mean == "computed" else mean
    used_std = own_std if std == "computed" else std

    table = _table(used_mean, used_std)
    return Prepared(
        training=_split(images, labels, table),
        validation=_split(data.train_images[chosen], data.train_labels[chosen], table),
        test=_split(data.test_images, data.test_labels, table),
        mean=used_mean,
        std=used_std,
        warnings=[*data.notes, *_warnings(used_mean, used_std, own_mean, own_std)],
    )


def normalise(
    images: npt.NDArray[np.uint8], *, mean: float, std: float
) -> npt.NDArray[np.float32]:
    """(pixel / 255 - mean) / std, the very numbers that a training is given.

    Args:
        images: uint8 0..255, of any shape.
        mean: of pixels in 0..1.
        std: the same.
    """
    return _table(mean, std)[images]


def _table(mean: float, std: float) -> npt.NDArray[np.float32]:
    # All inputs are among 256 values: normalise these in float64 and look the rest up.
    # Fast, and no framework's order of operations can change a last digit.
    return ((np.arange(256) / 255 - mean) / std).astype(np.float32)


def describe(data: ImageData, prepared: Prepared) -> record.Dataset:
    """What a run's record says about its data, and how they were normalised."""
    return record.Dataset(
        name=data.name,
        source=data.source,
        sha256=data.sha256,
        train_size=len(prepared.training.labels),
        validation_size=len(prepared.validation.labels),
        test_size=len(prepared.test.labels),
        mean=prepared.mean,
        std=prepared.std,
        warnings=prepared.warnings,
    )


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))


def _mean_and_std(images: Bytes) -> tuple[float, float]:
    """The mean and population standard deviation of pixels / 255.

    Sums over the histogram are whole numbers of any size in Python, so only the last
    divisions and the root round.
    """
    counts = np.zeros(256, np.int64)
    for rows in _slices(len(images)):
        counts += np.bincount(images[rows].ravel(), minlength=256)
    histogram = list(enumerate(counts.tolist()))
    total = images.size
    first = sum(count * value for value, count in histogram)
    second = sum(count * value * value for value, count in histogram)
    variance = (total * second - first * first) / (total * total * 255 * 255)
    return first / (total * 255), math.sqrt(variance)


def _split(images: Bytes, labels: Bytes, table: npt.NDArray[np.float32]) -> Split:
    pixels = images.view()
    pixels.flags.writeable = True  # PyTorch warns of memory that it may not write to
    return Split(pixels, labels.astype(np.int64), table)


def _warnings(mean: float, std: float, own_mean: float, own_std: float) -> list[str]:
    if abs(mean - own_mean) <= TOLERANCE and abs(std - own_std) <= TOLERANCE:
        return []
    advice = (
        f"type --set normalization.mean={own_mean:.4g} "
        f"--set normalization.std={own_std:.4g}"
        if own_std
        else "all pixels are equal, so look at the images"
    )
    return [
        f"normalisation expects the mean {mean:.4g} and standard deviation {std:.4g}, "
        f"the training images have {own_mean:.4g} and {own_std:.4g}: {advice}."
    ]
