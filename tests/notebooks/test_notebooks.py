"""The notebooks are what the lessons say, and run from top to bottom."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from helpers import BOTH, EACH, break_module, run_paripassu, skip_without, type_here

from paripassu.analysis.lessons import lesson_text, sections
from paripassu.core.errors import UserError
from paripassu.frameworks.registry import FRAMEWORKS
from paripassu.notebooks.build import NotebookError, build, make

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def code(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def pictures(notebook: Any) -> int:
    return sum(
        "image/png" in output.get("data", {})
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )


def test_the_committed_notebooks_are_fresh():
    done = run_paripassu("notebooks", "--check", "--out", str(NOTEBOOKS), "--json")
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert [made["framework"] for made in found] == list(BOTH)
    assert all(made["fresh"] and made["executed"] for made in found)


@pytest.mark.parametrize("framework", BOTH)
def test_the_committed_notebooks_show_what_they_did(framework):
    """Each cell was run, in its order, without an error, and the pictures are there."""
    notebook = read(NOTEBOOKS / f"{framework}.ipynb")
    nbformat.validate(notebook)
    run = [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and "install" not in cell.metadata.get("tags", [])
    ]
    counts = [cell.execution_count for cell in run]
    assert counts == list(range(1, len(run) + 1))
    outputs = [output for cell in run for output in cell.outputs]
    assert not [x.text for x in outputs if x.get("name") == "stderr"]
    kinds = {output.output_type for output in outputs}
    assert kinds <= {"stream", "display_data", "execute_result"}
    assert pictures(notebook) == 10
    said = " ".join(
        output.text for cell in run for output in cell.outputs if "text" in output
    )
    assert "the same answers: True" in said
    accuracy = re.findall(r"epoch 2, .* s: test .*, (\d\d\.\d\d)%", said)
    assert 98 < float(accuracy[0]) < 100


@pytest.mark.parametrize("framework", BOTH)
def test_a_notebook_has_all_of_its_lesson_and_no_other_framework(framework):
    found = code(build(framework))
    parts = sections(lesson_text(framework) or "")
    for part in parts[:-1]:
        assert part.code in found
    assert parts[-1].heading == "All together"
    others = [x for x in FRAMEWORKS.values() if x.name != framework]
    roots = "|".join(root for other in others for root in other.import_roots)
    assert not re.search(rf"\b({roots})\b", "\n".join(found))


def test_both_have_the_same_headings_and_nearly_the_same_cells():
    headings, counts = [], []
    for framework in BOTH:
        cells = build(framework).cells
        titles = [re.match(r"## (.*)", c.source) for c in cells]
        headings.append([title[1] for title in titles if title])
        counts.append(len(cells))
    assert headings[0] == headings[1]
    assert headings[0][0] == "Imports"
    assert headings[0][-1] == "What next"
    assert counts[0] == counts[1]


def test_a_notebook_edited_by_hand_is_found_and_written_anew(tmp_path):
    path = tmp_path / "pytorch.ipynb"
    shutil.copy(NOTEBOOKS / "pytorch.ipynb", path)
    words = ("notebooks", "--frameworks", "pytorch", "--out", str(tmp_path))
    assert type_here(*words, "--check").returncode == 0
    path.write_text(path.read_text().replace("What a kernel is", "What an eagle is"))
    before = path.read_bytes()
    done = type_here(*words, "--check")
    assert done.returncode == 1
    assert "out of date. Type: paripassu notebooks" in done.stdout
    assert path.read_bytes() == before
    assert type_here(*words).returncode == 0
    # Only prose was changed: what the cells showed is still true.
    assert path.read_bytes() == (NOTEBOOKS / "pytorch.ipynb").read_bytes()


def test_outputs_go_when_the_code_that_made_them_has_changed(tmp_path):
    path = tmp_path / "pytorch.ipynb"
    text = (NOTEBOOKS / "pytorch.ipynb").read_text()
    path.write_text(text.replace("EPOCHS = 2", "EPOCHS = 3"))
    made = make("pytorch", tmp_path)
    assert not made.fresh
    assert not made.executed
    assert "without outputs" in made.sentence
    assert pictures(read(path)) == 0


def test_the_same_text_makes_the_same_notebook(tmp_path):
    make("tensorflow", tmp_path)
    first = (tmp_path / "tensorflow.ipynb").read_bytes()
    (tmp_path / "tensorflow.ipynb").unlink()
    make("tensorflow", tmp_path)
    assert (tmp_path / "tensorflow.ipynb").read_bytes() == first


@skip_without("pytorch")
def test_a_cell_that_raises_is_shown_and_nothing_is_written(tmp_path):
    with pytest.raises(NotebookError, match=r"(?s)EPOCHS = nowhere.*NameError"):
        make("pytorch", tmp_path, execute=True, parameters={"EPOCHS": "nowhere"})
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_notebook_is_left_alone(tmp_path):
    path = tmp_path / "pytorch.ipynb"
    path.write_text("no notebook")
    with pytest.raises(UserError, match="not a notebook that can be read"):
        make("pytorch", tmp_path)
    assert path.read_text() == "no notebook"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "1"], "add --execute"),
        (["--check", "--execute"], "remove --execute"),
        (["--frameworks", "caffe"], "caffe"),
    ],
)
def test_wrong_usage(words, message, tmp_path):
    done = type_here("notebooks", "--out", str(tmp_path), *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["jupytext", "nbformat"])
def test_without_the_extra_it_says_what_to_install(module, tmp_path):
    path = break_module(tmp_path / "broken", module)
    out = tmp_path / "out"
    done = run_paripassu("notebooks", "--out", str(out), path=path)
    assert done.returncode == 2
    assert f"the notebooks need {module}" in done.stderr
    assert "pip install ipykernel jupytext matplotlib" in done.stderr
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("framework", EACH)
def test_a_notebook_runs_from_top_to_bottom(framework, tmp_path):
    words = ["--frameworks", framework, "--out", str(tmp_path), "--execute", "--json"]
    done = type_here("notebooks", *words, "--epochs", "1", "--images", "500")
    assert done.returncode == 0, done.stderr
    (made,) = json.loads(done.stdout)
    assert made["executed"]
    assert made["seconds"] > 0
    notebook = read(tmp_path / f"{framework}.ipynb")
    assert "EPOCHS = 1\nIMAGES = 500" in code(notebook)
    assert pictures(notebook) == 10
    assert [path.name for path in tmp_path.iterdir()] == [f"{framework}.ipynb"]
