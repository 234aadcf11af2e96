"""Keras's "Simple MNIST convnet" in PyTorch."""

from torch import Tensor, nn


class Network(nn.Module):
    """34,826 parameters; ReLU after the pools, the same on fewer numbers."""

    def __init__(self, dropout1: float = 0.5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3)
        self.pool1 = nn.MaxPool2d(2)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3)
        self.pool2 = nn.MaxPool2d(2)
        self.relu2 = nn.ReLU()
        self.flatten = nn.Flatten()
        self.dropout1 = nn.Dropout(dropout1)
        self.dense1 = nn.Linear(64 * 5 * 5, 10)

    def forward(self, x: Tensor) -> Tensor:  # (N, 1, 28, 28)
        """From images to logits."""
        x = self.relu1(self.pool1(self.conv1(x)))  # (N, 32, 13, 13)
        x = self.relu2(self.pool2(self.conv2(x)))  # (N, 64, 5, 5)
        x = self.dropout1(self.flatten(x))  # (N, 1600)
        logits: Tensor = self.dense1(x)  # (N, 10)
        return logits
