"""Recordings of strangers: read whole, or refused in words, whatever they say."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paripassu.core import files
from paripassu.core.errors import UserError
from paripassu.sides.recorded import RecordedProbe
from paripassu.sides.recording import Recording

CALL = {
    "name": "dense",
    "title": "Dense",
    "kind": "dense",
    "settings": {
        "axes": {"tuple": [1, {"float": "inf"}]},
        "table": {"array": "weights/dense/kernel"},
        "more": {"dict": {"a": [True, None]}},
    },
    "weights": ["kernel"],
    "sources": [-1],
    "inside": ["block"],
    "inputs": ["inputs/x"],
    "outputs": ["float32/outputs/y"],
    "shape": [2, 3],
    "control": [0.1, None],
}
DESCRIPTION: dict[str, Any] = {
    "format": "paripassu recording",
    "version": 1,
    "level": "full",
    "parts": ["arrays.safetensors"],
    "framework": "any",
    "inputs": ["x"],
    "blocks": [
        {
            "name": "dense",
            "layer": "dense",
            "kind": "dense",
            "settings": CALL["settings"],
            "weights": ["kernel"],
        }
    ],
    "passes": {"float32": {"outputs": ["y"], "calls": [CALL], "control": True}},
    "evaluation_draws": [{"place": "a", "kind": "dropout", "rate": 0.5, "size": 3}],
}
ARRAYS = dict.fromkeys(
    (
        *("inputs/x", "weights/dense/kernel"),
        *("float32/outputs/y", "float32/control/y"),
    ),
    np.ones((2, 3), np.float32),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strange") / "a.recording"
    folder.mkdir()
    files.write_tensors(folder / "arrays.safetensors", ARRAYS)
    return folder


def replay(folder: Path, text: str) -> None:
    """Read everything that a recording says."""
    (folder / "recording.json").write_text(text)
    recording = Recording(folder)
    probe = RecordedProbe(recording)
    for block in probe.blocks():
        dict(block.spec.weights)
    probe.randomness(training=False)
    for one in recording.description.passes.values():
        for serial, call in enumerate(one.calls):
            probe._call(call, serial)
            probe._outputs(call)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all that is in a description."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, x in inner:
        found.append((*path, key))
        if isinstance(x, (dict, list)):
            found += places(x, (*path, key))
    return found


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["", "x", "../x", "float32", "inputs/x", "\ud800", "\0"])
)


def around(x: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(x, max_size=3) | st.dictionaries(
        st.sampled_from(["tuple", "dict", "array", "float", "text", "name"]),
        x,
        max_size=2,
    )


ANYTHING = LEAVES | around(LEAVES | around(LEAVES))


@settings(max_examples=150)
@given(place=st.sampled_from(places(DESCRIPTION)), value=ANYTHING)
@example(place=("parts", 0), value="\x00")
@example(place=("parts", 0), value="\ud800")
def test_anything_in_any_place_is_read_or_refused(folder, place, value):
    strange = copy.deepcopy(DESCRIPTION)
    here = strange
    for key in place[:-1]:
        here = here[key]
    here[place[-1]] = value
    try:
        replay(folder, json.dumps(strange))
    except UserError:
        return


def test_what_cannot_be_meant_is_refused(folder):
    replay(folder, json.dumps(DESCRIPTION))
    for old, new in {
        '"inf"': '"many"',
        '{"array": "weights/dense/kernel"}': '{"array": "weights/other"}',
        '{"dict": {"a": [true, null]}}': '{"dict": 1}',
        "[2, 3]": "[-1]",
        "0.5": "NaN",
    }.items():
        text = json.dumps(DESCRIPTION)
        assert old in text
        with pytest.raises(UserError, match=r"recording\.json"):
            replay(folder, text.replace(old, new))
