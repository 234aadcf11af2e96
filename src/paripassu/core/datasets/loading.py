"""Loading: from the package or from the one path that a user gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from paripassu.core.datasets import folder
from paripassu.core.datasets.known import MNIST, recognise
from paripassu.core.datasets.reading import (
    FETCH_AGAIN,
    OTHER_DATA,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Bytes,
    Piece,
)
from paripassu.core.errors import UserError
from paripassu.core.version import from_repository

PACKAGE_FOLDER = Path(__file__).parent / "mnist"


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set as it was read; the arrays are read-only.

    Attributes:
        name: "mnist" or "fashion-mnist", recognised by their sums, else the name of
            the user's folder or file.
        source: "package", or the path that the user gave.
        sha256: of each IDX file by its name without .gz, uncompressed; or of the
            bytes of each array of an `.npz` by the array's name.
        train_images: uint8 0..255 `(N, 28, 28)`.
        train_labels: uint8 0..9 `(N,)`.
        test_images: uint8 0..255 `(M, 28, 28)`.
        test_labels: uint8 0..9 `(M,)`.
        notes: what was done to them, for who reads the results.
    """

    name: str
    source: str
    sha256: dict[str, str]
    train_images: Bytes
    train_labels: Bytes
    test_images: Bytes
    test_labels: Bytes
    notes: tuple[str, ...] = ()

    def with_first(self, count: int) -> ImageData:
        """The same with the first `count` training images only."""
        images, labels = self.train_images[:count], self.train_labels[:count]
        return replace(self, train_images=images, train_labels=labels)


def load(path: str | Path | None = None) -> ImageData:
    """Load the MNIST of the package, or a user's data, and check it.

    Args:
        path: a folder with IDX files (gzipped or not), torchvision's root, `MNIST`,
            `FashionMNIST` or `raw`, EMNIST's files, or Keras' `mnist.npz`; None for
            the package.

    Raises:
        UserError: nothing readable there, or data that is damaged or does not fit.
    """
    notes: tuple[str, ...] = ()
    if path is None:
        pieces = _read_package()
        name, source = "mnist", "package"
    else:
        path = Path(path)
        pieces = folder.read(path)
        name, source = recognise(pieces) or _own_name(path), str(path)
        if owner := folder.EMNIST.match(pieces[TRAIN_IMAGES].key):
            name = owner[1]
            notes = ("EMNIST's files hold each image transposed: all were turned",)
    _check_pair(pieces[TRAIN_IMAGES], pieces[TRAIN_LABELS])
    _check_pair(pieces[TEST_IMAGES], pieces[TEST_LABELS])
    return ImageData(
        name=name,
        source=source,
        sha256={piece.key: piece.sha256 for piece in pieces.values()},
        **{role: piece.array for role, piece in pieces.items()},
        notes=notes,
    )


def _read_package() -> Mapping[str, Piece]:
    try:
        pieces = folder.read(PACKAGE_FOLDER)
        for role, piece in pieces.items():
            if piece.sha256 != MNIST[role]:
                raise UserError(
                    f"{piece.where} is damaged: expected the SHA-256 {MNIST[role]}, "
                    f"got {piece.sha256}. {FETCH_AGAIN}"
                )
    except UserError as error:
        raise UserError(
            f"the MNIST inside this package is damaged. {error} To repair it, type: "
            f"pip install --force-reinstall --no-deps '{from_repository()}'"
        ) from error
    return pieces


def _check_pair(images: Piece, labels: Piece) -> None:
    if len(images.array) != len(labels.array):
        raise UserError(
            f"expected as many labels as images, got {len(images.array)} images in "
            f"{images.where} and {len(labels.array)} labels in {labels.where}: they do "
            f"not belong together. {FETCH_AGAIN}"
        )
    if labels.array.max() > 9:
        index = int((labels.array > 9).argmax())
        raise UserError(
            f"{labels.where}: expected labels 0..9, got {labels.array[index]} at "
            f"index {index}: keep ten classes, numbered from 0, or {OTHER_DATA}."
        )


def _own_name(path: Path) -> str:
    whole = path.resolve()
    if whole.name == "raw":  # torchvision's: the folder above has the name
        whole = whole.parent
    return (whole.stem if whole.suffix == ".npz" else whole.name) or "data"
