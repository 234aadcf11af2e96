"""What a benchmark says: `bench.json`, computed from its rounds only."""

from __future__ import annotations

import statistics
from typing import Generic, Literal, TypeVar

from paripassu.analysis.schema import Spread
from paripassu.analysis.statistics import spread
from paripassu.analysis.warnings import is_busy
from paripassu.core.record import Model

BENCH_FILE = "bench.json"
RACE_FILE = "race.json"
OUTLIER = 1.5  # times the median
EPOCH = 60_000  # images

# A large matrix product; the network's convolutions and matrix products alone; training
# in the style of the article's notebook; and as the lesson does.
Style = Literal["ceiling", "kernels", "notebook", "lesson"]
STYLES: tuple[Style, ...] = ("ceiling", "kernels", "notebook", "lesson")


class Measured(Model):
    """One style of one framework in one round, in a fresh process."""

    framework: str
    style: str
    seconds: float
    other_load: float  # of all cores, 0..1, while it ran
    device: str = "cpu"  # or the name of an accelerator


class Timed(Measured):
    """Of a benchmark: seconds for all images; of the ceiling, for one product.

    Of the kernels, the seconds of one batch, times how many batches the images make.
    """

    style: Style
    harness_seconds: float | None = None  # the same as the lesson's, in a recorded run
    first_step_seconds: float | None = None  # from the start of the process
    peak_memory_bytes: int


One = TypeVar("One", bound=Measured)


class Conditions(Model):
    """Of what, with what and on what machine something was timed."""

    command: str
    created: str  # UTC
    processor: str
    cores: int
    platform: str
    python: str
    threads: int
    recipe: str
    recipe_hash: str
    versions: dict[str, str]  # framework -> its version
    whose_data: str = ""  # and how many; older records do not say it

    @property
    def frameworks(self) -> list[str]:
        """Those that were timed."""
        return list(self.versions)


class Rounds(Conditions, Generic[One]):
    """What was measured, round by round; all else that is said follows from it."""

    rounds: list[list[One]]

    @property
    def turns(self) -> list[One]:
        """All that was measured, in its order."""
        return [x for each in self.rounds for x in each]

    @property
    def busy(self) -> bool:
        """Whether other programs used so much that nothing can be concluded."""
        return any(is_busy(x.other_load) for x in self.turns)

    def device(self, framework: str) -> str:
        """What it ran on."""
        devices = (x.device for x in self.turns if x.framework == framework)
        return next(devices, "none")

    def of(self, framework: str, style: str) -> list[One]:
        """One style, round by round."""
        asked = (framework, style)
        return [x for x in self.turns if (x.framework, x.style) == asked]

    def seconds(self, framework: str, style: str) -> Spread:
        """Of all rounds."""
        return spread([x.seconds for x in self.of(framework, style)])

    def ratio(self, framework: str, style: str, other: str) -> Spread:
        """The seconds of a style by those of another, within each round."""
        pairs = zip(self.of(framework, style), self.of(framework, other), strict=True)
        return spread([x.seconds / y.seconds for x, y in pairs])


class Bench(Rounds[Timed]):
    """A benchmark, for programs."""

    kind: Literal["bench"] = "bench"
    version: Literal[1] = 1
    network: str
    precision: str
    training_flops: int  # for one image, forward and backward
    images: int  # of the training set, each used once by every style
    matrix: int  # rows and columns of the product that is the ceiling

    def ceilings(self) -> list[float]:
        """Floating-point operations per second of the fastest product of each round."""
        work = 2 * self.matrix**3
        return [
            max(work / x.seconds for x in each if x.style == "ceiling")
            for each in self.rounds
        ]

    @property
    def ceiling(self) -> float:
        """The median of the ceilings, operations per second."""
        return spread(self.ceilings()).median

    def outliers(self) -> list[tuple[Timed, int, float]]:
        """Turns far slower than their style's others.

        With the round, counted from 1, and how many times the median it took. A process
        of two threads that the system keeps on one core looks so.
        """
        found = []
        for number, each in enumerate(self.rounds, start=1):
            for turn in each:
                usual = self.seconds(turn.framework, turn.style).median
                if turn.seconds > OUTLIER * usual:
                    found.append((turn, number, turn.seconds / usual))
        return found

    def images_per_second(self, framework: str, style: Style) -> Spread:
        """Of training."""
        return spread([self.images / x.seconds for x in self.of(framework, style)])

    def epoch_seconds(self, framework: str, style: Style) -> Spread:
        """For an epoch of 60,000 images, however many were trained on."""
        epoch = EPOCH / self.images
        return spread([x.seconds * epoch for x in self.of(framework, style)])

    def of_ceiling(self, framework: str, style: Style) -> Spread:
        """The share, 0..1, of what a matrix product reaches in the same round."""
        pairs = zip(self.of(framework, style), self.ceilings(), strict=True)
        work = self.images * self.training_flops
        return spread([work / x.seconds / ceiling for x, ceiling in pairs])

    def own_product(self, framework: str) -> Spread:
        """The share of the ceiling that the framework's own matrix product reaches."""
        pairs = zip(self.of(framework, "ceiling"), self.ceilings(), strict=True)
        return spread([2 * self.matrix**3 / x.seconds / top for x, top in pairs])

    def of_kernels(self, framework: str) -> Spread:
        """The share of the lesson's time that its kernels take when they run alone."""
        return self.ratio(framework, "kernels", "lesson")

    def beside_notebook(self, framework: str) -> Spread:
        """The lesson's seconds by those of the notebook's style, round by round."""
        return self.ratio(framework, "lesson", "notebook")

    def harness(self, framework: str) -> Spread:
        """What a recorded run takes more than the lesson alone, as a share of it."""
        pairs = ((x.harness_seconds, x.seconds) for x in self.of(framework, "lesson"))
        return spread([both / alone - 1 for both, alone in pairs if both is not None])

    def first_step(self, framework: str) -> Spread:
        """Seconds from the start of the process to the first training step."""
        known = (x.first_step_seconds for x in self.of(framework, "lesson"))
        return spread([seconds for seconds in known if seconds is not None])

    def memory(self, framework: str, style: Style) -> Spread:
        """The most resident memory of the process, in bytes."""
        return spread([float(x.peak_memory_bytes) for x in self.of(framework, style)])


class Reached(Measured):
    """Of a race: seconds of training, to the end of the last epoch."""

    style: Literal["recipe", "notebook"]
    seed: int
    accuracies: list[float]  # on the test images, 0..1, after each epoch

    @property
    def accuracy(self) -> float:
        """After the last epoch."""
        return self.accuracies[-1]


class Race(Rounds[Reached]):
    """How long a recipe and the notebooks' style take to an accuracy, for programs."""

    kind: Literal["race"] = "race"
    version: Literal[1] = 1
    target: float  # accuracy, 0..1
    most_epochs: int  # of the notebooks' style

    def mean_accuracy(self, framework: str, style: str) -> float:
        """After the last epoch, mean of the rounds."""
        return statistics.mean(x.accuracy for x in self.of(framework, style))

    def reached(self, framework: str, style: str) -> int:
        """In how many rounds the accuracy was reached."""
        return sum(x.accuracy >= self.target for x in self.of(framework, style))

    def times_faster(self, framework: str) -> Spread:
        """The notebook's seconds by the recipe's, round by round.

        Where the notebook's style has not reached the accuracy, it is at least this.
        """
        return self.ratio(framework, "notebook", "recipe")
