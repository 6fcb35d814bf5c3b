"""The chapter's formulas in NumPy, independent of TensorFlow.

Images are float arrays in the order N, H, W, C; kernels are rows, columns, inputs, filters.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Array = np.ndarray[Any, Any]


def edge_kernels() -> Array:
    """The two 5×5 edge kernels of Fig 4-5: (5, 5, 1, 2) float64; positive weights sum to 1."""
    vertical = np.array(
        [
            [2, 1, 0, -1, -2],
            [3, 2, 0, -2, -3],
            [4, 3, 0, -3, -4],
            [3, 2, 0, -2, -3],
            [2, 1, 0, -1, -2],
        ]
    )
    return np.stack([vertical, vertical.T], axis=-1)[:, :, None, :] / 23.0


def convolve(images: Array, kernel: Array) -> Array:
    """Cross-correlate zero-padded images with a kernel, stride 1, SAME: (n, h, w, filters).

    Args:
        images: (n, h, w, c).
        kernel: (kh, kw, c, filters) with odd kh and kw; it is not rotated.

    """
    rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    windows = sliding_window_view(padded, kernel.shape[:2], axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
    # One row per output pixel, one matrix product for all of them.
    flat = kernel.reshape(-1, kernel.shape[3])
    mixed: Array = windows.reshape(-1, len(flat)) @ flat
    return mixed.reshape(*windows.shape[:3], -1)


def cut_off(response: Array, threshold: float = 0.2) -> Array:
    """`relu(response - threshold)`: small responses become 0, large ones shrink."""
    return np.maximum(response - threshold, 0)


def max_pool(maps: Array) -> Array:
    """The largest value of each 2×2 block, stride 2: (n, h/2, w/2, c) for even h and w."""
    rows = np.maximum(maps[:, ::2], maps[:, 1::2])
    largest: Array = np.maximum(rows[:, :, ::2], rows[:, :, 1::2])
    return largest


def output_size(size: int, kernel: int, stride: int, padding: str) -> int:
    """Rows (or columns) after a convolution or pooling."""
    covered = size if padding == "SAME" else size - kernel + 1
    return math.ceil(covered / stride)


def softmax(logits: Array) -> Array:
    """Probabilities along the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return p


def cross_entropy(p: Array, t: Array) -> float:
    """Sum over the images of −log p of the right class; p and one-hot t are (n, classes)."""
    return float(-np.log(p[t.astype(bool)]).sum())


def accuracy(p: Array, t: Array) -> float:
    """Share of images whose most probable class is the right one; p and t are (n, classes)."""
    return float((p.argmax(axis=1) == t.argmax(axis=1)).mean())


def stroke_probabilities(weights: dict[str, Array], images: Array) -> Array:
    """Probabilities (n, 3) of the stroke network of [OCE-04] and [OCE-05].

    Args:
        weights: `W_conv` (5, 5, 1, 2), `w2`, `b2`, `w0` and `b0`, as in the notebook.
        images: (n, 784).

    """
    response = np.abs(convolve(images.reshape(-1, 28, 28, 1), weights["W_conv"]))
    flat = max_pool(cut_off(response)).reshape(len(images), -1)
    hidden = np.tanh(flat @ weights["w2"] + weights["b2"])
    return softmax(hidden @ weights["w0"] + weights["b0"])


def digit_probabilities(weights: dict[str, Array], images: Array, batch: int = 250) -> Array:
    """Probabilities (n, 10) of the digit network of [MDC-03] and [MDC-04].

    Args:
        weights: `W_conv` (5, 5, 1, f), `w2`, `b2`, `w0` and `b0`, as in the notebook, float32.
        images: (n, 784).
        batch: images at a time; the windows of more than a few hundred exceed the CPU cache.

    """
    out = []
    for start in range(0, len(images), batch):
        x = images[start : start + batch].reshape(-1, 28, 28, 1)
        pooled = max_pool(convolve(x, weights["W_conv"]))
        flat = pooled.reshape(len(x), -1)
        hidden = np.maximum(flat @ weights["w2"] + weights["b2"], 0)
        out.append(softmax(hidden @ weights["w0"] + weights["b0"]))
    return np.concatenate(out)


