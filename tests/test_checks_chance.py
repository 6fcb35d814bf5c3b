"""The checks' random samples: no wrong function passes on them, and no right one fails."""

from __future__ import annotations

import importlib.util
import json
import random
import sys

import numpy as np
import pytest

from autograder.checks.ch4_cnn import common, measure
from support.submissions import ROOT

MEASURED = json.loads(measure.RECORD.read_text())["samples"]
_spec = importlib.util.spec_from_file_location("make_figures", ROOT / "docs" / "make_figures.py")
assert _spec is not None
assert _spec.loader is not None
figures = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(figures)


@pytest.mark.parametrize("name", MEASURED)
def test_chance_hardly_ever_misjudges_a_function(name: str) -> None:
    entry = MEASURED[name]
    assert (entry["most"] if name.startswith("right ") else -entry["least"]) < 0
    assert figures.misjudged(entry) < figures.LIMIT


def test_a_new_draw_judges_each_function_rightly() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    judged = measure.distances(seed)
    assert set(judged) == set(MEASURED)
    assert [n for n, far in judged.items() if (far < 1) != n.startswith("right ")] == []


@pytest.mark.parametrize("shape", [(30, 3), (30, 10), (100, 10)])
def test_no_share_of_the_labels_agrees_by_arithmetic(shape: tuple[int, int]) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    n, classes = shape
    for _ in range(200):
        p = rng.dirichlet(np.ones(classes), n)
        for labels in common.some_labels(p, rng):
            right = int((p.argmax(axis=1) == labels.argmax(axis=1)).sum())
            assert right * classes % n
            assert right not in labels.sum(axis=0)
            assert right not in (n - right, (p.argmin(axis=1) == labels.argmax(axis=1)).sum())
