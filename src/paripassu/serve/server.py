"""The server: its socket, its signals, and the processes behind it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import ipaddress
import math
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from paripassu.conversion.model_source import ModelSource, read_source
from paripassu.core.errors import UserError
from paripassu.frameworks import registry
from paripassu.prediction.decoding import DIGIT
from paripassu.serve.app import make_app
from paripassu.serve.batching import Batcher, Served
from paripassu.serve.guard import Application, Guard

BACKLOG = 128  # connections that wait to be taken
LACKS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
OTHER_FILES = 100  # that we open beside connections
HEADER_SECONDS = 5.0  # for the header of a request to come
IDLE_SECONDS = 30  # an open connection waits for the next request
GRACE_SECONDS = 15  # for requests that are being answered when the server ends
MOST_CONNECTIONS = 500
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def choose(paths: Sequence[Path], frameworks: Sequence[str] = ()) -> list[Served]:
    """Which frameworks answer with which networks.

    One network is answered by the frameworks that are named; by those asked by default
    and the one that trained it where none is. Each of several is answered by its own.

    Raises:
        UserError: a file is no network, or no framework can answer with it.
    """
    sources = [read_source(path) for path in paths]
    for source in sources:
        if not all(np.isfinite(array).all() for array in source.weights.values()):
            raise UserError(
                f"{source.path} has weights that are not numbers: its training has "
                "failed. Train again, or name another run."
            )
    if len(sources) > 1 and frameworks:
        raise UserError(
            "--frameworks is of one model; each of several is answered by its own."
        )
    if len(sources) == 1:
        names = frameworks or _able(sources[0])
        pairs = [(sources[0], name) for name in names]
    else:
        pairs = [(source, source.framework or _able(source)[0]) for source in sources]
    for source, name in pairs:
        registry.find(name).check(source.recipe)
    for source in sources:
        shape = source.recipe.architecture.input_shape
        if shape != DIGIT:
            raise UserError(
                f"{source.path} takes images of {' x '.join(map(str, shape))}, and the "
                "page is for digits of 28 x 28 x 1. Type: paripassu predict --model "
                f"{source.path} PICTURES"
            )
    counts = {source.recipe.architecture.num_classes for source in sources}
    if len(counts) > 1:
        raise UserError(
            "the models have different numbers of classes: serve them one by one."
        )
    uses, seen = Counter(name for _, name in pairs), Counter[str]()
    served = []
    for source, framework in pairs:
        seen[framework] += 1
        number = f"-{seen[framework]}" if uses[framework] > 1 else ""
        title = registry.find(framework).title + number.replace("-", " ")
        served.append(Served(framework + number, title, source, framework))
    return served


def _able(source: ModelSource) -> list[str]:
    """Those installed that have the network: asked by default, and its own."""
    found, problems = [], []
    names = [x.name for x in registry.asked_by_default()]
    if source.framework in registry.FRAMEWORKS:
        names.append(str(source.framework))
    for name in dict.fromkeys(names):
        try:
            registry.find(name).check(source.recipe)
            found.append(name)
        except UserError as problem:
            problems.append(str(problem))
    if not found:
        raise UserError(" ".join(problems))
    return found


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UserError: the address is not ours, or the port is in use or not allowed.
    """
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        raise UserError(
            f"--host {host}: {getattr(error, 'strerror', error)}. Expected an address "
            "of this machine, for example 127.0.0.1."
        ) from None
    # "localhost" is both: browsers try both, and programs the older one.
    family, kind, protocol, _, address = min(
        found, key=lambda x: x[0] != socket.AF_INET
    )
    listener = socket.socket(family, kind, protocol)
    if os.name == "posix":  # on Windows it would let others take the port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reasons = {
            errno.EADDRINUSE: f"port {port} of {host} is in use by another program. "
            f"Type another, for example --port {port % 65535 + 1}, or --port 0 for "
            "any that is free.",
            errno.EACCES: f"port {port} is not allowed. Type --port 8000.",
            errno.EADDRNOTAVAIL: f"{host} is no address of this machine. Type "
            "--host 127.0.0.1, or --host 0.0.0.0 for all its addresses.",
        }
        message = reasons.get(
            error.errno or 0, f"cannot listen on {host}, port {port}: {error.strerror}."
        )
        raise UserError(message) from None
    return listener


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def address_of(listener: socket.socket) -> str:
    """What to type into a browser."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def allowed_hosts(listener: socket.socket) -> frozenset[str] | None:
    """What the Host header may say: on the loopback its names, else anything."""
    if not is_loopback(listener):
        return None
    host, port = listener.getsockname()[:2]
    names = {*LOOPBACK_NAMES, f"[{host}]" if ":" in host else host}
    return frozenset(f"{name}:{port}" if port != 80 else name for name in names)


def serve(
    paths: Sequence[Path],
    *,
    frameworks: Sequence[str] = (),
    host: str,
    port: int,
    threads: int,
    tell: Callable[[str], None],
    announce: Callable[[str, bool], None],
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        paths: runs or files of trained networks.
        frameworks: by name, that answer with one network; see `choose`.
        host: an address of this machine.
        port: 0 for any that is free.
        threads: of each framework.
        tell: gets one line for every trouble, in any thread.
        announce: called once with the address, when every model answers, and with
            whether only this machine reaches it.

    Raises:
        UserError: a model or the address cannot be used.
        WorkerError: a framework crashed before it could answer.
    """
    served = choose(paths, frameworks)
    with contextlib.closing(bind(host, port)) as listener:
        batchers = [Batcher(x, threads=threads, tell=tell) for x in served]
        asyncio.run(_serve(batchers, listener, announce, tell))


