"""The chapter's formulas, compared with slow but simple loops."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from autograder.checks.ch4_cnn.reference import (
    accuracy,
    adam_steps,
    convolve,
    cross_entropy,
    cut_off,
    digit_probabilities,
    edge_kernels,
    max_pool,
    output_size,
    softmax,
)

Array = np.ndarray[Any, Any]


@pytest.fixture
def rng() -> np.random.Generator:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def slow_convolve(images: Array, kernel: Array) -> Array:
    """Sum products pixel by pixel; pixels outside the image are 0."""
    n, h, w, _ = images.shape
    kh, kw, inputs, filters = kernel.shape
    out = np.zeros((n, h, w, filters))
    for i in range(n):
        for y in range(h):
            for x in range(w):
                for f in range(filters):
                    for dy in range(kh):
                        for dx in range(kw):
                            yy, xx = y + dy - kh // 2, x + dx - kw // 2
                            if 0 <= yy < h and 0 <= xx < w:
                                for c in range(inputs):
                                    out[i, y, x, f] += images[i, yy, xx, c] * kernel[dy, dx, c, f]
    return out


@pytest.mark.parametrize(
    ("images", "kernel"),
    [
        ((1, 5, 5, 1), (3, 3, 1, 1)),
        ((2, 6, 4, 1), (5, 5, 1, 2)),
        ((2, 5, 7, 3), (3, 3, 3, 4)),
        ((1, 4, 6, 2), (1, 1, 2, 3)),
        ((1, 6, 5, 1), (3, 5, 1, 2)),
        ((1, 2, 2, 1), (5, 5, 1, 1)),
        ((1, 1, 1, 1), (3, 3, 1, 1)),
    ],
)
def test_convolve_is_the_sum_over_the_neighbourhood(
    rng: np.random.Generator, images: tuple[int, ...], kernel: tuple[int, ...]
) -> None:
    pixels, weights = rng.normal(size=images), rng.normal(size=kernel)
    np.testing.assert_allclose(convolve(pixels, weights), slow_convolve(pixels, weights), atol=1e-9)


def test_convolve_uses_the_kernel_as_it_is_written() -> None:
    image, kernel = np.zeros((1, 5, 5, 1)), np.zeros((3, 3, 1, 1))
    image[0, 2, 2, 0] = kernel[0, 0, 0, 0] = 1
    answer = convolve(image, kernel)[0, :, :, 0]
    assert [tuple(map(int, at)) for at in np.argwhere(answer)] == [(3, 3)]


def test_the_slides_patch_sums_to_116_9() -> None:
    patch = np.array([[91, 46, 35], [141, 140, 135], [156, 153, 153]], float)
    kernel = np.full((3, 3), 0.11)
    kernel[1, 1] = 0.12
    answer = convolve(patch[None, :, :, None], kernel[:, :, None, None])
    assert round(float(answer[0, 1, 1, 0]), 1) == 116.9


def test_edge_kernels_are_those_of_the_slide() -> None:
    kernel = edge_kernels()
    assert kernel.shape == (5, 5, 1, 2)
    rows = [[2, 1, 0, -1, -2], [3, 2, 0, -2, -3], [4, 3, 0, -3, -4], [3, 2, 0, -2, -3],
            [2, 1, 0, -1, -2]]  # fmt: skip
    for y in range(5):
        for x in range(5):
            assert kernel[y, x, 0, 0] * 23 == pytest.approx(rows[y][x])
            assert kernel[y, x, 0, 1] * 23 == pytest.approx(rows[x][y])
    for f in (0, 1):
        assert sum(v for v in kernel[:, :, 0, f].ravel() if v > 0) == pytest.approx(1)
        assert kernel[:, :, 0, f].sum() == pytest.approx(0)


def test_edge_kernels_answer_to_their_own_edges() -> None:
    left = np.zeros((1, 9, 9, 1))
    left[:, :, :4] = 1  # bright on the left: a vertical edge
    vertical = convolve(left, edge_kernels())[0, 4, 4]
    horizontal = convolve(left.transpose(0, 2, 1, 3), edge_kernels())[0, 4, 4]
    assert vertical[0] > 0.5
    assert abs(vertical[1]) < 1e-12
    assert horizontal[1] > 0.5
    assert abs(horizontal[0]) < 1e-12


def test_cut_off_subtracts_and_keeps_what_is_positive(rng: np.random.Generator) -> None:
    response = rng.normal(size=(3, 4, 5))
    for threshold in (0.2, 0.0, 0.7):
        wanted = [max(v - threshold, 0.0) for v in response.ravel()]
        assert cut_off(response, threshold).ravel().tolist() == wanted
    assert cut_off(np.array([0.2, 0.19, 0.3, -5])).tolist() == [0, 0, pytest.approx(0.1), 0]


@pytest.mark.parametrize("shape", [(1, 2, 2, 1), (2, 4, 6, 3), (1, 28, 28, 2)])
def test_max_pool_takes_the_largest_of_four(
    rng: np.random.Generator, shape: tuple[int, ...]
) -> None:
    maps = rng.normal(size=shape)
    pooled = max_pool(maps)
    n, h, w, c = shape
    assert pooled.shape == (n, h // 2, w // 2, c)
    for i, y, x, f in np.ndindex(*pooled.shape):
        four = [maps[i, 2 * y + dy, 2 * x + dx, f] for dy in (0, 1) for dx in (0, 1)]
        assert pooled[i, y, x, f] == max(four)


def slow_size(size: int, kernel: int, stride: int, padding: str) -> int:
    """Count the positions of a window."""
    count = 0
    for start in range(0, size, stride):
        count += padding == "SAME" or start + kernel <= size
    return count


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_output_size_counts_the_windows(padding: str) -> None:
    for size in range(1, 31):
        for kernel in range(1, size + 1):
            for stride in range(1, 6):
                wanted = slow_size(size, kernel, stride, padding)
                assert output_size(size, kernel, stride, padding) == wanted


def test_softmax_is_shares_of_exponentials(rng: np.random.Generator) -> None:
    logits = rng.normal(0, 3, (7, 4))
    p = softmax(logits)
    for row, shares in zip(logits, p, strict=True):
        total = sum(math.exp(v) for v in row)
        assert shares.tolist() == pytest.approx([math.exp(v) / total for v in row])
    assert softmax(np.array([[1000.0, 0, -1000]])).tolist() == [[1, 0, 0]]
    assert softmax(np.zeros((2, 3))).tolist() == pytest.approx(np.full((2, 3), 1 / 3))


def test_cross_entropy_sums_over_the_images(rng: np.random.Generator) -> None:
    p = softmax(rng.normal(size=(6, 3)))
    answers = rng.integers(0, 3, 6)
    t = np.eye(3)[answers]
    wanted = sum(-math.log(p[i, k]) for i, k in enumerate(answers))
    assert cross_entropy(p, t) == pytest.approx(wanted)


def test_the_losses_before_training_are_those_of_the_lecture() -> None:
    orenist = cross_entropy(np.full((90, 3), 1 / 3), np.eye(3)[np.arange(90) % 3])
    mnist = cross_entropy(np.full((10_000, 10), 0.1), np.eye(10)[np.arange(10_000) % 10])
    assert round(orenist, 4) == 98.8751
    assert round(mnist, 2) == 23025.85


def test_accuracy_is_the_share_of_right_answers(rng: np.random.Generator) -> None:
    p, t = softmax(rng.normal(size=(50, 4))), np.eye(4)[rng.integers(0, 4, 50)]
    right = 0
    for row, wanted in zip(p.tolist(), t.tolist(), strict=True):
        right += row.index(max(row)) == wanted.index(1)
    assert accuracy(p, t) == pytest.approx(right / 50)


@pytest.mark.parametrize("batch", [1, 2, 3, 1000])
def test_digit_probabilities_are_the_network_one_image_at_a_time(
    rng: np.random.Generator, batch: int
) -> None:
    weights = {
        "W_conv": rng.normal(0, 0.1, (5, 5, 1, 2)),
        "w2": rng.normal(0, 0.05, (392, 6)),
        "b2": rng.normal(size=6),
        "w0": rng.normal(size=(6, 10)),
        "b0": rng.normal(size=10),
    }
    images = rng.uniform(size=(3, 784))
    answer = digit_probabilities(weights, images, batch)
    assert answer.shape == (3, 10)
    for pixels, p in zip(images, answer, strict=True):
        conv = slow_convolve(pixels.reshape(1, 28, 28, 1), weights["W_conv"])[0]
        flat = [
            max(conv[2 * y + dy, 2 * x + dx, f] for dy in (0, 1) for dx in (0, 1))
            for y in range(14)
            for x in range(14)
            for f in range(2)
        ]
        hidden = [
            max(0.0, sum(v * weights["w2"][k, j] for k, v in enumerate(flat)) + weights["b2"][j])
            for j in range(6)
        ]
        logits = [
            sum(v * weights["w0"][j, k] for j, v in enumerate(hidden)) + weights["b0"][k]
            for k in range(10)
        ]
        total = sum(math.exp(v) for v in logits)
        assert p.tolist() == pytest.approx([math.exp(v) / total for v in logits])


@pytest.mark.parametrize("steps", [0, 1, 100, 4000])
def test_adam_steps_are_told_by_the_power_that_float32_keeps(steps: int) -> None:
    beta = power = np.float32(0.999)
    for _ in range(steps):
        power *= beta
    assert abs(adam_steps(np.asarray(power)) - steps) < 0.1


def test_adam_steps_beyond_what_float32_keeps_are_very_many() -> None:
    assert adam_steps(np.array(0, np.float32)) == np.inf
