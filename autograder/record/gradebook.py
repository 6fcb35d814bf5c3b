"""Runs nbgrader's commands from Python with the course's configuration."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from nbgrader.api import Gradebook as Database
from nbgrader.api import MissingEntry
from nbgrader.apps import NbGraderAPI
from nbgrader.apps.baseapp import NbGrader
from nbgrader.coursedir import CourseDirectory
from nbgrader.utils import capture_log, temp_attrs
from traitlets import TraitError
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from autograder.course import Course
from autograder.engine.grade import Graded
from autograder.errors import UserError, printable
from autograder.machine import explained
from autograder.record.autograde import DefiniteAutograde


@contextlib.contextmanager
def _inside(root: Path) -> Iterator[None]:
    before, path = Path.cwd(), os.environ.get("PATH", os.defpath)
    os.chdir(root)
    # nbgrader runs alembic from PATH when it creates a gradebook.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"
    try:
        yield
    finally:
        os.chdir(before)
        os.environ["PATH"] = path


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Defer Ctrl-C until nbgrader is done; nbgrader would report it as its own failure."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came and callable(before):
        before(*came[0])


_OTHER_CELLS = (
    "source/ has other grade or solution cells than the submissions in the gradebook; give it its "
    "old cells back, or move gradebook.db away and grade everyone into a new one, which begins "
    "without the points given by hand"
)


def configuration(course: Course) -> Config:
    """The configuration that nbgrader's commands see in the course root.

    Authentication is off: the course root belongs to the grader, and nbgrader's JupyterHub plugin
    works only inside a user's server.
    """
    app = NbGrader(log_level=logging.ERROR)
    app.load_cwd_config = False
    app.load_config_file()  # the settings of the machine and of this account
    config: Config = app.config.copy()
    try:
        with _inside(course.root):
            config.merge(PyFileConfigLoader("nbgrader_config.py", str(course.root)).load_config())
    except Exception as error:  # the file is a program, and may raise anything
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(
            f"{course.root}/nbgrader_config.py{line} stops with {type(error).__name__}: "
            f"{printable(getattr(error, 'msg', error))}; mend it"
        ) from error
    own = {
        "CourseDirectory": {"root": str(course.root)},
        "Authenticator": {"plugin_class": "nbgrader.auth.NoAuthPlugin"},
    }
    config.merge(Config(own))
    return config


class Gradebook:
    """The course's gradebook and the nbgrader commands that write it."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.config = config = configuration(course)
        try:
            self._coursedir = CourseDirectory(config=config)
            with _inside(course.root):
                self._api = NbGraderAPI(self._coursedir, config=config)
        except TraitError as error:
            raise UserError(f"{course.root}/nbgrader_config.py: {printable(error)}") from error
        self._see_that_it_is_whole()
        self._api.log.setLevel(logging.ERROR)

    def _see_that_it_is_whole(self) -> None:
        """Raise UserError for a damaged gradebook, before any command changes it."""
        kind, _, name = str(self._coursedir.db_url).partition(":///")
        path = self.course.root / name
        if kind != "sqlite" or not path.exists():
            return
        if not path.is_file():
            raise UserError(explained(IsADirectoryError(errno.EISDIR, "", str(path))))
        try:
            with contextlib.closing(sqlite3.connect(path.as_uri() + "?mode=ro", uri=True)) as file:
                found = file.execute("pragma quick_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            found = str(error)
        if found != "ok":
            why = explained(f"(sqlite3.Error) {found}") or explained("(sqlite3.Error) malformed")
            raise UserError(why.replace("gradebook.db", str(path), 1))

    def version(self) -> object:
        """A value that changes with the gradebook; without SQLite it changes every five seconds."""
        kind, _, name = str(self._coursedir.db_url).partition(":///")
        try:
            status = (self.course.root / name).stat() if kind == "sqlite" else None
        except FileNotFoundError:
            return None
        return (status.st_mtime_ns, status.st_size) if status else int(time.monotonic() / 5)

    def generate_release(self, assignment: str) -> None:
        """Run `nbgrader generate_assignment --force`.

        Raises UserError if it fails; the previous release is then kept.
        """
        release = self.course.release(assignment)
        with tempfile.TemporaryDirectory(prefix="kit-release-") as folder:
            before = Path(folder) / assignment
            if release.is_dir():
                shutil.copytree(release, before)
            try:
                self._run("generate_assignment", assignment, force=True, create=True)
            except UserError:
                if before.is_dir() and not release.exists():  # nbgrader deletes it on failure
                    shutil.copytree(before, release)
                raise

    def record(self, assignment: str, student: str, graded: Mapping[str, Graded]) -> None:
        """Record the results of a submission, by notebook, as `nbgrader autograde --force` does.

        Raises UserError if that fails.
        """

        def run() -> dict[str, Any]:
            with temp_attrs(self._coursedir, assignment_id=assignment, student_id=student):
                converter = DefiniteAutograde(self._coursedir, graded, parent=self._api)
                converter.force = converter.create_student = True
                outcome: dict[str, Any] = capture_log(converter)
            return outcome

        self._watch("autograde", (assignment, student), run)

    def generate_feedback(self, assignment: str, student: str) -> None:
        """Run `nbgrader generate_feedback --force` for one student; may raise UserError."""
        self._run("generate_feedback", assignment, student, force=True)

    def release_feedback(self, assignment: str, student: str) -> None:
        """Run `nbgrader release_feedback` for one student.  Raises UserError if it fails."""
        self._run("release_feedback", assignment, student)

    @contextlib.contextmanager
    def database(self) -> Iterator[Any]:
        """Open nbgrader's gradebook object; it is closed at the end of the block."""
        with (
            _inside(self.course.root),
            Database(self._coursedir.db_url, self._coursedir.course_id) as database,
        ):
            yield database

    def _run(self, command: str, *args: str, **kwargs: Any) -> None:
        self._watch(command, args, lambda: getattr(self._api, command)(*args, **kwargs))

    def _watch(self, command: str, args: Sequence[str], run: Callable[[], dict[str, Any]]) -> None:
        with (
            _undisturbed(),
            _inside(self.course.root),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            outcome = run()
        if not outcome["success"]:
            texts = [outcome[name] for name in ("error", "log") if outcome.get(name)]
            lines = [line for line in "".join(texts[:1]).splitlines() if line.strip()]
            why = next(filter(None, map(explained, texts)), "") or _last(lines)
            if any("Cannot add or remove cells" in text for text in texts):
                why = _OTHER_CELLS
            raise UserError(f"nbgrader {command} {' '.join(args)}: {why}")

    def scores(self, assignment: str) -> dict[str, float]:
        """Recorded scores by student id, as formgrader shows them.

        Raises UserError if the gradebook does not know the assignment.
        """
        with _inside(self.course.root), self._api.gradebook as gradebook:
            try:
                found = gradebook.find_assignment(assignment)
            except MissingEntry as error:
                self.course.known(assignment)
                raise UserError(
                    f"the gradebook does not know {assignment} yet; "
                    f"run `nbgrader generate_assignment {assignment} --force` first"
                ) from error
            return {s.student.id: float(s.score) for s in found.submissions}


def _last(lines: list[str]) -> str:
    errors = [line for line in lines if "Error" in line or "rror:" in line or "[E" in line]
    return (errors or lines or ["no reason given"])[-1].strip()
