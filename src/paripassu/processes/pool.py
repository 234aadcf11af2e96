"""Asks several workers at once: proofs are not timed, so they may share the machine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from paripassu.core import machine
from paripassu.processes.launch import Event, work

CONTROLS = ("conv1.kernel", "dense1.kernel")  # weights that controls move by an ulp
TRACED = 3  # steps that are kept array by array
EVIDENCE: dict[str, Any] = {  # what `paripassu.worker.evidence.prove` takes, by default
    "device": "cpu",
    "traced": TRACED,
    "faults": [],
    "states": None,
    "only_single": False,
    "curves": 0,
    "control": False,
}


def hear(
    requests: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[str, Event | Exception | None]]:
    """Let each request have a process of its own, one for each core at a time.

    Args:
        requests: see `paripassu.worker`, by any name; each with one thread.

    Yields:
        A name with one of its events; with None when it is done; with the exception
        that ended it, when one did.
    """
    heard: queue.Queue[tuple[str, Event | Exception | None]] = queue.Queue()
    lanes = threading.Semaphore(machine.usable_cores())

    def ask(name: str, request: Mapping[str, Any]) -> None:
        with lanes:
            try:
                work(dict(request), lambda event: heard.put((name, event)), threads=1)
                heard.put((name, None))
            except Exception as failure:  # told by the one who listens
                heard.put((name, failure))

    for name, request in requests.items():
        # Daemons: Ctrl-C ends us, our pipes close, and the workers end by that.
        threading.Thread(target=ask, args=(name, request), daemon=True).start()
    left = set(requests)
    while left:
        try:
            name, event = heard.get(timeout=0.2)  # so that Ctrl-C is seen
        except queue.Empty:
            continue
        if event is None or isinstance(event, Exception):
            left.discard(name)
        yield name, event
