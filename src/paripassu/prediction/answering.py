"""A trained network that answers: one framework in a process that stays.

Started as `python -m paripassu.prediction.answering`. One line of JSON on standard
input is the request; after the line `ready` on standard output, questions and answers
are frames of bytes, little-endian. A question is the number of images, uint64, and the
images, uint8 `(N, h, w, c)` as the network takes them (a digit's white ink on black, as
MNIST has it). An answer is the
number, the seconds that it took, float64, and the probabilities, float32
`(N, classes)`. The end of standard input ends the process.
"""

from __future__ import annotations

import contextlib
import math
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from paripassu.conversion.model_source import ModelSource
from paripassu.core import datasets, files
from paripassu.core.errors import UserError, WorkerError
from paripassu.core.recipe import Recipe
from paripassu.frameworks import registry
from paripassu.processes.child import die_with_parent, own_output
from paripassu.processes.conditions import Conditions
from paripassu.processes.launch import Child, crash
from paripassu.processes.requests import FrameworkRequest
from paripassu.reference.losses import softmax

QUESTION = struct.Struct("<Q")
ANSWER = struct.Struct("<Qd")
BATCH = 1000  # images in a frame, at most

Images = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]


class AnswerRequest(FrameworkRequest):
    """Answer images with a trained network until standard input ends."""

    module: ClassVar[str] = "paripassu.prediction.answering"
    task: Literal["answer"] = "answer"
    recipe: Recipe
    weights: Path  # a safetensors file
    mean: datasets.Constant
    std: datasets.Constant


class Answerer:
    """The parent's side: a process with one framework and one trained network."""

    def __init__(
        self, source: ModelSource, framework: str, *, threads: int = 1
    ) -> None:
        """Start the process; `wait` until it can answer.

        Args:
            source: the trained network.
            framework: a name; it need not be the one that trained.
            threads: of the framework.

        Raises:
            UserError: the framework is missing or cannot run the network.
        """
        registry.find(framework).check(source.recipe)
        self.source, self.framework = source, framework
        self.num_classes = source.recipe.architecture.num_classes
        self._lock = threading.Lock()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        module = AnswerRequest.module
        self._child = Child("-m", module, threads=threads, errors=self._log)
        self._weights = self._child.folder / "weights.safetensors"
        files.write_tensors(self._weights, source.weights)
        request = AnswerRequest(
            framework=framework,
            conditions=Conditions(threads=threads, device="cpu"),
            recipe=source.recipe,
            weights=self._weights,
            mean=source.mean,
            std=source.std,
        )
        self._child.send(request.model_dump_json())

    def wait(self) -> None:
        """Wait until it can answer.

        Raises:
            WorkerError: it ended before.
        """
        if self._child.stdout.readline().strip() != b"ready":
            raise self._failure()
        self._weights.unlink()  # they were read

    def ask(self, images: Images) -> tuple[Probabilities, float]:
        """The probabilities of each class, and the seconds that the network took.

        Args:
            images: uint8 `(N, h, w, c)`, or `(N, h, w)` where c is 1, at most 1,000;
                a digit's white ink on black.

        Returns:
            float32 `(N, classes)`, and wall-clock seconds inside the process.

        Raises:
            WorkerError: the process is gone. It does not come back: make another.
            UserError: an answer is no number.
        """
        if not len(images):
            return np.zeros((0, self.num_classes), np.float32), 0.0
        with self._lock:
            try:
                self._child.stdin.write(QUESTION.pack(len(images)))
                self._child.stdin.write(np.ascontiguousarray(images).tobytes())
                self._child.stdin.flush()
                count, seconds = ANSWER.unpack(self._read(ANSWER.size))
                content = self._read(4 * count * self.num_classes)
            except (OSError, EOFError, ValueError):
                raise self._failure() from None
        array = np.frombuffer(content, "<f4").reshape(count, self.num_classes)
        if not np.isfinite(array).all():
            raise UserError(
                f"{self.source.path} answers with what is no number: its weights are "
                "too large."
            )
        return array, seconds

    def _read(self, size: int) -> bytes:
        content = self._child.stdout.read(size)
        if len(content) < size:
            raise EOFError
        return content

    def _failure(self) -> WorkerError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(5)
        self._log.seek(0)
        return crash(f"the {self.framework} process has ended.", self._log)

    def kill(self) -> None:
        """Kill the process, from any thread: whoever waits for it then fails."""
        self._child.kill()

    def close(self) -> None:
        """End the process, and wait for its end."""
        self._child.close()
        self._log.close()

    def __enter__(self) -> Answerer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def main() -> int:
    """Answer until standard input ends."""
    answers = own_output("wb")
    questions = sys.stdin.buffer
    request = AnswerRequest.model_validate_json(questions.readline())
    die_with_parent()
    weights, _metadata = files.read_tensors(request.weights)
    trainer = registry.find(request.framework).make_trainer(
        request.recipe.for_use, weights=weights, threads=request.threads, device="cpu"
    )
    shape = request.recipe.architecture.input_shape
    size = math.prod(shape)
    for count in (1, 2):  # compile now: TensorFlow for one image, then for any number
        trainer.logits(np.zeros((count, *shape), np.float32))
    answers.write(b"ready\n")
    answers.flush()
    while header := questions.read(QUESTION.size):
        (count,) = QUESTION.unpack(header)
        content = questions.read(count * size)
        if len(content) < count * size:
            break  # the parent has gone in the middle of a question
        start = time.perf_counter()
        images = np.frombuffer(content, np.uint8).reshape(count, *shape)
        pixels = datasets.normalise(images, mean=request.mean, std=request.std)
        shares = softmax(trainer.logits(pixels))
        seconds = time.perf_counter() - start
        answers.write(ANSWER.pack(count, seconds) + shares.astype("<f4").tobytes())
        answers.flush()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(str(error))
