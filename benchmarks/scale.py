"""How far one driver reaches: fake runs on a real Ray, and on a thousand nodes.

    python benchmarks/scale.py
    python benchmarks/scale.py --only simulated --nodes 1000 --runs 10000

A fake run sleeps, and leaves the files of a run. Two things are measured.

- `ray`: real clusters of Ray on loopback, with as many nodes as this machine bears:
  what a run costs beside its own time, and what Ray costs the driver for each call.
- `simulated`: the same driver with up to a thousand nodes. Nodes, network and the time
  that runs take are simulated; choosing, asking, taking, telling and writing each
  run's files to this disk are real, and so are their seconds. While the driver works,
  the simulated clock goes on; while it waits, the clock jumps. To each call is added
  what it cost on the real Ray.

Writes results/scale.json.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from paripassu.core import files, machine, record
from paripassu.core.recipe import Recipe
from paripassu.core.version import __version__
from paripassu.frameworks import registry
from paripassu.processes.conditions import Conditions
from paripassu.processes.dispatch import Dispatcher, Resources, Wishes
from paripassu.processes.lane import End, News, Place
from paripassu.processes.on_ray import ALONE, OnRay, RayLane
from paripassu.processes.requests import TrainRequest

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "results" / "scale.json"
EPOCHS = 2
SECONDS = {"ray": 4.0, "simulated": 30.0}  # of a fake run
STATE = 2**20  # bytes of its checkpoint, and of its model
START = 2.0  # seconds until a lane is there, in the simulation
HOST = "127.0.0.1"
FRAMEWORK = registry.first_installed()  # none is asked for anything


def fake_record(request: TrainRequest, done: int) -> str:
    """The record of a run after some epochs."""
    recipe = request.recipe
    over = done == recipe.epochs
    epochs = [
        record.Epoch(
            epoch=x + 1,
            session=0,
            seconds=1,
            evaluation_seconds=0,
            learning_rate=1,
            training_loss=1,
            training_accuracy=0.5,
            monitor_loss=1,
            monitor_accuracy=0.5,
            other_load=0,
        )
        for x in range(done)
    ]
    return record.RunRecord(
        status="finished" if over else "running",
        framework=request.framework,
        recipe=recipe.model_dump(),
        recipe_hash=recipe.hash(),
        dataset=record.Dataset(
            name="none",
            source="package",
            sha256={},
            train_size=1,
            validation_size=0,
            test_size=1,
            mean=0.1,
            std=0.3,
        ),
        environment=record.Environment(
            python="",
            platform="",
            processor="fake",
            cores=1,
            memory_bytes=0,
            threads=1,
            device="cpu",
            versions={},
            settings={},
        ),
        command="benchmarks/scale.py",
        monitor="test",
        sessions=[],
        epochs=epochs,
        result=record.Result(
            test_loss=1, test_accuracy=0.5, test_correct=1, test_count=2
        )
        if over
        else None,
    ).model_dump_json()


class FakeLane(RayLane):
    """Sleeps in place of training."""

    def train(self, request: TrainRequest, tell: Any) -> None:
        folder = request.folder
        files.make_folder(folder)
        for epoch in range(request.recipe.epochs):
            time.sleep(SECONDS["ray"] / request.recipe.epochs)
            done = epoch + 1
            (folder / record.CHECKPOINT_FILE).write_bytes(os.urandom(STATE))
            (folder / record.RUN_FILE).write_text(fake_record(request, done))
            tell({"event": "epoch", "epoch": done})
        (folder / record.CHECKPOINT_FILE).rename(folder / "model.pt")
        tell({"event": "finished"})


class Simulated:
    """The verbs of `dispatch.Cluster` for nodes that are not there."""

    def __init__(self, nodes: int, ask_seconds: float, take_seconds: float) -> None:
        self._names = [f"node{x}" for x in range(nodes)]
        self._free = deque(self._names)
        self._costs = ask_seconds, take_seconds
        self._epoch = SECONDS["simulated"] / EPOCHS
        self._skipped = 0.0
        self._heap: list[tuple[float, int, int]] = []
        self._values: dict[int, Any] = {}
        self._numbers = itertools.count()
        self._lanes: dict[int, dict[str, Any]] = {}
        self._pending: deque[tuple[int, int]] = deque()  # lanes with what they owe
        self.waited = 0.0  # seconds that the driver had nothing to do

    def clock(self) -> float:
        return time.monotonic() + self._skipped

    def nodes(self) -> Mapping[str, Resources]:
        return {x: {"CPU": 1.0} for x in self._names}

    def hire(self, wanted: Resources, node: str | None, avoid: Collection[str]) -> int:
        del wanted, node, avoid
        lane = next(self._numbers)
        self._lanes[lane] = {}
        return lane

    def ask(self, lane: int, verb: str, *arguments: Any) -> int:
        self._skipped += self._costs[0]
        answer, state, now = next(self._numbers), self._lanes[lane], self.clock()
        if verb == "describe":
            self._pending.append((lane, answer))
            self._start(now)
            return answer
        ready = now
        if verb == "begin":
            request = TrainRequest.model_validate_json(arguments[0])
            state |= {"request": request, "begun": now, "told": 0, "ended": False}
            self._values[answer] = None
        else:
            done = state["told"] + 1
            if done <= EPOCHS:
                ready = max(now, state["begun"] + done * self._epoch)
                if ready > now + arguments[0]:
                    ready, done = now + arguments[0], None
            self._values[answer] = lane, done
        heapq.heappush(self._heap, (ready, answer, lane))
        return answer

    def _start(self, now: float) -> None:
        while self._free and self._pending:
            lane, answer = self._pending.popleft()
            if lane not in self._lanes:
                continue
            node = self._lanes[lane]["node"] = self._free.popleft()
            known = {FRAMEWORK: None}
            self._values[answer] = Place(
                node=node,
                host=node,
                processor="fake",
                cores=1,
                version=__version__,
                frameworks=known,
            ).model_dump_json()
            heapq.heappush(self._heap, (now + START, answer, lane))

    def wait(self, answers: Sequence[int], seconds: float) -> list[int]:
        del answers
        now = self.clock()
        if self._heap and self._heap[0][0] > now:
            skip = min(self._heap[0][0] - now, seconds)
            self._skipped += skip
            self.waited += skip
            now += skip
        found = []
        while self._heap and self._heap[0][0] <= now:
            _, answer, lane = heapq.heappop(self._heap)
            if lane in self._lanes:
                found.append(answer)
        return found

    def take(self, answer: int) -> Any:
        self._skipped += self._costs[1]
        value = self._values.pop(answer)
        return self._news(*value) if isinstance(value, tuple) else value

    def _news(self, lane: int, done: int | None) -> tuple[str, dict[str, bytes]]:
        state = self._lanes[lane]
        if done is None:
            return News().model_dump_json(), {}
        state["told"] = done
        if done > EPOCHS:
            end = News(end=End(kind="done"))
            record_there = fake_record(state["request"], EPOCHS).encode()
            return end.model_dump_json(), {
                "model.pt": bytes(STATE),
                record.RUN_FILE: record_there,
            }
        news = News(events=[{"event": "epoch", "epoch": done}])
        return news.model_dump_json(), {
            record.CHECKPOINT_FILE: bytes(STATE),
            record.RUN_FILE: fake_record(state["request"], done).encode(),
        }

    def share(self, value: Any) -> Any:
        return value

    def dismiss(self, lanes: Sequence[int]) -> None:
        for lane in lanes:
            self._free.append(self._lanes.pop(lane)["node"])
        self._start(self.clock())

    def forget(self, lanes: Sequence[int]) -> None:
        for lane in lanes:
            self._lanes.pop(lane, None)


def requests(out: Path, count: int) -> dict[str, TrainRequest]:
    recipe = Recipe(epochs=EPOCHS)
    return {
        f"run{number}": TrainRequest(
            framework=FRAMEWORK,
            conditions=Conditions(threads=1),
            folder=out / f"run{number}",
            recipe=recipe.changed(seed=number),
        )
        for number in range(count)
    }


class Failures(list[str]):
    def tell(self, name: str, told: Any) -> None:
        if isinstance(told, Exception):
            self.append(f"{name}: {told}")


def simulate(
    nodes: int, count: int, ask_seconds: float, take_seconds: float
) -> dict[str, Any]:
    """One driver and so many nodes, of one run at a time each."""
    with tempfile.TemporaryDirectory() as out:
        cluster, failures = Simulated(nodes, ask_seconds, take_seconds), Failures()
        before = psutil.Process().memory_info().rss
        begun = requests(Path(out), count)
        worked, start = time.process_time(), cluster.clock()
        Dispatcher(cluster, begun, failures.tell, Wishes(resources={})).go()
        lasted = cluster.clock() - start
        worked = time.process_time() - worked
    ideal = START + SECONDS["simulated"] * -(-count // nodes)
    return {
        "nodes": nodes,
        "runs": count,
        "failures": len(failures),
        "seconds": lasted,
        "ideal_seconds": ideal,
        "runs_per_second": count / lasted,
        "driver_busy": 1 - cluster.waited / lasted,
        "driver_seconds_per_run": worked / count,
        "driver_bytes_before": before,
        "driver_peak_bytes": machine.peak_memory_bytes(),
    }


@contextlib.contextmanager
def loopback(nodes: int) -> Iterator[str]:
    """A Ray cluster of nodes with one CPU each, on this machine alone."""
    warnings.simplefilter("ignore")
    os.environ |= {"RAY_AUTH_MODE": "disabled", ALONE: "0"}
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    fixed = {"node_ip_address": HOST, "include_dashboard": False}
    try:
        cluster.add_node(num_cpus=0, **fixed)
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, **fixed)
        yield str(cluster.address)
    finally:
        cluster.shutdown()


class Counting:
    """A cluster whose calls are counted and timed."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.spent: dict[str, list[float]] = {"ask": [], "take": []}

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._inner, verb)

    def ask(self, *arguments: Any) -> Any:
        return self._timed("ask", *arguments)

    def take(self, *arguments: Any) -> Any:
        return self._timed("take", *arguments)

    def _timed(self, verb: str, *arguments: Any) -> Any:
        begin = time.perf_counter()
        try:
            return getattr(self._inner, verb)(*arguments)
        finally:
            self.spent[verb].append(time.perf_counter() - begin)


