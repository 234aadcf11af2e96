"""`paripassu predict`: many pictures in, an answer or a reason for each, in order."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers import (
    Running,
    hide_module,
    needs_both,
    run_paripassu,
    skip_without,
    start_weights,
    type_here,
    wait_for,
)
from pictures import drawn, export, png_header
from PIL import Image

from paripassu.conversion.model_source import ModelSource, read_source
from paripassu.core import files
from paripassu.core.digits import MAX_PIXELS
from paripassu.core.errors import UserError
from paripassu.core.recipe import load
from paripassu.prediction.answering import Answerer
from paripassu.prediction.contact_sheet import GAP, LINE, SIDE, SIZE, TIMES, write_sheet
from paripassu.prediction.decoding import AHEAD, CHUNK, Decoders
from paripassu.prediction.predict import Found, Prediction, ask_which, gather
from paripassu.prediction.predict import _unsure as unsure
from paripassu.terminal import prediction

needs_pytorch = skip_without("pytorch")


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> Path:
    """A file with the initial weights of a recipe: it answers, if wrongly."""
    recipe = load("article")
    path = tmp_path_factory.mktemp("untrained") / "start.safetensors"
    files.write_tensors(path, start_weights(recipe), {"recipe": recipe.to_toml()})
    return path


@pytest.fixture
def folder(tmp_path, mnist) -> Path:
    """Six pictures, by their names 0 to 5."""
    path = tmp_path / "pictures"
    path.mkdir()
    for number in range(6):
        Image.fromarray(mnist.test_images[..., 0][number]).save(path / f"{number}.png")
    return path


def paths_of(found: list[Found]) -> list[str]:
    return [x.path for x in found]


# Which pictures


def test_a_folder_is_read_below_and_sorted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.png", "b/10.JPG", "a.tif", "b/c/1.gif", "z.bmp", "b/notes.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    for name in (".hidden.png", ".git/x.png", "b/._2.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    found, skipped = gather(["."])
    expected = ["./a.tif", "./b/10.JPG", "./b/2.png", "./b/c/1.gif", "./z.bmp"]
    assert paths_of(found) == expected
    assert skipped == 1
    assert not any(x.problem for x in found)


def test_arguments_keep_their_order_and_may_repeat(folder):
    names = [str(folder / "3.png"), str(folder), str(folder / "3.png")]
    found, _ = gather(names)
    assert [Path(x).name[0] for x in paths_of(found)] == list("30123453")


def test_patterns(folder, monkeypatch):
    (folder / "deep" / "er").mkdir(parents=True)
    shutil.copy(folder / "0.png", folder / "deep" / "er" / "7.png")
    (folder / ".secret").mkdir()
    shutil.copy(folder / "0.png", folder / ".secret" / "8.png")
    (folder / "[odd].png").write_bytes((folder / "0.png").read_bytes())
    monkeypatch.chdir(folder.parent)
    for pattern, names in {
        "pictures/[1-3].png": ["1", "2", "3"],
        "pictures/?.png": list("012345"),
        "pictures/**/*.png": ["0", "1", "2", "3", "4", "5", "[odd]", "7"],
        f"{folder}/deep/**/*.png": ["7"],
        "pictures/de*": ["7"],  # only a folder matches: what is in it
        "pictures/[odd].png": ["[odd]"],  # a file of that very name
        "pictures/.sec*/*.png": [],
    }.items():
        found, _ = gather([pattern, "pictures/0.png"])
        *matched, _last = found
        stems = [Path(x.path).stem for x in matched if not x.problem]
        assert sorted(stems) == sorted(names), pattern


def test_links_in_a_circle_end(folder):
    for number in range(6):  # each doubles the ways
        (folder / f"again{number}").symlink_to(folder, target_is_directory=True)
    (folder / "self.png").symlink_to(folder / "self.png")
    start = time.monotonic()
    found, _ = gather([str(folder)])
    assert len(found) == 7
    assert len(gather([f"{folder}/**/*.png"])[0]) == 7
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.png", "it does not exist"),
        ("*.png", "nothing matches this pattern"),
        ("**.png", "not a pattern that can be used"),
        ("empty", "no picture in this folder: expected files that end in .bmp, .gif"),
    ],
)
def test_no_picture_at_all_is_an_error_that_says_why(
    tmp_path, monkeypatch, name, reason
):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("empty/readme.txt").touch()
    with pytest.raises(UserError, match="no picture to answer") as caught:
        gather([name])
    assert reason in str(caught.value)
    Image.new("L", (9, 9)).save("there.jpg")
    found, _ = gather([name, "there.jpg"])
    assert len(found) == 2
    assert reason in str(found[0].problem)


# Reading them


def test_pictures_are_read_in_order_and_the_bad_are_told(folder, mnist):
    (folder / "bad.png").write_text("no picture")
    Image.new("L", (30, 30), 9).save(folder / "blank.png")
    paths = [str(folder / f"{number % 6}.png") for number in range(3 * CHUNK + 1)]
    paths[5], paths[-1] = str(folder / "bad.png"), str(folder / "blank.png")
    with Decoders(2) as decoders:
        found = list(decoders.read(paths))
    assert len(found) == len(paths)
    assert "not a picture" in str(found[5].problem)
    assert found[-1].problem is None
    assert found[-1].image is None
    for number, reading in enumerate(found[:-1]):
        if number != 5:
            assert (reading.image == mnist.test_images[number % 6]).all()


def test_no_more_than_some_are_read_ahead(folder):
    with Decoders(2) as decoders:
        readings = decoders.read([str(folder / "0.png")] * (5 * AHEAD))
        next(readings)
        time.sleep(0.5)
        assert decoders._pool._work_queue.qsize() <= AHEAD // CHUNK


@contextmanager
def killing(every: float, most: int) -> Iterator[list[int]]:
    """Kill a decoder of ours, then another, `most` in all."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.wait(every) and len(killed) < most:
            for child in psutil.Process().children():
                try:
                    if (
                        "paripassu.prediction.decoding" in child.cmdline()
                        and child.pid not in killed
                    ):
                        child.kill()
                        killed.append(child.pid)
                        break
                except psutil.NoSuchProcess:
                    continue

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def test_pictures_survive_decoders_that_are_killed(folder, mnist):
    paths = [str(folder / f"{number % 6}.png") for number in range(1500)]
    with Decoders(2) as decoders, killing(every=0.3, most=3) as killed:
        found = list(decoders.read(paths))
    assert killed
    for number, reading in enumerate(found):
        if reading.image is None:  # it was killed twice over the same one
            assert "its decoder has crashed (signal 9)" in str(reading.problem)
        else:
            assert (reading.image == mnist.test_images[number % 6]).all()
    assert sum(reading.image is None for reading in found) <= 1


