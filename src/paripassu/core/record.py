"""The records that leave a process: one `run.json` a run, checked when read.

A run folder holds `recipe.toml`, `run.json`, `checkpoint.safetensors` (weights,
optimizer state, position and history, one file so that they always belong together),
and once it is finished `weights.safetensors` (canonical layout), the framework's own
model file and `predictions.safetensors` (`logits` float32 `(N, classes)`, `labels`
uint8 `(N,)` of the test set).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from paripassu.core.errors import UserError
from paripassu.core.files import (
    is_read_only,
    read_json,
    was_left,
    working_in,
    write_text,
)

RUN_FILE = "run.json"
CHECKPOINT_FILE = "checkpoint.safetensors"
WEIGHTS_FILE = "weights.safetensors"
PREDICTIONS_FILE = "predictions.safetensors"
ERRORS_FILE = "stderr.log"
TRAJECTORY_FILE = "trajectory.safetensors"


Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
# In the folder itself.
FileName = Annotated[str, Field(pattern=r"^[^/\\]+$", min_length=1)]


class Model(BaseModel):
    """A frozen record: unknown keys are errors, NaN and infinity too."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Dataset(Model):
    """What was trained on."""

    name: str  # "mnist", or the name of the user's folder
    source: str  # "package" or the path that --data gave
    sha256: dict[str, str]  # of each file as read, uncompressed
    train_size: int
    validation_size: int
    test_size: int
    # What older records do not say: whose files they are and how that is known, and
    # height, width and channels of the images.
    owner: str = ""
    shape: list[int] = []
    classes: int | None = None
    # Subtracted from pixels in 0..1, by the recipe or computed: of all channels, or
    # of each; and what the difference is divided by.
    mean: Share | list[Share]
    std: PositiveShare | list[PositiveShare]
    warnings: list[str] = []

    @property
    def sentence(self) -> str:
        """Whose data they are, how many and of what shape, for people."""
        whose = self.owner or f"{self.name}, whose sums are not known"
        own = (self.train_size, "training"), (self.validation_size, "validation")
        counts = [f"{count:,} {what}" for count, what in own if count]
        text = f"{whose}: {', '.join(counts)} and {self.test_size:,} test images"
        if self.shape:
            h, w, c = self.shape
            text += f" of {h} x {w} x {c}, {self.classes} classes"
        return text


class Environment(Model):
    """Where it ran."""

    python: str
    platform: str
    processor: str
    cores: int
    memory_bytes: int
    threads: int
    device: str  # "cpu", or the accelerator's own name
    versions: dict[str, str]  # of the framework and of what it stands on
    settings: dict[str, str]  # whatever else changes speed or numbers


class Node(Model):
    """The node of a cluster that a session ran on."""

    host: str  # its name
    shared: bool  # whether others may have used the rest of it meanwhile


class Session(Model):
    """One uninterrupted stretch of a run; `seconds` are wall-clock seconds."""

    started: str  # ISO 8601, UTC
    first_epoch: int  # counted from 1
    seconds: dict[str, float]  # start_up, data, build, warm_up, inference, saving
    load_average: float  # of the last minute, when it started
    node: Node | None = None  # None: the machine of whoever typed the command


class Epoch(Model):
    """One epoch; losses are means per image, accuracies are fractions 0..1."""

    epoch: int  # counted from 1
    session: int  # index into the record's sessions
    seconds: float  # training alone
    evaluation_seconds: float
    learning_rate: float  # at the epoch's first step
    training_loss: float  # mean over the epoch, dropout on, weights changing
    training_accuracy: Share
    monitor_loss: float  # on the split that `monitor` names, dropout off
    monitor_accuracy: Share
    other_load: float  # share 0..1 of the machine's cores that other processes used


class Result(Model):
    """The final figures, on the test set."""

    test_loss: float  # as the recipe's loss has it
    test_accuracy: Share
    test_correct: int = Field(ge=0)
    test_count: int = Field(gt=0)
    # Of the predicted probabilities, in nats per image, whatever the recipe's loss is.
    test_cross_entropy: float | None = None


class Inference(Model):
    """Median wall-clock seconds of a forward pass from NumPy in to NumPy out."""

    single_seconds: float  # one image
    batch_seconds: float  # `batch_size` images
    batch_size: int
    repeats: int


class RunRecord(Model):
    """Everything about one run that anybody needs to know later."""

    kind: Literal["run"] = "run"
    version: Literal[1] = 1
    status: Literal["running", "finished"]
    framework: str
    recipe: dict[str, Any]
    recipe_hash: str  # of the recipe and the data: what decides the result
    dataset: Dataset
    environment: Environment
    command: str
    monitor: Literal["test", "validation"]
    sessions: list[Session]
    epochs: list[Epoch]
    result: Result | None = None
    inference: Inference | None = None
    peak_memory_bytes: int | None = None  # of the process, resident
    peak_accelerator_bytes: int | None = None
    weights_sha256: str | None = None  # of the final weights, canonical layout
    files: dict[str, FileName] = Field(default_factory=dict)  # purpose -> name

    @property
    def seed(self) -> int:
        """The seed of the recipe."""
        return int(self.recipe["seed"])


def save_record(folder: Path, record: RunRecord) -> None:
    """Write `run.json`, whole or not at all."""
    write_text(folder / RUN_FILE, record.model_dump_json(indent=1) + "\n")


def load_record(folder: Path) -> RunRecord:
    """Read the `run.json` of a run folder.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / RUN_FILE
    if not path.exists():
        below = (f"{'*/' * depth}{RUN_FILE}" for depth in (1, 2, 3))
        inside = sorted(x.parent for pattern in below for x in folder.glob(pattern))
        advice = f"Make one with 'paripassu train --framework pytorch --out {folder}'."
        if inside:
            advice = f"Name one of the runs in it: {', '.join(map(str, inside[:6]))}"
            advice += f" and {len(inside) - 6} more." if len(inside) > 6 else "."
        raise UserError(f"{folder} is not a run folder: it has no {RUN_FILE}. {advice}")
    return parse_record(read_json(path), path)


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a finished run; `UserError` for a damaged record."""
    there = (folder / RUN_FILE).exists()
    return there and load_record(folder).status == "finished"


def tidy(folder: Path) -> None:
    """Remove what a process leaves that is killed after a run is finished.

    Raises:
        UserError: another process owns the folder.
    """
    if was_left(folder) and not is_read_only(folder):
        with working_in(folder):
            (folder / CHECKPOINT_FILE).unlink(missing_ok=True)


def parse_record(content: Any, path: Path) -> RunRecord:
    """Make a record of JSON text or of parsed JSON that was read from `path`.

    Raises:
        UserError: it is no record of a run.
    """
    try:
        if isinstance(content, str):
            return RunRecord.model_validate_json(content)
        return RunRecord.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path} is not a record of a run: {where}: {first['msg']}."
        ) from error
