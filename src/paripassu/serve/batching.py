"""Requests that wait are answered together: one queue and one thread a network.

The thread talks to the network's process over blocking pipes and takes whatever waits,
without a delay: alone a request is answered at once, and under load batches form by
themselves. A process that ends is started again.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from paripassu.conversion.model_source import ModelSource
from paripassu.core.errors import PariPassuError
from paripassu.prediction.answering import Answerer, Images, Probabilities

BATCH = 32  # images of a kind answered together: on a processor more are not faster
WAITING = 1024  # images that may wait for one network
ANSWER_SECONDS = 10.0  # a request waits no longer
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a process starts again
SETTLED_SECONDS = 60.0  # after that long without trouble, pauses begin anew
CLOSE_SECONDS = 2.0

Answer = tuple[Probabilities, float]


@dataclass(frozen=True)
class Served:
    """A network and the framework that answers with it."""

    name: str  # in addresses and answers: "pytorch"
    title: str  # on the page: "PyTorch"
    source: ModelSource
    framework: str


class NotReadyError(PariPassuError):
    """There is no answer now; `seconds` says when to ask again."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = max(1, math.ceil(seconds))


@dataclass(eq=False, slots=True)
class _Waiting:
    images: Images
    answer: asyncio.Future[Answer]


class Batcher:
    """The queue of one network, its thread and its process.

    All methods but the thread's own belong to the event loop's thread.
    """

    def __init__(
        self, served: Served, *, threads: int, tell: Callable[[str], None]
    ) -> None:
        """Prepare; `tell` gets one line for every trouble, in any thread."""
        self.served = served
        self.status = "starting"  # then "ready", "restarting", "stopping"
        self.restarts = 0
        self._threads, self._tell = threads, tell
        self._single: deque[_Waiting] = deque()  # requests of one image
        self._slices: deque[_Waiting] = deque()  # of larger requests
        self._changed = threading.Condition()
        self._stopping = False
        self._unanswered = 0  # images; in the event loop's thread only
        self._answerer: Answerer | None = None
        self._asked_at: float | None = None  # when the batch on its way was sent
        self._ready_at = 0.0  # monotonic: when it was, or is likely to be
        self._start_seconds = 0.0
        self._thread = threading.Thread(target=self._drive, name=served.name)

    def start(self) -> asyncio.Future[None]:
        """Start the process; the result comes when it can answer.

        It fails with `WorkerError` or `UserError` if the first start fails.
        """
        self._loop = asyncio.get_running_loop()
        self._first: asyncio.Future[None] = self._loop.create_future()
        self._thread.start()
        return self._first

    def put(self, images: Images) -> list[asyncio.Future[Answer]]:
        """Have images answered, uint8 `(N, 28, 28)`: one future for each slice.

        Raises:
            NotReadyError: the process is not there, or the queue is full.
        """
        count = len(images)
        if self._unanswered + count > WAITING:
            raise NotReadyError(f"{self.served.title}: too many images are waiting.", 1)
        slices = [images[i : i + BATCH] for i in range(0, count, BATCH)]
        waiting = [_Waiting(x, self._loop.create_future()) for x in slices]
        with self._changed:
            if self.status != "ready":
                raise self._not_ready()
            (self._slices if count > 1 else self._single).extend(waiting)
            self._changed.notify()
        self._unanswered += count
        for item in waiting:
            item.answer.add_done_callback(partial(self._forget, len(item.images)))
        return [item.answer for item in waiting]

    def _forget(self, size: int, answer: asyncio.Future[Answer]) -> None:
        self._unanswered -= size
        if not answer.cancelled():
            answer.exception()  # seen, even if nobody waits for it any more

    def too_late(self) -> NotReadyError:
        """What to say when an answer did not come in time.

        A process that is stuck in one batch is killed: a new one comes.
        """
        asked, answerer = self._asked_at, self._answerer
        if asked and answerer and time.monotonic() - asked > 0.9 * ANSWER_SECONDS:
            self._tell(f"{self.served.title} is stuck and is killed.")
            answerer.kill()
        return NotReadyError(
            f"{self.served.title} did not answer within {ANSWER_SECONDS:.0f} seconds.",
            self._start_seconds,
        )

    def _not_ready(self) -> NotReadyError:
        return NotReadyError(
            f"{self.served.title} is {self.status}.", self._ready_at - time.monotonic()
        )

    def stop(self) -> None:
        """Begin to end: what waits is answered, what comes is not."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self.status != "ready" and (answerer := self._answerer):
            answerer.kill()

    def join(self) -> None:
        """After `stop`, wait for the end; a process that does not end is killed."""
        if not self._thread.ident:
            return
        self._thread.join(CLOSE_SECONDS)
        while self._thread.is_alive():
            if answerer := self._answerer:
                answerer.kill()
            self._thread.join(0.1)

    # What follows runs in the thread.

    def _drive(self) -> None:
        troubles = 0
        while not self._stopping:
            begin = time.monotonic()
            try:
                self._run(begin)
            except Exception as trouble:
                if self._stopping:
                    break
                if not self._start_seconds:
                    self._post(self._begun, trouble)
                    break
                settled = self.status == "ready" and (
                    time.monotonic() - self._ready_at > SETTLED_SECONDS
                )
                troubles = 1 if settled else troubles + 1
                self._fail(trouble, troubles)
        with self._changed:
            self.status = "stopping"
            self._refuse_all()

    def _run(self, begin: float) -> None:
        """One process, from its start to its end."""
        with Answerer(
            self.served.source, self.served.framework, threads=self._threads
        ) as answerer:
            self._answerer = answerer
            try:
                if self._stopping:
                    return
                answerer.wait()
                with self._changed:
                    self.status = "ready"
                    self._ready_at = time.monotonic()
                    self._start_seconds = self._ready_at - begin
                self._post(self._begun, None)
                while batch := self._next():
                    self._answer(answerer, batch)
            finally:
                self._answerer = None
                if self._stopping:
                    answerer.kill()

    def _next(self) -> list[_Waiting]:
        """Wait for requests and take a batch; none: it is over.

        A batch is the single images that wait, and one slice of a larger request: so
        neither waits long for the other.
        """
        batch: list[_Waiting] = []
        with self._changed:
            while not batch:
                self._changed.wait_for(
                    lambda: self._stopping or self._single or self._slices
                )
                if not (self._single or self._slices):
                    return []
                taken = [
                    self._single.popleft() for _ in range(min(BATCH, len(self._single)))
                ]
                if self._slices:
                    taken.append(self._slices.popleft())
                batch = [x for x in taken if not x.answer.done()]  # somebody waits
        return batch

    def _answer(self, answerer: Answerer, batch: list[_Waiting]) -> None:
        self._asked_at = time.monotonic()
        try:
            images = np.concatenate([item.images for item in batch])
            probabilities, seconds = answerer.ask(images)
        except BaseException:
            with self._changed:
                self._single.extendleft(batch)  # to be refused with the others
            raise
        finally:
            self._asked_at = None
        self._post(_deliver, batch, probabilities, seconds)

    def _fail(self, trouble: Exception, troubles: int) -> None:
        """Refuse what waits, say it, and pause."""
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (troubles - 1))
        with self._changed:
            self.status = "restarting"
            self.restarts += 1
            self._ready_at = time.monotonic() + pause + self._start_seconds
            self._refuse_all()
        self._tell(f"{trouble}\n{self.served.title} starts again in {pause:.1f} s.")
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, pause)

    def _refuse_all(self) -> None:
        items = [*self._single, *self._slices]
        self._single.clear()
        self._slices.clear()
        self._post(_refuse, items, self._not_ready())

    def _post(self, function: Callable[..., None], *arguments: object) -> None:
        """Have the event loop call a function: futures belong to its thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _begun(self, trouble: Exception | None) -> None:
        if self._first.done():
            return
        if trouble:
            self._first.set_exception(trouble)
        else:
            self._first.set_result(None)


