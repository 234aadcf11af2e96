"""The main job on a small data set, in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paripassu.compare import turns
from paripassu.frameworks import FRAMEWORKS

pytestmark = pytest.mark.skipif(
    any(framework.problem for framework in FRAMEWORKS.values()),
    reason="needs all frameworks: pip install 'paripassu[all]'",
)


def paripassu(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from paripassu.cli import main; main()", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def compared(
    small: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str], list[str]]:
    out = tmp_path_factory.mktemp("comparison") / "quick"
    words = ["compare", "--quick", "--data", str(small), "--out", str(out), "--json"]
    return out, paripassu(*words), words


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

    again = paripassu(*words)
    assert "finished already" in again.stderr
    first, second = printed, json.loads(again.stdout)
    assert {**second, "created": ""} == {**first, "created": ""}


def test_report_is_rebuilt_from_records(compared):
    out, result, _words = compared
    (out / "report.html").unlink()
    rebuilt = paripassu("report", str(out), "--json")
    assert rebuilt.returncode == 0, rebuilt.stderr
    one, other = json.loads(result.stdout), json.loads(rebuilt.stdout)
    assert {**one, "created": ""} == {**other, "created": ""}
    assert (out / "report.html").exists()


@pytest.mark.parametrize("other", ["pytorch", "tensorflow"])
def test_evaluate_in_both_frameworks(compared, other):
    out, _result, _words = compared
    folder = out / "runs" / "pytorch-seed42"
    words = ("evaluate", str(folder), "--framework", other, "--json")
    evaluated = paripassu(*words)
    assert evaluated.returncode == 0, evaluated.stderr
    found = json.loads(evaluated.stdout)
    assert found["test_accuracy"] == pytest.approx(found["recorded_accuracy"])


def test_a_crashing_framework_is_reported_and_the_other_runs(small, tmp_path):
    broken = tmp_path / "broken" / "tensorflow"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('broken on purpose')\n")
    out = tmp_path / "out"
    words = ["compare", "--quick", "--data", str(small), "--out", str(out)]
    path = os.pathsep.join([str(broken.parent), os.environ.get("PYTHONPATH", "")])
    result = paripassu(*words, PYTHONPATH=path)
    assert result.returncode == 1
    assert "broken on purpose" in result.stderr
    found = json.loads((out / "comparison.json").read_text())
    assert found["frameworks"]["pytorch"]["status"] == "ok"
    assert found["frameworks"]["tensorflow"]["status"] == "failed"
    assert not found["proof"]["holds"]
    assert "broken on purpose" in (out / "report.html").read_text()


def test_turns_are_a_b_b_a():
    names = [turn.name for turn in turns(["a", "b"], [1, 2, 3])]
    assert names == ["a-seed1", "b-seed1", "b-seed2", "a-seed2", "a-seed3", "b-seed3"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "--frameworks", "torch"], "known: pytorch, tensorflow"),
        (["train", "-f", "pytorch", "--recipe", "nothing"], "expected one of article"),
        (["train", "-f", "pytorch", "--data", "/nowhere"], "/nowhere"),
        (["train", "-f", "pytorch", "--set", "optimizer.rho=2"], "optimizer.rho"),
        (["report", "."], "plan.json"),
        (["evaluate", "."], "run.json"),
    ],
)
def test_wrong_usage_exits_with_2(words, said, tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", "from paripassu.cli import main; main()", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 2, result.stderr
    assert said in result.stderr.replace("\n", " ")
    assert result.stdout == ""
