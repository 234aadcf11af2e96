"""Writes a recipe as a script in plain JAX: Flax NNX, optax and Orbax."""

from __future__ import annotations

from paripassu.core import scripts
from paripassu.core.architecture import Kind, Layer
from paripassu.core.layer_spec import same_padding
from paripassu.core.recipe import SGD, Adadelta, Adam, Recipe, RMSprop
from paripassu.core.scripts import call, limit, number

TITLE = "JAX"
STANDARD = (
    ("argparse", "import argparse"),
    ("math.", "import math"),
    ("partial(", "from functools import partial"),
    ("Path(", "from pathlib import Path"),
)
LIBRARIES = (
    ("jax.", "import jax"),
    ("jnp.", "import jax.numpy as jnp"),
    ("np.", "import numpy as np"),
    ("optax.", "import optax"),
    ("ocp.", "import orbax.checkpoint as ocp"),
    ("nnx.", "from flax import nnx"),
)


def code(recipe: Recipe) -> str:
    """The recipe as a script that imports JAX, its libraries and NumPy alone.

    Raises:
        UserError: it asks for what optax has not.
    """
    scripts.check_layers(recipe)
    scripts.check_training(recipe)
    optimizer = _optimizer(recipe)
    more = []
    if recipe.precision == "float64":
        more = ["", 'jax.config.update("jax_enable_x64", True)']
    if recipe.precision == "float32":
        more = ["", "# On a GPU float32 is meant, not TF32."]
        more += ['jax.config.update("jax_default_matmul_precision", "highest")']
    if table := scripts.table_of(recipe):
        cells = '[[x == "X" for x in row] for row in TABLE]'
        more += ["", table, f"CONNECTED = np.array({cells})"]
    body = [
        scripts.constants(recipe, *more),
        _initialize(recipe),
        SUBSAMPLE if recipe.architecture.layers_of("subsample") else "",
        _network(recipe),
        scripts.loading(recipe),
        _loss(recipe),
        TRAIN_STEP,
        _rate(recipe),
        _epsilon(recipe),
        _train(recipe, optimizer),
        EVALUATE,
        _main(recipe),
    ]
    return scripts.joined(recipe, TITLE, body, STANDARD, LIBRARIES)


# Network

SUBSAMPLE = '''
class Subsample(nnx.Module):
    """Sums of 2x2 pixels, times a coefficient and plus a bias that are learned."""

    def __init__(self, channels, *, kernel_init, bias_init, rngs):
        form = (channels,), jnp.result_type(float)
        self.coefficient = nnx.Param(kernel_init(rngs.params(), *form))
        self.bias = nnx.Param(bias_init(rngs.params(), *form))

    def __call__(self, x):  # (N, h, w, c)
        sums = 4 * nnx.avg_pool(x, (2, 2), strides=(2, 2))
        return sums * self.coefficient[...] + self.bias[...]
'''
COMPUTE: dict[str, list[str]] = {
    "float32": [],
    "float64": ["param_dtype=jnp.float64"],
    "bfloat16": ["dtype=jnp.bfloat16"],
}


def _network(recipe: Recipe) -> str:
    network = recipe.architecture
    made = [
        line
        for layer in network.layers
        for line in _made(layer, recipe)
        if layer.kind in MODULES
    ]
    same = [*_initializer(recipe), *COMPUTE[recipe.precision], "rngs=rngs"]
    valid = [] if _any_pads(recipe) else ['padding="VALID"']
    lines = ["class Network(nnx.Module):", "    def __init__(self, rngs):"]
    parts: dict[Kind, list[str]] = {
        "conv": ["nnx.Conv", *valid],
        "dense": ["nnx.Linear"],
    }
    for kind, made_by in parts.items():
        if network.layers_of(kind):
            part = call(f"{kind} = partial", [*made_by, *same], 8)
            lines.append(f"        {part}")
    lines += [*(f"        {x}" for x in made), ""]
    shape = scripts.shaped(network.input_shape)
    lines.append(f"    def __call__(self, x):  # {shape}")
    result = "x"
    if recipe.precision == "bfloat16":
        result = "x.astype(jnp.float32)"
    if recipe.output == "probabilities":
        result = f"nnx.softmax({result})"
    lines += scripts.forward(network, _applied, result=result)
    return "\n".join(lines)


