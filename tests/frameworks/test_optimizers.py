"""Every form of every optimizer: the reference by hand, and the twins against it.

Run as a script, `test_optimizers.py FRAMEWORK`, it trains every form in that framework
and in the reference, and writes what it found: PyTorch and TensorFlow may not share a
process.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paripassu.core import datasets, draws, networks
from paripassu.core.recipe import SGD, Adam, Recipe, RMSprop, validate
from paripassu.core.steps import Arrays, TwinStep
from paripassu.frameworks.contract import Twin
from paripassu.frameworks.registry import FRAMEWORKS, REFERENCE
from paripassu.processes.launch import worker_environment
from paripassu.reference.optimizers import State, rule_of, step_once

NETWORK = networks.ARTICLE
STEPS, KEPT = 5, 2  # steps of a training, and after how many its state is kept
BOUND = 1e-12  # relative to the largest number of an array

# Cases: weight decay and epsilon are large enough for their forms to show

DECAYS: dict[str, dict[str, Any]] = {
    "": {},
    ", l2": {"weight_decay": 0.1, "weight_decay_form": "l2"},
    ", decoupled": {"weight_decay": 0.1, "weight_decay_form": "decoupled"},
}
FORMS: dict[str, dict[str, Any]] = {
    "adadelta": {"kind": "adadelta"},
    "rmsprop outside": {"kind": "rmsprop", "epsilon_form": "outside"},
    "rmsprop inside": {"kind": "rmsprop", "epsilon_form": "inside"},
}
for decay, constants in DECAYS.items():
    FORMS[f"sgd{decay}"] = {"kind": "sgd", **constants}
    for form in ("rate_outside", "rate_inside"):
        FORMS[f"sgd {form}{decay}"] = {
            "kind": "sgd",
            "momentum": 0.9,
            "momentum_form": form,
            **constants,
        }
    for form in ("outside", "hat"):
        FORMS[f"adam {form}{decay}"] = {
            "kind": "adam",
            "epsilon_form": form,
            **constants,
        }
SCALES = {
    "adadelta": {"learning_rate": 1.0},
    "sgd": {"learning_rate": 0.1},
    "adam": {"learning_rate": 0.01, "epsilon": 1e-3},
    "rmsprop": {"learning_rate": 0.01, "epsilon": 1e-3},
}
SLOTS = {
    "adadelta": {"square_gradient", "square_update"},
    "sgd": {"velocity"},
    "adam": {"mean_gradient", "square_gradient"},
    "rmsprop": {"square_gradient"},
}
SAVED = ("sgd rate_outside, l2", "adam outside, l2", "rmsprop outside")


def recipe_of(form: str) -> Recipe:
    optimizer = {**SCALES[FORMS[form]["kind"]], **FORMS[form]}
    return validate(
        {
            "precision": "float64",
            "batch_size": 4,
            "optimizer": optimizer,
            "decay": {"factor": 0.7, "interval": 2.0, "unit": "step"},
        }
    )


# In the process of one framework


@cache
def given_steps() -> list[TwinStep]:
    recipe = recipe_of("sgd")
    data = datasets.prepare(datasets.load(), mean=0.1307, std=0.3081).training
    order = draws.batches(recipe, len(data.labels), 0)[:STEPS]
    return [
        TwinStep(
            images=data.images[rows],
            labels=data.labels[rows],
            masks=draws.dropout_masks(NETWORK, recipe, len(rows), 0, number),
        )
        for number, rows in enumerate(order)
    ]


def train(twin: Twin, first: int = 0) -> tuple[Arrays, Arrays]:
    """The state after `KEPT` steps, and after all."""
    kept: Arrays = {}
    for number, step in enumerate(given_steps()[first:], first):
        if number == KEPT:
            kept = twin.state()
        twin.advance(step)
    return kept, twin.state()


def weights_of(state: Arrays) -> Arrays:
    return {name: x for name, x in state.items() if name.startswith("weight.")}


def gap(ours: Arrays, theirs: Arrays) -> float:
    """The largest difference, relative to the largest number of its array."""
    assert ours.keys() == theirs.keys()
    return max(
        float(np.abs(ours[name] - theirs[name]).max() / np.abs(theirs[name]).max())
        for name in theirs
    )


def examine(name: str) -> dict[str, Any]:
    weights = draws.initial_weights(NETWORK, recipe_of("sgd"))
    options: dict[str, Any] = {"weights": weights, "threads": 1, "device": "cpu"}
    right = {
        form: train(REFERENCE.make_twin(recipe_of(form), **options)) for form in FORMS
    }
    found = {}
    for form in FORMS:
        twin: Any = FRAMEWORKS[name].make_twin(recipe_of(form), **options)
        kept, ends = train(twin)
        twin.load_state(kept, epoch=0, step=KEPT)
        twin.trainer.load_state(twin.trainer.state())  # as a checkpoint does
        _, resumed = train(twin, KEPT)
        found[form] = {
            "slots": sorted(set(ends) - set(weights_of(ends))),
            "kept": gap(kept, right[form][0]),
            "ends": gap(ends, right[form][1]),
            "resumed": gap(resumed, ends),
            "others": {
                other: gap(weights_of(ends), weights_of(right[other][1]))
                for other in FORMS
                if FORMS[other]["kind"] == FORMS[form]["kind"]
            },
        }
        if (name, form) == ("tensorflow", "adadelta"):
            twin = FRAMEWORKS[name].make_twin(recipe_of(form), **options)
            del twin.network.optimizer.update_step  # Keras's own is left
            found[form]["own"] = gap(train(twin)[1], right[form][1])
        if form in SAVED:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / twin.trainer.MODEL_FILE
                twin.trainer.save(path)
                twin.trainer.load(path)
            found[form]["saved"] = gap(
                twin.trainer.weights(),
                {
                    key.removeprefix("weight."): x
                    for key, x in weights_of(resumed).items()
                },
            )
    return found


# The frameworks against the reference


@pytest.fixture(scope="module")
def findings(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], dict[str, Any]]]:
    """A function of the framework; each runs once, in its process, at one time."""
    folder = tmp_path_factory.mktemp("optimizers")
    children = {}
    for name, framework in FRAMEWORKS.items():
        if framework.problem is None:
            with (folder / name).open("w") as out, (folder / "log").open("a") as log:
                children[name] = subprocess.Popen(
                    [sys.executable, __file__, name],
                    stdout=out,
                    stderr=log,
                    env=worker_environment(1),
                )

    @cache
    def read(name: str) -> dict[str, Any]:
        if problem := FRAMEWORKS[name].problem:
            pytest.skip(problem)
        code = children[name].wait()
        assert code == 0, (folder / "log").read_text()[-4000:]
        found: dict[str, Any] = json.loads((folder / name).read_text())
        return found

    yield read
    for child in children.values():
        child.kill()
        child.wait()


every_form = pytest.mark.parametrize(
    ("name", "form"), [(name, form) for name in FRAMEWORKS for form in FORMS]
)


@every_form
def test_every_form_is_that_of_the_reference(findings, name, form):
    found = findings(name)[form]
    print(f"{name}, {form}: {found['kept']:.1e}, {found['ends']:.1e}")
    assert found["kept"] < BOUND
    assert found["ends"] < BOUND


def test_one_pass_takes_the_steps_of_kerass_own_adadelta(findings):
    """The lesson's optimizer composes its step; runs take it in one operation."""
    assert findings("tensorflow")["adadelta"]["own"] < BOUND


