"""The child's end of the pipe: one request comes in, events go out.

One line of JSON on standard input is the request; standard input then stays open, and
its end means that the parent is gone. Events are lines of JSON on what was standard
output; whatever a framework prints goes to standard error. Exit code 0: done; 2: the
user can put it right; 1: a crash.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from paripassu.core.errors import UserError

Emit = Callable[..., None]


def serve_request(handle: Callable[[dict[str, Any], Emit], None]) -> int:
    """Answer the one request on standard input; return the exit code.

    Args:
        handle: does what a request asks; its second argument takes the name of an
            event and its values, which the parent gets.
    """
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def emit(event: str, **values: Any) -> None:
        events.write(json.dumps({"event": event, **values}) + "\n")

    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        handle(request, emit)
    except UserError as error:
        emit("error", message=str(error))
        return 2
    return 0


def _end_with_parent() -> None:
    # A parent that was killed must not leave a process that goes on writing.
    # `os.read`, because at exit a daemon thread may not hold the lock of `sys.stdin`.
    while os.read(0, 4096):
        pass
    os._exit(1)
