"""Runs survive: killed at any moment and started again, they end at the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from paripassu.core import datasets
from paripassu.frameworks import FRAMEWORKS

EPOCHS = 4
NAMES = list(FRAMEWORKS)


@pytest.fixture(scope="module")
def some_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = datasets.load()
    path = tmp_path_factory.mktemp("data") / "some.npz"
    np.savez(
        path,
        x_train=data.train_images[:2000],
        y_train=data.train_labels[:2000],
        x_test=data.test_images[:500],
        y_test=data.test_labels[:500],
    )
    return path


def command(framework: str, data: Path, out: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-c", "from paripassu.cli import main; main()"),
        *("train", "--framework", framework, "--epochs", str(EPOCHS)),
        *("--data", str(data), "--out", str(out), *more),
    ]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def skip_if_missing(framework: str) -> None:
    if problem := FRAMEWORKS[framework].problem:
        pytest.skip(problem)


def wait_for_epoch(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while not (folder / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_end(processes: list[psutil.Process]) -> None:
    _gone, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive, "a worker outlived its parent"


@pytest.mark.parametrize("framework", NAMES)
def test_killed_parent_and_child_end_at_the_same_bits(
    framework: str, some_digits: Path, tmp_path: Path
) -> None:
    skip_if_missing(framework)
    whole = run(*command(framework, some_digits, tmp_path / "whole", "--json"))
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "killed"
    words = command(framework, some_digits, out, "--json")

    parent = start(words)  # the parent is killed
    wait_for_epoch(out, parent)
    children = psutil.Process(parent.pid).children(recursive=True)
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    wait_for_end(children)

    parent = start(words)  # the child is killed
    while not (children := psutil.Process(parent.pid).children(recursive=True)):
        time.sleep(0.02)
    time.sleep(1.5)
    children[0].kill()
    _output, complaint = parent.communicate()
    assert parent.returncode == 1, complaint
    assert "killed by signal 9" in complaint

    last = run(*words)
    assert last.returncode == 0, last.stderr
    check_same(json.loads(whole.stdout), json.loads(last.stdout), tmp_path)
    assert len(json.loads(last.stdout)["sessions"]) >= 2

    again = run(*words)  # finished: used as it is
    assert again.returncode == 0
    assert json.loads(again.stdout) == json.loads(last.stdout)

    other = run(*command(framework, some_digits, out, "--set", "batch_size=32"))
    assert other.returncode == 2
    assert "batch_size" in other.stderr


def check_same(whole: dict, last: dict, folder: Path) -> None:
    assert last["weights_sha256"] == whole["weights_sha256"]
    assert last["result"] == whole["result"]
    assert [epoch["epoch"] for epoch in last["epochs"]] == [1, 2, 3, 4]
    losses = [epoch["training_loss"] for epoch in last["epochs"]]
    assert losses == [epoch["training_loss"] for epoch in whole["epochs"]]
    one, other = folder / "whole", folder / "killed"
    name = "predictions.safetensors"
    assert (one / name).read_bytes() == (other / name).read_bytes()
    assert not list(other.glob(".*.tmp*"))
    assert not (other / "checkpoint.safetensors").exists()


def test_another_seed_gives_other_bits(some_digits: Path, tmp_path: Path) -> None:
    """The comparison of hashes above can fail."""
    skip_if_missing("pytorch")
    hashes = set()
    for seed in ("1", "2"):
        words = command("pytorch", some_digits, tmp_path / seed, "--json")
        result = run(*words, "--seed", seed, "--set", "epochs=1")
        hashes.add(json.loads(result.stdout)["weights_sha256"])
    assert len(hashes) == 2


def test_interrupt_and_second_process(some_digits: Path, tmp_path: Path) -> None:
    skip_if_missing("pytorch")
    out = tmp_path / "run"
    words = command("pytorch", some_digits, out)
    first = start(words)
    wait_for_epoch(out, first)
    children = psutil.Process(first.pid).children(recursive=True)
    for child in children:
        child.suspend()  # so that the first is still at work when the second comes
    second = run(*words)
    assert second.returncode == 2
    assert "in use by another process" in second.stderr
    for child in children:
        child.resume()
    first.send_signal(signal.SIGINT)
    _output, complaint = first.communicate(timeout=30)
    assert first.returncode == 130
    assert "type the same command again" in complaint.replace("\n", " ")
    wait_for_end(children)
    assert run(*words).returncode == 0


def test_damaged_checkpoint_and_impossible_folder(
    some_digits: Path, tmp_path: Path
) -> None:
    skip_if_missing("pytorch")
    out = tmp_path / "run"
    out.mkdir()
    (out / "checkpoint.safetensors").write_bytes(b"\x80\x04garbage")
    damaged = run(*command("pytorch", some_digits, out))
    assert damaged.returncode == 2
    assert "checkpoint.safetensors" in damaged.stderr
    (tmp_path / "file").write_text("in the way")
    blocked = run(*command("pytorch", some_digits, tmp_path / "file" / "run"))
    assert blocked.returncode == 2
    assert "cannot write" in blocked.stderr


@pytest.mark.slow
@pytest.mark.parametrize("framework", NAMES)
def test_killed_at_random_moments(
    framework: str, some_digits: Path, tmp_path: Path
) -> None:
    skip_if_missing(framework)
    whole = run(*command(framework, some_digits, tmp_path / "whole", "--json"))
    assert whole.returncode == 0, whole.stderr
    words = command(framework, some_digits, tmp_path / "killed", "--json")
    moments = random.Random(7)
    for _ in range(6):
        parent = start(words)
        delay = moments.uniform(2, 14)
        print(f"killing after {delay:.2f} s")
        try:
            parent.communicate(timeout=delay)
        except subprocess.TimeoutExpired:
            family = psutil.Process(parent.pid).children(recursive=True)
            victim = moments.choice([parent.pid, *[x.pid for x in family]])
            os.kill(victim, signal.SIGKILL)
            parent.communicate()
            wait_for_end(family)
    last = run(*words)
    assert last.returncode == 0, last.stderr
    check_same(json.loads(whole.stdout), json.loads(last.stdout), tmp_path)
