"""Writes the documents that are made from the code; `--check` only compares.

python tools/generate_docs.py
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paripassu.analysis.schema import Proof

DOCS = Path(__file__).resolve().parents[1] / "docs"


def cli() -> str:
    """Every command with its options, from the command line's own help."""
    import typer.main
    from typer.cli import get_docs_for_click

    from paripassu.cli.base import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(
        obj=command, ctx=typer.Context(command), name="paripassu", title="Commands"
    )
    return text.strip() + "\n"


def schema() -> str:
    """The shape of `comparison.json`."""
    from paripassu.analysis.schema import document

    return document()


def _proof() -> Proof:
    """The record that the documents quote."""
    from paripassu.analysis.comparison import load_proof

    return load_proof(DOCS.parent / "results" / "proof" / "proof.json")


def divergence() -> str:
    """How whole trainings part, from the record."""
    from paripassu.analysis.report.divergence import picture

    return picture(_proof().curves)


def proof() -> str:
    """The page on the proof, with the records' figures between lines."""
    import mutate
    from marks import filled

    from paripassu.analysis.text import display_name

    found = _proof()
    versions = ", ".join(
        f"{display_name(name)} {version}"
        for name, version in found.versions.items()
        if name != "numpy"
    )
    rows = [
        "| | batch losses differ by at most | weights agree in digits, fewest and "
        "median | same answers | right |",
        "|---|---|---|---|---|",
    ]
    for run in found.whole_runs:
        right = (
            "itself, one kernel moved by an ulp"
            if run.control
            else display_name(run.right)
        )
        rows.append(
            f"| {run.precision}: {display_name(run.left)} and {right} | "
            f"{run.largest_loss_gap:.1e} | {run.fewest_digits:.1f}, "
            f"{run.median_digits:.1f} | {run.equal_predictions:,} of "
            f"{run.test_count:,} | {run.left_accuracy:.2%}, {run.right_accuracy:.2%} |"
        )
    exact = next(run for run in found.whole_runs if run.precision == "float64")
    seed = (found.recipe or {}).get("seed")
    text = f"""\
Measured: `article`, seed {seed}, {exact.steps:,} steps, {exact.weight_count:,} weights,
dropout on; one run of each. {versions};
{found.environment.get("processor")}, one thread each. Record:
[results/proof](../results/proof/proof.json), made by
`{found.command}`.

{chr(10).join(rows)}

In float64 the two are one training run: the largest gap of any batch loss is
{exact.largest_loss_gap:.1e}, at step {exact.largest_loss_step:,}, and it does not grow.
No weight of one is farther than {exact.largest_weight_gap:.1e} from the other's.
"""
    page = filled((DOCS / "proof.md").read_text(), "measured", text)
    return filled(page, "mutants", mutate.page())


def recipes() -> str:
    """The recipe book, with fields, sources and what was measured."""
    from recipe_docs import page

    return page(DOCS / "recipes.md", DOCS.parent / "results")


def networks() -> str:
    """Networks of a recipe's own layers, with an example and every kind of layer."""
    from recipe_docs import networks_page

    example = DOCS.parent / "examples" / "recipes" / "residual.toml"
    return networks_page(DOCS / "networks.md", example)


def ablation_schema() -> str:
    """The shape of `ablation.json`."""
    from paripassu.analysis.ablation.attribution import Ablation
    from paripassu.analysis.schema import document

    return document(Ablation)


def article() -> str:
    """What the article's notebooks differ in, with the ablation between two lines."""
    from article_docs import measured
    from marks import filled

    page = (DOCS / "article.md").read_text()
    return filled(page, "measured", measured(DOCS.parent))


def waterfall() -> str:
    """The ablation's picture."""
    from article_docs import waterfall

    return waterfall(DOCS.parent)


def check() -> str:
    """How `paripassu check` works, with how well it does."""
    from check_docs import measured, speed
    from marks import filled

    page = (DOCS / "check.md").read_text()
    page = filled(page, "speed", speed(DOCS.parent))
    return filled(page, "measured", measured(DOCS.parent))


def performance() -> str:
    """How fast training is, with every table between two lines."""
    from performance_docs import page

    return page(DOCS / "performance.md", DOCS.parent / "results")


def readme() -> str:
    """The README, with commands, address and times between pairs of lines."""
    from readme_docs import page

    return page(DOCS.parent, _proof())


def project() -> str:
    """The package's metadata, with the repository's address."""
    from readme_docs import addressed

    return addressed(DOCS.parent / "pyproject.toml")


def citation() -> str:
    """How to cite, with address and version."""
    from readme_docs import addressed

    return addressed(DOCS.parent / "CITATION.cff")


def bench_picture() -> str:
    """The picture of the record that the page begins with."""
    from paripassu.analysis.benchmark import BENCH_FILE, Bench
    from paripassu.analysis.report.benchmark import picture

    path = DOCS.parent / "results" / "bench" / "float32" / BENCH_FILE
    return picture(Bench.model_validate_json(path.read_text()))


def python() -> str:
    """Every public name of the package."""
    from python_docs import page

    return page()


def differences() -> str:
    """The table of the frameworks' differences."""
    from differences_docs import page

    return page(DOCS.parent)


def layers() -> str:
    """Layers of PyTorch in Keras and JAX."""
    from layers_docs import page

    return page(DOCS.parent)


def class_page() -> str:
    """The page for a class, with what came out and with exercises."""
    from class_docs import exercises, loops
    from marks import filled

    page = filled((DOCS / "class.md").read_text(), "loops", loops(DOCS.parent))
    return filled(page, "exercises", exercises(DOCS.parent))


def choose() -> str:
    """The question of the article, with the table of what was measured."""
    from choose_docs import measured
    from marks import filled

    page = (DOCS / "choose.md").read_text()
    return filled(page, "measured", measured(DOCS.parent))


def scale() -> str:
    """How runs go to a cluster, with how far one driver reaches."""
    from marks import filled
    from scale_docs import measured

    page = (DOCS / "scale.md").read_text()
    return filled(page, "measured", measured(DOCS.parent))


def side_by_side() -> str:
    """The two lessons, heading by heading, with what differs."""
    from side_by_side import page

    return page()


GENERATED: dict[str, Callable[[], str]] = {
    "bench.svg": bench_picture,
    "choose.md": choose,
    "class.md": class_page,
    "check.md": check,
    "framework-differences.md": differences,
    "cli.md": cli,
    "layers.md": layers,
    "comparison.schema.json": schema,
    "divergence.svg": divergence,
    "ablation.schema.json": ablation_schema,
    "networks.md": networks,
    "performance.md": performance,
    "proof.md": proof,
    "python.md": python,
    "recipes.md": recipes,
    "scale.md": scale,
    "../CITATION.cff": citation,
    "../README.md": readme,
    "../pyproject.toml": project,
    "side-by-side.md": side_by_side,
}


if (DOCS.parent / "results" / "ablation" / "ablation.json").exists():
    GENERATED |= {"article.md": article, "ablation.svg": waterfall}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    only_check = parser.parse_args().check
    stale = []
    for name, make in GENERATED.items():
        path, text = DOCS / name, make()
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if not only_check:
            path.write_text(text)
            print(f"wrote {path.resolve().relative_to(DOCS.parent)}")
    if only_check and stale:
        print(f"stale: {', '.join(stale)}. Type: python tools/generate_docs.py")
        return 1
    return 0


if __name__ == "__main__":
    os.environ["COLUMNS"] = "88"
    sys.exit(main())
