"""The students of the course and the due dates of its assignments, from the gradebook."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nbgrader.api import Assignment, Student, SubmittedAssignment

from autograder.record.feedback import how_long
from autograder.record.gradebook import Gradebook

log = logging.getLogger("autograder.service")


@dataclass(frozen=True)
class Register:
    """A snapshot of the gradebook.

    Attributes:
        names: name by student id; empty if none was entered.
        due: due date by assignment, in seconds since the epoch, if it has one.
        extensions: extension in seconds, by assignment and student.
        handed_in: time of submission in seconds since the epoch, by assignment and student.

    """

    names: dict[str, str] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    extensions: dict[tuple[str, str], float] = field(default_factory=dict)
    handed_in: dict[tuple[str, str], float] = field(default_factory=dict)

    def due_for(self, assignment: str, student: str) -> float:
        """When an assignment is due for a student.  Raises KeyError if it has no due date."""
        return self.due[assignment] + self.extensions.get((assignment, student), 0.0)

    def late(self, assignment: str, student: str, arrived: float | None) -> float:
        """Seconds after the due date; 0 if the submission was in time."""
        if arrived is None or assignment not in self.due:
            return 0.0
        return max(0.0, arrived - self.due_for(assignment, student))


class Roster:
    """Reads the register again whenever the gradebook has changed."""

    def __init__(self, gradebook: Gradebook) -> None:
        self._gradebook = gradebook
        self._version: object = None
        self._known = Register()

    def register(self) -> Register:
        """The current register; the previous one while the gradebook cannot be read."""
        version = self._gradebook.version()
        if version != self._version:
            try:
                with self._gradebook.database() as database:
                    self._known = _read(database)
                self._version = version
            except Exception as error:  # it may be locked; the page must work all the same
                log.warning("the gradebook cannot be read: %s", error)
        return self._known


def _read(database: Any) -> Register:
    register = Register()
    ask = database.db.query  # columns only: loading whole rows would sum up all points
    for student, first, last in ask(Student.id, Student.first_name, Student.last_name):
        register.names[student] = " ".join(filter(None, (first, last)))
    assignments: dict[str, str] = {}
    for number, name, due in ask(Assignment.id, Assignment.name, Assignment.duedate):
        assignments[number] = name
        if due is not None:
            register.due[name] = _seconds(due)
    of = SubmittedAssignment
    for number, student, extension, at in ask(
        of.assignment_id, of.student_id, of.extension, of.timestamp
    ):
        if number in assignments and extension is not None:
            register.extensions[assignments[number], student] = extension.total_seconds()
        if number in assignments and at is not None:
            register.handed_in[assignments[number], student] = _seconds(at)
    return register


def _seconds(at: datetime) -> float:
    """A time of nbgrader's, a naive datetime in UTC, in seconds since the epoch."""
    return at.replace(tzinfo=UTC).timestamp()


def how_late(seconds: float) -> str:
    """The delay in the words of the feedback; empty if there was none."""
    return f"{how_long(seconds)} late" if seconds > 0 else ""
