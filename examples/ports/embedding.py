"""The mean of a text's character embeddings, and a small network that classifies it.

Iyyer and others, "Deep Unordered Composition Rivals Syntactic Methods for Text
Classification", ACL 2015; with one layer it is fastText (Joulin and others, EACL 2017).

With `mask_zero=True` Keras leaves the symbol 0 out of the mean; PyTorch knows no mask.
Keras' vocabularies reserve their first rows for padding and unknown symbols, which
moves a table against the numbers. `GlobalAveragePooling1D` can be told that channels
come first, and raises no error where a text is as long as an embedding is wide.
"""

import keras
import numpy as np
import torch
from keras import layers, ops
from torch import nn
from torch.nn import functional as F

INPUT = "4,32:int:24"  # few symbols, so that 0 is among them


class AveragingNetwork(nn.Module):
    """A class for each text, of symbols' numbers (time,)."""

    def __init__(self, vocabulary=24, width=32, num_classes=6):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.hidden1 = nn.Linear(width, width)
        self.hidden2 = nn.Linear(width, width)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(width, num_classes)

    def forward(self, symbols):
        """Classify by the mean over all symbols."""
        x = self.embedding(symbols).mean(dim=1)
        x = F.relu(self.hidden1(x))
        x = F.relu(self.hidden2(x))
        return self.head(self.dropout(x))


def pytorch() -> nn.Module:
    """The model, with biases large enough to matter."""
    torch.manual_seed(0)
    model = AveragingNetwork()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.3)
    return model


@keras.saving.register_keras_serializable(package="embedding")
class SumOverTime(layers.Layer):
    """The sum over the steps of (N, time, channels)."""

    def call(self, x):
        """Sum over axis 1."""
        return ops.sum(x, axis=1)


POOLING = {
    "mean": layers.GlobalAveragePooling1D,
    "max": layers.GlobalMaxPooling1D,
    "sum": SumOverTime,
}


def keras_model(
    *,
    mask_zero=False,
    table_trainable=True,
    scale=None,
    pooling="mean",
    data_format=None,
    activation="relu",
    use_bias=True,
    head_activation=None,
) -> keras.Model:
    """The same in Keras, as a Sequential; layers name themselves."""
    table = layers.Embedding(24, 32, mask_zero=mask_zero, trainable=table_trainable)
    model = keras.Sequential([keras.Input((32,), dtype="int32"), table])
    if scale is not None:
        model.add(layers.Rescaling(scale))
    format_of_pool = {} if data_format is None else {"data_format": data_format}
    model.add(POOLING[pooling](**format_of_pool))
    model.add(layers.Dense(32, activation=activation, use_bias=use_bias))
    model.add(layers.Dense(32, activation=activation, use_bias=use_bias))
    model.add(layers.Dropout(0.3))
    model.add(layers.Dense(6, activation=head_activation))
    return model


def to_numpy(parameter):
    """A parameter of PyTorch as an array."""
    return parameter.detach().numpy()


def keras_port(
    *,
    table="copied",
    transpose=True,
    dense=("hidden1", "hidden2", "head"),
    biases=True,
    **settings,
) -> keras.Model:
    """The Keras model with PyTorch's weights."""
    keras.utils.set_random_seed(0)  # what is not copied is the same every time
    source, model = pytorch(), keras_model(**settings)
    rows = to_numpy(source.embedding.weight)
    if table == "after-padding":
        # A row for padding comes first, and the last symbol falls off.
        rows = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    if table != "forgotten":
        model.layers[0].set_weights([rows])
    denses = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
    for layer, name in zip(denses, dense, strict=True):
        if name is None:
            continue
        linear = getattr(source, name)
        weight = to_numpy(linear.weight)
        square = weight.shape[0] == weight.shape[1]
        layer.kernel.assign(weight if square and not transpose else weight.T)
        if layer.use_bias and biases:
            layer.bias.assign(to_numpy(linear.bias))
    return model


FAULTS = [
    {
        "name": "embedding-zero-masked",
        "cause": "mask",
        "places": ("embedding", "mean"),
        "mistakes": {"mask_zero": True},
    },
    {
        "name": "embedding-table-not-copied",
        "cause": "weights-not-copied",
        "places": ("embedding",),
        "mistakes": {"table": "forgotten"},
    },
    {
        "name": "embedding-row-for-padding",
        "cause": "index-offset",
        "places": ("embedding",),
        "mistakes": {"table": "after-padding"},
    },
    {
        "name": "embedding-table-frozen",  # seen in gradients only
        "cause": "frozen",
        "places": ("embedding",),
        "mistakes": {"table_trainable": False},
    },
    {
        "name": "embedding-scaled",
        "cause": "embedding-scale",
        "places": ("embedding", "mean"),
        "mistakes": {"scale": 32**0.5},
    },
    {
        "name": "embedding-sum",
        "cause": "pool-kind",
        "places": ("mean", "embedding"),
        "mistakes": {"pooling": "sum"},
    },
    {
        "name": "embedding-max",
        "cause": "pool-kind",
        "places": ("mean", "embedding"),
        "mistakes": {"pooling": "max"},
    },
    {
        "name": "embedding-mean-of-channels",
        "cause": "axis",
        "places": ("mean", "embedding"),
        "mistakes": {"data_format": "channels_first"},
    },
    {
        "name": "embedding-hidden-not-transposed",
        "cause": "kernel-transposed",
        "places": ("hidden1",),
        "mistakes": {"transpose": False},
    },
    {
        "name": "embedding-hidden-exchanged",
        "cause": "weights-exchanged",
        "places": ("hidden1",),
        "mistakes": {"dense": ("hidden2", "hidden1", "head")},
    },
    {
        "name": "embedding-second-hidden-not-copied",
        "cause": "weights-not-copied",
        "places": ("hidden2",),
        "mistakes": {"dense": ("hidden1", None, "head")},
    },
    {
        "name": "embedding-biases-not-copied",
        "cause": "bias-not-copied",
        "places": ("hidden1",),
        "mistakes": {"biases": False},
    },
    {
        "name": "embedding-hidden-without-bias",
        "cause": "bias-missing",
        "places": ("hidden1",),
        "mistakes": {"use_bias": False},
    },
    {
        "name": "embedding-no-relu",
        "cause": "activation-missing",
        "places": ("relu", "hidden1"),
        "mistakes": {"activation": None},
    },
    {
        "name": "embedding-tanh-for-relu",
        "cause": "activation-kind",
        "places": ("relu", "hidden1"),
        "mistakes": {"activation": "tanh"},
    },
    {
        "name": "embedding-softmax-in-head",
        "cause": "activation-extra",
        "places": ("head",),
        "mistakes": {"head_activation": "softmax"},
    },
]
