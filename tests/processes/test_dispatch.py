"""Runs on a cluster: all come home, whatever is lost on the way."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import Threads, place

from paripassu.core import files, record
from paripassu.core.errors import PariPassuError, UserError, WorkerError
from paripassu.core.recipe import Recipe
from paripassu.processes import dispatch, lane
from paripassu.processes.conditions import Conditions
from paripassu.processes.dispatch import Dispatcher, Wishes, within
from paripassu.processes.requests import TrainRequest

EPOCHS = 3


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """A cluster is looked at as often as it changes here."""
    monkeypatch.setattr(dispatch, "LOOK", 0.0)


def requests(
    out: Path,
    count: int = 6,
    frameworks: tuple[str, ...] = ("pytorch",),
    **conditions: Any,
) -> dict[str, TrainRequest]:
    return {
        f"{framework}-{seed}": TrainRequest(
            framework=framework,
            conditions=Conditions(threads=1, **conditions),
            folder=out / f"{framework}-{seed}",
            recipe=Recipe(seed=seed, epochs=EPOCHS),
        )
        for seed in range(count)
        for framework in frameworks
    }


class Ends(dict[str, Exception | None]):
    """Collects what is told."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.epochs: dict[str, list[int]] = {}

    def tell(self, name: str, told: Any) -> None:
        if isinstance(told, dict):
            if told["event"] == "note":
                self.notes.append(told["text"])
            if told["event"] == "epoch":
                self.epochs.setdefault(name, []).append(told["epoch"])
            return
        assert name not in self, f"{name} ends twice"
        self[name] = told


def run(cluster: Threads, wanted: dict[str, TrainRequest], **wishes: Any) -> Ends:
    ends = Ends()
    wish = Wishes(resources={}, **{"patience": 5.0, **wishes})
    Dispatcher(cluster, wanted, ends.tell, wish).go()
    assert set(ends) == set(wanted)
    return ends


def check_home(folder: Path) -> None:
    """All of a finished run is there, and nothing else."""
    assert {"model.pt", "run.json"} <= {x.name for x in folder.iterdir()}
    assert (folder / "model.pt").read_text().endswith(f"{EPOCHS} epochs")
    assert record.load_record(folder).status == "finished"
    files.read_tensors(folder / record.PREDICTIONS_FILE)
    assert not (folder / record.CHECKPOINT_FILE).exists()
    assert not list(folder.glob(".*tmp*"))


def test_all_runs_come_home_in_their_order_and_lanes_leave_nothing(tmp_path):
    cluster = Threads([place("a"), place("b")], cpus=2)
    data = tmp_path / "small.npz"
    data.write_bytes(b"images")
    wanted = requests(tmp_path / "out", data=data)
    ends = run(cluster, wanted)
    assert set(ends.values()) == {None}
    for name, request in wanted.items():
        check_home(request.folder)
        assert ends.epochs[name] == [1, 2, 3]
        assert cluster.data[name] == b"images"
        node = cluster.nodes_of[name]
        assert node
        assert node.shared  # another CPU of the node is anybody's
    assert sorted(x for x, _, _ in cluster.began[:4]) == list(wanted)[:4]
    assert cluster.closed == len(cluster.hired)
    assert not any(x.lane._scratch.exists() for x in cluster.hired)
    assert not cluster.waiting


def test_a_lost_node_costs_at_most_one_epoch(tmp_path):
    cluster = Threads([place("a"), place("b")])
    lost = threading.Event()

    def pause(name: str, epoch: int) -> None:
        time.sleep(0.01)
        on = {run: node for run, node, _ in cluster.began}[name]
        if on == "a" and epoch == 2 and not lost.is_set():
            # The second epoch is at home, as the driver has asked for it meanwhile.
            home = tmp_path / name / record.CHECKPOINT_FILE
            for _ in range(500):
                if home.exists() and home.read_text() == "2":
                    break
                time.sleep(0.01)
            lost.set()
            cluster.lose("a")

    cluster.pause = pause
    wanted = requests(tmp_path, 3)
    ends = run(cluster, wanted)
    assert set(ends.values()) == {None}
    again = [(name, node, first) for name, node, first in cluster.began if first]
    assert len(again) == 1
    assert again[0][1:] == ("b", 2)
    assert any("a.example is lost (" in x for x in ends.notes)
    for request in wanted.values():
        check_home(request.folder)


