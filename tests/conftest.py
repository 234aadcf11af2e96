"""Fixtures of the tests that train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import Child

from paripassu.core import datasets


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
