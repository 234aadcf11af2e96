"""What a recipe may ask for: the lesson's parts, and others beside them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from paripassu.core.recipe import Decay, Recipe
from paripassu.frameworks.jax import layers, lesson, optimizers
from paripassu.frameworks.jax.weights import from_common

Loss = Callable[[Any, Any], Any]
Schedule = Callable[[Any], Any]
BYTE_RATES = frozenset(n / 256 for n in range(1, 256))


def set_precision(recipe: Recipe) -> None:
    """Set the widest number type of all JAX; float64 has to be allowed."""
    jax.config.update("jax_enable_x64", recipe.storage == "float64")
    # Reduced precision inside float32 would make the twins unequal.
    jax.config.update("jax_default_matmul_precision", "highest")


def make_network(recipe: Recipe) -> Any:
    """The recipe's network, `nnx.Module`, with a softmax if it has one.

    Its attributes have the names of the architecture. Its weights are zeros:
    to compile what Flax draws them with would take seconds.
    """
    network = nnx.eval_shape(_made_by(recipe))
    zeros = from_common(
        recipe, {x.name: np.zeros(x.shape) for x in recipe.architecture.weights}
    )
    nnx.update(network, zeros)
    for number, layer in enumerate(recipe.architecture.layers):
        made = getattr(network, layer.name)
        if isinstance(made, nnx.Dropout):
            key = np.array([recipe.seed, number], np.uint32)
            made.rngs.key.set_value(jax.random.wrap_key_data(key))
            made.rngs.count.set_value(jnp.asarray(np.uint32(0)))
        elif isinstance(made, nnx.Conv) and made.mask is not None:
            kernel = layer.weights[0]
            table = np.broadcast_to(kernel.connected, kernel.shape)
            made.mask = nnx.data(jnp.asarray(table, recipe.storage))
    return network


def _made_by(recipe: Recipe) -> Callable[[], Any]:
    """What makes the network."""
    if recipe.layers is not None:
        sheet, rates = recipe.architecture, recipe.dropout
        return lambda: layers.Layers(sheet, rates, rngs=nnx.Rngs(recipe.seed))
    made = _class_of(recipe.network)
    if recipe.output == "probabilities":
        made = _with_softmax(made)
    return lambda: made(**recipe.dropout, rngs=nnx.Rngs(recipe.seed))


def _class_of(network: str) -> Any:
    if network == "article":
        return lesson.Network
    module = network.replace("-", "_")
    folder = "paripassu.frameworks.jax.networks"
    return importlib.import_module(f"{folder}.{module}").Network


@cache  # one class, so that what was compiled for it is found again
def _with_softmax(network: Any) -> Any:
    class Network(network):  # type: ignore[misc]
        """The network with a softmax at its end."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.softmax = nnx.softmax

        def __call__(self, x: Any) -> Any:
            """From images to probabilities."""
            return self.softmax(super().__call__(x))

    return Network


def compute_in_bfloat16(network: Any) -> None:
    """Let layers with weights compute in bfloat16; weights stay float32."""
    for layer in vars(network).values():
        if isinstance(layer, nnx.Conv | nnx.Linear):
            layer.dtype = jnp.bfloat16


def compute_on_cpu(network: Any, recipe: Recipe) -> dict[str, str]:
    """Let layers compute what they say in ways that are fast on a CPU.

    Returns:
        Of each kind of layer that was changed, how it computes, for the record.
    """
    changed = {"dropout": "by bytes"}
    if recipe.precision != "bfloat16":
        # Its slices take longer to put together than XLA's convolution.
        convolve_by_products(network)
        changed["convolution"] = "by matrix products"
    if pool_by_slices(network):
        changed["pooling"] = "by slices"
    drop_by_bytes(network)
    return changed


def convolve_by_products(network: Any) -> None:
    """Let convolutions on a CPU be one matrix product each.

    XLA's own convolutions are several times slower there. The layers stay
    `nnx.Conv`, with their weights, so that files do not change.
    """
    for layer in vars(network).values():
        if isinstance(layer, nnx.Conv):
            layer.conv_general_dilated = layers.convolve


def pool_by_slices(network: Any) -> bool:
    """Let 2x2 pools on a CPU compare the four slices that a window is made of.

    XLA's own gradient of a pool looks through every window again, one by one.

    Returns:
        Whether there are any.
    """
    pools = [
        name
        for name, layer in vars(network).items()
        if layer is lesson.max_pool or _is_square_pool(layer)
    ]
    for name in pools:
        setattr(network, name, max_pool)
    return bool(pools)


