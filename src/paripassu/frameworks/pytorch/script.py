"""Writes a recipe as a script in plain PyTorch."""

from __future__ import annotations

from paripassu.core import scripts
from paripassu.core.architecture import Layer, Shape
from paripassu.core.recipe import SGD, Adadelta, Adam, Recipe, RMSprop
from paripassu.core.scripts import call, limit, number

TITLE = "PyTorch"
STANDARD = (("argparse", "import argparse"),)
LIBRARIES = (
    ("np.", "import numpy as np"),
    ("torch.", "import torch"),
    ("nn.", "from torch import nn"),
    ("F.", "from torch.nn import functional as F"),
    (
        "DataLoader(",
        "from torch.utils.data import DataLoader, TensorDataset",
    ),
)


def code(recipe: Recipe) -> str:
    """The recipe as a script that imports PyTorch and NumPy alone.

    Raises:
        UserError: it asks for what PyTorch has not.
    """
    scripts.check_layers(recipe)
    scripts.check_training(recipe)
    optimizer, own_optimizer, before_step = _optimizer(recipe)
    wide = "torch.set_default_dtype(torch.float64)"
    more = ["", wide] if recipe.precision == "float64" else []
    table = scripts.table_of(recipe)
    more += ["", table] if table else []
    body = [
        scripts.constants(recipe, *more),
        *_own_layers(recipe),
        _network(recipe),
        _initialize(recipe),
        scripts.loading(recipe),
        TO_DATASET,
        _loss(recipe),
        own_optimizer,
        _factor(recipe),
        _train(recipe, optimizer, before_step),
        EVALUATE,
        _main(recipe),
    ]
    return scripts.joined(recipe, TITLE, body, STANDARD, LIBRARIES)


# Network

SUBSAMPLE = '''
class Subsample(nn.Module):
    """Sums of 2x2 pixels, times a coefficient and plus a bias that are learned."""

    def __init__(self, channels):
        super().__init__()
        self.coefficient = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):  # (N, c, h, w)
        sums = 4 * F.avg_pool2d(x, 2)
        return sums * self.coefficient[:, None, None] + self.bias[:, None, None]
'''
TABLE_CONV = '''
class TableConv2d(nn.Conv2d):
    """A convolution in which each filter sees only the channels of the table."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        table = torch.tensor([[x == "X" for x in row] for row in TABLE])
        self.register_buffer("table", table.T[:, :, None, None], persistent=False)

    def forward(self, x):
        return self._conv_forward(x, self.weight * self.table, self.bias)
'''


BATCH_NORM = '''
class {name}(nn.{name}):
    """Batch norm that keeps the biased running variance, as Keras and Flax do."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        count = x.numel() // x.shape[1]
        kept = (1 - self.momentum) * self.running_var
        y = super().forward(x)
        with torch.no_grad():
            new = (self.running_var - kept) * ((count - 1) / count)
            self.running_var = kept + new
        return y
'''
CHANNEL_NORM = '''
class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def forward(self, x):  # (N, c, h, w)
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
'''
AVERAGE_POOL = '''
def average_pool(x, size, stride, border):
    """The mean of each window, of what of it lies inside the image."""

    def sums(x):
        return F.avg_pool2d(F.pad(x, border), size, stride, divisor_override=1)

    return sums(x) / sums(torch.ones_like(x[:1, :1]))
'''


def _own_layers(recipe: Recipe) -> list[str]:
    network = recipe.architecture
    norms = [_norm_class(x) for x in network.layers_of("batch_norm")]
    of_images = any(_is_image(x) for x in network.layers_of("layer_norm"))
    pools = network.layers_of("average_pool")
    return [
        SUBSAMPLE if network.layers_of("subsample") else "",
        TABLE_CONV if scripts.table_of(recipe) else "",
        *(BATCH_NORM.format(name=x) for x in sorted(set(norms))),
        CHANNEL_NORM if of_images else "",
        AVERAGE_POOL if any(map(_is_uneven, pools)) else "",
    ]


def _is_image(layer: Layer) -> bool:
    return len(layer.output_shape) == 3


def _norm_class(layer: Layer) -> str:
    return "BatchNorm2d" if _is_image(layer) else "BatchNorm1d"


def _is_uneven(layer: Layer) -> bool:
    """Whether there are more zeros on one side than on the other."""
    pads = layer.settings.get("padding", ())
    return any(before != after for before, after in pads)


