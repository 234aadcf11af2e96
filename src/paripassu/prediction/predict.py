"""Answer what digit is on each of many pictures, with one or several networks."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from paripassu.conversion.model_source import ModelSource, read_source
from paripassu.core import machine
from paripassu.core.digits import SUFFIXES
from paripassu.core.errors import UserError
from paripassu.core.recipe import Recipe
from paripassu.frameworks import registry
from paripassu.prediction.answering import Answerer, Probabilities
from paripassu.prediction.decoding import CHUNK, Decoders, Reading

BATCH = 250  # images: of 250, 500 and 1,000 the fastest in both frameworks
ENDINGS = ", ".join(sorted(SUFFIXES))
UNLIKELY = 0.5  # an answer less likely than all others together
UNSURE = math.log(2)  # nats: the entropy of two answers of equal probability


@dataclass(frozen=True, slots=True)
class Found:
    """A picture that was named, or why there is none."""

    path: str
    problem: str | None = None


@dataclass(frozen=True)
class Asked:
    """A trained network, and the framework that it answers in."""

    source: ModelSource
    framework: str
    label: str  # for tables, different for each


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What was found out about one picture.

    Attributes:
        path: as it was named or found.
        problem: why it could not be read; None if it could.
        warnings: measure -> what it says; empty for a digit like MNIST's.
        probabilities: float32 `(models, classes)`; None if unread or without ink.
        image: uint8 `(h, w, c)`, what the networks saw; None as `probabilities`.
    """

    path: str
    problem: str | None
    warnings: dict[str, str]
    probabilities: Probabilities | None = None
    image: npt.NDArray[np.uint8] | None = None

    @property
    def answers(self) -> list[int]:
        """The most likely class, model by model; empty if there is no answer."""
        found = self.probabilities
        return [] if found is None else [int(x) for x in found.argmax(axis=1)]

    @property
    def runners_up(self) -> list[int]:
        """The second most likely class, model by model."""
        found = self.probabilities
        if found is None:
            return []
        return [int((-row).argsort(kind="stable")[1]) for row in found]

    @property
    def differ(self) -> bool:
        """Whether two models answer differently."""
        return len(set(self.answers)) > 1

    @property
    def largest_difference(self) -> float | None:
        """Between any two models in any probability; None if there are no two."""
        found = self.probabilities
        if found is None or len(found) < 2:
            return None
        return float((found.max(axis=0) - found.min(axis=0)).max())


def gather(names: Sequence[str]) -> tuple[list[Found], int]:
    """Find the pictures that arguments name, in their order.

    A folder stands for the files in it and below it, sorted by their path, that end as
    pictures do; hidden files and folders are left out. Each folder is read once,
    however many links lead to it, so that links in a circle end. A pattern with `*`,
    `?` or `[...]`, also `**`, stands for the files that match, sorted; where only
    folders match, for what is in them.

    Returns:
        The pictures, and how many files of other endings were left out.

    Raises:
        UserError: there is no picture at all.
    """
    found: list[Found] = []
    skipped = 0
    for name in names:
        if os.path.isdir(name):
            pictures, others = _in_folder(name)
            skipped += others
        elif os.path.lexists(name):
            pictures = [Found(name)]
        elif set(name) & set("*?["):
            pictures, others = _matching(name)
            skipped += others
        else:
            pictures = [Found(name, "it does not exist")]
        found += pictures
    if all(x.problem for x in found):
        reasons = "; ".join(f"{x.path}: {x.problem}" for x in found[:5])
        raise UserError(
            f"no picture to answer: {reasons}. Name files, folders or patterns such as "
            "'digits/*.png'."
        )
    return found, skipped


def _in_folder(folder: str) -> tuple[list[Found], int]:
    found: list[Found] = []
    skipped = 0
    seen: set[tuple[int, int]] = set()
    stack = [folder]
    while stack:
        path = stack.pop()
        try:
            if os.path.isdir(path):
                status = os.stat(path)
                mark = status.st_dev, status.st_ino
                if mark not in seen:
                    seen.add(mark)
                    names = sorted(os.listdir(path), reverse=True)
                    stack += [
                        os.path.join(path, x) for x in names if not x.startswith(".")
                    ]
            elif _ends_as_picture(path):
                found.append(Found(path))
            else:
                skipped += 1
        except OSError as error:
            reason = error.strerror or str(error)
            found.append(Found(path, f"cannot be read: {reason.lower()}"))
    if not found:
        count = f"{skipped} other files" if skipped else "no file at all"
        problem = f"no picture in this folder: expected files that end in {ENDINGS}, "
        found = [Found(folder, f"{problem}got {count}")]
    return found, skipped


