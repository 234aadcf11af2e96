"""VGG-16 in PyTorch beside `keras.applications.VGG16`, 138 million parameters.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015. Both are randomly initialised: nothing is downloaded.

    paripassu check examples/applications/vgg16.py:pytorch \\
        examples/applications/vgg16.py:keras_model --input 1,3,224,224 \\
        --copy left-to-right
"""

import keras
import torch
from torch import nn

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def pytorch() -> nn.Module:
    """Convolutions in five blocks, three dense layers, probabilities."""
    torch.manual_seed(0)
    layers, channels = [], 3
    for width, count in BLOCKS:
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(512 * 7 * 7, 4096),
        nn.ReLU(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, 1000),
        nn.Softmax(dim=-1),
    )


def keras_model() -> keras.Model:
    """The model of Keras, without its trained weights."""
    return keras.applications.VGG16(weights=None)
