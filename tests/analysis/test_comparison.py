"""From synthetic, complete run folders to `comparison.json`."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import BOTH
from make_records import (
    SHA256,
    make_comparison,
    make_dataset,
    make_environment,
    make_labels,
    make_logits,
    make_proof,
    make_run,
)

from paripassu.analysis import comparison as compared
from paripassu.analysis.schema import document
from paripassu.analysis.statistics import more_seeds
from paripassu.analysis.text import points
from paripassu.core.errors import UserError
from paripassu.core.files import read_json, read_tensors, write_json, write_tensors

REPOSITORY = Path(__file__).parents[2]


def summary(tmp_path, *arguments, **keywords):
    return compared.summarise(make_comparison(tmp_path, *arguments, **keywords))


def only_pair(found):
    (pair,) = found.pairs
    return pair


def correct_by_seed(left, right, first=40):
    """Run names with right answers, from one list for each framework."""
    return {
        f"{framework}-seed{first + i}": value
        for framework, values in zip(BOTH, (left, right), strict=True)
        for i, value in enumerate(values)
    }


# Figures


def test_one_seed(tmp_path):
    correct = {"pytorch-seed42": 492, "tensorflow-seed42": 495}
    found = summary(tmp_path, correct=correct, proof=make_proof())
    torch = found.frameworks["pytorch"]
    assert (torch.status, torch.message) == ("ok", None)
    assert (torch.runs, torch.seeds) == (["runs/pytorch-seed42"], [42])
    assert torch.version == "2.13.0"
    assert found.frameworks["tensorflow"].version == "2.21.0"
    accuracy = torch.test_accuracy
    assert (accuracy.mean, accuracy.n, accuracy.method) == (0.984, 1, "wilson")
    assert accuracy.low < 0.984 < accuracy.high
    assert (torch.test_loss.low, torch.test_loss.n) == (None, 1)
    assert found.environment.cores == 2
    assert found.dataset.name == "mnist"
    assert (found.order[0], found.seeds) == ("pytorch-seed42", [42])
    assert found.proof.holds
    assert found.warnings == []

    pair = only_pair(found)
    assert pair.difference.mean == pytest.approx(-0.006)
    assert (pair.difference.low, pair.equivalence, pair.sign_flip_p) == (None,) * 3
    assert pair.verdict == "undecided"
    answers = [make_logits("pytorch", 42, 492), make_logits("tensorflow", 42, 495)]
    left, right = (logits.argmax(axis=1) for logits in answers)
    labels = make_labels()
    only = [int(np.sum((left == labels) & (right != labels)))]
    only.append(only[0] + 3)
    assert pair.mcnemar_p == pytest.approx(binomial_p(*only))
    assert pair.churn.mean == np.mean(left != right)
    assert pair.disagreement_count == np.sum(left != right)


def binomial_p(less, more):
    """Exact two-sided p of a fair coin, for less < more."""
    total = less + more
    tail = sum(math.comb(total, k) for k in range(less + 1))
    return min(1.0, 2 * tail / 2**total)


def test_several_seeds(tmp_path):
    left, right = [492, 491, 495], [491, 491, 490]
    found = summary(tmp_path, BOTH, (40, 41, 42), correct=correct_by_seed(left, right))
    torch = found.frameworks["pytorch"]
    assert torch.test_accuracy.mean == pytest.approx(1478 / 1500)
    assert (torch.test_accuracy.n, torch.test_accuracy.method) == (3, "student t")
    assert torch.seeds == [40, 41, 42]
    pair = only_pair(found)
    assert pair.seeds == [40, 41, 42]
    assert pair.difference.mean == pytest.approx(6 / 1500)
    assert pair.mcnemar_p is None
    assert pair.sign_flip_p == 0.5  # of 1, 0, 5: both signs alike, in four of eight
    answers = {
        name: [make_logits(name, 40 + i, k).argmax(axis=1) for i, k in enumerate(ks)]
        for name, ks in zip(BOTH, (left, right), strict=True)
    }
    churns = [np.mean(a != b) for a, b in zip(*answers.values(), strict=True)]
    assert pair.churn.mean == pytest.approx(np.mean(churns))
    assert pair.churn.n == 3
    assert pair.disagreement_count == round(500 * sum(churns))


def test_times_are_over_all_epochs_and_sessions(tmp_path):
    keywords = {"epochs": 2, "sessions": 2}
    make_comparison(tmp_path, BOTH, (40, 41), **keywords)
    found = compared.summarise(tmp_path)
    records = [read_json(tmp_path / f"runs/pytorch-seed{s}/run.json") for s in (40, 41)]
    torch = found.frameworks["pytorch"]
    seconds = [epoch["seconds"] for record in records for epoch in record["epochs"]]
    assert torch.epoch_seconds.n == 4
    assert torch.epoch_seconds.median == pytest.approx(np.median(seconds))
    assert (torch.epoch_seconds.low, torch.epoch_seconds.high) == (
        min(seconds),
        max(seconds),
    )
    assert torch.start_up_seconds.n == 4
    assert torch.start_up_seconds.high == 2.6
    assert torch.data_seconds.median == 0.6
    assert torch.build_seconds.median == 0.1
    assert torch.warm_up_seconds.median == 0.9
    assert torch.inference.single_seconds.n == 2
    assert torch.inference.batch_size == 64
    memory = [record["peak_memory_bytes"] for record in records]
    assert torch.peak_memory_bytes == round(np.median(memory))
    assert torch.peak_accelerator_bytes is None


def test_what_was_not_measured_is_none(tmp_path):
    make_comparison(tmp_path)
    path = tmp_path / "runs/pytorch-seed42/run.json"
    record = read_json(path)
    record |= {"inference": None, "peak_memory_bytes": None}
    record["sessions"][0]["seconds"] = {"data": 0.5}
    record["environment"]["versions"] = {}
    write_json(path, record)
    torch = compared.summarise(tmp_path).frameworks["pytorch"]
    assert torch.inference is None
    assert torch.peak_memory_bytes is None
    assert torch.start_up_seconds is None
    assert torch.version is None
    assert torch.data_seconds.median == 0.5


def test_accuracy_of_nearly_perfect_runs_stays_a_share(tmp_path):
    correct = correct_by_seed([500, 470], [500, 499])
    found = summary(tmp_path, BOTH, (40, 41), correct=correct)
    assert found.frameworks["pytorch"].test_accuracy.high == 1.0
    assert only_pair(found).churn.low == 0.0


def test_three_frameworks_make_three_pairs(tmp_path):
    found = summary(tmp_path, ("pytorch", "tensorflow", "toy"), (40, 41))
    assert [(pair.left, pair.right) for pair in found.pairs] == [
        ("pytorch", "tensorflow"),
        ("pytorch", "toy"),
        ("tensorflow", "toy"),
    ]
    assert "Toy" in found.pairs[1].sentence


def test_disagreements_are_the_most_confident_and_each_image_once(tmp_path):
    seeds = (40, 41, 42)
    found = summary(tmp_path, BOTH, seeds, test_count=2000, correct=None)
    pair = only_pair(found)
    indexes = [item.index for item in pair.disagreements]
    assert len(indexes) == len(set(indexes)) == 24 < pair.disagreement_count
    sureness = [
        min(x.left_probability, x.right_probability) for x in pair.disagreements
    ]
    assert sureness == sorted(sureness, reverse=True)
    best = 0.0
    for seed in seeds:
        answers, sure = [], []
        for framework in BOTH:
            path = tmp_path / f"runs/{framework}-seed{seed}/predictions.safetensors"
            logits = read_tensors(path)[0]["logits"].astype(float)
            shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            answers.append(shares.argmax(axis=1))
            sure.append(shares.max(axis=1))
        least = np.minimum(*sure)[answers[0] != answers[1]]
        best = max(best, least.max())
    assert sureness[0] == pytest.approx(best)
    first = pair.disagreements[0]
    assert first.left != first.right
    assert first.label == make_labels(2000)[first.index]


# Verdicts in words


@pytest.mark.parametrize(
    ("left", "right", "verdict", "words"),
    [
        (
            [9901, 9899, 9900, 9902, 9898],
            [9900, 9900, 9900, 9900, 9900],
            "equivalent",
            "Over 5 paired seeds, PyTorch and TensorFlow are equivalent: the mean "
            "difference in test accuracy (PyTorch − TensorFlow) is 0.00 points (90% "
            "interval −0.02 to +0.02), inside the margin of ±0.10 points",
        ),
        (
            [9905, 9904, 9906, 9905, 9904, 9906],
            [9900] * 6,
            "equivalent",
            "A difference of such a size is there (sign-flip test, p = 0.0312), but it "
            "is smaller than the margin.",
        ),
        (
            [9850, 9851, 9849, 9852, 9848, 9850],
            [9900] * 6,
            "different",
            "is −0.50 points (95% interval −0.51 to −0.49), so that TensorFlow is the "
            "more accurate (sign-flip test, p = 0.0312).",
        ),
        (
            [490, 496, 493, 494, 491],
            [493, 490, 496, 491, 494],
            "undecided",
            "Over 5 paired seeds, nothing is decided between PyTorch and TensorFlow",
        ),
        ([490, 494], [493, 490], "undecided", "Two paired seeds are not enough"),
        ([490], [493], "undecided", "One seed is not enough for a verdict (at"),
    ],
)
def test_sentences(tmp_path, left, right, verdict, words):
    seeds = range(40, 40 + len(left))
    correct = correct_by_seed(left, right)
    count = 10_000 if max(left) > 500 else 500
    pair = only_pair(
        summary(tmp_path, BOTH, seeds, correct=correct, test_count=count, epochs=1)
    )
    assert pair.verdict == verdict
    assert words in pair.sentence
    assert "-" not in re.sub(r"one-sided|sign-flip", "", pair.sentence)
    if verdict == "undecided":
        expected = (
            f"About {pair.more_seeds} more seeds would decide"
            if pair.more_seeds
            else "Even 200 seeds would hardly decide"
        )
        assert expected in pair.sentence
    else:
        assert pair.more_seeds is None


def test_one_seed_says_what_it_assumes(tmp_path):
    correct = {"pytorch-seed42": 9900, "tensorflow-seed42": 9901}
    pair = only_pair(summary(tmp_path, correct=correct, test_count=10_000))
    left = make_logits("pytorch", 42, 9900, 10_000).argmax(axis=1)
    right = make_logits("tensorflow", 42, 9901, 10_000).argmax(axis=1)
    labels = make_labels(10_000)
    one_right = np.sum((left == labels) != (right == labels))
    sd = max(0.0008, np.sqrt(one_right) / 10_000)
    assert f"varies by {100 * sd:.2f} points (standard deviation)" in pair.sentence
    assert "which is an assumption" in pair.sentence
    assert pair.more_seeds == more_seeds([0.0001], 0.001, sd)


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.0012, "+0.12"), (-0.0012, "−0.12"), (0.00004, "0.00"), (-0.00004, "0.00")],
)
def test_points(fraction, text):
    assert points(fraction) == text


def test_a_small_margin_gets_its_decimals(tmp_path):
    pair = only_pair(summary(tmp_path, BOTH, range(5), margin=0.0002))
    assert "±0.020 points" in pair.sentence


# Frameworks that are missing, failed or incomplete


def test_a_missing_framework(tmp_path):
    why = "TensorFlow is not installed. Type: pip install 'paripassu[tensorflow]'"
    found = summary(tmp_path, unavailable={"tensorflow": why})
    missing = found.frameworks["tensorflow"]
    assert (missing.status, missing.message) == ("missing", why)
    assert (missing.runs, missing.test_accuracy, missing.epoch_seconds) == (
        [],
        None,
        None,
    )
    assert found.frameworks["pytorch"].status == "ok"
    pair = only_pair(found)
    assert (pair.seeds, pair.difference, pair.churn) == ([], None, None)
    assert (pair.verdict, pair.disagreements) == ("undecided", [])
    assert pair.sentence.startswith(
        "No seed was finished in both PyTorch and TensorFlow"
    )
    assert found.warnings == []


def test_a_failed_framework(tmp_path):
    failures = {"tensorflow-seed42": "exit code 1: Illegal instruction"}
    found = summary(tmp_path, failures=failures)
    failed = found.frameworks["tensorflow"]
    assert failed.status == "failed"
    assert "exit code 1: Illegal instruction" in failed.message
    assert "paripassu compare --quick" in failed.message
    assert any("tensorflow-seed42" in text for text in found.warnings)


def test_an_incomplete_framework_is_judged_by_what_it_finished(tmp_path):
    found = summary(
        tmp_path,
        BOTH,
        (40, 41, 42, 43),
        failures={"pytorch-seed41": "exit code 9"},
        unfinished=["tensorflow-seed42"],
        absent=["tensorflow-seed43"],
    )
    torch, tensorflow = found.frameworks["pytorch"], found.frameworks["tensorflow"]
    assert (torch.status, torch.seeds) == ("ok", [40, 42, 43])
    assert "3 of 4 runs finished" in torch.message
    assert "pytorch-seed41: failed: exit code 9" in torch.message
    assert (tensorflow.status, tensorflow.seeds) == ("ok", [40, 41])
    assert "tensorflow-seed42: stopped after 2 epochs" in tensorflow.message
    assert "tensorflow-seed43: not started" in tensorflow.message
    assert only_pair(found).seeds == [40]
    assert only_pair(found).mcnemar_p is not None
    (warning,) = found.warnings
    for name in ("pytorch-seed41", "tensorflow-seed42", "tensorflow-seed43"):
        assert name in warning


def test_a_failure_that_was_made_good_is_forgotten(tmp_path):
    make_comparison(tmp_path, failures={"pytorch-seed42": "killed"})
    make_run(tmp_path / "runs/pytorch-seed42", "pytorch", 42)
    found = compared.summarise(tmp_path)
    assert found.frameworks["pytorch"].message is None
    assert found.warnings == []


def test_nothing_ran_at_all(tmp_path):
    found = summary(tmp_path, absent=["pytorch-seed42", "tensorflow-seed42"])
    assert (found.dataset, found.environment) == (None, None)
    assert {x.status for x in found.frameworks.values()} == {"failed"}
    compared.save(tmp_path, found)


# Warnings


def test_a_quiet_comparison_has_no_warning(tmp_path):
    assert summary(tmp_path, BOTH, (40, 41)).warnings == []


OTHER = "tensorflow-seed41"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"other_load": 0.11}, "more than 10% of the machine"),
        ({"sessions": 2}, "Interrupted and resumed"),
        (
            {"environment": make_environment("tensorflow", threads=1)},
            "numbers of threads",
        ),
        ({"environment": make_environment("tensorflow", device="H100")}, "devices"),
        ({"environment": make_environment("tensorflow", cores=4)}, "numbers of cores"),
        (
            {"environment": make_environment("tensorflow", version="2.20.0")},
            "versions of tensorflow (2.21.0: tensorflow-seed40; 2.20.0: tensorflow-",
        ),
        (
            {"dataset": make_dataset(warnings=["Two classes are rare."])},
            "classes are rare",
        ),
    ],
)
def test_one_odd_run_gets_one_warning_with_its_name(tmp_path, changes, words):
    found = summary(tmp_path, BOTH, (40, 41), runs={OTHER: changes})
    (warning,) = found.warnings
    assert words in warning
    assert OTHER in warning or "dataset" in changes


def test_other_load_is_told_with_its_median(tmp_path):
    make_comparison(tmp_path)
    path = tmp_path / "runs/pytorch-seed42/run.json"
    record = read_json(path)
    for epoch, load in zip(record["epochs"], (0.02, 0.04, 0.5), strict=True):
        epoch["other_load"] = load
    write_json(path, record)
    (warning,) = compared.summarise(tmp_path).warnings
    assert "pytorch-seed42 (median epoch 4%, worst 50%)" in warning


def test_other_load_of_a_few_epochs_leaves_the_median(tmp_path):
    make_comparison(tmp_path)
    path = tmp_path / "runs/pytorch-seed42/run.json"
    record = read_json(path)
    epochs = record["epochs"]
    for load, trust in ((0.02, "though a run's median epoch is"), (0.5, "no verdict")):
        epochs[0]["other_load"], epochs[1]["other_load"] = 0.5, load
        write_json(path, record)
        (warning,) = compared.summarise(tmp_path).warnings
        assert trust in warning


def test_our_own_work_before_the_first_run_is_no_load_of_others(tmp_path):
    found = summary(tmp_path, BOTH, (40, 41), load_average=1.9)
    assert found.warnings == []


def test_warnings_of_the_plan_are_passed_on(tmp_path):
    make_comparison(tmp_path)
    plan = read_json(tmp_path / "plan.json")
    write_json(tmp_path / "plan.json", plan | {"warnings": ["No decay."]})
    assert compared.summarise(tmp_path).warnings == ["No decay."]


# Damage


def refused(folder):
    with pytest.raises(UserError) as caught:
        compared.summarise(folder)
    return str(caught.value)


def test_another_dataset_is_refused(tmp_path):
    changed = make_dataset(sha256={**SHA256, "t10k-labels-idx1-ubyte": "1" * 64})
    make_comparison(tmp_path, runs={"tensorflow-seed42": {"dataset": changed}})
    assert "tensorflow-seed42 was trained or tested on other images" in refused(
        tmp_path
    )


def test_other_labels_are_refused(tmp_path):
    make_comparison(tmp_path)
    path = tmp_path / "runs/tensorflow-seed42/predictions.safetensors"
    tensors = read_tensors(path)[0]
    answers = tensors["logits"].argmax(axis=1)
    wrong = np.flatnonzero(answers != tensors["labels"])[0]
    tensors["labels"][wrong] = (
        answers[wrong] + 1 + (tensors["labels"][wrong] == (answers[wrong] + 1) % 10)
    ) % 10
    write_tensors(path, tensors)
    assert "other images" in refused(tmp_path)


def test_another_recipe_is_refused(tmp_path):
    make_comparison(tmp_path)
    path = tmp_path / "runs/tensorflow-seed42/run.json"
    write_json(path, read_json(path) | {"recipe_hash": "0"})
    assert "tensorflow-seed42 followed another recipe" in refused(tmp_path)


def without_logits(tensors):
    del tensors["logits"]


def shorter(tensors):
    tensors["logits"] = tensors["logits"][:-1]


def flat(tensors):
    tensors["logits"] = tensors["logits"].reshape(-1)


def empty(tensors):
    tensors["logits"] = tensors["logits"][:, :0]


def not_a_number(tensors):
    tensors["logits"][3, 4] = np.nan


def impossible_label(tensors):
    tensors["labels"][0] = 10


def of_another_run(tensors):
    rows = np.arange(500)
    tensors["logits"][rows, tensors["labels"]] += 100


@pytest.mark.parametrize(
    "damage",
    [
        without_logits,
        shorter,
        flat,
        empty,
        not_a_number,
        impossible_label,
        of_another_run,
    ],
)
def test_damaged_predictions_are_named(tmp_path, damage):
    make_comparison(tmp_path)
    path = tmp_path / "runs/tensorflow-seed42/predictions.safetensors"
    tensors = read_tensors(path)[0]
    damage(tensors)
    write_tensors(path, tensors)
    assert f"{path} is damaged" in without_run(tmp_path, "tensorflow-seed42")


def without_run(folder, name):
    """The warning about the one damaged run; the others are judged without it."""
    found = compared.summarise(folder)
    framework, other = sorted(found.frameworks, key=lambda x: not name.startswith(x))
    assert found.frameworks[framework].runs == []
    assert found.frameworks[framework].status == "failed"
    assert len(found.frameworks[other].runs) == 1
    assert only_pair(found).seeds == []
    (warning,) = found.warnings
    assert f"{name}: {warning}" in found.frameworks[framework].message
    assert "0 of 1 runs finished and can be read" in found.frameworks[framework].message
    again = f"Delete {folder / 'runs' / name} and type the command again"
    assert warning.count(again) == warning.count("Delete") == 1
    compared.save(folder, found)
    return warning


@pytest.mark.parametrize("left", [0, 100, -40])
def test_truncated_predictions_are_named(tmp_path, left):
    make_comparison(tmp_path)
    path = tmp_path / "runs/tensorflow-seed42/predictions.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    assert f"{path} cannot be read: " in without_run(tmp_path, "tensorflow-seed42")


def test_missing_predictions_are_named(tmp_path):
    make_comparison(tmp_path)
    path = tmp_path / "runs/tensorflow-seed42/predictions.safetensors"
    path.unlink()
    warning = without_run(tmp_path, "tensorflow-seed42")
    assert f"{path} cannot be read: there is no such file" in warning


DAMAGED_JSON = ["", "{}", "[1]", '{"kind": 3}', "\udc80"]


def damaged(path, content):
    path.write_bytes(content.encode(errors="surrogateescape"))
    return path


@pytest.mark.parametrize("content", DAMAGED_JSON)
def test_a_damaged_plan_is_refused(tmp_path, content):
    path = damaged(make_comparison(tmp_path) / "plan.json", content)
    message = refused(tmp_path)
    assert str(path) in message
    assert "Delete it and run the comparison again" in message


@pytest.mark.parametrize("content", DAMAGED_JSON)
def test_a_damaged_proof_is_left_out(tmp_path, content):
    path = damaged(
        make_comparison(tmp_path, proof=make_proof()) / "proof.json", content
    )
    found = compared.summarise(tmp_path)
    assert found.proof is None
    assert only_pair(found).seeds == [42]
    (warning,) = found.warnings
    assert warning.startswith(f"The proof is left out. {path} ")
    assert warning.count("Delete it and run the comparison again") == 1


@pytest.mark.parametrize("content", DAMAGED_JSON)
def test_a_damaged_record_is_left_out(tmp_path, content):
    path = make_comparison(tmp_path) / "runs/pytorch-seed42/run.json"
    damaged(path, content)
    assert str(path) in without_run(tmp_path, "pytorch-seed42")


def test_one_damaged_run_leaves_the_other_seeds(tmp_path):
    make_comparison(tmp_path, BOTH, (40, 41, 42), unfinished=["pytorch-seed40"])
    damaged(tmp_path / "runs/pytorch-seed41/run.json", "{")
    found = compared.summarise(tmp_path)
    assert only_pair(found).seeds == [42]
    damage, unfinished = found.warnings
    assert "pytorch-seed41" in damage
    assert "pytorch-seed41" not in unfinished
    assert "pytorch-seed40" in unfinished


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"result": None}, "has no result"),
        ({"framework": "tensorflow"}, "expected pytorch with seed 42, got tensorflow"),
    ],
)
def test_a_record_that_contradicts_itself_is_left_out(tmp_path, change, words):
    make_comparison(tmp_path)
    path = tmp_path / "runs/pytorch-seed42/run.json"
    write_json(path, read_json(path) | change)
    warning = without_run(tmp_path, "pytorch-seed42")
    assert words in warning
    assert str(path) in warning


def test_an_order_of_unknown_runs_is_refused(tmp_path):
    make_comparison(tmp_path)
    plan = read_json(tmp_path / "plan.json")
    write_json(tmp_path / "plan.json", plan | {"order": ["jax-seed42"]})
    message = refused(tmp_path)
    assert "jax-seed42" in message
    assert str(tmp_path / "plan.json") in message


def test_no_comparison_folder_says_what_to_type(tmp_path):
    assert "paripassu compare" in refused(tmp_path)


# Files


def test_saved_and_loaded_again_without_not_a_number(tmp_path):
    found = summary(tmp_path, BOTH, (40, 41), proof=make_proof(holds=False))
    compared.save(tmp_path, found)
    assert compared.load(tmp_path) == found

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "comparison.json").read_text()
    json.loads(text, parse_constant=refuse)
    (tmp_path / "comparison.json").write_text(text.replace('"ok"', '"fine"'))
    with pytest.raises(UserError, match=r"comparison\.json is damaged"):
        compared.load(tmp_path)


def test_the_same_folder_gives_the_same_comparison_and_is_left_alone(tmp_path):
    make_comparison(tmp_path, BOTH, (40, 41, 42, 43, 44))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    time = "2026-11-20T12:00:00+00:00"
    first = compared.summarise(tmp_path, created=time)
    assert compared.summarise(tmp_path, created=time) == first
    assert first.created == time
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.*")}


def test_the_schema_document_is_fresh():
    kept = (REPOSITORY / "docs/comparison.schema.json").read_text()
    assert kept == document(), (
        "Type: python -m paripassu.analysis.schema > docs/comparison.schema.json"
    )


def run_python(*arguments):
    process = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True
    )
    return process.stdout


def test_the_schema_module_prints_the_document():
    assert run_python("-m", "paripassu.analysis.schema") == document()


def test_importing_loads_nothing_heavy():
    heavy = {"scipy", "matplotlib", "torch", "tensorflow"}
    program = "import sys, paripassu.analysis.comparison; print(*sys.modules)"
    assert not heavy & set(run_python("-c", program).split())
