"""Kill commands at random moments: nothing may be lost, half-written or left behind.

    python benchmarks/kills.py --kills 200
    python benchmarks/kills.py --verbs train convert --seconds 400

Each verb that writes has jobs, small ones. A trial types one of them again and again,
each time killed with SIGKILL, the command itself or one of its processes, after a time
that is drawn from 0 to what an undisturbed job takes; every third waits from then on
until a file is being written. Then it is left alone. A fault is

- a file with a final name that is not whole, after a kill;
- a process of a killed command that is still there after some seconds, or a command
  that ends in a traceback where one of its processes was killed;
- another result than that of an undisturbed job, bit for bit;
- a temporary file, or one of a run's that is over, at the end.

Trial `n` of a job draws the same moments on every machine, which is in another state at
them. The record, `results/reliability/kills.json`, grows by trials.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil

from paripassu.conversion import onnx_file
from paripassu.core import datasets, files, machine, record
from paripassu.core.errors import UserError
from paripassu.core.recipe import load
from paripassu.sides.recording import Recording

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers import hide_module  # noqa: E402

RECORD = ROOT / "results" / "reliability" / "kills.json"
COMMAND = (sys.executable, "-P", "-m", "paripassu")
OWN = "PARIPASSU_KILLS"  # in the environment of all processes of a command
PATIENCE = 20  # seconds for the processes of a killed command to end
LIMIT = 300  # for a command that is left alone
KILLS = 3  # in one trial
TEMPORARY = (files.MARK, files.UNLOCKED)
NETWORK = "keras-example"  # small, with dropout and Adam
FEW = ("--threads", "1", "--set", "validation_size=0", "--set", "batch_size=16")
NETS = """
import torch
from torch import nn


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


def other() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))

"""


# What is typed, and what must come of it


@dataclass(frozen=True)
class Job:
    """A command, typed where its inputs are: `given/`, with its results in `out/`.

    Attributes:
        verb: what it tries.
        command: the words; the program too.
        result: of what it has written, what must be the same each time.
        alone: where frameworks other than PyTorch are as if not installed: sooner.
    """

    verb: str
    command: Sequence[str]
    result: Callable[[Path], dict[str, Any]]
    alone: bool = False


def of_runs(out: Path) -> dict[str, Any]:
    """Weights, answers and figures of every run."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob(record.RUN_FILE)):
        folder, run = path.parent, record.load_record(path.parent)
        assert run.result
        name = str(folder.relative_to(out))
        found[name] = {
            "status": run.status,
            "weights": run.weights_sha256,
            "file": _hash_tensors(folder / record.WEIGHTS_FILE),
            "answers": _hash(folder / record.PREDICTIONS_FILE),
            "result": run.result.model_dump(),
            "epochs": [
                [x.epoch, x.training_loss, x.monitor_loss, x.learning_rate]
                for x in run.epochs
            ],
        }
    return found


def of_comparison(out: Path) -> dict[str, Any]:
    """Its runs, its proof, and which frameworks are in it."""
    found = files.read_json(out / "comparison.json")
    status = {name: x["status"] for name, x in found["frameworks"].items()}
    return {**of_runs(out), "status": status, "proof": found["proof"]["holds"]}


def of_ablation(out: Path) -> dict[str, Any]:
    """Its runs, and what they say."""
    found = files.read_json(out / "ablation.json")
    return {**of_runs(out), "effects": found["effects"]}


