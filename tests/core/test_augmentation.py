"""Augmentation: where pixels come from, held against SciPy and by hand."""

from __future__ import annotations

import hashlib
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import map_coordinates

from paripassu.core import augmentation, draws
from paripassu.core.augmentation import (
    PARTS,
    InOrder,
    augment,
    batches,
    changed,
)
from paripassu.core.datasets import Split
from paripassu.core.errors import UserError
from paripassu.core.recipe import Augmentation, Recipe, load, parse, validate

RANDOM = np.random.default_rng(11)
EVERYTHING = {
    "shift": 2.0,
    "rotation": 15.0,
    "scale": 0.2,
    "shear": 10.0,
    "elastic": 1.0,
    "cutout": 4,
}


def split_of(count: int, h: int = 9, w: int = 7, c: int = 1) -> Split:
    pixels = RANDOM.integers(0, 256, (count, h, w, c), np.uint8)
    levels = np.tile(np.arange(256, dtype=np.float32), (c, 1))
    return Split(pixels, np.arange(count) % 10, levels)


def recipe_with(**numbers) -> Recipe:
    return Recipe(augmentation=numbers, batch_size=4, epochs=2)


def drawn_as(chosen: dict, drawn: dict, pixels: np.ndarray) -> np.ndarray:
    """A batch of one, with given draws from -1 to 1 in place of drawn ones."""
    names = ("down", "right", "angle", "slant", "taller", "wider")
    given = np.array([[drawn.get(x, 0.0)] for x in names])
    _, h, w, _ = pixels.shape
    places = augmentation._places(Augmentation(**chosen), h, w, given)
    return augmentation._sampled(pixels, *places)


# Where a pixel goes


def test_each_movement_goes_its_way() -> None:
    pixels = RANDOM.integers(0, 256, (1, 6, 6, 1), np.uint8)
    down = drawn_as({"shift": 2.0}, {"down": 1.0}, pixels)
    assert (down[:, 2:] == pixels[:, :-2]).all()
    assert (down[:, :2] == 0).all()
    left = drawn_as({"shift": 2.0}, {"right": -0.5}, pixels)
    assert (left[:, :, :-1] == pixels[:, :, 1:]).all()
    assert (left[:, :, -1] == 0).all()
    turned = drawn_as({"rotation": 90.0}, {"angle": 1.0}, pixels)
    assert (turned == np.rot90(pixels, 1, (1, 2))).all()  # anticlockwise
    back = drawn_as({"rotation": 180.0}, {"angle": -1.0}, pixels)
    assert (back == pixels[:, ::-1, ::-1]).all()
    # Twice as large: what was one pixel from the centre is two from it.
    dot = np.zeros((1, 9, 9, 1), np.uint8)
    dot[0, 5, 4] = 255
    assert drawn_as({"scale": 1.0}, {"taller": 1.0}, dot)[0, 6, 4, 0] == 255
    assert drawn_as({"scale": 1.0}, {"taller": -1.0}, dot)[0, 6, 4, 0] == 0
    # Sheared by 45 degrees, a row moves by its distance from the middle row.
    line = np.zeros((1, 7, 7, 1), np.uint8)
    line[0, :, 3] = 255
    slanted = drawn_as({"shear": 45.0}, {"slant": 1.0}, line)
    assert (slanted[0, :, :, 0] == 255 * np.eye(7)).all()


places = arrays(np.int32, (2, 2, 5, 4), elements=st.integers(-2000, 3000))


@given(arrays(np.uint8, (2, 5, 4, 3)), places)
def test_sampling_is_bilinear_as_scipys_to_the_last_bit(pixels, found) -> None:
    came = augmentation._sampled(pixels, *found)
    assert (came.dtype, came.shape) == (np.uint8, pixels.shape)
    for image in range(2):
        for channel in range(3):
            expected = map_coordinates(
                pixels[image, :, :, channel].astype(np.float64),
                found[:, image] / PARTS,
                order=1,
                mode="grid-constant",
                cval=0.0,
            )
            # Places are parts of a pixel: all products are exact.
            rounded = np.floor(expected + 0.5).astype(np.uint8)
            np.testing.assert_array_equal(came[image, :, :, channel], rounded)


def test_elastic_displacements_are_smooth_and_as_large_as_said() -> None:
    words = draws.words((2, 200, 28, 28), 1, "test")
    for smoothness, size in ((2.0, 1.5), (4.0, 0.5)):
        moved = augmentation._bent(words, smoothness, size) / PARTS
        middle = moved[..., 13:15, 13:15]
        assert middle.std() == pytest.approx(size, rel=0.1)
        assert abs(middle.mean()) < 0.1 * size
        near = np.abs(np.diff(moved, axis=-1)).mean()
        assert near < 0.6 * size
    # Red: not smoothed, neighbours have nothing in common.
    rough = words.astype(float) / 2**16 * np.sqrt(12) * size
    assert np.abs(np.diff(rough, axis=-1)).mean() > 0.6 * size


def test_exactness_of_the_smoothing() -> None:
    """Whole numbers in float64: the order of adding is of no account."""
    words = draws.words((1, 3, 40, 40), 2, "test")
    for deviation in (0.5, 4.0, 32.0):
        kernel = augmentation._kernel(deviation)
        assert (kernel == np.rint(kernel)).all()
        assert kernel.sum() ** 2 * 2**15 < 2**53
        matrix = augmentation._smoothing(deviation, 40)
        field = words.astype(np.float64) - 2**15
        whole = matrix.astype(np.int64)
        exact = whole @ (words.astype(np.int64) - 2**15) @ whole
        assert (matrix @ field @ matrix == exact).all()


