"""The submissions that the service is busy with, and those whose last try failed."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder.engine.grade import Graded
from autograder.engine.results import SubmissionResult
from autograder.locks import Busy
from autograder.machine import explained
from autograder.service.inbound import Attempt
from autograder.service.records import Request

LONGEST_PAUSE = 60.0  # most seconds between two tries of a failing submission
Key = tuple[str, str]  # assignment, student


@dataclass
class Work:
    """A submission on its way from its folder to the gradebook.

    Attributes:
        assignment: name of the assignment.
        student: the student's id.
        folder: the folder with its files.
        notebooks: names of the notebooks to grade.
        attempt: the attempt it came from; None if an instructor requested it.
        slot: the time at which the rate limits count the attempt, in seconds since the epoch.
        request: the instructor's request; None if it came from an attempt.
        notes: remarks for the instructor.
        graded: results so far, by notebook.
        stage: its state in one word, for the page.
        readers: number of workers that are reading its files.

    """

    assignment: str
    student: str
    folder: Path
    notebooks: list[str]
    attempt: Attempt | None = None
    slot: float = 0.0
    request: Request | None = None
    notes: str = ""
    graded: dict[str, Graded] = field(default_factory=dict)
    stage: str = "waiting"
    readers: int = 0

    @property
    def key(self) -> Key:
        """The assignment and the student."""
        return self.assignment, self.student

    @property
    def result(self) -> SubmissionResult:
        """The result of the submission; all its notebooks must have been graded."""
        found = [self.graded[name].result for name in self.notebooks]
        return SubmissionResult(self.student, self.assignment, found)


@dataclass
class Trouble:
    """A submission that failed.

    Attributes:
        reason: the last error, as one line.
        times: number of failures in a row.
        again: the time of the next try, in seconds since the epoch.

    """

    reason: str
    times: int
    again: float


class Progress:
    """Every submission that is in progress or has failed; threads may share it.

    Args:
        staging: the folder of attempts in progress, where the files of finished work are removed.
        clock: returns seconds since the epoch.
        report: called with each failure, before the submission counts as idle.

    """

    def __init__(
        self,
        staging: Path,
        clock: Callable[[], float],
        report: Callable[[Key, Exception], None],
    ) -> None:
        self._staging = staging
        self._clock = clock
        self._report = report
        self._active: dict[Key, Work] = {}
        self._trouble: dict[Key, Trouble] = {}
        self._mutex = threading.RLock()

    def must_wait(self, key: Key) -> bool:
        """Whether a submission is in progress, or has failed too recently for another try."""
        with self._mutex:
            trouble = self._trouble.get(key)
            return key in self._active or (trouble is not None and trouble.again > self._clock())

    def start(self, work: Work) -> bool:
        """Add work; return whether an earlier try of it has failed."""
        with self._mutex:
            self._active[work.key] = work
            return work.key in self._trouble

    def enter(self, work: Work) -> bool:
        """Register as a reader of the work's files; False if the work has been dropped."""
        with self._mutex:
            work.readers += 1
            if self._active.get(work.key) is not work:
                return False
            work.stage = "grading"
            return True

    def leave(self, work: Work) -> None:
        """Stop reading the work's files; the last reader of finished work removes them."""
        with self._mutex:
            work.readers -= 1
            over = self._active.get(work.key) is not work
            if over and not work.readers and work.folder.parent == self._staging:
                shutil.rmtree(work.folder, ignore_errors=True)

    def add_result(self, work: Work, notebook: str, graded: Graded) -> bool:
        """Store the result of one notebook; return whether all of them are there."""
        with self._mutex:
            work.graded[notebook] = graded
            return len(work.graded) == len(work.notebooks)

    def finish(self, work: Work) -> None:
        """Remove work that is done."""
        with self._mutex:
            work.readers += 1
            del self._active[work.key]
            self._trouble.pop(work.key, None)
            self.leave(work)

    def drop(self, work: Work, error: Exception) -> None:
        """Abandon this try; a later look at the exchange starts the work again."""
        with self._mutex:
            work.readers += 1
            if self._active.get(work.key) is work:
                del self._active[work.key]
                self.fail(work.key, error)
            self.leave(work)

    def fail(self, key: Key, error: Exception) -> None:
        """Note a failure; the pause before the next try doubles with each."""
        with self._mutex:
            before = self._trouble.get(key)
            times = 1 if before is None else before.times + 1
            wait = 1.0 if isinstance(error, Busy) else min(2.0**times, LONGEST_PAUSE)
            self._trouble[key] = Trouble(in_one_line(error), times, self._clock() + wait)
            self._report(key, error)

    def now(self) -> tuple[dict[Key, Work], dict[Key, Trouble]]:
        """The submissions in progress, and the failed ones that wait for another try."""
        with self._mutex:
            return dict(self._active), dict(self._trouble)


def in_one_line(error: BaseException) -> str:
    """An error as one line of at most 500 characters."""
    text: Any = explained(error) or str(error).strip() or type(error).__name__
    return " ".join(str(text).split())[:500]
