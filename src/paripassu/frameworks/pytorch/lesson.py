# %% [markdown]
# # Handwritten digits in PyTorch
# One small convolutional network on MNIST, from a recipe to a prediction. The
# TensorFlow lesson has the same headings: read the two side by side.

# %%
import torch
from torch import nn

from paripassu.core import datasets, draws, files, layout
from paripassu.core.recipe import load
from paripassu.frameworks.pytorch import optimizers

# %% [markdown]
# ## Recipe
# One recipe holds every number of the experiment. PyTorch leaves it to you to
# name a device and a number type, and to put network and data there.


# %%
def placement(recipe):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {"device": device, "dtype": getattr(torch, recipe.precision)}


# %% [markdown]
# ## Data
# PyTorch wants the channel axis before height and width. The whole set fits in
# memory: it becomes two tensors once, not one image at a time.


# %%
def to_tensors(split, device, dtype):
    images = torch.from_numpy(split.images).unsqueeze(1)  # (N, 1, 28, 28)
    labels = torch.from_numpy(split.labels)  # (N,), int64
    return images.to(device, dtype), labels.to(device)


# %% [markdown]
# ## Network
# A module declares its layers, with their input sizes, and uses them in
# `forward`: plain Python, run anew for every batch.


# %%
class Network(nn.Module):
    def __init__(self, dropout1=0.25, dropout2=0.5):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3)
        self.pool = nn.MaxPool2d(2)
        self.relu2 = nn.ReLU()  # after the pool: the same, on fewer numbers
        self.dropout1 = nn.Dropout(dropout1)
        self.flatten = nn.Flatten()
        self.dense1 = nn.Linear(64 * 12 * 12, 128)
        self.relu3 = nn.ReLU()
        self.dropout2 = nn.Dropout(dropout2)
        self.dense2 = nn.Linear(128, 10)

    def forward(self, x):  # (N, 1, 28, 28)
        x = self.relu1(self.conv1(x))  # (N, 32, 26, 26)
        x = self.relu2(self.pool(self.conv2(x)))  # (N, 64, 12, 12)
        x = self.flatten(self.dropout1(x))  # (N, 9216)
        x = self.relu3(self.dense1(x))  # (N, 128)
        return self.dense2(self.dropout2(x))  # (N, 10), logits


def put(network, device, dtype):
    # Channels last in memory, not in shape: convolutions run faster so.
    channels_last = torch.channels_last
    return network.to(device, dtype, memory_format=channels_last)


# %% [markdown]
# ## Loss
# Cross-entropy takes logits and applies the softmax itself, where it cannot
# overflow. A softmax in the network would apply it a second time.

# %%
cross_entropy = nn.CrossEntropyLoss()

# %% [markdown]
# ## Optimizer and schedule
# The optimizer holds the parameters that it updates. The schedule lowers its
# rate at each `schedule.step()`: you decide whether per epoch or per batch.


# %%
def make_optimizer(network, recipe):
    chosen, parameters = recipe.optimizer, network.parameters()
    if chosen.kind != "adadelta":
        return optimizers.make(parameters, chosen)
    rate, rho, epsilon = chosen.learning_rate, chosen.rho, chosen.epsilon
    return torch.optim.Adadelta(parameters, lr=rate, rho=rho, eps=epsilon)


def make_schedule(optimizer, recipe):
    factor = recipe.decay.factor ** (1 / recipe.decay.interval)
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=factor)


# %% [markdown]
# ## Train
# The loop is yours. Gradients add up until they are cleared, and `train()`
# turns dropout on. The caller gets each batch's loss and right answers.


# %%
def train_epoch(network, loss_of, optimizer, images, labels, batches):
    network.train()
    for rows in batches:
        x, y = images[rows], labels[rows]
        output = network(x)
        loss = loss_of(output, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.detach(), (output.argmax(1) == y).sum()


# %% [markdown]
# ## Evaluate
# `eval()` turns dropout off; `inference_mode` keeps nothing for gradients. The
# loss is the mean over images, not over batches.


# %%
@torch.inference_mode()
def evaluate(network, loss_of, images, labels):
    network.eval()
    outputs = torch.cat([network(x) for x in images.split(1000)])
    accuracy = (outputs.argmax(1) == labels).double().mean()
    return loss_of(outputs, labels).item(), accuracy.item()


# %% [markdown]
# ## Save and load
# PyTorch saves the state, not the class. The common format, safetensors in one
# layout, passes weights from framework to framework.

# %%
LAYOUTS = {"h w i o": "o i h w", "i o": "o i", "(h w c) o": "o (c h w)"}


def save(network, path):
    torch.save(network.state_dict(), path)


def load_saved(network, path):
    network.load_state_dict(torch.load(path, weights_only=True))


def to_common(recipe, state):
    arrays = {
        name.replace("weight", "kernel"): tensor.numpy(force=True)
        for name, tensor in state.items()
    }
    return layout.to_canonical(recipe.score_sheet, arrays, LAYOUTS)


def from_common(recipe, weights):
    state = layout.from_canonical(recipe.score_sheet, weights, LAYOUTS)
    state = {k.replace("kernel", "weight"): v for k, v in state.items()}
    return {name: torch.from_numpy(array) for name, array in state.items()}


# %% [markdown]
# ## Predict
# Logits become probabilities through a softmax.


# %%
@torch.inference_mode()
def predict(network, images):
    network.eval()
    return network(images).softmax(1)  # (N, 10)


# %% [markdown]
# ## All together
# The loop over epochs is yours too: the schedule steps after each.


# %%
if __name__ == "__main__":
    recipe = load("article", ["epochs=1"])
    data = datasets.prepare(datasets.load(), mean=0.1307, std=0.3081)
    place = placement(recipe)
    training = to_tensors(data.training, **place)
    test = to_tensors(data.test, **place)
    torch.manual_seed(recipe.seed)
    network = put(Network(**recipe.dropout), **place)
    weights = draws.initial_weights(recipe.score_sheet, recipe)
    network.load_state_dict(from_common(recipe, weights))
    optimizer = make_optimizer(network, recipe)
    schedule = make_schedule(optimizer, recipe)
    for epoch in range(recipe.epochs):
        batches = draws.batches(recipe, len(data.training.labels), epoch)
        for _ in train_epoch(
            network, cross_entropy, optimizer, *training, batches
        ):
            pass
        schedule.step()
        print(*evaluate(network, cross_entropy, *test))
    weights = to_common(recipe, network.state_dict())
    files.write_tensors("weights.safetensors", weights)
    print(predict(network, test[0][:1]))
