"""Recipes written as scripts: formatted, whole, and in step with the trainer."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import TESTS, environment, skip_without, type_here
from own_networks import ZOO

from paripassu.core import scripts
from paripassu.core.errors import UserError
from paripassu.core.networks import Network
from paripassu.core.recipe import Recipe, built_in, load, validate
from paripassu.frameworks.registry import FRAMEWORKS, REFERENCE

ROOT = TESTS.parent
WRITERS = [name for name, x in FRAMEWORKS.items() if x.has("script")]
LONG = {"lenet5", "layers"}  # whose layers no framework has, or that have many
KIND, FORM = "optimizer.kind", "optimizer.epsilon_form"

# Recipes beside those of the book: all that a field may say is in one of them.
VARIANTS = {
    "float64, held out": ["precision=float64", "validation_size=7"],
    "bfloat16, probabilities": ["precision=bfloat16", "output=probabilities"],
    "normalised by the data": ["normalization={mean='computed',std='computed'}"],
    "long means": ["normalization={mean=0.1307123456789012,std=0.3081123456789012}"],
    "centred only": ["normalization={mean=0.5,std=1.0}"],
    "he": ["initializer={kernel='he_uniform'}"],
    "zeros": ["initializer={kernel='zeros'}"],
    "fan in, no biases": ["initializer={kernel='fan_in_uniform'}"],
    "biases only": ["initializer={kernel='zeros',bias='fan_in_uniform'}"],
    "glorot and biases": ["initializer={bias='lecun_1998_uniform'}"],
    "linear": ["decay={shape='linear',interval=10.0}"],
    "linear, warm": ["decay={shape='linear',interval=9.5,warm_up=2.5}"],
    "long numbers": [
        *("optimizer.learning_rate=0.012345678901234567", "decay.interval=1234.56789"),
        "optimizer.rho=0.9123456789012345",
        "optimizer.epsilon=1.2345678901234567e-7",
    ],
    "linear of long numbers": [
        "decay={shape='linear',interval=98765.4321,warm_up=123.456789,unit='step'}",
        "optimizer.learning_rate=0.012345678901234567",
    ],
}
# Fields that are refused as soon as they say something.
WORDLESS: dict[str, Any] = {
    "label_smoothing": 0.1,
    "clip_global_norm": 1.0,
    "average_decay": 0.9,
    "augmentation": {"shift": 1.0},
}
KAGGLE = {"amy-jang", "ghouzam"}  # Keras has no such RMSprop; one is augmented
LENET5 = {
    "lenet5 by glorot": ["initializer={kernel='glorot_uniform'}"],
    "lenet5 of zeros": ["initializer={kernel='zeros',bias='fan_in_uniform'}"],
    "lenet5, mixed": ["initializer={kernel='he_uniform',bias='fan_in_uniform'}"],
}


def recipes() -> dict[str, Recipe]:
    """Those of the book that every framework has words for, and the others."""
    found = {name: load(name) for name in built_in() if name not in KAGGLE}
    found |= {name: load("article", words) for name, words in VARIANTS.items()}
    found |= {name: validate(table) for name, table in ZOO.items()}
    found["residual, mixed"] = validate({**ZOO["residual"], "precision": "bfloat16"})
    fan_in = {"kernel": "fan_in_uniform", "bias": "lecun_1998_uniform"}
    for name in ("branches", "residual"):
        for words in ({"initializer": fan_in}, {"precision": "float64"}):
            found[f"{name} with {words}"] = validate({**ZOO[name], **words})
    return found | {name: load("lenet5", words) for name, words in LENET5.items()}


def ruff(*words: object) -> subprocess.CompletedProcess[str]:
    config = ("--config", ROOT / "pyproject.toml", "--no-cache")
    return subprocess.run(
        [sys.executable, "-m", "ruff", *map(str, (*words, *config))],
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_script_is_formatted_linted_and_imports_nothing_of_ours(tmp_path):
    pytest.importorskip("ruff", reason="type: pip install ruff")
    for framework in WRITERS:
        for number, (name, recipe) in enumerate(recipes().items()):
            text = FRAMEWORKS[framework].code(recipe)
            code = ast.unparse(ast.parse(text))
            assert "paripassu" not in code, name
            limit = 175 if recipe.network in LONG else 120
            assert len(code.splitlines()) <= limit, (framework, name)
            (tmp_path / f"{framework}_{number}.py").write_text(text)
    found = ruff("format", "--diff", tmp_path)
    assert found.returncode == 0, found.stdout
    found = ruff("check", "--ignore=D1", "--output-format=concise", tmp_path)
    assert found.returncode == 0, found.stdout
    # Red, so that the two see what is there.
    (tmp_path / "wrong.py").write_text("import os\nx=1\n")
    assert ruff("format", "--diff", tmp_path).returncode == 1
    assert ruff("check", tmp_path / "wrong.py").returncode == 1


@pytest.mark.parametrize("framework", WRITERS)
def test_every_field_that_decides_is_in_the_script(framework):
    """Another value is another script."""
    others = {
        "seed": 7,
        "epochs": 3,
        "batch_size": 5,
        "shuffle": False,
        "validation_size": 11,
        "precision": "float64",
        "output": "probabilities",
        "network": "fast",
        "dropout": {"dropout1": 0.1, "dropout2": 0.5},
        "normalization": {"mean": 0.2, "std": 0.3081},
        "initializer": {"kernel": "he_uniform", "bias": "zeros"},
        "optimizer": {"kind": "adadelta", "rho": 0.8},
        "decay": {"factor": 0.6},
    }
    with_softmax = {"output": "probabilities"}
    loss = {"loss": "cross_entropy_on_probabilities", **with_softmax}
    recipe, write = Recipe(), FRAMEWORKS[framework].code
    fields = set(Recipe.model_fields) - {"name", "description", "source"}
    fields -= {"published_accuracy", "published_note", *WORDLESS}
    fields -= {"input_shape", "layers"}  # each setting of them is tried below
    assert fields == {*others, "loss"}

    def body(**values: Any) -> str:
        if values.get("network") == "fast":
            values["dropout"] = {}
        return re.sub(r"(?m)^#.*\n", "", write(recipe.changed(**values)))

    plain = body()
    same = [key for key, value in others.items() if body(**{key: value}) == plain]
    assert not same
    assert body(**loss) != body(**with_softmax)


# Another value of each setting, in the layer of the zoo that has it.
OTHERS = {
    "stem": {"channels": 9, "kernel": 5, "padding": 2},
    "down": {"stride": 1},
    "conv4": {"dilation": 3, "groups": 4},
    "batch_norm1": {"epsilon": 1e-3, "momentum": 0.99},
    "leaky_relu1": {"slope": 0.3},
    "elu1": {"alpha": 0.5},
    "gelu1": {"approximate": False},
    "layer_norm1": {"epsilon": 1e-3},
    "group_norm1": {"epsilon": 1e-3, "groups": 2},
    "max_pool1": {"size": 2, "stride": 3, "padding": "valid"},
    "average_pool1": {"size": 3, "padding": "valid"},
    "depthwise_conv1": {"kernel": 5, "multiplier": 2, "bias": False},
    "concatenate1": {"inputs": ["elu1", "gelu1"]},
    "add1": {"inputs": ["batch_norm3", "relu1"]},
    "dense2": {"bias": False, "units": 6},
    "tanh1": {"amplitude": 2.0},
    "pad1": {"size": 3},
}


@pytest.mark.parametrize("framework", WRITERS)
def test_every_setting_of_a_layer_is_in_the_script(framework):
    def body(recipe: Recipe) -> str:
        text = FRAMEWORKS[framework].code(recipe)
        return re.sub(r"(?m)^ *#.*\n| +# .*$", "", text)

    tried = set()
    for table in ZOO.values():
        recipe = validate({**table, "dropout": None} | table)
        plain = body(recipe)
        for name, settings in OTHERS.items():
            rows = recipe.model_dump()["layers"]
            if name not in [x["name"] for x in rows]:
                continue
            for key, value in settings.items():
                changed = [{**x, key: value} if x["name"] == name else x for x in rows]
                try:
                    other = recipe.changed(layers=changed)
                except UserError:
                    continue  # it no longer fits
                if other == recipe:
                    continue  # so it is there
                tried.add((name, key))
                assert body(other) != plain, (name, key, value)
    assert len(tried) > 20, tried


@pytest.mark.parametrize("framework", WRITERS)
def test_what_has_no_words_in_a_script_is_refused(framework):
    write = FRAMEWORKS[framework].code
    for key, value in {
        **WORDLESS,
        "decay": {"shape": "cosine", "interval": 5.0},
        "optimizer": {"kind": "nadam"},
    }.items():
        recipe = Recipe().changed(**{key: value})
        with pytest.raises(UserError) as caught:
            write(recipe)
        assert f"--set {key}" in str(caught.value)
        assert "paripassu train" in str(caught.value)
        # Without it, as the message says, there is a script.
        assert write(recipe.changed(**{key: Recipe().model_dump()[key]}))
    plateau = Recipe().changed(validation_size=600, decay={"shape": "plateau"})
    with pytest.raises(UserError, match=r"--set decay\.shape=exponential"):
        write(plateau)


@pytest.mark.parametrize("framework", WRITERS)
@pytest.mark.parametrize(
    "words",
    [
        f"{KIND}=adadelta {KIND}=adam optimizer.epsilon=1e-5",
        "optimizer.kind=adam optimizer.beta1=0.8",
        "optimizer.kind=adam optimizer.beta2=0.99",
        f"{KIND}=adam optimizer.weight_decay_form=decoupled optimizer.weight_decay=0.1",
        f"{KIND}=adam {FORM}=hat",
        f"{KIND}=rmsprop {FORM}=inside optimizer.rho=0.8",
        f"{KIND}=rmsprop {FORM}=inside optimizer.epsilon=1e-3",
        f"{KIND}=sgd optimizer.learning_rate=0.5",
        f"{KIND}=sgd optimizer.weight_decay=0.1",
        f"{KIND}=sgd decay.factor=1.0 optimizer.momentum=0.9",
    ],
)
def test_every_constant_of_an_optimizer_is_in_the_script(framework, words):
    def body(settings: list[str]) -> str:
        text = FRAMEWORKS[framework].code(load("article", settings))
        return re.sub(r"(?m)^#.*\n", "", text)

    settings = words.split()
    # The last word is what makes the difference.
    assert body(settings) != body(settings[:-1])


REFUSED = {
    f"{KIND}=adam optimizer.epsilon_root=1e-6": {"pytorch", "tensorflow"},
    f"{KIND}=adam optimizer.weight_decay=0.1": {"tensorflow"},
    f"{KIND}=rmsprop {FORM}=outside": {"tensorflow"},
    f"{KIND}=sgd optimizer.momentum=0.9": {"tensorflow"},
    f"{KIND}=sgd optimizer.momentum=0.9 optimizer.momentum_form=rate_inside": {
        "pytorch"
    },
    f"{KIND}=sgd optimizer.momentum=0.9 optimizer.weight_decay=0.1 "
    "optimizer.weight_decay_form=decoupled": {"pytorch", "tensorflow"},
    f"{KIND}=sgd optimizer.momentum=0.9 optimizer.weight_decay=0.1 "
    "optimizer.weight_decay_form=decoupled optimizer.momentum_form=rate_inside": {
        *("pytorch", "jax")
    },
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_a_framework_has_not_is_refused(words):
    def refusal(framework: str, *more: str) -> str:
        try:
            FRAMEWORKS[framework].code(load("article", [*words.split(), *more]))
        except UserError as error:
            return str(error)
        return ""

    said = {x: text for x in WRITERS if (text := refusal(x))}
    assert set(said) == REFUSED[words] & set(WRITERS)
    for framework, text in said.items():
        # What it says to type helps: what else is refused is of another field.
        (typed,) = re.findall(r"Type --set (\S+), or choose", text)
        assert typed.partition("=")[0] not in refusal(framework, typed)


def test_a_layer_without_words_is_refused(monkeypatch):
    """As a new kind or setting of layers would be, until writers know it."""
    recipe = load("article")
    for kind in ("conv", "max_pool"):
        with monkeypatch.context() as patch:
            known = scripts.KNOWN[kind] - {"size"}
            if kind == "conv":
                patch.delitem(scripts.KNOWN, kind)
            else:
                patch.setitem(scripts.KNOWN, kind, known)
            for framework in WRITERS:
                with pytest.raises(UserError, match="has no words in a script"):
                    FRAMEWORKS[framework].code(recipe)
    assert isinstance(recipe.architecture, Network)


def test_text_of_the_recipe_stays_in_comments():
    evil = "x\"\"\"\nimport os\r\n'''\u2028print()\\"
    recipe = load("article").changed(description=evil, source=evil)
    for framework in WRITERS:
        text = FRAMEWORKS[framework].code(recipe)
        plain = FRAMEWORKS[framework].code(load("article"))
        assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(plain))


# Typed


def test_the_command_prints_the_script():
    done = type_here("code", "article", "-f", "torch", "--set", "epochs=3")
    assert done.returncode == 0, done.stderr
    assert done.stdout == FRAMEWORKS["pytorch"].code(load("article", ["epochs=3"]))
    name = WRITERS[-1]
    found = json.loads(type_here("code", "fast", "-f", name, "--json").stdout)
    assert found["code"] == FRAMEWORKS[name].code(load("fast"))
    assert (found["recipe"], found["framework"]) == ("fast", name)


def test_the_command_writes_a_file_once(tmp_path):
    out = tmp_path / "new" / "train.py"
    words = ("code", "article", "-f", "pytorch", "--out", out)
    assert type_here(*words).returncode == 0
    text = out.read_text()
    assert text == FRAMEWORKS["pytorch"].code(load("article"))
    out.write_text("mine")
    done = type_here(*words)
    assert done.returncode == 2
    assert f"{out} is there already" in done.stderr
    assert out.read_text() == "mine"
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("code nothing -f pytorch", "no recipe 'nothing'"),
        ("code article -f caffe", "no framework 'caffe'"),
        ("code article -f numpy", "NumPy has no script.py"),
        ("code article -f pytorch --set epochs=x", "epochs: expected"),
        ("code article -f pytorch --out .", "is a folder"),
        ("code article", "--framework"),
    ],
)
def test_bad_input_is_exit_code_2(words, said, tmp_path):
    done = type_here(*words.split(), cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_framework_says_by_its_folder_that_it_writes(tmp_path, monkeypatch):
    names = ", ".join(WRITERS)
    with pytest.raises(UserError, match=f"Expected one of {names}"):
        REFERENCE.code(load("article"))
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "toy_with_script"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "script.py").write_text("def code(recipe):\n    return recipe.name\n")
    toy = type(REFERENCE)("toy", "Toy", "toy_with_script", ("json",), ("json",))
    assert toy.code(load("article")) == "article"


# Run

EXACT = ("shuffle=false", "precision=float64", "batch_size=25", "epochs=3")
DRY = "dropout={dropout1=0.0,dropout2=0.0}"
FALL = "decay={shape='linear',interval=10.0,warm_up=3.0,unit='step'}"
KEEPS = "decay={factor=1.0}"
SAME = {
    "article": ["article", DRY, "batch_size=32"],
    "softmax twice": [
        *("article-pytorch-notebook", DRY),
        "decay={factor=0.7,interval=5.0,unit='step'}",
    ],
    "keras-example": [
        *("keras-example", "dropout={dropout1=0.0}", "validation_size=0"),
        "optimizer.epsilon=1e-3",
    ],
    "lenet5": [
        *("lenet5", "initializer={kernel='glorot_uniform',bias='fan_in_uniform'}"),
        "optimizer.learning_rate=0.05",
    ],
    "fast": ["fast", FALL, "optimizer.epsilon=1e-3"],
    "rmsprop inside": [
        *("fast", f"{KIND}=rmsprop", f"{FORM}=inside", "optimizer.epsilon=1e-3"),
        *("decay={shape='linear',interval=4.0,warm_up=1.5}", "output=probabilities"),
        "loss=cross_entropy_on_probabilities",
    ],
    "rmsprop outside": ["fast", f"{KIND}=rmsprop", f"{FORM}=outside", FALL],
    "momentum outside": [
        *("fast", f"{KIND}=sgd", "optimizer.momentum=0.9", "decay.unit=step"),
        *("optimizer.weight_decay=0.05", "decay={factor=0.7,interval=2.0}"),
    ],
    "momentum inside": [
        *("fast", f"{KIND}=sgd", "optimizer.momentum=0.9", "decay={factor=0.5}"),
        "optimizer.momentum_form=rate_inside",
    ],
    "momentum, same rate": [
        *("fast", f"{KIND}=sgd", "optimizer.momentum=0.9", KEEPS),
        "normalization={mean='computed',std='computed'}",
    ],
    "adamw": [
        *("fast", f"{KIND}=adam", "optimizer.weight_decay=0.1", KEEPS),
        "optimizer.weight_decay_form=decoupled",
    ],
    "adam, l2": ["fast", f"{KIND}=adam", "optimizer.weight_decay=0.1", KEEPS],
}
# Of each framework's scripts, a line that is changed in the way of a slip.
SLIPS = {
    "pytorch": [
        ("article", "rho=0.9,", "rho=0.95,"),
        ("keras-example", "(1 - 0.999**step) ** 0.5", "1"),
        ("fast", "            schedule.step()\n", ""),
        ("lenet5", "self.weight * self.table", "self.weight"),
        ("residual", "F.relu(relu1 + x)", "F.relu(x)"),
    ],
    "tensorflow": [
        ("article", "rho=0.9,", "rho=0.95,"),
        ("softmax twice", "tf.identity(probabilities)", "probabilities"),
        ("fast", " * keras.ops.sqrt(1 - self.beta_2**step)", ""),
        ("lenet5", "kernel * connected", "kernel"),
        ("residual", "([relu1, x])", "([x, x])"),
    ],
    "jax": [
        ("article", "rho=0.9,", "rho=0.95,"),
        ("keras-example", " / (1 - 0.999 ** (step + 1)) ** 0.5", ""),
        ("fast", "(step + 1) / 3", "step / 3"),
        ("lenet5", "mask=nnx.data(table), ", ""),
        ("residual", "nnx.relu(relu1 + x)", "nnx.relu(x)"),
    ],
}
FEW = {"rmsprop inside", "momentum inside", "adam, l2", *ZOO}


def own_networks(folder: Path) -> dict[str, list[str]]:
    """Those of the zoo for images of digits, without dropout, as files."""
    found = {}
    for name, table in ZOO.items():
        *layers, last = table["layers"]
        rows = [{**x, "rate": 0.0} if x["kind"] == "dropout" else x for x in layers]
        other = {"input_shape": [28, 28, 1], "layers": [*rows, {**last, "units": 10}]}
        recipe = validate({**table, **other})
        path = folder / f"{name}.toml"
        path.write_text(recipe.to_toml())
        initializer = "initializer={kernel='he_uniform',bias='fan_in_uniform'}"
        sgd = (f"{KIND}=sgd", "optimizer.learning_rate=0.05")
        found[name] = [str(path), KEEPS, initializer, *sgd]
    return found


# Keras rounds Adam's constants to float32, and trainers their images.
TOLERANCE = 1e-5


def ask(framework: str, data: Path, asked: list[dict[str, Any]]) -> list[Any]:
    request = {"framework": framework, "data": str(data), "scripts": asked}
    done = subprocess.run(
        [sys.executable, str(TESTS / "script_child.py")],
        input=json.dumps(request),
        env={**environment(), "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-8000:]
    found: list[Any] = json.loads(done.stdout)
    return found


def gap(trainer: list[float], script: list[float]) -> float:
    """The largest difference of a batch's loss, relative to the trainer's."""
    left, right = np.array(trainer), np.array(script)
    assert left.shape == right.shape
    return float(np.max(np.abs(left - right) / np.abs(left)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "framework", [pytest.param(x, marks=skip_without(x)) for x in WRITERS]
)
def test_a_script_takes_the_trainers_steps(framework, tiny, tmp_path):
    asked, slips = {}, SLIPS[framework]
    few = {x for x, *_ in slips} | FEW
    for name, (recipe, *words) in {**SAME, **own_networks(tmp_path)}.items():
        if name not in few and not FRAMEWORKS[framework].by_default:
            continue  # what compiles for seconds
        chosen = load(recipe, [*EXACT, *words])
        try:
            text = FRAMEWORKS[framework].code(chosen)
        except UserError:
            continue
        wrong = [(old, new) for slipped, old, new in slips if slipped == name]
        assert all(old in text for old, _ in wrong), name
        texts = [text, *(text.replace(*x) for x in wrong)]
        asked[name] = {"recipe": chosen.model_dump(), "texts": texts}
    right, wrong = {}, {}
    answers = ask(framework, tiny, [*asked.values()])
    for name, found in zip(asked, answers, strict=True):
        right[name], *others = (gap(found["trainer"], x) for x in found["scripts"])
        wrong |= {f"{name} {number}": x for number, x in enumerate(others)}
        assert found["connected"], name
        for weight, (own, of_recipe, size) in found["first"].items():
            if size >= 80:
                assert own == pytest.approx(of_recipe, rel=0.25), (name, weight)
    gaps = {**right, **wrong}
    assert max(right.values()) < TOLERANCE, gaps
    assert len(wrong) == len(SLIPS[framework])
    assert min(wrong.values()) > 100 * TOLERANCE, gaps


@pytest.mark.slow
@pytest.mark.parametrize(
    "framework", [pytest.param(x, marks=skip_without(x)) for x in WRITERS]
)
def test_a_script_runs_as_it_stands(framework, tiny, tmp_path):
    """In float32 with images held out, and in bfloat16; without this package."""
    for recipe, words in {
        "keras-example": ["validation_size=20", "epochs=2"],
        "fast": ["batch_size=10", "optimizer.learning_rate=0.001"],
    }.items():
        script, out = tmp_path / f"{recipe}.py", tmp_path / f"{recipe}.keras"
        script.write_text(FRAMEWORKS[framework].code(load(recipe, words)))
        done = subprocess.run(
            [sys.executable, "-P", str(script), "--data", str(tiny), "--out", str(out)],
            env={**os.environ, "KERAS_BACKEND": "tensorflow"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "loss" in done.stdout
        found = re.search(r"^test accuracy (\S+)%$", done.stdout, re.MULTILINE)
        assert found
        assert 10 < float(found[1]) <= 100
        assert out.exists()
