"""A folder of pictures for each class: `train/<class>/*.png`, or `<class>/*.png`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from paripassu.core import limits
from paripassu.core.datasets.apart import set_apart
from paripassu.core.datasets.reading import (
    MAX_COUNT,
    MAX_SIDE,
    OTHER_DATA,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Found,
    Piece,
    explained,
    piece_of,
    size,
)
from paripassu.core.digits import SUFFIXES, PictureError, read_picture
from paripassu.core.errors import UserError

TRAIN = "train", "training"
TEST = "test", "testing", "val", "valid", "validation"
ENDINGS = ", ".join(sorted(SUFFIXES))


def holds_pictures(folder: Path) -> bool:
    """Whether a folder has folders with pictures in them, one or two floors down."""
    with explained(str(folder)):
        return any(
            _is_picture(entry.name)
            for inner in _folders(folder)
            for place in (inner, *_folders(inner))
            for entry in _all_in(place)
        )


def read(folder: Path) -> Found:
    """Read the pictures of every class; a class's number is its place by name.

    Where there are no folders `train` and `test`, some of each class are set apart: see
    `apart.set_apart`. Pictures are in colour, `(N, h, w, 3)`, if any of them is; else
    grey, `(N, h, w, 1)`. Transparency is laid on paper; see `digits.read_picture`.

    Raises:
        UserError: a picture is damaged or of another size, classes differ between
            training and test, or there is only one of both.
    """
    with explained(str(folder)):
        train, test = (_one_of(folder, names) for names in (TRAIN, TEST))
        if test and not train:
            raise UserError(
                f"{folder}: expected a folder train beside {test.name}, got none: name "
                f"what you train on so, or {OTHER_DATA}."
            )
        if not (train and test):
            place = train or folder
            classes = _classes(place)
            paths, labels, others = _pictures(place, classes)
            images = _read_all(paths)
            found = set_apart(
                _pieces(place, images, labels, TRAIN_IMAGES, TRAIN_LABELS), classes
            )
            return replace(found, notes=(*found.notes, *_left_out(others)))
        classes = _classes(train)
        _check_classes(train, classes, test, _classes(test))
        own = [_pictures(place, classes) for place in (train, test)]
        paths = [path for some, _labels, _others in own for path in some]
        images = _read_all(paths)
        count = len(own[0][0])
    return Found(
        {
            **_pieces(train, images[:count], own[0][1], TRAIN_IMAGES, TRAIN_LABELS),
            **_pieces(test, images[count:], own[1][1], TEST_IMAGES, TEST_LABELS),
        },
        classes=classes,
        notes=_left_out(sum(others for _paths, _labels, others in own)),
    )


def _one_of(folder: Path, names: Sequence[str]) -> Path | None:
    found = [x for x in _folders(folder) if x.name.lower() in names]
    if len(found) > 1:
        raise UserError(
            f"{folder}: expected one folder of the names {', '.join(names)}, got "
            f"{' and '.join(x.name for x in found)}: keep one of them there, or "
            f"{OTHER_DATA}."
        )
    return found[0] if found else None


def _folders(folder: Path) -> list[Path]:
    return [Path(x.path) for x in _all_in(folder) if x.is_dir()]


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _classes(folder: Path) -> tuple[str, ...]:
    """The folders with pictures: numbers by their size, other names by letters."""
    names = [
        x.name for x in _folders(folder) if any(_is_picture(y.name) for y in _all_in(x))
    ]
    if len(names) < 2:
        raise UserError(
            f"{folder}: expected a folder of pictures for each of two or more classes, "
            f"whose files end in {ENDINGS}, got {', '.join(names) or 'none'}: sort "
            f"them into folders, or {OTHER_DATA}."
        )
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _all_in(folder: Path) -> list[os.DirEntry[str]]:
    """All that is in a folder and not hidden, by name."""
    with os.scandir(folder) as entries:
        found = [x for x in entries if not x.name.startswith(".")]
    return sorted(found, key=lambda x: x.name)


def _check_classes(
    train: Path, classes: tuple[str, ...], test: Path, others: tuple[str, ...]
) -> None:
    if classes == others:
        return
    missing = sorted(set(classes) - set(others)) or ["none"]
    more = sorted(set(others) - set(classes)) or ["none"]
    raise UserError(
        f"expected the same classes in {train} and {test}: missing in {test.name}: "
        f"{', '.join(missing)}; only in {test.name}: {', '.join(more)}. Give each "
        f"class pictures in both, or {OTHER_DATA}."
    )


def _pictures(
    folder: Path, classes: tuple[str, ...]
) -> tuple[list[Path], npt.NDArray[Any], int]:
    """Every picture in order, its class, and how many files are none."""
    paths: list[Path] = []
    labels: list[int] = []
    others = 0
    for number, name in enumerate(classes):
        for entry in _all_in(folder / name):
            if _is_picture(entry.name):
                paths.append(Path(entry.path))
                labels.append(number)
            else:
                others += 1
    if len(paths) > MAX_COUNT:
        raise UserError(
            f"{folder}: expected at most {MAX_COUNT} images, got {len(paths)}: "
            f"{OTHER_DATA}."
        )
    kind = np.uint8 if len(classes) <= 256 else np.uint16
    return paths, np.array(labels, kind), others


def _read_all(paths: Sequence[Path]) -> npt.NDArray[np.uint8]:
    """All pictures, uint8 `(N, h, w, c)`.

    They are kept grey until the first in colour comes.
    """
    first = _read(paths[0])
    width, height = first.size
    shape = (len(paths), height, width, 1)
    if max(width, height) > MAX_SIDE:
        raise UserError(
            f"{paths[0]}: expected at most {MAX_SIDE} pixels a side, got {width} x "
            f"{height}: scale all pictures to one size, or {OTHER_DATA}."
        )
    advice = f"Scale them smaller, or {OTHER_DATA}."
    limits.check_promise(str(paths[0].parent), size(shape), None, advice=advice)
    images = np.empty(shape, np.uint8)
    for number, path in enumerate(paths):
        picture = _read(path) if number else first
        if picture.size != (width, height):
            raise UserError(
                f"expected pictures of one size, got {width} x {height} in {paths[0]} "
                f"and {picture.size[0]} x {picture.size[1]} in {path}: scale all to "
                f"one size, or {OTHER_DATA}."
            )
        if picture.mode == "RGB" and images.shape[3] == 1:
            where = str(paths[0].parent)
            limits.check_promise(where, 3 * size(shape), None, advice=advice)
            images = np.repeat(images, 3, axis=3)
        if images.shape[3] == 3:
            images[number] = np.asarray(picture.convert("RGB"))
        else:
            images[number, :, :, 0] = np.asarray(picture)
    return images


def _read(path: Path) -> Image.Image:
    """A picture of mode L or RGB."""
    try:
        picture = read_picture(path)
    except PictureError as error:
        raise UserError(
            f"{path}: {error}: mend or delete it, or {OTHER_DATA}."
        ) from None
    if picture.mode == "F":  # numbers of more bits, in 0..255
        whole = np.rint(np.asarray(picture)).clip(0, 255).astype(np.uint8)
        return Image.fromarray(whole)
    return picture


def _pieces(
    folder: Path,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[Any],
    images_role: str,
    labels_role: str,
) -> dict[str, Piece]:
    where = str(folder)
    return {
        images_role: piece_of(where, images_role, images),
        labels_role: piece_of(where, labels_role, labels),
    }


def _left_out(count: int) -> tuple[str, ...]:
    files = (
        f"{count} files that are no pictures" if count > 1 else "1 file that is none"
    )
    return (f"{files} beside the pictures were left out",) if count else ()
