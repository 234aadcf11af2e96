# %% [markdown]
# # One training, two forms, three frameworks
#
# The lessons of this project give a network its batches by hand. Elsewhere you find
# `DataLoader`, `fit(x, y)` and a jitted step. Here are both, in each framework, on the
# same images in the same order and from the same weights. Guess first: which losses
# will be equal, and to how many digits?
#
# Run all of it with `python examples/class/loops.py`, or cell by cell.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # isort: skip, before TensorFlow

import keras
import numpy as np
import optax
from flax import nnx
from torch.utils.data import DataLoader, TensorDataset

from paripassu.core import datasets, draws
from paripassu.core.recipe import load
from paripassu.frameworks.jax import lesson as flax_lesson
from paripassu.frameworks.jax.weights import from_common as to_flax
from paripassu.frameworks.pytorch import lesson as torch_lesson
from paripassu.frameworks.pytorch.weights import from_common as to_torch
from paripassu.frameworks.tensorflow import lesson as keras_lesson
from paripassu.frameworks.tensorflow.weights import from_common as to_keras

# %% [markdown]
# ## The same for all
#
# 2,000 images, one epoch, in batches of 64: 32 steps. Dropout is off, since each
# framework would draw its own. First weights are drawn once, and given to each in its
# own layout.

# %%
IMAGES = 2_000
NO_DROPOUT = ["dropout.dropout1=0", "dropout.dropout2=0"]
recipe = load("article", ["epochs=1", *NO_DROPOUT])
training = datasets.prepare(datasets.load(), mean=0.1307, std=0.3081).training[:IMAGES]
first = draws.initial_weights(recipe.architecture, recipe)
order = list(draws.batches(recipe, IMAGES, epoch=0))  # 32 arrays of rows
chosen = recipe.optimizer
constants = {"rho": chosen.rho, "epsilon": chosen.epsilon}
images = training.images.reshape(IMAGES, 28, 28, 1).astype(np.float32)
labels = training.labels.astype(np.int64)
losses = {}  # by framework and form, of each step

# %% [markdown]
# ## PyTorch: our form
#
# `train_epoch` is a generator: it trains while it is gone through.


# %%
def torch_network():
    network = torch_lesson.Network(**recipe.dropout)
    network.load_state_dict(to_torch(recipe, first))
    return network


network = torch_network()
optimizer = torch_lesson.make_optimizer(network, recipe)
digits = torch_lesson.Digits(training, "cpu")
epoch = torch_lesson.train_epoch(
    network, torch_lesson.cross_entropy, optimizer, digits, order
)
losses["PyTorch", "ours"] = [float(loss) for loss, _right in epoch]

# %% [markdown]
# ## PyTorch: the form you find elsewhere
#
# A `TensorDataset` pairs images with labels, and a `DataLoader` takes batches of it. It
# would draw an order of its own (`shuffle=True`); a `batch_sampler` gives it ours.

# %%
network = torch_network()
optimizer = torch.optim.Adadelta(
    network.parameters(), lr=chosen.learning_rate, rho=chosen.rho, eps=chosen.epsilon
)
dataset = TensorDataset(
    torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels)
)
network.train()
found = []
for x, y in DataLoader(dataset, batch_sampler=order):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(network(x), y)
    loss.backward()
    optimizer.step()
    found.append(loss.item())
losses["PyTorch", "elsewhere"] = found

# %% [markdown]
# ## Keras: our form
#
# `fit` tells the mean loss of the epoch so far; the loss of a step is found from two.


# %%
class Losses(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.found, self.total, self.seen = [], 0.0, 0

    def on_train_batch_end(self, batch, logs):
        size = len(order[batch])
        total = logs["loss"] * (self.seen + size)
        self.found.append((total - self.total) / size)
        self.total, self.seen = total, self.seen + size


def keras_network():
    network = keras_lesson.make_network(**recipe.dropout)
    to_keras(recipe, network, first)
    return network


network = keras_network()
# As the lesson's `compile_network`, but with each step seen, not every tenth.
network.compile(keras_lesson.make_optimizer(recipe), keras_lesson.make_loss())
watcher = Losses()
keras_lesson.train(network, recipe, training, None, [watcher])
losses["Keras", "ours"] = watcher.found

# %% [markdown]
# ## Keras: the form you find elsewhere
#
# Arrays go in. `fit` would shuffle them (`shuffle=True` is its default); here they come
# in order already.

# %%
network = keras_network()
network.compile(
    optimizer=keras.optimizers.Adadelta(chosen.learning_rate, **constants),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
rows = np.concatenate(order)
watcher = Losses()
network.fit(
    x=images[rows],
    y=labels[rows],
    batch_size=recipe.batch_size,
    epochs=1,
    shuffle=False,
    callbacks=[watcher],
    verbose=0,
)
losses["Keras", "elsewhere"] = watcher.found

# %% [markdown]
# ## JAX: our form
#
# A compiled step; the learning rate is in the optimizer's state, since here it changes
# by the epoch.


# %%
def flax_network():
    network = flax_lesson.Network(**recipe.dropout, rngs=nnx.Rngs(recipe.seed))
    nnx.update(network, to_flax(recipe, first))
    return network


network = flax_network()
optimizer = flax_lesson.make_optimizer(network, recipe)
data = flax_lesson.to_arrays(training)
network.train()
found = []
for rows in order:
    x, y = flax_lesson.take(data, rows)
    loss, _right = flax_lesson.train_step(
        network, flax_lesson.cross_entropy, optimizer, x, y
    )
    found.append(float(loss))
losses["JAX", "ours"] = found

# %% [markdown]
# ## JAX: the form you find elsewhere
#
# One function with the loss inside of it, which `nnx.jit` compiles.

# %%
network = flax_network()
optimizer = nnx.Optimizer(
    network,
    optax.adadelta(chosen.learning_rate, rho=chosen.rho, eps=chosen.epsilon),
    wrt=nnx.Param,
)


@nnx.jit
def train_step(network, optimizer, x, y):
    def loss_of(network):
        logits = network(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    loss, gradients = nnx.value_and_grad(loss_of)(network)
    optimizer.update(network, gradients)
    return loss


network.train()
losses["JAX", "elsewhere"] = [
    float(train_step(network, optimizer, images[rows], labels[rows])) for rows in order
]

# %% [markdown]
# ## What came out
#
# The largest difference of the losses of a step: of two forms of one framework, and of
# two frameworks. What is left is rounding in float32, which grows from step to step.


# %%
def apart(one, other):
    """The largest difference of the losses of all steps, and of the first, in nats."""
    differences = np.abs(np.subtract(losses[one], losses[other]))
    return float(differences.max()), float(differences[0])


def table():
    """Rows: who, the largest difference over all steps, and that of the first."""
    names = list(dict.fromkeys(name for name, _form in losses))
    pairs = [((x, "ours"), (x, "elsewhere")) for x in names]
    pairs += [((names[0], "ours"), (x, "ours")) for x in names[1:]]
    return [
        (" ".join(one), " ".join(other), *apart(one, other)) for one, other in pairs
    ]


if __name__ == "__main__":
    for key, of_steps in losses.items():
        assert len(of_steps) == len(order), key
        print(f"{' '.join(key):20} {of_steps[0]:.6f} to {of_steps[-1]:.6f}")
    for one, other, largest, at_first in table():
        print(f"{one:18} {other:18} {largest:.1e}, first step {at_first:.1e}")
