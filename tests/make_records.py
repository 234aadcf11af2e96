"""Complete, synthetic run and comparison folders, for the tests of the judges."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from paripassu.core.files import write_json, write_tensors
from paripassu.core.recipe import Recipe
from paripassu.core.record import (
    CHECKPOINT_FILE,
    PREDICTIONS_FILE,
    WEIGHTS_FILE,
    Dataset,
    Environment,
    Epoch,
    Inference,
    Result,
    RunRecord,
    Session,
    save_record,
)

CLASSES = 10
LIBRARIES = {"pytorch": "torch", "tensorflow": "tensorflow"}
VERSIONS = {"pytorch": "2.13.0", "tensorflow": "2.21.0"}
SECONDS_PER_EPOCH = {"pytorch": 42.0, "tensorflow": 38.0}
MEBIBYTES = {"pytorch": 700, "tensorflow": 950}
SHA256 = {
    "train-images-idx3-ubyte": "ba89" + "0" * 60,
    "train-labels-idx1-ubyte": "65a5" + "0" * 60,
    "t10k-images-idx3-ubyte": "0fa7" + "0" * 60,
    "t10k-labels-idx1-ubyte": "ff7b" + "0" * 60,
}


def make_recipe(seed: int = 42, epochs: int = 3) -> dict[str, Any]:
    """The article's recipe, as a record holds it."""
    return Recipe(name="article", seed=seed, epochs=epochs).model_dump()


def make_dataset(
    test_count: int = 500,
    sha256: Mapping[str, str] = SHA256,
    warnings: Sequence[str] = (),
) -> Dataset:
    return Dataset(
        name="mnist",
        source="package",
        sha256=dict(sha256),
        train_size=60000,
        validation_size=0,
        test_size=test_count,
        mean=0.1307,
        std=0.3081,
        warnings=list(warnings),
    )


def make_environment(
    framework: str,
    threads: int = 2,
    device: str = "cpu",
    cores: int = 2,
    version: str | None = None,
) -> Environment:
    library = LIBRARIES.get(framework, framework)
    return Environment(
        python="3.11.9",
        platform="Linux-6.1-x86_64-with-glibc2.36",
        processor="Intel Xeon Processor (AVX-512)",
        cores=cores,
        memory_bytes=24 * 2**30,
        threads=threads,
        device=device,
        versions={
            library: version or VERSIONS.get(framework, "1.0.0"),
            "numpy": "2.4.6",
        },
        settings={"MALLOC_TRIM_THRESHOLD_": "-1"},
    )


def make_labels(test_count: int = 500) -> npt.NDArray[np.uint8]:
    """The same true labels for every run of one size."""
    return (
        np.random.default_rng(7).integers(0, CLASSES, size=test_count).astype(np.uint8)
    )


def make_logits(
    framework: str, seed: int, correct: int, test_count: int = 500
) -> npt.NDArray[np.float32]:
    """Logits with exactly `correct` right answers; hard images are hard for all."""
    labels = make_labels(test_count)
    difficulty = np.random.default_rng(11).exponential(size=test_count)
    draws = np.random.default_rng([seed, zlib.crc32(framework.encode())])
    order = np.argsort(-(difficulty + 0.5 * draws.exponential(size=test_count)))
    answers = labels.astype(np.int64)
    wrong = order[: test_count - correct]
    answers[wrong] = (answers[wrong] + 1 + draws.integers(0, 9, len(wrong))) % CLASSES
    logits = draws.normal(size=(test_count, CLASSES))
    margin = 2.0 + draws.exponential(3.0, size=test_count)
    rows = np.arange(test_count)
    logits[rows, answers] = logits.max(axis=1) + margin
    return logits.astype(np.float32)


def make_epoch(
    number: int,
    epochs: int = 3,
    *,
    session: int = 0,
    seconds: float = 40.0,
    accuracy: float = 0.99,
    other_load: float = 0.02,
) -> Epoch:
    return Epoch(
        epoch=number,
        session=session,
        seconds=seconds,
        evaluation_seconds=seconds / 16,
        learning_rate=0.7 ** (number - 1),
        training_loss=0.05 + 0.20 / number,
        training_accuracy=max(0.0, 0.985 - 0.05 / number),
        monitor_loss=0.03 + 0.03 / number,
        monitor_accuracy=max(0.0, accuracy - 0.02 * (1 / number - 1 / epochs)),
        other_load=other_load,
    )


def make_sessions(
    count: int, epochs: int, load_average: float, minute: int = 0
) -> list[Session]:
    """`count` stretches, an hour apart, of a run that trained `epochs` epochs."""
    start = datetime(2026, 11, 20, 10, tzinfo=UTC) + timedelta(minutes=minute)
    return [
        Session(
            started=(start + timedelta(hours=index)).isoformat(),
            first_epoch=1 + index * epochs // count,
            seconds={
                "start_up": 2.5 + 0.1 * index,
                "data": 0.6,
                "build": 0.1,
                "warm_up": 0.9,
                "inference": 1.5,
                "saving": 0.2,
            },
            load_average=load_average,
        )
        for index in range(count)
    ]