def _made(layer: Layer, recipe: Recipe) -> list[str]:
    """The lines that make a layer."""
    place = f"self.{layer.name} ="
    fans = _fans(layer, recipe)
    match layer.kind:
        case "conv":
            return _convolution(layer, recipe)
        case "dense":
            inputs, outputs = layer.weights[0].shape
            made = [str(inputs), str(outputs)]
            if not scripts.has_bias(layer):
                made.append("use_bias=False")
            return [call(f"{place} dense", [*made, *fans], 8)]
        case "batch_norm" | "layer_norm" | "group_norm":
            head = f"{place} nnx.{NORMS[layer.kind]}"
            return [call(head, _norm(layer, recipe), 8)]
        case "subsample":
            channels = str(layer.output_shape[-1])
            return [call(f"{place} Subsample", [channels, *fans, "rngs=rngs"])]
        case "dropout":
            rate = number(recipe.dropout[layer.name])
            return [f"{place} nnx.Dropout({rate}, rngs=rngs)"]
        case _:
            return []


def _convolution(layer: Layer, recipe: Recipe) -> list[str]:
    place, settings = f"self.{layer.name}", layer.settings
    kernel = layer.weights[0]
    rows, columns, inputs, outputs = kernel.shape
    groups = settings.get("groups", 1)
    made = [str(inputs * groups), str(outputs), str((rows, columns))]
    for key, own in CONVOLUTION.items():
        if key in settings:
            made.append(f"{own}={settings[key]}")
    if pads := _pads(layer, recipe):
        made.append(f"padding={pads}")
    if not scripts.has_bias(layer):
        made.append("use_bias=False")
    fans = _fans(layer, recipe)
    if not kernel.table:
        return [call(f"{place} = conv", [*made, *fans], 8)]
    shape = f"({rows}, {columns}, {inputs}, {outputs})"
    made.append("mask=nnx.data(table)")
    return [
        f"table = jnp.broadcast_to(CONNECTED, {shape})",
        call(f"{place} = conv", [*made, *fans], 8),
        f"{place}.kernel[...] *= table",
    ]


def _any_pads(recipe: Recipe) -> bool:
    layers = recipe.architecture.layers_of("conv")
    return any("padding" in x.settings for x in layers)


def _pads(layer: Layer, recipe: Recipe) -> str:
    """The padding of a convolution where not all have none."""
    if not _any_pads(recipe):
        return ""
    network, settings = recipe.architecture, layer.settings
    if "padding" not in settings:
        return '"VALID"'
    shape = network.shape_of(layer.inputs[0])
    strides = settings.get("strides", (1, 1))
    dilation = settings.get("dilation", (1, 1))
    size = layer.weights[0].shape
    each = zip(shape[:2], size[:2], strides, dilation, strict=True)
    same = tuple(same_padding(*x) for x in each) == settings["padding"]
    return '"SAME"' if same else str(settings["padding"])


def _norm(layer: Layer, recipe: Recipe) -> list[str]:
    settings = layer.settings
    made = [str(layer.output_shape[-1])]
    if "groups" in settings:
        made.append(f"num_groups={settings['groups']}")
    if "momentum" in settings:
        made.append(f"momentum={number(settings['momentum'])}")
    made.append(f"epsilon={number(settings['epsilon'])}")
    made.append("use_fast_variance=False")
    if recipe.precision == "float64":
        made.append("param_dtype=jnp.float64")
    return [*made, "rngs=rngs"]


def _pool(layer: Layer, x: str) -> str:
    settings = layer.settings
    largest = layer.kind == "max_pool"
    strides = settings.get("strides", settings["size"])
    made = [x, str(settings["size"]), f"strides={strides}"]
    if "padding" in settings:
        made.append(f"padding={settings['padding']}")
        made += [] if largest else ["count_include_pad=False"]
    name = "max_pool" if largest else "avg_pool"
    return call(f"x = nnx.{name}", made, 8).removeprefix("x = ")


