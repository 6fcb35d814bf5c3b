"""The checks zone: one package of hidden checks per assignment, and the API for writing them.

The checks of assignment `ch4-cnn` are in the package `ch4_cnn`, those of its notebook
`1-orenist-filter` in the module `test_1_orenist_filter`.  A class of checks is bound to a grade
cell; its methods are the checks:

    @grade_cell("ofe-04-edge-filter-check")
    class TestEdgeFilter:
        @check("The kernel has shape (5, 5, 1, 2)", hint="rows, columns, inputs, filters")
        def test_shape(self, notebook):
            assert notebook.edge_filter().shape == (5, 5, 1, 2)

Fixtures: `values` (queries the kernel in its state at the grade cell), `rng` (seeded per submission
and check), `submission` (the submitted files).
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
    """Mark a method as a check.

    Args:
        title: what is right when the check passes, in one sentence.
        hint: the concept to think about when it fails; never a hidden value.
        weight: its share of the grade cell's points, relative to the cell's other checks.

    """
    return pytest.mark.check(title=title, hint=hint, weight=weight)


class Mistake(AssertionError):
    """A failed check with a known mistake; its sentence is shown in place of the hint."""


Sentence = str | Callable[[], str]


def diagnose(right: object, *mistakes: tuple[Callable[[], object], Sentence]) -> None:
    """Pass if `right`; otherwise fail with the first known mistake that explains the answer.

    Args:
        right: whether the answer is right.
        *mistakes: pairs of a predicate that recognises the mistake and a sentence about it.  The
            predicates are called in order, and only if the answer is wrong.  Like a hint, the
            sentence holds no hidden value.

    Raises:
        Mistake: a known mistake was made; the message is its sentence.
        AssertionError: no known mistake explains the answer.

    """
    if right:
        return
    for was_made, sentence in mistakes:
        if was_made():
            raise Mistake(sentence if isinstance(sentence, str) else sentence())
    raise AssertionError("no known mistake")


@dataclass(frozen=True)
class Setup:
    """The environment and the limits of one notebook's kernel.

    Attributes:
        files: glob patterns of submitted files that are put beside the notebook.  Other notebooks
            and the files that nbgrader adds never are.
        read: glob patterns of submitted files that only the checks read.
        environment: environment variables of the kernel.
        shared: returns files on this machine that are too large to copy for each kernel, such as a
            data set: paths by the names that kernels see beside the notebook, read-only.
        prepare: called with (folder, rng) before the kernel starts, to write further files.
        explain: explanations of errors in terms of the subject, by regular expression.  The first
            one that is found in the error of a cell, or of a query to it, replaces the hint.
        seconds: processor time that one cell may use, with all processes it starts, and time that
            it may sleep.  The whole notebook, with its queries, may use five times as much.
        steps: training steps of the complete solution, for the progress bar when it is run.
        training_steps: how many of them are computed in grading; None for all.  Of a session's
            later steps the kernel computes only the other fetches, so that a long loop runs to its
            end (see `autograder.kernel.fast_forward`).
        needs: called before anything is graded; raises UserError if the machine lacks something
            that is neither submitted nor released, such as a data set.
        data: returns the folders that a full run of the solution reads, by the environment variable
            that names each; called with a function that reports a line of progress.

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
