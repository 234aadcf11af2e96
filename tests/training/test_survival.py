"""Runs survive: kills at any moment, full disks, damaged files, crashing frameworks.

Real commands are typed and really killed. What must come out is what came out of the
same command left alone, bit for bit.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from helpers import (
    BOTH,
    EACH,
    FIRST_FAST,
    MODULES,
    OTHER,
    Running,
    break_module,
    needs_both,
    run_paripassu,
    skip_without,
    type_here,
    wait_for,
)

from paripassu.core import files, record

EPOCHS = 4
GONE = 20  # seconds for a worker to follow its parent; one, on an idle machine

needs_pytorch = skip_without("pytorch")
each = pytest.mark.parametrize("framework", EACH)


def arguments(framework: str, data: Path, folder: Path, *more: object) -> list[object]:
    fixed = ["--framework", framework, "--data", data, "--out", folder]
    return ["train", *fixed, "--epochs", EPOCHS, *more]


@dataclass(frozen=True)
class Straight:
    """A run that nobody disturbed."""

    folder: Path
    record: record.RunRecord
    seconds: float


@pytest.fixture(scope="module")
def straight_of(small, tmp_path_factory) -> Callable[[str], Straight]:
    known: dict[str, Straight] = {}

    def straight_of(framework: str) -> Straight:
        if framework not in known:
            folder = tmp_path_factory.mktemp("straight") / framework
            start = time.monotonic()
            done = run_paripassu(*arguments(framework, small, folder))
            assert done.returncode == 0, done.stderr
            seconds = time.monotonic() - start
            known[framework] = Straight(folder, record.load_record(folder), seconds)
        return known[framework]

    return straight_of


@pytest.fixture(scope="module")
def one_epoch_done(small, tmp_path_factory) -> Path:
    """A run of PyTorch that was killed after its first epoch; copy it."""
    folder = tmp_path_factory.mktemp("interrupted") / "pytorch"
    log = folder.with_suffix(".log")
    with Running(*arguments("pytorch", small, folder), log=log) as command:
        command.wait_for((folder / record.CHECKPOINT_FILE).exists, "a checkpoint")
        kill_parent(command)
    assert record.load_record(folder).status == "running"
    return folder


@pytest.fixture
def interrupted(one_epoch_done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(one_epoch_done, tmp_path / "pytorch"))


def kill_worker(command: Running) -> None:
    """End the worker at once: the command must see it, say so and fail."""
    command.worker().kill()
    assert command.wait() == 1
    assert "was killed by signal 9" in command.errors
    assert "Type the same command again to go on." in command.errors


def kill_parent(command: Running) -> None:
    """End the command at once: the worker must see it and end by itself."""
    worker = command.worker()
    os.kill(command.process.pid, signal.SIGKILL)
    command.process.wait()
    wait_for(lambda: is_gone(worker), "the worker's end", GONE)


def is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def contents(folder: Path) -> dict[str, bytes]:
    """What must stay as it is: all but the lock and the workers' last words.

    And but what a kill in the middle of writing left, which the next command removes.
    """
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name not in (".lock", ".owner", record.ERRORS_FILE)
        and ".tmp-paripassu" not in path.name
    }


def leftovers(folder: Path) -> list[Path]:
    return [*folder.glob(".*.tmp*"), *folder.glob(record.CHECKPOINT_FILE)]


def check_same_end(folder: Path, straight: Straight, kills: int) -> None:
    """The end of a disturbed run is that of the undisturbed one."""
    found = record.load_record(folder)
    expected = straight.record
    assert found.status == "finished"
    assert found.weights_sha256 == expected.weights_sha256
    assert found.result == expected.result
    predictions = (folder / record.PREDICTIONS_FILE).read_bytes()
    assert predictions == (straight.folder / record.PREDICTIONS_FILE).read_bytes()
    weights, _ = files.read_tensors(folder / record.WEIGHTS_FILE)
    others, _ = files.read_tensors(straight.folder / record.WEIGHTS_FILE)
    assert all((weights[name] == others[name]).all() for name in others)
    assert [epoch.epoch for epoch in found.epochs] == [1, 2, 3, 4]
    for epoch, other in zip(found.epochs, expected.epochs, strict=True):
        assert epoch.training_loss == other.training_loss
        assert epoch.monitor_loss == other.monitor_loss
        assert epoch.learning_rate == other.learning_rate
    # Sessions follow each other; one without a finished epoch leaves no trace.
    assert 1 <= len(found.sessions) <= kills + 1
    firsts = [session.first_epoch for session in found.sessions]
    assert firsts[0] == 1
    assert firsts == sorted(firsts)
    for epoch in found.epochs:
        assert found.sessions[epoch.session].first_epoch <= epoch.epoch
    assert leftovers(folder) == []
    assert leftovers(straight.folder) == []


def writing(name: str) -> Callable[[Path, random.Random, Straight], Callable]:
    """The moment at which a file is being written: its temporary file is there."""

    def moment(folder: Path, _draw: random.Random, _straight: Straight) -> Callable:
        return lambda: list(folder.glob(f".{name}.*.tmp*"))

    return moment


def during_training(
    folder: Path, draw: random.Random, straight: Straight
) -> Callable[[], bool]:
    """A random time, up to two epochs long, after one more epoch is done."""
    epochs = straight.record.epochs
    longest = 2 * sum(x.seconds + x.evaluation_seconds for x in epochs) / len(epochs)
    delay = draw.uniform(0, longest)
    print(f"to be killed {delay:.3f} s after the next epoch")
    begin = state_of(folder)
    end = float("inf")

    def now() -> bool:
        nonlocal end
        if end == float("inf") and state_of(folder) != begin:
            end = time.monotonic() + delay
        return time.monotonic() >= end

    return now


def state_of(folder: Path) -> int | None:
    path = folder / record.CHECKPOINT_FILE
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def at_any_time(
    _folder: Path, draw: random.Random, straight: Straight
) -> Callable[[], bool]:
    """A random time from the very start on, as long as a whole run takes."""
    delay = draw.uniform(0, straight.seconds)
    print(f"to be killed {delay:.3f} s after its start")
    end = time.monotonic() + delay
    return lambda: time.monotonic() >= end


def survive(framework, data, folder, straight, moments, seed) -> int:
    """Kill one command after the other, then let it end; how many were killed."""
    print(f"seed {seed}")
    draw = random.Random(seed)
    kills = 0
    log = folder.with_suffix(".log")
    for kill, moment in moments:
        reached = moment(folder, draw, straight)
        with Running(*arguments(framework, data, folder), log=log) as command:
            command.wait_for(command.workers, "a worker")
            command.wait_for(reached, "the moment of the kill")
            if command.ended() or not command.workers():
                print("it had ended before")
                break
            kill(command)
            kills += 1
            if folder.exists():
                print("killed; there are now", sorted(p.name for p in folder.iterdir()))
    done = run_paripassu(*arguments(framework, data, folder))
    assert done.returncode == 0, done.stderr
    return kills


KILLS = [
    pytest.param(
        "pytorch",
        [
            (kill_worker, writing("checkpoint")),
            (kill_parent, writing("checkpoint")),
            (kill_worker, during_training),
            # From here on a moment may be missed, and the run be over.
            (kill_parent, writing("run")),
            (kill_parent, at_any_time),
            (kill_worker, writing("weights")),
            (kill_parent, writing("model")),
            (kill_parent, writing("predictions")),
        ],
        marks=needs_pytorch,
        id="pytorch",
    ),
    pytest.param(
        "tensorflow",
        [
            (kill_worker, writing("checkpoint")),
            (kill_parent, during_training),
            (kill_worker, writing("model")),
        ],
        marks=skip_without("tensorflow"),
        id="tensorflow",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("framework", "moments"), KILLS)
def test_a_run_survives_many_kills(framework, moments, small, straight_of, tmp_path):
    straight, folder = straight_of(framework), tmp_path / "run"
    kills = survive(framework, small, folder, straight, moments, seed=0)
    assert kills >= 2
    check_same_end(folder, straight, kills)
    assert len(record.load_record(folder).sessions) >= 2


@pytest.mark.slow
def test_the_comparison_of_ends_can_fail(straight_of, one_epoch_done, tmp_path):
    """Red: another seed's weights, an epoch twice, a file left behind."""
    if not straight_of:
        pytest.skip()
    straight = straight_of("pytorch")
    check_same_end(straight.folder, straight, 0)
    good = straight.record

    def spoilt(name: str, **changes: object) -> Path:
        folder = tmp_path / name
        shutil.copytree(straight.folder, folder)
        record.save_record(folder, good.model_copy(update=changes))
        return folder

    twice = [*good.epochs[:1], *good.epochs]
    left = spoilt("left")
    (left / ".run.abc.tmp.json").touch()
    for folder in [
        spoilt("weights", weights_sha256="0" * 64),
        spoilt("epochs", epochs=twice),
        spoilt("sessions", sessions=[*good.sessions] * 2),
        left,
        one_epoch_done,
    ]:
        with pytest.raises(AssertionError):
            check_same_end(folder, straight, 0)


