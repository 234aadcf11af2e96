"""Trainings on a cluster of Ray: on this machine alone, or on one that runs already.

Ray is imported when it is needed. What travels are JSON and bytes. Ray itself unpickles
what comes from its cluster, as it must: whoever can reach a cluster can run code on it
(`docs/scale.md`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from paripassu.core import files, machine
from paripassu.core.errors import UserError
from paripassu.processes.dispatch import (
    Dispatcher,
    LaneDied,
    Resources,
    Wishes,
    capacity,
    within,
)
from paripassu.processes.executors import Tell
from paripassu.processes.lane import Lane, Place
from paripassu.processes.requests import TrainRequest

LOCAL = "local"
ADDRESS = "RAY_ADDRESS"  # Ray's own name of it
REACHED_WITHIN = 5.0  # seconds
# A head starts a process for each that comes, which on a busy machine ends at times
# before it serves; Ray gives up then, with these words.
NOT_SERVED, TRIES, PAUSE = "Starting Ray client server failed", 3, 2.0
FAREWELL = 5.0  # seconds that lanes have to leave a clean node
# Ray's switch for other machines: without them it stays on loopback, and does not look
# there for this machine's address in a network. It is read when Ray is imported.
ALONE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
LOOPBACK = ("127.0.0.1:", "localhost:", "[::1]:")
NODE_LABEL = "ray.io/node-id"


class OnRay:
    """Trainings as processes on the nodes of a Ray cluster.

    Each lane is an actor, and holds its share of a node as long as there are runs that
    it can do.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        resources: Mapping[str, float] | None = None,
        exclusive: bool = False,
        storage: str | Path | None = None,
        retries: int = 3,
        patience: float = 300.0,
        lane: type[Lane] = Lane,
    ) -> None:
        """Say where and how; nothing is started or reached yet.

        Args:
            address: "ray://HOST:PORT"; None: what `RAY_ADDRESS` says, and without
                that a Ray on this machine alone, which ends with the work.
            resources: what a run takes of its node: "CPU" (without it, one for each of
                its threads), "GPU", or whatever the nodes were given.
            exclusive: give each run a whole node, so that its times are its own.
            storage: a folder that all nodes and this machine see under the same path.
                Runs are made there in place; without it they travel.
            retries: how often a run whose node is lost goes on elsewhere.
            patience: seconds to wait for a node on which a run can begin.
            lane: the class of the actors.
        """
        self._address = address or os.environ.get(ADDRESS) or LOCAL
        self._lane = lane
        self._wishes = Wishes(
            resources=dict(resources or {}),
            exclusive=exclusive,
            storage=Path(storage).resolve() if storage else None,
            retries=retries,
            patience=patience,
        )
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> OnRay:
        """Start or reach the cluster.

        Raises:
            UserError: Ray is not installed, or the cluster cannot be reached.
        """
        if importlib.util.find_spec("ray") is None:
            raise UserError(
                "Ray is not installed. Type: pip install 'ray[client]'; or leave "
                "out --on, and all runs here."
            )
        if self._wishes.storage:
            files.make_folder(self._wishes.storage)
        if self._address == LOCAL or self._address.startswith(LOOPBACK):
            os.environ.setdefault(ALONE, "0")
        import ray

        if not ray.is_initialized():  # a program of the user's may have done it
            _connect(self._address)
            self._stack.callback(ray.shutdown)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the cluster; end the one of this machine alone."""
        self._stack.close()

    def places(self, threads: int, *, timed: bool) -> int:
        """What the nodes hold, whoever else is there."""
        del timed
        wanted = {"CPU": float(threads), **self._wishes.resources}
        with RayCluster(self._lane) as cluster:
            return capacity(cluster.nodes().values(), wanted, self._wishes.exclusive)

    def run(
        self, requests: Mapping[str, TrainRequest], tell: Tell, *, timed: bool
    ) -> None:
        """Have all requests done; those named first begin first.

        Raises:
            UserError: the connection is lost, a folder is not where it must be, or
                runs that are timed are to have fewer CPUs than threads.
        """
        least = max((x.threads for x in requests.values()), default=1)
        if timed and self._wishes.resources.get("CPU", least) < least:
            raise UserError(
                f"runs that are timed take a CPU for each of their {least} threads: "
                f"expected --take CPU={least} or more. Type fewer --threads, or more "
                "CPUs."
            )
        if self._wishes.storage:
            within(requests, self._wishes.storage)
        with RayCluster(self._lane) as cluster:
            try:
                Dispatcher(cluster, requests, tell, self._wishes).go()
            except ConnectionError as error:
                raise UserError(
                    f"the connection to {self._address} is lost: {_told(error)} "
                    "What is done is kept: type the same command again to go on."
                ) from error


def _connect(address: str) -> None:
    """Start Ray here for `LOCAL`, or reach the cluster at an address."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    import ray

    if address == LOCAL:
        # Its processes would yield to all others of this machine.
        os.environ.setdefault("RAY_worker_niceness", "0")
        ray.init(
            LOCAL,
            num_cpus=machine.usable_cores(),
            include_dashboard=False,
            **quiet,
        )
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if address != "auto":
        if parts.scheme not in ("", "ray") or not host or not port:
            raise UserError(
                f"{address!r} is no address of a Ray cluster: expected "
                f"ray://HOST:PORT, such as ray://10.0.0.1:10001, or in {ADDRESS} also "
                "HOST:PORT of its head."
            )
        try:
            socket.create_connection((host, port), REACHED_WITHIN).close()
        except OSError as error:
            raise UserError(
                f"no Ray cluster answers at {address}: {error.strerror or error}. "
                "Start one with 'ray start --head', or leave out --on."
            ) from None
    for left in reversed(range(TRIES)):
        try:
            ray.init(address, **quiet)
            return
        except Exception as error:  # of many kinds: of grpc, of Ray, of the system
            if left and NOT_SERVED in str(error):
                time.sleep(PAUSE)
                continue
            raise UserError(
                f"the Ray cluster at {address} cannot be used: {_told(error)} It needs "
                f"the same versions of Python and of Ray ({ray.__version__}) as here."
            ) from error


