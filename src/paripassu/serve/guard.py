"""What stands before the application: who may ask, and headers of every response."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from paripassu.serve.questions import RequestError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 2**22  # of a body
BODY_SECONDS = 10.0  # for a body to come
LINGER_BYTES, LINGER_SECONDS = 2**23, 1.0  # read of a body that is refused

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_HEADERS = [(name.lower().encode(), text.encode()) for name, text in SECURITY.items()]


class Guard:
    """Lets requests through that a page of ours, or a program, may make."""

    def __init__(
        self,
        application: Application,
        hosts: frozenset[str] | None,
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        """Stand before an application; `hosts` in lower case, None for anything.

        Once `ending` says so, every response closes its connection. With the names of
        the loopback only in `hosts`, a foreign page that has its own name point here
        (DNS rebinding) is turned away.
        """
        self._application, self._hosts = application, hosts
        self._ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = dict(scope["headers"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(b"connection", b"close")] * self._ending()
                message["headers"] = [*message["headers"], *_HEADERS, *more]
            await send(message)

        try:
            self._check(scope["method"], headers)
        except RequestError as refusal:
            await refuse(refusal, receive, send_with_headers)
            return
        await self._application(scope, receive, send_with_headers)

    def _check(self, method: str, headers: dict[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self._hosts is not None and host not in self._hosts:
            raise RequestError(
                421,
                f"this server answers to {' and '.join(sorted(self._hosts))}, not to "
                f"{host[:100]!r}.",
            )
        if method in ("GET", "HEAD"):
            return
        origin = headers.get(b"origin")
        site = headers.get(b"sec-fetch-site", b"none")
        foreign = site not in (b"same-origin", b"none")
        if origin is not None:
            _scheme, _, place = origin.decode("latin-1").lower().partition("://")
            foreign = foreign or place != host
        if foreign:
            raise RequestError(403, "pages of other sites may not ask.")


async def read_body(headers: dict[bytes, bytes], receive: Receive) -> bytes:
    """The body of a request, not more of it than is allowed.

    Raises:
        RequestError: it is too large (413), too slow (408) or compressed (415).
        ConnectionError: the client has gone.
    """
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise RequestError(415, "expected a body without Content-Encoding.")
    too_large = RequestError(413, f"expected at most {MOST_BYTES:,} bytes.")
    if int(headers.get(b"content-length", b"0")) > MOST_BYTES:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionError
                body += message.get("body", b"")
                if len(body) > MOST_BYTES:
                    raise too_large
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise RequestError(
            408, f"the body did not come within {BODY_SECONDS:.0f} seconds."
        ) from None


async def refuse(refusal: RequestError, receive: Receive, send: Send) -> None:
    """Say no before the body has come, and close the connection.

    A client may still be sending. If we closed at once, the system would reset the
    connection and the client might never see why: so a little more is read.
    """
    body = json.dumps({"detail": str(refusal)}).encode()
    start = {
        "type": "http.response.start",
        "status": refusal.status,
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
        ],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": True})
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while size < LINGER_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if not message.get("more_body", False):
                    break
    await send({"type": "http.response.body", "body": b"", "more_body": False})