@needs_pytorch
def test_a_worker_follows_its_parent_even_before_training(small, tmp_path):
    """Killed while the framework is being imported: nothing goes on by itself."""
    folder = tmp_path / "run"
    log = tmp_path / "log"
    with Running(*arguments("pytorch", small, folder), log=log) as command:
        worker = command.worker()
        wait_for((folder / ".lock").exists, "the worker at work")
        kill_parent(command)
    assert is_gone(worker)
    with files.owned(folder, patience=GONE):
        pass  # the lock is free again


@pytest.mark.slow
@needs_pytorch
def test_ctrl_c_keeps_what_is_done(small, straight_of, interrupted):
    straight = straight_of("pytorch")
    log = interrupted.with_suffix(".log")
    with Running(*arguments("pytorch", small, interrupted), log=log) as command:
        before = state_of(interrupted)
        command.wait_for(lambda: state_of(interrupted) != before, "an epoch")
        worker = command.worker()
        os.killpg(command.process.pid, signal.SIGINT)  # as a terminal does
        assert command.wait() == 130
    wait_for(lambda: is_gone(worker), "the worker's end", GONE)
    assert "continues with epoch 2 of 4" in command.errors
    assert "interrupted" in command.errors
    assert "type the same command again" in command.errors
    assert "Traceback" not in command.errors
    assert record.load_record(interrupted).status == "running"

    done = run_paripassu(*arguments("pytorch", small, interrupted))
    assert done.returncode == 0, done.stderr
    check_same_end(interrupted, straight, 2)
    assert len(record.load_record(interrupted).sessions) == 3


