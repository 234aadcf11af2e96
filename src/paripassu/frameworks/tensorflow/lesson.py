# %% [markdown]
# # Handwritten digits in TensorFlow
# From a recipe to a prediction. The PyTorch lesson has the same headings.

# %%
import math

import keras
import tensorflow as tf
from keras import layers

from paripassu.core import datasets, draws
from paripassu.core.recipe import load
from paripassu.frameworks.tensorflow.weights import from_common

# %% [markdown]
# ## Data
# TensorFlow wants the channel axis last, and finds the device by itself. A
# `tf.data` pipeline prepares each batch while the one before is trained on. It
# is gone through once in each epoch, and takes the next order each time.


# %%
def to_arrays(split):
    images = split.images  # (N, 28, 28, 1), normalised
    return images.astype(keras.config.floatx(), copy=False), split.labels


def to_dataset(split, orders, steps):
    shape = split.pixels.shape[1:]  # (28, 28, 1)
    images = tf.TensorSpec([None, *shape], keras.config.floatx())
    labels = tf.TensorSpec([None], tf.int64)
    pairs = tf.data.Dataset.from_generator(
        lambda: (to_arrays(split[rows]) for rows in next(orders)),
        output_signature=(images, labels),
    )
    pairs = pairs.apply(tf.data.experimental.assert_cardinality(steps))
    return pairs.prefetch(tf.data.AUTOTUNE)


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
# ## Loss, optimizer and schedule
# The loss must be told that logits come. Labels are integers, not one-hot
# vectors. The schedule is a callback: `fit` asks it for each epoch's rate.


# %%
def make_loss():  # it keeps the number type that was set when it was made
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_optimizer(recipe):
    chosen = recipe.optimizer
    rate, rho, epsilon = chosen.learning_rate, chosen.rho, chosen.epsilon
    return keras.optimizers.Adadelta(rate, rho, epsilon)


def make_schedule(recipe):
    start, decay = recipe.optimizer.learning_rate, recipe.decay
    return keras.callbacks.LearningRateScheduler(
        lambda epoch: start * decay.factor ** (epoch / decay.interval)
    )


# %% [markdown]
# ## Train and evaluate
# `compile` joins network, loss and optimizer; `fit` is the loop. It takes ten
# steps in a row before it is back in Python, where callbacks see how it goes.
# `fit` turns dropout on; `evaluate` runs without it.


# %%
def compile_network(network, optimizer, loss):
    network.compile(
        optimizer,
        loss,
        metrics=["accuracy"],
        steps_per_execution=10,
    )


def train(network, recipe, training, monitored, callbacks, first_epoch=0):
    epochs = range(first_epoch, recipe.epochs)
    orders = (draws.batches(recipe, len(training), epoch) for epoch in epochs)
    steps = math.ceil(len(training) / recipe.batch_size)
    return network.fit(
        to_dataset(training, orders, steps),
        epochs=recipe.epochs,
        initial_epoch=first_epoch,
        validation_data=monitored,
        validation_batch_size=100,
        callbacks=callbacks,
        shuffle=False,  # the batches come shuffled
        verbose=0,
    )


def evaluate(network, images, labels):
    return network.evaluate(images, labels, batch_size=100, verbose=0)


# %% [markdown]
# ## Predict
# A softmax makes probabilities of logits.


# %%
def predict(network, images):
    return keras.ops.softmax(network.predict_on_batch(images))  # (N, 10)


# %% [markdown]
# ## Save and load
# Keras saves layers, weights and optimizer together: loading needs no code.


# %%
def save(network, path):
    network.save(path)


def load_saved(path):
    return keras.models.load_model(path)


# %% [markdown]
# ## All together
# `fit` loops over the epochs; a callback steps the schedule. First weights and
# order of the images are the recipe's: all frameworks get the same.

# %%
if __name__ == "__main__":
    keras.config.set_floatx("float32")  # whatever ~/.keras/keras.json says
    keras.config.set_image_data_format("channels_last")
    recipe = load("article", ["epochs=1"])
    data = datasets.prepare(datasets.load(), mean=0.1307, std=0.3081)
    test = to_arrays(data.test)
    keras.utils.set_random_seed(recipe.seed)
    network = make_network(**recipe.dropout)
    first = draws.initial_weights(recipe.architecture, recipe)
    from_common(recipe, network, first)
    compile_network(network, make_optimizer(recipe), make_loss())
    train(network, recipe, data.training, test, [make_schedule(recipe)])
    print("test", *evaluate(network, *test))
    print(predict(network, test[0][:1]))
