"""Run several requests at once: what is not timed may share the machine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping

from paripassu.core import machine
from paripassu.processes.launch import Event, work
from paripassu.processes.request import Request


def run_all(
    requests: Mapping[str, Request],
) -> Iterator[tuple[str, Event | Exception | None]]:
    """Let each request have a process of its own, one for each core at a time.

    Args:
        requests: by any name; each with one thread.

    Yields:
        A name with one of its events; with None when it is done; with the exception
        that ended it, when one did.
    """
    told: queue.Queue[tuple[str, Event | Exception | None]] = queue.Queue()
    lanes = threading.Semaphore(machine.usable_cores())

    def run(name: str, request: Request) -> None:
        with lanes:
            try:
                work(request, lambda event: told.put((name, event)))
                told.put((name, None))
            except Exception as failure:  # raised by the one who takes it
                told.put((name, failure))

    for name, request in requests.items():
        # Daemons: Ctrl-C ends us, our pipes close, and the workers end by that.
        threading.Thread(target=run, args=(name, request), daemon=True).start()
    left = set(requests)
    while left:
        try:
            name, event = told.get(timeout=0.2)  # so that Ctrl-C is seen
        except queue.Empty:
            continue
        if event is None or isinstance(event, Exception):
            left.discard(name)
        yield name, event