def _border(layer: Layer) -> str:
    (top, bottom), (left, right) = layer.settings["padding"]
    return f"({left}, {right}, {top}, {bottom})"


def _network(recipe: Recipe) -> str:
    network = recipe.architecture
    lines = ["class Network(nn.Module):", "    def __init__(self):"]
    lines += ["        super().__init__()"]
    for layer in network.layers:
        if made := _made(layer, recipe):
            place = f"self.{layer.name} = "
            lines.append(f"        {place}{made.removeprefix(place)}")
    mixed = recipe.precision == "bfloat16"
    indent = 12 if mixed else 8
    lines += ["", f"    def forward(self, x):  # {_shape(network.input_shape)}"]
    if mixed:
        lines.append(
            "        with torch.autocast(x.device.type, torch.bfloat16):"
        )
    result = "x.float()" if mixed else "x"
    if recipe.output == "probabilities":
        result += ".softmax(1)"
    lines += scripts.forward(
        network, _applied, result=result, indent=indent, shape_of=_shape
    )
    return "\n".join(lines)


def _shape(shape: Shape) -> str:
    """With the channels first."""
    *space, channels = shape
    return scripts.shaped((channels, *space))


def _made(layer: Layer, recipe: Recipe) -> str | None:
    """The module of a layer; None: it is a function."""
    match layer.kind:
        case "conv":
            return _convolution(layer)
        case "dense":
            inputs, outputs = layer.weights[0].shape
            more = "" if scripts.has_bias(layer) else ", bias=False"
            return f"nn.Linear({inputs}, {outputs}{more})"
        case "batch_norm" | "layer_norm" | "group_norm":
            return _norm(layer)
        case "dropout":
            return f"nn.Dropout({number(recipe.dropout[layer.name])})"
        case "subsample":
            return f"Subsample({layer.output_shape[-1]})"
        case _:
            return None


def _convolution(layer: Layer) -> str:
    kernel, settings = layer.weights[0], layer.settings
    groups = settings.get("groups", 1)
    inputs, outputs = kernel.shape[2] * groups, kernel.shape[3]
    arguments = [str(inputs), str(outputs)]
    arguments.append(f"kernel_size={scripts.pair(kernel.shape[:2])}")
    if "strides" in settings:
        arguments.append(f"stride={scripts.pair(settings['strides'])}")
    if "padding" in settings and not _is_uneven(layer):
        top, left = (pad[0] for pad in settings["padding"])
        arguments.append(f"padding={scripts.pair((top, left))}")
    if "dilation" in settings:
        arguments.append(f"dilation={scripts.pair(settings['dilation'])}")
    if groups > 1:
        arguments.append(f"groups={groups}")
    if not scripts.has_bias(layer):
        arguments.append("bias=False")
    module = "TableConv2d" if kernel.table else "nn.Conv2d"
    return call(f"self.{layer.name} = {module}", arguments, 8)


def _norm(layer: Layer) -> str:
    settings = layer.settings
    channels, epsilon = layer.output_shape[-1], number(settings["epsilon"])
    arguments = [str(channels), f"eps={epsilon}"]
    match layer.kind:
        case "batch_norm":
            name = _norm_class(layer)
            share = number(round(1 - settings["momentum"], 12))
            arguments.append(f"momentum={share}")
        case "layer_norm":
            name = "ChannelNorm" if _is_image(layer) else "nn.LayerNorm"
        case _:
            name = "nn.GroupNorm"
            arguments.insert(0, str(settings["groups"]))
    return f"{name}({', '.join(arguments)})"


def _pool(layer: Layer, x: str) -> str:
    settings = layer.settings
    size = scripts.pair(settings["size"])
    stride = scripts.pair(settings.get("strides", settings["size"]))
    largest = layer.kind == "max_pool"
    if _is_uneven(layer):
        if not largest:
            return f"average_pool({x}, {size}, {stride}, {_border(layer)})"
        x = f'F.pad({x}, {_border(layer)}, value=float("-inf"))'
    arguments = [x, size]
    if "strides" in settings:
        arguments.append(f"stride={stride}")
    if "padding" in settings and not _is_uneven(layer):
        top, left = (pad[0] for pad in settings["padding"])
        arguments.append(f"padding={scripts.pair((top, left))}")
        if not largest:
            arguments.append("count_include_pad=False")
    name = "max_pool2d" if largest else "avg_pool2d"
    return call(f"x = F.{name}", arguments, 8).removeprefix("x = ")


