"""The child's end of the pipe: one request comes in, events go out.

One line of JSON on standard input is the request; standard input then stays open, and
its end means that the parent is gone. Events are lines of JSON on what was standard
output; whatever a framework prints goes to standard error. Exit code 0: done; 2: the
user can put it right; 64: the request is none that the child knows; 1: a crash.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any

from pydantic import ValidationError

from paripassu.core import machine
from paripassu.core.errors import UserError
from paripassu.core.files import trouble_with_disk
from paripassu.processes.request import Request

NOT_UNDERSTOOD = 64
PR_SET_PDEATHSIG = 1
Emit = Callable[..., None]
# What to do with a request, by its type.
Tasks = Mapping[type[Request], Callable[[Any, Emit], None]]


def serve(tasks: Tasks) -> int:
    """Answer the one request on standard input; return the exit code.

    Args:
        tasks: what to do with a request, by its type. The function's second argument
            takes the name of an event and its values, which the parent gets.
    """
    events = own_output("w")

    def emit(event: str, **values: Any) -> None:
        events.write(json.dumps({"event": event, **values}) + "\n")

    try:
        request = parse(sys.stdin.readline(), tasks)
    except ValueError as error:
        print(f"the request was not understood: {error}", file=sys.stderr)
        return NOT_UNDERSTOOD
    threading.Thread(target=_end_with_parent, daemon=True).start()
    die_with_parent()
    try:
        tasks[type(request)](request, emit)
    except UserError as error:
        emit("error", message=str(error))
        return 2
    except OSError as error:
        if not (advice := trouble_with_disk(error)):
            raise
        emit("error", message=f"{error.filename or 'a file'}: {advice}.")
        return 2
    return 0


def parse(line: str, known: Iterable[type[Request]]) -> Request:
    """The request in a line of JSON.

    Args:
        line: an object; its `task` says which type it is.
        known: the types.

    Raises:
        ValueError: it is none of them.
    """
    by_task = {x.model_fields["task"].default: x for x in known}
    task = None
    try:
        task = json.loads(line)["task"]
        return by_task[task].model_validate_json(line)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in error.errors()
        ]
        raise ValueError(f"task {task!r}: {'; '.join(problems)}") from None
    except (ValueError, TypeError, KeyError):
        raise ValueError(
            f"expected a task of {', '.join(by_task)}, got {task or line[:80]!r}"
        ) from None


def own_output(mode: str) -> IO[Any]:
    """Standard output for us alone; what others print goes to standard error."""
    output = os.fdopen(os.dup(1), mode, buffering=1 if mode == "w" else -1)
    os.dup2(2, 1)
    return output


def die_with_parent() -> None:
    """On Linux, have the system end this process when the one that started it ends.

    A library that hangs in C may keep the thread that waits for that from running.
    The system counts the thread that started the process, which must outlive it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_parent() -> None:
    # A parent that was killed must not leave a process that goes on writing.
    if os.name == "nt":
        # A read that waits would block whatever else looks at standard input, such as
        # the loading of some DLLs.
        if parent := machine.starter():
            parent.wait()
    else:
        # At exit a daemon thread may not hold the lock of `sys.stdin`.
        while os.read(0, 4096):
            pass
    os._exit(1)
