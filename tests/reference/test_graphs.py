"""Networks of layers in the reference: gradients beside differences, statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from own_networks import ZOO, networks

from paripassu.core import draws
from paripassu.core.layer_spec import LayerSpec
from paripassu.core.recipe import Recipe, validate
from paripassu.core.steps import TwinStep
from paripassu.reference import layers
from paripassu.reference.losses import cross_entropy
from paripassu.reference.twin import Twin, backward, forward

STEP = 1e-6  # of a central difference: its error is some 1e-10 of the value


def gradients_beside_differences(recipe: Recipe, seed: int = 0) -> dict[str, float]:
    """Of each weight, how far its gradient is from what the loss does, relatively.

    The loss along one random direction of each array is compared, relative to the
    largest of all such slopes: one that is nearly 0 by chance says nothing.
    """
    network = recipe.architecture
    weights = draws.initial_weights(network, recipe)
    for name, array in weights.items():
        noise = draws.uniform(array.shape, seed, f"moved {name}") - 0.5
        weights[name] = array + 0.4 * noise
    count = 4
    images = 2 * draws.uniform((count, *network.input_shape), seed, "images") - 1
    labels = np.arange(count) % network.num_classes
    masks = draws.dropout_masks(network, recipe, count, 0, 0)

    def loss_of(weights: dict[str, Any]) -> float:
        last = forward(network, recipe, weights, images, masks)[-1].y
        return float(cross_entropy(last, labels)[0])

    calls = forward(network, recipe, weights, images, masks)
    found = backward(calls, cross_entropy(calls[-1].y, labels)[1])
    assert set(found) == {x.name for x in network.learned}
    slopes, gaps = {}, {}
    for weight in network.learned:
        name = weight.name
        way = 2 * draws.uniform(weight.shape, seed, f"way {name}") - 1
        high, low = (
            loss_of({**weights, name: weights[name] + sign * STEP * way})
            for sign in (1, -1)
        )
        slopes[name] = float((found[name] * way).sum())
        gaps[name] = abs(slopes[name] - (high - low) / (2 * STEP))
    largest = max(map(abs, slopes.values()))
    return {name: gap / largest for name, gap in gaps.items()}


@pytest.mark.parametrize("name", ZOO)
def test_gradients_of_every_kind(name):
    gaps = gradients_beside_differences(validate({**ZOO[name], "precision": "float64"}))
    assert max(gaps.values()) < 1e-6, gaps


@settings(max_examples=40)
@given(networks())
def test_gradients_of_any_network(table):
    gaps = gradients_beside_differences(validate(table))
    assert max(gaps.values()) < 1e-4, gaps  # a kink may lie within the difference


@pytest.mark.parametrize(
    "kind",
    [
        *("batch_norm", "group_norm", "add", "concatenate", "average_pool"),
        *("global_average_pool", "conv", "gelu", "silu"),
    ],
)
def test_a_wrong_gradient_is_seen(kind, monkeypatch):
    """So that the two tests above can fail: a twentieth too much of one kind."""
    table = layers.JOINS_BACKWARD if kind in layers.JOINS_BACKWARD else layers.BACKWARD
    right = table[kind]

    def wrong(*given: Any) -> Any:
        if table is layers.JOINS_BACKWARD:
            first, *others = right(*given)
            return [1.05 * first, *others]
        to_x, found = right(*given)
        return 1.05 * to_x, found

    monkeypatch.setitem(table, kind, wrong)
    gaps = [gradients_beside_differences(validate(x)) for x in ZOO.values()]
    assert max(max(x.values()) for x in gaps) > 1e-4


def test_running_statistics_move_by_the_biased_ones_of_the_batch():
    x = draws.uniform((5, 3, 2, 4), 0, "x")
    layer = LayerSpec("batch_norm", {"epsilon": 1e-5, "momentum": 0.75}, {})
    old = {"mean": np.arange(4.0), "variance": np.arange(4.0) + 1}
    new = layers.running_statistics(layer, x, old)
    for channel in range(4):
        values = [x[n, p, q, channel] for n, p, q in np.ndindex(5, 3, 2)]
        mean = sum(values) / 30
        variance = sum((v - mean) ** 2 for v in values) / 30
        found = 0.75 * old["mean"][channel] + 0.25 * mean
        assert new["mean"][channel] == pytest.approx(found, rel=1e-13)
        found = 0.75 * old["variance"][channel] + 0.25 * variance
        assert new["variance"][channel] == pytest.approx(found, rel=1e-13)


def test_a_step_moves_statistics_that_evaluation_then_uses():
    recipe = validate({**ZOO["residual"], "precision": "float64"})
    network = recipe.architecture
    weights = draws.initial_weights(network, recipe)
    twin = Twin(recipe, weights=weights, threads=1, device="cpu")
    images = draws.uniform((6, *network.input_shape), 0, "images")
    before = twin.evaluate(images)
    labels = np.arange(6)
    masks = draws.dropout_masks(network, recipe, 6, 0, 0)
    found = twin.step(TwinStep(images, labels, masks))
    kept = twin.state()
    stem = found["activation.stem"]
    expected = 0.1 * stem.mean((0, 1, 2))
    assert np.allclose(kept["weight.batch_norm1.mean"], expected, rtol=1e-12)
    assert not any(x.startswith("slot.batch_norm1.mean") for x in kept)
    assert "gradient.batch_norm1.mean" not in found
    after = twin.evaluate(images)
    assert np.abs(after["batch_norm1"] - before["batch_norm1"]).max() > 0.01
    again = twin.state()
    assert all(np.array_equal(kept[name], again[name]) for name in kept)
    # From the state, a twin goes on as the first one does.
    other = Twin(recipe, weights=weights, threads=1, device="cpu")
    other.load_state(kept, epoch=0, step=1)
    step = TwinStep(images[::-1], labels, masks)
    one, two = twin.step(step), other.step(step)
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_global_max_pool_shares_the_gradient_among_equal_maxima():
    x = np.array([[3.0, 1], [3, 3]]).reshape(1, 2, 2, 1)
    layer = LayerSpec("global_max_pool", {}, {})
    y = layers.FORWARD["global_max_pool"](layer, x)
    to_x, _ = layers.BACKWARD["global_max_pool"](layer, x, y, np.array([[6.0]]))
    assert to_x.reshape(2, 2).tolist() == [[2, 0], [2, 2]]


def test_average_pool_counts_what_is_inside():
    x = np.arange(9.0).reshape(1, 3, 3, 1)
    settings = {"size": (2, 2), "padding": ((0, 1), (0, 1)), "count_padding": False}
    layer = LayerSpec("average_pool", settings, {})
    y = layers.FORWARD["average_pool"](layer, x)
    assert y.reshape(2, 2).tolist() == [[2, 3.5], [6.5, 8]]
    to_x, _ = layers.BACKWARD["average_pool"](layer, x, y, np.full(y.shape, 4.0))
    assert to_x.reshape(3, 3).tolist() == [[1, 1, 2], [1, 1, 2], [2, 2, 4]]
