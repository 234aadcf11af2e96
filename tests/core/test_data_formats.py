"""Data of any shape: colours, folders of pictures, CIFAR-10, torchvision's tensors."""

import gzip
import hashlib
import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import skip_without
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from paripassu.core import limits
from paripassu.core.datasets import ImageData, cifar, known, load, normalise, prepare
from paripassu.core.datasets.apart import set_apart
from paripassu.core.datasets.reading import piece_of
from paripassu.core.errors import UserError
from paripassu.core.experiment import read_data
from paripassu.core.networks import ARTICLE
from paripassu.core.recipe import Recipe, parse, validate

RANDOM = np.random.default_rng(7)
Pictures = dict[str, list[np.ndarray]]


def pixels(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, np.uint8)


def loaded(path: Path) -> ImageData:
    """A data set, which can be prepared: PyTorch wants memory that is writable."""
    data = load(path)
    prepared = prepare(data, mean=0.5, std=0.5)
    assert prepared.training.pixels.flags.writeable
    assert prepared.test.pixels.flags.writeable
    assert not data.train_images.flags.writeable
    return data


def refused(path: Path) -> str:
    """The message; it says what was expected, what came and what to type."""
    with pytest.raises(UserError) as caught:
        load(path)
    message = str(caught.value)
    assert "expected" in message or "cannot read" in message
    assert "--data " in message
    return message


def save(folder: Path, pictures: Pictures, mode: str | None = None) -> Path:
    for name, images in pictures.items():
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images):
            picture = Image.fromarray(image)
            picture = picture.convert(mode) if mode else picture
            picture.save(place / f"{number:03}.png")
    return folder


def some(count: int = 6, *, h: int = 9, w: int = 7) -> Pictures:
    return {name: list(pixels(count, h, w)) for name in ("bee", "ant")}


# Folders of pictures


def test_folders_of_pictures_for_training_and_test(tmp_path: Path) -> None:
    train, test = some(3), some(2)
    save(tmp_path / "train", train)
    save(tmp_path / "test", test)
    (tmp_path / "train" / "ant" / "Thumbs.db").touch()
    (tmp_path / "train" / "ant" / ".hidden.png").touch()
    data = loaded(tmp_path)
    assert (data.shape, data.classes, data.num_classes) == (
        (9, 7, 1),
        ("ant", "bee"),
        2,
    )
    assert (data.name, data.owner) == (tmp_path.name, "")
    assert data.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (data.train_images[..., 0] == [*train["ant"], *train["bee"]]).all()
    assert (data.test_images[..., 0] == [*test["ant"], *test["bee"]]).all()
    assert data.notes == ("1 file that is none beside the pictures were left out",)
    assert len(data.sha256) == 4
    assert not data.train_images.flags.writeable
    # Red: one pixel of one picture is another data set.
    train["bee"][1][3, 3] ^= 1
    save(tmp_path / "train", train)
    assert loaded(tmp_path).sha256 != data.sha256


def test_one_folder_is_split_the_same_way_each_time(tmp_path: Path) -> None:
    pictures = {"2": list(pixels(11, 4, 4)), "10": list(pixels(6, 4, 4)), "1": []}
    pictures["1"] = list(pixels(4, 4, 4))
    one = loaded(save(tmp_path / "one", pictures))
    assert one.classes == ("1", "2", "10")  # numbers by their size
    assert np.bincount(one.test_labels, minlength=3).tolist() == [0, 2, 1]
    assert len(one.train_labels) == 21 - 3
    assert "3 of 21, a fifth of each class, were set apart" in one.notes[0]
    other = loaded(save(tmp_path / "other", dict(reversed(pictures.items()))))
    assert one.sha256 == other.sha256
    both = np.concatenate([one.train_images, one.test_images])[..., 0]
    every = [x.tobytes() for images in pictures.values() for x in images]
    assert sorted(x.tobytes() for x in both) == sorted(every)


def test_pictures_in_colour(tmp_path: Path) -> None:
    grey, colour = pixels(5, 6, 6), pixels(5, 6, 6, 3)
    save(tmp_path, {"grey": list(grey), "colour": list(colour)})
    data = loaded(tmp_path)
    assert data.shape == (6, 6, 3)
    images = np.concatenate([data.train_images, data.test_images])
    labels = np.concatenate([data.train_labels, data.test_labels])
    came = {x.tobytes() for x in images[labels == 0]}
    assert came == {x.tobytes() for x in colour}
    came = {x.tobytes() for x in images[labels == 1]}
    assert came == {np.repeat(x[..., None], 3, 2).tobytes() for x in grey}


