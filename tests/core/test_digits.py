"""Any picture of a digit comes out as MNIST would have it, and any other is told."""

from __future__ import annotations

import io
import os
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pictures import coloured, drawn, png_header
from PIL import Image, ImageCms, ImageDraw, ImageFilter, ImageOps

from paripassu.core import digits
from paripassu.core.digits import PictureError, read_picture, to_digit

PATIENT = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60
)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def digit_of(source: Image.Image | bytes | np.ndarray) -> np.ndarray:
    if isinstance(source, bytes):
        source = read_picture(source)
    elif isinstance(source, np.ndarray):
        source = Image.fromarray(source)
    digit = to_digit(source)
    assert digit is not None
    return digit.image


def centre_of(image: np.ndarray) -> np.ndarray:
    weights = image.astype(np.float64)
    places = np.indices(image.shape)
    return (places * weights).sum(axis=(1, 2)) / weights.sum()


def difference(left: np.ndarray, right: np.ndarray) -> float:
    """Mean over the pixels, 0..255."""
    return float(np.abs(left.astype(float) - right.astype(float)).mean())


def check_form(image: np.ndarray) -> None:
    assert image.dtype == np.uint8
    assert image.shape == (28, 28)
    assert image.max() >= 250
    # Half a pixel, and what rounding to 255ths moves it.
    assert np.abs(centre_of(image) - 14).max() <= 0.56
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    assert rows[-1] - rows[0] < 20
    assert columns[-1] - columns[0] < 20


# What MNIST has


def test_each_image_of_mnist_stays_as_it_is(mnist):
    for image in mnist.test_images[..., 0][:1500]:
        assert (digit_of(image) == image).all()
        assert (digit_of(255 - image) == image).all()


def test_hardly_an_image_of_mnist_is_in_doubt(mnist):
    found = [
        to_digit(Image.fromarray(image)) for image in mnist.test_images[..., 0][:3000]
    ]
    assert sum(bool(digit.doubts) for digit in found) <= 3


def test_the_centre_is_where_mnist_has_it(mnist):
    centres = np.array(
        [centre_of(image) for image in mnist.train_images[..., 0][:3000]]
    )
    assert np.abs(centres.mean(axis=0) - digits.CENTRE).max() < 0.05
    assert np.abs(centres - digits.CENTRE).max() < 0.51


@pytest.mark.slow
def test_all_70000_images_stay_as_they_are(mnist):
    doubtful = 0
    for image in np.concatenate(
        [mnist.train_images[..., 0], mnist.test_images[..., 0]]
    ):
        digit = to_digit(Image.fromarray(image))
        assert (digit.image == image).all()
        doubtful += bool(digit.doubts)
    assert doubtful <= 20


# What must make no difference


@PATIENT
@given(
    index=st.integers(0, 9999),
    size=st.integers(20, 120),
    place=st.tuples(st.integers(0, 80), st.integers(0, 80)),
)
def test_place_makes_no_difference(mnist, index, size, place):
    image = Image.fromarray(mnist.test_images[..., 0][index]).resize((size, size))
    canvases = []
    for x, y in ((3, 3), place):
        canvas = Image.new("L", (210, 210), 0)
        canvas.paste(image, (x, y))
        canvases.append(canvas)
    assert (digit_of(canvases[0]) == digit_of(canvases[1])).all()


@PATIENT
@given(index=st.integers(0, 9999), factor=st.integers(2, 12))
def test_scale_makes_hardly_a_difference(mnist, index, factor):
    image = mnist.test_images[..., 0][index]
    larger = np.kron(image, np.ones((factor, factor), np.uint8))
    assert difference(digit_of(larger), image) < 25  # a row more or less, at most


def test_scale_makes_less_than_three_levels_of_difference(mnist):
    sharp, soft = [], []
    for number, image in enumerate(mnist.test_images[..., 0][:300]):
        larger = np.kron(image, np.ones((3, 3), np.uint8))
        sharp.append(difference(digit_of(larger), image))
        size = (24 + number,) * 2
        larger = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
        soft.append(difference(digit_of(larger), image))
    assert np.median(sharp) < 3
    assert np.median(soft) < 7