def of_files(out: Path) -> dict[str, Any]:
    """The tensors of each file that has some, and the names of all."""
    return {
        str(path.relative_to(out)): _hash_tensors(path)
        if path.suffix == ".safetensors"
        else _hash_archive(path)
        if path.suffix in (".pt", ".keras")
        else _hash(path)
        if path.suffix in (".onnx", ".toml", ".json")
        else ""
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _hash_tensors(path: Path) -> str:
    tensors, _metadata = files.read_tensors(path)
    digest = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _hash_archive(path: Path) -> str:
    """Of the numbers in it: beside them stand names, dates and Keras's addresses."""
    digest = hashlib.sha256()

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            digest.update(name.encode() + np.asarray(item).tobytes())

    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith(".h5"):
                with h5py.File(io.BytesIO(content)) as file:
                    file.visititems(add)
            elif "/data/" in name:
                digest.update(name.partition("/")[2].encode() + content)
    return digest.hexdigest()


def _train(framework: str) -> tuple[str, ...]:
    return (
        *("train", "--framework", framework, "--recipe", NETWORK, "--epochs", "4"),
        *("--data", "given/data.npz", "--out", "out", *FEW),
    )


def _convert(name: str) -> tuple[str, ...]:
    form = {"model.pt": "pytorch", "model.keras": "tensorflow"}.get(
        name, name.rpartition(".")[2]
    )
    return ("convert", "given/run", "--to", form, "--out", f"out/{name}")


def _check() -> tuple[str, ...]:
    return (
        *("check", "given/nets.py:net", "given/nets.py:other"),
        *("--input", "2,1,8,8", "--threads", "1", "--copy", "left-to-right"),
        *("--html", "out/page.html", "--md", "out/text.md"),
        *("--write-map", "out/map.toml", "--save", "out/other.safetensors"),
    )


OTHERS = ("tensorflow", "keras", "jax")
JOBS = {
    "train": Job("train", _train("pytorch"), of_runs),
    "train-tensorflow": Job("train", _train("tensorflow"), of_runs),
    "compare": Job(
        "compare",
        (
            *("compare", "--frameworks", "pytorch", "--recipe", NETWORK),
            *("--seeds", "1", "--epochs", "2", "--data", "given/data.npz"),
            *("--out", "out", *FEW),
        ),
        of_comparison,
        alone=True,
    ),
    "ablate": Job(
        "ablate",
        (
            *("ablate", "given/from.toml", "given/to.toml", "--seeds", "1"),
            *("--framework", "pytorch", "--no-proof", "--data", "given/data.npz"),
            *("--out", "out"),
        ),
        of_ablation,
        alone=True,
    ),
    "convert": Job("convert", _convert("model.pt"), of_files),
    "convert-onnx": Job("convert", _convert("model.onnx"), of_files),
    "convert-tensorflow": Job("convert", _convert("model.keras"), of_files),
    "check": Job("check", _check(), of_files, alone=True),
    "record": Job(
        "record",
        (
            *("record", "given/nets.py:net", "--input", "2,1,8,8", "--threads", "1"),
            *("--out", "out/left.recording"),
        ),
        of_files,
        alone=True,
    ),
}
VERBS = tuple(dict.fromkeys(x.verb for x in JOBS.values()))


# One trial


@dataclass
class Trial:
    """A job in a folder of its own, and what was wrong with it.

    Attributes:
        place: where it is typed; `tmp/` in it is the folder of temporary files.
        kills: of whom, one for each kill.
        took: seconds of a command that ended before its kill.
    """

    job: Job
    given: Path
    place: Path
    kills: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    took: float = float("inf")

    def __post_init__(self) -> None:
        self.out, self.temporary = self.place / "out", self.place / "tmp"
        self.temporary.mkdir(parents=True)
        (self.place / "given").symlink_to(self.given)
        path = {"PYTHONPATH": str(self.given / "alone")} if self.job.alone else {}
        self._environment = os.environ | {
            OWN: str(self.place),
            "TMPDIR": str(self.temporary),
            **path,
            "PYTHONDONTWRITEBYTECODE": "1",  # a kill would leave Python's own files
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }

    def start(self) -> subprocess.Popen[bytes]:
        """Type the command."""
        with (self.place / "log").open("wb") as log:
            return subprocess.Popen(
                self.job.command
                if self.job.command[0] == sys.executable
                else [*COMMAND, *self.job.command],
                cwd=self.place,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def kill(self, after: float, *, writing: bool, draw: random.Random) -> bool:
        """Type the command, and kill after these seconds; whether it came to that."""
        begin = time.monotonic()
        process, end = self.start(), begin + after
        while process.poll() is None:
            late = time.monotonic() >= end
            if late and (not writing or self._is_writing()):
                break
            time.sleep(0.002)
        else:
            self.took = time.monotonic() - begin
            self._look(process.returncode)
            return False
        mine = psutil.Process(process.pid)
        children = mine.children(recursive=True)
        if not children or draw.random() < 0.5:
            who, victim = "parent", mine
        else:
            who, victim = "child", draw.choice(children)
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
            self.kills.append(who)
        code = process.wait(LIMIT)
        if who == "child":
            self._look(code)
        self._wait_for_the_end()
        self.faults += [f"after a kill of the {who}: {x}" for x in halves(self.out)]
        return True

    def finish(self) -> None:
        """Type it, leave it alone, and see that nothing is left."""
        try:
            code = self.start().wait(LIMIT)
        except subprocess.TimeoutExpired:
            code = None
        if code != 0:
            said = (self.place / "log").read_text(errors="replace")
            self.faults.append(f"left alone, it ended with {code}: {said[-400:]}")
        self._wait_for_the_end()
        self.faults += halves(self.out)
        left = [*leftovers(self.out), *self.temporary.rglob("*")]
        self.faults += [f"left: {x.relative_to(self.place)}" for x in left]

    def result(self) -> dict[str, Any]:
        """What must be the same each time."""
        return self.job.result(self.out)

    def _is_writing(self) -> bool:
        return any(True for x in TEMPORARY for _ in self.out.rglob(f".*{x}*"))

    def _look(self, code: int) -> None:
        """What a command may end with, one of whose processes was killed."""
        said = (self.place / "log").read_text(errors="replace")
        told = said.partition("process was killed by signal")[0]
        if code not in (0, 1, 2):
            self.faults.append(f"it ended with code {code}: {said[-400:]}")
        if "Traceback" in told:
            self.faults.append(f"a traceback: {said[-400:]}")

    def _wait_for_the_end(self) -> None:
        end = time.monotonic() + PATIENCE
        while alive := processes_of(self.place):
            if time.monotonic() > end:
                for one in alive:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        words = shlex.join(one.cmdline())[:200]
                        self.faults.append(f"a process lives on: {words}")
                        one.kill()
                return
            time.sleep(0.05)


def processes_of(place: Path) -> list[psutil.Process]:
    """The processes of a trial's commands, by their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            own = process.environ().get(OWN) == str(place)
            if own and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def halves(out: Path) -> list[str]:
    """Files with a final name that are not whole."""
    found = []
    for path in sorted(out.rglob("*")):
        parts = path.relative_to(out).parts
        if path.is_dir() or any(mark in x for mark in TEMPORARY for x in parts):
            continue
        try:
            _read(path)
        except Exception as error:  # whatever a reader says of it
            found.append(f"{path.relative_to(out)} is not whole: {error!r:.200}")
    return found


def _read(path: Path) -> None:
    match path.suffix:
        case ".json":
            files.read_json(path)
            if path.parent.suffix == ".recording":
                Recording(path.parent)
        case ".safetensors":
            files.read_tensors(path)
        case ".pt" | ".keras":
            with zipfile.ZipFile(path) as archive:
                if broken := archive.testzip():
                    raise ValueError(broken)
        case ".onnx":
            onnx_file.read(path)
        case ".html" | ".svg":
            end = f"</{path.suffix[1:]}>"
            if not path.read_text("utf-8").rstrip().endswith(end):
                raise ValueError(f"no {end}")
        case ".toml" | ".md":
            if not path.read_text("utf-8").endswith("\n"):
                raise ValueError("no end of the last line")


def leftovers(out: Path) -> list[Path]:
    """What nobody needs once a command is over."""
    return [
        path
        for path in sorted(out.rglob("*"))
        if any(x in path.name for x in TEMPORARY)
        or path.name in (record.CHECKPOINT_FILE, files.OWNER)
    ]


# The campaign


def prepare(given: Path) -> None:
    """What the jobs need: data, a trained run, models, recipes."""
    if (given / "done").exists():
        return
    shutil.rmtree(given, ignore_errors=True)
    given.mkdir(parents=True)
    data = datasets.load()
    np.savez(
        given / "data.npz",
        x_train=data.train_images[:200],
        y_train=data.train_labels[:200],
        x_test=data.test_images[:100],
        y_test=data.test_labels[:100],
    )
    (given / "nets.py").write_text(NETS)
    hide_module(given / "alone", *OTHERS)
    own = load(NETWORK, ["epochs=2", "validation_size=0", "batch_size=16"])
    (given / "from.toml").write_text(own.to_toml())
    changed = own.changed(dropout={"dropout1": 0.25})
    (given / "to.toml").write_text(changed.to_toml())
    named = {"given/data.npz": "data.npz", "out": "run"}
    words = [named.get(x, x) for x in _train("pytorch")]
    subprocess.run([*COMMAND, *words], cwd=given, check=True, capture_output=True)
    (given / "done").touch()


def undisturbed(name: str, folder: Path) -> dict[str, Any]:
    """Seconds and result of a job that nobody disturbs; made once."""
    typed = hashlib.sha256(" ".join(JOBS[name].command).encode()).hexdigest()[:8]
    kept = folder / f"{name}-{typed}.json"
    if kept not in _UNDISTURBED:
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=folder) as place:
                trial = Trial(JOBS[name], folder / "given", Path(place) / name)
                start = time.monotonic()
                trial.finish()
                seconds = time.monotonic() - start
                if trial.faults:
                    raise SystemExit(f"{name}, undisturbed: {'; '.join(trial.faults)}")
                files.write_json(kept, {"seconds": seconds, "result": trial.result()})
        _UNDISTURBED[kept] = files.read_json(kept)
    return _UNDISTURBED[kept]


_UNDISTURBED: dict[Path, dict[str, Any]] = {}


def attempt(job: Job, number: int, folder: Path, straight: dict[str, Any]) -> Trial:
    """Trial `number` of a job: some kills, then an end like the undisturbed one."""
    draw = random.Random(f"{' '.join(job.command)} {number}")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        trial = Trial(job, folder / "given", Path(place) / "trial")
        for count in range(KILLS):
            after = draw.uniform(0, straight["seconds"])
            writing = (number + count) % 3 == 0
            if not trial.kill(after, writing=writing, draw=draw):
                break
        trial.finish()
        try:
            same = trial.result() == straight["result"]
        except (UserError, OSError, AssertionError, KeyError) as error:
            trial.faults.append(f"no result: {error!r:.300}")
        else:
            if not same:
                trial.faults.append("the result is another one")
        return trial


def campaign(
    wanted: int, verbs: Sequence[str], folder: Path, seconds: float, out: Path
) -> dict[str, Any]:
    """Trials, those first that have had the least time, until there are enough."""
    end = time.monotonic() + seconds
    prepare(folder / "given")
    rows = json.loads(out.read_text())["jobs"] if out.exists() else {}
    chosen = [name for name, job in JOBS.items() if job.verb in verbs]
    fresh = {"trials": 0, "kills": 0, "of_parent": 0, "of_child": 0, "seconds": 0.0}
    rows = {x: rows.get(x, {**fresh, "faults": []}) for x in [*rows, *chosen]}

    def spent(names: Iterable[str]) -> float:
        return sum(rows[x]["seconds"] for x in names)

    while sum(rows[x]["kills"] for x in chosen) < wanted:
        of_verb = {v: [x for x in chosen if JOBS[x].verb == v] for v in verbs}
        verb = min(verbs, key=lambda x: spent(of_verb[x]))
        name = min(of_verb[verb], key=lambda x: spent([x]))
        row = rows[name]
        straight = undisturbed(name, folder)
        # A trial takes, at the most, as long as four undisturbed jobs.
        if time.monotonic() + (KILLS + 1) * straight["seconds"] > end:
            break
        start = time.monotonic()
        trial = attempt(JOBS[name], row["trials"], folder, straight)
        straight["seconds"] = min(straight["seconds"], trial.took)
        row["seconds"] = round(row["seconds"] + time.monotonic() - start, 1)
        row["faults"] += [[row["trials"], x] for x in trial.faults]
        row["trials"] += 1
        row["kills"] += len(trial.kills)
        for who in ("parent", "child"):
            row[f"of_{who}"] += trial.kills.count(who)
        print(name, row["trials"], *trial.kills, *trial.faults, flush=True)
        write(out, rows)
    return rows


def write(out: Path, rows: dict[str, Any]) -> None:
    """The record, whole."""
    content = {
        "command": shlex.join(["python", "benchmarks/kills.py", *sys.argv[1:]]),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": machine.processor(),
        "python": sys.version.split()[0],
        "kills": sum(x["kills"] for x in rows.values()),
        "faults": sum(len(x["faults"]) for x in rows.values()),
        "jobs": rows,
    }
    files.write_json(out, content)


def main() -> int:
    """Kill, and say what was found; exit code 1 for faults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="in all")
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=VERBS)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path.home() / ".cache" / "paripassu-kills",
        help="keeps what is prepared, and what undisturbed jobs gave",
    )
    typed = parser.parse_args()
    rows = campaign(
        typed.kills, typed.verbs, typed.folder.resolve(), typed.seconds, typed.record
    )
    for name, row in rows.items():
        for fault in row["faults"]:
            print(name, *fault)
    faults = sum(len(x["faults"]) for x in rows.values())
    print(f"{sum(x['kills'] for x in rows.values())} kills, {faults} faults")
    return bool(faults)


if __name__ == "__main__":
    raise SystemExit(main())