def test_folders_of_pictures_that_are_wrong(tmp_path: Path) -> None:
    mixed = {"a": list(pixels(6, 5, 5)), "b": [*pixels(5, 5, 5), pixels(5, 6)]}
    message = refused(save(tmp_path / "mixed", mixed))
    assert "pictures of one size, got 5 x 5 in" in message
    assert "and 6 x 5 in" in message
    assert "b/005.png" in message

    message = refused(save(tmp_path / "single", {"a": list(pixels(6, 5, 5))}))
    assert "each of two or more classes" in message
    assert "at least 5 images of a class" in refused(save(tmp_path / "few", some(4)))

    save(tmp_path / "apart" / "train", some(2))
    save(tmp_path / "apart" / "test", {"ant": list(pixels(2, 9, 7)), "cat": []})
    save(tmp_path / "apart" / "test", {"cat": list(pixels(2, 9, 7))})
    message = refused(tmp_path / "apart")
    assert "missing in test: bee; only in test: cat" in message

    save(tmp_path / "no-train" / "test", some(2))
    assert "a folder train beside test" in refused(tmp_path / "no-train")
    save(tmp_path / "two" / "train", some(2))
    save(tmp_path / "two" / "training", some(2))
    assert "got train and training" in refused(tmp_path / "two")

    folder = save(tmp_path / "damaged", some(6))
    (folder / "ant" / "002.png").write_bytes(b"\x89PNG and no more")
    assert "ant/002.png" in refused(folder)
    (folder / "ant" / "002.png").unlink()
    wide = Image.new("1", (4097, 1))
    wide.save(folder / "ant" / "000.png")
    assert "at most 4096 pixels a side" in refused(folder) or "one size" in refused(
        folder
    )


# .npz


def test_an_npz_of_one_set_is_split(tmp_path: Path) -> None:
    images, labels = pixels(30, 5, 4, 3), np.repeat([0, 1, 300], 10)
    np.savez(tmp_path / "a.npz", images=images, labels=labels[:, None])
    np.savez(tmp_path / "b.npz", x=images, y=labels.astype(np.uint16))
    data = loaded(tmp_path / "a.npz")
    assert (data.shape, data.num_classes) == ((5, 4, 3), 301)
    assert data.train_labels.dtype == np.uint16
    assert np.unique(data.test_labels, return_counts=True)[1].tolist() == [2, 2, 2]
    assert loaded(tmp_path / "b.npz").sha256 == data.sha256
    np.savez(tmp_path / "c.npz", images=images, labels=labels[:29])
    message = refused(tmp_path / "c.npz")
    assert "as many labels as images, got 30 images" in message
    assert "29 labels" in message


def test_an_npz_with_medmnists_names(tmp_path: Path) -> None:
    one = {"images": pixels(4, 3, 3), "labels": np.array([[0], [1], [1], [0]])}
    both = {f"{x}_{k}": v for x in ("train", "test", "val") for k, v in one.items()}
    np.savez(tmp_path / "blood.npz", **both)
    data = loaded(tmp_path)  # the only one in its folder
    assert (data.test_images[..., 0] == one["images"]).all()
    assert data.test_labels.tolist() == [0, 1, 1, 0]
    assert not data.notes
    del both["test_labels"]
    np.savez(tmp_path / "blood.npz", **both)
    assert "missing: test_labels" in refused(tmp_path)


def test_objects_in_an_npz_are_not_unpickled(tmp_path: Path) -> None:
    objects = np.empty(3, object)
    objects[:] = [b"x"] * 3
    np.savez(tmp_path / "x.npz", images=pixels(3, 2, 2), labels=objects)
    assert "pickled objects, which could run code" in refused(tmp_path / "x.npz")


# Promises


def test_a_promise_that_no_packed_file_can_keep_is_refused(tmp_path: Path) -> None:
    header = b"\0\0\x08\x03" + np.array([10**7, 4096, 4096], ">u4").tobytes()
    bomb = gzip.compress(header + bytes(1000))
    for name in ("train-images-idx3", "t10k-images-idx3"):
        (tmp_path / f"{name}-ubyte.gz").write_bytes(bomb)
    for name in ("train-labels-idx1", "t10k-labels-idx1"):
        content = b"\0\0\x08\x01\0\0\0\1\0"
        (tmp_path / f"{name}-ubyte.gz").write_bytes(gzip.compress(content))
    assert "and no file of" in refused(tmp_path)
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": (10**7, 4096, 4096)}
    )
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", stream.getvalue())
        archive.writestr("labels.npy", b"")
    assert "unpacks to so many" in refused(tmp_path / "x.npz")


def test_what_the_memory_cannot_hold_is_refused() -> None:
    limits.check_promise("x", 1032, 1, advice="")
    with pytest.raises(UserError, match="no file of 1 bytes unpacks to so many"):
        limits.check_promise("x", 1033, 1, advice="Fetch it again.")
    with pytest.raises(UserError, match="more than the memory holds"):
        limits.check_promise("x", 1 << 60, None, advice="Fetch it again.")


