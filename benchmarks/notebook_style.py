"""Times one epoch of the lessons beside the style of the article's notebooks.

    python benchmarks/notebook_style.py --rounds 5 --json results/notebook_style.json

Each measurement is a fresh process with the same threads. A round measures every style
once, in turn, and the next round in the opposite order; ratios are taken within a
round, so that a drift of the machine cancels. The notebook style of PyTorch decodes,
scales and normalises image by image in a `DataLoader`; that of TensorFlow is `fit` on
NumPy arrays with one-hot labels. Compilation and first steps are not timed. The lessons
run as `paripassu train` runs them, with its settings of the allocator.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from paripassu import frameworks
from paripassu.core import datasets, draws, machine, networks
from paripassu.core.files import write_json
from paripassu.core.recipe import load
from paripassu.process import worker_environment

STYLES = (
    "pytorch notebook",
    "pytorch lesson",
    "tensorflow notebook",
    "tensorflow lesson",
)
LIMITS = {"pytorch": 0.75, "tensorflow": 0.95}  # lesson / notebook
BUSY = 0.10  # share of the machine that others may use before a ratio is in doubt


def lesson(framework: str, images: int, threads: int) -> float:
    """One epoch as `paripassu train` runs it."""
    recipe = load("article", ["epochs=1"])
    prepared = _prepare(images)
    trainer = frameworks.find(framework).make_trainer(
        recipe,
        weights=draws.initial_weights(networks.ARTICLE, recipe),
        threads=threads,
        device="auto",
    )
    trainer.warm_up(prepared.training)
    seconds = []
    trainer.train(
        prepared.training,
        datasets.Split(prepared.test.images[:1000], prepared.test.labels[:1000]),
        first_epoch=0,
        on_step=lambda _step, _loss, _accuracy: None,
        on_epoch=lambda report: seconds.append(report.seconds),
    )
    return seconds[0]


def pytorch_notebook(images: int, threads: int) -> float:
    """Per-image transforms, a `DataLoader`, the network as the article has it."""
    import torch
    import torch.nn.functional as F
    from PIL import Image
    from torch import nn
    from torch.utils.data import DataLoader, Dataset

    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    raw = datasets.load()

    class Digits(Dataset[tuple[torch.Tensor, int]]):
        """What torchvision's MNIST does with `ToTensor` and `Normalize`."""

        mean = torch.tensor([0.1307]).view(-1, 1, 1)
        std = torch.tensor([0.3081]).view(-1, 1, 1)

        def __len__(self) -> int:
            return images

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            picture = Image.fromarray(raw.train_images[index])
            pixels = torch.from_numpy(np.array(picture, np.uint8, copy=True))
            tensor = pixels.view(28, 28, 1).permute(2, 0, 1).contiguous()
            tensor = tensor.to(torch.float32).div(255)
            return tensor.sub_(self.mean).div_(self.std), int(raw.train_labels[index])

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 32, 3, 1)
            self.conv2 = nn.Conv2d(32, 64, 3, 1)
            self.dropout1 = nn.Dropout(0.25)
            self.dropout2 = nn.Dropout(0.5)
            self.fc1 = nn.Linear(9216, 128)
            self.fc2 = nn.Linear(128, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.conv2(F.relu(self.conv1(x))))
            x = torch.flatten(self.dropout1(F.max_pool2d(x, 2)), 1)
            x = self.fc2(self.dropout2(F.relu(self.fc1(x))))
            return F.softmax(x, dim=1)

    network = Net().to(device)
    optimizer = torch.optim.Adadelta(network.parameters(), lr=1.0)
    loader = DataLoader(Digits(), batch_size=64, shuffle=True)
    start = 0.0
    for step, (data, target) in enumerate(loader):
        if step == 3:
            start = time.perf_counter()
        data, target = data.to(device), target.to(device)  # noqa: PLW2901
        optimizer.zero_grad()
        loss = F.cross_entropy(network(data), target)
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            loss.item()
    return (time.perf_counter() - start) * len(loader) / (len(loader) - 3)


