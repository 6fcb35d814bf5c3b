"""The results of grading as data classes, which `results.json` holds as JSON.

Their texts hold no control characters, whatever a kernel said, because terminals show them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from autograder.errors import printable_lines


@dataclass
class CheckResult:
    """The outcome of one hidden check.

    Attributes:
        id: the name of the check.
        title: what is right when it passes.
        passed: whether it passed.
        hint: what the student should think about if it failed.
        weight: its share of the cell's points, relative to the cell's other checks.
        raised: the name of the error, if the check broke at a student's value instead of deciding.

    """

    id: str
    title: str
    passed: bool
    hint: str
    weight: float = 1.0
    raised: str = ""

    def __post_init__(self) -> None:
        self.hint = printable_lines(self.hint)


@dataclass
class CellResult:
    """One grade cell.

    Attributes:
        cell: its `grade_id`.
        max_points: the points it can earn.
        checks: the checks that decide its points.
        note: what the student must know about the circumstances, if anything.

    """

    cell: str
    max_points: float
    checks: list[CheckResult] = field(default_factory=list)
    note: str = ""

    def __post_init__(self) -> None:
        self.note = printable_lines(self.note)

    @property
    def points(self) -> float:
        """`max_points` times the passed share of the weights, rounded to 1/100 point."""
        total = sum(check.weight for check in self.checks)
        passed = sum(check.weight for check in self.checks if check.passed)
        return round(self.max_points * passed / total, 2) if total else 0.0


# "unchanged" notebooks are run and checked too; nothing was written in them.
Status = Literal["graded", "unchanged", "failed", "missing", "not found"]


@dataclass
class NotebookResult:
    """One notebook: its cells, or the reason why it could not be graded.

    It is "missing" when nothing was handed in for it, and "not found" when something was handed in
    that may be meant for it but cannot be identified.

    Attributes:
        name: of the notebook.
        status: how grading ended.
        reason: why it was not graded, or remarks on how it was.
        cells: the results of its grade cells.
        sandbox: the protections its kernel ran under.
        tensors: digests of its checkpoint's tensors, to find copies; not for students.
        found: how it was found, if it was not in its place under its name.

    """

    name: str
    status: Status
    reason: str = ""
    cells: list[CellResult] = field(default_factory=list)
    sandbox: list[str] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)
    found: str = ""

    def __post_init__(self) -> None:
        self.reason = printable_lines(self.reason)
        self.found = printable_lines(self.found)

    @property
    def raised(self) -> list[str]:
        """One line for each check that raised an error, for the instructor to look into."""
        return [
            f"the check {check.id} of {cell.cell} raised {check.raised}"
            for cell in self.cells
            for check in cell.checks
            if check.raised
        ]

    @property
    def score(self) -> float:
        """The sum of the cells' points."""
        return round(sum(cell.points for cell in self.cells), 2)

    @property
    def max_score(self) -> float:
        """The sum of the cells' possible points."""
        return sum(cell.max_points for cell in self.cells)

    def to_json(self) -> dict[str, Any]:
        """The notebook's entry in `results.json`."""
        cells = []
        for cell in self.cells:
            checks = [
                {"id": c.id, "title": c.title, "passed": c.passed, "hint": c.hint}
                | ({"raised": c.raised} if c.raised else {})
                for c in cell.checks
            ]
            entry = {
                "cell": cell.cell,
                "points": cell.points,
                "max_points": cell.max_points,
                "checks": checks,
            }
            cells.append(entry | ({"note": cell.note} if cell.note else {}))
        return {
            "name": self.name,
            "status": self.status,
            "reason": self.reason,
            "cells": cells,
        } | ({"found": self.found} if self.found else {})

    def to_record(self) -> dict[str, Any]:
        """Everything, weights included; `from_record` reads it."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> NotebookResult:
        """The inverse of `to_record`."""
        cells = [
            CellResult(
                cell["cell"],
                cell["max_points"],
                [CheckResult(**check) for check in cell["checks"]],
                cell["note"],
            )
            for cell in record["cells"]
        ]
        return cls(**{**record, "cells": cells})


@dataclass
class SubmissionResult:
    """All notebooks of one student's submission."""

    student: str
    assignment: str
    notebooks: list[NotebookResult]

    @property
    def score(self) -> float:
        """Sum over the notebooks."""
        return round(sum(notebook.score for notebook in self.notebooks), 2)

    @property
    def max_score(self) -> float:
        """Sum of the possible points over the notebooks."""
        return sum(notebook.max_score for notebook in self.notebooks)

    @property
    def sandbox(self) -> list[str]:
        """The protections that every kernel of this submission ran under."""
        used = [notebook.sandbox for notebook in self.notebooks if notebook.sandbox]
        first = used[0] if used else []
        return [layer for layer in first if all(layer in others for others in used)]

    def to_json(self) -> dict[str, Any]:
        """The content of `results.json`."""
        return {
            "student": self.student,
            "assignment": self.assignment,
            "score": self.score,
            "max_score": self.max_score,
            "sandbox": self.sandbox,
            "notebooks": [notebook.to_json() for notebook in self.notebooks],
        }
