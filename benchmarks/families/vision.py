"""Vision models of transformers beside those of keras-hub and keras.applications.

Small ones with random weights; nothing is downloaded.
"""

from __future__ import annotations

from typing import Any

import keras
import keras_hub.models as hub
import numpy as np
import torch
from pairs import activation, family, fault, made, setting
from torch import nn

RNG = np.random.default_rng(0)


def images(size: int = 64, count: int = 2) -> np.ndarray:
    """(count, 3, size, size), float32, as PyTorch has them."""
    return RNG.normal(size=(count, 3, size, size)).astype("float32")


def lively(model: nn.Module, **norms: float | None) -> nn.Module:
    """The model with norms and biases that matter, and other settings of its norms."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2.0, generator=generator)
            for name, value in norms.items():
                setattr(module, name, getattr(module, name) if value is None else value)
        if (
            isinstance(module, (nn.BatchNorm2d, nn.LayerNorm))
            and module.weight is not None
        ):
            nn.init.normal_(module.weight, mean=1.0, std=0.2, generator=generator)
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, std=0.2, generator=generator)
    return model.eval()


# SegFormer's encoder (MiT)


def segformer(eps: float = 1e-6, act: str = "gelu_pytorch_tanh") -> nn.Module:
    """Two stages; as it comes, with epsilon 1e-5 within a block, and the exact GELU."""
    from transformers import SegformerConfig, SegformerModel

    torch.manual_seed(0)
    model = SegformerModel(
        SegformerConfig(
            hidden_sizes=[8, 16],
            depths=[1, 1],
            num_encoder_blocks=2,
            sr_ratios=[2, 1],
            patch_sizes=[7, 3],
            strides=[4, 2],
            num_attention_heads=[1, 2],
            mlp_ratios=[4, 4],
            drop_path_rate=0.0,
            hidden_act=act,
        )
    )
    for name, module in model.named_modules():
        if name.endswith(("layernorm_before", "layernorm_after")):
            module.eps = eps
    return lively(model)


mit = made(
    hub.MiTBackbone,
    layerwise_depths=[1, 1],
    num_layers=2,
    layerwise_num_heads=[1, 2],
    layerwise_sr_ratios=[2, 1],
    max_drop_path_rate=0.0,
    layerwise_patch_sizes=[7, 3],
    layerwise_strides=[4, 2],
    image_shape=(64, 64, 3),
    hidden_dims=[8, 16],
)


# MobileNetV2


def mobilenet_v2(momentum: float = 0.001, eps: float = 1e-3) -> nn.Module:
    """With TensorFlow's padding, as its weights were trained."""
    from transformers import MobileNetV2Config, MobileNetV2Model

    torch.manual_seed(0)
    config = MobileNetV2Config(image_size=32, tf_padding=True, depth_multiplier=0.35)
    model = MobileNetV2Model(config)
    return lively(model, momentum=momentum, eps=eps)


def keras_mobilenet_v2() -> keras.Model:
    """MobileNetV2 of keras.applications."""
    return keras.applications.MobileNetV2(
        alpha=0.35,
        input_shape=(32, 32, 3),
        include_top=False,
        weights=None,
        pooling="avg",
    )


# EfficientNet


