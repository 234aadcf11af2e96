"""Finding what data set a user's path stands for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from paripassu.core.datasets import cifar, idx, npz, pictures
from paripassu.core.datasets import pytorch as tensors
from paripassu.core.datasets.reading import (
    FETCH_AGAIN,
    OTHER_DATA,
    ROLES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Found,
    Piece,
    explained,
    is_images,
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
_NAMES = ("MNIST", "FashionMNIST", "EMNIST", "KMNIST")
_INSIDE = (".", "raw", *(x for name in _NAMES for x in (name, f"{name}/raw")))
_PROCESSED = (".", "processed", *(f"{name}/processed" for name in _NAMES))
_CIFAR = (".", "cifar-10-batches-bin")
_PICKLED = (".", "cifar-10-batches-py")
_EXPECTED = (
    "four IDX files (train-images-idx3-ubyte[.gz] and so on, or those of EMNIST), "
    "torchvision's MNIST/raw or MNIST/processed, CIFAR-10's binary version, folders of "
    "pictures by class, or an .npz with images and labels"
)


Place = tuple[Callable[[Path], Found], Path]  # what reads it, and where it is


def read(path: Path) -> Found:
    """Read a data set from a folder, or from an `.npz` file.

    The images in files with EMNIST's names are stored transposed, and given upright.
    Source: G. Cohen, S. Afshar, J. Tapson and A. van Schaik, "EMNIST: an extension of
    MNIST to handwritten letters", 2017, whose files keep MATLAB's order of the axes.

    Raises:
        UserError: nothing there, not all of it, more than one data set, or a file
            that the reader of its format refuses.
    """
    with explained(str(path)):
        reader, place = _find(path)
        return reader(place)


def _read_idx(place: Path) -> Found:
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
    if not owner:
        return Found(pieces)
    return Found(
        {role: _upright(role, piece) for role, piece in pieces.items()},
        name=owner,
        notes=("EMNIST's files hold each image transposed: all were turned",),
    )


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


def _upright(role: str, piece: Piece) -> Piece:
    """A piece whose images are transposed."""
    if not is_images(role):
        return piece
    array = np.ascontiguousarray(piece.array.transpose(0, 2, 1, 3)).view()
    array.flags.writeable = False
    return replace(piece, array=array)


def _find(path: Path) -> Place:
    """What reads it, and the one folder or file that `path` stands for."""
    if not path.exists():
        raise UserError(
            f"{path} does not exist: expected a folder or file with {_EXPECTED}: check "
            f"the spelling, or {OTHER_DATA}."
        )
    if not path.is_dir():
        return npz.read, _file(path)
    found = _all_in(path)
    if len(found) > 1:
        places = " and ".join(str(place) for _reader, place in found)
        raise UserError(
            f"{path} is a mixture: expected one data set, got {places}. Name one of "
            f"them: --data {found[-1][1]}."
        )
    if found:
        return found[0]
    for inside in _PICKLED:
        cifar.refuse_pickles(path / inside)
    if pictures.holds_pictures(path):
        return pictures.read, path
    archives = sorted(x for x in path.glob("*.npz") if x.is_file())
    if len(archives) == 1:
        return npz.read, archives[0]
    held = sorted(entry.name for entry in path.iterdir())
    if not held:
        raise UserError(
            f"{path} is an empty folder: expected {_EXPECTED}: {OTHER_DATA}."
        )
    some = ", ".join(held[:5]) + (", ..." if len(held) > 5 else "")
    raise UserError(
        f"{path} holds no data set: expected {_EXPECTED}, got {some}: {OTHER_DATA}."
    )


def _all_in(path: Path) -> list[Place]:
    """Every data set that a folder stands for, but for pictures."""
    found: list[Place] = []
    for inside in _INSIDE:
        place = path / inside
        if any(_spellings(place, role, emnist_in(place)) for role in ROLES):
            found.append((_read_idx, place))
    for reader, insides, names in (
        (cifar.read, _CIFAR, cifar.FILES),
        # What torchvision has made of the raw files lies beside them.
        (tensors.read, () if found else _PROCESSED, tensors.FILES),
        (npz.read, ("mnist.npz",), ("",)),
    ):
        for inside in insides:
            place = path / inside
            if any((place / name).is_file() for name in names):
                found.append((reader, place))
    return found


def _file(path: Path) -> Path:
    """A file that is an `.npz`."""
    if path.is_file() and path.suffix == ".npz":
        return path
    known = {
        *(name for role in ROLES for name in _names(role)),
        *cifar.FILES,
        *tensors.FILES,
    }
    if path.name in known or EMNIST.match(path.name):
        raise UserError(
            f"{path} is one of several files: expected their folder: --data "
            f"{path.parent}."
        )
    pickled = path.suffix in (".pkl", ".pickle") or path.name == cifar.PICKLED
    what = "pickles, which could run code when read" if pickled else "something else"
    raise UserError(
        f"{path}: expected a folder or file with {_EXPECTED}, got {what}: {OTHER_DATA}."
    )


def _names(role: str, owner: str = "") -> list[str]:
    stem, kind = STEMS[role]
    if owner:
        stem = f"{owner}-{stem.replace('t10k', 'test')}"
    kinds = (kind, kind.replace("3", "4")) if is_images(role) else (kind,)
    return [
        f"{stem}{dot}{own}{gz}" for own in kinds for dot in "-." for gz in ("", ".gz")
    ]


def _spellings(folder: Path, role: str, owner: str) -> list[Path]:
    paths = [folder / name for name in _names(role, owner)]
    return [path for path in paths if path.is_file()]


def _read_role(paths: list[Path], role: str) -> Piece:
    # torchvision leaves each .gz beside the unpacked file: well, if they are equal.
    # The sums of a .gz as it was published may be known, so that one counts.
    packed_first = sorted(paths, key=lambda path: path.suffix != ".gz")
    first, *others = [idx.read(path, role) for path in packed_first]
    for other in others:
        if other.sha256 != first.sha256:
            raise UserError(
                f"{paths[0].parent} is a mixture: expected the same content in "
                f"{other.where} and {first.where}, got different bytes. Delete the "
                f"one that you do not mean. {FETCH_AGAIN}"
            )
    return first
