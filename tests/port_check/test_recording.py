"""Recordings: a left model in another process, or of which outputs are left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

import paripassu
from paripassu.core.errors import UserError
from paripassu.port_check.check import check_sources
from paripassu.port_check.record import record_source
from paripassu.port_check.requests import CheckRequest, RecordRequest
from paripassu.sides.recording import Recording, decode, encode, writing

torch = pytest.importorskip("torch")
nn = torch.nn
DOCS = Path(__file__).parents[2] / "docs"


class Image(nn.Module):
    """Convolutions with BatchNorm, a residual, a pool, and a dense layer."""

    def __init__(self, *, epsilon=1e-5, momentum=0.1, activation=torch.relu):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4, eps=epsilon, momentum=momentum)
        self.norm.running_var.uniform_(0.5, 2)
        self.mix = nn.Conv2d(4, 4, 1)
        self.dense = nn.Linear(4, 5)
        self.activation = activation

    def forward(self, x):
        x = self.activation(self.norm(self.conv(x)))
        x = x + self.mix(x)
        return self.dense(x.mean((2, 3)))


class Text(nn.Module):
    """An embedding, attention, norms, a GRU with two biases to sum, and logits."""

    def __init__(self, *, epsilon=1e-5, causal=True):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(11, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8, eps=epsilon)
        self.lstm = nn.LSTM(8, 6, batch_first=True)
        self.logits = nn.Linear(6, 11)
        self.causal = causal

    def forward(self, x):
        x = self.embedding(x)
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1]).to(x.dtype)
        mask = mask if self.causal else None
        x = self.norm(x + self.attention(x, x, x, attn_mask=mask)[0])
        return self.logits(self.lstm(x)[0][:, -1])


PIXELS = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1)).numpy()
TOKENS = torch.arange(14).reshape(2, 7).remainder(11).numpy()
# The model, its input, and the same one as it is and with faults.
PAIRS = {
    "image": (
        Image,
        PIXELS,
        ({}, {"epsilon": 1e-3}, {"momentum": 0.01}, {"activation": nn.GELU()}),
    ),
    "text": (Text, TOKENS, ({}, {"epsilon": 1e-3}, {"causal": False})),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def told(checked):
    """What a user is told: verdict, checks without their figures, places and causes."""
    keys = [
        (x.phase, x.left, x.right, x.cause.key if x.cause else None)
        for x in checked.faults
    ]
    return [(x.name, x.state) for x in checked.checks], keys


def small(out, level="outputs"):
    """A recording of a small model."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    paripassu.record(model, "2,4", out=out, level=level)
    return model


@pytest.mark.parametrize("name", PAIRS)
def test_a_recording_is_checked_as_the_model_itself(name, tmp_path):
    make, inputs, variants = PAIRS[name]
    path = tmp_path / "left.recording"
    model = make().eval()
    done = paripassu.record(model, inputs, out=path)
    assert done.path == path
    assert not done.notes
    assert done.size == sum(x.stat().st_size for x in path.iterdir())
    assert next(model.parameters()).dtype == torch.float32
    for variant in variants:
        live = paripassu.check(make().eval(), make(**variant).eval(), inputs)
        replayed = paripassu.check(path, make(**variant).eval())
        assert told(replayed) == told(live)
        assert live.equal == (not variant)
    live, replayed = live.pairs, replayed.pairs
    assert live == replayed


def test_a_level_says_what_it_lacks(tmp_path):
    sizes = []
    for level in ("full", "boundaries", "outputs"):
        path = tmp_path / level
        done = paripassu.record(Image().eval(), PIXELS, out=path, level=level)
        sizes.append(done.size)
        assert paripassu.check(path, Image().eval()).equal
        wrong = paripassu.check(path, Image(activation=nn.GELU()).eval())
        assert not wrong.equal
        if level == "full":
            assert wrong.faults[0].cause.key == "activation-kind"
            continue
        assert wrong.faults[0].cause is None
        if level == "boundaries":
            assert wrong.faults[0].left == "after norm"
            assert any("--level full" in x for x in wrong.notes)
            settings = paripassu.check(path, Image(epsilon=1e-3).eval())
            assert settings.faults[0].cause.key == "epsilon"
        else:
            assert any("inputs and outputs only" in x for x in wrong.notes)
            assert ("gradients", "not run") in told(wrong)[0]
    assert sizes[0] > sizes[1] > sizes[2]


