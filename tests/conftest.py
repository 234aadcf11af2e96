"""Fixtures of the tests that train."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import BOTH, PATIENCE, Child, Once, run_paripassu
from hypothesis import settings
from serving import Server

from paripassu.core import datasets, files
from paripassu.frameworks.registry import FRAMEWORKS

# In the background a shell has Ctrl-C ignored, and the commands would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine that is busy with something else is slow, and no test fails by that.
settings.register_profile("paripassu", deadline=None, max_examples=50)
settings.load_profile("paripassu")


class _AtOnce:
    """Tells of a failure when it happens: until the end, it may be minutes."""

    def __init__(self, terminal: Any) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.write_line(f"\n{report.nodeid} failed in its {report.when}:")
            self._terminal.write_line(report.longreprtext)


@pytest.hookimpl(trylast=True)  # when there is a terminal
def pytest_configure(config: pytest.Config) -> None:
    if terminal := config.pluginmanager.get_plugin("terminalreporter"):
        config.pluginmanager.register(_AtOnce(terminal))


@pytest.fixture(scope="session", autouse=True)
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What XLA compiled for a process of a test is there for those of later tests.

    Not for those of other workers: what is being written is not whole.
    """
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("compiled")
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
        yield


@pytest.fixture(scope="session")
def mnist() -> datasets.ImageData:
    return datasets.load()


def _write(path: Path, data: datasets.ImageData, training: int, test: int) -> Path:
    np.savez(
        path,
        x_train=data.train_images[:training],
        y_train=data.train_labels[:training],
        x_test=data.test_images[:test],
        y_test=data.test_labels[:test],
    )
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, mnist: datasets.ImageData) -> Path:
    """600 training images, so that the last batch of 64 is short, and 300 others."""
    return _write(tmp_path_factory.mktemp("data") / "small.npz", mnist, 600, 300)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, mnist: datasets.ImageData) -> Path:
    """100 training images and 100 test images."""
    return _write(tmp_path_factory.mktemp("data") / "tiny.npz", mnist, 100, 100)


@pytest.fixture(scope="session")
def child_of(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Child]]:
    """The one process of each framework that the tests of the contract ask."""
    children: dict[str, Child] = {}

    def child_of(framework: str) -> Child:
        if framework not in children:
            folder = tmp_path_factory.mktemp(framework)
            children[framework] = Child(framework, folder)
        return children[framework]

    yield child_of
    for child in children.values():
        child.close()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """The folder of a name, filled once for all processes of the tests; to be read."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def once(name: str, fill: Callable[[Path], None]) -> Path:
        folder = root / name
        lock = root / f"{name}.lock"
        lock.mkdir(exist_ok=True)
        with files.owned(lock, patience=PATIENCE):
            if not (lock / "filled").exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a failure left
                folder.mkdir()
                fill(folder)
                (lock / "filled").touch()
        return folder

    return once


@pytest.fixture(scope="session")
def trained(once: Once, mnist: datasets.ImageData) -> Path:
    """A run of a few seconds that knows its digits: about 96% on the test set."""
    framework = next((x for x in BOTH if not FRAMEWORKS[x].problem), None)
    if framework is None:
        pytest.skip("no framework: type pip install '.[pytorch]'")

    def fill(folder: Path) -> None:
        data = _write(folder / "data.npz", mnist, 8000, 300)
        options = {"epochs": 2, "data": data, "threads": 1, "out": folder / "run"}
        words = [word for name, x in options.items() for word in (f"--{name}", x)]
        words += ["--set", "validation_size=0", "--set", "batch_size=32"]
        result = run_paripassu(
            "train", "-f", framework, "--recipe", "keras-example", *words
        )
        assert result.returncode == 0, result.stderr

    return once("trained", fill) / "run"


@pytest.fixture(scope="session")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of that run in those asked by default; who hurts it waits for it."""
    pytest.importorskip("fastapi", reason="type: pip install '.[serve]'")
    log = tmp_path_factory.mktemp("served") / "stderr.log"
    with Server("--model", trained, log=log) as server:
        yield server


CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium: type 'apt-get update && apt-get install chromium'")
    api = pytest.importorskip(
        "playwright.sync_api", reason="no playwright: type 'pip install playwright'"
    )
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=CHROMIUM)
        yield running
        running.close()
