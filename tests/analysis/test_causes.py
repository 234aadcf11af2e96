"""Causes in an optimizer's steps, made by hand on the reference's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paripassu.analysis.proof.causes import GRADIENTS_ADD_UP, likely_cause
from paripassu.analysis.proof.parity import compare_traces, first_divergence
from paripassu.core import draws
from paripassu.core.recipe import Recipe, load
from paripassu.core.steps import TwinStep
from paripassu.reference.optimizers import OptimizerRule, rule_of, step_once
from paripassu.reference.twin import Twin

NAME = "dense1.kernel"
OPTIMIZERS = {
    "adadelta": {"kind": "adadelta"},
    "adam": {"kind": "adam", "learning_rate": 0.01},
    "rmsprop": {"kind": "rmsprop", "learning_rate": 0.01},
    "momentum": {"kind": "sgd", "momentum": 0.5},
}
FORGOTTEN = "the optimizer has forgotten its state of the step before"


def recipe_with(optimizer: str) -> Recipe:
    recipe = load("keras-example", ["precision=float64"])
    return recipe.changed(optimizer=OPTIMIZERS[optimizer])


def evidence(recipe: Recipe) -> dict[str, Any]:
    """Two steps of the reference on five images."""
    network = recipe.architecture
    weights = draws.initial_weights(network, recipe)
    twin = Twin(recipe, weights=weights, threads=1, device="cpu")
    images = np.random.default_rng(3).uniform(size=(5, 28, 28, 1)).astype(np.float32)
    found = {}
    for number in range(2):
        masks = draws.dropout_masks(network, recipe, 5, 0, number)
        arrays = twin.step(TwinStep(images, np.array([3, 1, 4, 1, 5]), masks))
        arrays |= twin.state()
        found |= {f"{number}.{name}": x for name, x in arrays.items()}
    return found


def stepped(
    rule: OptimizerRule, right: Any, gradient: Any, weight: Any, state: Any, step: int
) -> dict[str, Any]:
    """The evidence, with one weight and its slots after another step."""
    weights, states = step_once(
        *(rule, {NAME: weight}, {NAME: gradient}, {NAME: state}),
        rate=rule.learning_rate(step),
        step=step,
    )
    slots = {f"{step - 1}.slot.{NAME}.{k}": x for k, x in states[NAME].items()}
    return {**right, f"{step - 1}.weight.{NAME}": weights[NAME], **slots}


def cause_of(recipe: Recipe, right: Any, wrong: Any) -> str | None:
    rows = compare_traces("a", "b", right, wrong, network=recipe.architecture)
    found = first_divergence(rows)
    assert found
    return likely_cause(found, right, wrong, recipe=recipe, count=100)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_causes_between_two_steps(optimizer):
    recipe = recipe_with(optimizer)
    rule, right = rule_of(recipe.optimizer), evidence(recipe)
    first, second = (right[f"{n}.gradient.{NAME}"] for n in (0, 1))
    before, begin = right[f"0.weight.{NAME}"], f"0.slot.{NAME}."
    state = {k.removeprefix(begin): x for k, x in right.items() if k.startswith(begin)}
    assert state
    given = {
        GRADIENTS_ADD_UP: (first + second, state),
        FORGOTTEN: (second, {}),
        None: (1.5 * second, state),  # red: neither
    }
    for cause, (gradient, kept) in given.items():
        wrong = stepped(rule, right, gradient, before, kept, 2)
        assert cause_of(recipe, right, wrong) == cause
    same = stepped(rule, right, second, before, state, 2)
    assert all(np.array_equal(same[name], right[name]) for name in right)


@pytest.mark.parametrize(
    ("optimizer", "changes", "cause"),
    [
        ("adadelta", {"rho": 0.95}, "rho is 0.95, and the recipe says 0.9"),
        ("adadelta", {"epsilon": 1e-7}, "epsilon is 1e-07, and the recipe says 1e-06"),
        ("rmsprop", {"rho": 0.99}, "rho is 0.99, and the recipe says 0.9"),
        (
            "momentum",
            {"learning_rate": 0.02},
            "the step is 2 times the right one: another rate",
        ),
        (
            "momentum",
            {"weight_decay": 0.1, "decay_form": "decoupled"},
            "weights decay: by 0.001 of themselves a step",
        ),
        (
            "rmsprop",
            {"weight_decay": 0.001, "decay_form": "l2"},
            "weight decay of 0.001 is in the gradient",
        ),
    ],
)
def test_the_causes_in_one_step(optimizer, changes, cause):
    recipe = recipe_with(optimizer)
    rule, right = rule_of(recipe.optimizer), evidence(recipe)
    settings = {k: x for k, x in changes.items() if not k.endswith("form")}
    forms = {k: x for k, x in changes.items() if k.endswith("form")}
    other = OptimizerRule(
        rule.family, {**rule.settings, **settings}, {**rule.forms, **forms}
    )
    before = draws.initial_weights(recipe.architecture, recipe)[NAME]
    wrong = stepped(other, right, right[f"0.gradient.{NAME}"], before, {}, 1)
    assert cause_of(recipe, right, wrong) == cause
