"""Checks of pairs of optimizers: rules by hand, right pairs, faults, users' mistakes.

Run as a script, it follows every optimizer below in one process, PyTorch imported
first, and writes what it found.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from paripassu.core.errors import UserError
from paripassu.port_check.optimizer import check_request
from paripassu.port_check.optimizer_verdict import compare_optimizers, draw_trial
from paripassu.port_check.requests import CheckOptimizerRequest
from paripassu.reference.optimizers import OptimizerRule, step_all
from paripassu.sides.registry import side_of_optimizer

# Every family by hand: PyTorch's and Keras's

FAMILIES = {
    "torch": {
        "sgd": "t.SGD(p, 0.1)",
        "momentum": "t.SGD(p, 0.1, 0.9)",
        "dampening": "t.SGD(p, 0.1, 0.9, dampening=0.3, weight_decay=0.1)",
        "nesterov": "t.SGD(p, 0.1, 0.9, nesterov=True, maximize=True)",
        "adam": "t.Adam(p, 0.1, (0.8, 0.99), 1e-5, weight_decay=0.1)",
        "amsgrad": "t.Adam(p, 0.1, amsgrad=True)",
        "a subclass": "renamed_of_torch(p)",
        "adamw": "t.AdamW(p, 0.1, weight_decay=0.1)",
        "nadam": "t.NAdam(p, 0.1, weight_decay=0.1)",
        "nadam decoupled": "t.NAdam(p, weight_decay=.1, decoupled_weight_decay=True)",
        "adamax": "t.Adamax(p, 0.1, eps=1e-5, weight_decay=0.1)",
        "rmsprop": "t.RMSprop(p, 0.1)",
        "rmsprop centered": "t.RMSprop(p, 0.1, 0.9, momentum=0.5, centered=True)",
        "adagrad": "t.Adagrad(p, 0.1, 0.2, initial_accumulator_value=0.1)",
        "adadelta": "t.Adadelta(p, 1.0, weight_decay=0.1)",
        "own sgd": "to.SGD(p, 0.1, 0.9, 0.1, rate_inside=True, decoupled=True)",
        "own adam": "to.AdamHat(p, 0.1, (0.9, 0.999), 1e-5, 0.1, decoupled=True)",
        "own rmsprop": "to.RMSpropInside(p, 0.1)",
        "schedule": "ladder(t.SGD(p, 0.1, 0.9))",
        "clip global": "hooked(t.SGD(p, 0.1), lambda: u.clip_grad_norm_(p, 1.5))",
        "clip value": "hooked(t.SGD(p, 0.1), lambda: u.clip_grad_value_(p, 0.3))",
        "clip each": "hooked(t.SGD(p, 0.1), lambda: [u.clip_grad_norm_(x, 0.7) "
        "for x in p])",
    },
    "keras": {
        "sgd": "k.SGD(0.1, weight_decay=0.1)",
        "momentum": "k.SGD(0.1, 0.9)",
        "nesterov": "k.SGD(0.1, 0.9, nesterov=True)",
        "adam": "k.Adam(0.1, 0.8, 0.99, 1e-5, weight_decay=0.1)",
        "amsgrad": "k.Adam(0.1, amsgrad=True)",
        "adamw": "k.AdamW(0.1)",
        "nadam": "k.Nadam(0.1)",
        "adamax": "k.Adamax(0.1, epsilon=1e-5)",
        "rmsprop": "k.RMSprop(0.1)",
        "rmsprop centered": "k.RMSprop(0.1, 0.9, 0.5, centered=True)",
        "adagrad": "k.Adagrad(0.1)",
        "adadelta": "k.Adadelta(1.0, weight_decay=0.1)",
        "clipnorm": "k.SGD(0.1, clipnorm=0.7)",
        "global": "k.SGD(0.1, global_clipnorm=1.5)",
        "clipvalue": "k.SGD(0.1, clipvalue=0.3)",
        "own sgd": "ko.SGD(0.1, 0.9, rate_outside=True, l2=0.1)",
        "own adam": "ko.Adam(0.1, epsilon=1e-5, epsilon_outside=True, l2=0.1)",
        "own rmsprop": "ko.RMSpropOutside(0.1)",
        "schedule": "k.SGD(s.ExponentialDecay(0.1, 4, 0.7), 0.9)",
        "loss scale": "k.SGD(0.1, loss_scale_factor=8.0)",
    },
}

RIGHT = {
    "sgd": ("t.SGD(p, 0.1)", "k.SGD(0.1)"),
    "momentum, constant": ("t.SGD(p, 0.1, 0.9)", "k.SGD(0.1, 0.9)"),
    "nesterov": ("t.SGD(p, 0.1, 0.9, nesterov=True)", "k.SGD(0.1, 0.9, nesterov=True)"),
    "momentum, ladder": (
        "ladder(t.SGD(p, 0.1, 0.9))",
        "ko.SGD(s.ExponentialDecay(0.1, 4, 0.7, staircase=True), 0.9, "
        "rate_outside=True)",
    ),
    "adam": (
        "t.Adam(p, 1e-3)",
        "ko.Adam(1e-3, epsilon=1e-8, epsilon_outside=True)",
    ),
    "adam, l2": (
        "t.Adam(p, 1e-3, weight_decay=0.1)",
        "ko.Adam(1e-3, epsilon=1e-8, epsilon_outside=True, l2=0.1)",
    ),
    "adam, the other way": (
        "to.AdamHat(p, 1e-3, (0.9, 0.999), 1e-7, 0.0, decoupled=False)",
        "k.Adam()",
    ),
    "adadelta": ("t.Adadelta(p)", "k.Adadelta(1.0, 0.9, 1e-6)"),
    "rmsprop": ("t.RMSprop(p)", "ko.RMSpropOutside(0.01, 0.99, epsilon=1e-8)"),
    "rmsprop, the other way": ("to.RMSpropInside(p, 1e-3, 0.9, 1e-7)", "k.RMSprop()"),
    "adamax": (
        "t.Adamax(p, 1e-3, eps=1e-30)",
        "k.Adamax(1e-3, epsilon=1e-30)",
    ),
    "nadam": (
        "t.NAdam(p, 1e-3, eps=1e-7, momentum_decay=1.0)",
        "k.Nadam()",
    ),
    "clip global": (
        "hooked(t.SGD(p, 0.1), lambda: u.clip_grad_norm_(p, 1.5))",
        "k.SGD(0.1, global_clipnorm=1.5)",
    ),
    "decoupled, no momentum": (
        "t.SGD(p, 0.1, weight_decay=0.1)",
        "k.SGD(0.1, weight_decay=0.1)",
    ),
    "torch twice": ("t.Adam(p)", "t.Adam(p, 1e-3)"),
}

# left, right, what is to be named, and a word of what to write
FAULTS = {
    "sgd rate": ("t.SGD(p)", "k.SGD()", "learning_rate", "learning_rate=0.001"),
    "adam default": (
        "t.Adam(p)",
        "k.Adam()",
        "epsilon epsilon_form",
        "epsilon_outside=True",
    ),
    "adam epsilon set": (
        "t.Adam(p)",
        "k.Adam(epsilon=1e-8)",
        "epsilon_form",
        "sqrt(1 - beta2**t)",
    ),
    "adam beta": (
        "t.Adam(p, betas=(0.5, 0.999))",
        "ko.Adam(epsilon=1e-8, epsilon_outside=True)",
        "beta1",
        "beta_1=0.5",
    ),
    "adam l2": (
        "t.Adam(p, weight_decay=0.1)",
        "ko.Adam(epsilon=1e-8, epsilon_outside=True, weight_decay=0.1)",
        "decay_form",
        "L2(0.05)",
    ),
    "adamw default": (
        "t.AdamW(p)",
        "k.AdamW()",
        "epsilon epsilon_form weight_decay",
        "weight_decay=0.01",
    ),
    "adam to adamw": (
        "t.Adam(p, weight_decay=0.1)",
        "t.AdamW(p, weight_decay=0.1)",
        "decay_form",
        "torch.optim.Adam",
    ),
    "keras to adam": (
        "ko.Adam(epsilon=1e-8, epsilon_outside=True, weight_decay=0.1)",
        "t.Adam(p, weight_decay=0.1)",
        "decay_form",
        "AdamW",
    ),
    "amsgrad": ("t.Adam(p, amsgrad=True)", "t.Adam(p)", "amsgrad", "amsgrad=True"),
    "amsgrad keras": ("k.Adam(amsgrad=True)", "k.Adam()", "amsgrad", "amsgrad=True"),
    "momentum, ladder": (
        "ladder(t.SGD(p, 0.1, 0.9))",
        "k.SGD(s.ExponentialDecay(0.1, 4, 0.7, staircase=True), 0.9)",
        "momentum_form",
        "rate_outside=True",
    ),
    "momentum": ("t.SGD(p, 0.1, 0.9)", "k.SGD(0.1, 0.8)", "momentum", "momentum=0.9"),
    "nesterov": (
        "t.SGD(p, 0.1, 0.9, nesterov=True)",
        "k.SGD(0.1, 0.9)",
        "nesterov",
        "nesterov=True",
    ),
    "dampening": (
        "t.SGD(p, 0.1, 0.9, dampening=0.1)",
        "k.SGD(0.1, 0.9)",
        "dampening",
        "subclass",
    ),
    "sgd l2 with momentum": (
        "t.SGD(p, 0.1, 0.9, weight_decay=0.1)",
        "k.SGD(0.1, 0.9, weight_decay=0.1)",
        "decay_form",
        "keras.regularizers.L2(0.05)",
    ),
    "clipnorm": (
        "k.SGD(0.1, global_clipnorm=1.5)",
        "k.SGD(0.1, clipnorm=1.5)",
        "clip_global_norm clip_norm",
        "global_clipnorm=1.5",
    ),
    "clipnorm to torch": (
        "hooked(t.SGD(p, 0.1), lambda: u.clip_grad_norm_(p, 1.5))",
        "k.SGD(0.1, clipnorm=1.5)",
        "clip_global_norm clip_norm",
        "global_clipnorm=1.5",
    ),
    "clip left out": (
        "k.SGD(0.1, global_clipnorm=1.5)",
        "t.SGD(p, 0.1)",
        "clip_global_norm",
        "clip_grad_norm_",
    ),
    "clipvalue": (
        "k.SGD(0.1, clipvalue=1.0)",
        "k.SGD(0.1, clipvalue=2.0)",
        "clip_value",
        "clipvalue=1",
    ),
    "smooth": (
        "ladder(t.SGD(p, 0.1))",
        "k.SGD(s.ExponentialDecay(0.1, 4, 0.7))",
        "learning_rate",
        "staircase=True",
    ),
    "schedule left out": (
        "ladder(t.SGD(p, 0.1))",
        "k.SGD(0.1)",
        "learning_rate",
        "schedule",
    ),
    "adadelta default": (
        "t.Adadelta(p)",
        "k.Adadelta()",
        "learning_rate rho epsilon",
        "rho=0.9",
    ),
    "adadelta rho": ("t.Adadelta(p)", "k.Adadelta(1.0, epsilon=1e-6)", "rho", "rho"),
    "adagrad accumulator": (
        "t.Adagrad(p, 0.01)",
        "k.Adagrad(0.01, epsilon=1e-10)",
        "accumulator epsilon_form",
        "initial_accumulator_value=0",
    ),
    "adagrad in torch": (
        "t.Adagrad(p)",
        "t.Adagrad(p, initial_accumulator_value=0.1)",
        "accumulator",
        "initial_accumulator_value=0",
    ),
    "adagrad form": (
        "t.Adagrad(p)",
        "k.Adagrad(0.01, 0.0, 1e-10)",
        "epsilon_form",
        "sqrt(v) + epsilon",
    ),
    "rmsprop form": (
        "t.RMSprop(p)",
        "k.RMSprop(0.01, 0.99, epsilon=1e-8)",
        "epsilon_form",
        "RMSpropOutside",
    ),
    "rmsprop default": (
        "t.RMSprop(p)",
        "k.RMSprop()",
        "learning_rate rho epsilon epsilon_form",
        "RMSpropOutside",
    ),
    "rmsprop centered": (
        "k.RMSprop(centered=True)",
        "k.RMSprop()",
        "centered",
        "centered=True",
    ),
    "adamax form": (
        "t.Adamax(p, 1e-3)",
        "k.Adamax(epsilon=1e-8)",
        "epsilon_form",
        "1e-30",
    ),
    "adamax rate": (
        "t.Adamax(p, eps=1e-30)",
        "k.Adamax(epsilon=1e-30)",
        "learning_rate",
        "0.002",
    ),
    "nadam decay": (
        "t.NAdam(p, 1e-3, eps=1e-7)",
        "k.Nadam()",
        "momentum_decay",
        "momentum_decay=1.0",
    ),
    "family": ("t.Adam(p)", "k.RMSprop()", "family", "another method"),
    "maximize": ("t.SGD(p, 0.1, maximize=True)", "k.SGD(0.1)", "maximize", "sign"),
}

STEPS = {"smooth": 2, "schedule left out": 5, "momentum, ladder": 5, "amsgrad": 2}

OTHERS = {
    "a class not known": ("t.RAdam(p)", "k.Lion()"),
    "groups": ("t.Adam([{'params': p[:1]}, {'params': p[1:], 'lr': 1.0}])", "k.Adam()"),
    "average": ("t.Adam(p)", "k.Adam(use_ema=True, ema_overwrite_frequency=2)"),
    "a subclass": ("class_of_torch(p)", "k.Adam()"),
    "a hook": (
        "hooked(t.SGD(p, 0.1), lambda: [x.grad.mul_(2) for x in p])",
        "k.SGD(0.1)",
    ),
}

MISTAKES = {
    "raises": ("pytorch", "lambda p: 1 / 0", "ZeroDivisionError"),
    "a number": ("pytorch", "lambda p: 3", "returns int"),
    "wrong pair": ("pytorch", "lambda p: (t.SGD(p), 3)", "(SGD, int)"),
    "an instance": ("pytorch", "t.SGD([tensor])", "def make(parameters)"),
    "an object": ("pytorch", "3", "type int"),
    "plateau": ("pytorch", "plateau", "ReduceLROnPlateau"),
    "closure": ("pytorch", "t.LBFGS", "LBFGS.step() raised TypeError"),
    "keras raises": ("tensorflow", "lambda: 1 / 0", "ZeroDivisionError"),
    "keras a number": ("tensorflow", "lambda: 3", "returns int"),
    "keras a string": ("tensorflow", "'adam'", "type str"),
    "keras schedule": ("tensorflow", "lambda: k.SGD(broken)", "ValueError"),
}


def child() -> None:
    import torch  # before TensorFlow, as in a worker

    import paripassu.frameworks.pytorch.optimizers as torch_own
    import paripassu.frameworks.tensorflow.optimizers as keras_own
    import paripassu.sides.keras_optimizer as keras_probe
    import paripassu.sides.torch_optimizer as torch_probe
    from paripassu.core.errors import UserError

    keras = keras_probe.keras
    t, k = torch.optim, keras.optimizers

    def ladder(optimizer):
        return optimizer, t.lr_scheduler.StepLR(optimizer, 4, 0.7)

    def plateau(p):
        optimizer = t.SGD(p)
        return optimizer, t.lr_scheduler.ReduceLROnPlateau(optimizer)

    def hooked(optimizer, clip):
        def hook(*_):
            clip()

        optimizer.register_step_pre_hook(hook)
        return optimizer

    class Broken(k.schedules.LearningRateSchedule):
        def __call__(self, step):
            raise ValueError(f"no rate of {step}")

        def get_config(self):
            return {}

    class Own(t.Adam):
        def step(self, closure=None):
            return super().step(closure)

    class Renamed(t.Adam):
        pass

    names = {
        "t": t,
        "k": k,
        "s": k.schedules,
        "u": torch.nn.utils,
        "to": torch_own,
        "ko": keras_own,
        "ladder": ladder,
        "hooked": hooked,
        "plateau": plateau,
        "tensor": torch.zeros(2),
        "broken": Broken(),
        "class_of_torch": Own,
        "renamed_of_torch": Renamed,
    }
    parameters, gradients = draw_trial()
    done = {}

    def examined(code):
        if code not in done:
            if "(p" in code or "[p" in code or "p[" in code:
                found = eval(f"lambda p: {code}", names)
                probe = torch_probe
                assert side_of_optimizer(found).name == "pytorch"
            else:
                found, probe = eval(code, names), keras_probe
                assert side_of_optimizer(found).name == "keras"
            done[code] = probe.examine(found, code, parameters, gradients)
        return done[code]

    out = {"families": {}, "pairs": {}, "mistakes": {}}
    for side, cases in FAMILIES.items():
        for name, code in cases.items():
            rule, path = examined(code)
            same = compare_optimizers(rule, rule, path, path, parameters, gradients)
            out["families"][f"{side}: {name}"] = {
                "family": rule.family,
                "because": rule.because,
                "reproduced": same.left.reproduced,
                "notes": same.notes,
            }
    right = {f"right {name}": pair for name, pair in RIGHT.items()}
    for name, pair in {**right, **FAULTS, **OTHERS}.items():
        (one, path), (other, its_path) = map(examined, pair[:2])
        found = compare_optimizers(one, other, path, its_path, parameters, gradients)
        out["pairs"][name] = found.model_dump(mode="json")
        out["pairs"][name]["causes"] = found.causes
    for name, (side, code, _) in MISTAKES.items():
        probe = torch_probe if side == "pytorch" else keras_probe
        try:
            probe.examine(
                eval(code, names), "optimizers.py:make", parameters, gradients
            )
        except UserError as error:
            out["mistakes"][name] = str(error)

    def step_late(p):
        optimizer = t.SGD(p, 0.1)
        return optimizer, t.lr_scheduler.StepLR(optimizer, 20, 0.5)

    late = torch_probe.examine(step_late, "late", parameters, gradients, horizon=50)
    early, path = examined("k.SGD(0.1)")
    found = compare_optimizers(late[0], early, late[1], path, parameters, gradients)
    out["late"] = found.model_dump(mode="json")
    used = k.SGD(0.1, 0.9)
    paths = [keras_probe.examine(used, "used", parameters, gradients) for _ in "12"]
    out["again"] = np.array_equal(paths[0][1][-1]["bias"], paths[1][1][-1]["bias"])
    json.dump(out, sys.stdout)


@cache
def found():
    for name in ("torch", "keras"):
        pytest.importorskip(name, reason="type: pip install '.[all]'")
    result = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:torch", __file__],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


OWN_RULE = """
import torch