def _is_square_pool(layer: Any) -> bool:
    """Whether it is `layers.max_pool` over 2x2 windows side by side."""
    if not isinstance(layer, partial) or layer.func is not layers.max_pool:
        return False
    square = {"size": (2, 2), "strides": (2, 2), "padding": layers.NONE}
    return {**square, **layer.keywords} == square


@jax.custom_vjp  # type: ignore[untyped-decorator]
def max_pool(x: Any) -> Any:
    """The largest of each 2x2 window, `(N, h, w, c)` to `(N, h / 2, w / 2, c)`.

    An odd row or column is left out. Of equal values the first one, row by row,
    gets the gradient, as in `nnx.max_pool`.
    """
    top_left, top_right, low_left, low_right = _slices(x)
    top = jnp.maximum(top_left, top_right)
    return jnp.maximum(top, jnp.maximum(low_left, low_right))


def _slices(x: Any) -> list[Any]:
    """The first value of each 2x2 window, the second, third and last."""
    n, h, w, c = x.shape
    even = x[:, : h // 2 * 2, : w // 2 * 2]
    windows = even.reshape(n, h // 2, 2, w // 2, 2, c)
    return [
        windows[:, :, row, :, column] for row in (0, 1) for column in (0, 1)
    ]


def _max_pool_forward(x: Any) -> Any:
    y = max_pool(x)
    return y, (x, y)


def _max_pool_backward(kept: Any, gradient: Any) -> Any:
    x, y = kept
    n, h, w, c = x.shape
    found, parts = jnp.zeros(y.shape, bool), []
    for each in _slices(x):
        parts.append(jnp.where((each == y) & ~found, gradient, 0))
        found |= each == y
    rows = [jnp.stack(parts[:2], axis=3), jnp.stack(parts[2:], axis=3)]
    even = jnp.stack(rows, axis=2).reshape(n, h // 2 * 2, w // 2 * 2, c)
    return (jnp.pad(even, ((0, 0), (0, h % 2), (0, w % 2), (0, 0))),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def drop_by_bytes(network: Any) -> None:
    """Let dropout on a CPU draw 8 random bits for a number, not 32.

    A byte is as good where the rate is a multiple of 1/256: the chance of each
    number to be dropped is exactly the rate, and the numbers stay independent.
    Other rates are left as they are. The layers stay Flax's, with their keys.
    """
    for layer in vars(network).values():
        if isinstance(layer, nnx.Dropout) and layer.rate in BYTE_RATES:
            layer.__class__ = ByteDropout


class ByteDropout(nnx.Dropout):  # type: ignore[misc]
    """`nnx.Dropout` at a rate that is a multiple of 1/256, drawn in bytes."""

    def __call__(self, inputs: Any, **_: Any) -> Any:
        """The inputs with some of them dropped and the others scaled."""
        if self.deterministic:
            return inputs
        words = jax.random.bits(self.rngs(), (-(-inputs.size // 4),), "uint32")
        noise = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)
        noise = noise[: inputs.size].reshape(inputs.shape)
        kept = (noise >= round(self.rate * 256)).astype(inputs.dtype)
        return inputs * (kept * (1 / (1 - self.rate)))


def make_loss(recipe: Recipe) -> Loss:
    """From what leaves the network and labels to the mean loss, a scalar."""
    if recipe.loss == "cross_entropy_on_probabilities":
        return cross_entropy_on_probabilities
    if recipe.label_smoothing:
        return smoothed_cross_entropy(recipe.label_smoothing)
    if recipe.precision == "bfloat16":
        return cross_entropy_in_float32
    return lesson.cross_entropy


def cross_entropy_on_probabilities(probabilities: Any, y: Any) -> Any:
    """The mean of -log p of the right class; p that is 0 counts as tiny."""
    probabilities = probabilities.astype(
        jnp.promote_types(probabilities.dtype, jnp.float32)
    )
    tiny = jnp.finfo(probabilities.dtype).tiny
    logs = jnp.log(jnp.maximum(probabilities, tiny))
    return -jnp.take_along_axis(logs, y[:, None], axis=1).mean()


def cross_entropy_in_float32(logits: Any, y: Any) -> Any:
    """The lesson's loss of what was computed in bfloat16."""
    return lesson.cross_entropy(logits.astype(jnp.float32), y)


@cache  # one function, so that what was compiled for it is found again
def smoothed_cross_entropy(smoothing: float) -> Loss:
    """The loss of logits, a share of each label spread over all classes."""

    def cross_entropy(logits: Any, y: Any) -> Any:
        exact = jnp.promote_types(logits.dtype, jnp.float32)
        right = jax.nn.one_hot(y, logits.shape[-1], dtype=exact)
        labels = optax.smooth_labels(right, smoothing)
        losses = optax.softmax_cross_entropy(logits.astype(exact), labels)
        return losses.mean()

    return cross_entropy


def make_optimizer(network: Any, recipe: Recipe) -> Any:
    """The recipe's optimizer, in its form, with a schedule that counts updates.

    One that counts epochs is for the caller to take the rate from.
    """
    more = recipe.clip_global_norm, recipe.average_decay
    plain = recipe.optimizer.kind == "adadelta" and not any(more)
    if plain and recipe.decay.unit == "epoch":
        made = lesson.make_optimizer(network, recipe)
        made.tx = _kept(recipe.optimizer, made.tx)
        return made
    steps = recipe.decay if recipe.decay.unit == "step" else None
    return nnx.Optimizer(
        network, _transformation(recipe.optimizer, steps, *more), wrt=nnx.Param
    )


_TRANSFORMATIONS: dict[Any, Any] = {}


def _kept(chosen: Any, made: optax.GradientTransformation) -> Any:
    """The first that was made so: what was compiled for it is found again."""
    return _TRANSFORMATIONS.setdefault(chosen, made)


@cache
def _transformation(
    chosen: optimizers.Chosen, decay: Decay | None, clip: float, average: float
) -> optax.GradientTransformation:
    start = chosen.learning_rate
    rate = _schedule(start, decay) if decay else start
    return optimizers.make(chosen, rate, clip=clip, average=average)


def rate_of(optimizer: Any) -> Any:
    """The variable that holds the learning rate."""
    return optimizer.opt_state.hyperparams["learning_rate"]


def set_rate(optimizer: Any, rate: Any) -> None:
    """Set the learning rate, in its number type: else it is compiled anew."""
    kept = rate_of(optimizer)
    kept[...] = jnp.asarray(rate, kept.dtype)


def make_schedule(recipe: Recipe) -> Schedule:
    """The rate by what is finished, epochs or updates; arrays are taken."""
    if recipe.decay.shape == "exponential" and recipe.decay.unit == "epoch":
        return lesson.make_schedule(recipe)
    if recipe.decay.shape == "plateau":
        return Plateau(recipe.optimizer.learning_rate, recipe.decay)
    return _schedule(recipe.optimizer.learning_rate, recipe.decay)


class Plateau:
    """Optax's `reduce_on_plateau` as a schedule, told of accuracies."""

    def __init__(self, start: float, decay: Decay) -> None:
        from optax.contrib import reduce_on_plateau

        self._start = start
        self._scale = reduce_on_plateau(
            decay.factor,
            decay.patience,
            rtol=0.0,
            atol=1e-9,  # it asks for one: less than any image is of any set
            min_scale=decay.final,
        )
        self.state = self._scale.init(jnp.zeros(()))

    def __call__(self, _finished: Any) -> Any:
        """The rate after all epochs that were told."""
        return self._start * self.state.scale

    def end_epoch(self, accuracy: float) -> None:
        """Optax looks for what falls: the share of wrong answers."""
        _, self.state = self._scale.update(
            jnp.zeros(()), self.state, value=jnp.asarray(1 - accuracy)
        )


def end_epoch(schedule: Schedule, accuracy: float) -> None:
    """Tell the schedule that an epoch is over, if it follows accuracies."""
    if isinstance(schedule, Plateau):
        schedule.end_epoch(accuracy)


def _schedule(start: float, decay: Decay) -> Schedule:
    if decay.shape == "exponential":
        return optax.exponential_decay(start, decay.interval, decay.factor)
    return partial(_risen_and_fallen, start, decay)


def _risen_and_fallen(start: float, decay: Decay, finished: Any) -> Any:
    left = jnp.maximum(decay.interval - finished, 0.0)
    falling = left / (decay.interval - decay.warm_up)
    if decay.shape != "linear":
        falling = _between(decay.final, falling)
    if not decay.warm_up:
        return start * falling
    rising = (finished + 1) / decay.warm_up
    if decay.shape == "one_cycle":
        rising = _between(decay.start, finished / decay.warm_up)
    return start * jnp.where(finished < decay.warm_up, rising, falling)


def _between(low: float, share: Any) -> Any:
    """From `low` to 1 by half a cosine, as share goes from 0 to 1."""
    return 1 + (low - 1) / 2 * (1 + jnp.cos(jnp.pi * share))
