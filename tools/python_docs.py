"""Makes `docs/python.md`: every public name, from the code, with an example.

The page is written by `generate_docs.py`; `tests/test_public_api.py` runs the examples
that are quick.
"""

from __future__ import annotations

import inspect
import types
from typing import Any

import paripassu

EXAMPLES = {
    "load_recipe": """\
recipe = paripassu.load_recipe("article", epochs=1)
faster = paripassu.load_recipe("article", ["optimizer.rho=0.95", "batch_size=128"])
assert faster.changed(seed=7).seed == 7
""",
    "train": """\
record = paripassu.train("pytorch", recipe, out="runs/demo")
print(record.result.test_accuracy, record.weights_sha256)
""",
    "compare": """\
found = paripassu.compare(
    ["pytorch", "tensorflow"], recipe, seeds=range(42, 45), out="runs/three-seeds"
)
for pair in found.pairs:
    print(pair.sentence)
""",
    "verify": """\
proof = paripassu.verify(["pytorch", "tensorflow"], recipe)
assert proof.holds, proof.divergence
""",
    "ablate": """\
start = paripassu.load_recipe("article-pytorch-notebook", epochs=1)
end = paripassu.load_recipe("article-tensorflow-notebook", epochs=1)
found = paripassu.ablate(
    start, end, framework="pytorch", seeds=[42, 43, 44], out="runs/ablation"
)
for difference, effects in zip(found.differences, found.effects):
    print(difference, effects)
""",
    "load_study": """\
plan = paripassu.load_study("studies/book.toml", epochs=1)
print(len(plan.keys))
""",
    "study": """\
cluster = paripassu.OnRay("ray://10.0.0.1:10001")
found = paripassu.study(plan, out="runs/book", executor=cluster)
for match in found.matches:
    print(match.recipe, match.sentence)
""",
    "convert": """\
found = paripassu.convert("runs/demo", target="tensorflow", out="model.keras")
assert found.weights_equal
""",
    "predict": """\
for picture in paripassu.predict(["runs/demo"], ["digits/"]):
    print(picture.path, picture.answers, picture.warnings)
""",
    "check": """\
import torch

left = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
right = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LeakyReLU())
found = paripassu.check(left, right, "2,4", copy="left-to-right")
assert not found.equal
print(found.faults)
""",
    "check_optimizer": """\
import torch

found = paripassu.check_optimizer(
    lambda parameters: torch.optim.Adam(parameters, eps=1e-8),
    lambda parameters: torch.optim.Adam(parameters, eps=1e-7),
)
assert not found.equal
print(found.causes)
""",
    "record": """\
import torch

model = torch.nn.Linear(4, 3)
done = paripassu.record(model, "2,4", out="left.recording")
assert paripassu.check("left.recording", model).equal
print(done.size)
""",
    "assert_equivalent": """\
import torch

model = torch.nn.Linear(4, 3)
paripassu.assert_equivalent(model, model, "2,4")
""",
}
QUICK = ("load_recipe", "check", "check_optimizer", "assert_equivalent")
HEAD = """\
# From Python

What the commands do, as functions. Each takes data and returns a result, and prints
nothing. Paths are text or `pathlib.Path`. Frameworks work in processes of their own,
so none is imported into yours; only `check`, `record`, `check_optimizer` and
`assert_equivalent` take models that are already there.

```python
import paripassu

recipe = paripassu.load_recipe("article", epochs=1)
record = paripassu.train("pytorch", recipe, out="runs/demo")
print(f"{record.result.test_accuracy:.2%}")
```

What decides speed but not the result is in `Conditions`: your own data, the number of
threads, the device. Progress comes to a function of yours, if you give one:

```python
conditions = paripassu.Conditions(data="data/mnist", threads=2, device="cpu")
paripassu.train(
    "pytorch", recipe, out="runs/mine", conditions=conditions, on_event=print
)
```
"""


def page() -> str:
    """The page: functions with signature and example, then results and exceptions."""
    kinds: dict[str, list[str]] = {"function": [], "result": [], "exception": []}
    for name in paripassu.__all__:
        value = getattr(paripassu, name)
        if isinstance(value, types.FunctionType):
            kinds["function"].append(name)
        elif isinstance(value, type):
            failure = issubclass(value, BaseException)
            kinds["exception" if failure else "result"].append(name)
    parts = [HEAD, "## Functions"]
    for name, example in EXAMPLES.items():
        function = getattr(paripassu, name)
        parts.append(
            f"### `{name}`\n\n{summary(function)}\n\n```python\n"
            f"{signature(name, function)}\n```\n\n```python\n{example}```"
        )
    parts += ["## What they take and give", table(kinds["result"])]
    parts += ["## Exceptions", table(kinds["exception"])]
    assert set(EXAMPLES) == set(kinds["function"])
    return "\n\n".join(x.strip() for x in parts) + "\n"


def table(names: list[str]) -> str:
    """Names with what they are."""
    rows = [f"| `{name}` | {summary(getattr(paripassu, name))} |" for name in names]
    return "\n".join(["| name | what it is |", "|---|---|", *rows])


def summary(value: Any) -> str:
    """The first paragraph of a docstring, in a line."""
    paragraph = (inspect.getdoc(value) or "").split("\n\n")[0]
    return " ".join(paragraph.split())


def signature(name: str, function: Any) -> str:
    """How a function is called, a parameter a line."""
    lines = []
    keywords = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            keywords = True
            lines.append("    *,")
        default = parameter.default
        if default is parameter.empty:
            text = ""
        elif isinstance(default, types.FunctionType):
            text = " = ..."
        elif isinstance(default, paripassu.Conditions):
            text = " = Conditions()"
        else:
            text = f" = {default!r}"
        lines.append(f"    {parameter.name}: {parameter.annotation}{text},")
    result = inspect.signature(function).return_annotation
    return "\n".join([f"{name}(", *lines, f") -> {result}"])
