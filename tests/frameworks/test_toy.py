"""A framework in a package of its own goes through every command.

`tests/toy` is on the PYTHONPATH of the commands: an entry point and a folder. Nothing
else knows of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from helpers import BOTH, environment, hide_module, needs_both, run_paripassu, type_here
from PIL import Image
from serving import Server

from paripassu.core import datasets
from paripassu.frameworks.registry import BUILT_IN, FRAMEWORKS

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "toy"
FEW = ("--recipe", "fast", "--set", "precision=float32", "--set", "batch_size=10")
Run = Callable[..., CompletedProcess[str]]


def toy_path(folder: Path, *hidden: str) -> str:
    """The PYTHONPATH by which the toy is installed, and some modules are not."""
    parts = [TOY]
    if hidden:
        parts.insert(0, hide_module(folder / "hidden", *hidden))
    return os.pathsep.join(map(str, parts))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The toy is the only framework that is installed."""
    libraries = [x.import_roots[0] for x in FRAMEWORKS.values()]
    return toy_path(tmp_path_factory.mktemp("alone"), *libraries)


@pytest.fixture(scope="module")
def toy(alone: str) -> Run:
    """Type a command where the toy is the only framework."""

    def run(*arguments: object, code: int = 0) -> CompletedProcess[str]:
        done = run_paripassu(*arguments, path=alone)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def run_folder(toy: Run, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "run"
    toy("train", "-f", "plaything", *FEW, "--data", tiny, "--out", folder)
    return folder


def test_a_package_that_cannot_be_imported_is_left_out(tmp_path):
    shutil.copytree(TOY / "toy-0.1.dist-info", tmp_path / "toy-0.1.dist-info")
    code = "from paripassu.frameworks.registry import FRAMEWORKS; print(*FRAMEWORKS)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == list(FRAMEWORKS)
    assert "the framework toy is left out: paripassu_toy:TOY cannot be" in done.stderr


def test_it_is_not_there_without_its_package():
    assert "toy" not in FRAMEWORKS
    done = type_here("train", "-f", "toy")
    assert done.returncode == 2
    assert "no framework 'toy'" in done.stderr


def test_train_and_evaluate(toy, run_folder):
    record = json.loads((run_folder / "run.json").read_text())
    assert (record["framework"], record["status"]) == ("toy", "finished")
    assert (run_folder / "model.toy").exists()
    found = json.loads(toy("evaluate", run_folder, "--json").stdout)
    assert found["framework"] == "toy"
    assert found["test_accuracy"] == found["recorded_accuracy"]


def test_a_network_that_it_does_not_have_is_refused(toy):
    done = toy("train", "-f", "toy", "--recipe", "lenet5", code=2)
    assert "recipe 'lenet5' cannot run in Toy" in done.stderr
    assert "article, fast, keras-example" in done.stderr


def test_code_wants_a_writer_in_its_folder(toy, alone, tmp_path):
    done = toy("code", "fast", "-f", "plaything", code=2)
    assert "Toy has no script.py" in done.stderr
    shutil.copytree(TOY, tmp_path, dirs_exist_ok=True)
    writer = "def code(recipe):\n    return f'# {recipe.name} in toy\\n'\n"
    (tmp_path / "paripassu_toy" / "script.py").write_text(writer)
    path = os.pathsep.join([str(tmp_path), alone])
    done = run_paripassu("code", "fast", "-f", "toy", path=path)
    assert done.stdout == "# fast in toy\n", done.stderr


def test_convert_to_its_own_file_and_from_it(toy, run_folder, tmp_path):
    own, common = tmp_path / "model.toy", tmp_path / "model.safetensors"
    found = toy("convert", run_folder, "--to", "toy", "--out", own, "--json")
    assert json.loads(found.stdout)["holds"]
    found = toy("convert", own, "--to", "safetensors", "--out", common, "--json")
    assert json.loads(found.stdout)["holds"]
    done = toy(
        *("convert", run_folder, "--to", "toy", "--out", tmp_path / "wrong.toy"),
        *("--fault", "kernel-transposed"),
        code=1,
    )
    assert "was not written" in done.stderr
    assert not (tmp_path / "wrong.toy").exists()


def test_predict(toy, run_folder, tmp_path, mnist: datasets.ImageData):
    Image.fromarray(255 - mnist.test_images[..., 0][0]).save(tmp_path / "digit.png")
    # Its own file is known by its suffix, and answered by it.
    found = json.loads(
        toy(
            "predict", "-m", run_folder / "model.toy", tmp_path / "digit.png", "--json"
        ).stdout
    )
    assert "toy" in json.dumps(found)


def test_serve(alone, run_folder, tmp_path, mnist: datasets.ImageData):
    pytest.importorskip("fastapi", reason="type: pip install '.[serve]'")
    log = tmp_path / "log"
    with Server("--model", run_folder, log=log, path=alone) as server:
        found = server.predict({"images": [mnist.test_images[..., 0][0].tolist()]})
        assert [x["model"] for x in found["predictions"][0]["answers"]] == ["toy"]
        assert b"Toy" in server.request("GET", "/")[2]


def test_verify_proves_it_and_finds_its_faults(toy, tiny):
    given = ("verify", "--frameworks", "toy", *FEW, "--steps", 4, "--data", tiny)
    toy(*given, "--rungs", "0-5")
    for fault in ("learning-rate", "optimizer-reset"):
        done = toy(*given, "--fault", fault, "--fault-in", "toy", code=1)
        assert "toy" in done.stdout.lower()


def test_a_fault_that_it_cannot_have_is_said(toy, tiny):
    given = ("--frameworks", "toy", *FEW, "--steps", 4, "--data", tiny)
    done = toy("verify", *given, "--fault", "summed-loss", "--fault-in", "toy", code=1)
    assert "toy does not know the fault 'summed-loss'" in done.stdout


@pytest.mark.slow
def test_bench(toy):
    given = ("--images", 256, "--rounds", 1, "--recipe", "fast")
    found = json.loads(toy("bench", *given, "--frameworks", "toy", "--json").stdout)
    assert {x["framework"] for x in found["rounds"][0]} == {"toy"}


@pytest.mark.slow
def test_ablate(toy, tiny, tmp_path):
    other = tmp_path / "other.toml"
    text = toy("recipes", "show", "fast").stdout
    other.write_text(text.replace("beta1 = 0.7", "beta1 = 0.8"))
    given = ("--seeds", 1, "--data", tiny, "--out", tmp_path / "out", "--json")
    more = ("--set", "precision=float32", "--no-proof")
    done = toy("ablate", "fast", other, *given, *more)
    found = json.loads(done.stdout)
    assert found["framework"] == "toy"
    assert found["frameworks"] == ["toy"]


def test_notebook(toy, tmp_path):
    pytest.importorskip("jupytext", reason="type: pip install '.[notebooks]'")
    toy("notebooks", "--frameworks", "toy", "--out", tmp_path)
    text = (tmp_path / "toy.ipynb").read_text()
    assert "Handwritten digits in Toy" in text
    assert "def train_epoch" in text


def test_documents_have_a_column_for_it(tmp_path):
    for folder in ("tools", "docs", "results", "examples"):
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=without)
    for file in ("README.md", "CITATION.cff", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / file, tmp_path)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "tools" / "generate_docs.py")],
        env=environment(TOY),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = ["docs/choose.md", "docs/side-by-side.md"]
    assert done.stdout.split() == ["wrote", written[0], "wrote", written[1]]
    assert "Toy: not measured" in (tmp_path / "docs" / "choose.md").read_text()
    page = (tmp_path / "docs" / "side-by-side.md").read_text()
    heads = [x for x in page.splitlines() if x.startswith("<tr><th")]
    assert len(heads) == 8
    columns = len(BUILT_IN) + 1
    assert all(head.count("<th") == columns and ">Toy<" in head for head in heads)


