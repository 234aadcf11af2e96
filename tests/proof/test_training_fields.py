"""Smoothed labels, bounded gradients, mean weights, schedules, Nadam, augmentation.

Each is taken up the ladder in each framework, beside the reference, and a mistake in
each must turn it red. Run as a script, `test_training_fields.py FRAMEWORK`, this file
does so for one framework: two may not share a process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from helpers import EACH, TESTS, environment
from short_proof import STAGES, prove

from paripassu.core import draws
from paripassu.core.datasets import load as load_data
from paripassu.core.datasets import prepare
from paripassu.core.recipe import Recipe, load
from paripassu.core.steps import Arrays
from paripassu.frameworks import registry
from paripassu.frameworks.contract import EpochReport
from paripassu.frameworks.faults import FAULTS, HEALTHY
from paripassu.reference.optimizers import share_on_plateau

SMALL = ["network=keras-example", "dropout={dropout1=0.5}", "epochs=2"]
AUGMENTED = {
    "shift": 2.0,
    "rotation": 10.0,
    "scale": 0.1,
    "shear": 5.0,
    "elastic": 1.0,
    "cutout": 6,
}
# Of each case, what differs from the small recipe, and the mistakes that it must show.
CASES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "all": (
        {
            "label_smoothing": 0.1,
            "clip_global_norm": 0.1,
            "average_decay": 0.9,
            "augmentation": AUGMENTED,
            "optimizer": {"kind": "nadam"},
            "decay": {
                "shape": "one_cycle",
                "interval": 40.0,
                "warm_up": 10.0,
                "final": 1e-4,
                "unit": "step",
            },
        },
        {
            "not-augmented": "rung 0",
            "labels-unsmoothed": "rung 2",
            "gradients-unclipped": "rung 3",
            "nesterov-missing": "rung 3",
            "average-forgets": "rung 5",
        },
    ),
    "by epochs": (
        {
            "epochs": 3,
            "average_decay": 0.5,
            "optimizer": {"kind": "sgd", "learning_rate": 0.1},
            "decay": {"shape": "cosine", "interval": 4.0, "warm_up": 1.0},
        },
        {"schedule-in-a-line": "rung 4", "average-forgets": "rung 5"},
    ),
    "plateau": (
        {
            "epochs": 12,
            "validation_size": 30,
            "optimizer": {"kind": "rmsprop", "learning_rate": 0.001},
            "decay": {"shape": "plateau", "factor": 0.5, "patience": 2, "final": 0.2},
        },
        {"plateau-waits-longer": "rung 4"},
    ),
    "adadelta": (
        {
            "clip_global_norm": 0.05,
            "average_decay": 0.99,
            "output": "probabilities",
            "label_smoothing": 0.2,
            "decay": {"shape": "cosine", "interval": 64.0, "unit": "step"},
        },
        {"gradients-unclipped": "rung 3", "labels-unsmoothed": "rung 2"},
    ),
}


def recipe_of(case: str) -> Recipe:
    return load("article", SMALL).changed(**CASES[case][0])


@pytest.mark.slow
@pytest.mark.parametrize("framework", EACH)
def test_each_field_is_proven_and_a_mistake_in_it_is_found(framework: str) -> None:
    done = subprocess.run(
        [sys.executable, __file__, framework],
        env=environment(TESTS),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    expected = {
        case: {"healthy": None, **mistakes, "resumed": "with the same bits"}
        for case, (_, mistakes) in CASES.items()
    }
    assert found == expected, done.stderr[-3000:]


def test_every_field_is_in_a_case_and_each_mistake_applies() -> None:
    tried = {x for _fields, mistakes in CASES.values() for x in mistakes}
    plain = Recipe()
    new = {x.name for x in FAULTS.values() if not x.applies_to(plain)}
    assert tried <= new
    for case, (_, mistakes) in CASES.items():
        assert all(FAULTS[x].applies_to(recipe_of(case)) for x in mistakes)


def resumed(framework: str, recipe: Recipe) -> str:
    """How a training that goes on after half its epochs ends, beside a whole one."""
    weights = draws.initial_weights(recipe.architecture, recipe)
    data = prepare(load_data(), mean=0.1307, std=0.3081).training[:90]
    states: list[Arrays] = []
    reports: list[EpochReport] = []

    def train(first_epoch: int, state: Arrays | None) -> Arrays:
        trainer = registry.find(framework).make_trainer(
            recipe, weights=weights, threads=1, device="cpu"
        )
        trainer.warm_up(data)
        if state:
            trainer.load_state(state)
        trainer.train(
            data,
            data[:3],  # an accuracy that cannot rise in most epochs
            first_epoch=first_epoch,
            on_step=lambda *_: None,
            on_epoch=lambda told: (
                reports.append(told),
                states.append(trainer.state()),
            ),
        )
        return {**trainer.weights(), "logits": trainer.logits(data[:5].images)}

    whole = train(0, None)
    if recipe.decay.shape == "plateau" and not followed(recipe, reports):
        return "at other rates than its accuracies ask for"
    half = recipe.epochs // 2
    again = train(half, states[half - 1])
    same = all((whole[name] == again[name]).all() for name in whole)
    return "with the same bits" if same else "otherwise"


def followed(recipe: Recipe, reports: list[EpochReport]) -> bool:
    """Whether the rates are those that the accuracies before ask for, and fell."""
    seen = [x.monitor_accuracy for x in reports]
    shares = [share_on_plateau(recipe.decay, seen[:x]) for x in range(len(seen))]
    rates = [recipe.optimizer.learning_rate * x for x in shares]
    told = [x.learning_rate for x in reports]
    return min(shares) < 1 and told == pytest.approx(rates, rel=1e-6)


def main() -> None:
    """Print, for each case and mistake, the rung at which it is found."""
    framework = sys.argv[1]
    found: dict[str, dict[str, str | None]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case, (_, mistakes) in CASES.items():
            recipe = recipe_of(case)
            found[case] = {}
            for name in ("healthy", *mistakes):
                healthy = name == "healthy"
                wrong = prove(
                    *(framework, recipe, Path(folder)),
                    stages=tuple(STAGES) if healthy else ("first", "starts"),
                    fault=HEALTHY if healthy else FAULTS[name],
                )
                rungs = sorted(row.rung for row in wrong if healthy or not row.start)
                found[case][name] = f"rung {rungs[0]}" if rungs else None
                print(case, name, wrong[:3], file=sys.stderr)
            found[case]["resumed"] = resumed(framework, recipe.changed(batch_size=16))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
