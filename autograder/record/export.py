"""Exports grades as CSV files for the gradebooks of Moodle and Canvas.

`autograder export` and nbgrader's own command write the same file:

    nbgrader export --exporter=autograder.record.export.MoodleExporter --assignment='["ch4-cnn"]'
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from nbgrader.api import Gradebook as Database
from nbgrader.api import MissingEntry
from nbgrader.plugins import ExportPlugin
from traitlets import Dict, Unicode

from autograder.errors import UserError
from autograder.record.gradebook import Gradebook

Target = Literal["moodle", "canvas"]


@dataclass(frozen=True)
class Grade:
    """One student's grade for one assignment.

    Attributes:
        student: the student's id in the course.
        first_name: empty if unknown.
        last_name: empty if unknown.
        email: empty if unknown.
        lms_id: the platform's id; empty if unknown.
        points: points after the late penalty; None without a submission.
        waiting: number of answers that still need manual grading.

    """

    student: str
    first_name: str
    last_name: str
    email: str
    lms_id: str
    points: float | None
    waiting: int = 0


@dataclass(frozen=True)
class Column:
    """An assignment in the file.

    Attributes:
        name: the platform's name of the column.
        points: points by student id; None without a submission.
        possible: maximum points.

    """

    name: str
    points: dict[str, float | None]
    possible: float


def grades(database: Database, assignment: str) -> tuple[list[Grade], float]:
    """Grades of all students in the gradebook, sorted by last name and id; the maximum points.

    Raises UserError if the gradebook does not know the assignment.
    """
    try:
        possible = float(database.find_assignment(assignment).max_score)
    except MissingEntry as error:
        raise UserError(f"the gradebook does not know {assignment}") from error
    found = []
    for student in database.students:
        points, waiting = None, 0
        try:
            submission = database.find_submission(assignment, student.id)
        except MissingEntry:
            pass
        else:
            points = max(0.0, submission.score - (submission.late_submission_penalty or 0.0))
            waiting = sum(
                grade.needs_manual_grade
                for notebook in submission.notebooks
                for grade in notebook.grades
            )
        found.append(
            Grade(
                student.id,
                student.first_name or "",
                student.last_name or "",
                student.email or "",
                student.lms_user_id or "",
                points,
                waiting,
            )
        )
    return sorted(found, key=lambda g: (g.last_name.casefold(), g.student)), possible


def format_csv(target: Target, columns: list[Column], found: list[Grade]) -> str:
    """The file for `target`: one row per student in `found`, one grade per column.

    Students without a submission get no grade, which is not the same as 0.
    """
    rows = {"moodle": _moodle, "canvas": _canvas}[target](columns, found)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    for number, row in enumerate(rows):
        writer.writerow(row if number == 0 else [_inert(cell) for cell in row])
    return text.getvalue()


def _moodle(columns: list[Column], found: list[Grade]) -> list[list[str]]:
    """Rows with one column for each field that identifies users; Moodle asks which to use."""
    head = ["Username", "ID number", "Email address", "First name", "Last name"]
    rows = [[*head, *(column.name for column in columns)]]
    for g in found:
        points = [_number(column.points[g.student]) or "-" for column in columns]
        rows.append([g.student, g.lms_id, g.email, g.first_name, g.last_name, *points])
    return rows


def _canvas(columns: list[Column], found: list[Grade]) -> list[list[str]]:
    """The columns of Canvas' own export; Canvas matches by ID, then SIS ids, then name.

    Canvas uses the leading digits of any text under ID, so only a pure number goes there.
    """
    head = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    possible = [_number(column.possible) for column in columns]
    rows = [
        [*head, *(column.name for column in columns)],
        ["    Points Possible", "", "", "", "", *possible],
    ]
    for g in found:
        name = ", ".join(filter(None, (g.last_name, g.first_name))) or g.student
        number = g.lms_id if g.lms_id.isascii() and g.lms_id.isdecimal() else ""
        other = "" if number else g.lms_id
        points = [_number(column.points[g.student]) for column in columns]
        rows.append([name, number, other, g.student, "", *points])
    return rows


def _number(points: float | None) -> str:
    return "" if points is None else f"{points:.2f}".rstrip("0").rstrip(".")


def _inert(cell: str) -> str:
    """The cell on one line, with an apostrophe before text that would be run as a formula."""
    line = " ".join(cell.splitlines()).replace("\t", " ")
    return f"'{line}" if line.lstrip().startswith(tuple("=+-@＝＋－＠")) and line != "-" else line


def export(
    gradebook: Gradebook, assignments: list[str], target: str, names: Mapping[str, str]
) -> tuple[str, list[str]]:
    """The content of the file, and remarks for the instructor, one per line.

    Args:
        gradebook: the course's gradebook.
        assignments: assignments to export, one column each.
        target: "moodle" or "canvas".
        names: the platform's column name by assignment, where the two differ.

    Raises:
        UserError: `target` or an assignment is unknown, or `names` has one that is not exported.

    """
    if target not in ("moodle", "canvas"):
        raise UserError(f"--to {target}: there are exports to moodle and to canvas")
    if strange := sorted(set(names) - set(assignments)):
        raise UserError(f"--column {strange[0]}: that assignment is not exported")
    for assignment in assignments:
        gradebook.scores(assignment)  # raises the same error as every other command
    name: Target = "moodle" if target == "moodle" else "canvas"
    with gradebook.database() as database:
        return _export(database, assignments, name, names)


def _export(
    database: Database, assignments: list[str], target: Target, names: Mapping[str, str]
) -> tuple[str, list[str]]:
    columns, waiting = [], []
    found: list[Grade] = []
    for assignment in dict.fromkeys(assignments):
        found, possible = grades(database, assignment)
        points = {grade.student: grade.points for grade in found}
        columns.append(Column(names.get(assignment, assignment), points, possible))
        waiting += [grade.student for grade in found if grade.waiting]
    remarks = []
    if waiting := list(dict.fromkeys(waiting)):
        shown = ", ".join(waiting[:5]) + (" …" if len(waiting) > 5 else "")
        remarks.append(f"answers that nobody has read yet count 0 points so far: {shown}")
    if odd := [g.student for g in found if g.student != _inert(g.student)]:
        remarks.append(f"ids that look like formulas got an apostrophe: {', '.join(odd[:5])}")
    return format_csv(target, columns, found), remarks


class _PlatformExporter(ExportPlugin):  # type: ignore[misc]
    """An exporter for `nbgrader export`; its `to` is the file to write, grades.csv by default."""

    target: ClassVar[Target]

    columns = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help="the platform's column name by assignment, where the two differ",
    ).tag(config=True)

    def export(self, gradebook: Database) -> None:
        """Write the grades of the chosen assignments, or of all; ends the command on errors."""
        chosen = [str(name) for name in self.assignment]
        assignments = chosen or [one.name for one in gradebook.assignments]
        path = Path(self.to or "grades.csv")
        if self.student:
            raise SystemExit("every student is exported: take --student away")
        try:
            text, remarks = _export(gradebook, assignments, self.target, self.columns)
            path.write_bytes(text.encode())
        except UserError as error:
            raise SystemExit(str(error)) from error
        except OSError as error:
            raise SystemExit(f"{path} cannot be written: {error.strerror}") from error
        for remark in remarks:
            self.log.warning(remark)


class MoodleExporter(_PlatformExporter):
    """Writes the CSV file that Moodle's gradebook imports."""

    target = "moodle"


class CanvasExporter(_PlatformExporter):
    """Writes the CSV file that Canvas' gradebook imports."""

    target = "canvas"