def make_run(
    folder: Path,
    framework: str = "pytorch",
    seed: int = 42,
    *,
    correct: int | None = None,
    test_count: int = 500,
    epochs: int = 3,
    seconds: float | None = None,
    other_load: float = 0.02,
    load_average: float = 0.3,
    sessions: int = 1,
    minute: int = 0,
    status: Literal["running", "finished"] = "finished",
    dataset: Dataset | None = None,
    environment: Environment | None = None,
    monitor: Literal["test", "validation"] = "test",
    peak_accelerator_bytes: int | None = None,
) -> RunRecord:
    """Write one run folder: `run.json`, and `predictions.safetensors` if finished.

    Args:
        folder: the run's own folder; made if missing.
        correct: how many of `test_count` images are answered right; 98.6% or so,
            different for every framework and seed, if not given.
        minute: when it started, after ten o'clock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng([seed, zlib.crc32(framework.encode()), 1])
    if correct is None:
        correct = round(0.986 * test_count) + int(draws.integers(-1, 2))
    base = SECONDS_PER_EPOCH.get(framework, 40.0) if seconds is None else seconds
    finished = status == "finished"
    trained = epochs if finished else max(1, epochs - 1)
    stretches = make_sessions(sessions, epochs, load_average, minute)
    record = RunRecord(
        status=status,
        framework=framework,
        recipe=make_recipe(seed, epochs),
        recipe_hash=f"{zlib.crc32(f'article-{seed}'.encode()):08x}",
        dataset=dataset or make_dataset(test_count),
        environment=environment or make_environment(framework),
        command=f"paripassu train --framework {framework} --seed {seed}",
        monitor=monitor,
        sessions=stretches,
        epochs=[
            make_epoch(
                number,
                epochs,
                session=max(
                    index
                    for index, stretch in enumerate(stretches)
                    if stretch.first_epoch <= number
                ),
                seconds=base + 0.1 * number + 0.01 * (seed % 7),
                accuracy=correct / test_count,
                other_load=other_load,
            )
            for number in range(1, trained + 1)
        ],
        result=Result(
            test_loss=0.04 + 0.001 * (seed % 5),
            test_accuracy=correct / test_count,
            test_correct=correct,
            test_count=test_count,
        )
        if finished
        else None,
        inference=Inference(
            single_seconds=0.0004 + 0.00001 * (seed % 3),
            batch_seconds=0.012,
            batch_size=64,
            repeats=30,
        )
        if finished
        else None,
        peak_memory_bytes=MEBIBYTES.get(framework, 800) * 2**20 + 4096 * (seed % 5)
        if finished
        else None,
        peak_accelerator_bytes=peak_accelerator_bytes if finished else None,
        weights_sha256="ab" * 32 if finished else None,
        files={"checkpoint": CHECKPOINT_FILE}
        | (
            {"weights": WEIGHTS_FILE, "predictions": PREDICTIONS_FILE}
            if finished
            else {}
        ),
    )
    save_record(folder, record)
    if finished:
        write_tensors(
            folder / PREDICTIONS_FILE,
            {
                "logits": make_logits(framework, seed, correct, test_count),
                "labels": make_labels(test_count),
            },
        )
    return record


def make_proof(holds: bool = True) -> dict[str, Any]:
    """What `proof.json` holds: float64, a few quantities; one is off if not `holds`."""
    quantities = {
        "logits": 3e-16,
        "loss": 2e-16,
        "gradient conv1.kernel": 8e-16,
        "gradient dense2.bias": 4e-16 if holds else 3e-4,
    }
    return {
        "precision": "float64",
        "holds": holds,
        "rows": [
            {
                "left": "pytorch",
                "right": "tensorflow",
                "quantity": quantity,
                "difference": difference,
                "bound": 1e-12,
                "holds": difference <= 1e-12,
            }
            for quantity, difference in quantities.items()
        ],
        "message": None,
    }


def make_order(frameworks: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Run names A B B A ..."""
    order = []
    for index, seed in enumerate(seeds):
        turn = frameworks if index % 2 == 0 else list(reversed(frameworks))
        order += [f"{framework}-seed{seed}" for framework in turn]
    return order


def make_comparison(
    folder: Path,
    frameworks: Sequence[str] = ("pytorch", "tensorflow"),
    seeds: Sequence[int] = (42,),
    *,
    margin: float = 0.001,
    correct: Mapping[str, int] | None = None,
    unavailable: Mapping[str, str] | None = None,
    failures: Mapping[str, str] | None = None,
    unfinished: Sequence[str] = (),
    absent: Sequence[str] = (),
    proof: Mapping[str, Any] | None = None,
    runs: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> Path:
    """Write a comparison folder as the compare verb leaves it; returns `folder`.

    Args:
        correct: right answers by run name ("pytorch-seed42").
        unavailable: framework -> why; it gets no runs.
        failures: run name -> what went wrong; it gets no run folder.
        unfinished: names of runs that are still "running".
        absent: names of runs that were planned and never started.
        proof: content of `proof.json` (see `make_proof`); none is written if None.
        runs: run name -> more keywords of `make_run` for that run only.
        options: keywords of `make_run` for every run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = make_order(frameworks, seeds)
    plan = {
        "kind": "plan",
        "version": 1,
        "command": "paripassu compare --quick",
        "recipe": make_recipe(seeds[0], options.get("epochs", 3)),
        "frameworks": list(frameworks),
        "seeds": list(seeds),
        "order": order,
        "margin": margin,
        "unavailable": dict(unavailable or {}),
        "failures": dict(failures or {}),
    }
    write_json(folder / "plan.json", plan)
    if proof is not None:
        write_json(folder / "proof.json", dict(proof))
    for position, name in enumerate(order):
        framework, seed = name.rsplit("-seed", 1)
        left_out = {*(failures or {}), *absent}
        if framework in (unavailable or {}) or name in left_out:
            continue
        keywords: dict[str, Any] = {"minute": 3 * position, **options}
        if name in unfinished:
            keywords["status"] = "running"
        if correct and name in correct:
            keywords["correct"] = correct[name]
        keywords |= (runs or {}).get(name, {})
        make_run(folder / "runs" / name, framework, int(seed), **keywords)
    return folder