def filter_gradient(images: Array, slopes: Array, kernel_size: int) -> Array:
    """Backpropagate through `convolve`: the gradient with respect to its kernel, (k, k, 1, f).

    Args:
        images: (n, h, w, 1).
        slopes: (n, h, w, f), the gradient with respect to the convolution's result.
        kernel_size: k.

    """
    border = kernel_size // 2
    padded = np.pad(images[..., 0], ((0, 0), (border, border), (border, border)))
    windows = sliding_window_view(padded, slopes.shape[1:3], axis=(1, 2))
    gradient: Array = np.einsum("nabhw,nhwf->abf", windows, slopes, optimize=True)
    return gradient[:, :, None, :]


def unpool(maps: Array, slopes: Array) -> Array:
    """Backpropagate through `max_pool`: the gradient with respect to its input, (n, h, w, c).

    The first maximum of each block receives the block's whole gradient.

    Args:
        maps: the input of `max_pool`, (n, h, w, c).
        slopes: the gradient with respect to its output, (n, h/2, w/2, c).

    """
    n, h, w, c = maps.shape
    blocks = maps.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4)
    spread = np.zeros_like(blocks)
    spread[np.arange(len(blocks)), blocks.argmax(axis=1)] = slopes.reshape(-1)
    back: Array = spread.reshape(n, h // 2, w // 2, c, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    return back.reshape(maps.shape)


class Adam:
    """Adam's steps for one variable, with the defaults of tf.train.AdamOptimizer."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._steps = 0
        self._mean: Array = np.zeros(1)
        self._square: Array = np.zeros(1)

    def step(self, gradient: Array) -> Array:
        """The change of the variable for its gradient; both have the variable's shape."""
        self._steps += 1
        self._mean = 0.9 * self._mean + 0.1 * gradient
        self._square = 0.999 * self._square + 0.001 * gradient**2
        rate = self._rate * math.sqrt(1 - 0.999**self._steps) / (1 - 0.9**self._steps)
        move: Array = -rate * self._mean / (np.sqrt(self._square) + 1e-8)
        return move


def adam_steps(power: Array) -> float:
    """The number of Adam's steps, computed from its `beta2_power`, a float32 scalar.

    After n steps the power is β₂ⁿ⁺¹, as it starts as β₂; tf.train.AdamOptimizer's default is
    β₂ = 0.999.  The result is infinite once the power has underflowed to 0.
    """
    with np.errstate(divide="ignore"):
        return float(np.log(np.float64(power)) / np.log(np.float64(np.float32(0.999)))) - 1


def is_truncated_normal(starts: Array, deviation: float) -> bool:
    """Whether values may come from a normal distribution with mean 0, truncated at 2 deviations.

    A correct variable fails by chance about once in a million.  Identical starts, from a fixed
    seed, count once, which leaves fewer numbers and wider bounds.

    Args:
        starts: (k, …), the initial values of one variable in k sessions.
        deviation: standard deviation of the distribution before truncation.

    """
    rows = starts.reshape(len(starts), -1) / deviation
    if (rows == rows[0]).all():
        rows = rows[:1]
    drawn = rows.ravel()
    # Truncation leaves 0.8796 of the deviation, which n numbers estimate to within about 0.514/√n.
    bound = 5.4 / np.sqrt(len(drawn))
    return bool(
        len(np.unique(rows[0])) > 0.9 * min(rows.shape[1], 1000)
        and 1.0 < np.abs(drawn).max() <= 2.0
        and abs(drawn.std() - 0.8796) < max(0.514 * bound, 0.005)
        and abs(drawn.mean()) < max(0.8796 * bound, 0.005)
    )
