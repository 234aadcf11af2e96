"""Networks of tables: shapes inferred, written and read back, and refused clearly."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import numpy as np
import pytest
from helpers import type_here
from hypothesis import given, settings
from hypothesis import strategies as st
from own_networks import ZOO, networks

from paripassu.core import draws
from paripassu.core.architecture import IMAGES
from paripassu.core.errors import UserError
from paripassu.core.layer_tables import KINDS, RESERVED
from paripassu.core.networks import NETWORKS
from paripassu.core.recipe import Recipe, load, parse, validate
from paripassu.reference.twin import forward

DENSE = {"kind": "dense", "units": 3}
CONV = {"kind": "conv", "channels": 4}


def recipe(*layers: dict[str, Any], shape: tuple[int, ...] = (8, 6, 2)) -> Recipe:
    return validate({"input_shape": list(shape), "layers": list(layers)})


def refusal(*layers: Any, **more: Any) -> str:
    table = {"input_shape": [8, 6, 2], "layers": list(layers), **more}
    with pytest.raises(UserError) as refused:
        validate(table)
    return str(refused.value)


@given(networks())
def test_shapes_are_those_that_come_out(table):
    """Each layer's, by the reference, which knows nothing of them beforehand."""
    own = validate(table)
    network = own.architecture
    weights = draws.initial_weights(network, own)
    images = draws.uniform((3, *network.input_shape), 0, "images")
    calls = forward(network, own, weights, images, None)
    assert [x.layer.name for x in calls] == [x.name for x in network.layers]
    assert [x.y.shape[1:] for x in calls] == [x.output_shape for x in network.layers]
    assert calls[-1].y.shape == (3, network.num_classes)
    assert network.parameter_count == sum(
        weights[x.name].size for x in network.weights if x.learned
    )


@given(networks())
def test_a_recipe_is_what_its_text_and_its_record_say(table):
    own = validate(table)
    for back in (
        parse(own.to_toml()),
        validate(json.loads(own.model_dump_json())),
        own.changed(),
        validate(own.model_dump()),
    ):
        assert back == own
        assert back.hash() == own.hash()
        assert back.architecture == own.architecture
    assert not own.differing(json.loads(own.model_dump_json()))


def test_the_networks_of_the_book_are_such_graphs():
    for network in NETWORKS.values():
        names = [IMAGES, *(x.name for x in network.layers)]
        for place, layer in enumerate(network.layers):
            assert layer.inputs == (names[place],)
        softmax = network.with_softmax().layers[-1]
        assert softmax.inputs == (names[-1],)


def test_the_zoo_has_every_kind():
    kinds = {x["kind"] for table in ZOO.values() for x in table["layers"]}
    assert kinds == set(KINDS)


def test_names_count_within_a_kind():
    own = recipe(CONV, {"kind": "relu"}, CONV, {"kind": "flatten"}, DENSE)
    names = [x.name for x in own.architecture.layers]
    assert names == ["conv1", "relu1", "conv2", "flatten1", "dense1"]


def test_another_layer_is_another_hash_and_defaults_may_be_left_out():
    plain = recipe(CONV, {"kind": "flatten"}, DENSE)
    said = {"name": "conv1", "kernel": 3, "stride": 1, "padding": "valid", "groups": 1}
    assert recipe({**CONV, **said}, {"kind": "flatten"}, DENSE).hash() == plain.hash()
    for more in ({"kernel": 2}, {"stride": 2}, {"padding": "same"}, {"bias": False}):
        other = recipe({**CONV, **more}, {"kind": "flatten"}, DENSE)
        assert other.hash() != plain.hash()
    assert recipe(CONV, {"kind": "flatten"}, DENSE, shape=(8, 6, 1)) != plain


