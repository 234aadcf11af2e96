"""What all formats share: one array as it was read, and the care in reading it.

Nothing is read further than one byte beyond what a checked header promises, and no
header is believed that promises more than its file can hold unpacked, or the memory:
so a small file that unpacks to terabytes costs nothing.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from paripassu.core import limits
from paripassu.core.errors import UserError

Bytes = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.unsignedinteger[Any]]

TRAIN_IMAGES, TRAIN_LABELS = "train_images", "train_labels"
TEST_IMAGES, TEST_LABELS = "test_images", "test_labels"
ROLES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

MAX_COUNT = 10_000_000
MAX_SIDE = 4096  # pixels
CHANNELS = (1, 3)  # grey, and red, green and blue
MOST_CLASSES = 1 << 16
OTHER_DATA = "choose other data with --data PATH"
FETCH_AGAIN = f"Fetch it again, or {OTHER_DATA}."

_CHUNK = 1 << 20  # bytes


class Readable(Protocol):
    """What is read from: a file, a gzip or a member of a zip archive."""

    def read(self, size: int, /) -> bytes:
        """Read `size` bytes, fewer only at the end."""


@dataclass(frozen=True, eq=False)
class Piece:
    """One of the four arrays of a data set, and where it came from.

    Attributes:
        where: file, and array in it, for messages.
        key: the name under which a record keeps `sha256`.
        sha256: of the bytes as read, uncompressed.
        idx_sha256: of the IDX file that holds this array.
        array: images, uint8 `(N, h, w, c)`, or labels, uint8 or uint16 `(N,)`;
            read-only.
        path: the file that holds this array and nothing else; None if there is none.
    """

    where: str
    key: str
    sha256: str
    idx_sha256: str
    array: npt.NDArray[Any]
    path: Path | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """What a reader has found.

    Attributes:
        pieces: by their roles.
        name: of the data set, where the names of the files say it.
        classes: the names of the classes, where they have some.
        notes: what was done to the data, for who reads the results.
    """

    pieces: dict[str, Piece]
    name: str = ""
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def is_images(role: str) -> bool:
    """Whether a role is that of images; else it is that of labels."""
    return role.endswith("images")


def idx_header(shape: tuple[int, ...]) -> bytes:
    """The header of an IDX file of uint8: type 8, the number of axes, their sizes.

    Source: "The MNIST database of handwritten digits", Y. LeCun, C. Cortes and
    C. Burges, section "The IDX file format".
    """
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)


def digest(*parts: bytes | memoryview) -> str:
    """The SHA-256, in hex, of some bytes one after the other."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()


def piece_of(
    where: str, key: str, array: npt.NDArray[Any], path: Path | None = None
) -> Piece:
    """A piece of an array of ours: images `(N, h, w, c)`, or labels `(N,)`.

    Its sums are those of the array's bytes, and of the IDX file that grey images would
    be in.
    """
    # A view: what it is of stays writable, which some frameworks want.
    array = np.ascontiguousarray(array).view()
    plain = array[..., 0] if array.shape[-1:] == (1,) and array.ndim == 4 else array
    array.flags.writeable = False
    content = array.reshape(-1).view(np.uint8).data
    idx = digest(idx_header(plain.shape), content)
    return Piece(where, key, digest(content), idx, array, path)


def check_shape(where: str, shape: tuple[int, ...], role: str) -> None:
    """Check the shape that a header promises, before anything is read.

    Raises:
        UserError: not `(N, h, w)`, `(N, h, w, 1)` or `(N, h, w, 3)`, or not `(N,)` or
            `(N, 1)`; no items, or more than `MAX_COUNT`; no pixel, or sides of more
            than `MAX_SIDE`.
    """
    kind = "images" if is_images(role) else "labels"
    if is_images(role):
        _check_images(where, shape)
    elif len(shape) != 1 and (len(shape) != 2 or shape[1] != 1):
        advice = "reshape them"
        if len(shape) == 2:
            advice = "take their numbers with array.argmax(1)"
        raise UserError(
            f"{where}: expected labels of shape (N,), got {shape}: {advice}, or "
            f"{OTHER_DATA}."
        )
    if shape[0] == 0:
        raise UserError(
            f"{where}: expected at least 1 of the {kind}, got 0: {OTHER_DATA}."
        )
    if shape[0] > MAX_COUNT:
        raise UserError(
            f"{where}: expected at most {MAX_COUNT} {kind}, got a header that "
            f"promises {shape[0]}. {FETCH_AGAIN}"
        )


