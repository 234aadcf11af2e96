"""A benchmark's record, made of known figures."""

from __future__ import annotations

from paripassu.analysis.benchmark import Bench, Timed
from paripassu.core.recipe import load as load_recipe

IMAGES = 6000
FLOPS = 10_000_000
MATRIX = 1000
# seconds: ceiling, kernels, notebook's style, lesson, the same recorded
ROUNDS = {
    "pytorch": [
        (0.02, 1.0, 4.0, 2.0, 2.02),
        (0.02, 1.2, 4.0, 3.0, 3.0),
        (0.02, 1.0, 5.0, 4.0, 4.0),
    ],
    "tensorflow": [
        (0.04, 1.0, 3.0, 2.0, 2.0),
        (0.01, 1.0, 3.0, 2.0, 2.1),
        (0.02, 1.0, 3.0, 2.0, 2.0),
    ],
}


def timed(framework: str, style: str, seconds: float, harness: float | None) -> Timed:
    return Timed.model_validate(
        {
            "framework": framework,
            "style": style,
            "seconds": seconds,
            "harness_seconds": harness,
            "first_step_seconds": harness,
            "peak_memory_bytes": 2**30 if style == "lesson" else 2**29,
            "other_load": 0.01,
        }
    )


def made(rounds: int = 3) -> Bench:
    recipe = load_recipe("article")
    measured = []
    for number in range(rounds):
        each = []
        for name, values in ROUNDS.items():
            ceiling, kernels, notebook, lesson, harness = values[number]
            each.append(timed(name, "ceiling", ceiling, None))
            each.append(timed(name, "kernels", kernels, None))
            each.append(timed(name, "notebook", notebook, None))
            each.append(timed(name, "lesson", lesson, harness))
        measured.append(each)
    return Bench(
        command="paripassu bench",
        created="2026-11-25T00:00:00+00:00",
        processor="a processor",
        cores=2,
        platform="Linux",
        python="3.11.7",
        threads=2,
        recipe="article",
        recipe_hash=recipe.hash(),
        network="article",
        precision="float32",
        training_flops=FLOPS,
        images=IMAGES,
        matrix=MATRIX,
        versions={"pytorch": "2.13.0", "tensorflow": "2.21.0"},
        rounds=measured,
    )
