"""The NumPy reference of layers computes what the frameworks' layers compute.

Each layer is made natively, opened by the probe as a model is, and run in float64;
from what the probe tells of it, `layers.apply` must give the same output.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from helpers import skip_without
from watching import last_call

from paripassu.core.layer_spec import LayerSpec, relative_error
from paripassu.port_check import causes

ROUNDING = 1e-12
# TensorFlow's GELU and leaky slopes have constants of float32, its bilinear resize
# computes in float32.
FLOAT32 = {"gelu", "leaky_relu", "upsample", "elu", "selu", "hard_sigmoid", "prelu"}
IMAGE, STEPS, ROWS = (2, 9, 8, 4), (3, 7, 4), (5, 6)


def compare(probe, x):
    """The reference beside the layer: kind and how far they are apart."""
    call, inputs, wanted = last_call(probe, x)
    parts = [
        LayerSpec(
            block.spec.kind,
            {**block.spec.settings, **call.spec.settings},
            dict(block.spec.weights),
        )
        for block in probe.blocks()
        if block.layer == call.name
    ] or [call.spec]
    if parts[0].kind != "attention":
        inputs = inputs[:1]
    made = causes.compute(parts, inputs)
    return parts, relative_error(wanted, made), inputs, wanted


def drawn(shape):
    return np.random.Generator(np.random.Philox(3)).standard_normal(shape)


# ## PyTorch

TORCH = {
    "linear": (ROWS, lambda nn: nn.Linear(6, 3)),
    "linear without bias": (STEPS, lambda nn: nn.Linear(4, 3, bias=False)),
    "conv2d": (IMAGE, lambda nn: nn.Conv2d(4, 6, 3)),
    "conv2d stride": (IMAGE, lambda nn: nn.Conv2d(4, 6, 3, stride=2, padding=1)),
    "conv2d oblong": (IMAGE, lambda nn: nn.Conv2d(4, 6, (3, 2), padding=(0, 1))),
    "conv2d same": (IMAGE, lambda nn: nn.Conv2d(4, 6, 4, padding="same")),
    "conv2d dilated": (IMAGE, lambda nn: nn.Conv2d(4, 6, 3, dilation=2, padding=2)),
    "conv2d groups": (IMAGE, lambda nn: nn.Conv2d(4, 6, 3, groups=2)),
    "conv2d depthwise": (IMAGE, lambda nn: nn.Conv2d(4, 8, 3, groups=4)),
    "conv2d reflect": (
        IMAGE,
        lambda nn: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    ),
    "conv2d circular": (
        IMAGE,
        lambda nn: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    ),
    "conv1d": (STEPS, lambda nn: nn.Conv1d(4, 6, 3, padding=2, dilation=2)),
    "conv3d": ((2, 5, 4, 4, 3), lambda nn: nn.Conv3d(3, 2, 2)),
    "transposed": (IMAGE, lambda nn: nn.ConvTranspose2d(4, 3, 3, stride=2)),
    "transposed cropped": (
        IMAGE,
        lambda nn: nn.ConvTranspose2d(4, 3, 3, 2, padding=1, output_padding=1),
    ),
    "transposed groups": (IMAGE, lambda nn: nn.ConvTranspose2d(4, 6, 3, groups=2)),
    "batch norm": (IMAGE, lambda nn: nn.BatchNorm2d(4, eps=0.1)),
    "batch norm of rows": (ROWS, lambda nn: nn.BatchNorm1d(6)),
    "layer norm": (STEPS, lambda nn: nn.LayerNorm(4, eps=0.1)),
    "layer norm of two axes": (STEPS, lambda nn: nn.LayerNorm((7, 4))),
    "rms norm": (STEPS, lambda nn: nn.RMSNorm(4, eps=0.1)),
    "group norm": (IMAGE, lambda nn: nn.GroupNorm(2, 4, eps=0.1)),
    "embedding": ("ids", lambda nn: nn.Embedding(10, 4)),
    "lstm": (STEPS, lambda nn: nn.LSTM(4, 5, batch_first=True)),
    "lstm without bias": (
        STEPS,
        lambda nn: nn.LSTM(4, 5, bias=False, batch_first=True),
    ),
    "gru": (STEPS, lambda nn: nn.GRU(4, 5, batch_first=True)),
    "rnn": (STEPS, lambda nn: nn.RNN(4, 5, batch_first=True)),
    "prelu": (IMAGE, lambda nn: nn.PReLU(4)),
    "max pool": (IMAGE, lambda nn: nn.MaxPool2d(3, 2, padding=1)),
    "max pool ceil": (IMAGE, lambda nn: nn.MaxPool2d(2, 3, ceil_mode=True)),
    "average pool": (IMAGE, lambda nn: nn.AvgPool2d(3, 2, padding=1)),
    "average pool ceil": (
        IMAGE,
        lambda nn: nn.AvgPool2d(3, 2, padding=1, ceil_mode=True),
    ),
    "average pool of what is there": (
        IMAGE,
        lambda nn: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
    ),
    "global pool": (IMAGE, lambda nn: nn.AdaptiveAvgPool2d(1)),
    "nearest": (IMAGE, lambda nn: nn.Upsample(scale_factor=2)),
    "bilinear": (IMAGE, lambda nn: nn.Upsample(scale_factor=2, mode="bilinear")),
    "bilinear corners": (
        IMAGE,
        lambda nn: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    ),
    "pad": (IMAGE, lambda nn: nn.ZeroPad2d((1, 2, 3, 0))),
    "reflection pad": (IMAGE, lambda nn: nn.ReflectionPad2d((1, 2, 3, 0))),
    "softmax": (ROWS, lambda nn: nn.Softmax(1)),
    "log softmax": (ROWS, lambda nn: nn.LogSoftmax(-1)),
    "leaky": (ROWS, lambda nn: nn.LeakyReLU(0.125)),
    "elu": (ROWS, lambda nn: nn.ELU(0.7)),
    "celu": (ROWS, lambda nn: nn.CELU(0.7)),
    "gelu": (ROWS, lambda nn: nn.GELU()),
    "gelu tanh": (ROWS, lambda nn: nn.GELU("tanh")),
    **{
        name: (ROWS, partial(lambda name, nn: getattr(nn, name)(), name))
        for name in (
            *("ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Hardsigmoid"),
            *("Hardswish", "Tanh", "Softplus", "Mish", "Identity"),
        )
    },
}


def shake(parameters, torch):
    """Weights that matter: also norms', whose gamma begins as one."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.3 * torch.randn(parameter.shape))


