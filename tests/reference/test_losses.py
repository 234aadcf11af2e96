"""Losses and the softmax against closed forms, exact sums and finite differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers import cross_entropy_by_hand, random, slopes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from paripassu.core.layer_spec import LayerSpec
from paripassu.reference import layers
from paripassu.reference.losses import (
    LOSSES,
    cross_entropy,
    cross_entropy_of_probabilities,
    log_softmax,
    softmax,
)

numbers = st.floats(-500, 500)


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Logits of some images, and a label for each."""
    size = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    logits = draw(arrays(np.float64, size, elements=numbers))
    labels = draw(arrays(np.int64, size[0], elements=st.integers(0, size[1] - 1)))
    return logits, labels


def test_logarithms_of_probabilities_cost_minus_themselves():
    p = np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]])
    found = loss_of(np.log(p), np.array([1, 0]))
    assert found == pytest.approx((2 + 3) * math.log(2) / 2, rel=1e-14)


def test_answers_in_float32_are_computed_in_float64():
    """In float32 the sum of these would be rounded to 1, and the loss to 0."""
    logits = np.array([[0.0, -20.0]], np.float32)
    assert np.float32(1) + np.exp(np.float32(-20)) == 1
    expected = math.log1p(math.exp(-20))
    assert loss_of(logits, np.array([0])) == pytest.approx(expected, rel=1e-6)


@given(answers())
def test_any_answers_against_exact_sums(given_answers):
    logits, labels = given_answers
    found = loss_of(logits, labels)
    expected = cross_entropy_by_hand(logits.tolist(), labels.tolist())
    if np.ptp(logits) < 700:  # beyond, the sum by hand is cut
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-13)
    assert found >= 0


@given(answers(), st.floats(-100, 100))
def test_a_constant_for_all_classes_changes_nothing(given_answers, constant):
    logits, labels = given_answers
    found = loss_of(logits + constant, labels)
    assert found == pytest.approx(loss_of(logits, labels), rel=1e-10, abs=1e-10)


def test_nan_is_not_hidden():
    assert math.isnan(loss_of(np.array([[0.0, np.nan]]), np.array([0])))


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_of_the_loss_against_differences(name):
    loss, labels = LOSSES[name], np.array([0, 4, 2, 2])
    given_to_it = 3 * random(4, 5)
    if name == "cross_entropy_on_probabilities":
        given_to_it = 0.6 + 0.5 * random(4, 5)  # 0.1 to 1.1; none need add up to 1
    _, gradient = loss(given_to_it, labels)
    found = slopes(lambda: float(loss(given_to_it, labels)[0]), given_to_it, 1e-5)
    # h**2 / 6 times a third derivative, below 0.1 of logits and below 2 / 0.2**3 / 4
    # of probabilities, and eps / h: below 1e-9.
    assert np.abs(found - gradient).max() < 2e-9


def test_uniform_logits_cost_log_10():
    for level in (0.0, -7.5, 1000.0):
        loss, gradient = cross_entropy(np.full((4, 10), level), np.array([0, 3, 9, 9]))
        assert loss.shape == ()
        assert float(loss) == pytest.approx(math.log(10), rel=1e-15)
        expected = (0.1 - np.eye(10)[[0, 3, 9, 9]]) / 4
        assert np.abs(gradient - expected).max() < 1e-16


def test_loss_of_two_classes_in_closed_form():
    loss, gradient = cross_entropy(np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 0]))
    right, wrong = math.log1p(math.exp(-1)), 3 + math.log1p(math.exp(-3))
    assert float(loss) == pytest.approx((right + wrong) / 2, rel=1e-15)
    p = 1 / (1 + math.exp(1)), 1 / (1 + math.exp(-3))  # of class 1
    expected = np.array([[-p[0], p[0]], [-p[1], p[1]]]) / 2
    assert np.abs(gradient - expected).max() < 1e-16


def test_huge_logits_do_not_overflow():
    logits = np.array([[1000.0, 0.0, -1000.0]] * 3)
    losses = [float(cross_entropy(logits[:1], np.array([k]))[0]) for k in range(3)]
    assert losses == [0, 1000, 2000]
    loss, gradient = cross_entropy(logits, np.array([0, 1, 2]))
    assert float(loss) == 1000
    assert (gradient * 3).tolist() == [[0, 0, 0], [1, -1, 0], [1, 0, -1]]


def test_uniform_probabilities_cost_log_10():
    labels = np.array([0, 3, 9, 9])
    loss, gradient = cross_entropy_of_probabilities(np.full((4, 10), 0.1), labels)
    assert loss.shape == ()
    assert float(loss) == pytest.approx(math.log(10), rel=1e-15)
    assert np.array_equal(gradient, -10 * np.eye(10)[labels] / 4)


def test_loss_of_probabilities_in_closed_form():
    p = np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75], [0.0, 0.0, 1.0]])
    loss, gradient = cross_entropy_of_probabilities(p, np.array([1, 0, 2]))
    assert float(loss) == pytest.approx((2 + 3 + 0) * math.log(2) / 3, rel=1e-15)
    expected = np.array([[0, -4, 0], [-8, 0, 0], [0, 0, -1]]) / 3
    assert np.abs(gradient - expected).max() < 1e-15


def test_both_losses_are_one_through_the_softmax():
    logits, labels = 5 * random(6, 10), np.arange(6)
    y = softmax(logits)
    loss, gradient = cross_entropy_of_probabilities(y, labels)
    spec = LayerSpec("softmax")
    to_logits, _ = layers.BACKWARD["softmax"](spec, logits, y, gradient)
    expected, expected_gradient = cross_entropy(logits, labels)
    assert float(loss) == pytest.approx(float(expected), rel=1e-14)
    assert np.abs(to_logits - expected_gradient).max() < 1e-15
    # Red: with the softmax applied twice they are not.
    twice, _ = cross_entropy(y, labels)
    assert abs(float(twice) - float(expected)) > 0.1


def test_a_second_softmax_keeps_the_loss_up():
    """Of probabilities that could not be better, 1 and nine times 0, and of worse."""
    best, worst = np.eye(10)[:1], np.eye(10)[1:2]
    floor = math.log(math.e + 9) - 1
    assert floor == pytest.approx(1.4612, abs=1e-4)
    labels = np.array([0])
    assert float(cross_entropy(best, labels)[0]) == pytest.approx(floor, rel=1e-15)
    assert float(cross_entropy(worst, labels)[0]) == pytest.approx(1 + floor, rel=1e-15)


def loss_of(logits: Any, labels: Any) -> float:
    return float(cross_entropy(logits, labels)[0])


def test_log_softmax_is_the_logarithm_where_there_is_one():
    logits = 3 * random(4, 5)
    for axis in (0, 1):
        expected = np.log(softmax(logits, axis))
        assert np.abs(log_softmax(logits, axis) - expected).max() < 1e-14
    huge = log_softmax(np.array([0.0, -1e4]))
    assert huge.tolist() == [0, -1e4]  # where the probability is 0
