"""What the examiner is asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from paripassu.processes.request import Request
from paripassu.sides.recording_place import Level


class ExaminerRequest(Request):
    """Two targets of the user's.

    Attributes:
        left, right: `package.module:attribute` or `file.py:attribute`.
        left_args, right_args: JSON, where the attribute can be called.
        usable_threads: that the frameworks may use.
    """

    module: ClassVar[str] = "paripassu.port_check.examiner"
    left: str
    right: str
    left_args: str | None = None
    right_args: str | None = None
    usable_threads: int = Field(default=1, ge=1)

    @property
    def title(self) -> str:
        """Whose process it is, for messages."""
        return "check"

    @property
    def threads(self) -> int:
        """How many the frameworks may use."""
        return self.usable_threads


class CheckRequest(ExaminerRequest):
    """Compare two models; events: `progress`; the answer, `checked`, has the `result`.

    Attributes:
        shapes: of the left model's inputs, see `targets.parse_input`.
        inputs: an .npz file with them, instead.
        copy_weights: "left-to-right", "right-to-left" or None: before comparing.
        blocks: pairs of blocks, left name to right name or names; see `check.read_map`.
        gradients: also compare training mode, gradients and BatchNorm's statistics.
        pairs: of inputs, `left=right`.
        outputs: that are to be compared, `name` or `left=right`.
        accept: differences that are no faults; see `accepting`.
        save: where to write the model that was given weights.
    """

    task: Literal["check"] = "check"
    shapes: tuple[str, ...] = ()
    inputs: Path | None = None
    copy_weights: str | None = None
    blocks: dict[str, str | list[str]] = Field(default_factory=dict)
    gradients: bool = True
    pairs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()
    save: Path | None = None


class RecordRequest(Request):
    """Record a model; events: `progress`; the answer, `recorded`.

    The answer has the `path`, the `size` in bytes, how many `calls` a pass has, and
    `notes` of what is lacking.

    Attributes:
        model: `package.module:attribute` or `file.py:attribute`.
        model_args: JSON, where the attribute can be called.
        shapes, inputs: see `CheckRequest`.
        out: the folder.
        level: "full", "boundaries" or "outputs".
        gradients: also a step of training.
        usable_threads: that the framework may use.
    """

    module: ClassVar[str] = "paripassu.port_check.examiner"
    task: Literal["record"] = "record"
    model: str
    model_args: str | None = None
    shapes: tuple[str, ...] = ()
    inputs: Path | None = None
    out: Path
    level: Level = "full"
    gradients: bool = True
    usable_threads: int = Field(default=1, ge=1)

    @property
    def threads(self) -> int:
        """How many the frameworks may use."""
        return self.usable_threads


class CheckOptimizerRequest(ExaminerRequest):
    """Step two optimizers; the answer, `checked`, has the `result`."""

    task: Literal["check-optimizer"] = "check-optimizer"
    steps: int
