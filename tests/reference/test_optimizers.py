"""Rules of optimizers and schedules, by hand; the frameworks' own are elsewhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paripassu.core.recipe import SGD, Adadelta, Adam, Decay, Recipe, RMSprop
from paripassu.reference.optimizers import (
    OptimizerRule,
    State,
    learning_rate,
    rule_of,
    step_all,
    step_once,
)


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


def test_sgd_by_hand():
    found = descend(SGD(kind="sgd"), [0.5, -2.0, 0.0, 4.0], [0.25] * 4, start=1.0)
    assert found == [0.875, 1.375, 1.375, 0.375]


def test_adadelta_by_hand():
    # rho 3/4 and epsilon 3 keep the mean square of these gradients at 1, and
    # sqrt(1 + epsilon) at 2. Mean squares of updates, before each step:
    # 0; 3/4 * 0 + 1/4 * 3 = 0.75; 3/4 * 0.75 + 1/4 * 3.75/4 = 0.796875.
    chosen = Adadelta(kind="adadelta", rho=0.75, epsilon=3.0)
    first = 10 - 0.5 * math.sqrt(0 + 3) / 2 * 2
    second = first - 0.5 * math.sqrt(0.75 + 3) / 2 * 1
    third = second + 0.5 * math.sqrt(0.796875 + 3) / 2 * 1
    found = descend(chosen, [2.0, 1.0, -1.0], [0.5] * 3, start=10.0)
    assert found == pytest.approx([first, second, third], rel=1e-15)


def test_adadelta_of_the_article_by_hand():
    found = descend(Adadelta(kind="adadelta"), [1.0, -0.5], [1.0, 1.0])
    first = 1e-3 / math.sqrt(0.1 + 1e-6)
    square_update = 0.1 * 1e-6 / (0.1 + 1e-6)
    second = (
        0.5 * math.sqrt(square_update + 1e-6) / math.sqrt(0.9 * 0.1 + 0.1 * 0.25 + 1e-6)
    )
    assert found == pytest.approx([-first, second - first], rel=1e-14)


def test_a_gradient_of_zero_moves_nothing():
    found = descend(Adadelta(kind="adadelta"), [0.0, 0.0], [1.0, 1.0], start=2.0)
    assert found == [2.0, 2.0]


LINEAR = Decay(shape="linear", interval=14.0, warm_up=4.0, unit="step")


@pytest.mark.parametrize(
    ("decay", "epoch", "step", "expected"),
    [
        (Decay(), 0, 0, 0.5),
        (Decay(), 0, 937, 0.5),  # within the epoch nothing changes
        (Decay(), 1, 938, 0.5 * 0.7),
        (Decay(), 9, 9379, 0.5 * 0.7**9),
        (Decay(interval=2.0), 3, 2814, 0.5 * 0.7**1.5),
        (Decay(factor=0.5, interval=4.0, unit="step"), 1, 0, 0.5),
        (Decay(factor=0.5, interval=4.0, unit="step"), 0, 4, 0.25),
        (Decay(factor=0.5, interval=4.0, unit="step"), 0, 2, 0.5 * math.sqrt(0.5)),
        (Decay(factor=1.0), 7, 6566, 0.5),
        (LINEAR, 0, 0, 0.5 * 1 / 4),
        (LINEAR, 0, 3, 0.5),
        (LINEAR, 0, 4, 0.5),
        (LINEAR, 1, 9, 0.5 * 5 / 10),
        (LINEAR, 1, 13, 0.5 * 1 / 10),
        (LINEAR, 2, 20, 0.0),
        (Decay(shape="linear", interval=4.0), 1, 900, 0.5 * 3 / 4),
    ],
)
def test_learning_rate(decay, epoch, step, expected):
    optimizer = {"kind": "sgd", "learning_rate": 0.5}
    recipe = Recipe().changed(optimizer=optimizer, decay=decay.model_dump())
    found = learning_rate(recipe, epoch=epoch, step=step)
    assert found == pytest.approx(expected, rel=1e-15)


def followed(family, settings, forms, gradients, rates):
    """The weight after each step of a rule, from 0."""
    rule = OptimizerRule(family, {**settings, "learning_rate": rates}, forms)
    given = [{"w": np.array([x])} for x in gradients]
    return [float(x["w"][0]) for x in step_all(rule, {"w": np.zeros(1)}, given)]


def test_forms_that_optax_alone_has_by_hand():
    # Adam's first step, of the gradient 3: 3 / (√(9 + 16) + 1).
    adam = {"beta1": 0.0, "beta2": 0.75, "epsilon": 1.0, "epsilon_root": 16.0}
    outside = {"epsilon_form": "outside"}
    assert followed("adam", adam, outside, [3.0], [1.0]) == pytest.approx([-0.5])
    # Mean squares of 2 and 1 are 1 and 1, corrected 4 and 16/7: the largest is kept.
    amsgrad = {"beta1": 0.0, "beta2": 0.75, "epsilon": 0.0, "amsgrad": True}
    for form, second in (("corrected", 1 / 2), ("raw", math.sqrt(7) / 4)):
        forms = {**outside, "amsgrad_form": form}
        found = followed("adam", amsgrad, forms, [2.0, 1.0], [1.0, 1.0])
        assert found == pytest.approx([-1, -1 - second], rel=1e-15)
    # RMSprop's parts are 1 and 1/2 (see above); the momentum 1/2 looks ahead.
    rms = {"rho": 0.75, "epsilon": 2.0, "momentum": 0.5, "nesterov": True}
    for form, last in (("rate_outside", -2.0), ("rate_inside", -2.125)):
        forms = {**outside, "momentum_form": form}
        found = followed("rmsprop", rms, forms, [4.0, 2.0], [1.0, 0.5])
        assert found == [-1.5, last]
