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
    item_shape,
    read_promised,
)
from paripassu.core.errors import UserError

_GZIP = b"\x1f\x8b"
_MAGICS = {
    idx_header((0,))[:4]: "IDX labels",
    idx_header((0, 0, 0))[:4]: "IDX images",
}


def read(path: Path, role: str) -> Piece:
    """Read an IDX file of uint8; a name that ends in .gz must be a gzip.

    The array is uint8 `(N, 28, 28)` or `(N,)`, as `role` says. Format: see
    `reading.idx_header`.

    Raises:
        UserError: not a gzip, damaged, another magic number or shape, or a header
            that does not fit the bytes after it.
    """
    where = str(path)
    axes = 1 + len(item_shape(role))
    with explained(where), _opened(path) as stream:
        header = stream.read(4 + 4 * axes)
        _check_magic(path, header, axes)
        if len(header) < 4 + 4 * axes:
            raise UserError(
                f"{where} is cut short: expected a header of {4 + 4 * axes} bytes, "
                f"got {len(header)}. {FETCH_AGAIN}"
            )
        shape = struct.unpack(f">{axes}I", header[4:])
        check_shape(where, shape, role)
        content = read_promised(stream, shape, where)
    sha256 = digest(header, content.data)
    array = content.reshape(shape)
    array.flags.writeable = False
    return Piece(where, path.name.removesuffix(".gz"), sha256, sha256, array)


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


def _check_magic(path: Path, header: bytes, axes: int) -> None:
    expected, came = idx_header((0,) * axes)[:4], header[:4]
    if came == expected:
        return
    advice = FETCH_AGAIN
    if came.startswith(_GZIP):
        advice = f"It is a gzip: rename it to {path.name}.gz, or {OTHER_DATA}."
    known = f", that of {_MAGICS[came]}" if came in _MAGICS else ""
    raise UserError(
        f"{path}: expected the magic number {expected.hex(' ')} of {_MAGICS[expected]}"
        f", got {came.hex(' ') or 'an empty file'}{known}. {advice}"
    )
