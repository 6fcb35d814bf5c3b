"""The service's state on disk: an answer per attempt, and instructors' requests.

The state is in the course's `.autograder/hub/`.  An answer is written after all the work it reports
is done; attempts without an answer are still to do.  A request is a file that exists until it
is fulfilled.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from autograder.course import Course, check_name
from autograder.errors import UserError
from autograder.locks import Busy, locked

GRADED, REFUSED, SUPERSEDED, DEFERRED = "graded", "refused", "superseded", "deferred"
_SCRATCH = "autograder-"
Request = Literal["regrade", "release"]


@dataclass(frozen=True)
class Answer:
    """The outcome of an attempt; times are in seconds since the epoch.

    Attributes:
        attempt: name of the attempt's folder.
        student: the student's id.
        assignment: name of the assignment.
        kind: graded, refused or superseded (all final), or deferred.
        arrived: time of the attempt.
        answered: time of this answer.
        slot: the time at which the rate limits count a graded attempt.
        until: the time at which a deferred attempt will be graded.
        score: points of a graded attempt.
        max_score: maximum points of a graded attempt.
        reason: why it was not graded, for the student.
        notes: remarks for the instructor.

    """

    attempt: str
    student: str
    assignment: str
    kind: str
    arrived: float
    answered: float = 0.0
    slot: float = 0.0
    until: float = 0.0
    score: float = 0.0
    max_score: float = 0.0
    reason: str = ""
    notes: str = ""

    @property
    def final(self) -> bool:
        """Whether the attempt needs no further work."""
        return self.kind != DEFERRED


class Records:
    """The service's files in a course."""

    def __init__(self, course: Course) -> None:
        self.folder = course.private / "hub"
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._mutex = threading.Lock()
        self._answers: dict[str, Answer] = {}
        self._attempts_of: dict[tuple[str, str], set[str]] = {}
        for answer in self._read():
            self._keep(answer)

    def _read(self) -> Iterator[Answer]:
        for path in (self.folder / "answers").glob("*/*.json"):
            with contextlib.suppress(OSError, ValueError, TypeError):
                yield Answer(**json.loads(path.read_text("utf-8", "surrogateescape")))

    def _keep(self, answer: Answer) -> None:
        with self._mutex:
            self._answers[answer.attempt] = answer
            key = answer.assignment, answer.student
            self._attempts_of.setdefault(key, set()).add(answer.attempt)

    # --- answers ---

    def answer(self, attempt: str) -> Answer | None:
        """The answer to the attempt with this folder name."""
        with self._mutex:
            return self._answers.get(attempt)

    def answers(self, assignment: str, student: str) -> list[Answer]:
        """A student's answers, sorted by the attempts' arrival."""
        with self._mutex:
            names = self._attempts_of.get((assignment, student), ())
            found = [self._answers[name] for name in names]
        return sorted(found, key=lambda answer: (answer.arrived, answer.attempt))

    def students(self) -> set[tuple[str, str]]:
        """(assignment, student) of all answers."""
        with self._mutex:
            return set(self._attempts_of)

    def write(self, answer: Answer) -> None:
        """Store an answer.  Raises OSError if the disk is full; then nothing has changed."""
        name = sha256(answer.attempt.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        folder = self.folder / "answers" / check_name(answer.assignment)
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / f"{name}.json", json.dumps(asdict(answer)).encode())
        self._keep(answer)

    # --- requests ---

    def request(self, request: Request, assignment: str, student: str) -> None:
        """Store an instructor's request."""
        folder = self.folder / request / check_name(assignment)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / check_name(student)).touch()

    def requests(self) -> list[tuple[Request, str, str]]:
        """(request, assignment, student) of all open requests, oldest first."""
        kinds: tuple[Request, ...] = ("regrade", "release")
        found = [
            (path.stat().st_mtime, kind, path.parent.name, path.name)
            for kind in kinds
            for path in (self.folder / kind).glob("*/*")
        ]
        return [(kind, assignment, student) for _, kind, assignment, student in sorted(found)]

    def fulfil(self, request: Request, assignment: str, student: str) -> None:
        """Remove a fulfilled request."""
        (self.folder / request / assignment / student).unlink(missing_ok=True)

    # --- the rest ---

    @property
    def paused(self) -> bool:
        """Whether an instructor has paused grading."""
        return (self.folder / "paused").exists()

    def pause(self, stop: bool) -> None:
        """Pause or resume grading; the state survives a restart."""
        if stop:
            (self.folder / "paused").touch()
        else:
            (self.folder / "paused").unlink(missing_ok=True)

    def staging(self) -> Path:
        """The folder for attempts in progress, emptied."""
        folder = self.folder / "incoming"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


@contextlib.contextmanager
def only_service(course: Course) -> Iterator[None]:
    """Hold the lock that makes this the course's only service.

    Raises UserError if another service holds it.
    """
    folder = course.private / "hub"
    folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / "lock", wait=False))
        except Busy as error:
            raise UserError(f"another autograder service is running in {course.root}") from error
        yield


def own_scratch(course: Course) -> str:
    """Create a folder for temporary files of this process and its children; return its path.

    The folder that a killed service left behind is removed.
    """
    note = course.private / "hub" / "scratch"
    with contextlib.suppress(OSError):
        before = Path(note.read_text("utf-8"))
        if before.name.startswith(_SCRATCH) and before.owner() == Path(note).owner():
            shutil.rmtree(before, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=_SCRATCH)
    os.chmod(folder, 0o711)  # noqa: S103  kernels run under other accounts and pass through it
    note.write_text(folder, "utf-8")
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    return folder


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file atomically and durably: a power cut leaves the old or the new content."""
    half = path.with_name(f".{path.name}.{threading.get_ident()}")
    try:
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
