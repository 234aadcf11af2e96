"""Writes a recipe as a script in plain Keras, on TensorFlow."""

from __future__ import annotations

from paripassu.core import scripts
from paripassu.core.architecture import IMAGES, Layer, Shape
from paripassu.core.errors import UserError
from paripassu.core.layer_spec import same_padding
from paripassu.core.recipe import SGD, Adadelta, Adam, Recipe, RMSprop
from paripassu.core.scripts import call, limit, noted, number

TITLE = "TensorFlow"
STANDARD = (("argparse", "import argparse"), ("math.", "import math"))
LIBRARIES = (
    ("keras.", "import keras"),
    ("np.", "import numpy as np"),
    ("tf.", "import tensorflow as tf"),
    (" layers.", "from keras import layers"),
)
REGISTERED = "@keras.saving.register_keras_serializable()\n"


def code(recipe: Recipe) -> str:
    """The recipe as a script that imports Keras, TensorFlow and NumPy alone.

    Raises:
        UserError: it asks for what Keras has not.
    """
    scripts.check_layers(recipe)
    scripts.check_training(recipe)
    optimizer, own_optimizer = _optimizer(recipe)
    more = []
    if recipe.precision == "float64":
        more = ["", 'keras.config.set_floatx("float64")']
    if recipe.precision == "bfloat16":
        more = ["", 'keras.config.set_dtype_policy("mixed_bfloat16")']
    if table := scripts.table_of(recipe):
        cells = '[[x == "X" for x in row] for row in TABLE]'
        more += ["", table, f'CONNECTED = np.array({cells}, "float32")']
    body = [
        scripts.constants(recipe, *more),
        *_own_layers(recipe),
        _network(recipe),
        _initialize(recipe),
        scripts.loading(recipe),
        _second_softmax(recipe),
        own_optimizer,
        _rate(recipe),
        _train(recipe, optimizer),
        _main(recipe),
    ]
    return scripts.joined(recipe, TITLE, body, STANDARD, LIBRARIES)


# Network

SUBSAMPLE = f'''
{REGISTERED}class Subsample(layers.Layer):
    """Sums of 2x2 pixels, times a coefficient and plus a bias that are learned."""

    def build(self, input_shape):
        shape = (input_shape[-1],)
        self.coefficient = self.add_weight(shape, "ones", name="coefficient")
        self.bias = self.add_weight(shape, "zeros", name="bias")

    def call(self, x):  # (N, h, w, c)
        sums = 4 * keras.ops.average_pool(x, 2)
        return sums * self.coefficient + self.bias
'''
TABLE_CONV = f'''
{REGISTERED}class TableConv2D(layers.Conv2D):
    """A convolution in which each filter sees only the channels of the table."""

    def convolution_op(self, inputs, kernel):
        connected = keras.ops.cast(CONNECTED, kernel.dtype)
        return super().convolution_op(inputs, kernel * connected)
'''


def _own_layers(recipe: Recipe) -> list[str]:
    network = recipe.architecture
    found = [
        SUBSAMPLE if network.layers_of("subsample") else "",
        TABLE_CONV if scripts.table_of(recipe) else "",
    ]
    functions = {
        (x.settings["amplitude"], x.settings["slope"])
        for x in network.layers_of("tanh")
        if not _is_plain_tanh(x)
    }
    if len(functions) > 1:
        raise UserError(
            f"recipe {recipe.name!r} has layers of kind tanh with different scales, "
            f"{sorted(functions)}, and a script in {TITLE} has words for one. Type the "
            "same amplitude and slope for them, or choose another framework."
        )
    if any(x.settings["approximate"] for x in network.layers_of("gelu")):
        found.append(
            f"{REGISTERED}def gelu_by_tanh(x):\n"
            "    return keras.ops.gelu(x, approximate=True)"
        )
    if functions:
        ((amplitude, slope),) = functions
        found.append(
            f"{REGISTERED}def scaled_tanh(x):\n"
            f"    return {number(amplitude)} * "
            f"keras.ops.tanh({scripts.ratio(slope)} * x)"
        )
    return found


def _is_plain_tanh(layer: Layer) -> bool:
    scales = layer.settings["amplitude"], layer.settings["slope"]
    return scales == (1, 1)


