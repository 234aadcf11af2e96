"""Builds the sdist beside the wheel in dist/, and tries both in empty environments.

make release
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from paripassu.core.version import REPOSITORY, __version__

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
PACKAGE = "src/paripassu/"
SDIST = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
# What needs no framework: the data are whole, and each command is told what it lacks.
TRIALS = (
    ("-m", "paripassu", "--version"),
    ("-m", "paripassu", "info"),
    ("-m", "paripassu", "recipes", "show", "article"),
    (
        "-c",
        "import paripassu; [getattr(paripassu, name) for name in paripassu.__all__]",
    ),
    ("-c", "from paripassu.core import datasets; datasets.load()"),
)


def left_out(tracked: Iterable[str], package: Path) -> list[str]:
    """The repository's files of the package that an installed one does not have.

    Args:
        tracked: paths from the root of the repository.
        package: the folder `paripassu` of an environment.
    """
    names = (x.removeprefix(PACKAGE) for x in tracked if x.startswith(PACKAGE))
    needed = (x for x in names if not x.endswith("ruff.toml"))  # of the repository
    return sorted(name for name in needed if not (package / name).is_file())


def is_reserved(address: str) -> bool:
    """Whether an address is in .example, which is nobody's."""
    return (urlsplit(address).hostname or "").endswith(".example")


def run(*words: str | Path, cwd: Path = ROOT) -> str:
    """What a command prints.

    Raises:
        SystemExit: it failed; with its output.
    """
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        sys.exit(f"{' '.join(map(str, words))}\n{said}\nIt failed: no release.")
    return done.stdout


def try_out(artifact: Path, tracked: Iterable[str]) -> None:
    """Install a wheel or an sdist where nothing is, and use it from an empty folder.

    Raises:
        SystemExit: something does not work or is not there.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment, empty = folder / "environment", folder / "empty"
        empty.mkdir()
        run(sys.executable, "-m", "venv", environment)
        python = environment / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", artifact, cwd=empty)
        where = "import paripassu; print(paripassu.__path__[0])"
        package = Path(run(python, "-P", "-c", where, cwd=empty).strip())
        if lacking := left_out(tracked, package):
            sys.exit(f"{artifact.name} lacks {', '.join(lacking)}: no release.")
        for trial in TRIALS:
            said = run(python, "-P", *trial, cwd=empty)
            if "--version" in trial and __version__ not in said.split():
                sys.exit(f"{artifact.name} says {said.strip()}, not {__version__}.")


def main() -> None:
    """Build, try, and say what there is."""
    if changed := run("git", "status", "--porcelain"):
        sys.exit(f"A release is of a commit, and these are of none:\n{changed}")
    run(sys.executable, "-c", SDIST)
    tracked = run("git", "ls-files", PACKAGE).splitlines()
    for ending in ("-py3-none-any.whl", ".tar.gz"):
        artifact = DIST / f"paripassu-{__version__}{ending}"
        try_out(artifact, tracked)
        size = artifact.stat().st_size
        print(f"dist/{artifact.name}: {size:,} bytes, works by itself")
    if is_reserved(REPOSITORY):
        print(
            f"Not to be published yet: its address, {REPOSITORY}, is nobody's. Set "
            "REPOSITORY in src/paripassu/core/version.py, and type: "
            "python tools/generate_docs.py; paripassu notebooks"
        )


if __name__ == "__main__":
    main()
