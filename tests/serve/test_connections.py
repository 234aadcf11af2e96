"""Connections, with an application that answers when the test says so."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="type: pip install '.[serve]'")

from paripassu.serve import server as serving
from paripassu.serve.questions import RequestError, from_json_body

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def running(
    answer: asyncio.Event, most: int
) -> AsyncIterator[tuple[serving.Server, Callable[..., Any]]]:
    """A server, and what opens a connection to it and sends some bytes."""

    async def application(scope: Any, _receive: Any, send: Any) -> None:
        if scope["path"] == "/wait":
            await answer.wait()
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok", "more_body": False})

    listener = serving.bind("127.0.0.1", 0)
    server = serving.Server(application, None)
    serving.Protocol.most = most
    serve = asyncio.create_task(server.serve(sockets=[listener]))
    opened: list[Streams] = []

    async def connect(content: bytes = b"") -> Streams:
        streams = await asyncio.open_connection(*listener.getsockname())
        opened.append(streams)
        streams[1].write(content)
        return streams

    try:
        yield server, connect
    finally:
        answer.set()
        server.should_exit = True
        await serve
        for _, writer in opened:
            writer.close()


async def status(streams: Streams) -> bytes:
    return (await asyncio.wait_for(streams[0].readline(), 5)).strip()


def test_who_waits_longest_makes_room_and_who_is_answered_does_not() -> None:
    async def main() -> None:
        answer = asyncio.Event()
        async with running(answer, most=3) as (server, connect):
            silent = await connect()
            slow = await connect(
                b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"
            )
            await asyncio.sleep(0.05)
            asked = [await connect(GET % b"wait")]
            begin = time.monotonic()
            asked.append(await connect(GET % b"wait"))
            assert await silent[0].read() == b""  # it had to go
            asked.append(await connect(GET % b"wait"))
            with contextlib.suppress(ConnectionError):
                assert await slow[0].read() == b""
            surplus = await connect()
            assert await status(surplus) == b"HTTP/1.1 503 Service Unavailable"
            assert time.monotonic() - begin < serving.HEADER_SECONDS
            # What comes while the server ends is answered, and the connection closed.
            server.should_exit = True
            answer.set()
            for streams in asked:
                content = await asyncio.wait_for(streams[0].read(), 5)
                assert content.startswith(b"HTTP/1.1 200 ")
                assert b"\r\nconnection: close\r\n" in content

    asyncio.run(main())


def test_many_texts_take_no_more_memory_than_they_have() -> None:
    body = json.dumps({"image": ["x" * 10**6] + [""] * 10**5}).encode()
    tracemalloc.start()
    with pytest.raises(RequestError, match="100001 rows"):
        from_json_body(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26


def test_a_lack_of_files_is_told_once() -> None:
    told: list[str] = []
    lack = {"exception": OSError(errno.EMFILE, "Too many open files"), "message": ""}
    other = {"exception": OSError(errno.EIO, "broken"), "message": "other"}
    loop = asyncio.new_event_loop()
    others: list[Any] = []
    loop.default_exception_handler = others.append  # type: ignore[method-assign]
    loop.set_exception_handler(serving.once_a_minute(told.append))
    for context in [lack] * 1000 + [other]:
        loop.call_exception_handler(context)
    loop.close()
    assert told == ["a connection has to wait: Too many open files."]
    assert others == [other]
