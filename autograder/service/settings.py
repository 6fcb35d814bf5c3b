"""The service's settings: its own section of `nbgrader_config.py`, and nbgrader's settings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nbgrader.coursedir import CourseDirectory
from nbgrader.exchange.default import Exchange, ExchangeCollect
from traitlets import Enum, Float, Int, Unicode
from traitlets.config import Config, Configurable

from autograder.course import Course
from autograder.errors import UserError


class AutograderService(Configurable):  # type: ignore[misc]
    """The section `c.AutograderService` of `nbgrader_config.py`."""

    poll_seconds = Float(1.0, min=0.1, help="Seconds between two looks at the exchange.").tag(
        config=True
    )
    attempts_per_hour = Int(3, min=1, help="Attempts of a student graded within an hour.").tag(
        config=True
    )
    attempts_per_day = Int(10, min=1, help="Attempts of a student graded within 24 hours.").tag(
        config=True
    )
    counts = Enum(("newest", "best"), "newest", help="Which attempt is recorded.").tag(config=True)
    max_submission_bytes = Int(
        80 << 20, min=1, help="A submission with more bytes than this is refused."
    ).tag(config=True)
    jobs = Int(
        max(2, os.cpu_count() or 1),
        min=2,
        help="Notebooks graded at the same time; with one, everybody would wait for a time-out.",
    ).tag(config=True)
    instructor_group = Unicode(
        help="Members of this JupyterHub group see the page; formgrade-<course> unless set."
    ).tag(config=True)


@dataclass(frozen=True)
class Settings:
    """All settings of the service; see `AutograderService` for those not listed here.

    Attributes:
        course_id: nbgrader's id of the course.
        inbound: the course's folder in the exchange for submissions.
        outbound: the course's folder in the exchange for feedback.
        ignore: glob patterns of file names that nbgrader does not collect.
        check_owner: whether a folder's owner, rather than its name, identifies the student.

    """

    course_id: str
    inbound: Path
    outbound: Path
    ignore: tuple[str, ...] = ()
    check_owner: bool = True
    poll_seconds: float = 1.0
    attempts_per_hour: int = 3
    attempts_per_day: int = 10
    counts: str = "newest"
    max_submission_bytes: int = 80 << 20
    jobs: int = 2
    instructor_group: str = ""

    @classmethod
    def of(cls, course: Course, config: Config) -> Settings:
        """The settings of a course.  Raises UserError if it has no id or no exchange."""
        own = AutograderService(config=config)
        directory = CourseDirectory(config=config)
        name = directory.course_id
        if not name or "/" in name:
            raise UserError(
                f"{course.root}/nbgrader_config.py names no course: set c.CourseDirectory.course_id"
            )
        section = config["Exchange"]
        root = Path(section.get("root", Exchange.class_traits()["root"].default_value))
        inbound = root / name / "inbound"
        if not inbound.is_dir():
            raise UserError(
                f"{inbound} is not there: release an assignment with "
                "`nbgrader release_assignment`, or set c.Exchange.root"
            )
        owner = ExchangeCollect.class_traits()["check_owner"].default_value
        return cls(
            course_id=name,
            inbound=inbound,
            outbound=root / name / "feedback",
            ignore=tuple(directory.ignore),
            check_owner=config["ExchangeCollect"].get("check_owner", owner),
            poll_seconds=own.poll_seconds,
            attempts_per_hour=own.attempts_per_hour,
            attempts_per_day=own.attempts_per_day,
            counts=own.counts,
            max_submission_bytes=own.max_submission_bytes,
            jobs=own.jobs,
            instructor_group=own.instructor_group or f"formgrade-{name}",
        )
