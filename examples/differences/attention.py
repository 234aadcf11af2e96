"""Attention and embeddings: where defaults differ."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # isort: skip, before TensorFlow

import keras
import numpy as np
import torch.nn.functional as F
from keras import layers, ops
from shared import Measured, difference, draw, spread, tensor
from torch import nn

from paripassu.core.layer_spec import relative_error


@difference(
    "Attention and embeddings",
    "A mask of attention: True hides in `nn.MultiheadAttention`, shows in Keras",
    "`~mask`",
    "mask",
)
def attention_mask() -> Measured:
    left = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    right = layers.MultiHeadAttention(2, 4, dtype="float64")
    x = draw(3, 5, 8)
    right.build((None, 5, 8), (None, 5, 8))
    weights, bias = left.in_proj_weight.detach().numpy(), left.in_proj_bias
    values = []
    for part, shift in zip(
        np.split(weights, 3), np.split(bias.detach().numpy(), 3), strict=True
    ):
        values += [part.T.reshape(8, 2, 4), shift.reshape(2, 4)]
    out = left.out_proj
    values += [
        out.weight.detach().numpy().T.reshape(2, 4, 8),
        out.bias.detach().numpy(),
    ]
    right.set_weights(values)
    mask = np.triu(np.ones((5, 5), bool), 1) | np.eye(5, k=-1, dtype=bool)
    with torch.no_grad():
        given = tensor(x)
        made = left(given, given, given, attn_mask=tensor(mask))[0].numpy()
    found = [
        relative_error(made, np.asarray(right(x, x, attention_mask=shown)))
        for shown in (mask[None], ~mask[None])
    ]
    return Measured("True hides", "True shows", *found)


@difference(
    "Attention and embeddings",
    "`F.scaled_dot_product_attention`: True shows, as in Keras, and not as in "
    "`nn.MultiheadAttention`",
    "the mask as it is",
    "mask",
)
def scaled_dot_product_mask() -> Measured:
    x = tensor(draw(3, 2, 5, 4))
    mask = np.tril(np.ones((5, 5), bool))
    made = F.scaled_dot_product_attention(x, x, x, attn_mask=tensor(mask)).numpy()
    arrays = np.moveaxis(x.numpy(), 1, 2)
    wanted = np.moveaxis(made, 1, 2)
    hidden = ~mask | np.eye(5, dtype=bool)
    found = [
        relative_error(
            wanted,
            np.asarray(
                ops.dot_product_attention(
                    arrays, arrays, arrays, mask=shown[None, None]
                )
            ),
        )
        for shown in (hidden, mask)
    ]
    return Measured("True shows", "True shows", *found)


@difference(
    "Attention and embeddings",
    "Embedding: the values that it begins with",
    "`embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0)`",
    rest=0.05,
)
def embedding_start() -> Measured:
    torch.manual_seed(0)
    left = spread(nn.Embedding(1000, 50).weight.detach())
    found = []
    for start in ("uniform", keras.initializers.RandomNormal(stddev=1.0, seed=1)):
        keras.utils.set_random_seed(0)
        layer = layers.Embedding(1000, 50, embeddings_initializer=start)
        layer.build()
        found.append(spread(layer.embeddings))
    apart = [abs(x - left) / left for x in found]
    return Measured("normal, deviation 1", "uniform, ±0.05", *apart)
