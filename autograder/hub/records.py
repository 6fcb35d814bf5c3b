"""What the service remembers on disk: an answer per attempt, and what an instructor wishes.

All of it is in `.autograder/hub/` of the course.  An answer is written when everything it says has
been done; whatever has none is still to do.  A wish is a file that is there until it is fulfilled.
"""

from __future__ import annotations

import contextlib
import fcntl
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

GRADED, REFUSED, SUPERSEDED, DEFERRED = "graded", "refused", "superseded", "deferred"
_SCRATCH = "autograder-"
Wish = Literal["regrade", "release"]


@dataclass(frozen=True)
class Answer:
    """What became of an attempt.

    kind: graded, refused or superseded (final), or deferred; arrived, answered: times in seconds;
    slot: when it took its place in the limits; until: of a deferred attempt, when it is graded;
    reason: in words for the student; notes: in words for the instructor.
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
        """Whether nothing is left to do for the attempt."""
        return self.kind != DEFERRED


class Records:
    """The service's files in a course, and the lock that makes it the only service there."""

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
        """The answer to the attempt in the folder of this name."""
        with self._mutex:
            return self._answers.get(attempt)

    def answers(self, assignment: str, student: str) -> list[Answer]:
        """A student's answers, in the order in which the attempts arrived."""
        with self._mutex:
            names = self._attempts_of.get((assignment, student), ())
            found = [self._answers[name] for name in names]
        return sorted(found, key=lambda answer: (answer.arrived, answer.attempt))

    def students(self) -> set[tuple[str, str]]:
        """(assignment, student) of everybody who was given an answer."""
        with self._mutex:
            return set(self._attempts_of)

    def write(self, answer: Answer) -> None:
        """Keep an answer.  Raises OSError when there is no room; then nothing has changed."""
        name = sha256(answer.attempt.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        folder = self.folder / "answers" / check_name(answer.assignment)
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / f"{name}.json", json.dumps(asdict(answer)).encode())
        self._keep(answer)

    # --- wishes ---

    def wish(self, wish: Wish, assignment: str, student: str) -> None:
        """Note that an instructor wants this done."""
        folder = self.folder / wish / check_name(assignment)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / check_name(student)).touch()

    def wishes(self) -> list[tuple[Wish, str, str]]:
        """(wish, assignment, student) of everything that is wanted, the oldest first."""
        kinds: tuple[Wish, ...] = ("regrade", "release")
        found = [
            (path.stat().st_mtime, kind, path.parent.name, path.name)
            for kind in kinds
            for path in (self.folder / kind).glob("*/*")
        ]
        return [(kind, assignment, student) for _, kind, assignment, student in sorted(found)]

    def fulfil(self, wish: Wish, assignment: str, student: str) -> None:
        """The wish is granted."""
        (self.folder / wish / assignment / student).unlink(missing_ok=True)

    # --- the rest ---

    @property
    def paused(self) -> bool:
        """Whether an instructor has stopped the service from grading."""
        return (self.folder / "paused").exists()

    def pause(self, stop: bool) -> None:
        """Stop, or go on; it holds over a restart."""
        if stop:
            (self.folder / "paused").touch()
        else:
            (self.folder / "paused").unlink(missing_ok=True)

    def staging(self) -> Path:
        """A folder for attempts that are being graded, emptied."""
        folder = self.folder / "incoming"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


@contextlib.contextmanager
def only_service(course: Course) -> Iterator[None]:
    """Be the only service of a course.  Raises UserError when there is another."""
    folder = course.private / "hub"
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UserError(f"another autograder service is running in {course.root}") from error
    finally:
        os.close(descriptor)


def own_scratch(course: Course) -> str:
    """Let temporary files of this process and its children lie in a new folder, and name it.

    What a service that was killed has left in its own is removed.
    """
    note = course.private / "hub" / "scratch"
    with contextlib.suppress(OSError):
        before = Path(note.read_text("utf-8"))
        if before.name.startswith(_SCRATCH) and before.owner() == Path(note).owner():
            shutil.rmtree(before, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=_SCRATCH)
    os.chmod(folder, 0o711)  # noqa: S103  kernels run under other accounts, and pass through
    note.write_text(folder, "utf-8")
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    return folder


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file whole, or not at all, so that it survives a power cut."""
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
