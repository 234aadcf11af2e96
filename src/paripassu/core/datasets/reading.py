"""What both file formats share: one array as it was read, and the care in reading it.

Nothing is read further than one byte beyond what a checked header promises, so a small
file that unpacks to terabytes costs nothing.
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
from typing import Protocol

import numpy as np
import numpy.typing as npt

from paripassu.core.errors import UserError

Bytes = npt.NDArray[np.uint8]

TRAIN_IMAGES, TRAIN_LABELS = "train_images", "train_labels"
TEST_IMAGES, TEST_LABELS = "test_images", "test_labels"
ROLES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

MAX_COUNT = 10_000_000
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
        array: uint8 `(N, 28, 28)` or `(N,)`, read-only.
    """

    where: str
    key: str
    sha256: str
    idx_sha256: str
    array: Bytes


def item_shape(role: str) -> tuple[int, ...]:
    """The shape of one image or one label."""
    return (28, 28) if role.endswith("images") else ()


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


def check_shape(where: str, shape: tuple[int, ...], role: str) -> None:
    """Check the shape that a header promises, before anything is read.

    Raises:
        UserError: not `(N, 28, 28)` or `(N,)`, no items, or more than `MAX_COUNT`.
    """
    kind = "images" if item_shape(role) else "labels"
    if not shape or shape[1:] != item_shape(role):
        expected = "(N, 28, 28)" if item_shape(role) else "(N,)"
        advice = "scale them to 28 x 28 pixels" if item_shape(role) else "reshape them"
        raise UserError(
            f"{where}: expected {kind} of shape {expected}, got {shape}: {advice}, "
            f"or {OTHER_DATA}."
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


def read_promised(stream: Readable, shape: tuple[int, ...], where: str) -> Bytes:
    """Read the bytes of a uint8 array, and the end of the stream right after them.

    Returns:
        An array of one axis.

    Raises:
        UserError: fewer bytes came, or more, or there is no memory for them.
    """
    promised = math.prod(shape)
    try:
        content = np.empty(promised + 1, np.uint8)  # takes no memory until written to
    except MemoryError:
        raise UserError(
            f"{where}: its header announces {promised} bytes, more than the "
            f"memory holds. {FETCH_AGAIN}"
        ) from None
    came = 0
    while chunk := stream.read(min(_CHUNK, promised + 1 - came)):
        content[came : came + len(chunk)] = np.frombuffer(chunk, np.uint8)
        came += len(chunk)
    if came < promised:
        raise UserError(
            f"{where} is cut short: its header announces {shape[0]} items, "
            f"{promised} bytes, but the file has {came}. {FETCH_AGAIN}"
        )
    if came > promised:
        raise UserError(
            f"{where} has surplus bytes: its header announces {shape[0]} items, "
            f"{promised} bytes, but the file has more. {FETCH_AGAIN}"
        )
    return content[:promised]


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