@every_form
def test_slots_have_the_names_of_the_reference(findings, name, form):
    chosen = FORMS[form]
    plain = chosen["kind"] == "sgd" and "momentum" not in chosen
    slots = set() if plain else SLOTS[chosen["kind"]]
    assert findings(name)[form]["slots"] == sorted(
        f"slot.{weight.name}.{slot}" for weight in NETWORK.weights for slot in slots
    )


@every_form
def test_a_resumed_twin_ends_where_an_uninterrupted_one_does(findings, name, form):
    assert findings(name)[form]["resumed"] == 0


@every_form
def test_another_form_is_another_training(findings, name, form):
    """Red: with the reference in another form, the comparison fails clearly."""
    others = findings(name)[form]["others"]
    # Without momentum, both forms of weight decay are one.
    same = {"sgd, l2", "sgd, decoupled"}
    same = same if form in same else {form}
    assert {other for other, gap in others.items() if gap < 1e6 * BOUND} == same


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize("form", SAVED)
def test_a_model_with_an_optimizer_of_ours_is_saved_and_loaded(findings, name, form):
    assert findings(name)[form]["saved"] == 0


# The reference by hand


def descend(
    chosen: Any, gradients: list[float], rates: list[float], start: float = 0.0
) -> list[float]:
    """The weights after each gradient."""
    weights: dict[str, npt.NDArray[np.float64]] = {"w": np.array([start])}
    states: dict[str, State] = {"w": {}}
    rule, found = rule_of(chosen), []
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        before = weights["w"].copy()
        given = {"w": np.array([gradient])}
        moved, states = step_once(rule, weights, given, states, rate=rate, step=step)
        assert np.array_equal(weights["w"], before)  # nothing in place
        weights = moved
        found.append(float(weights["w"][0]))
    return found


def test_momentum_by_hand():
    # Gradients 1, 0, 0: all movement after the first step is the velocity's. The rate
    # is halved each time: outside slows the velocity, inside does not.
    gradients, rates = [1.0, 0.0, 0.0], [1.0, 0.5, 0.25]
    outside = SGD(kind="sgd", momentum=0.5)
    inside = SGD(kind="sgd", momentum=0.5, momentum_form="rate_inside")
    assert descend(outside, gradients, rates) == [-1, -1.25, -1.3125]
    assert descend(inside, gradients, rates) == [-1, -1.5, -1.75]