def test_a_run_whose_nodes_are_always_lost_fails_and_keeps_what_is_done(tmp_path):
    cluster = Threads([place(x) for x in "abcd"])

    def pause(name: str, epoch: int) -> None:
        if epoch:
            time.sleep(0.2)
            cluster.lose({run: node for run, node, _ in cluster.began}[name])
            time.sleep(0.2)

    cluster.pause = pause
    wanted = requests(tmp_path, 1)
    ends = run(cluster, wanted, retries=1)
    failure = ends["pytorch-0"]
    assert isinstance(failure, WorkerError)
    assert "its node was lost 2 times" in str(failure)
    assert (tmp_path / "pytorch-0" / record.CHECKPOINT_FILE).exists()


def test_a_node_without_a_framework_gets_none_of_its_runs(tmp_path):
    bare = place("bare", tensorflow="TensorFlow is not installed. Type: pip install it")
    cluster = Threads([bare, place("whole")])
    wanted = requests(tmp_path, 4, ("tensorflow", "pytorch"))
    ends = run(cluster, wanted)
    assert set(ends.values()) == {None}
    where = {node for run, node, _ in cluster.began if run.startswith("tensorflow")}
    assert where == {"whole"}


def test_a_framework_that_no_node_has_is_told_and_the_others_go_on(tmp_path):
    lacks = "TensorFlow is not installed. Type: pip install it"
    nodes = [place(x, tensorflow=lacks) for x in "ab"]
    wanted = requests(tmp_path, 2, ("tensorflow", "pytorch"))
    ends = run(Threads(nodes), wanted)
    assert ends["pytorch-0"] is ends["pytorch-1"] is None
    for name in ("tensorflow-0", "tensorflow-1"):
        assert isinstance(ends[name], UserError)
        assert "no node of the cluster can run TensorFlow" in str(ends[name])
        assert f"a.example: {lacks}" in str(ends[name])


def test_another_version_of_the_package_is_no_place(tmp_path):
    old = place("old").model_copy(update={"version": "0.0.1"})
    ends = run(Threads([old]), requests(tmp_path, 1))
    assert "paripassu 0.0.1 is there" in str(ends["pytorch-0"])
    ends = run(Threads([old, place("new")]), requests(tmp_path, 2))
    assert set(ends.values()) == {None}


def begun(out: Path, processor: str) -> dict[str, TrainRequest]:
    """A run that has done two epochs on a node of that kind."""
    cluster = Threads([place("first", processor)])

    def pause(_name: str, epoch: int) -> None:
        if epoch == 2:
            time.sleep(0.3)
            cluster.lose("first")

    cluster.pause = pause
    wanted = requests(out, 1)
    run(cluster, wanted, retries=0)
    assert (out / "pytorch-0" / record.CHECKPOINT_FILE).read_text() == "2"
    return wanted


def test_a_run_goes_on_with_the_kind_of_processor_it_began_on(tmp_path):
    wanted = begun(tmp_path, "Intel")
    cluster = Threads([place("other", "AMD"), place("same", "Intel")])
    cluster.has["other"] = {"CPU": 4}
    more = requests(tmp_path, 4)
    ends = run(cluster, {**more, **wanted})
    assert set(ends.values()) == {None}
    assert ("pytorch-0", "same", 2) in cluster.began or (
        "pytorch-0",
        "other",
        0,
    ) in cluster.began
    assert ("pytorch-0", "other", 2) not in cluster.began  # both kinds in one


def test_on_another_kind_of_processor_a_run_starts_over(tmp_path):
    wanted = begun(tmp_path, "Intel")
    cluster = Threads([place("other", "AMD")])
    ends = run(cluster, wanted)
    assert ends["pytorch-0"] is None
    assert cluster.began == [("pytorch-0", "other", 0)]
    assert any("starts over: it began on Intel" in x for x in ends.notes)
    check_home(tmp_path / "pytorch-0")


def test_no_room_is_told_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(dispatch, "HINT", 0.1)
    wanted = requests(tmp_path, 2)
    ends = Ends()
    wish = Wishes(resources={"CPU": 8, "GPU": 1}, patience=0.4)
    Dispatcher(Threads([place("a")]), wanted, ends.tell, wish).go()
    for failure in ends.values():
        assert isinstance(failure, UserError)
        assert "takes CPU 8, GPU 1. Nodes: 1 with CPU 1" in str(failure)
    (said,) = ends.notes
    assert said.startswith("waits: no node had room")


