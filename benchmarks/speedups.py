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
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paripassu.core import datasets, machine
from paripassu.core.files import write_json
from paripassu.core.recipe import load
from paripassu.frameworks import registry
from paripassu.processes.launch import worker_environment
from paripassu.worker.benchmark import ready_trainer, recorded_epoch

AS_IT_IS = "as it is"
FEW = 640  # images of a variant that would take minutes, and its baseline's too
# Variant -> what is said of it; what is not in the lesson or trainer is "tried".
VARIANTS = {
    "pytorch": {
        AS_IT_IS: "as it is",
        "own dropout": "without: masks of bytes, PyTorch's `bernoulli_` instead",
        "allocator": "without: memory kept by the allocator, glibc's defaults instead",
        "relu before pool": "without: ReLU after the pool, before it instead",
        "channels first": "without: channels last, channels first instead",
        "image by image": "without: batches indexed at once, a `DataLoader` instead",
        "compile optimizer": "tried: `torch.compile(optimizer.step)`",
        "compile network": "tried: `torch.compile(network)`",
        "relu in place": "tried: `ReLU(inplace=True)`",
    },
    "tensorflow": {
        AS_IT_IS: "as it is",
        "own dropout": "without: masks of bytes, Keras's `Dropout` instead",
        "own optimizer": "without: Adadelta in one pass, Keras's instead",
        "step by step": "without: ten steps in a row, single ones instead",
        "allocator": "without: memory kept by the allocator, glibc's defaults instead",
        "relu before pool": "without: ReLU after the pool, before it instead",
        "no prefetch": "without: `prefetch`",
        "no oneDNN": "without: oneDNN",
        "eager": "without: the graph, `run_eagerly=True` instead",
        "one thread between": "tried: one inter-op thread instead of two",
        "XLA": "tried: `jit_compile=True`",
    },
}
SLOW = {"eager", "XLA"}
ENVIRONMENT = {"no oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0"}}


def pytorch(variant: str, trainer: Any) -> None:
    """Change a trainer of PyTorch."""
    import torch
    from torch import nn

    from paripassu.frameworks.pytorch import lesson

    network = trainer.network
    if variant == "own dropout":
        for layer in (network.dropout1, network.dropout2):
            del layer.forward  # the class's own is left
    elif variant == "relu before pool":

        class Before(lesson.Network):
            def forward(self, x: Any) -> Any:
                x = self.relu1(self.conv1(x))
                x = self.pool(self.relu2(self.conv2(x)))
                x = self.flatten(self.dropout1(x))
                x = self.relu3(self.dense1(x))
                return self.dense2(self.dropout2(x))

        network.__class__ = Before
    elif variant == "channels first":
        network.to(memory_format=torch.contiguous_format)
    elif variant == "compile optimizer":
        trainer.optimizer.step = torch.compile(trainer.optimizer.step)
    elif variant == "compile network":
        network.compile()
    elif variant == "relu in place":
        for layer in network.modules():
            if isinstance(layer, nn.ReLU):
                layer.inplace = True
    elif variant == "image by image":
        train_epoch = lesson.train_epoch

        def one_by_one(
            network: Any, loss_of: Any, optimizer: Any, data: Any, batches: Any
        ) -> Any:
            class Given:  # the batch that comes is the batch that is asked for
                def __getitem__(self, batch: Any) -> Any:
                    return batch

            loader = torch.utils.data.DataLoader(data, batch_sampler=batches)
            return train_epoch(network, loss_of, optimizer, Given(), loader)

        lesson.train_epoch = one_by_one


def tensorflow(variant: str, trainer: Any) -> None:
    """Change a trainer of TensorFlow."""
    import tensorflow as tf
    from keras import layers, models

    from paripassu.frameworks.tensorflow import lesson

    network = trainer.network
    optimizer, loss = network.optimizer, trainer.loss
    if variant == "own dropout":
        for layer in network.layers:
            vars(layer).pop("call", None)  # the class's own is left
        lesson.compile_network(network, optimizer, loss)  # traced anew
    elif variant == "own optimizer":
        del optimizer.update_step
        lesson.compile_network(network, optimizer, loss)
    elif variant == "step by step":
        network.compile(optimizer, loss, metrics=["accuracy"])
    elif variant == "relu before pool":
        order = {layer.name: layer for layer in network.layers}
        names = list(order)
        first, second = names.index("pool"), names.index("relu2")
        names[first], names[second] = names[second], names[first]
        inputs = layers.Input((28, 28, 1))
        trainer.network = models.Sequential([inputs, *(order[x] for x in names)])
        lesson.compile_network(trainer.network, optimizer, loss)
    elif variant in SLOW:
        lesson.compile_network(network, optimizer, loss)
        setattr(network, "run_eagerly" if variant == "eager" else "jit_compile", True)
    elif variant == "no prefetch":
        to_dataset = lesson.to_dataset

        def plain(*given: Any) -> Any:
            prefetch = tf.data.Dataset.prefetch
            tf.data.Dataset.prefetch = lambda self, _count: self
            try:
                return to_dataset(*given)
            finally:
                tf.data.Dataset.prefetch = prefetch

        lesson.to_dataset = plain


CHANGES: dict[str, Callable[[str, Any], None]] = {
    "pytorch": pytorch,
    "tensorflow": tensorflow,
}


def child(framework: str, variant: str, images: int, precision: str) -> dict[str, Any]:
    """What one process measures: seconds a step, before them, and the load."""
    if variant == "one thread between":
        import tensorflow as tf

        threading = tf.config.threading
        threads_between = threading.set_inter_op_parallelism_threads
        threading.set_inter_op_parallelism_threads = lambda _count: threads_between(1)
    recipe = load("article", ["epochs=1", f"precision={precision}"])
    prepared = datasets.prepare(datasets.load(), mean=0.1307, std=0.3081)
    threads = machine.usable_cores()
    trainer = ready_trainer(
        registry.find(framework), recipe, prepared.training, threads
    )
    CHANGES[framework](variant, trainer)
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