def test_forms_of_momentum_are_one_at_a_constant_rate():
    gradients, rates = [0.3, -2.0, 0.7, 1.1], [0.1] * 4
    outside = SGD(kind="sgd", momentum=0.9)
    inside = SGD(kind="sgd", momentum=0.9, momentum_form="rate_inside")
    assert descend(outside, gradients, rates) == pytest.approx(
        descend(inside, gradients, rates), rel=1e-14
    )


def test_weight_decay_by_hand():
    # From 4, without gradients, rate 1/2 and decay 1/4. Decoupled: times 7/8 each step.
    # In the gradient, with momentum 1/2: velocities 1 and 1/2 + 3.5/4 = 1.375.
    for kept, expected in (
        ({}, [3.5, 3.0625]),
        ({"weight_decay_form": "decoupled"}, [3.5, 3.0625]),
        ({"momentum": 0.5}, [3.5, 2.8125]),
        ({"momentum": 0.5, "weight_decay_form": "decoupled"}, [3.5, 3.0625]),
    ):
        chosen = SGD(kind="sgd", weight_decay=0.25, **kept)
        assert descend(chosen, [0.0, 0.0], [0.5, 0.5], start=4.0) == expected


def test_decoupled_decay_comes_before_the_step():
    # 4 - 1/2 * 1/4 * 4 = 3.5, then 3.5 - 1/2 * 1; the other order gives 3.0625.
    chosen = SGD(kind="sgd", weight_decay=0.25, weight_decay_form="decoupled")
    assert descend(chosen, [1.0], [0.5], start=4.0) == [3.0]


@pytest.mark.parametrize("gradient", [3.0, -1e-6])
def test_adams_first_step_in_closed_form(gradient):
    # Corrected, the first means are the gradient and its square.
    outside = Adam(kind="adam", epsilon=1e-6)
    expected = -0.1 * gradient / (abs(gradient) + 1e-6)
    assert descend(outside, [gradient], [0.1]) == pytest.approx([expected], rel=1e-13)
    hat = Adam(kind="adam", epsilon=1e-6, epsilon_form="hat")
    expected = -0.1 * gradient / (abs(gradient) + 1e-6 / math.sqrt(1 - 0.999))
    assert descend(hat, [gradient], [0.1]) == pytest.approx([expected], rel=1e-13)


def test_adams_second_step_by_hand():
    # beta1 1/2, beta2 3/4: means of the gradients 2, -4 are 1, -1.5 and 1, 4.75;
    # corrections 1/2, 3/4 and 1/4, 7/16.
    first, mean, square = -1 * 2 / (2 + 1), -1.5 / 0.75, 4.75 / 0.4375
    chosen = Adam(kind="adam", beta1=0.5, beta2=0.75, epsilon=1.0)
    assert descend(chosen, [2.0, -4.0], [1.0, 0.5]) == pytest.approx(
        [first, first - 0.5 * mean / (math.sqrt(square) + 1)], rel=1e-15
    )
    hat = chosen.model_copy(update={"epsilon_form": "hat"})
    first = -1 * 1 / (1 + 1)  # sqrt(1/4) / (1/2) is 1
    second = 0.5 * math.sqrt(0.4375) / 0.75 * -1.5 / (math.sqrt(4.75) + 1)
    assert descend(hat, [2.0, -4.0], [1.0, 0.5]) == pytest.approx(
        [first, first - second], rel=1e-15
    )


def test_weight_decay_of_adam_by_hand():
    # In the gradient, Adam makes a full step of any decay; decoupled, a share of it.
    l2 = Adam(kind="adam", epsilon=1e-300, weight_decay=0.01)
    assert descend(l2, [0.0], [0.5], start=4.0) == pytest.approx([3.5], rel=1e-14)
    apart = l2.model_copy(update={"weight_decay_form": "decoupled"})
    assert descend(apart, [0.0], [0.5], start=4.0) == pytest.approx([3.98], rel=1e-14)


def test_rmsprop_by_hand():
    # rho 3/4: the mean squares of the gradients 4, 2 are 4 and 3 + 1 = 4.
    gradients, rates = [4.0, 2.0], [1.0, 0.5]
    outside = RMSprop(kind="rmsprop", rho=0.75, epsilon=2.0)
    assert descend(outside, gradients, rates) == [-1, -1.25]
    inside = RMSprop(kind="rmsprop", rho=0.75, epsilon=5.0, epsilon_form="inside")
    assert descend(inside, gradients, rates) == pytest.approx(
        [-4 / 3, -4 / 3 - 1 / 3], rel=1e-15
    )


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a framework prints
    json.dump(examine(sys.argv[1]), answers)
    answers.close()
