"""What the report says to type for a verdict, and how long that takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from make_records import make_comparison, make_proof

from paripassu.analysis.comparison import summarise
from paripassu.analysis.report.gather import read_runs
from paripassu.analysis.report.next_step import next_step, roughly, with_seeds
from paripassu.analysis.report.page import _frameworks


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("paripassu compare --quick", "paripassu compare --quick --seeds 8"),
        (
            "paripassu compare -n 3 --out runs/a",
            "paripassu compare --out runs/a --seeds 8",
        ),
        (
            "paripassu compare --seeds=3 --out 'runs/a b'",
            "paripassu compare --out 'runs/a b' --seeds 8",
        ),
        (
            "paripassu compare --seeds 3 -n4 lenet5",
            "paripassu compare lenet5 --seeds 8",
        ),
        ("paripassu report runs/a", None),
        ("python study.py", None),
        ("paripassu compare 'open", None),
    ],
)
def test_the_command_with_more_seeds(command, wanted):
    assert with_seeds(command, 8) == wanted


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "about 1 minute"),
        (61, "about 2 minutes"),
        (1500, "about 25 minutes"),
        (119 * 60, "about 119 minutes"),
        (3 * 3600 - 60, "about 3 hours"),
    ],
)
def test_a_time_to_plan_with(seconds, said):
    assert roughly(seconds) == said


def found(folder: Path, **parts):
    comparison = summarise(make_comparison(folder, **parts))
    runs = read_runs(folder, comparison)
    return comparison, next_step(comparison, _frameworks(comparison, runs))


def test_it_counts_the_runs_that_are_missing_at_their_own_times(tmp_path):
    comparison, step = found(tmp_path, seeds=(42,), epochs=3)
    (pair,) = comparison.pairs
    assert step is not None
    wanted = 1 + pair.more_seeds
    assert step.command == f"paripassu compare --quick --seeds {wanted}"
    # Of make_records: 42 and 38 seconds an epoch, three epochs, and what is beside.
    least = pair.more_seeds * 3 * (42 + 38) / 3600
    hours = float(step.time.removeprefix("about ").removesuffix(" hours"))
    assert least - 0.5 <= hours <= 1.3 * least + 0.5


def test_there_is_none_where_all_is_decided_or_the_proof_does_not_hold(tmp_path):
    correct = {
        f"{name}-seed{seed}": count
        for name, count in (("pytorch", 490), ("tensorflow", 450))
        for seed in range(6)
    }
    assert found(tmp_path / "a", seeds=range(6), correct=correct)[1] is None
    assert found(tmp_path / "b", seeds=(1,), proof=make_proof(holds=False))[1] is None
    assert found(tmp_path / "c", seeds=(1,), frameworks=("pytorch",))[1] is None
