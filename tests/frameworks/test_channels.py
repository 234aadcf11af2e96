"""Images in colour, as each framework's lesson and trainer take them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from helpers import FIRST_FAST, environment

# In a process of its own: a split in colour, whose channels have other levels, and
# what the lesson makes of some rows, `(N, h, w, c)`.
MADE = """
import numpy as np
from paripassu.core.datasets import ImageData, prepare

random = np.random.default_rng(3)
pixels = random.integers(0, 256, (12, 5, 4, 3), np.uint8)
labels = np.arange(12, dtype=np.uint8) % 10
data = ImageData("made", "here", {}, pixels, labels, pixels, labels)
split = prepare(data, mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 0.75]).training
rows = np.array([7, 2, 11])
expected = ((pixels[rows] / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 0.75])
"""
LESSONS = {
    "pytorch": """
from paripassu.frameworks.pytorch.lesson import Digits

images, y = Digits(split, "cpu")[rows]
images, y = images.permute(0, 2, 3, 1).numpy(), y.numpy()
""",
    "tensorflow": """
from paripassu.frameworks.tensorflow import lesson

orders = iter([[rows]])
(pair,) = lesson.to_dataset(split, orders, 1)
images, y = (x.numpy() for x in pair)
""",
    "jax": """
from paripassu.frameworks.jax import lesson

images, y = lesson.take(lesson.to_arrays(split), rows)
""",
}
COMPARED = """
same = bool((np.asarray(images) == expected.astype(np.float32)).all())
answer = {
    "same": same,
    "shape": list(images.shape),
    "labels": np.asarray(y).tolist(),
}
"""


@pytest.mark.parametrize("framework", FIRST_FAST)
def test_a_lesson_takes_images_in_colour(
    framework: str,
) -> None:
    program = MADE + LESSONS[framework] + COMPARED + "print(json.dumps(answer))"
    done = subprocess.run(
        [sys.executable, "-c", "import json\n" + program],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["shape"] == [3, 5, 4, 3]
    assert found["labels"] == [7, 2, 1]
    assert found["same"]
