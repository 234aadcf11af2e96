"""What is said of a folder that holds no run."""

from __future__ import annotations

import re

import pytest

from paripassu.core.errors import UserError
from paripassu.core.record import load_record


def test_a_folder_of_runs_names_the_runs_in_it(tmp_path):
    with pytest.raises(UserError, match="Make one with 'paripassu train"):
        load_record(tmp_path)
    for name in ("one", "two"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").touch()
    inside = [re.escape(str(tmp_path / "runs" / x)) for x in ("one", "two")]
    with pytest.raises(UserError, match=f"in it: {', '.join(inside)}\\.$"):
        load_record(tmp_path)