def test_a_picture_that_kills_each_decoder_is_told_and_the_rest_read(folder):
    paths = [str(folder / f"{number}.png") for number in range(2)]
    with Decoders(1) as decoders, killing(every=0.01, most=4):
        found = list(decoders.read(paths))
    assert len(found) == 2
    for reading in found:
        assert reading.image is not None or "has crashed" in str(reading.problem)
    assert any(reading.problem for reading in found)


def test_leaving_ends_the_decoders_at_once(folder):
    others = set(psutil.Process().children())  # of other tests of this process
    with Decoders(2) as decoders:
        readings = decoders.read([str(folder / "0.png")] * 5000)
        next(readings)
        children = set(psutil.Process().children()) - others
        start = time.monotonic()
    assert time.monotonic() - start < 3
    assert len(children) == 2
    assert not any(x.is_running() for x in children)


# Tables and JSON


def of_shares(*rows: list[float], path: str = "a.png", **more: object) -> Prediction:
    shares = np.array(rows, np.float32)
    return Prediction(path, None, {}, shares, **more)


def test_answers_and_runners_up():
    found = of_shares([0.1, 0.6, 0.3], [0.4, 0.4, 0.2], [0.2, 0.4, 0.4])
    assert found.answers == [1, 0, 1]
    assert found.runners_up == [2, 1, 2]
    assert found.differ
    assert found.largest_difference == pytest.approx(0.3)
    assert Prediction("a", "bad", {}).answers == []
    assert of_shares([0.1, 0.9]).largest_difference is None


def test_unsure_models_are_named_unless_all_are():
    sure, split, flat = [0.95] + [0.005] * 10, [0.48, 0.52], [0.1] * 10
    for rows, expected in {
        (tuple(sure),): {},
        (tuple(split),): {},  # a little less than two equal answers
        ((0.5, 0.3, 0.2),): {"entropy": "as unsure as between 2.8 equal answers"},
        (tuple(flat),): {"probability": "no answer has 50%"},
        (tuple(flat), tuple(flat)): {"probability": "no answer has 50%"},
        ((0.6, 0.2, 0.2), (1.0, 0.0, 0.0)): {
            "entropy": "as unsure as between 2.6 equal answers (left)"
        },
        ((0.4, 0.3, 0.3), (0.6, 0.2, 0.2)): {
            "probability": "no answer has 50% (left)",
            "entropy": "as unsure as between 2.6 equal answers (right)",
        },
    }.items():
        labels = ["left", "right"][: len(rows)]
        assert unsure(np.array(rows, np.float32), labels) == expected


