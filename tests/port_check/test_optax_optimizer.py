"""Checks of optimizers of optax: rules by hand, right pairs, faults, mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import skip_without

from paripassu.core.errors import UserError
from paripassu.port_check.optimizer import check_optimizer
from paripassu.port_check.optimizer_verdict import compare_optimizers, draw_trial
from paripassu.sides.registry import side_of_optimizer

pytestmark = skip_without("pytorch", "jax")

FAMILIES = {
    "sgd": "o.chain(o.clip(0.3), o.add_decayed_weights(0.1), o.sgd(0.1, 0.9))",
    "nesterov": "o.sgd(o.exponential_decay(0.1, 4, 0.7), 0.9, nesterov=True)",
    "rate inside": "o.chain(o.scale(-0.1), o.trace(0.9))",
    "decoupled": "o.chain(o.sgd(0.1), o.add_decayed_weights(-0.01))",
    "maximize": "o.chain(o.scale_by_adam(), o.scale(0.1))",
    "adam": "o.adam(0.1, 0.8, 0.99, 1e-5, eps_root=1e-4)",
    "adamw": "o.inject_hyperparams(o.adamw)(o.linear_schedule(0, 0.1, 5))",
    "amsgrad": "o.amsgrad(0.1)",
    "nadam": "o.named_chain(('it', o.nadamw(0.1, weight_decay=0.1)))",
    "adamax": "o.adamaxw(0.1, eps=1e-5, weight_decay=0.1)",
    "rmsprop": "o.chain(o.clip_by_global_norm(1.5), o.rmsprop(0.1))",
    "centered": "o.rmsprop(0.1, centered=True, momentum=0.5, nesterov=True)",
    "adagrad": "o.adagrad(0.1)",
    "adadelta": "o.adadelta(1.0, weight_decay=0.1)",
    "own adam": "o.chain(jo.scale_by_adam_hat(0.9, 0.999, 1e-5), o.scale(-0.1))",
}
RIGHT = {
    "sgd": ("lambda p: t.SGD(p, 0.1, 0.9)", "o.sgd(0.1, 0.9)"),
    "adam": ("lambda p: t.Adam(p, 1e-3)", "o.adam(1e-3)"),
    "adamw": ("lambda p: t.AdamW(p, 1e-3)", "o.adamw(1e-3, weight_decay=1e-2)"),
    "adadelta": ("lambda p: t.Adadelta(p)", "o.adadelta(1.0, 0.9, 1e-6)"),
    "eps_root": (
        "lambda p: to.AdamRoot(p, 1e-3, (0.9, 0.999), 1e-8, 0.0, decoupled=False, "
        "epsilon_root=1e-6)",
        "o.adam(1e-3, eps_root=1e-6)",
    ),
    "nadam": ("lambda p: t.NAdam(p, 0.1, momentum_decay=1e9)", "o.nadam(0.1)"),
    "rmsprop": (
        "lambda p: t.RMSprop(p, 0.1)",
        "o.rmsprop(0.1, 0.99, eps_in_sqrt=False)",
    ),
    "schedule": (
        "lambda p: ladder(t.SGD(p, 0.1))",
        "o.sgd(o.exponential_decay(0.1, 4, 0.7, staircase=True))",
    ),
}
# Of each pair: the causes, and a word of what to write.
FAULTS = {
    "default decay": (
        "lambda p: t.AdamW(p)",
        "o.adamw(1e-3)",
        "weight_decay",
        "optax.add_decayed_weights(0.01)",
    ),
    "l2": (
        "lambda p: t.Adam(p, 1e-3, weight_decay=0.1)",
        "o.adamw(1e-3, weight_decay=0.1)",
        "decay_form",
        "optax.chain(optax.add_decayed_weights(0.1), ...)",
    ),
    "eps_root": (
        "lambda p: t.Adam(p)",
        "o.adam(1e-3, eps_root=1e-8)",
        "epsilon_root",
        "eps_root=0.0",
    ),
    "eps_root, the other way": (
        "o.adam(1e-3, eps_root=1e-8)",
        "lambda p: t.Adam(p)",
        "epsilon_root",
        "AdamRoot(..., epsilon_root=...)",
    ),
    "hat": (
        "o.chain(jo.scale_by_adam_hat(0.9, 0.999, 1e-8), o.scale(-1e-3))",
        "o.adam(1e-3)",
        "epsilon_form",
        "scale_by_adam_hat(b1, b2, 1e-08)",
    ),
    "rmsprop": (
        "lambda p: t.RMSprop(p, 0.1)",
        "o.rmsprop(0.1)",
        "rho epsilon_form",
        "eps_in_sqrt=False",
    ),
    "amsgrad": (
        "lambda p: t.Adam(p, 0.1, amsgrad=True)",
        "o.amsgrad(0.1)",
        "amsgrad_form",
        "optax.amsgrad takes it afterwards",
    ),
    "momentum": (
        "o.chain(o.scale_by_schedule(o.exponential_decay(-0.1, 4, 0.7)), o.trace(0.9))",
        "o.sgd(o.exponential_decay(0.1, 4, 0.7), 0.9)",
        "momentum_form",
        "optax.trace(0.9) behind optax.scale_by_learning_rate",
    ),
    "ladder": (
        "lambda p: ladder(t.SGD(p, 0.1))",
        "o.sgd(o.exponential_decay(0.1, 4, 0.7))",
        "learning_rate",
        "optax.exponential_decay(..., staircase=True)",
    ),
    "clip": (
        "o.chain(o.clip_by_global_norm(1.5), o.sgd(0.1))",
        "o.sgd(0.1)",
        "clip_global_norm",
        "optax.chain(optax.clip_by_global_norm(1.5), ...)",
    ),
}
OTHERS = {
    "another": ("o.lion(0.1)", "optax.scale_by_lion is not known here"),
    "masked": ("o.adamw(0.1, mask={x: x == 'bias' for x in NAMES})", "optax.masked"),
    "twice": ("o.chain(o.adam(0.1), o.adam(0.1))", "behind another rule"),
    "a user's": (
        "o.chain(o.stateless(lambda g, _: g), o.sgd(0.1))",
        "optax.stateless is not known here",
    ),
    "begins at 1": ("o.rmsprop(0.1, initial_scale=1.0)", "does not begin at 0"),
}
MISTAKES = {
    "raises": ("lambda: o.adam(1 / 0)", "ZeroDivisionError"),
    "its rate is missing": ("o.adam", "raised TypeError"),
    "a name": ("3", "an object of type int"),
}
NAMES = draw_trial()[0]


def made(code: str) -> Any:
    import optax
    import torch

    from paripassu.frameworks.jax import optimizers
    from paripassu.frameworks.pytorch import optimizers as torch_own

    def ladder(optimizer: Any) -> Any:
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.7)

    names = {"o": optax, "t": torch.optim, "jo": optimizers, "ladder": ladder}
    names["to"] = torch_own
    return eval(code, {**names, "NAMES": NAMES})


@pytest.mark.parametrize("name", FAMILIES)
def test_a_rule_by_hand_takes_the_same_steps(name: str) -> None:
    from paripassu.sides import optax_optimizer

    parameters, gradients = draw_trial()
    given = made(FAMILIES[name]), name, parameters, gradients
    rule, path = optax_optimizer.examine(*given)
    same = compare_optimizers(rule, rule, path, path, parameters, gradients)
    assert rule.family != "other", rule.because
    assert same.left.reproduced is not None
    assert same.left.reproduced <= 1e-12
    assert rule.name.startswith("optax.")
    # Red: a rule with another rate takes other steps.
    rates = np.multiply(rule.settings["learning_rate"], 1.001).tolist()
    wrong = rule.taking(["learning_rate"], type(rule)("", {"learning_rate": rates}))
    same = compare_optimizers(wrong, wrong, path, path, parameters, gradients)
    assert same.left.reproduced is not None
    assert same.left.reproduced > 1e-9


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_pair_passes(name: str) -> None:
    left, right = map(made, RIGHT[name])
    found = check_optimizer(left, right)
    assert found.equal, found
    assert not found.write


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_named(name: str) -> None:
    left, right, keys, word = FAULTS[name]
    found = check_optimizer(made(left), made(right))
    assert not found.equal
    assert set(found.causes) == set(keys.split()), found
    assert word in " ".join(found.write), found.write


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_known_is_compared_and_no_cause_named(name: str) -> None:
    code, said = OTHERS[name]
    found = check_optimizer(made("lambda p: t.SGD(p, 0.3)"), made(code))
    assert not found.equal
    assert not found.causes
    assert said in " ".join(found.notes), found.notes
    assert check_optimizer(made(code), made(code)).equal


@pytest.mark.parametrize("name", MISTAKES)
def test_a_users_mistake_is_told(name: str) -> None:
    from paripassu.sides import optax_optimizer

    code, said = MISTAKES[name]
    with pytest.raises(UserError, match=said):
        optax_optimizer.examine(made(code), "mine.py:make", *draw_trial())


def test_whose_a_function_is_shows_by_what_it_makes() -> None:
    import jax

    assert side_of_optimizer(made("lambda: o.adam(1e-3)")).name == "optax"  # type: ignore[union-attr]
    assert side_of_optimizer(made("o.adam")).name == "optax"  # type: ignore[union-attr]
    before = jax.config.jax_enable_x64
    check_optimizer(made("o.sgd(0.1)"), made("o.sgd(0.1)"), steps=1)
    assert jax.config.jax_enable_x64 == before
