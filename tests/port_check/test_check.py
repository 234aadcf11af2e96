"""`paripassu check`: users' own models, in real processes."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
from helpers import run_paripassu, type_here

import paripassu

pytestmark = pytest.mark.slow  # each starts both frameworks
ROOT = Path(__file__).parents[2]
PORTS = ROOT / "examples" / "ports"
NETS = """
import torch
from torch import nn

number = 5


def dense(width=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width))


model = dense()


class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(4, 3)

    def forward(self, x):
        raise RuntimeError("not today")


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, image, extra):
        return {"first": self.a(image) + self.b(extra), "second": self.b(extra)}

class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3)

    def forward(self, x):
        return self.conv(x).mean(-1)

def crash():
    import os
    os.kill(os.getpid(), 11)
"""
PORTED = """
import keras
from keras import layers


def dense(width=3):
    return keras.Sequential([keras.Input((4,)), layers.Dense(width)])


def nan():
    made = dense()
    kernel, bias = made.get_weights()
    kernel[0, 0] = float("nan")
    made.set_weights([kernel, bias])
    return made


def two():
    image, extra = keras.Input((4,), name="image"), keras.Input((5,), name="extra")
    b = layers.Dense(3, name="b")(extra)
    first = layers.Add()([layers.Dense(3, name="a")(image), b])
    return keras.Model([image, extra], {"first": first, "second": b})


def sequence():
    steps = keras.Input((None, 4))
    x = layers.Conv1D(6, 3)(steps)
    return keras.Model(steps, layers.GlobalAveragePooling1D()(x))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("check")
    (made / "nets.py").write_text(NETS)
    (made / "ported.py").write_text(PORTED)
    return made


@pytest.fixture
def nets(folder, monkeypatch):
    """Both files as modules: what hangs on no command starts no process."""
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module("nets"), importlib.import_module("ported")


def check(folder, *words):
    return type_here("check", *words, cwd=folder)


def found(folder, *words):
    result = check(folder, *words, "--json")
    assert result.returncode in (0, 1), result.stderr
    return json.loads(result.stdout)


def test_a_right_port_is_equal():
    words = [f"{PORTS}/gru.py:pytorch", f"{PORTS}/gru.py:keras_port"]
    result = run_paripassu("check", *words, "--input", "2,12,16")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Equal: the two models compute the same" in result.stdout


def test_a_faulty_port_is_located_and_explained(tmp_path):
    words = [f"{PORTS}/convnext.py:pytorch", f"{PORTS}/convnext.py:keras_port"]
    page = tmp_path / "page.html"
    result = check(
        ROOT,
        *words,
        *("--input", "2,3,34,30", "--html", str(page)),
        *("--right-args", '{"epsilon": 0.001}'),
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert re.search(
        r"at stem.1 \(convnext.py:\d+\) \| stem_norm \(conv", result.stdout
    )
    assert "epsilon: left 1e-06, right 0.001" in " ".join(result.stdout.split())
    assert "Not equal: " in page.read_text()


def test_weights_are_copied_and_the_ported_model_is_written(folder):
    words = ["nets.py:dense", "ported.py:dense", "--input", "2,4"]
    saved = folder / "ported.keras"
    more = ["--copy", "left-to-right", "--save", str(saved)]
    assert found(folder, *words, *more)["equal"]
    (folder / "saved.py").write_text(
        f"import keras\nported = keras.saving.load_model({str(saved)!r})\n"
    )
    assert found(folder, "nets.py:dense", "saved.py:ported", "--input", "2,4")["equal"]


def test_weights_are_copied_the_other_way(folder):
    saved = folder / "ported.safetensors"
    words = ["nets.py:dense", "ported.py:dense", "--input", "2,4"]
    more = ["--copy", "right-to-left", "--save", str(saved)]
    assert found(folder, *words, *more)["equal"]
    assert saved.is_file()


def test_weights_that_were_not_copied_and_a_nan_among_them_are_said(nets):
    here, ported = nets
    for right, cause in (
        (ported.dense, "weights-not-copied"),
        (ported.nan, "not-finite"),
    ):
        apart = paripassu.check(here.dense(), right, "2,4")
        assert not apart.equal
        assert apart.faults[0].cause.key == cause


def test_a_sequence_of_any_length(nets):
    here, ported = nets
    models = here.Sequence(), ported.sequence
    assert paripassu.check(*models, "2,4,9", copy="left-to-right").equal


def test_one_framework_twice_and_arguments(folder):
    words = ["nets:dense", "nets:model", "--input", "2,4"]
    assert found(folder, *words)["equal"]
    other = found(folder, *words, "--left-args", "[4]")
    assert not other["equal"]
    assert other["faults"][0]["cause"]["key"] == "weights-shape"


def test_several_inputs_and_outputs_and_a_map_that_is_written_and_obeyed(folder):
    path = folder / "map.toml"
    words = ["nets:Two", "ported:two", "--copy", "left-to-right"]
    words += ["--input", "image=2,4", "--input", "extra=2,5"]
    result = check(folder, *words, "--write-map", str(path))
    assert result.returncode == 0, result.stderr
    assert 'a = "a"' in path.read_text()
    assert found(folder, *words, "--map", str(path))["equal"]
    path.write_text('[blocks]\na = "nothing"\n')
    result = check(folder, *words, "--map", str(path))
    assert result.returncode == 2
    assert "the map names 'nothing'" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nets.py:Raises", "nets.py:dense", "--input", "2,4"], "not today"),
        (
            ["nets.py:dense", "nets.py:dense", "--input", "2,5"],
            "left model nets.py:dense raised RuntimeError; this comes from its code",
        ),
        (["nets.py:crash", "nets.py:dense", "--input", "2,4"], "killed by signal 11"),
        (
            [
                *("nets.py:dense", "ported.py:dense", "--input", "2,4"),
                *("--copy", "left-to-right", "--save", "x.pt"),
            ],
            "files end in .keras or .weights.h5",
        ),
    ],
)
def test_what_cannot_be_checked_is_said(folder, words, said):
    result = check(folder, *words)
    assert result.returncode == 2, result.stdout
    assert said in " ".join(result.stderr.split())
    assert "paripassu/port" not in result.stderr or "crash" in words[0]


def test_another_backend_of_keras_is_said(folder, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    result = check(folder, "nets.py:dense", "ported.py:dense", "--input", "2,4")
    assert result.returncode == 2
    assert "KERAS_BACKEND=tensorflow" in result.stderr
