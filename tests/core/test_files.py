"""What killed processes leave goes, and no link leads a write elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paripassu.core import files
from paripassu.core.errors import UserError
from paripassu.sides.recording import writing

pytestmark = pytest.mark.skipif(os.name != "posix", reason="others have no such locks")

KILLED = """
import os, signal
from pathlib import Path
from paripassu.core import files
with files.scratch() as folder, files.replacing(Path("a.txt")) as path:
    path.write_text("half")
    (folder / "inside").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_was_writing_goes_when_another_writes(
    tmp_path, monkeypatch
):
    place, kept = tmp_path / "place", tmp_path / "kept"
    place.mkdir()
    kept.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=kept, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = kept.iterdir()
    assert left.read_text() == "half"
    assert [x.name for x in place.rglob("*") if x.is_file()] == ["inside"]
    with files.scratch() as one, files.replacing(kept / "b.txt") as first:
        with files.scratch(), files.replacing(kept / "c.txt") as second:
            second.write_text("c")
            assert one.is_dir()
            assert first.exists()  # somebody is writing it
            assert not left.exists()
        first.write_text("b")
    assert sorted(x.name for x in kept.iterdir()) == ["b.txt", "c.txt"]
    assert not list(place.iterdir())


def test_what_a_killed_process_was_working_with_goes_when_another_finds_all_done(
    tmp_path, monkeypatch
):
    """Red before: a comparison that was killed when it had all but its report."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, check=False)
    with files.working_in(tmp_path / "run"):
        assert not list(tmp_path.glob(f"{files.SCRATCH}*"))


WITHOUT_LOCKS = """
import sys
from pathlib import Path
sys.modules["fcntl"] = None
from paripassu.core import files
from paripassu.sides.recording import writing
with files.scratch() as a, files.replacing("b.txt") as b, writing(Path("c")) as c:
    b.write_text("b")
    print(a, b.absolute(), c.folder, sep=chr(10), flush=True)
    input()
"""


def test_what_a_process_without_locks_uses_is_left_to_it(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", WITHOUT_LOCKS],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout
        used = [Path(other.stdout.readline().strip()) for _ in range(3)]
        with (
            files.working_in(tmp_path),
            files.temporary_folder(tmp_path, "paripassu-"),
            files.replacing(tmp_path / "b.txt") as mine,
            writing(tmp_path / "c"),
        ):
            mine.write_text("mine")
            assert all(path.exists() for path in used)
        _out, said = other.communicate("\n")
    assert (other.returncode, said) == (0, "")
    assert (tmp_path / "b.txt").read_text() == "b"
    assert sorted(x.name for x in tmp_path.iterdir()) == [".lock", "b.txt"]


@pytest.mark.parametrize("name", [".lock", ".owner", "stderr.log"])
def test_no_link_in_a_folder_of_ours_is_followed(tmp_path, name):
    folder, other = tmp_path / "run", tmp_path / "other"
    folder.mkdir()
    other.write_text("mine")
    (folder / name).symlink_to(other)

    def write() -> None:
        with files.working_in(folder), files.open_log(folder / "stderr.log") as log:
            log.write(b"theirs")

    if name == ".owner":  # it takes the place of the link
        write()
    else:
        with pytest.raises(UserError, match="symbolic link is in the way"):
            write()
    assert other.read_text() == "mine"


def test_a_pipe_in_the_place_of_a_log_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "stderr.log")
    with pytest.raises(UserError, match="is no file"):
        files.open_log(tmp_path / "stderr.log")
