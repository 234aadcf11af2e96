"""Smoothed labels, cosines, bounds, means and Nadam, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import slopes
from hypothesis import given
from hypothesis import strategies as st

from paripassu.core import draws
from paripassu.core.errors import UserError
from paripassu.core.recipe import Decay, Nadam, Recipe, load, validate
from paripassu.core.steps import TwinStep, accuracies
from paripassu.reference.losses import cross_entropy, log_softmax, loss_of
from paripassu.reference.optimizers import (
    average,
    product_of_momentums,
    rule_of,
    share_of_rate,
    share_on_plateau,
    step_all,
    step_once,
)
from paripassu.reference.twin import Twin

RANDOM = np.random.default_rng(5)


# Smoothed labels


@given(st.integers(1, 5), st.integers(2, 6), st.floats(0, 0.99))
def test_smoothed_labels_are_distributions(count, classes, smoothing) -> None:
    logits = RANDOM.normal(size=(count, classes))
    labels = RANDOM.integers(0, classes, count)
    q = np.full((count, classes), smoothing / classes)
    q[np.arange(count), labels] += 1 - smoothing
    expected = -(q * log_softmax(logits)).sum(1).mean()
    loss, gradient = cross_entropy(logits, labels, smoothing)
    assert loss == pytest.approx(expected, rel=1e-12)
    found = slopes(lambda: float(cross_entropy(logits, labels, smoothing)[0]), logits)
    np.testing.assert_allclose(gradient, found, atol=1e-7)


def test_the_recipe_says_which_loss() -> None:
    logits, labels = RANDOM.normal(size=(3, 10)), np.array([1, 2, 3])
    smoothed = loss_of(Recipe(label_smoothing=0.3))(logits, labels)[0]
    assert smoothed == cross_entropy(logits, labels, 0.3)[0]
    assert loss_of(Recipe())(logits, labels)[0] == cross_entropy(logits, labels)[0]
    assert smoothed != cross_entropy(logits, labels)[0]
    with pytest.raises(UserError, match="label_smoothing belongs to a loss on logits"):
        load("article-tensorflow-notebook", ["label_smoothing=0.1"])


# Schedules


def test_a_cosine_falls_by_half_a_cosine() -> None:
    decay = Decay(shape="cosine", interval=10.0, final=0.2)
    shares = [share_of_rate(decay, x) for x in range(14)]
    expected = [0.2 + 0.8 * (1 + math.cos(math.pi * x / 10)) / 2 for x in range(11)]
    assert shares == pytest.approx([*expected, 0.2, 0.2, 0.2], rel=1e-14)
    warm = Decay(shape="cosine", interval=10.0, warm_up=4.0)
    assert [share_of_rate(warm, x) for x in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert share_of_rate(warm, 7) == pytest.approx(0.5)
    assert share_of_rate(warm, 10) == 0


def test_one_cycle_is_pytorchs() -> None:
    """`OneCycleLR(total_steps=21, pct_start=0.3, div_factor=20, final_div_factor=50)`.

    Its formula by hand: from one rate to the other by
    end + (start - end) / 2 * (1 + cos(pi * share)).
    """
    total, begun, end = 21, 0.3, 1 / 20 / 50
    last_up, last = begun * total - 1, total - 1
    decay = Decay(
        shape="one_cycle", interval=last, warm_up=last_up, start=1 / 20, final=end
    )

    def by_hand(step: float) -> float:
        low, share = 1 / 20, step / last_up
        start, stop = low, 1.0
        if step > last_up:
            start, stop, share = 1.0, end, (step - last_up) / (last - last_up)
        return stop + (start - stop) / 2 * (1 + math.cos(math.pi * share))

    found = [share_of_rate(decay, x) for x in range(total)]
    assert found == pytest.approx([by_hand(x) for x in range(total)], rel=1e-12)
    assert found[0] == pytest.approx(1 / 20)
    assert found[-1] == pytest.approx(end)


@given(
    st.integers(1, 4),
    st.sampled_from([0.0, 0.3]),
    st.lists(st.integers(0, 9).map(lambda x: x / 10), max_size=30),
)
def test_the_rate_falls_after_waiting(patience, final, seen) -> None:
    """By its definition: a wait ends where its last epochs were not above the best."""
    decay = Decay(shape="plateau", factor=0.5, patience=patience, final=final)
    since, share = 0, 1.0
    for epoch, accuracy in enumerate(seen):
        if accuracy > max(seen[:epoch], default=-1.0):
            since = epoch + 1
        elif epoch + 1 - since == patience:
            since, share = epoch + 1, max(share / 2, final)
    assert share_on_plateau(decay, seen) == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_invented_accuracies_tell_one_patience_from_the_next(patience) -> None:
    seen = accuracies(8 * patience + 8, patience)
    assert seen[:5] == accuracies(5, patience)
    shares = {
        x: [
            share_on_plateau(Decay(shape="plateau", patience=x), seen[:epoch])
            for epoch in range(len(seen))
        ]
        for x in (patience, patience + 1)
    }
    assert shares[patience][patience + 1] == 0.7  # it falls as soon as it can
    assert shares[patience][: patience + 1] == [1.0] * (patience + 1)
    assert shares[patience] != shares[patience + 1]
    assert shares[patience][-1] < 0.7


def test_a_rate_does_not_follow_the_test_images() -> None:
    table = {"decay": {"shape": "plateau"}}
    with pytest.raises(UserError, match="must not follow those of the test images"):
        validate(table)
    assert validate({**table, "validation_size": 600}).decay.patience == 3


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"patience": 2}, "decay.patience belongs to a plateau"),
        (
            {"shape": "plateau", "unit": "step"},
            "decay.unit: a plateau is one of epochs",
        ),
        ({"shape": "plateau", "factor": 1.0}, "decay.factor: expected less than 1"),
        ({"shape": "plateau", "warm_up": 1.0}, "neither warm_up nor interval"),
        ({"shape": "plateau", "interval": 2.0}, "neither warm_up nor interval"),
        ({"shape": "plateau", "start": 0.1}, "decay.start belongs to one cycle"),
        (
            {"shape": "one_cycle", "interval": 9.0},
            "decay.warm_up: expected more than 0",
        ),
        ({"shape": "cosine", "warm_up": 1.0}, "less than interval = 1, got 1"),
        ({"shape": "linear", "final": 0.1}, "decay.final belongs to a cosine"),
        ({"shape": "cosine", "start": 0.1}, "decay.start belongs to one cycle"),
        ({"warm_up": 0.5}, "decay.warm_up belongs to a linear decay"),
        ({"shape": "cosin"}, "decay.shape: expected"),
    ],
)
def test_what_contradicts_itself_is_refused(table, words) -> None:
    with pytest.raises(UserError) as caught:
        validate({"decay": table})
    assert words in str(caught.value)


# Nadam


def nadam_by_hand(gradients: list[float], chosen: Nadam) -> float:
    """Dozat's algorithm with PyTorch's momentums, a number at a time."""
    weight = mean = square = 0.0
    product = 1.0
    for step, gradient in enumerate(gradients, start=1):
        now, ahead = (
            chosen.beta1 * (1 - 0.96 ** (x * chosen.momentum_decay) / 2)
            for x in (step, step + 1)
        )
        product *= now
        mean = chosen.beta1 * mean + (1 - chosen.beta1) * gradient
        square = chosen.beta2 * square + (1 - chosen.beta2) * gradient**2
        root = math.sqrt(square / (1 - chosen.beta2**step)) + chosen.epsilon
        weight -= chosen.learning_rate * (1 - now) / (1 - product) * gradient / root
        weight -= chosen.learning_rate * ahead / (1 - product * ahead) * mean / root
    return weight


@pytest.mark.parametrize("slower", [0.004, 1.0])
def test_nadam_by_hand(slower) -> None:
    chosen = Nadam(kind="nadam", momentum_decay=slower)
    gradients = [0.3, -0.2, 0.7, 0.05]
    given_ones = [{"w": np.array([x])} for x in gradients]
    path = step_all(rule_of(chosen), {"w": np.zeros(1)}, given_ones)
    # `step_all` takes the rate of the rule.
    assert path[-1]["w"][0] == pytest.approx(
        nadam_by_hand(gradients, chosen), rel=1e-12
    )
    other = nadam_by_hand(gradients, chosen.model_copy(update={"momentum_decay": 0.5}))
    assert path[-1]["w"][0] != pytest.approx(other, rel=1e-6)
    known = [chosen.beta1 * (1 - 0.5 * 0.96 ** (x * slower)) for x in (1, 2, 3)]
    assert product_of_momentums(chosen, 3) == pytest.approx(math.prod(known), rel=1e-15)
    assert product_of_momentums(chosen, 0) == 1


# The bound and the mean


def test_the_norm_of_all_gradients_is_bound() -> None:
    chosen = Recipe(optimizer={"kind": "sgd", "learning_rate": 1.0}).optimizer
    weights = {"a": np.zeros(2), "b": np.zeros(1)}
    gradients = {"a": np.array([2.0, 4.0]), "b": np.array([4.0])}  # of norm 6
    states = {"a": {}, "b": {}}

    def moved(bound: float) -> list[float]:
        rule = rule_of(chosen, bound)
        found, _ = step_once(rule, weights, gradients, states, rate=1.0, step=1)
        return [*found["a"], *found["b"]]

    assert moved(3.0) == [-1.0, -2.0, -2.0]
    assert moved(6.5) == moved(0.0) == [-2.0, -4.0, -4.0]


def test_a_mean_begins_with_the_first_weights_and_follows() -> None:
    first = average({"w": {}}, {"w": np.array([4.0])}, 0.75)
    assert first["w"]["average"] == [4.0]
    second = average(first, {"w": np.array([0.0])}, 0.75)
    assert second["w"]["average"] == [3.0]


def test_the_reference_evaluates_the_mean_and_steps_from_the_weights() -> None:
    recipe = load("keras-example", ["average_decay=0.5", "dropout={dropout1=0.0}"])
    weights = draws.initial_weights(recipe.architecture, recipe)
    images = RANDOM.normal(size=(4, 28, 28, 1)).astype(np.float32)
    step = TwinStep(images, np.arange(4), {"dropout1": np.ones((4, 1600), np.bool_)})

    def twin(**changes) -> Twin:
        own = recipe.changed(**changes)
        return Twin(own, weights=weights, threads=1, device="cpu")

    mean, plain = twin(), twin(average_decay=0.0)
    losses = [(mean.advance(step), plain.advance(step)) for _ in range(3)]
    assert all(one == other for one, other in losses)
    assert (mean.logits(images) != plain.logits(images)).any()
    state = mean.state()
    means = {f"weight.{name}": state[f"slot.{name}.average"] for name in weights}
    plain.load_state({**plain.state(), **means}, epoch=0, step=3)
    np.testing.assert_array_equal(mean.logits(images), plain.logits(images))
    # Gone on with from its state, it ends at the same.
    other = twin()
    other.load_state(state, epoch=0, step=3)
    mean.advance(step)
    other.advance(step)
    for name, array in mean.state().items():
        np.testing.assert_array_equal(array, other.state()[name])


def test_hashes_of_recipes_without_them_stay() -> None:
    plain = Recipe()
    assert plain.hash() == load("article").hash()
    for field, value in (
        ("label_smoothing", 0.1),
        ("clip_global_norm", 1.0),
        ("average_decay", 0.9),
    ):
        assert plain.changed(**{field: value}).hash() != plain.hash()
    shaped = plain.changed(decay={"shape": "cosine", "interval": 5.0})
    assert (
        shaped.hash()
        != shaped.changed(
            decay={"shape": "cosine", "interval": 5.0, "final": 0.1}
        ).hash()
    )
