"""The exercises of docs/class.md: each mistake is found where its answer says."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from helpers import EACH

from paripassu.analysis.lessons import lesson_text
from paripassu.frameworks.faults import find_fault

ROOT = Path(__file__).parents[2]
FILE = ROOT / "examples" / "class" / "exercises.toml"
ONE_STEP = 3  # rungs up to here are of one step
EXERCISES: list[dict[str, Any]] = tomllib.loads(FILE.read_text())["exercise"]


def edited(exercise: dict[str, Any]) -> str:
    text = lesson_text(exercise["framework"]) or ""
    assert text.count(exercise["before"]) == 1
    return text.replace(exercise["before"], exercise["after"])


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda x: x["why"][:20])
def test_an_exercise_is_an_edit_of_its_lesson_and_agrees_with_its_fault(exercise):
    assert edited(exercise) != lesson_text(exercise["framework"])
    if name := exercise.get("fault"):
        fault = find_fault(name)
        assert fault.rung == exercise["rung"]
        assert exercise["quantity"].startswith(fault.quantity)


@pytest.mark.slow
@pytest.mark.parametrize("framework", EACH)
def test_the_proof_finds_each_mistake_where_the_answer_says(framework, tmp_path):
    """By the worker of tools/mutate.py, which runs a lesson with another source."""
    own = [x for x in EXERCISES if x["framework"] == framework]
    assert own
    asked = [
        {"sources": {"lesson": text}, "recipes": [["article", {}]], "stages": [stage]}
        for text in (lesson_text(framework), *map(edited, own))
        for stage in ("first", "starts")  # one step, and several
    ]
    tool = [sys.executable, str(ROOT / "tools" / "mutate.py"), "--work"]
    done = subprocess.run(
        [*tool, "--framework", framework, "--folder", str(tmp_path)],
        input="".join(json.dumps(x) + "\n" for x in asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(x)["red"] for x in done.stdout.splitlines()]
    assert found[:2] == [None, None]
    for exercise, one, several in zip(own, found[2::2], found[3::2], strict=True):
        told = (exercise["after"], one, several)
        if exercise["rung"] <= ONE_STEP:
            where = f"rung {exercise['rung']}, {exercise['quantity']}"
            assert (one or "").startswith(where), told
        else:
            assert one is None, told
            assert several is not None, told