def test_a_rate_stands_in_the_layer_or_in_dropout():
    layers = [{"kind": "flatten"}, {"kind": "dropout", "rate": 0.25}, DENSE]
    own = recipe(*layers)
    assert own.dropout == {"dropout1": 0.25}
    del layers[1]["rate"]
    table = {"input_shape": [8, 6, 2], "layers": layers, "dropout": {"dropout1": 0.25}}
    assert validate(table) == own
    assert own.changed(dropout={"dropout1": 0.5}).dropout == {"dropout1": 0.5}
    said = refusal(*layers)
    assert "dropout: expected a rate for each of dropout1" in said
    layers[1]["rate"] = 0.5
    table = {**table, "layers": layers}
    with pytest.raises(UserError, match=r"rate is 0\.5 here and 0\.25 in"):
        validate(table)


def test_set_reaches_into_a_layer(tmp_path):
    path = tmp_path / "own.toml"
    layers = [CONV, {"kind": "flatten"}, {"kind": "dropout", "rate": 0.25}, DENSE]
    path.write_text(recipe(*layers).to_toml())
    changed = load(path, ["layers.conv1.channels=7", "layers.dropout1.rate=0.5"])
    assert changed.architecture.layer("conv1").output_shape[-1] == 7
    assert changed.dropout == {"dropout1": 0.5}
    with pytest.raises(UserError, match=r"no layer 'conv2'.*Did you mean conv1"):
        load(path, ["layers.conv2.channels=7"])


