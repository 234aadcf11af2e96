"""The tables of the sides: each row reached by a real layer, and described right.

What a layer's spec says, the reference computes, in float64: its output must be the
layer's own. PyTorch first: TensorFlow must not be imported before it.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from helpers import skip_without
from watching import Kept, last_call

from paripassu.core.layer_spec import LayerSpec, UnknownLayerError, relative_error
from paripassu.port_check import causes
from paripassu.sides import tables

FLOAT32 = 3e-7  # a few of TensorFlow's functions have constants of float32
IMAGE, STEPS, ROWS, IDS = (2, 9, 8, 4), (3, 7, 4), (5, 6), "ids"
# Kinds that the reference leaves to whoever compares: they are described, no more.
UNCOMPUTED = {"dropout", "reshape", "permute", "flatten", "other", "attention"}


def computed(probe, x):
    """Of the last call: the specs of its parts, inputs and output, and the error."""
    call, inputs, wanted = last_call(probe, x)
    parts = [
        LayerSpec(
            x.kind,
            {**call.spec.settings, **x.spec.settings},
            dict(x.spec.weights),
        )
        for x in probe.blocks()
        if x.layer == call.name
    ] or [call.spec]
    error = None
    if parts[0].kind not in UNCOMPUTED:
        with contextlib.suppress(UnknownLayerError):
            shape = causes.Shape((len(parts),))
            error = relative_error(wanted, causes.compute(parts, inputs, shape))
    return parts, inputs, wanted, error


def drawn(shape):
    if shape == IDS:
        return np.arange(10).reshape(2, 5)
    return np.random.Generator(np.random.Philox(3)).standard_normal(shape)


# ## PyTorch

# Of each row: a layer's name, arguments and keywords, the input, and what is expected.
TORCH = [
    ("Linear", (6, 3), {}, ROWS, "dense"),
    ("Conv2d", (4, 6, 3), {"stride": 2, "padding": 1}, IMAGE, "conv"),
    ("Conv1d", (4, 6, 3), {"dilation": 2}, STEPS, "conv"),
    ("ConvTranspose2d", (4, 3, 3, 2), {"padding": 1}, IMAGE, "conv_transpose"),
    ("BatchNorm2d", (4,), {"eps": 0.1}, IMAGE, "batch_norm"),
    ("InstanceNorm2d", (4,), {"affine": True}, IMAGE, "group_norm"),
    ("LayerNorm", (4,), {"eps": 0.1}, STEPS, "layer_norm"),
    ("LayerNorm", ((4, 9, 8),), {}, IMAGE, "layer_norm"),
    ("RMSNorm", (4,), {"eps": 0.1}, STEPS, "rms_norm"),
    ("GroupNorm", (2, 4), {}, IMAGE, "group_norm"),
    ("Embedding", (10, 4), {}, IDS, "embedding"),
    ("EmbeddingBag", (10, 4), {}, IDS, "embedding"),
    ("LSTM", (4, 5), {"batch_first": True, "bidirectional": True}, STEPS, "lstm"),
    ("GRU", (4, 5), {"batch_first": True}, STEPS, "gru"),
    ("RNN", (4, 5), {"batch_first": True}, STEPS, "rnn"),
    ("PReLU", (4,), {}, IMAGE, "prelu"),
    ("MaxPool2d", (3, 2), {"padding": 1}, IMAGE, "max_pool"),
    ("AvgPool2d", (3, 2), {"count_include_pad": False}, IMAGE, "average_pool"),
    ("AdaptiveAvgPool2d", (1,), {}, IMAGE, "global_average_pool"),
    ("AdaptiveAvgPool2d", (2,), {}, IMAGE, "other"),
    ("AdaptiveMaxPool2d", (1,), {}, IMAGE, "global_max_pool"),
    ("Upsample", (), {"scale_factor": 2, "mode": "bilinear"}, IMAGE, "upsample"),
    ("ZeroPad2d", ((1, 2, 3, 0),), {}, IMAGE, "pad"),
    ("ReflectionPad2d", ((1, 2, 3, 0),), {}, IMAGE, "pad"),
    ("ReplicationPad2d", ((1, 2, 3, 0),), {}, IMAGE, "pad"),
    ("CircularPad2d", ((1, 2, 3, 0),), {}, IMAGE, "pad"),
    ("GELU", ("tanh",), {}, ROWS, "gelu"),
    ("LeakyReLU", (0.125,), {}, ROWS, "leaky_relu"),
    ("ELU", (0.7,), {}, ROWS, "elu"),
    ("CELU", (0.7,), {}, ROWS, "celu"),
    ("Softmax", (1,), {}, ROWS, "softmax"),
    ("LogSoftmax", (-1,), {}, ROWS, "log_softmax"),
    ("Dropout", (0.5,), {}, ROWS, "dropout"),
    ("Hardsigmoid", (), {}, ROWS, "hard_sigmoid"),
    ("Hardswish", (), {}, ROWS, "hard_swish"),
    *(
        (name, (), {}, ROWS, name.lower())
        for name in (
            *("ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Tanh", "Softplus"),
            *("Mish", "Identity", "Flatten"),
        )
    ),
    ("Hardtanh", (), {}, ROWS, "other"),
    ("Bilinear", (6, 6, 2), {}, None, "other"),
]


def open_torch(module, shape=None):
    import torch

    from paripassu.sides.torch_module import open_model

    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    for key, buffer in module.named_buffers():
        if key.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    x = drawn(shape) if shape else None
    first = shape == IMAGE or (isinstance(module, torch.nn.Conv1d) and shape == STEPS)
    if first:
        x = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    return open_model(torch.nn.Sequential(module).eval()), x


@skip_without("pytorch")
@pytest.mark.parametrize(("name", "args", "kwargs", "shape", "kind"), TORCH)
def test_a_layer_of_pytorch_is_described(name, args, kwargs, shape, kind):
    from torch import nn

    from paripassu.sides import torch_layers

    module = getattr(nn, name)(*args, **kwargs)
    assert torch_layers.describe(module).kind == kind
    probe, x = open_torch(module, shape)
    if x is None:  # it takes more than one input
        return
    parts, inputs, wanted, error = computed(probe, x)
    assert parts[0].kind == kind
    if kind in UNCOMPUTED or name == "EmbeddingBag":
        return
    assert error is not None
    assert error <= 1e-12, parts
    if parts[0].weights:  # a red twin: with other weights, another output
        key = next(iter(parts[0].weights))
        changed = dict(parts[0].weights) | {key: parts[0].weights[key] * 1.5 + 0.1}
        parts[0] = LayerSpec(kind, parts[0].settings, changed)
        shape_ = causes.Shape((len(parts),))
        assert relative_error(wanted, causes.compute(parts, inputs, shape_)) > 1e-6


@skip_without("pytorch")
def test_every_row_of_pytorch_has_a_case():
    from torch import nn

    from paripassu.sides import torch_layers

    made = {x for name, *_ in TORCH for x in getattr(nn, name).__mro__}
    # These have tests of their own, below and in `port_check/test_forms.py`.
    made |= {nn.MultiheadAttention, nn.RNNCell, nn.LSTMCell, nn.GRUCell}
    made |= {nn.modules.linear.NonDynamicallyQuantizableLinear}
    assert set(torch_layers.LAYERS) <= made


@skip_without("pytorch")
def test_an_attention_of_pytorch_has_its_projections():
    from torch import nn

    probe, _ = open_torch(nn.MultiheadAttention(6, 2))
    (block,) = probe.blocks()
    assert block.spec.settings == {"heads": 2, "scale": 3**-0.5}
    whole = probe.model[0].in_proj_weight.detach().numpy()
    assert np.array_equal(block.spec.weights["key"], whole[6:12].T)
    fresh = dict(block.spec.weights) | {"value": np.ones((6, 6), np.float32)}
    probe.write(block.name, fresh)
    assert np.array_equal(whole[12:], np.ones((6, 6)))
    assert not np.array_equal(whole[:6], np.ones((6, 6)))


@skip_without("pytorch")
def test_a_subclass_in_pytorch_is_what_its_base_is():
    from torch import nn

    from paripassu.sides import torch_layers

    class Named(nn.Conv2d):
        pass

    class Own(nn.Conv2d):
        def forward(self, x):
            return -super().forward(x)

    class Swish(nn.ReLU):
        def forward(self, x):
            return x * x.sigmoid()

    class Renamed(nn.ReLU):
        pass

    assert torch_layers.describe(Named(4, 6, 3)).kind == "conv"
    assert torch_layers.describe(Own(4, 6, 3)).kind == "conv"  # its axes are
    assert torch_layers.describe(Renamed()).kind == "relu"
    assert torch_layers.describe(Swish()).kind == "other"
    assert computed(*open_torch(Named(4, 6, 3), IMAGE))[-1] <= 1e-12
    assert computed(*open_torch(Own(4, 6, 3), IMAGE))[-1] > 1


@skip_without("pytorch")
def test_a_weight_under_weight_norm_is_its_layers_and_a_number_keeps_its_name():
    import torch
    from torch import nn

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.temperature = nn.Parameter(torch.tensor(2.0))
            self.dense = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))

        def forward(self, x):
            return self.temperature * self.dense(x)

    from paripassu.sides.torch_module import open_model

    probe = open_model(Scaled())
    blocks = {x.name: x for x in probe.blocks()}
    assert blocks["temperature"].spec.weights["value"] == 2
    probe.write("temperature", {"value": np.array(3.0, np.float32)})
    assert probe.model.temperature.item() == 3
    assert blocks["dense"].kind == "dense"
    assert set(probe.run({"input": np.ones((1, 3), np.float32)}, Kept())) == {"output"}


TORCH_FUNCTIONS = {
    **{
        name: (f"F.{name}(x)", ROWS)
        for name in (
            *("relu", "relu6", "selu", "silu", "hardsigmoid", "hardswish", "softplus"),
            *("mish", "gelu", "leaky_relu", "elu", "celu"),
        )
    },
    "sigmoid": ("x.sigmoid()", ROWS),
    "tanh": ("torch.tanh(x)", ROWS),
    "softmax": ("F.softmax(x, dim=1)", ROWS),
    "log_softmax": ("x.log_softmax(-1)", ROWS),
    "flatten": ("x.flatten(1)", IMAGE),
    "view": ("x.view(-1)", ROWS),
    "reshape": ("x.reshape(6, 5)", ROWS),
    "unflatten": ("x.unflatten(1, (2, 3))", ROWS),
    "squeeze": ("x.squeeze()", ROWS),
    "unsqueeze": ("x.unsqueeze(0)", ROWS),
    "permute": ("x.permute(1, 0)", ROWS),
    "transpose": ("x.transpose(0, 1)", ROWS),
    "matmul": ("torch.matmul(x, x.clone().permute(1, 0))", ROWS),
    "add": ("x + x", ROWS),
    "radd": ("2 + x", ROWS),
    "mul": ("x * x", ROWS),
    "rmul": ("2 * x", ROWS),
    "sub": ("x - 3", ROWS),
    "div": ("torch.div(x, 4)", ROWS),
    "truediv": ("x / 4", ROWS),
    "max_pool": ("F.max_pool2d(x, 3, 2, 1)", IMAGE),
    "max_pool_with_indices": ("F.max_pool2d(x, 2)", IMAGE),
    "avg_pool": ("F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)", IMAGE),
    "adaptive_avg_pool": ("F.adaptive_avg_pool2d(x, 1)", IMAGE),
    "adaptive_max_pool": ("F.adaptive_max_pool2d(x, 1)", IMAGE),
    "interpolate": ("F.interpolate(x, scale_factor=2, mode='bilinear')", IMAGE),
    "pad": ("F.pad(x, (1, 2, 3, 0), value=0.5)", IMAGE),
    "cat": ("torch.cat([x, x], 1)", ROWS),
    "concat": ("torch.concat([x, x], 1)", ROWS),
    "concatenate": ("torch.concatenate([x, x], 1)", ROWS),
    "mean": ("x.mean(1)", ROWS),
    "sum": ("x.sum(1)", ROWS),
    "amax": ("x.amax(1)", ROWS),
    "scaled_dot_product_attention": (
        "F.scaled_dot_product_attention(x, x, x, scale=0.5)",
        STEPS,
    ),
}


@skip_without("pytorch")
@pytest.mark.parametrize("name", TORCH_FUNCTIONS)
def test_a_function_of_pytorch_is_described(name):
    import torch
    from torch import nn
    from torch.nn import functional

    from paripassu.sides import torch_layers
    from paripassu.sides.torch_module import open_model

    code, shape = TORCH_FUNCTIONS[name]

    class Calls(nn.Module):
        def forward(self, x):
            return eval(code, {"x": x, "torch": torch, "F": functional})

    x = drawn(shape)
    if shape == IMAGE:
        x = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    (spec,), _, _, error = computed(open_model(Calls()), x)
    row = torch_layers.FUNCTIONS[name]
    assert spec.kind in (row.kind, "scale")
    assert error is None or error <= 1e-12
    known = row.kind not in UNCOMPUTED | {"matmul", "amax", "other"}
    assert (error is not None) == (known or spec.kind == "scale"), spec


@skip_without("pytorch")
def test_every_function_of_pytorch_has_a_case():
    from paripassu.sides import torch_layers

    assert set(torch_layers.FUNCTIONS) == set(TORCH_FUNCTIONS)


# ## Keras

KERAS = [
    ("Dense", (3,), {}, ROWS, "dense"),
    ("EinsumDense", ("ab,bc->ac", 3), {"bias_axes": "c"}, ROWS, "dense"),
    ("Conv1D", (6, 3), {"padding": "causal"}, STEPS, "conv"),
    ("Conv2D", (6, 3), {"strides": 2, "padding": "same"}, IMAGE, "conv"),
    ("Conv3D", (2, 2), {}, (2, 5, 4, 4, 3), "conv"),
    ("Conv1DTranspose", (3, 3, 2), {}, STEPS, "conv_transpose"),
    ("Conv2DTranspose", (3, 3, 2, "same"), {}, IMAGE, "conv_transpose"),
    ("Conv3DTranspose", (2, 2), {}, (2, 3, 3, 2, 3), "conv_transpose"),
    ("DepthwiseConv1D", (3,), {}, STEPS, "conv"),
    ("DepthwiseConv2D", (3,), {"depth_multiplier": 2}, IMAGE, "conv"),
    ("SeparableConv1D", (5, 3), {}, STEPS, "conv"),
    ("SeparableConv2D", (5, 3), {}, IMAGE, "conv"),
    ("BatchNormalization", (), {"epsilon": 0.1}, IMAGE, "batch_norm"),
    ("LayerNormalization", (), {"epsilon": 0.1}, STEPS, "layer_norm"),
    ("RMSNormalization", (), {"epsilon": 0.1}, STEPS, "rms_norm"),
    ("GroupNormalization", (2,), {"scale": False}, IMAGE, "group_norm"),
    ("Embedding", (10, 4), {}, IDS, "embedding"),
    ("LSTM", (5,), {"return_sequences": True}, STEPS, "lstm"),
    ("GRU", (5,), {"return_sequences": True}, STEPS, "gru"),
    ("GRU", (5,), {"return_sequences": True, "reset_after": False}, STEPS, "gru"),
    ("SimpleRNN", (5,), {"return_sequences": True}, STEPS, "rnn"),
    ("PReLU", (), {}, ROWS, "prelu"),
    *(
        (f"MaxPooling{n}D", (2,), {}, s, "max_pool")
        for n, s in ((1, STEPS), (2, IMAGE))
    ),
    ("MaxPooling3D", (2,), {}, None, "max_pool"),  # TensorFlow has no float64 of it
    ("AveragePooling1D", (2,), {}, STEPS, "average_pool"),
    ("AveragePooling2D", (3, 2), {"padding": "same"}, IMAGE, "average_pool"),
    ("AveragePooling3D", (2,), {}, None, "average_pool"),
    *(
        (f"Global{kind}Pooling{n}D", (), {}, shape, f"global_{kind.lower()}_pool")
        for kind in ("Max", "Average")
        for n, shape in ((1, STEPS), (2, IMAGE), (3, (2, 4, 4, 4, 3)))
    ),
    ("UpSampling2D", (2,), {"interpolation": "bilinear"}, IMAGE, "upsample"),
    ("UpSampling2D", (2,), {"interpolation": "bicubic"}, IMAGE, "other"),
    ("Cropping1D", ((1, 2),), {}, STEPS, "crop"),
    ("Cropping2D", (((1, 2), (3, 0)),), {}, IMAGE, "crop"),
    ("Cropping3D", (1,), {}, (2, 4, 4, 4, 3), "crop"),
    ("ZeroPadding1D", ((1, 2),), {}, STEPS, "pad"),
    ("ZeroPadding2D", (((1, 2), (3, 0)),), {}, IMAGE, "pad"),
    ("ZeroPadding3D", (1,), {}, (2, 4, 4, 4, 3), "pad"),
    ("Activation", ("silu",), {}, ROWS, "silu"),
    ("ReLU", (), {}, ROWS, "relu"),
    ("ReLU", (6,), {}, ROWS, "relu6"),
    ("ReLU", (), {"negative_slope": 0.25}, ROWS, "leaky_relu"),
    ("LeakyReLU", (0.125,), {}, ROWS, "leaky_relu"),
    ("ELU", (0.75,), {}, ROWS, "elu"),
    ("Softmax", (), {}, ROWS, "softmax"),
    ("Rescaling", (0.5, -1.0), {}, ROWS, "scale"),
    ("Flatten", (), {}, IMAGE, "flatten"),
    ("Reshape", ((3, 2),), {}, ROWS, "reshape"),
    ("Identity", (), {}, ROWS, "identity"),
    ("Permute", ((2, 1),), {}, STEPS, "permute"),
    *((f"SpatialDropout{n}D", (0.5,), {}, None, "dropout") for n in (1, 2, 3)),
    *((x, (0.5,), {}, ROWS, "dropout") for x in ("Dropout", "AlphaDropout")),
    *((x, (0.5,), {}, ROWS, "dropout") for x in ("GaussianDropout", "GaussianNoise")),
    *((x, (), {}, None, x.lower()) for x in ("Add", "Multiply", "Subtract")),
    ("Concatenate", (), {"axis": 1}, None, "concatenate"),
    ("UnitNormalization", (), {}, ROWS, "other"),
]


def open_keras(make, shape):
    import keras

    from paripassu.sides.keras_model import open_model

    dtype = "int32" if shape == IDS else None
    size = (5,) if shape == IDS else shape[1:]

    def build():
        return keras.Sequential([keras.Input(size, dtype=dtype), make()])

    model = build()
    random = np.random.Generator(np.random.Philox(5))
    weights = model.get_weights()
    model.set_weights(
        [np.abs(x + 0.3 * random.standard_normal(x.shape)) for x in weights]
        if all(x.dtype.kind == "f" for x in weights)
        else weights
    )
    return open_model(model, build), drawn(shape)


@skip_without("tensorflow")
@pytest.mark.parametrize(("name", "args", "kwargs", "shape", "kind"), KERAS)
def test_a_layer_of_keras_is_described(name, args, kwargs, shape, kind):
    import keras

    from paripassu.sides import keras_layers

    def make():
        return getattr(keras.layers, name)(*args, **kwargs)

    if shape is None:  # it takes more than one input, or an image of any rank
        assert keras_layers.describe(make()).kind == kind
        return
    parts, inputs, wanted, error = computed(*open_keras(make, shape))
    assert parts[0].kind == kind
    if kind in UNCOMPUTED:
        return
    assert error is not None
    assert error <= FLOAT32, parts
    if parts[0].weights:
        key = next(iter(parts[0].weights))
        changed = dict(parts[0].weights) | {key: parts[0].weights[key] * 1.5 + 0.1}
        parts[0] = LayerSpec(kind, parts[0].settings, changed)
        assert relative_error(wanted, causes.compute(parts, inputs)) > 1e-6


@skip_without("tensorflow")
def test_every_row_of_keras_has_a_case():
    from keras import layers

    from paripassu.sides import keras_layers

    made = {getattr(layers, name) for name, *_ in KERAS}
    # These have tests of their own, below and in `port_check/test_forms.py`.
    made |= {layers.Bidirectional, layers.MultiHeadAttention, layers.RNN}
    made |= {layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell}
    made |= {layers.SpectralNormalization}
    assert set(keras_layers.LAYERS) <= made


@skip_without("tensorflow")
def test_both_directions_in_keras_are_blocks():
    from keras import layers

    def make():
        inner = layers.GRU(5, return_sequences=True)
        return layers.Bidirectional(inner, name="both")

    probe, x = open_keras(make, STEPS)
    assert [x.name for x in probe.blocks()] == ["both/forward", "both/reverse"]
    row = probe.blocks()[1].spec.weights["recurrent_bias"]
    probe.write("both/reverse", {"recurrent_bias": row + 1})
    assert np.allclose(probe.blocks()[1].spec.weights["recurrent_bias"], row + 1)
    parts, _, wanted, _ = computed(probe, x)
    made = causes.compute(parts, [x], causes.Shape((2,)))
    assert relative_error(wanted, made) <= 1e-12


@skip_without("tensorflow")
def test_an_attention_of_keras_has_its_projections():
    import keras

    from paripassu.sides.keras_model import open_model

    given = keras.Input((7, 4))
    attention = keras.layers.MultiHeadAttention(2, 3, name="a")
    probe = open_model(keras.Model(given, attention(given, given)))
    (block,) = probe.blocks()
    assert block.kind == "attention"
    assert block.shapes["query"] == (4, 6)
    assert block.shapes["output"] == (6, 4)
    fresh = np.arange(24, dtype=np.float32).reshape(4, 6)
    probe.write("a", {"query": fresh})
    kernel = np.asarray(attention._query_dense.kernel)
    assert np.array_equal(kernel, fresh.reshape(4, 2, 3))


@skip_without("tensorflow")
def test_a_subclass_in_keras_is_what_its_base_is():
    import keras

    from paripassu.sides import keras_layers

    class Named(keras.layers.Conv2D):
        pass

    class Own(keras.layers.Conv2D):
        def call(self, x):
            return -super().call(x)

    class Swish(keras.layers.ReLU):
        def call(self, x):
            return keras.ops.silu(x)

    assert keras_layers.describe(Named(6, 3)).kind == "conv"
    assert keras_layers.describe(Swish()).kind == "other"
    assert computed(*open_keras(lambda: Named(6, 3), IMAGE))[-1] <= FLOAT32
    assert computed(*open_keras(lambda: Own(6, 3), IMAGE))[-1] > 1


KERAS_FUNCTIONS = {
    **{
        name: (f"ops.{name}(x)", ROWS)
        for name in (
            *("relu", "relu6", "selu", "silu", "sigmoid", "hard_sigmoid", "hard_silu"),
            *("tanh", "softplus", "gelu", "leaky_relu", "elu", "celu"),
            *("softmax", "log_softmax", "squeeze", "transpose"),
        )
    },
    "expand_dims": ("ops.expand_dims(x, 0)", ROWS),
    "swapaxes": ("ops.swapaxes(x, 0, 1)", ROWS),
    "moveaxis": ("ops.moveaxis(x, 0, 1)", ROWS),
    "reshape": ("ops.reshape(x, (6, 5))", ROWS),
    "matmul": ("ops.matmul(x, x.numpy().T)", ROWS),
    "add": ("ops.add(x, 2)", ROWS),
    "subtract": ("ops.subtract(2, x)", ROWS),
    "multiply": ("x * 3", ROWS),
    "divide": ("ops.divide(x, 4)", ROWS),
    "true_divide": ("x / 4", ROWS),
    "concatenate": ("ops.concatenate([x, x], 1)", ROWS),
    "mean": ("ops.mean(x, 1)", ROWS),
    "sum": ("ops.sum(x, 1)", ROWS),
    "max": ("ops.max(x, 1)", ROWS),
    "max_pool": ("ops.max_pool(x, 2)", IMAGE),
    "average_pool": ("ops.average_pool(x, 3, 2, 'same')", IMAGE),
}


@skip_without("tensorflow")
@pytest.mark.parametrize("name", KERAS_FUNCTIONS)
def test_a_function_of_keras_is_described(name):
    import keras

    from paripassu.sides import keras_layers
    from paripassu.sides.keras_model import open_model

    code, shape = KERAS_FUNCTIONS[name]

    class Calls(keras.Model):
        def call(self, x):
            return eval(code, {"x": x, "ops": keras.ops})

        def build(self, _shape):
            self.built = True

    kept = Kept()
    x = drawn(shape).astype(np.float32)
    model = Calls()
    model.build(None)
    open_model(model).run({"input": x}, kept)
    call, inputs, wanted = kept.calls[-1]
    spec, row = call.spec, keras_layers.FUNCTIONS[name]
    assert spec.kind in (row.kind, "scale")
    if spec.kind not in UNCOMPUTED | {"matmul", "max"}:
        assert relative_error(wanted, causes.compute([spec], inputs)) <= 1e-6, spec


@skip_without("tensorflow")
def test_every_function_of_keras_has_a_case():
    import keras

    from paripassu.sides import keras_layers

    # Names that only activations or operations of a graph have.
    others = {"identity", "linear", "swish", "hard_swish", "mish", "flatten"}
    assert set(keras_layers.FUNCTIONS) == set(KERAS_FUNCTIONS) | others
    exact = keras_layers.activation(keras.activations.gelu)
    assert exact.settings == {"approximate": False}
    assert keras_layers.activation(keras.activations.linear).kind == "identity"
    assert keras_layers.activation(lambda x: x).kind == "other"


# ## What no framework has a part in


def test_the_nearest_base_is_found():
    class Base:
        def run(self): ...

    class Same(Base): ...

    class Own(Base):
        def run(self): ...

    class Told(Own):
        changes = ()

        def run(self): ...

    class ToldOnly(Base):
        changes = ()

        def run(self): ...

    table = {Base: "row"}
    assert tables.find_base(Same, table, ("run",)) == ("row", False)
    assert tables.find_base(Own, table, ("run",)) == ("row", True)
    assert tables.find_base(Told, table, ("run",), "changes") == ("row", True)
    assert tables.find_base(ToldOnly, table, ("run",), "changes") == ("row", False)
    assert tables.find_base(int, table, ("run",)) == (None, False)


@pytest.mark.parametrize(
    ("operation", "first", "second", "factor", "offset"),
    [
        ("add", None, 2, 1, 2),
        ("add", 2, None, 1, 2),
        ("subtract", None, 2, 1, -2),
        ("subtract", 2, None, -1, 2),
        ("multiply", None, -2, -2, 0),
        ("divide", None, 4, 0.25, 0),
    ],
)
def test_an_operation_with_a_number_is_a_scale(
    operation, first, second, factor, offset
):
    spec = tables.scale_by(operation, first, second)
    assert spec.settings == {"factor": factor, "offset": offset}
    assert tables.scale_by(operation, None, None) == {}
