"""Makes the notebooks of examples/class, and runs them.

python tools/class_notebook.py [loops] [seven]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat

from paripassu.core import files
from paripassu.core.version import from_repository
from paripassu.frameworks.registry import BUILT_IN
from paripassu.notebooks.build import INSTALL, NOT_RUN

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "examples" / "class"
NOTEBOOKS = ROOT / "notebooks"
EXTRAS = {"loops": tuple(x.extra for x in BUILT_IN if x.extra), "seven": ()}


def made(name: str) -> Any:
    """A notebook without outputs: the same text, the same notebook."""
    notebook = jupytext.read(SOURCES / f"{name}.py")
    extras = EXTRAS[name]
    install = INSTALL.format(
        repository=from_repository(*extras), extras=",".join(extras)
    ).replace("..[]", "..")
    first = nbformat.v4.new_code_cell(install.strip())
    first.metadata["tags"] = [NOT_RUN]
    notebook.cells.insert(1, first)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": kernel, "language_info": {"name": "python"}}
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def run(name: str) -> None:
    """Run every cell but the one that installs, and write the notebook."""
    from nbclient import NotebookClient

    notebook = made(name)
    NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        skip_cells_with_tag=NOT_RUN,
    ).execute()
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [x for x in cell.outputs if x.get("name") != "stderr"]
    text = nbformat.writes(notebook) + "\n"
    files.write_bytes(NOTEBOOKS / f"{name}.ipynb", text.encode())
    print(f"wrote notebooks/{name}.ipynb")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or EXTRAS:
        run(wanted)
