"""Runs that go on at once, while they go on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from paripassu.analysis.text import counted
from paripassu.analysis.warnings import busy_warning
from paripassu.core.record import RunRecord
from paripassu.processes.launch import Event
from paripassu.terminal.progress import MOST_BARS, duration, fail, warn
from paripassu.training.events import RunFinished, RunTold, Scheduled, Warned

RunsEvent = Warned | Scheduled | RunTold | RunFinished
ENOUGH = 0.01  # of the work, before the time that is left is guessed


@contextlib.contextmanager
def watching_runs(console: Console) -> Iterator[Callable[[RunsEvent], None]]:
    """Warnings and the runs, from when they are scheduled, as verbs tell them."""
    with contextlib.ExitStack() as shown:
        board: Board | None = None

        def on_event(event: RunsEvent) -> None:
            nonlocal board
            match event:
                case Warned(text):
                    warn(console, text)
                case Scheduled(epochs, reused):
                    board = Board(console, epochs=epochs, reused=reused)
                    shown.enter_context(board.live())
                case RunTold(title, told):
                    assert board is not None
                    board.update(title, told)
                case RunFinished(title, outcome):
                    assert board is not None
                    board.finish(title, outcome)

        yield on_event


class Board:
    """Shows runs that go on at once: a bar on a terminal, a line a run elsewhere."""

    def __init__(
        self, console: Console, *, epochs: Mapping[str, int], reused: int
    ) -> None:
        self._console = console
        self._epochs = dict(epochs)
        self._first = dict.fromkeys(epochs, 0)  # epochs that an earlier session made
        self._made = dict.fromkeys(epochs, 0.0)  # epochs of this one
        self._over = reused
        self._total = reused + len(epochs)
        self._doing: dict[str, str] = {}
        self._began = time.monotonic()
        self._bar = Progress(
            TextColumn("[bold]runs"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}", style="dim"),
        )
        self._task = self._bar.add_task("", total=self._total, left="")
        self._live = Live(console=console, transient=True, refresh_per_second=4)
        if reused:
            text = f"{counted(reused, 'run')} already finished, reused"
            console.print(text, highlight=False)

    def live(self) -> contextlib.AbstractContextManager[object]:
        """Draw while the block lasts, on a terminal."""
        if self._console.is_terminal and self._epochs:
            return self._live
        return contextlib.nullcontext()

    def update(self, run: str, event: Event) -> None:
        """Take an event of a run's worker."""
        match event["event"]:
            case "phase":
                self._doing[run] = f"{event['name']} …"
            case "training":
                self._first[run] = event["first_epoch"] - 1
                if text := busy_warning(event["other_load"], event["threads"]):
                    warn(self._console, f"{run}: {text}")
            case "step":
                done = event["epoch"] - 1 + event["step"] / event["steps"]
                self._made[run] = done - self._first[run]
                self._doing[run] = (
                    f"epoch {event['epoch']}/{self._epochs[run]}  "
                    f"loss {event['loss']:.4f}  accuracy {event['accuracy']:.2%}"
                )
            case "note":
                warn(self._console, f"{run}: {event['text']}")
            case "epoch":
                self._made[run] = event["epoch"] - self._first[run]
        self._draw()

    def finish(self, run: str, outcome: RunRecord | str) -> None:
        """Print what came of a run."""
        self._over += 1
        self._made[run] = self._epochs[run] - self._first[run]
        self._doing.pop(run, None)
        text = f"{self._over}/{self._total} {run}: "
        if isinstance(outcome, str):
            fail(self._console, f"{text}failed: {outcome}")
        else:
            assert outcome.result is not None
            text += f"test accuracy {outcome.result.test_accuracy:.2%}"
            self._console.print(text, markup=False, highlight=False)
        self._draw()

    def _draw(self) -> None:
        self._bar.update(self._task, completed=self._over, left=self._left())
        lines = [
            Text(f"  {run}: {what}", "dim", no_wrap=True, overflow="ellipsis")
            for run, what in list(self._doing.items())[:MOST_BARS]
        ]
        if len(self._doing) > MOST_BARS:
            more = f"  and {len(self._doing) - MOST_BARS} more"
            lines.append(Text(more, "dim"))
        self._live.update(Group(self._bar, *lines))

    def _left(self) -> str:
        """A guess of the time left, from the pace so far."""
        total = sum(self._epochs.values()) - sum(self._first.values())
        made = sum(self._made.values())
        if made < ENOUGH * total:
            return ""
        pace = (time.monotonic() - self._began) / made
        return f"about {duration(pace * (total - made))} left"