def test_weights_are_copied_from_a_recording(tmp_path):
    path = tmp_path / "left.recording"
    paripassu.record(Text().eval(), TOKENS, out=path)
    torch.manual_seed(1)
    right = Text().eval()
    for parameter in right.parameters():
        nn.init.normal_(parameter)
    assert not paripassu.check(path, right).equal
    assert paripassu.check(path, right, copy="left-to-right").equal
    assert paripassu.check(Text().eval(), right, TOKENS).equal
    with pytest.raises(UserError, match="takes no weights"):
        paripassu.check(path, right, copy="right-to-left")
    with pytest.raises(UserError, match="holds its inputs"):
        paripassu.check(path, right, TOKENS)
    with pytest.raises(UserError, match="left model only"):
        paripassu.check(right, path, TOKENS)
    with pytest.raises(UserError, match="a recording already"):
        paripassu.record(path, TOKENS, out=tmp_path / "again.recording")


def test_calls_and_versions_are_in_it(tmp_path):
    path = tmp_path / "left.recording"
    paripassu.record(Image().eval(), PIXELS, out=path)
    found = Recording(path).description
    calls = found.passes["float64"].calls
    assert [x.name for x in calls][:3] == ["conv", "norm", "relu"]
    assert re.fullmatch(r"test_recording\.py:\d+", calls[0].line)
    assert calls[0].sources == (-1,)
    assert calls[1].inputs == calls[0].outputs  # which are there once
    assert 0 < calls[1].control[1] < 1e-14
    assert found.versions["torch"] == torch.__version__
    assert "python" in found.versions
    assert found.step.gradients["conv"].keys() == {"kernel", "bias"}
    assert found.seed is None  # inputs were given


def test_a_model_that_cannot_be_recorded_leaves_nothing(tmp_path):
    class Noise(nn.Module):
        def forward(self, x):
            return x[:, torch.randperm(3)]

    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.count = 0

        def forward(self, x):
            self.count += 1
            if self.count > 6:
                raise RuntimeError("the sixth time is too much")
            return 2 * x

    out = tmp_path / "left.recording"
    with pytest.raises(UserError, match="random in evaluation mode"):
        paripassu.record(Noise(), "2,3", out=out)
    with pytest.raises(UserError, match="the sixth time is too much"):
        paripassu.record(Broken(), "2,3", out=out)
    with pytest.raises(UserError, match="one of full, boundaries, outputs"):
        paripassu.record(Broken(), "2,3", out=out, level="half")
    (tmp_path / "notes").mkdir()
    with pytest.raises(UserError, match="no recording"):
        small(tmp_path / "notes")
    assert [x.name for x in tmp_path.iterdir()] == ["notes"]


def test_a_recording_is_replaced_by_a_whole_one_only(tmp_path):
    out = tmp_path / "left.recording"
    small(out)
    before = (out / "recording.json").read_text()

    def interrupted():
        with writing(out) as writer:
            writer.put("inputs/input", np.zeros(3))
            writer.flush()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (out / "recording.json").read_text() == before
    small(out, "full")
    assert Recording(out).description.level == "full"
    assert [x.name for x in tmp_path.iterdir()] == [out.name]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    dead = tmp_path / ".left.recording.1234.tmp-paripassu"
    dead.mkdir()
    (dead / "arrays-0001.safetensors").write_bytes(b"half")
    out = tmp_path / "left.recording"
    with writing(out) as writer:
        assert not dead.exists()
        with writing(out):  # of another process: left alone
            assert writer.folder.exists()
    assert not list(tmp_path.iterdir())  # neither was finished