@PATIENT
@given(
    picture=hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=60)
    )
)
def test_inversion_makes_no_difference(picture):
    found, other = (
        to_digit(Image.fromarray(picture)),
        to_digit(Image.fromarray(255 - picture)),
    )
    assert (found is None) == (other is None)
    if found:
        assert (found.image == other.image).all()
        assert found.doubts == other.doubts


def test_paper_and_ink_of_any_shade_make_hardly_a_difference(mnist):
    found = []
    for image in mnist.test_images[..., 0][:100]:
        clean = Image.fromarray(image).resize((90, 90), Image.Resampling.BICUBIC)
        dull = np.rint(np.asarray(clean) * 0.4 + 70).astype(np.uint8)
        for picture in (dull, 255 - dull):
            found.append(difference(digit_of(clean), digit_of(picture)))
    assert np.median(found) < 1
    assert max(found) < 20  # a row more or less


# Whatever comes


@st.composite
def pictures(draw) -> np.ndarray:
    """Noise, or some rectangles of ink on paper, of any size."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=120))
    if draw(st.booleans()):
        return draw(hnp.arrays(np.uint8, shape))
    picture = np.full(shape, draw(st.integers(0, 255)), np.uint8)
    for _ in range(draw(st.integers(1, 4))):
        top, left = (
            draw(st.integers(0, shape[0] - 1)),
            draw(st.integers(0, shape[1] - 1)),
        )
        bottom, right = (
            draw(st.integers(top, shape[0])),
            draw(st.integers(left, shape[1])),
        )
        picture[top:bottom, left:right] = draw(st.integers(0, 255))
    return picture


@settings(PATIENT, max_examples=200)
@given(picture=pictures())
def test_any_grey_picture_has_the_form_or_no_ink(picture):
    digit = to_digit(Image.fromarray(picture))
    if digit is not None:
        check_form(digit.image)
        assert 0 < digit.ink_share <= 1
        assert 0 <= digit.apart <= 0.5
        assert 0 <= digit.crossed <= 1


MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "TIFF": (
        "1",
        "L",
        "LA",
        "P",
        "RGB",
        "RGBA",
        "CMYK",
        "YCbCr",
        "LAB",
        "I",
        "I;16",
        "F",
    ),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("1", "L", "P", "RGB", "RGBA"),
    "JPEG": ("1", "L", "RGB", "CMYK", "YCbCr"),
}
EACH_MODE = [(kind, mode) for kind, modes in MODES.items() for mode in modes]


def in_mode(picture: Image.Image, mode: str) -> Image.Image:
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        transform = ImageCms.buildTransform(*profiles, "RGB", "LAB")
        return ImageCms.applyTransform(picture.convert("RGB"), transform)
    if mode == "I;16":
        return Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(np.asarray(picture).astype(np.int32) * 70_000 - 9)
    if mode == "F":
        return Image.fromarray(np.asarray(picture).astype(np.float32) / 1000 - 5)
    if mode == "CMYK":
        return picture.convert("RGB").convert(mode)
    return picture.convert(mode)


@PATIENT
@given(picture=pictures(), which=st.sampled_from(EACH_MODE))
def test_any_file_has_the_form_or_no_ink(picture, which):
    kind, mode = which
    content = saved(in_mode(Image.fromarray(picture), mode), kind)
    digit = to_digit(read_picture(content))
    if digit is not None:
        check_form(digit.image)


@pytest.mark.parametrize(("kind", "mode"), EACH_MODE)
def test_each_type_and_mode_gives_the_same_digit(kind, mode):
    grey = drawn()
    expected = digit_of(grey)
    for picture in (grey, ImageOps.invert(grey)):
        found = digit_of(saved(in_mode(picture, mode), kind))
        assert difference(found, expected) < (3 if kind == "JPEG" else 1.5)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(kind, orientation):
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # stored turned left: to be turned right
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = drawn().crop((0, 0, 200, 180))
    stored = upright.transpose(turns[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read_picture(saved(stored, kind, exif=exif))
    assert picture.size == upright.size
    assert difference(digit_of(picture), digit_of(upright)) < 2


def test_damaged_exif_data_do_not_spoil_a_sound_picture():
    content = saved(drawn(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert digit_of(content).any()


@pytest.mark.parametrize("ink", ["black", "white", "yellow", "blue"])
def test_ink_on_nothing_is_found(ink):
    picture = drawn(paper=(0, 0, 0, 0), ink=ink, mode="RGBA")
    assert difference(digit_of(saved(picture, "PNG")), digit_of(drawn())) < 1


@pytest.mark.parametrize(
    ("paper", "ink"), [("white", "black"), ("#202050", "white"), ("yellow", "navy")]
)
def test_a_card_with_transparent_corners_is_paper(paper, ink):
    picture = drawn(paper=paper, ink=ink, mode="RGBA")
    corner = Image.new("L", (400, 400), 0)
    corner.paste(255, (20, 20, 380, 380))
    mask = corner.filter(ImageFilter.GaussianBlur(12)).point(lambda x: 255 * (x > 127))
    card = Image.new("RGBA", (400, 400))
    card.paste(picture.resize((400, 400)), mask=mask)
    assert difference(digit_of(saved(card, "PNG")), digit_of(drawn())) < 2


def test_transparency_of_a_palette_and_of_a_grey_value():
    for picture in (drawn(paper=255, ink=40).convert("P"), drawn(paper=255, ink=40)):
        content = saved(picture, "PNG", transparency=255)
        assert difference(digit_of(content), digit_of(drawn())) < 1


def test_nothing_visible_is_no_ink():
    assert to_digit(read_picture(saved(Image.new("RGBA", (50, 50)), "PNG"))) is None


@pytest.mark.parametrize(
    ("paper", "ink"),
    [("white", "yellow"), ("black", "blue"), ((0, 130, 0), (255, 0, 0))],
)
def test_coloured_ink_is_seen_where_grey_would_not_show_it(paper, ink):
    picture = drawn(paper=paper, ink=ink, mode="RGB")
    assert difference(digit_of(picture), digit_of(drawn())) < 1


def test_numbers_that_are_not_finite_are_nothing():
    values = 10 - np.asarray(drawn(width=20)).astype(np.float32) / 1e6
    values[0, 0], values[3, 4], values[9, 9] = np.nan, np.inf, -np.inf
    values -= 10
    found = digit_of(saved(Image.fromarray(values), "TIFF"))
    check_form(found)
    extreme = np.where(np.asarray(drawn()) > 0, -3e38, 3e38).astype(np.float32)
    assert (
        difference(digit_of(saved(Image.fromarray(extreme), "TIFF")), digit_of(drawn()))
        < 1
    )


def test_the_first_frame_counts():
    five = drawn()
    for kind in ("GIF", "TIFF", "PNG"):
        content = saved(five, kind, save_all=True, append_images=[ImageOps.flip(five)])
        assert difference(digit_of(content), digit_of(five)) < 1


# Paper, light and dust


def photograph(seed: int, ink: float = 110, noise: float = 4) -> np.ndarray:
    """A five on paper under a lamp that stands to one side."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(-1, 1, 300), np.linspace(-1, 1, 400), indexing="ij")
    light = 200 + 30 * y - 25 * x - 15 * (x * x + y * y) + rng.normal(0, noise, x.shape)
    five = np.zeros((300, 400))
    five[60:260, 90:290] = 1 - np.asarray(drawn()) / 255
    return np.clip(light - ink * five, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_uneven_light_is_taken_away(seed):
    expected = digit_of(drawn())
    picture = photograph(seed)
    assert difference(digit_of(picture), expected) < 6
    assert difference(digit_of(255 - picture), expected) < 6
    colour = coloured(Image.fromarray(picture), np.random.default_rng(seed))
    assert difference(digit_of(saved(colour, "JPEG", quality=90)), expected) < 12


def test_dust_does_not_stretch_the_box():
    picture = drawn()
    for place in ((5, 5), (190, 8), (10, 185)):
        picture.paste(0, (*place, place[0] + 3, place[1] + 3))
    assert difference(digit_of(picture), digit_of(drawn())) < 1


def test_a_thin_pen_is_not_faint():
    assert digit_of(drawn(size=400, width=3)).max() == 255


def test_a_digit_cut_out_to_its_edges_keeps_its_colours(mnist):
    wrong = 0
    for image in mnist.test_images[..., 0][:1000]:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        wrong += difference(digit_of(cut), image) > 20
    assert wrong <= 5


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [28, 60, 300])
def test_paper_with_nothing_on_it_has_no_ink(size, seed):
    rng = np.random.default_rng(seed)
    noisy = np.clip(rng.normal(190, 9, (size, size)), 0, 255).astype(np.uint8)
    for picture in (
        noisy,
        np.full((size, size), 200, np.uint8),
        photograph(seed, ink=0),
    ):
        assert to_digit(Image.fromarray(picture)) is None
    mild = drawn(size=size, paper=200, ink=200 - 20)
    assert to_digit(mild) is None
    assert to_digit(drawn(size=size, paper=200, ink=160)) is not None