# CIFAR-10


def cifars(folder: Path, count: int = 4) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: pixels(count, cifar.RECORD) for name in cifar.FILES}
    for name, records in found.items():
        records[:, 0] %= 10
        (folder / name).write_bytes(records.tobytes())
    return found


def test_cifar_10_in_its_binary_version(tmp_path: Path) -> None:
    place = tmp_path / "cifar-10-batches-bin"
    records = cifars(place)
    for path in (tmp_path, place):
        data = loaded(path)
        assert (data.name, data.shape, data.num_classes) == (
            "cifar-10",
            (32, 32, 3),
            10,
        )
        assert data.classes[6] == "frog"
        assert data.owner == "CIFAR-10, by the names of its files, not by their sums"
        assert len(data.train_labels) == 20
    one = records["data_batch_2.bin"][3]
    assert data.train_labels[7] == one[0]
    # By the description: red, green and blue apart, each row by row.
    assert data.train_images[7, 5, 9].tolist() == [
        int(one[1 + channel * 1024 + 5 * 32 + 9]) for channel in range(3)
    ]


def test_cifar_10_that_is_wrong(tmp_path: Path) -> None:
    cifars(tmp_path)
    path = tmp_path / "test_batch.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert "are 3 images and 3072 bytes" in refused(tmp_path)
    path.write_bytes(b"\x0a" + content[1:])
    assert "labels 0..9, got 10 at index 0" in refused(tmp_path)
    path.unlink()
    assert "missing: test_batch.bin" in refused(tmp_path)
    assert "their folder: --data" in refused(tmp_path / "data_batch_1.bin")
    python = tmp_path / "cifar-10-batches-py"
    python.mkdir()
    (python / "data_batch_1").write_bytes(pickle.dumps({}))
    for name in cifar.FILES:
        (tmp_path / name).unlink(missing_ok=True)
    for place in (python, tmp_path):
        assert "pickles, which could run code when read: refused" in refused(place)


# torchvision's tensors


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("/tmp/never"),)


