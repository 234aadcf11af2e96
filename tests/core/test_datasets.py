"""Data sets: every way to give them, every way in which they can be wrong."""

import contextlib
import gzip
import io
import os
import pickle
import shutil
import struct
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from paripassu.core.datasets import (
    ImageData,
    Prepared,
    describe,
    idx,
    load,
    loading,
    npz,
    prepare,
    reading,
)
from paripassu.core.datasets.known import (
    BY_CONTENT,
    FASHION_MNIST,
    MNIST,
    recognise,
)
from paripassu.core.errors import UserError

SHIPPED = loading.PACKAGE_FOLDER
TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"

Arrays = dict[str, np.ndarray]


def encode(array: np.ndarray) -> bytes:
    """An IDX file, written here on purpose without the package's own header."""
    sizes = struct.pack(f">{array.ndim}i", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def some_arrays(train: int = 20, test: int = 10) -> Arrays:
    generator = np.random.default_rng(1)
    return {
        TRAIN_IMAGES: generator.integers(0, 256, (train, 28, 28), np.uint8),
        TRAIN_LABELS: generator.integers(0, 10, train, np.uint8),
        TEST_IMAGES: generator.integers(0, 256, (test, 28, 28), np.uint8),
        TEST_LABELS: generator.integers(0, 10, test, np.uint8),
    }


def fill(folder: Path, *, gz: bool = False, dotted: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in some_arrays().items():
        spelling = name.replace("-idx", ".idx") if dotted else name
        if gz:
            (folder / f"{spelling}.gz").write_bytes(gzip.compress(encode(array)))
        else:
            (folder / spelling).write_bytes(encode(array))
    return folder


def keras(**changes: np.ndarray) -> Arrays:
    names = dict(zip(some_arrays(), npz.KEYS.values(), strict=True))
    return {names[name]: x for name, x in some_arrays().items()} | changes


def is_some_arrays(data: ImageData) -> bool:
    came = (data.train_images, data.train_labels, data.test_images, data.test_labels)
    expected = [x[..., None] if x.ndim == 3 else x for x in some_arrays().values()]
    return all(np.array_equal(x, y) for x, y in zip(came, expected, strict=True))


def refused(path: Path | None) -> str:
    """The message of the `UserError`; each ends with what to type next."""
    with pytest.raises(UserError) as caught:
        load(path)
    message = str(caught.value)
    assert any(word in message for word in ("expected", "announces", "cannot read"))
    assert "--data " in message
    return message


def image_data(images: np.ndarray) -> ImageData:
    images = images[..., None] if images.ndim == 3 else images
    labels = (np.arange(len(images)) % 10).astype(np.uint8)
    return ImageData("made", "here", {}, images, labels, images[:1], labels[:1])


@pytest.fixture(scope="module")
def mnist() -> ImageData:
    return load()


@pytest.fixture(scope="module")
def prepared(mnist: ImageData) -> Prepared:
    return prepare(mnist, mean=0.1307, std=0.3081, validation_size=5000)


# The shipped MNIST


def test_the_shipped_mnist_is_mnist(mnist: ImageData) -> None:
    assert (mnist.name, mnist.source) == ("mnist", "package")
    assert list(mnist.sha256.values()) == list(MNIST.values())
    assert list(mnist.sha256) == [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS]
    assert mnist.train_images.shape == (60000, 28, 28, 1)
    assert mnist.test_images.shape == (10000, 28, 28, 1)
    assert mnist.train_images.dtype == mnist.train_labels.dtype == np.uint8
    assert not mnist.train_images.flags.writeable
    # Counts of each digit, and the first ten labels, as often published.
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.train_labels).tolist() == counts
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(mnist.test_labels).tolist() == counts
    assert mnist.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]


def test_the_shipped_mnist_has_the_published_mean_and_std(mnist: ImageData) -> None:
    computed = prepare(mnist, mean="computed", std="computed")
    assert round(computed.mean, 4) == 0.1307
    assert round(computed.std, 4) == 0.3081
    assert computed.mean == pytest.approx(mnist.train_images.mean() / 255, rel=1e-12)


