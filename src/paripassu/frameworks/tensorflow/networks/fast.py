"""The network of "train_mnist_fast" in Keras."""

import keras
from keras import layers


def make_network() -> keras.Sequential:
    """215,194 parameters, no dropout; each ReLU after its pool."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(24, 5, name="conv1"),  # (N, 24, 24, 24)
            layers.MaxPooling2D(2, name="pool1"),  # (N, 12, 12, 24)
            layers.ReLU(name="relu1"),
            layers.Conv2D(32, 3, name="conv2"),  # (N, 10, 10, 32)
            layers.MaxPooling2D(2, name="pool2"),  # (N, 5, 5, 32)
            layers.ReLU(name="relu2"),
            layers.Flatten(name="flatten"),  # (N, 800)
            layers.Dense(256, name="dense1"),  # (N, 256)
            layers.ReLU(name="relu3"),
            layers.Dense(10, name="dense2"),  # (N, 10), logits
        ]
    )
