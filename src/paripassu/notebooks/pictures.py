"""The pictures of the notebooks: NumPy arrays in, a figure of matplotlib shown.

They know no framework, so that both notebooks draw with the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from paripassu.core.networks import Network

Images = npt.NDArray[np.uint8]  # (N, h, w, c)
Labels = npt.NDArray[np.integer[Any]]  # (N,)
Numbers = npt.NDArray[np.floating[Any]]

# Readable for the colour-blind, on white and on a notebook's dark theme alike.
BLUE, ORANGE, GREY = "#2a6fb0", "#c8641e", "#8a8a8a"
INK = "gray_r"  # the colour map: dark ink on white, as it was written
SHOWN = 8  # kernels
SMOOTHED = 50  # steps, in the curve of the loss


def digits(images: Images, labels: Labels, columns: int = 10) -> None:
    """A grid of digits, each under its label."""
    axes = _grid(len(images), columns, width=0.8, height=1.0)
    for axis, image, label in zip(axes.flat, images, labels, strict=False):
        axis.imshow(image, cmap=INK)
        axis.set_title(str(label), fontsize=9, pad=2)
    _show(pad=0.4)


def _grid(count: int, columns: int, *, width: float, height: float) -> Any:
    """Axes in rows, without frames; the size of each is in inches."""
    rows = -(-count // columns)
    size = (columns * width, rows * height)
    _figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    return axes


def _show(*open_axes: Axes, pad: float = 1.08) -> None:
    """Show the figure; `open_axes` have no frame above and on the right."""
    for axis in open_axes:
        axis.spines[["top", "right"]].set_visible(False)
    plt.tight_layout(pad=pad)
    plt.show()


def normalising(raw: Images, normalised: Numbers, count: int = 2000) -> None:
    """How often each value comes, before and after."""
    _figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.4), sharey=True)
    share: dict[str, Any] = {"bins": 40, "log": True}
    left.hist(raw[:count].ravel(), color=GREY, **share)
    left.set_title("pixels as they come")
    left.set_ylabel(f"pixels of {count:,} images")
    right.hist(normalised[:count].ravel(), color=BLUE, **share)
    right.set_title("less the mean, by the deviation")
    right.axvline(0, color=ORANGE, linewidth=1)
    _show(left, right)


def network(sheet: Network) -> None:
    """The layers from left to right, with what leaves each.

    A box is as high as the image, and as thick as the root of its channels.
    """
    _figure, axis = plt.subplots(figsize=(11, 3.2))
    place = 0.0
    for name, shape in [("input", sheet.input_shape), *_steps(sheet)]:
        if len(shape) == 3:
            height, thick = shape[0] / sheet.input_shape[0], 0.09 * np.sqrt(shape[2])
            text = f"{shape[0]} × {shape[1]}\n× {shape[2]}"
        else:
            height, thick = 0.25 + 0.2 * np.log10(shape[0]), 0.1
            text = f"{shape[0]:,}"
        _box(axis, place, height, thick)
        middle = place + thick / 2
        axis.text(middle, -0.62, name, ha="center", va="top", fontsize=9)
        axis.text(middle, 0.72, text, ha="center", va="bottom", fontsize=9)
        place += thick + 0.75
    axis.set_xlim(-0.5, place)
    axis.set_ylim(-1.0, 1.25)
    axis.set_aspect("equal")
    axis.axis("off")
    _show(pad=0.2)


def _steps(sheet: Network) -> list[tuple[str, tuple[int, ...]]]:
    """The layers that change the shape; what keeps it stands under the one before."""
    found: list[tuple[str, tuple[int, ...]]] = []
    for layer in sheet.layers:
        if found and layer.output_shape == found[-1][1]:
            name, shape = found[-1]
            found[-1] = (f"{name}\n{layer.name}", shape)
        else:
            found.append((layer.name, layer.output_shape))
    return found


def _box(axis: Axes, left: float, height: float, thick: float) -> None:
    bottom, lean = -height / 2, 0.12 * height
    front = [(0, 0), (thick, 0), (thick, height), (0, height)]
    top = [(0, height), (lean, height + lean), (thick + lean, height + lean)]
    side = [(thick, 0), (thick + lean, lean), (thick + lean, height + lean)]
    corners = [
        (front, 0.55),
        ([*top, (thick, height)], 0.3),
        ([*side, (thick, height)], 0.8),
    ]
    for shape, alpha in corners:
        points = [(left + x, bottom + y) for x, y in shape]
        axis.add_patch(Polygon(points, facecolor=BLUE, alpha=alpha, edgecolor="white"))


def kernels(digit: npt.NDArray[np.uint8], weights: Numbers, answers: Numbers) -> None:
    """A digit, the first kernels, and the image that each makes of it.

    Shapes: `(28, 28, 1)`, `(kernels, 3, 3)` and `(kernels, 26, 26)`.
    """
    columns = SHOWN + 1
    axes = _grid(2 * columns, columns, width=10 / columns, height=1.25)
    axes[0, 0].imshow(digit, cmap=INK)
    axes[0, 0].set_title("digit", fontsize=9)
    limit, most = float(np.abs(weights).max()), float(np.abs(answers).max())
    for number in range(min(SHOWN, len(weights))):
        above, below = axes[0, number + 1], axes[1, number + 1]
        above.imshow(weights[number], cmap="PuOr", vmin=-limit, vmax=limit)
        above.set_title(f"kernel {number}", fontsize=9)
        below.imshow(answers[number], cmap="PuOr", vmin=-most, vmax=most)
    axes[1, 0].text(0.5, 0.5, "violet: above 0\norange: below", ha="center", fontsize=8)
    _show(pad=0.3)


def rates(right: Sequence[float], slow: Sequence[float]) -> None:
    """The learning rate of each epoch, and another beside it."""
    _figure, axis = plt.subplots(figsize=(6, 2.6))
    epochs = range(1, len(right) + 1)
    axis.plot(epochs, slow, "o-", color=GREY, label="0.7 after 60,000 batches")
    axis.plot(epochs, right, "o-", color=BLUE, label="0.7 after each epoch")
    axis.set_xlabel("epoch")
    axis.set_ylabel("learning rate")
    axis.set_ylim(0, None)
    axis.legend(frameon=False)
    _show(axis)


def curves(losses: Sequence[float], accuracies: Sequence[float]) -> None:
    """The loss of each batch, with a running mean, and the accuracy of each epoch."""
    _figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), width_ratios=(2, 1))
    left.plot(losses, color=GREY, linewidth=0.4, alpha=0.7, label="batch")
    width = max(1, min(SMOOTHED, len(losses) // 4))
    mean = np.convolve(losses, np.ones(width) / width, "valid")
    steps = np.arange(len(mean)) + width - 1
    left.plot(steps, mean, color=BLUE, label=f"mean of the last {width}")
    left.set_yscale("log")
    left.set_xlabel("step")
    left.set_ylabel("training loss (nats)")
    left.legend(frameon=False)
    epochs = range(1, len(accuracies) + 1)
    right.plot(epochs, 100 * np.array(accuracies), "o-", color=ORANGE)
    right.set_xlabel("epoch")
    right.set_ylabel("test accuracy (%)")
    right.set_xticks(epochs)
    _show(left, right)


def confusion(labels: Labels, answers: Labels) -> None:
    """How often each digit was taken for each; the right answers are left pale."""
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (labels, answers), 1)
    wrong = counts * (1 - np.eye(10, dtype=int))
    _figure, axis = plt.subplots(figsize=(5, 5))
    axis.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(1, wrong.max()))
    for row, column in np.ndindex(10, 10):
        count = counts[row, column]
        bold = "white" if wrong[row, column] > 0.6 * wrong.max() else "black"
        colour = GREY if row == column else bold
        look: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "fontsize": 8,
            "color": colour,
        }
        axis.text(column, row, str(count or ""), **look)
    axis.set_xlabel("answer")
    axis.set_ylabel("digit")
    axis.set_xticks(range(10))
    axis.set_yticks(range(10))
    _show()


def mistakes(images: Images, labels: Labels, chances: Numbers, count: int = 12) -> None:
    """The `count` wrong answers that the network was surest of.

    Shapes: `(N, h, w, c)`, `(N,)` and, of probabilities, `(N, 10)`.
    """
    answers = chances.argmax(1)
    wrong = np.flatnonzero(answers != labels)
    if not len(wrong):
        print("no mistake at all")
        return
    surest = wrong[np.argsort(-chances[wrong, answers[wrong]])][:count]
    axes = _grid(len(surest), 6, width=1.4, height=1.7)
    for axis, index in zip(axes.flat, surest, strict=False):
        axis.imshow(images[index], cmap=INK)
        share = chances[index, answers[index]]
        title = f"a {labels[index]}, not {answers[index]}\n({share:.0%} sure)"
        axis.set_title(title, fontsize=9)
    _show(pad=0.5)


def answer(image: npt.NDArray[np.uint8], chances: Numbers) -> None:
    """One digit and its ten probabilities."""
    _figure, (left, right) = plt.subplots(1, 2, figsize=(6, 2.2), width_ratios=(1, 2))
    left.imshow(image, cmap=INK)
    left.axis("off")
    colours = [ORANGE if x == np.argmax(chances) else BLUE for x in range(10)]
    right.bar(range(10), np.asarray(chances), color=colours)
    right.set_xticks(range(10))
    right.set_ylim(0, 1)
    right.set_ylabel("probability")
    _show(right)
