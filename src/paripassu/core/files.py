"""Files that are written whole or not at all, and folders with one owner."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize_tensors

from paripassu.core.errors import UserError

with warnings.catch_warnings():  # of a system that has only locks of its own making
    warnings.simplefilter("ignore", UserWarning)
    from filelock import FileLock, Timeout

Tensors = Mapping[str, npt.NDArray[Any]]

# In the names of what its maker holds locked: whoever can lock it may delete it.
MARK = ".tmp-paripassu"
# In the names of what is not locked, or not yet: only its maker deletes it.
UNLOCKED = ".new-paripassu"
SCRATCH = "paripassu-"  # begins the names of folders for what nobody keeps
OWNER = ".owner"  # in a folder that is owned: by whom
# What opening a safetensors file raises, and the last two for types that NumPy lacks.
UNREADABLE = (SafetensorError, OSError, ValueError, TypeError, AttributeError)

_WHAT_TO_DO = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EROFS: "the disk is read-only: choose another folder with --out",
    errno.EACCES: "no permission to write there: choose another folder with --out",
    errno.EPERM: "no permission to write there: choose another folder with --out",
    errno.ENOTDIR: "part of the path is a file: choose another folder with --out",
    errno.ELOOP: "a symbolic link is in the way: delete it",
    errno.EEXIST: "a file of that name is in the way: choose another with --out",
}


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an `OSError` about `path` into a `UserError` that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = trouble_with_disk(error) or reason
        raise UserError(f"cannot write {path}: {advice}.") from error


def trouble_with_disk(error: OSError) -> str | None:
    """What a user can do about an error in writing; None for any other."""
    return _WHAT_TO_DO.get(error.errno or 0)


def is_read_only(folder: Path) -> bool:
    """Whether a folder is there, and nothing can be written into it."""
    return folder.is_dir() and not os.access(folder, os.W_OK)


def make_folder(path: Path) -> Path:
    """Create a folder and its parents; `UserError` if that is impossible."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes its name only on success.

    The temporary file keeps the suffix of `path` (some libraries choose a format by
    it), is synced to disk and renamed over `path` in one step. After any error or a
    kill, `path` is what it was before.

    Raises:
        UserError: the disk is full or read-only, or the folder is not writable.
    """
    path = Path(path)
    with explained(path):
        _delete_left(path.parent, f".*{MARK}{glob.escape(path.suffix)}")
        handle, temporary = _temporary(path)
    try:
        with explained(path):
            try:
                yield temporary
            except Exception:
                _probe(temporary)
                raise
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        if handle is not None:
            os.close(handle)
        with contextlib.suppress(OSError):  # the disk may be read-only by now
            temporary.unlink()


def _temporary(path: Path) -> tuple[int | None, Path]:
    """A new file beside `path`, and the handle that says that its writer lives."""
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.stem}.", suffix=f"{UNLOCKED}{path.suffix}"
    )
    return _marked(handle, Path(name))


def _marked(handle: int, made: Path) -> tuple[int | None, Path]:
    """Lock what we have made; only then does it take the name of what others delete.

    What cannot be locked, as on Windows and some network disks, keeps its name: no
    other process could see that we live, even if it can lock.
    """
    if _lock(handle):
        marked = made.with_name(MARK.join(made.name.rsplit(UNLOCKED, 1)))
        with contextlib.suppress(OSError):
            return handle, made.rename(marked)
    os.close(handle)
    return None, made


def _lock(handle: int) -> bool:
    """Have a file or folder for ourselves while `handle` is open, where that goes."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _delete_left(folder: Path, pattern: str) -> None:
    """Delete the files and folders that killed processes have left."""
    flags = sum(getattr(os, x, 0) for x in ("O_NOFOLLOW", "O_NONBLOCK"))
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY | flags)
            try:
                if not _lock(handle):
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            finally:
                os.close(handle)


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, until the end; what killed processes left there goes.

    Raises:
        UserError: it cannot be made.
    """
    _delete_left(parent, f"{glob.escape(prefix)}*{MARK}")
    with explained(parent):
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix, suffix=UNLOCKED))
    handle = None
    try:
        with contextlib.suppress(OSError):  # on Windows, where no folder can be opened
            handle, folder = _marked(os.open(folder, os.O_RDONLY), folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def scratch() -> contextlib.AbstractContextManager[Path]:
    """A folder for what nobody keeps."""
    return temporary_folder(Path(tempfile.gettempdir()), SCRATCH)


def _probe(path: Path) -> None:
    """Ask the disk itself why a write has failed: libraries hide the system's error."""
    with path.open("ab") as file:
        file.write(bytes(2**20))
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # on Windows, where no folder can be opened
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_log(path: Path) -> IO[bytes]:
    """Open a file of ours to read and to add to; never what a link points to.

    Raises:
        UserError: that is impossible, or something else than a file is there.
    """
    more = sum(getattr(os, x, 0) for x in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    with explained(path):
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | more, 0o666)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise UserError(f"{path} is no file: delete it.")
        return os.fdopen(handle, "ab+")


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Make a folder, own it, and clear up what a killed owner left in it.

    Raises:
        UserError: it cannot be made, or another process owns it.
    """
    make_folder(folder)
    with owned(folder):
        _delete_left(folder, f".*{MARK}*")
        # Who finds all done makes none, and would leave that of who did it.
        _delete_left(Path(tempfile.gettempdir()), f"{SCRATCH}*{MARK}")
        yield


def was_left(folder: Path) -> bool:
    """Whether a process owns a folder, or was killed while it did."""
    return (folder / OWNER).exists()


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write `content` whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON, whole or not at all; NaN and infinity are refused."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def check_regular(path: Path) -> None:
    """Refuse to open what may never end, such as a pipe or a device.

    What is not there, or a folder, is left to whoever opens it.

    Raises:
        UserError: it is neither a file nor a folder.
    """
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UserError(f"{path} is a pipe or a device: a file is expected.")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    check_regular(path)
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply to be read.") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not readable JSON: {error}.") from error


def write_tensors(
    path: Path | str, tensors: Tensors, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file with string metadata, whole or not at all."""
    # Not `ascontiguousarray`, which makes one axis of none.
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    write_bytes(path, serialize_tensors(arrays, dict(metadata or {})))


def read_tensors(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Read a safetensors file: its arrays by name, and its metadata.

    Raises:
        UserError: the file is missing, truncated or not safetensors at all.
    """
    check_regular(path)
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except UNREADABLE as error:
        raise UserError(f"{path} is not a whole safetensors file ({error}).") from error


@contextlib.contextmanager
def owned(folder: Path, patience: float = 5.0) -> Iterator[None]:
    """Hold the only ownership of a folder; the lock ends with its process.

    Args:
        folder: an existing folder; the files `.lock` and `.owner` are made in it.
        patience: seconds to wait for an owner that is just about to end.

    Raises:
        UserError: another process owns the folder.
    """
    lock = FileLock(folder / ".lock")
    owner = folder / OWNER
    with explained(folder / ".lock"):
        try:
            with warnings.catch_warnings():  # of a disk that has no locks
                warnings.simplefilter("ignore", UserWarning)
                lock.acquire(timeout=patience, poll_interval=0.05)
        except Timeout:
            number = ""
            with contextlib.suppress(OSError):
                number = owner.read_text()
            raise UserError(
                f"{folder} is in use by another process"
                f"{f' (number {number})' if number else ''}. Wait for it to end, or "
                "choose another folder with --out."
            ) from None
        write_text(owner, str(os.getpid()))  # not to what a link of its name points to
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the disk may be read-only by now
            owner.unlink()
        lock.release()
