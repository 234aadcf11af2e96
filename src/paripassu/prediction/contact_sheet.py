"""A sheet of pictures: each beside the pixels that the networks saw of it."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paripassu.analysis.text import printable, probability
from paripassu.core import files
from paripassu.core.digits import SIZE, read_picture
from paripassu.core.errors import UserError
from paripassu.prediction.predict import Asked, Prediction

SHOWN = 100  # pictures, the first ones
TIMES = 4  # each pixel that the networks saw is a square of so many
SIDE = SIZE * TIMES
GAP = 12
WIDTH = 2 * SIDE + 3 * GAP  # of a cell
COLUMNS = 4
LINE = 15
FONT_SIZE = 12
CHARACTERS = 38  # that fit the width
WARNING_LINES = 3
PAGE, FRAME, INK, DIM = "#f4f3f0", "#c9c6bf", "#1c1b19", "#6b6862"
ALERT, BAD = "#8a5a00", "#a11212"


def check_sheet(path: Path) -> None:
    """Check that a sheet can be written at `path`, before the work and not after it.

    Raises:
        UserError: it does not end in .png, or its folder cannot be made.
    """
    if path.suffix.lower() != ".png":
        raise UserError(
            f"--show-preprocessing {path}: expected a name that ends in .png."
        )
    if path.is_dir():
        raise UserError(f"--show-preprocessing {path}: it is a folder. Name a file.")
    files.make_folder(path.resolve().parent)


def write_sheet(
    path: Path, predictions: Sequence[Prediction], asked: Sequence[Asked]
) -> None:
    """Draw the first 100 predictions and write them as PNG.

    Args:
        path: the file; what is there is replaced.
        predictions: those that are drawn with their `image`.
        asked: the models, in the order of the probabilities.

    Raises:
        UserError: the file cannot be written.
    """
    shown = predictions[:SHOWN]
    columns = min(COLUMNS, len(shown))
    height = SIDE + 2 * GAP + (1 + len(asked) + WARNING_LINES) * LINE
    rows = -(-len(shown) // columns)
    head = 2 * GAP + LINE
    page = Image.new("RGB", (columns * WIDTH, head + rows * height), PAGE)
    font = ImageFont.load_default(FONT_SIZE)
    draw = ImageDraw.Draw(page)
    title = "picture and what the network sees"
    if len(predictions) > len(shown):
        title += f": the first {len(shown)} of {len(predictions):,}"
    draw.text((GAP, GAP), title, DIM, font)
    for number, found in enumerate(shown):
        row, column = divmod(number, columns)
        _cell(page, draw, font, column * WIDTH + GAP, head + row * height, found, asked)
    with files.replacing(path) as temporary:
        page.save(temporary, "PNG")


def _cell(
    page: Image.Image,
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    left: int,
    top: int,
    found: Prediction,
    asked: Sequence[Asked],
) -> None:
    right = left + SIDE + GAP
    if not found.problem:
        _original(page, found.path, left, top)
    if found.image is not None:
        grey = found.image.shape[2] == 1
        seen = Image.fromarray(found.image[..., 0] if grey else found.image).resize(
            (SIDE, SIDE), Image.Resampling.NEAREST
        )
        page.paste(seen, (right, top))
    for x in (left, right):
        draw.rectangle((x - 1, top - 1, x + SIDE, top + SIDE), outline=FRAME)
    lines = [(_shortened(printable(found.path)), INK)]
    if found.probabilities is not None:
        many = len(asked) > 1
        for which, shares, answer, second in zip(
            asked, found.probabilities, found.answers, found.runners_up, strict=True
        ):
            text = f"{answer}: {probability(float(shares[answer]))}, then "
            text += f"{second}: {probability(float(shares[second]))}"
            by = f"{which.framework}: " if many else ""
            lines.append((f"{by}{text}{' ≠' if found.differ else ''}", INK))
    words = found.problem or "; ".join(found.warnings.values())
    colour = BAD if found.problem else ALERT
    wrapped = textwrap.wrap(
        words, CHARACTERS, max_lines=WARNING_LINES, placeholder=" …"
    )
    lines += [(line, colour) for line in wrapped]
    for number, (line, colour) in enumerate(lines):
        draw.text((left, top + SIDE + 4 + number * LINE), line, colour, font)


def _shortened(name: str) -> str:
    return name if len(name) <= CHARACTERS else f"…{name[1 - CHARACTERS :]}"


def _original(page: Image.Image, path: str, left: int, top: int) -> None:
    """Paste the picture itself, upright, in the middle of its square."""
    with contextlib.suppress(UserError):  # it has gone since
        picture = read_picture(Path(path))
        if picture.mode == "F":
            picture = Image.fromarray(np.asarray(picture).astype(np.uint8))
        scale = SIDE / max(picture.size)
        width, height = (max(1, round(x * scale)) for x in picture.size)
        how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
        small = picture.convert("RGB").resize((width, height), how)
        page.paste(small, (left + (SIDE - width) // 2, top + (SIDE - height) // 2))
