"""The checks zone: one package of hidden checks per assignment, and the words to write them.

The checks of an assignment `ch4-cnn` are in the package `ch4_cnn`, those of its notebook
`1-orenist-filter` in the module `test_1_orenist_filter`.  You bind a class to a grade cell, and
its methods are the checks of that cell::

    @grade_cell("ofe-04-edge-filter-check")
    class TestEdgeFilter:
        @check("The kernel has shape (5, 5, 1, 2)", hint="rows, columns, inputs, filters")
        def test_shape(self, values):
            assert values.call("edge_filter").shape == (5, 5, 1, 2)

Checks ask for what they need by the name of a fixture: `values` asks the kernel, as it is when it
reaches the grade cell; `rng` draws random numbers for this submission and this check;
`submission` reads the files that were handed in.
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
    """Bind a class of checks to a grade cell.

    Args:
        grade_id: The cell's nbgrader id in `source/`.
    """
    return pytest.mark.grade_cell(grade_id)


def check(title: str, *, hint: str, weight: float = 1.0) -> Callable[[T], T]:
    """Make a method a check.

    Args:
        title: What is right when the check passes, in one sentence.
        hint: The concept to think about when it fails; never a hidden value.
        weight: Its share of the grade cell's points, relative to the cell's other checks.
    """
    return pytest.mark.check(title=title, hint=hint, weight=weight)


class Mistake(AssertionError):
    """A failed check that knows which mistake was made; its sentence replaces the hint."""


Sentence = str | Callable[[], str]


def diagnose(right: object, *mistakes: tuple[Callable[[], object], Sentence]) -> None:
    """Pass if `right`; otherwise fail, and name the first of the known mistakes that was made.

    Args:
        right: Whether the answer is right.
        mistakes: Pairs of a function that recognises a mistake and the sentence about it.  The
            functions are called in order, and only when the answer is wrong.  A sentence, like a
            hint, holds no hidden value.

    Raises:
        Mistake: A known mistake explains the answer; the text is its sentence.
        AssertionError: No known mistake explains it.
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

    Attributes:
        files: Glob patterns of the submitted files that the kernel finds beside the notebook.  They
            never match other notebooks, or what nbgrader adds.
        read: Glob patterns of submitted files that only the checks read.
        environment: Variables in the kernel's environment.
        shared: Returns files of this machine that are too large for a copy each, such as a data
            set: their paths, by the names under which kernels find them beside the notebook.
            Kernels cannot change them.
        prepare: Called with (folder, rng), to put further files beside the notebook before the
            kernel starts.
        explain: Maps a pattern (`re`) that occurs in an error to what the error has to do with the
            subject.  The first pattern that matches replaces the hint.
        seconds: Seconds of processor time that one cell may use, with all that it starts; it may
            sleep for as many.  The whole notebook, with its answers, may use five times as much.
        steps: Training steps of the whole solution, for the progress bar of its run.
        training_steps: How many of a session's training steps grading computes.  The kernel
            leaves out those that follow and computes only what else they fetch, so that a long
            loop runs to its own end (see `autograder.kernel.fast_forward`).  None computes all.
        needs: Raises `UserError` when this machine lacks something that is neither handed in nor
            released, such as a data set.  Called before anything is graded.
        data: Returns the folders that a whole run of the solution reads, by the environment
            variable that names each.  Called with a function that takes a line about the progress.
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
