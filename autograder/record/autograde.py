"""nbgrader's `autograde`, changed so that every submission gets a definite answer.

Stock nbgrader skips a folder without notebooks, copies every submitted file (following links), and
aborts the whole batch at an unreadable timestamp.  After `install`, the command, formgrader and the
Python API use `DefiniteAutograde` instead.
"""

from __future__ import annotations

import atexit
import codecs
import contextlib
import fnmatch
import functools
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import nbgrader.api
import nbgrader.apps.api
import nbgrader.apps.autogradeapp
import nbgrader.apps.generatefeedbackapp
import sqlalchemy
from dateutil import parser
from nbgrader.converters import Autograde, BaseConverter
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from traitlets import Bool

from autograder.course import Course, write_whole
from autograder.engine.files import read_regular
from autograder.engine.finding import same_letters
from autograder.engine.grade import Graded
from autograder.engine.pool import Engine, one_run
from autograder.errors import INTERRUPTED, CannotGrade, printable
from autograder.record.copies import report_copies
from autograder.record.feedback import SerialFeedback
from autograder.record.locks import OneWriter
from autograder.record.nbgrader_glue import GRADED, grade_submission, write_results

# The exchange reads these files to tell whose feedback a page is.
CARRIED = ("timestamp.txt", "submission_secret.txt")


class _CopiesNothing(BaseConverter):  # type: ignore[misc]
    """Overrides, for nbgrader's `Autograde`, the base class that copies submitted files."""

    def init_assignment(self, assignment_id: str, student_id: str) -> None:
        """Make the folder for the graded notebooks; copy nothing but the files in `CARRIED`."""
        folder = Path(self._format_dest(assignment_id, student_id))
        folder.mkdir(parents=True, exist_ok=True)
        course = Course.at(Path(self.coursedir.root))
        submitted = handed_in_at(course, student_id, assignment_id)
        for name in CARRIED:
            (folder / name).unlink(missing_ok=True)  # it may be read-only
            if name == "timestamp.txt" and time_in(submitted)[0] is None:
                continue  # nbgrader's next command would fail on it
            with contextlib.suppress(CannotGrade, FileNotFoundError):
                data = read_regular(submitted, name, 4096, own_links=True)
                if name == "timestamp.txt":  # nbgrader reads UTF-8 only
                    data = _decode(data).encode()
                (folder / name).write_bytes(data)


_engines: dict[tuple[Path, bool], Engine] = {}


def _engine_of(course: Course, unconfined: bool) -> Engine:
    """The engine of this process for nbgrader's own commands; its workers end with the process."""
    if (course.root, unconfined) not in _engines:
        engine = Engine(course, os.cpu_count() or 1, unconfined)
        _engines[course.root, unconfined] = engine
        atexit.register(engine.close)
    return _engines[course.root, unconfined]


