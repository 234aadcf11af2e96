# %% [markdown]
# # Seven differences, each by itself
#
# The two notebooks of "TensorFlow vs PyTorch by example" differ in seven values
# (`docs/article.md` says what each does to a training). Here is what each *is*, in a
# cell of NumPy that runs at once. No framework is needed: none of the seven is a
# property of one.

# %%
import numpy as np

from paripassu.core import datasets, draws
from paripassu.core.recipe import load
from paripassu.reference.losses import cross_entropy, softmax
from paripassu.reference.optimizers import learning_rate

NOTEBOOKS = {
    "PyTorch notebook": load("article-pytorch-notebook"),
    "TensorFlow notebook": load("article-tensorflow-notebook"),
}
data = datasets.load()
labels = data.train_labels
one, other = NOTEBOOKS.values()
print(*one.differing(other.model_dump()), sep="\n")

# %% [markdown]
# ## 1. `shuffle`
#
# The PyTorch notebook shuffles only where there is a GPU. On a CPU every epoch has the
# images in the order of the file.

# %%
for name, recipe in NOTEBOOKS.items():
    epochs = [draws.batches(recipe, len(labels), epoch) for epoch in (0, 1)]
    same = all(np.array_equal(x, y) for x, y in zip(*epochs, strict=True))
    print(f"{name:20} begins with {labels[epochs[0][0][:12]]}, again so: {same}")

# %% [markdown]
# ## 2. `loss`
#
# A softmax in the network, and one in the loss. Here the logit of the right class is
# raised, the other nine stay 0. With one softmax the loss goes to 0; with two it has a
# floor, and hardly a slope on the way to it.


# %%
def loss_of(logit, *, twice):
    """Of an image whose right class has this logit, and the others 0."""
    logits = np.zeros((1, 10))
    logits[0, 3] = logit
    return float(cross_entropy(softmax(logits) if twice else logits, np.array([3]))[0])


print("logit  once: loss, slope    twice: loss, slope")
for logit in (0, 1, 2, 5, 10, 20):
    cells = []
    for twice in (False, True):
        up, down = (loss_of(logit + x, twice=twice) for x in (1e-4, -1e-4))
        cells.append(f"{loss_of(logit, twice=twice):.4f} {(up - down) / 2e-4:+.4f}")
    print(f"{logit:5}  {cells[0]:19}  {cells[1]}")
print(f"the floor: {-np.log(np.e / (np.e + 9)):.4f}")

# %% [markdown]
# ## 3 and 4. `initializer.kernel` and `initializer.bias`
#
# PyTorch draws kernels within ±1 / sqrt(fan_in), Keras within
# ±sqrt(6 / (fan_in + fan_out)); biases are random in the one and zero in the other.
# Largest values:

# %%
weights = {
    name: draws.initial_weights(recipe.architecture, recipe)
    for name, recipe in NOTEBOOKS.items()
}
for key in weights["PyTorch notebook"]:
    sizes = [f"{np.abs(arrays[key]).max():.4f}" for arrays in weights.values()]
    print(f"{key:14} {sizes[0]} in PyTorch's, {sizes[1]} in TensorFlow's")

# %% [markdown]
# ## 5 and 6. `optimizer.rho` and `optimizer.epsilon`
#
# Adadelta's step is the gradient times the root mean square of its steps, over that of
# its gradients. rho says how long both means remember; epsilon is what the first step
# begins with, since there are no steps yet: a tenth of it makes the first steps
# sqrt(10) times as short.


# %%
def adadelta(gradients, rho, epsilon):
    """The steps that it takes on one weight (Zeiler 2012)."""
    of_gradients = of_steps = 0.0
    for gradient in gradients:
        of_gradients = rho * of_gradients + (1 - rho) * gradient**2
        step = gradient * np.sqrt((of_steps + epsilon) / (of_gradients + epsilon))
        of_steps = rho * of_steps + (1 - rho) * step**2
        yield step


for rho in (0.9, 0.95):
    for epsilon in (1e-6, 1e-7):
        steps = list(adadelta([1.0] * 100, rho, epsilon))
        print(
            f"rho {rho}, epsilon {epsilon}: step 1 {steps[0]:.1e}, "
            f"step 100 {steps[-1]:.1e}; a gradient counts half after "
            f"{np.log(0.5) / np.log(rho):.0f} steps"
        )

# %% [markdown]
# ## 7. `decay`
#
# Both multiply the rate by 0.7. PyTorch's scheduler does so after each epoch; Keras's
# counts batches and is told 60,000, the number of images: 64 epochs.

# %%
STEPS = -(-len(labels) // one.batch_size)  # of an epoch
for name, recipe in NOTEBOOKS.items():
    rates = [learning_rate(recipe, epoch=x, step=x * STEPS) for x in range(10)]
    print(f"{name:20} {' '.join(f'{rate:.2f}' for rate in rates)}")

# %% [markdown]
# ## And together?
#
# `paripassu ablate article-pytorch-notebook article-tensorflow-notebook` trains all
# stops on the way from one to the other. Before you look at its table in
# `docs/article.md`: which of the seven would you say makes the gap?
