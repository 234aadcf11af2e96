"""A server in a process of its own, and strokes to draw on its page."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import psutil
from helpers import COMMAND, PATIENCE, environment, wait_for

Headers = dict[str, str]
JSON = {"Content-Type": "application/json"}
PNG = {"Content-Type": "image/png"}


class Server:
    """`paripassu serve` with options, until the end of a `with`."""

    def __init__(
        self, *options: object, log: Path, ready: bool = True, path: str = ""
    ) -> None:
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*COMMAND, "serve", "--port", "0", *map(str, options)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment(path),
                text=True,
                start_new_session=True,
            )
        if ready:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        assert self.process.stdout
        self.url = self.process.stdout.readline().strip()
        assert self.url, self.errors
        self.host, self.port = urlsplit(self.url).hostname, urlsplit(self.url).port

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        workers = self.workers()
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        assert self.process.stdout
        self.process.stdout.close()

    @property
    def errors(self) -> str:
        return self._log.read_text()

    def workers(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []

    def worker(self, framework: str) -> psutil.Process:
        """The process of one framework: it has opened that framework's library."""
        library = {"pytorch": "libtorch", "tensorflow": "libtensorflow"}[framework]
        return next(
            worker
            for worker in self.workers()
            if any(library in x.path for x in worker.memory_maps())
        )

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(str(self.host), self.port, timeout=PATIENCE)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Headers | None = None,
    ) -> tuple[int, Headers, bytes]:
        """Status code, headers in lower case, body."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            found = {name.lower(): text for name, text in response.getheaders()}
            return response.status, found, response.read()

    def get(self, path: str) -> Any:
        status, _, body = self.request("GET", path)
        assert status == 200, body
        return json.loads(body)

    def predict(self, question: Any, query: str = "") -> Any:
        """The answer to a question that is right."""
        status, _, body = self.request(
            "POST", f"/predict{query}", json.dumps(question).encode(), JSON
        )
        assert status == 200, body
        return json.loads(body)

    def wait_until_well(self) -> None:
        wait_for(lambda: self.request("GET", "/health")[0] == 200, "health", 120)


class Later(threading.Thread):
    """A request that runs beside the test."""

    def __init__(self, server: Server, question: Any) -> None:
        super().__init__()
        self._server = server
        self._body = json.dumps(question).encode()
        self.start()

    def run(self) -> None:
        self._answer = self._server.request("POST", "/predict", self._body, JSON)

    @property
    def refused(self) -> bool:
        """Whether it was answered by now, and with 503."""
        return not self.is_alive() and self._answer[0] == 503

    @property
    def retry_after(self) -> int:
        """Of an answer that is there."""
        return int(self._answer[1]["retry-after"])

    def answer(self) -> tuple[int, Any]:
        self.join(PATIENCE)
        status, _, body = self._answer
        return status, json.loads(body)


def strokes_of(image: npt.NDArray[np.uint8]) -> list[list[tuple[float, float]]]:
    """Lines with which a pen would draw a digit, in widths of the sheet.

    The skeleton of the ink (Zhang and Suen 1984), walked from end to end.
    """
    rows, columns = np.nonzero(skeleton(image > 100))
    left = set(zip(rows.tolist(), columns.tolist(), strict=True))
    height, width = image.shape
    strokes = []
    while left:
        spot = min(left, key=lambda x: (len(_beside(x, left)), x))
        stroke = [spot]
        left.discard(spot)
        while beside := _beside(spot, left):
            spot = min(beside, key=lambda x: abs(x[0] - spot[0]) + abs(x[1] - spot[1]))
            stroke.append(spot)
            left.discard(spot)
        kept = [*stroke[:-1:2], stroke[-1]]
        strokes.append([((x + 0.5) / width, (y + 0.5) / height) for y, x in kept])
    return [x for x in strokes if len(x) > 1] or strokes


def _beside(spot: tuple[int, int], spots: set[tuple[int, int]]) -> list[Any]:
    y, x = spot
    around = [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    return [x for x in around if x in spots]


def skeleton(ink: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Lines one pixel wide in the middle of ink that does not touch the border."""
    ink = np.pad(ink, 1)
    changed = True
    while changed:
        changed = False
        for first in (True, False):
            ring = [
                np.roll(ink, shift, (0, 1))
                for shift in (
                    (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1)
                )
            ]  # fmt: skip
            count = sum(x.astype(int) for x in ring)
            steps = sum((~ring[i] & ring[(i + 1) % 8]).astype(int) for i in range(8))
            north, east, south, west = ring[0], ring[2], ring[4], ring[6]
            if first:
                free = ~(north & east & south) & ~(east & south & west)
            else:
                free = ~(north & east & west) & ~(north & south & west)
            gone = ink & (count >= 2) & (count <= 6) & (steps == 1) & free
            changed = changed or bool(gone.any())
            ink = ink & ~gone
    return ink[1:-1, 1:-1]