class DefiniteAutograde(OneWriter, Autograde, _CopiesNothing):  # type: ignore[misc]
    """Grades every released notebook for every student with a submission.

    graded: the results of the one student to record; None to grade whoever is found.
    """

    run_student_code_unconfined = Bool(
        False, help="Grade where this machine can confine student code in no way."
    ).tag(config=True)
    force: bool

    def __init__(
        self,
        coursedir: CourseDirectory | None = None,
        graded: Mapping[str, Graded] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(coursedir=coursedir, **kwargs)
        self._known = graded
        if coursedir is not None:
            coursedir.get_existing_timestamp = self._timestamp
        self._odd: dict[str, str] = {}

    def _timestamp(self, folder: str) -> datetime | None:
        """When a submission was handed in; nbgrader asks this of two folders."""
        path, course = Path(folder), Course.at(Path(self.coursedir.root))
        if path.absolute().parents[1] == course.root / "submitted":
            path = handed_in_at(course, path.parent.name, path.name)
            if said := time_in(path)[1]:
                self.log.warning("%s", said)
        return time_in(path)[0]

    def init_destination(self, assignment_id: str, student_id: str) -> bool:
        """Decide whether to grade a submission; a killed run's unfinished one is graded again."""
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

    def init_assignment(self, assignment_id: str, student_id: str) -> None:
        """Begin a submission: grade it, unless its results are known, and write them down."""
        super().init_assignment(assignment_id, student_id)
        course = Course.at(Path(self.coursedir.root))
        self._graded = self._known
        if self._graded is None:
            engine = _engine_of(course, self.run_student_code_unconfined)
            self._graded = grade_submission(engine, student_id, assignment_id)
        write_results(course, student_id, assignment_id, self._graded)

    def init_single_notebook_resources(self, notebook_filename: str) -> dict[str, Any]:
        """Tell the exporter what grading made of a notebook."""
        resources: dict[str, Any] = super().init_single_notebook_resources(notebook_filename)
        assert self._graded is not None
        resources[GRADED] = self._graded[resources["nbgrader"]["notebook"]]
        return resources

    def convert_single_notebook(self, notebook_filename: str) -> None:
        """Export the graded notebook; nbgrader would convert the submitted one first."""
        self._sanitizing = False  # decides which preprocessors, and where the notebook lies
        self._init_preprocessors()
        self._sanitizing = True
        BaseConverter.convert_single_notebook(self, notebook_filename)

    def set_permissions(self, assignment_id: str, student_id: str) -> None:
        """Finish a submission: nbgrader calls this once all its notebooks are recorded."""
        super().set_permissions(assignment_id, student_id)
        self._unfinished.unlink()

    def convert_notebooks(self) -> None:
        """Grade all submissions found; exit with status 130 when interrupted."""
        try:
            with one_run():
                super().convert_notebooks()
        except KeyboardInterrupt:  # nbgrader has logged it
            raise SystemExit(INTERRUPTED) from None
        if self._known is None:  # or else the command that knew the results reports copies
            assignment = self.coursedir.assignment_id
            for line in report_copies(Course.at(Path(self.coursedir.root)), assignment):
                self.log.warning("%s: %s", assignment, line)
        for student, why in self._odd.items():
            self.log.error("%s was not graded: %s", printable(student), why)
        if self._odd:
            raise NbGraderException("somebody was not graded; what is above says why")

    def init_notebooks(self) -> None:
        """List all released notebooks for each submission, including those not handed in.

        `student_id` is the name of a student's folder or a glob pattern.
        """
        course = Course.at(Path(self.coursedir.root))
        wanted = course.notebooks(self.coursedir.assignment_id)
        if self.coursedir.notebook_id != "*":
            wanted = [name for name in wanted if name == self.coursedir.notebook_id]
        self.assignments: dict[str, list[str]] = {}
        self.notebooks: list[str] = []
        assignment, asked = self.coursedir.assignment_id, self.coursedir.student_id
        present = course.students(assignment)
        chosen = [same_letters(asked)] if same_letters(asked) in present else present
        for student in chosen:
            if student != same_letters(asked) and not fnmatch.fnmatchcase(student, asked):
                continue
            if why := course.odd_name(student):
                self._odd[student] = why
                continue
            folder = self._format_source(assignment, student)
            self.assignments[folder] = [os.path.join(folder, f"{name}.ipynb") for name in wanted]
        if not self.assignments and not self._odd:
            super().init_notebooks()  # raises nbgrader's own error


def unfinished(course: Course, assignment: str, student: str) -> Path:
    """The marker file of a submission being recorded; it survives a run that is killed."""
    return course.private / "recording" / assignment / student


def handed_in_at(course: Course, student: str, assignment: str) -> Path:
    """The folder of a submission's `timestamp.txt`, whether or not the file exists."""
    folder, only = course.handed_in(student, assignment)
    places = [folder / name for name in only if (folder / name).is_dir()]
    stamped = [place for place in [*places, folder] if os.path.lexists(place / "timestamp.txt")]
    return stamped[0] if stamped else folder


# Unambiguous time zone abbreviations, in hours from UTC.
ZONES = {
    **{"UTC": 0, "GMT": 0, "Z": 0, "WET": 0, "WEST": 1, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3},
    **{"MSK": 3, "HKT": 8, "SGT": 8, "AWST": 8, "KST": 9, "JST": 9, "AEST": 10, "AEDT": 11},
    **{"NZST": 12, "NZDT": 13, "EST": -5, "EDT": -4, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8},
    **{"PDT": -7, "AKST": -9, "AKDT": -8, "HST": -10},
}


def _own_zones() -> dict[str, float]:
    """The machine's own time zones by abbreviation, in hours from UTC."""
    hours = (-time.timezone / 3600, -time.altzone / 3600)
    return dict(zip((name.upper() for name in time.tzname), hours, strict=True))


# The parser fills in what a text leaves out; only a whole date reads the same with both.
_DEFAULTS = (datetime(2000, 1, 1), datetime(2001, 2, 2))


def _decode(data: bytes) -> str:
    """The text of a small file, as UTF-16 if its byte order mark says so.  Raises ValueError."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def time_in(folder: Path) -> tuple[datetime | None, str]:
    """When a submission was handed in, and a warning about its `timestamp.txt`.

    The time is a naive datetime in UTC, as nbgrader uses it; None when the file is missing or does
    not hold a time.  The warning is empty when the file is missing or valid.
    """
    try:
        text = _decode(read_regular(folder, "timestamp.txt", 400, own_links=True)).strip()
    except FileNotFoundError:
        return None, ""
    except (CannotGrade, OSError, ValueError):
        return None, "timestamp.txt cannot be read, so nothing is counted as late"
    if not text:
        return None, "timestamp.txt is empty, so nothing is counted as late"
    unknown: list[str] = []

    def zone(name: str | None, offset: int | None) -> tzinfo:
        known = {**ZONES, **_own_zones()}
        if offset is not None or name is None:
            return timezone(timedelta(seconds=offset or 0))
        if name.upper() not in known:
            unknown.append(name)
        return timezone(timedelta(hours=known.get(name.upper(), 0)))

    def read(default: datetime) -> datetime:
        *words, last = text.split(" ")
        if "/" in last and words:  # an IANA zone such as Asia/Seoul
            at = parser.parse(" ".join(words), default=default).replace(tzinfo=ZoneInfo(last))
        else:
            at = parser.parse(text, default=default, tzinfos=zone)
        utc: datetime = at.astimezone(UTC)
        return utc

    try:
        at, other = map(read, _DEFAULTS)
        if at != other:
            raise ValueError("no date")
    except (ValueError, OverflowError, ZoneInfoNotFoundError):
        said = f"timestamp.txt does not tell a time ({printable(text, 60)})"
        return None, f"{said}, so nothing is counted as late"
    if unknown:
        said = f"timestamp.txt has a time zone that is not known ({printable(text, 60)})"
        return None, f"{said}, so nothing is counted as late"
    return at.replace(tzinfo=None), ""


def install() -> None:
    """Make nbgrader's commands, formgrader and Python API use the kit's converters."""
    nbgrader.apps.autogradeapp.Autograde = DefiniteAutograde
    nbgrader.apps.api.Autograde = DefiniteAutograde
    CourseDirectory.get_existing_timestamp = lambda _, folder: time_in(Path(folder))[0]
    nbgrader.apps.generatefeedbackapp.GenerateFeedback = SerialFeedback
    nbgrader.apps.api.GenerateFeedback = SerialFeedback
    # nbgrader opens the gradebook fifteen times for a submission, and each time SQLAlchemy would
    # compile the same queries again.
    nbgrader.api.create_engine = functools.lru_cache(maxsize=8)(sqlalchemy.create_engine)
