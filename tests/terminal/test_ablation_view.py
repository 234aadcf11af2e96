"""What an ablation tells, as lines where no terminal is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from make_records import make_run
from rich.console import Console

from paripassu.core import record
from paripassu.terminal.ablation import watching_ablation
from paripassu.training.events import RunFinished, RunTold, Scheduled, Warned


def shown(*events: Any, terminal: bool = False) -> str:
    text = io.StringIO()
    console = Console(file=text, soft_wrap=True, width=200, force_terminal=terminal)
    with watching_ablation(console) as on_event:
        for event in events:
            on_event(event)
    return text.getvalue()


STEP = {"event": "step", "epoch": 1, "step": 1, "steps": 2, "loss": 1, "accuracy": 0.5}


def test_each_run_is_a_line_with_its_accuracy_or_its_failure(tmp_path: Path):
    make_run(tmp_path / "run")
    finished = record.load_record(tmp_path / "run")
    assert finished.result is not None
    lines = shown(
        Warned("nothing serious"),
        Scheduled({"one": 2, "two": 2}, reused=1),
        RunTold(
            "one",
            {
                **{"event": "training", "first_epoch": 1, "epochs": 2},
                **{"threads": 2, "other_load": 0.0},
            },
        ),
        RunTold("one", STEP),
        RunFinished("one", finished),
        RunFinished("two", "it diverged"),
    ).splitlines()
    assert lines == [
        "nothing serious",
        "1 run already finished, reused",
        f"2/3 one: test accuracy {finished.result.test_accuracy:.2%}",
        "3/3 two: failed: it diverged",
    ]


def test_a_terminal_shows_what_each_run_is_doing():
    text = shown(Scheduled({"one": 2}, reused=0), RunTold("one", STEP), terminal=True)
    assert "epoch 1/2  loss 1.0000  accuracy 50.00%" in text
