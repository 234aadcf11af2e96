"""`paripassu.train` from Python: text as paths, events, and nothing printed."""

from __future__ import annotations

from typing import Any

from helpers import skip_without

import paripassu


@skip_without("pytorch")
def test_a_training_from_python(tiny, tmp_path, capfd):
    recipe = paripassu.load_recipe("article", ["batch_size=16"], epochs=1, seed=7)
    conditions = paripassu.Conditions(data=str(tiny), threads=1)
    out = str(tmp_path / "run")
    events: list[dict[str, Any]] = []

    def train() -> paripassu.RunRecord:
        return paripassu.train(
            "torch", recipe, out=out, conditions=conditions, on_event=events.append
        )

    found = train()
    assert found.framework == "pytorch"
    assert (found.status, found.recipe["seed"]) == ("finished", 7)
    assert found.dataset.source == str(tiny.resolve())
    assert found.command == f"train torch in {out}"
    kinds = [event["event"] for event in events]
    assert kinds[0] == "phase"
    assert kinds[-1] == "finished"
    assert kinds.count("epoch") == 1
    events.clear()
    assert train() == found
    assert [event["event"] for event in events] == ["phase", "reused"]
    assert capfd.readouterr() == ("", "")
