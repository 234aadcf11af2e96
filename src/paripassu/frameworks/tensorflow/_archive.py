"""A `.keras` file is read as an archive of data; Keras has no part in it."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from paripassu.core.errors import UserError
from paripassu.core.steps import Arrays

NOTES = "paripassu.json"  # in the archive, beside Keras's own three files
WEIGHTS = "model.weights.h5"
NAMES = {"0": "kernel", "1": "bias"}  # of a layer's weights, as Keras counts
LARGEST = 2**28  # bytes, of the weights with the optimizer's state
LARGEST_NOTES = 2**20
# Others of zip's methods unpack a block at once, however large.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The weights of a `.keras` file by layer, and the notes with it.

    The file is read as an archive of data: no layer, function or configuration
    in it is made or called.

    HDF5 can point to other files and promise more than it holds; such files are
    refused before anything of that is read.

    Returns:
        Arrays under canonical names, `conv1.kernel`, and the notes, or none.

    Raises:
        UserError: the file is no `.keras` file, is damaged, or is not read for
            what it points to or promises.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = _member(archive, WEIGHTS, LARGEST)
            notes = {}
            if NOTES in archive.namelist():
                notes = json.loads(_member(archive, NOTES, LARGEST_NOTES))
        with h5py.File(io.BytesIO(content), "r") as file:
            arrays = _arrays(file, len(content))
    except (
        Exception
    ) as error:  # zipfile and h5py meet foreign bytes with any kind
        raise UserError(
            f"{path} is not a whole .keras file ({error}). Expected what "
            "model.save('name.keras') writes in Keras 3."
        ) from None
    if not isinstance(notes, dict):
        notes = {}
    return arrays, {str(key): str(value) for key, value in notes.items()}


def _member(archive: zipfile.ZipFile, name: str, largest: int) -> bytes:
    """A file of the archive, if it is no larger than `largest` bytes."""
    info = archive.getinfo(name)
    if info.compress_type not in METHODS:
        raise ValueError(f"{name} is compressed otherwise than by deflate")
    if info.file_size > largest:
        raise ValueError(
            f"{name} has {info.file_size:,} bytes, at most {largest:,}"
        )
    return archive.read(info)


def _arrays(file: h5py.File, size: int) -> Arrays:
    """The weights in a file of `size` bytes; it holds all that is read."""
    found = {}
    layers = _child(file, "layers")
    for key in layers:
        own = _child(layers, key, "vars")
        layer = str(own.attrs["name"])
        for number in own:
            dataset = _child(own, number, kind=h5py.Dataset)
            where = f"{layer}.{NAMES.get(number, number)}"
            if dataset.is_virtual or dataset.external:
                raise ValueError(f"{where} lies in another file")
            size -= dataset.nbytes
            stored = dataset.id.get_storage_size()
            if size < 0 or stored != dataset.nbytes:
                promised = f"{where} promises {dataset.nbytes:,} bytes"
                raise ValueError(f"{promised}, and {stored:,} are there")
            found[where] = np.asarray(dataset)
    return found


def _child(group: h5py.Group, *names: str, kind: type = h5py.Group) -> Any:
    """What lies in the file itself below a group: links may lead anywhere."""
    for name in names:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is a link to another place")
        group = group[name]
    if not isinstance(group, kind):
        raise ValueError(f"{names[-1]} is no {kind.__name__.lower()}")
    return group
