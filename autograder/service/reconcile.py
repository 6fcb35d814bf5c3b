"""Brings gradebook and feedback in line with the exchange.

There is no queue on disk: each look derives the remaining work from the exchange and from the
answers given so far (`records`).  The answer is written last, so an interruption (a kill, a power
cut, a full disk, a locked database) leaves the attempt without an answer, and it is done again.
That is safe: results are cached by content, and recording and releasing are idempotent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autograder.course import Course
from autograder.engine.arrival import taken_for
from autograder.engine.files import read_regular
from autograder.engine.grade import Graded
from autograder.engine.pool import Engine
from autograder.engine.results import SubmissionResult
from autograder.errors import CannotGrade
from autograder.machine import explained
from autograder.record.autograde import CARRIED
from autograder.record.gradebook import Gradebook
from autograder.record.locks import Busy, only_writer
from autograder.service import inbound, pages
from autograder.service.decide import Decision, counting, decide
from autograder.service.inbound import Attempt
from autograder.service.records import (
    DEFERRED,
    GRADED,
    REFUSED,
    SUPERSEDED,
    Answer,
    Records,
    Wish,
)
from autograder.service.roster import Roster, how_late
from autograder.service.settings import Settings
from autograder.service.turns import Turns

log = logging.getLogger("autograder.service")

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
        wish: the instructor's request; None if it came from an attempt.
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
    wish: Wish | None = None
    notes: str = ""
    graded: dict[str, Graded] = field(default_factory=dict)
    stage: str = "waiting"
    readers: int = 0

    @property
    def key(self) -> Key:
        """The assignment and the student."""
        return self.assignment, self.student


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


@dataclass
class Health:
    """The state of the service; times are in seconds since the epoch.

    Attributes:
        started: time of the service's start.
        last_look: time of the last look at the exchange; 0 before the first.
        last_error: the last error, as one line.
        last_error_at: its time.
        sandbox: the layers of confinement in force; empty until an engine has started.
        unfinished: number of submission folders that are still being written.
        strange: number of folders for assignments that this course does not have.

    """

    started: float
    last_look: float = 0.0
    last_error: str = ""
    last_error_at: float = 0.0
    sandbox: list[str] = field(default_factory=list)
    unfinished: int = 0
    strange: int = 0


class Reconciler:
    """The service without its page; a context manager that runs its threads.

    Args:
        course: the course.
        settings: the course's settings.
        engines: one per grading thread, so that submissions do not disturb each other.
        gradebook: the course's gradebook.
        clock: returns seconds since the epoch.

    """

    def __init__(
        self,
        course: Course,
        settings: Settings,
        engines: Sequence[Engine],
        gradebook: Gradebook,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.course = course
        self.settings = settings
        self.records = Records(course)
        self.health = Health(started=clock())
        self.roster = Roster(gradebook)
        self.attempts: dict[Key, list[Attempt]] = {}
        self._engines = engines
        self._gradebook = gradebook
        self._clock = clock
        self._staging = self.records.staging()
        self._active: dict[Key, Work] = {}
        self._trouble: dict[Key, Trouble] = {}
        self._mutex = threading.RLock()
        self._idle = threading.Condition(self._mutex)
        self._turns: Turns[tuple[Work, str]] = Turns(len(engines))
        self._finished: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._threads = [
            *(threading.Thread(target=self._compute, args=(e,), daemon=True) for e in engines),
            threading.Thread(target=self._record_all, daemon=True),
        ]

    def __enter__(self) -> Reconciler:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        """Tell the threads to end after their current work."""
        self._turns.close()
        self._finished.put(None)

    # --- looking ---

    def look(self) -> None:
        """Look at the exchange once: answer attempts that need no grading, start the others."""
        try:
            found = self._find()
            for key, attempts in found.items():
                self._look_at(key, attempts)
            if not self.records.paused:
                for wish, assignment, student in self.records.wishes():
                    self._grant(wish, assignment, student)
        except Exception as error:  # the next look may succeed
            self._report("looking at the exchange", error)
        self.health.last_look = self._clock()

    def _find(self) -> dict[Key, list[Attempt]]:
        """Complete attempts by assignment and student; folders with a final answer are not read."""
        known = set(self.assignments())
        found: dict[Key, list[Attempt]] = {}
        unfinished = strange = 0
        settings = self.settings
        for attempt in inbound.attempts(settings.inbound):
            if attempt.assignment not in known:
                strange += 1
                continue
            answer = self.records.answer(attempt.name)
            if answer is not None and answer.final:
                seen = replace(
                    attempt, student=answer.student, arrived=answer.arrived, complete=True
                )
            else:
                seen = inbound.surveyed(
                    attempt,
                    self.course.notebooks(attempt.assignment),
                    settings.max_submission_bytes,
                    settings.ignore,
                    settings.check_owner,
                )
            if not seen.complete:
                unfinished += 1
                continue
            found.setdefault((seen.assignment, seen.student), []).append(seen)
        self.health.unfinished, self.health.strange = unfinished, strange
        with self._mutex:
            self.attempts = found
        newest = {key: max(a.arrived for a in attempts) for key, attempts in found.items()}
        return {key: found[key] for key in sorted(found, key=newest.__getitem__)}

    def assignments(self) -> list[str]:
        """Names of the released assignments."""
        folder = self.course.root / "release"
        return sorted(path.name for path in folder.glob("[!.]*") if any(path.glob("*.ipynb")))

    def _look_at(self, key: Key, attempts: list[Attempt]) -> None:
        now = self._clock()
        with self._mutex:
            trouble = self._trouble.get(key)
            if key in self._active or (trouble is not None and trouble.again > now):
                return
        answers = self.records.answers(*key)
        try:
            for decision in decide(attempts, answers, self.settings, now):
                if decision.kind != "grade":
                    self._answer(decision, now)
                elif not self.records.paused:
                    self._begin(decision)
                    return
        except Exception as error:
            self._fail(key, error)

    def _answer(self, decision: Decision, now: float) -> None:
        """Tell a student that an attempt is refused, superseded or deferred."""
        attempt, settings = decision.attempt, self.settings
        kinds = {"refuse": REFUSED, "supersede": SUPERSEDED, "defer": DEFERRED}
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
                f"{pages.moment(decision.when)}, unless you hand in again before that.",
            ),
        }[decision.kind]
        page = pages.notice(title, f"{text} {self._lateness(attempt)}".strip())
        names = inbound.notebooks(attempt.folder)
        pages.publish(settings.outbound, inbound.secret(attempt.folder), dict.fromkeys(names, page))
        self.records.write(
            Answer(
                attempt=attempt.name,
                student=attempt.student,
                assignment=attempt.assignment,
                kind=kinds[decision.kind],
                arrived=attempt.arrived,
                answered=now,
                until=decision.when,
                reason=decision.reason,
                notes=_claim(attempt),
            )
        )
        log.info("%s, %s: %s", attempt.student, attempt.assignment, title.lower())

    def _lateness(self, attempt: Attempt) -> str:
        """A sentence about a missed due date; empty if the attempt was in time."""
        register = self.roster.register()
        late = register.late(attempt.assignment, attempt.student, attempt.arrived)
        if not late:
            return ""
        due = register.due_for(attempt.assignment, attempt.student)
        return f"It was handed in {how_late(late)}; it was due on {pages.moment(due)}."

    def _begin(self, decision: Decision) -> None:
        """Copy an attempt and queue it for grading."""
        attempt, settings = decision.attempt, self.settings
        folder = self._staging / str(time.monotonic_ns())
        try:
            left_out = inbound.collect(
                attempt,
                folder,
                self.course.notebooks(attempt.assignment),
                settings.max_submission_bytes,
                settings.ignore,
                self.course.release(attempt.assignment),
            )
            (folder / inbound.STAMP).unlink(missing_ok=True)
            (folder / inbound.STAMP).write_text(pages.timestamp(attempt.arrived) + "\n", "utf-8")
        except inbound.Refused as error:
            shutil.rmtree(folder, ignore_errors=True)
            self._answer(replace(decision, kind="refuse", reason=str(error)), self._clock())
            return
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        notes = [_claim(attempt), f"left out: {', '.join(left_out[:5])}" if left_out else ""]
        self._start(
            Work(
                attempt.assignment,
                attempt.student,
                folder,
                self.course.notebooks(attempt.assignment),
                attempt,
                decision.when,
                notes="; ".join(filter(None, notes)),
            )
        )

    def _grant(self, wish: Wish, assignment: str, student: str) -> None:
        """Start an instructor's request, unless the submission is in progress."""
        key = assignment, student
        now = self._clock()
        with self._mutex:
            trouble = self._trouble.get(key)
            if key in self._active or (trouble is not None and trouble.again > now):
                return
        folder = self.course.submitted(student, assignment)
        if not folder.is_dir():
            self.records.fulfil(wish, assignment, student)  # the submission is gone
            return
        names = self.course.notebooks(assignment) if wish == "regrade" else []
        self._start(Work(assignment, student, folder, names, wish=wish))

    def _start(self, work: Work) -> None:
        with self._mutex:
            self._active[work.key] = work
            again = work.key in self._trouble  # a retry has already waited its turn
        if work.notebooks:
            items = [(work, name) for name in work.notebooks]
            self._turns.put(work.student, items, first=again)
        else:
            self._finished.put(work)

    # --- computing ---

    def _compute(self, engine: Engine) -> None:
        while (taken := self._turns.take()) is not None:
            student, (work, name) = taken
            try:
                if self._enter(work):
                    self._grade(engine, work, name)
            except Exception as error:
                self._drop(work, error)
            finally:
                self._leave(work)
                self._turns.done(student)

    def _grade(self, engine: Engine, work: Work, name: str) -> None:
        job = replace(
            engine.job(work.student, work.assignment, name), submission=work.folder, only=()
        )
        for _, graded in engine.grade([job], force=work.wish == "regrade"):
            with self._mutex:
                work.graded[name] = graded
                complete = len(work.graded) == len(work.notebooks)
            if complete:
                self._finished.put(work)

    # --- recording ---

    def _record_all(self) -> None:
        while (work := self._finished.get()) is not None:
            try:
                work.stage = "recording"
                with only_writer(self.course, work.student, work.assignment, wait=False):
                    self._record(work)
            except Exception as error:
                self._drop(work, error)
            else:
                self._end(work)

    def _record(self, work: Work) -> None:
        """Record one submission in the gradebook and publish its feedback."""
        answers = self.records.answers(*work.key)
        standing = counting(answers, self.settings.counts)
        if work.wish == "release":
            self._release(work)
        elif work.attempt is None:
            self._publish(work)
            if standing is not None:
                result = self._result(work)
                self.records.write(
                    replace(standing, score=result.score, max_score=result.max_score)
                )
        else:
            answer = self._graded(work, work.attempt)
            if counting([*answers, answer], self.settings.counts) == answer:
                self._install(work)
                self._publish(work)
            else:
                self._publish_aside(work, work.attempt, standing)
            self.records.write(answer)
            log.info("%s, %s: %g points", work.student, work.assignment, answer.score)
        if work.wish is not None:
            self.records.fulfil(work.wish, work.assignment, work.student)

    def _result(self, work: Work) -> SubmissionResult:
        found = [work.graded[name].result for name in work.notebooks]
        return SubmissionResult(work.student, work.assignment, found)

    def _graded(self, work: Work, attempt: Attempt) -> Answer:
        result = self._result(work)
        return Answer(
            attempt=attempt.name,
            student=work.student,
            assignment=work.assignment,
            kind=GRADED,
            arrived=attempt.arrived,
            answered=self._clock(),
            slot=work.slot,
            score=result.score,
            max_score=result.max_score,
            notes=work.notes,
        )

    def _install(self, work: Work) -> None:
        """Replace the previously collected submission with the attempt."""
        place = self.course.submitted(work.student, work.assignment)
        place.parent.mkdir(parents=True, exist_ok=True)
        before = self._staging / f"{work.folder.name}-before"
        if os.path.lexists(place):
            place.rename(before)
        work.folder.rename(place)
        work.folder = place
        shutil.rmtree(before, ignore_errors=True)

    def _publish(self, work: Work) -> None:
        self._gradebook.record(
            work.assignment, work.student, {name: work.graded[name] for name in work.notebooks}
        )
        self._release(work)

    def _release(self, work: Work) -> None:
        """Write the feedback pages of the recorded submission and release them to the student."""
        submitted = self.course.submitted(work.student, work.assignment)
        self._gradebook.generate_feedback(work.assignment, work.student)
        secret = inbound.secret(submitted)
        if not secret:
            return  # it was not handed in through the exchange
        feedback = self.course.root / "feedback" / work.student / work.assignment
        for name in CARRIED:
            if not (feedback / name).exists():  # `autograded/` lacks it, so nbgrader copied none
                try:
                    (feedback / name).write_bytes(read_regular(submitted, name, 4096))
                except (CannotGrade, FileNotFoundError):
                    (feedback / name).write_bytes(b"")
        self._gradebook.release_feedback(work.assignment, work.student)
        shown = {}
        for name in self.course.notebooks(work.assignment):
            with contextlib.suppress(FileNotFoundError):
                shown[name] = (feedback / f"{name}.html").read_text("utf-8")
        self._strangers(work, submitted, secret, shown)

    def _strangers(self, work: Work, folder: Path, secret: str, shown: dict[str, str]) -> None:
        """Publish pages for notebooks under other names.

        A notebook that was graded as one of the assignment's gets that one's feedback page, any
        other a notice.

        Args:
            work: the submission.
            folder: its files.
            secret: the student's secret.
            shown: feedback pages by name of the assignment's notebook.

        """
        taken = taken_for(folder, self.course.release(work.assignment))
        others = inbound.notebooks(folder)
        extra = pages.strangers(others, self.course.notebooks(work.assignment))
        for name, path in taken.items():
            own = path.removesuffix(".ipynb")
            if own in extra and name in shown:
                extra[own] = shown[name]
        pages.publish(self.settings.outbound, secret, extra)

    def _publish_aside(self, work: Work, attempt: Attempt, standing: Answer | None) -> None:
        """Publish the outcome of an attempt that does not count."""
        assert standing is not None
        note = (
            f"This attempt does not count: the one of {pages.moment(standing.arrived)} "
            f"has {standing.score:g} points. {self._lateness(attempt)}"
        ).strip()
        secret = inbound.secret(work.folder)
        shown = pages.outcomes(work.graded, note, self._gradebook.config)
        pages.publish(self.settings.outbound, secret, shown)
        self._strangers(work, work.folder, secret, shown)

    # --- progress and failures ---

    def _enter(self, work: Work) -> bool:
        """Register as a reader of the work's files; False if the work has been dropped."""
        with self._mutex:
            work.readers += 1
            if self._active.get(work.key) is not work:
                return False
            work.stage = "grading"
            return True

    def _leave(self, work: Work) -> None:
        with self._mutex:
            work.readers -= 1
            dropped = self._active.get(work.key) is not work
            if dropped and not work.readers and work.folder.parent == self._staging:
                shutil.rmtree(work.folder, ignore_errors=True)

    def _end(self, work: Work) -> None:
        with self._idle:
            work.readers += 1  # the last reader to leave removes the files
            del self._active[work.key]
            self._trouble.pop(work.key, None)
            self._leave(work)
            self._idle.notify_all()

    def _drop(self, work: Work, error: Exception) -> None:
        """Abandon this try; a later look starts the work again."""
        with self._idle:
            work.readers += 1
            if self._active.get(work.key) is work:
                del self._active[work.key]
                self._fail(work.key, error)
            self._leave(work)
            self._idle.notify_all()

    def _fail(self, key: Key, error: Exception) -> None:
        with self._mutex:
            before = self._trouble.get(key)
            times = 1 if before is None else before.times + 1
            wait = 1.0 if isinstance(error, Busy) else min(2.0**times, LONGEST_PAUSE)
            self._trouble[key] = Trouble(_line(error), times, self._clock() + wait)
        if not isinstance(error, Busy):
            self._report(f"{key[1]}, {key[0]}", error)

    def _report(self, what: str, error: Exception) -> None:
        log.warning("%s: %s", what, _line(error), exc_info=error)
        self.health.last_error = f"{what}: {_line(error)}"
        self.health.last_error_at = self._clock()

    def settled(self, seconds: float) -> bool:
        """Wait until no work is in progress; return False on timeout."""
        deadline = time.monotonic() + seconds
        with self._idle:
            while self._active:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._idle.wait(left)
            return True

    def under_way(self) -> tuple[dict[Key, Work], dict[Key, Trouble]]:
        """The submissions in progress, and the failed ones that wait for a retry."""
        with self._mutex:
            return dict(self._active), dict(self._trouble)

    @property
    def queue_length(self) -> int:
        """Number of notebooks that wait for a worker."""
        return self._turns.waiting()

    def prepare(self) -> None:
        """Start the engines ahead of the first submission."""
        try:
            for engine in self._engines:
                self.health.sandbox = engine.ready()
        except Exception as error:
            self._report("starting the sandbox", error)


def _claim(attempt: Attempt) -> str:
    """A remark for the instructor if the folder's name claims another student; else empty."""
    if attempt.claimed == attempt.student:
        return ""
    return f"handed in under the name {attempt.claimed}"


def _line(error: BaseException) -> str:
    """An error as one line."""
    text: Any = explained(error) or str(error).strip() or type(error).__name__
    return " ".join(str(text).split())[:500]
