"""What the report needs beside `comparison.json`: records, answers, digits, code."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from paripassu.analysis.kinds import kind_of, main_kind
from paripassu.analysis.schema import Comparison
from paripassu.core.errors import UserError
from paripassu.core.files import read_tensors
from paripassu.core.record import PREDICTIONS_FILE, RunRecord, load_record

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """A finished run of the comparison."""

    name: str
    record: RunRecord
    confusion: Counts | None  # (true, answered); None: no readable predictions
    timed: bool = True  # on the kind of machine that figures of time are of

    @property
    def test_accuracy(self) -> float | None:
        """After the last epoch, fraction 0..1."""
        return self.record.result.test_accuracy if self.record.result else None

    @property
    def epoch_seconds(self) -> float | None:
        """The median epoch's training time; None where it cannot be compared."""
        times = [epoch.seconds for epoch in self.record.epochs if self.timed]
        return median(times) if times else None

    @property
    def other_seconds(self) -> float:
        """Everything beside epochs, all sessions together."""
        return sum(sum(session.seconds.values()) for session in self.record.sessions)

    @property
    def training_seconds(self) -> float:
        """All epochs, evaluation apart."""
        return sum(epoch.seconds for epoch in self.record.epochs)

    @property
    def evaluation_seconds(self) -> float:
        """The evaluations after all epochs."""
        return sum(epoch.evaluation_seconds for epoch in self.record.epochs)


@dataclass(frozen=True)
class Runs:
    """The finished runs by framework, and whatever could not be read of them."""

    by_framework: dict[str, list[Run]]
    problems: list[str]

    def of(self, framework: str) -> list[Run]:
        """The readable runs of a framework."""
        return self.by_framework.get(framework, [])

    def confusion(self, framework: str) -> Counts | None:
        """Answers to each digit, summed over runs."""
        known = [r.confusion for r in self.of(framework) if r.confusion is not None]
        same = [counts for counts in known if counts.shape == known[0].shape]
        return np.sum(same, axis=0) if same else None


@dataclass(frozen=True)
class Pictures:
    """PNG data URIs of test images by index; `problem` says why there are none."""

    uris: dict[int, str]
    problem: str | None


def read_runs(folder: Path, comparison: Comparison) -> Runs:
    """Read the records and the predictions of all finished runs."""
    by_framework: dict[str, list[Run]] = {}
    problems = []
    for framework, summary in comparison.frameworks.items():
        by_framework[framework] = []
        for relative in summary.runs:
            path = folder / relative
            try:
                record = load_record(path)
            except UserError as error:
                problems.append(str(error))
                continue
            confusion = None
            try:
                confusion = _confusion(path)
            except UserError as error:
                problems.append(str(error))
            by_framework[framework].append(Run(path.name, record, confusion))
    kind = main_kind(run.record for runs in by_framework.values() for run in runs)
    told = {
        framework: [
            replace(run, timed=kind_of(run.record.environment) == kind) for run in runs
        ]
        for framework, runs in by_framework.items()
    }
    return Runs(told, problems)


def _confusion(run_folder: Path) -> Counts:
    path = run_folder / PREDICTIONS_FILE
    tensors, _ = read_tensors(path)
    logits, labels = tensors.get("logits"), tensors.get("labels")
    if logits is None or labels is None or len(logits) != len(labels):
        raise UserError(f"{path} holds no logits and labels of the same images.")
    classes = max(logits.shape[1], int(labels.max(initial=0)) + 1)
    cells = labels.astype(np.int64) * classes + logits.argmax(axis=1)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def read_pictures(comparison: Comparison) -> Pictures:
    """Pictures of all images in the lists of disagreements."""
    wanted = {item.index for pair in comparison.pairs for item in pair.disagreements}
    if not wanted or comparison.dataset is None:
        return Pictures({}, None)
    from paripassu.core import datasets

    source = comparison.dataset.source
    try:
        data = datasets.load(None if source == "package" else Path(source))
    except (UserError, OSError, ValueError) as error:
        return Pictures({}, f"The test images can no longer be read: {error}")
    if data.sha256 != comparison.dataset.sha256:
        where = "in the package" if source == "package" else f"at {source}"
        return Pictures(
            {},
            f"The data {where} are not those that the runs used: their SHA-256 sums "
            "differ.",
        )
    images = data.test_images
    known = (index for index in wanted if index < len(images))
    return Pictures({index: png_uri(images[index]) for index in known}, None)


def png_uri(image: npt.NDArray[np.uint8]) -> str:
    """An image `(h, w, c)`, 0..255, as a PNG data URI: grey as black ink on nothing."""
    from PIL import Image

    if image.shape[2] == 1:
        ink = Image.new("L", (image.shape[1], image.shape[0]), 0)
        picture = Image.merge("LA", (ink, Image.fromarray(image[..., 0])))
    else:
        picture = Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def mean_curve(
    curves: Sequence[Sequence[tuple[float, float]]],
) -> list[tuple[float, float]]:
    """The mean over runs at every epoch that all of them have."""
    shared = set.intersection(*({x for x, _ in curve} for curve in curves))
    by_epoch = [dict(curve) for curve in curves]
    return [
        (x, float(np.mean([curve[x] for curve in by_epoch]))) for x in sorted(shared)
    ]


def middle(values: Iterable[float | None]) -> float | None:
    """The median of the values that are known."""
    known = [value for value in values if value is not None]
    return median(known) if known else None