@pytest.mark.slow
@needs_pytorch
def test_a_second_process_is_refused_and_the_first_undisturbed(
    small, straight_of, interrupted
):
    straight = straight_of("pytorch")
    log = interrupted.with_suffix(".log")
    with Running(*arguments("pytorch", small, interrupted), log=log) as command:
        command.wait_for(
            lambda: "continues with epoch 2 of 4" in command.errors, "training"
        )
        worker = command.worker()
        worker.suspend()  # it cannot end while the other one tries
        (interrupted / ".first.tmp.json").touch()  # a file that it may be writing
        second = run_paripassu(*arguments("pytorch", small, interrupted))
        assert second.returncode == 2
        assert f"{interrupted} is in use by another process" in second.stderr
        assert f"(number {worker.pid})" in second.stderr
        assert (interrupted / ".first.tmp.json").exists()
        (interrupted / ".first.tmp.json").unlink()
        worker.resume()
        assert command.wait() == 0, command.errors
    check_same_end(interrupted, straight, 1)


# Folders that hold something else


def refused(folder: Path, framework: str, data: Path, *more: object) -> str:
    """Type a command that must be refused; what it says. Nothing may change."""
    before = contents(folder)
    done = type_here(*arguments(framework, data, folder, *more))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert contents(folder) == before
    return done.stderr


@needs_pytorch
def test_another_recipe_is_refused(small, interrupted):
    said = refused(interrupted, "pytorch", small, "--set", "batch_size=32")
    assert "batch_size is 64 there and 32 now" in said
    said = refused(interrupted, "pytorch", small, "--set", "optimizer.rho=0.95")
    assert "optimizer" in said
    assert "'rho': 0.95" in said
    assert "batch_size" not in said
    assert "--out" in said


@needs_both
def test_another_framework_and_other_data_are_refused(small, tiny, interrupted):
    said = refused(interrupted, OTHER["pytorch"], small)
    assert "framework is 'pytorch' there and 'tensorflow' now" in said
    assert "the data differ" in refused(interrupted, "pytorch", tiny)


