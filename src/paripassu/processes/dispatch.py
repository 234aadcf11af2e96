"""Hands runs to the lanes of a cluster, brings them home, and survives lost nodes.

It knows a cluster by eight verbs, so that the same code drives Ray and a simulation of
a thousand nodes (`benchmarks/scale.py`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from paripassu.core import files, record
from paripassu.core.errors import PariPassuError, UserError, WorkerError
from paripassu.core.version import __version__
from paripassu.frameworks import registry
from paripassu.processes.executors import Tell
from paripassu.processes.lane import TRAVELS, Bytes, News, Place, read_all, write_all
from paripassu.processes.requests import TrainRequest

TICK = 0.5  # seconds between two looks at the cluster, where it tells nothing
LOOK = 5.0  # seconds between two looks at its nodes
POLLS = 50  # answers a second that are enough of all lanes together
AHEAD = 4  # lanes that are asked for beyond what the nodes hold now
HINT = 10.0  # seconds without a run before it is said what they wait for
STILLBORN = 5  # lanes in a row that die before they say where they are
MOST_DATA = 2**31  # bytes of data that travel

Resources = Mapping[str, float]
Needs = tuple[str, str | None]  # a framework; the processor that a run began on


class LaneDied(PariPassuError):
    """A lane is gone, with its process or its node."""


class Cluster(Protocol):
    """What the dispatcher needs; lanes and answers are the cluster's own."""

    def nodes(self) -> Mapping[str, Resources]:
        """The nodes that live, and what each has, "CPU" among it."""

    def hire(self, wanted: Resources, node: str | None, avoid: Collection[str]) -> Any:
        """A lane that begins once there is room: on `node`, or on none to `avoid`."""

    def ask(self, lane: Any, verb: str, *arguments: Any) -> Any:
        """Have a lane do a verb of `Lane`; what will be its answer."""

    def wait(self, answers: Sequence[Any], seconds: float) -> list[Any]:
        """Those that are there, once there is any."""

    def take(self, answer: Any) -> Any:
        """The value of an answer that is there; `LaneDied` where there will be none."""

    def share(self, value: Any) -> Any:
        """What stands for a value among arguments, so that it travels once a node."""

    def dismiss(self, lanes: Sequence[Any]) -> None:
        """End lanes and whatever they do; they leave nothing on their nodes."""

    def forget(self, lanes: Sequence[Any]) -> None:
        """End lanes that are dead, or have not begun."""


@dataclass(frozen=True)
class Wishes:
    """How runs are to be treated.

    Attributes:
        resources: what a run takes of its node, beside a CPU for each of its threads.
        exclusive: whether it gets a whole node.
        storage: a folder that all nodes see under the same path; None: runs travel.
        retries: how often a run whose node is lost goes on elsewhere.
        patience: seconds to wait for a node on which a run can begin.
    """

    resources: Resources
    exclusive: bool = False
    storage: Path | None = None
    retries: int = 3
    patience: float = 300.0


@dataclass(eq=False)
class _Worker:
    """A lane, where it is, and the run that it does."""

    lane: Any
    place: Place | None = None  # None: it has not begun
    run: str | None = None
    asked_for: str | None = None  # the node that it is to be on


