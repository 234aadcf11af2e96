"""The benchmark: what it counts, what it computes from its rounds, and that it runs."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from helpers import (
    BOTH,
    environment,
    needs_both,
    run_paripassu,
    skip_without,
    type_here,
)
from make_bench import IMAGES, MATRIX, made, timed
from rich.console import Console

from paripassu.analysis.benchmark import BENCH_FILE, STYLES, Bench, Race, Timed
from paripassu.analysis.benchmark import Conditions as Conditions_
from paripassu.analysis.report.benchmark import picture
from paripassu.benchmark.bench import bench
from paripassu.benchmark.race import race
from paripassu.benchmark.rounds import Turn, in_rounds
from paripassu.core.errors import UserError
from paripassu.core.networks import NETWORKS
from paripassu.core.recipe import load as load_recipe
from paripassu.processes.conditions import Conditions
from paripassu.terminal.benchmark import bench_table, race_table


def printed(found: Bench | Race) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(bench_table(found) if found.kind == "bench" else race_table(found))
    return console.export_text()


# What is counted

COUNTED = """
import torch
from torch.utils.flop_counter import FlopCounterMode
from paripassu.core.recipe import Recipe
from paripassu.frameworks.pytorch import recipes

rates = {"article": 2, "keras-example": 1, "lenet5": 0, "fast": 0}
for name, dropouts in rates.items():
    recipe = Recipe(name=name, network=name,
                    dropout={f"dropout{i + 1}": 0.5 for i in range(dropouts)})
    network = recipes.make_network(recipe)
    x = torch.zeros(3, 1, 28, 28)
    with FlopCounterMode(display=False) as forward:
        out = network(x)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    print(name, forward.get_total_flops() // 3, backward.get_total_flops() // 3)
"""


@skip_without("pytorch")
def test_operations_are_those_that_pytorch_counts():
    done = subprocess.run(
        [sys.executable, "-P", "-c", COUNTED],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        name, forward, backward = line.split()
        sheet = NETWORKS[name]
        if name == "lenet5":  # PyTorch counts what the table leaves out
            assert sheet.forward_flops < int(forward)
            continue
        assert sheet.forward_flops == int(forward)
        assert sheet.training_flops == int(forward) + int(backward)


def test_operations_of_the_article_by_hand():
    conv1 = 2 * 26 * 26 * 32 * 9
    rest = 2 * (24 * 24 * 64 * 32 * 9 + 9216 * 128 + 128 * 10)
    assert NETWORKS["article"].forward_flops == conv1 + rest
    assert NETWORKS["article"].training_flops == 2 * conv1 + 3 * rest


# What is computed


def test_figures_come_from_the_rounds():
    found = made()
    assert found.ceilings() == [1e11, 2e11, 1e11]  # the faster product of each round
    assert found.seconds("pytorch", "lesson").median == 3.0
    assert found.images_per_second("pytorch", "lesson").high == 3000.0
    shares = found.of_ceiling("pytorch", "lesson")  # 6e10 / seconds / ceiling
    assert (shares.low, shares.median, shares.high) == pytest.approx((0.1, 0.15, 0.3))
    kernels = found.of_kernels("pytorch")
    assert (kernels.low, kernels.median, kernels.high) == pytest.approx(
        (0.25, 0.4, 0.5)
    )
    own = found.own_product("pytorch")  # half of the other's in one round
    assert (own.low, own.median, own.high) == pytest.approx((0.5, 1.0, 1.0))
    ratio = found.beside_notebook("pytorch")
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((0.5, 0.75, 0.8))
    assert found.harness("pytorch").high == pytest.approx(0.01)
    assert found.harness("tensorflow").median == 0.0
    assert found.memory("pytorch", "notebook").median == 2**29
    assert not found.busy


def test_a_turn_at_half_speed_is_named():
    found = made()
    (ceiling,) = found.outliers()  # a product of 0.04 s; the others took 0.01 and 0.02
    assert ceiling == (found.rounds[0][4], 1, 2.0)
    text = "TensorFlow's notebook took 2.0 times its median in round 3"
    assert text not in printed(found)
    slow = found.rounds[2][6]
    assert (slow.framework, slow.style) == ("tensorflow", "notebook")
    slow.__dict__["seconds"] = 6.0  # frozen, and this is a test
    assert found.outliers() == [ceiling, (slow, 3, 2.0)]
    assert text in printed(found)


def test_a_busy_machine_gives_no_verdict():
    found = made()
    found.rounds[1][2].__dict__["other_load"] = 0.3  # frozen, and this is a test
    assert found.busy
    assert "do not rely" in printed(found)
    assert "no verdict" in picture(found)
    assert "do not rely" not in printed(made())
    assert "no verdict" not in picture(made())


def test_the_table_says_what_was_measured():
    text = printed(made())
    assert "0.75 (0.50 to 0.80)" in text
    assert "15% (10% to 30%)" in text
    assert "40% (25% to 50%)" in text
    assert "30.0 s (20.0 s to 40.0 s)" in text  # 60,000 images
    assert "512 MiB" in text
    assert "100 GFLOP/s" in text
    assert (
        "(" not in printed(made(1)).split("lesson / notebook's style")[1].split("\n")[0]
    )


def test_the_picture_is_a_whole_file():
    for found in (made(), made(1)):
        text = picture(found)
        root = ET.fromstring(text)
        assert root.tag.endswith("svg")
        assert text.count('class="bar') == 6
        assert "PyTorch, lesson: 15%" in text or len(found.rounds) == 1
    text = picture(made())  # of 6,000 images, told as the table is: for 60,000
    assert "15%, 30.0 s" in text
    assert "15%, 3.00 s" not in text
    assert "for an epoch of 60,000 images" in text


# The race


def race_of(*rounds: tuple[float, list[float], float, list[float]]) -> Race:
    """Of one framework: seconds and accuracies of recipe and notebook's style."""
    fields = made().model_dump(include=set(Conditions_.model_fields))
    fields["versions"] = {"pytorch": "2.13.0"}
    measured = []
    for number, (fast, reached, slow, slowly) in enumerate(rounds):
        common = {"framework": "pytorch", "seed": 42 + number, "other_load": 0.0}
        measured.append(
            [
                {"style": "recipe", "seconds": fast, "accuracies": reached, **common},
                {"style": "notebook", "seconds": slow, "accuracies": slowly, **common},
            ]
        )
    return Race(**fields, target=0.99, most_epochs=3, rounds=measured)


def test_a_race_is_counted_round_by_round():
    found = race_of(
        (4.0, [0.991], 200.0, [0.98, 0.985, 0.99]),
        (5.0, [0.989], 300.0, [0.98, 0.981, 0.982]),
        (4.0, [0.992], 100.0, [0.98, 0.993]),
    )
    assert found.times_faster("pytorch").median == 50.0
    assert found.times_faster("pytorch").low == 25.0
    assert found.reached("pytorch", "recipe") == 2
    assert found.reached("pytorch", "notebook") == 2
    assert found.mean_accuracy("pytorch", "recipe") == pytest.approx(0.990667, abs=1e-6)
    text = printed(found)
    assert "50 (25 to 60)" in text
    assert text.count("2 of 3") == 2
    assert "after 3: then it would have taken even longer" in text.replace("\n", " ")


# The command


def test_another_benchmark_is_not_gone_on_with(tmp_path):
    (tmp_path / BENCH_FILE).write_text(made().model_dump_json())
    with pytest.raises(UserError, match=r"holds a benchmark with .* Choose another"):
        bench(
            BOTH,
            load_recipe("article"),
            out=tmp_path,
            rounds=4,
            images=IMAGES + 1,
            matrix=MATRIX,
            conditions=Conditions(),
        )
    assert Bench.model_validate_json((tmp_path / BENCH_FILE).read_text()) == made()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--frameworks", "caffe"], "caffe"),
        (["--images", "3"], "--images"),
        (["--recipe", "nowhere"], "nowhere"),
    ],
)
def test_wrong_usage(words, message, tmp_path):
    done = type_here("bench", "--out", str(tmp_path / "out"), *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


@needs_both
@pytest.mark.slow
def test_it_runs_and_goes_on(tmp_path: Path):
    words = ["bench", "--images", "256", "--matrix", "256", "--json"]
    both = [*words, "--out", str(tmp_path / "both"), "--rounds", "1"]
    done = run_paripassu(*both)
    assert done.returncode == 0, done.stderr
    (turns,) = json.loads(done.stdout)["rounds"]
    assert {(x["framework"], x["style"]) for x in turns} == {
        (name, style) for name in BOTH for style in STYLES
    }
    for one in turns:
        assert one["seconds"] > 0
        assert (one["harness_seconds"] is not None) == (one["style"] == "lesson")
    ET.parse(tmp_path / "both" / "bench.svg")
    done = run_paripassu(*both, "--frameworks", "tensorflow")
    assert done.returncode == 2
    assert "holds a benchmark with versions" in done.stderr

    # One framework, and a recipe that no notebook has, is enough to go on with. Not in
    # its bfloat16: a turn takes minutes where the processor has no such instructions.
    words += ["--recipe", "fast", "--set", "precision=float32"]
    words += ["--frameworks", "pytorch"]
    words += ["--out", str(tmp_path / "fast")]
    rounds = []
    for count in "12":
        done = run_paripassu(*words, "--rounds", count)
        assert done.returncode == 0, done.stderr
        rounds.append(json.loads(done.stdout)["rounds"])
    assert rounds[1][0] == rounds[0][0]
    assert [len(x) for x in rounds] == [1, 2]
    assert {x["style"] for x in rounds[1][1]} == {"ceiling", "kernels", "lesson"}


def test_every_other_round_goes_the_other_way_round(tmp_path):
    """What is measured is no matter here: the order is."""
    asked: list[tuple[str, str]] = []

    def measure(turn: Turn) -> Timed:
        asked.append((turn.framework, turn.style))
        return timed(turn.framework, turn.style, 1.0, None)

    wanted = {"styles": STYLES, "measure": measure, "on_progress": lambda *_: None}
    path = tmp_path / BENCH_FILE
    found = in_rounds(made(0), path, rounds=1, **wanted)
    found = in_rounds(made(0), path, rounds=3, **wanted)
    assert len(found.rounds) == 3
    first, second, third = asked[:8], asked[8:16], asked[16:]
    assert set(first) == {(name, style) for name in BOTH for style in STYLES}
    assert second == first[::-1]
    assert third == first


@skip_without("pytorch")
@pytest.mark.slow
def test_a_race_runs_and_goes_on(tiny, tmp_path):
    """On few images, to an accuracy that the first epoch has."""
    given = {
        "target": 0.05,
        "out": tmp_path,
        "conditions": Conditions(data=tiny, threads=1),
    }
    recipe = load_recipe("fast", ["precision=float32"])
    told: list[str] = []
    race(
        ["pytorch"],
        recipe,
        rounds=1,
        on_progress=lambda text, _share: told.append(text),
        **given,
    )
    assert any("notebook: epoch 1, " in text for text in told)
    found = race(["pytorch"], recipe, rounds=2, **given)
    assert [[x.seed for x in each] for each in found.rounds] == [[42, 42], [43, 43]]
    assert [len(x.accuracies) for each in found.rounds for x in each] == [1, 1, 1, 1]
    assert all(x.seconds > 0 for each in found.rounds for x in each)
    with pytest.raises(UserError, match=r"target 0.05, and 0.06 is wanted"):
        race(["pytorch"], recipe, rounds=1, **{**given, "target": 0.06})
