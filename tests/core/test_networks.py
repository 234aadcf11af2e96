"""The architectures, held against tables written by hand."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from paripassu.core.networks import (
    ARTICLE,
    KERAS_EXAMPLE,
    LENET5,
    NETWORKS,
    Weight,
)
from paripassu.core.recipe import Recipe, load

LAYERS = {
    "article": [
        ("conv1", "conv", (26, 26, 32)),
        ("relu1", "relu", (26, 26, 32)),
        ("conv2", "conv", (24, 24, 64)),
        ("pool", "max_pool", (12, 12, 64)),
        ("relu2", "relu", (12, 12, 64)),
        ("dropout1", "dropout", (12, 12, 64)),
        ("flatten", "flatten", (9216,)),
        ("dense1", "dense", (128,)),
        ("relu3", "relu", (128,)),
        ("dropout2", "dropout", (128,)),
        ("dense2", "dense", (10,)),
    ],
    "keras-example": [
        ("conv1", "conv", (26, 26, 32)),
        ("pool1", "max_pool", (13, 13, 32)),
        ("relu1", "relu", (13, 13, 32)),
        ("conv2", "conv", (11, 11, 64)),
        ("pool2", "max_pool", (5, 5, 64)),
        ("relu2", "relu", (5, 5, 64)),
        ("flatten", "flatten", (1600,)),
        ("dropout1", "dropout", (1600,)),
        ("dense1", "dense", (10,)),
    ],
    "fast": [
        ("conv1", "conv", (24, 24, 24)),
        ("pool1", "max_pool", (12, 12, 24)),
        ("relu1", "relu", (12, 12, 24)),
        ("conv2", "conv", (10, 10, 32)),
        ("pool2", "max_pool", (5, 5, 32)),
        ("relu2", "relu", (5, 5, 32)),
        ("flatten", "flatten", (800,)),
        ("dense1", "dense", (256,)),
        ("relu3", "relu", (256,)),
        ("dense2", "dense", (10,)),
    ],
    # In the paper's words: C1, S2, C3, S4, C5, F6 and the output.
    "lenet5": [
        ("pad", "pad", (32, 32, 1)),
        ("conv1", "conv", (28, 28, 6)),
        ("tanh1", "tanh", (28, 28, 6)),
        ("subsample1", "subsample", (14, 14, 6)),
        ("tanh2", "tanh", (14, 14, 6)),
        ("conv2", "conv", (10, 10, 16)),
        ("tanh3", "tanh", (10, 10, 16)),
        ("subsample2", "subsample", (5, 5, 16)),
        ("tanh4", "tanh", (5, 5, 16)),
        ("conv3", "conv", (1, 1, 120)),
        ("tanh5", "tanh", (1, 1, 120)),
        ("flatten", "flatten", (120,)),
        ("dense1", "dense", (84,)),
        ("tanh6", "tanh", (84,)),
        ("dense2", "dense", (10,)),
    ],
}
WEIGHTS = {
    "article": [
        ("conv1.kernel", (3, 3, 1, 32), "h w i o", 9, 288),
        ("conv1.bias", (32,), "o", 9, 288),
        ("conv2.kernel", (3, 3, 32, 64), "h w i o", 288, 576),
        ("conv2.bias", (64,), "o", 288, 576),
        ("dense1.kernel", (9216, 128), "(h w c) o", 9216, 128),
        ("dense1.bias", (128,), "o", 9216, 128),
        ("dense2.kernel", (128, 10), "i o", 128, 10),
        ("dense2.bias", (10,), "o", 128, 10),
    ],
    "keras-example": [
        ("conv1.kernel", (3, 3, 1, 32), "h w i o", 9, 288),
        ("conv1.bias", (32,), "o", 9, 288),
        ("conv2.kernel", (3, 3, 32, 64), "h w i o", 288, 576),
        ("conv2.bias", (64,), "o", 288, 576),
        ("dense1.kernel", (1600, 10), "(h w c) o", 1600, 10),
        ("dense1.bias", (10,), "o", 1600, 10),
    ],
    "fast": [
        ("conv1.kernel", (5, 5, 1, 24), "h w i o", 25, 600),
        ("conv1.bias", (24,), "o", 25, 600),
        ("conv2.kernel", (3, 3, 24, 32), "h w i o", 216, 288),
        ("conv2.bias", (32,), "o", 216, 288),
        ("dense1.kernel", (800, 256), "(h w c) o", 800, 256),
        ("dense1.bias", (256,), "o", 800, 256),
        ("dense2.kernel", (256, 10), "i o", 256, 10),
        ("dense2.bias", (10,), "o", 256, 10),
    ],
    "lenet5": [
        ("conv1.kernel", (5, 5, 1, 6), "h w i o", 25, 150),
        ("conv1.bias", (6,), "o", 25, 150),
        ("subsample1.coefficient", (6,), "o", 4, 1),
        ("subsample1.bias", (6,), "o", 4, 1),
        ("conv2.kernel", (5, 5, 6, 16), "h w i o", 150, 400),
        ("conv2.bias", (16,), "o", 150, 400),
        ("subsample2.coefficient", (16,), "o", 4, 1),
        ("subsample2.bias", (16,), "o", 4, 1),
        ("conv3.kernel", (5, 5, 16, 120), "h w i o", 400, 3000),
        ("conv3.bias", (120,), "o", 400, 3000),
        ("dense1.kernel", (120, 84), "(h w c) o", 120, 84),
        ("dense1.bias", (84,), "o", 120, 84),
        ("dense2.kernel", (84, 10), "i o", 84, 10),
        ("dense2.bias", (10,), "o", 84, 10),
    ],
}
FLATTENED = {  # what the first dense kernel after it must know
    "article": {"dense1.kernel": {"h": 12, "w": 12, "c": 64}},
    "keras-example": {"dense1.kernel": {"h": 5, "w": 5, "c": 64}},
    "fast": {"dense1.kernel": {"h": 5, "w": 5, "c": 32}},
    "lenet5": {"dense1.kernel": {"h": 1, "w": 1, "c": 120}},
}
# As both frameworks count the article's, as `model.summary()` prints them on keras.io,
# and as LeCun et al. 1998 state them in section II.B, but for the last layer.
PARAMETERS = {
    "article": {
        "conv1": 9 * 32 + 32,
        "conv2": 9 * 32 * 64 + 64,
        "dense1": 9216 * 128 + 128,
        "dense2": 128 * 10 + 10,
    },
    "keras-example": {"conv1": 320, "conv2": 18_496, "dense1": 16_010},
    "fast": {"conv1": 624, "conv2": 6_944, "dense1": 205_056, "dense2": 2_570},
    "lenet5": {
        "conv1": 156,
        "subsample1": 12,
        "conv2": 1_516,
        "subsample2": 32,
        "conv3": 48_120,
        "dense1": 10_164,
        "dense2": 850,
    },
}
TOTALS = {
    "article": 1_199_882,
    "keras-example": 34_826,
    "lenet5": 60_850,
    "fast": 215_194,
}
# LeCun et al. 1998, table I: a row is a map of S2, a column a map of C3.
TABLE = (
    "X...XXX..XXXX.XX",
    "XX...XXX..XXXX.X",
    "XXX...XXX..X.XXX",
    ".XXX..XXXX..X.XX",
    "..XXX..XXXX.XX.X",
    "...XXX..XXXX.XXX",
)

every_network = pytest.mark.parametrize("name", NETWORKS)


def the_weight(network_name: str, weight_name: str) -> Weight:
    (found,) = (x for x in NETWORKS[network_name].weights if x.name == weight_name)
    return found


@every_network
def test_layers_and_their_shapes(name):
    network = NETWORKS[name]
    assert network.name == name
    assert network.input_shape == (28, 28, 1)
    assert network.num_classes == 10
    assert [(x.name, x.kind, x.output_shape) for x in network.layers] == LAYERS[name]


@every_network
def test_weights_their_shapes_axes_and_fans(name):
    weights = NETWORKS[name].weights
    came = [(x.name, x.shape, x.axes, x.fan_in, x.fan_out) for x in weights]
    assert came == WEIGHTS[name]


@every_network
def test_only_the_first_dense_layer_knows_the_flattened_image(name):
    grouped = {x.name: x.sizes for x in NETWORKS[name].weights if x.sizes}
    assert grouped == FLATTENED[name]


@every_network
def test_the_number_of_parameters(name):
    network = NETWORKS[name]
    by_layer = {
        layer.name: sum(weight.count for weight in layer.weights)
        for layer in network.layers
        if layer.weights
    }
    assert by_layer == PARAMETERS[name]
    assert network.parameter_count == sum(by_layer.values()) == TOTALS[name]


def test_parameters_are_all_numbers_but_those_that_a_table_leaves_out():
    for name, weights in WEIGHTS.items():
        numbers = sum(math.prod(shape) for _, shape, *_ in weights)
        absent = "".join(TABLE).count(".") * 25 if name == "lenet5" else 0
        assert numbers - absent == TOTALS[name]
    assert "".join(TABLE).count(".") == 6 * 16 - 60


@every_network
def test_biases_are_told_from_what_is_multiplied(name):
    for weight in NETWORKS[name].weights:
        part = weight.name.partition(".")[2]
        assert part in ("kernel", "coefficient", "bias")
        assert weight.is_bias is (part == "bias")


@every_network
def test_axes_name_every_axis_of_the_shape(name):
    for weight in NETWORKS[name].weights:
        outside = weight.axes.replace("(h w c)", "flat").split()
        assert len(outside) == len(weight.shape)
        if weight.sizes:
            assert math.prod(weight.sizes.values()) == weight.shape[0]


def test_layers_of_a_kind():
    def names(network, kind):
        return [layer.name for layer in network.layers_of(kind)]

    assert names(ARTICLE, "dropout") == ["dropout1", "dropout2"]
    assert names(ARTICLE, "conv") == ["conv1", "conv2"]
    assert names(ARTICLE, "max_pool") == ["pool"]
    assert names(KERAS_EXAMPLE, "dropout") == ["dropout1"]
    assert names(LENET5, "dropout") == []
    assert names(LENET5, "subsample") == ["subsample1", "subsample2"]


def test_names_are_unique():
    for network in NETWORKS.values():
        names = [x.name for x in (*network.layers, *network.weights)]
        assert len(set(names)) == len(names)


def test_a_network_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        ARTICLE.num_classes = 11  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        ARTICLE.weights[0].shape = ()  # type: ignore[misc]


# The table of connections


def test_the_table_is_that_of_the_paper():
    kernel = the_weight("lenet5", "conv2.kernel")
    drawn = tuple("".join(".X"[int(x)] for x in row) for row in kernel.connected)
    assert drawn == TABLE
    assert kernel.connected.dtype == np.bool_
    assert kernel.connected.shape == (6, 16)


def test_the_table_has_the_properties_that_the_paper_states():
    """Section II.B: contiguous triples, contiguous fours, others, all six."""
    table = the_weight("lenet5", "conv2.kernel").table
    assert len(table) == 16
    assert sum(map(len, table)) == 60

    def contiguous(size: int) -> set[frozenset[int]]:
        return {
            frozenset((start + i) % 6 for i in range(size))  # around a ring of six
            for start in range(6)
        }

    sets = [frozenset(channels) for channels in table]
    assert [len(x) for x in sets] == [len(channels) for channels in table]
    assert set(sets[:6]) == contiguous(3)
    assert set(sets[6:12]) == contiguous(4)
    assert not set(sets[12:15]) & contiguous(4)
    assert [len(x) for x in sets[12:]] == [4, 4, 4, 6]
    assert len(set(sets)) == 16
    # Every map of S2 is seen as often as every other.
    assert [sum(channel in x for x in sets) for channel in range(6)] == [10] * 6


def test_connections_are_as_many_as_the_paper_counts():
    """Of each pixel of a layer, with its bias; the paper has them in section II.B."""
    counted = {}
    for layer in LENET5.layers[:10]:
        if layer.kind not in ("conv", "subsample"):
            continue
        pixels = math.prod(layer.output_shape[:2])
        channels = layer.output_shape[2]
        inputs = np.broadcast_to(layer.weights[0].fans_in, channels)
        counted[layer.name] = pixels * (inputs.sum() + channels)
    assert counted == {
        "conv1": 122_304,
        "subsample1": 5_880,
        "conv2": 151_600,
        "subsample2": 2_000,
        "conv3": 48_120,
    }


def test_fans_in_are_those_of_each_channel_where_there_is_a_table():
    kernel = the_weight("lenet5", "conv2.kernel")
    assert kernel.fans_in.tolist() == [75] * 6 + [100] * 9 + [150]
    assert kernel.count == 60 * 25
    for name, network in NETWORKS.items():
        for weight in network.weights:
            if (name, weight.name) == ("lenet5", "conv2.kernel"):
                continue
            assert weight.fans_in == weight.fan_in
            assert weight.count == math.prod(weight.shape)


def test_a_weight_without_a_table_has_no_connections_to_tell():
    for name, weight in (("article", "conv2.kernel"), ("lenet5", "conv2.bias")):
        with pytest.raises(ValueError, match=f"{weight} has no table of connections"):
            _ = the_weight(name, weight).connected


def test_a_table_by_hand():
    """Two inputs and three outputs: one from each, and one from both."""
    weight = Weight(
        "a.kernel", (2, 3, 2, 3), "h w i o", {}, 12, 18, ((0,), (1,), (0, 1))
    )
    assert weight.connected.tolist() == [[True, False, True], [False, True, True]]
    assert weight.fans_in.tolist() == [6, 6, 12]
    assert weight.count == 4 * 6


# A softmax at the end


@every_network
def test_with_softmax_adds_a_layer_and_no_weight(name):
    network = NETWORKS[name]
    longer = network.with_softmax()
    assert [(x.name, x.kind, x.output_shape) for x in longer.layers] == [
        *LAYERS[name],
        ("softmax", "softmax", (10,)),
    ]
    assert longer.weights == network.weights
    assert longer.parameter_count == TOTALS[name]
    assert (longer.name, longer.num_classes) == (name, 10)
    assert len(network.layers) == len(LAYERS[name])  # it is left as it was


def test_a_recipes_architecture_ends_as_its_output_says():
    assert Recipe().architecture == ARTICLE
    assert load("lenet5").architecture == LENET5
    assert load("keras-example").architecture == KERAS_EXAMPLE.with_softmax()
    probabilities = load("lenet5", ["output=probabilities"])
    assert probabilities.architecture == LENET5.with_softmax()
    assert probabilities.architecture != LENET5
