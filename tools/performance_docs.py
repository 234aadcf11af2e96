"""The tables of docs/performance.md, from the records in results/."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from marks import filled
from recipe_docs import markdown_table

from paripassu.analysis.benchmark import EPOCH, Bench, Race
from paripassu.analysis.comparison import load
from paripassu.analysis.schema import Spread
from paripassu.analysis.statistics import equivalence, mean_estimate
from paripassu.analysis.text import counted, display_name, mebibytes
from paripassu.core.record import load_record

MARGIN = 0.001  # of accuracy: a tenth of a point


# Rows of a benchmark's table: a label, and the cell of a framework

Row = tuple[str, Callable[[Bench, str], str]]
ROWS: list[Row] = [
    ("notebook's style, one epoch", lambda b, x: _epoch(b, x, "notebook")),
    ("**lesson, one epoch**", lambda b, x: _epoch(b, x, "lesson")),
    ("lesson / notebook's style", lambda b, x: _ratio(b.beside_notebook(x))),
    (
        "images per second",
        lambda b, x: f"{b.images_per_second(x, 'lesson').median:,.0f}",
    ),
    ("of the ceiling", lambda b, x: _share(b.of_ceiling(x, "lesson"))),
    (
        "the framework's own matrix product, of the ceiling",
        lambda b, x: _share(b.own_product(x)),
    ),
    ("kernels alone, of the ceiling", lambda b, x: _share(b.of_ceiling(x, "kernels"))),
    ("lesson, of its kernels alone", lambda b, x: _share(b.of_kernels(x))),
    ("overhead of a recorded run", lambda b, x: _share(b.harness(x), 1)),
    ("peak memory", lambda b, x: _mebibytes(b.memory(x, "lesson"))),
    ("of the notebook's style", lambda b, x: _mebibytes(b.memory(x, "notebook"))),
]


def page(path: Path, results: Path) -> str:
    """The page with every table between its markers made anew."""
    float32 = _bench(results / "bench" / "float32")
    bfloat16 = _bench(results / "bench" / "bfloat16")
    text = path.read_text(encoding="utf-8")
    blocks = {
        "ceiling": _ceiling(float32, bfloat16),
        "changes": _changes(
            json.loads((results / "speedups.json").read_text()),
            json.loads((results / "speedups-bfloat16.json").read_text()),
            {
                x.name: json.loads(x.read_text())
                for x in sorted(results.glob("speedups-*.json"))
            },
        ),
        "bfloat16": _low_precision(
            float32,
            bfloat16,
            results / "bench" / "fast-float32",
            results / "recipes" / "fast",
        ),
        "race": "\n\n".join(
            _race(folder, float32)
            for folder in sorted((results / "bench").glob("race*"))
        ),
        "start": _start(float32),
        "gpu": _gpu(results / "bench"),
    }
    for name, block in blocks.items():
        text = filled(text, name, block)
    return text


def _bench(folder: Path) -> Bench:
    return Bench.model_validate_json((folder / "bench.json").read_text())


def _ceiling(float32: Bench, bfloat16: Bench) -> str:
    table = _table([float32, bfloat16], ROWS)
    return f"{table}\n\n{_of(float32, 'float32')}\n\n{_of(bfloat16, 'bfloat16')}"


def _table(benches: Sequence[Bench], rows: Sequence[Row]) -> str:
    """A column for each framework in each benchmark."""
    both = [(b, x) for b in benches for x in b.frameworks]
    head = [f"{display_name(x)}, {b.precision}" for b, x in both]
    return markdown_table(
        ["", *head], [[label, *(f(*y) for y in both)] for label, f in rows]
    )


def _of(bench: Bench, folder: str) -> str:
    busy = " **The machine was busy: no verdict.**" if bench.busy else ""
    low, high = min(bench.ceilings()) / 1e9, max(bench.ceilings()) / 1e9
    return (
        f"{bench.precision}: ceiling {bench.ceiling / 1e9:,.0f} GFLOP/s ({low:,.0f} to "
        f"{high:,.0f}), {_where(bench)}; {bench.images:,} images in each of "
        f"{len(bench.rounds)} rounds, seconds for {EPOCH:,}.{busy} Record: "
        f"[results/bench/{folder}](../results/bench/{folder}/bench.json), "
        f"`{bench.command}`."
    )


def _where(found: Bench | Race) -> str:
    versions = ", ".join(f"{display_name(k)} {v}" for k, v in found.versions.items())
    machine = f"{found.cores} cores of {_article(found.processor)}"
    return f"{found.threads} threads on {machine}, Python {found.python}, {versions}"


def _article(processor: str) -> str:
    return f"an {processor}" if processor[0] in "AEIOU" else f"a {processor}"


def _changes(
    record: dict[str, Any], low: dict[str, Any], records: dict[str, dict[str, Any]]
) -> str:
    """Tables of the changes; of frameworks that came later, from their own records.

    Args:
        record: in float32.
        low: in bfloat16.
        records: that one and later ones, by the names of their files.
    """
    parts = []
    for name, each in record["said"].items():
        rows = []
        for variant, said in each.items():
            key = f"{name}: {variant}"
            extra = record["ratios"][key]["warm_up_seconds"]
            rows.append(
                [
                    said,
                    *(_change(x, key, variant) for x in (record, low)),
                    f"{extra:.0f} s" if said.startswith("tried") else "",
                ]
            )
        heads = [
            f"{precision}, median and range of {len(x['rounds'])}"
            for precision, x in (("float32", record), ("bfloat16", low))
        ]
        head = f"{display_name(name)} {record['versions'][name]}"
        parts.append(markdown_table([head, *heads, "before the first step"], rows))
    busiest = max(record["busiest"], low["busiest"])
    parts.append(
        f"{record['images']:,} images in each round ({record['images_of_slow']} of "
        "`run_eagerly` and of `jit_compile`), batches of 64; a fresh process each; "
        f"{record['cores']} cores of {_article(record['processor'])}. At most "
        f"{busiest:.1%} of the machine was used by others. Records: "
        f"[results/speedups.json](../results/speedups.json), `{record['command']}`; "
        "[results/speedups-bfloat16.json](../results/speedups-bfloat16.json), "
        f"`{low['command']}`."
    )
    for file, later in records.items():
        parts += _later(file, later, set(record["said"]))
    return "\n\n".join(parts)


def _later(file: str, record: dict[str, Any], known: set[str]) -> list[str]:
    """The tables of frameworks not known yet, and their steps beside the others."""
    parts = []
    for name in (x for x in record["said"] if x not in known):
        rows = [
            [said, _change(record, f"{name}: {variant}", variant)]
            for variant, said in record["said"][name].items()
        ]
        head = f"{display_name(name)} {record['versions'][name]}"
        column = f"{record['precision']}, median and range of {len(record['rounds'])}"
        parts.append(markdown_table([head, column], rows))
        beside = []
        for other in known:
            ratios = [
                x[f"{name}: as it is"]["step_seconds"]
                / x[f"{other}: as it is"]["step_seconds"]
                for x in record["rounds"]
            ]
            found = statistics.median(ratios), min(ratios), max(ratios)
            times = _in_range("{:.2f}", *found)
            beside.append(f"{times} times {display_name(other)}'s")
        parts.append(
            f"In the same rounds a step in {display_name(name)} took "
            f"{' and '.join(sorted(beside))}. {record['images']:,} images in each; at "
            f"most {record['busiest']:.1%} of the machine was used by others. Record: "
            f"[results/{file}](../results/{file}), "
            f"`{record['command']}`."
        )
    return parts


def _change(record: dict[str, Any], key: str, variant: str) -> str:
    """How many times as long a step takes; of what is, how long."""
    found = record["ratios"].get(key)
    if not found:
        return ""
    if variant == "as it is":
        return f"{1000 * found['step_seconds']:.1f} ms"
    return _in_range("{:.2f}", *(found[x] for x in ("median", "low", "high")))


def _low_precision(float32: Bench, bfloat16: Bench, full: Path, low: Path) -> str:
    rows = []
    for name in float32.frameworks:
        seconds = [
            b.seconds(name, "lesson").median / b.images for b in (bfloat16, float32)
        ]
        left, right = _accuracies(low, name), _accuracies(full, name)
        gaps = [left[seed] - right[seed] for seed in sorted(left.keys() & right.keys())]
        found = equivalence(gaps, MARGIN)
        assert found is not None
        mean = sum(gaps) / len(gaps)
        rows.append(
            [
                display_name(name),
                f"{seconds[0] / seconds[1]:.2f}",
                _accuracy(list(left.values())),
                _accuracy(list(right.values())),
                _in_range("{:+.3f}", *(100 * x for x in (mean, found.low, found.high))),
                f"{'yes' if found.p < 0.05 else 'not shown'}, p = {found.p:.2g}",
            ]
        )
    table = markdown_table(
        [
            "",
            "`article`: time of a step, bfloat16 / float32",
            "`fast` in bfloat16, test accuracy (95%)",
            "in float32",
            "paired difference, points (90%)",
            f"equivalent within {100 * MARGIN:.1f} points",
        ],
        rows,
    )
    command = load(full).command
    return (
        f"{table}\n\nTimes: the records above. Accuracy: {len(left)} seeds of "
        "[results/recipes/fast](../results/recipes/fast/comparison.json) and "
        f"{len(right)} of [results/bench/fast-float32]"
        f"(../results/bench/fast-float32/comparison.json), `{command}`."
    )


def _accuracies(folder: Path, name: str) -> dict[int, float]:
    """Seed -> test accuracy of the finished runs."""
    found = load(folder).frameworks[name]
    return {
        seed: result.test_accuracy
        for seed, run in zip(found.seeds, found.runs, strict=True)
        if (result := load_record(folder / run).result)
    }


def _accuracy(values: Sequence[float]) -> str:
    found = mean_estimate(values)
    return f"{found.mean:.2%} ({found.low:.2%} to {found.high:.2%})"


def _race(folder: Path, bench: Bench) -> str:
    race = Race.model_validate_json((folder / "race.json").read_text())
    rows, paces = [], []
    count = len(race.rounds)
    for name in race.frameworks:
        fast, slow = (
            [
                _seconds(race.seconds(name, style)),
                f"{race.mean_accuracy(name, style):.2%}",
                f"{race.reached(name, style)} of {count}",
            ]
            for style in ("recipe", "notebook")
        )
        faster = race.times_faster(name)
        times = f"{faster.median:.0f}"
        if faster.n > 1:
            times += f" ({faster.low:.0f} to {faster.high:.0f})"
        if race.reached(name, "notebook") < count:
            times = f"at least {times}"
        rows.append([display_name(name), *fast, *slow, times])
        runs = race.of(name, "notebook")
        each = [x.seconds / len(x.accuracies) for x in runs]
        epoch = bench.epoch_seconds(name, "notebook").median
        trained = statistics.median(len(x.accuracies) for x in runs)
        at_pace = trained * epoch / race.seconds(name, "recipe").median
        paces.append(
            f"{display_name(name)}'s took {statistics.median(each):.1f} s an epoch, "
            f"{trained:.0f} of them, against {epoch:.1f} s in the first table: at that "
            f"pace the last column would be {at_pace:.0f}"
        )
    table = markdown_table(
        [
            "",
            f"`{race.recipe}`, training",
            "test accuracy",
            f"reached {race.target:.0%}",
            "notebook's style, training",
            "test accuracy at its end",
            f"reached {race.target:.0%}",
            "times faster",
        ],
        rows,
    )
    busy = " **The machine was busy: no verdict.**" if race.busy else ""
    return (
        f"{table}\n\n{counted(count, 'round')}, seeds from 42; {_where(race)}. The "
        "notebook's style stops after the epoch that reaches the accuracy, or after "
        f"{race.most_epochs}. {'; '.join(paces)}."
        f"{busy} Record: [results/bench/{folder.name}]"
        f"(../results/bench/{folder.name}/race.json), `{race.command}`."
    )


def _start(bench: Bench) -> str:
    each = "; ".join(
        f"{display_name(x)} {_seconds(bench.first_step(x))}" for x in bench.frameworks
    )
    return (
        "From the start of the process to the first training step, data read, network "
        f"built and warmed up: {each} (record of float32 above)."
    )


def _gpu(folder: Path) -> str:
    benches = [_bench(folder / f"h200-{x}") for x in ("float32", "bfloat16")]
    (name,) = benches[0].frameworks
    rows = []
    for bench in benches:
        rows.append(
            [
                bench.precision,
                _epoch(bench, name, "notebook"),
                _epoch(bench, name, "lesson"),
                _ratio(bench.beside_notebook(name)),
                f"{bench.ceiling / 1e12:,.0f} TFLOP/s",
                _share(bench.of_ceiling(name, "lesson"), 1),
                _share(bench.of_kernels(name)),
            ]
        )
    table = markdown_table(
        [
            benches[0].device(name),
            "notebook's style, one epoch",
            "lesson",
            "lesson / notebook's style",
            "ceiling",
            "lesson, of the ceiling",
            "of its kernels alone",
        ],
        rows,
    )
    first = benches[0]
    twin = json.loads((folder / "h200-twin.json").read_text())
    worst = max(x["worst"] for x in twin["recipes"].values())
    return (
        f"{table}\n\n{_where(first)}; {first.images:,} images in each of "
        f"{len(first.rounds)} rounds. Records: "
        "[float32](../results/bench/h200-float32/bench.json), "
        "[bfloat16](../results/bench/h200-bfloat16/bench.json), "
        f"`{first.command}`.\n\n"
        "The twin on this GPU, in float64, beside the NumPy reference: "
        f"{', '.join(f'`{x}`' for x in twin['recipes'])}, every activation, gradient, "
        f"step and loss of {twin['steps']} steps, at most {worst:.0e} of an array's "
        "largest value apart ([record](../results/bench/h200-twin.json))."
    )


# Cells


def _epoch(bench: Bench, name: str, style: str) -> str:
    return _seconds(bench.epoch_seconds(name, style))


def _seconds(spread: Spread) -> str:
    middle, low, high = (f"{x:.1f}" for x in (spread.median, spread.low, spread.high))
    return f"{middle} s" if spread.n == 1 else f"{middle} s ({low} to {high})"


def _ratio(spread: Spread) -> str:
    return _in_range("{:.2f}", spread.median, spread.low, spread.high)


def _share(spread: Spread, digits: int = 0) -> str:
    said = f"{{:.{digits}%}}"
    return _in_range(said, spread.median, spread.low, spread.high)


def _in_range(said: str, *values: float) -> str:
    return "{} ({} to {})".format(*map(said.format, values))


def _mebibytes(spread: Spread) -> str:
    return mebibytes(spread.median)