def test_a_square_is_cut_out() -> None:
    white = np.full((500, 12, 12, 3), 255, np.uint8)
    came = changed(Augmentation(cutout=4), white, 1, 0, 0)
    black = (came == 0).all(-1)
    assert ((came == 0) == black[..., None]).all()
    sizes = black.sum((1, 2))
    assert sizes.max() == 16
    assert 0 < sizes.min() < 16  # some of it is outside
    rows = black.any(2).sum(1)
    assert (rows * black.any(1).sum(1) == sizes).all()
    assert len(np.unique(black.argmax(1).argmax(1))) > 1


@pytest.mark.parametrize("name", [x for x in EVERYTHING if x != "cutout"])
def test_channels_are_moved_alike(name) -> None:
    some = split_of(5, c=3)
    chosen = Augmentation(**{name: EVERYTHING[name]})
    came = changed(chosen, some.pixels, 3, 1, 2)
    assert (came != some.pixels).any()
    for channel in range(3):
        alone = changed(chosen, some.pixels[..., channel : channel + 1], 3, 1, 2)
        assert (came[..., channel] == alone[..., 0]).all()


# What is drawn


def test_the_same_bytes_wherever_and_whenever() -> None:
    pixels = (np.arange(6 * 28 * 28, dtype=np.int64) * 37 % 256).astype(np.uint8)
    came = changed(Augmentation(**EVERYTHING), pixels.reshape(6, 28, 28, 1), 42, 3, 7)
    assert hashlib.sha256(came.tobytes()).hexdigest()[:16] == PINNED
    again = changed(Augmentation(**EVERYTHING), pixels.reshape(6, 28, 28, 1), 42, 3, 7)
    assert (came == again).all()


PINNED = "5707b5b323bb26be"


def test_each_step_epoch_seed_and_image_has_its_own() -> None:
    some = split_of(1).pixels.repeat(8, axis=0)
    chosen = Augmentation(rotation=30.0, shift=3.0)
    came = {changed(chosen, some, *x).tobytes() for x in ((1, 0, 0), (2, 0, 0))}
    came |= {changed(chosen, some, *x).tobytes() for x in ((1, 1, 0), (1, 0, 1))}
    assert len(came) == 4
    images = {x.tobytes() for x in changed(chosen, some, 1, 0, 0)}
    assert len(images) == 8


def test_nothing_asked_nothing_done() -> None:
    some = split_of(3)
    assert augment(Recipe(), some, 0, 0) is some
    assert augment(recipe_with(shift=1.0), some, 0, 0) is not some


# The batches of a training


@pytest.mark.parametrize("numbers", [EVERYTHING, {"shift": 1.0}])
def test_batches_are_made_ahead_and_in_order(numbers) -> None:
    recipe, training = recipe_with(**numbers), split_of(23)
    rows = draws.batches(recipe, len(training), 1)
    found = list(batches(recipe, training, rows, 1))
    assert len(found) == len(rows) == 6
    for step, (own, came) in enumerate(zip(rows, found, strict=True)):
        expected = augment(recipe, training[own], 1, step)
        assert (came.pixels == expected.pixels).all()
        assert (came.labels == training.labels[own]).all()


def test_who_stops_early_leaves_no_thread() -> None:
    recipe, training = recipe_with(shift=1.0), split_of(400)
    before = threading.active_count()
    found = batches(recipe, training, draws.batches(recipe, 400, 0), 0)
    next(found)
    found.close()
    assert threading.active_count() == before


def test_a_split_in_order_counts_its_batches() -> None:
    recipe, training = recipe_with(**EVERYTHING), split_of(10)
    whole = InOrder(recipe, training)
    assert len(whole) == 10
    assert whole.pixels is training.pixels
    for epoch in range(2):
        resumed = InOrder(recipe, training, epoch)
        rows = draws.batches(recipe, 10, epoch)
        for own, expected in zip(
            rows, batches(recipe, training, rows, epoch), strict=True
        ):
            assert (whole[own].pixels == expected.pixels).all()
            assert (resumed[own].pixels == expected.pixels).all()


# The recipe


def test_older_recipes_keep_their_hash_and_others_have_another() -> None:
    assert load("article").hash() == "ae0828b19b560793"
    assert load("fast").hash() == "9be15e916b44ab0f"
    plain = Recipe()
    assert (
        plain.changed(augmentation={"elastic_smoothness": 9.0}).hash() == plain.hash()
    )
    others = {plain.changed(augmentation={k: v}).hash() for k, v in EVERYTHING.items()}
    assert len(others | {plain.hash()}) == 7
    recipe = recipe_with(**EVERYTHING)
    assert parse(recipe.to_toml()) == recipe


@pytest.mark.parametrize(
    "bad", [{"shift": -1.0}, {"rotation": 181.0}, {"shear": 90.0}, {"turn": 1.0}]
)
def test_bad_numbers_are_refused(bad) -> None:
    with pytest.raises(UserError, match="augmentation"):
        validate({"augmentation": bad})