def test_lanes_that_cannot_start_end_the_work(tmp_path):
    cluster = Threads([place("a")])
    cluster.stillborn = True
    ends = run(cluster, requests(tmp_path, 2))
    for failure in ends.values():
        assert "ModuleNotFoundError: paripassu" in str(failure)


def test_a_run_that_fails_is_told_by_its_own_folder(tmp_path):
    cluster = Threads([place("a")])
    cluster.diverge.add("pytorch-1")
    ends = run(cluster, requests(tmp_path, 3))
    assert isinstance(ends["pytorch-1"], UserError)
    assert str(ends["pytorch-1"]) == f"{tmp_path / 'pytorch-1'} has diverged"
    assert ends["pytorch-0"] is ends["pytorch-2"] is None
    log = tmp_path / "pytorch-1" / record.ERRORS_FILE
    assert log.read_text() == "its last words"


def test_no_room_at_home_fails_the_run(tmp_path):
    (tmp_path / "pytorch-0").write_text("a file in the way")
    ends = run(Threads([place("a")]), requests(tmp_path, 2))
    assert isinstance(ends["pytorch-0"], PariPassuError)
    assert ends["pytorch-1"] is None


def test_exclusive_gives_a_whole_node(tmp_path):
    cluster = Threads([place("a"), place("b")], cpus=4)
    together: list[set[str]] = []

    def pause(_name: str, _epoch: int) -> None:
        busy = [x.lane.place.node for x in cluster.hired if not x.dead]
        together.append({x for x in busy if busy.count(x) > 1})
        time.sleep(0.005)

    cluster.pause = pause
    wanted = requests(tmp_path, 5)
    ends = run(cluster, wanted, exclusive=True)
    assert set(ends.values()) == {None}
    assert not any(together)
    assert not any(node and node.shared for node in cluster.nodes_of.values())


def test_whoever_is_interrupted_leaves_clean_nodes(tmp_path):
    cluster = Threads([place("a"), place("b")])

    def tell(_name: str, told: Any) -> None:
        if isinstance(told, dict) and told["event"] == "epoch":
            raise KeyboardInterrupt

    wish = Wishes(resources={})
    with pytest.raises(KeyboardInterrupt):
        Dispatcher(cluster, requests(tmp_path, 4), tell, wish).go()
    assert not cluster.waiting
    assert not any(x.lane._scratch.exists() for x in cluster.hired)
    begun = [x for x in tmp_path.iterdir() if (x / record.CHECKPOINT_FILE).exists()]
    assert begun  # what was done is kept


def test_on_a_shared_disk_runs_are_made_in_place(tmp_path):
    cluster = Threads([place("a")])
    wanted = requests(tmp_path / "out", 2)
    ends = run(cluster, wanted, storage=tmp_path)
    assert set(ends.values()) == {None}
    for request in wanted.values():
        check_home(request.folder)
    within(wanted, tmp_path)
    with pytest.raises(UserError, match=r"is not in --storage .*with --out"):
        within(wanted, tmp_path / "elsewhere")


@settings(max_examples=6)
@given(seed=st.integers(0, 2**16))
def test_whatever_is_lost_every_run_ends_once_and_whole(tmp_path_factory, seed):
    """Nodes come and go at random; each run ends well, or says why not."""
    out = tmp_path_factory.mktemp("out")
    draw = random.Random(seed)
    kinds = ["Intel", "AMD"]
    cluster = Threads([place(f"n{x}", draw.choice(kinds)) for x in range(4)])

    def pause(_name: str, _epoch: int) -> None:
        time.sleep(0.003)
        if draw.random() < 0.08 and len(cluster.has) > 1:
            cluster.lose(draw.choice(sorted(cluster.has)))
            new = f"n{len(cluster.places)}"
            cluster.places[new] = place(new, draw.choice(kinds))
            cluster.has[new] = {"CPU": 1}

    cluster.pause = pause
    wanted = requests(out, 8)
    ends = run(cluster, wanted, retries=50)
    assert set(ends.values()) == {None}
    for request in wanted.values():
        check_home(request.folder)


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b", ""])
def test_files_that_lead_out_of_a_folder_are_refused(name, tmp_path):
    with pytest.raises(UserError, match="is no file of a folder"):
        lane.write_all(tmp_path / "in", {name: b"x"})
    assert not (tmp_path / "out").exists()