def _applied(layer: Layer, x: str, *others: str) -> str:
    """A layer applied to expressions."""
    settings = layer.settings
    if layer.kind in FUNCTIONS:
        return FUNCTIONS[layer.kind].format(x=x)
    match layer.kind:
        case "leaky_relu":
            return f"nnx.leaky_relu({x}, {number(settings['slope'])})"
        case "elu":
            return f"nnx.elu({x}, {number(settings['alpha'])})"
        case "gelu":
            return f"nnx.gelu({x}, approximate={settings['approximate']})"
        case "add":
            return " + ".join([x, *others])
        case "concatenate":
            return f"jnp.concatenate([{', '.join([x, *others])}], axis=-1)"
        case "tanh" if settings["amplitude"] == settings["slope"] == 1:
            return f"nnx.tanh({x})"
        case "max_pool" | "average_pool":
            return _pool(layer, x)
        case "pad":
            inside = ", ".join(map(str, settings["padding"]))
            return f"jnp.pad({x}, ((0, 0), {inside}, (0, 0)))"
        case "tanh":
            slope = scripts.ratio(settings["slope"])
            amplitude = number(settings["amplitude"])
            return f"{amplitude} * nnx.tanh({slope} * {x})"
        case _:
            return f"self.{layer.name}({x})"


FUNCTIONS = {
    "relu": "nnx.relu({x})",
    "silu": "nnx.silu({x})",
    "sigmoid": "nnx.sigmoid({x})",
    "softplus": "nnx.softplus({x})",
    "flatten": "{x}.reshape(len({x}), -1)",
    "global_average_pool": "{x}.mean((1, 2))",
    "global_max_pool": "{x}.max((1, 2))",
}
NORMS = {
    "batch_norm": "BatchNorm",
    "layer_norm": "LayerNorm",
    "group_norm": "GroupNorm",
}
MODULES = {"conv", "dense", "subsample", "dropout", *NORMS}
CONVOLUTION = {
    "strides": "strides",
    "dilation": "kernel_dilation",
    "groups": "feature_group_count",
}

# First weights

INITIALIZERS = {
    "glorot_uniform": "glorot_uniform()",
    "he_uniform": "he_uniform()",
    "fan_in_uniform": 'variance_scaling(1 / 3, "fan_in", "uniform")',
    "zeros": "zeros_init()",
}


def _initializer(recipe: Recipe) -> list[str]:
    if not scripts.is_drawn_by(INITIALIZERS, recipe):
        return []
    name = INITIALIZERS[recipe.initializer.kernel]
    return [f"kernel_init=nnx.initializers.{name}"]


def _fans(layer: Layer, recipe: Recipe) -> list[str]:
    """What the initializers of a layer must be told."""
    drawn = scripts.is_drawn_by(INITIALIZERS, recipe)
    if drawn or not layer.weights or layer.kind in NORMS:
        return []
    weight = layer.weights[0]
    fans = [str(weight.fan_in)]
    if weight.table:
        rows, columns, *_ = weight.shape
        fans = [f"{rows * columns} * CONNECTED.sum(0)"]
    if recipe.initializer.kernel == "glorot_uniform":
        fans.append(str(weight.fan_out))
    return [f"**first({', '.join(fans)})"]


def _initialize(recipe: Recipe) -> str:
    if scripts.is_drawn_by(INITIALIZERS, recipe):
        return ""
    chosen = recipe.initializer
    fans = "fan_in, fan_out" if chosen.kernel == "glorot_uniform" else "fan_in"
    kernel = limit(chosen.kernel, "fan_in", "fan_out")
    bias = limit(chosen.bias, "fan_in", "fan_out")
    words = f"First weights: {chosen.kernel}, biases: {chosen.bias}."
    return f'''
def uniform(bound):
    """An initializer: between minus and plus a bound, or one for each filter."""

    def draw(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


def first({fans}):
    """{words}"""
    kernel, bias = uniform({kernel}), uniform({bias})
    return {{"kernel_init": kernel, "bias_init": bias}}
'''


# Loss, and a step


