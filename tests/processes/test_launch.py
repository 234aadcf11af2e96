"""Processes of ours end with us, and leave no temporary files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from helpers import wait_for

from paripassu.core.errors import WorkerError
from paripassu.processes.launch import Child, run_file

CALLER = """
import sys
from pathlib import Path
from paripassu.processes.launch import run_file
run_file(Path(sys.argv[1]), sys.argv[2], failed="it failed.", seconds=60)
"""


def written(folder: Path, code: str) -> Path:
    path = folder / "program.py"
    path.write_text(f"import os, sys, time\nfrom pathlib import Path\n{code}\n")
    return path


@pytest.mark.skipif(os.name == "nt", reason="there nothing tells a program")
def test_a_program_ends_when_its_caller_is_killed(tmp_path):
    """Red before: what tries a converted file ran to its end."""
    path = written(tmp_path, "Path(sys.argv[1]).write_text(str(os.getpid()))")
    path.write_text(path.read_text() + "time.sleep(60)\n")
    told = tmp_path / "number"
    with subprocess.Popen([sys.executable, "-c", CALLER, path, told]) as caller:
        number = int(wait_for(lambda: told.exists() and told.read_text(), "its start"))
        assert psutil.pid_exists(number)
        caller.send_signal(signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(number), "its end", 20)


def test_a_program_that_fails_or_takes_too_long_is_told(tmp_path):
    crash = written(tmp_path, "sys.exit('its last words')")
    with pytest.raises(WorkerError, match=r"it failed\.\nits last words"):
        run_file(crash, failed="it failed.", seconds=60)
    late = written(tmp_path, "time.sleep(60)")
    with pytest.raises(WorkerError, match="took more than 1 s"):
        run_file(late, failed="it failed.", seconds=1)


def test_a_program_gets_its_arguments_and_nothing_of_ours(tmp_path):
    path = written(
        tmp_path,
        "assert not any('paripassu' in x for x in sys.modules)\n"
        "Path(sys.argv[1]).write_text(' '.join([__name__, *sys.argv[2:]]))",
    )
    run_file(path, tmp_path / "out", 1, "two", failed="it failed.", seconds=60)
    assert (tmp_path / "out").read_text() == "__main__ 1 two"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere paths get too long")
def test_temporary_files_of_the_user_too_go_with_the_process():
    """Red before: a killed check left what AutoGraph had made."""
    code = "import tempfile; print(tempfile.gettempdir())"
    child = Child("-c", code, threads=1, errors=subprocess.DEVNULL, plain=True)
    assert child.stdout.read().decode().strip() == str(child.folder)
    child.close()
    assert not child.folder.exists()
