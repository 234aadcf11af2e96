"""The lessons run as they stand, from the first cell to the last."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import FIRST_FAST, environment

SHORT = """
import runpy
from pathlib import Path
from paripassu.core import datasets
load = datasets.load
datasets.load = lambda: load(Path({data!r}))
runpy.run_module("paripassu.frameworks.{framework}.lesson", run_name="__main__")
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("framework", FIRST_FAST)
def test_a_lesson_runs_from_top_to_bottom(framework, tiny, tmp_path):
    """On few images."""
    done = run(SHORT.format(data=str(tiny), framework=framework), tmp_path)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^test (\S+) (\S+)$", done.stdout, re.MULTILINE)
    assert found
    loss, accuracy = map(float, found.groups())
    assert 0 < loss < 10
    assert 0 <= accuracy <= 1


@pytest.mark.slow
def test_keras_settings_of_the_user_do_not_change_the_lesson(tmp_path, tiny):
    """A `keras.json` may put channels first, and another float type."""
    home = tmp_path / "keras"
    home.mkdir()
    (home / "keras.json").write_text(
        '{"image_data_format": "channels_first", "floatx": "float16", '
        '"epsilon": 1e-7, "backend": "tensorflow"}'
    )
    code = f"import os; os.environ['KERAS_HOME'] = {str(home)!r}\n"
    code += SHORT.format(data=str(tiny), framework="tensorflow")
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