def _loss(recipe: Recipe) -> str:
    if recipe.loss == "cross_entropy_on_probabilities":
        return '''
def loss_of(network, x, y):
    """The mean of -log p of the right class."""
    probabilities = network(x)
    right = jnp.take_along_axis(probabilities, y[:, None], axis=1)
    return -jnp.log(jnp.maximum(right, jnp.finfo(right.dtype).tiny)).mean()
'''
    words = "The mean cross-entropy, which applies the softmax itself."
    if recipe.output == "probabilities":
        words = "Cross-entropy with a softmax of its own, the second: as the recipe says."
    return f'''
def loss_of(network, x, y):
    """{words}"""
    return optax.softmax_cross_entropy_with_integer_labels(network(x), y).mean()
'''


TRAIN_STEP = '''
@nnx.jit
def train_step(network, optimizer, x, y):
    """One step on a batch: its mean loss."""
    loss, gradients = nnx.value_and_grad(loss_of)(network, x, y)
    optimizer.update(network, gradients)
    return loss
'''


# Optimizer and schedule


def _optimizer(recipe: Recipe) -> str:
    """The transformation, of the name `rate` or of a number."""
    chosen = recipe.optimizer
    rate = _first(recipe)
    match chosen:
        case Adadelta():
            name = "optax.adadelta"
            more = [
                f"rho={number(chosen.rho)}",
                f"eps={number(chosen.epsilon)}",
            ]
        case RMSprop():
            name = "optax.rmsprop"
            more = [
                f"decay={number(chosen.rho)}",
                f"eps={number(chosen.epsilon)}",
                f"eps_in_sqrt={chosen.epsilon_form == 'inside'}",
            ]
        case SGD():
            return _sgd(recipe, chosen, rate)
        case Adam():
            return _adam(chosen, rate)
    return call(f"tx = {name}", [rate, *more], 4)


def _adam(chosen: Adam, rate: str) -> str:
    decay = chosen.weight_decay
    decoupled = decay and chosen.weight_decay_form == "decoupled"
    name = "optax.adamw" if decoupled else "optax.adam"
    arguments = [
        rate,
        f"b1={number(chosen.beta1)}",
        f"b2={number(chosen.beta2)}",
        f"eps={number(chosen.epsilon)}",
    ]
    if chosen.epsilon_form == "hat":
        name = f"optax.inject_hyperparams({name})"
        arguments[-1] = "eps=epsilon"
    if chosen.epsilon_root:
        arguments.append(f"eps_root={number(chosen.epsilon_root)}")
    if decoupled:
        arguments.append(f"weight_decay={number(decay)}")
    made = call(f"tx = {name}", arguments, 4)
    if decay and not decoupled:
        added = f"optax.add_decayed_weights({number(decay)})"
        made += f"\n    tx = optax.chain({added}, tx)  # L2"
    return made


def _sgd(recipe: Recipe, chosen: SGD, rate: str) -> str:
    decay, momentum = chosen.weight_decay, number(chosen.momentum)
    decayed = [f"optax.add_decayed_weights({number(decay)})"] if decay else []
    # With a rate that stays, both forms of momentum are the same.
    inside = chosen.momentum > 0 and chosen.momentum_form == "rate_inside"
    inside = inside and not recipe.decay.keeps
    behind = chosen.momentum > 0 and chosen.weight_decay_form == "decoupled"
    if inside or (decay and behind):
        scaled = f"optax.scale_by_learning_rate({rate})"
        trace = f"optax.trace({momentum})"
        links = (
            [*decayed, scaled, trace] if inside else [trace, *decayed, scaled]
        )
        if inside and decay and behind:
            raise scripts.refused(
                recipe, TITLE, "weight_decay_form", "decoupled", "l2"
            )
        return call("tx = optax.chain", links, 4)
    more = [f"momentum={momentum}"] if chosen.momentum else []
    if not decayed:
        return call("tx = optax.sgd", [rate, *more], 4)
    made = call("optax.sgd", [rate, *more])
    return call("tx = optax.chain", [*decayed, made], 4)