def asked_of(count: int) -> list:
    source = ModelSource(Path("m.pt"), load("article"), {}, "pytorch", 0.0, 1.0)
    return ask_which([source] * count, [])


@needs_pytorch
def test_the_table_of_one_model():
    rows = [
        of_shares([0.00001, 0.99998, 0.00001], path="long/name.png"),
        of_shares([0.3, 0.5, 0.2]),
        Prediction("b.png", None, {"no ink": "no ink, no answer"}),
        Prediction("c\n\x1b[1m.png", "empty: it has 0 bytes", {}),
    ]
    lines = list(prediction.table(rows, asked_of(1), [x.path for x in rows]))
    assert [line.plain for line in lines] == [
        "file            answer  probability  runner-up  warning",
        "long/name.png   1       >99.99%      0 <0.01%",
        "a.png           1       50.00%       0 30.00%",
        "b.png           –                               no ink, no answer",
        r"c\n\x1b[1m.png                                  "
        "not read: empty: it has 0 bytes",
    ]
    assert [str(line.style) for line in lines[1:]] == ["", "", "yellow", "red"]


@needs_pytorch
def test_the_table_of_two_models_marks_what_differs():
    rows = [of_shares([0.1, 0.9], [0.2, 0.8]), of_shares([0.1, 0.9], [0.9, 0.1])]
    asked = asked_of(2)
    assert asked[0].label != asked[1].label
    lines = [x.plain for x in prediction.table(rows, asked, ["a.png", "a.png"])]
    assert "1 90.00%, 0 10.00%" in lines[1]
    assert "1.0e-01" in lines[1]
    assert "≠" not in lines[1]
    assert "8.0e-01 ≠" in lines[2]
    text = prediction.summary(rows, 3)
    assert "2 of 2 pictures answered, 3 other files left out" in text
    assert "answers differ on 1 of 2 pictures" in text
    assert "largest difference of a probability 8.0e-01, on a.png" in text


@needs_pytorch
def test_json_keeps_what_float32_has():
    shares = np.random.default_rng(1).dirichlet(np.ones(10), 2).astype(np.float32)
    found = Prediction("\udcff.png", None, {"ink": "too little"}, shares)
    text = "".join(prediction.as_json([found], asked_of(2)))
    (picture,) = json.loads(text)["pictures"]
    back = [x["probabilities"] for x in picture["answers"]]
    assert (np.array(back, np.float32) == shares).all()
    assert picture["file"] == "\udcff.png"
    assert picture["warnings"] == [{"measure": "ink", "text": "too little"}]
    assert json.loads("".join(prediction.as_json([], asked_of(1))))["pictures"] == []


@needs_pytorch
def test_the_sheet_shows_each_picture_beside_what_is_seen(tmp_path, folder, mnist):
    (folder / "bad.png").write_text("no picture")
    found = [
        of_shares([0.1, 0.9], path=str(folder / "3.png"), image=mnist.test_images[3]),
        Prediction(str(folder / "bad.png"), "not a picture", {}),
        of_shares(
            [0.5, 0.5],
            path=str(folder / "gone.png"),
            image=mnist.test_images[4],
        ),
        *[Prediction(str(folder / "0.png"), None, {"no ink": "no ink"})] * 150,
    ]
    out = tmp_path / "sheet.png"
    write_sheet(out, found, asked_of(1))
    with Image.open(out) as opened:
        page = np.asarray(opened.convert("L"))
    top, left = 2 * GAP + LINE, GAP
    seen = page[top : top + SIDE, left + SIDE + GAP : left + 2 * SIDE + GAP]
    middle = TIMES // 2  # the frame lies over the outermost row and column
    assert (seen[middle::TIMES, middle::TIMES] == mnist.test_images[..., 0][3]).all()
    own = page[top : top + SIDE, left : left + SIDE]
    assert (own[middle::TIMES, middle::TIMES] == mnist.test_images[..., 0][3]).all()
    assert SIDE == SIZE * TIMES
    write_sheet(out, found[:1], asked_of(1))
    with Image.open(out) as opened:
        assert opened.size[0] < 400


# The command


