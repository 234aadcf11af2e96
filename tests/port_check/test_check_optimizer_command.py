"""`paripassu check-optimizer`: users' own optimizers, in real processes."""

from __future__ import annotations

import json

import pytest
from helpers import needs_both, skip_without, type_here

import paripassu

# Each starts both frameworks; what is refused is in `test_check_optimizer.py`.
pytestmark = [pytest.mark.slow, needs_both]
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
CHAINED = """
import optax


def rmsprop(rate=1e-3):
    return optax.rmsprop(rate, 0.9, 1e-7)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("optimizers")
    (made / "ours.py").write_text(OURS)
    (made / "ported.py").write_text(PORTED)
    (made / "chained.py").write_text(CHAINED)
    (made / "broken.py").write_text("import torch\nx = 1 / 0\n")
    return made


def check(folder, *words):
    return type_here("check-optimizer", *words, cwd=folder)


def test_the_same_rule_takes_the_same_steps_in_both_frameworks(folder):
    result = check(folder, "ours.py:sgd", "ported.py:sgd")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Equal: the same steps" in result.stdout


@skip_without("jax")
def test_optax_is_checked_beside_keras(folder):
    words = "keras.optimizers:RMSprop", "chained.py:rmsprop"
    result = check(folder, *words)
    assert result.returncode == 0, result.stdout + result.stderr
    result = check(folder, *words, "--right-args", '{"rate": 0.01}')
    assert result.returncode == 1, result.stderr
    assert "optax.rmsprop(learning_rate=0.001)" in result.stdout


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


def test_what_cannot_be_checked_is_said_with_exit_code_2(folder):
    result = check(folder, "broken.py:x", "ours.py:sgd")
    assert result.returncode == 2, result.stdout + result.stderr
    assert "ZeroDivisionError" in " ".join(result.stderr.split())


def test_the_same_from_python():
    torch = pytest.importorskip("torch")
    found = paripassu.check_optimizer(torch.optim.SGD, torch.optim.SGD)
    assert found.equal