def _applied(layer: Layer, x: str, *others: str) -> str:
    """A layer applied to expressions."""
    settings = layer.settings
    if layer.kind in FUNCTIONS:
        return FUNCTIONS[layer.kind].format(x=x)
    match layer.kind:
        case "conv" if _is_uneven(layer):
            return f"self.{layer.name}(F.pad({x}, {_border(layer)}))"
        case "leaky_relu":
            return f"F.leaky_relu({x}, {number(settings['slope'])})"
        case "elu":
            return f"F.elu({x}, {number(settings['alpha'])})"
        case "gelu":
            more = ', approximate="tanh"' if settings["approximate"] else ""
            return f"F.gelu({x}{more})"
        case "add":
            return " + ".join([x, *others])
        case "concatenate":
            return f"torch.cat([{', '.join([x, *others])}], 1)"
        case "tanh" if settings["amplitude"] == settings["slope"] == 1:
            return f"torch.tanh({x})"
        case "max_pool" | "average_pool":
            return _pool(layer, x)
        case "pad":
            (top, bottom), (left, right) = settings["padding"]
            return f"F.pad({x}, ({left}, {right}, {top}, {bottom}))"
        case "tanh":
            slope = scripts.ratio(settings["slope"])
            amplitude = number(settings["amplitude"])
            return f"{amplitude} * torch.tanh({slope} * {x})"
        case _:
            return f"self.{layer.name}({x})"


FUNCTIONS = {
    "relu": "F.relu({x})",
    "silu": "F.silu({x})",
    "sigmoid": "torch.sigmoid({x})",
    "softplus": "F.softplus({x})",
    "flatten": "{x}.flatten(1)",
    "global_average_pool": "{x}.mean((2, 3))",
    "global_max_pool": "{x}.amax((2, 3))",
}

# First weights

INITIALIZERS = {
    "glorot_uniform": "nn.init.xavier_uniform_(module.weight)",
    "he_uniform": 'nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")',
    "fan_in_uniform": "nn.init.kaiming_uniform_(module.weight, a=5**0.5)",
    "zeros": "nn.init.zeros_(module.weight)",
}
DEFAULT = "fan_in_uniform"  # PyTorch's own, of weights and biases
PLAIN = "nn.Conv2d | nn.Linear"


def _needs_initializing(recipe: Recipe) -> bool:
    chosen = recipe.initializer
    default = chosen.kernel == DEFAULT and chosen.bias == DEFAULT
    return scripts.is_odd(recipe) or not default


def _initialize(recipe: Recipe) -> str:
    if not _needs_initializing(recipe):
        return ""
    chosen = recipe.initializer
    cases: dict[str, list[str]] = {}
    if scripts.is_drawn_by(INITIALIZERS, recipe):
        cases[PLAIN] = [
            INITIALIZERS[chosen.kernel],
            *_guarded(recipe, ["nn.init.zeros_(module.bias)"]),
        ]
    else:
        if scripts.table_of(recipe):
            cases["TableConv2d"] = [
                "seen = module.table.sum(1, keepdim=True)  # by each filter",
                "fan_in = seen * module.weight[0, 0].numel()",
                *_drawn(recipe, "weight", "(-1, 1).mul_(bound * module.table)"),
                *_guarded(
                    recipe,
                    _drawn(recipe, "bias", "(-1, 1).mul_(bound.flatten())"),
                ),
            ]
        cases[PLAIN] = [
            "fan_in = module.weight[0].numel()",
            *_drawn(recipe, "weight"),
            *_guarded(recipe, _drawn(recipe, "bias")),
        ]
        if recipe.architecture.layers_of("subsample"):
            cases["Subsample"] = [
                "fan_in = 4",
                *_drawn(recipe, "coefficient"),
                *_drawn(recipe, "bias"),
            ]
    words = f"Draw first weights: {chosen.kernel}, biases: {chosen.bias}."
    lines = ["@torch.no_grad()", "def initialize(module):"]
    lines.append(f'    """{words}"""')
    for kind, draws in cases.items():
        word = "elif" if lines[-1].startswith("        ") else "if"
        lines.append(f"    {word} isinstance(module, {kind}):")
        lines += [f"        {x}" for x in scripts.needed(draws)]
    return "\n".join(lines)