async def _serve(
    batchers: Sequence[Batcher],
    listener: socket.socket,
    announce: Callable[[str, bool], None],
    tell: Callable[[str], None],
) -> None:
    address = address_of(listener)
    server = Server(make_app(batchers, address), allowed_hosts(listener))
    ended = asyncio.Event()

    def end() -> None:
        server.force_exit = server.should_exit  # the second time
        server.should_exit = True
        ended.set()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(once_a_minute(tell))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(end))
    ending = loop.create_task(ended.wait())
    try:
        starts = asyncio.gather(*(batcher.start() for batcher in batchers))
        first: set[asyncio.Future[Any]] = {starts, ending}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if ended.is_set():
            starts.cancel()
            return
        await starts
        gc.collect()
        gc.freeze()  # what is there stays: later collections need not look at it
        announce(address, is_loopback(listener))
        await server.serve(sockets=[listener])
    finally:
        ending.cancel()
        for batcher in batchers:
            batcher.stop()
        for batcher in batchers:
            await asyncio.to_thread(batcher.join)


def once_a_minute(
    tell: Callable[[str], None],
) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """What an event loop does with trouble: a lack of files is told, but not always.

    Without one for the next connection it finds the same trouble again and again.
    """
    told = -math.inf

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal told
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in LACKS):
            loop.default_exception_handler(context)
        elif loop.time() - told > 60:
            told = loop.time()
            tell(f"a connection has to wait: {error.strerror}.")

    return handle


def room_for_connections() -> int:
    """How many connections there may be: each takes a file of those we may open."""
    try:
        import resource
    except ImportError:  # Windows, where sockets are no files
        return MOST_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, soft - OTHER_FILES)
    return MOST_CONNECTIONS


class Server(uvicorn.Server):
    """Leaves signals to us: uvicorn would send them again after a clean end."""

    def __init__(self, application: Application, hosts: frozenset[str] | None) -> None:
        """Serve an application under some names, see `Guard`."""
        Protocol.most = room_for_connections()
        config = uvicorn.Config(
            Guard(application, hosts, lambda: self.should_exit),
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave them alone."""
        yield


class Protocol(H11Protocol):
    """Closes connections that are too many, or whose headers do not come.

    Where there are too many, the one that has waited longest for its client goes.

    Attributes:
        most: connections at a time.
        since: when this one began to wait.
    """

    most = MOST_CONNECTIONS
    since = 0.0
    _slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin a connection."""
        super().connection_made(transport)
        self.since = self.loop.time()
        self._slow = self.loop.call_later(HEADER_SECONDS, self._too_slow)
        if len(self.connections) > self.most:
            others = (x for x in self.connections if x is not self)
            waiting = [x for x in others if isinstance(x, Protocol) and x.waits]
            if waiting:
                min(waiting, key=lambda x: x.since).drop()
            else:
                self._turn_away(b"503 Service Unavailable\r\nretry-after: 1")

    @property
    def waits(self) -> bool:
        """Whether it waits for its client: for a request, or the rest of one."""
        return self._waits or (self.cycle.more_body and not self.cycle.response_started)

    def drop(self) -> None:
        """Close at once, without what the client has not yet taken."""
        self.connections.discard(self)
        self.transport.abort()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self.since = self.loop.time()
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        """Take bytes; the time for a header runs from its first one."""
        if self.transport.is_closing():
            return
        if self._slow is None and self._waits:
            self._slow = self.loop.call_later(HEADER_SECONDS, self._too_slow)
        super().data_received(data)
        if not self._waits:
            self._stop_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._stop_clock()
        super().connection_lost(exc)

    @property
    def _waits(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _stop_clock(self) -> None:
        if self._slow:
            self._slow.cancel()
            self._slow = None

    def _too_slow(self) -> None:
        self._slow = None
        if not self._waits:
            return
        if self.conn.trailing_data[0]:  # part of a header has come
            self._turn_away(b"408 Request Timeout")
        else:
            self.transport.close()

    def _turn_away(self, status: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 " + status + b"\r\nconnection: close\r\n"
                b"content-length: 0\r\n\r\n"
            )
            self.transport.close()