def by_torch(name):
    import torch

    from paripassu.sides.torch_module import Probe

    shape, make = TORCH[name]
    model = torch.nn.Sequential(make(torch.nn)).eval()
    shake(model.parameters(), torch)
    for key, buffer in model.named_buffers():
        if key.endswith("running_mean"):
            buffer.normal_()
        if key.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    if shape == "ids":
        return compare(Probe(model), np.arange(10).reshape(2, 5))
    x = drawn(shape)
    if len(shape) == 4 or ("onv" in name and len(shape) in (3, 5)):
        x = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    return compare(Probe(model), x)


@skip_without("pytorch")
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", TORCH)
def test_a_layer_of_pytorch(name):
    parts, apart, *_ = by_torch(name)
    assert parts[0].kind != "other"
    assert apart <= ROUNDING, parts


# ## Keras

KERAS = {
    "dense": (ROWS, lambda L: L.Dense(3)),
    "conv": (IMAGE, lambda L: L.Conv2D(6, 3)),
    "conv same": (IMAGE, lambda L: L.Conv2D(6, 3, strides=2, padding="same")),
    "conv dilated": (IMAGE, lambda L: L.Conv2D(6, 3, dilation_rate=2)),
    "conv groups": (IMAGE, lambda L: L.Conv2D(6, 3, groups=2)),
    "conv causal": (STEPS, lambda L: L.Conv1D(6, 3, padding="causal")),
    "conv 3d": ((2, 5, 4, 4, 3), lambda L: L.Conv3D(2, 2)),
    "depthwise": (IMAGE, lambda L: L.DepthwiseConv2D(3, depth_multiplier=2)),
    "transposed": (IMAGE, lambda L: L.Conv2DTranspose(3, 3, 2)),
    "transposed same": (IMAGE, lambda L: L.Conv2DTranspose(3, 3, 2, "same")),
    "batch norm": (IMAGE, lambda L: L.BatchNormalization(epsilon=0.1)),
    "layer norm": (STEPS, lambda L: L.LayerNormalization(epsilon=0.1)),
    "layer norm of two axes": (STEPS, lambda L: L.LayerNormalization((1, 2))),
    "rms norm": (STEPS, lambda L: L.RMSNormalization(epsilon=0.1)),
    "group norm": (IMAGE, lambda L: L.GroupNormalization(2, epsilon=0.1)),
    "lstm": (STEPS, lambda L: L.LSTM(5, return_sequences=True)),
    "lstm last": (STEPS, lambda L: L.LSTM(5)),
    "lstm backwards": (
        STEPS,
        lambda L: L.LSTM(5, return_sequences=True, go_backwards=True),
    ),
    "gru": (STEPS, lambda L: L.GRU(5, return_sequences=True)),
    "gru before": (
        STEPS,
        lambda L: L.GRU(5, return_sequences=True, reset_after=False),
    ),
    "rnn": (STEPS, lambda L: L.SimpleRNN(5, return_sequences=True)),
    "prelu": (ROWS, lambda L: L.PReLU()),
    "max pool": (IMAGE, lambda L: L.MaxPooling2D(3, 2, padding="same")),
    "average pool": (IMAGE, lambda L: L.AveragePooling2D(3, 2, padding="same")),
    "global average": (IMAGE, lambda L: L.GlobalAveragePooling2D()),
    "global max": (IMAGE, lambda L: L.GlobalMaxPooling2D(keepdims=True)),
    "nearest": (IMAGE, lambda L: L.UpSampling2D(2)),
    "bilinear": (IMAGE, lambda L: L.UpSampling2D(2, interpolation="bilinear")),
    "pad": (IMAGE, lambda L: L.ZeroPadding2D(((1, 2), (3, 0)))),
    "crop": (IMAGE, lambda L: L.Cropping2D(((1, 2), (3, 0)))),
    "leaky": (ROWS, lambda L: L.LeakyReLU(0.125)),
    "elu": (ROWS, lambda L: L.ELU(0.75)),
    "softmax": (ROWS, lambda L: L.Softmax()),
    **{
        name: (ROWS, partial(lambda name, L: L.Activation(name), name))
        for name in (
            *("relu", "relu6", "selu", "silu", "sigmoid", "hard_sigmoid", "gelu"),
            *("hard_silu", "tanh", "softplus", "mish", "log_softmax", "linear"),
        )
    },
}


