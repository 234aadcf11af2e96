"""Writes a trained network as another framework's file, and proves that it is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.conversion import onnx_file
from paripassu.conversion.formats import Format, find_format
from paripassu.conversion.model_source import ModelSource, read_source
from paripassu.core import datasets, draws, files, layout
from paripassu.core.errors import ConversionError, UserError
from paripassu.core.recipe import Recipe
from paripassu.core.version import __version__
from paripassu.frameworks import registry
from paripassu.processes.launch import run_file, work
from paripassu.processes.requests import LogitsRequest, WriteRequest
from paripassu.reference.losses import softmax

IMAGES = 1000  # of the test set
# Logits of trained networks reach some 30; float32 keeps them to a few units in the
# last place, 30 * 1e-6, and a probability moves by at most a quarter of its logit.
BOUND = 1e-5
TRIAL_SECONDS = 300


@dataclass(frozen=True)
class Conversion:
    """What was written, and how far it is from its source."""

    source: str
    out: str
    target: str
    network: str
    images: int  # that both were asked
    largest_probability_difference: float
    bound: float
    same_answers: int  # of the images
    weights_equal: bool  # bit for bit, read back from the file
    weights_sha256: str
    file_bytes: int
    compared_with: str  # the framework that answered for the source

    @property
    def holds(self) -> bool:
        """Whether the file is its source in another form."""
        return self.weights_equal and self.largest_probability_difference <= self.bound

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "holds": self.holds}


# Seeded faults: each must be refused. What an array of weights becomes.
FAULTS: dict[str, Callable[[str, npt.NDArray[Any]], npt.NDArray[Any]]] = {
    "kernel-transposed": lambda name, x: (
        x.swapaxes(0, 1) if name == "conv1.kernel" else x
    ),
    "flatten-order": lambda name, x: x[::-1] if name == "dense1.kernel" else x,
    "rounded": lambda _name, x: x.astype(np.float16).astype(x.dtype),
}


def convert(
    path: str | Path,
    *,
    target: str,
    out: str | Path,
    recipe: Recipe | None = None,
    fault: str | None = None,
    on_phase: Callable[[str], None] = lambda _text: None,
) -> Conversion:
    """Write the network at `path` as a file of `target`, if that file answers alike.

    The file is opened in a fresh process, as its user would open it, and asked 1,000
    test images, before it gets its name.

    Args:
        path: a run's folder, a checkpoint, or a file: see `read_source`.
        target: the name of a format: see `formats`.
        out: the file; what is there is replaced.
        recipe: whose network it is, where the file does not say.
        fault: a seeded mistake, for tests: the conversion must be refused.
        on_phase: called with what is being done.

    Raises:
        UserError: source, target or path are not usable.
        ConversionError: the file differs from its source; `out` is as it was.
        WorkerError: a framework crashed.
    """
    path, out = Path(path), Path(out)
    form = find_format(target)
    _check_out(form, out)
    if fault is not None and fault not in FAULTS:
        raise UserError(f"no fault {fault!r}; known: {', '.join(FAULTS)}.")
    on_phase(f"reading {path}")
    source = read_source(path, recipe)
    if form.framework:
        form.framework.check(source.recipe)
    notes = {
        "network": source.recipe.network,
        "recipe": source.recipe.to_toml(),
        **source.notes,
        "mean": str(source.mean),
        "std": str(source.std),
        "paripassu": __version__,
    }
    with files.scratch() as folder:
        exact = {k: np.asarray(x) for k, x in source.weights.items()}
        files.write_tensors(folder / "weights.safetensors", exact)
        given = exact
        if fault:
            given = {k: FAULTS[fault](k, x) for k, x in exact.items()}
        files.write_tensors(folder / "given.safetensors", given)
        with files.replacing(out) as temporary:
            on_phase(f"writing {out}")
            _write(source, form, folder / "given.safetensors", temporary, notes)
            on_phase("asking the source and the file the same 1,000 images")
            found = _compare(source, form, out, temporary, folder)
            if not found.holds:
                raise ConversionError(_refusal(found))
    return found


def _check_out(form: Format, out: Path) -> None:
    if out.suffix not in form.suffixes:
        raise UserError(
            f"--out {out}: a file of {form.name} ends in {' or '.join(form.suffixes)}. "
            f"Type: --out {out.with_suffix(form.suffixes[0])}"
        )
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: expected the name of a file.")
    trouble = onnx_file.problem() if form.name == "onnx" else None
    if trouble := form.framework.problem if form.framework else trouble:
        raise UserError(trouble)
    files.make_folder(out.resolve().parent)


def _write(
    source: ModelSource, form: Format, weights: Path, path: Path, notes: dict[str, str]
) -> None:
    if form.framework:
        work(
            WriteRequest(
                framework=form.name,
                recipe=source.recipe,
                weights=weights,
                path=path,
                notes=notes,
            )
        )
        return
    arrays, _metadata = files.read_tensors(weights)
    if form.name == "onnx":
        onnx_file.write(source.recipe, arrays, path, notes)
    else:
        files.write_tensors(path, arrays, notes)


def _compare(
    source: ModelSource, form: Format, out: Path, path: Path, folder: Path
) -> Conversion:
    test = _probes(source.recipe)
    images = datasets.normalise(test, mean=source.mean, std=source.std)
    images = images.astype(source.recipe.storage)
    witness = _witness(source)
    right = _answers(source, witness, images, folder)
    wrong = _tried(source, form, path, images, folder)
    back = read_source(path, source.recipe)
    gap = float(np.max(np.abs(right - wrong)))
    return Conversion(
        source=str(source.path),
        out=str(out),
        target=form.name,
        network=source.recipe.network,
        images=len(test),
        largest_probability_difference=gap if np.isfinite(gap) else 1.0,
        bound=BOUND,
        same_answers=int((right.argmax(1) == wrong.argmax(1)).sum()),
        weights_equal=_equal(source.weights, back.weights),
        weights_sha256=layout.hash_weights(source.weights),
        file_bytes=path.stat().st_size,
        compared_with=witness,
    )


def _probes(recipe: Recipe) -> npt.NDArray[np.uint8]:
    """Images to ask both: MNIST's where the network takes them, or of drawn pixels."""
    shape = recipe.architecture.input_shape
    mnist = datasets.load()
    if shape == mnist.shape:
        return mnist.test_images[:IMAGES]
    drawn = draws.uniform((IMAGES, *shape), 0, "probes of a conversion")
    return (drawn * 256).astype(np.uint8)


