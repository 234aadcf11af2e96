"""How well `paripassu check` judges ports of which the faults are known.

    python benchmarks/ports.py

Every file of `examples/ports` has a port that is right and faulty ones, each with the
places and the cause that a reader would accept. All are checked. So are families of
public libraries, transformers beside keras-hub and keras.applications, in
`benchmarks/families`: as they come, each with weights of its own; after copying, either
way; and with faults. What was found of each is written to `results/ports.json`. The
libraries are not installed with paripassu:

    pip install --no-deps transformers==5.24.0 keras-hub==0.32.0

and what they miss. Without them, their part of the record stays as it is.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "ports"
FAMILIES = [ROOT / "benchmarks" / "families" / x for x in ("text.py", "vision.py")]
LIBRARIES = ("transformers", "keras_hub")
UNCOPIED = ["weights-not-copied"]

Keep = Callable[[str, dict[str, Any]], None]  # write a part of the record


def judged(*paths: Path, each: int = 1) -> list[list[dict[str, Any]]]:
    """What is found of files' right ports, and of every so many faulty one.

    In one process for all of them, which imports the frameworks once; the record is
    made with a process for each file.
    """
    result = subprocess.run(
        [sys.executable, __file__, "--judge", *map(str, paths), "--each", str(each)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"{paths}: {result.stderr[-3000:]}")
    rows = [json.loads(x[2:]) for x in result.stdout.splitlines() if x[:2] == "@@"]
    starts = [number for number, row in enumerate(rows) if row["name"] is None]
    return [rows[a:b] for a, b in pairwise([*starts, len(rows)])]


def judge(path: Path, each: int) -> None:
    """Check the ports of a file here, and print what was found."""
    from paripassu.port_check import session, targets

    sys.path.insert(0, str(path.resolve().parent))
    module = importlib.import_module(path.stem)
    for fault in [None, *module.FAULTS[::each]]:
        mistakes = fault["mistakes"] if fault else {}

        def build(mistakes: Any = mistakes) -> Any:
            return module.keras_port(**mistakes)

        left = targets.Target("left", module.pytorch(), module.pytorch)
        right = targets.Target("right", build(), build)
        inputs = [targets.parse_input(module.INPUT, 0)]
        found = session.prepare(left, right, inputs).go()
        first = found.faults[0] if found.faults else None
        names = _layers(first.left) + _layers(first.right) if first else []
        cause = first.cause.key if first and first.cause else None
        verdict = {
            "name": fault["name"] if fault else None,
            "equal": found.equal,
            "seconds": round(found.seconds, 2),
        }
        if fault:
            verdict |= {
                "place": bool(set(names) & set(fault["places"])),
                "cause": cause == fault["cause"],
                "wanted": [*fault["places"], fault["cause"]],
                "got": [first.left, first.right, cause] if first else None,
            }
        print("@@" + json.dumps(verdict), flush=True)


def judged_family(path: Path, name: str) -> list[dict[str, Any]]:
    """What is found of a pair of public libraries, in a process of its own."""
    given = [sys.executable, __file__, "--judge", str(path), "--family", name]
    result = subprocess.run(given, capture_output=True, text=True, check=False)
    rows = [json.loads(x[2:]) for x in result.stdout.splitlines() if x[:2] == "@@"]
    if result.returncode:
        raise RuntimeError(f"{path.stem} {name}: {result.stderr[-3000:]}")
    return rows


def judge_family(path: Path, name: str) -> None:
    """Check a family here: as it comes, copied either way, and its faults."""
    sys.path.insert(0, str(path.resolve().parent))
    families = {x["name"]: x for x in importlib.import_module(path.stem).FAMILIES}
    for copy, fault in cases(families[name]):
        print("@@" + json.dumps(judge_case(families[name], copy, fault)), flush=True)


def cases(family: dict[str, Any]) -> list[tuple[str | None, dict[str, Any] | None]]:
    """What is copied, and the fault, of each check of a family."""
    faults = [("left-to-right", x) for x in family["faults"]]
    return [(None, None), ("left-to-right", None), ("right-to-left", None), *faults]


def judge_case(
    family: dict[str, Any], copy: str | None, fault: dict[str, Any] | None
) -> dict[str, Any]:
    """One check of a family, as the record has it."""
    import paripassu

    truth = [] if family["truth"] == "equal" else family["truth"]
    mistakes = fault["mistakes"] if fault else {}

    def build() -> Any:
        return family["right"](**mistakes)

    found = paripassu.check(family["left"], build, family["inputs"], copy=copy)
    causes = [(x.key, x.places) for x in found.causes]
    row: dict[str, Any] = {
        "name": fault["name"] if fault else copy or "as they come",
        "commit": commit(),
        "verdict": found.verdict,
        "causes": [key for key, _ in causes],
        "seconds": round(found.seconds, 2),
    }
    if fault:
        new = [x for x in causes if x[0] not in truth]
        names = {x.replace("/", ".") for x in fault["places"]}  # as in a path
        row["wanted"] = [*sorted(names), fault["cause"]]
        row["got"] = [place for _, places in new[:1] for place in places[:1]]
        row["place"] = any(
            any(x in y for x in names for y in _layers(f"{left}, {right}"))
            for _, places in new[:1]
            for left, right in places
        )
        row["cause"] = [key for key, _ in new] == [fault["cause"]]
    elif copy:
        wanted = "differs" if truth else "equal"
        row["right"] = found.verdict == wanted and set(row["causes"]) == set(truth)
    else:
        row["right"] = found.verdict == "differs" and row["causes"][:1] == UNCOPIED
    return row


def _layers(names: str) -> list[str]:
    """All names by which a place of a finding may be called."""
    found: list[str] = []
    for name in names.split(", "):
        found += [name, *name.split(":"), name.removeprefix("after ")]
    return [x.replace("/", ".") for x in found]


def commit() -> str:
    """The commit of the code, with a plus where it has changes that are not in it."""
    given = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(given, capture_output=True, text=True, check=True).stdout[:-1]


def check_ports(folder: Path, each: int, keep: Keep) -> None:
    """All files of `examples/ports`."""
    record = {}
    for path in sorted(folder.glob("*.py")):
        ((right, *faults),) = judged(path, each=each)
        record[path.stem] = {"right": right, "faults": faults}
        print(
            f"{path.stem:15} right port {'equal' if right['equal'] else 'NOT EQUAL'}; "
            f"of {len(faults)} faults caught {sum(not x['equal'] for x in faults)}, "
            f"place {sum(x['place'] for x in faults)}, "
            f"cause {sum(x['cause'] for x in faults)}",
            flush=True,
        )
    keep("ports", record)


def check_families(before: dict[str, Any], only: list[str], keep: Keep) -> None:
    """All families, or those named; the others stay as the record has them."""
    import torch  # noqa: F401, before TensorFlow

    record = dict(before)
    known = []
    for path in FAMILIES:
        sys.path.insert(0, str(path.parent))
        for family in importlib.import_module(path.stem).FAMILIES:
            known.append(name := family["name"])
            if only and name not in only:
                continue
            rows = judged_family(path, name)
            pairs, faults = rows[:3], rows[3:]
            record[name] = {"file": path.stem, "pairs": pairs, "faults": faults}
            print(
                f"{name:15} right {sum(x['right'] for x in pairs)} of {len(pairs)}; "
                f"of {len(faults)} faults caught "
                f"{sum(x['verdict'] == 'differs' for x in faults)}, place "
                f"{sum(x['place'] for x in faults)}, cause "
                f"{sum(x['cause'] for x in faults)}",
                flush=True,
            )
            keep("families", {x: record[x] for x in sorted(record)})
    if missing := {*only} - {*known}:
        raise SystemExit(f"no family {', '.join(missing)}. There are {known}")
    keep("families", {x: record[x] for x in sorted(record) if x in known})


def main() -> None:
    """Check all of them and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--judge", type=Path, nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--family", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=("ports", "families"), help="one part")
    parser.add_argument("--families", nargs="+", default=[], help="only these of them")
    parser.add_argument("--each", type=int, default=1, help="only every so many fault")
    parser.add_argument("--folder", type=Path, default=EXAMPLES)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "ports.json")
    given = parser.parse_args()
    if given.judge:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        import torch  # noqa: F401, before TensorFlow

        for path in given.judge:
            if given.family:
                judge_family(path, given.family)
            else:
                judge(path, given.each)
        return
    from paripassu.core import files
    from paripassu.frameworks.registry import FRAMEWORKS

    record: dict[str, Any] = {"ports": {}, "families": {}}
    if given.out.exists():
        record |= json.loads(given.out.read_text())
    record["command"] = "python benchmarks/ports.py"
    record["versions"] = {
        k: v for x in FRAMEWORKS.values() for k, v in x.versions.items()
    }

    def keep(part: str, found: dict[str, Any]) -> None:
        record[part] = found
        files.write_text(given.out, json.dumps(record, indent=1) + "\n")

    if given.only != "ports":
        if all(map(importlib.util.find_spec, LIBRARIES)):
            record["libraries"] = {x.replace("_", "-"): version(x) for x in LIBRARIES}
            check_families(record["families"], given.families, keep)
        else:
            print(f"{' and '.join(LIBRARIES)} are not installed: no families")
    if given.only != "families":
        check_ports(given.folder, given.each, keep)


if __name__ == "__main__":
    main()