def test_a_single_pixel_and_a_single_line():
    assert to_digit(Image.new("L", (1, 1), 9)) is None
    for size in ((1, 50), (50, 1), (2, 3)):
        assert to_digit(Image.new("RGB", size, "red")) is None
    line = np.zeros((1, 60), np.uint8)
    line[0, 20:40] = 255
    check_form(digit_of(line))
    one = np.zeros((40, 40), np.uint8)
    one[7, 31] = 255
    check_form(digit_of(one))


def test_what_would_stick_out_is_scaled_smaller():
    picture = np.zeros((100, 100), np.uint8)
    picture[20:80, 20:32] = 255  # all weight on one side,
    picture[49:51, 20:80] = 60  # and a long faint arm on the other
    check_form(digit_of(picture))


# Doubts


def doubts_of(picture: Image.Image) -> set[str]:
    digit = to_digit(picture)
    assert digit is not None
    return set(digit.doubts)


def test_each_measure_of_doubt_speaks():
    assert doubts_of(drawn()) == set()
    assert doubts_of(drawn(paper=0, ink=255)) == set()
    card = Image.new("L", (300, 300), 60)
    card.paste(250, (80, 80, 220, 220))
    assert "ink" in doubts_of(card)
    wide = drawn(points=((0.1, 0.5), (0.9, 0.55)))
    assert "width" in doubts_of(wide)
    pair = Image.new("L", (400, 200), 255)
    pair.paste(drawn(), (0, 0))
    pair.paste(drawn(), (200, 0))
    assert "parts" in doubts_of(pair)
    crossing = drawn(points=((0.0, 0.0), (0.0, 1.0), (0.5, 0.5)), width=10)
    assert "border" in doubts_of(crossing)
    pole = Image.new("L", (100, 400), 255)
    pole.paste(0, (45, 20, 65, 380))
    assert "height" in doubts_of(pole)
    text = Image.new("L", (300, 300), 255)
    ImageDraw.Draw(text).text(
        (30, 30), "a page of\nwords is\nno digit", 0, font_size=40
    )
    assert "scattered" in doubts_of(text)


