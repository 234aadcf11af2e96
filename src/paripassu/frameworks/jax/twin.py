"""The JAX lesson taken step by step: see `paripassu.frameworks.Twin`.

It uses the lesson's network, loss and optimizer and defines no layer itself:
while a step is traced, each layer stands behind a function that notes what it
computes and puts the given masks in dropout's place. The step is the lesson's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from paripassu.core.recipe import Nadam, Recipe
from paripassu.core.steps import Arrays, Given, TwinStep, accuracies
from paripassu.frameworks.contract import Saw
from paripassu.frameworks.jax import lesson, recipes
from paripassu.frameworks.jax.trainer import Trainer, under, variables_of
from paripassu.frameworks.jax.weights import (
    from_common,
    own_name,
    to_common,
)
from paripassu.reference.optimizers import product_of_momentums

# Each optimizer's own names of what it keeps, and the reference's.
SLOTS = {
    "adadelta": {"e_g": "square_gradient", "e_x": "square_update"},
    "sgd": {"trace": "velocity"},
    "adam": {"mu": "mean_gradient", "nu": "square_gradient"},
    "nadam": {"mu": "mean_gradient", "nu": "square_gradient"},
    "rmsprop": {"nu": "square_gradient"},
}
AVERAGE = {"average": "average"}  # beside them: the running mean of the weights

# Of a layer, what enters it (several arrays in a tuple), and its mask: None
# when evaluating, or for none.
Override = Callable[[Any, Any, Any], Any]
Overrides = tuple[tuple[str, Override], ...]
# Of the network, its optimizer and the gradients, other gradients.
Change = Callable[[Any, Any, Any], Any]
_MASK = "mask of "


class Mask(nnx.Variable):  # type: ignore[misc]
    """What a dropout layer drops."""


class Seen(nnx.Variable):  # type: ignore[misc]
    """What a step left on its way."""


class Twin:
    """The lesson's network; what can be replaced is for seeded faults."""

    def __init__(
        self, recipe: Recipe, *, weights: Given, threads: int, device: str
    ) -> None:
        self.recipe = recipe
        self.trainer = Trainer(
            recipe, weights=weights, threads=threads, device=device
        )
        self.network = self.trainer.network
        self.loss: Callable[[Any, Any], Any] = self.trainer.loss
        self.overrides: dict[str, Override] = {
            layer.name: given_mask
            for layer in recipe.architecture.layers_of("dropout")
        }
        self.change: Change = as_they_are

    @property
    def _layers(self) -> Overrides:
        """Every layer, with what takes its place; it may be compiled for."""
        return tuple(
            (layer.name, self.overrides.get(layer.name, as_it_is))
            for layer in self.recipe.architecture.layers
        )

    def evaluate(self, images: npt.NDArray[np.float32]) -> Arrays:
        x = self._images(images)
        self.network.eval()  # batch norm by its running statistics
        with self.trainer.averaged():
            outputs = _outputs(self.network, x, layers=self._layers)
        return {"input": np.array(x), **_arrays("", outputs)}

    def logits(self, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        return self.trainer.logits(images)

    def begin_epoch(self, epoch: int) -> None:
        if self.recipe.decay.shape == "plateau":
            rate = self._rates(epoch + 1)[-1]
            recipes.set_rate(self.trainer.optimizer, rate)
        elif self.recipe.decay.unit == "epoch":
            rate = self.trainer.schedule(epoch)
            recipes.set_rate(self.trainer.optimizer, rate)

    def _rates(self, epochs: int) -> list[float]:
        """The rates of the first epochs, under invented accuracies."""
        schedule, rates = recipes.make_schedule(self.recipe), []
        patience = self.recipe.decay.patience
        for epoch, accuracy in enumerate(accuracies(epochs, patience)):
            rates.append(float(schedule(epoch)))
            recipes.end_epoch(schedule, accuracy)
        return rates

    def learning_rates(self, length: int) -> npt.NDArray[np.float64]:
        epochs, schedule = self.recipe.epochs, self.trainer.schedule
        if self.recipe.decay.unit == "step":
            rates = schedule(jnp.arange(epochs * length))
            return np.asarray(rates, np.float64)
        return np.repeat(self._rates(epochs), length)

    def step(self, step: TwinStep) -> Arrays:
        loss, seen = self._step(step, traced=True)
        common = to_common(
            self.recipe, seen.gradients.get_value(), learned=True
        )
        return {
            "loss": np.array(loss),
            **_arrays("activation.", seen.outputs.get_value()),
            **{f"gradient.{name}": array for name, array in common.items()},
        }

    def advance(self, step: TwinStep) -> float:
        return float(self._step(step, traced=False)[0])

    def watched(self, saw: Saw) -> Trainer:
        """The trainer, which tells `saw` every batch that it trains on."""
        train, loss = self.trainer._train_epoch, self.trainer.loss
        take = lesson.take

        def tell(images: Any, labels: Any) -> None:
            saw(np.array(images), np.array(labels))

        def told(data: Any, rows: Any) -> Any:
            x, y = take(data, rows)
            jax.debug.callback(tell, x, y, ordered=True)
            return x, y

        def train_epoch(*given: Any) -> tuple[float, float]:
            lesson.take = told
            try:
                return train(*given)
            finally:
                lesson.take = take
                jax.effects_barrier()

        self.trainer._train_epoch = train_epoch  # type: ignore
        self.trainer.loss = partial(loss)  # another: the step is compiled anew
        return self.trainer

    def _step(self, step: TwinStep, *, traced: bool) -> tuple[Any, Any]:
        """The lesson's own step, and what was seen on its way."""
        network, optimizer = self.network, self.trainer.optimizer
        network.train()
        own: tuple[Any, Any] = type(network), type(optimizer)
        network.__class__ = _watching(own[0], self._layers, traced)
        optimizer.__class__ = _noting(own[1], self.change, traced)
        for name, mask in step.masks.items():
            setattr(network, _MASK + name, Mask(jnp.asarray(mask)))
        x, y = self._images(step.images), jnp.asarray(step.labels)
        try:
            loss, _ = lesson.train_step(network, self.loss, optimizer, x, y)
            seen = nnx.pop(network, Seen)
        finally:
            network.__class__, optimizer.__class__ = own
            for name in step.masks:
                delattr(network, _MASK + name)
        return loss, seen

    def _images(self, images: npt.NDArray[np.float32]) -> Any:
        return jnp.asarray(images, self.recipe.storage)

    def state(self) -> Arrays:
        state = {
            f"weight.{n}": x for n, x in self.trainer.own_weights().items()
        }
        for name, variable in self.slots().items():
            state[f"slot.{name}"] = np.array(variable[...])
        return state

    def load_state(self, state: Given, *, epoch: int, step: int) -> None:
        weights = from_common(self.recipe, under("weight.", state))
        nnx.update(self.network, weights)
        for name, variable in self.slots().items():
            given = state.get(f"slot.{name}", np.zeros(variable.shape))
            variable[...] = jnp.asarray(given, variable.dtype)
        for name, variable in variables_of(self.trainer.optimizer).items():
            if name.rpartition(".")[2] in ("count", "step"):
                variable[...] = jnp.asarray(step, variable.dtype)
            if name.endswith(".product"):
                assert isinstance(self.recipe.optimizer, Nadam)
                product = product_of_momentums(self.recipe.optimizer, step)
                variable[...] = jnp.asarray(product, variable.dtype)
        self.begin_epoch(epoch)

    def slots(self) -> dict[str, Any]:
        """The optimizer's variables by canonical names."""
        return slots_of(self.trainer.optimizer, self.recipe)


def slots_of(optimizer: Any, recipe: Recipe) -> dict[str, Any]:
    """The optimizer's variables by canonical names."""
    names = SLOTS[recipe.optimizer.kind] | AVERAGE
    known = {own_name(x.name): x.name for x in recipe.architecture.weights}
    found = {}
    for place, variable in variables_of(optimizer).items():
        *_, own, layer, part = ("", "", *place.split("."))
        if own in names:
            name = known.get(f"{layer}.{part}", f"{layer}.{part}")
            found[f"{name}.{names[own]}"] = variable
    return found


def as_it_is(layer: Any, x: Any, _mask: Any) -> Any:
    """What a layer computes itself."""
    return layer(*x) if isinstance(x, tuple) else layer(x)


def as_they_are(_network: Any, _optimizer: Any, gradients: Any) -> Any:
    """What the step computed itself."""
    return gradients


def given_mask(layer: Any, x: Any, mask: Any) -> Any:
    """Dropout by a given mask."""
    return x if mask is None else x * mask.astype(x.dtype) / (1 - layer.rate)


@contextmanager
def _watched(
    network: Any, layers: Overrides, masks: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Layer -> what leaves it, as soon as the network is called."""
    outputs: dict[str, Any] = {}
    own = dict(vars(network))

    def put(name: str, override: Override) -> None:
        def watch(*inputs: Any) -> Any:
            x = inputs if len(inputs) > 1 else inputs[0]
            outputs[name] = override(own[name], x, masks.get(name))
            return outputs[name]

        vars(network)[name] = watch

    for name, override in layers:
        put(name, override)
    try:
        yield outputs
    finally:
        vars(network).update(own)


@partial(nnx.jit, static_argnames="layers")
def _outputs(network: Any, x: Any, *, layers: Overrides) -> Any:
    with _watched(network, layers, {}) as outputs:
        network(x)
    return outputs


@cache  # one class, so that what was compiled for it is found again
def _watching(network: Any, layers: Overrides, traced: bool) -> Any:
    """The network's class; it takes its masks and leaves what it saw."""

    class Watching(network):  # type: ignore[misc]
        def __call__(self, x: Any) -> Any:
            own = vars(self).items()
            masks = {
                name.removeprefix(_MASK): mask[...]
                for name, mask in own
                if name.startswith(_MASK)
            }
            with _watched(self, layers, masks) as outputs:
                y = super().__call__(x)
            if traced:
                self.outputs = Seen(outputs)
            return y

    return Watching


@cache
def _noting(optimizer: Any, change: Change, traced: bool) -> Any:
    """The optimizer's class; it leaves the gradients that it is given."""

    class Noting(optimizer):  # type: ignore[misc]
        def update(self, network: Any, gradients: Any, **given: Any) -> None:
            if traced:
                network.gradients = Seen(gradients)
            changed = change(network, self, gradients)
            super().update(network, changed, **given)

    return Noting


def _arrays(prefix: str, outputs: Mapping[str, jax.Array]) -> Arrays:
    return {prefix + name: np.array(y) for name, y in outputs.items()}
