"""Images in another form than a network knows: said, where that is what is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from paripassu.core import datasets
from paripassu.worker.evaluation import orientation_hints


class NearestMean:
    """A classifier: the class whose mean image is nearest. 82% on MNIST."""

    def __init__(self, split):
        images = split.images.reshape(len(split), -1)
        self.means = np.stack([images[split.labels == x].mean(0) for x in range(10)])

    def evaluate(self, split):
        images = split.images.reshape(len(split), -1)
        away = (self.means**2).sum(1) - 2 * images @ self.means.T
        return 0.0, float((away.argmin(1) == split.labels).mean())


@pytest.fixture(scope="module")
def known(mnist):
    data = datasets.prepare(mnist.with_first(5000), mean=0.13, std=0.31)
    return NearestMean(data.training), data.test[:1000]


@pytest.mark.parametrize(
    ("name", "turn"),
    [
        ("transposed", lambda x: x.transpose(0, 2, 1, 3)),
        ("mirrored", lambda x: x[:, :, ::-1]),
        ("inverted", lambda x: 255 - x),
    ],
)
def test_turned_images_are_told(known, name, turn):
    trainer, test = known
    turned = replace(test, pixels=np.ascontiguousarray(turn(test.pixels)))
    (hint,) = orientation_hints(trainer, turned, trainer.evaluate(turned)[1])
    assert f"the images look {name}" in hint


def test_nothing_is_told_of_upright_or_unknown_images(known):
    trainer, test = known
    assert orientation_hints(trainer, test, trainer.evaluate(test)[1]) == []
    noise = np.random.default_rng(0).integers(0, 256, test.pixels.shape, np.uint8)
    assert orientation_hints(trainer, replace(test, pixels=noise), 0.1) == []
