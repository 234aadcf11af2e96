"""The table of differences: each example differs as it comes, and is equal as written.

The defaults and the sizes in the record are measured again with the installed versions.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import needs_both, skip_without

ROOT = Path(__file__).parents[2]
RECORD = json.loads((ROOT / "results" / "differences.json").read_text())["differences"]


def test_there_are_enough_and_each_is_there_once():
    keys = [row["key"] for row in RECORD]
    assert len(keys) == len(set(keys)) >= 40


@needs_both
@skip_without("jax")
@pytest.mark.slow
def test_the_differences_are_as_the_table_says(tmp_path, subtests):
    out = tmp_path / "found.json"
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "differences"), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    measured = {row["key"]: row for row in json.loads(out.read_text())["differences"]}
    assert set(measured) == {row["key"] for row in RECORD}
    for row in RECORD:
        with subtests.test(row["key"]):
            found = measured[row["key"]]
            for side in ("pytorch", "keras", "jax"):
                assert found[side] == row[side]
            assert found["default"] > 1e-6  # it fails as it comes
            assert found["default"] == pytest.approx(row["default"], rel=0.06)
            assert found["equal"] <= row["rest"]
            assert found["equal"] < found["default"] or row["rest"] >= 1
