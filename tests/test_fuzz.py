"""What reads files and requests meets damaged ones: a small form of the campaign."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest

from paripassu.core.errors import UserError
from paripassu.port_check.check import read_map

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import fuzz  # noqa: E402

FEW = 40  # inputs of each reader
PLAIN = [x for x in fuzz.READERS if x not in fuzz.registry.FRAMEWORKS]


def fed(name, reader, folder, count=FEW):
    samples = reader.samples(folder, str(folder / fuzz.TRAP))
    return fuzz.feed(name, reader, folder, samples, range(count))


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_damaged_is_read_or_refused(name, tmp_path):
    found = fed(name, fuzz.READERS[name], tmp_path)
    assert found["faults"] == []
    assert found["refused"] > 0
    assert found["read"] + found["refused"] == FEW


def test_a_reader_that_executes_or_raises_is_found(tmp_path):
    """Red: one that unpickles, and one that does not check."""

    def samples(_folder, trap):
        return [pickle.dumps([fuzz.Trap(trap)])]

    faults = fed("pickle", fuzz.Reader(pickle.loads, samples, 1.0), tmp_path)["faults"]
    words = " ".join(x[1] for x in faults)
    assert "the trap was sprung" in words
    assert "UnpicklingError" in words
    assert not (tmp_path / fuzz.TRAP).exists()


def test_a_map_that_is_too_deep_is_refused(tmp_path):
    path = tmp_path / "map.toml"
    path.write_text("x = " + "[" * 3000)
    with pytest.raises(UserError, match="too deep within"):
        read_map(path)


def test_the_record_of_the_campaign_has_no_faults():
    found = json.loads((ROOT / "results" / "reliability" / "fuzz.json").read_text())
    assert found["inputs"] >= 1_000_000
    assert found["faults"] == 0
    assert set(found["readers"]) == set(fuzz.READERS)
    for row in found["readers"].values():
        assert row["read"] + row["refused"] == row["inputs"]
