"""nbgrader's `autograde`, held to a definite answer for every submission.

Stock nbgrader passes over a folder without notebooks, copies whatever a student handed in
(following links), and ends the whole batch at an unreadable timestamp.  The command, formgrader
and the Python interface use this class instead, once `install` has put it in place.
"""

from __future__ import annotations

import contextlib
import glob
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import nbgrader.apps.api
import nbgrader.apps.autogradeapp
import nbgrader.apps.generatefeedbackapp
from nbgrader.converters import Autograde, BaseConverter, GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from nbgrader.utils import parse_utc

from autograder.course import Course, write_whole
from autograder.engine.files import read_regular
from autograder.errors import INTERRUPTED, CannotGrade
from autograder.record.locks import OneWriter

# What nbgrader's exchange needs to find whose feedback a page is.
CARRIED = ("timestamp.txt", "submission_secret.txt")


class _CopiesNothing(BaseConverter):  # type: ignore[misc]
    """Stands between nbgrader's `Autograde` and the class that copies submitted files."""

    def init_assignment(self, assignment_id: str, student_id: str) -> None:
        """Make the folder for the graded notebooks, and leave the student's files alone."""
        folder = Path(self._format_dest(assignment_id, student_id))
        folder.mkdir(parents=True, exist_ok=True)
        submitted = Path(self._format_source(assignment_id, student_id))
        for name in CARRIED:
            (folder / name).unlink(missing_ok=True)  # it may be read-only
            if name == "timestamp.txt" and _existing_timestamp(str(submitted)) is None:
                continue  # nbgrader's next command would stop at it
            with contextlib.suppress(CannotGrade, FileNotFoundError):
                (folder / name).write_bytes(read_regular(submitted, name, 4096))


class DefiniteAutograde(OneWriter, Autograde, _CopiesNothing):  # type: ignore[misc]
    """Grades every notebook of the release for every student who handed in anything."""

    force: bool

    def __init__(self, coursedir: CourseDirectory | None = None, **kwargs: Any) -> None:
        super().__init__(coursedir=coursedir, **kwargs)
        if coursedir is not None:
            coursedir.get_existing_timestamp = _existing_timestamp

    def init_destination(self, assignment_id: str, student_id: str) -> bool:
        """Decide whether to grade a submission: also when the last run was killed at it."""
        self._unfinished = unfinished(
            Course.at(Path(self.coursedir.root)), assignment_id, student_id
        )
        asked = bool(self.force)
        self.force = asked or self._unfinished.exists()
        try:
            wanted: bool = super().init_destination(assignment_id, student_id)
        finally:
            self.force = asked
        if wanted:
            write_whole(self._unfinished, "")
        return wanted

    def set_permissions(self, assignment_id: str, student_id: str) -> None:
        """Finish a submission, all of whose notebooks are recorded."""
        super().set_permissions(assignment_id, student_id)
        self._unfinished.unlink()

    def convert_notebooks(self) -> None:
        """Grade what there is to grade; exit with 130 when interrupted."""
        try:
            super().convert_notebooks()
        except KeyboardInterrupt:  # nbgrader has said so
            raise SystemExit(INTERRUPTED) from None

    def init_notebooks(self) -> None:
        """List the released notebooks for each submission, whether handed in or not."""
        course = Course.at(Path(self.coursedir.root))
        wanted = course.notebooks(self.coursedir.assignment_id)
        if self.coursedir.notebook_id != "*":
            wanted = [name for name in wanted if name == self.coursedir.notebook_id]
        self.assignments: dict[str, list[str]] = {}
        self.notebooks: list[str] = []
        pattern = self._format_source(self.coursedir.assignment_id, self.coursedir.student_id)
        for folder in glob.glob(pattern):
            self.assignments[folder] = [os.path.join(folder, f"{name}.ipynb") for name in wanted]
        if not self.assignments:
            super().init_notebooks()  # says so in nbgrader's words


def unfinished(course: Course, assignment: str, student: str) -> Path:
    """The file that is there while a submission is being recorded, and after a run killed at it."""
    return course.private / "recording" / assignment / student


def _existing_timestamp(folder: str) -> datetime | None:
    """When a submission was handed in; None when its `timestamp.txt` does not say."""
    try:
        text = read_regular(Path(folder), "timestamp.txt", 200).decode()
        return parse_utc(text.strip()) if text.strip() else None
    except (CannotGrade, OSError, ValueError, OverflowError):
        return None


class SerialFeedback(OneWriter, GenerateFeedback):  # type: ignore[misc]
    """Writes feedback pages while nobody grades the same submission."""


def install() -> None:
    """Let nbgrader's commands, formgrader and Python interface use the classes above."""
    nbgrader.apps.autogradeapp.Autograde = DefiniteAutograde
    nbgrader.apps.api.Autograde = DefiniteAutograde
    nbgrader.apps.generatefeedbackapp.GenerateFeedback = SerialFeedback
    nbgrader.apps.api.GenerateFeedback = SerialFeedback