def _ends_as_picture(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in SUFFIXES


def _matching(pattern: str) -> tuple[list[Found], int]:
    whole = Path(pattern)
    # pathlib's `**` does not follow links, so that it ends where they go in a circle.
    try:
        matched = Path(whole.anchor).glob(str(whole.relative_to(whole.anchor)))
        paths = sorted(path for path in set(matched) if not _hidden(path, whole))
    except (ValueError, OSError) as error:
        return [Found(pattern, f"not a pattern that can be used: {error}")], 0
    files = [Found(str(path)) for path in paths if not path.is_dir()]
    if files or not paths:
        return files or [Found(pattern, "nothing matches this pattern")], 0
    found: dict[str, Found] = {}
    skipped = 0
    for path in paths:
        pictures, others = _in_folder(str(path))
        found |= {x.path: x for x in pictures}
        skipped += others
    return list(found.values()), skipped


def _hidden(path: Path, pattern: Path) -> bool:
    """Whether it has a hidden part that the pattern does not name."""
    return any(x.startswith(".") for x in path.parts if x not in pattern.parts)


def ask_which(sources: Sequence[ModelSource], names: Sequence[str]) -> list[Asked]:
    """Which networks answer in which frameworks.

    Args:
        sources: the trained networks.
        names: of frameworks, each for every network; empty for the one that trained
            it or whose file it is, and for the first installed where none did.

    Raises:
        UserError: a framework is missing or cannot run a network, or the networks
            have different numbers of classes.
    """
    pairs: list[tuple[ModelSource, str]] = []
    for source in sources:
        for name in names or [source.framework or registry.first_installed()]:
            pairs.append((source, _checked(source, name, chosen=bool(names))))
    shapes = {source.recipe.architecture.input_shape for source in sources}
    if len(shapes) > 1:
        raise UserError(
            "expected networks that take images of one shape, got "
            f"{' and '.join(map(str, sorted(shapes)))}: ask them one by one."
        )
    counts = {source.recipe.architecture.num_classes for source in sources}
    if len(counts) > 1:
        raise UserError(
            "expected networks with the same number of classes, got networks with "
            f"{' and '.join(map(str, sorted(counts)))}: ask them one by one."
        )
    labels = [f"{name}: {source.path.name}" for source, name in pairs]
    if len(set(labels)) < len(labels):
        labels = [f"{name}: {source.path}" for source, name in pairs]
    if len(set(labels)) < len(labels):
        labels = [f"{number} {label}" for number, label in enumerate(labels, start=1)]
    return [
        Asked(*pair, label=label) for pair, label in zip(pairs, labels, strict=True)
    ]


def _checked(source: ModelSource, name: str, *, chosen: bool) -> str:
    """The framework's own name, if it can answer for the source."""
    try:
        framework = registry.find(name)
        framework.check(source.recipe)
        return framework.name
    except UserError as error:
        other = registry.first_installed()
        if chosen or name == other:
            raise
        raise UserError(
            f"{source.path}: {error} Or answer with another: --framework {other}"
        ) from None


def predict(
    models: Sequence[str | Path],
    images: Sequence[str],
    *,
    frameworks: Sequence[str] = (),
    recipe: Recipe | None = None,
    threads: int = 0,
    keep_images: int = 0,
    on_progress: Callable[[str, int], None] = lambda _what, _done: None,
) -> list[Prediction]:
    """Say what digit is on each picture.

    Args:
        models: trained networks: folders of runs, or files; see `read_source`.
        images: files, folders and patterns; see `gather`.
        frameworks: each answers for every model; empty for the model's own.
        recipe: whose network a file holds, where it does not say so itself.
        threads: cores to use; 0 for all usable ones.
        keep_images: how many predictions, from the first on, keep their `image`.
        on_progress: called with what is being done, and how many are answered.

    Raises:
        UserError: there is no picture, or a model or framework is not usable.
        WorkerError: a framework crashed.
    """
    pictures, _skipped = gather(images)
    asked = ask_which([read_source(Path(x), recipe) for x in models], frameworks)
    options = {"threads": threads, "keep_images": keep_images}
    return list(answer(asked, pictures, **options, on_progress=on_progress))


def answer(
    asked: Sequence[Asked],
    pictures: Sequence[Found],
    *,
    threads: int = 0,
    keep_images: int = 0,
    on_progress: Callable[[str, int], None] = lambda _what, _done: None,
) -> Iterator[Prediction]:
    """Answer pictures in their order; each network in a process of its own.

    Pictures are read ahead of the networks, and at most some 1,000 are in memory,
    whatever their number.

    Args:
        asked: networks and frameworks.
        pictures: of `gather`.
        threads: cores to use, half of them shared among the networks, while all read
            pictures; 0 for all usable ones.
        keep_images: how many predictions, from the first on, keep their `image`.
        on_progress: called with what is being done, and how many are answered.

    Raises:
        UserError: a framework is missing or cannot run its network.
        WorkerError: a framework crashed.
    """
    cores = threads or machine.usable_cores()
    # Half of them: pictures are read meanwhile, and a framework whose threads wait for
    # each other is slowed down most when there are fewer cores than threads.
    share = max(1, cores // 2 // len(asked))
    readable = [x.path for x in pictures if not x.problem]
    names = " and ".join(dict.fromkeys(x.framework for x in asked))
    on_progress(f"starting {names}", 0)
    with contextlib.ExitStack() as stack:
        answerers = [
            stack.enter_context(Answerer(x.source, x.framework, threads=share))
            for x in asked
        ]
        count = min(cores, max(1, -(-len(readable) // CHUNK)))
        shape = asked[0].source.recipe.architecture.input_shape
        decoders = stack.enter_context(Decoders(count, shape))
        pool = stack.enter_context(ThreadPoolExecutor(len(answerers)))
        readings = decoders.read(readable)
        for answerer in answerers:
            answerer.wait()
        labels = [x.label for x in asked]
        done = 0
        before: _Batch | None = None
        for start in range(0, len(pictures), BATCH):
            on_progress("answering", done)
            some = pictures[start : start + BATCH]
            read = [Reading(x.problem) if x.problem else next(readings) for x in some]
            # The networks have the next batch before this one is worked up.
            batch = _Batch(some, read, pool, answerers)
            if before:
                yield from before.predictions(labels, keep_images - done)
                done += len(before.pictures)
            before = batch
        if before:
            yield from before.predictions(labels, keep_images - done)
        on_progress("answering", len(pictures))


class _Batch:
    """Some pictures that the networks have been asked."""

    def __init__(
        self,
        pictures: Sequence[Found],
        readings: Sequence[Reading],
        pool: ThreadPoolExecutor,
        answerers: Sequence[Answerer],
    ) -> None:
        self.pictures, self._readings = pictures, readings
        inked = [x.image for x in readings if x.image is not None]
        images = np.stack(inked) if inked else None
        self._replies = [
            pool.submit(x.ask, images) for x in answerers if images is not None
        ]

    def predictions(self, labels: Sequence[str], keep: int) -> Iterator[Prediction]:
        """Wait for the answers; the first `keep` predictions keep their image."""
        replies = [reply.result()[0] for reply in self._replies]
        found = iter(np.stack(replies, axis=1) if replies else ())
        pairs = zip(self.pictures, self._readings, strict=True)
        for number, (picture, reading) in enumerate(pairs):
            shares = None if reading.image is None else next(found)
            yield _prediction(picture.path, reading, shares, labels, number < keep)


def _prediction(
    path: str,
    reading: Reading,
    shares: Probabilities | None,
    labels: Sequence[str],
    keep: bool,
) -> Prediction:
    if reading.problem:
        return Prediction(path, reading.problem, {})
    if shares is None:
        return Prediction(path, None, {"no ink": "no ink, no answer"})
    warnings = {**reading.doubts, **_unsure(shares, labels)}
    # A copy: a view would keep the whole batch in memory.
    image = reading.image if keep else None
    return Prediction(path, None, warnings, shares.copy(), image)


def _unsure(shares: Probabilities, labels: Sequence[str]) -> dict[str, str]:
    """What the probabilities themselves say against an answer, and of which models."""
    tops = shares.max(axis=1)
    if (tops > 0.9).all():  # at most 0.55 nats, of ten classes
        return {}
    safe = np.maximum(shares.astype(np.float64), 1e-30)
    entropies = -(safe * np.log(safe)).sum(axis=1)
    unlikely = tops < UNLIKELY
    unsure = (entropies > UNSURE) & ~unlikely

    def of(which: npt.NDArray[np.bool_]) -> str:
        names = [label for label, one in zip(labels, which, strict=True) if one]
        return "" if len(names) == len(labels) else f" ({', '.join(names)})"

    found: dict[str, str] = {}
    if unlikely.any():
        found["probability"] = f"no answer has {UNLIKELY:.0%}{of(unlikely)}"
    if unsure.any():
        count = math.exp(entropies[unsure].max())
        found["entropy"] = f"as unsure as between {count:.1f} equal answers{of(unsure)}"
    return found
