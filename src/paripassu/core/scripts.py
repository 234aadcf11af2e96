"""What scripts of recipes have in common: text, formatted, of no framework.

The module `script` of a framework's folder writes a recipe as a program that needs
nothing of ours; here is what does not depend on the framework.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from fractions import Fraction

from paripassu.core.architecture import IMAGES, Layer, Network, Shape
from paripassu.core.errors import UserError
from paripassu.core.recipe import SGD, Recipe
from paripassu.core.recipe_book import comment
from paripassu.core.version import __version__

WIDTH = 88
Import = tuple[str, str]  # what needs it, and the line

# Kinds of layers that writers have words for, and the settings they do not look past.
KNOWN: dict[str, set[str]] = {
    "pad": {"padding"},
    "conv": {"strides", "padding", "dilation", "groups"},
    "batch_norm": {"epsilon", "momentum"},
    "layer_norm": {"epsilon"},
    "group_norm": {"epsilon", "groups"},
    "relu": set(),
    "leaky_relu": {"slope"},
    "elu": {"alpha"},
    "gelu": {"approximate"},
    "silu": set(),
    "sigmoid": set(),
    "softplus": set(),
    "tanh": {"amplitude", "slope"},
    "max_pool": {"size", "strides", "padding"},
    "average_pool": {"size", "strides", "padding", "count_padding"},
    "global_average_pool": set(),
    "global_max_pool": set(),
    "add": set(),
    "concatenate": set(),
    "subsample": {"size"},
    "dropout": set(),
    "flatten": set(),
    "dense": set(),
    "softmax": set(),
}


# What is applied to what the line before gives, in the same line.
INLINE = ("relu", "tanh")
NO_PADDING = ((0, 0), (0, 0))


def check_layers(recipe: Recipe) -> None:
    """Refuse a network with a layer or a setting that no script would show.

    Raises:
        UserError: there is one.
    """
    tables = [x.name for x in recipe.architecture.weights if x.table]
    if len(tables) > 1:
        raise UserError(
            f"recipe {recipe.name!r} has a table of connections in "
            f"{' and in '.join(tables)}, and a script has words for one. Leave "
            "connections out of the others."
        )
    for layer in recipe.architecture.layers:
        known = KNOWN.get(layer.kind)
        if known is None or not set(layer.settings) <= known:
            raise UserError(
                f"layer {layer.name!r} of recipe {recipe.name!r}, of kind "
                f"{layer.kind!r} with {dict(layer.settings)}, has no words in a script."
            )


def check_training(recipe: Recipe) -> None:
    """Refuse what no script has words for yet.

    Raises:
        UserError: the recipe asks for it.
    """
    plain = {
        "label_smoothing": 0.0,
        "clip_global_norm": 0.0,
        "average_decay": 0.0,
    }
    asked: dict[str, object] = {
        key: x for key, x in plain.items() if getattr(recipe, key) != x
    }
    if recipe.optimizer.kind == "nadam":
        asked["optimizer.kind"] = "adam"
    if recipe.decay.shape in ("cosine", "one_cycle"):
        asked["decay.shape"] = "linear"
    elif recipe.decay.shape == "plateau":
        asked["decay.shape"] = "exponential"
    if not recipe.augmentation.is_none:
        asked["augmentation"] = "{}"
    if asked:
        settings = " ".join(f"--set {key}={x}" for key, x in asked.items())
        raise UserError(
            f"recipe {recipe.name!r} asks for {', '.join(asked)}, for which scripts "
            f"have no words: a script without would be another training. Type "
            f"{settings}, or paripassu train, which has them."
        )


def refused(
    recipe: Recipe, title: str, field: str, value: object, instead: object
) -> UserError:
    """The error for a form of the optimizer that a framework has not."""
    key = f"optimizer.{field}"
    return UserError(
        f"recipe {recipe.name!r} asks for {key} = {value!r}, which no optimizer of "
        f"{title} has in this recipe. Type --set {key}={instead}, or choose another "
        "framework."
    )


def check_sgd(
    recipe: Recipe, chosen: SGD, title: str, *, momentum: str, decay: str
) -> None:
    """Refuse SGD in a form that a framework has not.

    Args:
        recipe: what is written.
        chosen: its optimizer.
        title: of the framework.
        momentum: the form of momentum that the framework has. With a rate that stays,
            both are the same.
        decay: the form of weight decay that it has beside momentum.

    Raises:
        UserError: it is another form.
    """
    if not chosen.momentum:
        return
    if chosen.momentum_form != momentum and not recipe.decay.keeps:
        raise refused(recipe, title, "momentum_form", chosen.momentum_form, momentum)
    if chosen.weight_decay and chosen.weight_decay_form != decay:
        form = chosen.weight_decay_form
        raise refused(recipe, title, "weight_decay_form", form, decay)


def header(recipe: Recipe, title: str) -> str:
    """The top of a script: what it trains, and what of the recipe it does not fix."""
    held = recipe.validation_size
    drawn = "order of images, dropout" if held else "order of images and dropout"
    drawn += " and which images are held out" if held else ""
    notes = (
        f"{recipe.name}: {recipe.description}" if recipe.description else recipe.name,
        f"Source: {recipe.source}" if recipe.source else "",
        f"Written by paripassu {__version__} from the recipe with the hash "
        f"{recipe.hash()}. First weights, {drawn} are drawn here by {title} and NumPy: "
        "results differ from those of `paripassu train` as seeds do.",
    )
    comments = "\n#\n".join(comment(note) for note in notes if note)
    what = "read handwritten digits" if recipe.layers is None else "classify images"
    return f'"""Train a network to {what} in {title}."""\n\n{comments}'


def joined(
    recipe: Recipe, title: str, body: Sequence[str], *imports: Sequence[Import]
) -> str:
    """The whole script.

    Args:
        recipe: what is written.
        title: of the framework.
        body: constants, then functions and classes; what is empty is left out.
        imports: for each group of them, in order; only what the body needs stays.
    """
    constants, *rest = [part.strip("\n") for part in body if part]
    text = "\n\n\n".join([constants, *rest])
    groups = ["\n".join(x for mark, x in group if mark in text) for group in imports]
    head = "\n\n".join([header(recipe, title), *filter(None, groups)])
    return f'{head}\n\n{text}\n\n\nif __name__ == "__main__":\n    main()\n'


def call(head: str, arguments: Sequence[str], indent: int = 0) -> str:
    """`head(arguments)`, broken as a formatter does: never, once, or at each comma.

    Args:
        head: what stands before the parenthesis, `optimizer = SGD`.
        arguments: of the call.
        indent: spaces before the line, which the result does not have.
    """
    inside, here, deeper = ", ".join(arguments), " " * indent, " " * (indent + 4)
    if indent + len(head) + len(inside) + 2 <= WIDTH:
        return f"{head}({inside})"
    if len(deeper) + len(inside) <= WIDTH:
        return f"{head}(\n{deeper}{inside}\n{here})"
    return f"{head}(\n" + "".join(f"{deeper}{x},\n" for x in arguments) + f"{here})"


def noted(line: str, note: str) -> str:
    """A line with a comment behind it, where both have room."""
    whole = f"{line}  # {note}"
    return whole if note and len(whole.rpartition("\n")[2]) <= WIDTH else line


def shaped(shape: Shape) -> str:
    """The shape of a batch: "(N, 24, 24, 32)"."""
    return f"({', '.join(map(str, ('N', *shape)))})"


def variables(network: Network) -> dict[str, str]:
    """What the code of a network calls the output of each layer, and the images.

    It is `x`, over and over, where only the next layer takes it; else the layer's name.
    """
    layers = [x for x in network.layers if x.kind != "softmax"]
    found = {}
    for place, name in enumerate([IMAGES, *(x.name for x in layers)]):
        takers = [x.name for x in layers if name in x.inputs]
        follows = [layers[place].name] if place < len(layers) else []
        found[name] = "x" if takers == follows else name
    if found[IMAGES] != "x":
        found[IMAGES] = "images"
    return found


def forward(
    network: Network,
    applied: Callable[..., str],
    *,
    result: str = "x",
    indent: int = 8,
    shape_of: Callable[[Shape], str] = shaped,
) -> list[str]:
    """The lines that apply a network's layers to `x`, up to what is returned.

    Args:
        network: its layers.
        applied: a layer, as an expression of others.
        result: what is returned, of `x`.
        indent: spaces before all lines; 8 before the last where it is one of its own.
        shape_of: a shape without the batch, as a comment has it.
    """
    names = variables(network)
    steps: list[tuple[str, str, str]] = []  # of a line: variable, expression, note
    if names[IMAGES] != "x":
        steps.append((names[IMAGES], "x", ""))
    for layer in network.layers:
        if layer.kind == "softmax":
            continue
        given = [names[source] for source in layer.inputs]
        mine = names[layer.name]
        if given == ["x"] and _goes_inside(layer, network):
            _, before, note = steps.pop()
            steps.append((mine, applied(layer, before), note))
            continue
        changes = layer.output_shape != network.shape_of(layer.inputs[0])
        note = shape_of(layer.output_shape) if changes else ""
        steps.append((mine, applied(layer, *given), note))
    spaces = " " * indent
    lines = [noted(f"{spaces}{name} = {step}", note) for name, step, note in steps]
    if result != "x":
        return [*lines, f"        return {result}"]
    _, step, note = steps[-1]
    return [*lines[:-1], noted(f"{spaces}return {step}", f"{note}, logits")]


def _goes_inside(layer: Layer, network: Network) -> bool:
    """Whether a layer stands in the line of the one before it."""
    source = layer.inputs[0]
    if layer.kind not in INLINE or source == IMAGES:
        return False
    # A factor would bind closer than a sum.
    return layer.kind == "relu" or network.layer(source).kind != "add"


def number(value: float) -> str:
    """A float as Python writes it, without zeros in the exponent: 1e-6."""
    digits, e, exponent = repr(float(value)).partition("e")
    return f"{digits}e{int(exponent)}" if e else digits


def count(value: float) -> str:
    """A whole number without a point, another as it is."""
    return str(int(value)) if value == int(value) else number(value)


def ratio(value: float) -> str:
    """A simple fraction where the number is one: 2 / 3."""
    near = Fraction(value).limit_denominator(100)
    if float(near) != value or near.denominator == 1:
        return number(value)
    return f"{near.numerator} / {near.denominator}"


def constants(recipe: Recipe, *more: str) -> str:
    """The numbers that one changes first; and `more`."""
    lines = (
        f"SEED = {recipe.seed}",
        f"EPOCHS = {recipe.epochs}",
        f"BATCH_SIZE = {recipe.batch_size}",
    )
    return "\n".join([*lines, *more])


def loading(recipe: Recipe) -> str:
    """The function `load`: normalised images and labels of an mnist.npz."""
    kind = "np.float64" if recipe.precision == "float64" else "np.float32"
    shape = ", ".join(map(str, recipe.architecture.input_shape))
    lines = [
        "def load(path):",
        f'    """{_splits(recipe)}: images (N, h, w, c), normalised, and labels."""',
        "    with np.load(path) as arrays:",
        '        x, y = arrays["x_train"], arrays["y_train"].astype(np.int64)',
        '        x_test, y_test = arrays["x_test"], arrays["y_test"].astype(np.int64)',
        f"    x, x_test = (x.reshape(-1, {shape}) for x in (x, x_test))",
    ]
    splits = ["(x, y)", "(x_test, y_test)"]
    if recipe.validation_size:
        size = recipe.validation_size
        lines += [
            "    # The same for every seed.",
            "    random = np.random.default_rng(0)",
            f"    held = random.choice(len(x), {size}, replace=False)",
            "    x_held, y_held = x[held], y[held]",
            "    x, y = np.delete(x, held, axis=0), np.delete(y, held)",
        ]
        splits.insert(1, "(x_held, y_held)")
    value = f"x.astype({kind}) / 255"
    named: dict[str, float | list[float] | str] = {}
    if mean := recipe.normalization.mean:
        value, named["mean"] = f"({value} - mean)", mean
    if (std := recipe.normalization.std) != 1:
        value, named["std"] = f"{value} / std", std
    if named:
        given = [_constant(recipe, name, x, kind) for name, x in named.items()]
        lines.append(f"    {', '.join(named)} = {', '.join(given)}")
    lines += [
        f"    splits = {', '.join(splits)}",
        f"    return [({value}, y) for x, y in splits]",
    ]
    return "\n".join(lines)


def _constant(
    recipe: Recipe, name: str, value: float | list[float] | str, kind: str
) -> str:
    """The mean or the standard deviation, or one for each channel."""
    if isinstance(value, list):
        return f"np.array([{', '.join(map(number, value))}], {kind})"
    if not isinstance(value, str):
        return number(value)
    if recipe.architecture.input_shape[-1] == 1:
        return f"float(x.{name}()) / 255"
    return f"(x.{name}((0, 1, 2)) / 255).astype({kind})"


def _splits(recipe: Recipe) -> str:
    held = ", validation" if recipe.validation_size else ""
    return f"Training{held} and test"


def asking(file: str) -> str:
    """The first lines of `main`: what is typed. `file` is where weights go."""
    return f'''\
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist.npz", help="as Keras keeps MNIST")
    parser.add_argument("--out", default="{file}", help="the trained network")
    arguments = parser.parse_args()'''


def linear(recipe: Recipe, maximum: str) -> tuple[str, str, str]:
    """What multiplies the rate in a linear decay, as expressions of what is finished.

    Args:
        recipe: whose decay it is; its unit names what is finished.
        maximum: the function of two numbers.

    Returns:
        While what it rises, "" where it never does; how it rises; how it falls.
    """
    decay = recipe.decay
    done, top, end = decay.unit, count(decay.warm_up), count(decay.interval)
    falling = f"{maximum}({end} - {done}, 0) / {count(decay.interval - decay.warm_up)}"
    return (
        f"{done} < {top}" if decay.warm_up else "",
        f"({done} + 1) / {top}",
        falling,
    )


def exponential(recipe: Recipe) -> str:
    """What multiplies the rate in an exponential decay, of what is finished."""
    decay = recipe.decay
    if decay.interval == 1:
        return f"{number(decay.factor)}**{decay.unit}"
    return f"{number(decay.factor)} ** ({decay.unit} / {count(decay.interval)})"


def limit(scheme: str, fan_in: str, fan_out: str) -> str:
    """The bound of a uniform initializer, as an expression of its fans.

    See `core.draws.initial_weights` for the sources.
    """
    return {
        "glorot_uniform": f"(6 / ({fan_in} + {fan_out})) ** 0.5",
        "he_uniform": f"(6 / {fan_in}) ** 0.5",
        "fan_in_uniform": f"(1 / {fan_in}) ** 0.5",
        "lecun_1998_uniform": f"2.4 / {fan_in}",
        "zeros": "0.0",
    }[scheme]


def needed(lines: Sequence[str]) -> list[str]:
    """Statements without those that set a name for nobody, or twice to the same."""
    kept: list[str] = []
    for line in reversed(lines):
        name, equals, _ = line.partition(" = ")
        if not equals or any(re.search(rf"\b{name}\b", x) for x in kept):
            kept.insert(0, line)
    return list(dict.fromkeys(kept))


def table_of(recipe: Recipe) -> str:
    """The table of a convolution without all connections, drawn; "" for none."""
    tables = [weight for weight in recipe.architecture.weights if weight.table]
    if not tables:
        return ""
    (weight,) = tables
    rows = ("".join(".X"[int(x)] for x in row) for row in weight.connected)
    lines = "".join(f'    "{row}",\n' for row in rows)
    return (
        "# A row is an input channel, a column a filter: X where it sees the channel.\n"
        f"TABLE = [\n{lines}]"
    )


def is_drawn_by(initializers: Collection[str], recipe: Recipe) -> bool:
    """Whether a framework's own initializers draw the first weights as asked."""
    chosen = recipe.initializer
    known = chosen.kernel in initializers and chosen.bias == "zeros"
    return known and not is_odd(recipe)


def pair(value: Sequence[int]) -> str:
    """Two numbers, or one where they are the same."""
    first, second = value
    return str(first) if first == second else f"({first}, {second})"


def has_bias(layer: Layer) -> bool:
    """Whether a convolution or dense layer adds something."""
    return len(layer.weights) > 1


def all_have_biases(recipe: Recipe) -> bool:
    """Whether every convolution and dense layer adds something."""
    layers = recipe.architecture.layers
    return all(has_bias(x) for x in layers if x.kind in ("conv", "dense"))


def is_odd(recipe: Recipe) -> bool:
    """Whether it has weights that no framework's initializers know the fans of."""
    layers = recipe.architecture.layers
    return any(x.kind == "subsample" or any(w.table for w in x.weights) for x in layers)