def test_licence_and_sums_ship_with_the_files() -> None:
    for name in ("README", "LICENSE"):
        text = (SHIPPED / name).read_text()
        assert "Yann LeCun and Corinna Cortes" in text
        assert "CC BY-SA 3.0" in text
        assert "gzip -9 -n" in text
        assert all(sum_ in text for sum_ in MNIST.values())


@pytest.fixture
def package_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = Path(shutil.copytree(SHIPPED, tmp_path / "mnist"))
    monkeypatch.setattr(loading, "PACKAGE_FOLDER", copy)
    return copy


def change_a_pixel(path: Path) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] ^= 1
    path.write_bytes(gzip.compress(content, 1))


def change_the_gzip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [TEST_IMAGES, TEST_LABELS])
@pytest.mark.parametrize(
    "damage", [change_a_pixel, change_the_gzip, Path.unlink, lambda x: x.write_text("")]
)
def test_a_damaged_package_names_the_file_and_the_repair(
    package_copy: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(package_copy / f"{name}.gz")
    message = refused(None)
    assert message.startswith("the MNIST inside this package is damaged.")
    assert name in message
    assert "pip install --force-reinstall" in message


def test_an_undamaged_copy_of_the_package_loads(package_copy: Path) -> None:
    assert load().source == "package"
    data = load(package_copy)  # as a user's folder: recognised by its sums
    assert (data.name, data.source) == ("mnist", str(package_copy))


# Every way to give a data set


def fill_emnist(folder: Path, kind: str = "digits") -> Path:
    """The same images, transposed and named as EMNIST's files are."""
    folder.mkdir(exist_ok=True)
    for name, array in some_arrays().items():
        content = encode(array.swapaxes(1, 2) if array.ndim == 3 else array)
        own = f"emnist-{kind}-{name.replace('t10k', 'test')}.gz"
        (folder / own).write_bytes(gzip.compress(content, 1))
    return folder


def test_emnists_images_are_turned_upright(tmp_path: Path) -> None:
    data = load(fill_emnist(tmp_path / "raw"))
    assert data.name == "emnist-digits"
    assert (data.train_images[..., 0] == some_arrays()[TRAIN_IMAGES]).all()
    assert (data.test_images[..., 0] == some_arrays()[TEST_IMAGES]).all()
    assert data.owner == "EMNIST digits, by the names of its files, not by their sums"
    assert "emnist-digits-test-images-idx3-ubyte" in data.sha256
    assert not data.test_images.flags.writeable
    assert "transposed" in prepare(data, mean=0.5, std=0.5).warnings[0]
    (tmp_path / "raw" / "emnist-digits-test-labels-idx1-ubyte.gz").unlink()
    assert "missing: emnist-digits-test-labels-idx1-ubyte" in refused(tmp_path / "raw")


def test_emnists_sets_are_not_mixed(tmp_path: Path) -> None:
    fill_emnist(fill_emnist(tmp_path / "two"), "mnist")
    assert "got emnist-digits and emnist-mnist" in refused(tmp_path / "two")
    fill(fill_emnist(tmp_path / "both"))
    assert "emnist-digits and files without its name" in refused(tmp_path / "both")


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_a_folder_of_idx_files(tmp_path: Path, gz: bool, dotted: bool) -> None:
    data = load(fill(tmp_path / "digits", gz=gz, dotted=dotted))
    assert is_some_arrays(data)
    assert data.name == "digits"
    assert not any(name.endswith(".gz") for name in data.sha256)


@pytest.mark.parametrize("inside", ["MNIST/raw", "FashionMNIST/raw"])
def test_torchvisions_folders(tmp_path: Path, inside: str) -> None:
    fill(tmp_path / "root" / inside)
    fill(tmp_path / "root" / inside, gz=True)  # torchvision leaves these beside
    (tmp_path / "root" / inside / "unrelated.txt").touch()
    name = Path(inside).parts[0]
    for given_path, expected in [(name, name), (inside, name), ("", "root")]:
        data = load(tmp_path / "root" / given_path)
        assert is_some_arrays(data)
        assert data.name == expected


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_keras_npz(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "mnist.npz"
    save(path, **keras())
    for given_path in (path, tmp_path):
        data = load(given_path)
        assert is_some_arrays(data)
        assert list(data.sha256) == ["x_train", "y_train", "x_test", "y_test"]
    assert load(path).name == "mnist"
    shutil.move(path, tmp_path / "mine.npz")
    assert load(tmp_path / "mine.npz").name == "mine"


def test_an_npz_in_fortran_order_is_the_same_data(tmp_path: Path) -> None:
    array = some_arrays()[TRAIN_IMAGES]
    np.savez(tmp_path / "c.npz", **keras())
    np.savez(tmp_path / "f.npz", **keras(x_train=np.asfortranarray(array)))
    one, other = load(tmp_path / "c.npz"), load(tmp_path / "f.npz")
    assert is_some_arrays(other)
    assert one.sha256 == other.sha256


def test_an_npz_of_mnist_is_recognised(tmp_path: Path, mnist: ImageData) -> None:
    np.savez(
        tmp_path / "some.npz",
        x_train=mnist.train_images,
        y_train=mnist.train_labels,
        x_test=mnist.test_images,
        y_test=mnist.test_labels,
    )
    data = load(tmp_path / "some.npz")
    assert data.name == "mnist"
    assert data.owner == "MNIST, recognised by the SHA-256 sums of its files"


def piece(idx_sha256: str) -> reading.Piece:
    return reading.Piece("somewhere", "key", "", idx_sha256, np.zeros(1, np.uint8))


def test_data_sets_are_recognised_by_their_sums_alone() -> None:
    mnist = {role: piece(total) for role, total in MNIST.items()}
    fashion = {role: piece(total) for role, total in FASHION_MNIST.items()}
    assert recognise(mnist) == ("mnist", BY_CONTENT)
    assert recognise(fashion) == ("fashion-mnist", BY_CONTENT)
    assert recognise({**mnist, "test_labels": piece("another")}) is None
    with pytest.raises(UserError, match=r"mixture of data sets.*--data PATH"):
        recognise({**mnist, "train_labels": fashion["train_labels"]})


# Every way in which a folder can be wrong


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    assert "nowhere does not exist" in refused(tmp_path / "nowhere")


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "is an empty folder" in refused(tmp_path)


def test_a_folder_of_other_things(tmp_path: Path) -> None:
    for name in "abcdefg":
        (tmp_path / name).touch()
    assert "holds no data set" in refused(tmp_path)
    assert "got a, b, c, d, e, ..." in refused(tmp_path)


@pytest.mark.parametrize("name", some_arrays())
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    (fill(tmp_path) / name).unlink()
    assert f"missing: {name} (" in refused(tmp_path)


def test_a_folder_in_the_place_of_a_file_is_a_missing_file(tmp_path: Path) -> None:
    (fill(tmp_path) / TEST_LABELS).unlink()
    (tmp_path / TEST_LABELS).mkdir()
    assert f"missing: {TEST_LABELS} (" in refused(tmp_path)


def test_one_of_the_files_is_no_folder(tmp_path: Path) -> None:
    message = refused(fill(tmp_path) / TRAIN_LABELS)
    assert message.endswith(f"--data {tmp_path}.")


def test_neither_a_folder_nor_an_npz(tmp_path: Path) -> None:
    (tmp_path / "mnist.pkl.gz").touch()
    assert "got something else" in refused(tmp_path / "mnist.pkl.gz")
    os.mkfifo(tmp_path / "mnist.npz")  # would wait for ever if it were opened
    assert "got something else" in refused(tmp_path / "mnist.npz")


@pytest.mark.parametrize("second", ["MNIST/raw", "FashionMNIST/raw", "raw"])
def test_two_data_sets_in_one_folder(tmp_path: Path, second: str) -> None:
    fill(tmp_path)
    fill(tmp_path / second)
    assert "mixture" in refused(tmp_path)
    assert refused(tmp_path).endswith(f"--data {tmp_path / second}.")


def test_idx_files_and_an_npz_in_one_folder(tmp_path: Path) -> None:
    np.savez(fill(tmp_path) / "mnist.npz", **keras())
    assert "mixture" in refused(tmp_path)


def test_two_spellings_with_different_content(tmp_path: Path) -> None:
    fill(tmp_path)
    fill(tmp_path, gz=True)
    fill(tmp_path, dotted=True)
    assert is_some_arrays(load(tmp_path))
    labels = (some_arrays()[TEST_LABELS] + 1) % 10
    (tmp_path / f"{TEST_LABELS}.gz").write_bytes(gzip.compress(encode(labels)))
    assert f"{TEST_LABELS}.gz, got different bytes" in refused(tmp_path)


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    assert "cannot read" in refused(tmp_path / ("x" * 300))


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path, mode: str) -> None:
        raise PermissionError(13, f"Permission denied ({mode})")

    fill(tmp_path)
    monkeypatch.setattr(Path, "open", fail)
    assert f"cannot read {tmp_path / TRAIN_IMAGES}: Permission" in refused(tmp_path)


# Every way in which an IDX file can be wrong

IMAGES = encode(some_arrays()[TRAIN_IMAGES])
LABELS = encode(some_arrays()[TRAIN_LABELS])


def header(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


IDX_FAULTS = [
    (TRAIN_IMAGES, LABELS, "magic number 00 00 08 03 of IDX images, got 00 00 08 01"),
    (TRAIN_LABELS, IMAGES, "got 00 00 08 03, that of IDX images"),
    (TRAIN_IMAGES, b"\0\0\x0d\x03" + IMAGES[4:], "got 00 00 0d 03"),
    (TRAIN_IMAGES, b"<htm" + IMAGES, "got 3c 68 74 6d"),
    (TRAIN_IMAGES, b"", "got an empty file"),
    (TRAIN_IMAGES, gzip.compress(IMAGES), f"rename it to {TRAIN_IMAGES}.gz"),
    (TRAIN_IMAGES, IMAGES[:9], "is cut short: expected a header of 16 bytes, got 9"),
    (TRAIN_IMAGES, IMAGES[:-1], "is cut short: its header announces 20 items"),
    (TRAIN_LABELS, LABELS[:-1], "20 bytes, but the file has 19"),
    (TRAIN_LABELS, LABELS + b"\0", "has surplus bytes"),
    (TRAIN_IMAGES, IMAGES + b"\0", "has surplus bytes"),
    (TRAIN_IMAGES, encode(np.zeros((20, 32, 32), np.uint8)), "32 x 32 pixels, grey"),
    (TRAIN_IMAGES, encode(np.zeros((20, 28, 0), np.uint8)), "1 to 4096 pixels a side"),
    (TRAIN_IMAGES, header(0x803, 2, 4097, 28), "1 to 4096 pixels a side"),
    (TRAIN_IMAGES, encode(np.zeros((2, 3, 4, 4), np.uint8)), "transpose(0, 2, 3, 1)"),
    (
        TRAIN_IMAGES,
        encode(np.zeros((2, 4, 4, 2), np.uint8)),
        "or (N, h, w, 3) in colour",
    ),
    (
        TRAIN_IMAGES,
        encode(np.zeros((20, 28, 28, 3), np.uint8)),
        "in colour (3 channels)",
    ),
    (TRAIN_IMAGES, encode(np.zeros((0, 28, 28), np.uint8)), "at least 1 of the images"),
    (TEST_LABELS, encode(np.zeros(0, np.uint8)), "at least 1 of the labels, got 0"),
    (TRAIN_IMAGES, header(0x803, 10**7 + 1, 28, 28), "at most 10000000 images"),
    (TRAIN_LABELS, header(0x801, 2**32 - 1), "at most 10000000 labels"),
    (TRAIN_LABELS, encode(np.zeros(19, np.uint8)), "got 20 images in"),
    (TEST_LABELS, encode(np.zeros(11, np.uint8)), "and 11 labels in"),
]


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize(("name", "content", "message"), IDX_FAULTS)
def test_a_wrong_idx_file(
    tmp_path: Path, name: str, content: bytes, message: str, gz: bool
) -> None:
    fill(tmp_path, gz=gz)
    if gz:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    else:
        (tmp_path / name).write_bytes(content)
    came = refused(tmp_path)
    assert message in came
    assert name in came


# Without the time of day: it is part of the tests' names, which must not change.
SQUEEZED = gzip.compress(IMAGES, mtime=0)
GZIP_FAULTS = [
    (b"PK\3\4 and so on", "is not a gzip: expected it to begin with 1f 8b, got 50 4b"),
    (IMAGES, f"rename it to {TRAIN_IMAGES}, or"),
    (b"", "got an empty file: fetch it again, or"),
    (SQUEEZED[:5], "is cut short: expected the end of its compressed data"),
    (SQUEEZED[:-9], "is cut short: expected the end of its compressed data"),
    (SQUEEZED[:-1], "is cut short: expected the end of its compressed data"),
    (SQUEEZED[:-8] + b"\0\0\0\0" + SQUEEZED[-4:], "is damaged: expected complete"),
    (SQUEEZED[:-4] + b"\0\0\0\0", "is damaged: expected complete"),
    (SQUEEZED[:10] + b"\x07" + SQUEEZED[11:], "invalid block type"),
    (SQUEEZED + b"more", "is damaged: expected complete"),
    (SQUEEZED + SQUEEZED, "has surplus bytes"),
]


@pytest.mark.parametrize(("content", "message"), GZIP_FAULTS)
def test_a_wrong_gzip(tmp_path: Path, content: bytes, message: str) -> None:
    (fill(tmp_path, gz=True) / f"{TRAIN_IMAGES}.gz").write_bytes(content)
    came = refused(tmp_path)
    assert message in came
    assert f"{TRAIN_IMAGES}.gz" in came


def test_a_gzip_of_several_parts_is_a_gzip(tmp_path: Path) -> None:
    parts = gzip.compress(IMAGES[:100]) + gzip.compress(IMAGES[100:])
    (fill(tmp_path, gz=True) / f"{TRAIN_IMAGES}.gz").write_bytes(parts)
    assert is_some_arrays(load(tmp_path))


def peak_bytes(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_more_is_unpacked_than_promised(tmp_path: Path) -> None:
    bomb = header(0x803, 20, 28, 28) + bytes(64 << 20)
    (fill(tmp_path, gz=True) / f"{TRAIN_IMAGES}.gz").write_bytes(gzip.compress(bomb, 1))
    assert peak_bytes(lambda: refused(tmp_path)) < 4 << 20
    assert "has surplus bytes" in refused(tmp_path)


# Every way in which an .npz can be wrong


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


def write_npz(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


NPY = {key: npy(array) for key, array in keras().items()}


class Trap:
    """Fails the test if it is ever unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return pytest.fail, ("a pickle was read",)


LATER_NPY = NPY["x_train"].replace(b"\1\0\x76\0", b"\2\0\x76\0\0\0", 1)
NPZ_FAULTS = [
    ("x_train", npy(np.array([Trap()], object)), "could run code when read: refused"),
    ("x_train", pickle.dumps(Trap()), "is not a NumPy array"),
    ("x_train", b"", "is not a NumPy array"),
    ("x_train", NPY["x_train"].replace(b"{", b"(", 1), "is not a NumPy array"),
    ("x_train", LATER_NPY, "got format (2, 0)"),
    ("x_train", npy(np.zeros((20, 28, 28), np.float32)), "got float32"),
    ("x_train", npy(np.zeros((20, 28, 28), np.float32)), "(array * 255).round()"),
    ("y_train", npy(np.zeros(20, np.float32)), "whole numbers, got float32. Save it"),
    ("y_train", npy(np.array(["7"] * 20)), "whole numbers, got <U1"),
    ("y_train", npy(np.full(20, -1)), "labels 0..65535, got -1 at index 0"),
    ("y_train", npy(np.full(20, 65536)), "labels 0..65535, got 65536 at index 0"),
    ("x_train", npy(np.zeros((20, 784), np.uint8)), "got (20, 784)"),
    ("x_train", npy(np.zeros((20, 3, 28, 28), np.uint8)), "transpose(0, 2, 3, 1)"),
    ("x_train", npy(np.zeros((20, 27, 28), np.uint8)), "got 27 x 28 pixels, grey in"),
    ("y_train", npy(np.zeros((20, 10), np.uint8)), "(20, 10): take their numbers with"),
    ("y_train", npy(np.uint8(3)), "shape (N,), got ()"),
    ("x_test", npy(np.zeros((0, 28, 28), np.uint8)), "at least 1 of the images"),
    ("x_test", NPY["x_test"][:-1], "is cut short"),
    ("x_test", NPY["x_test"] + b"\0", "has surplus bytes"),
    ("y_test", npy(np.zeros(9, np.uint8)), "and 9 labels in"),
]


@pytest.mark.parametrize(("key", "content", "message"), NPZ_FAULTS)
def test_a_wrong_array_in_an_npz(
    tmp_path: Path, key: str, content: bytes, message: str
) -> None:
    write_npz(tmp_path / "mnist.npz", **{**NPY, key: content})
    came = refused(tmp_path / "mnist.npz")
    assert message in came
    assert f"mnist.npz: {key}" in came


def test_a_missing_array_in_an_npz(tmp_path: Path) -> None:
    write_npz(tmp_path / "mnist.npz", x_train=NPY["x_train"], images=b"")
    assert "missing: y_train, x_test, y_test; it holds: images, x_train" in refused(
        tmp_path / "mnist.npz"
    )


def test_a_file_that_is_no_zip_archive(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    for content in (b"", NPY["x_train"], pickle.dumps(Trap())):
        path.write_bytes(content)
        assert "is not a whole .npz: expected a zip archive" in refused(path)


def test_a_truncated_or_damaged_npz(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    np.savez(path, **keras())
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert "is not a whole .npz" in refused(path)
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    assert "x_train is damaged: expected complete compressed data" in refused(path)


def test_an_encrypted_npz(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    write_npz(path, **NPY)
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag of the first member, and of its entry at the end
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    assert "is encrypted" in refused(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_npz_whose_blocks_unpack_to_any_size_is_refused(
    tmp_path: Path, method: int
) -> None:
    path = tmp_path / "mnist.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in NPY.items():
            archive.writestr(f"{name}.npy", content + bytes(1 << 25))
    assert peak_bytes(lambda: refused(path)) < 4 << 20
    assert "is compressed otherwise than expected" in refused(path)


def test_no_more_is_unpacked_from_an_npz_than_promised(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    write_npz(path, **{**NPY, "x_train": NPY["x_train"] + bytes(64 << 20)})
    assert peak_bytes(lambda: refused(path)) < 4 << 20
    promise = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        promise, {"descr": "|u1", "fortran_order": False, "shape": (10**7 + 1, 28, 28)}
    )
    write_npz(path, **{**NPY, "x_train": promise.getvalue()})
    assert "at most 10000000 images" in refused(path)


# Any bytes at all

FUZZ = settings(deadline=None, max_examples=60)


def read_bytes(content: bytes, role: str, *, gz: bool = False) -> np.ndarray | None:
    """What `idx.read` makes of some bytes; None for a `UserError`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("x.gz" if gz else "x")
        path.write_bytes(content)
        try:
            return idx.read(path, role).array
        except UserError:
            return None


sides = st.integers(1, 30)
image_arrays = arrays(np.uint8, st.tuples(st.integers(1, 3), sides, sides))
label_arrays = arrays(np.uint8, st.integers(1, 50))


@given(st.one_of(image_arrays, label_arrays), st.booleans())
@FUZZ
def test_idx_files_come_back_as_they_went(array: np.ndarray, gz: bool) -> None:
    role = "train_images" if array.ndim == 3 else "train_labels"
    content = gzip.compress(encode(array)) if gz else encode(array)
    came = read_bytes(content, role, gz=gz)
    assert came is not None
    assert came.dtype == np.uint8
    if array.ndim == 3:
        came = came[..., 0]
    np.testing.assert_array_equal(came, array)
    assert encode(array)[: 4 + 4 * array.ndim] == reading.idx_header(array.shape)


@given(label_arrays, st.data())
@FUZZ
def test_a_cut_or_a_flip_in_the_header_is_noticed(
    array: np.ndarray, data: st.DataObject
) -> None:
    content = encode(array)
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    assert read_bytes(cut, "test_labels") is None
    flipped = bytearray(content)
    flipped[data.draw(st.integers(0, 7))] ^= data.draw(st.integers(1, 255))
    assert read_bytes(bytes(flipped), "test_labels") is None


@given(label_arrays, st.data())
@FUZZ
def test_a_cut_or_a_flip_in_a_gzip_never_gives_other_numbers(
    array: np.ndarray, data: st.DataObject
) -> None:
    content = gzip.compress(encode(array))
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    assert read_bytes(cut, "test_labels", gz=True) is None
    flipped = bytearray(content)
    flipped[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(
        st.integers(1, 255)
    )
    came = read_bytes(bytes(flipped), "test_labels", gz=True)
    assert came is None or np.array_equal(came, array)


@given(st.binary(max_size=200), st.sampled_from(["train_images", "train_labels"]))
@FUZZ
def test_any_bytes_are_read_or_refused(content: bytes, role: str) -> None:
    read_bytes(content, role)
    read_bytes(content, role, gz=True)
    read_bytes(b"\x1f\x8b\x08" + content, role, gz=True)
    read_bytes(b"\0\0\x08\1" + content, role)


@given(st.binary(max_size=60), st.integers(0, 2**16), st.integers(1, 255))
@FUZZ
def test_any_npz_is_read_or_refused(content: bytes, where: int, flip: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npz"
        write_npz(path, **NPY)
        flipped = bytearray(path.read_bytes())
        flipped[-where % len(flipped)] ^= flip  # half of the places: the directory
        members = {**NPY, "x_train": b"\x93NUMPY\1\0\x3c\0" + content.ljust(60)}
        for attempt in (content, bytes(flipped), flipped[-(where % 600) :]):
            path.write_bytes(attempt)
            with contextlib.suppress(UserError):
                npz.read(path)
        write_npz(path, **members)
        with contextlib.suppress(UserError):
            npz.read(path)


# Splitting and normalising


def test_the_validation_split(mnist: ImageData, prepared: Prepared) -> None:
    assert len(prepared.training.labels) == 55000
    assert len(prepared.validation.labels) == 5000
    assert prepared.test.images.shape == (10000, 28, 28, 1)

    again = prepare(mnist, mean=0.1307, std=0.3081, validation_size=5000)
    np.testing.assert_array_equal(again.validation.images, prepared.validation.images)
    # Every digit has its share: the choice is not a stretch of the file.
    share = np.bincount(prepared.validation.labels) / np.bincount(mnist.train_labels)
    assert share.min() > 0.06
    assert share.max() < 0.11


@given(st.integers(1, 300), st.data())
@FUZZ
def test_splits_share_no_image_and_lose_none(count: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, count - 1))
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
    result = prepare(image_data(images), mean=0.0, std=1.0, validation_size=size)

    def numbers(part: np.ndarray) -> list[int]:
        pixels = np.rint(part.astype(np.float64) * 255).astype(int)
        return (pixels[:, 0, 0, 0] + 256 * pixels[:, 0, 1, 0]).tolist()

    training = numbers(result.training.images)
    validation = numbers(result.validation.images)
    assert len(validation) == size
    assert sorted(training + validation) == list(range(count))
    assert training == sorted(training)
    assert validation == sorted(validation)
    assert result.training.labels.tolist() == [x % 10 for x in training]
    assert result.validation.labels.tolist() == [x % 10 for x in validation]


@pytest.mark.parametrize("size", [-1, 20, 21])
def test_a_validation_split_that_leaves_nothing(tmp_path: Path, size: int) -> None:
    data = load(fill(tmp_path))
    with pytest.raises(UserError, match=f"^validation_size: expected 0 to 19.*{size}"):
        prepare(data, mean=0.5, std=0.5, validation_size=size)


def test_normalising_is_the_closed_form(mnist: ImageData, prepared: Prepared) -> None:
    assert prepared.test.images.dtype == np.float32
    assert prepared.test.labels.dtype == np.int64
    pixels = mnist.test_images.astype(np.float64)
    expected = ((pixels / 255 - 0.1307) / 0.3081).astype(np.float32)
    np.testing.assert_array_equal(prepared.test.images, expected)
    np.testing.assert_array_equal(prepared.test.labels, mnist.test_labels)


@given(image_arrays, st.floats(0, 1), st.floats(0.01, 1))
@FUZZ
def test_normalising_any_pixels(images: np.ndarray, mean: float, std: float) -> None:
    result = prepare(image_data(images), mean=mean, std=std)
    expected = ((images / 255 - mean) / std).astype(np.float32)
    np.testing.assert_array_equal(result.training.images[..., 0], expected)
    assert (result.mean, result.std) == (mean, std)


@given(image_arrays.filter(lambda x: x.min() < x.max()))
@FUZZ
def test_computed_constants(images: np.ndarray) -> None:
    result = prepare(image_data(images), mean="computed", std="computed")
    assert result.mean == pytest.approx(np.mean(images / 255), rel=1e-12)
    assert result.std == pytest.approx(np.std(images / 255), rel=1e-12)
    assert result.warnings == []
    assert result.training.images.mean(dtype=np.float64) == pytest.approx(0, abs=1e-5)
    assert result.training.images.std(dtype=np.float64) == pytest.approx(1, abs=1e-5)


def test_constants_are_computed_without_the_validation_split(tmp_path: Path) -> None:
    data = load(fill(tmp_path))
    whole = prepare(data, mean="computed", std="computed")
    split = prepare(data, mean="computed", std="computed", validation_size=7)
    pixels = split.training.images.astype(np.float64) * split.std + split.mean
    assert split.mean == pytest.approx(pixels.mean(), rel=1e-6)
    assert split.std == pytest.approx(pixels.std(), rel=1e-6)
    assert split.mean != whole.mean


@pytest.mark.parametrize(
    ("mean", "std", "warned"),
    [
        (0.0, 0.0, False),
        (0.0004, -0.0004, False),
        (0.0006, 0.0, True),
        (-0.0006, 0.0, True),
        (0.0, 0.0006, True),
        (0.0, -0.0006, True),
        ("computed", 0.0004, False),
        ("computed", 0.0006, True),
        (0.0006, "computed", True),
    ],
)
def test_given_constants_are_checked(
    mnist: ImageData,
    mean: float | Literal["computed"],
    std: float | Literal["computed"],
    warned: bool,
) -> None:
    part = image_data(mnist.train_images[:500])
    own = prepare(part, mean="computed", std="computed")
    warnings = prepare(
        part,
        mean=mean if mean == "computed" else own.mean + mean,
        std=std if std == "computed" else own.std + std,
    ).warnings
    assert len(warnings) == warned
    for warning in warnings:
        assert f"the training images have {own.mean:.4g} and {own.std:.4g}" in warning
        assert warning.endswith(
            f"type --set normalization.mean={own.mean:.4g} "
            f"--set normalization.std={own.std:.4g}."
        )


def test_the_warning_of_other_constants_names_both(mnist: ImageData) -> None:
    [warning] = prepare(mnist, mean=0.2860, std=0.3530).warnings
    assert "mean 0.286 and standard deviation 0.353" in warning
    assert "--set normalization.mean=0.1307 --set normalization.std=0.3081" in warning


def test_images_without_contrast() -> None:
    grey = image_data(np.full((3, 28, 28), 7, np.uint8))
    with pytest.raises(UserError, match=r"standard deviation.*all equal.*--data PATH"):
        prepare(grey, mean=0.1, std="computed")
    [warning] = prepare(grey, mean=0.1, std=0.5).warnings
    assert "all pixels are equal" in warning


def test_the_record_says_what_was_trained_on(
    mnist: ImageData, prepared: Prepared
) -> None:
    described = describe(mnist, prepared)
    assert described.name == "mnist"
    assert described.source == "package"
    assert described.sha256 == mnist.sha256
    assert (described.train_size, described.validation_size) == (55000, 5000)
    assert described.test_size == 10000
    assert (described.mean, described.std) == (0.1307, 0.3081)
    assert described.warnings == prepared.warnings == []
