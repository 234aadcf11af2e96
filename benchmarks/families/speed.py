"""Models of three sizes in PyTorch and in Keras, for `check_speed.py`; random weights.

BERT and ConvNeXt are those of transformers, keras-hub and keras.applications.
"""

from __future__ import annotations

from typing import Any

WIDTH = 8


def small_left() -> Any:
    """Two dense layers."""
    from torch import nn

    return nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, 4))


def small_right() -> Any:
    """The same."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [keras.Input((WIDTH,)), layers.Dense(16, "relu"), layers.Dense(4)]
    )


def bert_left() -> Any:
    """BERT-base, with the form of GELU that keras-hub has."""
    import transformers

    config = transformers.BertConfig(hidden_act="gelu_pytorch_tanh")
    return transformers.BertModel(config)


def bert_right() -> Any:
    """The same."""
    import keras_hub

    return keras_hub.models.BertBackbone(
        vocabulary_size=30522,
        num_layers=12,
        num_heads=12,
        hidden_dim=768,
        intermediate_dim=3072,
        max_sequence_length=512,
    )


def convnext_left() -> Any:
    """ConvNeXt-Tiny, which returns its last feature map normalised, as Keras's does."""
    import transformers
    from torch import nn

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = transformers.ConvNextConfig(layer_norm_eps=1e-6)
            self.net = transformers.ConvNextModel(config)

        def forward(self, pixel_values: Any) -> Any:
            made = self.net.encoder(self.net.embeddings(pixel_values))
            return self.net.layernorm(made.last_hidden_state.permute(0, 2, 3, 1))

    return Features()


def convnext_right() -> Any:
    """The same."""
    import keras

    return keras.applications.ConvNeXtTiny(
        weights=None,
        include_top=False,
        include_preprocessing=False,
        input_shape=(224, 224, 3),
    )
