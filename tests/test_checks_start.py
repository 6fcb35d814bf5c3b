"""The check of initial values accepts right ones, seeded or not, and rejects others."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from autograder.checks.ch4_cnn.reference import is_truncated_normal

SIZES = {"filters of notebook 3": (20, 50), "filters of notebook 4": (5, 400), "w2": (1, 784)}


def truncated(rng: np.random.Generator, count: int, deviation: float) -> np.ndarray:
    """Float32 samples of a normal distribution truncated at two deviations."""
    kept = rng.normal(size=4 * count)
    return (deviation * kept[np.abs(kept) < 2][:count]).astype(np.float32)


@pytest.fixture
def rng() -> np.random.Generator:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return np.random.default_rng(seed)


@pytest.mark.parametrize("sessions", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("deviation", [0.1, 1.0])
def test_a_right_start_passes(
    rng: np.random.Generator, sessions: tuple[int, int], deviation: float
) -> None:
    count, size = sessions
    for _ in range(300):
        starts = truncated(rng, count * size, deviation).reshape(count, size)
        assert is_truncated_normal(starts, deviation)
        assert is_truncated_normal(np.repeat(starts[:1], count, axis=0), deviation)  # seeded


def test_millions_of_numbers_pass(rng: np.random.Generator) -> None:
    assert is_truncated_normal(truncated(rng, 3_211_264, 1.0)[None], 1.0)


WRONG: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "ten times too wide": lambda rng, n: truncated(rng, n[0] * n[1], 1.0),
    "half as wide": lambda rng, n: truncated(rng, n[0] * n[1], 0.05),
    "not cut": lambda rng, n: rng.normal(0, 0.1, n[0] * n[1]),
    "uniform": lambda rng, n: rng.uniform(-0.2, 0.2, n[0] * n[1]),
    "zeros": lambda rng, n: np.zeros(n[0] * n[1]),
    "one number": lambda rng, n: np.full(n[0] * n[1], 0.15),
    "positive": lambda rng, n: np.abs(truncated(rng, n[0] * n[1], 0.1)),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("sessions", SIZES.values(), ids=SIZES)
def test_a_wrong_start_fails(
    rng: np.random.Generator,
    sessions: tuple[int, int],
    wrong: Callable[[np.random.Generator, tuple[int, int]], np.ndarray],
) -> None:
    for _ in range(30):
        assert not is_truncated_normal(wrong(rng, sessions).reshape(sessions), 0.1)
