"""Live progress of training runs: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from paripassu.analysis.warnings import busy_warning
from paripassu.processes.launch import Event
from paripassu.terminal.proof import watching_short_proofs
from paripassu.training.events import (
    ComparisonEvent,
    RunEnded,
    RunStarted,
    RunTold,
    Warned,
)

MOST_BARS = 16  # of runs that go on at once; more would not fit


def duration(seconds: float) -> str:
    """Seconds as a person says them: `48s`, `3m 05s`, `1h 02m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def warn(console: Console, text: str) -> None:
    """Say what the user should know, whatever characters are in it."""
    console.print(text, style="yellow", markup=False, highlight=False)


def fail(console: Console, text: str) -> None:
    """Say what went wrong."""
    console.print(text, style="red", markup=False, highlight=False)


class Display:
    """Shows the runs of one command, one after the other or several at once."""

    def __init__(self, console: Console, *, runs: int, epochs: int) -> None:
        self._console = console
        self._epochs = epochs
        self._left = runs * epochs  # epochs not yet begun or finished
        self._running = 0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", style="dim"),
            console=console,
            transient=True,
        )

    @contextlib.contextmanager
    def run(self, name: str) -> Iterator[Callable[[Event], None]]:
        """Show one run while the block lasts; yields the function that takes events."""
        task = self._progress.add_task(
            name,
            total=self._epochs,
            status="",
            left="",
            visible=self._running < MOST_BARS,
        )
        began = time.monotonic()

        def left(done: float) -> str:
            """A guess of the seconds left, from this run's own pace."""
            if done <= 0:
                return ""
            pace = (time.monotonic() - began) / done
            seconds = pace * (self._left - done) / max(1, self._running)
            return f"about {duration(seconds)} left"

        first = 1

        def on_event(event: Event) -> None:
            nonlocal began, first
            update: dict[str, Any] = {}
            match event["event"]:
                case "phase":
                    update = {"status": f"{event['name']} …"}
                case "training":
                    began, first = time.monotonic(), event["first_epoch"]
                    load, threads = event["other_load"], event["threads"]
                    if warning := busy_warning(load, threads):
                        warn(self._console, f"{name}: {warning}")
                    self._left -= first - 1
                    if first > 1:
                        self._console.print(
                            f"{name}: continues with epoch {first} of "
                            f"{event['epochs']}",
                            highlight=False,
                        )
                case "step":
                    done = event["epoch"] - 1 + event["step"] / event["steps"]
                    update = {
                        "completed": done,
                        "status": f"epoch {event['epoch']}/{self._epochs}  "
                        f"loss {event['loss']:.4f}  "
                        f"accuracy {event['accuracy']:.2%}",
                        "left": left(done - first + 1),
                    }
                case "epoch":
                    update = {
                        "completed": event["epoch"],
                        "left": left(event["epoch"] - first + 1),
                    }
                    self._console.print(
                        f"{name}: epoch {event['epoch']}/{self._epochs}  "
                        f"{event['seconds']:.1f}s  "
                        f"loss {event['training_loss']:.4f}  "
                        f"{event['monitor']} accuracy {event['monitor_accuracy']:.2%}",
                        highlight=False,
                    )
                case "note":
                    warn(self._console, f"{name}: {event['text']}")
                case "reused":
                    self._console.print(f"{name}: already finished, reused")
                    first = 1
            self._progress.update(task, **update)

        self._running += 1
        if self._console.is_terminal and self._running == 1:
            self._progress.start()
        try:
            yield on_event
        finally:
            self._running -= 1
            self._left -= self._epochs - (first - 1)
            if self._console.is_terminal and not self._running:
                self._progress.stop()
            self._progress.remove_task(task)


@contextlib.contextmanager
def watching_comparison(
    console: Console,
) -> Iterator[Callable[[ComparisonEvent], None]]:
    """Warnings, the proof, and the runs, as `compare` tells them."""
    with watching_short_proofs(console) as on_proof, contextlib.ExitStack() as whole:
        display: Display | None = None
        on_run: dict[str, Callable[[Event], None]] = {}
        ends: dict[str, contextlib.ExitStack] = {}

        def on_event(event: ComparisonEvent) -> None:
            nonlocal display
            match event:
                case Warned(text):
                    warn(console, text)
                case RunStarted(name, number, runs, epochs):
                    display = display or Display(console, runs=runs, epochs=epochs)
                    run = display.run(f"{name} ({number}/{runs})")
                    ends[name] = whole.enter_context(contextlib.ExitStack())
                    on_run[name] = ends[name].enter_context(run)
                case RunTold(name, told):
                    on_run[name](told)
                case RunEnded(name, failure):
                    if failure is not None:
                        fail(console, f"{name} failed: {failure}")
                    ends.pop(name).close()
                case _:
                    on_proof(event)

        yield on_event
