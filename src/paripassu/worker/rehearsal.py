"""A short training by a framework's own trainer, beside the same steps one by one.

A twin takes single steps. What a trainer does around them (its data, its loop, the
schedule, callbacks, what happens at the end of an epoch) is proven by this: it trains
some images for two epochs, without dropout, in float64, and must report and end at
what the reference's steps give.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from paripassu.core import draws
from paripassu.core.datasets import Split
from paripassu.core.experiment import steps_per_epoch
from paripassu.core.layout import hash_arrays
from paripassu.core.recipe import Recipe
from paripassu.core.steps import Arrays
from paripassu.frameworks import registry
from paripassu.frameworks.contract import EpochReport, Twin
from paripassu.reference.losses import loss_of
from paripassu.worker.trajectory import shared_step, weights_in

EPOCHS, BATCH = 2, 4
IMAGES = 47  # eleven batches and a short one: more than are trained in a row
MONITORED = 123  # more than are evaluated at a time
REPORTED = (
    *("learning_rate", "training_loss", "training_accuracy"),
    *("monitor_loss", "monitor_accuracy"),
)


def rehearse(
    framework: registry.Framework, recipe: Recipe, data: Split, options: dict[str, Any]
) -> Arrays:
    """What the trainer is fed, reports of each epoch, and ends at.

    Args:
        framework: one that trains, or the reference.
        recipe: the experiment, of which the optimizer, schedule and loss stay.
        data: the training images; the first are trained on, others evaluated.
        options: `threads` and `device`.
    """
    short = recipe.changed(
        precision="float64",
        batch_size=BATCH,
        epochs=EPOCHS,
        dropout=dict.fromkeys(recipe.dropout, 0.0),
    )
    few, monitored = data[:IMAGES], data[-MONITORED:]
    weights = draws.initial_weights(short.architecture, short)
    twin = framework.make_twin(short, weights=weights, **options)
    fed: list[Any] = []
    reports: list[EpochReport] = []
    if not framework.trains:
        reports, fed = _by_steps(twin, short, few, monitored)
        logits, final = twin.logits(monitored.images), _trained(twin.state())
    else:
        trainer = twin.watched(lambda *batch: fed.extend(batch))
        trainer.warm_up(few)
        fed.clear()
        trainer.train(
            few,
            monitored,
            first_epoch=0,
            on_step=lambda *_: None,
            on_epoch=reports.append,
        )
        logits = trainer.logits(monitored.images)
        final = {f"weight.{n}": x for n, x in trainer.weights().items()}
    counts = {"training_accuracy": len(few), "monitor_accuracy": len(monitored)}
    exact = [
        x.astype(np.float32 if x.dtype.kind == "f" else np.int64, copy=False)
        for x in fed
    ]
    return {
        "draws.fed": hash_arrays(exact),
        # An accuracy is told to six digits: answers are counted.
        **{
            f"trained.{key}": np.array(
                [
                    round(getattr(x, key) * counts[key])
                    if key in counts
                    else getattr(x, key)
                    for x in reports
                ],
                np.float64,
            )
            for key in REPORTED
        },
        "trained.logits": logits,
        **{f"trained.{name}": x for name, x in final.items()},
    }


def _trained(state: Arrays) -> Arrays:
    """The weights of a state, or their running means where there are some."""
    return {
        name: state.get(f"slot.{name.removeprefix('weight.')}.average", x)
        for name, x in weights_in(state).items()
    }


def _by_steps(
    twin: Twin, recipe: Recipe, few: Split, monitored: Split
) -> tuple[list[EpochReport], list[Any]]:
    """The reports of the reference's steps, and what they were given."""
    reports, fed = [], []
    length = steps_per_epoch(recipe, len(few))
    rates = twin.learning_rates(length)
    last = recipe.architecture.layers[-1].name
    for epoch in range(recipe.epochs):
        twin.begin_epoch(epoch)
        loss, right = 0.0, 0
        for number, rows in enumerate(draws.batches(recipe, len(few), epoch)):
            step = shared_step(recipe, few, rows, epoch, number)
            found = twin.step(step)
            loss += float(found["loss"]) * len(rows)
            answers = found[f"activation.{last}"].argmax(1)
            right += int((answers == step.labels).sum())
            fed += [step.images, step.labels]
        outputs = twin.evaluate(monitored.images)[last]
        answers = outputs.argmax(1)
        reports.append(
            EpochReport(
                epoch=epoch,
                seconds=0,
                evaluation_seconds=0,
                learning_rate=rates[epoch * length],
                training_loss=loss / len(few),
                training_accuracy=right / len(few),
                monitor_loss=float(loss_of(recipe)(outputs, monitored.labels)[0]),
                monitor_accuracy=float((answers == monitored.labels).mean()),
            )
        )
    return reports, fed
