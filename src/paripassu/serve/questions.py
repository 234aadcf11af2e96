"""What a request asks: images out of JSON or PNG bytes, or what is wrong with them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic_core import from_json

from paripassu.core.digits import SIZE, Digit, read_picture, to_digit
from paripassu.core.errors import PariPassuError, UserError
from paripassu.prediction.answering import Images

MOST_IMAGES = 256  # in a request
MOST_PIXELS = 2**22  # of a picture; it says how many it has before it is decoded
KINDS: dict[type, str] = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "a number",
    list: "a list",
    str: "text",
}
NUMBERS = {int, float}
PNG_BEGIN = b"\x89PNG\r\n\x1a\n"
PNG_HEADER = struct.Struct(">8s4s4sII")  # ..., width, height
EXPECTED = (
    'expected {"image": 28 rows of 28 numbers} or {"images": a list of such images}, '
    "0 for black paper to 255 for white ink"
)


class RequestError(PariPassuError):
    """A request that cannot be answered: its status code and what is wrong."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def from_json_body(body: bytes) -> Images:
    """The images of a JSON body, `image` first, uint8 `(N, 28, 28)`.

    Raises:
        RequestError: with 400 it is not JSON, with 422 not images, with 413 too many.
    """
    try:
        question = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        words = b"NaN" in body or b"Infinity" in body
        hint = " NaN and Infinity are not JSON." if words else ""
        raise RequestError(400, f"not JSON: {error}.{hint}") from None
    if not isinstance(question, dict):
        raise RequestError(422, f"{EXPECTED}; got {_kind(question)}.")
    if unknown := [str(x) for x in question if x not in ("image", "images")]:
        raise RequestError(422, f"{EXPECTED}; got the key {unknown[0][:40]!r}.")
    found = [_image(question["image"], "image")] if "image" in question else []
    images = question.get("images", [])
    if not isinstance(images, list):
        raise RequestError(
            422, f"images: expected a list of images, got {_kind(images)}."
        )
    if len(found) + len(images) > MOST_IMAGES:
        raise RequestError(
            413, f"expected at most {MOST_IMAGES} images in a request: send several."
        )
    found += [_image(x, f"images[{i}]") for i, x in enumerate(images)]
    if not found:
        raise RequestError(422, f"{EXPECTED}; got no image.")
    return np.stack(found)


def _image(value: Any, where: str) -> npt.NDArray[np.uint8]:
    """One image; numbers with a fraction are rounded."""
    fault = _fault(value)  # NumPy would make room for the longest text, many times
    array = np.empty(0, object) if fault else np.asarray(value)
    if array.dtype.kind not in "iuf":
        fault = fault or "numbers that are too large"
        expected = f"expected {SIZE} rows of {SIZE} numbers"
        raise RequestError(422, f"{where}: {expected}, got {fault}.")
    low, high = array.min(), array.max()
    if low < 0 or high > 255 or not np.isfinite(high):
        row, column = np.argwhere((array < 0) | (array > 255))[0]
        raise RequestError(
            422,
            f"{where}: expected numbers from 0 to 255, got {array[row, column]} in "
            f"row {row}, column {column}, counted from 0.",
        )
    if 0 < high <= 1:
        raise RequestError(
            422,
            f"{where}: no number is larger than 1. Expected 0 to 255: multiply by 255.",
        )
    image: npt.NDArray[np.uint8] = np.rint(array).astype(np.uint8)
    return image


def _fault(value: Any) -> str:
    """What keeps a value from being 28 rows of 28 numbers; "" if nothing does."""
    if not isinstance(value, list):
        return _kind(value)
    if len(value) != SIZE:
        return f"{len(value)} rows"
    for number, row in enumerate(value):
        if not isinstance(row, list):
            return f"{_kind(row)} for row {number}, counted from 0"
        if len(row) != SIZE:
            return f"{len(row)} in row {number}, counted from 0"
        if not NUMBERS.issuperset(map(type, row)):
            entry = next(x for x in row if type(x) not in NUMBERS)
            return f"{_kind(entry)} in row {number}"
    return ""


def _kind(value: Any) -> str:
    return KINDS.get(type(value), "null")


def from_png_body(body: bytes) -> Digit:
    """What the networks see of a PNG picture.

    Raises:
        RequestError: with 413 it has too many pixels, with 422 it is not a whole PNG or
            there is no ink in it.
    """
    if not body.startswith(PNG_BEGIN) or len(body) < PNG_HEADER.size:
        raise RequestError(422, "expected a PNG picture, got something else.")
    *_, width, height = PNG_HEADER.unpack_from(body)
    if width * height > MOST_PIXELS:
        raise RequestError(
            413,
            f"expected a picture of at most {MOST_PIXELS:,} pixels, got {width} x "
            f"{height}: scale it down.",
        )
    try:
        digit = to_digit(read_picture(body))
    except UserError as error:
        raise RequestError(422, f"the picture: {error}.") from None
    if digit is None:
        raise RequestError(422, "the picture: there is no ink in it.")
    return digit
