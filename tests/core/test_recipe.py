"""The recipe: what it takes, what it refuses and how, and what its hash stands for."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

import paripassu
from paripassu.core.errors import UserError
from paripassu.core.recipe import (
    SGD,
    Adadelta,
    Adam,
    Decay,
    Initializer,
    Normalization,
    Recipe,
    RMSprop,
    built_in,
    load,
    parse,
    validate,
)

# The article's constants, written by hand: Adadelta 1.0 / 0.9 / 1e-6, Glorot, zeros,
# the rate times 0.7 after each epoch, MNIST's customary mean and deviation.
DECISIVE = {
    "network": "article",
    "seed": 42,
    "epochs": 10,
    "batch_size": 64,
    "shuffle": True,
    "validation_size": 0,
    "precision": "float32",
    "output": "logits",
    "loss": "cross_entropy_on_logits",
    "label_smoothing": 0.0,
    "clip_global_norm": 0.0,
    "average_decay": 0.0,
    "augmentation": {
        "shift": 0.0,
        "rotation": 0.0,
        "scale": 0.0,
        "keep_aspect": True,
        "shear": 0.0,
        "elastic": 0.0,
        "elastic_smoothness": 4.0,
        "cutout": 0,
    },
    "dropout": {"dropout1": 0.25, "dropout2": 0.5},
    "normalization": {"mean": 0.1307, "std": 0.3081},
    "initializer": {"kernel": "glorot_uniform", "bias": "zeros"},
    "optimizer": {
        "kind": "adadelta",
        "learning_rate": 1.0,
        "rho": 0.9,
        "epsilon": 1e-6,
    },
    "decay": {
        "shape": "exponential",
        "factor": 0.7,
        "interval": 1.0,
        "warm_up": 0.0,
        "start": 0.04,
        "patience": 3,
        "final": 0.0,
        "unit": "epoch",
    },
}
NOT_DECISIVE = {"name", "description", "source", "published_accuracy", "published_note"}

# What every other optimizer has where a recipe says nothing, written by hand: rates of
# both frameworks, epsilons and forms of PyTorch but for RMSprop's numbers, Keras's.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {
        "kind": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.0,
        "momentum_form": "rate_outside",
        "weight_decay": 0.0,
        "weight_decay_form": "l2",
    },
    "adam": {
        "kind": "adam",
        "learning_rate": 0.001,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "epsilon_form": "outside",
        "epsilon_root": 0.0,
        "weight_decay": 0.0,
        "weight_decay_form": "l2",
    },
    "rmsprop": {
        "kind": "rmsprop",
        "learning_rate": 0.001,
        "rho": 0.9,
        "epsilon": 1e-7,
        "epsilon_form": "outside",
    },
    "nadam": {
        "kind": "nadam",
        "learning_rate": 0.002,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "momentum_decay": 0.004,
    },
}

# Another legal value of every decisive leaf that can change alone: another network
# has other dropout layers, and the other loss wants another output.
OTHER_VALUES: dict[str, Any] = {
    "seed": 43,
    "epochs": 11,
    "batch_size": 65,
    "shuffle": False,
    "validation_size": 1,
    "precision": "float64",
    "output": "probabilities",
    "label_smoothing": 0.1,
    "clip_global_norm": 1.0,
    "average_decay": 0.99,
    "augmentation.shift": 2.0,
    "augmentation.rotation": 5.0,
    "augmentation.scale": 0.1,
    "augmentation.shear": 5.0,
    "augmentation.elastic": 1.0,
    "augmentation.cutout": 4,
    "dropout.dropout1": 0.26,
    "dropout.dropout2": math.nextafter(0.5, 1),
    "normalization.mean": "computed",
    "normalization.std": math.nextafter(0.3081, 1),
    "initializer.kernel": "he_uniform",
    "initializer.bias": "fan_in_uniform",
    "optimizer.kind": "sgd",
    "optimizer.learning_rate": math.nextafter(1.0, 0),
    "optimizer.rho": 0.95,
    "optimizer.epsilon": 1e-7,
    "decay.factor": 0.71,
    "decay.interval": 2.0,
    "decay.unit": "step",
}


# Another legal value of every constant and form of the other optimizers.
OTHER_CONSTANTS: dict[str, Any] = {
    "learning_rate": 0.5,
    "epsilon_root": 1e-8,
    "momentum": 0.9,
    "momentum_form": "rate_inside",
    "weight_decay": 1e-4,
    "weight_decay_form": "decoupled",
    "beta1": 0.8,
    "beta2": 0.99,
    "rho": 0.99,
    "epsilon": 1e-6,
    "momentum_decay": 1.0,
}
OTHER_FORMS = {"adam": "hat", "rmsprop": "inside"}  # of epsilon


def expected_hash(table: dict[str, Any], *more: str) -> str:
    # These came later: recipes without them have the hash that they had before.
    hashed = {k: v for k, v in table.items() if (k, v) != ("output", "logits")}
    later = [("shape", "exponential"), ("warm_up", 0.0)]
    later += [("start", 0.04), ("final", 0.0), ("patience", 3)]
    none = DECISIVE["augmentation"]
    for key, value in (
        *(("label_smoothing", 0.0), ("clip_global_norm", 0.0)),
        *(("average_decay", 0.0), ("augmentation", none)),
    ):
        if hashed.get(key) == value:
            del hashed[key]
    if "decay" in hashed:
        decay = hashed["decay"].items()
        hashed["decay"] = {k: v for k, v in decay if (k, v) not in later}
    if "optimizer" in hashed:
        own = hashed["optimizer"].items()
        hashed["optimizer"] = {k: v for k, v in own if (k, v) != ("epsilon_root", 0.0)}
    text = json.dumps([hashed, *more], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def leaves(table: dict[str, Any], prefix: str = "") -> set[str]:
    """The dotted key of every value that is no table."""
    found = set()
    for key, value in table.items():
        path = f"{prefix}{key}"
        found |= leaves(value, f"{path}.") if isinstance(value, dict) else {path}
    return found


def refusal(table: str) -> str:
    """What the user reads who wrote this TOML."""
    with pytest.raises(UserError) as caught:
        parse(table)
    return str(caught.value)


# Valid recipes

positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
shares = st.floats(0, 1, exclude_max=True)
texts = st.text(st.characters(exclude_categories=["Cs"]))
weight_decays = {
    "weight_decay": st.floats(min_value=0, allow_infinity=False),
    "weight_decay_form": st.sampled_from(["l2", "decoupled"]),
}
optimizers = st.one_of(
    st.fixed_dictionaries(
        {"kind": st.just("adadelta")},
        optional={"learning_rate": positive, "rho": shares, "epsilon": positive},
    ),
    st.fixed_dictionaries(
        {"kind": st.just("sgd")},
        optional={
            "learning_rate": positive,
            "momentum": shares,
            "momentum_form": st.sampled_from(["rate_outside", "rate_inside"]),
            **weight_decays,
        },
    ),
    st.fixed_dictionaries(
        {"kind": st.just("adam")},
        optional={
            "learning_rate": positive,
            "beta1": shares,
            "beta2": shares,
            "epsilon": positive,
            "epsilon_form": st.sampled_from(["outside", "hat"]),
            **weight_decays,
        },
    ),
    st.fixed_dictionaries(
        {"kind": st.just("rmsprop")},
        optional={
            "learning_rate": positive,
            "rho": shares,
            "epsilon": positive,
            "epsilon_form": st.sampled_from(["outside", "inside"]),
        },
    ),
    st.fixed_dictionaries(
        {"kind": st.just("nadam")},
        optional={"beta1": shares, "beta2": shares, "momentum_decay": positive},
    ),
)
# What only fits together: a network with its dropout layers, an output with its loss.
networks = st.one_of(
    st.just({"network": "article"}),
    st.fixed_dictionaries(
        {"dropout": st.fixed_dictionaries({"dropout1": shares, "dropout2": shares})}
    ),
    st.fixed_dictionaries(
        {
            "network": st.just("keras-example"),
            "dropout": st.fixed_dictionaries({"dropout1": shares}),
        }
    ),
    st.just({"network": "lenet5", "dropout": {}}),
    st.just({"network": "fast", "dropout": {}}),
)
losses = st.sampled_from(
    [
        {"output": "logits"},
        {"loss": "cross_entropy_on_logits"},
        {"output": "probabilities"},
        {"output": "probabilities", "loss": "cross_entropy_on_logits"},
        {"output": "probabilities", "loss": "cross_entropy_on_probabilities"},
    ]
)
values_apart = st.fixed_dictionaries(
    {},
    optional={
        "name": st.from_regex(r"[a-z0-9][a-z0-9-]{0,59}", fullmatch=True),
        "description": texts,
        "source": texts,
        "published_accuracy": st.floats(0, 1),
        "published_note": texts,
        "seed": st.integers(0, 2**31 - 1),
        "epochs": st.integers(1, 100_000),
        "batch_size": st.integers(1, 1_000_000),
        "shuffle": st.booleans(),
        "validation_size": st.integers(min_value=0, max_value=2**63 - 1),
        "precision": st.sampled_from(["float32", "float64", "bfloat16"]),
        "normalization": st.fixed_dictionaries(
            {},
            optional={
                "mean": st.floats(0, 1) | st.just("computed"),
                "std": st.floats(0, 1, exclude_min=True) | st.just("computed"),
            },
        ),
        "initializer": st.fixed_dictionaries(
            {},
            optional={
                "kernel": st.sampled_from(
                    [
                        "glorot_uniform",
                        "he_uniform",
                        "fan_in_uniform",
                        "lecun_1998_uniform",
                        "zeros",
                    ]
                ),
                "bias": st.sampled_from(
                    ["zeros", "fan_in_uniform", "lecun_1998_uniform"]
                ),
            },
        ),
        "optimizer": optimizers,
        "clip_global_norm": st.floats(min_value=0, allow_infinity=False),
        "average_decay": shares,
        "augmentation": st.fixed_dictionaries(
            {},
            optional={
                "shift": st.floats(min_value=0, allow_infinity=False),
                "rotation": st.floats(0, 180),
                "scale": st.floats(0, 9),
                "keep_aspect": st.booleans(),
                "shear": st.floats(0, 90, exclude_max=True),
                "elastic": st.floats(min_value=0, allow_infinity=False),
                "elastic_smoothness": st.floats(0, 32, exclude_min=True),
                "cutout": st.integers(0, 2**40),
            },
        ),
        "decay": st.fixed_dictionaries(
            {},
            optional={
                "shape": st.sampled_from(["exponential", "linear", "cosine"]),
                "factor": st.floats(0, 1, exclude_min=True),
                "interval": positive,
                "unit": st.sampled_from(["epoch", "step"]),
            },
        ),
    },
)
valid_tables = st.builds(
    lambda apart, network, loss: {**apart, **network, **loss},
    values_apart,
    networks | st.just({}),
    losses | st.just({}),
)


@given(valid_tables)
def test_toml_gives_back_the_same_recipe(table):
    recipe = validate(table)
    again = parse(recipe.to_toml())
    assert again == recipe
    assert again.hash() == recipe.hash()
    assert again.to_toml() == recipe.to_toml()


@given(valid_tables)
def test_a_table_is_kept_as_it_was_given(table):
    came = validate(table).model_dump()
    for key, value in table.items():
        if isinstance(value, dict):
            assert value.items() <= came[key].items()
        else:
            assert came[key] == value


def test_whole_numbers_may_be_written_without_a_point():
    recipe = parse('optimizer = { kind = "sgd", learning_rate = 1 }')
    assert recipe == parse('optimizer = { kind = "sgd", learning_rate = 1.0 }')
    assert recipe.hash() == expected_hash(
        {**DECISIVE, "optimizer": {**OPTIMIZERS["sgd"], "learning_rate": 1.0}}
    )


# The article's recipe


def test_the_article_has_the_constants_of_the_article():
    found = Recipe().model_dump(exclude=NOT_DECISIVE)
    assert found == {**DECISIVE, "input_shape": None, "layers": None}
    assert load("article").model_dump(exclude=NOT_DECISIVE) == found
    assert load("article").name == "article"
    assert "article" in built_in()


# The built-in recipes

BUILT_IN = [
    "amy-jang",
    "article",
    "article-pytorch-notebook",
    "article-tensorflow-notebook",
    "fast",
    "ghouzam",
    "keras-example",
    "lenet5",
    "pytorch-example",
]
# What the two notebooks do otherwise, seven things: read off their code by hand. The
# first of them, one softmax or two, is the loss; the network ends in one in both.
NOTEBOOKS: dict[str, tuple[Any, Any]] = {
    "loss": ("cross_entropy_on_logits", "cross_entropy_on_probabilities"),
    "shuffle": (False, True),  # `shuffle=torch.cuda.is_available()`, and on a CPU
    "decay": (
        DECISIVE["decay"],
        {**DECISIVE["decay"], "interval": 60000.0, "unit": "step"},
    ),
    "optimizer.rho": (0.9, 0.95),
    "optimizer.epsilon": (1e-6, 1e-7),
    "initializer.kernel": ("fan_in_uniform", "glorot_uniform"),
    "initializer.bias": ("fan_in_uniform", "zeros"),
}


def value_of(table: dict[str, Any], key: str) -> Any:
    """The value under a dotted key."""
    here: Any = table
    for part in key.split("."):
        here = here[part]
    return here


def differing(one: Recipe, other: Recipe) -> set[str]:
    """The dotted keys of decisive values that differ; decay counts as one."""
    left, right = (x.model_dump(exclude=NOT_DECISIVE) for x in (one, other))
    keys = {"decay" if key.startswith("decay.") else key for key in leaves(left)}
    return {key for key in keys if value_of(left, key) != value_of(right, key)}


def test_the_built_in_recipes():
    assert built_in() == BUILT_IN


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_recipe_says_what_it_is_and_is_read_back(name):
    recipe = load(name)
    assert recipe.name == name
    assert recipe.description.endswith(".")
    assert "\n" not in recipe.description
    assert len(recipe.source) > 30
    assert parse(recipe.to_toml()) == recipe
    # A published figure is a share, and comes with what was published.
    if recipe.published_accuracy is not None:
        assert 0.9 < recipe.published_accuracy < 1
        assert recipe.published_note


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_file_of_a_built_in_recipe_leaves_nothing_to_defaults(name):
    path = Path(paripassu.__file__).parent / "core" / "recipes" / f"{name}.toml"
    written = tomllib.loads(path.read_text(encoding="utf-8"))
    needed = leaves(load(name).model_dump(exclude=NOT_DECISIVE, exclude_none=True))
    needed |= {"name", "description", "source"}
    optional = {"published_accuracy", "published_note"}
    assert needed <= leaves(written) <= needed | optional


def test_no_two_built_in_recipes_are_the_same_experiment():
    assert len({load(name).hash() for name in BUILT_IN}) == len(BUILT_IN)


def test_the_notebooks_differ_in_the_seven_things_and_no_other():
    pytorch, tensorflow = (
        load(f"article-{name}-notebook") for name in ("pytorch", "tensorflow")
    )
    assert len(NOTEBOOKS) == 7
    assert differing(pytorch, tensorflow) == set(NOTEBOOKS)
    for key, expected in NOTEBOOKS.items():
        tables = pytorch.model_dump(), tensorflow.model_dump()
        assert tuple(value_of(table, key) for table in tables) == expected, key
    for recipe in (pytorch, tensorflow):
        assert recipe.output == "probabilities"
        # As in both notebooks, and in the article itself.
        for key in ("network", "dropout", "normalization", "epochs", "batch_size"):
            assert value_of(recipe.model_dump(), key) == DECISIVE[key]
    # Red: one more value, or one less, is seen.
    assert differing(pytorch.changed(epochs=9), tensorflow) == {*NOTEBOOKS, "epochs"}
    less = pytorch.changed(shuffle=True)
    assert differing(less, tensorflow) == NOTEBOOKS.keys() - {"shuffle"}


# What the sources state, by hand, beside what they have from the article.
STATED: dict[str, dict[str, Any]] = {
    # pytorch/examples, mnist/main.py: the arguments' defaults, PyTorch's own weights.
    "pytorch-example": {
        **DECISIVE,
        "seed": 1,
        "epochs": 14,
        "initializer": {"kernel": "fan_in_uniform", "bias": "fan_in_uniform"},
    },
    # keras.io: batch 128, 15 epochs, validation_split 0.1 of 60,000, "adam", pixels
    # over 255, softmax and categorical_crossentropy; the rest are Keras's defaults.
    "keras-example": {
        "network": "keras-example",
        "batch_size": 128,
        "epochs": 15,
        "validation_size": 6000,
        "dropout": {"dropout1": 0.5},
        "normalization": {"mean": 0.0, "std": 1.0},
        "output": "probabilities",
        "loss": "cross_entropy_on_probabilities",
        "initializer": {"kernel": "glorot_uniform", "bias": "zeros"},
        "optimizer": {**OPTIMIZERS["adam"], "epsilon": 1e-7, "epsilon_form": "hat"}
        | {"weight_decay_form": "decoupled"},
        "decay": {**DECISIVE["decay"], "factor": 1.0},
    },
    # train_mnist_fast, notebook 8, but for what its note says is not as published.
    "fast": {
        "network": "fast",
        "epochs": 1,
        "dropout": {},
        "optimizer": {**OPTIMIZERS["adam"], "learning_rate": 0.008}
        | {"beta1": 0.7, "beta2": 0.9, "weight_decay_form": "decoupled"},
        "decay": {
            **DECISIVE["decay"],
            "shape": "linear",
            "interval": 600.0,  # 60,000 images in batches of 100
            "warm_up": 60.0,
            "unit": "step",
        },
    },
    # LeCun et al. 1998, section III.B: 20 passes; appendix A for the weights.
    "lenet5": {
        "network": "lenet5",
        "epochs": 20,
        "dropout": {},
        "initializer": {"kernel": "lecun_1998_uniform", "bias": "lecun_1998_uniform"},
    },
}


@pytest.mark.parametrize("name", STATED)
def test_a_built_in_recipe_has_the_constants_of_its_source(name):
    table = load(name).model_dump()
    assert {key: table[key] for key in STATED[name]} == STATED[name]


def test_pixels_of_lenet5_have_the_papers_range():
    # From -0.1 for background to 1.175: 1.275 wide, and shifted to begin at zero.
    chosen = load("lenet5").normalization
    assert (0 - chosen.mean) / chosen.std == 0
    assert (1 - chosen.mean) / chosen.std == pytest.approx(1.175 + 0.1, abs=1e-4)


def test_the_article_is_its_pytorch_notebook_put_right():
    """Without the second softmax, shuffled, and begun as Keras begins."""
    changed = {"output", "shuffle", "initializer.kernel", "initializer.bias"}
    assert differing(load("article"), load("article-pytorch-notebook")) == changed


# The hash


def test_hash_is_the_sha256_of_all_that_decides():
    assert load("article").hash() == expected_hash(DECISIVE)
    assert load("article").hash("data", "sums") == expected_hash(
        DECISIVE, "data", "sums"
    )
    # The name of every run that exists: it may not change unnoticed.
    assert load("article").hash() == "ae0828b19b560793"


def test_hash_ignores_what_does_not_decide():
    other: dict[str, Any] = {
        "name": "other",
        "description": "another",
        "source": "me",
        "published_accuracy": 0.5,
        "published_note": "it was so",
    }
    assert other.keys() == NOT_DECISIVE
    for key, value in other.items():
        assert load("article").changed(**{key: value}).hash() == expected_hash(DECISIVE)
    assert load("article").changed(**other).hash() == expected_hash(DECISIVE)


def test_hash_is_what_it_was_before_a_network_could_end_in_a_softmax():
    """A recipe of then says nothing of its output, and its runs keep their names."""
    later = {"output", "label_smoothing", "clip_global_norm", "average_decay"}
    later.add("augmentation")
    before = {key: value for key, value in DECISIVE.items() if key not in later}
    before["decay"] = {"factor": 0.7, "interval": 1.0, "unit": "epoch"}
    assert parse("").hash() == validate(before).hash() == "ae0828b19b560793"
    text = json.dumps([before], sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "ae0828b19b560793"
    # Red: an output that is another counts.
    assert parse("output = 'probabilities'").hash() != "ae0828b19b560793"


def test_another_value_is_known_for_every_decisive_key():
    known = OTHER_VALUES.keys() | {"network", "loss"}
    known |= {f"decay.{x}" for x in ("shape", "warm_up", "start", "final", "patience")}
    # They count with others only.
    known |= {f"augmentation.{x}" for x in ("keep_aspect", "elastic_smoothness")}
    fields = Recipe().model_dump(exclude=NOT_DECISIVE, exclude_none=True)
    assert known == leaves(fields)


@pytest.mark.parametrize("key", OTHER_VALUES)
def test_hash_changes_with_every_decisive_value(key):
    table = Recipe().model_dump()
    *path, last = key.split(".")
    here = table
    for part in path:
        here = here[part]
    here[last] = OTHER_VALUES[key]
    if key == "optimizer.kind":
        table["optimizer"] = {"kind": "sgd", "learning_rate": 1.0}
    assert validate(table).hash() != Recipe().hash()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_another_optimizer_has_its_own_constants_and_forms(kind):
    recipe = validate({"optimizer": {"kind": kind}})
    assert recipe.optimizer.model_dump() == OPTIMIZERS[kind]
    assert recipe.hash() == expected_hash({**DECISIVE, "optimizer": OPTIMIZERS[kind]})


@pytest.mark.parametrize(
    ("kind", "key"),
    [(kind, key) for kind, table in OPTIMIZERS.items() for key in table],
)
def test_hash_changes_with_every_constant_and_form(kind, key):
    others = {**OTHER_CONSTANTS, "kind": "adadelta"}
    others["epsilon_form"] = OTHER_FORMS.get(kind)
    table = {"kind": others[key]} if key == "kind" else {"kind": kind, key: others[key]}
    other = validate({"optimizer": table})
    assert other.hash() != validate({"optimizer": {"kind": kind}}).hash()


def test_hash_changes_with_what_only_changes_with_something_else():
    other_networks: list[dict[str, Any]] = [
        {"network": "keras-example", "dropout": {"dropout1": 0.5}},
        {"network": "lenet5", "dropout": {}},
    ]
    other_losses: list[dict[str, Any]] = [
        {"output": "probabilities", "loss": "cross_entropy_on_logits"},
        {"output": "probabilities", "loss": "cross_entropy_on_probabilities"},
    ]
    tables = [{}, *other_networks, *other_losses]
    for table in tables:
        assert validate(table).hash() == expected_hash({**DECISIVE, **table})
    assert len({validate(table).hash() for table in tables}) == len(tables)
    # By the network's name too, not by its dropout alone.
    other = Recipe().model_copy(update={"network": "lenet5"})
    assert other.hash() == expected_hash({**DECISIVE, "network": "lenet5"})


def test_hash_changes_with_the_shape_of_the_decay_and_its_warm_up():
    linear = {"shape": "linear", "interval": 10.0}
    cycle = {"shape": "one_cycle", "interval": 10.0, "warm_up": 2.0}
    tables = [
        *({}, {"interval": 10.0}, linear, {**linear, "warm_up": 2.0}),
        *({**linear, "shape": "cosine"}, {**linear, "shape": "cosine", "final": 0.1}),
        *(cycle, {**cycle, "start": 0.1}),
        *({"shape": "plateau"}, {"shape": "plateau", "patience": 4}),
    ]
    size = {"validation_size": 600}
    assert len({validate({"decay": table, **size}).hash() for table in tables}) == len(
        tables
    )


def test_hash_changes_with_what_belongs_to_an_augmentation():
    tables: list[dict[str, Any]] = [
        *({"scale": 0.1}, {"scale": 0.1, "keep_aspect": False}),
        *({"elastic": 1.0}, {"elastic": 1.0, "elastic_smoothness": 2.0}),
    ]
    hashes = {validate({"augmentation": table}).hash() for table in tables}
    assert len(hashes) == len(tables)


def test_a_record_from_before_a_field_differs_in_nothing():
    recipe = Recipe()
    earlier = recipe.model_dump()
    for key in ("label_smoothing", "average_decay", "augmentation"):
        del earlier[key]
    del earlier["decay"]["start"]
    assert recipe.differing(earlier) == []
    assert recipe.changed(label_smoothing=0.1).differing(earlier) == ["label_smoothing"]


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("warm_up = 1.0", "belongs to a linear decay"),
        ('shape = "linear"\ninterval = 5.0\nwarm_up = 5.0', "expected less than"),
        ('shape = "linear"\ninterval = 5.0\nwarm_up = -1.0', "warm_up"),
        ('shape = "sine"', "decay.shape: expected 'exponential', 'linear', 'cosine'"),
    ],
)
def test_a_decay_that_contradicts_itself(decay, expected):
    with pytest.raises(UserError) as refused:
        parse(f"[decay]\n{decay}\n")
    assert expected in str(refused.value)


def test_an_epsilon_under_the_root_is_of_one_form_and_counts():
    adam = {"kind": "adam", "epsilon_root": 1e-8}
    with pytest.raises(UserError, match="Expected epsilon_form = 'outside'"):
        validate({"optimizer": {**adam, "epsilon_form": "hat"}})
    plain = validate({"optimizer": {"kind": "adam"}})
    assert validate({"optimizer": adam}).hash() != plain.hash()
    before = plain.model_dump(exclude=NOT_DECISIVE, exclude_none=True)
    del before["optimizer"]["epsilon_root"]  # as it was before there was one
    assert plain.hash() == expected_hash(before)


def test_hash_separates_the_recipe_from_what_is_added():
    hashes = {Recipe().hash(*more) for more in [(), ("",), ("a", "b"), ("ab",)]}
    assert len(hashes) == 4


@given(valid_tables, st.randoms())
def test_hash_does_not_depend_on_the_order_of_keys(table, random):
    shuffled = list(table.items())
    random.shuffle(shuffled)
    if "dropout" in table:
        shuffled.append(("dropout", dict(reversed(table["dropout"].items()))))
    assert validate(dict(shuffled)).hash() == validate(table).hash()


# Frozen


@pytest.mark.parametrize(
    "part",
    [
        Recipe(),
        Normalization(),
        Initializer(),
        Decay(),
        SGD(kind="sgd"),
        Adam(kind="adam"),
        RMSprop(kind="rmsprop"),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_recipe_cannot_be_changed(part: BaseModel):
    for key in type(part).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, key, getattr(part, key))
    with pytest.raises(ValidationError):
        part.surprise = 1  # type: ignore[attr-defined]


def test_changed_makes_a_new_recipe_and_validates_it():
    recipe = Recipe()
    assert recipe.changed(seed=7).seed == 7
    assert recipe.seed == 42
    with pytest.raises(UserError, match=r"seed: expected .* got -1"):
        recipe.changed(seed=-1)


def test_recipes_do_not_share_their_dropout():
    one = Recipe()
    one.dropout["dropout1"] = 0.75
    assert Recipe().dropout["dropout1"] == 0.25


# Refusals: the key, what was expected, what came

REFUSED = [
    # unknown keys
    ("sedd = 3", ["'sedd'", "Did you mean seed?", "epochs"]),
    ("zzz = 3", ["'zzz'", "Known here", "seed"]),
    ('decay = { unlt = "step" }', ["'decay.unlt'", "Did you mean unit?", "factor"]),
    ("normalization = { men = 0.1 }", ["'normalization.men'", "Did you mean mean?"]),
    ('initializer = { kernal = "zeros" }', ["'initializer.kernal'", "mean kernel?"]),
    (
        'optimizer = { kind = "adadelta", roh = 0.9 }',
        ["'optimizer.roh'", "Did you mean rho?", "epsilon"],
    ),
    (
        'optimizer = { kind = "sgd", rho = 0.9 }',
        ["'optimizer.rho'", "kind, learning_rate, momentum"],
    ),
    (
        'optimizer = { kind = "sgd", sgd = { sgd = 1 } }',
        ["unknown key 'optimizer.sgd'", "Known here: kind"],
    ),
    (
        'optimizer = { kind = "adam", beta = 0.9 }',
        ["'optimizer.beta'", "Did you mean beta", "epsilon_form"],
    ),
    (
        'optimizer = { kind = "rmsprop", momentum = 0.9 }',
        ["'optimizer.momentum'", "epsilon_form, kind, learning_rate, rho"],
    ),
    # wrong types
    ("seed = true", ["seed", "integer", "True (bool)"]),
    ("seed = 1.0", ["seed", "integer", "1.0 (float)"]),
    ('seed = "1"', ["seed", "integer", "'1' (str)"]),
    ("seed = 1979-05-27", ["seed", "integer", "(date)"]),
    ("seed = [1]", ["seed", "integer", "[1] (list)"]),
    ("shuffle = 1", ["shuffle", "boolean", "1 (int)"]),
    ('shuffle = "true"', ["shuffle", "boolean", "'true' (str)"]),
    ("network = 3", ["network", "string", "3 (int)"]),
    ("precision = 32", ["precision", "'float32', 'float64' or 'bfloat16'", "32 (int)"]),
    ("decay = 0.7", ["decay", "table", "0.7 (float)"]),
    ("decay = { factor = true }", ["decay.factor", "number", "True (bool)"]),
    ('decay = { factor = "0.7" }', ["decay.factor", "number", "'0.7' (str)"]),
    ('optimizer = "sgd"', ["optimizer", "table", "'sgd' (str)"]),
    ("dropout = 0.5", ["dropout", "table", "0.5 (float)"]),
    (
        "dropout = { dropout1 = false, dropout2 = 0.5 }",
        ["dropout.dropout1", "number", "False (bool)"],
    ),
    ("normalization = { mean = true }", ["normalization.mean", "number", "'computed'"]),
    ('normalization = { mean = "calc" }', ["normalization.mean", "'computed'", "calc"]),
    ("normalization = { mean = { x = 1 } }", ["normalization.mean:", "{'x': 1}"]),
    # impossible values
    ("seed = -1", ["seed", "greater than or equal to 0", "-1 (int)"]),
    ("seed = 2147483648", ["seed", "less than 2147483648", "2147483648 (int)"]),
    ("epochs = 0", ["epochs", "greater than or equal to 1", "0 (int)"]),
    ("batch_size = 0", ["batch_size", "greater than or equal to 1", "0 (int)"]),
    ("validation_size = -1", ["validation_size", "greater than or equal to 0", "-1"]),
    (
        'precision = "float16"',
        ["precision", "'float32', 'float64' or 'bfloat16'", "'float16'"],
    ),
    ('loss = "mse"', ["loss", "'cross_entropy_on_logits'", "'mse'"]),
    ('output = "softmax"', ["output", "'logits' or 'probabilities'", "'softmax'"]),
    ("published_accuracy = 99.1", ["published_accuracy", "less than or equal to 1"]),
    ('published_accuracy = "99%"', ["published_accuracy", "number", "'99%' (str)"]),
    ("published_note = 3", ["published_note", "string", "3 (int)"]),
    (
        'initializer = { bias = "glorot_uniform" }',
        ["initializer.bias", "'lecun_1998_uniform'", "'glorot_uniform'"],
    ),
    # output and loss that contradict each other
    (
        'loss = "cross_entropy_on_probabilities"',
        [
            "output and loss contradict each other",
            "Expected output = 'probabilities' with this loss",
            "or loss = 'cross_entropy_on_logits'",
        ],
    ),
    (
        'output = "logits"\nloss = "cross_entropy_on_probabilities"',
        ["the network gives logits, and the loss wants probabilities"],
    ),
    ('name = "My recipe"', ["name", "small letters", "'My recipe'"]),
    ('name = "../up"', ["name", "small letters", "'../up'"]),
    (f'name = "{"a" * 61}"', ["name", "60 characters", "aaa"]),
    ("decay = { factor = 1.1 }", ["decay.factor", "less than or equal to 1", "1.1"]),
    ("decay = { interval = 0.0 }", ["decay.interval", "greater than 0", "0.0"]),
    ('decay = { unit = "week" }', ["decay.unit", "'epoch' or 'step'", "'week'"]),
    (
        'optimizer = { kind = "adadelta", rho = 1.0 }',
        ["optimizer.rho", "less than 1", "1.0 (float)"],
    ),
    (
        'optimizer = { kind = "sgd", learning_rate = 0 }',
        ["optimizer.learning_rate", "greater than 0", "0 (int)"],
    ),
    (
        'optimizer = { kind = "sgd", momentum = 1.0 }',
        ["optimizer.momentum", "less than 1", "1.0 (float)"],
    ),
    (
        'optimizer = { kind = "sgd", momentum_form = "nesterov" }',
        ["optimizer.momentum_form", "'rate_outside' or 'rate_inside'", "'nesterov'"],
    ),
    (
        'optimizer = { kind = "adam", weight_decay = -0.1 }',
        ["optimizer.weight_decay", "greater than or equal to 0", "-0.1"],
    ),
    (
        'optimizer = { kind = "rmsprop", epsilon = 0.0 }',
        ["optimizer.epsilon", "greater than 0", "0.0"],
    ),
    ("normalization = { std = 0.0 }", ["normalization.std", "greater than 0", "0.0"]),
    # what is no number
    ("decay = { factor = nan }", ["decay.factor", "finite", "nan (float)"]),
    ("decay = { interval = inf }", ["decay.interval", "finite", "inf (float)"]),
    ("normalization = { std = nan }", ["normalization.std", "finite", "nan (float)"]),
    (
        'optimizer = { kind = "sgd", learning_rate = inf }',
        ["optimizer.learning_rate", "finite", "inf (float)"],
    ),
    (
        "dropout = { dropout1 = nan, dropout2 = 0.5 }",
        ["dropout.dropout1", "finite", "nan (float)"],
    ),
    # the optimizer's kind
    ("optimizer = { learning_rate = 1.0 }", ["optimizer.kind is missing", "adadelta"]),
    ('optimizer = { kind = "lion" }', ["optimizer.kind", "'adam', 'rmsprop'", "lion"]),
    ("optimizer = { kind = 1 }", ["optimizer.kind", "'adadelta', 'sgd'", "1"]),
    # the layers of dropout
    (
        "dropout = { dropout1 = 0.25 }",
        ["dropout", "each of dropout1, dropout2", "got dropout1"],
    ),
    (
        "dropout = { dropout1 = 0.2, dropout2 = 0.5, dropout3 = 0.5 }",
        ["dropout", "each of dropout1, dropout2", "got dropout1, dropout2, dropout3"],
    ),
    ("dropout = { }", ["dropout", "each of dropout1, dropout2", "got none"]),
    (
        "dropout = { dropout1 = 1, dropout2 = 0.5 }",
        ["dropout.dropout1", "less than 1", "1 (int)"],
    ),
    (
        'network = "lenet5"\ndropout = { dropout1 = 0.5 }',
        ["dropout: expected none", "of network 'lenet5'", "got dropout1"],
    ),
    (
        'network = "lenet5"',  # what a recipe has that says nothing of dropout
        ["dropout: expected none", "of network 'lenet5'", "got dropout1, dropout2"],
    ),
    (
        'network = "keras-example"',
        ["dropout", "each of dropout1 (", "got dropout1, dropout2"],
    ),
    (
        'network = "keras-example"\ndropout = { dropout2 = 0.5 }',
        ["dropout", "each of dropout1 (", "'keras-example'", "got dropout2"],
    ),
    # the network
    (
        'network = "vgg"',
        ["network", "expected one of article, keras-example, lenet5, fast", "'vgg'"],
    ),
    # not TOML
    ("seed 3", ["not TOML", "line 1"]),
    ("seed = 3\nseed = 4", ["not TOML", "overwrite"]),
    pytest.param(f"seed = {'9' * 5000}", ["not TOML", "4300"], id="long number"),
    pytest.param(f"seed = {'[' * 20_000}", ["not TOML", "nested"], id="deep"),
    pytest.param(f"seed = 0x{'f' * 5000}", ["seed", "expected"], id="huge number"),
]


@pytest.mark.parametrize(("table", "parts"), REFUSED)
def test_a_bad_recipe_is_refused_with_key_expected_and_came(table, parts):
    message = refusal(table)
    for part in parts:
        assert part in message, message
    assert "constrained" not in message  # pydantic's own words


def test_every_bad_key_is_named_at_once():
    message = refusal("seed = -1\nepochs = 0\nsedd = 2")
    assert all(key in message for key in ("seed:", "epochs:", "'sedd'"))


def test_the_origin_of_a_bad_recipe_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("seed = -1")
    with pytest.raises(UserError, match=r"recipe file .*mine\.toml: seed: expected"):
        load(str(path))
    path.write_text("seed -1")
    with pytest.raises(UserError, match=r"recipe file .*mine\.toml is not TOML"):
        load(str(path))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"no recipe 'nope'.*article.*path of a TOML"):
        load("nope")
    with pytest.raises(UserError, match=r"no recipe .articel.*Did you mean article\?"):
        load("articel")
    with pytest.raises(UserError, match=r"cannot read recipe file .*directory"):
        load(str(tmp_path))
    with pytest.raises(UserError, match=r"cannot read recipe file .*too long"):
        load("a" * 5000)
    latin = tmp_path / "latin.toml"
    latin.write_bytes('description = "für"'.encode("latin-1"))
    with pytest.raises(UserError, match=r"cannot read recipe file .*latin\.toml.*0xfc"):
        load(str(latin))


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"], ids=["NUL", "surrogate"])
def test_a_name_that_no_file_can_have(name):
    with pytest.raises(UserError, match="cannot read recipe file"):
        load(name)


def test_a_recipe_is_utf_8_wherever_it_is_read(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes('description = "für alle"'.encode())
    script = (
        "import sys, locale; assert locale.getencoding() != 'UTF-8'\n"
        "from paripassu.core.recipe import load\n"
        "print(ascii(load(sys.argv[1]).description), load('article').name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env={
            **os.environ,
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "'f\\xfcr alle' article\n", done.stderr


# --set


def changes(*given_settings: str) -> dict[str, Any]:
    """What --set changed of the article, by dotted key."""
    table = load("article", list(given_settings)).model_dump()
    before = Recipe(name="article").model_dump()
    known = leaves(before)
    return {
        key: value_of(table, key)
        for key in sorted(leaves(table) - {"description", "source"})
        if key not in known or value_of(table, key) != value_of(before, key)
    }


def test_settings_replace_values():
    assert changes() == {}
    assert changes("seed=7") == {"seed": 7}
    assert changes(" seed = 7 ") == {"seed": 7}
    assert changes("optimizer.rho=0.95") == {"optimizer.rho": 0.95}
    assert changes("dropout.dropout1=0") == {"dropout.dropout1": 0.0}
    assert changes("dropout={dropout1 = 0.1, dropout2 = 0.5}") == {
        "dropout.dropout1": 0.1
    }
    assert changes("shuffle=false", "decay.factor=1") == {
        "shuffle": False,
        "decay.factor": 1.0,
    }


def test_what_fits_together_is_set_together_in_any_order():
    output, loss = "output=probabilities", "loss=cross_entropy_on_probabilities"
    expected = {
        "loss": "cross_entropy_on_probabilities",
        "output": "probabilities",
    }
    assert changes(output, loss) == changes(loss, output) == expected
    lenet5 = load("article", ["network=lenet5", "dropout={}"])
    assert (lenet5.network, lenet5.dropout) == ("lenet5", {})


def test_words_need_no_quotes():
    for word in ("computed", '"computed"', "'computed'", " computed "):
        assert changes(f"normalization.mean={word}") == {
            "normalization.mean": "computed"
        }
    assert load("article", ["description=two words = 2"]).description == "two words = 2"
    assert load("article", ["source="]).source == ""


def test_the_last_of_equal_settings_counts():
    assert changes("seed=1", "seed=2") == {"seed": 2}


def test_another_kind_starts_from_its_own_defaults_in_any_order():
    sgd = SGD(kind="sgd", learning_rate=0.5)
    one = load("article", ["optimizer.kind=sgd", "optimizer.learning_rate=0.5"])
    other = load("article", ["optimizer.learning_rate=0.5", "optimizer.kind=sgd"])
    assert one.optimizer == other.optimizer == sgd
    assert load("article", ["optimizer.kind=sgd"]).optimizer.learning_rate == 0.01


def test_the_same_kind_keeps_its_values(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[optimizer]\nkind = "adadelta"\nrho = 0.5\n')
    recipe = load(str(path), ["optimizer.kind=adadelta", "optimizer.epsilon=1e-8"])
    assert recipe.optimizer == Adadelta(kind="adadelta", rho=0.5, epsilon=1e-8)


BAD_SETTINGS = [
    (["seed"], ["'seed'", "KEY=VALUE", "for example"]),
    (["=3"], ["'=3'", "KEY=VALUE"]),
    (["a..b=3"], ["'a..b=3'", "KEY=VALUE"]),
    (["seed.low=3"], ["seed.low", "'seed' is no table"]),
    (["optimizer.rho.x=3"], ["optimizer.rho.x", "'rho' is no table"]),
    (["optimiser.rho=0.5"], ["'optimiser'", "Did you mean optimizer?"]),
    (["optimizer.roh=0.5"], ["'optimizer.roh'", "Did you mean rho?"]),
    (["optimizer.kind=lion"], ["optimizer.kind", "'adadelta', 'sgd'", "'lion'"]),
    (
        ["optimizer.kind=adam", "optimizer.epsilon_form=inside"],
        ["optimizer.epsilon_form", "'outside' or 'hat'", "'inside'"],
    ),
    (
        ["optimizer.kind=sgd", "optimizer.rho=0.5"],
        ["'optimizer.rho'", "learning_rate"],
    ),
    (["optimizer=sgd"], ["optimizer", "expected a table", "'sgd'"]),
    (["seed=word"], ["seed", "integer", "'word' (str)"]),
    (["seed="], ["seed", "integer", "'' (str)"]),
    (["dropout.dropout3=0.5"], ["dropout", "each of dropout1, dropout2", "dropout3"]),
    (
        ["loss=cross_entropy_on_probabilities"],
        ["output and loss contradict each other", "Expected output = 'probabilities'"],
    ),
    (["output=softmax"], ["output", "'logits' or 'probabilities'", "'softmax'"]),
    (["network=lenet5"], ["dropout: expected none", "got dropout1, dropout2"]),
    pytest.param([f"seed={'9' * 5000}"], ["seed", "integer", "999"], id="long number"),
    pytest.param([f"seed={'[' * 20_000}"], ["seed", "integer", "[[["], id="deep"),
]


def test_a_contradiction_is_seen_from_either_side():
    tensorflow = "article-tensorflow-notebook"
    assert load(tensorflow).loss == "cross_entropy_on_probabilities"
    with pytest.raises(UserError, match="--set: output and loss contradict"):
        load(tensorflow, ["output=logits"])
    with pytest.raises(UserError, match="output and loss contradict"):
        load("article").changed(loss="cross_entropy_on_probabilities")
    # Probabilities taken for logits are no contradiction: a notebook does that.
    both = ["output=probabilities", "loss=cross_entropy_on_logits"]
    assert load(tensorflow, both).output == "probabilities"


@pytest.mark.parametrize(("given_settings", "parts"), BAD_SETTINGS)
def test_a_bad_setting_is_refused(given_settings, parts):
    with pytest.raises(UserError, match="--set") as caught:
        load("article", given_settings)
    for part in parts:
        assert part in str(caught.value)


# Whatever is written, only a `UserError` comes


def check_only_user_errors(function, *arguments):
    with contextlib.suppress(UserError):
        assert isinstance(function(*arguments), Recipe)


KEYS = sorted(leaves(Recipe().model_dump()) | Recipe.model_fields.keys())
keys = st.sampled_from(KEYS) | st.text(max_size=8)
values = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        [
            *("true", '"x"', "[]", "[[1]]", "{}", "{kind = 'sgd'}", "{kind = {}}"),
            *(
                "computed",
                "sgd",
                "adam",
                "07:32:00",
                "0xff",
                "{a.b = 1}",
                "nan",
                "'",
                '"""',
            ),
        ]
    ),
    st.text(max_size=12),
)
lines = st.builds("{} = {}".format, keys, values) | keys.map("[{}]".format)


