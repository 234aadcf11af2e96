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
        pixels: uint8 `(N, h, w, c)`.
        labels: int64 `(N,)`.
        levels: float32 `(c, 256)`, what each value of a pixel is normalised to, for
            each channel.
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
        """The images normalised, float32 `(N, h, w, c)`, made at each call."""
        result = np.empty(self.pixels.shape, np.float32)
        table = self.levels.ravel()
        for rows in _slices(len(self)):
            places = _places(self.pixels[rows])
            # None is outside of the table; "clip" only spares NumPy a second buffer.
            np.take(table, places, out=result[rows], mode="clip")
        return result


Constant = float | list[float]  # for all channels, or for each of them


@dataclass(frozen=True, eq=False)
class Prepared:
    """The three splits, and the constants that they were normalised with.

    `validation` may have 0 rows. `mean` and `std` are in units of 0..1, one number or
    one for each channel; `warnings` are sentences for the user.
    """

    training: Split
    validation: Split
    test: Split
    mean: Constant
    std: Constant
    warnings: list[str]


def prepare(
    data: ImageData,
    *,
    mean: Constant | Literal["computed"],
    std: Constant | Literal["computed"],
    validation_size: int = 0,
) -> Prepared:
    """Set a validation split apart and normalise: (pixel / 255 - mean) / std.

    The split is the same for every seed of a recipe. "computed" takes the mean or the
    standard deviation (of the population) of the pixels of the training images that
    remain after the split, of each channel; numbers are checked against these, and a
    difference of more than 0.0005 is a warning.

    Raises:
        UserError: `validation_size` leaves no training image or is negative, or the
            standard deviation is computed and all pixels are equal, or there are not
            as many numbers as channels.
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

    own_means, own_stds = _means_and_stds(images)
    if std == "computed" and 0 in own_stds:
        raise UserError(
            f"the standard deviation of the training images of {data.source} cannot "
            "be computed: expected pixels of different values, got all equal: "
            f"{OTHER_DATA}."
        )
    channels = len(own_means)
    for name, given in (("mean", mean), ("std", std)):
        if isinstance(given, list) and len(given) != channels:
            raise UserError(
                f"normalization.{name}: expected one number or {channels}, because "
                f"{data.source} has images of {channels} channels, got {len(given)}: "
                f"type --set normalization.{name}=computed."
            )
    used_mean = _plain(own_means) if mean == "computed" else mean
    used_std = _plain(own_stds) if std == "computed" else std

    table = _table(used_mean, used_std, channels)
    return Prepared(
        training=_split(images, labels, table),
        validation=_split(data.train_images[chosen], data.train_labels[chosen], table),
        test=_split(data.test_images, data.test_labels, table),
        mean=used_mean,
        std=used_std,
        warnings=[*data.notes, *_warnings(used_mean, used_std, own_means, own_stds)],
    )


def normalise(
    images: npt.NDArray[np.uint8], *, mean: Constant, std: Constant
) -> npt.NDArray[np.float32]:
    """(pixel / 255 - mean) / std, the very numbers that a training is given.

    Args:
        images: uint8 0..255; where there is more than one mean or std, the last axis
            is that of the channels.
        mean: of pixels in 0..1.
        std: the same.
    """
    if isinstance(mean, list) or isinstance(std, list):
        tables = _table(mean, std, images.shape[-1])
        found = tables.ravel().take(_places(images))
    else:
        found = _table(mean, std, 1).ravel().take(images)
    return np.asarray(found, np.float32)


def _table(mean: Constant, std: Constant, channels: int) -> npt.NDArray[np.float32]:
    # All inputs are among 256 values: normalise these in float64 and look the rest up.
    # Fast, and no framework's order of operations can change a last digit.
    means, stds = (np.broadcast_to(x, channels)[:, None] for x in (mean, std))
    table: npt.NDArray[np.float32] = (np.arange(256) / 255 - means) / stds
    return table.astype(np.float32)


def _places(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.integer[Any]]:
    """Where each pixel's level is, in the tables of all channels one after the other.

    Args:
        pixels: `(..., c)`.
    """
    channels = pixels.shape[-1]
    if channels == 1:
        return pixels
    return pixels + 256 * np.arange(channels, dtype=np.uint16)


def describe(data: ImageData, prepared: Prepared) -> record.Dataset:
    """What a run's record says about its data, and how they were normalised."""
    return record.Dataset(
        name=data.name,
        source=data.source,
        sha256=data.sha256,
        train_size=len(prepared.training.labels),
        validation_size=len(prepared.validation.labels),
        test_size=len(prepared.test.labels),
        owner=data.owner,
        shape=list(data.shape),
        classes=data.num_classes,
        mean=prepared.mean,
        std=prepared.std,
        warnings=prepared.warnings,
    )


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))


def _means_and_stds(images: Bytes) -> tuple[list[float], list[float]]:
    """Of pixels / 255, the mean and population standard deviation of each channel.

    Sums over the histogram are whole numbers of any size in Python, so only the last
    divisions and the root round.
    """
    channels = images.shape[-1]
    counts = np.zeros(256 * channels, np.int64)
    for rows in _slices(len(images)):
        places = _places(images[rows]).ravel()
        counts += np.bincount(places, minlength=256 * channels)
    total = images.size // channels
    means, stds = [], []
    for own in counts.reshape(channels, 256).tolist():
        first = sum(count * value for value, count in enumerate(own))
        second = sum(count * value * value for value, count in enumerate(own))
        variance = (total * second - first * first) / (total * total * 255 * 255)
        means.append(first / (total * 255))
        stds.append(math.sqrt(variance))
    return means, stds


def _plain(numbers: list[float]) -> Constant:
    """One number where there is one."""
    return numbers[0] if len(numbers) == 1 else numbers


def _split(images: Bytes, labels: Bytes, table: npt.NDArray[np.float32]) -> Split:
    pixels = images.view()
    try:  # PyTorch warns of memory that it may not write to
        pixels.flags.writeable = True
    except ValueError:
        pixels = images.copy()
    return Split(pixels, labels.astype(np.int64), table)


def _warnings(
    mean: Constant, std: Constant, own_means: list[float], own_stds: list[float]
) -> list[str]:
    near = all(
        np.abs(np.subtract(used, own)).max() <= TOLERANCE
        for used, own in ((mean, own_means), (std, own_stds))
    )
    if near:
        return []
    own_mean, own_std = (in_digits(_plain(x)) for x in (own_means, own_stds))
    several = len(own_means) > 1
    advice = " ".join(
        f"--set 'normalization.{name}={text}'"
        if several
        else f"--set normalization.{name}={text}"
        for name, text in (("mean", own_mean), ("std", own_std))
    )
    advice = f"type {advice}"
    if 0 in own_stds:
        advice = "all pixels are equal, so look at the images"
    return [
        f"normalisation expects the mean {in_digits(mean)} and standard deviation "
        f"{in_digits(std)}, the training images have {own_mean} and {own_std}: "
        f"{advice}."
    ]


def in_digits(constant: Constant) -> str:
    """For people and for TOML, four digits each: "0.1307", or "[0.49, 0.48, 0.45]"."""
    if isinstance(constant, list):
        return f"[{', '.join(f'{x:.4g}' for x in constant)}]"
    return f"{constant:.4g}"
