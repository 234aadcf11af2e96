"""Where trainings run: on this machine, or elsewhere; verbs do not know which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from paripassu.core import files, machine, record
from paripassu.processes.launch import Event, work
from paripassu.processes.pool import run_all
from paripassu.processes.requests import TrainRequest

# Takes the name of a run with one of its events; with None when it is done; with the
# exception that ended it, when one did.
Tell = Callable[[str, Event | Exception | None], None]


class Executor(Protocol):
    """Has trainings done, each in its folder, going on with what is there.

    It is entered before anything else is done, so that a place that cannot be reached
    is said at once, and left when nothing runs there any more.
    """

    def __enter__(self) -> object:
        """Make ready; `UserError` if that is impossible."""

    def __exit__(self, *_: object) -> None:
        """End all that still runs, and leave the place as it was."""

    def places(self, threads: int, *, timed: bool) -> int:
        """How many runs of so many threads go on at once, as far as is known now."""

    def run(
        self, requests: Mapping[str, TrainRequest], tell: Tell, *, timed: bool
    ) -> None:
        """Have all requests done; those named first begin first.

        Args:
            requests: by the name of the run.
            tell: called from this thread.
            timed: whether times matter: then no two share a processor.
        """


class Local:
    """On this machine: timed runs one after the other, others one for each core."""

    def __enter__(self) -> Local:
        """Nothing is to be made ready."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left over."""

    def places(self, threads: int, *, timed: bool) -> int:
        """One where times matter, else one for each core."""
        return 1 if timed else max(1, machine.usable_cores() // threads)

    def run(
        self, requests: Mapping[str, TrainRequest], tell: Tell, *, timed: bool
    ) -> None:
        """Have all requests done here."""
        if not timed:
            for name, told in run_all(requests, train_here):
                tell(name, told)
            return
        for name, request in requests.items():

            def on_event(event: Event, name: str = name) -> None:
                tell(name, event)

            try:
                train_here(request, on_event)
            except Exception as failure:  # raised by the one who is told
                tell(name, failure)
            else:
                tell(name, None)


def train_here(
    request: TrainRequest, on_event: Callable[[Event], None] = lambda _event: None
) -> None:
    """Train in a child of this process, whose last words are kept in the run's folder.

    Raises:
        UserError: it cannot be done; the user can put it right.
        WorkerError: the process crashed; everything up to its last epoch is kept.
    """
    files.make_folder(request.folder)
    kept = files.is_read_only(request.folder)
    errors = None if kept else request.folder / record.ERRORS_FILE
    work(request, on_event, errors=errors)