def _witness(source: ModelSource) -> str:
    """Who answers for the source: its own framework, or else the reference."""
    own = source.framework
    if own and own in registry.FRAMEWORKS and not registry.find(own).problem:
        return own
    return registry.REFERENCE.name


def _answers(
    source: ModelSource, witness: str, images: npt.NDArray[Any], folder: Path
) -> npt.NDArray[np.float64]:
    """Probabilities of the source, `(N, classes)`."""
    files.write_tensors(folder / "images.safetensors", {"images": images})
    work(
        LogitsRequest(
            framework=witness,
            recipe=source.recipe,
            weights=folder / "weights.safetensors",
            images=folder / "images.safetensors",
            out=folder / "logits.safetensors",
        )
    )
    answers, _metadata = files.read_tensors(folder / "logits.safetensors")
    return softmax(answers["logits"])


def _tried(
    source: ModelSource,
    form: Format,
    path: Path,
    images: npt.NDArray[Any],
    folder: Path,
) -> npt.NDArray[np.float64]:
    """Probabilities of the file, opened in a fresh process as its user would."""
    np.save(folder / "images.npy", images)
    (folder / "recipe.toml").write_text(source.recipe.to_toml(), encoding="utf-8")
    names = (path, folder / "recipe.toml", folder / "images.npy", folder / "out.npy")
    run_file(
        form.trial,
        *names,
        failed=f"the written file does not open in {form.name}.",
        seconds=TRIAL_SECONDS,
    )
    outputs = np.load(folder / "out.npy")
    if source.recipe.output == "probabilities":
        return np.asarray(outputs, np.float64)
    return softmax(outputs)


def _equal(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(
        np.array_equal(left[name], right[name]) for name in left
    )


def _refusal(found: Conversion) -> str:
    words = []
    if not found.weights_equal:
        words.append("the weights read back from it are not the source's")
    if found.largest_probability_difference > found.bound:
        words.append(
            f"a probability differs by {found.largest_probability_difference:.2g}, and "
            f"at most {found.bound:g} holds"
        )
    return (
        f"{found.out} was not written: {'; '.join(words)} "
        f"({found.same_answers:,} of {found.images:,} answers are the same)."
    )
