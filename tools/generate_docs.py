"""Writes the documents that are made from the code; `--check` only compares.

python tools/generate_docs.py
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def cli() -> str:
    """Every command with its options, from the command line's own help."""
    import typer.main
    from typer.cli import get_docs_for_click

    from paripassu.cli import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(
        obj=command, ctx=typer.Context(command), name="paripassu", title="Commands"
    )
    return text.strip() + "\n"


def schema() -> str:
    """The shape of `comparison.json`."""
    from paripassu.analysis.schema import document

    return document()


GENERATED: dict[str, Callable[[], str]] = {
    "cli.md": cli,
    "comparison.schema.json": schema,
}


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
            print(f"wrote docs/{name}")
    if only_check and stale:
        print(f"stale: {', '.join(stale)}. Type: python tools/generate_docs.py")
        return 1
    return 0


if __name__ == "__main__":
    os.environ["COLUMNS"] = "88"
    sys.exit(main())