def _guarded(recipe: Recipe, lines: list[str]) -> list[str]:
    """Where some layers have no bias."""
    if scripts.all_have_biases(recipe):
        return lines
    body = "".join(f"\n            {x}" for x in scripts.needed(lines))
    return [f"if module.bias is not None:{body}"]


def _drawn(
    recipe: Recipe, name: str, how: str = "(-bound, bound)"
) -> list[str]:
    """Draw an array of a module whose `fan_in` is known."""
    chosen = recipe.initializer
    scheme = chosen.bias if name == "bias" else chosen.kernel
    if scheme == "zeros":
        return [f"module.{name}.zero_()"]
    fan_out = "1" if name == "coefficient" else "module.weight[:, 0].numel()"
    bound = limit(scheme, "fan_in", fan_out)
    return [f"bound = {bound}", f"module.{name}.uniform_{how}"]


# Data and loss

TO_DATASET = '''
def to_dataset(images, labels):
    """Images with the channels first, and labels."""
    images, labels = torch.from_numpy(images), torch.from_numpy(labels)
    return TensorDataset(images.permute(0, 3, 1, 2).contiguous(), labels)
'''


def _loss(recipe: Recipe) -> str:
    if recipe.loss == "cross_entropy_on_probabilities":
        return '''
def loss_of(probabilities, labels):
    """The mean of -log p of the right class."""
    tiny = torch.finfo(probabilities.dtype).tiny
    return F.nll_loss(probabilities.clamp_min(tiny).log(), labels)
'''
    if recipe.output == "probabilities":
        return '''
def loss_of(probabilities, labels):
    """Cross-entropy with a softmax of its own, the second: as the recipe says."""
    return F.cross_entropy(probabilities, labels)
'''
    return '''
def loss_of(logits, labels):
    """The mean cross-entropy: it applies the softmax itself."""
    return F.cross_entropy(logits, labels)
'''


# Optimizer and schedule

RMSPROP = '''
class RMSprop(torch.optim.Optimizer):
    """RMSprop with epsilon inside the square root, as Keras has it."""

    def __init__(self, parameters, lr, alpha, eps):
        super().__init__(parameters, {"lr": lr, "alpha": alpha, "eps": eps})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                square = state.setdefault("square", torch.zeros_like(p))
                square.mul_(group["alpha"])
                square.addcmul_(p.grad, p.grad, value=1 - group["alpha"])
                root = (square + group["eps"]).sqrt()
                p.addcdiv_(p.grad, root, value=-group["lr"])
'''


HAT = """\
step += 1
# Keras adds epsilon before the mean square is corrected: the same as a
# larger one after that, which is where PyTorch adds it.
epsilon = {epsilon} / (1 - {beta2}**step) ** 0.5
optimizer.param_groups[0]["eps"] = epsilon
"""


def _optimizer(recipe: Recipe) -> tuple[str, str, list[str]]:
    """The call that makes it, the code of one of its own, what precedes a step."""
    chosen = recipe.optimizer
    own, before = "", ""
    match chosen:
        case Adadelta():
            name = "Adadelta"
            more = [
                f"rho={number(chosen.rho)}",
                f"eps={number(chosen.epsilon)}",
            ]
        case RMSprop():
            name = "RMSprop"
            more = [
                f"alpha={number(chosen.rho)}",
                f"eps={number(chosen.epsilon)}",
            ]
            own = RMSPROP if chosen.epsilon_form == "inside" else ""
        case SGD():
            name, more = "SGD", _momentum(recipe, chosen)
        case Adam():
            decay = chosen.weight_decay
            decoupled = decay and chosen.weight_decay_form == "decoupled"
            name = "AdamW" if decoupled else "Adam"
            beta2, epsilon = number(chosen.beta2), number(chosen.epsilon)
            more = [
                f"betas=({number(chosen.beta1)}, {beta2})",
                f"eps={epsilon}",
            ]
            more += [f"weight_decay={number(decay)}"] if decay else []
            if chosen.epsilon_form == "hat":
                before = HAT.format(epsilon=epsilon, beta2=beta2)
            if root := chosen.epsilon_root:
                raise scripts.refused(recipe, TITLE, "epsilon_root", root, 0.0)
    place = "" if own else "torch.optim."
    rate = f"lr={number(chosen.learning_rate)}"
    made = ["network.parameters()", rate, *more]
    return call(f"optimizer = {place}{name}", made, 4), own, before.splitlines()


