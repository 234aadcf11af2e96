"""The far end of a run on a cluster: has one done at a time, and tells when asked.

A lane lives in a process on a node. It is asked for what is new since the last time,
and answers with events and with the files of the run's folder as bytes, so that whoever
asks has after every epoch all that is needed to go on elsewhere.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from paripassu.core import files, machine, record
from paripassu.core.errors import PariPassuError, UserError, WorkerError
from paripassu.core.version import __version__
from paripassu.frameworks.registry import FRAMEWORKS
from paripassu.processes.executors import train_here
from paripassu.processes.launch import Event
from paripassu.processes.requests import TrainRequest

Bytes = dict[str, bytes]  # the contents of files by their path inside a folder
# Of a run that is not over: enough to go on with.
TRAVELS = ("recipe.toml", record.CHECKPOINT_FILE, record.ERRORS_FILE, record.RUN_FILE)


class Place(record.Model):
    """What a lane says of the node that it is on."""

    node: str = ""  # as the cluster calls it
    host: str
    processor: str
    cores: int
    version: str  # of this package
    # Those installed here: why each cannot be used, None if it can.
    frameworks: dict[str, str | None]


class End(record.Model):
    """How a run has ended: well, or by an error of ours of that kind."""

    kind: str  # "done", "user", "worker", or "fault"
    message: str = ""
    signal: int = 0


class News(record.Model):
    """What is new of a run since the last time.

    Attributes:
        events: of its process; of consecutive steps only the last.
        end: None while it goes on.
    """

    events: list[Event] = Field(default_factory=list)
    end: End | None = None


class Stopped(PariPassuError):
    """Nobody wants the run any more."""


class Lane:
    """Has one run at a time done on the machine where it lives."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._scratch = self._stack.enter_context(files.scratch())
        self._data: dict[str, Path] = {}  # that came along, by what they are called
        self._changed = threading.Condition()
        self._events: list[Event] = []
        self._files: Bytes = {}
        self._end: End | None = None
        self._urgent = self._stopping = False
        self._thread: threading.Thread | None = None

    def describe(self) -> str:
        """The node, as the JSON of a `Place`."""
        return Place(
            host=socket.gethostname(),
            processor=machine.processor(),
            cores=machine.usable_cores(),
            version=__version__,
            frameworks={name: x.problem for name, x in FRAMEWORKS.items()},
        ).model_dump_json()

    def begin(
        self, request: str, there: Bytes, data: Bytes, shared: bool, here: bool
    ) -> None:
        """Go on with a run in the background.

        Args:
            request: the JSON of a `TrainRequest`.
            there: the files of its folder.
            data: those of its data, unless they are in the package or `here`.
            shared: whether others may use the rest of the node meanwhile.
            here: its folder and data have the same paths here, on a shared disk.
        """
        wanted = TrainRequest.model_validate_json(request)
        node = record.Node(host=socket.gethostname(), shared=shared)
        conditions = replace(wanted.conditions, node=node)
        folder = wanted.folder
        if not here:
            folder = self._scratch / "runs" / folder.name
            write_all(folder, there)
            if data:
                source = str(conditions.data)
                place = self._unpacked(source, data)
                conditions = replace(conditions, data=place, source=source)
        update = {"folder": folder, "conditions": conditions}
        self._events, self._files, self._end = [], {}, None
        self._urgent = False
        self._thread = threading.Thread(
            target=self._run,
            args=(wanted.model_copy(update=update), wanted.folder, not here),
            daemon=True,
        )
        self._thread.start()

    def more(self, seconds: float) -> tuple[str, Bytes]:
        """What is new: the JSON of `News`, and the files that have changed.

        Args:
            seconds: how long to wait for something that cannot wait: the end of an
                epoch, or of the run.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._urgent, seconds)
            news = News(events=self._events, end=self._end)
            changed, self._files = self._files, {}
            self._events, self._urgent = [], False
        return news.model_dump_json(), changed

    def close(self) -> None:
        """End what runs, and leave nothing on the node."""
        self._stopping = True
        if self._thread:
            self._thread.join(3)
        self._stack.close()

    def train(self, request: TrainRequest, tell: Any) -> None:
        """Have the run done; `tell` takes its events."""
        train_here(request, tell)

    def _run(self, request: TrainRequest, home: Path, travels: bool) -> None:
        def on_event(event: Event) -> None:
            if self._stopping:
                raise Stopped
            epoch = event["event"] == "epoch"
            changed = read_all(request.folder, TRAVELS) if epoch and travels else {}
            with self._changed:
                steps = self._events and self._events[-1]["event"] == "step"
                if steps and event["event"] == "step":
                    self._events.pop()
                self._events.append(event)
                self._files |= changed
                self._urgent |= epoch
                self._changed.notify_all()

        try:
            self.train(request, on_event)
            end = End(kind="done")
        except UserError as error:
            end = End(kind="user", message=str(error))
        except WorkerError as error:
            end = End(kind="worker", message=str(error), signal=error.signal)
        except Exception as error:  # told to whoever waits
            end = End(kind="fault", message=f"{type(error).__name__}: {error}")
        message = end.message.replace(str(request.folder), str(home))
        end = end.model_copy(update={"message": message})
        left: Bytes = {}
        with contextlib.suppress(OSError):
            left = read_all(request.folder) if travels else {}
        with self._changed:
            self._files |= left
            self._end, self._urgent = end, True
            self._changed.notify_all()

    def _unpacked(self, source: str, data: Bytes) -> Path:
        """Where data that came along are now: a folder or file of the same name."""
        if source not in self._data:
            root = self._scratch / "data" / str(len(self._data))
            place = root / (PurePosixPath(source).name or "data")
            if list(data) == [""]:  # one file
                files.make_folder(root)
                place.write_bytes(data[""])
            else:
                write_all(place, data)
            self._data[source] = place
        return self._data[source]


def read_all(folder: Path, names: tuple[str, ...] | None = None) -> Bytes:
    """The files of a folder that are there, and are no one's notes to himself.

    Args:
        folder: any.
        names: which; None: all.
    """
    found = {}
    for name in names or sorted(x.name for x in folder.glob("[!.]*")):
        path = folder / name
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                found[name] = path.read_bytes()
    return found


def write_all(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files whole, the record of a run last: it says what the others are.

    Raises:
        UserError: a name leads out of the folder, or the disk takes nothing.
    """
    for name in sorted(contents, key=lambda x: (x == record.RUN_FILE, x)):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise UserError(f"{name!r} is no file of a folder.")
        files.make_folder((folder / path).parent)
        files.write_bytes(folder / path, contents[name])
