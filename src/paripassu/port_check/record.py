"""The verbs that record a model: named by where it is, or here."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from paripassu.core import files
from paripassu.core.errors import UserError
from paripassu.core.version import __version__, from_repository
from paripassu.port_check.arguments import check_inputs, check_target
from paripassu.port_check.requests import RecordRequest
from paripassu.processes.launch import Event, work
from paripassu.sides.recording_place import Level

PATIENCE = 60.0  # seconds for an interpreter to start


@dataclass(frozen=True)
class Recorded:
    """A recording that was made.

    Attributes:
        path: its folder.
        size: in bytes.
        calls: of layers and functions, in one pass.
        notes: what it lacks, and why.
    """

    path: Path
    size: int
    calls: int
    notes: tuple[str, ...]


def describe_size(count: float) -> str:
    """Bytes in a unit that suits them: 1495484928 -> "1.4 GiB"."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def record_source(
    request: RecordRequest,
    on_progress: Callable[[str, float], None] = lambda _text, _share: None,
    *,
    python: Path | None = None,
) -> Recorded:
    """Record a model that is named by where it is, in a process of its own.

    Args:
        request: the model, its inputs, and where to.
        on_progress: called with what is being done and the share that is done.
        python: the interpreter of that process; None: this one.

    Raises:
        UserError: something that was given cannot be used; the message says what.
        WorkerError: the user's code crashed the process.
    """
    elsewhere = python is not None
    check_target(request.model, request.model_args, "model", elsewhere=elsewhere)
    check_inputs(request.shapes, request.inputs)

    def on_event(event: Event) -> None:
        if event["event"] == "progress":
            on_progress(event["text"], event["done"])

    if python:
        check_python(python)
    answer = work(request, on_event, plain=True, python=python)
    return Recorded(
        Path(answer["path"]), answer["size"], answer["calls"], tuple(answer["notes"])
    )


def check_python(python: Path) -> None:
    """Check that an interpreter has this version of Pari passu.

    Raises:
        UserError: it is none, or has none, or another one.
    """
    code = "from paripassu.core.version import __version__ as v; print(v)"
    with files.scratch() as folder:  # where no folder is a package
        try:
            done = subprocess.run(
                [python.absolute(), "-P", "-c", code],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(
                f"{python} cannot be run ({error}). The path of a Python interpreter "
                "is expected, such as old-venv/bin/python."
            ) from error
    install = f"{python} -m pip install '{from_repository()}'"
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        raise UserError(f"{python} has no Pari passu ({last}). Type: {install}")
    if (version := done.stdout.strip()) != __version__:
        raise UserError(
            f"{python} has Pari passu {version}, but {__version__} is expected, as "
            f"here. Type: {install}"
        )


def record(
    model: Any,
    inputs: Any = None,
    *,
    out: str | Path,
    level: Level = "full",
    gradients: bool = True,
) -> Recorded:
    """Record what a model computes, for `check` in another process or on another day.

    Args:
        model: of any framework with a side; or a function of no argument that builds
            one, which lets Keras build it in float64.
        inputs: as of `check`.
        out: the folder to write, such as "left.recording": whole or not at all. A
            recording of that name is replaced.
        level: "full"; "boundaries", without what lies between layers with weights;
            or "outputs", without weights and layers.
        gradients: also one step of training.

    Returns:
        Where it is, and how large.

    Raises:
        UserError: the model or its inputs cannot be used, or the folder not written.
    """
    from paripassu.port_check import session
    from paripassu.port_check.check import take_inputs
    from paripassu.port_check.recorder import Wish

    if level not in get_args(Level):
        raise UserError(
            f"level is {level!r}, but one of {', '.join(get_args(Level))} is expected."
        )
    found = session.take(model, "model", copied=False)
    with session.kept(found.model):
        return session.record(
            found, take_inputs(inputs), Wish(Path(out), level, gradients)
        )
