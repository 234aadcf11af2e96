"""One IDX file, gzipped or not: the format in which MNIST is published."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

from paripassu.core.datasets.reading import (
    FETCH_AGAIN,
    OTHER_DATA,
    Piece,
    check_shape,
    digest,
    explained,
    idx_header,
    is_images,
    read_promised,
    size,
    with_channels,
)
from paripassu.core.errors import UserError

_GZIP = b"\x1f\x8b"
_LABELS, _IMAGES, _COLOURS = (idx_header((0,) * axes)[:4] for axes in (1, 3, 4))
_MAGICS = {
    _LABELS: "IDX labels",
    _IMAGES: "IDX images",
    _COLOURS: "IDX images with channels",
}


def read(path: Path, role: str) -> Piece:
    """Read an IDX file of uint8; a name that ends in .gz must be a gzip.

    The array is uint8 `(N, h, w, c)` or `(N,)`, as `role` says; a file of three axes
    has grey images, one of four has the channels last. Format: see
    `reading.idx_header`.

    Raises:
        UserError: not a gzip, damaged, another magic number or shape, or a header
            that does not fit the bytes after it.
    """
    where = str(path)
    with explained(where), _opened(path) as stream:
        magic = stream.read(4)
        axes = _axes(path, magic, role)
        sizes = stream.read(4 * axes)
        if len(sizes) < 4 * axes:
            raise UserError(
                f"{where} is cut short: expected a header of {4 + 4 * axes} bytes, "
                f"got {4 + len(sizes)}. {FETCH_AGAIN}"
            )
        shape = struct.unpack(f">{axes}I", sizes)
        check_shape(where, shape, role)
        held = path.stat().st_size if path.suffix == ".gz" else None
        content = read_promised(stream, size(shape), where, items=shape[0], held=held)
    sha256 = digest(magic, sizes, content.data)
    array = content.reshape(shape)
    array = with_channels(array) if is_images(role) else array
    array.flags.writeable = False
    name = path.name.removesuffix(".gz")
    return Piece(where, name, sha256, sha256, array, path)


def _opened(path: Path) -> io.BufferedReader | gzip.GzipFile:
    if path.suffix != ".gz":
        return path.open("rb")
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_GZIP):
        return gzip.open(path)
    rename = f"rename it to {path.stem}" if start in _MAGICS else "fetch it again"
    raise UserError(
        f"{path} is not a gzip: expected it to begin with {_GZIP.hex(' ')}, got "
        f"{start.hex(' ') or 'an empty file'}: {rename}, or {OTHER_DATA}."
    )


def _axes(path: Path, came: bytes, role: str) -> int:
    """How many axes the array has, by the magic number."""
    expected = (_IMAGES, _COLOURS) if is_images(role) else (_LABELS,)
    if came in expected:
        return came[3]
    advice = FETCH_AGAIN
    if came.startswith(_GZIP):
        advice = f"It is a gzip: rename it to {path.name}.gz, or {OTHER_DATA}."
    known = f", that of {_MAGICS[came]}" if came in _MAGICS else ""
    first = expected[0]
    raise UserError(
        f"{path}: expected the magic number {first.hex(' ')} of {_MAGICS[first]}, got "
        f"{came.hex(' ') or 'an empty file'}{known}. {advice}"
    )
