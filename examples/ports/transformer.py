"""A Transformer encoder: pre-norm blocks over tokens and learned positions.

Vaswani and others, "Attention Is All You Need", NeurIPS 2017; learned positions and
GELU as in Devlin and others, "BERT", NAACL 2019; norms before each part as in Xiong and
others, "On Layer Normalization in the Transformer Architecture", ICML 2020.

PyTorch keeps the weights of query, key and value in one matrix (3 E, E), one below the
other; Keras has three of (E, heads, E / heads). All are square, so that a part, an axis
or a transpose can be mistaken unpunished, and so can the number of heads. Keras' norms
add 1e-3 where PyTorch's add 1e-5. Embeddings have small variances, so that it is seen.
"""

import keras
import numpy as np
import torch
from keras import layers, ops
from torch import nn

INPUT = "2,12:int:1000"


class Block(nn.Module):
    """Attention and a two-layer network, each after a norm, each added to its input."""

    def __init__(self, width, heads, dropout=0.1):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(
            width, heads, dropout=dropout, batch_first=True
        )
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x):
        """(N, time, width) to the same."""
        y = self.norm1(x)
        y, _ = self.attention(y, y, y, need_weights=False)
        x = x + y
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """A class for each text, of tokens' numbers (time,)."""

    def __init__(
        self, vocabulary=1000, length=16, width=64, heads=4, depth=2, num_classes=10
    ):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, tokens):
        """Classify by the mean over all tokens."""
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.positions(steps)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))


def pytorch() -> nn.Module:
    """The model, with biases and norms that matter."""
    torch.manual_seed(0)
    model = Encoder()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name.endswith("bias"):
                nn.init.normal_(parameter, std=0.3)
            elif isinstance(module, nn.LayerNorm):
                nn.init.normal_(parameter, mean=1.0, std=0.2)
    return model


