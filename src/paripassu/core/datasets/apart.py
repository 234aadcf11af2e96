"""One set of images, of which some are set apart to test with: the same every time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from paripassu.core import draws
from paripassu.core.datasets.reading import (
    OTHER_DATA,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Found,
    Piece,
    piece_of,
)
from paripassu.core.errors import UserError

SHARE = 5  # one in so many of each class


def set_apart(pieces: Mapping[str, Piece], classes: tuple[str, ...] = ()) -> Found:
    """Split images and labels: a fifth of each class, rounded down, is for the test.

    Which ones is drawn from the order of the images alone, and is the same for every
    recipe and seed.

    Args:
        pieces: those for training.
        classes: their names, if they have some.

    Raises:
        UserError: no class has five images; or the images are not as many as the
            labels.
    """
    images, labels = pieces[TRAIN_IMAGES], pieces[TRAIN_LABELS]
    check_counts(images, labels)
    order = draws.permutation(len(labels.array), 0, "test images")
    chosen = np.zeros(len(labels.array), np.bool_)
    for number in np.unique(labels.array):
        own = order[labels.array[order] == number]
        chosen[own[: len(own) // SHARE]] = True
    if not chosen.any():
        raise UserError(
            f"{images.where}: expected at least {SHARE} images of a class, of which "
            f"one is for the test, got fewer: add images, or {OTHER_DATA}."
        )
    roles = {
        TRAIN_IMAGES: (images, ~chosen),
        TRAIN_LABELS: (labels, ~chosen),
        TEST_IMAGES: (images, chosen),
        TEST_LABELS: (labels, chosen),
    }
    count = int(chosen.sum())
    return Found(
        {
            role: piece_of(piece.where, role, piece.array[rows])
            for role, (piece, rows) in roles.items()
        },
        classes=classes,
        notes=(
            f"the data have no test images of their own: {count} of "
            f"{len(chosen)}, a fifth of each class, were set apart, the same in "
            "every run",
        ),
    )


def check_counts(images: Piece, labels: Piece) -> None:
    """Refuse images and labels that do not belong together."""
    if len(images.array) != len(labels.array):
        raise UserError(
            f"expected as many labels as images, got {len(images.array)} images in "
            f"{images.where} and {len(labels.array)} labels in {labels.where}: they do "
            f"not belong together. Fetch them again, or {OTHER_DATA}."
        )
