"""Files that were made to do harm: refused, whatever they promise or point to."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from helpers import COMMAND, environment, skip_without
from hypothesis import given
from hypothesis import strategies as st

from paripassu.conversion import onnx_file
from paripassu.conversion.model_source import read_source
from paripassu.core import draws, files
from paripassu.core.errors import UserError
from paripassu.core.recipe import load
from paripassu.port_check.targets import read_inputs
from paripassu.prediction.answering import Answerer

TOY = Path(__file__).parents[1] / "toy"


def keras_file(
    path: Path,
    fill: Callable[[Any, Any], Any],
    method: int = zipfile.ZIP_STORED,
    notes: str = "{}",
) -> Path:
    """A `.keras` file; `fill` gets the HDF5 file and the group of one layer."""
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        own = file.create_group("layers/conv2d/vars")
        own.attrs["name"] = "conv1"
        fill(file, own)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("model.weights.h5", content.getvalue())
        archive.writestr("paripassu.json", notes)
    return path


@skip_without("tensorflow")
def test_a_keras_file_gives_nothing_but_what_it_holds(tmp_path, monkeypatch):
    import h5py

    from paripassu.frameworks.tensorflow import _archive as archive

    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(8, dtype="f4").tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.arange(8, dtype="f4")
    layout = h5py.VirtualLayout((8,), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (8,))
    outside = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
    packed = {"chunks": (2**20,), "compression": 9}

    def strings(_file: Any, own: Any) -> None:
        own.create_dataset("0", data=["a", "b"], dtype=h5py.string_dtype())

    def twice(_file: Any, own: Any) -> None:
        own["0"] = np.zeros(20_000, "f4")
        own["1"] = own["0"]

    strange: dict[str, Callable[[Any, Any], Any]] = {
        "another file": lambda _, own: own.create_dataset(
            "0", (8,), "f4", external=[(str(secret), 0, 32)]
        ),
        "lies in another": lambda _, own: own.create_virtual_dataset("0", layout),
        "0 is a link": lambda _, own: own.__setitem__("0", h5py.SoftLink("/layers")),
        "a link to another": lambda _, own: own.__setitem__("0", outside),
        "link": lambda file, _: file.__setitem__("layers/other", outside),
        "promises 4,398,046,511,104 bytes": lambda _, own: own.create_dataset(
            "0", (2**40,), "f4"
        ),
        "promises 8,388,608": lambda _, own: own.create_dataset(
            "0", data=np.zeros(2**21, "f4"), **packed
        ),
        "promises": twice,
        "conv1.kernel": strings,
        "no dataset": lambda _, own: own.create_group("0"),
        "vars is no group": lambda file, _: file.__setitem__("layers/x/vars", 1.0),
    }
    path = tmp_path / "a.keras"
    for words, fill in strange.items():
        with pytest.raises(UserError, match=words):
            archive.read(keras_file(path, fill))
    deflated = zipfile.ZIP_DEFLATED
    small = np.ones(3, "f4")

    def right(_file: Any, own: Any) -> None:
        own["0"] = small

    with pytest.raises(UserError, match="otherwise than by deflate"):
        archive.read(keras_file(path, right, zipfile.ZIP_BZIP2))
    with pytest.raises(UserError, match="at most 1,048,576"):
        archive.read(keras_file(path, right, deflated, "[" * 2**21))
    with pytest.raises(UserError):
        archive.read(keras_file(path, right, deflated, "[" * 2**19))
    arrays, _notes = archive.read(keras_file(path, right, deflated))
    assert np.array_equal(arrays["conv1.kernel"], small)
    monkeypatch.setattr(archive, "LARGEST", path.stat().st_size)
    with pytest.raises(UserError, match=r"has [0-9,]+ bytes, at most"):
        archive.read(path)


@pytest.mark.slow
@skip_without("jax")
def test_a_msgpack_file_holds_plain_numbers_or_is_refused(tmp_path):
    code = """
import msgpack, numpy as np
from pathlib import Path
from flax.serialization import msgpack_serialize
from paripassu.core.errors import UserError
from paripassu.frameworks.jax import files

def array(shape, kind, content):
    return msgpack.ExtType(1, msgpack.packb((shape, kind, content)))

