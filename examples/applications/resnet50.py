"""ResNet-50 in PyTorch beside `keras.applications.ResNet50`, 26 million parameters.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, as Keras has it:
the stride is in a block's first convolution, convolutions have biases, and BatchNorm's
epsilon is 1.001e-5. Both are randomly initialised: nothing is downloaded.

    paripassu check examples/applications/resnet50.py:pytorch \\
        examples/applications/resnet50.py:keras_model --input 2,3,64,64 \\
        --copy left-to-right
"""

import keras
import torch
from torch import nn

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
EPSILON, MOMENTUM = 1.001e-5, 0.01  # Keras keeps 0.99 of the old


def normalized(inner, outer, size, stride=1, padding=0):
    """A convolution and its norm."""
    return nn.Sequential(
        nn.Conv2d(inner, outer, size, stride, padding),
        nn.BatchNorm2d(outer, eps=EPSILON, momentum=MOMENTUM),
    )


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut."""

    def __init__(self, inner, width, stride, *, project):
        super().__init__()
        self.shortcut = nn.Identity()
        if project:
            self.shortcut = normalized(inner, 4 * width, 1, stride)
        self.reduce = normalized(inner, width, 1, stride)
        self.middle = normalized(width, width, 3, padding=1)
        self.expand = normalized(width, 4 * width, 1)

    def forward(self, x):
        """(N, inner, h, w) to (N, 4 width, h / stride, w / stride)."""
        y = torch.relu(self.reduce(x))
        y = torch.relu(self.middle(y))
        return torch.relu(self.shortcut(x) + self.expand(y))


def pytorch() -> nn.Module:
    """The stem, sixteen bottlenecks in four stages, a pool, probabilities."""
    torch.manual_seed(0)
    blocks, inner = [], 64
    for width, count, stride in STAGES:
        for number in range(count):
            first = number == 0
            blocks.append(
                Bottleneck(inner, width, stride if first else 1, project=first)
            )
            inner = 4 * width
    return nn.Sequential(
        normalized(3, 64, 7, 2, 3),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(inner, 1000),
        nn.Softmax(1),
    )


def keras_model() -> keras.Model:
    """Keras's own, with random weights."""
    keras.utils.set_random_seed(0)
    return keras.applications.ResNet50(weights=None)


def keras_model_of(side: int = 64) -> keras.Model:
    """The same for images of another size, with its head."""
    keras.utils.set_random_seed(0)
    body = keras.applications.ResNet50(
        weights=None, include_top=False, input_shape=(side, side, 3), pooling="avg"
    )
    head = keras.layers.Dense(1000, activation="softmax")(body.output)
    return keras.Model(body.input, head)
