"""The page of a check: names on the axis, causes with their places."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from paripassu.port_check import page
from paripassu.port_check.results import Place


def place(number: int, *, faulty: bool = False, name: str = "") -> Place:
    return Place(
        left=name or f"layer{number}",
        right=f"right{number}",
        kind="dense",
        visit=0,
        entering=0.0,
        own=1.0 if faulty else 0.0,
        total=1e-16,
        control=1e-16,
        bound=1e-9,
        entering_bound=1e-9,
    )


def names(places: list[Place]) -> list[str]:
    drawn = ElementTree.fromstring(page.curve(places))
    return [x.text for x in drawn.iter("text") if "rotate" in x.get("transform", "")]


def test_every_layer_is_named_where_there_is_room():
    places = [place(x) for x in range(20)]
    assert names(places) == [x.left for x in places]


@pytest.mark.parametrize("faulty", [0, 7, 123, 299])
def test_a_faulty_layer_is_named_whatever_the_room(faulty):
    places = [place(x, faulty=x == faulty) for x in range(300)]
    found = names(places)
    assert f"layer{faulty}" in found
    assert 10 < len(found) < 60
    assert found == sorted(found, key=lambda x: int(x[5:]))


def test_long_names_keep_their_end():
    (found,) = names([place(0, name="encoder.layers.11.attention.output.dense")])
    assert found == "…attention.output.dense"
    assert len(found) <= page.MOST_LETTERS


def test_colours_are_for_frameworks_only():
    assert not re.search(r"hue\d", page.curve([place(0), place(1, faulty=True)]))
    assert page.curve([])
