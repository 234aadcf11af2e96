"""Every form of every optimizer: the reference by hand, and the twins against it.

Run as a script, `test_optimizers.py FRAMEWORK`, it trains every form in that framework
and in the reference, and writes what it found: PyTorch and TensorFlow may not share a
process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest

from paripassu.core import datasets, draws, networks
from paripassu.core.recipe import Recipe, validate
from paripassu.core.steps import Arrays, TwinStep
from paripassu.frameworks.contract import Twin
from paripassu.frameworks.registry import FRAMEWORKS, REFERENCE
from paripassu.processes.launch import worker_environment

NETWORK = networks.KERAS_EXAMPLE  # the one with the fewest weights
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
FORMS["adam root, decoupled"] = {
    "kind": "adam",
    "epsilon_root": 1e-3,
    **DECAYS[", decoupled"],
}
for slower in (0.004, 1.0):
    FORMS[f"nadam {slower}"] = {"kind": "nadam", "momentum_decay": slower}
SCALES = {
    "nadam": {"learning_rate": 0.01, "epsilon": 1e-3},
    "adadelta": {"learning_rate": 1.0},
    "sgd": {"learning_rate": 0.1},
    "adam": {"learning_rate": 0.01, "epsilon": 1e-3},
    "rmsprop": {"learning_rate": 0.01, "epsilon": 1e-3},
}
SLOTS = {
    "nadam": {"mean_gradient", "square_gradient"},
    "adadelta": {"square_gradient", "square_update"},
    "sgd": {"velocity"},
    "adam": {"mean_gradient", "square_gradient"},
    "rmsprop": {"square_gradient"},
}


def recipe_of(form: str) -> Recipe:
    optimizer = {**SCALES[FORMS[form]["kind"]], **FORMS[form]}
    return validate(
        {
            "network": NETWORK.name,
            "dropout": {"dropout1": 0.5},
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
    return found


# The frameworks against the reference


@cache
def findings(name: str) -> dict[str, Any]:
    """What a framework's own process, started once, finds of every form."""
    if problem := FRAMEWORKS[name].problem:
        pytest.skip(problem)
    done = subprocess.run(
        [sys.executable, __file__, name],
        capture_output=True,
        text=True,
        env=worker_environment(1),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


every_form = pytest.mark.parametrize(
    ("name", "form"),
    [
        # The first shows most faults soon; the others take their time.
        pytest.param(name, form, marks=[pytest.mark.slow] if number else [])
        for number, name in enumerate(FRAMEWORKS)
        for form in FORMS
    ],
)


@every_form
def test_every_form_is_that_of_the_reference(name, form):
    found = findings(name)[form]
    print(f"{name}, {form}: {found['kept']:.1e}, {found['ends']:.1e}")
    assert found["kept"] < BOUND
    assert found["ends"] < BOUND


@pytest.mark.slow
def test_one_pass_takes_the_steps_of_kerass_own_adadelta():
    """The lesson's optimizer composes its step; runs take it in one operation."""
    assert findings("tensorflow")["adadelta"]["own"] < BOUND


@every_form
def test_slots_have_the_names_of_the_reference(name, form):
    chosen = FORMS[form]
    plain = chosen["kind"] == "sgd" and "momentum" not in chosen
    slots = set() if plain else SLOTS[chosen["kind"]]
    assert findings(name)[form]["slots"] == sorted(
        f"slot.{weight.name}.{slot}" for weight in NETWORK.weights for slot in slots
    )


@every_form
def test_a_resumed_twin_ends_where_an_uninterrupted_one_does(name, form):
    assert findings(name)[form]["resumed"] == 0


@every_form
def test_another_form_is_another_training(name, form):
    """Red: with the reference in another form, the comparison fails clearly."""
    others = findings(name)[form]["others"]
    # Without momentum, both forms of weight decay are one.
    same = {"sgd, l2", "sgd, decoupled"}
    same = same if form in same else {form}
    assert {other for other, gap in others.items() if gap < 1e6 * BOUND} == same


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a framework prints
    json.dump(examine(sys.argv[1]), answers)
    answers.close()
