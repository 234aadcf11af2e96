"""Writes a recipe as a script in plain Keras, on TensorFlow."""

from __future__ import annotations

from paripassu.core import scripts
from paripassu.core.networks import Layer
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
    }
    if functions:
        ((amplitude, slope),) = functions
        found.append(
            f"{REGISTERED}def scaled_tanh(x):\n"
            f"    return {number(amplitude)} * "
            f"keras.ops.tanh({scripts.ratio(slope)} * x)"
        )
    return found


def _network(recipe: Recipe) -> str:
    network = recipe.architecture
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


# First weights

INITIALIZERS = ("glorot_uniform", "he_uniform", "zeros")  # of Keras's own


def _initializer(recipe: Recipe) -> list[str]:
    kernel = recipe.initializer.kernel
    own = scripts.is_drawn_by(INITIALIZERS, recipe)
    if not own or kernel == "glorot_uniform":  # Keras's default
        return []
    return [f'kernel_initializer="{kernel}"']


def _initialize(recipe: Recipe) -> str:
    if scripts.is_drawn_by(INITIALIZERS, recipe):
        return ""
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
    if not scripts.is_drawn_by(INITIALIZERS, recipe):
        lines.append("    initialize(network)")
    lines += [
        f"    train(network, training{held})",
        "    _, accuracy = network.evaluate(*test, verbose=0)",
        '    print(f"test accuracy {accuracy:.2%}")',
        "    network.save(arguments.out)",
    ]
    return "\n".join(lines)
