"""A cluster of threads in this process, whose nodes can be lost at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from make_records import make_environment, make_run

from paripassu.core import files, record
from paripassu.core.errors import UserError
from paripassu.processes.dispatch import LaneDied, Resources
from paripassu.processes.lane import Lane, Place
from paripassu.processes.requests import TrainRequest


class FakeLane(Lane):
    """Trains nothing, but leaves the files of a run, and goes on from those there."""

    def __init__(self, place: Place, cluster: Threads) -> None:
        super().__init__()
        self.place, self.cluster = place, cluster

    def describe(self) -> str:
        return self.place.model_dump_json()

    def train(self, request: TrainRequest, tell: Any) -> None:
        recipe, folder = request.recipe, request.folder
        state = folder / record.CHECKPOINT_FILE
        first = int(state.read_text()) if state.exists() else 0
        name = folder.name
        self.cluster.began.append((name, self.place.node, first))
        self.cluster.nodes_of[name] = request.conditions.node
        if request.conditions.data:
            self.cluster.data[name] = Path(request.conditions.data).read_bytes()
        files.make_folder(folder)
        (folder / record.ERRORS_FILE).write_text("its last words")
        with files.owned(folder):
            for epoch in range(first, recipe.epochs):
                tell({"event": "step", "epoch": epoch + 1, "step": 1, "steps": 1})
                self.cluster.pause(name, epoch)
                if name in self.cluster.diverge:
                    raise UserError(f"{folder} has diverged")
                state.write_text(str(epoch + 1))
                self._record(request, "running")
                tell({"event": "epoch", "epoch": epoch + 1})
            (folder / "model.pt").write_text(f"{name} of {recipe.epochs} epochs")
            self._record(request, "finished")
            state.unlink()
        tell({"event": "finished"})

    def _record(self, request: TrainRequest, status: Any) -> None:
        environment = make_environment(request.framework)
        update = {"processor": self.place.processor, "cores": self.place.cores}
        make_run(
            request.folder,
            request.framework,
            request.recipe.seed,
            epochs=request.recipe.epochs,
            status=status,
            environment=environment.model_copy(update=update),
        )


@dataclass(eq=False)
class _Hired:
    lane: FakeLane
    wanted: Resources
    pool: ThreadPoolExecutor
    open: list[Future[Any]] = field(default_factory=list)
    dead: bool = False


class Threads:
    """The verbs of `dispatch.Cluster`; each lane is an object with threads."""

    def __init__(self, places: Sequence[Place], cpus: float = 1) -> None:
        self.places = {x.node: x for x in places}
        self.has: dict[str, Resources] = {x: {"CPU": cpus} for x in self.places}
        self.hired: list[_Hired] = []
        self.waiting: list[tuple[Future[Any], Resources, str | None, set[str]]] = []
        self.began: list[tuple[str, str, int]] = []  # run, node, epochs done before
        self.nodes_of: dict[str, record.Node | None] = {}
        self.data: dict[str, bytes] = {}
        self.diverge: set[str] = set()
        self.stillborn = False
        self.closed = 0

        self.pause: Callable[[str, int], None] = lambda _name, _epoch: time.sleep(0.002)

    def lose(self, node: str) -> None:
        """A node is gone, with all that is on it."""
        self.has.pop(node, None)
        for hired in self.hired:
            if hired.lane.place.node == node and not hired.dead:
                hired.dead = True
                hired.lane._stopping = True
                for future in hired.open:
                    if not future.done():
                        future.set_exception(LaneDied(f"{node} was switched off"))

    def nodes(self) -> Mapping[str, Resources]:
        return dict(self.has)

    def hire(self, wanted: Resources, node: str | None, avoid: Collection[str]) -> Any:
        future: Future[Any] = Future()
        self.waiting.append((future, wanted, node, set(avoid)))
        self._place()
        return future

    def _place(self) -> None:
        """Give lanes that wait the room that there is."""
        for item in list(self.waiting):
            future, wanted, only, avoid = item
            for node, has in self.has.items():
                alive = [x for x in self.hired if not x.dead]
                used = sum(x.wanted["CPU"] for x in alive if x.lane.place.node == node)
                if node in avoid or only not in (None, node):
                    continue
                if has["CPU"] - used >= wanted["CPU"]:
                    lane = FakeLane(self.places[node], self)
                    hired = _Hired(lane, wanted, ThreadPoolExecutor(2))
                    self.hired.append(hired)
                    self.waiting.remove(item)
                    future.set_result(hired)
                    break

    def ask(self, lane: Any, verb: str, *arguments: Any) -> Any:
        answer: Future[Any] = Future()

        def do(placed: Future[Any]) -> None:
            if placed.cancelled():
                return
            hired: _Hired = placed.result()
            hired.open.append(answer)

            def work() -> None:
                try:
                    value = getattr(hired.lane, verb)(*arguments)
                except Exception as error:
                    value = LaneDied(str(error))
                if not answer.done():
                    if isinstance(value, LaneDied):
                        answer.set_exception(value)
                    else:
                        answer.set_result(value)

            if hired.dead:
                answer.set_exception(LaneDied("it is dead"))
            else:
                hired.pool.submit(work)

        if self.stillborn:
            answer.set_exception(LaneDied("ModuleNotFoundError: paripassu"))
        else:
            lane.add_done_callback(do)
        return answer

    def wait(self, answers: Sequence[Any], seconds: float) -> list[Any]:
        if not answers:
            time.sleep(min(seconds, 0.01))
            return []
        self._place()
        return list(wait(answers, min(seconds, 0.05), FIRST_COMPLETED).done)

    def take(self, answer: Any) -> Any:
        return answer.result()

    def share(self, value: Any) -> Any:
        return value

    def dismiss(self, lanes: Sequence[Any]) -> None:
        for lane in lanes:
            hired: _Hired = lane.result()
            hired.lane.close()
            hired.dead = True
            self.closed += 1

    def forget(self, lanes: Sequence[Any]) -> None:
        for lane in lanes:
            self.waiting = [x for x in self.waiting if x[0] is not lane]


def place(node: str, processor: str = "Intel", **frameworks: str | None) -> Place:
    from paripassu.core.version import __version__

    known: dict[str, str | None] = {"pytorch": None, "tensorflow": None, "jax": None}
    return Place(
        node=node,
        host=f"{node}.example",
        processor=processor,
        cores=4,
        version=__version__,
        frameworks={**known, **frameworks},
    )
