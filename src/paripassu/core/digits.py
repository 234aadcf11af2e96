"""From any picture of a handwritten digit to 28 x 28 pixels, as MNIST was made.

Source of the method: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based
learning applied to document recognition", Proceedings of the IEEE 86 (1998), section
III.A, and Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten
digits": bilevel digits of NIST were scaled into 20 x 20 pixels with their aspect ratio
kept, became grey by anti-aliasing, and were moved so that their centre of mass lies at
the centre of 28 x 28 pixels. What a picture has besides its ink (paper, shade, noise,
colour) NIST's had not; the rules for these are this module's own, and are said at
`to_digit`.
"""

from __future__ import annotations

import contextlib
import io
import math
import stat
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import BmpImagePlugin as _bmp  # noqa: F401 (each makes its format known)
from PIL import GifImagePlugin as _gif  # noqa: F401
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL import JpegImagePlugin as _jpeg  # noqa: F401
from PIL import PngImagePlugin as _png  # noqa: F401
from PIL import TiffImagePlugin as _tiff  # noqa: F401

from paripassu.core.errors import UserError

Shades = npt.NDArray[np.float32]  # (H, W)

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".gif", ".tif", ".tiff"})
MAX_PIXELS = 64_000_000  # width times height; more is refused before decoding
MAX_BYTES = 512_000_000  # of a file: 64 million pixels of 8 bytes
LONGEST = 2048  # pixels: what is longer is first made smaller by a whole factor

SIZE = 28  # of the result
BOX = 20  # what the ink is scaled into
CENTRE = 14  # index of the pixel at which MNIST has the centre of mass

# On 2,000 test images enlarged, made smaller or stored as JPEG, any threshold from 0.15
# to 0.3 costs at most 0.3 points; below 0.1, soft edges and the traces of JPEG count as
# ink and make the digit too small.
BOX_THRESHOLD = 0.2  # of the contrast: fainter pixels don't stretch the box
FAINTEST = 0.05  # of the contrast: what is fainter is paper
DUST = 0.02  # of the ink: apart from the rest and less than this, it is left out
MIN_CONTRAST = 24.0  # of 255: less is an empty page
TOP_SHARE = 0.0005  # of the pixels may be darker than what counts as full ink
NOISE = 4.0  # standard deviations of the paper that are still paper
# Pages of nothing but Gaussian noise reach 3.4 to 5.2 standard deviations; 15,000
# digits of MNIST cut out to their very edges, 9 and more.
CLEAR = 6.0

# The extremes of the 60,000 training images of MNIST, where nothing else is said.
INK_SHARE = (0.025, 0.40)  # mean of 28 x 28 pixels, 0..1: 0.0254 to 0.3976
WIDEST = 2.5  # width by height of the box around the ink
APART = 0.2  # of the ink beside a gap: in 6 of the 60,000 images more
TALLEST = 10.0  # height by width of the box around the ink
LARGEST_PART = 0.45  # of the ink: in 1 of the 60,000 images less
CROSSED = 0.25  # of the picture's border under ink: MNIST has 0.04 at most


class PictureError(UserError):
    """What was given is no picture that can be read; the message says why."""


@dataclass(frozen=True, eq=False)
class Digit:
    """What a network sees, and what the picture was like.

    Attributes:
        image: uint8 `(28, 28)`, white ink on black.
        ink_share: mean of `image`, 0..1.
        width_by_height: of the box around the ink.
        apart: the share of the ink, 0..0.5, that a gap from top to bottom sets apart.
        largest_part: the share of the ink, 0..1, in its largest connected part.
        crossed: the share of the picture's border that is under ink, 0..1.
    """

    image: npt.NDArray[np.uint8]
    ink_share: float
    width_by_height: float
    apart: float
    largest_part: float
    crossed: float

    @property
    def doubts(self) -> dict[str, str]:
        """Why it may be no digit, measure by measure; empty if it looks like one."""
        found = {}
        low, high = INK_SHARE
        if not low <= self.ink_share <= high:
            found["ink"] = (
                f"ink covers {self.ink_share:.1%} (in MNIST {low:.1%} to {high:.0%})"
            )
        if self.width_by_height > WIDEST:
            found["width"] = (
                f"{self.width_by_height:.1f} times as wide as high (in MNIST at most "
                f"{WIDEST})"
            )
        if self.width_by_height < 1 / TALLEST:
            found["height"] = (
                f"{1 / self.width_by_height:.1f} times as high as wide (in MNIST at "
                f"most {TALLEST:.0f})"
            )
        if self.largest_part < LARGEST_PART:
            found["scattered"] = (
                f"in many parts, the largest with {self.largest_part:.0%} of the ink"
            )
        if self.apart > APART:
            found["parts"] = (
                f"two parts side by side, the smaller with {self.apart:.0%} of the ink"
            )
        if self.crossed > CROSSED:
            found["border"] = f"ink on {self.crossed:.0%} of the picture's border"
        return found


