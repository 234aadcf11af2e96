"""What JAX does at each difference of the table: Flax NNX, optax and `jax.image`.

Every function runs the library as it comes, and tells by what comes out. A word that it
tells stands beside the test for it; where nothing fits, it tells what it found.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from shared import argument, draw

jax.config.update("jax_enable_x64", True)
COLUMN: dict[str, Callable[[], str]] = {}
ABSENT = "–"  # it has no such thing
KEYS = nnx.Rngs(0)


def tells(function: Callable[[], str]) -> Callable[[], str]:
    """Take a function into the column; its name is the key of the difference."""
    COLUMN[function.__name__.replace("_", "-")] = function
    return function


def one_of(found: Any, texts: dict[str, Any]) -> str:
    """The text whose value was found, or what was found."""
    for text, value in texts.items():
        if np.shape(value) == np.shape(found) and np.allclose(found, value, 1e-6, 1e-9):
            return text
    return str(np.round(found, 6).tolist())


def slope(function: Callable[[Any], Any]) -> str:
    """What -1 becomes, without its sign."""
    return f"{-float(function(jnp.full((1,), -1.0))[0]):.6g}"


def image(size: int = 4) -> Any:
    """1, 2, 3 ... from row to row, the same in each column: (1, size, size, 1)."""
    rows = jnp.arange(1.0, size + 1)[:, None, None]
    return jnp.broadcast_to(rows, (1, size, size, 1))


# ---- activations, attention


@tells
def gelu_form() -> str:
    x = jnp.asarray(draw(9))
    exact = x * jax.scipy.stats.norm.cdf(x)
    by_tanh = x * (1 + jnp.tanh((2 / jnp.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2
    return one_of(
        nnx.gelu(x), {"approximate=True": by_tanh, "approximate=False": exact}
    )


@tells
def leaky_relu_slope() -> str:
    return slope(nnx.leaky_relu)


@tells
def leaky_relu_function() -> str:
    return slope(jax.nn.leaky_relu)


@tells
def prelu_start() -> str:
    return slope(nnx.PReLU(param_dtype=jnp.float64))


@tells
def softmax_axis() -> str:
    sums = [nnx.softmax(jnp.asarray(draw(2, 3))).sum(axis) for axis in (0, 1)]
    return one_of(sums[1], {"-1": np.ones(2)})


def attended() -> Any:
    """What a query gets of values 1 and 2, where the mask is True at the first."""
    query = jnp.ones((1, 1, 1, 1))
    keys, values = jnp.ones((1, 2, 1, 1)), jnp.asarray([1.0, 2.0]).reshape(1, 2, 1, 1)
    mask = jnp.asarray([True, False]).reshape(1, 1, 1, 2)
    return nnx.dot_product_attention(query, keys, values, mask=mask).reshape(())


@tells
def attention_mask() -> str:
    return one_of(attended(), {"True shows": 1.0, "True hides": 2.0})


@tells
def scaled_dot_product_mask() -> str:
    return attention_mask()


@tells
def embedding_start() -> str:
    found = nnx.Embed(4000, 64, rngs=KEYS).embedding[...]
    share = float(found.std()) * 8
    return "normal, deviation 1/√features" if abs(share - 1) < 0.02 else f"{share:.3g}"


# ---- layouts, convolution


@tells
def convolution_kernel() -> str:
    shape = nnx.Conv(2, 3, (4, 5), rngs=KEYS).kernel.shape
    return one_of(shape, {"(h, w, in, out)": (4, 5, 2, 3)})


@tells
def depthwise_kernel() -> str:
    shape = nnx.Conv(4, 8, (3, 5), feature_group_count=4, rngs=KEYS).kernel.shape
    return one_of(shape, {"(h, w, 1, in · m)": (3, 5, 1, 8)})


@tells
def same_padding_with_stride() -> str:
    layer = nnx.Conv(1, 1, (3, 1), strides=(2, 1), use_bias=False, rngs=KEYS)
    layer.kernel[...] = jnp.ones_like(layer.kernel[...])
    found = layer(image())[0, :, 0, 0]
    return one_of(found, {"0 before, 1 after": [6, 7], "1 before, 0 after": [3, 9]})


@tells
def transposed_convolution_crop() -> str:
    layer = nnx.ConvTranspose(1, 1, (3, 1), strides=(2, 1), use_bias=False, rngs=KEYS)
    layer.kernel[...] = jnp.asarray([1.0, 2.0, 4.0]).reshape(3, 1, 1, 1)
    dot = jnp.zeros((1, 2, 1, 1)).at[0, 0].set(1.0)
    found = layer(dot)[0, :, 0, 0]  # of 1, 2, 4, 0, 0, or the same turned
    return one_of(
        found,
        {
            "'SAME': 0 before, 1 after": [1, 2, 4, 0],
            "'SAME': 1 before, 0 after": [2, 4, 0, 0],
            "'SAME': 0 before, 1 after; the kernel turned": [4, 2, 1, 0],
            "'SAME': 1 before, 0 after; the kernel turned": [2, 1, 0, 0],
        },
    )


@tells
def dense_kernel() -> str:
    return one_of(nnx.Linear(2, 3, rngs=KEYS).kernel.shape, {"(in, out)": (2, 3)})


@tells
def flatten_order() -> str:
    x = jnp.arange(24.0).reshape(2, 3, 4)  # h, w, c
    return one_of(jax.lax.collapse(x, 0), {"h, w, c": np.arange(24)})


@tells
def channels() -> str:
    made = nnx.Conv(4, 2, (1, 1), rngs=KEYS)(jnp.zeros((1, 6, 5, 4)))
    return one_of(made.shape, {"channels last": (1, 6, 5, 2)})


# ---- initialisers


def deviations(values: Any, fan_in: int) -> tuple[float, float]:
    """The spread over 1/√fan_in, and the largest over the spread."""
    spread = float(values.std())
    return spread * fan_in**0.5, float(jnp.abs(values).max()) / spread


@tells
def kernel_start() -> str:
    spread, largest = deviations(nnx.Linear(400, 400, rngs=KEYS).kernel[...], 400)
    normal = abs(spread - 1) < 0.02 and 2.2 < largest < 2.4
    found = f"{spread:.2f}, largest of {largest:.2f}"
    return "lecun_normal: deviation 1/√fan_in, cut at two" if normal else found


@tells
def bias_start() -> str:
    return one_of(nnx.Linear(2, 3, rngs=KEYS).bias[...], {"zeros": np.zeros(3)})


@tells
def normal_cut() -> str:
    made = nnx.initializers.he_normal()(jax.random.key(0), (400, 400))
    return f"largest of {deviations(made, 400)[1]:.2g}"


# ---- losses, numbers


@tells
def cross_entropy_logits() -> str:
    found = optax.softmax_cross_entropy(jnp.asarray([0.0, 1.0]), jnp.asarray([0.0, 1]))
    return one_of(found, {"logits": np.log(1 + np.exp(-1))})


@tells
def class_weights() -> str:
    return (
        ABSENT
        if "weight"
        not in str(inspect.signature(optax.softmax_cross_entropy_with_integer_labels))
        else "where"
    )


@tells
def kl_divergence() -> str:
    found = optax.losses.kl_divergence(jnp.zeros((5, 3)), jnp.full((5, 3), 1 / 3))
    return one_of(found.shape, {"no mean: one for each image": (5,)})


@tells
def binary_cross_entropy_cut() -> str:
    found = optax.sigmoid_binary_cross_entropy(jnp.asarray(-200.0), jnp.asarray(1.0))
    return one_of(found, {"of logits, not cut": 200.0})


@tells
def deviation() -> str:
    found = jnp.std(jnp.asarray([0.0, 2.0]))
    return one_of(found, {"n": 1.0, "n - 1": 2**0.5})


@tells
def clipping() -> str:
    given = {"a": jnp.asarray([3.0]), "b": jnp.asarray([4.0])}
    clip = optax.clip_by_global_norm(1.0)
    made = clip.update(given, clip.init(given))[0]
    return one_of(made["a"][0], {"all together": 0.6, "each": 1.0})


# ---- normalisation


def epsilon_of(layer: Any, variance: float = 1e-4) -> str:
    """From what becomes of values of one deviation: x / √(variance + epsilon)."""
    x = jnp.asarray([[1.0, -1.0, 1.0, -1.0]]) * variance**0.5
    scale = float(layer(x)[0, 0]) / variance**0.5
    return f"{1 / scale**2 - variance:.3g}"


def normal(kind: Any, *sizes: int, **more: Any) -> Any:
    return kind(*sizes, rngs=KEYS, param_dtype=jnp.float64, **more)


@tells
def batch_norm_epsilon() -> str:
    layer = normal(nnx.BatchNorm, 4, use_running_average=True)
    layer.var[...] = jnp.full((4,), 1e-4)
    return epsilon_of(layer)


@tells
def layer_norm_epsilon() -> str:
    return epsilon_of(normal(nnx.LayerNorm, 4))


@tells
def group_norm_epsilon() -> str:
    return epsilon_of(normal(nnx.GroupNorm, 4, num_groups=2))


@tells
def rms_norm_epsilon() -> str:
    return epsilon_of(normal(nnx.RMSNorm, 4))


def running() -> Any:
    """BatchNorm after a batch of 1 and 3 (mean 2), trained from 0 and 1."""
    layer = normal(nnx.BatchNorm, 1)
    layer(jnp.asarray([[1.0], [3.0]]))
    return layer


@tells
def batch_norm_momentum() -> str:
    return f"{1 - float(running().mean[...][0]) / 2:.6g}"


@tells
def batch_norm_running_variance() -> str:
    kept = 1 - float(running().mean[...][0]) / 2
    share = (float(running().var[...][0]) - kept) / (1 - kept)
    return one_of(share, {"n": 1.0, "n - 1": 2.0})


# ---- pooling and resizing


@tells
def average_pool_padding() -> str:
    found = nnx.avg_pool(jnp.ones((1, 4, 4, 1)), (3, 3), padding="SAME")[0, 0, 0, 0]
    return one_of(found, {"True": 4 / 9, "False": 1.0})


@tells
def max_pool_padding() -> str:
    found = nnx.max_pool(image(), (3, 1), (2, 1), padding="SAME")[0, :, 0, 0]
    return one_of(found, {"0 before, 1 after": [3, 4], "1 before, 0 after": [2, 4]})


@tells
def pool_ceil() -> str:
    made = nnx.max_pool(image(5), (2, 2), (2, 2))
    return one_of(made.shape[1], {"padding='VALID'": 2, "ceil": 3})


def resized(method: str, size: int) -> Any:
    return jax.image.resize(image(), (1, size, 4, 1), method)[0, :, 0, 0]


@tells
def bilinear_corners() -> str:
    found = resized("bilinear", 8)[:3]
    return one_of(
        found, {"half-pixel centres": [1, 1.25, 1.75], "corners": [1, 10 / 7, 13 / 7]}
    )


@tells
def nearest_resize() -> str:
    found = resized("nearest", 3)
    return one_of(found, {"nearest, of centres": [1, 3, 4], "nearest": [1, 2, 3]})


@tells
def bicubic_resize() -> str:
    dot = jnp.zeros((1, 8, 1, 1)).at[0, 3].set(1.0)
    found = jax.image.resize(dot, (1, 16, 1, 1), "bicubic")[0, :, 0, 0]
    far = float(found.min())  # of the kernel at 1.25: a * 0.140625
    return f"a = {far / 0.140625:.3g}"


# ---- recurrent layers


@tells
def lstm_biases() -> str:
    state = nnx.state(nnx.LSTMCell(2, 3, rngs=KEYS), nnx.Param)
    kept = [path for path, _ in nnx.to_flat_state(state) if path[-1] == "bias"]
    return str(len(kept) // 4)  # of each gate


def gru_of(bias: list[float]) -> Any:
    """A cell with zero weights and this bias of the inputs."""
    cell = nnx.GRUCell(1, len(bias) // 3, rngs=KEYS, param_dtype=jnp.float64)
    for layer in (cell.dense_i, cell.dense_h):
        layer.kernel[...] = jnp.zeros_like(layer.kernel[...])
    cell.dense_i.bias[...] = jnp.asarray(bias)
    return cell


@tells
def gru_gates() -> str:
    names = []
    for gate in range(3):
        cell = gru_of([50.0 * (x == gate) for x in range(3)])
        state = jnp.full((1, 1), 0.8)
        found = float(cell(state, jnp.zeros((1, 1)))[0][0, 0])
        # An open update gate keeps the state; a new value of 1 takes half of it.
        names.append(
            {0.8: "update", 0.9: "new", 0.4: "reset"}.get(round(found, 6), "?")
        )
    return ", ".join(names)


@tells
def gru_reset() -> str:
    # Two units: the first is let through, the second is reset, and gets the first.
    cell = gru_of([50.0, -50.0, -50.0, -50.0, 0.0, 0.0])
    cell.dense_h.kernel[...] = cell.dense_h.kernel[...].at[0, 5].set(1.0)
    found = cell(jnp.full((1, 2), 0.8), jnp.zeros((1, 1)))[0][0, 1]
    return one_of(found, {"after": 0.0, "before": np.tanh(0.8)})


@tells
def lstm_forget_bias() -> str:
    cell = nnx.LSTMCell(2, 3, rngs=KEYS)
    return one_of(cell.hf.bias[...], {"0": np.zeros(3), "1": np.ones(3)})


def walked(**more: Any) -> Any:
    cell = nnx.OptimizedLSTMCell(2, 3, rngs=KEYS)
    return nnx.RNN(cell, rngs=KEYS, **more)(jnp.zeros((4, 5, 2), jnp.float32))


@tells
def sequences_first() -> str:
    time_major = argument(nnx.RNN.__init__, "time_major")
    return (
        "batch first" if not time_major and walked().shape == (4, 5, 3) else "t first"
    )


@tells
def returned_steps() -> str:
    return one_of(walked().shape, {"all steps": (4, 5, 3), "last step": (4, 3)})


# ---- optimizers


def moved(rule: Any, gradients: list[float], weight: float = 1.0) -> list[float]:
    """A weight after each step."""
    state, path = rule.init(jnp.asarray(weight)), []
    for gradient in gradients:
        move, state = rule.update(jnp.asarray(gradient), state, jnp.asarray(weight))
        weight += float(move)
        path.append(weight)
    return path


def rate(function: Any) -> str:
    """The default rate; there is none in optax."""
    default = argument(function, "learning_rate")
    return "rate required" if default is inspect.Parameter.empty else f"rate={default}"


def kept(function: Any, *names: str) -> str:
    return ", ".join(f"{name}={argument(function, name):g}" for name in names)


@tells
def sgd_rate() -> str:
    return rate(optax.sgd)


@tells
def adam_epsilon() -> str:
    # Of a first step g / (|g| + epsilon), with a gradient as small as epsilon.
    small = argument(optax.adam, "eps")
    move = 1 - moved(optax.adam(1.0), [small])[0]
    return f"eps={small:g}, " + one_of(move, {"corrected before": 0.5})


@tells
def sgd_weight_decay() -> str:
    names = inspect.signature(optax.sgd).parameters
    return "weight_decay" if "weight_decay" in names else ABSENT


@tells
def adamw_decay() -> str:
    share = 1 - moved(optax.adamw(1.0), [0.0])[0]
    return f"weight_decay={share:.3g}"


@tells
def adadelta_defaults() -> str:
    return f"{rate(optax.adadelta)}, {kept(optax.adadelta, 'rho', 'eps')}"


@tells
def rmsprop_defaults() -> str:
    small = argument(optax.rmsprop, "eps")
    gradient = (small / 0.1) ** 0.5  # its mean square is epsilon
    share = (1 - moved(optax.rmsprop(1.0), [gradient])[0]) / gradient * small**0.5
    place = one_of(share, {"inside the root": 0.5**0.5, "outside": 1.0})
    return f"{rate(optax.rmsprop)}, {kept(optax.rmsprop, 'decay', 'eps')} {place}"


@tells
def adagrad_defaults() -> str:
    names = "initial_accumulator_value", "eps"
    return f"{rate(optax.adagrad)}, {kept(optax.adagrad, *names)}"


@tells
def adamax_defaults() -> str:
    small = argument(optax.adamax, "eps")
    move = -moved(optax.adamax(1.0, b1=0.0, eps=1.0), [1.0], 0.0)[0]
    place = one_of(move, {"on the gradient in the maximum": 0.5})
    return f"{rate(optax.adamax)}, eps={small:g} {place}"


@tells
def nadam_defaults() -> str:
    # A first step of b1 * m / (1 - b1²) + (1 - b1) * g / (1 - b1), where b1 stays.
    step = 1 - moved(optax.nadam(1.0, b1=0.9, b2=0.0, eps=0.0), [1.0])[0]
    steady = one_of(step, {"momentum stays": 0.9 * 0.1 / (1 - 0.81) + 1})
    return f"{rate(optax.nadam)}, {steady}"


@tells
def momentum_form() -> str:
    halved = optax.sgd(optax.piecewise_constant_schedule(1.0, {1: 0.5}), 0.5)
    found = moved(halved, [1.0, 0.0], 0.0)[1]
    return one_of(found, {"rate outside": -1.25, "rate inside": -1.5})
