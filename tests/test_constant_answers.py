"""A kernel that gives one plain answer to every question, right by no check, gets no point.

Threads of a student's may answer before the responder does; what they send cannot fit each
question.  How many of their answers arrive is chance, so the checks are asked directly here.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pytest
from submissions import ASSIGNMENT, ROOT

from autograder.course import checks_for
from autograder.engine.checking import Checking, points_of, run_checks
from autograder.engine.submission import SubmittedFiles
from autograder.engine.values import Values

RELEASE = ROOT / "release" / ASSIGNMENT
NOTEBOOKS = sorted(path.stem for path in RELEASE.glob("*.ipynb"))
ANSWERS: dict[str, Any] = {
    "nothing": None,
    "yes": True,
    "zero": 0.0,
    "one": 1.0,
    "no number": math.nan,
    "text": "FileNotFoundError",
    "empty list": [],
    "one pixel": np.ones((1, 1, 1, 1)),
}


class OneAnswer(Values):
    """Questions to a kernel that answers all of them alike."""

    def __init__(self, answer: Any) -> None:
        self._sessions = 0
        self._answer = answer

    def ask(self, op: str, seconds: float = 0, **arguments: Any) -> Any:
        return self._answer


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_one_answer_to_every_question_gets_no_point(
    notebook: str, answer: str, tmp_path: Path
) -> None:
    release = nbformat.read(RELEASE / f"{notebook}.ipynb", as_version=4)
    nothing = SubmittedFiles(tmp_path, sandbox=None)  # type: ignore[arg-type]
    kernel = OneAnswer(ANSWERS[answer])
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
    passed = [f"{cell.cell}: {check.id}" for cell in cells for check in cell.checks if check.passed]
    assert not passed
