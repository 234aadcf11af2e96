"""Documents that are made from the code are what the code would make now."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_check(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "tools" / "generate_docs.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_generated_documents_are_fresh():
    result = run_check(ROOT)
    assert result.returncode == 0, result.stdout


def test_a_stale_document_is_found(tmp_path):
    for folder in ("tools", "docs", "results", "examples"):
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=without)
    for file in ("README.md", "CITATION.cff", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / file, tmp_path)
    page = tmp_path / "docs" / "proof.md"
    page.write_text(page.read_text().replace("10,000 of 10,000", "9,999 of 10,000"))
    with (tmp_path / "docs" / "cli.md").open("a") as file:
        file.write("edited by hand\n")
    project = tmp_path / "pyproject.toml"
    project.write_text(project.read_text().replace("paripassu.example", "elsewhere"))
    result = run_check(tmp_path)
    assert result.returncode == 1
    assert "stale: cli.md, proof.md, ../pyproject.toml" in result.stdout
