"""Files for other frameworks: right ones are written, wrong ones are refused."""

from __future__ import annotations

import json
import pickle
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import EACH, needs_both, run_paripassu, skip_without, type_here
from safetensors.numpy import load_file, save_file

from paripassu.conversion import onnx_file
from paripassu.conversion.convert import FAULTS, ConversionError, convert
from paripassu.conversion.model_source import read_source
from paripassu.core import draws, files, layout
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe, load

NETWORKS = ("article", "keras-example", "lenet5", "article-pytorch-notebook")
TARGETS = {
    "safetensors": ".safetensors",
    "pytorch": ".pt",
    "tensorflow": ".keras",
    "onnx": ".onnx",
}
needs_onnx = pytest.mark.skipif(
    bool(onnx_file.problem()), reason=str(onnx_file.problem())
)
PLAIN_KERAS = """
import sys, keras, numpy as np
model = keras.models.load_model(sys.argv[1])
print(model.predict(np.zeros((3, 28, 28, 1), "float32"), verbose=0).shape)
print(sorted(x for x in sys.modules if x.startswith("paripassu")))
"""


def weights_of(recipe: Recipe, seed: int = 3) -> dict[str, np.ndarray]:
    """Initial weights with biases that are not zero."""
    other = recipe.changed(
        seed=seed,
        initializer={"kernel": "glorot_uniform", "bias": "fan_in_uniform"},
    )
    weights = draws.initial_weights(recipe.architecture, other)
    return {k: x.astype(recipe.precision) for k, x in weights.items()}


def source_of(folder: Path, name: str = "keras-example", *settings: str) -> Path:
    """A file of ours, as a run leaves it."""
    recipe = load(name, list(settings))
    path = folder / f"{name}.safetensors"
    files.write_tensors(path, weights_of(recipe), {"recipe": recipe.to_toml()})
    return path


# Right ones


@needs_onnx
def test_a_file_goes_to_onnx_and_back_to_the_same_bits(tmp_path):
    path = source_of(tmp_path, "lenet5")
    found = convert(path, target="onnx", out=tmp_path / "a.onnx")
    assert found.holds
    assert found.weights_equal
    assert found.largest_probability_difference < 1e-5
    assert found.same_answers == found.images == 1000
    back = convert(
        tmp_path / "a.onnx", target="safetensors", out=tmp_path / "b.safetensors"
    )
    assert back.weights_sha256 == found.weights_sha256
    one, other = load_file(path), load_file(tmp_path / "b.safetensors")
    assert layout.hash_weights(one) == layout.hash_weights(other)


@needs_onnx
@pytest.mark.parametrize("name", NETWORKS)
def test_an_onnx_file_has_a_free_batch_a_stated_opset_and_its_notes(tmp_path, name):
    import onnx
    import onnxruntime

    recipe = load(name)
    path = tmp_path / "a.onnx"
    onnx_file.write(recipe, weights_of(recipe), path, {"recipe": recipe.to_toml()})
    model = onnx.load(path)
    assert [(x.domain, x.version) for x in model.opset_import] == [("", 17)]
    arrays, notes = onnx_file.read(path)
    assert notes == {"recipe": recipe.to_toml()}
    session = onnxruntime.InferenceSession(path)
    for size in (1, 5):
        images = np.zeros((size, 1, 28, 28), np.float32)
        (answers,) = session.run([recipe.output], {"images": images})
        assert answers.shape == (size, 10)
    back = onnx_file.to_canonical(recipe, arrays)
    for key, array in weights_of(recipe).items():
        assert np.array_equal(back[key], array)


@pytest.mark.slow
@skip_without("pytorch")
def test_a_state_dict_fits_the_lesson_s_network(tmp_path):
    found = convert(
        source_of(tmp_path, "article"), target="pytorch", out=tmp_path / "a.pt"
    )
    assert found.holds
    code = (
        "import sys, torch\n"
        "from paripassu.frameworks.pytorch.lesson import Network\n"
        "network = Network()\n"
        "network.load_state_dict(torch.load(sys.argv[1], weights_only=True))\n"
        "print(float(network.conv1.weight[3, 0, 1, 2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.pt")],
        capture_output=True,
        text=True,
        check=True,
    )
    kernel = load_file(tmp_path / "article.safetensors")["conv1.kernel"]
    assert float(done.stdout) == kernel[1, 2, 0, 3]


