"""From records to one self-contained page, `report.html`; imports no framework."""

from __future__ import annotations

from pathlib import Path

from paripassu.analysis.schema import Comparison
from paripassu.core.files import write_text

REPORT_FILE = "report.html"


def write_report(folder: Path, comparison: Comparison) -> Path:
    """Write the page into the folder of a comparison's runs, and return its path.

    Raises:
        UserError: the page can't be written. Runs that can't be read are told of on
            the page itself.
    """
    from paripassu.analysis.report.page import render

    path = folder / REPORT_FILE
    write_text(path, render(folder, comparison))
    return path
