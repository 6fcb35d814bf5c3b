"""The checks zone: one package of hidden checks per assignment, and the words to write them.

An assignment `ch4-cnn` has its checks in the package `ch4_cnn`; a notebook `1-orenist-filter`
in the module `test_1_orenist_filter`.  A check class is bound to a grade cell and its methods
are checks:

    @grade_cell("ofe-04-edge-filter-check")
    class TestEdgeFilter:
        @check("The kernel has shape (5, 5, 1, 2)", hint="rows, columns, inputs, filters")
        def test_shape(self, notebook):
            assert notebook.edge_filter().shape == (5, 5, 1, 2)

Fixtures for them: `values` (asks the kernel, as it is when it reaches the grade cell),
`rng` (seeded per submission and check), `submission` (the files handed in).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

T = TypeVar("T", bound=Callable[..., Any] | type)


def grade_cell(grade_id: str) -> Callable[[T], T]:
    """Bind a class of checks to the grade cell `grade_id`."""
    return pytest.mark.grade_cell(grade_id)


def check(title: str, *, hint: str, weight: float = 1.0) -> Callable[[T], T]:
    """Make a method a check.

    title: what is right when it passes, in one sentence.
    hint: the concept to think about when it fails; never a hidden value.
    weight: its share of the grade cell's points, relative to the cell's other checks.
    """
    return pytest.mark.check(title=title, hint=hint, weight=weight)


class Mistake(AssertionError):
    """A failed check that knows which mistake was made; its sentence is shown, not the hint."""


Sentence = str | Callable[[], str]


def diagnose(right: object, *mistakes: tuple[Callable[[], object], Sentence]) -> None:
    """Pass if `right`; otherwise fail, and name the first of the known mistakes that was made.

    mistakes: what tells each by (asked one after the other, and only when something is wrong), and
        the sentence about it; like a hint, it holds no hidden value.

    Raises Mistake with that sentence, AssertionError when no known mistake explains the answer.
    """
    if right:
        return
    for was_made, sentence in mistakes:
        if was_made():
            raise Mistake(sentence if isinstance(sentence, str) else sentence())
    raise AssertionError("no known mistake")


@dataclass(frozen=True)
class Setup:
    """What one notebook's kernel finds around it.

    files: glob patterns of submitted files that are put beside the notebook; other notebooks, and
        what nbgrader adds, never are.
    read: glob patterns of submitted files that only the checks read.
    environment: variables its kernel gets.
    shared: called for the files of this machine, a data set for instance, that are too large for a
        copy each: their paths by the names under which kernels find them beside the notebook, and
        cannot change them.
    prepare: called with (folder, rng) to put further files there before the kernel starts.
    explain: what an error that stops a cell, or what is asked of it, has to do with the subject, by
        a pattern (`re`) that occurs in it; the first that fits stands in place of the hint.
    seconds: of processor time that one cell may use with all it started, and seconds that it may
        sleep; the whole notebook, with its answers, may use five times as much.
    steps: training steps of the whole solution, for the progress bar when it is run.
    training_steps: how many of them are computed in grading.  Of those that follow in a session
        the kernel computes only what else they fetch, so that a long loop runs to its own end (see
        `autograder.kernel.fast_forward`).  None for all of them.
    needs: raises UserError when something that is not handed in and not in the release, a data set
        for instance, is not on this machine; called before anything is graded.
    data: folders that a whole run of the solution reads, by the environment variable that names
        each; called with a function that takes a line about the progress.
    """

    files: tuple[str, ...] = ("*.py",)
    read: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    shared: Callable[[], Mapping[str, Path]] | None = None
    prepare: Callable[[Path, np.random.Generator], None] | None = None
    explain: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 60.0
    steps: int = 0
    training_steps: int | None = None
    needs: Callable[[], object] | None = None
    data: Callable[[Callable[[str], None]], dict[str, Path]] | None = None
