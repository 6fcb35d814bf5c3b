"""A kernel that gives the same plain answer to every query gets no points.

A student's threads may answer before the responder does, but their answers cannot fit each query.
How many of their answers arrive is chance, so these tests call the checks directly.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pytest

from autograder.course import checks_for
from autograder.data import mnist
from autograder.engine.checking import Checking, points_of, run_checks
from autograder.engine.results import CellResult
from autograder.engine.submission import SubmittedFiles
from autograder.engine.values import Values
from support.submissions import ASSIGNMENT, ROOT

RELEASE = ROOT / "release" / ASSIGNMENT
NOTEBOOKS = sorted(path.stem for path in RELEASE.glob("*.ipynb"))
ANSWERS: dict[str, Any] = {
    "nothing": None,
    "yes": True,
    "zero": 0.0,
    "one": 1.0,
    "whole number": 3,
    "no number": math.nan,
    "text": "FileNotFoundError",
    "empty list": [],
    "one pixel": np.ones((1, 1, 1, 1)),
}


@pytest.fixture(scope="module", autouse=True)
def digits() -> None:
    """Fetch MNIST, from which the checks draw their images."""
    mnist.fetch()


class OneAnswer(Values):
    """Queries to a kernel that gives all of them the same answer."""

    def __init__(self, answer: Any) -> None:
        self._sessions = 0
        self._answer = answer

    def ask(self, op: str, seconds: float = 0, **arguments: Any) -> Any:
        return self._answer


def answered(notebook: str, answer: Any, folder: Path) -> list[CellResult]:
    """The results of a notebook whose kernel gives this answer to every query."""
    release = nbformat.read(RELEASE / f"{notebook}.ipynb", as_version=4)
    nothing = SubmittedFiles(folder, sandbox=None)  # type: ignore[arg-type]
    kernel = OneAnswer(answer)
    plugin = Checking(
        SimpleNamespace(notebook=release, values_at=lambda cell: kernel),  # type: ignore[arg-type]
        nothing,
        nothing,
        RELEASE,
        points_of(release),
        b"secret",
        "key",
    )
    cells, _ = run_checks(checks_for(ASSIGNMENT, notebook).module, plugin)
    return cells


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_one_answer_to_every_question_gets_no_point(
    notebook: str, answer: str, tmp_path: Path
) -> None:
    cells = answered(notebook, ANSWERS[answer], tmp_path)
    passed = [f"{cell.cell}: {check.id}" for cell in cells for check in cell.checks if check.passed]
    assert not passed


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_nothing_is_used_that_the_next_pytest_removes(
    notebook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = "-Werror::pytest.PytestRemovedIn10Warning"
    main = pytest.main
    monkeypatch.setattr(pytest, "main", lambda args, plugins: main([*args, strict], plugins))
    assert answered(notebook, None, tmp_path)  # otherwise a fault is raised