def tensorflow_notebook(images: int, threads: int) -> float:
    """`fit` on NumPy arrays with one-hot labels, the network as the article has it."""
    from paripassu.frameworks import tensorflow as _settings  # noqa: F401, I001
    import keras
    import tensorflow as tf
    from keras import layers

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    training = _prepare(images).training
    x, y = training.images[..., None], keras.utils.to_categorical(training.labels, 10)
    network = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 60_000, 0.7)
    network.compile(
        optimizer=keras.optimizers.Adadelta(schedule),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    network.fit(x[:192], y[:192], batch_size=64, verbose=0)
    start = time.perf_counter()
    network.fit(x, y, batch_size=64, verbose=0)
    return time.perf_counter() - start


def _prepare(images: int) -> datasets.Prepared:
    raw = datasets.load()
    some = datasets.ImageData(
        name=raw.name,
        source=raw.source,
        sha256=raw.sha256,
        train_images=raw.train_images[:images],
        train_labels=raw.train_labels[:images],
        test_images=raw.test_images,
        test_labels=raw.test_labels,
    )
    return datasets.prepare(some, mean=0.1307, std=0.3081)


def measure(style: str, images: int, threads: int) -> dict[str, Any]:
    """What a child process prints: seconds, memory and how busy others were."""
    framework, kind = style.split()
    load = machine.OtherLoad()
    if kind == "lesson":
        seconds = lesson(framework, images, threads)
    else:
        notebook = pytorch_notebook if framework == "pytorch" else tensorflow_notebook
        seconds = notebook(images, threads)
    return {
        "seconds": seconds,
        "peak_memory_bytes": machine.peak_memory_bytes(),
        "other_load": load.look(),
        "version": frameworks.find(framework).version,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=60_000, help="of an epoch")
    parser.add_argument("--threads", type=int, default=machine.usable_cores())
    parser.add_argument("--json", type=Path, help="where to write the record")
    parser.add_argument("--child", choices=STYLES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        result = measure(arguments.child, arguments.images, arguments.threads)
        print(json.dumps(result))
        return 0
    rounds: list[dict[str, dict[str, Any]]] = []
    for number in range(arguments.rounds):
        results = {}
        for style in STYLES if number % 2 == 0 else tuple(reversed(STYLES)):
            child = subprocess.run(
                [
                    *(sys.executable, __file__, "--child", style),
                    *("--images", str(arguments.images)),
                    *("--threads", str(arguments.threads)),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=worker_environment(arguments.threads)
                if style.endswith("lesson")
                else None,
                check=True,
                text=True,
            )
            results[style] = json.loads(child.stdout.splitlines()[-1])
            print(
                f"round {number + 1}  {style:20} {results[style]['seconds']:6.1f} s",
                flush=True,
            )
        rounds.append(results)
    record = judge(rounds, arguments.images, arguments.threads)
    for name, entry in record["ratios"].items():
        print(
            f"{name}: lesson / notebook {entry['median']:.2f} "
            f"({entry['low']:.2f} to {entry['high']:.2f}, {len(rounds)} rounds), "
            f"at most {entry['limit']} wanted"
        )
    if record["busy"]:
        print("Something else was running: these ratios are no verdict.")
    if arguments.json:
        write_json(arguments.json, record)
    held = all(entry["median"] <= entry["limit"] for entry in record["ratios"].values())
    return 0 if held or record["busy"] else 1


def judge(
    rounds: list[dict[str, dict[str, Any]]], images: int, threads: int
) -> dict[str, Any]:
    """Medians of each style, and the ratios within each round."""
    ratios = {}
    for framework, limit in LIMITS.items():
        values = [
            results[f"{framework} lesson"]["seconds"]
            / results[f"{framework} notebook"]["seconds"]
            for results in rounds
        ]
        ratios[framework] = {
            "median": statistics.median(values),
            "low": min(values),
            "high": max(values),
            "limit": limit,
        }
    return {
        "kind": "notebook style benchmark",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python benchmarks/notebook_style.py " + " ".join(sys.argv[1:]),
        "processor": machine.processor(),
        "cores": machine.usable_cores(),
        "platform": machine.system(),
        "threads": threads,
        "images": images,
        "versions": {
            framework: rounds[0][f"{framework} lesson"]["version"]
            for framework in LIMITS
        },
        "median_seconds": {
            style: statistics.median(results[style]["seconds"] for results in rounds)
            for style in STYLES
        },
        "median_peak_memory_bytes": {
            style: statistics.median(
                results[style]["peak_memory_bytes"] for results in rounds
            )
            for style in STYLES
        },
        "ratios": ratios,
        "busy": any(
            result["other_load"] > BUSY
            for results in rounds
            for result in results.values()
        ),
        "rounds": rounds,
    }


if __name__ == "__main__":
    sys.exit(main())
