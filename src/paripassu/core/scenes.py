"""From any picture to the pixels of a network that is not for handwritten digits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

ASPECT = 1.2  # a picture that is stretched by more than this is told


def to_pixels(
    picture: Image.Image, shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.uint8], dict[str, str]]:
    """A picture scaled to a network's input, with the doubts that this raises.

    It is stretched to the height and width, smoothed where it gets smaller, and made
    grey or coloured as the network takes it.

    Args:
        picture: of mode L, RGB or F, as `digits.read_picture` gives it.
        shape: `(h, w, c)`, c being 1 or 3.

    Returns:
        uint8 `(h, w, c)`, and measure -> what it says.
    """
    h, w, c = shape
    if picture.mode == "F":
        whole = np.rint(np.asarray(picture)).clip(0, 255).astype(np.uint8)
        picture = Image.fromarray(whole)
    doubts: dict[str, str] = {}
    stretched = picture.width * h / (picture.height * w)
    if not 1 / ASPECT <= stretched <= ASPECT:
        doubts["aspect"] = (
            f"stretched from {picture.width} x {picture.height} to {w} x {h} pixels"
        )
    if picture.mode == "L" and c == 3:
        doubts["colour"] = "grey, for a network that learnt in colour"
    fitting = picture.convert("RGB" if c == 3 else "L")
    if fitting.size != (w, h):
        fitting = fitting.resize((w, h), Image.Resampling.BICUBIC)
    return np.asarray(fitting).reshape(h, w, c), doubts
