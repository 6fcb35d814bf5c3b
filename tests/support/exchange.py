"""Courses with an exchange and submitting students, graded by a scripted engine."""

from __future__ import annotations

import base64
import contextlib
import os
import pwd
import secrets
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from nbgrader.utils import notebook_hash

from autograder.course import Course
from autograder.engine.arrival import Release, look, survey
from autograder.engine.checking import points_of
from autograder.engine.grade import Graded, Job
from autograder.engine.notebook import restore
from autograder.engine.pool import Engine
from autograder.engine.results import CellResult, CheckResult, NotebookResult
from autograder.record.gradebook import Gradebook
from autograder.service.reconcile import Reconciler
from autograder.service.settings import Settings
from support.submissions import ASSIGNMENT, NOTEBOOKS, CourseCopy, read_here
from support.waiting import until

FILTERS = NOTEBOOKS[0]
ROOT_USER = os.geteuid() == 0
SELF = pwd.getpwuid(os.geteuid()).pw_name
# Accounts of the system that can own submissions when the tests run as root.
ACCOUNTS = [p.pw_name for p in sorted(pwd.getpwall(), key=lambda p: p.pw_uid) if 0 < p.pw_uid < 40]
RIGHT = "# this is right"


@dataclass
class Scripted(Engine):
    """An engine that runs no code: a notebook gets all points if it contains RIGHT.

    Attributes:
        before: called with each job before it is graded.
        graded: jobs so far, as (folder, notebook).

    """

    course: Course
    before: Callable[[Job], None] = lambda job: None
    graded: list[tuple[Path, str]] = field(default_factory=list)

    def ready(self) -> list[str]:
        return ["a script"]

    def close(self) -> None:
        pass

    def grade(
        self, jobs: Iterable[Job], force: bool = False
    ) -> Generator[tuple[Job, Graded], None, None]:
        for job in jobs:
            self.graded.append((job.submission, job.notebook))
            self.before(job)
            release = nbformat.read(job.release / f"{job.notebook}.ipynb", as_version=4)
            found = look(survey(job.submission), Release(job.release, job.notebook, ()))
            path = found.files.get(f"{job.notebook}.ipynb", f"{job.notebook}.ipynb")
            notebook = restore(read_here(job.submission, path.removesuffix(".ipynb")), release)
            passed = any(RIGHT in cell.source for cell in notebook.cells)
            cells = [
                CellResult(name, points, [CheckResult("test_it", "It is right", passed, "read it")])
                for name, points in points_of(release).items()
            ]
            for cell in cells:
                cell.checks[0].hint = "" if passed else "read it"
            result = NotebookResult(job.notebook, "graded", "", cells, ["a script"])
            yield job, Graded(result, nbformat.writes(notebook))


