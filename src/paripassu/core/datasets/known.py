"""Data sets that are recognised by the SHA-256 sums of their uncompressed IDX files.

MNIST's are those of the files of LeCun and Cortes, Fashion-MNIST's those of Debian's
package `dataset-fashion-mnist` 0.0~git20200523.55506a9-1.
"""

from __future__ import annotations

from collections.abc import Mapping

from paripassu.core.datasets.reading import (
    OTHER_DATA,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Piece,
)
from paripassu.core.errors import UserError

MNIST = {
    TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FASHION_MNIST = {
    TRAIN_IMAGES: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    TRAIN_LABELS: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    TEST_IMAGES: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    TEST_LABELS: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
SUMS = {"mnist": MNIST, "fashion-mnist": FASHION_MNIST}


def recognise(pieces: Mapping[str, Piece]) -> str | None:
    """The name of the data set that all four pieces belong to; None if not known.

    Raises:
        UserError: some belong to one known data set and some to another.
    """
    owners = {
        role: name
        for role, piece in pieces.items()
        for name, sums in SUMS.items()
        if piece.idx_sha256 == sums[role]
    }
    if len(set(owners.values())) > 1:
        came = "; ".join(f"{pieces[x].where} is {owners[x]}'s" for x in owners)
        raise UserError(
            f"a mixture of data sets: expected four files of one, got {came}. Keep "
            f"each data set in a folder of its own, and {OTHER_DATA}."
        )
    if owners.keys() != pieces.keys():
        return None
    return next(iter(owners.values()))