@keras.saving.register_keras_serializable(package="transformer")
class TokenAndPositionEmbedding(layers.Layer):
    """A vector for each token, and one for its position."""

    def __init__(
        self,
        vocabulary,
        length,
        width,
        *,
        scale=1.0,
        offset=0,
        positions="learned",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.tokens = layers.Embedding(vocabulary, width, dtype=self.dtype_policy)
        self.positions = layers.Embedding(
            length,
            width,
            trainable=positions != "frozen",
            dtype=self.dtype_policy,
        )
        self.scale = scale
        self.offset = offset
        self.adds_positions = positions != "forgotten"

    def build(self, input_shape):
        """Make both tables."""
        self.tokens.build(input_shape)
        self.positions.build(input_shape[1:])

    def call(self, tokens):
        """(N, time) to (N, time, width)."""
        x = self.tokens(tokens)
        if self.scale != 1:
            x = x * self.scale
        if self.adds_positions:
            x = x + self.positions(ops.arange(tokens.shape[1]) + self.offset)
        return x


@keras.saving.register_keras_serializable(package="transformer")
class UnscaledAttention(layers.MultiHeadAttention):
    """Scores as they are, which is how T5 has them."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._inverse_sqrt_key_dim = 1.0


@keras.saving.register_keras_serializable(package="transformer")
def gelu_tanh(x):
    """GELU by its formula with tanh, which is how GPT-2 has it."""
    return keras.activations.gelu(x, approximate=True)


def encoder_block(
    x,
    name,
    *,
    heads,
    attention_scale,
    causal,
    epsilon,
    activation,
    norm_first,
    residuals,
):
    """Attention and a two-layer network, each after a norm, each added to its input."""
    width = x.shape[-1]
    kind = layers.MultiHeadAttention if attention_scale else UnscaledAttention
    attention = kind(heads, width // heads, dropout=0.1, name=f"{name}_attention")
    up = layers.Dense(4 * width, activation=activation, name=f"{name}_up")
    down = layers.Dense(width, name=f"{name}_down")
    norm1, norm2 = (
        layers.LayerNormalization(epsilon=epsilon, name=f"{name}_norm{n}")
        for n in (1, 2)
    )

    def attend(x):
        return attention(x, x, use_causal_mask=causal)

    def mlp(x):
        return layers.Dropout(0.1)(down(up(x)))

    for part, norm in ((attend, norm1), (mlp, norm2)):
        y = part(norm(x)) if norm_first else part(x)
        if part.__name__ in residuals:
            y = layers.Add()([x, y])
        x = y if norm_first else norm(y)
    return x


def keras_model(
    *,
    heads=4,
    attention_scale=True,
    causal=False,
    epsilon=1e-5,
    activation="gelu",
    norm_first=True,
    residuals=("attend", "mlp"),
    embedding_scale=1.0,
    position_offset=0,
    positions="learned",
    final_norm=True,
    pooling="mean",
) -> keras.Model:
    """The same in Keras, as the Functional API has it, layers named."""
    tokens = keras.Input((12,), dtype="int32", name="tokens")
    x = TokenAndPositionEmbedding(
        1000,
        16,
        64,
        scale=embedding_scale,
        offset=position_offset,
        positions=positions,
        name="embedding",
    )(tokens)
    for number in range(2):
        x = encoder_block(
            x,
            f"block{number}",
            heads=heads,
            attention_scale=attention_scale,
            causal=causal,
            epsilon=epsilon,
            activation=activation,
            norm_first=norm_first,
            residuals=residuals,
        )
    if final_norm:
        x = layers.LayerNormalization(epsilon=epsilon, name="norm")(x)
    mean = layers.GlobalAveragePooling1D(name="mean")
    x = mean(x) if pooling == "mean" else x[:, 0]
    outputs = layers.Dense(10, name="head")(x)
    return keras.Model(tokens, outputs, name="encoder")


def to_numpy(parameter):
    """A parameter of PyTorch as an array."""
    return parameter.detach().numpy()


def copy_linear(layer, linear):
    """PyTorch keeps a kernel as (out, in), Keras as (in, out)."""
    layer.set_weights([to_numpy(linear.weight).T, to_numpy(linear.bias)])


def copy_norm(layer, norm):
    """Gamma and beta."""
    layer.set_weights([to_numpy(norm.weight), to_numpy(norm.bias)])


def copy_attention(
    layer,
    attention,
    *,
    parts="qkv",
    transpose_in=True,
    transpose_out=True,
    heads_last=False,
    query_factor=1.0,
    in_bias=True,
):
    """Part by part, each cut into heads."""
    heads, depth = layer.num_heads, layer.key_dim
    weights = np.split(to_numpy(attention.in_proj_weight), 3)
    biases = np.split(to_numpy(attention.in_proj_bias), 3)
    denses = (layer.query_dense, layer.key_dense, layer.value_dense)
    for dense, part in zip(denses, map("qkv".index, parts), strict=True):
        kernel = weights[part].T if transpose_in else weights[part]
        if heads_last:
            kernel = kernel.reshape(-1, depth, heads).transpose(0, 2, 1)
        factor = query_factor if dense is layer.query_dense else 1.0
        dense.kernel.assign(kernel.reshape(-1, heads, depth) * factor)
        if in_bias:
            dense.bias.assign(biases[part].reshape(heads, depth) * factor)
    out = to_numpy(attention.out_proj.weight)
    out = out.T if transpose_out else out
    layer.output_dense.set_weights(
        [out.reshape(heads, depth, -1), to_numpy(attention.out_proj.bias)]
    )


def keras_port(*, block_sources=(0, 1), attention=None, **settings) -> keras.Model:
    """The Keras model with PyTorch's weights."""
    keras.utils.set_random_seed(0)  # what is not copied is the same every time
    source, model = pytorch(), keras_model(**settings)
    embedding = model.get_layer("embedding")
    embedding.tokens.set_weights([to_numpy(source.tokens.weight)])
    embedding.positions.set_weights([to_numpy(source.positions.weight)])
    for number, other in enumerate(block_sources):
        block, name = source.blocks[other], f"block{number}"
        copy_norm(model.get_layer(f"{name}_norm1"), block.norm1)
        copy_attention(
            model.get_layer(f"{name}_attention"), block.attention, **(attention or {})
        )
        copy_norm(model.get_layer(f"{name}_norm2"), block.norm2)
        copy_linear(model.get_layer(f"{name}_up"), block.mlp[0])
        copy_linear(model.get_layer(f"{name}_down"), block.mlp[2])
    if settings.get("final_norm", True):
        copy_norm(model.get_layer("norm"), source.norm)
    copy_linear(model.get_layer("head"), source.head)
    return model


FAULTS = [
    {
        "name": "transformer-epsilon-of-keras",
        "cause": "epsilon",
        "places": ("blocks.0.norm1",),
        "mistakes": {"epsilon": 1e-3},
    },
    {
        "name": "transformer-epsilon-of-vit",
        "cause": "epsilon",
        "places": ("blocks.0.norm1",),
        "mistakes": {"epsilon": 1e-6},
    },
    {
        "name": "transformer-gelu-tanh",
        "cause": "gelu-form",
        "places": ("blocks.0.mlp.1", "blocks.0.mlp.0"),
        "mistakes": {"activation": gelu_tanh},
    },
    {
        "name": "transformer-relu-for-gelu",
        "cause": "activation-kind",
        "places": ("blocks.0.mlp.1", "blocks.0.mlp.0"),
        "mistakes": {"activation": "relu"},
    },
    {
        "name": "transformer-no-gelu",
        "cause": "activation-missing",
        "places": ("blocks.0.mlp.1", "blocks.0.mlp.0"),
        "mistakes": {"activation": None},
    },
    {
        "name": "transformer-norm-after",
        "cause": "layer-order",
        "places": ("blocks.0.norm1", "blocks.0.attention"),
        "mistakes": {"norm_first": False},
    },
    {
        "name": "transformer-no-final-norm",
        "cause": "layer-missing",
        "places": ("norm",),
        "mistakes": {"final_norm": False},
    },
    {
        "name": "transformer-no-residual-of-attention",
        "cause": "residual-missing",
        "places": ("add", "blocks.0.attention"),
        "mistakes": {"residuals": ("mlp",)},
    },
    {
        "name": "transformer-no-residual-of-mlp",
        "cause": "residual-missing",
        "places": ("add", "blocks.0.mlp", "blocks.0.mlp.3"),
        "mistakes": {"residuals": ("attend",)},
    },
    {
        "name": "transformer-eight-heads",
        "cause": "attention-heads",
        "places": ("blocks.0.attention",),
        "mistakes": {"heads": 8},
    },
    {
        "name": "transformer-scores-unscaled",
        "cause": "attention-scale",
        "places": ("blocks.0.attention",),
        "mistakes": {"attention_scale": False},
    },
    {
        "name": "transformer-query-scaled-twice",
        "cause": "attention-scale",
        "places": ("blocks.0.attention",),
        "mistakes": {"attention": {"query_factor": 0.25}},
    },
    {
        "name": "transformer-causal",
        "cause": "mask",
        "places": ("blocks.0.attention",),
        "mistakes": {"causal": True},
    },
    {
        "name": "transformer-query-and-key-exchanged",
        "cause": "weights-exchanged",
        "places": ("blocks.0.attention",),
        "mistakes": {"attention": {"parts": "kqv"}},
    },
    {
        "name": "transformer-query-and-value-exchanged",
        "cause": "weights-exchanged",
        "places": ("blocks.0.attention",),
        "mistakes": {"attention": {"parts": "vkq"}},
    },
    {
        "name": "transformer-in-projection-not-transposed",
        "cause": "kernel-transposed",
        "places": ("blocks.0.attention",),
        "mistakes": {"attention": {"transpose_in": False}},
    },
    {
        "name": "transformer-out-projection-not-transposed",
        "cause": "kernel-transposed",
        "places": ("blocks.0.attention", "blocks.0.attention.out_proj"),
        "mistakes": {"attention": {"transpose_out": False}},
    },
    {
        "name": "transformer-heads-interleaved",
        "cause": "kernel-axes",
        "places": ("blocks.0.attention",),
        "mistakes": {"attention": {"heads_last": True}},
    },
    {
        "name": "transformer-in-biases-not-copied",
        "cause": "bias-not-copied",
        "places": ("blocks.0.attention",),
        "mistakes": {"attention": {"in_bias": False}},
    },
    {
        "name": "transformer-blocks-exchanged",
        "cause": "weights-exchanged",
        "places": ("blocks.0.norm1", "blocks.0.attention", "blocks.0"),
        "mistakes": {"block_sources": (1, 0)},
    },
    {
        "name": "transformer-positions-off-by-one",
        "cause": "position",
        "places": ("positions", "add"),
        "mistakes": {"position_offset": 1},
    },
    {
        "name": "transformer-positions-not-added",
        "cause": "position",
        "places": ("positions", "add"),
        "mistakes": {"positions": "forgotten"},
    },
    {
        "name": "transformer-positions-frozen",  # seen in gradients only
        "cause": "frozen",
        "places": ("positions",),
        "mistakes": {"positions": "frozen"},
    },
    {
        "name": "transformer-embedding-scaled",
        "cause": "embedding-scale",
        "places": ("tokens", "add"),
        "mistakes": {"embedding_scale": 8.0},
    },
    {
        "name": "transformer-first-token-for-mean",
        "cause": "pool-kind",
        "places": ("mean", "norm"),
        "mistakes": {"pooling": "first"},
    },
]
