"""Documents that are made from the code are what the code would make now."""

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
    (tmp_path / "tools").mkdir()
    (tmp_path / "docs").mkdir()
    script = (ROOT / "tools" / "generate_docs.py").read_text()
    (tmp_path / "tools" / "generate_docs.py").write_text(script)
    for name in ("cli.md", "comparison.schema.json"):
        text = (ROOT / "docs" / name).read_text()
        (tmp_path / "docs" / name).write_text(text)
    assert run_check(tmp_path).returncode == 0
    with (tmp_path / "docs" / "cli.md").open("a") as file:
        file.write("edited by hand\n")
    result = run_check(tmp_path)
    assert result.returncode == 1
    assert "cli.md" in result.stdout
