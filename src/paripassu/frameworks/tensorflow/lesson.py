# %% [markdown]
# # Handwritten digits in TensorFlow
# One small convolutional network on MNIST, from a recipe to a prediction. The
# PyTorch lesson has the same headings: read the two side by side.

# %%
import math

import keras
import tensorflow as tf
from keras import layers

from paripassu.core import datasets, draws, files, layout
from paripassu.core.recipe import load
from paripassu.frameworks.tensorflow import optimizers

# %% [markdown]
# ## Recipe
# One recipe holds every number of the experiment. TensorFlow finds the device
# by itself; number type and place of the channels are set once, for all Keras.


# %%
def placement(recipe):
    keras.config.set_floatx(recipe.precision)
    keras.config.set_dtype_policy(recipe.precision)
    keras.config.set_image_data_format("channels_last")


# %% [markdown]
# ## Data
# TensorFlow wants the channel axis last. A `tf.data` pipeline gathers each
# batch while the one before it is trained on.


# %%
def to_arrays(split):
    images = split.images[..., None].astype(keras.config.floatx())
    return images, split.labels  # (N, 28, 28, 1), (N,)


def to_dataset(images, labels, batches):
    def gather(rows):
        return tf.gather(images, rows), tf.gather(labels, rows)

    rows = tf.TensorSpec([None], tf.int64)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=rows)
    return dataset.map(gather).prefetch(tf.data.AUTOTUNE)


# %% [markdown]
# ## Network
# A model is a stack of layers, each of which works out its input size from the
# one before. Keras traces it into a graph once.


# %%
def make_network(dropout1=0.25, dropout2=0.5):
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),  # (N, 28, 28, 1)
            layers.Conv2D(32, 3, name="conv1"),  # (N, 26, 26, 32)
            layers.ReLU(name="relu1"),
            layers.Conv2D(64, 3, name="conv2"),  # (N, 24, 24, 64)
            layers.MaxPooling2D(2, name="pool"),  # (N, 12, 12, 64)
            layers.ReLU(name="relu2"),  # after the pool: on fewer numbers
            layers.Dropout(dropout1, name="dropout1"),
            layers.Flatten(name="flatten"),  # (N, 9216)
            layers.Dense(128, name="dense1"),  # (N, 128)
            layers.ReLU(name="relu3"),
            layers.Dropout(dropout2, name="dropout2"),
            layers.Dense(10, name="dense2"),  # (N, 10), logits
        ]
    )


# %% [markdown]
# ## Loss
# The loss must be told that logits come, or it takes them for probabilities.
# Labels are integers: no one-hot vectors are needed.


# %%
def make_loss():  # it keeps the number type that was set when it was made
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# %% [markdown]
# ## Optimizer and schedule
# A schedule object counts steps; a callback sees epochs. Decay per epoch is
# the callback's, decay per step the schedule's.


# %%
def make_optimizer(recipe):
    chosen, decay = recipe.optimizer, recipe.decay
    rate = chosen.learning_rate
    if decay.unit == "step":
        rate = optimizers.ExponentialDecay(rate, decay.interval, decay.factor)
    if chosen.kind != "adadelta":
        return optimizers.make(chosen, rate)
    return keras.optimizers.Adadelta(rate, chosen.rho, chosen.epsilon)


def make_schedule(recipe):
    start, decay = recipe.optimizer.learning_rate, recipe.decay
    if decay.unit == "step":
        return []
    return [
        keras.callbacks.LearningRateScheduler(
            lambda epoch: start * decay.factor ** (epoch / decay.interval)
        )
    ]


# %% [markdown]
# ## Train
# `compile` joins network, loss and optimizer; `fit` is the loop. Callbacks see
# each batch and epoch. `fit` turns dropout on, and off to validate.


# %%
def compile_network(network, loss, recipe):
    network.compile(make_optimizer(recipe), loss, metrics=["accuracy"])


def train(network, recipe, training, monitored, first_epoch=0, callbacks=()):
    images, labels = map(tf.constant, training)
    count = len(labels)

    def batches():
        for epoch in range(first_epoch, recipe.epochs):
            yield from draws.batches(recipe, count, epoch)

    return network.fit(
        to_dataset(images, labels, batches),
        steps_per_epoch=math.ceil(count / recipe.batch_size),
        epochs=recipe.epochs,
        initial_epoch=first_epoch,
        validation_data=monitored,
        validation_batch_size=1000,
        callbacks=[*make_schedule(recipe), *callbacks],
        shuffle=False,  # the batches come shuffled
        verbose=0,
    )


# %% [markdown]
# ## Evaluate
# `evaluate` runs without dropout; loss and accuracy are means over images.


# %%
def evaluate(network, images, labels):
    return network.evaluate(images, labels, batch_size=1000, verbose=0)


# %% [markdown]
# ## Save and load
# Keras saves layers and weights together: loading needs no code. The common
# format, safetensors in one layout, passes weights to other frameworks.

# %%
LAYOUTS = {}  # the common layout is the one that Keras has


def save(network, path):
    network.save(path)


def load_saved(path):
    return keras.models.load_model(path)


def to_common(recipe, network):
    weights = {
        f"{layer.name}.{weight.name}": keras.ops.convert_to_numpy(weight)
        for layer in network.layers
        for weight in layer.weights
    }
    return layout.to_canonical(recipe.score_sheet, weights, LAYOUTS)


def from_common(recipe, network, weights):
    weights = layout.from_canonical(recipe.score_sheet, weights, LAYOUTS)
    for layer in network.layers:
        for weight in layer.weights:
            weight.assign(weights[f"{layer.name}.{weight.name}"])


# %% [markdown]
# ## Predict
# Logits become probabilities through a softmax.


# %%
def predict(network, images):
    return keras.ops.softmax(network.predict_on_batch(images))  # (N, 10)


# %% [markdown]
# ## All together
# `fit` loops over the epochs; callbacks step the schedule.


# %%
if __name__ == "__main__":
    recipe = load("article", ["epochs=1"])
    data = datasets.prepare(datasets.load(), mean=0.1307, std=0.3081)
    placement(recipe)
    training, test = to_arrays(data.training), to_arrays(data.test)
    keras.utils.set_random_seed(recipe.seed)
    network = make_network(**recipe.dropout)
    weights = draws.initial_weights(recipe.score_sheet, recipe)
    from_common(recipe, network, weights)
    compile_network(network, make_loss(), recipe)
    train(network, recipe, training, test)
    print(*evaluate(network, *test))
    files.write_tensors("weights.safetensors", to_common(recipe, network))
    print(predict(network, test[0][:1]))
