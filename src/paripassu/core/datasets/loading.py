"""Loading: from the package or from the one path that a user gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from paripassu.core.datasets import folder, known
from paripassu.core.datasets.apart import check_counts
from paripassu.core.datasets.reading import (
    FETCH_AGAIN,
    OTHER_DATA,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Bytes,
    Found,
    Labels,
    Piece,
    explained,
    shape_of,
)
from paripassu.core.errors import UserError
from paripassu.core.networks import Network
from paripassu.core.version import from_repository

PACKAGE_FOLDER = Path(__file__).parent / "mnist"


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set as it was read; the arrays are read-only.

    Attributes:
        name: that of a known data set, such as "mnist", else the name of the user's
            folder or file.
        source: "package", or the path that the user gave.
        sha256: of each IDX file by its name without .gz, uncompressed; or of the
            bytes of each array by the array's name.
        train_images: uint8 0..255 `(N, h, w, c)`; c is 1 for grey, 3 for colour.
        train_labels: uint8 or uint16 `(N,)`, counted from 0.
        test_images: uint8 0..255 `(M, h, w, c)`.
        test_labels: uint8 or uint16 `(M,)`.
        notes: what was done to them, for who reads the results.
        owner: whose files they are and how that is known; "" if it is not.
        classes: the names of the classes, where they have some.
    """

    name: str
    source: str
    sha256: dict[str, str]
    train_images: Bytes
    train_labels: Labels
    test_images: Bytes
    test_labels: Labels
    notes: tuple[str, ...] = ()
    owner: str = ""
    classes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        return shape_of(self.train_images)

    @property
    def num_classes(self) -> int:
        """How many classes there are, by their names or the largest label."""
        most = max(int(x.max()) for x in (self.train_labels, self.test_labels))
        return max(len(self.classes), most + 1)

    def with_first(self, count: int) -> ImageData:
        """The same with the first `count` training images only."""
        images, labels = self.train_images[:count], self.train_labels[:count]
        return replace(self, train_images=images, train_labels=labels)

    def check_fits(self, network: Network) -> None:
        """Check that a network takes these images and answers these classes.

        Raises:
            UserError: it does not; the message says both and what to type.
        """
        expected = network.input_shape
        if self.shape != expected:
            raise UserError(
                f"the network {network.name!r} takes images of {in_words(expected)}, "
                f"and {self.source} has images of {in_words(self.shape)}. Expected "
                f"a recipe with input_shape = {list(self.shape)}, or {OTHER_DATA}."
            )
        if self.num_classes > network.num_classes:
            labels = "its class names" if self.classes else f"label {self._largest()}"
            raise UserError(
                f"the network {network.name!r} answers {network.num_classes} classes, "
                f"and {self.source} has {self.num_classes}, by {labels}. Expected a "
                f"recipe whose last layer has {self.num_classes} units, or labels "
                f"0..{network.num_classes - 1}: {OTHER_DATA}."
            )

    def _largest(self) -> str:
        """The largest label, and where it is."""
        for where, labels in (
            ("training", self.train_labels),
            ("test", self.test_labels),
        ):
            if labels.max() == self.num_classes - 1:
                return f"{labels.max()} at index {labels.argmax()} of its {where} set"
        raise ValueError("no label is the largest")


def in_words(shape: tuple[int, ...]) -> str:
    """A shape `(h, w, c)` for people: "28 x 28 pixels, grey"."""
    h, w, c = shape
    kind = {1: "grey", 3: "in colour (3 channels)"}.get(c, f"{c} channels")
    return f"{h} x {w} pixels, {kind}"


def load(path: str | Path | None = None) -> ImageData:
    """Load the MNIST of the package, or a user's data, and check it.

    Args:
        path: a folder with IDX files (gzipped or not), torchvision's root, `MNIST`,
            `FashionMNIST`, `raw` or `processed`, EMNIST's files, CIFAR-10's binary
            version, folders of pictures by class, or an `.npz` with images and labels;
            None for the package.

    Raises:
        UserError: nothing readable there, or data that is damaged or does not fit.
    """
    if path is None:
        found = Found(_read_package())
        name, source, owner = "mnist", "package", _owner("mnist", known.BY_CONTENT)
    else:
        path = Path(path)
        found = folder.read(path)
        name, source, owner = found.name or _own_name(path), str(path), ""
        with explained(source):
            if recognised := known.recognise(found.pieces):
                name, owner = recognised[0], _owner(*recognised)
            elif found.name:
                owner = _owner(found.name, known.BY_NAMES)
    pieces = found.pieces
    check_counts(pieces[TRAIN_IMAGES], pieces[TRAIN_LABELS])
    check_counts(pieces[TEST_IMAGES], pieces[TEST_LABELS])
    _check_sizes(pieces[TRAIN_IMAGES], pieces[TEST_IMAGES])
    return ImageData(
        name=name,
        source=source,
        sha256={piece.key: piece.sha256 for piece in pieces.values()},
        **{role: piece.array for role, piece in pieces.items()},
        notes=found.notes,
        owner=owner,
        classes=found.classes,
    )


def _owner(name: str, how: str) -> str:
    return f"{known.TITLES.get(name, name)}, {how}"


def _read_package() -> dict[str, Piece]:
    try:
        pieces = folder.read(PACKAGE_FOLDER).pieces
        for role, piece in pieces.items():
            if piece.sha256 != known.MNIST[role]:
                raise UserError(
                    f"{piece.where} is damaged: expected the SHA-256 "
                    f"{known.MNIST[role]}, got {piece.sha256}. {FETCH_AGAIN}"
                )
    except UserError as error:
        raise UserError(
            f"the MNIST inside this package is damaged. {error} To repair it, type: "
            f"pip install --force-reinstall --no-deps '{from_repository()}'"
        ) from error
    return pieces


def _check_sizes(training: Piece, test: Piece) -> None:
    one, other = (shape_of(x.array) for x in (training, test))
    if one != other:
        raise UserError(
            f"expected images of one size, got {in_words(one)} in {training.where} and "
            f"{in_words(other)} in {test.where}: scale all to one size, or "
            f"{OTHER_DATA}."
        )


def _own_name(path: Path) -> str:
    whole = path.resolve()
    if whole.name in ("raw", "processed"):  # torchvision's: the folder above is named
        whole = whole.parent
    return (whole.stem if whole.suffix == ".npz" else whole.name) or "data"