@pytest.mark.slow
@needs_both
@needs_onnx
def test_a_network_goes_round_through_every_format(tmp_path):
    name = "lenet5"
    path = source_of(tmp_path, name)
    first = layout.hash_weights(load_file(path))
    for number, (target, suffix) in enumerate(TARGETS.items()):
        out = tmp_path / f"{number}{suffix}"
        found = convert(path, target=target, out=out)
        assert found.holds
        assert found.weights_sha256 == first
        assert found.same_answers == 1000
        source = read_source(out)
        assert source.recipe == load(name)
        path = out


@pytest.mark.slow
@skip_without("tensorflow")
def test_keras_alone_opens_a_keras_file(tmp_path):
    source = source_of(tmp_path, "article-pytorch-notebook")
    convert(source, target="tensorflow", out=tmp_path / "a.keras")
    done = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN_KERAS, str(tmp_path / "a.keras")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[:2] == ["(3, 10)", "[]"]


@pytest.mark.slow
@needs_both
def test_float64_is_kept(tmp_path):
    path = source_of(tmp_path, "keras-example", "precision=float64")
    for target in ("pytorch", "tensorflow", "safetensors"):
        found = convert(path, target=target, out=tmp_path / f"a{TARGETS[target]}")
        assert found.holds
        assert found.largest_probability_difference < 1e-12