def efficientnet(momentum: float | None = 0.01) -> nn.Module:
    """Three stages; transformers has momentum 0.1 in expansions, 0.99 elsewhere."""
    from transformers import EfficientNetConfig, EfficientNetModel

    class Scaled(nn.Module):
        """Bytes to numbers up to one, as keras.applications has it inside."""

        def __init__(self) -> None:
            super().__init__()
            self.model = EfficientNetModel(
                EfficientNetConfig(
                    image_size=32,
                    width_coefficient=1.0,
                    depth_coefficient=1.0,
                    kernel_sizes=[3, 5, 3],
                    in_channels=[32, 16, 24],
                    out_channels=[16, 24, 40],
                    strides=[1, 2, 2],
                    num_block_repeats=[1, 2, 1],
                    expand_ratios=[1, 6, 6],
                    hidden_dim=1280,
                    drop_connect_rate=0.0,
                )
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(N, 3, h, w) to (N, 1280)."""
            return self.model(x / 255).pooler_output

    torch.manual_seed(0)
    return lively(Scaled(), momentum=momentum)


def keras_efficientnet(**settings: Any) -> keras.Model:
    """EfficientNet of keras.applications, of three stages."""
    from keras.src.applications.efficientnet import EfficientNet

    shapes = [(3, 1, 32, 16, 1, 1), (5, 2, 16, 24, 6, 2), (3, 1, 24, 40, 6, 2)]
    names = ("kernel_size", "repeats", "filters_in", "filters_out", "expand_ratio")
    return EfficientNet(
        1.0,
        1.0,
        32,
        drop_connect_rate=0.0,
        blocks_args=[
            dict(zip((*names, "strides"), x, strict=True))
            | {"id_skip": True, "se_ratio": 0.25}
            for x in shapes
        ],
        include_top=False,
        weights=None,
        input_shape=(32, 32, 3),
        pooling="avg",
        **settings,
    )


# ViT and DeiT


TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}


def vit(eps: float = 1e-6) -> nn.Module:
    """Two layers."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(**TINY, layer_norm_eps=eps)
    return lively(ViTModel(config, add_pooling_layer=False))


keras_vit = made(
    hub.ViTBackbone,
    image_shape=(32, 32, 3),
    patch_size=8,
    num_layers=2,
    num_heads=4,
    hidden_dim=32,
    mlp_dim=64,
)


def deit(eps: float = 1e-6) -> nn.Module:
    """Two layers, with a token for distillation."""
    from transformers import DeiTConfig, DeiTModel

    torch.manual_seed(0)
    config = DeiTConfig(**TINY, layer_norm_eps=eps)
    return lively(DeiTModel(config, add_pooling_layer=False))


keras_deit = made(
    hub.DeiTBackbone,
    image_shape=(32, 32, 3),
    patch_size=8,
    num_layers=2,
    num_heads=4,
    hidden_dim=32,
    intermediate_dim=64,
)


# ConvNeXt


def convnext(eps: float = 1e-6) -> nn.Module:
    """Four small stages."""
    from transformers import ConvNextConfig, ConvNextModel

    torch.manual_seed(0)
    model = ConvNextModel(
        ConvNextConfig(
            hidden_sizes=[8, 16, 24, 32],
            depths=[1, 1, 2, 1],
            layer_scale_init_value=0.5,
            image_size=64,
            layer_norm_eps=eps,
        )
    )
    return lively(model)


def keras_convnext() -> keras.Model:
    """ConvNeXt of keras.applications."""
    from keras.src.applications.convnext import ConvNeXt

    return ConvNeXt(
        [1, 1, 2, 1],
        [8, 16, 24, 32],
        layer_scale_init_value=0.5,
        include_preprocessing=False,
        include_top=False,
        input_shape=(64, 64, 3),
        pooling="avg",
    )


# MobileNet


def mobilenet_v1(momentum: float = 0.01) -> nn.Module:
    """Of few channels; transformers has momentum 0.9997, the other way round."""
    from transformers import MobileNetV1Config, MobileNetV1Model

    torch.manual_seed(0)
    model = MobileNetV1Model(MobileNetV1Config(image_size=32, depth_multiplier=0.25))
    return lively(model, momentum=momentum)


def keras_mobilenet_v1() -> keras.Model:
    """MobileNet of keras.applications."""
    return keras.applications.MobileNet(
        alpha=0.25,
        input_shape=(32, 32, 3),
        include_top=False,
        weights=None,
        pooling="avg",
    )


# SigLIP's image encoder


def siglip(eps: float = 1e-6) -> nn.Module:
    """A layer, and an attention that pools."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(0)
    one = TINY | {"num_hidden_layers": 1}
    return lively(SiglipVisionModel(SiglipVisionConfig(**one, layer_norm_eps=eps)))


keras_siglip = made(
    hub.SigLIPVisionEncoder,
    patch_size=8,
    hidden_dim=32,
    num_layers=1,
    num_heads=4,
    intermediate_dim=64,
    image_shape=(32, 32, 3),
)


# The image encoder of Segment Anything (ViTDet)


class Normalized(nn.Module):
    """Images by the mean and deviation of ImageNet, which keras-hub has inside."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, h, w) to (N, c, h / patch, w / patch)."""
        mean = torch.tensor([0.485, 0.456, 0.406]).to(images)[:, None, None]
        deviation = torch.tensor([0.229, 0.224, 0.225]).to(images)[:, None, None]
        return self.model((images - mean) / deviation).last_hidden_state


def sam(eps: float = 1e-6) -> nn.Module:
    """A layer with windows, and one that sees all."""
    from transformers import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionEncoder

    torch.manual_seed(0)
    config = SamVisionConfig(
        hidden_size=32,
        output_channels=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=64,
        patch_size=8,
        window_size=3,
        global_attn_indexes=[1],
        mlp_dim=64,
        layer_norm_eps=eps,
    )
    model = lively(SamVisionEncoder(config))
    for name, weight in model.named_parameters():
        if "pos" in name:
            nn.init.normal_(weight, std=0.3)
    return Normalized(model)


keras_sam = made(
    hub.ViTDetBackbone,
    hidden_size=32,
    num_layers=2,
    intermediate_dim=64,
    num_heads=4,
    global_attention_layer_indices=[1],
    image_shape=(64, 64, 3),
    patch_size=8,
    num_output_channels=16,
    window_size=3,
)


# ResNet


def resnet(kind: str = "basic") -> nn.Module:
    """Two stages."""
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    wide = 4 if kind == "bottleneck" else 1
    return lively(
        ResNetModel(
            ResNetConfig(
                embedding_size=64,
                hidden_sizes=[64 * wide, 128 * wide],
                depths=[1, 2],
                layer_type=kind,
            )
        )
    )


keras_resnet = made(
    hub.ResNetBackbone,
    input_conv_filters=[64],
    input_conv_kernel_sizes=[7],
    stackwise_num_filters=[64, 128],
    stackwise_num_blocks=[1, 2],
    stackwise_num_strides=[1, 2],
    block_type="basic_block",
    image_shape=(64, 64, 3),
)


VIT_FAULTS = (
    fault("epsilon", "epsilon", ["layers.0.layernorm_before"], layer_norm_epsilon=1e-5),
    fault(
        "heads", "attention-heads", ["layers.0.attention.q_proj", "mha"], num_heads=2
    ),
)

FAMILIES = [
    family(
        "segformer",
        segformer,
        mit,
        images(),
        fault(
            "heads",
            "attention-heads",
            ["scaled_dot_product_attention", "stages.1.blocks.0.attention"],
            layerwise_num_heads=[1, 4],
        ),
        setting(
            "hierarchical_encoder_0_0/norm2",
            "epsilon",
            1e-3,
            "stages.0.blocks.0.layernorm_after",
        ),
    ),
    family(
        "segformer as it comes",
        lambda: segformer(1e-5, "gelu"),
        mit,
        images(),
        truth=["epsilon", "gelu-form"],
    ),
    family(
        "mobilenet_v2",
        mobilenet_v2,
        made(keras_mobilenet_v2),
        images(32),
        fault(
            "momentum",
            "momentum",
            ["bn_Conv1", "conv_stem.first_conv.normalization"],
            change=(("", "momentum", 0.9),),
        ),
        setting("bn_Conv1", "epsilon", 1e-5),
        fault(
            "ReLU for ReLU6",
            "activation-kind",
            ["out_relu"],
            change=(("out_relu", "max_value", None),),
        ),
        fault(
            "padding at the other end",
            "padding",
            ["block_1_pad", "block_1_depthwise"],
            change=(("block_1_pad", "padding", ((1, 0), (1, 0))),),
        ),
    ),
    family(
        "efficientnet",
        efficientnet,
        made(keras_efficientnet),
        images(32) * 100,
        fault("ReLU", "activation-kind", ["stem_activation"], activation="relu"),
        setting("stem_bn", "epsilon", 1e-5),
        setting("top_bn", "momentum", 0.9),
    ),
    family(
        "efficientnet as it comes",
        lambda: efficientnet(None),
        made(keras_efficientnet),
        images(32) * 100,
        truth=["momentum"],
    ),
    family("vit", vit, keras_vit, images(32), *VIT_FAULTS),
    family(
        "mobilenet_v1",
        mobilenet_v1,
        made(keras_mobilenet_v1),
        images(32),
        setting("conv1_bn", "epsilon", 1e-5, "conv_stem.normalization"),
        fault(
            "ReLU for ReLU6",
            "activation-kind",
            ["conv_pw_13_relu", "layer.25.activation"],
            change=(("conv_pw_13_relu", "max_value", None),),
        ),
    ),
    family(
        "siglip",
        siglip,
        keras_siglip,
        images(32),
        fault("heads", "attention-heads", ["head.attention", "self_attn"], num_heads=2),
        setting("post_layer_norm", "epsilon", 1e-3, "post_layernorm"),
        activation("encoder_block_0/mlp/fc1", "gelu", "encoder.layers.0.mlp"),
    ),
    family(
        "sam",
        sam,
        keras_sam,
        images(),
        fault("other windows", "unknown", ["attn", "encoder"], window_size=4),
        setting("encoder/layer_normalization", "epsilon", 1e-3, "layer_norm1"),
    ),
    family("deit", deit, keras_deit, images(32), *VIT_FAULTS),
    family(
        "convnext",
        convnext,
        made(keras_convnext),
        images(),
        setting("layer_normalization", "epsilon", 1e-3, "layernorm"),
        activation("convnext_stage_1_block_0_gelu", "relu"),
    ),
    family(
        "resnet",
        resnet,
        keras_resnet,
        images(),
        setting("conv1_bn", "epsilon", 1e-3),
        setting("conv1_bn", "momentum", 0.99),
    ),
    family(
        "resnet bottleneck",
        lambda: resnet("bottleneck"),
        lambda: keras_resnet(block_type="bottleneck_block"),
        images(),
    ),
]
