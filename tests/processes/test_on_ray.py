"""Runs on a real Ray cluster of several nodes, all of it on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import (
    BOTH,
    COMMAND,
    PATIENCE,
    Once,
    environment,
    hide_module,
    needs_both,
    run_paripassu,
    skip_without,
    type_here,
    wait_for,
)

from paripassu.core import files, record
from paripassu.core.errors import UserError
from paripassu.processes import on_ray
from paripassu.processes.on_ray import ALONE, OnRay

os.environ.setdefault(ALONE, "0")  # before anything imports Ray
HOST = "127.0.0.1"
MARK = "PARIPASSU_TEST_CLUSTER"
SEEDS = 5
RECIPE = ["--recipe", "keras-example", "--set", "validation_size=0", "--epochs", 4]


class Cluster:
    """A head without CPUs, and nodes of one CPU, as processes on loopback."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as Processes

        self.mark = str(uuid.uuid4())  # what its processes have in their environment
        self._processes = Processes()
        self.port = free_port()
        self._add(num_cpus=0, ray_client_server_port=self.port)
        self.nodes: list[Any] = []

    def _add(self, **options: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(MARK, self.mark)
            return self._processes.add_node(
                node_ip_address=HOST, include_dashboard=False, **options
            )

    def workers(self) -> list[psutil.Process]:
        """The processes that train on it, also those whose parent is gone.

        Other tests run beside these, and have such processes too.
        """
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                here = process.environ().get(MARK) == self.mark
                if here and "paripassu.worker" in process.cmdline():
                    found.append(process)
        return found

    def add(self, **variables: str) -> Any:
        """A node whose processes have these variables too."""
        node = self._add(num_cpus=1, env_vars=variables or None)
        self.nodes.append(node)
        return node

    def kill(self, node: Any) -> None:
        """Switch a node off: all of its processes at once."""
        self.nodes.remove(node)
        self._processes.remove_node(node, allow_graceful=False)

    @property
    def address(self) -> str:
        return str(self._processes.address)

    @property
    def client(self) -> str:
        return f"ray://{HOST}:{self.port}"

    def stop(self) -> None:
        self._processes.shutdown()


@pytest.fixture
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The only Ray of the tests: what starts looks for others on its machine."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    lock = root / "ray.lock"
    lock.mkdir(exist_ok=True)
    with files.owned(lock, patience=2 * PATIENCE):
        yield


@pytest.fixture
def cluster(alone: None) -> Iterator[Cluster]:
    del alone  # held until the end
    pytest.importorskip("ray", reason="no Ray: type pip install 'ray[client]'")
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        cluster = Cluster()
        yield cluster
        cluster.stop()


def free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


def compare(out: Path, data: Path, *more: object, seeds: int = SEEDS) -> list[object]:
    fixed = ["--data", data, "--out", out, "--threads", 1, "--seeds", seeds]
    return ["compare", *RECIPE, *fixed, *more]


@contextlib.contextmanager
def typed(words: list[object], log: Path, **variables: str) -> Iterator[Any]:
    """A command that runs, in a group of its own."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*COMMAND, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            env={**environment(), **variables},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def begun(out: Path) -> list[Path]:
    return list(out.glob(f"runs/*/{record.CHECKPOINT_FILE}"))


def outcomes(out: Path) -> dict[str, Any]:
    """Whatever must be the same wherever the runs are made."""
    found = {}
    for folder in sorted((out / "runs").iterdir()):
        run = record.load_record(folder)
        assert run.status == "finished", folder
        assert not (folder / record.CHECKPOINT_FILE).exists()
        assert (folder / run.files["model"]).exists()
        assert (folder / record.ERRORS_FILE).exists()
        found[folder.name] = (
            run.weights_sha256,
            run.result,
            [(x.epoch, x.training_loss, x.monitor_loss) for x in run.epochs],
            (folder / record.PREDICTIONS_FILE).read_bytes(),
            run.dataset,
        )
    return found


def verdicts(out: Path) -> list[Mapping[str, Any]]:
    return list(files.read_json(out / "comparison.json")["pairs"])


@pytest.fixture(scope="session")
def here(small: Path, once: Once) -> Path:
    """The same comparison on this machine alone."""

    def fill(folder: Path) -> None:
        data = Path(shutil.copy(small, folder))
        done = run_paripassu(*compare(folder / "out", data))
        assert done.returncode == 0, done.stderr

    return once("compared-here", fill) / "out"


@pytest.fixture
def data(here: Path, small: Path) -> Path:
    """The data of that comparison."""
    return here.parent / small.name


def with_proof(out: Path, here: Path) -> Path:
    """A folder that has the proof already: it is not what is tested."""
    out.mkdir()
    shutil.copy(here / "proof.json", out)
    return out


@pytest.mark.slow
@needs_both
def test_a_lost_node_changes_no_bit_and_no_verdict(cluster, data, here, tmp_path):
    out, log = with_proof(tmp_path / "out", here), tmp_path / "log"
    for _ in range(3):
        cluster.add()
    before = files.read_json(out / "proof.json")
    with typed([*compare(out, data), "--on", cluster.client], log) as command:
        wait_for(lambda: begun(out) or command.poll() is not None, "an epoch at home")
        loopback_only(cluster)
        cluster.kill(cluster.nodes[0])
        assert command.wait(PATIENCE) == 0, log.read_text()
    assert files.read_json(out / "proof.json") == before
    assert outcomes(out) == outcomes(here)
    assert verdicts(out) == verdicts(here)
    said = log.read_text()
    assert "is lost (" in said
    assert "Traceback" not in said
    runs = [record.load_record(x) for x in (out / "runs").iterdir()]
    assert {x.sessions[-1].node.host for x in runs} == {socket.gethostname()}
    assert not cluster.workers()


def loopback_only(cluster: Cluster) -> None:
    """Nothing of the cluster listens where others could reach it."""
    heads = [x for node in [cluster._processes.head_node] for x in processes_of(node)]
    assert heads
    for process in heads + [x for node in cluster.nodes for x in processes_of(node)]:
        for link in process.net_connections("inet"):
            if link.status == psutil.CONN_LISTEN:
                assert link.laddr.ip in (HOST, "::1", "::ffff:127.0.0.1"), (
                    process.cmdline()[:3],
                    link.laddr,
                )


def processes_of(node: Any) -> list[psutil.Process]:
    numbers = [x.process.pid for each in node.all_processes.values() for x in each]
    found = [psutil.Process(x) for x in numbers if psutil.pid_exists(x)]
    return [*found, *(y for x in found for y in x.children(recursive=True))]


@pytest.mark.slow
@needs_both
def test_a_killed_driver_leaves_a_clean_cluster_and_what_is_done(
    cluster, data, here, tmp_path
):
    out, log = with_proof(tmp_path / "out", here), tmp_path / "log"
    for _ in range(2):
        cluster.add()
    words = [*compare(out, data, seeds=2), "--on", "ray"]
    with typed(words, log, RAY_ADDRESS=cluster.address) as command:
        wait_for(lambda: begun(out) or command.poll() is not None, "an epoch at home")
        wait_for(cluster.workers, "a process that trains", 60)
        os.killpg(command.pid, signal.SIGKILL)
        command.wait()
    wait_for(lambda: not cluster.workers(), "the end of what trained", 120)
    assert begun(out)
    with typed(words, log, RAY_ADDRESS=cluster.address) as command:
        assert command.wait(PATIENCE) == 0, log.read_text()
    assert "continues with epoch" in log.read_text()
    made, expected = outcomes(out), outcomes(here)
    assert len(made) == 4
    assert made == {name: expected[name] for name in made}


@pytest.mark.slow
@needs_both
def test_ctrl_c_leaves_a_clean_cluster(cluster, data, here, tmp_path):
    out, log = with_proof(tmp_path / "out", here), tmp_path / "log"
    cluster.add()
    words = [*compare(out, data, seeds=1), "--on", cluster.client]
    with typed(words, log) as command:
        wait_for(lambda: begun(out) or command.poll() is not None, "an epoch at home")
        wait_for(cluster.workers, "a process that trains", 60)
        os.kill(command.pid, signal.SIGINT)
        assert command.wait(60) == 130
    wait_for(lambda: not cluster.workers(), "the end of what trained", 30)
    said = log.read_text()
    assert "type the same command again" in said.lower()
    assert "Traceback" not in said


@pytest.mark.slow
@needs_both
def test_a_node_without_a_framework_is_told(cluster, data, here, tmp_path):
    """One node lacks TensorFlow, and then all do."""
    bare = hide_module(tmp_path / "bare", "tensorflow", "keras")
    out, log = with_proof(tmp_path / "out", here), tmp_path / "log"
    lacking = cluster.add(PYTHONPATH=str(bare))
    whole = cluster.add()
    words = compare(out, data, "--on", cluster.client, seeds=2)
    with typed(words, log) as command:
        assert command.wait(PATIENCE) == 0, log.read_text()
    two = {f"{name}-seed{seed}" for name in BOTH for seed in (42, 43)}
    assert set(outcomes(out)) == two
    cluster.kill(whole)
    assert cluster.nodes == [lacking]
    again = with_proof(tmp_path / "again", here)
    words = compare(again, data, "--on", cluster.client, seeds=1)
    with typed(words, log) as command:
        assert command.wait(PATIENCE) == 1
    said = log.read_text()
    assert "no node of the cluster can run TensorFlow" in said
    assert "TensorFlow is not installed" in said
    assert "Traceback" not in said
    assert record.is_finished(again / "runs" / "pytorch-seed42")


@pytest.mark.slow
@skip_without("pytorch")
@pytest.mark.usefixtures("alone")
def test_a_study_on_a_ray_of_this_machine_alone(small, tmp_path):
    pytest.importorskip("ray", reason="no Ray: type pip install 'ray[client]'")
    study = tmp_path / "study.toml"
    study.write_text(
        'recipes = ["keras-example"]\nframeworks = ["pytorch"]\nseeds = 2\n'
        'set = ["validation_size=0", "epochs=1"]\n'
        '[grid]\n"optimizer.learning_rate" = [0.5, 1.0]\n'
    )
    found = {}
    for name, more in {"here": (), "ray": ("--on", "ray")}.items():
        out, log = tmp_path / name, tmp_path / f"{name}.log"
        words = ["study", study, "--data", small, "--out", out, *more]
        # Where Ray keeps the token that it asks for.
        with typed(words, log, HOME=str(tmp_path)) as command:
            assert command.wait(PATIENCE) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
        found[name] = outcomes(out)
    assert len(found["here"]) == 4
    assert found["ray"] == found["here"]


@pytest.mark.slow
@skip_without("pytorch")
def test_on_a_shared_disk_nothing_travels(cluster, small, tmp_path):
    cluster.add()
    data = tmp_path / "disk" / "small.npz"
    data.parent.mkdir()
    shutil.copy(small, data)
    words = ["compare", *RECIPE, "--frameworks", "pytorch", "--seeds", 1]
    words += ["--threads", 1, "--data", data, "--storage", data.parent]
    done = run_paripassu(*words, "--on", cluster.client)
    assert done.returncode == 0, done.stderr
    (out,) = (x for x in data.parent.iterdir() if x.is_dir())
    assert len(outcomes(out)) == 1


# Without a cluster


def test_without_ray_the_way_out_is_told(tiny, tmp_path):
    path = hide_module(tmp_path / "without", "ray")
    words = [*compare(tmp_path / "out", tiny, seeds=1), "--on", "ray"]
    done = run_paripassu(*words, path=path)
    assert done.returncode == 2
    assert "Ray is not installed. Type: pip install 'ray[client]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["ray://127.0.0.1:{port}", "127.0.0.1:{port}"])
def test_a_cluster_that_does_not_answer_is_told(address, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="no Ray: type pip install 'ray[client]'")
    monkeypatch.setenv("RAY_ADDRESS", address.format(port=free_port()))
    with pytest.raises(UserError, match=r"no Ray cluster answers at .*127\.0\.0\.1"):
        OnRay(storage=tmp_path).__enter__()


@pytest.mark.parametrize("failures", [1, on_ray.TRIES])
def test_a_server_that_did_not_start_is_asked_for_again(failures, monkeypatch):
    """Whether a head's process for its client dies cannot be arranged: Ray says so."""
    ray = pytest.importorskip("ray", reason="no Ray: type pip install 'ray[client]'")
    asked = []

    def init(address, **_options):
        asked.append(address)
        if len(asked) <= failures:
            raise ConnectionAbortedError(f"from server: {on_ray.NOT_SERVED}. See a log")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(on_ray, "PAUSE", 0)
    with socket.create_server((HOST, 0)) as head:
        address = f"ray://{HOST}:{head.getsockname()[1]}"
        if failures < on_ray.TRIES:
            on_ray._connect(address)
        else:
            with pytest.raises(UserError, match=r"cannot be used: .*failed"):
                on_ray._connect(address)
    assert asked == [address] * min(failures + 1, on_ray.TRIES)


@pytest.mark.parametrize(
    "address", ["http://host:1", "ray://host", "ray://h:port", "x"]
)
def test_what_is_no_address_is_told(address):
    pytest.importorskip("ray", reason="no Ray: type pip install 'ray[client]'")
    with pytest.raises(UserError, match="is no address of a Ray cluster"):
        OnRay(address).__enter__()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", "slurm"], "--on 'slurm': expected ray, or ray://HOST:PORT"),
        (["--exclusive"], "--exclusive is for runs on a cluster. Add: --on ray"),
        (["--take", "GPU=1"], "--take is for runs on a cluster"),
        (["--on", "ray", "--take", "GPU"], "--take 'GPU': expected RESOURCE=COUNT"),
        (["--on", "ray", "--take", "GPU=-1"], "--take 'GPU=-1': expected"),
        (["--on", "ray", "--take", "=1"], "--take '=1': expected"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(words, said, tiny, tmp_path):
    done = type_here(*compare(tmp_path / "out", tiny, seeds=1), *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()
