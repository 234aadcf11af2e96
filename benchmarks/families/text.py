"""Text and speech models of transformers and keras-hub, small, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras_hub.models as hub
import numpy as np
import torch
import transformers as hf
from pairs import activation, family, fault, gelu_tanh, made, setting

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
WIDTHS = {
    "vocabulary_size": 100,
    "num_layers": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
}
ONE, LAYER = {"num_hidden_layers": 1}, {"num_layers": 1}
# two heads of keys and values for four of queries
GROUPED = {
    **SIZES,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "use_cache": False,
}
GROUPED_WIDTHS = {**WIDTHS, "num_query_heads": 4, "num_key_value_heads": 2}
ROBERTA = {
    **SIZES,
    "max_position_embeddings": 34,
    "type_vocab_size": 1,  # which keras-hub has not
    "pad_token_id": 1,
    "layer_norm_eps": 1e-5,
}

random = np.random.default_rng(0)
IDS = random.integers(2, 100, (2, 12))
OTHER_IDS = random.integers(2, 100, (2, 10))
MASK = np.ones((2, 12), dtype=np.int64)
MASK[1, 8:] = 0
OTHER_MASK = np.ones((2, 10), dtype=np.int64)
OTHER_MASK[1, 7:] = 0
MASKED = {"input_ids": IDS, "attention_mask": MASK}
SEGMENTS = {"token_type_ids": np.zeros_like(IDS)}
TWO_TEXTS = {
    **MASKED,
    "decoder_input_ids": OTHER_IDS,
    "decoder_attention_mask": OTHER_MASK,
}


def scaled(model: torch.nn.Module) -> torch.nn.Module:
    """The model with all weights drawn: norms and biases as well, none of them tiny."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                ones = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0
                weight.copy_(ones + 0.1 * torch.randn_like(weight))
    return model


def left(
    model: type[torch.nn.Module], config: type[Any], **settings: Any
) -> Callable[[], torch.nn.Module]:
    """Make a model of a configuration."""
    return lambda: scaled(model(config(**settings)))


def epsilon(layer: str, *places: str) -> dict[str, Any]:
    """Another epsilon in one layer."""
    return setting(layer, "epsilon", 1e-3, *places)


HEADS = fault(
    "two heads for four", "attention-heads", ["attention", "attn"], num_heads=2
)
EPSILON = fault("epsilon", "epsilon", ["norm", "ln_f"], layer_norm_epsilon=1e-3)
BASE = fault(
    "base of rotary positions",
    "constant",
    ["rotary", "self_attention", "self_attn"],
    rope_max_wavelength=500,
)
# of an encoder's layer in keras-hub, and of its like in transformers
FIRST_DENSE = "transformer_layer_0/feedforward_intermediate_dense"