FLAT = {"kind": "flatten"}
# What is wrong, and the words that must be in what is said of it.
WRONG = {
    "unknown kind": ([{"kind": "convv"}], ["the 1st", "Did you mean conv?"]),
    "no kind": ([{"channels": 3}], ["kind", "it has none"]),
    "no table": (["conv"], ["the 1st: expected a table", "'conv'"]),
    "unknown setting": (
        [{**CONV, "strides": 2}],
        ["conv1 (the 1st, of kind conv)", "'strides'", "Did you mean stride?"],
    ),
    "missing": ([{"kind": "conv"}], ["channels is missing"]),
    "wrong type": ([{**CONV, "channels": "4"}], ["channels: expected a whole", "'4'"]),
    "wrong size": (
        [{**CONV, "kernel": [3, 3, 3]}],
        ["kernel: expected a whole number"],
    ),
    "wrong padding": ([{**CONV, "padding": "full"}], ["'valid', 'same'", "'full'"]),
    "same name": (
        [{**CONV, "name": "a"}, {**CONV, "name": "a"}],
        ["a (the 2nd)", "name = ..."],
    ),
    "taken name": ([{**CONV, "name": "forward"}], ["forward", "Choose another"]),
    "bad name": ([{**CONV, "name": "Conv 1"}], ["small letters"]),
    "unknown input": (
        [CONV, {"kind": "relu", "inputs": ["conv"]}],
        ["relu1", "no layer 'conv'", "Did you mean conv1?"],
    ),
    "later input": (
        [CONV, {"kind": "relu", "inputs": ["dense1"]}, FLAT, DENSE],
        ["dense1 stands behind relu1"],
    ),
    "itself": ([{"kind": "relu", "inputs": ["relu1"]}], ["no layer 'relu1'"]),
    "two for one": (
        [CONV, {"kind": "relu"}, {**CONV, "inputs": ["conv1", "relu1"]}],
        ["conv2", "takes one layer", "'add'"],
    ),
    "one for two": (
        [CONV, {"kind": "add", "inputs": ["conv1"]}],
        ["add1", "two layers or more"],
    ),
    "none for two": ([CONV, {"kind": "add"}], ["add1", "inputs is missing"]),
    "sum of two shapes": (
        [
            {**CONV, "padding": "same"},
            {**CONV, "padding": "same", "stride": 2},
            {"kind": "add", "inputs": ["conv1", "conv2"]},
        ],
        ["add1", "conv1 of (8, 6, 4)", "conv2 of (4, 3, 4)", "stride"],
    ),
    "joined, two heights": (
        [
            {**CONV, "padding": "same"},
            {"kind": "max_pool"},
            {"kind": "concatenate", "inputs": ["conv1", "max_pool1"]},
        ],
        ["concatenate1", "(8, 6, 4)", "(4, 3, 4)", "same height and width"],
    ),
    "dense on an image": ([CONV, DENSE], ["dense1", "(6, 4, 4)", "'flatten'"]),
    "conv on a vector": ([FLAT, CONV], ["conv1", "(96,)", "flatten1"]),
    "kernel too large": ([{**CONV, "kernel": 9}], ["conv1", "(8, 6, 2)", "(9, 9)"]),
    "pool too large": (
        [{"kind": "max_pool", "size": 7}],
        ["max_pool1", "(8, 6, 2)", "(7, 7)"],
    ),
    "pool all border": (
        [{"kind": "max_pool", "size": 2, "padding": 2}],
        ["max_pool1", "more than half"],
    ),
    "groups": ([{**CONV, "groups": 3}], ["conv1", "groups = 3", "(8, 6, 2)"]),
    "groups of a norm": (
        [CONV, {"kind": "group_norm", "groups": 3}],
        ["group_norm1", "groups = 3", "(6, 4, 4)"],
    ),
    "groups of a vector": (
        [FLAT, {"kind": "group_norm", "groups": 2}, DENSE],
        ["group_norm1", "(8, 6, 2)", "before the flatten"],
    ),
    "stride and dilation": ([{**CONV, "stride": 2, "dilation": 2}], ["dilation"]),
    "ends in an image": ([CONV], ["conv1, the last one", "(6, 4, 4)", "dense"]),
    "one class": ([FLAT, {"kind": "dense", "units": 1}], ["dense1", "(1,)"]),
    "taken by nothing": (
        [CONV, {"kind": "relu"}, {"kind": "flatten", "inputs": ["conv1"]}, DENSE],
        ["nothing takes what relu1 gives", "(6, 4, 4)"],
    ),
    "learns nothing": (
        [{"kind": "global_average_pool"}],
        ["none of them learns"],
    ),
    "a bias for nothing": (
        [CONV, {"kind": "batch_norm"}, FLAT, DENSE],
        ["conv1.bias", "batch_norm1", "bias = false for conv1"],
    ),
    "a bias for nothing, through a pool": (
        [CONV, {"kind": "max_pool"}, {"kind": "batch_norm"}, FLAT, DENSE],
        ["conv1.bias", "batch_norm1"],
    ),
    "a beta for nothing": (
        [{"kind": "batch_norm"}, {**CONV, "bias": False}, {"kind": "batch_norm"}],
        ["batch_norm1.beta", "batch_norm2", "activation between"],
    ),
    "vectors in two orders": (
        [
            FLAT,
            {"kind": "flatten", "inputs": ["input"]},
            {"kind": "concatenate", "inputs": ["flatten1", "flatten2"]},
            DENSE,
        ],
        ["concatenate1", "flattened image (8, 6, 2)", "before the flatten"],
    ),
    "connections": ([{**CONV, "connections": [[0], [1], [2], [0]]}], ["0 to 1", "[2]"]),
    "too large": (
        [FLAT, {"kind": "dense", "units": 100_000}, {"kind": "dense", "units": 99_999}],
        ["dense2", "2,147,483,648"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_and_said(name):
    layers, words = WRONG[name]
    if name in ("a beta for nothing", "unknown input", "stride and dilation"):
        layers = [*layers, FLAT, DENSE]
    said = refusal(*layers)
    assert said.startswith("recipe: layers: ")
    for word in words:
        assert word in said, said


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"layers": [FLAT, DENSE]}, "input_shape is missing"),
        ({"layers": []}, "at least one layer"),
        ({"layers": 3, "input_shape": [2, 2, 1]}, "expected a list of tables"),
        ({"layers": [FLAT, DENSE], "input_shape": [8, 6]}, "input_shape"),
        ({"layers": [FLAT, DENSE], "input_shape": [8, 6, 0]}, "input_shape"),
        ({"network": "layers"}, r"expected its \[\[layers\]\]"),
        ({"network": "fast", "layers": [FLAT], "input_shape": [2, 2, 1]}, "Leave one"),
        ({"input_shape": [32, 32, 3]}, r"takes \[28, 28, 1\], got \[32, 32, 3\]"),
        (
            {"layers": [FLAT, DENSE], "input_shape": [8, 6, 2], "dropout": {"a": 0.5}},
            "dropout: expected none",
        ),
    ],
)
def test_what_contradicts_the_layers_is_refused(table, words):
    if "input_shape" not in table and table.get("layers") == []:
        table["input_shape"] = [8, 6, 2]
    with pytest.raises(UserError, match=words):
        validate(table)


