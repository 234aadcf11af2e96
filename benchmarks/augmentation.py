"""What augmentation costs: by itself, beside SciPy, and in a training of `article`.

python benchmarks/augmentation.py --out results/augmentation.json

By itself: milliseconds for a batch, the median of many, for each change and for all. In
a training: seconds of an epoch of the recipe `article` on some images, with all changes
and without, in turns, each in a process of its own.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy.ndimage import map_coordinates

from paripassu.core import augmentation, datasets, files, machine
from paripassu.core.recipe import Augmentation, load
from paripassu.frameworks import registry
from paripassu.processes.conditions import Conditions
from paripassu.processes.launch import work
from paripassu.processes.requests import BenchRequest

CHANGES: dict[str, dict[str, Any]] = {
    "shift": {"shift": 2.0},
    "affine": {"shift": 2.0, "rotation": 10.0, "scale": 0.1, "shear": 5.0},
    "elastic": {"elastic": 1.0},
    "cutout": {"cutout": 8},
}
ALL = {key: x for table in CHANGES.values() for key, x in table.items()}
REPEATS = 100


def milliseconds(call: Callable[[int], object], repeats: int = REPEATS) -> float:
    """Of a call, the median."""
    found = []
    for number in range(repeats):
        start = time.perf_counter()
        call(number)
        found.append(1000 * (time.perf_counter() - start))
    return statistics.median(found)


def by_scipy(pixels: Any, places: Any) -> Any:
    """The same sampling by SciPy, image by image."""
    return [
        map_coordinates(image[..., 0], (rows, columns), order=1, mode="grid-constant")
        for image, rows, columns in zip(pixels, *places, strict=True)
    ]


def alone(size: int) -> dict[str, float]:
    """Milliseconds for a batch of each change, and of SciPy's sampling."""
    pixels = datasets.load().train_images[:size]
    found = {}
    for name, table in {**CHANGES, "all": ALL}.items():
        chosen = Augmentation(**table)
        found[name] = milliseconds(
            lambda step, chosen=chosen: augmentation.changed(chosen, pixels, 1, 0, step)
        )
    _, h, w, _ = pixels.shape
    random = np.random.default_rng(0)
    places = random.uniform(-2, h + 2, (2, size, h, w))
    whole = np.rint(places * augmentation.PARTS).astype(np.int32)
    found["sampling alone"] = milliseconds(
        lambda _: augmentation._sampled(pixels, *whole)
    )
    found["sampling by SciPy"] = milliseconds(lambda _: by_scipy(pixels, places))
    return found


def trained(
    framework: str, images: int, rounds: int
) -> dict[str, list[dict[str, float]]]:
    """Seconds of an epoch with all changes and without, in turns.

    Beside each is the share of the machine that other programs used, 0..1.
    """
    found: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    for number in range(rounds):
        for name in sorted(found, reverse=bool(number % 2)):
            table = ALL if name == "with" else {}
            request = BenchRequest(
                framework=framework,
                conditions=Conditions(),
                style="lesson",
                recipe=load("article").changed(augmentation=table),
                images=images,
                matrix=1,
            )
            answer = work(request)
            one = {key: answer[key] for key in ("seconds", "other_load")}
            found[name].append(one)
            print(f"{framework} {name}: {one}", file=sys.stderr)
    return found


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/augmentation.json"))
    parser.add_argument("--images", type=int, default=6400)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    names = [x.name for x in registry.FRAMEWORKS.values() if not x.problem]
    record = {
        "kind": "augmentation",
        "command": " ".join(["python", *sys.argv]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": machine.processor(),
        "cores": machine.usable_cores(),
        "versions": {
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            **{name: registry.find(name).version for name in names},
        },
        "augmentation": ALL,
        "batch_size": given.batch,
        "repeats": REPEATS,
        "milliseconds_of_a_batch": alone(given.batch),
        "recipe": "article",
        "images": given.images,
        "seconds_of_an_epoch": {
            name: trained(name, given.images, given.rounds) for name in names
        },
    }
    files.write_json(given.out, record)


if __name__ == "__main__":
    main()
