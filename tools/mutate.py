"""Changes what trains, a small change at a time: does the proof turn red?

    python tools/mutate.py --framework pytorch --count 150 --jobs 2
    python tools/mutate.py --framework pytorch --count 150 --tests
    python tools/mutate.py --framework pytorch --equivalent KEY "what makes it so"
    python tools/mutate.py --framework pytorch --survives KEY "why nothing finds it"

Mutants are of a framework's lesson, networks, recipes, optimizers, weights and trainer:
constants, operators, conditions, dropped statements and arguments, exchanged arguments,
and what an engineer might add (regularizers, constraints, clipping, a cap). A worker
puts each into its own process and makes a short proof (`tests/short_proof.py`), the
cheapest stage first, with the recipes that reach the file; what is red is done with.
With `--tests`, fast tests of the framework judge what has survived. The record,
`results/mutants/FRAMEWORK.jsonl`, grows line by line: a run that was interrupted goes
on. It begins with the files as they are, which must hold. What is said of mutants is in
it too, and in docs/proof.md.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import hashlib
import importlib
import importlib.abc
import importlib.util
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
RECORDS = ROOT / "results" / "mutants"
FILES = ("lesson", "trainer", "recipes", "optimizers", "weights")
LIMIT = 240  # seconds for one mutant
RENEWED = 20  # mutants in one worker: libraries keep what was compiled
# Parts that train nothing; what tests hold is held by tests.
LEFT_OUT = {"predict", "save", "load_saved", "peak_accelerator_bytes", "device_name"}
SMALL = "keras-example"
CYCLE = {"shape": "linear", "interval": 20.0, "warm_up": 4.0, "unit": "step"}
STEPS = {"shape": "exponential", "factor": 0.7, "interval": 3.0, "unit": "step"}
EPOCHS = {**STEPS, "unit": "epoch"}
SGD = {"kind": "sgd", "learning_rate": 0.1}
ADAM = {"kind": "adam", "learning_rate": 0.01}
PLAIN = {"output": "logits", "loss": "cross_entropy_on_logits"}
# Recipes by what of them a file reads; the first red one is enough.
OF_LESSON = [("article", {}), ("article", {"decay": EPOCHS})]
OF_RECIPES = [
    (SMALL, {"optimizer": SGD, "decay": CYCLE}),
    (SMALL, {"optimizer": SGD, "loss": "cross_entropy_on_logits"}),
    ("article", {"decay": STEPS}),
]
OF_OPTIMIZERS = [
    (SMALL, {**PLAIN, "optimizer": x})
    for x in (
        {**SGD, "momentum": 0.9, "momentum_form": "rate_inside", "weight_decay": 0.1},
        {**SGD, "momentum": 0.9, "momentum_form": "rate_outside"}
        | {"weight_decay": 0.1, "weight_decay_form": "l2"},
        {**SGD, "weight_decay": 0.1, "weight_decay_form": "decoupled"},
        {**ADAM, "epsilon_form": "hat", "epsilon": 1e-3, "weight_decay": 0.1},
        {**ADAM, "epsilon_form": "outside", "epsilon": 1e-3, "weight_decay": 0.1}
        | {"weight_decay_form": "l2"},
        {**ADAM, "epsilon_form": "hat", "weight_decay": 0.1}
        | {"weight_decay_form": "l2"},
        {**ADAM, "epsilon_form": "outside", "weight_decay": 0.1},
        {**ADAM, "epsilon_form": "outside", "epsilon_root": 1e-3},
        {"kind": "rmsprop", "epsilon_form": "inside", "learning_rate": 0.01},
        {"kind": "rmsprop", "epsilon_form": "outside", "learning_rate": 0.01},
        SGD,
    )
]
BY_FILE: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "lesson": OF_LESSON,
    "weights": [("article", {}), ("lenet5", {})],
    "trainer": [("article", {}), *OF_RECIPES],
    "recipes": [("article", {}), *OF_RECIPES],
    "optimizers": [
        *OF_OPTIMIZERS,
        (SMALL, {**PLAIN, "optimizer": SGD, "decay": CYCLE}),
        (SMALL, {**PLAIN, "optimizer": SGD, "decay": STEPS}),
        ("article", {}),
    ],
    "networks.fast": [("fast", {})],
    "networks.keras_example": [(SMALL, {})],
    "networks.lenet5": [("lenet5", {})],
}
UNCHANGED = "unchanged"  # the kind of a file that is as it is


@dataclass(frozen=True)
class Mutant:
    """One changed file."""

    file: str  # a module of the framework's package
    line: int
    kind: str
    change: str  # the changed line, or what was dropped
    source: str

    @property
    def key(self) -> str:
        """The same wherever it is made from the same text."""
        return hashlib.sha256(f"{self.file}\n{self.source}".encode()).hexdigest()[:12]


# What may be changed


OTHER: dict[type[ast.AST], type[Any]] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt},
    **{ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.In: ast.NotIn, ast.NotIn: ast.In},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is},
}


def _swapped(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Each other form of one node, with the kind of change."""
    match node:
        case ast.Constant(value=bool() as value):
            yield "constant", ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield "constant", ast.Constant(value + 1)
        case ast.Constant(value=float() as value):
            yield "constant", ast.Constant(value * 1.1 if value else 0.1)
        case ast.BinOp(left, operator, right) if type(operator) in OTHER:
            yield "operator", ast.BinOp(left, OTHER[type(operator)](), right)
        case ast.UnaryOp(ast.USub() | ast.Not(), operand):
            yield "operator", operand
        case ast.Compare(left, [operator], comparators):
            other = OTHER[type(operator)]()
            yield "operator", ast.Compare(left, [other], comparators)
        case ast.BoolOp(operator, values):
            yield "operator", ast.BoolOp(OTHER[type(operator)](), values)
        case ast.IfExp(test, body, other_body):
            yield "condition", ast.IfExp(test, other_body, body)
        case ast.Attribute(ast.Name("nnx"), "relu"):
            for name in ("relu6", "leaky_relu", "gelu"):
                yield "added", ast.Attribute(ast.Name("nnx"), name)
        case ast.Call():
            yield from _of_call(node)
        case ast.stmt():
            yield from _of_statement(node)


