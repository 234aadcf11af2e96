"""Images and labels in an `.npz`: arrays of NumPy in a zip archive.

NumPy's own `load` reads as much as a header asks for, so the headers are read here
first. No path leads to `pickle`: an array of objects is refused by its header.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from paripassu.core.datasets.apart import set_apart
from paripassu.core.datasets.reading import (
    FETCH_AGAIN,
    OTHER_DATA,
    ROLES,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Found,
    Piece,
    check_shape,
    digest,
    explained,
    is_images,
    piece_of,
    read_promised,
    size,
    to_labels,
    with_channels,
)
from paripassu.core.errors import UserError

# Others of zip's methods unpack whole blocks at once, gigabytes out of kilobytes.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# The names of Keras, then those of MedMNIST; and of one set that has no test images.
KEYS = dict(zip(ROLES, ("x_train", "y_train", "x_test", "y_test"), strict=True))
OTHER_KEYS = dict(zip(ROLES, ROLES, strict=True))
ONE_SET = ("images", "labels"), ("x", "y")


def read(path: Path) -> Found:
    """Read images `(N, h, w)` or `(N, h, w, c)`, and labels `(N,)`.

    They are x_train, y_train, x_test and y_test; or train_images, train_labels,
    test_images and test_labels; or images and labels, of which some are set apart as
    test images: see `apart.set_apart`.

    Raises:
        UserError: not a zip archive, an array that is missing, pickled, of another
            dtype or shape, or damaged.
    """
    try:
        with explained(str(path)), path.open("rb") as file:
            _check_zip(path, file)
            with zipfile.ZipFile(file) as archive:
                keys = _keys(path, archive.namelist())
                pieces = {
                    role: _read_array(archive, path, key, role)
                    for role, key in keys.items()
                }
    except UserError:
        raise
    except Exception as error:  # zipfile meets foreign bytes with a dozen kinds
        raise UserError(
            f"{path} is not readable: expected an archive as np.savez makes it, got "
            f"{type(error).__name__}: {error}. {FETCH_AGAIN}"
        ) from error
    return Found(pieces) if len(pieces) == len(ROLES) else set_apart(pieces)


def _check_zip(path: Path, file: IO[bytes]) -> None:
    start = file.read(4)
    file.seek(0)
    if not zipfile.is_zipfile(file):
        raise UserError(
            f"{path} is not a whole .npz: expected a zip archive, got a file that "
            f"begins with {start.hex(' ') or 'nothing'}. {FETCH_AGAIN}"
        )
    file.seek(0)


def _keys(path: Path, names: list[str]) -> dict[str, str]:
    """The arrays to read, by their roles."""
    held = {name.removesuffix(".npy") for name in names if name.endswith(".npy")}
    for keys in (KEYS, OTHER_KEYS):
        if held.issuperset(keys.values()):
            return keys
    if not held & {*KEYS.values(), *OTHER_KEYS.values()}:
        for images, labels in ONE_SET:
            if held.issuperset((images, labels)):
                return {TRAIN_IMAGES: images, TRAIN_LABELS: labels}
    keys = OTHER_KEYS if held & set(OTHER_KEYS.values()) else KEYS
    missing = [key for key in keys.values() if key not in held]
    raise UserError(
        f"{path}: expected the arrays {', '.join(keys.values())}, or images and "
        f"labels alone; missing: {', '.join(missing)}; it holds: "
        f"{', '.join(sorted(held)) or 'none'}. Save them under these names, or "
        f"{OTHER_DATA}."
    )


def _read_array(archive: zipfile.ZipFile, path: Path, key: str, role: str) -> Piece:
    where = f"{path}: {key}"
    info = archive.getinfo(f"{key}.npy")
    if info.compress_type not in METHODS:
        raise UserError(
            f"{where} is compressed otherwise than expected, which is as "
            f"np.savez_compressed does. {FETCH_AGAIN}"
        )
    with explained(where), archive.open(info) as stream:
        shape, fortran_order, dtype = _read_header(stream, where, role)
        check_shape(where, shape, role)
        content = read_promised(
            stream,
            size(shape) * dtype.itemsize,
            where,
            items=shape[0],
            held=path.stat().st_size,
        )
    order: Any = "F" if fortran_order else "C"
    array = np.ascontiguousarray(content.view(dtype).reshape(shape, order=order))
    own = with_channels(array) if is_images(role) else to_labels(where, array)
    found = piece_of(where, key, own)
    sha256 = digest(array.reshape(-1).view(np.uint8).data)
    return Piece(where, key, sha256, found.idx_sha256, found.array)


def _read_header(
    stream: IO[bytes], where: str, role: str
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
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
    if is_images(role) and dtype != np.uint8:
        scaled = "(array * 255).round()" if dtype.kind == "f" else "array"
        raise UserError(
            f"{where}: expected dtype uint8, pixels 0..255, got {dtype}. Save it with "
            f"{scaled}.astype('uint8'), or {OTHER_DATA}."
        )
    if not is_images(role) and dtype.kind not in "ui":
        raise UserError(
            f"{where}: expected labels that are whole numbers, got {dtype}. Save it "
            f"with array.astype('uint8'), or {OTHER_DATA}."
        )
    return shape, fortran_order, dtype
