"""Reads many pictures in processes of their own, ahead of the one who takes them.

A worker is started as `python -m paripassu.prediction.decoding`. A line of JSON on its
standard input has a list of paths, and the shape of what the networks take; for each
path a line of JSON comes back, with `image` true and so many bytes after it if there is
something to see. The end of standard input ends
it.

Processes and not threads: of the time for a small picture, most is Python between short
calls into C, so that two threads did about as much in a second as one; processes do as
much more as there are free cores (`benchmarks/predict.py` times all three). And a
decoder that crashes, as C code may on a damaged file, takes one picture with it and
nothing else.
"""

from __future__ import annotations

import collections
import json
import math
import queue
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core import digits, scenes
from paripassu.core.errors import PariPassuError, UserError
from paripassu.processes.child import die_with_parent, own_output
from paripassu.processes.launch import Child

DIGIT = (digits.SIZE, digits.SIZE, 1)
CHUNK = 20  # pictures that a worker is given at a time
AHEAD = 1000  # pictures that are read and not yet taken, at most


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What came of one picture.

    Attributes:
        problem: why it could not be read; None if it could.
        image: uint8 `(h, w, c)`, as the networks take it: of a digit white ink on
            black; None if there is no ink.
        doubts: see `paripassu.core.digits.Digit`.
    """

    problem: str | None = None
    image: npt.NDArray[np.uint8] | None = None
    doubts: dict[str, str] = field(default_factory=dict)


class _CrashError(PariPassuError):
    """The worker is gone; the message says how it ended."""


class _Worker(Child):
    """The parent's side of one process."""

    def __init__(self) -> None:
        module = "paripassu.prediction.decoding"
        super().__init__("-m", module, threads=1, errors=subprocess.DEVNULL)

    def read(self, paths: Sequence[str], shape: tuple[int, ...]) -> list[Reading]:
        """Read some pictures, for networks that take images of a shape `(h, w, c)`.

        Raises:
            _CrashError: the process is gone.
        """
        answers = self.stdout
        readings: list[Reading] = []
        try:
            self.send(json.dumps({"paths": paths, "shape": shape}))
            for _ in paths:
                told = json.loads(answers.readline())
                image = None
                if told.pop("image"):
                    content = answers.read(math.prod(shape))
                    image = np.frombuffer(content, np.uint8).reshape(shape)
                readings.append(Reading(image=image, **told))
        except (OSError, EOFError, ValueError):
            self.kill()
            code = self.wait()
            self.close()
            how = f"signal {-code}" if code < 0 else f"code {code}"
            raise _CrashError(how) from None
        return readings


class Decoders:
    """Some processes that read pictures; use it in a `with` block."""

    def __init__(self, count: int, shape: tuple[int, ...] = DIGIT) -> None:
        """Start the processes.

        Args:
            count: how many, at least 1.
            shape: `(h, w, c)` of what the networks take; of digits, their ink is found.
        """
        self._shape = shape
        self._workers = [_Worker() for _ in range(count)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="decoding")
        self._closing = False

    def read(self, paths: Sequence[str]) -> Iterator[Reading]:
        """Read pictures, in the order of `paths`, ahead of whoever takes them.

        At most 1,000 pictures are read that nobody has taken, whatever the number of
        paths. What cannot be read is a `Reading` with its problem.
        """
        chunks = (paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK))
        under_way: collections.deque[Future[list[Reading]]] = collections.deque()

        def add() -> None:
            if chunk := next(chunks, None):
                under_way.append(self._pool.submit(self._read, chunk))

        for _ in range(AHEAD // CHUNK):
            add()
        while under_way:
            readings = under_way.popleft().result()
            add()
            yield from readings

    def _read(self, paths: Sequence[str]) -> list[Reading]:
        """Read a chunk, one by one with new workers if one crashes on it."""
        worker = self._idle.get()
        readings: list[Reading] = []
        try:
            try:
                return worker.read(paths, self._shape)
            except _CrashError:
                worker = self._renewed(worker)
            for path in paths:
                # Whoever killed it may have had another reason than this picture.
                for _attempt in range(2):
                    try:
                        reading = worker.read([path], self._shape)[0]
                        break
                    except _CrashError as crash:
                        worker = self._renewed(worker)
                        reading = Reading(f"its decoder has crashed ({crash})")
                readings.append(reading)
        finally:
            self._idle.put(worker)
        return readings

    def _renewed(self, old: _Worker) -> _Worker:
        """Another in the place of one that crashed, unless all are being ended."""
        if self._closing:
            raise _CrashError("its end was asked for")
        new = _Worker()
        self._workers[self._workers.index(old)] = new
        if self._closing:
            new.kill()
        return new

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *_: Any) -> None:
        self._closing = True
        for worker in self._workers:
            worker.kill()
        self._pool.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.close()


def _reading(path: str, shape: tuple[int, ...]) -> Reading:
    try:
        picture = digits.read_picture(Path(path))
        if shape != DIGIT:
            image, doubts = scenes.to_pixels(picture, shape)
            return Reading(image=image, doubts=doubts)
        digit = digits.to_digit(picture)
    except UserError as error:
        return Reading(problem=str(error))
    except MemoryError:
        return Reading(problem="it needs more memory than there is")
    if digit is None:
        return Reading()
    return Reading(image=digit.image[..., None], doubts=digit.doubts)


def main() -> int:
    """Read until standard input ends."""
    answers = own_output("wb")
    die_with_parent()
    with digits.quiet:
        for line in sys.stdin.buffer:
            asked = json.loads(line)
            for path in asked["paths"]:
                found = _reading(path, tuple(asked["shape"]))
                told = {
                    "problem": found.problem,
                    "doubts": found.doubts,
                    "image": found.image is not None,
                }
                answers.write(json.dumps(told).encode() + b"\n")
                if found.image is not None:
                    answers.write(found.image.tobytes())
            answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