class Quiet:
    """Keeps pillow's warnings back while any thread is inside; nest it at will.

    `warnings.catch_warnings` alone is not for threads: the one that leaves puts back
    filters under the others. Here the first in sets them and the last out puts back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters.enter_context(warnings.catch_warnings())
                for module in (r"PIL\.", r"paripassu\.core\.digits"):
                    warnings.filterwarnings("ignore", module=module)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.close()


quiet = Quiet()


def read_picture(source: Path | bytes) -> Image.Image:
    """Read a picture: upright, without transparency, as grey, colour or numbers.

    Of several pages or frames, the first counts. The orientation in its EXIF data is
    applied. Transparency is laid on paper of one shade: see `_without_alpha`. A picture
    of more than 2,048 pixels along a side is made smaller by a whole factor.

    Args:
        source: a file, or its content.

    Returns:
        A loaded image of mode L, RGB or F; F is scaled to 0..255.

    Raises:
        PictureError: it is missing, empty, damaged, of another format, or has more
            than 64 million pixels; these are not decoded.
    """
    try:
        with quiet, _opened(source) as file:
            return _read(file)
    except UserError:
        raise
    except MemoryError:
        raise PictureError("it needs more memory than there is") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureError(_too_large("more")) from None
    except UnidentifiedImageError:
        raise PictureError(
            f"not a picture: expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        ) from None
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise PictureError(f"cannot be read: {_lowered(reason)}") from None
    except Exception as error:  # whatever a decoder raises on a damaged file
        reason = str(error) or type(error).__name__
        raise PictureError(f"damaged: {_lowered(reason)}") from None


def _lowered(text: str) -> str:
    text = text.strip().rstrip(".").splitlines()[0]
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _too_large(came: str) -> str:
    return f"too large: expected at most {MAX_PIXELS:,} pixels, got {came}"


@contextlib.contextmanager
def _opened(source: Path | bytes) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes):
        size, file = len(source), io.BytesIO(source)
    else:
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PictureError("not a regular file")
        size = status.st_size
    if not size:
        raise PictureError("empty: it has 0 bytes")
    if size > MAX_BYTES:
        raise PictureError(
            f"too large: expected at most {MAX_BYTES:,} bytes, got {size:,}"
        )
    with file if isinstance(source, bytes) else source.open("rb") as opened:
        yield opened


def _read(file: IO[bytes]) -> Image.Image:
    with Image.open(file, formats=FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise PictureError(_too_large(f"{width} x {height} = {width * height:,}"))
        image.draft(None, (LONGEST, LONGEST))  # JPEG can be decoded smaller
        image.load()
        with contextlib.suppress(Exception):  # damaged EXIF data in a sound picture
            ImageOps.exif_transpose(image, in_place=True)
        picture = _in_few_modes(image)
        factor = -(-max(picture.size) // LONGEST)
        if factor > 1:
            picture = picture.reduce(factor)
        if picture.mode == "F":
            return _of_numbers(picture, image.mode)
        if picture.mode == "RGBA":
            return _without_alpha(picture)
        return picture.copy()  # of `image` if nothing was done


def _in_few_modes(image: Image.Image) -> Image.Image:
    """As L, RGB, RGBA or, for numbers of 16 and 32 bits, F."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return image.convert("F")
    if image.has_transparency_data:
        return image.convert("RGBA")
    if mode == "LAB":
        return image.getchannel(0)
    return image.convert("L" if mode in ("1", "L") else "RGB")


