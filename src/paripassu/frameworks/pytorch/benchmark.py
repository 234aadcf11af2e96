"""What `paripassu bench` times in PyTorch."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from paripassu.core import datasets, draws
from paripassu.core.recipe import Recipe
from paripassu.frameworks.pytorch import lesson, recipes
from paripassu.frameworks.pytorch.trainer import Trainer

WARM_UP = 1.0  # seconds of products before those that count
PRODUCTS = 20
TURNS = 40  # of each layer's kernels; the first half is not counted
SKIPPED = 3  # steps before the clock starts, in the notebook's style


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def device() -> str:
    """What this process computes on: "cpu", or the name of a GPU."""
    cuda = torch.cuda.is_available()
    return torch.cuda.get_device_name() if cuda else "cpu"


def matrix_product(size: int, recipe: Recipe, threads: int) -> list[float]:
    """Seconds of each of twenty products of two square matrices, warmed up."""
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, recipe.precision)
    left, right = (
        torch.rand(size, size, device=device).to(dtype) for _ in range(2)
    )
    out = left @ right
    end = time.perf_counter() + WARM_UP
    seconds: list[float] = []
    while time.perf_counter() < end or len(seconds) < PRODUCTS:
        _wait()
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        _wait()
        seconds.append(time.perf_counter() - start)
    return seconds[-PRODUCTS:]


def kernels(recipe: Recipe, threads: int) -> float:
    """Seconds of a step's convolutions and matrix products, and nothing else.

    Each layer with weights runs alone, forward and backward as in training, on
    what a batch of random images gives it; the sum of their medians.
    """
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = recipes.make_network(recipe).to(
        device, memory_format=torch.channels_last
    )
    inputs: dict[nn.Module, torch.Tensor] = {}
    for layer in network.modules():
        own = list(layer.parameters(recurse=False))
        if own and not isinstance(layer, NORMS):
            layer.register_forward_hook(
                lambda layer, given, _output: inputs.update({layer: given[0]})
            )
    low = recipe.precision == "bfloat16"
    with torch.autocast(device, torch.bfloat16, enabled=low):
        h, w, c = recipe.architecture.input_shape
        network(torch.rand(recipe.batch_size, c, h, w, device=device))
        return sum(
            _layer_seconds(layer, x.detach(), is_first=number == 0)
            for number, (layer, x) in enumerate(inputs.items())
        )


def _layer_seconds(
    layer: nn.Module, x: torch.Tensor, *, is_first: bool
) -> float:
    x.requires_grad_(not is_first)  # no gradient goes to the images
    wanted = [*layer.parameters(recurse=False), *([] if is_first else [x])]
    slope = torch.rand_like(layer(x))
    seconds: list[float] = []
    for _ in range(TURNS):
        _wait()
        start = time.perf_counter()
        torch.autograd.grad(layer(x), wanted, slope)
        _wait()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[TURNS // 2 :])


def lesson_epoch(
    trainer: Trainer, recipe: Recipe, training: datasets.Split
) -> float:
    """Seconds of one epoch of the lesson's loop, with nothing around it."""
    rows = draws.batches(recipe, len(training), 0)
    digits, order = trainer.fed(training, rows, 0)
    start = time.perf_counter()
    for _result in lesson.train_epoch(
        trainer.network, trainer.loss, trainer.optimizer, digits, order
    ):
        pass
    _wait()
    return time.perf_counter() - start


class Notebook:
    """A training in the style of the article's PyTorch notebook; written by us.

    Per-image transforms, a `DataLoader`, the article's network, its second
    softmax and its optimizer and schedule. Shuffled, as where there is a GPU.
    """

    def __init__(
        self, raw: datasets.ImageData, *, threads: int, seed: int
    ) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        cuda = torch.cuda.is_available()
        self._device = torch.device("cuda" if cuda else "cpu")
        self._raw = raw
        self._network = _Network().to(self._device)
        parameters = self._network.parameters()
        self._optimizer = torch.optim.Adadelta(parameters, lr=1.0)
        self._schedule = torch.optim.lr_scheduler.ExponentialLR(
            self._optimizer, gamma=0.7
        )

    def epoch(self) -> float:
        """Train once on all images: seconds.

        The first steps are taken to be as long as the others.
        """
        pictures = _Digits(self._raw.train_images, self._raw.train_labels)
        loader = DataLoader(pictures, batch_size=64, shuffle=True)
        self._network.train()
        start, skipped = 0.0, min(SKIPPED, len(loader) - 1)
        for step, (images, labels) in enumerate(loader):
            if step == skipped:
                start = time.perf_counter()
            data, target = images.to(self._device), labels.to(self._device)
            self._optimizer.zero_grad()
            loss = F.cross_entropy(self._network(data), target)
            loss.backward()
            self._optimizer.step()
            if step % 10 == 0:
                loss.item()
        _wait()
        seconds = time.perf_counter() - start
        self._schedule.step()
        return seconds * len(loader) / (len(loader) - skipped)

    def accuracy(self) -> float:
        """The share of right answers on the test images, not timed."""
        pictures = _Digits(self._raw.test_images, self._raw.test_labels)
        right = 0
        self._network.eval()
        with torch.inference_mode():
            for images, labels in DataLoader(pictures, batch_size=1000):
                answers = self._network(images.to(self._device)).argmax(1)
                right += int((answers.cpu() == labels).sum())
        return right / len(pictures)


class _Digits(Dataset[tuple[torch.Tensor, int]]):
    """What torchvision's MNIST does with `ToTensor` and `Normalize`."""

    mean = torch.tensor([0.1307]).view(-1, 1, 1)
    std = torch.tensor([0.3081]).view(-1, 1, 1)

    def __init__(
        self, images: npt.NDArray[np.uint8], labels: npt.NDArray[Any]
    ) -> None:
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        picture = Image.fromarray(self._images[index, :, :, 0])
        pixels = torch.from_numpy(np.array(picture, np.uint8, copy=True))
        tensor = pixels.view(28, 28, 1).permute(2, 0, 1).contiguous()
        tensor = tensor.to(torch.float32).div(255)
        label = int(self._labels[index])
        return tensor.sub_(self.mean).div_(self.std), label


class _Network(nn.Module):
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
