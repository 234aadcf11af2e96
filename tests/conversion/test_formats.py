"""The table of formats: every framework's own, and those of nobody."""

from __future__ import annotations

import pytest

from paripassu.conversion.formats import all_formats, find_format
from paripassu.core.errors import UserError
from paripassu.frameworks.registry import FRAMEWORKS


def test_every_format_has_a_script_that_tries_it_and_a_suffix():
    formats = all_formats()
    assert formats.keys() >= {*FRAMEWORKS, "safetensors", "onnx"}
    assert all(x.trial.is_file() and x.suffixes for x in formats.values())
    suffixes = [suffix for x in formats.values() for suffix in x.suffixes]
    assert len(suffixes) == len(set(suffixes))


@pytest.mark.parametrize(
    ("text", "name"),
    [("pytorch", "pytorch"), ("torch", "pytorch"), ("Keras", "tensorflow")],
)
def test_an_alias_is_understood(text, name):
    assert find_format(text).name == name


@pytest.mark.parametrize(
    ("text", "near"),
    [("pytroch", "pytorch"), ("onx", "onnx"), ("safetensor", "safetensors")],
)
def test_a_near_miss_is_corrected(text, near):
    with pytest.raises(UserError, match=f"Did you mean {near}"):
        find_format(text)


def test_a_format_of_nobody_is_refused():
    with pytest.raises(UserError) as caught:
        find_format("caffe")
    assert "Did you mean" not in str(caught.value)
    assert all(name in str(caught.value) for name in all_formats())
