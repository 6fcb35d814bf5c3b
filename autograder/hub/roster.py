"""Who is in the course and when its assignments are due, as the gradebook has it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nbgrader.api import Assignment, Student, SubmittedAssignment

from autograder.record.feedback import how_long
from autograder.record.gradebook import Gradebook

log = logging.getLogger("autograder.hub")


@dataclass(frozen=True)
class Register:
    """What the gradebook says: times in seconds since the epoch, extensions in seconds.

    names: of every student, by id, empty where none was given; due: of the assignments that have
    a due date; extensions, handed_in: by assignment and student.
    """

    names: dict[str, str] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    extensions: dict[tuple[str, str], float] = field(default_factory=dict)
    handed_in: dict[tuple[str, str], float] = field(default_factory=dict)

    def due_for(self, assignment: str, student: str) -> float:
        """When an assignment is due for a student.  Raises KeyError when it has no due date."""
        return self.due[assignment] + self.extensions.get((assignment, student), 0.0)

    def late(self, assignment: str, student: str, arrived: float | None) -> float:
        """Seconds by which something came too late; 0 when it did not."""
        if arrived is None or assignment not in self.due:
            return 0.0
        return max(0.0, arrived - self.due_for(assignment, student))


class Roster:
    """Reads the register when the gradebook has changed."""

    def __init__(self, gradebook: Gradebook) -> None:
        self._gradebook = gradebook
        self._version: object = None
        self._known = Register()

    def register(self) -> Register:
        """What the gradebook says; while it cannot be read, what it said before."""
        version = self._gradebook.version()
        if version != self._version:
            try:
                with self._gradebook.database() as database:
                    self._known = _read(database)
                self._version = version
            except Exception as error:  # locked, perhaps: the page must not stop at it
                log.warning("the gradebook cannot be read: %s", error)
        return self._known


def _read(database: Any) -> Register:
    register = Register()
    ask = database.db.query  # columns alone: whole rows would add up everybody's points
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
    """A time of nbgrader's, which is in UTC and does not say so."""
    return at.replace(tzinfo=UTC).timestamp()


def how_late(seconds: float) -> str:
    """By how much something was late, as the feedback says it; empty when it was not."""
    return f"{how_long(seconds)} late" if seconds > 0 else ""