settings_of_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x),
    max_leaves=4,
)


@settings(max_examples=150)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["kind", "name", "inputs", "channels", "padding", "rate"])
            | st.text(max_size=4),
            st.sampled_from([*KINDS, "input"]) | settings_of_anything,
        ),
        max_size=3,
    )
    | settings_of_anything
)
def test_anything_is_a_recipe_or_is_refused(layers):
    table = {"input_shape": [8, 6, 2], "layers": layers}
    with contextlib.suppress(UserError):  # and nothing else
        validate(table)


def test_a_bias_that_does_something_may_stay():
    """A ReLU, a border of zeros, or another way keeps it alive."""
    norm, relu = {"kind": "batch_norm"}, {"kind": "relu"}
    recipe(CONV, relu, norm, FLAT, DENSE)
    recipe(CONV, {**CONV, "padding": 1, "bias": False}, norm, FLAT, DENSE)
    recipe(
        {**CONV, "padding": "same"},
        norm,
        {"kind": "add", "inputs": ["conv1", "batch_norm1"]},
        FLAT,
        DENSE,
    )
    recipe(CONV, {"kind": "layer_norm"}, FLAT, DENSE)
    recipe(CONV, {"kind": "group_norm", "groups": 2}, FLAT, DENSE)
    said = refusal(CONV, {"kind": "group_norm", "groups": 4}, FLAT, DENSE)
    assert "conv1.bias" in said


def test_biases_that_are_refused_have_no_gradient():
    """The rule by what it is for: with batch norm behind, the loss does not move."""
    from paripassu.core.layer_spec import LayerSpec
    from paripassu.reference import layers as reference

    x = draws.uniform((5, 4, 4, 3), 0, "x")
    norm = LayerSpec("batch_norm", {"epsilon": 1e-5}, {})
    moved = x + np.array([1.0, -2.0, 3.0])
    one, other = (reference.apply(norm, [each]) for each in (x, moved))
    assert np.abs(one - other).max() < 1e-12


def test_initial_weights_of_norms_and_groups():
    own = recipe(
        {**CONV, "groups": 2, "bias": False},
        {"kind": "batch_norm"},
        {"kind": "depthwise_conv", "kernel": 2, "multiplier": 3},
        {"kind": "global_max_pool"},
        DENSE,
    ).changed(initializer={"kernel": "fan_in_uniform", "bias": "fan_in_uniform"})
    weights = draws.initial_weights(own.architecture, own)
    for part, start in {"gamma": 1, "beta": 0, "mean": 0, "variance": 1}.items():
        assert (weights[f"batch_norm1.{part}"] == start).all()
    kernel = weights["conv1.kernel"]
    assert kernel.shape == (3, 3, 1, 4)
    assert 0.8 / 3 < np.abs(kernel).max() <= 1 / 3
    depthwise = weights["depthwise_conv1.kernel"]
    assert depthwise.shape == (2, 2, 1, 12)
    assert 0.8 / 2 < np.abs(depthwise).max() <= 1 / 2
    count = kernel.size + 8 + depthwise.size + 12 + 12 * 3 + 3
    assert own.architecture.parameter_count == count
    h, w, _ = own.architecture.layer("conv1").output_shape
    assert own.architecture.layer("conv1").flops == 2 * h * w * math.prod((3, 3, 1, 4))


def test_the_command_shows_an_own_network(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(recipe(CONV, FLAT, DENSE).to_toml())
    done = type_here("recipes", "show", path)
    assert done.returncode == 0, done.stderr
    assert parse(done.stdout) == load(path)
    words = ("code", path, "-f", "pytorch", "--set", "layers.conv1.kernel=99")
    done = type_here(*words)
    assert done.returncode == 2
    assert "(8, 6, 2)" in done.stderr


def test_reserved_names_are_words_of_python_too():
    import keyword

    words = {x for x in keyword.kwlist if x.islower()}
    assert words <= RESERVED