def check_report(folder: Path, names: list[str]) -> None:
    found = json.loads((folder / "comparison.json").read_text())
    assert list(found["frameworks"]) == names
    page = (folder / "report.html").read_text()
    assert "Toy" in page
    table = page[page.index("<table") :]
    row = table[: table.index("</tr>")]
    assert row.count("<th") == len(names) + 1


@pytest.mark.slow
def test_compare_beside_another(tiny, tmp_path):
    """Three columns: one framework is missing, the others have a pair's verdict."""
    path = toy_path(tmp_path, FRAMEWORKS["tensorflow"].import_roots[0])
    given = (*FEW, "--data", tiny, "--threads", 1, "--out", tmp_path / "out")
    done = run_paripassu("compare", *given, "--seeds", 1, path=path)
    assert done.returncode == 0, done.stdout + done.stderr
    check_report(tmp_path / "out", [*BOTH, "toy"])


@pytest.mark.slow
@needs_both
def test_compare_three(tiny, tmp_path):
    given = (*FEW, "--data", tiny, "--threads", 1, "--out", tmp_path / "out")
    done = run_paripassu("compare", *given, "--seeds", 1, path=str(TOY))
    assert done.returncode == 0, done.stdout + done.stderr
    check_report(tmp_path / "out", [*BOTH, "toy"])
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    pairs = [(x["left"], x["right"]) for x in found["pairs"]]
    assert pairs == [
        ("pytorch", "tensorflow"),
        ("pytorch", "toy"),
        ("tensorflow", "toy"),
    ]
    assert found["proof"]["holds"]


def test_arrays_of_its_file_have_its_layout(run_folder):
    """Red: whoever read the file as it is would have other weights."""
    from safetensors.numpy import load_file

    common = load_file(run_folder / "weights.safetensors")
    own = load_file(run_folder / "model.toy")
    kernel = next(name for name, x in common.items() if x.ndim == 4)
    assert own[kernel].shape != common[kernel].shape
    assert np.array_equal(own[kernel].transpose(1, 2, 3, 0), common[kernel])
