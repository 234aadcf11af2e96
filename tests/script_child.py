"""Runs scripts of recipes beside the trainer, in a framework's process, for the tests.

One request on standard input: a list of scripts with their recipes. One answer on
standard output: of each, the losses of both on the same batches from the same weights,
and the spread of first weights.
"""

from __future__ import annotations

import json
import os
import sys
import types
from functools import partial
from pathlib import Path

import numpy as np

from paripassu.core import datasets, draws
from paripassu.core.recipe import validate
from paripassu.core.steps import TwinStep
from paripassu.frameworks import registry


class PyTorch:
    """What the tests do with a script in PyTorch."""

    def __init__(self, recipe):
        import torch

        from paripassu.frameworks.pytorch import weights

        torch.set_default_dtype(torch.float32)  # whatever an earlier script has set
        self.recipe, self.mapping = recipe, weights

    def first_weights(self, module):
        network = module.Network()
        if hasattr(module, "initialize"):
            network.apply(module.initialize)
        return self.mapping.to_common(self.recipe, network.state_dict())

    def losses(self, module, first, splits):
        network, losses, loss_of = module.Network(), [], module.loss_of

        def told(output, labels):
            loss = loss_of(output, labels)
            losses.append(loss.item())
            return loss

        module.loss_of = told
        network.load_state_dict(self.mapping.from_common(self.recipe, first))
        module.train(network, module.to_dataset(*splits[0]), "cpu")
        return losses


class TensorFlow:
    """What the tests do with a script in Keras."""

    def __init__(self, recipe):
        from paripassu.frameworks.tensorflow import weights

        self.recipe, self.mapping = recipe, weights

    def first_weights(self, module):
        network = module.make_network()
        if hasattr(module, "initialize"):
            module.initialize(network)
        return self.mapping.to_common(self.recipe, network)

    def losses(self, module, first, splits):
        import keras

        network, losses, size = module.make_network(), [], self.recipe.batch_size
        images, labels = splits[0]

        class Watch(keras.callbacks.Callback):
            """`fit` logs the mean loss so far."""

            def on_epoch_begin(self, epoch, logs=None):  # noqa: ARG002
                self.total = 0.0

            def on_train_batch_end(self, batch, logs):
                seen = min(len(labels), (batch + 1) * size)
                before, self.total = self.total, logs["loss"] * seen
                losses.append((self.total - before) / (seen - batch * size))

        def fit(original, *arguments, callbacks=(), **options):
            return original(*arguments, callbacks=[*callbacks, Watch()], **options)

        self.mapping.from_common(self.recipe, network, first)
        network.fit = partial(fit, network.fit)
        module.train(network, (images, labels))
        return losses


class Jax:
    """What the tests do with a script in Flax."""

    def __init__(self, recipe):
        from paripassu.frameworks.jax import weights

        self.recipe, self.mapping = recipe, weights

    def first_weights(self, module):
        from flax import nnx

        network = module.Network(nnx.Rngs(0))
        kept = nnx.state(network, self.mapping.KEPT)
        return self.mapping.to_common(self.recipe, kept)

    def losses(self, module, first, splits):
        from flax import nnx

        network, losses, step = module.Network(nnx.Rngs(0)), [], module.train_step

        def told(*arguments):
            losses.append(step(*arguments))
            return losses[-1]

        module.train_step = told
        nnx.update(network, self.mapping.from_common(self.recipe, first))
        images, labels = splits[0]
        module.train(network, (images, labels))
        return [x.item() for x in losses]


HANDS = {"pytorch": PyTorch, "tensorflow": TensorFlow, "jax": Jax}


def losses_of_trainer(framework, recipe, first, split):
    """The losses of the trainer's own steps."""
    twin = framework.make_twin(recipe, weights=first, threads=1, device="cpu")
    losses = []
    for epoch in range(recipe.epochs):
        twin.begin_epoch(epoch)
        for rows in draws.batches(recipe, len(split), epoch):
            some = split[rows]
            masks = {
                x.name: np.ones((len(some), *x.output_shape), np.bool_)
                for x in recipe.architecture.layers_of("dropout")
            }
            step = TwinStep(some.images, some.labels, masks)
            losses.append(float(twin.advance(step)))
    return losses


def run(text):
    """A script as a module."""
    module = types.ModuleType("script")
    sys.modules["script"] = module
    exec(compile(text, "script.py", "exec"), module.__dict__)
    return module


def compare(framework, data, recipe, texts):
    """What scripts of a recipe do, and what the trainer does."""
    raw, norm = datasets.load(data), recipe.normalization
    split = datasets.prepare(raw, mean=norm.mean, std=norm.std).training
    first = draws.initial_weights(recipe.architecture, recipe)
    # The twin first: it sets what is set for the whole process.
    trainer = losses_of_trainer(framework, recipe, first, split)
    hands = HANDS[framework.name](recipe)
    modules = [run(text) for text in texts]
    drawn = hands.first_weights(modules[0])
    return {
        "trainer": trainer,
        "scripts": [hands.losses(x, first, x.load(data)) for x in modules],
        "first": {
            name: [float(drawn[name].std()), float(x.std()), x.size]
            for name, x in first.items()
        },
        "connected": all(
            np.array_equal(drawn[n] != 0, x != 0) for n, x in first.items()
        ),
    }


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever scripts print
    request = json.load(sys.stdin)
    framework, data = registry.find(request["framework"]), Path(request["data"])
    found = [
        compare(framework, data, validate(x["recipe"]), x["texts"])
        for x in request["scripts"]
    ]
    json.dump(found, answers)
    answers.close()


if __name__ == "__main__":
    main()