def break_json(path):
    (path / "recording.json").write_text('{"format": ')


def break_arrays(path):
    file = next(path.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-40])


def lose_arrays(path):
    next(path.glob("*.safetensors")).unlink()


def change(**values):
    """A change of recording.json."""

    def write(path):
        text = path / "recording.json"
        text.write_text(json.dumps(json.loads(text.read_text()) | values))

    return write


WRONG = {
    "not json": (break_json, "not readable JSON"),
    "truncated": (break_arrays, "not a whole safetensors file"),
    "a part missing": (lose_arrays, "arrays-0001.safetensors is missing"),
    "an array missing": (change(inputs=["input", "mask"]), "'inputs/mask'"),
    "newer": (change(version=2), "reads up to 1"),
    "older": (change(version=0), "version"),
    "foreign": (change(format="something"), "is no recording"),
    "unknown key": (change(outputs=["y"]), "outputs: Extra inputs"),
    "unknown pass": (change(passes={"int8": {"outputs": []}}), "passes"),
    "elsewhere": (change(parts=["../arrays-0001.safetensors"]), "lies elsewhere"),
    "gone": (shutil.rmtree, "there is no recording"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_recording_is_told(name, tmp_path):
    path = tmp_path / "left.recording"
    model = small(path)
    spoil, message = WRONG[name]
    spoil(path)
    with pytest.raises(UserError, match=re.escape(message)):
        paripassu.check(path, model)


def test_the_writer_of_the_documentation_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "recording.md").read_text()
    writer, reader = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(writer, {})
    exec(reader, {})
    wrong = paripassu.check("mine.recording", nn.LeakyReLU())
    assert not wrong.equal
    assert wrong.faults[0].left == "output"


def test_two_recordings_are_compared_in_what_both_hold(tmp_path):
    def recorded(name, inputs=PIXELS, level="full", **changes):
        path = tmp_path / name
        paripassu.record(Image(**changes).eval(), inputs, out=path, level=level)
        return path

    left = recorded("left")
    same = paripassu.check(left, recorded("same"))
    assert same.equal
    states = dict(told(same)[0])
    assert set(states.values()) == {"holds"}
    assert {"weights", "layers at work", "gradients, float64"} <= set(states)

    wrong = paripassu.check(left, recorded("wrong", epsilon=1e-3))
    first = next(x for x in wrong.checks if x.name == "layers at work")
    assert not wrong.equal
    assert "norm | norm (test_recording.py:" in first.detail
    assert dict(told(wrong)[0])["weights"] == "holds"
    assert dict(told(wrong)[0])["gradients, float64"] == "fails"

    kept = recorded("momentum", momentum=0.01)
    fails = [x.name for x in paripassu.check(left, kept).checks if x.state == "fails"]
    assert fails == ["BatchNorm statistics"]

    golden = recorded("golden", level="outputs")
    less = paripassu.check(golden, left)
    assert less.equal
    assert dict(told(less)[0])["gradients"] == "not run"

    with pytest.raises(UserError, match="other inputs"):
        paripassu.check(left, recorded("moved", PIXELS + 1))
    with pytest.raises(UserError, match="take no weights"):
        paripassu.check(left, kept, copy="left-to-right")


def test_settings_come_back_as_they_were():
    arrays = {}

    def keep(array):
        arrays["settings/0"] = array
        return "settings/0"

    given = {
        "strides": (2, (1, 1)),
        "axes": [1, 2],
        "epsilon": np.float32(0.5),
        "value": float("-inf"),
        "nest": {"causal": True, "nothing": None},
        "mask": np.eye(2),
        "function": print,
    }
    text = json.dumps(encode(given, keep), allow_nan=False)
    found = decode(json.loads(text), arrays.__getitem__)
    assert np.array_equal(found.pop("mask"), given.pop("mask"))
    assert found.pop("function") == str(given.pop("function"))
    assert found == given


def test_a_writer_that_is_killed_leaves_nothing_that_looks_whole(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
import numpy as np
from paripassu.sides.recording import writing

with writing(Path(sys.argv[1])) as writer:
    writer.put("inputs/input", np.zeros(3))
    writer.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    out = tmp_path / "left.recording"
    done = subprocess.run([sys.executable, "-c", code, out], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [x.name[0] for x in tmp_path.iterdir()] == ["."]
    small(out)
    assert [x.name for x in tmp_path.iterdir()] == [out.name]


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another with --out"):
        small(tmp_path / "file" / "left.recording")
    if os.geteuid() == 0:
        return  # who may write anywhere
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with pytest.raises(UserError, match="no permission"):
        small(closed / "left.recording")


def interpreter(folder, version):
    """A virtual environment with all that this one has, and `library` in a version."""
    venv.create(folder, symlinks=True, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    ours = [x for x in sys.path if x.endswith("site-packages")]
    lines = [f"import site; site.addsitedir({x!r})" for x in ours]
    (site / "ours.pth").write_text("\n".join(lines))
    (site / "library.py").write_text(f"VERSION = {version}\n")
    return folder / "bin" / "python"


@pytest.mark.slow
def test_each_side_runs_in_an_interpreter_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "import library, torch\n"
        "def build(version, epsilon=1e-5):\n"
        "    assert library.VERSION == version, library.VERSION\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(\n"
        "        torch.nn.Linear(4, 3), torch.nn.LayerNorm(3, eps=epsilon)\n"
        "    )\n"
    )
    old, new = (interpreter(tmp_path / f"venv{n}", n) for n in (1, 2))
    request = CheckRequest(
        left="net.py:build",
        right="net.py:build",
        left_args="[1]",
        right_args="[2]",
        shapes=("5,4",),
    )
    found = check_sources(request, left_python=old, right_python=new)
    assert found.equal
    assert found.left.source == "net.py:build"
    wrong = request.model_copy(update={"right_args": "[2, 0.001]"})
    found = check_sources(wrong, left_python=old, right_python=new)
    assert found.faults[0].cause.key == "epsilon"
    with pytest.raises(UserError, match="AssertionError: 1"):
        check_sources(request, left_python=old, right_python=old)
    back = request.model_copy(update={"copy_weights": "right-to-left"})
    with pytest.raises(UserError, match="left-to-right only"):
        check_sources(back, left_python=old)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (None, "cannot be run"),
        (
            "#!/bin/sh\necho No module named paripassu >&2; exit 1\n",
            "has no Pari passu",
        ),
        ("#!/bin/sh\necho 0.0.1\n", "has Pari passu 0.0.1, but"),
    ],
)
def test_an_interpreter_that_will_not_do_is_told(write, message, tmp_path):
    python = tmp_path / "python"
    if write:
        python.write_text(write)
        python.chmod(0o755)
    request = RecordRequest(model="net:build", out=tmp_path / "left.recording")
    with pytest.raises(UserError, match=message):
        record_source(request, python=python)


class Dropping(nn.Module):
    """Two dense layers with a dropout between them, or after them."""

    def __init__(self, *, rate=0.5, last=False):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 6)
        self.drop, self.last = nn.Dropout(rate), last

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.drop(self.second(x)) if self.last else self.second(self.drop(x))


