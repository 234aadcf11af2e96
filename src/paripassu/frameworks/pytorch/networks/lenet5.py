"""LeNet-5 in PyTorch, after LeCun et al. 1998, section II.B."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paripassu.core.networks import LENET5_TABLE


class ScaledTanh(nn.Module):
    """The paper's squashing function."""

    def forward(self, x: Tensor) -> Tensor:
        """1.7159 tanh(2/3 x)."""
        return 1.7159 * torch.tanh(2 / 3 * x)


class Subsample(nn.Module):
    """Sums of 2x2 pixels, times a learned number and plus a learned number."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:  # (N, c, h, w)
        """Half the height and width."""
        sums = 4 * F.avg_pool2d(x, 2)
        return sums * self.coefficient[:, None, None] + self.bias[:, None, None]


class TableConv2d(nn.Conv2d):
    """A convolution in which each filter sees only some input channels."""

    table: Tensor

    def __init__(
        self, inputs: int, size: int, table: Sequence[Sequence[int]]
    ) -> None:
        super().__init__(inputs, len(table), kernel_size=size)
        connected = torch.zeros(len(table), inputs, 1, 1)
        for output, channels in enumerate(table):
            connected[output, list(channels)] = 1
        self.register_buffer("table", connected, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution, with zeros where nothing is connected."""
        return F.conv2d(x, self.weight * self.table, self.bias)


class Network(nn.Sequential):
    """60,000 parameters up to `tanh6`, and 850 of the output layer."""

    def __init__(self) -> None:
        super().__init__(
            OrderedDict(
                pad=nn.ZeroPad2d(2),  # (N, 1, 32, 32)
                conv1=nn.Conv2d(1, 6, kernel_size=5),  # C1 (N, 6, 28, 28)
                tanh1=ScaledTanh(),
                subsample1=Subsample(6),  # S2 (N, 6, 14, 14)
                tanh2=ScaledTanh(),
                conv2=TableConv2d(6, 5, LENET5_TABLE),  # C3 (N, 16, 10, 10)
                tanh3=ScaledTanh(),
                subsample2=Subsample(16),  # S4 (N, 16, 5, 5)
                tanh4=ScaledTanh(),
                conv3=nn.Conv2d(16, 120, kernel_size=5),  # C5 (N, 120, 1, 1)
                tanh5=ScaledTanh(),
                flatten=nn.Flatten(),
                dense1=nn.Linear(120, 84),  # F6
                tanh6=ScaledTanh(),
                dense2=nn.Linear(84, 10),  # logits
            )
        )