@settings(max_examples=200)
@given(st.text() | st.lists(lines, max_size=4).map("\n".join))
@example("optimizer = {kind = 'sgd', sgd = {sgd = 1}}")
@example("[[optimizer]]")
@example("[dropout.dropout1]")
def test_any_text_is_a_recipe_or_a_user_error(text):
    check_only_user_errors(parse, text)


@settings(max_examples=200)
@given(
    st.lists(st.text(max_size=12) | st.builds("{}={}".format, keys, values), max_size=4)
)
@example(["optimizer.kind={}", "optimizer.kind=[1]"])
@example(["optimizer={}", "optimizer.kind=sgd"])
def test_any_settings_make_a_recipe_or_a_user_error(given_settings):
    check_only_user_errors(load, "article", given_settings)


@given(st.text())
def test_any_name_is_a_recipe_or_a_user_error(name):
    check_only_user_errors(load, name)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)
        ),
        max_leaves=6,
    ).flatmap(lambda value: st.dictionaries(keys, st.just(value), max_size=4))
)
def test_any_table_is_a_recipe_or_a_user_error(table):
    check_only_user_errors(validate, table)


def test_bfloat16_is_another_experiment_and_is_used_in_float32():
    plain = Recipe()
    mixed = plain.changed(precision="bfloat16")
    assert mixed.hash() != plain.hash()
    assert (plain.storage, mixed.storage) == ("float32", "float32")
    assert plain.changed(precision="float64").storage == "float64"
    assert mixed.for_use == plain