async def ask_all(batchers: Sequence[Batcher], images: Images) -> list[Answer]:
    """What each says of the same images, uint8 `(N, 28, 28)`, white ink on black.

    Returns:
        Of each, float32 `(N, classes)`, and the seconds inside the network of all
        batches that the images were in.

    Raises:
        NotReadyError: one of them has no answer now.
    """
    pending: list[list[asyncio.Future[Answer]]] = []
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            for batcher in batchers:
                pending.append(batcher.put(images))
            answers = [[await part for part in parts] for parts in pending]
    except TimeoutError:
        for batcher, parts in zip(batchers, pending, strict=True):
            if any(part.cancelled() or not part.done() for part in parts):
                raise batcher.too_late() from None
        raise NotReadyError("the answers did not come in time.", 1) from None
    finally:
        for parts in pending:
            for part in parts:
                part.cancel()
    return [
        (np.concatenate([x for x, _ in parts]), sum(seconds for _, seconds in parts))
        for parts in answers
    ]


def _deliver(
    batch: list[_Waiting], probabilities: Probabilities, seconds: float
) -> None:
    start = 0
    for item in batch:
        end = start + len(item.images)
        if not item.answer.done():
            item.answer.set_result((probabilities[start:end], seconds))
        start = end


def _refuse(items: list[_Waiting], reason: NotReadyError) -> None:
    for item in items:
        if not item.answer.done():
            item.answer.set_exception(reason)