@pytest.mark.parametrize("name", ["tests/core/web-page.png", "docs/serve.png"])
def test_a_screenshot_of_a_web_page_is_in_doubt(name):
    picture = Path(__file__).parents[2] / name
    assert doubts_of(digits.read_picture(picture))


# Files that are none


@pytest.mark.parametrize("kind", digits.FORMATS)
def test_a_truncated_file_is_refused(kind):
    content = saved(drawn().convert("RGB"), kind)
    for share in (0.2, 0.5, 0.8):
        with pytest.raises(PictureError):
            read_picture(content[: int(len(content) * share)])


@pytest.mark.parametrize("kind", digits.FORMATS)
def test_flipped_bytes_are_refused_or_read_but_nothing_else(kind):
    rng = np.random.default_rng(5)
    content = saved(drawn(size=60).convert("RGB"), kind)
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, len(damaged), 5):
            damaged[place] = int(rng.integers(0, 256))
        try:
            picture = read_picture(bytes(damaged))
        except PictureError:
            continue
        assert picture.mode in ("L", "RGB", "F")
        to_digit(picture)


@pytest.mark.parametrize(
    ("width", "height", "came"),
    [
        (8001, 8000, "8001 x 8000 = 64,008,000"),
        (10_000, 10_000, "10000 x 10000 = 100,000,000"),  # pillow only warns
        (20_000, 20_000, "more"),  # pillow refuses
        (2**31 - 1, 1, "more"),
    ],
)
def test_too_many_pixels_are_refused_before_decoding(width, height, came):
    start = time.perf_counter()
    with pytest.raises(PictureError, match="at most 64,000,000 pixels") as caught:
        read_picture(png_header(width, height))
    assert came in str(caught.value)
    assert time.perf_counter() - start < 1


