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
from paripassu.core.files import open_log, scratch
from paripassu.processes.request import Request

Event = dict[str, Any]
TAIL_LINES = 12
PROGRAM = Path(__file__).with_name("program.py")
ALLOCATOR = (
    "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296:"
    "glibc.malloc.hugetlb=1"
)
# How long a thread of GCC's OpenMP looks for the others before it sleeps.
SPINS = "10000"


def worker_environment(threads: int) -> dict[str, str]:
    """The environment of every worker, the same for each framework.

    glibc's allocator by default gives large buffers back to the system after every
    step and has them filled with zeros again in the next; here it keeps them, in large
    pages where the system has them. To keep all of them in one heap (`mmap_max=0`,
    `arena_max=1`) made JAX a tenth faster, and processes of PyTorch and TensorFlow end
    where oneDNN wrote beyond a buffer of its own.

    A thread of GCC's OpenMP, which PyTorch computes with, spins for milliseconds at
    each barrier. Beside other programs the one that it waits for may not have a core,
    and an epoch takes many times as long; so here it soon goes to sleep
    (`benchmarks/busy.py` measures it).

    A `GLIBC_TUNABLES`, `GOMP_SPINCOUNT` or `OMP_WAIT_POLICY` of the user's own is kept.
    """
    waiting = {} if "OMP_WAIT_POLICY" in os.environ else {"GOMP_SPINCOUNT": SPINS}
    return {
        "GLIBC_TUNABLES": ALLOCATOR,
        **waiting,
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
    }


class Child(subprocess.Popen[bytes]):
    """A process of ours, which runs a program and ends when its input does.

    Attributes:
        folder: for its files that nobody keeps; it goes with the process.
    """

    stdin: IO[bytes]
    stdout: IO[bytes]

    def __init__(
        self,
        *program: str,
        threads: int,
        errors: IO[bytes] | int,
        plain: bool = False,
        python: Path | None = None,
    ) -> None:
        """Start it.

        Args:
            program: what it runs: "-m" and a module, or a file and its arguments.
            threads: how many its libraries may use.
            errors: where its standard error goes, as `subprocess` takes it.
            plain: leave the environment as it is, as for a program of the user's own,
                but for where temporary files go.
            python: the interpreter; None: this one.
        """
        self._stack = contextlib.ExitStack()
        self.folder = self._stack.enter_context(scratch())
        environment = dict(os.environ) if plain else worker_environment(threads)
        if not plain or sys.platform == "linux":
            # A process that is killed leaves files there, such as TensorFlow's of
            # AutoGraph. Elsewhere a socket of the user's would get too long a name.
            environment["TMPDIR"] = str(self.folder)
        super().__init__(
            [str(python or sys.executable), "-P", *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            # Ctrl-C is for us: the child ends when we close its standard input.
            start_new_session=True,  # Windows ignores it, and has another word:
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )

    def send(self, text: str) -> None:
        """Write a line; one that is gone is noticed when it does not answer."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.write(text.encode() + b"\n")
            self.stdin.flush()

    def close(self) -> None:
        """End it if it is still there; what it has written to disk stays whole."""
        with contextlib.suppress(OSError):
            self.stdin.close()
        try:
            self.wait(2)
        except subprocess.TimeoutExpired:
            self.kill()
            self.wait()
        self.stdout.close()
        self._stack.close()


def work(
    request: Request,
    on_event: Callable[[Event], None] = lambda _event: None,
    *,
    errors: Path | None = None,
    plain: bool = False,
    python: Path | None = None,
) -> Event:
    """Run one request in a process of its own and wait for its end.

    Args:
        request: what is to be done.
        on_event: called with every event as it comes.
        errors: keeps the process's standard error; None for a temporary file.
        plain: leave the environment as it is, as for a program of the user's own.
        python: the interpreter; None: this one.

    Returns:
        The values of the last event, which is the answer.

    Raises:
        UserError: the request cannot be done; the user can put it right.
        WorkerError: the process crashed, was killed, or said nothing.
    """
    with contextlib.ExitStack() as stack:
        if errors:
            log: IO[bytes] = stack.enter_context(open_log(errors))
        else:
            log = stack.enter_context(tempfile.TemporaryFile())
        log.seek(0, os.SEEK_END)
        begin = log.tell()
        child = Child(
            "-m",
            request.module,
            threads=request.threads,
            errors=log,
            plain=plain,
            python=python,
        )
        stack.callback(child.close)
        child.send(request.model_dump_json())
        refusal = None
        last: Event | None = None
        for line in child.stdout:
            event = json.loads(line)
            if event["event"] == "error":
                refusal = event["message"]
            else:
                last = event
                on_event(event)
        code = child.wait()
        if code == 0 and last:
            return {key: value for key, value in last.items() if key != "event"}
        if code == 2 and refusal:
            raise UserError(refusal)
        log.seek(begin)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        if code == 0:
            how = "ended without an answer"
        raise crash(f"the {request.title} process {how}.", log, max(0, -code))


def run_file(path: Path, *arguments: object, failed: str, seconds: float) -> None:
    """Run a Python file as its user would, in a process that ends when this one does.

    Args:
        path: the file.
        arguments: those of its command line.
        failed: what an error says first.
        seconds: how long it may take.

    Raises:
        WorkerError: it failed, or took too long.
    """
    with tempfile.TemporaryFile() as log:
        words = map(str, (PROGRAM, path, *arguments))
        child = Child(*words, threads=1, errors=log)
        with contextlib.closing(child):
            try:
                code: int | None = child.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
        if code is None:
            raise WorkerError(f"{failed} It took more than {seconds:.0f} s.")
        if code:
            log.seek(0)
            raise crash(failed, log, max(0, -code))


def crash(what: str, log: IO[bytes], signal: int = 0) -> WorkerError:
    """The error that says what happened, with the last lines of what is in `log`."""
    lines = log.read().decode(errors="replace").strip().splitlines()
    return WorkerError("\n".join([what, *lines[-TAIL_LINES:]]).strip(), signal)