@dataclass
class Clock:
    """A clock that a test sets; it starts at the current time."""

    now: float

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Classroom:
    """A course of one notebook, with its exchange and its students."""

    copy: CourseCopy
    exchange: Path
    name: str = "deep-learning"

    @classmethod
    def make(cls, folder: Path, template: CourseCopy, name: str = "deep-learning") -> Classroom:
        """Make a course in `folder/<name>`, copied from `template`, with `folder/exchange`."""
        root = folder / name
        shutil.copytree(template.root, root)
        exchange = folder / "exchange"
        for path, mode in ((folder, 0o755), (exchange, 0o777), (exchange / name, 0o755)):
            path.mkdir(exist_ok=True)
            path.chmod(mode)
        (exchange / name / "inbound").mkdir()
        (exchange / name / "inbound").chmod(0o733)
        outbound = exchange / name / "outbound" / ASSIGNMENT
        shutil.copytree(root / "release" / ASSIGNMENT, outbound)
        with (root / "nbgrader_config.py").open("a") as file:
            print(f"c.Exchange.root = {str(exchange)!r}", file=file)
            print(f"c.CourseDirectory.course_id = {name!r}", file=file)
        return cls(CourseCopy(root), exchange, name)

    @property
    def inbound(self) -> Path:
        return self.exchange / self.name / "inbound"

    @property
    def course(self) -> Course:
        return Course.at(self.copy.root)

    def configure(self, **settings: object) -> None:
        """Add settings to the section AutograderService of the course's configuration."""
        with (self.copy.root / "nbgrader_config.py").open("a") as file:
            for name, value in settings.items():
                print(f"c.AutograderService.{name} = {value!r}", file=file)

    @contextlib.contextmanager
    def reconciler(
        self, clock: Callable[[], float] | None = None, engine: Scripted | None = None
    ) -> Iterator[Reconciler]:
        """The reconciler of this course, with a scripted engine."""
        engine = engine or Scripted(self.course)
        gradebook = Gradebook(self.course)
        settings = Settings.of(self.course, gradebook.config)
        more = {} if clock is None else {"clock": clock}
        engines = [engine] * settings.jobs
        with Reconciler(self.course, settings, engines, gradebook, **more) as reconciler:
            yield reconciler

    # --- handing in ---

    def work(self, right: bool = False) -> Path:
        """A folder to submit."""
        folder = self.exchange.parent / f"work-{secrets.token_hex(4)}"
        shutil.copytree(self.copy.root / "release" / ASSIGNMENT, folder)
        if right:
            path = folder / f"{FILTERS}.ipynb"
            notebook = nbformat.read(path, as_version=4)
            notebook.cells.append(nbformat.v4.new_code_cell(RIGHT))
            nbformat.write(notebook, path)
        return folder

    def hand_in(
        self,
        student: str = SELF,
        folder: Path | None = None,
        claimed: str = "",
        finished: bool = True,
        right: bool = False,
    ) -> Attempted:
        """Put a folder into the exchange as `nbgrader submit` would, owned by `student`."""
        work = folder or self.work(right)
        when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")
        random = base64.urlsafe_b64encode(os.urandom(9)).decode()
        place = self.inbound / f"{claimed or student}+{ASSIGNMENT}+{when}+{random}"
        shutil.copytree(work, place, symlinks=True)
        secret = secrets.token_hex(64)
        (place / "timestamp.txt").write_text(when)
        (place / "submission_secret.txt").write_text(secret)
        if student != SELF:
            account = pwd.getpwnam(student)
            for path in (place, *place.rglob("*")):
                os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
        if finished:
            place.chmod(0o777)
        return Attempted(self, place, secret)

    def submit(self, home: Path, *prefix: str) -> subprocess.CompletedProcess[str]:
        """Run `nbgrader submit` in a folder that holds the assignment."""
        return self.nbgrader(home, "submit", ASSIGNMENT, prefix=prefix)

    def nbgrader(
        self, home: Path, *command: str, prefix: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run one of nbgrader's commands for students."""
        where = [f"--course={self.name}", f"--Exchange.root={self.exchange}"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")}
        return subprocess.run(
            [*prefix, sys.executable, "-m", "nbgrader", *command, *where],
            cwd=home,
            env={**environment, "HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    # --- the outcome ---

    def submissions(self) -> dict[str, float]:
        """Student → score, from the gradebook."""
        return Gradebook(self.course).scores(ASSIGNMENT)

    def rows(self) -> int:
        """Number of submissions in the gradebook."""
        with contextlib.closing(sqlite3.connect(self.copy.root / "gradebook.db")) as database:
            ((count,),) = database.execute("select count(*) from submitted_assignment").fetchall()
            return int(count)

    def pages(self) -> list[Path]:
        """Pages in the exchange."""
        return sorted((self.exchange / self.name / "feedback").glob("*"))


@dataclass(frozen=True)
class Attempted:
    """A submission in the exchange."""

    classroom: Classroom
    folder: Path
    secret: str

    def page(self, notebook: str = FILTERS) -> str:
        """The page that the student's Assignment List shows for a notebook; empty without one."""
        digest = notebook_hash(secret=self.secret, notebook_id=notebook)
        path = self.classroom.exchange / self.classroom.name / "feedback" / f"{digest}.html"
        return path.read_text("utf-8") if path.exists() else ""

    @property
    def graded(self) -> bool:
        """Whether the page is nbgrader's feedback."""
        return 'id="toc"' in self.page()


def template(root: Path) -> CourseCopy:
    """A course with only the first notebook, known to its gradebook."""
    course = CourseCopy.make(root)
    course.keep_first_notebook()
    return course


def wait_for_work(reconciler: Reconciler, seconds: float) -> None:
    """Wait until no submission is in progress."""
    until(lambda: not reconciler.under_way()[0], "all work is done", seconds, pause=0.01)


def settle(reconciler: Reconciler, seconds: float = 60.0) -> None:
    """Look at the exchange and wait for all work, until nothing is left to do."""
    for _ in range(20):
        reconciler.look()
        wait_for_work(reconciler, seconds)
        if not reconciler.records.requests():
            break
