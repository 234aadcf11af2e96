"""Finding the four files of a data set in a user's folder."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from paripassu.core.datasets import idx, npz
from paripassu.core.datasets.reading import (
    FETCH_AGAIN,
    OTHER_DATA,
    ROLES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Piece,
    explained,
)
from paripassu.core.errors import UserError

STEMS = {
    TRAIN_IMAGES: ("train-images", "idx3-ubyte"),
    TRAIN_LABELS: ("train-labels", "idx1-ubyte"),
    TEST_IMAGES: ("t10k-images", "idx3-ubyte"),
    TEST_LABELS: ("t10k-labels", "idx1-ubyte"),
}
EMNIST = re.compile(r"(emnist-[a-z]+)-(?:train|test)-(?:images|labels)-idx[13]-ubyte")
# Where torchvision puts the files under the root that it is given.
_INSIDE = (
    *(".", "raw", "MNIST", "MNIST/raw", "FashionMNIST", "FashionMNIST/raw"),
    *("EMNIST", "EMNIST/raw"),
)
_EXPECTED = (
    "the four IDX files (train-images-idx3-ubyte[.gz] and so on, or those of EMNIST), "
    "torchvision's MNIST/raw, or Keras' mnist.npz"
)


def read(path: Path) -> dict[str, Piece]:
    """Read a data set from a folder, or from an `.npz` file.

    The images in files with EMNIST's names are stored transposed, and given upright.
    Source: G. Cohen, S. Afshar, J. Tapson and A. van Schaik, "EMNIST: an extension of
    MNIST to handwritten letters", 2017, whose files keep MATLAB's order of the axes.

    Raises:
        UserError: nothing there, not all of it, more than one data set, or a file
            that `idx.read` or `npz.read` refuses.
    """
    with explained(str(path)):
        place = _find(path)
        if place.is_file():
            return npz.read(place)
        owner = emnist_in(place)
        files = {role: _spellings(place, role, owner) for role in ROLES}
    missing = [_names(role, owner)[0] for role in ROLES if not files[role]]
    if missing:
        raise UserError(
            f"{place} is not complete: expected four IDX files, missing: "
            f"{', '.join(missing)} (or the same with .gz). Add what is missing, or "
            f"{OTHER_DATA}."
        )
    pieces = {role: _read_role(files[role], role) for role in ROLES}
    return {x: _upright(piece) for x, piece in pieces.items()} if owner else pieces


def emnist_in(folder: Path) -> str:
    """Which of EMNIST's sets a folder holds by its names, as "emnist-digits"; or "".

    Raises:
        UserError: it holds more than one.
    """
    found = map(EMNIST.match, (x.name for x in folder.glob("emnist-*")))
    owners = sorted({x[1] for x in found if x})
    if owners and any(_spellings(folder, role, "") for role in ROLES):
        owners.append("files without its name")
    if len(owners) > 1:
        raise UserError(
            f"{folder} is a mixture: expected one data set, got "
            f"{' and '.join(owners)}. Keep each in a folder of its own, and "
            f"{OTHER_DATA}."
        )
    return owners[0] if owners else ""


def _upright(piece: Piece) -> Piece:
    """A piece whose images are transposed."""
    if piece.array.ndim != 3:
        return piece
    array = np.ascontiguousarray(piece.array.transpose(0, 2, 1)).view()
    array.flags.writeable = False
    return replace(piece, array=array)


def _find(path: Path) -> Path:
    """The one folder with IDX files, or `.npz` file, that `path` stands for."""
    if not path.exists():
        raise UserError(
            f"{path} does not exist: expected a folder with {_EXPECTED}: check the "
            f"spelling, or {OTHER_DATA}."
        )
    if not path.is_dir():
        if path.is_file() and path.suffix == ".npz":
            return path
        known = {name for role in ROLES for name in _names(role)}
        raise UserError(
            f"{path} is one of four IDX files: expected their folder: --data "
            f"{path.parent}."
            if path.name in known
            else f"{path}: expected a folder with {_EXPECTED}, got something else: "
            f"{OTHER_DATA}."
        )
    folders = [path / inside for inside in _INSIDE]
    places = [
        x for x in folders if any(_spellings(x, role, emnist_in(x)) for role in ROLES)
    ]
    places += [x for x in [path / "mnist.npz"] if x.is_file()]
    if len(places) == 1:
        return places[0]
    if places:
        raise UserError(
            f"{path} is a mixture: expected one data set, got "
            f"{' and '.join(map(str, places))}. Name one of them: --data {places[-1]}."
        )
    held = sorted(entry.name for entry in path.iterdir())
    if not held:
        raise UserError(
            f"{path} is an empty folder: expected {_EXPECTED}: {OTHER_DATA}."
        )
    some = ", ".join(held[:5]) + (", ..." if len(held) > 5 else "")
    raise UserError(
        f"{path} holds no data set: expected {_EXPECTED}, got {some}: {OTHER_DATA}."
    )


def _names(role: str, owner: str = "") -> list[str]:
    stem, kind = STEMS[role]
    if owner:
        stem = f"{owner}-{stem.replace('t10k', 'test')}"
    return [f"{stem}{dot}{kind}{gz}" for dot in "-." for gz in ("", ".gz")]


def _spellings(folder: Path, role: str, owner: str) -> list[Path]:
    paths = [folder / name for name in _names(role, owner)]
    return [path for path in paths if path.is_file()]


def _read_role(paths: list[Path], role: str) -> Piece:
    # torchvision leaves each .gz beside the unpacked file: well, if they are equal.
    first, *others = [idx.read(path, role) for path in paths]
    for other in others:
        if other.sha256 != first.sha256:
            raise UserError(
                f"{paths[0].parent} is a mixture: expected the same content in "
                f"{first.where} and {other.where}, got different bytes. Delete the "
                f"one that you do not mean. {FETCH_AGAIN}"
            )
    return first
