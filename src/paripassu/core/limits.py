"""What a process may use to read a file of a stranger's, where the system can say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil

from paripassu.core.errors import UserError

SECONDS = 30  # of the processor; a file of ours takes less than one
MEMORY = 2**31  # bytes, beyond those that the process has
# DEFLATE, of gzip and zip, packs at most 258 bytes into two bits: 1,032 to 1.
PACKED = 1032


def check_promise(where: str, count: int, held: int | None, *, advice: str) -> None:
    """Refuse what cannot be true, or cannot be held, before it is unpacked.

    Args:
        where: what promises, for the message.
        count: bytes that it promises.
        held: bytes of the packed file that they are to come from; None: of none.
        advice: what to do then.

    Raises:
        UserError: no such file unpacks to so much, or the memory has not so much free.
    """
    if held is not None and count > PACKED * held:
        raise UserError(
            f"{where}: its header announces {count:,} bytes, and no file of {held:,} "
            f"bytes unpacks to so many: expected at most {PACKED * held:,}. {advice}"
        )
    free = psutil.virtual_memory().available
    if count > free:
        raise UserError(
            f"{where}: its header announces {count:,} bytes, more than the memory "
            f"holds: expected at most {free:,}, which are free. {advice}"
        )


@contextlib.contextmanager
def reading(path: Path, what: str = "weights") -> Iterator[None]:
    """Bound what reading a foreign file takes, and explain what it raises.

    Libraries meet foreign bytes with exceptions of every kind. Too much memory is one
    of them; too much time ends the process (SIGXCPU), so this belongs in one of its
    own.

    Raises:
        UserError: anything at all was raised.
    """
    try:
        with _bounded():
            yield
    except UserError:
        raise
    except MemoryError:
        raise UserError(
            f"{path} asks for more memory than a file of {what} needs: it is not read."
        ) from None
    except Exception as error:
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path} cannot be read as {what} ({words[0]}).") from None


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    try:
        import resource
    except ImportError:  # Windows
        yield
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    bounds = {
        resource.RLIMIT_AS: psutil.Process().memory_info().vms + MEMORY,
        resource.RLIMIT_CPU: int(used.ru_utime + used.ru_stime) + SECONDS,
        resource.RLIMIT_CORE: 0,
    }
    before = {kind: resource.getrlimit(kind) for kind in bounds}
    try:
        for kind, most in bounds.items():
            ends = [x for x in (most, *before[kind]) if x != resource.RLIM_INFINITY]
            with contextlib.suppress(
                ValueError, OSError
            ):  # macOS has no bound of memory
                resource.setrlimit(kind, (min(ends), before[kind][1]))
        yield
    finally:
        for kind, pair in before.items():
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(kind, pair)
