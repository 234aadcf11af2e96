"""Feed what reads files and requests with damaged ones, a million of them.

    python benchmarks/fuzz.py --inputs 1000000

Each reader has valid samples. An input is one of them, changed at random: bytes and
bits, parts cut out, doubled, moved or taken from another sample, numbers made extreme,
the end missing; in texts, words of the format exchanged. Right is what is read, or
refused with a `UserError`. All else is a fault: another exception, a process that dies,
more than 10 s or 3 GiB for an input, or a trap that was sprung: samples hold code that
makes a folder.

Input `n` of a reader is the same on every machine: `--reader idx --only 1234` feeds it
again, and shows what it raises. The record, `results/reliability/fuzz.json`, grows by
parts; a campaign that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import os
import pickle
import random
import re
import resource
import shlex
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_tensors

from paripassu.conversion import onnx_file
from paripassu.core import files, layout, limits, machine, recipe, record
from paripassu.core.datasets import idx, npz
from paripassu.core.digits import read_picture, to_digit
from paripassu.core.errors import UserError
from paripassu.frameworks import registry
from paripassu.port_check.check import read_map
from paripassu.port_check.targets import read_inputs
from paripassu.serve.questions import RequestError, from_json_body, from_png_body
from paripassu.sides.recording import Recording

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "results" / "reliability" / "fuzz.json"
SECONDS = 10  # of the processor, for one input
WAITING = 300  # seconds in all
MEMORY = 3 * 2**30  # bytes of address space, beyond what the process began with
TRAP = "trap"  # the folder that executed code makes
PART = 20_000  # inputs that one process gets
TEXT = re.compile(rb'"[^"\n]*"|[\w.+-]+|\s+|.', re.DOTALL)
WORDS = [
    *(b"1e999", b"-1", b"0", b"nan", b"inf", b"NaN", b"-Infinity", b"1e-400", b"0x1f"),
    *(b"9" * 400, b"18446744073709551616", b'""', b"[]", b"{}", b"null", b"true"),
    *(b'"\\u0000"', b'"\\ud800"', b"\xff\xfe", b"\x00", b"2024-01-01", b"[" * 3000),
    *(b'{"a":' * 3000, b"'", b'"', b"=", b",", b"\n", b'"' + b"a" * 70_000 + b'"'),
]
NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1]


# What is read


@dataclass(frozen=True)
class Reader:
    """What reads files or bodies of one kind.

    Attributes:
        read: is given a file, or for a body its bytes.
        samples: makes valid ones; is given a folder and the trap.
        share: of all inputs.
        suffix: of the file; "" for a body.
        text: whether words are exchanged, too.
    """

    read: Callable[[Any], object]
    samples: Callable[[Path, str], list[bytes]]
    share: float
    suffix: str = ""
    text: bool = False


class Trap:
    """Unpickled by a reader that executes what it reads, it makes a folder."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def saved(write: Callable[[Any], object]) -> bytes:
    """What something writes into a file that it is given."""
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def images(count: int) -> Any:
    """Images, uint8 `(count, 28, 28)`."""
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)


def of_idx(_folder: Path, _trap: str) -> list[bytes]:
    plain = struct.pack(">4I", 0x803, 3, 28, 28) + images(3).tobytes()
    return [plain, gzip.compress(plain), gzip.compress(plain[:500])]


def read_idx(path: Path) -> None:
    """By either name: the bytes tell whether it is a gzip."""
    packed = path.with_suffix(".gz")
    os.replace(path, packed)
    with contextlib.suppress(UserError):
        idx.read(packed, "train_images")
    os.replace(packed, path)
    idx.read(path, "train_images")


def of_npz(_folder: Path, trap: str) -> list[bytes]:
    arrays = {
        **{"x_train": images(3), "y_train": np.arange(3, dtype=np.uint8)},
        **{"x_test": images(2), "y_test": np.arange(2, dtype=np.uint8)},
    }
    objects = np.array([Trap(trap)] * 3, object)
    return [
        saved(lambda x: np.savez(x, **arrays)),
        saved(lambda x: np.savez_compressed(x, **arrays)),
        saved(lambda x: np.savez(x, **arrays | {"y_train": objects})),
        saved(lambda x: np.savez(x, input=np.ones((2, 3)), ids=np.arange(4))),
    ]


