"""Pictures for networks that are not for digits."""

import numpy as np
import pytest
from PIL import Image

from paripassu.core.scenes import to_pixels

RANDOM = np.random.default_rng(3)


def picture(*shape: int) -> Image.Image:
    return Image.fromarray(RANDOM.integers(0, 256, shape, np.uint8))


@pytest.mark.parametrize("shape", [(9, 7, 1), (9, 7, 3)])
def test_a_picture_of_the_right_size_keeps_each_pixel(shape) -> None:
    given = picture(*(shape if shape[2] == 3 else shape[:2]))
    pixels, doubts = to_pixels(given, shape)
    assert (pixels == np.asarray(given).reshape(shape)).all()
    assert (pixels.shape, pixels.dtype, doubts) == (shape, np.uint8, {})


def test_what_is_scaled_and_what_is_told() -> None:
    flat = Image.new("RGB", (64, 64), (10, 200, 90))
    pixels, doubts = to_pixels(flat, (32, 32, 3))
    assert (pixels == [10, 200, 90]).all()
    assert doubts == {}
    _pixels, doubts = to_pixels(picture(20, 60), (32, 32, 3))
    assert doubts == {
        "aspect": "stretched from 60 x 20 to 32 x 32 pixels",
        "colour": "grey, for a network that learnt in colour",
    }
    assert not to_pixels(picture(20, 24, 3), (10, 10, 1))[1]
    deep = Image.fromarray(np.full((4, 4), 300.0, np.float32))
    assert (to_pixels(deep, (4, 4, 1))[0] == 255).all()
