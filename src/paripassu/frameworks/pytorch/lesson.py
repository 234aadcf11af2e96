# %% [markdown]
# # Handwritten digits in PyTorch
# From a recipe to a prediction. The TensorFlow lesson has the same headings.

# %%
import torch
from torch import nn
from torch.utils.data import Dataset

from paripassu.core import datasets, draws
from paripassu.core.recipe import load
from paripassu.frameworks.pytorch.weights import from_common

# %% [markdown]
# ## Data
# PyTorch wants the channel axis before height and width, and leaves it to you
# to put data and network on a device. The whole set fits there, in bytes; a
# batch, not an image, is taken at a time. `levels` says what each byte becomes.


# %%
class Digits(Dataset):
    def __init__(self, split, device, dtype=torch.float32):
        pixels, levels, labels = split.pixels, split.levels, split.labels
        self.pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.levels = torch.from_numpy(levels).flatten().to(device, dtype)
        tables = 256 * torch.arange(len(levels), dtype=torch.int32)
        self.tables = tables[:, None, None].to(device)  # one for each channel

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, rows):  # (B, 1, 28, 28) and (B,)
        return self.levels[self.pixels[rows] + self.tables], self.labels[rows]


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


# %% [markdown]
# ## Loss, optimizer and schedule
# Cross-entropy takes logits: it applies the softmax itself, where it cannot
# overflow. The optimizer holds the parameters that it updates. The schedule
# lowers its rate at each `schedule.step()`: when is for you to decide.

# %%
cross_entropy = nn.CrossEntropyLoss()


def make_optimizer(network, recipe):
    chosen = recipe.optimizer
    rate, rho, epsilon = chosen.learning_rate, chosen.rho, chosen.epsilon
    return torch.optim.Adadelta(network.parameters(), rate, rho, epsilon)


def make_schedule(optimizer, recipe):
    factor = recipe.decay.factor ** (1 / recipe.decay.interval)
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=factor)


# %% [markdown]
# ## Train and evaluate
# The loop is yours. Gradients add up until they are cleared. `train()` turns
# dropout on, `eval()` turns it off. The caller gets each batch's loss and right
# answers; when evaluating, the loss is the mean over images, not over batches.


# %%
def train_epoch(network, loss_of, optimizer, data, batches):
    network.train()
    for rows in batches:
        x, y = data[rows]
        output = network(x)
        loss = loss_of(output, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield loss.detach(), (output.argmax(1) == y).sum()


@torch.inference_mode()
def evaluate(network, loss_of, data):
    network.eval()
    loss, right = 0.0, 0
    for rows in torch.arange(len(data)).split(100):
        x, y = data[rows]
        output = network(x)
        loss += loss_of(output, y).item() * len(y)
        right += (output.argmax(1) == y).sum().item()
    return loss / len(data), right / len(data)


# %% [markdown]
# ## Predict
# A softmax makes probabilities of logits. `inference_mode` keeps nothing for
# gradients, which saves memory and time.


# %%
@torch.inference_mode()
def predict(network, images):
    network.eval()
    return network(images).softmax(1)  # (N, 10)


# %% [markdown]
# ## Save and load
# PyTorch saves the state, not the class: loading needs the code above. Names
# and tensors are all that `weights_only` lets in from a file.


# %%
def save(network, path):
    torch.save(network.state_dict(), path)


def load_saved(network, path):
    network.load_state_dict(torch.load(path, weights_only=True))


# %% [markdown]
# ## All together
# The loop over epochs is yours too: the schedule steps after each. First
# weights and order of the images are the recipe's: all frameworks get the same.

# %%
if __name__ == "__main__":
    recipe = load("article", ["epochs=1"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = datasets.prepare(datasets.load(), mean=0.1307, std=0.3081)
    training, test = Digits(data.training, device), Digits(data.test, device)
    torch.manual_seed(recipe.seed)
    # Channels last in memory, not in shape: convolutions run faster so.
    network = Network(**recipe.dropout)
    network.to(device, memory_format=torch.channels_last)
    first = draws.initial_weights(recipe.architecture, recipe)
    network.load_state_dict(from_common(recipe, first))
    optimizer = make_optimizer(network, recipe)
    schedule = make_schedule(optimizer, recipe)
    for epoch in range(recipe.epochs):
        order = draws.batches(recipe, len(training), epoch)
        train = train_epoch(network, cross_entropy, optimizer, training, order)
        print("training loss", torch.stack([x for x, _right in train]).mean())
        schedule.step()
    print("test", *evaluate(network, cross_entropy, test))
    print(predict(network, test[:1][0]))
