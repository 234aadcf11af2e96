"""The score sheet, held against a table written by hand."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest

from paripassu.core.errors import UserError
from paripassu.core.networks import ARTICLE, NETWORKS, find

LAYERS = [
    ("conv1", "convolution", (26, 26, 32)),
    ("relu1", "relu", (26, 26, 32)),
    ("conv2", "convolution", (24, 24, 64)),
    ("pool", "max_pool", (12, 12, 64)),
    ("relu2", "relu", (12, 12, 64)),
    ("dropout1", "dropout", (12, 12, 64)),
    ("flatten", "flatten", (9216,)),
    ("dense1", "dense", (128,)),
    ("relu3", "relu", (128,)),
    ("dropout2", "dropout", (128,)),
    ("dense2", "dense", (10,)),
]
WEIGHTS = [
    ("conv1.kernel", (3, 3, 1, 32), "h w i o", 9, 288),
    ("conv1.bias", (32,), "o", 9, 288),
    ("conv2.kernel", (3, 3, 32, 64), "h w i o", 288, 576),
    ("conv2.bias", (64,), "o", 288, 576),
    ("dense1.kernel", (9216, 128), "(h w c) o", 9216, 128),
    ("dense1.bias", (128,), "o", 9216, 128),
    ("dense2.kernel", (128, 10), "i o", 128, 10),
    ("dense2.bias", (10,), "o", 128, 10),
]


def test_layers_and_their_shapes():
    assert ARTICLE.input_shape == (28, 28, 1)
    assert ARTICLE.num_classes == 10
    assert [(x.name, x.kind, x.output_shape) for x in ARTICLE.layers] == LAYERS


def test_weights_their_shapes_axes_and_fans():
    came = [(x.name, x.shape, x.axes, x.fan_in, x.fan_out) for x in ARTICLE.weights]
    assert came == WEIGHTS


def test_only_the_first_dense_layer_knows_the_flattened_image():
    grouped = {x.name: x.sizes for x in ARTICLE.weights if x.sizes}
    assert grouped == {"dense1.kernel": {"h": 12, "w": 12, "c": 64}}


def test_the_number_of_parameters():
    # As both frameworks count them: 320 + 18,496 + 1,179,776 + 1,290.
    by_layer = [9 * 32 + 32, 9 * 32 * 64 + 64, 9216 * 128 + 128, 128 * 10 + 10]
    assert by_layer == [320, 18_496, 1_179_776, 1_290]
    assert ARTICLE.parameter_count == sum(by_layer) == 1_199_882
    assert sum(math.prod(shape) for _, shape, *_ in WEIGHTS) == 1_199_882


def test_biases_are_told_from_kernels():
    for weight in ARTICLE.weights:
        assert weight.is_bias is (len(weight.shape) == 1)


def test_axes_name_every_axis_of_the_shape():
    for weight in ARTICLE.weights:
        outside = weight.axes.replace("(h w c)", "flat").split()
        assert len(outside) == len(weight.shape)
        if weight.sizes:
            assert math.prod(weight.sizes.values()) == weight.shape[0]


def test_layers_of_a_kind():
    def names(kind):
        return [layer.name for layer in ARTICLE.layers_of(kind)]

    assert names("dropout") == ["dropout1", "dropout2"]
    assert names("convolution") == ["conv1", "conv2"]
    assert names("max_pool") == ["pool"]


def test_names_are_unique():
    for network in NETWORKS.values():
        names = [x.name for x in (*network.layers, *network.weights)]
        assert len(set(names)) == len(names)


def test_find():
    assert find("article") is ARTICLE
    with pytest.raises(UserError, match=r"no network 'vgg'; known: article"):
        find("vgg")


def test_a_network_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        ARTICLE.num_classes = 11  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        ARTICLE.weights[0].shape = ()  # type: ignore[misc]
