"""The setting by which two layers part is found by trying, in no framework."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import random

from paripassu.core.layer_spec import LayerSpec, relative_error
from paripassu.port_check import causes
from paripassu.reference import layers

KERNEL, BIAS = random(3, 3, 4, 6), random(6, seed=1)
NORM = {"gamma": random(4, seed=2), "beta": random(4, seed=3)}
GRU = {
    "kernel": random(4, 15, seed=4),
    "recurrent": random(5, 15, seed=5),
    "input_bias": random(15, seed=6),
    "recurrent_bias": random(15, seed=7),
}
LSTM = {"kernel": random(4, 20), "recurrent": random(5, 20), "bias": random(20)}
IMAGE, STEPS = random(2, 9, 8, 4, seed=8), random(2, 7, 4, seed=9)


def conv(**settings: Any) -> LayerSpec:
    return LayerSpec("conv", settings, {"kernel": KERNEL, "bias": BIAS})


def norm(kind: str = "layer_norm", **settings: Any) -> LayerSpec:
    return LayerSpec(kind, {"epsilon": 0.1, **settings}, NORM)


def of_kind(kind: str, **settings: Any) -> LayerSpec:
    return LayerSpec(kind, settings)


# left, right, the input of both, the key, and what the sentence says
CASES = {
    "padding": (conv(padding=((1, 1), (1, 1))), conv(), IMAGE, "padding", "left ((1"),
    "same": (
        conv(strides=(2, 2), padding=((1, 1), (1, 1))),
        conv(strides=(2, 2), padding="same"),
        IMAGE,
        "padding",
        "right same",
    ),
    "strides": (conv(strides=(2, 2)), conv(), IMAGE, "strides", "left (2, 2)"),
    "padding mode": (
        conv(padding=((1, 1), (1, 1)), padding_mode="reflect"),
        conv(padding=((1, 1), (1, 1))),
        IMAGE,
        "padding",
        "left reflect, right zeros",
    ),
    "bias": (
        conv(),
        LayerSpec("conv", {}, {"kernel": KERNEL}),
        IMAGE,
        "bias-missing",
        "bias: left has one, right has none",
    ),
    "epsilon": (norm(), norm(epsilon=0.2), STEPS, "epsilon", "left 0.1, right 0.2"),
    "norm": (norm(), norm("group_norm", groups=2), STEPS, "axis", "layer_norm"),
    "activation": (
        of_kind("gelu"),
        of_kind("relu"),
        STEPS,
        "activation-kind",
        "kind: left gelu, right relu",
    ),
    "gelu": (
        of_kind("gelu"),
        of_kind("gelu", approximate=True),
        STEPS,
        "gelu-form",
        "left False, right True",
    ),
    "pool": (
        of_kind("max_pool", size=(2, 2)),
        of_kind("average_pool", size=(2, 2)),
        IMAGE,
        "pool-kind",
        "max_pool",
    ),
    "pool padding": (
        of_kind("average_pool", size=(3, 3), padding="same"),
        of_kind("average_pool", size=(3, 3), padding="same", count_padding=False),
        IMAGE,
        "pool-padding",
        "padding counted",
    ),
    "reset after": (
        LayerSpec("gru", {"reset_after": True}, GRU),
        LayerSpec("gru", {"reset_after": False}, GRU),
        STEPS,
        "reset-after",
        "left True, right False",
    ),
    "direction": (
        LayerSpec("lstm", {"reverse": True}, LSTM),
        LayerSpec("lstm", {}, LSTM),
        STEPS,
        "direction",
        "left True, right False",
    ),
    "two settings": (
        conv(strides=(2, 1), dilation=(1, 2)),
        conv(strides=(1, 1), dilation=(1, 1)),
        IMAGE,
        "strides",
        "; dilation: left (1, 2)",
    ),
}


def cause_of(left: LayerSpec, right: LayerSpec, x: Any) -> Any:
    wanted, got = (layers.apply(spec, [x]) for spec in (left, right))
    return causes.of_layer([left], [right], [x], wanted, got)


@pytest.mark.parametrize("case", CASES)
def test_the_setting_by_which_two_layers_part(case):
    left, right, x, key, words = CASES[case]
    found = cause_of(left, right, x)
    assert found.key == key
    assert words in found.sentence
    assert found.after is not None
    assert found.after < 1e-12


def test_what_differs_and_makes_no_difference_is_no_cause():
    left, right = norm(momentum=0.9, axes=1), norm(momentum=0.8, axes=1, epsilon=0.3)
    assert causes.differences([left], [right]) == ["epsilon", "momentum"]
    assert cause_of(left, right, STEPS).sentence == "epsilon: left 0.1, right 0.3"
    assert cause_of(left, left, STEPS) is None
    same = of_kind("softmax", axis=3), of_kind("softmax", axis=-1, _kept=1)
    assert causes.differences([same[0]], [same[1]]) == []


def test_a_layer_that_does_something_else_than_it_says_has_no_cause():
    left, right = conv(padding="same", groups=1), conv(groups=2, strides=(2, 2))
    wanted = layers.apply(left, [IMAGE])
    assert causes.of_layer([left], [right], [IMAGE], wanted, wanted + 1) is None


def test_two_directions_and_two_layers_by_hand():
    forth, back = (
        LayerSpec("lstm", {}, LSTM),
        LayerSpec("lstm", {"reverse": True}, LSTM),
    )
    both = np.concatenate([layers.apply(x, [STEPS]) for x in (forth, back)], axis=-1)
    found = causes.compute([forth, back], [STEPS], causes.Shape((2,)))
    assert np.array_equal(found, both)
    summed = [forth, back.changed(merge="sum")]
    found = causes.compute(summed, [STEPS], causes.Shape((2,)))
    assert relative_error(found, both[..., :5] + both[..., 5:]) < 1e-15
    above = LayerSpec("rnn", {}, {"kernel": random(10, 3), "recurrent": random(3, 3)})
    found = causes.compute([forth, back, above], [STEPS], causes.Shape((2, 1)))
    assert np.array_equal(found, layers.apply(above, [both]))
