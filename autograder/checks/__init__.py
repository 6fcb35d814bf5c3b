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


@dataclass(frozen=True)
class Setup:
    """What one notebook's kernel finds around it.

    files: glob patterns of submitted files that are put beside the notebook.
    read: glob patterns of submitted files that only the checks read.
    environment: variables its kernel gets.
    prepare: called with (folder, rng) to put further files there before the kernel starts.
    explain: what an error that stops a cell has to do with the subject, by a pattern (`re`) that
        occurs in it; the first that fits is added to the hint.
    ends: names of errors by which `environment` or `prepare` end a cell: nobody's mistake.
    seconds: wall time that one cell may take.
    steps: training steps of the whole solution, for the progress bar when it is run.
    data: folders that a whole run of the solution reads, by the environment variable that names
        each; called with a function that takes a line about the progress.
    """

    files: tuple[str, ...] = ("*.py",)
    read: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path, np.random.Generator], None] | None = None
    explain: Mapping[str, str] = field(default_factory=dict)
    ends: tuple[str, ...] = ()
    seconds: float = 60.0
    steps: int = 0
    data: Callable[[Callable[[str], None]], dict[str, Path]] | None = None
