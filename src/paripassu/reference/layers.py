"""Every kind of layer in the architecture, forward and backward, by hand.

A kind has two functions. Forward takes the input `x` and what else the layer is
given (its weights, or a mask) and returns the output `y` and a *memory*: what
backward needs. Backward takes the gradient, which here always means that of the
loss with respect to `y`, and the memory. It returns the gradient with respect
to `x` and a tuple of those with respect to the weights, kernel before bias.

Each backward is the chain rule: x[j] moves the loss through every y[i] that it
has a part in, so dL/dx[j] is the sum over i of dL/dy[i] * dy[i]/dx[j].

Arrays are float64. N images come first and channels last: `(N, h, w, c)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from paripassu.core.layout import relayout
from paripassu.core.networks import Kind

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Forward = Callable[..., tuple[Floats, Any]]
Backward = Callable[[Floats, Any], tuple[Floats, tuple[Floats, ...]]]

POOL = 2  # height and width of a pooling window, and the step to the next


def convolution(
    x: Floats, kernel: Floats, bias: Floats
) -> tuple[Floats, tuple[tuple[int, ...], Floats, Floats]]:
    """Valid convolution: each output pixel is a weighted sum of a patch of x.

    y[n, p, q, o] = bias[o]
                  + sum over a, b, i of x[n, p+a, q+b, i] * kernel[a, b, i, o]

    Args:
        x: `(N, H, W, i)`.
        kernel: `(h, w, i, o)`.
        bias: `(o,)`.

    Returns:
        y, `(N, H-h+1, W-w+1, o)`, and the memory.
    """
    h, w, _, o = kernel.shape
    # "im2col": the patch under each output pixel is laid out as one row of a
    # matrix. Then a single product with the kernel, one column for each output
    # channel, does all the sums at the speed of BLAS. The windows are a view
    # that copies nothing; their rows are a copy, h * w times as large as x.
    windows = np.lib.stride_tricks.sliding_window_view(x, (h, w), axis=(1, 2))
    patches = relayout(windows, "n p q i h w -> (n p q) (h w i)")
    rows = patches @ kernel.reshape(-1, o) + bias  # (N p q, o)
    n, p, q = windows.shape[:3]
    return rows.reshape(n, p, q, o), (x.shape, patches, kernel)


def convolution_backward(
    gradient: Floats, memory: tuple[tuple[int, ...], Floats, Floats]
) -> tuple[Floats, tuple[Floats, Floats]]:
    """Send the gradient back to x, the kernel and the bias.

    dL/dkernel[a, b, i, o] = sum over n, p, q of
                             x[n, p+a, q+b, i] * gradient[n, p, q, o]
    dL/dbias[o]            = sum over n, p, q of gradient[n, p, q, o]
    dL/dx[n, p+a, q+b, i] += sum over o of
                             gradient[n, p, q, o] * kernel[a, b, i, o]

    Args:
        gradient: `(N, p, q, o)`.
        memory: what `convolution` returned.

    Returns:
        The gradient of x, `(N, H, W, i)`, and those of kernel and bias.
    """
    shape, patches, kernel = memory
    n, p, q, o = gradient.shape
    h, w, i, _ = kernel.shape
    rows = gradient.reshape(-1, o)  # (N p q, o), as the rows of patches
    to_kernel = (patches.T @ rows).reshape(kernel.shape)
    to_x = np.zeros(shape)
    for a in range(h):
        for b in range(w):
            # Patches overlap: a pixel adds up what each of them sends it.
            sent = (rows @ kernel[a, b].T).reshape(n, p, q, i)
            to_x[:, a : a + p, b : b + q] += sent
    return to_x, (to_kernel, rows.sum(axis=0))


def relu(x: Floats) -> tuple[Floats, Mask]:
    """The positive part: y = max(x, 0), of any shape."""
    return np.maximum(x, 0), x > 0


def relu_backward(gradient: Floats, memory: Mask) -> tuple[Floats, tuple[()]]:
    """dL/dx = gradient where x > 0, else 0.

    At x = 0, where there is no slope, it is 0: so PyTorch and TensorFlow.
    """
    return gradient * memory, ()


def zero_padding(x: Floats, size: int) -> tuple[Floats, int]:
    """A frame of zeros, `size` pixels wide, around each image.

    Args:
        x: `(N, H, W, c)`.
        size: of the frame.

    Returns:
        y, `(N, H + 2 size, W + 2 size, c)`, and the memory.
    """
    frame = (size, size)
    return np.pad(x, ((0, 0), frame, frame, (0, 0))), size


def zero_padding_backward(gradient: Floats, memory: int) -> tuple[Floats, tuple[()]]:
    """dL/dx is the gradient without the frame: no pixel of x moved that."""
    inside = slice(memory, -memory)
    return gradient[:, inside, inside], ()


# The squashing function of LeCun et al. 1998, appendix A: chosen there so that
# f(1) = 1 and f(-1) = -1, with the largest second derivative in these points.
AMPLITUDE, SLOPE = 1.7159, 2 / 3


def tanh(x: Floats) -> tuple[Floats, Floats]:
    """The scaled hyperbolic tangent: y = 1.7159 tanh(2/3 x), of any shape."""
    t = np.tanh(SLOPE * x)
    return AMPLITUDE * t, t


def tanh_backward(gradient: Floats, memory: Floats) -> tuple[Floats, tuple[()]]:
    """dL/dx = gradient * 1.7159 * 2/3 * (1 - tanh(2/3 x)**2)."""
    return gradient * AMPLITUDE * SLOPE * (1 - memory**2), ()


def subsample(
    x: Floats, coefficient: Floats, bias: Floats
) -> tuple[Floats, tuple[Floats, Floats]]:
    """The sum of each 2x2 window, times a number and plus a number.

    y[n, p, q, c] = bias[c] + coefficient[c]
                  * sum over a, b in {0, 1} of x[n, 2p+a, 2q+b, c]

    Source: LeCun et al. 1998, section II.B, layers S2 and S4.

    Args:
        x: `(N, H, W, c)`, H and W even.
        coefficient: `(c,)`.
        bias: `(c,)`.

    Returns:
        y, `(N, H / 2, W / 2, c)`, and the memory.
    """
    n, h, w, c = x.shape
    windows = x.reshape(n, h // POOL, POOL, w // POOL, POOL, c)
    sums = windows.sum(axis=(2, 4))
    return sums * coefficient + bias, (sums, coefficient)


def subsample_backward(
    gradient: Floats, memory: tuple[Floats, Floats]
) -> tuple[Floats, tuple[Floats, Floats]]:
    """Send the gradient to every pixel of a window, and to the two numbers.

    dL/dx[n, 2p+a, 2q+b, c] = gradient[n, p, q, c] * coefficient[c]
    dL/dcoefficient[c]      = sum over n, p, q of gradient * the window's sum
    dL/dbias[c]             = sum over n, p, q of gradient
    """
    sums, coefficient = memory
    to_x = gradient * coefficient
    for axis in (1, 2):
        to_x = to_x.repeat(POOL, axis=axis)
    to_coefficient = (gradient * sums).sum(axis=(0, 1, 2))
    return to_x, (to_coefficient, gradient.sum(axis=(0, 1, 2)))


def softmax(x: Floats) -> tuple[Floats, Floats]:
    """Probabilities: y[n, k] = exp(x[n, k]) / sum over j of exp(x[n, j]).

    The largest x of an image is taken from all, which changes nothing, so that
    no exponential exceeds 1.

    Args:
        x: `(N, classes)`.

    Returns:
        y, `(N, classes)`, and the memory.
    """
    exponentials = np.exp(x - x.max(axis=1, keepdims=True))
    y = exponentials / exponentials.sum(axis=1, keepdims=True)
    return y, y


def softmax_backward(gradient: Floats, memory: Floats) -> tuple[Floats, tuple[()]]:
    """dL/dx[n, k] = y[n, k] * (g[n, k] - sum over j of g[n, j] * y[n, j]).

    Every x moves every y: dy[j]/dx[k] = y[j] * ((1 if j == k else 0) - y[k]).
    """
    mean = (gradient * memory).sum(axis=1, keepdims=True)
    return memory * (gradient - mean), ()


def max_pool(
    x: Floats,
) -> tuple[Floats, tuple[tuple[int, ...], npt.NDArray[np.intp]]]:
    """The largest of each 2x2 window; an odd last row or column is left out.

    y[n, p, q, c] = max over a, b in {0, 1} of x[n, 2p+a, 2q+b, c]

    Args:
        x: `(N, H, W, c)`.

    Returns:
        y, `(N, H // 2, W // 2, c)`, and the memory.
    """
    p, q = x.shape[1] // POOL, x.shape[2] // POOL
    windows = relayout(
        x[:, : p * POOL, : q * POOL],
        "n (p a) (q b) c -> n p q (a b) c",
        a=POOL,
        b=POOL,
    )
    # The first of equal maxima, in the order of reading: rows, then columns.
    chosen = windows.argmax(axis=3, keepdims=True)  # (N, p, q, 1, c)
    y = np.take_along_axis(windows, chosen, axis=3)
    return y.squeeze(axis=3), (x.shape, chosen)


def max_pool_backward(
    gradient: Floats, memory: tuple[tuple[int, ...], npt.NDArray[np.intp]]
) -> tuple[Floats, tuple[()]]:
    """Send the gradient to the pixel that was chosen; the others get 0.

    dL/dx[n, 2p+a, 2q+b, c] = gradient[n, p, q, c] if (a, b) was the first
                              maximum of its window, else 0

    So do PyTorch and TensorFlow on a CPU, which also take the first of ties.

    Args:
        gradient: `(N, p, q, c)`.
        memory: what `max_pool` returned.

    Returns:
        The gradient of x, `(N, H, W, c)`.
    """
    shape, chosen = memory
    n, p, q, c = gradient.shape
    windows = np.zeros((n, p, q, POOL * POOL, c))
    np.put_along_axis(windows, chosen, gradient[:, :, :, None], axis=3)
    to_x = np.zeros(shape)
    to_x[:, : p * POOL, : q * POOL] = relayout(
        windows, "n p q (a b) c -> n (p a) (q b) c", a=POOL, b=POOL
    )
    return to_x, ()


def dropout(x: Floats, mask: Mask, rate: float) -> tuple[Floats, tuple[Mask, float]]:
    """Keep what the mask keeps, enlarged: y = x * mask / (1 - rate).

    The mask is True with probability 1 - rate, so that on average y is x, and
    nothing has to be rescaled when dropout is off.

    Args:
        x: any shape.
        mask: the same shape; False is dropped.
        rate: the probability of False, 0 <= rate < 1.

    Returns:
        y, of the shape of x, and the memory.
    """
    return x * mask / (1 - rate), (mask, rate)


def dropout_backward(
    gradient: Floats, memory: tuple[Mask, float]
) -> tuple[Floats, tuple[()]]:
    """dL/dx = gradient * mask / (1 - rate), of the shape of x."""
    mask, rate = memory
    return gradient * mask / (1 - rate), ()


def flatten(x: Floats) -> tuple[Floats, tuple[int, ...]]:
    """Each image as one row, in the order height, width, channels.

    y[n, (r * W + s) * C + c] = x[n, r, s, c]

    Args:
        x: `(N, H, W, C)`.

    Returns:
        y, `(N, H * W * C)`, and the memory.
    """
    return x.reshape(len(x), -1), x.shape


def flatten_backward(
    gradient: Floats, memory: tuple[int, ...]
) -> tuple[Floats, tuple[()]]:
    """The same numbers in the shape of x, `(N, H, W, C)`."""
    return gradient.reshape(memory), ()


def dense(
    x: Floats, kernel: Floats, bias: Floats
) -> tuple[Floats, tuple[Floats, Floats]]:
    """Every output is a weighted sum of all inputs: y = x @ kernel + bias.

    Args:
        x: `(N, i)`.
        kernel: `(i, o)`.
        bias: `(o,)`.

    Returns:
        y, `(N, o)`, and the memory.
    """
    return x @ kernel + bias, (x, kernel)


def dense_backward(
    gradient: Floats, memory: tuple[Floats, Floats]
) -> tuple[Floats, tuple[Floats, Floats]]:
    """Send the gradient back to x, the kernel and the bias.

    dL/dx      = gradient @ kernel.T
    dL/dkernel = x.T @ gradient
    dL/dbias   = sum over the images of gradient

    Args:
        gradient: `(N, o)`.
        memory: what `dense` returned.

    Returns:
        The gradient of x, `(N, i)`, and those of kernel and bias.
    """
    x, kernel = memory
    return gradient @ kernel.T, (x.T @ gradient, gradient.sum(axis=0))


LAYERS: dict[Kind, tuple[Forward, Backward]] = {
    "zero_padding": (zero_padding, zero_padding_backward),
    "convolution": (convolution, convolution_backward),
    "relu": (relu, relu_backward),
    "tanh": (tanh, tanh_backward),
    "max_pool": (max_pool, max_pool_backward),
    "subsample": (subsample, subsample_backward),
    "dropout": (dropout, dropout_backward),
    "flatten": (flatten, flatten_backward),
    "dense": (dense, dense_backward),
    "softmax": (softmax, softmax_backward),
}