class Dispatcher:
    """Has trainings done on a cluster, until each is at home or has failed."""

    def __init__(
        self,
        cluster: Cluster,
        requests: Mapping[str, TrainRequest],
        tell: Tell,
        wishes: Wishes,
    ) -> None:
        self._cluster, self._requests = cluster, requests
        self._tell, self._wishes = tell, wishes
        # What waits, in its order: the framework, and the processor it began on.
        self._waiting = {name: self._needs(name) for name in requests}
        self._wants = Counter(self._waiting.values())
        self._crew: set[_Worker] = set()
        self._asked: dict[Any, _Worker] = {}  # by the answer that each owes
        self._lost: Counter[str] = Counter()  # nodes, by the run that was on them
        self._places: dict[str, Place] = {}  # all that were ever seen
        self._nodes: Mapping[str, Resources] = {}
        self._looked = -LOOK
        self._seen: tuple[Any, tuple[list[str], set[str], int]] | None = None
        self._stillborn = 0
        self._hinted = False
        self._last_words = ""
        self._data: dict[str, Any] = {}
        self._moved = time.monotonic()  # when a run began or ended
        threads = max((x.threads for x in requests.values()), default=1)
        self._wanted: Resources = {"CPU": threads, **wishes.resources}

    def go(self) -> None:
        """Have all done; what still runs when this is left is ended."""
        try:
            while self._waiting or any(x.run for x in self._crew):
                self._hire()
                self._hear()
                self._give_up()
        finally:
            self._leave(*self._crew)

    # Lanes

    def _hire(self) -> None:
        """Ask for as many lanes as there are runs for, as far as there may be room."""
        if time.monotonic() - self._looked >= LOOK:
            self._nodes, self._looked = self._cluster.nodes(), time.monotonic()
        employed = sum(1 for x in self._crew if x.run)
        coming = sum(1 for x in self._crew if x.place is None)
        fit, useless, room = self._room()
        if self._wishes.exclusive:
            taken = {x.asked_for for x in self._crew}
            free = [x for x in fit if x not in taken]
            for node in free[: max(0, len(self._waiting) - coming)]:
                self._engage({**self._wanted, "CPU": self._nodes[node]["CPU"]}, node)
            return
        wanted = min(len(self._waiting), max(AHEAD, room - employed))
        for _ in range(wanted - coming):
            self._engage(self._wanted, None, useless)

    def _engage(
        self, wanted: Resources, node: str | None, avoid: Collection[str] = ()
    ) -> None:
        lane = self._cluster.hire(wanted, node, avoid)
        worker = _Worker(lane, asked_for=node)
        self._crew.add(worker)
        self._asked[self._cluster.ask(lane, "describe")] = worker

    def _leave(self, *workers: _Worker) -> None:
        """Lanes are not needed any more."""
        self._cluster.forget([x.lane for x in workers if x.place is None])
        self._cluster.dismiss([x.lane for x in workers if x.place])
        self._crew.difference_update(workers)

    def _room(self) -> tuple[list[str], set[str], int]:
        """The nodes for what waits, those to avoid, and how many runs fit on them.

        Of a thousand nodes that takes a while, so it is kept until something changes.
        """
        state = (self._looked, len(self._places), frozenset(self._wants))
        if self._seen is None or self._seen[0] != state:
            useless = self._useless()
            fit = [x for x in self._big_enough() if x not in useless]
            room = capacity((self._nodes[x] for x in fit), self._wanted, False)
            self._seen = state, (fit, useless, room)
        return self._seen[1]

    def _big_enough(self) -> list[str]:
        return [
            node
            for node, has in self._nodes.items()
            if all(has.get(key, 0) >= count for key, count in self._wanted.items())
        ]

    def _useless(self) -> set[str]:
        """The nodes on which no run that waits can be done."""
        return {
            node
            for node, place in self._places.items()
            if node in self._nodes
            and not any(self._suits(place, x) for x in self._wants)
        }

    def _suits(self, place: Place, needs: Needs) -> bool:
        """Whether a run can be done at a place, and not better elsewhere.

        One that has begun waits for the kind of processor that it began on, as long as
        there is a node with it: on any other it would have to start over.
        """
        framework, began = needs
        if _unfit(place, framework):
            return False
        if began in (None, place.processor):
            return True
        return not any(
            other.processor == began and not _unfit(other, framework)
            for node, other in self._places.items()
            if node in self._nodes
        )

    # Answers

    def _hear(self) -> None:
        """Wait for answers of lanes, and act on each."""
        for answer in self._cluster.wait(list(self._asked), TICK):
            worker = self._asked.pop(answer)
            try:
                value = self._cluster.take(answer)
            except LaneDied as death:
                self._bury(worker, str(death))
                continue
            if worker.place is None:
                self._welcome(worker, Place.model_validate_json(value))
            elif value is None:  # it has begun
                self._ask_more(worker)
            else:
                self._note(worker, *value)

    def _welcome(self, worker: _Worker, place: Place) -> None:
        worker.place, self._stillborn = place, 0
        self._places[place.node] = place
        if place.node not in self._nodes:  # it has come since the last look
            self._nodes, self._looked = self._cluster.nodes(), time.monotonic()
        self._employ(worker)

    def _employ(self, worker: _Worker) -> None:
        """Give a lane the first run that it can do; dismiss it if there is none."""
        assert worker.place is not None
        worker.run = None
        name = self._choose(worker.place)
        if name is None:
            self._leave(worker)
            return
        self._wait_no_more(name)
        worker.run, self._moved = name, time.monotonic()
        request = self._requests[name]
        try:
            there, data = self._baggage(name, worker.place)
        except UserError as error:
            self._over(name, error)
            self._employ(worker)
            return
        self._tell(name, {"event": "phase", "name": f"on {worker.place.host}"})
        cpus = self._nodes.get(worker.place.node, {}).get("CPU", 0)
        shared = not self._wishes.exclusive and cpus > self._wanted["CPU"]
        here = self._wishes.storage is not None
        arguments = (request.model_dump_json(), there, data, shared, here)
        answer = self._cluster.ask(worker.lane, "begin", *arguments)
        self._asked[answer] = worker

    def _choose(self, place: Place) -> str | None:
        """The first run that waits and suits the place."""
        good = {x for x in self._wants if self._suits(place, x)}
        return next((name for name, x in self._waiting.items() if x in good), None)

    def _needs(self, name: str) -> Needs:
        return self._requests[name].framework, self._began_on(name)

    def _began_on(self, name: str) -> str | None:
        """The processor on which a run has done epochs that it can go on from."""
        folder = self._requests[name].folder
        if not (folder / record.CHECKPOINT_FILE).exists():
            return None
        try:
            return record.load_record(folder).environment.processor
        except UserError:
            return None

    def _baggage(self, name: str, place: Place) -> tuple[Bytes, Any]:
        """The files of a run that has begun, and what stands for its data."""
        there = self._begin_at_home(name, place)
        data = self._requests[name].conditions.data
        if self._wishes.storage is not None:
            return {}, {}
        if data is None:
            return there, {}
        source = str(data)
        if source not in self._data:
            self._data[source] = self._cluster.share(_packed(Path(source)))
        return there, self._data[source]

    def _begin_at_home(self, name: str, place: Place) -> Bytes:
        """What the run's folder has to go on from, on that kind of processor.

        A training on another kind rounds differently: its weights would be those of
        neither, so it starts over.
        """
        folder = self._requests[name].folder
        files.make_folder(folder)
        began = self._began_on(name)
        if began in (None, place.processor):
            return read_all(folder, TRAVELS)
        self._say(
            name,
            f"starts over: it began on {began}, and {place.host} has {place.processor}",
        )
        for file in (record.CHECKPOINT_FILE, record.RUN_FILE):
            (folder / file).unlink(missing_ok=True)
        return {}

    def _note(self, worker: _Worker, text: str, changed: Bytes) -> None:
        """Bring home what is new of a run."""
        name, news = worker.run, News.model_validate_json(text)
        assert name is not None
        folder = self._requests[name].folder
        try:
            if changed:
                with files.owned(folder):
                    write_all(folder, changed)
                    if news.end and record.is_finished(folder):
                        (folder / record.CHECKPOINT_FILE).unlink(missing_ok=True)
        except UserError as error:  # no room at home
            self._over(name, error)
            self._leave(worker)
            return
        for event in news.events:
            self._tell(name, event)
        if news.end is None:
            self._ask_more(worker)
            return
        errors: dict[str, Exception | None] = {
            "done": None,
            "user": UserError(news.end.message),
            "worker": WorkerError(news.end.message, news.end.signal),
        }
        host = worker.place.host if worker.place else "its node"
        fault = WorkerError(f"{host}: {news.end.message}")
        self._over(name, errors.get(news.end.kind, fault))
        self._employ(worker)

    def _ask_more(self, worker: _Worker) -> None:
        seconds = max(1.0, len(self._asked) / POLLS)
        self._asked[self._cluster.ask(worker.lane, "more", seconds)] = worker

    # Ends

    def _over(self, name: str, failure: Exception | None) -> None:
        self._moved = time.monotonic()
        self._tell(name, failure)

    def _say(self, name: str, text: str) -> None:
        self._tell(name, {"event": "note", "text": text})

    def _bury(self, worker: _Worker, reason: str) -> None:
        """A lane is gone: its run goes on elsewhere, from its last epoch."""
        self._cluster.forget([worker.lane])
        self._crew.discard(worker)
        self._looked = -LOOK
        self._last_words = reason
        if worker.place is None:
            self._stillborn += 1
            return
        name = worker.run
        if name is None:
            return
        self._lost[name] += 1
        host = worker.place.host
        if self._lost[name] > self._wishes.retries:
            self._over(
                name,
                WorkerError(
                    f"its node was lost {self._lost[name]} times, at last {host}: "
                    f"{reason}. What is done is kept."
                ),
            )
            return
        self._waiting = {name: self._needs(name), **self._waiting}
        self._wants[self._waiting[name]] += 1
        self._say(name, f"{host} is lost ({reason}); the run goes on elsewhere")

    def _give_up(self) -> None:
        """Fail what waits for a node that there is not, and perhaps never will be."""
        if any(x.run for x in self._crew):
            return
        if self._stillborn >= STILLBORN:
            self._fail_all(f"no process can start on the cluster: {self._last_words}")
        for framework in {framework for framework, _ in self._wants}:
            if text := self._nowhere(framework):
                self._fail_all(text, framework)
        waited = time.monotonic() - self._moved
        if not self._waiting or waited < min(HINT, self._wishes.patience):
            return
        wanted = ", ".join(f"{key} {x:g}" for key, x in self._wanted.items())
        nodes = Counter(
            ", ".join(f"{key} {has[key]:g}" for key in self._wanted if key in has)
            for has in self._nodes.values()
        )
        there = "; ".join(f"{count} with {x}" for x, count in nodes.items())
        text = f"had room for a run, which takes {wanted}. Nodes: {there or 'none'}."
        if waited > self._wishes.patience:
            self._fail_all(
                f"for {waited:.0f} s no node {text} Type fewer --threads, or wait "
                "until others have done their work."
            )
        elif not self._hinted:
            self._hinted = True
            self._say(next(iter(self._waiting)), f"waits: no node {text}")

    def _nowhere(self, framework: str) -> str | None:
        """Why a framework can be used on none of the nodes, if all are known."""
        fit = self._big_enough()
        if not fit or not all(node in self._places for node in fit):
            return None
        reasons = {
            self._places[node].host: _unfit(self._places[node], framework)
            for node in fit
        }
        if not all(reasons.values()):
            return None
        told = "; ".join(f"{host}: {text}" for host, text in list(reasons.items())[:3])
        return (
            f"no node of the cluster can run {registry.title_of(framework)}. {told} "
            "there, or leave it out with --frameworks."
        )

    def _fail_all(self, text: str, framework: str | None = None) -> None:
        """Fail all that wait, or those of one framework."""
        for name, (own, _) in list(self._waiting.items()):
            if framework in (None, own):
                self._wait_no_more(name)
                self._over(name, UserError(text))

    def _wait_no_more(self, name: str) -> None:
        needs = self._waiting.pop(name)
        self._wants[needs] -= 1
        if not self._wants[needs]:
            del self._wants[needs]