def _momentum(recipe: Recipe, chosen: SGD) -> list[str]:
    scripts.check_sgd(
        recipe, chosen, TITLE, momentum="rate_outside", decay="l2"
    )
    decay, found = chosen.weight_decay, []
    if chosen.momentum:
        found.append(f"momentum={number(chosen.momentum)}")
    return [*found, f"weight_decay={number(decay)}"] if decay else found


def _factor(recipe: Recipe) -> str:
    if recipe.decay.shape == "exponential":
        return ""
    while_, rising, falling = scripts.linear(recipe, "max")
    rise = f"    if {while_}:\n        return {rising}\n" if while_ else ""
    return f'''
def factor({recipe.decay.unit}):
    """What multiplies the learning rate."""
{rise}    return {falling}
'''


def _schedule(recipe: Recipe) -> str | None:
    decay = recipe.decay
    place = "schedule = torch.optim.lr_scheduler."
    if decay.keeps:
        return None
    if decay.shape == "linear":
        return f"{place}LambdaLR(optimizer, factor)"
    gamma = number(decay.factor)
    if decay.interval != 1:
        gamma += f" ** (1 / {scripts.count(decay.interval)})"
    return call(f"{place}ExponentialLR", ["optimizer", f"gamma={gamma}"], 4)


# Train, evaluate, and all together


def _train(recipe: Recipe, optimizer: str, before_step: list[str]) -> str:
    held = recipe.validation_size
    schedule = _schedule(recipe)
    per_step = recipe.decay.unit == "step"
    stepped = "schedule.step()"
    results = 'f"epoch {epoch + 1}: loss {total / len(training):.4f}"'
    inside = [
        "output = network(images.to(device))",
        "loss = loss_of(output, labels.to(device))",
        "optimizer.zero_grad()",
        "loss.backward()",
        *before_step,
        "optimizer.step()",
        *([stepped] if schedule and per_step else []),
        "total += loss.item() * len(labels)",
    ]
    after = [stepped] if schedule and not per_step else []
    after.append(f"print({results})")
    if held:
        accuracy = "evaluate(network, validation, device)"
        after.append(f'print(f"  validation accuracy {{{accuracy}:.2%}}")')
    loader = f"batch_size=BATCH_SIZE, shuffle={recipe.shuffle}"
    more = ", validation" if held else ""
    lines = [
        f"def train(network, training{more}, device):",
        '    """Train, and print the mean loss of each epoch."""',
        f"    loader = DataLoader(training, {loader})",
        f"    {optimizer}",
        *([f"    {schedule}"] if schedule else []),
        *(["    step = 0"] if before_step else []),
        "    for epoch in range(EPOCHS):",
        "        network.train()",
        "        total = 0.0",
        "        for images, labels in loader:",
        *(f"            {x}" for x in inside),
        *(f"        {x}" for x in after),
    ]
    return "\n".join(lines)


EVALUATE = '''
@torch.inference_mode()
def evaluate(network, data, device):
    """The share of right answers, dropout off."""
    network.eval()
    right = 0
    for images, labels in DataLoader(data, batch_size=1000):
        answers = network(images.to(device)).argmax(1)
        right += (answers == labels.to(device)).sum().item()
    return right / len(data)
'''


def _main(recipe: Recipe) -> str:
    held = ", validation" if recipe.validation_size else ""
    lines = ["def main():", scripts.asking("model.pt")]
    if recipe.precision == "float32":
        lines.append("    torch.backends.cudnn.allow_tf32 = False  # not TF32")
    lines += [
        "    torch.manual_seed(SEED)",
        '    device = "cuda" if torch.cuda.is_available() else "cpu"',
        "    splits = load(arguments.data)",
        f"    training{held}, test = [to_dataset(*split) for split in splits]",
        "    network = Network().to(device)",
    ]
    if _needs_initializing(recipe):
        lines.append("    network.apply(initialize)")
    lines += [
        f"    train(network, training{held}, device)",
        '    print(f"test accuracy {evaluate(network, test, device):.2%}")',
        "    torch.save(network.state_dict(), arguments.out)",
    ]
    return "\n".join(lines)
