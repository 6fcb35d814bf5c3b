"""Brings gradebook and feedback in line with the exchange.

There is no queue on disk: each look derives the remaining work from the exchange and from the
answers given so far (`records`).  The answer is written last, so an interruption (a kill, a power
cut, a full disk, a locked database) leaves the attempt without an answer, and it is done again.
That is safe: results are cached by content, and recording and releasing are idempotent.
"""

from __future__ import annotations

import logging
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from autograder.course import Course
from autograder.engine.pool import Engine
from autograder.locks import Busy
from autograder.record.gradebook import Gradebook
from autograder.record.locks import only_writer
from autograder.service import inbound, notices
from autograder.service.decide import Decision, counting, decide
from autograder.service.fair_queue import FairQueue
from autograder.service.inbound import Attempt
from autograder.service.publish import Publisher
from autograder.service.records import (
    DEFERRED,
    GRADED,
    REFUSED,
    SUPERSEDED,
    Answer,
    Records,
    Request,
)
from autograder.service.roster import Roster
from autograder.service.settings import Settings
from autograder.service.work import Key, Progress, Trouble, Work, in_one_line

log = logging.getLogger("autograder.service")

KINDS = {"refuse": REFUSED, "supersede": SUPERSEDED, "defer": DEFERRED}


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
        self._clock = clock
        self._publisher = Publisher(course, settings, gradebook, self.roster)
        self._staging = self.records.staging()
        self._progress = Progress(self._staging, clock, self._report_failure)
        self._queue: FairQueue[tuple[Work, str]] = FairQueue(len(engines))
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
        self._queue.close()
        self._finished.put(None)

    # --- looking ---

    def look(self) -> None:
        """Look at the exchange once: answer attempts that need no grading, start the others."""
        try:
            found = self._find()
            for key, attempts in found.items():
                self._look_at(key, attempts)
            if not self.records.paused:
                for request, assignment, student in self.records.requests():
                    self._grant(request, assignment, student)
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
                seen = inbound.survey_attempt(
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
        self.attempts = found
        newest = {key: max(a.arrived for a in attempts) for key, attempts in found.items()}
        return {key: found[key] for key in sorted(found, key=newest.__getitem__)}

    def assignments(self) -> list[str]:
        """Names of the released assignments."""
        folder = self.course.root / "release"
        return sorted(path.name for path in folder.glob("[!.]*") if any(path.glob("*.ipynb")))

    def _look_at(self, key: Key, attempts: list[Attempt]) -> None:
        if self._progress.must_wait(key):
            return
        now = self._clock()
        answers = self.records.answers(*key)
        try:
            for decision in decide(attempts, answers, self.settings, now):
                if decision.kind != "grade":
                    self._answer(decision, now)
                elif not self.records.paused:
                    self._begin(decision)
                    return
        except Exception as error:
            self._progress.fail(key, error)

    def _answer(self, decision: Decision, now: float) -> None:
        """Tell a student that an attempt is refused, superseded or deferred."""
        attempt = decision.attempt
        title = self._publisher.tell(decision)
        self.records.write(
            Answer(
                attempt=attempt.name,
                student=attempt.student,
                assignment=attempt.assignment,
                kind=KINDS[decision.kind],
                arrived=attempt.arrived,
                answered=now,
                until=decision.when,
                reason=decision.reason,
                notes=_claim(attempt),
            )
        )
        log.info("%s, %s: %s", attempt.student, attempt.assignment, title.lower())

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
            (folder / inbound.STAMP).write_text(notices.timestamp(attempt.arrived) + "\n", "utf-8")
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

    def _grant(self, request: Request, assignment: str, student: str) -> None:
        """Start an instructor's request, unless the submission is in progress."""
        if self._progress.must_wait((assignment, student)):
            return
        folder = self.course.submitted(student, assignment)
        if not folder.is_dir():
            self.records.fulfil(request, assignment, student)  # the submission is gone
            return
        names = self.course.notebooks(assignment) if request == "regrade" else []
        self._start(Work(assignment, student, folder, names, request=request))

    def _start(self, work: Work) -> None:
        again = self._progress.start(work)
        if work.notebooks:
            items = [(work, name) for name in work.notebooks]
            self._queue.put(work.student, items, first=again)  # it has waited its turn before
        else:
            self._finished.put(work)

    # --- computing ---

    def _compute(self, engine: Engine) -> None:
        while (taken := self._queue.take()) is not None:
            student, (work, name) = taken
            try:
                if self._progress.enter(work):
                    self._grade(engine, work, name)
            except Exception as error:
                self._progress.drop(work, error)
            finally:
                self._progress.leave(work)
                self._queue.done(student)

    def _grade(self, engine: Engine, work: Work, name: str) -> None:
        job = replace(
            engine.job(work.student, work.assignment, name), submission=work.folder, only=()
        )
        for _, graded in engine.grade([job], force=work.request == "regrade"):
            if self._progress.add_result(work, name, graded):
                self._finished.put(work)

    # --- recording ---

    def _record_all(self) -> None:
        while (work := self._finished.get()) is not None:
            try:
                work.stage = "recording"
                with only_writer(self.course, work.student, work.assignment, wait=False):
                    self._record(work)
            except Exception as error:
                self._progress.drop(work, error)
            else:
                self._progress.finish(work)

    def _record(self, work: Work) -> None:
        """Record one submission in the gradebook and publish its feedback."""
        answers = self.records.answers(*work.key)
        standing = counting(answers, self.settings.counts)
        if work.request == "release":
            self._publisher.release(work)
        elif work.attempt is None:
            self._publisher.record(work)
            if standing is not None:
                score, max_score = work.result.score, work.result.max_score
                self.records.write(replace(standing, score=score, max_score=max_score))
        else:
            answer = self._graded(work, work.attempt)
            counts = counting([*answers, answer], self.settings.counts)
            if standing is None or counts == answer:
                self._install(work)
                self._publisher.record(work)
            else:
                self._publisher.publish_aside(work, work.attempt, standing)
            self.records.write(answer)
            log.info("%s, %s: %g points", work.student, work.assignment, answer.score)
        if work.request is not None:
            self.records.fulfil(work.request, work.assignment, work.student)

    def _graded(self, work: Work, attempt: Attempt) -> Answer:
        result = work.result
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

    # --- progress and failures ---

    def _report_failure(self, key: Key, error: Exception) -> None:
        if not isinstance(error, Busy):
            self._report(f"{key[1]}, {key[0]}", error)

    def _report(self, what: str, error: Exception) -> None:
        log.warning("%s: %s", what, in_one_line(error), exc_info=error)
        self.health.last_error = f"{what}: {in_one_line(error)}"
        self.health.last_error_at = self._clock()

    def under_way(self) -> tuple[dict[Key, Work], dict[Key, Trouble]]:
        """The submissions in progress, and the failed ones that wait for another try."""
        return self._progress.now()

    @property
    def queue_length(self) -> int:
        """Number of notebooks that wait for a worker."""
        return self._queue.waiting()

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
