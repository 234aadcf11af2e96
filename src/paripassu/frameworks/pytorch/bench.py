"""What `paripassu bench` times in PyTorch."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from paripassu.core import datasets, draws
from paripassu.core.recipe import Recipe
from paripassu.frameworks.pytorch import lesson
from paripassu.frameworks.pytorch.trainer import Trainer

SKIPPED = 3  # steps before the clock starts, in the notebook's style


def matrix_product(size: int, recipe: Recipe, threads: int) -> list[float]:
    """Seconds of each of ten products of two square matrices."""
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, recipe.precision)
    left, right = (
        torch.rand(size, size, device=device).to(dtype) for _ in range(2)
    )
    out = left @ right
    seconds = []
    for _ in range(10):
        _wait()
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        _wait()
        seconds.append(time.perf_counter() - start)
    return seconds


def lesson_epoch(
    trainer: Trainer, recipe: Recipe, training: datasets.Split
) -> float:
    """Seconds of one epoch of the lesson's loop, with nothing around it."""
    images, labels = trainer.to_tensors(training)
    order = draws.batches(recipe, len(training.labels), 0)
    start = time.perf_counter()
    for _result in lesson.train_epoch(
        trainer.network, trainer.loss, trainer.optimizer, images, labels, order
    ):
        pass
    _wait()
    return time.perf_counter() - start


def notebook_epoch(raw: datasets.ImageData, threads: int) -> float:
    """Seconds of one epoch in the style of the article's PyTorch notebook.

    Per-image transforms, a `DataLoader`, the article's network and optimizer;
    written by us. Its first steps are taken to be as long as the others.
    """
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    class Digits(Dataset[tuple[torch.Tensor, int]]):
        """What torchvision's MNIST does with `ToTensor` and `Normalize`."""

        mean = torch.tensor([0.1307]).view(-1, 1, 1)
        std = torch.tensor([0.3081]).view(-1, 1, 1)

        def __len__(self) -> int:
            return len(raw.train_images)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            picture = Image.fromarray(raw.train_images[index])
            pixels = torch.from_numpy(np.array(picture, np.uint8, copy=True))
            tensor = pixels.view(28, 28, 1).permute(2, 0, 1).contiguous()
            tensor = tensor.to(torch.float32).div(255)
            label = int(raw.train_labels[index])
            return tensor.sub_(self.mean).div_(self.std), label

    network = _Notebook().to(device)
    optimizer = torch.optim.Adadelta(network.parameters(), lr=1.0)
    loader = DataLoader(Digits(), batch_size=64, shuffle=True)
    start = 0.0
    for step, (images, labels) in enumerate(loader):
        if step == SKIPPED:
            start = time.perf_counter()
        data, target = images.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(data), target)
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            loss.item()
    _wait()
    seconds = time.perf_counter() - start
    return seconds * len(loader) / (len(loader) - SKIPPED)


class _Notebook(nn.Module):
    """The network as the article's notebook has it, softmax included."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, 1)
        self.conv2 = nn.Conv2d(32, 64, 3, 1)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> Any:
        """`(N, 1, 28, 28)` in, probabilities `(N, 10)` out."""
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = torch.flatten(self.dropout1(F.max_pool2d(x, 2)), 1)
        x = self.fc2(self.dropout2(F.relu(self.fc1(x))))
        return F.softmax(x, dim=1)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
