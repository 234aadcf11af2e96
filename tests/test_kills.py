"""Killed commands lose, leave and break nothing: a small form of the campaign."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
from helpers import skip_without

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import kills  # noqa: E402

PARENT = 1  # a seed whose first draw is the parent
CARELESS = """
import os, subprocess, sys, time
from pathlib import Path
out = Path("out")
out.mkdir(exist_ok=True)
(Path(os.environ["TMPDIR"]) / "left").touch()
runs = out / "runs.md"
if not runs.exists():
    runs.write_text("1\\n")
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (out / "a.json").write_text("{")
    (out / ".a.tmp-paripassu.json").touch()
    time.sleep(60)
runs.write_text("2\\n")
(out / "a.json").write_text("{}")
"""


def job(code: str) -> kills.Job:
    return kills.Job("train", (sys.executable, "-c", code), kills.of_files)


def test_what_a_kill_breaks_is_found(tmp_path, monkeypatch):
    """Red: half a file, a process that lives on, temporary files, another result."""
    monkeypatch.setattr(kills, "PATIENCE", 0.5)
    trial = kills.Trial(job(CARELESS), tmp_path, tmp_path / "trial")
    assert trial.kill(0, writing=True, draw=random.Random(PARENT))
    trial.finish()
    assert trial.kills == ["parent"]
    for found, word in zip(
        sorted(trial.faults),
        [
            "a process lives on: ",
            "after a kill of the parent: a.json is not whole",
            "left: out/.a.tmp-paripassu.json",
            "left: tmp/left",
        ],
        strict=True,
    ):
        assert found.startswith(word)


def test_another_result_and_a_failure_are_found(tmp_path):
    straight = {"seconds": 0.0, "result": {"a.md": ""}}
    (tmp_path / "given").mkdir()
    failing = job("raise SystemExit(1 if open('given/none') else 0)")
    failed, other = (
        kills.attempt(x, 0, tmp_path, straight).faults for x in (failing, job(""))
    )
    assert any(x.startswith("left alone, it ended with 1") for x in failed)
    assert other == ["the result is another one"]


@pytest.mark.slow
@skip_without("pytorch")
@pytest.mark.parametrize("name", ["convert", "record"])
def test_a_few_kills_break_nothing(name, tmp_path):
    rows = kills.campaign(
        2, [kills.JOBS[name].verb], tmp_path, kills.LIMIT, tmp_path / "kills.json"
    )
    assert sum(x["kills"] for x in rows.values()) >= 2
    assert [x["faults"] for x in rows.values() if x["faults"]] == []


def test_the_record_of_the_campaign_has_no_faults():
    found = json.loads((ROOT / "results" / "reliability" / "kills.json").read_text())
    assert found["faults"] == 0
    assert found["kills"] == sum(x["kills"] for x in found["jobs"].values())
    tried = {kills.JOBS[name].verb for name, x in found["jobs"].items() if x["kills"]}
    assert tried == set(kills.VERBS)