@needs_pytorch
def test_another_number_of_threads_is_refused(small, interrupted):
    threads = record.load_record(interrupted).environment.threads
    said = refused(interrupted, "pytorch", small, "--threads", threads + 1)
    assert f"threads {threads}, and now there are {threads + 1}" in said


# Damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    path.write_bytes(path.with_name(record.RUN_FILE).read_bytes())


def no_record(path: Path) -> None:
    state, _metadata = files.read_tensors(path)
    files.write_tensors(path, state)


def no_record_inside(path: Path) -> None:
    state, _metadata = files.read_tensors(path)
    files.write_tensors(path, state, {"record": "{}"})


@pytest.mark.parametrize(
    "damage",
    [cut, empty, foreign, no_record, no_record_inside],
    ids=lambda x: x.__name__,
)
@needs_pytorch
def test_a_damaged_checkpoint_is_named(damage, small, interrupted):
    damage(interrupted / record.CHECKPOINT_FILE)
    said = refused(interrupted, "pytorch", small)
    assert str(interrupted / record.CHECKPOINT_FILE) in said


@pytest.mark.parametrize("damage", [cut, empty])
@needs_pytorch
def test_a_damaged_record_is_named(damage, small, interrupted):
    damage(interrupted / record.RUN_FILE)
    assert str(interrupted / record.RUN_FILE) in refused(interrupted, "pytorch", small)


@pytest.mark.slow
@needs_pytorch
def test_without_its_checkpoint_a_run_starts_over(small, straight_of, interrupted):
    (interrupted / record.CHECKPOINT_FILE).unlink()
    done = type_here(*arguments("pytorch", small, interrupted))
    assert done.returncode == 0, done.stderr
    assert "goes on" not in done.stderr
    check_same_end(interrupted, straight_of("pytorch"), 1)


# Crashes


@each
def test_a_crash_is_told_with_its_last_words(framework, tiny, tmp_path):
    broken = break_module(tmp_path / "broken", MODULES[framework])
    folder = tmp_path / "run"
    typed = arguments(framework, tiny, folder)
    done = run_paripassu(*typed, path=broken)
    assert done.returncode == 1
    assert f"the {framework} process ended with code 1" in done.stderr
    assert "ImportError: broken on purpose" in done.stderr
    assert "broken on purpose" in (folder / record.ERRORS_FILE).read_text()
    assert done.stdout == ""
    assert not (folder / record.RUN_FILE).exists()


@pytest.mark.slow
@needs_both
def test_a_comparison_goes_on_without_a_framework_that_crashes(tiny, tmp_path):
    broken = break_module(tmp_path / "broken", "torch")
    folder = tmp_path / "out"
    done = run_paripassu(
        *["compare", "--epochs", 1, "--seeds", 1, "--data", tiny, "--out", folder],
        *["--set", "batch_size=16"],
        path=broken,
    )
    assert done.returncode == 1
    assert "pytorch-seed42 failed" in done.stderr
    assert "broken on purpose" in done.stderr
    assert (
        "Traceback (most recent call last):\n  File"
        not in done.stderr.split("torch")[0]
    )
    found = files.read_json(folder / "comparison.json")
    status = {name: x["status"] for name, x in found["frameworks"].items()}
    assert status == {"pytorch": "failed", "tensorflow": "ok"}
    assert "broken on purpose" in found["frameworks"]["pytorch"]["message"]
    assert found["proof"]["holds"] is False
    assert "broken on purpose" in found["proof"]["message"]
    assert "broken on purpose" in (folder / "report.html").read_text()