def of_recipes(_folder: Path, _trap: str) -> list[bytes]:
    return [recipe.load(x).to_toml().encode() for x in recipe.built_in()]


def read_recipe(body: bytes) -> None:
    """The text of a recipe."""
    recipe.parse(body.decode("utf-8", "replace"))


def of_maps(_folder: Path, _trap: str) -> list[bytes]:
    return [
        b'[blocks]\n"a.conv1" = "conv2d_3"\n"qkv" = ["q", "k", "v"]\n'
        b'"kv[0:64]" = "k"\n"conv1 & bn1" = "conv1"\n"stem(x * 0.01 + -1)" = "stem"\n'
    ]


def of_records(_folder: Path, _trap: str) -> list[bytes]:
    found = sorted((ROOT / "results").glob("**/run.json"))[:2]
    return [x.read_bytes()[:60_000] for x in found] + [small_record(found[0])]


def small_record(path: Path) -> bytes:
    """A whole record, with two epochs."""
    content = json.loads(path.read_text())
    content["epochs"] = content["epochs"][:2]
    return json.dumps(content).encode()


def read_run(path: Path) -> None:
    """A run's folder."""
    os.replace(path, path.with_name(record.RUN_FILE))
    record.load_record(path.parent)


def network() -> tuple[recipe.Recipe, dict[str, Any]]:
    """The recipe of the smallest network, and weights."""
    known = recipe.load("keras-example")
    draw = np.random.default_rng(0)
    weights = {
        x.name: draw.standard_normal(x.shape).astype(np.float32)
        for x in known.architecture.weights
    }
    return known, weights


def of_tensors(_folder: Path, _trap: str) -> list[bytes]:
    known, weights = network()
    notes = {"recipe": known.to_toml(), "mean": "0.1", "std": "0.3"}
    few: dict[str, Any] = {"a": np.ones((2, 3), np.float32), "b": np.arange(3)}
    return [save_tensors(weights, notes), save_tensors(few)]


def read_weights(path: Path) -> None:
    """A file of weights, by NumPy alone."""
    arrays, _notes = files.read_tensors(path)
    layout.check_weights(network()[0].architecture, arrays)


def of_framework(name: str) -> Callable[[Path, str], list[bytes]]:
    """What a framework writes of a network, and what is not to be executed."""

    def samples(folder: Path, trap: str) -> list[bytes]:
        path = folder / f"sample{registry.find(name).suffixes[0]}"
        registry.find(name).files.write(*network(), path, {"mean": "0.1"})
        found = [path.read_bytes()]
        pickled = pickle.dumps({"conv1.weight": Trap(trap)}, 2)
        if zipfile.is_zipfile(path):
            found.append(saved(lambda x: with_pickle(path, x, pickled)))
        return [*found, pickled]

    return samples


def with_pickle(path: Path, stream: Any, pickled: bytes) -> None:
    """The same archive, its pickles exchanged for one of ours."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            own = pickled if name.endswith(".pkl") else old.read(name)
            new.writestr(name, own)


def by_framework(name: str) -> Callable[[Path], object]:
    """Read a framework's own file, as a worker does."""

    def read(path: Path) -> None:
        with limits.reading(path):
            registry.find(name).files.read(path)

    return read


def of_onnx(folder: Path, _trap: str) -> list[bytes]:
    path = folder / "sample.onnx"
    known, weights = network()
    onnx_file.write(known, weights, path, {"mean": "0.1"})
    return [path.read_bytes()]