def _graph(recipe: Recipe) -> str:
    """A functional model: each layer called with what it takes."""
    network = recipe.architecture
    names = {**scripts.variables(network), IMAGES: "images"}
    lines = [f"    images = keras.Input({network.input_shape})"]
    for layer in network.layers:
        given = [names[source] for source in layer.inputs]
        joins = layer.kind in ("add", "concatenate")
        x = f"[{', '.join(given)}]" if joins else given[0]
        shape = network.shape_of(layer.inputs[0])
        mine = names.get(layer.name, "x")
        border, padding = _padding(layer, shape)
        if border:
            lines.append(f"    x = {border.format(x=x)}")
            x = "x"
        name, *arguments = _arguments(layer, recipe, padding)
        if layer.kind in ("conv", "dense"):
            arguments += _initializer(recipe)
        arguments.append(f'name="{layer.name}"')
        made = f"    {mine} = {name}({', '.join(arguments)})({x})"
        if len(made) > scripts.WIDTH:
            lines.append(f"    {call(f'layer = {name}', arguments, 4)}")
            made = f"    {mine} = layer({x})"
        changes = layer.output_shape != shape
        note = scripts.shaped(layer.output_shape) if changes else ""
        lines.append(noted(made, note))
    lines.append("    return keras.Model(images, x)")
    return "\n".join(["def make_network():", *lines])


def is_depthwise(layer: Layer) -> bool:
    """Whether a layer is Keras's `DepthwiseConv2D`: TensorFlow's have one stride."""
    if layer.kind != "conv":
        return False
    rows, columns = layer.settings.get("strides", (1, 1))
    groups = layer.settings.get("groups", 1)
    return groups > 1 and layer.weights[0].shape[2] == 1 and rows == columns


def _padding(layer: Layer, shape: Shape) -> tuple[str, str]:
    """What pads `x` first, or "", and what Keras calls the padding, or ""."""
    settings = layer.settings
    pads = settings.get("padding")
    if pads is None or layer.kind == "pad":
        return "", ""
    size = (
        layer.weights[0].shape[:2] if layer.kind == "conv" else settings["size"]
    )
    strides = settings.get("strides", (1, 1) if layer.kind == "conv" else size)
    dilation = settings.get("dilation", (1, 1))
    each = zip(shape[:2], size, strides, dilation, strict=True)
    if pads == tuple(same_padding(*x) for x in each):
        return "", "same"
    if layer.kind == "conv":
        return f"layers.ZeroPadding2D({pads})({{x}})", ""
    frame = ((0, 0), *pads, (0, 0))
    arguments = ["{x}", str(frame), 'constant_values=float("-inf")']
    return call("x = keras.ops.pad", arguments, 4).removeprefix("x = "), ""


def _arguments(layer: Layer, recipe: Recipe, padding: str) -> list[str]:
    """The class of a layer, and what it is made with."""
    settings = layer.settings
    if layer.kind == "conv":
        found = _convolution(layer)
    elif layer.kind in ("max_pool", "average_pool"):
        which = "Max" if layer.kind == "max_pool" else "Average"
        found = [f"layers.{which}Pooling2D", scripts.pair(settings["size"])]
        if "strides" in settings:
            found.append(f"strides={scripts.pair(settings['strides'])}")
    elif layer.kind in NAMES:
        found = [NAMES[layer.kind]]
        for key, form in SETTINGS.items():
            if key in settings:
                found.append(form + number(settings[key]))
        if "groups" in settings:
            found.insert(1, str(settings["groups"]))
    elif layer.kind == "gelu" and settings["approximate"]:
        found = ["layers.Activation", "gelu_by_tanh"]
    elif layer.kind in ACTIVATIONS and not (
        layer.kind == "tanh" and not _is_plain_tanh(layer)
    ):
        found = ["layers.Activation", f'"{layer.kind}"']
    else:
        name, more = _made(layer, recipe)
        found = [name, *more]
    if padding:
        found.append(f'padding="{padding}"')
    if layer.kind in ("conv", "dense") and not scripts.has_bias(layer):
        found.append("use_bias=False")
    return found


