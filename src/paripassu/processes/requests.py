"""What child processes are asked to do: a type for each task, one line of JSON each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from paripassu.core.recipe import Recipe
from paripassu.processes.conditions import SINGLE, Conditions
from paripassu.processes.request import Request

TRACED = 3  # steps of a trajectory that are kept array by array

# Of the user's files: a child may have another working folder.
AbsolutePath = Annotated[Path, AfterValidator(Path.resolve)]


class FrameworkRequest(Request):
    """A task for one framework, under given conditions."""

    framework: str
    conditions: Annotated[Conditions, AfterValidator(Conditions.resolved)] = SINGLE

    @property
    def title(self) -> str:
        """The framework."""
        return self.framework

    @property
    def threads(self) -> int:
        """Those of the conditions."""
        return self.conditions.threads


class TrainRequest(FrameworkRequest):
    """Train in a folder, going on with what is there.

    Events: `reused`, or `phase`, `training`, `step`, `epoch` and at last `finished`.
    """

    task: Literal["train"] = "train"
    folder: AbsolutePath
    recipe: Recipe


class EvaluateRequest(FrameworkRequest):
    """Evaluate a finished run on the test set; the answer is `evaluated`."""

    task: Literal["evaluate"] = "evaluate"
    folder: AbsolutePath


class DescribeRequest(FrameworkRequest):
    """Say what the framework is and where it computes; the answer is `described`."""

    task: Literal["describe"] = "describe"


class ProveRequest(FrameworkRequest):
    """Write what one framework computes, as traces: files of named arrays.

    Events: `step`, and `traced` with the `file`, its `precision` and its `fault`.

    Attributes:
        recipe: in float64.
        steps: of the trajectory.
        traced: how many of them are kept array by array.
        folder: where the files go.
        faults: seeded one after the other; empty for none.
        starts: take steps from the reference's moved and amplified starts too, which
            it leaves in `folder`.
        rehearsal: train a little by the trainer's own loop.
        single: take steps in float32 too, from two of those starts.
        only_single: nothing but those steps.
        curves: how many steps to train in float32 too, plainly and perturbed.
        control: nothing but the trajectory again, with one kernel perturbed.
    """

    task: Literal["prove"] = "prove"
    recipe: Recipe
    steps: int
    traced: int = TRACED
    folder: Path
    faults: tuple[str, ...] = ()
    starts: bool = False
    rehearsal: bool = False
    single: bool = False
    only_single: bool = False
    curves: int = 0
    control: bool = False


class FollowRequest(FrameworkRequest):
    """Train in lockstep with others, on shared draws.

    Events: `step` with the number of steps done; the answer is `followed`.

    Attributes:
        perturbed: the weights to move by an ulp before the first step.
        predict: whether to answer the test set at the end.
    """

    task: Literal["follow"] = "follow"
    folder: AbsolutePath
    recipe: Recipe
    steps: int
    perturbed: str | None = None
    predict: bool = False


class ReadRequest(FrameworkRequest):
    """Write the canonical weights of a native file or of a run's checkpoint to `out`.

    The answer, `read`, has the `recipe` and the file's `notes`.

    Attributes:
        path: a file, or the folder of an unfinished run.
        recipe: None for the one in the file.
    """

    task: Literal["read"] = "read"
    path: AbsolutePath
    recipe: Recipe | None
    out: Path


class WriteRequest(FrameworkRequest):
    """Write a native file of canonical weights; the answer is `written`."""

    task: Literal["write"] = "write"
    recipe: Recipe
    weights: Path  # a safetensors file
    path: AbsolutePath
    notes: dict[str, str]


class LogitsRequest(FrameworkRequest):
    """Answer images with canonical weights; the answer is `answered`.

    Attributes:
        weights: a safetensors file.
        images: a safetensors file with `images`, float32 `(N, h, w, c)`, normalised.
        out: gets `logits`, `(N, classes)`.
    """

    task: Literal["logits"] = "logits"
    recipe: Recipe
    weights: Path
    images: Path
    out: Path


class BenchRequest(FrameworkRequest):
    """Time one style once.

    The answer, `benched`, has the seconds for all images (of the ceiling: for one
    product), the most memory in bytes, and the share of the machine that others used;
    for the lesson also `harness_seconds`, and the seconds from the start of the process
    to the first step.

    Attributes:
        style: one of `paripassu.analysis.benchmark.STYLES`.
        images: how many of the training set.
        matrix: rows and columns of the product that is the ceiling.
    """

    task: Literal["bench"] = "bench"
    style: str
    recipe: Recipe
    images: int
    matrix: int


class ReachRequest(FrameworkRequest):
    """Train to an accuracy on the test images, and count the seconds of training.

    Events: `epoch`; the answer, `reached`, has the seconds, the accuracy after each
    epoch, and the share of the machine that others used.

    Attributes:
        style: "recipe", which is trained to its end, or "notebook", which stops after
            the epoch that has reached the accuracy.
        epochs: the most of the notebook's.
    """

    task: Literal["reach"] = "reach"
    style: str
    recipe: Recipe
    accuracy: float
    epochs: int
