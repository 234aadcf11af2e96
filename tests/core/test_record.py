"""What is said of a folder that holds no run, and what a killed one leaves."""

from __future__ import annotations

import re

import pytest

from paripassu.core.errors import UserError
from paripassu.core.record import CHECKPOINT_FILE, RUN_FILE, load_record, tidy


def test_a_folder_of_runs_names_the_runs_in_it(tmp_path):
    with pytest.raises(UserError, match="Make one with 'paripassu train"):
        load_record(tmp_path)
    for name in ("one", "two"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").touch()
    inside = [re.escape(str(tmp_path / "runs" / x)) for x in ("one", "two")]
    with pytest.raises(UserError, match=f"in it: {', '.join(inside)}\\.$"):
        load_record(tmp_path)


def test_what_is_left_by_a_kill_at_the_very_end_goes(tmp_path):
    """Red before: a comparison used the finished run, and what was left beside it."""
    mine = [".run.a.tmp-paripassu.json", CHECKPOINT_FILE]
    for name in (RUN_FILE, *mine):
        (tmp_path / name).touch()
    tidy(tmp_path)  # nobody owned it
    assert all((tmp_path / x).exists() for x in mine)
    (tmp_path / ".owner").touch()
    tidy(tmp_path)
    assert sorted(x.name for x in tmp_path.iterdir()) == [".lock", RUN_FILE]
