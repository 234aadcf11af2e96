"""The network of "train_mnist_fast" in PyTorch."""

from torch import Tensor, nn


class Network(nn.Module):
    """215,194 parameters, no dropout; each ReLU after its pool."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, kernel_size=5)
        self.pool1 = nn.MaxPool2d(2)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(24, 32, kernel_size=3)
        self.pool2 = nn.MaxPool2d(2)
        self.relu2 = nn.ReLU()
        self.flatten = nn.Flatten()
        self.dense1 = nn.Linear(32 * 5 * 5, 256)
        self.relu3 = nn.ReLU()
        self.dense2 = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:  # (N, 1, 28, 28)
        """From images to logits."""
        x = self.relu1(self.pool1(self.conv1(x)))  # (N, 24, 12, 12)
        x = self.relu2(self.pool2(self.conv2(x)))  # (N, 32, 5, 5)
        x = self.relu3(self.dense1(self.flatten(x)))  # (N, 256)
        logits: Tensor = self.dense2(x)  # (N, 10)
        return logits