def test_what_drops_in_training_mode_is_recorded_with_it(tmp_path):
    path = tmp_path / "left.recording"
    inputs = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    assert not paripassu.record(Dropping().eval(), inputs, out=path).notes
    passes = Recording(path).description.passes
    assert {"float64-training", "float64-no-dropout"} <= passes.keys()
    for variant in ({}, {"rate": 0.25}, {"last": True}):
        live = paripassu.check(Dropping(), Dropping(**variant), inputs)
        assert told(paripassu.check(path, Dropping(**variant))) == told(live)
        assert live.equal == (not variant)


class Written(nn.Module):
    """The same function, however it is written; or nearly the same one."""

    def __init__(self, *, spare=False, fused=False, scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.spare = nn.Linear(6, 6) if spare else None
        self.fused, self.scale = fused, scale

    def forward(self, x):
        if self.spare:
            self.spare(x)
        if self.fused:
            return self.scale * torch.relu(self.second(x)) + self.first(x)
        return self.first(x) + self.scale * torch.relu(self.second(x))


def test_a_recording_answers_for_other_weights_too(tmp_path):
    """Models that are written otherwise are compared with their weights moved."""
    inputs = np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 6)
    for left, right, verdict in (
        ({}, {"spare": True}, "equal"),
        ({"spare": True}, {}, "equal"),
        ({}, {"fused": True}, "equal"),
        ({}, {"fused": True, "spare": True, "scale": 1.01}, "differs"),
    ):
        path = tmp_path / "left.recording"
        paripassu.record(Written(**left), inputs, out=path)
        live = paripassu.check(Written(**left), Written(**right), inputs)
        replayed = paripassu.check(path, Written(**right))
        assert told(replayed) == told(live)
        assert replayed.verdict == live.verdict == verdict