def _of_statement(node: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.If(test, body, orelse):
            yield "condition", ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.AugAssign(target, operator, value):
            yield "operator", ast.AugAssign(target, OTHER[type(operator)](), value)
            yield "dropped", ast.Pass()
        case ast.Expr(ast.Call()):
            yield "dropped", ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "dropped", ast.Pass()


ADDED = {  # what an engineer might write beside the arguments of a call
    "Conv2D": "kernel_regularizer='l2'; kernel_constraint='max_norm'; "
    "bias_regularizer='l1'; activity_regularizer='l2'; activation='relu6'; "
    "padding='same'; use_bias=False; strides=2",
    "Dense": "kernel_regularizer='l1'; kernel_constraint='unit_norm'; "
    "bias_constraint='non_neg'; activity_regularizer='l1'; use_bias=False",
    "ReLU": "max_value=6; negative_slope=0.01; threshold=0.001",
    "MaxPooling2D": "padding='same'; strides=1",
    "MaxPool2d": "padding=1; stride=1; ceil_mode=True; dilation=2",
    "Conv2d": "padding=1; bias=False; stride=2; padding_mode='circular'",
    "nn.Linear": "bias=False",
    "nnx.Conv": "use_bias=False; padding='SAME'; strides=2; kernel_dilation=2",
    "nnx.Linear": "use_bias=False",
    "adadelta": "weight_decay=0.0001",
    "torch.Adadelta": "weight_decay=0.0001",
    "keras.Adadelta": "clipnorm=50.0; clipvalue=20.0; global_clipnorm=100.0; "
    "use_ema=True; gradient_accumulation_steps=2; weight_decay=1e-06",
    "CrossEntropyLoss": "label_smoothing=0.001; reduction='sum'",
    "SparseCategoricalCrossentropy": "ignore_class=3; reduction='sum'",
    "fit": "class_weight={0: 1.01, **{n: 1 for n in range(1, 10)}}",
    "compile": "loss_weights=[1.001]; jit_compile=False",
}
NAMES = {
    **{"argmax": "argmin", "train": "eval", "eval": "train", "maximum": "minimum"},
    **{"zeros_like": "ones_like", "sub_": "add_", "add_": "sub_", "mul_": "div_"},
    **{"assign_add": "assign_sub", "assign_sub": "assign_add", "float": "double"},
    **{"exp": "sqrt", "sqrt": "exp", "max": "min", "min": "max", "ceil": "floor"},
    **{"add_cdiv": "sub", "addcdiv_": "addcmul_", "clamp_min": "clamp_max"},
    **{"avg_pool2d": "max_pool2d", "average_pool": "max_pool", "mean": "sum"},
}


def _of_call(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    for number in range(len(node.keywords)):
        if node.keywords[number].arg:
            less = copy.deepcopy(node)
            del less.keywords[number]
            yield "argument dropped", less
    if len(node.args) > 1 and not any(isinstance(x, ast.Starred) for x in node.args):
        for number in range(len(node.args) - 1):
            crossed = copy.deepcopy(node)
            first, second = crossed.args[number : number + 2]
            crossed.args[number : number + 2] = [second, first]
            yield "arguments exchanged", crossed
    name = getattr(node.func, "attr", getattr(node.func, "id", None))
    if name in NAMES and isinstance(node.func, ast.Attribute):
        renamed = copy.deepcopy(node)
        renamed.func.attr = NAMES[str(name)]
        yield "name", renamed
    for extra in _extras(node, str(name)):
        more = copy.deepcopy(node)
        arg = ast.parse(f"f({extra})", mode="eval").body
        assert isinstance(arg, ast.Call)
        known = {x.arg for x in arg.keywords}
        more.keywords = [x for x in more.keywords if x.arg not in known]
        more.keywords += arg.keywords
        yield "added", more
    if name == "ReLU" and getattr(getattr(node.func, "value", None), "id", "") == "nn":
        for other in ("ReLU6", "LeakyReLU", "GELU"):
            renamed = copy.deepcopy(node)
            assert isinstance(renamed.func, ast.Attribute)
            renamed.func.attr = other
            yield "added", renamed


def _extras(node: ast.Call, name: str) -> list[str]:
    owner = ast.unparse(node.func).partition(".")[0]
    if owner == "nn" and name == "ReLU":
        return []
    found = ADDED.get(name) or ADDED.get(f"{owner}.{name}", "")
    return found.split("; ") if found else []


INSERTED = {  # statements around the step of a loop
    "optimizer.update(network, gradients)": [
        ("before", "gradients = jax.tree.map(lambda x: x.clip(-20, 20), gradients)"),
        ("before", "gradients, _ = optax.clip_by_global_norm(100.0)"
         ".update(gradients, None)"),
        ("after", "nnx.update(network, jax.tree.map(lambda x: x.clip(-3, 3), "
         "nnx.state(network, nnx.Param)))"),
        ("after", "nnx.update(network, jax.tree.map(lambda x: x * (1 - 1e-7), "
         "nnx.state(network, nnx.Param)))"),
        ("after", "optimizer.update(network, gradients)"),
    ],
    "optimizer.step()": [
        ("before", "torch.nn.utils.clip_grad_norm_(network.parameters(), 100.0)"),
        ("before", "torch.nn.utils.clip_grad_value_(network.parameters(), 20.0)"),
        ("before", "[p.grad.nan_to_num_().clamp_(-1e3, 1e3) for p in "
         "network.parameters()]"),
        ("after", "[p.data.clamp_(-3, 3) for p in network.parameters()]"),
        ("after", "[p.data.mul_(1 - 1e-7) for p in network.parameters()]"),
        ("after", "optimizer.step()"),
    ],
    "loss.backward()": [
        ("before", "loss = loss + 1e-6 * network.conv1.weight.square().sum()"),
        ("before", "loss = loss.clamp(max=50)"),
        ("after", "network.conv1.bias.grad = None"),
    ],
}  # fmt: skip


def mutants(file: str, text: str) -> list[Mutant]:
    """Every mutant of a module, in its order."""
    tree = ast.parse(text)
    found: dict[str, Mutant] = {}
    original = ast.unparse(tree)

    def note(changed: ast.Module, line: int, kind: str, change: ast.AST) -> None:
        source = ast.unparse(ast.fix_missing_locations(changed))
        if source != original:
            one = Mutant(file, line, kind, ast.unparse(change)[:120], source)
            found.setdefault(one.key, one)

    for path, node in _walk(tree):
        for kind, other in _swapped(node):
            said = node if isinstance(other, ast.Pass) else other
            note(_replaced(tree, path, other), getattr(node, "lineno", 0), kind, said)
        if isinstance(node, ast.Expr):
            for where, statement in INSERTED.get(ast.unparse(node), []):
                new = ast.parse(statement).body[0]
                pair = [new, node] if where == "before" else [node, new]
                both = ast.If(ast.Constant(True), pair, [])
                note(_replaced(tree, path, both), node.lineno, "added", new)
    return list(found.values())


Path_ = tuple[tuple[str, int | None], ...]


def _walk(node: ast.AST, path: Path_ = ()) -> Iterator[tuple[Path_, ast.AST]]:
    """Every node that trains, with the way to it."""
    match node:
        case ast.FunctionDef(name=name) if name in LEFT_OUT:
            return
        case ast.If(ast.Compare(ast.Name("__name__"))):
            return
        case ast.Raise():
            return
        case ast.Dict(keys=[ast.Constant(str()), *_]):  # settings, versions: words
            if not any(isinstance(x, ast.Call) for x in ast.walk(node)):
                return
    yield path, node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        if isinstance(value, ast.AST):
            yield from _walk(value, (*path, (field, None)))
        elif isinstance(value, list):
            for number, each in enumerate(value):
                if isinstance(each, ast.AST):
                    yield from _walk(each, (*path, (field, number)))


def _replaced(tree: ast.Module, path: Path_, new: ast.AST) -> ast.Module:
    if not path:
        raise ValueError("a module is not replaced as a whole")
    changed = copy.deepcopy(tree)
    node: Any = changed
    for field, number in path[:-1]:
        node = getattr(node, field)
        node = node if number is None else node[number]
    field, number = path[-1]
    if number is None:
        setattr(node, field, copy.deepcopy(new))
    else:
        getattr(node, field)[number] = copy.deepcopy(new)
    return changed


# The worker


class Changed(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Gives some modules another source."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.sources = sources

    def find_spec(self, fullname: str, *_: Any) -> Any:
        if fullname in self.sources:
            return importlib.util.spec_from_loader(fullname, self)
        return None

    def get_source(self, fullname: str) -> str:
        return self.sources[fullname]


def judge(
    framework: str,
    folder: Path,
    *,
    sources: dict[str, str],
    recipes: list[Any],
    stages: list[str],
) -> dict[str, Any]:
    """Whether a framework with other sources is found out, and by what.

    Args:
        framework: its name.
        folder: where the reference's traces are kept.
        sources: of modules of its package, by their names in it.
        recipes: names and changes; the first red one ends it.
        stages: of the short proof; none: all.
    """
    import short_proof

    from paripassu.core.recipe import load
    from paripassu.frameworks import registry

    package = registry.find(framework).package
    for name in [x for x in sys.modules if f"{x}.".startswith(f"{package}.")]:
        del sys.modules[name]  # the package too: it holds its modules
    finder = Changed({f"{package}.{name}": x for name, x in sources.items()})
    sys.meta_path.insert(0, finder)
    try:
        chosen = [load(name).changed(**changes) for name, changes in recipes]
        # The cheapest stage first, with all recipes.
        for stage, recipe in itertools.product(stages or short_proof.STAGES, chosen):
            if rows := short_proof.prove(framework, recipe, folder, [stage]):
                worst = min(rows, key=lambda x: (x.rung or 0, bool(x.start)))
                start = f", {worst.start}" if worst.start else ""
                return {"red": f"rung {worst.rung}, {worst.quantity}{start}"}
    except Exception as error:  # whatever the change breaks
        return {"red": f"{type(error).__name__}: {str(error)[:160]}"}
    finally:
        sys.meta_path.remove(finder)
        gc.collect()
    return {"red": None}


def work(framework: str, folder: Path) -> None:
    """Judge what comes in, a line of JSON each."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        found = judge(framework, folder, **json.loads(line))
        answers.write(json.dumps(found) + "\n")


class Worker:
    """A process that judges, and is replaced when it hangs, dies or grows."""

    def __init__(self, framework: str, folder: Path) -> None:
        self._command = [sys.executable, __file__, "--framework", framework]
        self._command += ["--work", "--folder", str(folder)]
        self.framework = framework
        self._compiled = str(folder / "compiled")
        self._process: subprocess.Popen[str] | None = None
        self._done = 0

    def ask(
        self, sources: dict[str, str], recipes: list[Any], limit: float
    ) -> dict[str, Any]:
        """What it says of other sources, within some seconds."""
        if self._process is None or self._done >= RENEWED:
            self.close()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                # What XLA has compiled for one mutant is there for the next.
                env=os.environ | {"JAX_COMPILATION_CACHE_DIR": self._compiled},
            )
            self._done = 0
        process = self._process
        assert process.stdin
        assert process.stdout
        asked = {"sources": sources, "recipes": recipes, "stages": []}
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        clock = threading.Timer(limit, process.kill)
        clock.start()
        line = process.stdout.readline()
        clock.cancel()
        self._done += 1
        if not line:
            self.close()
            return {"red": "the process hung or died"}
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End it."""
        if self._process:
            self._process.kill()
            self._process.wait()
            for end in (self._process.stdin, self._process.stdout):
                if end:
                    end.close()
        self._process = None


# The run


def all_mutants(framework: str) -> list[Mutant]:
    """Those of every file, what engineers add first, the others shuffled."""
    from paripassu.frameworks import registry

    folder = registry.find(framework).folder
    names = [*FILES, *(f"networks.{x.stem}" for x in folder.glob("networks/[a-z]*.py"))]
    found: list[Mutant] = []
    for name in sorted(names):
        path = folder / (name.replace(".", "/") + ".py")
        if path.exists():
            found += mutants(name, path.read_text())
    random.Random(17).shuffle(found)
    added = [x for x in found if x.kind == "added" and x.file == "lesson"]
    return added + [x for x in found if x not in added]


def run(
    framework: str, out: Path, chosen: list[Mutant], folder: Path, jobs: int, end: float
) -> None:
    """Judge mutants that the record does not have yet, some at a time, until `end`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {x["key"] for x in read(out)}
    plain = [
        Mutant(file, 0, UNCHANGED, "", "") for file in sorted({x.file for x in chosen})
    ]
    # Whoever begins has the reference's traces to make, for all.
    for some, count in ((plain, 1), (chosen, jobs)):
        left = iter([x for x in some if x.key not in done])
        lock = threading.Lock()

        def judge_some(left: Iterator[Mutant] = left, lock: Any = lock) -> None:
            worker = Worker(framework, folder)
            while time.monotonic() < end:
                with lock:
                    mutant = next(left, None)
                if mutant is None:
                    break
                told = _judged(worker, mutant)
                with lock, out.open("a") as file:
                    file.write(json.dumps(told) + "\n")
            worker.close()

        lanes = [threading.Thread(target=judge_some) for _ in range(count)]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        for told in read(out):
            if told["kind"] == UNCHANGED and told["red"]:
                raise SystemExit(f"{told['file']} as it is: {told['red']}")


def _judged(worker: Worker, mutant: Mutant) -> dict[str, Any]:
    """The line of a mutant."""
    from paripassu.core import machine
    from paripassu.frameworks import registry

    start = time.monotonic()
    plain = mutant.kind == UNCHANGED
    recipes = BY_FILE.get(mutant.file, OF_LESSON)
    sources = {} if plain else {mutant.file: mutant.source}
    found = worker.ask(sources, recipes, LIMIT * (len(recipes) if plain else 1))
    if plain:
        found |= {"processor": machine.processor()}
        found |= {"version": str(registry.find(worker.framework).version)}
    return {
        **{"key": mutant.key, "file": mutant.file, "line": mutant.line},
        **{"kind": mutant.kind, "change": mutant.change, **found},
        "seconds": round(time.monotonic() - start, 1),
    }


def read(out: Path) -> list[dict[str, Any]]:
    """The lines of a record; none if there is none."""
    text = out.read_text() if out.exists() else ""
    return [json.loads(x) for x in text.splitlines()]


def write(out: Path, lines: list[dict[str, Any]]) -> None:
    """The record anew, whole."""
    from paripassu.core.files import write_text

    write_text(out, "".join(json.dumps(x) + "\n" for x in lines))


def kinds_of(lines: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The mutants of a record, by what became of them."""
    found: dict[str, list[dict[str, Any]]] = {
        x: [] for x in ("by the proof", "by the tests", "equivalent", "survived")
    }
    for line in lines:
        if line["kind"] == UNCHANGED:
            continue
        by = "by the tests" if line.get("tested") else "by the proof"
        left = "equivalent" if line.get("equivalent") else "survived"
        found[by if line["red"] else left].append(line)
    return found


def counted(by: dict[str, list[dict[str, Any]]]) -> tuple[int, int]:
    """How many were found, and of how many that are not equivalent."""
    found = len(by["by the proof"]) + len(by["by the tests"])
    return found, found + len(by["survived"])


def summary(lines: list[dict[str, Any]]) -> str:
    """How many were judged and found, and what survived."""
    by = kinds_of(lines)
    found, real = counted(by)
    return "\n".join(
        [
            *(
                f"{x['key']} {x['file']}:{x['line']} {x['kind']}: {x['change']}"
                for x in by["survived"]
            ),
            f"{found} of {real} found ({found / max(1, real):.1%}),"
            f" {len(by['equivalent'])} equivalent",
        ]
    )


def page(records: Path = RECORDS) -> str:
    """What the records say, in Markdown."""
    from paripassu.analysis.text import display_name

    rows, lists = [], []
    for path in sorted(records.glob("*.jsonl")):
        lines, title = read(path), display_name(path.stem)
        plain = next(x for x in lines if x["kind"] == UNCHANGED)
        by = kinds_of(lines)
        found, real = counted(by)
        counts = " | ".join(str(len(x)) for x in by.values())
        rows.append(
            f"| {title} {plain['version']} | {sum(map(len, by.values()))} | {counts} | "
            f"{found / real:.1%} |"
        )
        for kind, words in (("survived", "survive"), ("equivalent", "equivalent")):
            groups: dict[str, list[str]] = {}
            for x in by[kind]:
                why = x.get("equivalent") or x.get("survives") or "not looked into"
                place = f"`{x['file']}:{x['line']}`"
                if x["kind"] != "dropped":
                    place += f" {_code(x['change'])}"
                else:
                    place += f" without {_code(x['change'])}"
                groups.setdefault(why, []).append(place)
            lists += [
                f"- {title}, {words}: {why}: {'; '.join(places)}"
                for why, places in groups.items()
            ]
    head = (
        "| | mutants | found by the proof | by the tests | equivalent | survive | "
        "found of those that are not equivalent |"
    )
    return "\n".join([head, f"{'|---' * 7}|", *rows, "", *lists])


def _code(change: str) -> str:
    """Python in one line of Markdown."""
    return f"`{' '.join(change.split())}`"


HOOK = """
import json, sys
sys.path.insert(0, {tools!r})
import mutate
sys.path.pop(0)
sys.meta_path.insert(0, mutate.Changed({sources!r}))
"""


def by_tests(
    framework: str, out: Path, chosen: list[Mutant], tests: list[str], end: float
) -> None:
    """Have tests of a framework judge what no proof found, until `end`."""
    from paripassu.core.files import scratch
    from paripassu.frameworks import registry

    found = registry.find(framework)
    marked = ["-m", "not slow"] if found.by_default else []
    by_key = {x.key: x for x in chosen}
    known = read(out)
    for told in known:
        judged = told["red"] or told.get("equivalent") or told.get("survives")
        if judged or told["key"] not in by_key:
            continue
        if time.monotonic() > end:
            return
        mutant = by_key[told["key"]]
        with scratch() as folder:
            sources = {f"{found.package}.{mutant.file}": mutant.source}
            hook = HOOK.format(tools=str(Path(__file__).parent), sources=sources)
            (folder / "sitecustomize.py").write_text(hook)
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "pytest", "-x", "-q", *marked),
                    *("-p", "no:cacheprovider", "--basetemp", str(folder / "tests")),
                    *("-k", framework, *tests),
                ],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(folder)},
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode not in (0, 1):
            raise SystemExit(f"the tests did not run: {done.stdout[-2000:]}")
        if done.returncode:
            failed = [x for x in done.stdout.splitlines() if x.startswith("FAILED")]
            told |= {"tested": True, "red": (failed or ["a test failed"])[0][:160]}
            write(out, known)