@needs_onnx
def test_float64_does_not_go_into_an_onnx_file(tmp_path):
    path = source_of(tmp_path, "keras-example", "precision=float64")
    with pytest.raises(UserError, match="float32"):
        convert(path, target="onnx", out=tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.slow
@skip_without("pytorch")
def test_a_run_is_converted_with_all_that_is_known_of_it(tmp_path, tiny):
    run = tmp_path / "run"
    done = run_paripassu(
        *("train", "-f", "pytorch", "-r", "keras-example", "--epochs", 1),
        *("--set", "validation_size=0", "--data", tiny, "--out", run),
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / "deep" / "a.safetensors"
    done = run_paripassu(
        *("convert", run, "--to", "safetensors", "--out", out, "--json")
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["holds"] is True
    assert told["compared_with"] == "pytorch"
    notes = read_source(out).notes
    record = json.loads((run / "run.json").read_text())
    assert notes["test_accuracy"] == str(record["result"]["test_accuracy"])
    assert notes["recipe_hash"] == record["recipe_hash"]
    assert notes["weights_sha256"] == record["weights_sha256"]
    assert "torch" in notes["versions"]


# Wrong ones: every check has a fault that turns it red


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_answers_otherwise_is_not_written(tmp_path, fault):
    path = source_of(tmp_path)
    out = tmp_path / "a.safetensors"
    out.write_bytes(b"what was there")
    with pytest.raises(ConversionError, match="was not written"):
        convert(path, target="safetensors", out=out, fault=fault)
    assert out.read_bytes() == b"what was there"
    assert sorted(x.name for x in tmp_path.iterdir()) == [
        "a.safetensors",
        "keras-example.safetensors",
    ]


def test_the_command_ends_with_1_when_it_refuses(tmp_path):
    done = type_here(
        *("convert", source_of(tmp_path), "--to", "safetensors"),
        *("--out", tmp_path / "a.safetensors", "--fault", "rounded"),
    )
    assert done.returncode == 1
    assert "read back from it are not the source's" in done.stderr
    assert not (tmp_path / "a.safetensors").exists()


# Files of strangers


class Harmful:
    """What a pickle may do when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_source(path)
    for word in words:
        assert word in str(caught.value)


def changed(name: str, **arrays: np.ndarray | None) -> dict[str, np.ndarray]:
    """The weights of a recipe, some replaced or (None) left out."""
    weights: dict[str, Any] = {**weights_of(load(name)), **arrays}
    return {k: x for k, x in weights.items() if x is not None}


STRANGE: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"conv1.bias": None}, ("lack conv1.bias",)),
    ({"conv9.bias": np.zeros(3, np.float32)}, ("conv9.bias",)),
    ({"dense1.bias": np.zeros(11, np.float32)}, ("dense1.bias", "(11,)")),
    ({"conv1.bias": np.full(32, np.nan, np.float32)}, ("conv1.bias", "NaN")),
    ({"conv1.bias": np.full(32, np.inf, np.float32)}, ("conv1.bias", "infinity")),
    ({"conv1.bias": np.zeros(32, np.int64)}, ("conv1.bias", "int64")),
]


@pytest.mark.parametrize(("arrays", "words"), STRANGE)
@pytest.mark.parametrize("with_recipe", [True, False])
def test_strange_weights_are_refused(tmp_path, arrays, words, with_recipe):
    path = tmp_path / "a.safetensors"
    notes = {"recipe": load("keras-example").to_toml()} if with_recipe else {}
    save_file(changed("keras-example", **arrays), path, notes)
    refused(path, *words)


def test_weights_without_a_word_are_recognised_by_their_shapes(tmp_path):
    for name in ("article", "keras-example", "lenet5"):
        path = tmp_path / f"{name}.safetensors"
        save_file(weights_of(load(name)), path)
        assert read_source(path).recipe.network == name


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"PK\x03\x04" + bytes(99)])
def test_what_is_no_such_file_is_refused(tmp_path, suffix, content):
    if suffix == ".onnx" and onnx_file.problem():
        pytest.skip(str(onnx_file.problem()))
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    refused(path, path.name)


@skip_without("pytorch")
def test_a_pickle_is_not_executed(tmp_path):
    path, trace = tmp_path / "a.pt", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Harmful(trace)))
    refused(path, "safe to load")
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # so the file would have done it


@skip_without("pytorch")
def test_a_state_dict_in_disguise_is_refused(tmp_path):
    code = (
        "import sys, torch\n"
        "torch.save({'conv1.weight': [1, 2]}, sys.argv[1] + '/list.pt')\n"
        "torch.save(torch.zeros(3), sys.argv[1] + '/tensor.pt')\n"
        "torch.save({'w.weight': torch.zeros(3)}, sys.argv[1] + '/other.pt')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    refused(tmp_path / "list.pt", "state_dict was expected")
    refused(tmp_path / "tensor.pt", "state_dict was expected")
    refused(tmp_path / "other.pt", "no network that is known")


@skip_without("tensorflow")
def test_a_keras_archive_with_something_else_is_refused(tmp_path):
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    refused(path, "not a whole .keras file")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model.weights.h5", b"no hdf5")
    refused(path, "not a whole .keras file")


# Usage


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("nowhere", "--to", "onnx", "--out", "a.onnx"), "does not exist"),
        (("a.txt", "--to", "onnx", "--out", "a.onnx"), "expected a run's folder"),
        ((".", "--to", "onnx", "--out", "a.onnx"), "not a run folder"),
        (("a.txt", "--to", "onnx", "--out", "a.pt"), "--out a.onnx"),
        (("a.txt", "--to", "word", "--out", "a.pt"), "safetensors"),
        (("a.txt", "--to", "pytorch", "--out", "a.pt", "--fault", "x"), "no fault"),
        (("a.txt", "--to", "pytorch"), "--out"),
    ],
)
def test_wrong_usage_is_explained(tmp_path, arguments, word):
    (tmp_path / "a.txt").write_text("hello")
    done = type_here("convert", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert word in done.stderr
    assert sorted(x.name for x in tmp_path.iterdir()) == ["a.txt"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    path = source_of(tmp_path)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    done = type_here(
        *("convert", path, "--to", "safetensors"),
        *("--out", blocked / "a.safetensors"),
    )
    assert done.returncode == 2
    assert "--out" in done.stderr


def test_a_written_file_may_be_read_by_all_that_may_read_others(tmp_path):
    out = tmp_path / "a.safetensors"
    convert(source_of(tmp_path), target="safetensors", out=out)
    (tmp_path / "other").write_text("")
    mode = stat.S_IMODE(out.stat().st_mode)
    assert mode == stat.S_IMODE((tmp_path / "other").stat().st_mode)


@pytest.mark.slow
@pytest.mark.parametrize("framework", EACH)
def test_a_run_in_bfloat16_is_evaluated_again_and_converted(framework, tiny, tmp_path):
    """Its weights are float32, and a converted network answers in float32."""
    run = tmp_path / "run"
    words = ["-f", framework, "--epochs", 1, "--data", tiny, "--out", run]
    words += ["--set", "precision=bfloat16", "--threads", 1, "--json"]
    done = type_here("train", *words)
    assert done.returncode == 0, done.stderr
    trained = json.loads(done.stdout)["result"]
    again = type_here("evaluate", run, "--data", tiny, "--json")
    assert json.loads(again.stdout)["test_accuracy"] == trained["test_accuracy"]
    weights = load_file(run / "weights.safetensors")
    assert {array.dtype.name for array in weights.values()} == {"float32"}
    target = "onnx" if framework == "tensorflow" else "tensorflow"
    found = convert(run, target=target, out=tmp_path / f"a{TARGETS[target]}")
    assert found.holds
    assert found.weights_equal
