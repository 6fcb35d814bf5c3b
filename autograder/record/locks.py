"""A lock per submission, so that only one process writes it at a time.

The command line, formgrader and the Hub service all convert notebooks with the classes in
`autograde` and `feedback`, which hold this lock meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbgrader.converters import BaseConverter
from nbgrader.converters.base import NbGraderException

from autograder.course import Course, check_name
from autograder.locks import Busy, locked

_held = threading.local()


@contextlib.contextmanager
def only_writer(course: Course, student: str, assignment: str, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a submission; a thread may take it again while it holds it.

    Without `wait`, raises Busy if another thread or process holds the lock.
    """
    path = course.private / "locks" / check_name(assignment) / check_name(student)
    mine: set[Path] = _held.__dict__.setdefault("paths", set())
    if path in mine:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(path, wait=wait))
        except Busy as error:
            raise Busy(f"another process is working on {student}, {assignment}") from error
        mine.add(path)
        stack.callback(mine.discard, path)
        yield


class OneWriter(BaseConverter):  # type: ignore[misc]
    """An nbgrader converter that holds the lock of each submission while it converts it."""

    assignments: Any

    def convert_notebooks(self) -> None:
        """Convert one submission after the other; a failure does not stop the rest."""
        course = Course.at(Path(self.coursedir.root))
        everything: dict[str, Any] = dict(self.assignments)
        failed: NbGraderException | None = None
        for folder, notebooks in sorted(everything.items()):
            # …/<student>/<assignment>
            student, assignment = Path(folder).absolute().parts[-2:]
            self.assignments = {folder: notebooks}
            with only_writer(course, student, assignment):
                try:
                    super().convert_notebooks()
                except NbGraderException as error:
                    failed = error
        self.assignments = everything
        if failed is not None:
            raise failed