def _convolution(layer: Layer) -> list[str]:
    kernel, settings = layer.weights[0], layer.settings
    size, groups = scripts.pair(kernel.shape[:2]), settings.get("groups", 1)
    if is_depthwise(layer):
        found = ["layers.DepthwiseConv2D", size]
        if (multiplier := kernel.shape[3] // groups) > 1:
            found.append(f"depth_multiplier={multiplier}")
    else:
        name = "TableConv2D" if kernel.table else "layers.Conv2D"
        found = [name, str(kernel.shape[3]), size]
        found += [f"groups={groups}"] if groups > 1 else []
    for key, own in (("strides", "strides"), ("dilation", "dilation_rate")):
        if key in settings:
            found.append(f"{own}={scripts.pair(settings[key])}")
    return found


NAMES = {
    "batch_norm": "layers.BatchNormalization",
    "layer_norm": "layers.LayerNormalization",
    "group_norm": "layers.GroupNormalization",
    "leaky_relu": "layers.LeakyReLU",
    "elu": "layers.ELU",
    "global_average_pool": "layers.GlobalAveragePooling2D",
    "global_max_pool": "layers.GlobalMaxPooling2D",
    "add": "layers.Add",
    "concatenate": "layers.Concatenate",
}
SETTINGS = {
    "momentum": "momentum=",
    "epsilon": "epsilon=",
    "slope": "",
    "alpha": "",
}
ACTIVATIONS = ("gelu", "silu", "sigmoid", "softplus", "tanh")


def _network(recipe: Recipe) -> str:
    network = recipe.architecture
    if recipe.layers is not None:
        return _graph(recipe)
    lines = ["def make_network():", "    return keras.Sequential(", "        ["]
    lines.append(f"            keras.Input({network.input_shape}),")
    shape = network.input_shape
    waiting: list[Layer] = list(network.layers)
    while waiting:
        layer = waiting.pop(0)
        more = _initializer(recipe) if layer.kind in ("conv", "dense") else []
        follows = waiting[0].kind if waiting else ""
        if layer.kind in ("conv", "dense") and follows == "relu":
            waiting.pop(0)
            more = ['activation="relu"', *more]
        name, arguments = _made(layer, recipe)
        made = call(name, [*arguments, *more, f'name="{layer.name}"'], 12)
        changes = layer.output_shape != shape
        note = scripts.shaped(layer.output_shape) if changes else ""
        lines.append(noted(f"            {made},", note))
        shape = layer.output_shape
    return "\n".join([*lines, "        ]", "    )"])


def _made(layer: Layer, recipe: Recipe) -> tuple[str, list[str]]:
    """The class of a layer, and what it is made with."""
    settings = layer.settings
    match layer.kind:
        case "pad":
            return "layers.ZeroPadding2D", [str(settings["padding"])]
        case "conv":
            kernel = layer.weights[0]
            rows, columns, _, filters = kernel.shape
            size = rows if rows == columns else (rows, columns)
            name = "TableConv2D" if kernel.table else "layers.Conv2D"
            return name, [str(filters), str(size)]
        case "dense":
            return "layers.Dense", [str(layer.output_shape[0])]
        case "relu":
            return "layers.ReLU", []
        case "tanh":
            return "layers.Activation", ["scaled_tanh"]
        case "max_pool":
            rows, columns = settings["size"]
            size = rows if rows == columns else (rows, columns)
            return "layers.MaxPooling2D", [str(size)]
        case "subsample":
            return "Subsample", []
        case "dropout":
            return "layers.Dropout", [number(recipe.dropout[layer.name])]
        case "flatten":
            return "layers.Flatten", []
        case "softmax":
            return "layers.Softmax", []
        case _:
            raise ValueError(f"no words for a layer of kind {layer.kind!r}")


# First weights

INITIALIZERS = ("glorot_uniform", "he_uniform", "zeros")  # of Keras's own


def _initializer(recipe: Recipe) -> list[str]:
    kernel = recipe.initializer.kernel
    own = _is_drawn(recipe)
    if not own or kernel == "glorot_uniform":  # Keras's default
        return []
    return [f'kernel_initializer="{kernel}"']


def _is_drawn(recipe: Recipe) -> bool:
    """Whether Keras's own initializers draw the first weights as asked.

    They take other fans for kernels of depthwise convolutions.
    """
    kernel = recipe.initializer.kernel
    for layer in recipe.architecture.layers:
        if is_depthwise(layer) and kernel != "zeros":
            multiplier = layer.weights[0].shape[3] // layer.settings["groups"]
            if kernel != "glorot_uniform" or multiplier > 1:
                return False
    return scripts.is_drawn_by(INITIALIZERS, recipe)


def _initialize_graph(recipe: Recipe) -> str:
    """First weights of convolutions and dense layers, with or without biases."""
    chosen, network = recipe.initializer, recipe.architecture
    kernel = limit(chosen.kernel, "fan_in", "fan_out")
    bias = limit(chosen.bias, "fan_in", "fan_out")
    draws = []
    if "fan_in" in kernel + bias:
        draws.append("fan_in = math.prod(kernel.shape[:-1])")
    if "fan_out" in kernel + bias:
        draws.append(
            "fan_out = math.prod(kernel.shape[:-2]) * kernel.shape[-1]"
        )
    depthwise = any(map(is_depthwise, network.layers))
    if depthwise and draws:
        draws.append("if isinstance(layer, layers.DepthwiseConv2D):")
        draws.append("    fan_in = math.prod(kernel.shape[:2])")
        if "fan_out" in kernel + bias:
            draws.append("    fan_out = kernel.size")
    subsamples = bool(network.layers_of("subsample"))
    if subsamples and draws:
        draws.append("if isinstance(layer, Subsample):")
        draws.append("    fan_in, fan_out = 4, 1")
    table = bool(scripts.table_of(recipe))
    if table and draws:
        draws.append("if isinstance(layer, TableConv2D):")
        draws.append(
            "    fan_in = fan_in * CONNECTED.mean(0)  # of each filter"
        )
    draws += [
        f"bound = {kernel}",
        "draws = [random.uniform(-bound, bound, kernel.shape)]",
        *(["if isinstance(layer, TableConv2D):"] if table else []),
        *(["    draws[0] *= CONNECTED"] if table else []),
        f"bound = {bias}",
        "draws += [random.uniform(-bound, bound, x.shape) for x in biases]",
        "layer.set_weights(draws)",
    ]
    kinds = ["layers.Conv2D"] if network.layers_of("conv") else []
    kinds += ["layers.DepthwiseConv2D"] if depthwise else []
    kinds += ["Subsample"] if subsamples else []
    kinds += ["layers.Dense"] if network.layers_of("dense") else []
    asked = call("if isinstance", ["layer", " | ".join(kinds)], 8)
    words = f"Draw first weights: {chosen.kernel}, biases: {chosen.bias}."
    lines = [
        "def initialize(network):",
        f'    """{words}"""',
        "    random = np.random.default_rng(SEED)",
        "    for layer in network.layers:",
        f"        {asked}:",
        "            kernel, *biases = layer.get_weights()",
        *(f"            {x}" for x in draws),
    ]
    return "\n".join(lines)


def _initialize(recipe: Recipe) -> str:
    if _is_drawn(recipe):
        return ""
    if recipe.layers is not None:
        return _initialize_graph(recipe)
    chosen = recipe.initializer
    kernel = limit(chosen.kernel, "fan_in", "fan_out")
    bias = limit(chosen.bias, "fan_in", "fan_out")
    table = bool(scripts.table_of(recipe))
    draws = []
    if "fan_in" in kernel + bias:
        fans = ["fan_in = math.prod(shape[:-1])"]
        subsample = ["fan_in = 4"]
        if "fan_out" in kernel:
            fans.append("fan_out = math.prod(shape[:-2]) * shape[-1]")
            subsample.append("fan_out = 1")
        draws += ["shape = layer.weights[0].shape", *fans]
        if table:
            draws += [
                "if isinstance(layer, TableConv2D):",
                "    fan_in = fan_in * CONNECTED.mean(0)  # of each filter",
            ]
        if recipe.architecture.layers_of("subsample"):
            draws += ["if isinstance(layer, Subsample):"]
            draws += [f"    {x}" for x in subsample]
    if kernel == bias:
        draws.append(f"bound = {kernel}")
        each = "random.uniform(-bound, bound, x.shape) for x in layer.weights"
        draws.append(f"draws = [{each}]")
    else:
        draws += [
            "kernel, bias = layer.weights",
            f"bound = {kernel}",
            "draws = [random.uniform(-bound, bound, kernel.shape)]",
            f"bound = {bias}",
            "draws.append(random.uniform(-bound, bound, bias.shape))",
        ]
    if table:
        draws += [
            "if isinstance(layer, TableConv2D):",
            "    draws[0] *= CONNECTED",
        ]
    words = f"Draw first weights: {chosen.kernel}, biases: {chosen.bias}."
    lines = [
        "def initialize(network):",
        f'    """{words}"""',
        "    random = np.random.default_rng(SEED)",
        "    for layer in network.layers:",
        "        if layer.weights:",
        *(f"            {x}" for x in draws),
        "            layer.set_weights(draws)",
    ]
    return "\n".join(lines)


# Loss


def _loss(recipe: Recipe) -> str:
    if recipe.loss == "cross_entropy_on_probabilities":
        return "keras.losses.SparseCategoricalCrossentropy()"
    if recipe.output == "probabilities":
        return "loss_of"
    return "keras.losses.SparseCategoricalCrossentropy(from_logits=True)"


def _second_softmax(recipe: Recipe) -> str:
    if _loss(recipe) != "loss_of":
        return ""
    made = call(
        "return keras.losses.sparse_categorical_crossentropy",
        ["labels", "tf.identity(probabilities)", "from_logits=True"],
        4,
    )
    return f'''
def loss_of(labels, probabilities):
    """Cross-entropy with a softmax of its own, the second: as the recipe says."""
    # Keras would find the first and undo it: behind `identity` it does not.
    {made}
'''


# Optimizer and schedule

ADAM = f'''
{REGISTERED}class Adam(keras.optimizers.Adam):
    """Adam with epsilon after the mean square's correction, where PyTorch has it."""

    def update_step(self, gradient, variable, learning_rate):
        step = keras.ops.cast(self.iterations + 1, variable.dtype)
        epsilon = self.epsilon
        # Keras adds it before that: the same as a smaller one there.
        self.epsilon = epsilon * keras.ops.sqrt(1 - self.beta_2**step)
        super().update_step(gradient, variable, learning_rate)
        self.epsilon = epsilon
'''


def _optimizer(recipe: Recipe) -> tuple[str, str]:
    """The call that makes it, and the code of one of its own."""
    chosen = recipe.optimizer
    own = ""
    match chosen:
        case Adadelta():
            name = "Adadelta"
            more = [
                f"rho={number(chosen.rho)}",
                f"epsilon={number(chosen.epsilon)}",
            ]
        case RMSprop():
            name = "RMSprop"
            more = [
                f"rho={number(chosen.rho)}",
                f"epsilon={number(chosen.epsilon)}",
            ]
            if chosen.epsilon_form == "outside":
                raise scripts.refused(
                    recipe, TITLE, "epsilon_form", "outside", "inside"
                )
        case SGD():
            name, more = "SGD", _momentum(recipe, chosen)
        case Adam():
            name, own = "Adam", ADAM if chosen.epsilon_form == "outside" else ""
            more = [
                f"beta_1={number(chosen.beta1)}",
                f"beta_2={number(chosen.beta2)}",
                f"epsilon={number(chosen.epsilon)}",
            ]
            if root := chosen.epsilon_root:
                raise scripts.refused(recipe, TITLE, "epsilon_root", root, 0.0)
            if decay := chosen.weight_decay:
                if chosen.weight_decay_form == "l2":
                    raise scripts.refused(
                        recipe, TITLE, "weight_decay_form", "l2", "decoupled"
                    )
                more.append(f"weight_decay={number(decay)}")
    place = "" if own else "keras.optimizers."
    return call(f"optimizer = {place}{name}", [_first(recipe), *more], 4), own


def _momentum(recipe: Recipe, chosen: SGD) -> list[str]:
    scripts.check_sgd(
        recipe, chosen, TITLE, momentum="rate_inside", decay="decoupled"
    )
    decay, found = chosen.weight_decay, []
    if chosen.momentum:
        found.append(f"momentum={number(chosen.momentum)}")
    return [*found, f"weight_decay={number(decay)}"] if decay else found


def _first(recipe: Recipe) -> str:
    """The rate that an optimizer is made with, or its schedule."""
    decay, rate = recipe.decay, number(recipe.optimizer.learning_rate)
    if decay.unit == "epoch" or decay.keeps:
        return f"learning_rate={rate}"
    made = "rate" if decay.shape == "exponential" else "Rate()"
    return f"learning_rate={made}"


def _rate(recipe: Recipe) -> str:
    """The code of a linear decay; Keras has the others."""
    if recipe.decay.shape == "exponential":
        return ""
    times = f"{number(recipe.optimizer.learning_rate)} *"
    if recipe.decay.unit == "epoch":
        while_, rising, falling = scripts.linear(recipe, "max")
        rise = f"    if {while_}:\n        return {times} {rising}\n"
        return f'''
def rate(epoch):
    """The learning rate of an epoch."""
{rise if while_ else ""}    return {times} {falling}
'''
    while_, rising, falling = scripts.linear(recipe, "keras.ops.maximum")
    lines = [f"falling = {falling}"]
    result = f"return {times} falling"
    if while_:
        lines.insert(0, f"rising = {rising}")
        which = [while_, "rising", "falling"]
        result = call(f"return {times} keras.ops.where", which, 8)
    body = "\n        ".join([*lines, result])
    return f'''
{REGISTERED}class Rate(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of a step."""

    def __call__(self, step):
        step = keras.ops.cast(step, keras.config.floatx())
        {body}

    def get_config(self):
        return {{}}
'''


def _schedule(recipe: Recipe) -> tuple[list[str], list[str]]:
    """Lines before the optimizer is made, and the callbacks of `fit`."""
    decay, rate = recipe.decay, number(recipe.optimizer.learning_rate)
    scheduler = "schedule = keras.callbacks.LearningRateScheduler"
    if decay.keeps or (decay.shape == "linear" and decay.unit == "step"):
        return [], []
    if decay.unit == "step":
        arguments = [rate, scripts.count(decay.interval), number(decay.factor)]
        made = "rate = keras.optimizers.schedules.ExponentialDecay"
        return [call(made, arguments, 4)], []
    if decay.shape == "linear":
        return [call(scheduler, ["rate"], 4)], ["schedule"]
    function = f"lambda epoch: {rate} * {scripts.exponential(recipe)}"
    return [call(scheduler, [function], 4)], ["schedule"]


# Train, and all together


def _train(recipe: Recipe, optimizer: str) -> str:
    before, callbacks = _schedule(recipe)
    held = recipe.validation_size
    arguments = [
        "*training",
        "batch_size=BATCH_SIZE",
        "epochs=EPOCHS",
        f"shuffle={recipe.shuffle}",
        *(["validation_data=validation"] if held else []),
        *([f"callbacks=[{callbacks[0]}]"] if callbacks else []),
        "verbose=2",
    ]
    loss = _loss(recipe)
    compiled = ["optimizer", loss, 'metrics=["accuracy"]']
    lines = [
        f"def train(network, training{', validation' if held else ''}):",
        '    """Train; Keras prints the mean loss of each epoch."""',
        *(f"    {x}" for x in before),
        f"    {optimizer}",
        f"    {call('network.compile', compiled, 4)}",
        f"    {call('network.fit', arguments, 4)}",
    ]
    return "\n".join(lines)


def _main(recipe: Recipe) -> str:
    held = ", validation" if recipe.validation_size else ""
    lines = ["def main():", scripts.asking("model.keras")]
    if recipe.precision == "float32":
        lines += [
            "    # On a GPU float32 is meant, not TF32.",
            "    tf.config.experimental.enable_tensor_float_32_execution(False)",
        ]
    lines += [
        "    keras.utils.set_random_seed(SEED)",
        f"    training{held}, test = load(arguments.data)",
        "    network = make_network()",
    ]
    if not _is_drawn(recipe):
        lines.append("    initialize(network)")
    lines += [
        f"    train(network, training{held})",
        "    _, accuracy = network.evaluate(*test, verbose=0)",
        '    print(f"test accuracy {accuracy:.2%}")',
        "    network.save(arguments.out)",
    ]
    return "\n".join(lines)
