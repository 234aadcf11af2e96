"""How many ports that are right pass, and how many faults are caught and named.

Every file in `examples/ports` has a right port and faulty ones, with the places and the
causes that a reader would accept. Every 13th fault is tried; with `EACH=1`, all.
The record of all of them, `results/ports.json`, is held to what the project promises,
and what is tried here is held to the record: it must be what today's code finds.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import needs_both

ROOT = Path(__file__).parents[2]
PORTS = sorted((ROOT / "examples" / "ports").glob("*.py"))
sys.path.insert(0, str(ROOT / "benchmarks"))

from ports import judged, judged_family  # noqa: E402

WHOLE = json.loads((ROOT / "results" / "ports.json").read_text())
RECORD, FAMILIES = WHOLE["ports"], WHOLE["families"]
FOUND = ("equal", "place", "cause")  # what must be found again; seconds need not


def check(right, faults):
    """All right ports pass, all faults are caught, 95% of places, 85% of causes."""
    assert right["equal"]
    assert faults
    assert not [x["name"] for x in faults if x["equal"]]
    misplaced = [x for x in faults if not x["place"]]
    assert len(misplaced) <= 0.05 * len(faults), misplaced
    unnamed = [x for x in faults if not x["cause"]]
    assert len(unnamed) <= max(1, 0.15 * len(faults)), unnamed


def differing(port: dict[str, Any], rows: list[dict[str, Any]]) -> list[str | None]:
    """The names of ports of which the record says something else than `rows`."""
    recorded = {x["name"]: x for x in (port["right"], *port["faults"])}
    return [
        row["name"]
        for row in rows
        if any(row.get(key) != recorded[row["name"]].get(key) for key in FOUND)
    ]


def test_what_differs_from_the_record_is_named():
    """Red: the record of other code."""
    for port in RECORD.values():
        rows = [port["right"], *port["faults"]]
        assert not differing(port, rows)
        other = [rows[0], {**rows[1], "place": not rows[1]["place"]}, *rows[2:]]
        assert differing(port, other) == [rows[1]["name"]]


@needs_both
@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_the_right_port_passes_and_faults_are_caught_and_named(part, subtests):
    """In three processes: to import the frameworks takes longer than a check."""
    paths = PORTS[part::3]
    found = judged(*paths, each=int(os.environ.get("EACH", "13")))
    for path, (right, *faults) in zip(paths, found, strict=True):
        with subtests.test(path.stem):
            check(right, faults)
            assert not differing(RECORD[path.stem], [right, *faults])


def test_the_record_holds_what_is_promised():
    record = RECORD
    assert set(record) == {path.stem for path in PORTS}
    faults = [fault for port in record.values() for fault in port["faults"]]
    for port in record.values():
        assert port["right"]["equal"]
    assert len(faults) >= 60
    assert all(not x["equal"] for x in faults)
    assert sum(x["place"] for x in faults) >= 0.95 * len(faults)
    assert sum(x["cause"] for x in faults) >= 0.85 * len(faults)


def test_the_record_of_library_families_holds_what_is_promised():
    named = "distilbert roberta llama t5 whisper segformer mobilenet_v2 efficientnet"
    assert {*named.split()} <= {*FAMILIES}
    pairs = [x for family in FAMILIES.values() for x in family["pairs"]]
    assert len(pairs) == 3 * len(FAMILIES)
    assert not [x for x in pairs if not x["right"]]
    faults = [x for family in FAMILIES.values() for x in family["faults"]]
    assert not [x for x in faults if x["verdict"] != "differs"]
    assert sum(x["place"] for x in faults) >= 0.8 * len(faults)
    assert sum(x["cause"] for x in faults) >= 0.75 * len(faults)


@pytest.mark.slow
def test_a_family_of_libraries_is_what_the_record_says():
    pytest.importorskip("transformers")
    pytest.importorskip("keras_hub")
    name = "distilbert"
    rows = judged_family(ROOT / "benchmarks" / "families" / "text.py", name)
    recorded = *FAMILIES[name]["pairs"], *FAMILIES[name]["faults"]
    for row, known in zip(rows, recorded, strict=True):
        assert [row[x] for x in ("name", "verdict", "causes")] == [
            known[x] for x in ("name", "verdict", "causes")
        ]
