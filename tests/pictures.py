"""Pictures of digits as people have them, made of MNIST's images; all seeded."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps

Images = npt.NDArray[np.uint8]


def export(images: Images, folder: Path, seed: int = 7) -> list[Path]:
    """Write each image as a picture of its own: random scale, padding, paper and ink.

    Half are dark on light; most are PNG, grey or coloured, some with alpha or of 16
    bits, and a fifth JPEG.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _export(image, folder / f"{number:05}", np.random.default_rng([seed, number]))
        for number, image in enumerate(images)
    ]


def _export(image: Images, stem: Path, rng: np.random.Generator) -> Path:
    size = round(28 * float(np.exp(rng.uniform(np.log(0.7), np.log(5)))))
    picture = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    around = [int(x) for x in rng.integers(0, size // 2 + 1, 4)]
    picture = ImageOps.expand(picture, tuple(around), 0)
    if rng.random() < 0.5:
        picture = ImageOps.invert(picture)
    match rng.choice(
        ["grey", "colour", "alpha", "16 bits", "JPEG"], p=[0.4, *[0.15] * 4]
    ):
        case "colour":
            picture = coloured(picture, rng)
        case "alpha":
            ink = int(rng.choice([0, 255]))
            flat = Image.new("RGB", picture.size, (ink, ink, ink))
            mask = (
                picture if picture.getpixel((0, 0)) == 0 else ImageOps.invert(picture)
            )
            flat.putalpha(mask)
            picture = flat
        case "16 bits":
            deep = np.asarray(picture).astype(np.uint16) * 200 + 5000
            picture = Image.fromarray(deep)
        case "JPEG":
            path = stem.with_suffix(".jpg")
            picture.save(path, quality=int(rng.integers(60, 96)))
            return path
    path = stem.with_suffix(".png")
    picture.save(path, compress_level=1)
    return path


def coloured(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Between two colours that differ by at least 100 of 255 in green."""
    dark = rng.integers(0, 100, 3)
    light = dark + np.array([int(rng.integers(0, 100)), 120, int(rng.integers(0, 100))])
    share = np.asarray(picture).astype(np.float64)[..., None] / 255
    mixed = dark + share * (light - dark)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def drawn(
    size: int = 200,
    paper: object = 255,
    ink: object = 0,
    mode: str = "L",
    width: int = 16,
    points: Sequence[tuple[float, float]] = (
        (0.68, 0.25),
        (0.38, 0.25),
        (0.36, 0.48),
        (0.6, 0.46),
        (0.67, 0.6),
        (0.58, 0.76),
        (0.35, 0.74),
    ),
) -> Image.Image:
    """A five, or whatever line `points` in 0..1 make."""
    picture = Image.new(mode, (size, size), paper)  # type: ignore[arg-type]
    line = [(x * size, y * size) for x, y in points]
    ImageDraw.Draw(picture).line(line, fill=ink, width=width, joint="curve")  # type: ignore[arg-type]
    return picture


def png_header(width: int, height: int, depth: int = 8) -> bytes:
    """A PNG that promises a size, and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        sum_ = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + sum_

    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")