EVERY: list[dict[str, Any]] = [
    family(
        "distilbert",
        left(
            hf.DistilBertModel,
            hf.DistilBertConfig,
            vocab_size=100,
            dim=32,
            n_layers=2,
            n_heads=4,
            hidden_dim=64,
            max_position_embeddings=32,
        ),
        made(hub.DistilBertBackbone, **WIDTHS, num_heads=4, max_sequence_length=32),
        MASKED,
        HEADS,
        epsilon("embeddings_layer_norm", "embeddings.LayerNorm"),
        activation(FIRST_DENSE, gelu_tanh, "transformer.layer.0.ffn"),
    ),
    family(
        "bert",
        left(
            hf.BertModel,
            hf.BertConfig,
            **SIZES,
            max_position_embeddings=32,
            hidden_act="gelu_pytorch_tanh",
        ),
        made(hub.BertBackbone, **WIDTHS, num_heads=4, max_sequence_length=32),
        {**MASKED, **SEGMENTS},
        HEADS,
        epsilon(
            "transformer_layer_1/self_attention_layer_norm",
            "encoder.layer.1.attention.output.LayerNorm",
        ),
        activation(FIRST_DENSE, "relu", "encoder.layer.0.intermediate"),
        activation("pooled_dense", "linear", "pooler"),
    ),
    family(
        "albert",
        left(
            hf.AlbertModel,
            hf.AlbertConfig,
            **SIZES,
            max_position_embeddings=32,
            embedding_size=16,
            hidden_act="gelu_new",
        ),
        made(
            hub.AlbertBackbone,
            **WIDTHS,
            num_heads=4,
            embedding_dim=16,
            max_sequence_length=32,
        ),
        {**MASKED, **SEGMENTS},
        HEADS,
        epsilon("embeddings_layer_norm", "embeddings.LayerNorm"),
        activation("pooled_dense", "linear", "pooler"),
    ),
    family(
        "electra",
        left(
            hf.ElectraModel,
            hf.ElectraConfig,
            **SIZES,
            max_position_embeddings=32,
            embedding_size=16,
            hidden_act="gelu_pytorch_tanh",
        ),
        made(
            hub.ElectraBackbone,
            vocab_size=100,
            num_layers=2,
            num_heads=4,
            hidden_dim=32,
            embedding_dim=16,
            intermediate_dim=64,
            max_sequence_length=32,
        ),
        {**MASKED, **SEGMENTS},
        HEADS,
        epsilon("embeddings_layer_norm", "embeddings.LayerNorm"),
        activation(FIRST_DENSE, "gelu", "encoder.layer.0.intermediate"),
    ),
    family(
        "roberta",
        left(
            lambda config: hf.RobertaModel(config, add_pooling_layer=False),
            hf.RobertaConfig,
            **ROBERTA,
        ),
        made(hub.RobertaBackbone, **WIDTHS, num_heads=4, max_sequence_length=32),
        MASKED,
        HEADS,
        epsilon("embeddings_layer_norm", "embeddings.LayerNorm"),
        activation(FIRST_DENSE, "relu", "encoder.layer.0.intermediate"),
        truth=["layer-missing"],
    ),
    family(
        "xlm-roberta",
        left(
            lambda config: hf.XLMRobertaModel(config, add_pooling_layer=False),
            hf.XLMRobertaConfig,
            **ROBERTA,
        ),
        made(hub.XLMRobertaBackbone, **WIDTHS, num_heads=4, max_sequence_length=32),
        MASKED,
        HEADS,
        epsilon("embeddings_layer_norm", "embeddings.LayerNorm"),
        truth=["layer-missing"],
    ),
    family(
        "opt",
        left(
            hf.OPTModel,
            hf.OPTConfig,
            vocab_size=100,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=64,
            max_position_embeddings=32,
            word_embed_proj_dim=32,
            use_cache=False,
        ),
        made(hub.OPTBackbone, **WIDTHS, num_heads=4, max_sequence_length=32),
        MASKED,
        HEADS,
        epsilon("layer_norm", "decoder.final_layer_norm"),
        activation(FIRST_DENSE, "silu", "decoder.layers.0.activation_fn"),
    ),
    family(
        "gpt2",
        left(
            hf.GPT2Model,
            hf.GPT2Config,
            vocab_size=100,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_inner=64,
            n_positions=32,
            use_cache=False,
        ),
        made(hub.GPT2Backbone, **WIDTHS, num_heads=4, max_sequence_length=32),
        MASKED,
        HEADS,
        epsilon("transformer_layer_0/self_attention_layer_norm", "h.0.ln_1"),
        activation(FIRST_DENSE, "relu", "h.0.mlp"),
    ),
    family(
        "llama",
        left(
            hf.LlamaModel,
            hf.LlamaConfig,
            **GROUPED,
            rms_norm_eps=1e-5,
        ),
        made(
            hub.LlamaBackbone,
            **GROUPED_WIDTHS,
            layer_norm_epsilon=1e-5,
            rope_max_wavelength=10000,
        ),
        MASKED,
        BASE,
        EPSILON,
    ),
    family(
        "mistral",
        left(
            hf.MistralModel,
            hf.MistralConfig,
            **GROUPED,
            rms_norm_eps=1e-6,
            sliding_window=None,
        ),
        made(
            hub.MistralBackbone,
            **GROUPED_WIDTHS,
            layer_norm_epsilon=1e-6,
            sliding_window=512,
        ),
        MASKED,
        BASE,
        EPSILON,
        fault(
            "a sliding window of four", "mask", ["attention", "attn"], sliding_window=4
        ),
    ),
    family(
        "t5",
        left(
            hf.T5Model,
            hf.T5Config,
            vocab_size=100,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="relu",
            use_cache=False,
        ),
        made(
            hub.T5Backbone,
            **WIDTHS,
            num_heads=4,
            key_value_dim=8,
            activation="relu",
            use_gated_activation=False,
        ),
        TWO_TEXTS,
        fault(
            "another activation",
            "activation-kind",
            ["DenseReluDense", "input_projector"],
            activation="silu",
        ),
        EPSILON,
    ),
    family(
        "t5 gated",
        left(
            hf.T5Model,
            hf.T5Config,
            vocab_size=100,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            use_cache=False,
        ),
        made(
            hub.T5Backbone,
            **WIDTHS,
            num_heads=4,
            key_value_dim=8,
            activation=gelu_tanh,
            use_gated_activation=True,
        ),
        TWO_TEXTS,
        fault(
            "another activation",
            "gelu-form",
            ["DenseReluDense", "input_projector"],
            activation="gelu",
        ),
        EPSILON,
    ),
    family(
        "bart",
        left(
            hf.BartModel,
            hf.BartConfig,
            vocab_size=100,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=32,
            use_cache=False,
        ),
        made(hub.BartBackbone, **WIDTHS, num_heads=4, max_sequence_length=32),
        TWO_TEXTS,
        HEADS,
        epsilon(
            "transformer_encoder_layer_1/self_attention_layer_norm",
            "encoder.layers.1.self_attn_layer_norm",
        ),
        activation(
            "transformer_decoder_layer_0/feedforward_intermediate_dense",
            "relu",
            "decoder.layers.0",
        ),
    ),
    family(
        "whisper",
        left(
            hf.WhisperModel,
            hf.WhisperConfig,
            vocab_size=100,
            num_mel_bins=8,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_source_positions=10,
            max_target_positions=16,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            use_cache=False,
        ),
        made(
            hub.WhisperBackbone,
            **WIDTHS,
            num_heads=4,
            num_mels=8,
            max_encoder_sequence_length=20,
            max_decoder_sequence_length=16,
        ),
        {
            "input_features": random.normal(size=(2, 8, 20)).astype("float32"),
            "decoder_input_ids": OTHER_IDS,
            "decoder_attention_mask": OTHER_MASK,
        },
        HEADS,
        epsilon("encoder_layer_norm", "encoder.layer_norm"),
        activation(
            "transformer_encoder_layer_0/feedforward_intermediate_dense",
            gelu_tanh,
            "encoder.layers.0",
        ),
    ),
    family(
        "gpt-neox",
        left(
            hf.GPTNeoXModel,
            hf.GPTNeoXConfig,
            **SIZES,
            max_position_embeddings=32,
            hidden_act="gelu_new",
            use_cache=False,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.25,
            },
        ),
        made(hub.GPTNeoXBackbone, **WIDTHS, num_heads=4, max_sequence_length=32),
        MASKED,
        fault(
            "half of each head rotated",
            "constant",
            ["rotary", "attention"],
            rotary_percentage=0.5,
        ),
        epsilon("layer_norm", "final_layer_norm"),
    ),
    family(
        "gemma",
        left(
            hf.GemmaModel,
            hf.GemmaConfig,
            **GROUPED,
            head_dim=8,
        ),
        made(
            hub.GemmaBackbone,
            **GROUPED_WIDTHS | {"intermediate_dim": 128},
            head_dim=8,
        ),
        MASKED,
        EPSILON,
    ),
    family(
        "gemma2",
        left(
            hf.Gemma2Model,
            hf.Gemma2Config,
            **GROUPED,
            head_dim=8,
            query_pre_attn_scalar=8,
            attn_implementation="eager",
        ),
        made(
            hub.GemmaBackbone,
            **GROUPED_WIDTHS | {"intermediate_dim": 128},
            head_dim=8,
            use_post_ffw_norm=True,
            use_post_attention_norm=True,
            attention_logit_soft_cap=50.0,
            final_logit_soft_cap=30.0,
            use_sliding_window_attention=True,
            sliding_window_size=4096,
        ),
        MASKED,
        EPSILON,
    ),
    family(
        "gemma3",
        left(
            hf.Gemma3TextModel,
            hf.Gemma3TextConfig,
            **GROUPED | ONE,
            head_dim=8,
            query_pre_attn_scalar=8,
        ),
        made(
            hub.Gemma3Backbone,
            **GROUPED_WIDTHS | LAYER,
            head_dim=8,
            image_size=8,
            use_post_ffw_norm=True,
            use_post_attention_norm=True,
            use_sliding_window_attention=True,
            sliding_window_size=4096,
        ),
        MASKED,
        EPSILON,
        fault(
            "scale of rotary positions",
            "constant",
            ["rope", "rotary", "attention", "self_attn"],
            local_rope_scaling_factor=2.0,
        ),
    ),
    family(
        "deberta-v3",
        left(
            hf.DebertaV2Model,
            hf.DebertaV2Config,
            **SIZES | ONE,
            max_position_embeddings=32,
            relative_attention=True,
            position_buckets=8,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            pos_att_type="p2c|c2p",
            position_biased_input=False,
            type_vocab_size=0,
        ),
        made(
            hub.DebertaV3Backbone,
            **WIDTHS | LAYER,
            num_heads=4,
            max_sequence_length=32,
            bucket_size=8,
        ),
        MASKED,
        HEADS,
        epsilon("embeddings_layer_norm", "embeddings.LayerNorm"),
    ),
    family(
        "bloom",
        left(
            hf.BloomModel,
            hf.BloomConfig,
            vocab_size=100,
            hidden_size=32,
            n_layer=2,
            n_head=4,
            use_cache=False,
        ),
        made(hub.BloomBackbone, **WIDTHS | {"intermediate_dim": 128}, num_heads=4),
        MASKED,
        HEADS,
        EPSILON,
    ),
    family(
        "falcon",
        left(
            hf.FalconModel,
            hf.FalconConfig,
            vocab_size=100,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=4,
            ffn_hidden_size=64,
            alibi=True,
            bias=True,
            multi_query=False,
            parallel_attn=False,
            use_cache=False,
        ),
        made(hub.FalconBackbone, **WIDTHS | LAYER, num_attention_heads=4),
        MASKED,
        fault(
            "two heads for four",
            "attention-heads",
            ["attention", "attn"],
            num_attention_heads=2,
        ),
        EPSILON,
    ),
    family(
        "qwen2",
        left(
            hf.Qwen2Model,
            hf.Qwen2Config,
            **GROUPED,
        ),
        made(hub.QwenBackbone, **GROUPED_WIDTHS),
        MASKED,
        EPSILON,
        BASE,
    ),
    family(
        "qwen3",
        left(
            hf.Qwen3Model,
            hf.Qwen3Config,
            **GROUPED | ONE,
            head_dim=8,
        ),
        made(
            hub.Qwen3Backbone,
            **GROUPED_WIDTHS | LAYER,
            head_dim=8,
            sliding_window_size=None,
        ),
        MASKED,
        BASE,
        truth=["epsilon"],  # of the norms of queries and keys
    ),
    family(
        "phi3",
        left(
            hf.Phi3Model,
            hf.Phi3Config,
            **GROUPED,
            original_max_position_embeddings=32,
            rms_norm_eps=1e-6,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        made(hub.Phi3Backbone, **GROUPED_WIDTHS),
        MASKED,
        EPSILON,
        BASE,
    ),
    family(
        "fnet",
        left(
            hf.FNetModel,
            hf.FNetConfig,
            **{x: SIZES[x] for x in SIZES if x != "num_attention_heads"},
            max_position_embeddings=32,
            type_vocab_size=4,
        ),
        made(hub.FNetBackbone, **WIDTHS, max_sequence_length=32),
        {"input_ids": IDS, **SEGMENTS},
        epsilon("embeddings_layer_norm", "embeddings.LayerNorm"),
        activation("pooled_dense", "linear", "pooler"),
    ),
    family(
        "mixtral",
        left(
            hf.MixtralModel,
            hf.MixtralConfig,
            **GROUPED | ONE,
            num_local_experts=4,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            experts_implementation="eager",  # the other one refuses float64
        ),
        made(
            hub.MixtralBackbone,
            **GROUPED_WIDTHS | LAYER,
            num_experts=4,
            layer_norm_epsilon=1e-6,
            router_aux_loss_coef=0.0,
        ),
        MASKED,
        EPSILON,
        fault("one expert for two", "layer-kind", ["moe", "mlp"], top_k=1),
    ),
    family(
        "esm",
        left(
            lambda config: hf.EsmModel(config, add_pooling_layer=False),
            hf.EsmConfig,
            **SIZES,
            max_position_embeddings=32,
            pad_token_id=0,
            position_embedding_type="rotary",
            layer_norm_eps=1e-12,
        ),
        made(hub.ESMBackbone, **WIDTHS, num_heads=4, pad_token_id=-1),
        {"input_ids": IDS},
        HEADS,
        fault("epsilon", "epsilon", ["norm", "Norm"], layer_norm_eps=1e-3),
    ),
    family(
        "siglip text",
        left(
            hf.SiglipTextModel,
            hf.SiglipTextConfig,
            **SIZES | ONE,
            max_position_embeddings=12,
            layer_norm_eps=1e-6,
        ),
        made(
            hub.SigLIPTextEncoder,
            **WIDTHS | LAYER,
            embedding_dim=32,
            num_heads=4,
            max_sequence_length=12,
        ),
        {"input_ids": IDS},
        HEADS,
        EPSILON,
    ),
    family(
        "moonshine",
        left(
            hf.MoonshineModel,
            hf.MoonshineConfig,
            vocab_size=100,
            hidden_size=32,
            intermediate_size=64,
            encoder_num_hidden_layers=1,
            decoder_num_hidden_layers=1,
            encoder_num_attention_heads=4,
            decoder_num_attention_heads=4,
            max_position_embeddings=32,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
            },
            use_cache=False,
        ),
        made(
            hub.MoonshineBackbone,
            vocabulary_size=100,
            filter_dim=32,
            encoder_num_layers=1,
            decoder_num_layers=1,
            hidden_dim=32,
            intermediate_dim=64,
            encoder_num_heads=4,
            decoder_num_heads=4,
            feedforward_expansion_factor=2,
            max_position_embeddings=32,
            partial_rotary_factor=0.5,
        ),
        {
            "input_values": random.normal(size=(2, 4000)).astype("float32"),
            "attention_mask": np.ones((2, 4000), dtype=np.int64),
            "decoder_input_ids": OTHER_IDS,
            "decoder_attention_mask": OTHER_MASK,
        },
    ),
]

# Of the others, some verdict is not right yet.
RIGHT = {
    *("distilbert", "bert", "albert", "electra", "gpt2", "llama", "mistral"),
    *("t5", "t5 gated", "bart", "whisper", "gpt-neox", "gemma", "bloom"),
    *("opt", "roberta", "xlm-roberta", "qwen2", "falcon", "phi3"),
    *("qwen3", "gemma3", "deberta-v3", "siglip text"),
}
FAMILIES = [x for x in EVERY if x["name"] in RIGHT]
