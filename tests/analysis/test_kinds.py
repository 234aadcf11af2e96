"""Times are compared only between runs on the same kind of machine."""

from __future__ import annotations

from typing import Any

import pytest
from make_records import make_comparison, make_environment

from paripassu.analysis.comparison import save, summarise
from paripassu.analysis.kinds import kind_of, main_kind
from paripassu.analysis.plan import run_name
from paripassu.analysis.report import write_report
from paripassu.core import record

SEEDS = range(42, 48)


@pytest.fixture
def folder(tmp_path):
    make_comparison(tmp_path, seeds=SEEDS)
    return tmp_path


def changed(folder, framework: str, seed: int, **environment: Any) -> None:
    """Have a run be of another machine, where an epoch takes a million seconds."""
    path = folder / "runs" / run_name(framework, seed)
    run = record.load_record(path)
    epochs = [x.model_copy(update={"seconds": 1e6}) for x in run.epochs]
    where = run.environment.model_copy(update=environment)
    update = {"epochs": epochs, "environment": where}
    record.save_record(path, run.model_copy(update=update))


def test_times_of_another_kind_of_machine_are_left_out_and_accuracies_are_not(folder):
    before = summarise(folder)
    changed(folder, "pytorch", 42, processor="AMD EPYC")
    after = summarise(folder)
    one, other = (x.frameworks["pytorch"] for x in (before, after))
    assert other.test_accuracy == one.test_accuracy
    assert after.pairs[0].difference == before.pairs[0].difference
    assert other.runs == one.runs
    assert one.epoch_seconds
    assert other.epoch_seconds
    assert other.epoch_seconds.high == one.epoch_seconds.high < 1e6
    per_run = one.epoch_seconds.n // len(SEEDS)
    assert other.epoch_seconds.n == one.epoch_seconds.n - per_run
    (said,) = (x for x in after.warnings if "figures of time are of the" in x)
    assert "11 runs on one kind of machine" in said
    assert "those of pytorch-seed42 are left out" in said
    assert not any("figures of time" in x for x in before.warnings)


def test_the_report_pairs_no_times_across_kinds(folder):
    changed(folder, "tensorflow", 43, cores=64)
    result = summarise(folder)
    save(folder, result)
    write_report(folder, result)
    page = (folder / "report.html").read_text()
    assert "5 paired seeds" in page  # of time; accuracy has 6
    assert "Over 6 paired seeds" in page


def test_the_main_kind_has_most_frameworks_then_most_runs(folder):
    for seed in SEEDS:
        changed(folder, "pytorch", seed, processor="AMD EPYC")
    changed(folder, "tensorflow", 42, processor="AMD EPYC")
    found = summarise(folder)
    seconds = found.frameworks["tensorflow"].epoch_seconds
    assert seconds
    assert seconds.low == 1e6  # of the one run on the kind that both have


def test_a_kind_is_processor_cores_threads_and_device():
    known = make_environment("pytorch")
    assert kind_of(known) == (
        "Intel Xeon Processor (AVX-512), 2 cores, 2 threads on cpu"
    )
    assert kind_of(known) == kind_of(make_environment("tensorflow"))
    for change in ({"threads": 1}, {"cores": 4}, {"device": "H200"}):
        assert kind_of(make_environment("pytorch", **change)) != kind_of(known)
    assert main_kind([]) is None


def test_a_shared_node_is_said(folder):
    path = folder / "runs" / run_name("pytorch", 42)
    run = record.load_record(path)
    node = record.Node(host="node1", shared=True)
    sessions = [x.model_copy(update={"node": node}) for x in run.sessions]
    record.save_record(path, run.model_copy(update={"sessions": sessions}))
    assert record.load_record(path).sessions[0].node == node
    (said,) = (x for x in summarise(folder).warnings if "had a part of a node" in x)
    assert said.startswith("1 run of 12 had a part of a node")
    assert "--exclusive" in said
