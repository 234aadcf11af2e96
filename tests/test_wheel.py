"""Two builds of the same sources are the same bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READY = ("READY_DEV=", "wheel")  # the environment is there


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
def test_a_wheel_is_built_to_the_same_bytes(tmp_path):
    pytest.importorskip("setuptools")
    sums = set()
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE", "Makefile"):
            shutil.copy(ROOT / name, folder)
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
        for path in folder.rglob("*"):
            os.utime(path, (10**9 * number, 10**9 * number))
            path.chmod(0o700 if path.is_dir() else (0o600, 0o664)[number - 1])
        done = subprocess.run(
            ["make", "--silent", f"BIN={Path(sys.executable).parent}", *READY],
            cwd=folder,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (wheel,) = (folder / "dist").iterdir()
        sums.add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert len(sums) == 1
