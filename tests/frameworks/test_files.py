"""The file that a run leaves opens without our code, with the run's weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import FIRST_FAST, same_bits, skip_without, type_here

from paripassu.conversion.model_source import read_source
from paripassu.core import datasets, files, record
from paripassu.frameworks.registry import FRAMEWORKS


def tried(framework: str, model: Path, run: Path, folder: Path):
    """Open a file as its users do, in a fresh process, and ask it test images."""
    finished = record.load_record(run)
    images = datasets.load(Path(finished.dataset.source)).test_images
    mean, std = finished.dataset.mean, finished.dataset.std
    np.save(folder / "images.npy", datasets.normalise(images, mean=mean, std=std))
    trial = FRAMEWORKS[framework].folder / "trial.py"
    names = (model, run / "recipe.toml", folder / "images.npy", folder / "out.npy")
    return subprocess.run(
        [sys.executable, "-P", str(trial), *map(str, names)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module", params=FIRST_FAST)
def run(request, tiny, tmp_path_factory) -> tuple[str, Path]:
    """A run of LeNet-5, whose layers are its own."""
    out = tmp_path_factory.mktemp("files") / "run"
    options = ["--recipe", "lenet5", "--epochs", "1", "--set", "validation_size=0"]
    done = type_here(
        "train", "-f", request.param, *options, "--data", tiny, "--out", out
    )
    assert done.returncode == 0, done.stderr
    return request.param, out


def test_a_run_s_file_opens_without_our_code(run, tmp_path):
    framework, folder = run
    model = folder / record.load_record(folder).files["model"]
    done = tried(framework, model, folder, tmp_path)
    assert done.returncode == 0, done.stderr
    logits = files.read_tensors(folder / record.PREDICTIONS_FILE)[0]["logits"]
    assert np.abs(np.load(tmp_path / "out.npy") - logits).max() < 1e-4
    found = read_source(model)
    expected, _notes = files.read_tensors(folder / record.WEIGHTS_FILE)
    assert same_bits(found.weights, expected)
    assert found.recipe == read_source(folder).recipe
    assert found.framework == framework


OLD = """
import sys
from pathlib import Path
from paripassu.core import files
from paripassu.core.recipe import load
from paripassu.frameworks.tensorflow import files as native, lesson, recipes
from paripassu.frameworks.tensorflow.weights import from_common
weights, _notes = files.read_tensors(Path(sys.argv[1]))
network = recipes.make_network(load("lenet5"))
from_common(load("lenet5"), network, weights)
lesson.save(network, sys.argv[2])
arrays, _notes = native.read(Path(sys.argv[2]))
files.write_tensors(sys.argv[3], native.to_canonical(load("lenet5"), arrays))
"""


@pytest.mark.slow
@skip_without("tensorflow")
@pytest.mark.parametrize("run", ["tensorflow"], indirect=True, scope="module")
def test_a_file_of_an_older_run_is_read_although_keras_alone_does_not_open_it(
    run, tmp_path
):
    framework, folder = run
    old, back = tmp_path / "old.keras", tmp_path / "back.safetensors"
    paths = map(str, (folder / record.WEIGHTS_FILE, old, back))
    subprocess.run([sys.executable, "-c", OLD, *paths], check=True)
    expected, _notes = files.read_tensors(folder / record.WEIGHTS_FILE)
    assert same_bits(files.read_tensors(back)[0], expected)
    assert tried(framework, old, folder, tmp_path).returncode != 0