path = Path("a.msgpack")
for words, kernel in {
    "reshape": array((2**40,), "float32", bytes(12)),
    "OBJECT": array((1,), "object", bytes(8)),
    "no array of float": array((3,), "int64", bytes(24)),
    "no array": msgpack.ExtType(9, b"x"),
    "array of": 1.5,
}.items():
    path.write_bytes(msgpack.packb({"params": {"conv1": {"kernel": kernel}}}))
    try:
        files.read(path)
    except UserError as error:
        assert words in str(error), (words, error)
        assert str(path) in str(error), error
    else:
        raise AssertionError(words)
params = {"conv1": {"kernel": np.ones(3, np.float32)}}
whole = msgpack_serialize({"params": params, "paripassu": {"a": "b"}})
path.write_bytes(whole)
arrays, notes = files.read(path)
assert notes == {"a": "b"} and (arrays["conv1.kernel"] == 1).all()
damaged = [b"", b"PK", b"\\xc1", whole + b"x", b"\\x91" * 100_000]
for i in range(len(whole)):
    damaged += [whole[:i], whole[:i] + bytes([whole[i] ^ 85]) + whole[i + 1:]]
for content in damaged:
    path.write_bytes(content)
    try:
        files.read(path)
    except UserError:
        pass
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@skip_without("pytorch")
def test_a_state_dict_holds_plain_numbers_or_is_refused(tmp_path):
    code = """
import sys, torch
from pathlib import Path
from paripassu.core.errors import UserError
from paripassu.frameworks.pytorch import files
three = torch.zeros(3)
path = Path("a.pt")
for words, tensor in {
    "bfloat16": three.bfloat16(),
    "float8": three.to(torch.float8_e5m2),
    "sparse": three.to_sparse(),
    "meta": three.to("meta"),
    "its file": three[:1].expand(2**40),
}.items():
    torch.save({"conv1.weight": tensor}, path)
    try:
        files.read(path)
    except UserError as error:
        assert words in str(error), error
        assert str(path) in str(error), error
    else:
        raise AssertionError(words)
whole = bytearray(Path(path).read_bytes())
damaged = [b"", b"\\x80\\x02.", b"\\x80\\x02R.", b"\\x80\\x02h\\x05."]
damaged += [b"\\x80\\x02ctorch._utils\\n_rebuild_tensor_v2\\n)R."]
for i in range(0, 900, 30):
    damaged.append(whole[:i] + bytes([whole[i] ^ 85]) + whole[i + 1:])
for content in damaged:
    path.write_bytes(content)
    try:
        files.read(path)
    except UserError:
        pass
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(bool(onnx_file.problem()), reason=str(onnx_file.problem()))
def test_an_onnx_file_with_numbers_of_an_unknown_type_is_refused(tmp_path):
    from onnx import TensorProto, helper

    path = tmp_path / "a.onnx"
    for kind in (0, 8, 29, 999):
        tensor = TensorProto(name="conv1.kernel", data_type=kind, dims=[2])
        graph = helper.make_graph([], "g", [], [], [tensor])
        path.write_bytes(helper.make_model(graph).SerializeToString())
        with pytest.raises(UserError, match="not a whole ONNX file"):
            onnx_file.read(path)


LEAVES = (
    st.none() | st.integers() | st.sampled_from(["F32", "BF16", "F8_E4M3", "I4", "a"])
)


def around(x: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(x, max_size=3) | st.dictionaries(
        st.sampled_from(["__metadata__", "dtype", "shape", "data_offsets", "a"]),
        x,
        max_size=4,
    )


HEADERS = LEAVES | around(LEAVES | around(LEAVES))


@given(header=HEADERS, kind=st.sampled_from(["F32", "BF16", "F8_E4M3", "F8_E8M0"]))
def test_safetensors_of_any_header_are_read_or_refused(tmp_path_factory, header, kind):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    tensor = {"dtype": kind, "shape": [0], "data_offsets": [0, 0]}
    for content in (header, {"x": tensor, "y": header}, {"x": tensor}):
        text = json.dumps(content).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        try:
            files.read_tensors(path)
        except UserError:
            continue


def test_json_that_is_nested_too_deeply_is_refused(tmp_path):
    path = tmp_path / "run.json"
    path.write_text("[" * 10**5)
    with pytest.raises(UserError, match="nested too deeply"):
        files.read_json(path)


def npz_of(count: int) -> bytes:
    """An archive whose one array promises `count` numbers and has none."""
    array, archive = io.BytesIO(), io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(array, header)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x.npy", array.getvalue())
    return archive.getvalue()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_with_the_name_of_a_file_is_not_waited_for(tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("a.pt", "a.safetensors", "a.toml", "a.npz", "run/run.json"):
        os.mkfifo(tmp_path / name)
    for name in ("a.pt", "a.safetensors", "run"):
        with pytest.raises(UserError, match="a pipe or a device"):
            read_source(tmp_path / name)
    with pytest.raises(UserError, match="a pipe or a device"):
        load(tmp_path / "a.toml")
    with pytest.raises(UserError, match="a pipe or a device"):
        read_inputs(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(npz_of(2**50))
    with pytest.raises(UserError, match="cannot be read as inputs"):
        read_inputs(tmp_path / "b.npz")


LIMITED = """
import sys
from pathlib import Path
from paripassu.core import limits
limits.SECONDS = 1
try:
    with limits.reading(Path("a.keras")):
        bytes(2 * limits.MEMORY)
