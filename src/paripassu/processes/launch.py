"""Starts a worker process, passes its events on, and lets no worker outlive us."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from paripassu.core.errors import UserError, WorkerError
from paripassu.core.files import explained

Event = dict[str, Any]
TAIL_LINES = 12
ALLOCATOR = (
    "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296:"
    "glibc.malloc.hugetlb=1"
)


def worker_environment(threads: int) -> dict[str, str]:
    """The environment of every worker, the same for each framework.

    glibc's allocator by default gives large buffers back to the system after every
    step and has them filled with zeros again in the next; here it keeps them, in large
    pages where the system has them. A `GLIBC_TUNABLES` of the user's own is kept.
    """
    return {
        "GLIBC_TUNABLES": ALLOCATOR,
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
    }


def work(
    request: dict[str, Any],
    on_event: Callable[[Event], None],
    *,
    threads: int,
    errors: Path | None = None,
    plain: bool = False,
    module: str = "paripassu.worker",
) -> None:
    """Run one request in a process of its own and wait for its end.

    Args:
        request: what `module` takes, see `paripassu.worker`.
        on_event: called with every event as it comes.
        threads: how many the worker's libraries may use.
        errors: keeps the worker's standard error; None for a temporary file.
        plain: leave the environment as it is, as for a program of the user's own.
        module: what the process runs; it ends in `processes.child.serve_request`.

    Raises:
        UserError: the worker says that the request cannot be done.
        WorkerError: it crashed or was killed.
    """
    with contextlib.ExitStack() as stack:
        if errors:
            with explained(errors):
                log: IO[bytes] = stack.enter_context(errors.open("ab+"))
        else:
            log = stack.enter_context(tempfile.TemporaryFile())
        log.seek(0, os.SEEK_END)
        begin = log.tell()
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=None if plain else worker_environment(threads),
            text=True,
            # Ctrl-C is for us: the worker ends when we close its standard input.
            start_new_session=True,
        )
        stack.callback(_end, child)
        assert child.stdin is not None
        assert child.stdout is not None
        refusal = None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
        for line in child.stdout:
            event = json.loads(line)
            if event["event"] == "error":
                refusal = event["message"]
            else:
                on_event(event)
        code = child.wait()
        if code == 0:
            return
        if code == 2 and refusal:
            raise UserError(refusal)
        log.seek(begin)
        lines = log.read().decode(errors="replace").strip().splitlines()
        tail = "\n".join(lines[-TAIL_LINES:])
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        raise WorkerError(f"the {request['framework']} process {how}.\n{tail}".strip())


def _end(child: subprocess.Popen[str]) -> None:
    """End a worker that is still there; its last checkpoint stays whole."""
    if child.stdin:
        with contextlib.suppress(OSError):
            child.stdin.close()
    if child.poll() is None:
        try:
            child.wait(timeout=2)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout:
        child.stdout.close()