def main() -> int:
    """Judge mutants, and say how many were found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--framework", required=True)
    parser.add_argument("--out", type=Path, help="default: its file in results/mutants")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=1, help="judged at a time")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--folder", type=Path, help="keeps the reference's traces")
    parser.add_argument(
        "--tests", nargs="*", help="judge survivors by tests; default: tests/frameworks"
    )
    for name in ("equivalent", "survives"):
        parser.add_argument(f"--{name}", nargs=2, metavar=("KEY", "WHY"))
    parser.add_argument("--list", action="store_true", help="say how many there are")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = given.folder or Path.home() / ".cache/paripassu-mutants"
    out = given.out or RECORDS / f"{given.framework}.jsonl"
    end = time.monotonic() + given.seconds
    if given.work:
        work(given.framework, folder)
        return 0
    for name in ("equivalent", "survives"):
        if said := getattr(given, name):
            key, why = said
            lines = [{**x, name: why} if x["key"] == key else x for x in read(out)]
            write(out, lines)
            print(summary(lines))
            return 0
    chosen = all_mutants(given.framework)[: given.count]
    if given.list:
        for kinds in (Counter(x.file for x in chosen), Counter(x.kind for x in chosen)):
            print(dict(sorted(kinds.items())))
    elif given.tests is not None:
        tests = given.tests or ["tests/frameworks"]
        by_tests(given.framework, out, chosen, tests, end)
    else:
        run(given.framework, out, chosen, folder, given.jobs, end)
    print(summary(read(out)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