def by_keras(name):
    import keras

    from paripassu.sides.keras_model import Probe

    shape, make = KERAS[name]

    def build():
        return keras.Sequential([keras.Input(shape[1:]), make(keras.layers)])

    model = build()
    random = np.random.Generator(np.random.Philox(5))
    model.set_weights(
        [np.abs(x + 0.3 * random.standard_normal(x.shape)) for x in model.get_weights()]
    )
    return compare(Probe(model, build), drawn(shape))


@skip_without("tensorflow")
@pytest.mark.parametrize("name", KERAS)
def test_a_layer_of_keras(name):
    parts, apart, *_ = by_keras(name)
    assert parts[0].kind != "other"
    allowed = 2e-7 if parts[0].kind in FLOAT32 else ROUNDING
    assert apart <= allowed, parts


# ## What must not agree


@skip_without("pytorch")
@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("conv2d stride", "padding", "same"),
        ("batch norm", "epsilon", 0.2),
        ("group norm", "groups", 4),
        ("gru", "reset_after", False),
        ("average pool", "count_padding", False),
        ("bilinear", "align_corners", True),
        ("leaky", "slope", 0.2),
        ("gelu", "approximate", True),
    ],
)
def test_another_setting_gives_another_output(name, setting, value):
    parts, _apart, inputs, wanted = by_torch(name)
    one = parts[0]
    weights = dict(one.weights)
    if name == "gru":  # without the second bias inside the product, as before it
        weights["input_bias"] = weights["input_bias"]
    changed = LayerSpec(one.kind, {**one.settings, setting: value}, weights)
    assert relative_error(wanted, causes.compute([changed], inputs)) > 1e-6
