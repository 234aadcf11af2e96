"""The `mnist.npz` that Keras keeps: four arrays in a zip archive.

NumPy's own `load` reads as much as a header asks for, so the headers are read here
first. No path leads to `pickle`: an array of objects is refused by its header.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from paripassu.core.datasets.reading import (
    FETCH_AGAIN,
    OTHER_DATA,
    ROLES,
    Piece,
    check_shape,
    digest,
    explained,
    idx_header,
    read_promised,
)
from paripassu.core.errors import UserError

# Others of zip's methods unpack whole blocks at once, gigabytes out of kilobytes.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
KEYS = dict(zip(ROLES, ("x_train", "y_train", "x_test", "y_test"), strict=True))


def read(path: Path) -> dict[str, Piece]:
    """Read x_train, y_train, x_test and y_test: uint8 `(N, 28, 28)` and `(N,)`.

    Raises:
        UserError: not a zip archive, an array that is missing, pickled, of another
            dtype or shape, or damaged.
    """
    try:
        with explained(str(path)), path.open("rb") as file:
            _check_zip(path, file)
            with zipfile.ZipFile(file) as archive:
                _check_names(path, archive.namelist())
                return {
                    role: _read_array(archive, f"{path}: {key}", key, role)
                    for role, key in KEYS.items()
                }
    except UserError:
        raise
    except Exception as error:  # zipfile meets foreign bytes with a dozen kinds
        raise UserError(
            f"{path} is not readable: expected an archive as np.savez makes it, got "
            f"{type(error).__name__}: {error}. {FETCH_AGAIN}"
        ) from error


def _check_zip(path: Path, file: IO[bytes]) -> None:
    start = file.read(4)
    file.seek(0)
    if not zipfile.is_zipfile(file):
        raise UserError(
            f"{path} is not a whole .npz: expected a zip archive, got a file that "
            f"begins with {start.hex(' ') or 'nothing'}. {FETCH_AGAIN}"
        )
    file.seek(0)


def _check_names(path: Path, names: list[str]) -> None:
    held = {name.removesuffix(".npy") for name in names if name.endswith(".npy")}
    missing = [key for key in KEYS.values() if key not in held]
    if missing:
        raise UserError(
            f"{path}: expected the arrays {', '.join(KEYS.values())}; missing: "
            f"{', '.join(missing)}; it holds: {', '.join(sorted(held)) or 'none'}. "
            f"Save them under these names, or {OTHER_DATA}."
        )


def _read_array(archive: zipfile.ZipFile, where: str, key: str, role: str) -> Piece:
    info = archive.getinfo(f"{key}.npy")
    if info.compress_type not in METHODS:
        raise UserError(
            f"{where} is compressed otherwise than expected, which is as "
            f"np.savez_compressed does. {FETCH_AGAIN}"
        )
    with explained(where), archive.open(info) as stream:
        shape, fortran_order = _read_header(stream, where)
        check_shape(where, shape, role)
        content = read_promised(stream, shape, where)
    if fortran_order:
        content = np.ascontiguousarray(content.reshape(shape, order="F")).ravel()
    array = content.reshape(shape)
    array.flags.writeable = False
    return Piece(
        where, key, digest(content.data), digest(idx_header(shape), content.data), array
    )


def _read_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool]:
    try:
        version = npy.read_magic(stream)
        if version != (1, 0):  # later ones may promise headers of 4 GB
            raise ValueError(f"format {version}")
        shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
    except Exception as error:  # the header is Python text, parsed by NumPy
        raise UserError(
            f"{where} is not a NumPy array: expected a header of npy format 1.0, got "
            f"{error}. {FETCH_AGAIN}"
        ) from error
    if dtype.hasobject:
        raise UserError(
            f"{where}: expected dtype uint8, got pickled objects, which could run "
            "code when read: refused. Save it as a uint8 array, or "
            f"{OTHER_DATA}."
        )
    if dtype != np.uint8:
        raise UserError(
            f"{where}: expected dtype uint8, pixels 0..255 or labels 0..9, got "
            f"{dtype}. Save it with array.astype('uint8'), or {OTHER_DATA}."
        )
    return shape, fortran_order
