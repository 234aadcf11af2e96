"""Measures what docs/choose.md quotes beside training: size, start-up, code, files.

    python benchmarks/choose.py --rounds 5 --json results/choose.json

Sizes are those of the installed files of a framework's distribution and of all that it
requires. Start-up, memory and the time for one image are taken in fresh processes, the
frameworks in turns. Code is counted in the lessons: lines that are neither empty nor
comments, and the different names of the framework that they use, `nn.Conv2d` or
`layers.Conv2D`. Deployment formats are tried, not quoted: each is written with the
framework's own means from the untrained network of the article, and its size is noted,
or why it failed.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import parts
from packaging.requirements import Requirement

from paripassu.analysis.lessons import lesson_text, sections
from paripassu.core import files, machine

PARTS = parts.each()
NAMES = list(PARTS)

START = """
import json, resource, sys, time
start = time.perf_counter()
{imports}
imported = time.perf_counter() - start
{build}
first = time.perf_counter() - start
times = []
for _ in range(200):
    begin = time.perf_counter()
    {answer}
    times.append(time.perf_counter() - begin)
times.sort()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
peak *= 1 if sys.platform == "darwin" else 1024
print(json.dumps({{"import_seconds": imported, "first_answer_seconds": first,
                  "one_image_seconds": times[100], "peak_bytes": peak}}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {
        "command": f"python benchmarks/choose.py --rounds {given.rounds}",
        "machine": {
            "processor": machine.processor(),
            "cores": machine.usable_cores(),
            "load average at the start": round(machine.load_average(), 2),
            "python": sys.version.split()[0],
        },
        "frameworks": {},
    }
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    for number in range(given.rounds):
        for name in NAMES if number % 2 == 0 else NAMES[::-1]:
            print(f"round {number + 1} of {given.rounds}: {name}", file=sys.stderr)
            rounds[name].append(start_up(name))
    for name in NAMES:
        found["frameworks"][name] = {
            "versions": {x: metadata.version(x) for x in PARTS[name].DISTRIBUTIONS},
            "installed": installed(name),
            "start_up": {
                key: {
                    "median": statistics.median(x[key] for x in rounds[name]),
                    "least": min(x[key] for x in rounds[name]),
                    "most": max(x[key] for x in rounds[name]),
                    "n": given.rounds,
                }
                for key in rounds[name][0]
            },
            "code": code(name),
            "formats": {key: wrote(name, key) for key in PARTS[name].FORMATS},
            "mistake": mistake(name),
        }
    print(json.dumps(found, indent=1))
    if given.json:
        files.write_json(given.json, found)
    return 0


def installed(framework: str) -> dict[str, int]:
    """Distributions, and bytes of their files, with all that they require."""
    todo, seen = list(PARTS[framework].DISTRIBUTIONS), set()
    size = 0
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in seen:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        seen.add(name)
        for file in distribution.files or []:
            path = Path(str(distribution.locate_file(file)))
            if path.is_file() and path.suffix != ".pyc":
                size += path.stat().st_size
        for line in distribution.requires or []:
            requirement = Requirement(line)
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
    return {"distributions": len(seen), "bytes": size}


def start_up(framework: str) -> dict[str, float]:
    """Seconds to import, to the first answer, for one image; bytes at the most."""
    text = START.format(
        **{k: indented(k, v) for k, v in PARTS[framework].PARTS.items()}
    )
    done = child(text)
    if done.returncode:
        sys.exit(done.stderr)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def indented(part: str, text: str) -> str:
    return text.replace("\n", "\n    ") if part == "answer" else text


def child(code: str, folder: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def code(framework: str) -> dict[str, Any]:
    """Lines and names of the lesson, part by part."""
    text = lesson_text(framework)
    assert text is not None
    codes = {part.heading: part.code for part in sections(text)}
    names = used(text, framework)
    return {
        "lines": {heading: lines(part) for heading, part in codes.items()},
        "all_lines": sum(map(lines, codes.values())),
        "names": sorted(names),
        "name_count": len(names),
    }


def lines(text: str) -> int:
    return sum(
        bool(line.strip()) and not line.strip().startswith("#")
        for line in text.splitlines()
    )


def used(text: str, framework: str) -> set[str]:
    """The dotted names of the framework, the longest of each."""
    found: set[str] = set()

    class Names(ast.NodeVisitor):
        def visit_Attribute(self, node: ast.Attribute) -> None:
            name = ast.unparse(node)
            if (
                re.fullmatch(r"[\w.]+", name)
                and name.split(".")[0] in PARTS[framework].ROOTS
            ):
                found.add(name)
            else:
                self.generic_visit(node)

    Names().visit(ast.parse(text))
    return found


def wrote(framework: str, kind: str) -> dict[str, Any]:
    """Bytes of a file or folder, or the last line of the error."""
    own = PARTS[framework]
    start = own.PARTS
    text = f"{start['imports']}\n{start['build']}\n{own.FORMATS[kind]}"
    with tempfile.TemporaryDirectory() as folder:
        done = child(text, folder)
        if done.returncode:
            return {"error": done.stderr.strip().splitlines()[-1][:200]}
        found = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {"bytes": sum(path.stat().st_size for path in found)}


def mistake(framework: str) -> dict[str, Any]:
    """How long the traceback of a wrong shape is, and what its last line says."""
    own = PARTS[framework]
    start = own.PARTS
    text = f"{start['imports']}\n{start['build']}\n{own.MISTAKE}"
    said = child(text).stderr.strip()
    said = said[said.index("Traceback") :]
    return {
        "frames": len(re.findall(r'^  File "', said, re.MULTILINE)),
        "says": re.split(r"^(?=\w+(?:\.\w+)*(?:Error|Exception))", said, flags=re.M)[-1]
        .partition("\n---")[0]
        .strip()[:400],
    }


if __name__ == "__main__":
    sys.exit(main())
