"""Times one change at a time: what each thing that makes the lessons fast brings.

    python benchmarks/speedups.py --rounds 3 --json results/speedups.json
    python benchmarks/speedups.py --precision bfloat16 --variants allocator eager

Each variant is training as `paripassu train` does it, recipe `article`, with one thing
taken away or added, in a fresh process. A round measures each variant once,
the next in the opposite order; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import parts

from paripassu.core import datasets, machine
from paripassu.core.files import write_json
from paripassu.core.recipe import load
from paripassu.frameworks import registry
from paripassu.processes.launch import worker_environment
from paripassu.worker.benchmark import ready_trainer, recorded_epoch

AS_IT_IS = "as it is"
FEW = 640  # images of a variant that would take minutes, and its baseline's too
PARTS = parts.each()
VARIANTS: dict[str, dict[str, str]] = {x: own.VARIANTS for x, own in PARTS.items()}
SLOW = {"eager", "XLA"}
ENVIRONMENT = {"no oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0"}}


def child(framework: str, variant: str, images: int, precision: str) -> dict[str, Any]:
    """What one process measures: seconds a step, before them, and the load."""
    own = PARTS[framework]
    own.prepare(variant)
    recipe = load("article", ["epochs=1", f"precision={precision}"])
    prepared = datasets.prepare(datasets.load(), mean=0.1307, std=0.3081)
    threads = machine.usable_cores()
    trainer = ready_trainer(
        registry.find(framework), recipe, prepared.training, threads
    )
    own.change(variant, trainer)
    start = time.perf_counter()
    trainer.warm_up(prepared.training)
    recorded_epoch(trainer, recipe, prepared.training[:FEW], lambda *_, **__: None)
    before = time.perf_counter() - start
    some = prepared.training[:images]
    load_seen = machine.OtherLoad()
    seconds = recorded_epoch(trainer, recipe, some, lambda *_, **__: None)
    return {
        "step_seconds": seconds / (images / recipe.batch_size),
        "warm_up_seconds": before,  # with the compilation of what was changed
        "other_load": load_seen.look(),
    }


def measure(
    framework: str, variant: str, images: int, precision: str
) -> dict[str, Any]:
    """Run a child."""
    threads = machine.usable_cores()
    environment = (
        dict(os.environ) if variant == "allocator" else worker_environment(threads)
    )
    done = subprocess.run(
        [
            *(sys.executable, __file__, "--child", framework, variant),
            *("--images", str(FEW if variant in SLOW else images)),
            *("--precision", precision),
        ],
        capture_output=True,
        env=environment | ENVIRONMENT.get(variant, {}),
        check=False,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{framework}, {variant}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=9600, help="for each variant")
    parser.add_argument("--variants", nargs="+", help="only these, and as it is")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32"
    )
    parser.add_argument("--json", type=Path, help="where to write the record")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        given = arguments.images, arguments.precision
        print(json.dumps(child(*arguments.child, *given)))
        return 0
    wanted = [AS_IT_IS, *(arguments.variants or set().union(*VARIANTS.values()))]
    turns = [(name, x) for name, each in VARIANTS.items() for x in each if x in wanted]
    if unknown := set(wanted) - {variant for _name, variant in turns}:
        parser.error(f"no such variants: {', '.join(sorted(unknown))}")
    rounds: list[dict[str, dict[str, Any]]] = []
    for number in range(arguments.rounds):
        found = {}
        for name, variant in turns if number % 2 == 0 else reversed(turns):
            one = measure(name, variant, arguments.images, arguments.precision)
            found[f"{name}: {variant}"] = one
            milliseconds = 1000 * one["step_seconds"]
            print(f"round {number + 1}  {name:10} {variant:20} {milliseconds:7.1f} ms")
        rounds.append(found)
    record = judge(rounds, arguments.images, arguments.precision)
    for name, each in record["ratios"].items():
        print(
            f"{name:34} {each['median']:.2f} ({each['low']:.2f} to {each['high']:.2f})"
        )
    if arguments.json:
        write_json(arguments.json, record)
    return 0


def judge(
    rounds: list[dict[str, dict[str, Any]]], images: int, precision: str
) -> dict[str, Any]:
    """Of each variant, its seconds by those of its framework as it is."""
    ratios = {}
    for key in rounds[0]:
        base = f"{key.split(':')[0]}: {AS_IT_IS}"
        values = [x[key]["step_seconds"] / x[base]["step_seconds"] for x in rounds]
        ratios[key] = {
            "median": statistics.median(values),
            "low": min(values),
            "high": max(values),
            "step_seconds": statistics.median(x[key]["step_seconds"] for x in rounds),
            "warm_up_seconds": statistics.median(
                x[key]["warm_up_seconds"] for x in rounds
            ),
        }
    return {
        "kind": "speed-ups, one at a time",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python benchmarks/speedups.py {shlex.join(sys.argv[1:])}",
        "processor": machine.processor(),
        "cores": machine.usable_cores(),
        "platform": machine.system(),
        "precision": precision,
        "images": images,
        "images_of_slow": FEW,
        "versions": {name: registry.find(name).version for name in VARIANTS},
        "said": VARIANTS,
        "ratios": ratios,
        "busiest": max(x["other_load"] for each in rounds for x in each.values()),
        "rounds": rounds,
    }


if __name__ == "__main__":
    sys.exit(main())