def bad_files(folder: Path) -> dict[str, str]:
    """Names of files that cannot be read, and a part of the reason."""
    picture = (folder / "0.png").read_bytes()
    (folder / "a-cut.png").write_bytes(picture[: len(picture) // 2])
    (folder / "b-empty.jpg").touch()
    (folder / "c-text.gif").write_text("hello")
    (folder / "d-large.png").write_bytes(png_header(8001, 8000))
    (folder / "e-bomb.png").write_bytes(png_header(20_000, 20_000))
    (folder / "f-link.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "g-pipe.png")
    return {
        "a-cut.png": "truncated",
        "b-empty.jpg": "empty: it has 0 bytes",
        "c-text.gif": "not a picture: expected PNG, JPEG, BMP, GIF or TIFF",
        "d-large.png": f"at most {MAX_PIXELS:,} pixels, got 8001 x 8000",
        "e-bomb.png": f"at most {MAX_PIXELS:,} pixels, got more",
        "f-link.png": "no such file",
        "g-pipe.png": "not a regular file",
    }


ANSWER = {
    "answer",
    "probability",
    "runner_up",
    "runner_up_probability",
    "probabilities",
}
PICTURE = {"file", "problem", "answers", "largest_difference", "differ", "warnings"}
MODEL = {"model", "label", "framework", "recipe", "network"}


@needs_pytorch
def test_bad_files_are_told_and_the_others_answered(folder, untrained, tmp_path):
    bad = bad_files(folder)
    Image.new("RGB", (40, 40), "white").save(folder / "h-blank.png")
    sheet = tmp_path / "made" / "sheet.png"
    options = ["--json", "--show-preprocessing", sheet, "--threads", 1]
    done = run_paripassu(
        "predict", "-m", untrained, folder, folder / "missing.png", *options
    )
    assert done.returncode == 1, done.stderr
    assert "Warning" not in done.stderr
    assert "6 of 15 pictures answered, 1 without ink, 8 not read" in done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"models", "pictures"}
    assert [set(x) for x in found["models"]] == [MODEL]
    assert found["models"][0]["framework"] == "pytorch"
    names = [*"012345", *(Path(x).stem for x in bad), "h-blank"]
    pictures = found["pictures"]
    assert [Path(x["file"]).stem for x in pictures] == [*names, "missing"]
    for picture in pictures:
        assert set(picture) == PICTURE
        name = Path(picture["file"]).name
        if name in bad or name == "missing.png":
            assert bad.get(name, "it does not exist") in picture["problem"]
        else:
            assert picture["problem"] is None
        assert len(picture["answers"]) == (1 if name[0] in "012345" else 0)
        for answer in picture["answers"]:
            assert set(answer) == ANSWER
            shares = answer["probabilities"]
            assert len(shares) == 10
            assert sum(shares) == pytest.approx(1, abs=1e-6)
            ordered = sorted(range(10), key=lambda x: -shares[x])
            assert [answer["answer"], answer["runner_up"]] == ordered[:2]
            assert answer["probability"] == max(shares)
    (blank,) = (x for x in pictures if x["file"].endswith("h-blank.png"))
    assert blank["warnings"] == [{"measure": "no ink", "text": "no ink, no answer"}]
    # An untrained network is unsure of everything, and that is told.
    measures = {x["measure"] for x in pictures[0]["warnings"]}
    assert measures & {"probability", "entropy"}
    with Image.open(sheet) as opened:
        assert opened.format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "MODEL", "nothing.png"], "nothing.png: it does not exist"),
        (["-m", "no-model", "digit.png"], "no-model does not exist"),
        (["-m", "MODEL", "-f", "mxnet", "digit.png"], "no framework 'mxnet'"),
        (["-m", "MODEL", "-f", "numpy", "digit.png"], "trains nothing"),
        (
            ["-m", "MODEL", "--show-preprocessing", "a.jpg", "digit.png"],
            "ends in .png",
        ),
    ],
)
def test_wrong_usage_is_told_with_exit_code_2(tmp_path, untrained, arguments, message):
    drawn().save(tmp_path / "digit.png")
    words = [str(untrained) if x == "MODEL" else x for x in arguments]
    done = type_here("predict", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not done.stdout


@needs_pytorch
def test_a_missing_framework_is_told_with_another(tmp_path, trained, folder):
    without = hide_module(tmp_path / "hidden", "torch")
    done = run_paripassu("predict", "-m", trained, folder / "0.png", path=without)
    assert done.returncode == 2
    assert "PyTorch is not installed" in done.stderr


@needs_both
@pytest.mark.slow
def test_models_and_frameworks_side_by_side(trained, untrained, folder):
    names = [folder / f"{number}.png" for number in (3, 1, 2)]
    both = ["-f", "pytorch", "-f", "tensorflow"]
    done = run_paripassu("predict", "-m", trained, *both, *names, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [x["framework"] for x in found["models"]] == ["pytorch", "tensorflow"]
    assert [Path(x["file"]).stem for x in found["pictures"]] == ["3", "1", "2"]
    for picture in found["pictures"]:
        assert 0 <= picture["largest_difference"] < 1e-5
        assert not picture["differ"]
    done = run_paripassu("predict", "-m", trained, "-m", untrained, *names)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "pytorch: run" in lines[0]
    assert "pytorch: start.safetensors" in lines[0]
    assert any("≠" in line for line in lines[1:])
    assert "answers differ on" in done.stderr
    without = hide_module(folder.parent / "hidden", "torch")
    done = run_paripassu("predict", "-m", trained, names[0], path=without)
    assert done.returncode == 2
    assert "--framework tensorflow" in done.stderr
    done = run_paripassu(
        "predict", "-m", trained, "-f", "tensorflow", names[0], path=without
    )
    assert done.returncode == 0, done.stderr


@needs_pytorch
@pytest.mark.slow
def test_ctrl_c_and_a_dead_framework_leave_nothing_behind(folder, untrained, tmp_path):
    many = [str(folder)] * 8000
    for ending, code in (("interrupt", 130), ("kill the framework", 1)):
        with Running(
            "predict", "-m", untrained, *many, log=tmp_path / "log"
        ) as command:

            def started(command: Running = command) -> list[psutil.Process]:
                found = command.workers()
                return found if len(found) > 1 else []

            workers = command.wait_for(started, "the processes")
            time.sleep(3)
            if ending == "interrupt":
                command.process.send_signal(2)
            else:
                for worker in workers:
                    if "paripassu.prediction.answering" in worker.cmdline():
                        worker.kill()
            assert command.wait() == code, command.errors
            assert "Traceback" not in command.errors
            if code == 1:
                assert "the pytorch process has ended" in command.errors
            for worker in workers:
                wait_for(lambda worker=worker: not worker.is_running(), "its end", 10)


@needs_pytorch
@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pictures(folder, untrained, tmp_path):
    peaks = []
    for count in (300, 2000):  # times six pictures; both fill every queue
        words = ["predict", "-m", untrained, *[folder] * count]
        with Running(*words, log=tmp_path / "log") as command:
            parent, peak = psutil.Process(command.process.pid), 0
            while not command.ended():
                try:
                    peak = max(peak, parent.memory_info().rss)
                except psutil.NoSuchProcess:
                    break
                time.sleep(0.02)
            assert command.wait() == 0, command.errors
        peaks.append(peak)
    # Measured: 370 to 740 bytes a picture, its path for the most; 784 pixels more
    # would be beyond.
    assert (peaks[1] - peaks[0]) / (1700 * 6) < 1150


# Accuracy


def check_accuracy(answers: list[int], raw: list[int], labels: np.ndarray) -> None:
    """The way through pictures costs at most half a point."""
    expected = float(np.mean(np.array(raw) == labels))
    accuracy = float(np.mean(np.array(answers) == labels))
    print(f"raw {expected:.2%}, through pictures {accuracy:.2%}")
    assert expected > 0.93
    assert accuracy >= expected - 0.005


def answers_to(answerer: Answerer, images: np.ndarray) -> list[int]:
    parts = [images[i : i + 1000] for i in range(0, len(images), 1000)]
    shares = np.concatenate([answerer.ask(part)[0] for part in parts])
    return shares.argmax(axis=1).tolist()


@needs_pytorch
def test_800_test_images_survive_as_pictures(trained, mnist, tmp_path):
    images, labels = mnist.test_images[..., 0][:800], mnist.test_labels[:800]
    with Answerer(read_source(trained), "pytorch") as answerer, Decoders(2) as decoders:
        paths = [str(path) for path in export(images, tmp_path / "all")]
        seen = np.stack([reading.image for reading in decoders.read(paths)])
        answerer.wait()
        check_accuracy(answers_to(answerer, seen), answers_to(answerer, images), labels)


@needs_pytorch
@pytest.mark.slow
def test_all_test_images_survive_as_pictures(trained, mnist, tmp_path):
    export(mnist.test_images[..., 0], tmp_path / "all")
    done = run_paripassu("predict", "-m", trained, tmp_path / "all", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["pictures"]
    assert [int(Path(x["file"]).stem) for x in found] == list(range(10_000))
    answers = [x["answers"][0]["answer"] for x in found]
    with Answerer(read_source(trained), "pytorch") as answerer:
        answerer.wait()
        raw = answers_to(answerer, mnist.test_images[..., 0])
    check_accuracy(answers, raw, mnist.test_labels)