def _of_numbers(image: Image.Image, mode: str) -> Image.Image:
    """Numbers of 16 or 32 bits, as F, in 0..255.

    Whole numbers from 0 to 65,535 are taken for 16 bits; others, and fractions, are
    stretched from the least to the greatest.

    Args:
        image: of mode F.
        mode: what it was.
    """
    values = np.nan_to_num(np.asarray(image), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if mode != "F" and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    if high <= low:
        return Image.new("F", image.size)
    # Halves first: the difference of two float32 may be none.
    scaled = (values / 2 - low / 2) / (high / 2 - low / 2) * 255
    return Image.fromarray(scaled.astype(np.float32))


def _without_alpha(image: Image.Image) -> Image.Image:
    """Lay an RGBA image on paper, as RGB.

    The paper is white under ink that is dark on the mean, and black under light ink. A
    visible part that is of many shades and fills its own box is paper already: then all
    paper is as its rim.
    """
    alpha = np.asarray(image.getchannel("A"))
    visible = alpha >= 128
    if not visible.any():
        visible = alpha > 0
    if visible.all():
        return image.convert("RGB")
    shades = np.asarray(image.convert("RGB").convert("L"))[visible]
    paper = (255, 255, 255)
    if len(shades):
        low, high = np.percentile(shades, (2, 98))
        top, bottom, left, right = _box(visible)
        fills = len(shades) / ((bottom - top) * (right - left))
        if high - low >= 64 and fills >= 0.7:
            colours = np.asarray(image.convert("RGB"))[_rim(visible)]
            red, green, blue = np.median(colours, axis=0).astype(int).tolist()
            paper = red, green, blue
        elif shades.mean() >= 128:
            paper = (0, 0, 0)
    result = Image.new("RGB", image.size, paper)
    result.paste(image, mask=image.getchannel("A"))
    return result


def _rim(visible: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The visible pixels that have a neighbour, or the edge, that is not."""
    around = np.pad(visible, 1)
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return visible & ~inner


def to_digit(picture: Image.Image) -> Digit | None:
    """Convert a picture as MNIST was made; None if there is no ink in it.

    1. Grey is the luminance, or that one of red, green and blue in which the picture
       has more than twice the range.
    2. The paper is the median of the border (2% of the shorter side, at least a pixel);
       where the border is a slope, as under a lamp, the paper is a surface of second
       order through it. The ink is on that side of it, darker or lighter, where the sum
       of the fourth powers of the differences is greater: less ink, but much darker,
       outweighs more paper that is a little too light.
    3. Full ink is what 0.05% of the pixels reach. Less than 24 of 255 from the paper,
       or than six standard deviations of its noise, is no ink. Pixels below 5% of the
       contrast, or within four deviations, are paper. The box is around pixels above
       20%; rows and columns apart from the rest, with less than 2% of the ink, are
       dust.
    4. The box is scaled, bicubic and anti-aliased, so that its longer side is 20, and
       the darkest pixel becomes 255: a thin line scaled down is faint.
    5. The centre of mass comes to within half a pixel of index (14, 14): there the
       60,000 training images have it, each within 13.5 and 14.5. Where that would push
       ink out of the 28 x 28, the digit is scaled smaller.

    A picture of 28 x 28 that is as MNIST's are, of any paper, keeps each pixel; so do
    all 70,000 of MNIST.

    Not taken away, but told by `Digit.doubts` where they are large: whatever else is
    darker or lighter than the paper, such as ruled lines or the table under a sheet of
    paper. Letters are ink as digits are: nothing here can tell them apart.

    Args:
        picture: of `read_picture`, or any image of mode L, RGB or F in 0..255.
    """
    shades = _shades(picture)
    border = _border(shades)
    paper = _median(border)
    noise = _deviation(border, paper)
    if noise > 1 and min(shades.shape) > 2 * SIZE:
        shades, paper, noise = _levelled(shades, paper, noise)
    ink = shades - np.float32(paper)
    light, dark = np.maximum(ink, 0), np.maximum(-ink, 0)
    ink = light if _weight(light) >= _weight(dark) else dark
    full = _full_ink(ink)
    if full < CLEAR * noise:  # noise indeed, or ink that crosses the border
        noise = min(noise, _grain(shades))
    if full < max(MIN_CONTRAST, CLEAR * noise):
        return None
    done = _as_it_is(ink) if ink.shape == (SIZE, SIZE) else None
    ink = np.minimum(ink / np.float32(full), 1)
    noise = min(NOISE * noise / full, 0.5)
    crossed = float((_border(ink) > 0.5).mean())
    ink[ink < max(FAINTEST, noise)] = 0
    ink = _without_dust(ink, max(BOX_THRESHOLD, noise))
    height, width = ink.shape
    if done is None:
        done = _placed(ink)
    return Digit(
        image=done,
        ink_share=float(done.mean()) / 255,
        width_by_height=width / height,
        apart=_apart(ink),
        largest_part=_largest_part(ink),
        crossed=crossed,
    )


def _shades(picture: Image.Image) -> Shades:
    """Grey, float32 `(H, W)`, 0..255."""
    if picture.mode != "RGB":
        return np.asarray(picture, np.float32)
    grey = picture.convert("L")
    ranges: list[Any] = [grey.getextrema(), *picture.getextrema()]
    spans = [high - low for low, high in ranges]
    if max(spans) > 2 * spans[0]:
        grey = picture.getchannel(spans.index(max(spans)) - 1)
    return np.asarray(grey, np.float32)


def _border(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    width = max(1, min(values.shape) // 50)
    inner = values[width:-width]
    parts = (values[:width], values[-width:], inner[:, :width], inner[:, -width:])
    return np.concatenate([part.ravel() for part in parts])


def _deviation(values: Shades, middle: float) -> float:
    """Standard deviation about `middle` by the median, which outliers don't move."""
    return 1.4826 * _median(np.abs(values - np.float32(middle)))


def _median(values: npt.NDArray[Any]) -> float:
    """As `numpy.median`, which takes five times as long for so few values."""
    low, high = (len(values) - 1) // 2, len(values) // 2
    parted = np.partition(values, (low, high))
    return (float(parted[low]) + float(parted[high])) / 2


def _weight(ink: Shades) -> float:
    squares = ink * ink
    return float(np.vdot(squares, squares))


def _grain(shades: Shades) -> float:
    """Standard deviation of the noise, by differences of neighbours.

    Edges don't count for much in a median, as long as most pixels are away from them.
    """
    some = shades[:: 1 + shades.size // 100_000]
    steps = [np.abs(np.diff(x, axis=1)).ravel() for x in (some, shades.T)]
    return min(1.4826 * _median(x) / math.sqrt(2) for x in steps if len(x))


def _levelled(
    shades: Shades, paper: float, noise: float
) -> tuple[Shades, float, float]:
    """Take a surface through the border away, if it explains most of its deviation.

    A least-squares fit of 1, x, y, x y, x x, y y, where x and y go from -1 to 1, done
    three times, each time without what was more than 2.5 deviations away.
    """
    y, x = (np.linspace(-1, 1, size)[None] for size in shades.shape)
    surface = [np.ones((1, 1)), x, y.T, y.T * x, x * x, (y * y).T]
    terms = np.stack(
        [_border(np.broadcast_to(term, shades.shape)) for term in surface], axis=1
    )
    border = _border(shades).astype(np.float64)
    kept = np.ones(len(border), np.bool_)
    for _ in range(3):
        some = terms[kept]  # the normal equations: small, and well-conditioned here
        factors, *_rest = np.linalg.lstsq(some.T @ some, some.T @ border[kept])
        residue = np.abs(border - terms @ factors)
        spread = 1.4826 * _median(residue)
        kept = residue <= max(2.5 * spread, 1e-6)
    if spread > noise / 2:
        return shades, paper, noise
    level = sum(
        factor * term for factor, term in zip(factors[1:], surface[1:], strict=True)
    )
    return shades - level.astype(np.float32), float(factors[0]), spread


def _full_ink(ink: Shades) -> float:
    """The level, in whole 255ths, that 0.05% of the pixels reach."""
    levels = np.bincount(np.minimum(ink, 255).astype(np.uint8).ravel(), minlength=256)
    reached = levels[::-1].cumsum()
    return 255.0 - float(np.searchsorted(reached, max(1, int(ink.size * TOP_SHARE))))


def _box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """First row, row after the last, first column, column after the last."""
    rows, columns = np.asarray(mask.any(axis=1)), np.asarray(mask.any(axis=0))
    return (
        int(rows.argmax()),
        len(rows) - int(rows[::-1].argmax()),
        int(columns.argmax()),
        len(columns) - int(columns[::-1].argmax()),
    )


def _centre(ink: npt.NDArray[Any]) -> tuple[float, float]:
    """The centre of mass, row and column, in pixels from the middle of the first."""
    rows, columns = ink.sum(axis=1, dtype=np.float64), ink.sum(axis=0, dtype=np.float64)
    total = rows.sum()
    return (
        float(rows @ np.arange(len(rows)) / total),
        float(columns @ np.arange(len(columns)) / total),
    )


def _as_it_is(ink: Shades) -> npt.NDArray[np.uint8] | None:
    """The pixels as they came, if MNIST could have made them."""
    image: npt.NDArray[np.uint8] = np.rint(ink).astype(np.uint8)
    top, bottom, left, right = _box(image > 0)
    longest = max(bottom - top, right - left)
    near = all(abs(x - CENTRE) <= 0.55 for x in _centre(image))
    return image if longest in (BOX - 1, BOX) and near and image.max() >= 250 else None


def _without_dust(ink: Shades, threshold: float) -> Shades:
    """Cut to the box of the ink; dust outside of it is left out."""
    for _ in range(2):  # rows, then columns, and each is turned back
        ink = _cut(ink, threshold).T
    top, bottom, left, right = _box(ink > threshold)
    return ink[top:bottom, left:right]


def _cut(ink: Shades, threshold: float) -> Shades:
    """The rows from the first to the last that are not dust."""
    inked: npt.NDArray[np.bool_] = np.asarray((ink > threshold).any(axis=1))
    around = np.concatenate([[False], inked, [False]])
    edges = np.flatnonzero(around[1:] != around[:-1])
    starts, ends = edges[::2], edges[1::2]
    if len(starts) > 1:
        sums = np.append(0.0, ink.sum(axis=1, dtype=np.float64).cumsum())
        share = (sums[ends] - sums[starts]) / sums[-1]
        kept = share >= min(DUST, share.max())
        starts, ends = starts[kept], ends[kept]
    return ink[starts[0] : ends[-1]]


def _apart(ink: Shades) -> float:
    """The share of the ink on the smaller side of the gap that halves it best."""
    inked = np.asarray((ink > BOX_THRESHOLD).any(axis=0))
    gaps = np.flatnonzero(~inked)
    if not len(gaps):
        return 0.0
    sums = ink.sum(axis=0, dtype=np.float64).cumsum()
    left = sums[gaps] / sums[-1]
    return float(np.minimum(left, 1 - left).max())


def _largest_part(ink: Shades) -> float:
    """The share of the ink in its largest part, of pixels that touch."""
    from scipy import ndimage  # which only pictures need

    labels, count = ndimage.label(ink > BOX_THRESHOLD, np.ones((3, 3)))
    sums = np.bincount(labels.ravel(), ink.ravel(), count + 1)[1:]
    return float(sums.max() / sums.sum())


def _placed(ink: Shades) -> npt.NDArray[np.uint8]:
    """Scale into 20 x 20 and put the centre of mass at the centre of 28 x 28."""
    for longest in range(BOX, 0, -1):
        scaled = _scaled(ink, longest)
        row, column = _centre(scaled)
        top, left = round(CENTRE - row), round(CENTRE - column)
        height, width = scaled.shape
        if 0 <= top <= SIZE - height and 0 <= left <= SIZE - width:
            break
    image = np.zeros((SIZE, SIZE), np.uint8)
    image[top : top + height, left : left + width] = scaled
    return image


def _scaled(ink: Shades, longest: int) -> npt.NDArray[np.uint8]:
    height, width = ink.shape
    scale = longest / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size != (width, height):
        picture = Image.fromarray(np.ascontiguousarray(ink))
        resized = picture.resize(size, Image.Resampling.BICUBIC)
        ink = np.maximum(np.asarray(resized, np.float32), 0)
    ink = np.rint(ink * np.float32(255 / ink.max()))
    return ink.astype(np.uint8)