except limits.UserError as error:
    print(error, flush=True)
bytes(2**20)
with limits.reading(Path("a.keras")):
    while True:
        pass
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others bound less")
def test_reading_has_bounds_of_memory_and_time():
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, check=False
    )
    assert "a.keras asks for more memory" in done.stdout
    assert done.returncode == -signal.SIGXCPU, done.stderr


def toy_that(folder: Path, does: str) -> dict[str, str]:
    """The environment in which reading a file of the toy's does something else."""
    shutil.copytree(TOY, folder)
    path = folder / "paripassu_toy" / "files.py"
    text = path.read_text()
    assert "    arrays, notes = read_tensors(path)" in text
    changed = text.replace("    arrays, notes = read_tensors(path)", f"    {does}")
    path.write_text(changed)
    return environment(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends such a child")
def test_a_reader_that_crashes_is_explained_and_one_that_hangs_dies_with_its_parent(
    tmp_path,
):
    (tmp_path / "a.toy").write_bytes(b"damaged")
    words = [*COMMAND, "convert", "a.toy", "--to", "safetensors"]
    words += ["--out", "b.safetensors"]
    crashes = toy_that(tmp_path / "crashes", "import os; os.abort()")
    done = subprocess.run(
        words, env=crashes, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "a.toy is damaged: reading it was ended by SIGABRT" in done.stderr
    # As in C: no other thread of Python's gets its turn.
    hang = "import re; open('hangs', 'w'); re.match('(a+)+$', 'a' * 64 + 'b')"
    hangs = toy_that(tmp_path / "hang", hang)
    parent = subprocess.Popen(words, env=hangs, cwd=tmp_path)
    try:
        while not (tmp_path / "hangs").exists():
            assert parent.poll() is None
            time.sleep(0.05)
        (child,) = psutil.Process(parent.pid).children()
    finally:
        parent.kill()
        parent.wait()
    _gone, alive = psutil.wait_procs([child], timeout=10)
    for process in alive:
        process.kill()
    assert not alive


@pytest.mark.parametrize(
    ("notes", "word"),
    [
        ({"std": "0"}, "its std is 0"),
        ({"std": "-1"}, "from 0 to 1"),
        ({"mean": "nan"}, "its mean is 'nan'"),
        ({"mean": "1e300"}, "its mean is '1e300'"),
        ({"test_accuracy": "very good"}, "its test_accuracy is 'very good'"),
        ({"test_accuracy": "inf"}, "its test_accuracy is 'inf'"),
    ],
)
def test_numbers_that_travel_with_weights_are_checked(tmp_path, notes, word):
    recipe = load("keras-example")
    weights = draws.initial_weights(recipe.architecture, recipe)
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, weights, {"recipe": recipe.to_toml(), **notes})
    with pytest.raises(UserError, match=word):
        read_source(path)


@skip_without("pytorch")
def test_an_answer_that_is_no_number_is_no_answer(tmp_path):
    recipe = load("keras-example")
    weights = draws.initial_weights(recipe.architecture, recipe)
    weights["dense1.kernel"] = np.full_like(weights["dense1.kernel"], 3e38)
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, weights, {"recipe": recipe.to_toml()})
    with Answerer(read_source(path), "pytorch") as answerer:
        answerer.wait()
        with pytest.raises(UserError, match="answers with what is no number"):
            answerer.ask(np.full((1, 28, 28), 255, np.uint8))
