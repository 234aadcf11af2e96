"""The main job on a small data set, in real processes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import run_paripassu, type_here

from paripassu.cli.training import quick_epochs
from paripassu.core import files, record
from paripassu.frameworks.registry import FRAMEWORKS
from paripassu.training.compare import turns

pytestmark = pytest.mark.skipif(
    any(framework.problem for framework in FRAMEWORKS.values()),
    reason="needs all frameworks: pip install '.[all]'",
)


@pytest.fixture(scope="module")
def compared(
    small: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str], list[str]]:
    out = tmp_path_factory.mktemp("comparison") / "quick"
    words = ["compare", "--quick", "--data", str(small), "--out", str(out), "--json"]
    words += ["--set", "batch_size=16"]  # for the proof, whose steps it makes short
    return out, run_paripassu(*words), words


@pytest.mark.slow
def test_quick_form(compared):
    out, result, words = compared
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed == json.loads((out / "comparison.json").read_text())
    assert printed["proof"]["holds"]
    for name in ("pytorch", "tensorflow"):
        entry = printed["frameworks"][name]
        assert entry["test_accuracy"].keys() >= {"mean", "low", "high", "n"}
        assert entry["epoch_seconds"]["median"] > 0
        assert entry["peak_memory_bytes"] > 50e6
    assert printed["pairs"][0]["verdict"] == "undecided"
    assert "<svg" in (out / "report.html").read_text()

    again = type_here(*words)
    assert "already finished" in again.stderr
    first, second = printed, json.loads(again.stdout)
    assert {**second, "created": ""} == {**first, "created": ""}


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_the_record_has_the_cross_entropy_of_the_answers(compared, framework):
    """By log-sum-exp, of the logits in the file; here it is the recipe's own loss."""
    folder = compared[0] / "runs" / f"{framework}-seed42"
    result = record.load_record(folder).result
    answers, _metadata = files.read_tensors(folder / record.PREDICTIONS_FILE)
    logits, labels = answers["logits"].astype(np.float64), answers["labels"]
    right = logits[np.arange(len(labels)), labels]
    expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - right)
    assert result
    assert result.test_cross_entropy == pytest.approx(expected, rel=1e-12)
    assert result.test_cross_entropy == pytest.approx(result.test_loss, rel=1e-5)
    # Red: the labels of the next image.
    shifted = logits[np.arange(len(labels)), np.roll(labels, 1)]
    other = np.mean(np.log(np.exp(logits).sum(axis=1)) - shifted)
    assert result.test_cross_entropy != pytest.approx(other, rel=0.01)


@pytest.mark.slow
def test_report_is_rebuilt_from_records(compared):
    out, result, _words = compared
    (out / "report.html").unlink()
    rebuilt = type_here("report", str(out), "--json")
    assert rebuilt.returncode == 0, rebuilt.stderr
    one, other = json.loads(result.stdout), json.loads(rebuilt.stdout)
    assert {**one, "created": ""} == {**other, "created": ""}
    assert (out / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("other", ["pytorch", "tensorflow"])
def test_evaluate_in_both_frameworks(compared, other):
    out, _result, _words = compared
    folder = out / "runs" / "pytorch-seed42"
    words = ("evaluate", str(folder), "--framework", other, "--json")
    evaluated = type_here(*words)
    assert evaluated.returncode == 0, evaluated.stderr
    found = json.loads(evaluated.stdout)
    assert found["test_accuracy"] == pytest.approx(found["recorded_accuracy"])


@pytest.mark.slow
def test_other_data_and_other_threads_are_refused(compared, tiny):
    """Red before: finished runs were shown under a command that had not made them."""
    out, _result, words = compared
    before = (out / "comparison.json").read_bytes()
    other = [str(tiny) if word.endswith("small.npz") else word for word in words]
    refused = type_here(*other)
    assert refused.returncode == 2
    assert "holds a comparison on other data" in refused.stderr
    refused = type_here(*words, "--threads", "7")
    assert refused.returncode == 2
    assert "and now there is 7" in refused.stderr
    assert (out / "comparison.json").read_bytes() == before


@pytest.mark.slow
def test_a_damaged_run_is_told_with_what_to_do_and_the_rest_is_shown(
    compared, tmp_path
):
    source, _result, words = compared
    out = tmp_path / "damaged"
    shutil.copytree(source, out)
    run = out / "runs" / "pytorch-seed42"
    path = run / "predictions.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    (out / "proof.json").write_text("{")
    words = [str(out) if word == str(source) else word for word in words]
    again = type_here(*words)
    assert again.returncode == 1, again.stderr
    said = " ".join(again.stderr.split())
    assert f"Delete {run} and type the same command again" in said
    assert "proof: holds on" in said  # made anew
    found = json.loads((out / "comparison.json").read_text())
    assert found["frameworks"]["tensorflow"]["status"] == "ok"
    assert found["frameworks"]["pytorch"]["runs"] == []

    shutil.rmtree(run)
    mended = type_here(*words)
    assert mended.returncode == 0, mended.stderr


@pytest.mark.parametrize(("recipe", "epochs"), [("article", 2), ("fast", 1)])
def test_quick_has_no_more_epochs_than_the_recipe(recipe, epochs):
    assert quick_epochs(recipe) == f"epochs={epochs}"


@pytest.mark.slow
def test_what_is_set_goes_before_quick(tiny, tmp_path):
    out = tmp_path / "out"
    words = ["--quick", "--set", "epochs=1", "--frameworks", "torch"]
    words += ["--recipe", "lenet5"]
    done = type_here("compare", *words, "--data", str(tiny), "--out", str(out))
    assert done.returncode == 0, done.stderr
    run = json.loads((out / "runs" / "pytorch-seed42" / "run.json").read_text())
    assert len(run["epochs"]) == 1


def test_a_bad_last_seed_is_said_before_anything_is_trained(tiny, tmp_path):
    out = tmp_path / "out"
    words = ["--seeds", "2", "--set", "seed=2147483647", "--out", str(out)]
    done = type_here("compare", *words, "--data", str(tiny))
    assert done.returncode == 2
    assert "seed" in done.stderr
    assert not out.exists()


def test_turns_are_a_b_b_a():
    names = [turn.name for turn in turns(["a", "b"], [1, 2, 3])]
    assert names == ["a-seed1", "b-seed1", "b-seed2", "a-seed2", "a-seed3", "b-seed3"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "--frameworks", "pytroch"], "Did you mean pytorch?"),
        (["train", "-f", "pytorch", "--recipe", "nothing"], "expected one of amy-jang"),
        (["train", "-f", "pytorch", "--data", "/nowhere"], "/nowhere"),
        (["train", "-f", "pytorch", "--set", "optimizer.rho=2"], "optimizer.rho"),
        (["report", "."], "plan.json"),
        (["evaluate", "."], "run.json"),
    ],
)
def test_wrong_usage_exits_with_2(words, said, tmp_path):
    result = type_here(*words, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert said in result.stderr.replace("\n", " ")
    assert result.stdout == ""