class RayLane(Lane):
    """A lane that knows its node by Ray's name."""

    def describe(self) -> str:
        """The node, as the JSON of a `Place`."""
        import ray

        place = Place.model_validate_json(super().describe())
        node = ray.get_runtime_context().get_node_id()
        return place.model_copy(update={"node": node}).model_dump_json()


class RayCluster:
    """The eight verbs of `dispatch.Cluster`, by Ray."""

    def __init__(self, lane: type[Lane]) -> None:
        import ray

        self._ray = ray
        own = RayLane if lane is Lane else lane
        # Two at a time: a lane is told to close while it waits for news.
        self._actor = ray.remote(max_concurrency=2, max_restarts=0)(own)
        self._closing: list[tuple[Any, Any]] = []

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *_: object) -> None:
        """Give lanes that were dismissed time to clean up, then end them."""
        with contextlib.suppress(Exception):  # the cluster may be gone
            answers = [answer for _, answer in self._closing]
            if answers:
                self._ray.wait(answers, num_returns=len(answers), timeout=FAREWELL)
        self.forget([lane for lane, _ in self._closing])
        self._closing.clear()

    def nodes(self) -> dict[str, Resources]:
        """The nodes that live, and what each has."""
        return {
            x["NodeID"]: {"CPU": 0.0, **x["Resources"]}
            for x in self._ray.nodes()
            if x["Alive"]
        }

    def hire(self, wanted: Resources, node: str | None, avoid: Collection[str]) -> Any:
        """An actor, which begins once there is room."""
        others = {k: v for k, v in wanted.items() if k not in ("CPU", "GPU")}
        options: dict[str, Any] = {
            "num_cpus": wanted["CPU"],
            "num_gpus": wanted.get("GPU", 0),
            "resources": others,
        }
        if node is not None:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            strategy = NodeAffinitySchedulingStrategy(node, soft=False)
            options["scheduling_strategy"] = strategy
        elif avoid:
            names = ", ".join(sorted(avoid))
            options["label_selector"] = {NODE_LABEL: f"!in({names})"}
        return self._actor.options(**options).remote()

    def ask(self, lane: Any, verb: str, *arguments: Any) -> Any:
        """Call a method of the actor."""
        return getattr(lane, verb).remote(*arguments)

    def wait(self, answers: Sequence[Any], seconds: float) -> list[Any]:
        """Those that are there, once there is any."""
        if not answers:
            return []
        asked = list(answers)
        ready, rest = self._ray.wait(asked, timeout=seconds, fetch_local=False)
        if ready and rest:  # what else is there already
            more = {"num_returns": len(rest), "timeout": 0, "fetch_local": False}
            ready += self._ray.wait(rest, **more)[0]
        return list(ready)

    def take(self, answer: Any) -> Any:
        """The value of an answer that is there."""
        try:
            return self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            raise LaneDied(_reason(error)) from error

    def share(self, value: Any) -> Any:
        """An object of Ray's store."""
        return self._ray.put(value)

    def dismiss(self, lanes: Sequence[Any]) -> None:
        """Have lanes close; those of earlier calls, which have closed, end."""
        closed = set(self.wait([answer for _, answer in self._closing], 0))
        self.forget([lane for lane, answer in self._closing if answer in closed])
        still = [x for x in self._closing if x[1] not in closed]
        self._closing = [*still, *((x, x.close.remote()) for x in lanes)]

    def forget(self, lanes: Sequence[Any]) -> None:
        """End actors at once."""
        for lane in lanes:
            with contextlib.suppress(Exception):  # it is gone already
                self._ray.kill(lane)


def _told(error: Exception) -> str:
    """What an error says: the first line, and of a traceback's the last."""
    lines = [x.strip() for x in str(error).splitlines() if x.strip()]
    lines = lines or [type(error).__name__]
    return " ".join(dict.fromkeys((lines[0], lines[-1])))


def _reason(error: Exception) -> str:
    """What Ray says of a death, as a line: the last words of a long message."""
    lines = [x.strip() for x in str(error).splitlines() if x.strip()]
    told = [x for x in lines if "ModuleNotFoundError" in x or "died" in x.lower()]
    return (told or lines or [type(error).__name__])[-1][:300]
