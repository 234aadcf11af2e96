# %% [markdown]
# # Handwritten digits in JAX
# From a recipe to a prediction. The other lessons have the same headings.

# %%
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx

from paripassu.core import datasets, draws
from paripassu.core.recipe import load
from paripassu.frameworks.jax.weights import from_common

# %% [markdown]
# ## Data
# Flax wants the channel axis last, and JAX finds the device by itself: arrays
# of NumPy go there when a compiled function is given them. The whole set stays
# in bytes; `levels` says what each becomes in a batch.


# %%
def to_arrays(split, dtype=np.float32):
    return split.pixels, split.levels.astype(dtype), split.labels


def take(data, rows):  # (B, 28, 28, 1) and (B,)
    pixels, levels, labels = data
    tables = 256 * np.arange(len(levels))  # one for each channel
    return levels.ravel()[pixels[rows] + tables], labels[rows]


# %% [markdown]
# ## Network
# A module declares its layers, with their input sizes, and uses them in
# `__call__`. What has neither weights nor randomness is a function. Random
# numbers come from keys, never from a global generator: `Rngs` hands them out.

# %%
max_pool = partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2))
flatten = partial(jax.lax.collapse, start_dimension=1)


class Network(nnx.Module):
    def __init__(self, dropout1=0.25, dropout2=0.5, *, rngs):
        self.conv1 = nnx.Conv(1, 32, (3, 3), padding="VALID", rngs=rngs)
        self.relu1 = self.relu2 = self.relu3 = nnx.relu
        self.conv2 = nnx.Conv(32, 64, (3, 3), padding="VALID", rngs=rngs)
        self.pool = max_pool  # before ReLU: the same, and that on fewer numbers
        self.dropout1 = nnx.Dropout(dropout1, rngs=rngs)
        self.flatten = flatten
        self.dense1 = nnx.Linear(12 * 12 * 64, 128, rngs=rngs)
        self.dropout2 = nnx.Dropout(dropout2, rngs=rngs)
        self.dense2 = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x):  # (N, 28, 28, 1)
        x = self.relu1(self.conv1(x))  # (N, 26, 26, 32)
        x = self.relu2(self.pool(self.conv2(x)))  # (N, 12, 12, 64)
        x = self.flatten(self.dropout1(x))  # (N, 9216)
        x = self.relu3(self.dense1(x))  # (N, 128)
        return self.dense2(self.dropout2(x))  # (N, 10), logits


# %% [markdown]
# ## Loss, optimizer and schedule
# The loss takes logits, of each image. A schedule is a function of a count: in
# an optimizer it counts updates. Here epochs count, so the loop sets the rate,
# which `inject_hyperparams` keeps in the optimizer's state.


# %%
def cross_entropy(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def make_optimizer(network, recipe):
    chosen = recipe.optimizer
    adadelta = optax.inject_hyperparams(optax.adadelta, ("rho", "eps"))
    rated = adadelta(chosen.learning_rate, chosen.rho, chosen.epsilon)
    return nnx.Optimizer(network, rated, wrt=nnx.Param)


def make_schedule(recipe):
    start, decay = recipe.optimizer.learning_rate, recipe.decay
    return optax.exponential_decay(start, decay.interval, decay.factor)


# %% [markdown]
# ## Train and evaluate
# A function is compiled once for each shape. `nnx.jit` carries what it changes
# in modules, weights and counts of keys, out again. `train()` turns dropout on
# and `eval()` off. When evaluating, the loss is the mean over images.


# %%
@partial(nnx.jit, static_argnames="loss_of")
def forward(network, loss_of, x, y):
    output = network(x)
    return loss_of(output, y), (output.argmax(1) == y).sum()


@partial(nnx.jit, static_argnames="loss_of")
def train_step(network, loss_of, optimizer, x, y):
    gradient_of = nnx.value_and_grad(forward, has_aux=True)
    found, gradients = gradient_of(network, loss_of, x, y)
    optimizer.update(network, gradients)
    return found  # loss and right answers


def evaluate(network, loss_of, data):
    network.eval()
    count, loss, right = len(data[0]), 0.0, 0
    for rows in np.split(np.arange(count), range(100, count, 100)):
        mean, correct = forward(network, loss_of, *take(data, rows))
        loss, right = loss + mean.item() * len(rows), right + correct.item()
    return loss / count, right / count


# %% [markdown]
# ## Predict
# A softmax makes probabilities of logits.


# %%
def predict(network, images):
    network.eval()
    return nnx.softmax(network(images))  # (N, 10)


# %% [markdown]
# ## Save and load
# Orbax saves the state, not the class: loading needs the code above.


# %%
def save(network, path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(Path(path).absolute(), nnx.state(network, nnx.Param))


def load_saved(network, path):
    with ocp.StandardCheckpointer() as checkpointer:
        like = nnx.state(network, nnx.Param)
        nnx.update(network, checkpointer.restore(Path(path).absolute(), like))


# %% [markdown]
# ## All together
# The loop over epochs is yours. First weights and order of the images are the
# recipe's: all frameworks get the same.

# %%
if __name__ == "__main__":
    recipe = load("article", ["epochs=1"])
    data = datasets.prepare(datasets.load(), mean=0.1307, std=0.3081)
    training, test = to_arrays(data.training), to_arrays(data.test)
    network = Network(**recipe.dropout, rngs=nnx.Rngs(recipe.seed))
    first = draws.initial_weights(recipe.architecture, recipe)
    nnx.update(network, from_common(recipe, first))
    optimizer, schedule = make_optimizer(network, recipe), make_schedule(recipe)
    rate = optimizer.opt_state.hyperparams["learning_rate"]
    for epoch in range(recipe.epochs):
        rate[...] = schedule(epoch)
        network.train()
        for rows in draws.batches(recipe, len(training[0]), epoch):
            x, y = take(training, rows)
            step = train_step(network, cross_entropy, optimizer, x, y)
        print("loss of the last batch", step[0])
    print("test", *evaluate(network, cross_entropy, test))
    print(predict(network, take(test, np.arange(1))[0]))
