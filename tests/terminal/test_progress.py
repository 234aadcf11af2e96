"""What verbs tell, as lines where no terminal is: each event, in its order."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest
from helpers import wait_for
from rich.console import Console

from paripassu.analysis.proof.ladder import rungs_of
from paripassu.analysis.schema import Proof, ProofRow
from paripassu.proof.short_proof import Proved
from paripassu.proof.verify import Progress
from paripassu.terminal.progress import duration, watching_comparison
from paripassu.training.events import RunEnded, RunStarted, RunTold, Warned


def made(holds: bool, message: str | None = None) -> Proof:
    row = ProofRow(
        left="numpy",
        right="pytorch",
        quantity="logits",
        difference=0.0 if holds else 1.0,
        bound=1e-9,
        holds=holds,
        rung=1,
        step=None,
        precision="float64",
    )
    rows = [] if message else [row]
    return Proof(
        precision="float64",
        holds=holds,
        rows=rows,
        message=message,
        command="",
        recipe={},
        versions={},
        environment={},
        rungs=rungs_of(rows),
        divergence=None,
        curves=[],
    )


def shown(*events: Any) -> list[str]:
    text = io.StringIO()
    console = Console(file=text, soft_wrap=True, width=200)
    with watching_comparison(console) as on_event:
        for event in events:
            on_event(event)
    return text.getvalue().splitlines()


EPOCH = {
    "event": "epoch",
    "epoch": 1,
    "seconds": 2.0,
    "training_loss": 0.25,
    "monitor": "test",
    "monitor_accuracy": 0.9876,
}


TRAINING = {
    "event": "training",
    "first_epoch": 1,
    "epochs": 3,
    "threads": 2,
    "other_load": 0.1,
}


@pytest.mark.parametrize(
    ("load", "threads", "said"),
    [
        (0.1, 2, None),
        (0.11, 2, "Close them, or type --threads 1."),
        (0.9, 1, "Close them."),
    ],
)
def test_a_busy_machine_is_told_before_the_first_epoch(load, threads, said):
    busy = {**TRAINING, "other_load": load, "threads": threads}
    lines = shown(
        RunStarted("pytorch-seed42", 1, 1, 3),
        RunTold("pytorch-seed42", busy),
        RunTold("pytorch-seed42", EPOCH),
        RunEnded("pytorch-seed42", None),
    )
    assert len(lines) == (2 if said else 1)
    assert not said or f"use {load:.0%} of the machine" in lines[0]
    assert not said or lines[0].endswith(said)


def test_a_comparison_is_told_line_by_line():
    assert shown(
        Warned("[red] is no markup here"),
        Progress(rungs_of([]), {"pytorch": "float64 step 1/3"}),
        Proved("proof", made(holds=True), reused=False),
        RunStarted("pytorch-seed42", 1, 2, 3),
        RunTold("pytorch-seed42", {"event": "phase", "name": "data"}),
        RunTold("pytorch-seed42", {**TRAINING, "first_epoch": 2}),
        RunTold("pytorch-seed42", EPOCH),
        RunEnded("pytorch-seed42", None),
        RunStarted("tensorflow-seed42", 2, 2, 3),
        RunTold("tensorflow-seed42", {"event": "reused"}),
        RunEnded("tensorflow-seed42", None),
    ) == [
        "[red] is no markup here",
        "proof: holds on 1 rungs",
        "pytorch-seed42 (1/2): continues with epoch 2 of 3",
        "pytorch-seed42 (1/2): epoch 1/3  2.0s  loss 0.2500  test accuracy 98.76%",
        "tensorflow-seed42 (2/2): already finished, reused",
    ]


def test_a_run_that_fails_is_told_with_its_reason():
    assert shown(
        RunStarted("pytorch-seed42", 1, 1, 3),
        RunEnded("pytorch-seed42", "the [pytorch] process ended"),
    ) == ["pytorch-seed42 failed: the [pytorch] process ended"]


@pytest.mark.parametrize(
    ("proved", "said"),
    [
        (Proved("proof on x", made(holds=True), reused=True), "holds already"),
        (Proved("proof on x", made(holds=False), reused=False), "does not hold"),
        (
            Proved("proof on x", made(holds=False, message="crash"), reused=False),
            "could not be made",
        ),
    ],
)
def test_what_came_of_a_proof(proved, said):
    lines = shown(proved)
    assert lines[0] == f"proof on x: {said}"
    assert lines[1:] == ([proved.proof.message] if proved.proof.message else [])


def alive():
    """Threads that run; one that has ended may be listed for a moment longer."""
    return {x for x in threading.enumerate() if x.is_alive()}


def test_a_display_is_ended_where_the_work_is_stopped():
    """A bar that was left running would go on writing to the terminal."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    before = alive()

    def stopped() -> None:
        with watching_comparison(console) as on_event:
            on_event(Progress(rungs_of([]), {}))
            on_event(RunStarted("pytorch-seed42", 1, 1, 3))
            assert alive() > before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    # Its thread is told to end, and ends when it has a processor.
    wait_for(lambda: alive() == before, "the end of the display")


def test_durations_are_said_as_people_do():
    assert [duration(x) for x in (48, 185, 3720)] == ["48s", "3m 05s", "1h 02m"]