def on_ray(nodes: int, count: int) -> dict[str, Any]:
    """The same fake runs on a real Ray."""
    from paripassu.processes import on_ray as module

    counted: list[Counting] = []
    real = module.Dispatcher

    def dispatcher(cluster: Any, *arguments: Any) -> Dispatcher:
        counted.append(Counting(cluster))
        return real(counted[0], *arguments)

    module.Dispatcher = dispatcher  # type: ignore[misc, assignment]
    failures = Failures()
    with loopback(nodes) as address, tempfile.TemporaryDirectory() as out:
        executor = OnRay(address, lane=FakeLane)
        with executor:
            start = time.monotonic()
            executor.run(requests(Path(out), count), failures.tell, timed=False)
            lasted = time.monotonic() - start
    ideal = SECONDS["ray"] * -(-count // nodes)
    spent = counted[0].spent
    return {
        "nodes": nodes,
        "runs": count,
        "failures": len(failures),
        "seconds": lasted,
        "ideal_seconds": ideal,
        "overhead_seconds_per_run": (lasted - ideal) * nodes / count,
        "ask_seconds": sum(spent["ask"]) / len(spent["ask"]),
        "take_seconds": sum(spent["take"]) / len(spent["take"]),
        "driver_peak_bytes": machine.peak_memory_bytes(),
    }


def apart(kind: str, *numbers: float) -> dict[str, Any]:
    """One measurement in a process of its own, so that memory is its own."""
    words = [sys.executable, __file__, "--one", kind, *map(str, numbers)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(kind, json.dumps(found), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["ray", "simulated"])
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--real-nodes", type=int, nargs="+", default=[2, 6])
    parser.add_argument("--real-runs", type=int, default=30)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        kind, *numbers = asked.one
        first, second, *costs = map(float, numbers)
        if kind == "ray":
            print(json.dumps(on_ray(int(first), int(second))))
        else:
            print(json.dumps(simulate(int(first), int(second), *costs)))
        return
    told = files.read_json(RECORD) if RECORD.exists() else {}
    load = machine.load_average()
    if asked.only != "simulated":
        rows = [apart("ray", x, asked.real_runs) for x in asked.real_nodes]
        told["ray"] = part(rows, load)
        files.write_json(RECORD, told)
    if asked.only != "ray":
        dearest = told["ray"]["measured"][-1]
        costs = [dearest[x] for x in ("ask_seconds", "take_seconds")]
        rows = [
            apart("simulated", nodes, min(asked.runs, 10 * nodes), *costs)
            for nodes in asked.nodes
        ]
        told["simulated"] = part(rows, load) | {"call_seconds": costs}
        files.write_json(RECORD, told)


def part(rows: Sequence[Mapping[str, Any]], load: float) -> dict[str, Any]:
    """What was measured by one command, and where."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "benchmarks/scale.py", *sys.argv[1:]]),
        "processor": machine.processor(),
        "cores": machine.usable_cores(),
        "load_average": load,
        "versions": {
            "python": sys.version.split()[0],
            "ray": version("ray"),
            "paripassu": __version__,
        },
        "run_seconds": SECONDS["ray" if "ask_seconds" in rows[0] else "simulated"],
        "epochs": EPOCHS,
        "checkpoint_bytes": STATE,
        "measured": rows,
    }


if __name__ == "__main__":
    main()
