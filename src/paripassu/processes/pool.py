"""Run several requests at once: what is not timed may share the machine."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from paripassu.core import machine
from paripassu.processes.launch import Event, work
from paripassu.processes.request import Request

Asked = TypeVar("Asked", bound=Request)


def run_all(
    requests: Mapping[str, Asked],
    do: Callable[[Asked, Callable[[Event], None]], Any] = work,
) -> Iterator[tuple[str, Event | Exception | None]]:
    """Let each request have a process of its own, one for each core at a time.

    Args:
        requests: by any name; each with one thread.
        do: has one request done, and tells of its events.

    Yields:
        A name with one of its events; with None when it is done; with the exception
        that ended it, when one did.
    """
    told: queue.Queue[tuple[str, Event | Exception | None]] = queue.Queue()
    waiting = deque(requests.items())

    def run_one_after_the_other() -> None:
        with contextlib.suppress(IndexError):  # none is left
            while True:
                name, request = waiting.popleft()
                run(name, request)

    def run(name: str, request: Asked) -> None:
        try:
            do(request, lambda event: told.put((name, event)))
            told.put((name, None))
        except Exception as failure:  # raised by the one who takes it
            told.put((name, failure))

    for _ in range(min(len(requests), machine.usable_cores())):
        # Daemons: Ctrl-C ends us, our pipes close, and the workers end by that.
        threading.Thread(target=run_one_after_the_other, daemon=True).start()
    left = set(requests)
    while left:
        try:
            name, event = told.get(timeout=0.2)  # so that Ctrl-C is seen
        except queue.Empty:
            continue
        if event is None or isinstance(event, Exception):
            left.discard(name)
        yield name, event