def test_a_picture_of_many_pixels_is_made_smaller_first():
    picture = read_picture(saved(drawn(size=5000, width=400), "PNG", compress_level=1))
    assert max(picture.size) <= digits.LONGEST
    assert difference(digit_of(picture), digit_of(drawn())) < 4
    deep = drawn(size=5000, width=400, mode="I;16", paper=65535)
    small = read_picture(saved(deep, "TIFF"))
    assert max(small.size) <= digits.LONGEST
    assert difference(digit_of(small), digit_of(drawn())) < 4


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (
            b"not an image at all\n",
            "not a picture: expected PNG, JPEG, BMP, GIF or TIFF",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (png_header(50, 50), "truncated"),
        (saved(drawn(), "WEBP"), "not a picture"),
        (saved(drawn(), "PPM"), "not a picture"),
    ],
)
def test_what_is_no_picture_is_told(content, reason):
    with pytest.raises(PictureError, match=reason):
        read_picture(content)


def test_paths_that_cannot_be_read_are_told(tmp_path):
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "large.png").touch()
    os.truncate(tmp_path / "large.png", digits.MAX_BYTES + 1)
    for name, reason in {
        "missing.png": "no such file",
        "loop.png": "too many levels of symbolic links",
        "pipe.png": "not a regular file",
        ".": "not a regular file",
        "large.png": "at most 512,000,000 bytes",
    }.items():
        with pytest.raises(PictureError, match=reason):
            read_picture(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_told(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(saved(drawn(), "PNG"))
    path.chmod(0)
    with pytest.raises(PictureError, match="permission denied"):
        read_picture(path)


def test_warnings_of_pillow_do_not_leak_from_any_thread(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png_header(10_000, 10_000))
    before = list(warnings.filters)
    leaked: list[str] = []

    def read() -> None:
        for _ in range(30):
            try:
                read_picture(path)
            except PictureError as error:
                if "too large" not in str(error):
                    leaked.append(str(error))
            except Warning as warning:
                leaked.append(str(warning))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not leaked
    assert warnings.filters == before


def test_reading_leaves_no_file_open(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(saved(drawn(), "PNG"))
    before = os.listdir("/proc/self/fd") if Path("/proc/self/fd").exists() else []
    for _ in range(20):
        read_picture(path)
    after = os.listdir("/proc/self/fd") if Path("/proc/self/fd").exists() else []
    assert len(after) <= len(before)


def test_the_scaling_does_not_depend_on_ink_elsewhere():
    """A speck near the border of a large page leaves the digit as it is."""
    page = Image.new("L", (900, 900), 255)
    page.paste(drawn(), (300, 500))
    without = digit_of(page)
    page.paste(0, (870, 20, 874, 24))
    assert difference(digit_of(page), without) < 1
