"""A framework behind its contract, in a process of its own, for the tests.

One request a line on standard input, one answer a line on what was standard output;
arrays travel in safetensors files.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from paripassu.core.datasets import Split
from paripassu.core.recipe import validate
from paripassu.core.steps import TwinStep
from paripassu.frameworks import registry

HOW = {"threads": 1, "device": "cpu"}


def _split(images, labels):
    """A split of normalised images: each of their values is a level."""
    levels, pixels = np.unique(images, return_inverse=True)
    table = np.zeros((1, 256), np.float32)
    table[0, : len(levels)] = levels
    return Split(pixels.reshape(images.shape).astype(np.uint8), labels, table)


class Child:
    def __init__(self, framework: registry.Framework) -> None:
        self._framework = framework

    def make(self, request, arrays):
        self.recipe = validate(request["recipe"])
        self.trainer = self._framework.make_trainer(self.recipe, weights=arrays, **HOW)
        answer = {
            "device": self.trainer.device,
            "versions": self.trainer.versions,
            "settings": self.trainer.settings,
            "model_file": f"model{self._framework.suffixes[0]}",
            "peak": self.trainer.peak_accelerator_bytes(),
        }
        return answer, {}

    def train(self, request, arrays):
        epochs: list[dict[str, Any]] = []
        steps: list[tuple[int, float, float]] = []
        self.trainer.train(
            _split(arrays["images"], arrays["labels"]),
            _split(arrays["monitored.images"], arrays["monitored.labels"]),
            first_epoch=request["first_epoch"],
            on_step=lambda *values: steps.append(values),
            on_epoch=lambda report: epochs.append(asdict(report)),
        )
        return {"epochs": epochs, "steps": steps}, {}

    def warm_up(self, _request, arrays):
        self.trainer.warm_up(_split(arrays["images"], arrays["labels"]))
        return {}, {}

    def evaluate(self, _request, arrays):
        split = _split(arrays["images"], arrays["labels"])
        loss, accuracy = self.trainer.evaluate(split)
        return {"loss": loss, "accuracy": accuracy}, {}

    def logits(self, _request, arrays):
        return {}, {"logits": self.trainer.logits(arrays["images"])}

    def weights(self, _request, _arrays):
        return {}, self.trainer.weights()

    def state(self, _request, _arrays):
        return {}, self.trainer.state()

    def load_state(self, _request, arrays):
        self.trainer.load_state(arrays)
        return {}, {}

    def save(self, request, _arrays):
        path, weights = Path(request["path"]), self.trainer.weights()
        self._framework.files.write(self.recipe, weights, path, {})
        return {}, {}

    def load(self, request, _arrays):
        arrays, _notes = self._framework.files.read(Path(request["path"]))
        weights = self._framework.files.to_canonical(self.recipe, arrays)
        self.trainer = self._framework.make_trainer(self.recipe, weights=weights, **HOW)
        return {}, {}

    def trace(self, request, arrays):
        def under(prefix):
            return {
                name.removeprefix(prefix): array
                for name, array in arrays.items()
                if name.startswith(prefix)
            }

        steps = [
            TwinStep(
                images=arrays[f"{number}.images"],
                labels=arrays[f"{number}.labels"],
                masks=under(f"{number}.mask."),
            )
            for number in range(request["steps"])
        ]
        recipe = validate(request["recipe"])
        options = {"weights": under("weights."), "steps": steps, **HOW}
        return {}, self._framework.trace(recipe, **options)

    def warn(self, request, _arrays):
        warnings.warn(request["text"], stacklevel=1)
        return {}, {}

    def run(self, request, _arrays):
        """Python in this process; it leaves an `answer`."""
        scope = {"answer": {}}
        exec(request["code"], scope)
        return scope["answer"], {}

    def modules(self, _request, _arrays):
        return {"modules": sorted({name.partition(".")[0] for name in sys.modules})}, {}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a framework prints
    framework = registry.find(sys.argv[1])
    framework.module("trainer")  # what its import warns of is its own affair
    warnings.simplefilter("error")  # as in the tests themselves
    warnings.simplefilter("ignore", DeprecationWarning)  # of libraries, by libraries
    child = Child(framework)
    for line in sys.stdin:
        request = json.loads(line)
        given, out = Path(request["in"]), Path(request["out"])
        try:
            arrays = load_file(given) if given.exists() else {}
            answer, found = getattr(child, request["verb"])(request, arrays)
            if found:
                found = {k: np.asarray(v, order="C") for k, v in found.items()}
                save_file(found, out)
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
