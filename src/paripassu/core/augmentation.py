"""Images moved, turned, bent and covered at random: the same bytes for every framework.

What is drawn is a pure function of the recipe's seed, the epoch and the step, as are
all draws (`core.draws`). Pixels are computed in whole numbers from there on, so that no
library's rounding can part two frameworks, and a batch at once, in NumPy alone.

Sources: elastic, Simard, Steinkraus and Platt 2003 ("Best practices for convolutional
neural networks applied to visual document analysis"); cutout, DeVries and Taylor 2017
(arXiv:1708.04552).
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core import draws
from paripassu.core.datasets import Split
from paripassu.core.recipe import Augmentation, Recipe

Pixels = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int32]

PARTS = 256  # of a pixel, in which places are counted
BOXES = 3  # means in a row, which are nearly a Gaussian
AHEAD = 4  # batches that are made before they are asked for


def augment(recipe: Recipe, some: Split, epoch: int, step: int) -> Split:
    """One batch as it is trained on: changed, if the recipe says so.

    Args:
        recipe: its seed and its augmentation.
        some: the images of the batch, in its order.
        epoch: counted from 0.
        step: of the epoch, counted from 0.
    """
    if recipe.augmentation.is_none:
        return some
    pixels = changed(recipe.augmentation, some.pixels, recipe.seed, epoch, step)
    return Split(pixels, some.labels, some.levels)


def batches(
    recipe: Recipe, training: Split, rows: Iterable[Any], epoch: int
) -> Iterator[Split]:
    """The batches of an epoch, changed, each made while others are trained on.

    Args:
        recipe: its seed and its augmentation.
        training: all images.
        rows: those of each batch.
        epoch: counted from 0.
    """
    waiting: collections.deque[Future[Split]] = collections.deque()
    with ThreadPoolExecutor(1, thread_name_prefix="augmenting") as pool:
        try:
            for step, own in enumerate(rows):
                # Taken out here: of many rows, that is most of the time.
                made = pool.submit(augment, recipe, training[own], epoch, step)
                waiting.append(made)
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for made in waiting:
                made.cancel()


class InOrder:
    """A split whose batches come changed, if they are asked for in the recipe's order.

    For a framework's own loop, which asks for rows and does not say which step it is.
    """

    def __init__(self, recipe: Recipe, training: Split, first_epoch: int = 0) -> None:
        self._recipe, self._training = recipe, training
        self._length = -(-len(training) // recipe.batch_size)
        self._asked = first_epoch * self._length  # batches
        self.pixels, self.levels = training.pixels, training.levels

    def __len__(self) -> int:
        """How many images there are."""
        return len(self._training)

    def __getitem__(self, rows: Any) -> Split:
        """The next batch."""
        epoch, step = divmod(self._asked, self._length)
        self._asked += 1
        return augment(self._recipe, self._training[rows], epoch, step)


def changed(
    chosen: Augmentation, pixels: Pixels, seed: int, epoch: int, step: int
) -> Pixels:
    """A batch of images with every change that is chosen, each drawn for itself.

    Args:
        chosen: what is done, and how far at most.
        pixels: `(N, h, w, c)`.
        seed: of the recipe.
        epoch: counted from 0.
        step: of the epoch.

    Returns:
        uint8, the same shape: bilinear between the four nearest pixels, and 0 beyond
        the border and under what is cut out.
    """
    count, h, w, _ = pixels.shape
    drawn = draws.uniform((8, count), seed, "augmentation", epoch, step)
    found = pixels
    if chosen.moves:
        rows, columns = _places(chosen, h, w, 2 * drawn[:6] - 1)
        if chosen.elastic:
            words = draws.words((2, count, h, w), seed, "elastic", epoch, step)
            bent = _bent(words, chosen.elastic_smoothness, chosen.elastic)
            rows, columns = rows + bent[0], columns + bent[1]
        found = _sampled(pixels, rows, columns)
    if chosen.cutout:
        found = _cut_out(found, chosen.cutout, drawn[6:])
    return found


def _places(
    chosen: Augmentation, h: int, w: int, drawn: draws.Floats
) -> tuple[Integers, Integers]:
    """Where each pixel comes from, in parts of a pixel: row and column `(N, h, w)`.

    An image is scaled, sheared, turned about its centre and shifted, in this order; a
    pixel's place is found by the way back.

    Args:
        chosen: how far at most.
        h: rows.
        w: columns.
        drawn: `(6, N)`, from -1 to 1.
    """
    down, right, angle, slant, taller, wider = drawn
    angle = np.radians(chosen.rotation) * angle
    slant = np.tan(np.radians(chosen.shear) * slant)
    taller, wider = (
        np.exp(np.log1p(chosen.scale) * x) for x in (taller, wider)
    )  # as likely half as large as twice
    if chosen.keep_aspect:
        wider = taller
    cos, sin = np.cos(angle), np.sin(angle)
    # Back: less the shift, turned the other way, sheared back, scaled back.
    rows = np.arange(h)[:, None] - (h - 1) / 2 - chosen.shift * down[:, None, None]
    columns = np.arange(w) - (w - 1) / 2 - chosen.shift * right[:, None, None]
    cos, sin, slant, taller, wider = (
        x[:, None, None] for x in (cos, sin, slant, taller, wider)
    )
    turned_rows = cos * rows + sin * columns
    turned_columns = cos * columns - sin * rows
    from_rows = turned_rows / taller + (h - 1) / 2
    from_columns = (turned_columns - slant * turned_rows) / wider + (w - 1) / 2
    return _in_parts(from_rows), _in_parts(from_columns)


def _in_parts(places: draws.Floats) -> Integers:
    return np.rint(places * PARTS).astype(np.int32)


def _bent(words: npt.NDArray[np.uint16], smoothness: float, size: float) -> Integers:
    """Smooth random displacements, in parts of a pixel.

    All factors are whole numbers and all sums below 2**53, so that the products are
    exact, in whatever order a library adds.

    Args:
        words: random, `(..., h, w)`.
        smoothness: the standard deviation of the Gaussian, in pixels.
        size: the standard deviation of a displacement away from the border, in pixels.
    """
    *_, h, w = words.shape
    field = words.astype(np.float64) - 2**15
    smooth = _smoothing(smoothness, h) @ field @ _smoothing(smoothness, w)
    # A word is uniform, and each of the sums adds independent ones.
    deviation = 2**16 / np.sqrt(12) * (_kernel(smoothness) ** 2).sum()
    found: Integers = np.rint(smooth * (size * PARTS / deviation)).astype(np.int32)
    return found


@cache
def _kernel(deviation: float) -> draws.Floats:
    """Three boxes in a row, which are nearly the Gaussian: whole numbers."""
    width = np.sqrt(12 * deviation**2 / BOXES + 1)
    box = np.ones(2 * int(width // 2) + 1)
    kernel = np.ones(1)
    for _ in range(BOXES):
        kernel = np.convolve(kernel, box)
    return kernel


@cache
def _smoothing(deviation: float, size: int) -> draws.Floats:
    """The kernel as a matrix `(size, size)`; beyond the border is 0."""
    kernel = _kernel(deviation)
    apart = np.arange(size)[:, None] - np.arange(size) + len(kernel) // 2
    inside = (apart >= 0) & (apart < len(kernel))
    return np.where(inside, kernel[apart.clip(0, len(kernel) - 1)], 0.0)


def _sampled(pixels: Pixels, rows: Integers, columns: Integers) -> Pixels:
    """Between the four pixels around each place, in whole numbers.

    Args:
        pixels: `(N, h, w, c)`.
        rows: `(N, h, w)`, in parts of a pixel.
        columns: the same.
    """
    count, h, w, c = pixels.shape
    # One border of zeros is enough: what lies further out comes from it too.
    padded = np.zeros((count, h + 3, w + 3, c), np.uint8)
    padded[:, 1:-2, 1:-2] = pixels
    rows = rows.clip(-PARTS, h * PARTS) + PARTS
    columns = columns.clip(-PARTS, w * PARTS) + PARTS
    above, left = rows // PARTS, columns // PARTS
    down = (rows - above * PARTS)[..., None].astype(np.uint32)
    right = (columns - left * PARTS)[..., None].astype(np.uint32)
    images = np.arange(count, dtype=np.int32)[:, None, None] * (h + 3)
    first = (images + above) * (w + 3) + left
    table = padded.reshape(-1, c)

    def at(offset: int) -> npt.NDArray[np.uint32]:
        found: npt.NDArray[np.uint32] = table.take(first + offset, axis=0).astype("u4")
        return found

    top = at(0) * (PARTS - right) + at(1) * right
    bottom = at(w + 3) * (PARTS - right) + at(w + 4) * right
    total = top * (PARTS - down) + bottom * down
    return ((total + PARTS * PARTS // 2) // (PARTS * PARTS)).astype(np.uint8)


def _cut_out(pixels: Pixels, side: int, drawn: draws.Floats) -> Pixels:
    """A square of each image black; its centre is any pixel, so some is often outside.

    Args:
        pixels: `(N, h, w, c)`.
        side: of the square.
        drawn: `(2, N)`, from 0 to 1.
    """
    _, h, w, _ = pixels.shape
    inside = []
    for size, share in ((h, drawn[0]), (w, drawn[1])):
        begin = (share * size).astype(np.int64)[:, None] - side // 2
        place = np.arange(size)
        inside.append((place >= begin) & (place < begin + side))
    covered = inside[0][:, :, None] & inside[1][:, None, :]
    return np.where(covered[..., None], np.uint8(0), pixels)
