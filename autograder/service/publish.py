"""Publishes feedback and notices to students, through the gradebook and the exchange."""

from __future__ import annotations

import contextlib
from pathlib import Path

from autograder.course import Course
from autograder.engine.arrival import taken_for
from autograder.engine.files import read_regular
from autograder.errors import CannotGrade
from autograder.record.autograde import CARRIED
from autograder.record.gradebook import Gradebook
from autograder.service import inbound, notices
from autograder.service.decide import Decision
from autograder.service.inbound import Attempt
from autograder.service.records import Answer
from autograder.service.roster import Roster, how_late
from autograder.service.settings import Settings
from autograder.service.work import Work


class Publisher:
    """Brings each outcome to the student: as feedback in the gradebook, or as a notice."""

    def __init__(
        self, course: Course, settings: Settings, gradebook: Gradebook, roster: Roster
    ) -> None:
        self._course = course
        self._settings = settings
        self._gradebook = gradebook
        self._roster = roster

    def tell(self, decision: Decision) -> str:
        """Publish a notice that an attempt is refused, superseded or deferred; return its title."""
        attempt, settings = decision.attempt, self._settings
        title, text = {
            "refuse": (
                "Not accepted",
                f"This attempt was not accepted: {decision.reason}. It takes no place in the "
                "limits, and what you handed in before, if anything, still counts.",
            ),
            "supersede": (
                "Not graded",
                f"This attempt was not graded: {decision.reason}. "
                "The feedback is with the later attempt.",
            ),
            "defer": (
                "Graded later",
                f"At most {settings.attempts_per_hour} attempts are graded within an hour, and "
                f"{settings.attempts_per_day} within a day. This one will be graded on "
                f"{notices.moment(decision.when)}, unless you hand in again before that.",
            ),
        }[decision.kind]
        page = notices.notice(title, f"{text} {self._lateness(attempt)}".strip())
        names = inbound.notebooks(attempt.folder)
        secret = inbound.secret(attempt.folder)
        notices.publish(settings.outbound, secret, dict.fromkeys(names, page))
        return title

    def record(self, work: Work) -> None:
        """Record a submission in the gradebook and release its feedback."""
        self._gradebook.record(
            work.assignment, work.student, {name: work.graded[name] for name in work.notebooks}
        )
        self.release(work)

    def release(self, work: Work) -> None:
        """Write the feedback pages of the recorded submission and release them to the student."""
        submitted = self._course.submitted(work.student, work.assignment)
        self._gradebook.generate_feedback(work.assignment, work.student)
        secret = inbound.secret(submitted)
        if not secret:
            return  # it was not handed in through the exchange
        feedback = self._course.root / "feedback" / work.student / work.assignment
        for name in CARRIED:
            if not (feedback / name).exists():  # `autograded/` lacks it, so nbgrader copied none
                try:
                    (feedback / name).write_bytes(read_regular(submitted, name, 4096))
                except (CannotGrade, FileNotFoundError):
                    (feedback / name).write_bytes(b"")
        self._gradebook.release_feedback(work.assignment, work.student)
        shown = {}
        for name in self._course.notebooks(work.assignment):
            with contextlib.suppress(FileNotFoundError):
                shown[name] = (feedback / f"{name}.html").read_text("utf-8")
        self._publish_others(work, submitted, secret, shown)

    def publish_aside(self, work: Work, attempt: Attempt, standing: Answer) -> None:
        """Publish the outcome of an attempt that does not count, because `standing` does."""
        note = (
            f"This attempt does not count: the one of {notices.moment(standing.arrived)} "
            f"has {standing.score:g} points. {self._lateness(attempt)}"
        ).strip()
        secret = inbound.secret(work.folder)
        shown = notices.outcomes(work.graded, note, self._gradebook.config)
        notices.publish(self._settings.outbound, secret, shown)
        self._publish_others(work, work.folder, secret, shown)

    def _publish_others(self, work: Work, folder: Path, secret: str, shown: dict[str, str]) -> None:
        """Publish pages for notebooks under other names.

        A notebook that was graded as one of the assignment's gets that one's feedback page, any
        other a notice.

        Args:
            work: the submission.
            folder: its files.
            secret: the student's secret.
            shown: feedback pages by name of the assignment's notebook.

        """
        taken = taken_for(folder, self._course.release(work.assignment))
        others = inbound.notebooks(folder)
        extra = notices.strangers(others, self._course.notebooks(work.assignment))
        for name, path in taken.items():
            own = path.removesuffix(".ipynb")
            if own in extra and name in shown:
                extra[own] = shown[name]
        notices.publish(self._settings.outbound, secret, extra)

    def _lateness(self, attempt: Attempt) -> str:
        """A sentence about a missed due date; empty if the attempt was in time."""
        register = self._roster.register()
        late = register.late(attempt.assignment, attempt.student, attempt.arrived)
        if not late:
            return ""
        due = register.due_for(attempt.assignment, attempt.student)
        return f"It was handed in {how_late(late)}; it was due on {notices.moment(due)}."