@needs_pytorch
def test_modules_in_the_folder_where_one_types_are_not_taken(
    small, straight_of, tmp_path
):
    """Red before `-P`: `python -m` puts the current folder first on the path."""
    for name in ("json", "numpy", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    folder = straight_of("pytorch").folder
    done = run_paripassu(*arguments("pytorch", small, folder), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# Disks


@pytest.mark.parametrize("verb", ["train", "compare"])
def test_an_impossible_folder_is_refused(verb, tiny, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    frameworks = next(
        (x for x in BOTH if skip_without(x).args == (False,)), None
    ) or pytest.skip(skip_without(*BOTH).kwargs["reason"])
    option = {"train": "--framework", "compare": "--frameworks"}[verb]
    for folder in (file / "run", file, Path("/proc/paripassu")):
        done = type_here(verb, option, frameworks, "--data", tiny, "--out", folder)
        assert done.returncode == 2, done.stderr
        assert f"cannot write {folder}" in done.stderr
        assert "Traceback" not in done.stderr
    assert file.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


class Disk:
    """A file system of its own in memory, of the size that a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def mount(self, options: str) -> None:
        self._run("mount", "-t", "tmpfs", "-o", options, "paripassu", str(self.folder))

    def remount(self, options: str) -> None:
        self._run("mount", "-o", f"remount,{options}", str(self.folder))

    def unmount(self) -> None:
        if self.folder.is_mount():
            self._run("umount", "--lazy", str(self.folder))

    @staticmethod
    def _run(*command: str) -> None:
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not here: a full disk cannot be made")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a full disk cannot be made here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.unmount()


@pytest.mark.slow
@needs_pytorch
def test_a_full_disk_is_told_and_the_run_goes_on_with_more_room(tiny, disk):
    disk.mount("size=3m")
    folder = disk.folder / "run"
    typed = [*arguments("pytorch", tiny, folder), "--epochs", 1]
    done = type_here(*typed)
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert leftovers(folder) == []
    assert record.load_record(folder).status == "running"

    disk.remount("size=21m")  # room for checkpoint and weights, not for the model
    done = type_here(*typed)
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stderr
    assert not (folder / "model.pt").exists()
    assert (folder / record.CHECKPOINT_FILE).exists()
    assert list(folder.glob(".*.tmp*")) == []

    disk.remount("size=90m")
    done = type_here(*typed)
    assert done.returncode == 0, done.stderr
    assert "continues with epoch 2" not in done.stderr
    assert record.load_record(folder).status == "finished"
    assert leftovers(folder) == []


@pytest.mark.slow
@skip_without("tensorflow")
def test_a_disk_too_small_for_the_model_is_told(tiny, disk):
    disk.mount("size=22m")  # the checkpoint and the weights fit, no more
    folder = disk.folder / "run"
    done = type_here(*arguments("tensorflow", tiny, folder), "--epochs", 1)
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stderr
    assert not (folder / "model.keras").exists()
    assert (folder / record.CHECKPOINT_FILE).exists()
    assert list(folder.glob(".*.tmp*")) == []


@needs_pytorch
def test_a_read_only_disk_is_told(tiny, disk):
    disk.mount("size=3m,ro")
    done = type_here(*arguments("pytorch", tiny, disk.folder / "run"))
    assert done.returncode == 2, done.stderr
    assert "the disk is read-only" in done.stderr


# Finished runs


@pytest.mark.parametrize("framework", FIRST_FAST)
def test_a_finished_run_is_used_as_it_is(framework, small, straight_of, tmp_path):
    """Without its framework, which is broken here and would fail."""
    straight = straight_of(framework)
    broken = break_module(tmp_path / "broken", MODULES[framework])
    before = contents(straight.folder)
    start = time.monotonic()
    done = run_paripassu(*arguments(framework, small, straight.folder), path=broken)
    seconds = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    assert "already finished, reused" in done.stderr
    assert f"{straight.record.result.test_accuracy:.2%}" in done.stdout
    assert contents(straight.folder) == before
    assert seconds < straight.seconds


@needs_pytorch
def test_a_finished_run_on_a_read_only_disk_is_used(small, straight_of, disk):
    disk.mount("size=90m")
    folder = disk.folder / "run"
    shutil.copytree(straight_of("pytorch").folder, folder)
    disk.remount("ro")
    done = type_here(*arguments("pytorch", small, folder))
    assert done.returncode == 0, done.stderr
    assert "already finished, reused" in done.stderr


@needs_pytorch
def test_a_kill_before_the_last_clearing_up_leaves_nothing(
    small, straight_of, one_epoch_done, tmp_path
):
    """Finished, and killed before the checkpoint was deleted."""
    straight = straight_of("pytorch")
    folder = tmp_path / "run"
    shutil.copytree(straight.folder, folder)
    shutil.copy(one_epoch_done / record.CHECKPOINT_FILE, folder)
    done = type_here(*arguments("pytorch", small, folder))
    assert done.returncode == 0, done.stderr
    assert "already finished, reused" in done.stderr
    check_same_end(folder, straight, 0)
