"""The parts of the README that come from records, pins and the repository's address."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from marks import filled
from release import is_reserved

from paripassu.analysis.benchmark import BENCH_FILE, Bench
from paripassu.analysis.text import display_name
from paripassu.core.version import REPOSITORY, __version__, from_repository
from paripassu.frameworks.registry import BUILT_IN

if TYPE_CHECKING:
    from paripassu.analysis.schema import Proof

# What commands take where no framework is named, without those of other packages.
OURS = [x for x in BUILT_IN if x.by_default]


def page(root: Path, proof: Proof) -> str:
    """The README, with what is between its markers made anew.

    Args:
        root: of the repository.
        proof: the record that the picture is of.
    """
    text = (root / "README.md").read_text(encoding="utf-8")
    blocks = {
        "three ways": _three_ways(root / "results"),
        "picture": _picture(proof),
        "start": _start(root / "constraints.txt"),
        "verdict": _verdict(root / "results"),
    }
    for name, block in blocks.items():
        text = filled(text, name, block)
    return text


def addressed(path: Path) -> str:
    """A file of lines `key = "value"` or `key: "value"`, with address and version."""
    text = path.read_text(encoding="utf-8")
    values = {
        "Repository": REPOSITORY,
        "Issues": f"{REPOSITORY}/issues",
        "repository-code": REPOSITORY,
        "version": __version__,
    }
    for key, value in values.items():
        text = re.sub(rf'(?m)^({key}(?: =|:) )".*"$', rf'\1"{value}"', text)
    return text


def _three_ways(results: Path) -> str:
    bench, epochs, record = _bench(results), _epochs(results), "check-speed.json"
    taken = json.loads((results / record).read_text())["median_seconds"]
    each = " and ".join(f"{x:.1f} s in {display_name(k)}" for k, x in epochs.items())
    versions = ", ".join(f"{display_name(k)} {bench.versions[k]}" for k in epochs)
    lesson = f"python -m paripassu.frameworks.{next(iter(epochs))}.lesson"
    rows = [
        (
            "**choose** a framework",
            "`make compare`",
            "a report of accuracy, time and memory of each on your machine, after a "
            "proof that they train the same network",
            f"{2 * sum(epochs.values()):.0f} s of training",
        ),
        (
            "**port** a model",
            "`paripassu check LEFT RIGHT`",
            "whether both compute the same; if not, at which layers they part, and why",
            f"{taken['small']:.0f} s for two dense layers, {taken['imports']:.0f} s "
            "of them imports",
        ),
        (
            "**learn**, or teach",
            f"`{lesson}`",
            "one program in each framework, [side by side](docs/side-by-side.md), and "
            "as notebooks with pictures",
            "",
        ),
    ]
    return "\n".join(
        [
            "| you want to | type | you get | measured |",
            "|---|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            f"Measured on {bench.cores} cores of an {bench.processor}, {versions}. One "
            f"epoch takes {each} ([record](results/bench/float32/bench.json)); "
            f"`make compare` trains two in each. The check: "
            f"[record](results/{record}).",
        ]
    )


def _picture(proof: Proof) -> str:
    exact = next(run for run in proof.whole_runs if run.precision == "float64")
    left, right = display_name(exact.left), display_name(exact.right)
    return f"""\
![By how much two trainings differ, step by step](docs/divergence.svg)

One recipe in {left} and in {right}, {exact.steps:,} steps, dropout on: the largest
difference so far of the loss of a batch. In float64, at the bottom, it stays below
{_above(exact.largest_loss_gap)}, and {exact.equal_predictions:,} of
{exact.test_count:,} test images get the same answer. In float32 it grows by rounding,
as fast as between two trainings of one framework that begin one unit in the last place
apart ([docs/proof.md](docs/proof.md))."""


def _above(value: float) -> str:
    """The next number of two digits: "1.1e-15" of 1.04e-15."""
    digits, power = f"{value:e}".split("e")
    return f"{math.ceil(float(digits) * 10) / 10:.1f}e{power}"


def _start(constraints: Path) -> str:
    first, *_ = OURS
    pins = constraints.read_text(encoding="utf-8")
    (pinned,) = re.findall(rf"(?m)^{first.distributions[0]}==.+$", pins)
    (builds,) = re.findall(r"PIP_EXTRA_INDEX_URL=(\S+)", pins)
    extras = [x.extra for x in OURS]
    reserved = ""
    if is_reserved(REPOSITORY):
        reserved = (
            "\n\nThe address stands for one that the project does not have yet. In a "
            "clone that is there already, begin with `make compare`."
        )
    return f"""\
```sh
git clone {REPOSITORY}
cd paripassu
make compare
source .venv/bin/activate
```{reserved}

This needs Python 3.11 to 3.13, a package index, and Linux or macOS. `make` sets up
`.venv` with pinned versions, once; the last line is for all commands below. **Without
an NVIDIA driver**, on Linux, take {first.title}'s build for CPUs; pip's own choice
brings CUDA, several GB:

```sh
PIP_EXTRA_INDEX_URL={builds} make compare
```

Into an environment of your own; the first line where there is no NVIDIA driver:

```sh
pip install {pinned} --index-url {builds}
pip install '{from_repository(*extras)}'
```

In a clone, the second is `pip install '.[{",".join(extras)}]'`.
`docker build --tag paripassu .` makes an image with all frameworks, for CPUs; the clone
opens as a devcontainer, too."""


def _verdict(results: Path) -> str:
    epoch = sum(_epochs(results).values())
    few, many = (round(count * epoch / 60) for count in (5 * 2, 10 * 10))
    return f"""\
```sh
paripassu compare --seeds 5 --epochs 2  # {few} minutes of training
paripassu compare  # 10 seeds, 10 epochs: {many} minutes of training
make compare FRAMEWORKS=all  # JAX as well
```"""


def _bench(results: Path) -> Bench:
    path = results / "bench" / "float32" / BENCH_FILE
    return Bench.model_validate_json(path.read_text())


def _epochs(results: Path) -> dict[str, float]:
    """Seconds of an epoch in each framework that a comparison takes unasked."""
    bench = _bench(results)
    names = [x.name for x in OURS if x.name in bench.frameworks]
    return {name: bench.epoch_seconds(name, "lesson").median for name in names}