def _check_images(where: str, shape: tuple[int, ...]) -> None:
    if len(shape) == 3 or (len(shape) == 4 and shape[3] in CHANNELS):
        sides = shape[1:3]
        if all(0 < side <= MAX_SIDE for side in sides):
            return
        raise UserError(
            f"{where}: expected images of 1 to {MAX_SIDE} pixels a side, got {shape}: "
            f"scale them, or {OTHER_DATA}."
        )
    advice = "reshape them"
    if len(shape) == 4 and shape[1] in CHANNELS:
        advice = "put their channels last with array.transpose(0, 2, 3, 1)"
    raise UserError(
        f"{where}: expected images of shape (N, h, w), or (N, h, w, 3) in colour, got "
        f"{shape}: {advice}, or {OTHER_DATA}."
    )


def with_channels(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Images of `check_shape` as `(N, h, w, c)`."""
    return array[..., None] if array.ndim == 3 else array


def to_labels(where: str, array: npt.NDArray[Any]) -> Labels:
    """Whole numbers of any type as labels: uint8, or uint16 where they need it.

    Raises:
        UserError: one is negative, or larger than any class.
    """
    array = array.reshape(-1)
    least, most = int(array.min()), int(array.max())
    if least < 0 or most >= MOST_CLASSES:
        wrong = (array < 0) | (array >= MOST_CLASSES)
        index = int(wrong.argmax())
        raise UserError(
            f"{where}: expected labels 0..{MOST_CLASSES - 1}, got {array[index]} at "
            f"index {index}: number the classes from 0, or {OTHER_DATA}."
        )
    return array.astype(np.uint8 if most < 256 else np.uint16)


def read_promised(
    stream: Readable, count: int, where: str, *, items: int, held: int | None
) -> Bytes:
    """Read so many bytes, and the end of the stream right after them.

    Args:
        stream: to read from.
        count: bytes that a header promises.
        where: for messages.
        items: what they are promised for.
        held: the size of the file that they are unpacked from; None: it is not packed.

    Returns:
        An array of one axis.

    Raises:
        UserError: fewer bytes came, or more; or they cannot be in such a file; or
            there is no memory for them.
    """
    promise = f"its header announces {items} items, {count} bytes"
    limits.check_promise(where, count, held, advice=FETCH_AGAIN)
    try:
        content = np.empty(count + 1, np.uint8)  # takes no memory until written to
    except MemoryError:
        raise UserError(
            f"{where}: {promise}, more than the memory holds. {FETCH_AGAIN}"
        ) from None
    came = 0
    while chunk := stream.read(min(_CHUNK, count + 1 - came)):
        content[came : came + len(chunk)] = np.frombuffer(chunk, np.uint8)
        came += len(chunk)
    if came < count:
        raise UserError(
            f"{where} is cut short: {promise}, but the file has {came}. {FETCH_AGAIN}"
        )
    if came > count:
        raise UserError(
            f"{where} has surplus bytes: {promise}, but the file has more. "
            f"{FETCH_AGAIN}"
        )
    return content[:count]


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn what reading a damaged or unreadable file raises into a `UserError`."""
    try:
        yield
    except EOFError:
        raise UserError(
            f"{where} is cut short: expected the end of its compressed data, got the "
            f"end of the file. {FETCH_AGAIN}"
        ) from None
    except (gzip.BadGzipFile, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(
            f"{where} is damaged: expected complete compressed data, got: {error}. "
            f"{FETCH_AGAIN}"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot read {where}: {error.strerror or error}. Put that right, or "
            f"{OTHER_DATA}."
        ) from error


def shape_of(array: npt.NDArray[Any]) -> tuple[int, int, int]:
    """Height, width and channels of images `(N, h, w, c)`."""
    _, h, w, c = array.shape
    return h, w, c


def size(shape: tuple[int, ...]) -> int:
    """How many numbers an array of a shape has."""
    return math.prod(shape)
