"""Make the notebooks from the lessons, and run them.

A notebook is a lesson, part by part, with prose and cells around it: what all notebooks
say from `shared.md`, the rest from the framework's own `notebook.md`. The last part of
the lesson, which runs it, is left out: in the notebook, each part is run where it is
explained.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paripassu.analysis.lessons import OPENING, by_heading, lesson_text
from paripassu.analysis.text import display_name
from paripassu.core import files
from paripassu.core.errors import NotebookError, UserError
from paripassu.core.version import from_repository
from paripassu.frameworks import registry

NOT_RUN = "install"  # the tag of the cell that is for machines without the package
PARAMETERS, INJECTED = "parameters", "injected-parameters"  # papermill's tags
CODE = "<!-- lesson -->"
# In Jupyter a notebook runs in its own folder, which in a clone is one below the top.
INSTALL = """\
try:
    import paripassu
except ModuleNotFoundError:
    from pathlib import Path

    wanted = "{repository}"  # in Colab, or anywhere else
    if Path("../pyproject.toml").exists():  # in a clone
        wanted = "..[{extras}]"
    %pip install --quiet "{{wanted}}"
"""
SHARED = Path(__file__).parent / "shared.md"
LIBRARIES = ("ipykernel", "jupytext", "matplotlib", "nbclient", "nbformat")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# What TensorFlow's C++ says at import, before it knows that it was told to be silent.
LOG = re.compile(r"^(WARNING: All log messages before absl|I\d{4} )")

Piece = tuple[str, str, list[str]]  # kind, text and tags of a cell


@dataclass(frozen=True)
class Made:
    """What came of one notebook."""

    framework: str
    path: str  # of the file
    cells: int
    fresh: bool  # whether the file's text was as it should be
    checked: bool  # whether nothing was to be written
    executed: bool  # whether the file has outputs for its code
    seconds: float | None = None  # that running it took; None if it was not run now

    @property
    def sentence(self) -> str:
        """For the terminal."""
        if self.seconds is not None:
            return f"{self.path}: {self.cells} cells, run in {self.seconds:.0f} s"
        if self.checked and not self.fresh:
            return f"{self.path}: out of date. Type: paripassu notebooks --execute"
        state = "up to date" if self.fresh else "written"
        outputs = "" if self.executed else ", without outputs: add --execute to run it"
        return f"{self.path}: {self.cells} cells, {state}{outputs}"

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def make(
    framework: str,
    folder: Path,
    *,
    execute: bool = False,
    check: bool = False,
    parameters: Mapping[str, int] | None = None,
    on_cell: Callable[[str], None] = lambda _text: None,
) -> Made:
    """Write one notebook, `<folder>/<framework>.ipynb`.

    With `execute` it is run from top to bottom in a kernel of its own, with
    `parameters` in place of the notebook's own values, and `on_cell` is called with
    what is being run. With `check` nothing is written.

    Raises:
        UserError: the extra or the framework is missing.
        NotebookError: a cell has raised; nothing was written.
    """
    nbformat = _library("nbformat")
    notebook = build(framework)
    path = folder / f"{framework}.ipynb"
    before = _read(path)
    fresh = before is not None and _sources(before) == _sources(notebook)
    seconds = None
    if execute:
        if problem := registry.find(framework).problem:
            raise UserError(problem)
        _inject(notebook, parameters or {})
        start = time.perf_counter()
        _run(notebook, on_cell)
        seconds = time.perf_counter() - start
    elif before is not None:
        _keep_outputs(before, notebook)
    executed = any(cell.get("outputs") for cell in notebook.cells)
    if not check and (execute or not fresh):
        folder.mkdir(parents=True, exist_ok=True)
        files.write_bytes(path, (nbformat.writes(notebook) + "\n").encode())
    return Made(
        framework, str(path), len(notebook.cells), fresh, check, executed, seconds
    )


def build(framework: str) -> Any:
    """The notebook of a framework, without outputs: the same text, the same notebook.

    Raises:
        UserError: the extra is missing, or there is no lesson of this framework.
    """
    nbformat = _library("nbformat")
    cells = []
    make_cell = {
        "markdown": nbformat.v4.new_markdown_cell,
        "code": nbformat.v4.new_code_cell,
    }
    for number, (kind, text, tags) in enumerate(_cells(framework)):
        cell = make_cell[kind](text)
        cell["id"] = f"cell-{number:02}"
        if tags:
            cell.metadata["tags"] = tags
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def _cells(framework: str) -> Iterator[Piece]:
    lesson = lesson_text(framework)
    known = registry.FRAMEWORKS.get(framework)
    own = known.text("notebook.md") if known else None
    if lesson is None or own is None:
        raise UserError(f"there is no notebook of {display_name(framework)}.")
    shared = _pieces(SHARED.read_text(encoding="utf-8"))
    added = _pieces(own)
    parts = by_heading(lesson)
    title = parts[OPENING].heading
    yield (
        "markdown",
        f"# {title}\n\n"
        "Made by `paripassu notebooks` from `lesson.py`, the code that the package "
        "trains with: change that, not this. Read it beside the other notebook: the "
        "headings are the same.",
        [],
    )
    for heading, pieces in added.items():
        part = parts.get(heading)
        words = [f"## {heading}", *(text for _, text, _ in shared.get(heading, []))]
        for kind, text, tags in pieces:
            if kind == "lesson":
                assert part is not None
                if heading != OPENING:
                    prose = " ".join(part.prose.split())
                    words.append(f"**In {display_name(framework)}.** {prose}")
                yield "markdown", "\n\n".join(words), []
                words = []
                yield "code", part.code, []
            elif kind == "markdown":
                words.append(text)
            else:
                if words:
                    yield "markdown", "\n\n".join(words), []
                    words = []
                yield "code", _install(framework) if NOT_RUN in tags else text, tags
        if words:
            yield "markdown", "\n\n".join(words), []


def _install(framework: str) -> str:
    """The cell for machines without the package: where to get it is said once."""
    extras = [x for x in (registry.find(framework).extra, "notebooks") if x]
    return INSTALL.format(
        repository=from_repository(*extras), extras=",".join(extras)
    ).strip()


def _pieces(text: str) -> dict[str, list[Piece]]:
    """Markdown, code and the place of the lesson, heading by heading."""
    jupytext = _library("jupytext")
    found: dict[str, list[Piece]] = {}
    pieces: list[Piece] = []
    for cell in jupytext.reads(text, fmt="md").cells:
        if cell.cell_type == "code":
            pieces.append(("code", cell.source, cell.metadata.get("tags", [])))
            continue
        for line in re.split(r"^(## .*|<!--[^>]*-->)$", cell.source, flags=re.M):
            if line.startswith("## "):
                pieces = found.setdefault(line[3:].strip(), [])
            elif line == CODE:
                pieces.append(("lesson", "", []))
            elif line.strip() and not line.startswith("<!--"):
                pieces.append(("markdown", line.strip(), []))
    return found


def _inject(notebook: Any, parameters: Mapping[str, int]) -> None:
    if not parameters:
        return
    nbformat = _library("nbformat")
    text = "\n".join(f"{name} = {value}" for name, value in parameters.items())
    cell = nbformat.v4.new_code_cell(text, id=INJECTED)
    cell.metadata["tags"] = [INJECTED]
    place = next(
        number
        for number, other in enumerate(notebook.cells)
        if PARAMETERS in other.metadata.get("tags", [])
    )
    notebook.cells.insert(place + 1, cell)


def _run(notebook: Any, on_cell: Callable[[str], None]) -> None:
    """Run every cell but the one that installs, in an empty folder."""
    nbclient = _library("nbclient")
    heading = ""
    total = len(notebook.cells)

    def started(cell: Any, cell_index: int) -> None:
        nonlocal heading
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            heading = cell.source.splitlines()[0][3:]
        on_cell(f"cell {cell_index + 1} of {total}: {heading}")

    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            record_timing=False,
            skip_cells_with_tag=NOT_RUN,
            on_cell_start=started,
            resources={"metadata": {"path": folder}},
        )
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
        environment.pop("MPLBACKEND", None)  # pictures are for the notebook
        try:
            client.execute(env=environment, stderr=subprocess.DEVNULL)
        except nbclient.exceptions.CellExecutionError as error:
            raise NotebookError(COLOURS.sub("", str(error)).strip()) from None
        except (nbclient.exceptions.DeadKernelError, RuntimeError) as error:
            raise NotebookError(f"the kernel has died: {error}") from None
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in _code(notebook):
        cell.outputs = [x for x in cell.outputs if not _only_logs(x)]


def _only_logs(output: Any) -> bool:
    return output.get("name") == "stderr" and all(
        LOG.match(line) for line in output.text.splitlines()
    )


def _read(path: Path) -> Any:
    nbformat = _library("nbformat")
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, nbformat.reader.NotJSONError) as error:
        raise UserError(
            f"{path} is not a notebook that can be read ({error}). Move it away, and "
            "type the command again."
        ) from None


def _sources(notebook: Any) -> list[Any]:
    """All but the outputs."""
    return [
        (cell.cell_type, cell.source, cell.id, cell.metadata.get("tags", []))
        for cell in notebook.cells
        if INJECTED not in cell.metadata.get("tags", [])
    ]


def _code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _keep_outputs(before: Any, notebook: Any) -> None:
    """Take the outputs of a notebook with the same code that is run."""
    old, new = (
        [x for x in _code(found) if NOT_RUN not in x.metadata.get("tags", [])]
        for found in (before, notebook)
    )
    if [cell.source for cell in old] == [cell.source for cell in new]:
        for from_cell, to_cell in zip(old, new, strict=True):
            to_cell.outputs = from_cell.outputs
            to_cell.execution_count = from_cell.execution_count


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"the notebooks need {name}, which cannot be imported ({error}). Type: "
            f"pip install {' '.join(LIBRARIES)}"
        ) from None
