"""The measured part of `docs/article.md`, from the record of the ablation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paripassu.analysis.ablation.attribution import Ablation, Metric
    from paripassu.analysis.schema import Estimate

FOLDER = Path("results") / "ablation"
ACCURACY: Metric = "test_accuracy"
LOSS: Metric = "test_cross_entropy"
FIRST: Metric = "first_epoch_accuracy"


def _points(estimate: Estimate | None, *, interval: bool = False) -> str:
    """A difference of accuracies in percentage points."""
    from paripassu.analysis.text import signed

    if estimate is None:
        return "–"
    text = signed(100 * estimate.mean, 2)
    if interval and estimate.low is not None and estimate.high is not None:
        low, high = signed(100 * estimate.low, 2), signed(100 * estimate.high, 2)
        text += f" ({low} to {high})"
    return text


def _nats(estimate: Estimate | None) -> str:
    from paripassu.analysis.text import signed

    return "–" if estimate is None else signed(estimate.mean, 4)


def _share(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.mean:.2%}"


def _levels(ablation: Ablation) -> list[str]:
    from paripassu.analysis.text import display_name

    lines = [
        "| | trained in | test accuracy | test loss, nats | after one epoch |",
        "|---|---|---|---|---|",
    ]
    for level in ablation.levels:
        recipe = ablation.start if level.end == "FROM" else ablation.end
        loss = level.figures.get(LOSS)
        lines.append(
            f"| `{recipe['name']}` | {display_name(level.framework)} | "
            f"{_share(level.figures.get(ACCURACY))} | "
            f"{'–' if loss is None else f'{loss.mean:.4f}'} | "
            f"{_share(level.figures.get(FIRST))} |"
        )
    return lines


def _effects(ablation: Ablation) -> list[str]:
    from paripassu.analysis.text import display_name

    lines = [
        "| difference | from → to | test accuracy, points | forward | back | "
        "test loss, nats | after one epoch, points |",
        "|---|---|---|---|---|---|---|",
    ]
    for difference, effects in zip(ablation.differences, ablation.effects, strict=True):
        accuracy = effects[ACCURACY]
        loss, first = effects.get(LOSS), effects.get(FIRST)
        lines.append(
            f"| `{difference.name}` | {difference} | "
            f"{_points(accuracy.both, interval=True)} | {_points(accuracy.forward)} | "
            f"{_points(accuracy.back)} | {_nats(loss.both if loss else None)} | "
            f"{_points(first.both if first else None)} |"
        )
    total = ablation.total
    rows = [("**total**", "", total)]
    for gap in ablation.gaps:
        ends = [
            f"`{recipe['name']}` in {display_name(name)}"
            for recipe, name in (
                (ablation.end, gap.end_framework),
                (ablation.start, gap.start_framework),
            )
        ]
        rows += [
            (" − ".join(ends), "", gap.figures),
            ("**unexplained rest**", "", gap.rest),
        ]
    for label, change, figures in rows:
        lines.append(
            f"| {label} | {change} | {_points(figures[ACCURACY], interval=True)} | | | "
            f"{_nats(figures.get(LOSS))} | {_points(figures.get(FIRST))} |"
        )
    return lines


def measured(root: Path) -> str:
    """Both tables, and what they were made of."""
    from paripassu.analysis.ablation.attribution import load
    from paripassu.analysis.text import counted, display_name, listed_seeds
    from paripassu.frameworks.registry import FRAMEWORKS

    ablation = load(root / FOLDER)
    seeds = ablation.complete or ablation.seeds
    versions = ", ".join(
        f"{display_name(name)} {FRAMEWORKS[name].version_in(environment.versions)}"
        for name, environment in ablation.environments.items()
    )
    environment = next(iter(ablation.environments.values()))
    epochs = ablation.start["epochs"]
    limits = "".join(f"\n- {note}" for note in ablation.notes)
    return "\n".join(
        [
            "![What each difference does](ablation.svg)",
            "",
            *_levels(ablation),
            "",
            *_effects(ablation),
            "",
            f"Measured: {counted(len(seeds), 'seed')} ({listed_seeds(seeds)}), "
            f"{epochs} epochs, all stops in {display_name(ablation.framework)}. Means "
            "over seeds; in brackets Student's 95% interval of the paired differences, "
            "where there are two seeds or more. An effect "
            "is the mean of two: *forward*, where the differences above it are as in "
            "the TensorFlow notebook already, and *back*, where those below it are. "
            "The effects add up to the total. Every test loss here is the "
            "cross-entropy of the predicted probabilities, whatever the notebook "
            f"trained with. {versions}; {environment.processor}, one thread a run. "
            f"Record: [results/ablation](../results/ablation/ablation.json), made by "
            f"`{ablation.command}`.{limits}",
        ]
    )


def waterfall(root: Path) -> str:
    """The picture, from the record."""
    from paripassu.analysis.ablation.attribution import load
    from paripassu.analysis.report.waterfall import picture

    return picture(load(root / FOLDER))