@skip_without("pytorch")
def test_tensors_of_old_torchvision(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "processed"
    folder.mkdir(parents=True)
    code = """
import sys, torch
folder, old = sys.argv[1], sys.argv[2] == "old"
for name, count in (("training", 5), ("test", 3)):
    images = torch.arange(count * 6, dtype=torch.uint8).reshape(count, 2, 3)
    pair = images, torch.arange(count)
    torch.save(pair, f"{folder}/{name}.pt", _use_new_zipfile_serialization=not old)
"""
    for form in ("old", "new"):
        subprocess.run([sys.executable, "-c", code, str(folder), form], check=True)
        data = loaded(tmp_path)
        assert (data.name, data.shape) == (tmp_path.name, (2, 3, 1))
        assert data.train_images.ravel().tolist() == list(range(30))
        assert data.test_labels.tolist() == [0, 1, 2]
    assert loaded(folder).name == "MNIST"
    (folder / "test.pt").write_bytes(pickle.dumps(Trap()))
    assert "cannot be read as images" in refused(folder)
    (folder / "test.pt").unlink()
    assert "missing: test.pt" in refused(folder)


# Whose files they are


def test_published_gz_files_are_recognised_by_their_md5(tmp_path: Path) -> None:
    sums = []
    for kind in ("train", "test"):
        for what, array in (
            ("images-idx3", pixels(4, 28, 28)),
            ("labels-idx1", [1] * 4),
        ):
            header = bytes([0, 0, 8, np.ndim(array)])
            header += np.array(np.shape(array), ">u4").tobytes()
            content = gzip.compress(header + np.array(array, np.uint8).tobytes())
            path = tmp_path / f"emnist-letters-{kind}-{what}-ubyte.gz"
            path.write_bytes(content)
            sums.append(hashlib.md5(content).hexdigest())
    assert "not by their sums" in load(tmp_path).owner
    before = known.PACKED["emnist-letters"]
    known.PACKED["emnist-letters"] = dict(zip(before, sums, strict=True))
    try:
        data = loaded(tmp_path)
    finally:
        known.PACKED["emnist-letters"] = before
    assert data.name == "emnist-letters"
    assert data.owner == (
        "EMNIST letters, recognised by the MD5 sums of its published .gz files"
    )


def test_known_sums_are_sums_and_no_two_are_alike() -> None:
    for table, digits in ((known.SUMS, 64), (known.PACKED, 32)):
        sums = [x for own in table.values() for x in own.values()]
        assert len(set(sums)) == len(sums) == 4 * len(table)
        assert all(len(x) == digits and int(x, 16) >= 0 for x in sums)
        assert set(table) <= set(known.TITLES)


# What fits a network


def made(shape: tuple[int, ...], labels: list[int]) -> ImageData:
    images, numbers = pixels(len(labels), *shape), np.array(labels, np.uint8)
    return ImageData("made", "here", {}, images, numbers, images, numbers)


def test_a_network_and_data_of_other_shape_or_classes() -> None:
    made((28, 28, 1), [0, 9]).check_fits(ARTICLE)
    made((28, 28, 1), [0, 1]).check_fits(ARTICLE)  # fewer classes are no fault
    with pytest.raises(UserError) as caught:
        made((32, 32, 3), [0, 9]).check_fits(ARTICLE)
    message = str(caught.value)
    assert "'article' takes images of 28 x 28 pixels, grey" in message
    assert "here has images of 32 x 32 pixels, in colour (3 channels)" in message
    assert "input_shape = [32, 32, 3]" in message
    with pytest.raises(UserError) as caught:
        made((28, 28, 1), [0, 46, 2]).check_fits(ARTICLE)
    message = str(caught.value)
    assert "answers 10 classes, and here has 47, by label 46 at index 1" in message
    assert "--data PATH" in message


def test_data_are_held_against_the_recipe_before_all(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=pixels(10, 32, 32, 3), labels=np.arange(10) % 2)
    with pytest.raises(UserError, match=r"input_shape = \[32, 32, 3\]"):
        read_data(Recipe(), tmp_path / "x.npz")


# Normalisation by channels

colours = arrays(
    np.uint8, st.tuples(st.integers(1, 4), st.just(3), st.just(2), st.just(3))
)
numbers = st.lists(st.floats(0.01, 1), min_size=3, max_size=3)


@given(colours, st.floats(0, 1) | numbers, st.floats(0.01, 1) | numbers)
def test_normalising_each_channel(images, mean, std) -> None:
    labels = np.zeros(len(images), np.uint8)
    data = ImageData("made", "here", {}, images, labels, images, labels)
    result = prepare(data, mean=mean, std=std)
    expected = ((images / 255 - np.array(mean)) / np.array(std)).astype(np.float32)
    np.testing.assert_array_equal(result.training.images, expected)
    np.testing.assert_array_equal(normalise(images, mean=mean, std=std), expected)
    assert (result.mean, result.std) == (mean, std)
    own = prepare(data, mean="computed", std=1.0).mean
    np.testing.assert_allclose(own, (images / 255).mean((0, 1, 2)), rtol=1e-12)


def test_constants_of_channels_are_checked() -> None:
    data = made((4, 4, 3), [0] * 9)
    own = prepare(data, mean="computed", std="computed")
    assert len(own.mean) == len(own.std) == 3
    assert own.warnings == []
    spread = own.training.images.std((0, 1, 2), dtype=np.float64)
    np.testing.assert_allclose(spread, 1, rtol=1e-5)
    [warning] = prepare(data, mean=own.mean, std=0.5).warnings
    assert "--set 'normalization.std=[0." in warning
    with pytest.raises(UserError, match="expected one number or 3, because here"):
        prepare(data, mean=[0.1, 0.2], std=0.5)


def test_a_recipe_says_constants_of_channels() -> None:
    table = {"mean": [0.5, 0.4, 0.3], "std": 0.25}
    recipe = validate({"normalization": table})
    assert parse(recipe.to_toml()) == recipe
    assert recipe.normalization.mean == [0.5, 0.4, 0.3]
    assert json.loads(recipe.model_dump_json())["normalization"] == table
    for bad in ([], [0.5, 2.0], ["x"], "mean"):
        with pytest.raises(UserError, match=r"normalization\.mean"):
            validate({"normalization": {"mean": bad}})


@given(st.lists(st.integers(0, 3), min_size=5, max_size=60))
def test_setting_apart_loses_nothing_and_is_a_fifth(labels: list[int]) -> None:
    array = np.array(labels, np.uint8)
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    pieces = {
        "train_images": piece_of("x", "train_images", images),
        "train_labels": piece_of("x", "train_labels", array),
    }
    counts = np.bincount(array, minlength=4)
    if counts.max() < 5:
        with pytest.raises(UserError, match="at least 5 images of a class"):
            set_apart(pieces)
        return
    found = set_apart(pieces).pieces
    test = found["test_labels"].array
    assert np.bincount(test, minlength=4).tolist() == (counts // 5).tolist()
    both = [found[f"{x}_images"].array.ravel() for x in ("train", "test")]
    assert sorted(np.concatenate(both).tolist()) == list(range(len(labels)))
    own = found["test_images"].array.ravel()
    assert (array[own] == test).all()
