"""Data sets that are recognised by the sums of their files.

Sums of a file's content are SHA-256 of the uncompressed IDX file: MNIST's are those of
the files of LeCun and Cortes, Fashion-MNIST's those of Debian's package
`dataset-fashion-mnist` 0.0~git20200523.55506a9-1.

Of others only the sums of the published `.gz` files are known, MD5, so that only those
files are recognised: KMNIST's as torchvision has them (`torchvision.datasets.KMNIST`),
EMNIST's as Deeplearning4j (`EmnistFetcher`) and the Python package `mnists` have them,
independently and alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from paripassu.core.datasets.reading import (
    OTHER_DATA,
    ROLES,
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


def _packed(*sums: str) -> dict[str, str]:
    return dict(zip(ROLES, sums, strict=True))


PACKED = {
    "kmnist": _packed(
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
    "emnist-byclass": _packed(
        "712dda0bd6f00690f32236ae4325c377",
        "ee299a3ee5faf5c31e9406763eae7e43",
        "1435209e34070a9002867a9ab50160d7",
        "7a0f934bd176c798ecba96b36fda6657",
    ),
    "emnist-bymerge": _packed(
        "4a792d4df261d7e1ba27979573bf53f3",
        "491be69ef99e1ab1f5b7f9ccc908bb26",
        "8eb5d34c91f1759a55831c37ec2a283f",
        "c13f4cd5211cdba1b8fa992dae2be992",
    ),
    "emnist-balanced": _packed(
        "4041b0d6f15785d3fa35263901b5496b",
        "7a35cc7b2b7ee7671eddf028570fbd20",
        "6818d20fe2ce1880476f747bbc80b22b",
        "acd3694070dcbf620e36670519d4b32f",
    ),
    "emnist-letters": _packed(
        "8795078f199c478165fe18db82625747",
        "c16de4f1848ddcdddd39ab65d2a7be52",
        "382093a19703f68edac6d01b8dfdfcad",
        "d4108920cd86601ec7689a97f2de7f59",
    ),
    "emnist-digits": _packed(
        "d2662ecdc47895a6bbfce25de9e9a677",
        "2223fcfee618ac9c89ef20b6e48bcf9e",
        "a159b8b3bd6ab4ed4793c1cb71a2f5cc",
        "8afde66ea51d865689083ba6bb779fac",
    ),
    "emnist-mnist": _packed(
        "3663598a39195d030895b6304abb5065",
        "6c092f03c9bb63e678f80f8bc605fe37",
        "fb51b6430fc4dd67deaada1bf25d4524",
        "ae7f6be798a9a5d5f2bd32e078a402dd",
    ),
}
TITLES = {
    "mnist": "MNIST",
    "fashion-mnist": "Fashion-MNIST",
    "kmnist": "KMNIST",
    "cifar-10": "CIFAR-10",
    **{name: f"EMNIST {name[7:]}" for name in PACKED if name.startswith("emnist-")},
}
BY_CONTENT = "recognised by the SHA-256 sums of its files"
BY_PACKED = "recognised by the MD5 sums of its published .gz files"
BY_NAMES = "by the names of its files, not by their sums"


def recognise(pieces: Mapping[str, Piece]) -> tuple[str, str] | None:
    """The name of the data set that all four pieces belong to, and how it is known.

    Returns:
        None if it is not known.

    Raises:
        UserError: some belong to one known data set and some to another.
    """
    for sums, how, sum_of in (
        (SUMS, BY_CONTENT, lambda piece: piece.idx_sha256),
        (PACKED, BY_PACKED, _md5_of_gz),
    ):
        found = {role: sum_of(piece) for role, piece in pieces.items()}
        owners = {
            role: name
            for name, own in sums.items()
            for role in found
            if found[role] == own[role]
        }
        if len(set(owners.values())) > 1:
            came = "; ".join(f"{pieces[x].where} is {owners[x]}'s" for x in owners)
            raise UserError(
                f"a mixture of data sets: expected four files of one, got {came}. Keep "
                f"each data set in a folder of its own, and {OTHER_DATA}."
            )
        if owners.keys() == pieces.keys():
            return next(iter(owners.values())), how
    return None


def _md5_of_gz(piece: Piece) -> str:
    """Of the file as it was published; "" if there is only its content."""
    if piece.path is None or piece.path.suffix != ".gz":
        return ""
    with piece.path.open("rb") as file:
        kind = hashlib.md5(usedforsecurity=False)
        return hashlib.file_digest(file, lambda: kind).hexdigest()
