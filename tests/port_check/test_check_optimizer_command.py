"""`paripassu check-optimizer`: users' own optimizers, in real processes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from helpers import needs_both

import paripassu

pytestmark = [pytest.mark.slow, needs_both]  # each starts both frameworks
OURS = """
import torch


def sgd(parameters, momentum=0.9):
    return torch.optim.SGD(parameters, lr=0.1, momentum=momentum)


def stepped(parameters):
    optimizer = sgd(parameters)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.1)
"""
PORTED = """
import keras

sgd = keras.optimizers.SGD(0.1, momentum=0.9)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("optimizers")
    (made / "ours.py").write_text(OURS)
    (made / "ported.py").write_text(PORTED)
    (made / "broken.py").write_text("import torch\nx = 1 / 0\n")
    return made


def check(folder, *words):
    code = "from paripassu.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "check-optimizer", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_same_rule_takes_the_same_steps_in_both_frameworks(folder):
    result = check(folder, "ours.py:sgd", "ported.py:sgd")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Equal: the same steps" in result.stdout


def test_defaults_part_and_the_constants_are_named(folder):
    result = check(folder, "torch.optim:AdamW", "keras.optimizers:AdamW", "--json")
    assert result.returncode == 1, result.stderr
    found = json.loads(result.stdout)
    assert not found["equal"]
    causes = {x["key"] for x in found["differences"] if x["cause"]}
    assert causes == {"weight_decay", "epsilon", "epsilon_form"}
    assert found["write"]


def test_settings_and_a_schedule_belong_to_it(folder):
    words = ["ours.py:sgd", "ported.py:sgd", "--left-args", '{"momentum": 0.8}']
    result = check(folder, *words)
    assert result.returncode == 1, result.stderr
    assert "Not equal: momentum" in result.stdout
    result = check(folder, "ours.py:stepped", "ported.py:sgd")
    assert result.returncode == 1, result.stderr
    assert "Not equal: learning rate" in result.stdout
    assert "First apart: step 6" in result.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ours.py:absent", "ours.py:sgd"], "ours.py has no 'absent'"),
        (["torch.nn:Linear", "ours.py:sgd"], "the class torch.nn.modules"),
        (["broken.py:x", "ours.py:sgd"], "ZeroDivisionError"),
        (["ours.py:sgd", "ours.py:sgd", "--left-args", "[1]"], "a list"),
        (["ours.py:sgd", "ours.py:sgd", "--right-args", '{"a": 1}'], "'a'"),
    ],
    ids=lambda x: x[0] if isinstance(x, list) else "",
)
def test_what_cannot_be_checked_is_said_with_exit_code_2(folder, words, told):
    result = check(folder, *words)
    assert result.returncode == 2, result.stdout + result.stderr
    assert told in " ".join(result.stderr.split())


def test_the_same_from_python():
    torch = pytest.importorskip("torch")
    found = paripassu.check_optimizer(torch.optim.SGD, torch.optim.SGD)
    assert found.equal