def _unfit(place: Place, framework: str) -> str | None:
    """Why a framework cannot be used at a place; None if it can."""
    if place.version != __version__:
        return (
            f"paripassu {place.version} is there and {__version__} here. Install "
            "the same version"
        )
    title = registry.title_of(framework)
    return place.frameworks.get(framework, f"{title} is not known. Install it")


def _packed(path: Path) -> Bytes:
    """A file, named "", or the files of a folder by their paths in it.

    Raises:
        UserError: they are too large to travel.
    """
    if path.is_file():
        found = {"": path}
    else:
        found = {
            x.relative_to(path).as_posix(): x
            for x in sorted(path.rglob("*"))
            if x.is_file() and len(x.relative_to(path).parts) <= 5
        }
    size = sum(x.stat().st_size for x in found.values())
    if size > MOST_DATA:
        raise UserError(
            f"{path} holds {size / 2**30:.1f} GiB: more than 2 GiB do not travel. Put "
            "it on a disk that all nodes see, and name that with --storage."
        )
    return {name: x.read_bytes() for name, x in found.items()}


def capacity(nodes: Iterable[Resources], wanted: Resources, exclusive: bool) -> int:
    """How many runs that take so much the nodes hold at once."""
    counts = (
        min(int(has.get(key, 0) // count) for key, count in wanted.items() if count)
        for has in nodes
    )
    return sum(min(count, 1) if exclusive else count for count in counts)


def within(requests: Mapping[str, TrainRequest], storage: Path) -> None:
    """Check that runs and data are on the shared disk.

    Raises:
        UserError: something is not.
    """
    for place, option in (
        (place, option)
        for x in requests.values()
        for place, option in ((x.folder, "--out"), (x.conditions.data, "--data"))
    ):
        if place is not None and not Path(place).is_relative_to(storage):
            raise UserError(
                f"{place} is not in --storage {storage}: nodes would not see it. "
                f"Choose a folder there with {option}."
            )
