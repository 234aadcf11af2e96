"""Requests: every type has a handler, and what is no request is refused and told."""

from __future__ import annotations

import json
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from helpers import skip_without

from paripassu.core.errors import PariPassuError, UserError, WorkerError
from paripassu.core.recipe import Recipe, built_in, load
from paripassu.port_check import examiner
from paripassu.port_check import requests as check_requests
from paripassu.processes import child, requests
from paripassu.processes.conditions import Conditions
from paripassu.processes.launch import work
from paripassu.processes.pool import run_all
from paripassu.processes.requests import (
    DescribeRequest,
    EvaluateRequest,
    FrameworkRequest,
    Request,
    TrainRequest,
)
from paripassu.worker import __main__ as worker

SERVED = ((requests, worker), (check_requests, examiner))


class Dance(FrameworkRequest):
    """What no worker can do."""

    task: Literal["dance"] = "dance"


class Silent(Request):
    """A child that ends well and says nothing."""

    module: ClassVar[str] = "colorsys"  # of the standard library
    task: Literal["silent"] = "silent"


def ask(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "paripassu.worker"],
        input=line,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(("known", "module"), SERVED)
def test_every_request_has_a_handler_of_its_type(known, module):
    kinds = {
        x
        for x in vars(known).values()
        if isinstance(x, type)
        and issubclass(x, Request)
        and x.__module__ == known.__name__
        and isinstance(x.model_fields["task"].default, str)
    }
    assert len(kinds) > 1
    assert kinds == set(module.TASKS)
    tasks = {x.model_fields["task"].default for x in kinds}
    assert len(tasks) == len(kinds)
    for kind, handler in module.TASKS.items():
        assert typing.get_type_hints(handler)["request"] is kind
        assert module.__name__ in (kind.module, f"{kind.module}.__main__")


@pytest.mark.parametrize("name", built_in())
def test_a_request_is_the_same_on_the_other_side(name, tmp_path):
    recipe = load(name)
    request = TrainRequest(
        framework="pytorch",
        conditions=Conditions(data=Path("here"), threads=3, command="typed"),
        folder=tmp_path,
        recipe=recipe,
    )
    line = request.model_dump_json()
    assert "\n" not in line
    there = child.parse(line, worker.TASKS)
    assert there == request
    assert isinstance(there, TrainRequest)
    assert there.recipe.model_dump() == recipe.model_dump()
    assert there.recipe.hash() == recipe.hash()


def test_paths_and_threads_are_said_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = TrainRequest(
        framework="pytorch",
        conditions=Conditions(data="data"),
        folder=Path("run"),
        recipe=Recipe(),
    )
    assert request.folder == tmp_path / "run"
    assert request.conditions.data == tmp_path / "data"
    assert request.threads >= 1


def test_an_unknown_task_is_an_error_in_the_parent():
    with pytest.raises(WorkerError) as caught:
        work(Dance(framework="pytorch"))
    message = str(caught.value)
    assert "the pytorch process ended with code 64" in message
    assert "got 'dance'" in message
    assert "train, evaluate" in message


def test_a_request_of_another_version_is_an_error_in_the_parent(tmp_path):
    """Its type is known, and a value of it is not."""
    request = EvaluateRequest(framework="pytorch", folder=tmp_path)
    line = json.dumps({**json.loads(request.model_dump_json()), "colour": "red"})
    with pytest.raises(ValueError, match=r"task 'evaluate': colour: Extra inputs"):
        child.parse(line, worker.TASKS)
    done = ask(line + "\n")
    assert done.returncode == child.NOT_UNDERSTOOD
    assert "colour: Extra inputs" in done.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "got ''"),
        ("nonsense\n", "got 'nonsense"),
        ("[]\n", "expected a task of train"),
        ("{}\n", "expected a task of train"),
        ('{"task": "train"}\n', "task 'train': framework: Field required"),
    ],
)
def test_a_malformed_request_ends_with_a_code_of_its_own(line, said):
    done = ask(line)
    assert done.returncode == child.NOT_UNDERSTOOD
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_child_that_says_nothing_is_an_error():
    with pytest.raises(WorkerError, match="the silent process ended without an answer"):
        work(Silent())


def test_what_the_user_can_put_right_is_a_user_error(tmp_path):
    request = EvaluateRequest(framework="pytorch", folder=tmp_path)
    with pytest.raises(UserError, match=r"run\.json"):
        work(request)


def test_several_at_once_each_with_its_end(tmp_path):
    requests = {
        "dances": Dance(framework="pytorch"),
        "lacks": EvaluateRequest(framework="pytorch", folder=tmp_path),
    }
    ends: dict[str, Any] = dict(run_all(requests))
    assert ends.keys() == requests.keys()
    assert all(isinstance(x, PariPassuError) for x in ends.values())
    assert isinstance(ends["lacks"], UserError)


@skip_without("pytorch")
def test_the_answer_is_the_last_event():
    events: list[dict[str, Any]] = []
    answer = work(DescribeRequest(framework="pytorch"), events.append)
    assert {"event": "described", **answer} == events[-1]
