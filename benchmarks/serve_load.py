"""Ask `paripassu serve` at a constant rate and say how long answers take.

Open loop: requests leave at their times, whether or not earlier ones are answered, and
latency counts from the time at which a request should have left, so that a server that
stalls cannot hide it.

python benchmarks/serve_load.py --model runs/mine
python benchmarks/serve_load.py --url http://127.0.0.1:8000/ --rate 400 --json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil

from paripassu.core import datasets
from paripassu.core.machine import processor, usable_cores

TARGET = 0.1  # seconds, of the 99th percentile
ANSWER_SECONDS = 30.0


class Client:
    """Connections that stay open; as many as are needed at once."""

    def __init__(self, host: str, port: int) -> None:
        self._place = host, port
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self.opened = 0

    async def open(self, count: int) -> None:
        """Open connections before the first request."""
        self._idle.extend([await self._connect() for _ in range(count)])

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.opened += 1
        return await asyncio.open_connection(*self._place)

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send the bytes of a request; status code and body of the answer."""
        reader, writer = self._idle.pop() if self._idle else await self._connect()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head.partition("content-length:")[2].partition("\r\n")[0])
        body = await reader.readexactly(size)
        if "connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(head.split(" ", 2)[1]), body


async def measure(
    url: str, requests: list[bytes], labels: list[int], rate: float, seconds: float
) -> dict[str, Any]:
    """Ask at a constant rate; latencies in milliseconds, and what went wrong."""
    parts = urlsplit(url)
    client = Client(parts.hostname or "127.0.0.1", parts.port or 80)
    await client.open(8)
    await asyncio.gather(*(client.ask(requests[i % len(requests)]) for i in range(16)))
    count = round(rate * seconds)
    latencies: list[float] = []
    late: list[float] = []
    errors: Counter[str] = Counter()
    right = Counter[str]()
    gaps = [0.0]
    begin = time.perf_counter() + 0.1

    async def one(number: int, due: float) -> None:
        late.append(time.perf_counter() - due)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                status, body = await client.ask(requests[number % len(requests)])
        except Exception as error:
            errors[type(error).__name__] += 1
            return
        latencies.append(time.perf_counter() - due)
        if status != 200:
            errors[f"status {status}"] += 1
            return
        prediction = json.loads(body)["predictions"][0]
        gaps.append(prediction["largest_difference"])
        for answer in prediction["answers"]:
            right[answer["model"]] += answer["digit"] == labels[number % len(labels)]

    gc.disable()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            due = begin + number / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            group.create_task(one(number, due))
    taken = time.perf_counter() - begin
    found = 1000 * np.array(latencies or [float("nan")])
    p50, p95, p99 = np.percentile(found, [50, 95, 99]).round(2).tolist()
    return {
        "rate": rate,
        "requests": count,
        "seconds": round(taken, 2),
        "answers": len(latencies),
        "errors": dict(errors),
        "milliseconds": {
            "p50": p50,
            "p95": p95,
            "p99": p99,
            "max": round(float(found.max()), 2),
        },
        "sent_late_p99": round(1000 * float(np.percentile(late, 99)), 2),
        "connections": client.opened,
        "right": {name: n / count for name, n in right.items()},
        "largest_difference": max(gaps),
    }


def requests_of(url: str, count: int) -> tuple[list[bytes], list[int]]:
    """Requests with test images, ready to be sent, and their labels."""
    data = datasets.load()
    host = urlsplit(url).netloc
    made = []
    for image in data.test_images[:count, :, :, 0]:
        body = json.dumps({"image": image.tolist()}, separators=(",", ":")).encode()
        head = (
            f"POST /predict HTTP/1.1\r\nHost: {host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made, data.test_labels[:count].tolist()


@contextlib.contextmanager
def server(model: str | None, url: str | None) -> Iterator[str]:
    """The address of a server: the one that is given, or one for the occasion."""
    if url:
        yield url
        return
    words = ["-P", "-c", "from paripassu.cli import main; main()", "serve"]
    process = subprocess.Popen(
        [sys.executable, *words, "--model", str(model), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        address = process.stdout.readline().strip()
        if not address:
            sys.exit(process.wait())
        yield address
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--model", help="a run to serve, with every framework")
    where.add_argument("--url", help="of a server that runs")
    parser.add_argument("--rate", type=float, default=200, help="requests in a second")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    with server(given.model, given.url) as url:
        requests, labels = requests_of(url, 1000)
        before = psutil.cpu_times()
        found = asyncio.run(measure(url, requests, labels, given.rate, given.seconds))
        after = psutil.cpu_times()
    idle = (after.idle - before.idle) / (psutil.cpu_count() or 1)
    times = found["milliseconds"]
    errors = found["errors"]
    held = not errors and times["p99"] < 1000 * TARGET
    found |= {
        "machine": f"{processor()}, {usable_cores()} cores",
        "busy": round(1 - idle / found["seconds"], 2),
        "holds": held,
    }
    if given.json:
        print(json.dumps(found, indent=1))
    else:
        print(
            f"{found['requests']:,} requests at {given.rate:g}/s: "
            + ", ".join(f"{name} {value:g} ms" for name, value in times.items())
        )
        print(f"errors: {errors or 'none'}; connections: {found['connections']}")
        print(
            f"right: {found['right']}; largest difference "
            f"{found['largest_difference']:.1e}"
        )
        print(
            f"{found['machine']}, busy {found['busy']:.0%} with whatever ran; sent "
            f"late by {found['sent_late_p99']:g} ms (99%)"
        )
        print(f"99% below {1000 * TARGET:g} ms, no error: {'yes' if held else 'NO'}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