def _epsilon(recipe: Recipe) -> str:
    """Adam's epsilon "hat"."""
    chosen = recipe.optimizer
    if not isinstance(chosen, Adam) or chosen.epsilon_form != "hat":
        return ""
    return f'''
def epsilon(step):
    """Adam's, as Keras adds it: before the mean square is corrected.

    That is the same as a larger one after it, which is where optax adds it.
    """
    return {number(chosen.epsilon)} / (1 - {number(chosen.beta2)} ** (step + 1)) ** 0.5
'''


def _first(recipe: Recipe) -> str:
    """What an optimizer takes for its rate."""
    if recipe.decay.keeps:
        return number(recipe.optimizer.learning_rate)
    if recipe.decay.unit == "step":
        return "rate"
    return "lambda step: rate(step // steps_per_epoch)"


def _rate(recipe: Recipe) -> str:
    decay, start = recipe.decay, number(recipe.optimizer.learning_rate)
    if decay.keeps:
        return ""
    if decay.shape == "exponential":
        lines = [f"return {start} * {scripts.exponential(recipe)}"]
    else:
        while_, rising, falling = scripts.linear(recipe, "jnp.maximum")
        lines = [f"falling = {falling}", f"return {start} * falling"]
        if while_:
            lines.insert(0, f"rising = {rising}")
            which = [while_, "rising", "falling"]
            lines[-1] = call(f"return {start} * jnp.where", which, 4)
    body = "\n    ".join(lines)
    return f'''
def rate({decay.unit}):
    """The learning rate, counted from 0."""
    {body}
'''


# Train, evaluate, and all together


def _train(recipe: Recipe, optimizer: str) -> str:
    held = recipe.validation_size
    order = (
        "random.permutation(len(x))" if recipe.shuffle else "np.arange(len(x))"
    )
    counted = "steps_per_epoch" in optimizer
    lines = [
        f"def train(network, training{', validation' if held else ''}):",
        '    """Train, and print the mean loss of each epoch."""',
        "    x, y = training",
    ]
    if counted:
        lines.append("    steps_per_epoch = math.ceil(len(x) / BATCH_SIZE)")
    lines += [
        f"    {optimizer}",
        "    optimizer = nnx.Optimizer(network, tx, wrt=nnx.Param)",
    ]
    if recipe.shuffle:
        lines.append("    random = np.random.default_rng(SEED)")
    lines += [
        "    for epoch in range(EPOCHS):",
        "        network.train()",
        "        total = 0.0",
        f"        order = {order}",
        "        for rows in np.split(order, range(BATCH_SIZE, len(x), BATCH_SIZE)):",
        "            loss = train_step(network, optimizer, x[rows], y[rows])",
        "            total += loss * len(rows)",
        '        print(f"epoch {epoch + 1}: loss {total / len(x):.4f}")',
    ]
    if held:
        accuracy = "evaluate(network, *validation)"
        lines.append(
            f'        print(f"  validation accuracy {{{accuracy}:.2%}}")'
        )
    return "\n".join(lines)


EVALUATE = '''
@nnx.jit
def answers(network, x):
    """The class with the largest output, for each image."""
    return network(x).argmax(1)


def evaluate(network, x, y):
    """The share of right answers, dropout off."""
    network.eval()
    right = 0
    for rows in np.split(np.arange(len(x)), range(1000, len(x), 1000)):
        right += (answers(network, x[rows]) == y[rows]).sum().item()
    return right / len(x)
'''


def _main(recipe: Recipe) -> str:
    held = ", validation" if recipe.validation_size else ""
    saved = "checkpointer.save(path, nnx.state(network, nnx.Param), force=True)"
    if recipe.architecture.layers_of("batch_norm"):
        kept = "nnx.Any(nnx.Param, nnx.BatchStat)"
        saved = f"kept = nnx.state(network, {kept})\n        "
        saved += "checkpointer.save(path, kept, force=True)"
    lines = [
        "def main():",
        scripts.asking("model"),
        f"    training{held}, test = load(arguments.data)",
        "    network = Network(nnx.Rngs(SEED))",
        f"    train(network, training{held})",
        '    print(f"test accuracy {evaluate(network, *test):.2%}")',
        "    with ocp.StandardCheckpointer() as checkpointer:",
        "        path = Path(arguments.out).absolute()",
        f"        {saved}",
    ]
    return "\n".join(lines)
