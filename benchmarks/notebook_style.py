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
import importlib
import json
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paripassu import frameworks
from paripassu.benching import ready_trainer, recorded_epoch
from paripassu.core import datasets, machine
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
    raw = datasets.load().with_first(images)
    training = datasets.prepare(raw, mean=0.1307, std=0.3081).training
    trainer = ready_trainer(frameworks.find(framework), recipe, training, threads)
    return recorded_epoch(trainer, recipe, training, lambda *_, **__: None)


def notebook(framework: str, images: int, threads: int) -> float:
    """One epoch in the style of the article's notebook."""
    own = importlib.import_module(f"paripassu.frameworks.{framework}.bench")
    raw = datasets.load().with_first(images)
    seconds: float = own.Notebook(raw, threads=threads, seed=42).epoch()
    return seconds


def measure(style: str, images: int, threads: int) -> dict[str, Any]:
    """What a child process prints: seconds, memory and how busy others were."""
    framework, kind = style.split()
    load = machine.OtherLoad()
    style_of = lesson if kind == "lesson" else notebook
    seconds = style_of(framework, images, threads)
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