def of_recordings(_folder: Path, _trap: str) -> list[bytes]:
    """A description and arrays, one after the other."""
    arrays = {
        "inputs/input": np.ones((2, 4), np.float32),
        "float32/outputs/output": np.ones((2, 3), np.float32),
    }
    text = {
        **{"format": "paripassu recording", "version": 1, "source": "a program"},
        "inputs": ["input"],
        "passes": {"float32": {"outputs": ["output"]}},
    }
    return [json.dumps(text).encode() + SPLIT + save_tensors(arrays)]


SPLIT = b"\n\n\n\n"


def read_recording(body: bytes) -> None:
    """A folder with both, opened and read through."""
    description, _, arrays = body.partition(SPLIT)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        (Path(folder) / "recording.json").write_bytes(description)
        (Path(folder) / "arrays.safetensors").write_bytes(arrays)
        found = Recording(Path(folder))
        for name in found.index:
            found.read(name)


def of_pictures(_folder: Path, _trap: str) -> list[bytes]:
    from PIL import Image

    picture = Image.fromarray(255 - np.kron(images(1)[0] // 200 * 255, np.ones((2, 2))))
    picture = picture.convert("L")
    kinds = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
    found = [saved(lambda x, k=k: picture.save(x, k)) for k in kinds]  # type: ignore[misc]
    clear = picture.convert("RGBA")
    clear.putalpha(picture)
    return [*found, saved(lambda x: clear.save(x, "PNG"))]


def read_digit(body: bytes) -> None:
    """A picture, and what the networks see of it."""
    to_digit(read_picture(body))


def of_questions(_folder: Path, _trap: str) -> list[bytes]:
    one = images(1)[0].tolist()
    return [
        json.dumps({"image": one}).encode(),
        json.dumps({"images": [one, one]}).encode(),
        b'{"image": [[0, 1.5, 255]]}',
    ]


def of_png(folder: Path, trap: str) -> list[bytes]:
    return [x for x in of_pictures(folder, trap) if x[1:4] == b"PNG"]


def native(name: str, share: float) -> Reader:
    """A framework's own files."""
    suffix = registry.find(name).suffixes[0]
    return Reader(by_framework(name), of_framework(name), share, suffix)


READERS = {
    "recipe": Reader(read_recipe, of_recipes, 0.15, text=True),
    "map": Reader(read_map, of_maps, 0.08, ".toml", text=True),
    "run.json": Reader(read_run, of_records, 0.07, ".json", text=True),
    "idx": Reader(read_idx, of_idx, 0.15, ".idx"),
    "npz": Reader(npz.read, of_npz, 0.08, ".npz"),
    "inputs": Reader(read_inputs, of_npz, 0.08, ".npz"),
    "safetensors": Reader(read_weights, of_tensors, 0.08, ".safetensors"),
    "recording": Reader(read_recording, of_recordings, 0.05, text=True),
    "onnx": Reader(onnx_file.read, of_onnx, 0.03, ".onnx"),
    "picture": Reader(read_digit, of_pictures, 0.04),
    "PNG body": Reader(from_png_body, of_png, 0.02),
    "JSON body": Reader(from_json_body, of_questions, 0.1, text=True),
    **{name: native(name, 0.07 / 3) for name in registry.FRAMEWORKS},
}


# How it is damaged


def input_of(name: str, number: int, samples: list[bytes], *, text: bool) -> bytes:
    """One input of a reader: the same on every machine."""
    return damaged(random.Random(f"{name} {number}"), samples, text=text)


def damaged(draw: random.Random, samples: list[bytes], *, text: bool) -> bytes:
    """A sample, changed in one to sixteen places."""
    content = draw.choice(samples)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        change = _exchange_words if text and draw.random() < 0.5 else _change_bytes
        content = change(draw, content, samples)
    return content


def _exchange_words(
    draw: random.Random, content: bytes, _samples: list[bytes]
) -> bytes:
    words = TEXT.findall(content)
    if not words:
        return draw.choice(WORDS)
    at = draw.randrange(len(words))
    match draw.randrange(4):
        case 0:
            words[at] = draw.choice(WORDS)
        case 1:
            words[at] = draw.choice(words)
        case 2:
            words.insert(at, draw.choice(WORDS))
        case 3:
            del words[at : at + draw.randrange(1, 9)]
    return b"".join(words)


def _change_bytes(draw: random.Random, content: bytes, samples: list[bytes]) -> bytes:
    at, length = _place(draw, len(content)), draw.choice((1, 2, 4, 8, 64, 1024))
    before, part, after = (
        content[:at],
        content[at : at + length],
        content[at + length :],
    )
    match draw.randrange(8):
        case 0 if part:
            bit = bytes([part[0] ^ (1 << draw.randrange(8))])
            return before + bit + part[1:] + after
        case 1:
            return before + draw.randbytes(len(part)) + after
        case 2:
            return before + after
        case 3:
            return before + part * draw.choice((2, 3, 50)) + after
        case 4:
            number, size = draw.choice(NUMBERS), draw.choice((1, 2, 4, 8))
            order = draw.choice((1, -1))
            raw: bytes = (number % 256**size).to_bytes(size, "big")[::order]
            return before + raw + content[at + size :]
        case 5:
            other = draw.choice(samples)
            start = _place(draw, len(other))
            return before + other[start : start + length] + after
        case 6:
            to = _place(draw, len(after))
            return before + after[:to] + part + after[to:]
    return content[:at]


def _place(draw: random.Random, size: int) -> int:
    """Anywhere; half of the time near the beginning or the end, where headers are."""
    if size > 1024 and draw.random() < 0.5:
        return draw.choice((draw.randrange(256), size - 1 - draw.randrange(256)))
    return draw.randrange(size + 1)


# One process


def work(name: str, begin: int, count: int, place: Path) -> None:
    """Feed inputs to a reader; the number of each is in `place` before it is read."""
    reader, noted = READERS[name], os.open(place, os.O_WRONLY)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        folder = Path(made)
        samples = reader.samples(folder, str(folder / TRAP))
        give(reader, folder, samples[0])  # imports what it needs
        bound = memory()[0] + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
        for ends in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(ends, signal.SIG_DFL)  # ends C code, too

        def next_one(number: int) -> None:
            os.pwrite(noted, b"%20d" % number, 0)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of the processor
            signal.alarm(WAITING)

        found = feed(
            name, reader, folder, samples, range(begin, begin + count), next_one
        )
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    print(json.dumps({**found, "peak": memory()[1]}))


def feed(
    name: str,
    reader: Reader,
    folder: Path,
    samples: list[bytes],
    numbers: Iterable[int],
    begins: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """How many damaged samples were read and refused, and the faults.

    Args:
        name: of the reader.
        reader: that is given them.
        folder: where files and the trap are.
        samples: valid ones.
        numbers: of the inputs.
        begins: is told of each.
    """
    read, refused, faults = 0, 0, []
    for number in numbers:
        content = input_of(name, number, samples, text=reader.text)
        begins(number)
        try:
            give(reader, folder, content)
            read += 1
        except (UserError, RequestError):
            refused += 1
        except Exception as error:
            words = traceback.format_exception_only(error)[-1].strip()
            at = traceback.extract_tb(error.__traceback__)[-1]
            faults.append([number, f"{words[:200]} ({at.name}, line {at.lineno})"])
        if (folder / TRAP).exists():
            faults.append([number, "the trap was sprung: something was executed"])
            (folder / TRAP).rmdir()
    return {"read": read, "refused": refused, "faults": faults}


def give(reader: Reader, folder: Path, content: bytes) -> None:
    """Have a reader read this."""
    if not reader.suffix:
        reader.read(content)
        return
    path = folder / f"input{reader.suffix}"
    path.write_bytes(content)
    reader.read(path)


def memory() -> tuple[int, int]:
    """Bytes of address space now, and the largest resident set ever."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize(), peak


# The campaign


def part(name: str, begin: int, count: int) -> dict[str, Any]:
    """What came of some inputs: processes that die are faults, and it goes on."""
    total: dict[str, Any] = {"read": 0, "refused": 0, "faults": [], "peak": 0}
    end = begin + count
    while begin < end:
        with tempfile.NamedTemporaryFile() as place:
            given = ["--begin", begin, "--count", end - begin, "--place", place.name]
            done = subprocess.run(
                [
                    *(sys.executable, __file__, "--reader", name),
                    *map(str, given),
                ],
                capture_output=True,
                text=True,
                check=False,
                env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            )
            at = int(place.read() or -1)
        if done.returncode == 0:
            found = json.loads(done.stdout.splitlines()[-1])
            for key in ("read", "refused", "faults"):
                total[key] += found[key]
            total["peak"] = max(total["peak"], found["peak"])
            return total
        if at < begin:
            raise SystemExit(f"{name} did not begin: {done.stderr[-2000:]}")
        late = done.returncode in (-signal.SIGALRM, -signal.SIGPROF)
        words = "took too long" if late else "died"
        total["faults"].append([at, f"{words} ({done.returncode})"])
        # Those before it are fed again, and are as they were.
        found = part(name, begin, at - begin)
        for key in ("read", "refused", "faults"):
            total[key] += found[key]
        begin = at + 1
    return total


def campaign(inputs: int) -> dict[str, Any]:
    """All readers, part by part; what is in the record is not fed again."""
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    readers = json.loads(RECORD.read_text())["readers"] if RECORD.exists() else {}
    parts = [
        (name, begin, min(PART, round(inputs * reader.share) - begin))
        for name, reader in READERS.items()
        for begin in range(0, round(inputs * reader.share), PART)
    ]
    for number, (name, begin, count) in enumerate(sorted(parts, key=lambda x: x[1])):
        row = readers.setdefault(name, {"inputs": 0, "seconds": 0.0, "faults": []})
        if row["inputs"] >= begin + count:
            continue
        print(f"{number + 1} of {len(parts)}: {name}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        found = part(name, row["inputs"], begin + count - row["inputs"])
        row["seconds"] = round(row["seconds"] + time.perf_counter() - start, 1)
        row["inputs"] = begin + count
        for key in ("read", "refused", "faults"):
            row[key] = row.get(key, type(found[key])()) + found[key]
        row["peak_mib"] = max(row.get("peak_mib", 0), found["peak"] >> 20)
        write(readers)
    return readers


def write(readers: dict[str, Any]) -> None:
    """The record, whole."""
    content = {
        "command": shlex.join(["python", "benchmarks/fuzz.py", *sys.argv[1:]]),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": machine.processor(),
        "python": sys.version.split()[0],
        "inputs": sum(x["inputs"] for x in readers.values()),
        "faults": sum(len(x["faults"]) for x in readers.values()),
        "readers": readers,
    }
    files.write_json(RECORD, content)


def main() -> int:
    """Feed, and say what was found; exit code 1 for faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--reader", choices=READERS)
    parser.add_argument("--only", type=int, help="one input, and what it raises")
    parser.add_argument("--begin", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    typed = parser.parse_args()
    if typed.place:
        work(typed.reader, typed.begin, typed.count, typed.place)
        return 0
    if typed.only is not None:
        return show(typed.reader, typed.only)
    if typed.reader:
        found = part(typed.reader, 0, typed.inputs)
        print(json.dumps(found, indent=1))
        return bool(found["faults"])
    readers = campaign(typed.inputs)
    faults = [(name, *x) for name, row in readers.items() for x in row["faults"]]
    for fault in faults:
        print(*fault)
    print(
        f"{sum(x['inputs'] for x in readers.values()):,} inputs, {len(faults)} faults"
    )
    return bool(faults)


def show(name: str, number: int) -> int:
    """Feed one input again, with the traceback of what it raises."""
    reader = READERS[name]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        samples = reader.samples(Path(place), str(Path(place) / TRAP))
        content = input_of(name, number, samples, text=reader.text)
        print(content[:500])
        try:
            give(reader, Path(place), content)
        except (UserError, RequestError) as error:
            print(f"refused: {error}")
            return 0
        print("read")
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
