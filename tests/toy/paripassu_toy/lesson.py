# %% [markdown]
# # Handwritten digits in Toy
# From a recipe to a prediction. The other lessons have the same headings.

# %%
import numpy as np
from safetensors.numpy import load_file, save_file

from paripassu.core import datasets, draws
from paripassu.core.recipe import load
from paripassu.core.steps import TwinStep
from paripassu.reference.losses import LOSSES, softmax
from paripassu.reference.twin import Twin
from paripassu_toy.weights import from_common, to_common

# %% [markdown]
# ## Data
# Toy takes a batch as NumPy has it, the axis of the channels last.


# %%
def take(data, rows):
    some = data[rows]
    return some.images, some.labels  # (B, 28, 28, 1) and (B,)


# %% [markdown]
# ## Network
# A network is a recipe and its weights: the reference walks the layers. After
# each step it keeps what the recipe's precision can hold, and no more.


# %%
class Network:
    def __init__(self, recipe, weights):
        self.recipe = recipe
        self.twin = Twin(recipe, weights=weights, threads=1, device="cpu")
        self.restore(self.twin.state(), 0, 0)

    def restore(self, state, epoch, step):
        kept = {n: np.asarray(x, self.recipe.storage) for n, x in state.items()}
        self.twin.load_state(kept, epoch=epoch, step=step)
        self.epoch, self.finished = epoch, step

    def arrays(self, kind):
        state = self.twin.state().items()
        found = {n.removeprefix(kind): x for n, x in state if n.startswith(kind)}
        return {n: np.asarray(x, self.recipe.storage) for n, x in found.items()}


# %% [markdown]
# ## Loss, optimizer and schedule
# The recipe says which: the reference reads it there.


# %%
def loss_of(network, images, labels):
    outputs = network.twin.evaluate(images)
    last = network.recipe.architecture.layers[-1].name
    return float(LOSSES[network.recipe.loss](outputs[last], labels)[0])


# %% [markdown]
# ## Train and evaluate
# A step has images, labels and the masks of dropout; the twin does the rest.


# %%
def train_epoch(network, data, batches, epoch):
    recipe, twin = network.recipe, network.twin
    twin.begin_epoch(epoch)
    for number, rows in enumerate(batches):
        images, labels = take(data, rows)
        masks = draws.dropout_masks(
            recipe.architecture, recipe, len(rows), epoch, number
        )
        found = twin.step(TwinStep(images, labels, masks))
        network.restore(twin.state(), epoch, network.finished + 1)
        last = found[f"activation.{recipe.architecture.layers[-1].name}"]
        yield float(found["loss"]), int((last.argmax(1) == labels).sum())


def evaluate(network, data):
    loss, right = 0.0, 0
    for rows in np.split(np.arange(len(data)), range(100, len(data), 100)):
        images, labels = take(data, rows)
        loss += loss_of(network, images, labels) * len(rows)
        right += int((network.twin.logits(images).argmax(1) == labels).sum())
    return loss / len(data), right / len(data)


# %% [markdown]
# ## Predict
# A softmax makes probabilities of logits.


# %%
def predict(network, images):
    return softmax(network.twin.logits(images))  # (N, 10)


# %% [markdown]
# ## Save and load
# Toy saves arrays by name, with the output channels first.


# %%
def save(network, path):
    save_file(from_common(network.recipe, network.arrays("weight.")), path)


def load_saved(network, path):
    weights = to_common(network.recipe, load_file(path))
    state = {f"weight.{name}": array for name, array in weights.items()}
    network.restore(state, 0, 0)


# %% [markdown]
# ## All together
# The loop over epochs is yours.

# %%
if __name__ == "__main__":
    recipe = load("fast", ["epochs=1"])
    data = datasets.prepare(datasets.load(), mean=0.1307, std=0.3081)
    first = draws.initial_weights(recipe.architecture, recipe)
    network = Network(recipe, first)
    order = draws.batches(recipe, len(data.training), 0)
    for loss, _right in train_epoch(network, data.training, order, 0):
        print(loss)
    print("test", *evaluate(network, data.test))
    print(predict(network, data.test[:1].images))