def sgd(parameters, momentum=0.9):
    return torch.optim.SGD(parameters, lr=0.1, momentum=momentum)
"""


@pytest.mark.parametrize(
    ("left", "more", "told"),
    [
        ("own_rule.py:absent", {}, "own_rule.py has no 'absent'"),
        ("torch.nn:Linear", {}, "the class torch.nn.modules"),
        ("own_rule.py:sgd", {"left_args": "[1]"}, "a list"),
        ("own_rule.py:sgd", {"right_args": '{"a": 1}'}, "'a'"),
    ],
)
def test_what_is_no_optimizer_is_refused(left, more, told, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    Path("own_rule.py").write_text(OWN_RULE)
    request = CheckOptimizerRequest(left=left, right="own_rule.py:sgd", steps=3, **more)
    with pytest.raises(UserError, match=told):
        check_request(request)


@pytest.mark.parametrize(
    "name", [f"{side}: {name}" for side, cases in FAMILIES.items() for name in cases]
)
def test_a_rule_by_hand_takes_the_same_steps(name):
    case = found()["families"][name]
    assert case["family"] != "other", case["because"]
    assert case["reproduced"] <= 1e-9, case


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_pair_passes(name):
    case = found()["pairs"][f"right {name}"]
    assert case["equal"], case
    assert not case["write"]
    assert case["parted"] is None


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_named(name):
    _, _, keys, word = FAULTS[name]
    case = found()["pairs"][name]
    assert not case["equal"]
    assert set(case["causes"]) == set(keys.split()), case
    assert case["parted"]["relative"] > 1e-9
    assert case["parted"]["step"] == STEPS.get(name, case["parted"]["step"])
    assert case["together"] <= 1e-8
    assert word in " ".join(case["write"]), case["write"]
    for row in case["differences"]:
        assert row["before"] > 1e-9


OTHER_SAYS = {
    "a class not known": "torch.optim.RAdam is not known here",
    "groups": "its groups of parameters differ in lr",
    "average": "it has use_ema",
    "a subclass": "Own is not known here",
    "a hook": "a hook changes the gradients",
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_known_is_compared_and_no_cause_named(name):
    case = found()["pairs"][name]
    assert not case["equal"]
    assert not case["causes"]
    assert not case["write"]
    assert OTHER_SAYS[name] in " ".join(case["notes"])
    assert case["parted"]["step"] >= 1


@pytest.mark.parametrize("name", MISTAKES)
def test_a_users_mistake_is_told(name):
    assert MISTAKES[name][2] in found()["mistakes"][name]


def test_schedules_that_part_after_the_last_step_are_found():
    case = found()["late"]
    assert not case["equal"]
    assert case["apart"] <= 1e-9
    assert case["parted"]["step"] == 21
    assert "schedule" in " ".join(case["write"])


def test_an_instance_is_made_anew_each_time():
    assert found()["again"]


def test_what_makes_no_difference_is_said():
    case = found()["pairs"]["right momentum, constant"]
    assert "as long as the learning rate stays" in " ".join(case["notes"])
    case = found()["pairs"]["right clip global"]
    assert "1e-6 that clip_grad_norm_ adds" in " ".join(case["notes"])


def test_float32_is_shown_by_the_rule_and_not_counted():
    case = found()["pairs"]["right adam, the other way"]
    assert case["apart"] > 1e-9
    assert case["right"]["reproduced"] <= 1e-9
    assert "pass through float32" in " ".join(case["notes"])


def test_four_causes_are_found_together():
    parameters, gradients = draw_trial(1)
    left = OptimizerRule(
        "adam",
        {"learning_rate": 0.1, "beta1": 0.5, "beta2": 0.9, "epsilon": 1e-3},
        {"epsilon_form": "hat"},
    )
    right = OptimizerRule(
        "adam",
        {"learning_rate": 0.2, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8},
        {"epsilon_form": "outside"},
    )
    paths = [step_all(x, parameters, gradients) for x in (left, right)]
    case = compare_optimizers(left, right, *paths, parameters, gradients)
    assert set(case.causes) == {*left.settings, "epsilon_form"}
    assert case.together == 0


def test_a_path_that_diverges_is_compared():
    parameters, gradients = draw_trial()
    stays = OptimizerRule("sgd", {"learning_rate": 0.1})
    leaves = OptimizerRule("sgd", {"learning_rate": 1e300, "momentum": 1e30})
    paths = [step_all(x, parameters, gradients) for x in (stays, leaves)]
    assert not compare_optimizers(stays, leaves, *paths, parameters, gradients).equal
    assert compare_optimizers(
        leaves, leaves, paths[1], paths[1], parameters, gradients
    ).equal


def test_a_family_without_a_rule_raises():
    with pytest.raises(ValueError, match="no rule of the family 'other'"):
        step_all(OptimizerRule("other", {"learning_rate": 1.0}), {}, [{}])


def test_nothing_that_is_no_optimizer_is_taken_for_one():
    assert side_of_optimizer(3) is None
    assert side_of_optimizer(dict) is None
    assert side_of_optimizer(lambda parameters: parameters).name == "pytorch"
    assert side_of_optimizer(lambda: None).name == "keras"


def test_a_trial_is_the_same_each_time():
    one, other = draw_trial(3), draw_trial(3)
    assert all(np.array_equal(one[0][x], other[0][x]) for x in one[0])
    assert len(draw_trial(3, steps=5)[1]) == 5
    assert not np.array_equal(one[0]["kernel"], draw_trial(4)[0]["kernel"])


if __name__ == "__main__":
    child()
