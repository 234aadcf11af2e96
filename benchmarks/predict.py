"""Times `paripassu predict`: the network alone, decoding alone, and the whole path.

    python benchmarks/predict.py --model runs/mine

The pictures are the test set of MNIST, enlarged 1 to 6 times, a quarter as JPEG and the
rest as PNG, written to a temporary folder. Decoding is timed in this process, in
threads and in processes, on the same pictures, in turn, and the turns are repeated:
what counts is which is faster within a round. The load of the machine is printed with
each figure, and, for networks and processes, the processor time of an image: where
others use the machine too, that is what can be compared.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from paripassu.conversion.model_source import ModelSource, read_source
from paripassu.core import datasets, machine
from paripassu.core.digits import Digit, read_picture, to_digit
from paripassu.frameworks import registry
from paripassu.prediction.answering import Answerer
from paripassu.prediction.decoding import Decoders
from paripassu.prediction.predict import BATCH, answer, ask_which, gather


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=machine.usable_cores())
    given = parser.parse_args()
    source = read_source(given.model)
    images = datasets.load().test_images[..., 0][: given.pictures]
    # The command gives the network half, and all to reading pictures.
    half = max(1, given.threads // 2)
    print(f"{machine.processor()}, {given.threads} threads")
    for name, framework in registry.FRAMEWORKS.items():
        if not framework.problem:
            for count in sorted({half, given.threads}):
                network(source, name, count, images)
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), images)
        for _ in range(given.rounds):
            decoding(folder, given.threads)
        for name, framework in registry.FRAMEWORKS.items():
            if not framework.problem:
                whole(source, name, folder, given.threads)
    return 0


def say(what: str, count: int, seconds: float, processor: float | None = None) -> None:
    each = "" if processor is None else f", {1000 * processor / count:.2f} ms processor"
    print(
        f"{what:28} {count / seconds:8,.0f} images/s  "
        f"(load {machine.load_average():.1f}{each})",
        flush=True,
    )


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock seconds, and processor seconds of this process's children."""
    before, start = children_seconds(), time.perf_counter()
    work()
    return time.perf_counter() - start, children_seconds() - before


def children_seconds() -> float:
    times = [child.cpu_times() for child in psutil.Process().children()]
    return sum(x.user + x.system for x in times)


def network(
    source: ModelSource, framework: str, threads: int, images: datasets.ImageData
) -> None:
    """Batches that are decoded already, there and back."""
    batches = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
    with Answerer(source, framework, threads=threads) as answerer:
        answerer.wait()
        answerer.ask(batches[0])
        seconds = timed(lambda: [answerer.ask(batch) for batch in batches])
    say(f"network, {framework}, {threads}", len(images), *seconds)


def write_pictures(folder: Path, images: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    for number, image in enumerate(images):
        size = int(28 * rng.uniform(1, 6))
        picture = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
        suffix = "jpg" if number % 4 == 0 else "png"
        picture.save(folder / f"{number:06}.{suffix}")


def decoding(folder: str, threads: int) -> None:
    paths = [found.path for found in gather([folder])[0]]

    def one(path: str) -> Digit | None:
        return to_digit(read_picture(Path(path)))

    seconds, _ = timed(lambda: list(map(one, paths)))
    say("decoding, this process", len(paths), seconds)
    with ThreadPoolExecutor(threads) as pool:
        seconds, _ = timed(lambda: list(pool.map(one, paths)))
    say(f"decoding, {threads} threads", len(paths), seconds)
    with Decoders(threads) as decoders:
        list(decoders.read(paths[:100]))  # they have started
        both = timed(lambda: list(decoders.read(paths)))
    say(f"decoding, {threads} processes", len(paths), *both)


def whole(source: ModelSource, framework: str, folder: str, threads: int) -> None:
    """From files to answers, without the start of the framework."""
    pictures, _ = gather([folder])
    asked = ask_which([source], [framework])
    found = answer(asked, pictures, threads=threads)
    next(found)
    seconds, _ = timed(lambda: list(found))
    say(f"whole path, {framework}", len(pictures), seconds)


if __name__ == "__main__":
    sys.exit(main())