def test_what_a_recording_lacks_is_said(tmp_path):
    path = tmp_path / "left.recording"
    paripassu.record(Image().eval(), PIXELS, out=path, gradients=False)
    found = paripassu.check(path, Image(momentum=0.01).eval())
    assert found.equal
    assert found.not_asked == ("training mode and gradients: the recording holds none",)
    assert ("training mode", "not run") in told(found)[0]


@pytest.mark.slow
def test_a_keras_model_is_recorded_and_its_port_to_pytorch_checked(tmp_path):
    keras = pytest.importorskip("keras")

    def left():
        keras.utils.set_random_seed(0)
        layers = keras.layers
        return keras.Sequential(
            [
                keras.Input((6, 6, 3)),
                layers.Conv2D(4, 3, padding="same", activation="relu", name="conv"),
                layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name="norm"),
                layers.GlobalAveragePooling2D(name="pool"),
                layers.Dense(5, name="dense"),
            ]
        )

    def right(epsilon=1e-5, **more):
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, **more),
            nn.ReLU(),
            nn.BatchNorm2d(4, eps=epsilon),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 5),
        ).eval()

    path = tmp_path / "left.recording"
    done = paripassu.record(left, "2,6,6,3", out=path)
    assert not done.notes
    assert Recording(path).description.framework == "keras"
    for variant in ({}, {"epsilon": 1e-3}, {"padding_mode": "circular"}):
        copied = "left-to-right"
        live = paripassu.check(left, right(**variant), "2,6,6,3", copy=copied)
        replayed = paripassu.check(path, right(**variant), copy=copied)
        assert told(replayed) == told(live)
        assert live.equal == (not variant)


class Masking(nn.Module):
    """An embedding whose padding, id 0, is masked, or is not."""

    def __init__(self, *, masks=True):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.dense = nn.Embedding(9, 4), nn.Linear(4, 3)
        self.masks = masks

    def forward(self, x):
        rows = self.table(x)
        if self.masks:
            rows = rows * (x != 0)[..., None]
        return self.dense(rows.sum(1))


def test_further_inputs_are_recorded_too(tmp_path):
    """What only padding shows, where the given ids hold none."""
    path = tmp_path / "left.recording"
    inputs = np.arange(1, 7).reshape(2, 3)
    paripassu.record(Masking(), inputs, out=path)
    names = [x.name for x in Recording(path).description.further]
    assert any("padding" in x for x in names)
    assert paripassu.check(path, Masking()).equal
    for left in (path, Masking()):
        given = None if left is path else inputs
        found = paripassu.check(left, Masking(masks=False), given)
        assert found.verdict == "differs"
        assert found.faults[0].cause.key == "mask"
