"""Grades one notebook of one submission: a pure function of files, checks and environment."""

from __future__ import annotations

import fnmatch
import functools
import gc
import hmac
import importlib.metadata
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder.checks import Setup
from autograder.course import Checks, checks_for
from autograder.engine.checking import Checking, points_of, run_checks, seeded
from autograder.engine.files import read_regular, remove
from autograder.engine.notebook import (
    SIZE_LIMIT,
    grade_id,
    read_submitted,
    restore,
    solved,
    written,
)
from autograder.engine.repair import Again, repaired
from autograder.engine.results import CellResult, NotebookResult
from autograder.engine.run import WHOLE, NotebookRun
from autograder.engine.sandbox import Sandbox
from autograder.engine.submission import CHECKPOINT_LIMIT, SubmittedFiles, handed_in
from autograder.errors import CannotGrade, GraderFault, printable

_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Job:
    """One notebook to grade.

    submission, release, source: folders (`source` may be missing: then nothing is repaired);
    secret: the course's, or the submission's own once `key` is known (see `keyed`); sandbox:
    where its kernel runs.
    """

    assignment: str
    notebook: str
    submission: Path
    release: Path
    source: Path
    secret: bytes
    key: str = ""
    sandbox: Sandbox | None = None


@dataclass
class Graded:
    """A notebook's result, the executed notebook (JSON text), and a log for the instructor.

    cells_seconds: what the student's cells took.
    """

    result: NotebookResult
    executed: str
    log: str = ""
    cells_seconds: float = 0.0

    def to_record(self) -> dict[str, Any]:
        """As plain data, for the cache."""
        return {**vars(self), "result": self.result.to_record()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Graded:
        """The inverse of `to_record`."""
        return cls(**{**record, "result": NotebookResult.from_record(record["result"])})


def content_key(job: Job) -> str:
    """The digest of the notebook and of the other files handed in with it.

    Other notebooks of the submission do not count.  What cannot be read counts by its name and
    its reason.
    """
    digest = sha256()
    try:
        names = [f.path for f in handed_in(job.submission) if _counts(f.path, job)]
    except CannotGrade as error:
        names = []
        digest.update(str(error).encode())
    for name in sorted({f"{job.notebook}.ipynb", *names}):
        digest.update(f"\0{name}\0".encode("utf-8", "surrogateescape"))
        limit = SIZE_LIMIT if name.endswith(".ipynb") else CHECKPOINT_LIMIT
        try:
            digest.update(_file_digest(job.submission, name, limit))
        except CannotGrade as error:
            digest.update(f"\0{error}".encode("utf-8", "surrogateescape"))
        except OSError as error:  # its text may hold a path, which must not count
            digest.update(f"\0{type(error).__name__}".encode())
    return digest.hexdigest()


def keyed(job: Job) -> Job:
    """The job with its `content_key`, and with a secret that is good for this content alone."""
    key = content_key(job)
    own = hmac.new(job.secret, key.encode(), "sha256").digest()
    return replace(job, key=key, secret=own)


def _file_digest(folder: Path, name: str, limit: int) -> bytes:
    """The digest of a submitted file; a large one is read once while it does not change."""
    status = os.lstat(folder / name)
    version = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
    return _digest_of_version(folder, name, limit, version)


@functools.lru_cache(maxsize=4096)
def _digest_of_version(folder: Path, name: str, limit: int, version: tuple[int, ...]) -> bytes:
    return sha256(read_regular(folder, name, limit)).digest()


def _counts(path: str, job: Job) -> bool:
    added = ("timestamp.txt", "submission_secret.txt", "results.json")  # not by the student
    return not path.endswith(".ipynb") and path not in added


def cache_key(job: Job) -> str:
    """What the result depends on: content, course, checks, engine, versions and secret."""
    digest = sha256(f"{content_key(job)} {versions(job)}".encode())
    digest.update(job.secret)
    beside = [p for p in job.release.iterdir() if p.is_file() and p.suffix != ".ipynb"]
    for path in [*sorted(beside), job.release / f"{job.notebook}.ipynb"]:
        digest.update(sha256(path.read_bytes()).digest())
    digest.update(repr(sorted(_reference(job).items())).encode())
    return digest.hexdigest()


def _reference(job: Job) -> dict[str, str]:
    """The course's own source of each solution cell; empty where there is no `source/`."""
    try:
        text = (job.source / f"{job.notebook}.ipynb").read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    return written(solved(nbformat.reads(text, as_version=4)))


def versions(job: Job) -> str:
    """The digest of the checks of a notebook, of the engine, and of the packages beneath."""
    checks = checks_for(job.assignment, job.notebook)
    digest = sha256()
    shared = [p for p in checks.module.parent.glob("*.py") if not p.name.startswith("test_")]
    for folder in ("engine", "kernel", "checks"):
        shared += (_PACKAGE / folder).glob("*.py")
    for path in [checks.module, *sorted({*shared, _PACKAGE / "wire.py"})]:
        digest.update(path.name.encode() + sha256(path.read_bytes()).digest())
    for package in ("tensorflow", "numpy", "ipykernel", "matplotlib"):
        digest.update(importlib.metadata.version(package).encode())
    return digest.hexdigest()


def grade_notebook(job: Job) -> Graded:
    """Run the notebook, check it, and say what it is worth.

    Raises UserError when this course or machine cannot grade, WarmLost when the warm interpreter
    ended meanwhile; whatever the submission does ends in a result.
    """
    try:
        return _grade(job)
    finally:
        # pytest leaves its items in circles, and with them what they hold of checkpoints.
        gc.collect()
        # Without it every answer looks like the student's fault.
        if job.sandbox is not None:
            job.sandbox.see_that_it_lives()


def _grade(job: Job) -> Graded:
    released = (job.release / f"{job.notebook}.ipynb").read_text(encoding="utf-8")
    release: NotebookNode = nbformat.reads(released, as_version=4)
    checks = checks_for(job.assignment, job.notebook)
    try:
        submitted = read_submitted(job.submission, job.notebook)
        notebook = restore(submitted, release)
    except FileNotFoundError:
        return _nothing(job, release, "missing", "this notebook was not handed in")
    except CannotGrade as error:
        return _nothing(job, release, "failed", str(error))
    job = job if job.key else keyed(job)
    assert job.sandbox is not None
    grading = _Grading(job, checks, release, SubmittedFiles(job.submission, job.sandbox))
    try:
        cells, run, log = grading.first(notebook)
    except CannotGrade as error:
        return _nothing(job, release, "failed", str(error))
    layers, tensors = job.sandbox.layers, sorted(grading.submission.digests)
    result = NotebookResult(job.notebook, "graded", "; ".join(run.notes), cells, layers, tensors)
    return Graded(result, nbformat.writes(notebook), log, run.cells_seconds)


@dataclass
class _Grading:
    """What the runs of one notebook have in common."""

    job: Job
    checks: Checks
    release: NotebookNode
    submission: SubmittedFiles
    started: float = field(default_factory=time.monotonic)

    def first(self, notebook: NotebookNode) -> tuple[list[CellResult], NotebookRun, str]:
        """The results of all grade cells, the run that they are of, and a log.

        Raises CannotGrade when the submission's files cannot be put in place.
        """
        cells, run, log = self._run(notebook)
        if not run.stopped:
            again, reference = self._again(notebook), _reference(self.job)
            cells = repaired(cells, notebook, self.release, reference, again, self._may_go_on)
        return cells, run, log

    def _may_go_on(self) -> bool:
        """Whether another run may start: all together take little longer than one may."""
        return time.monotonic() - self.started < WHOLE * self.checks.setup.seconds

    def _again(self, notebook: NotebookNode) -> Again:
        def again(sources: Mapping[str, str], cells: list[str]) -> list[CellResult]:
            other = nbformat.from_dict(notebook)
            for cell in other.cells:
                cell.source = sources.get(str(grade_id(cell)), cell.source)
            return self._run(other, cells)[0]

        return again

    def _run(
        self, notebook: NotebookNode, only: Collection[str] | None = None
    ) -> tuple[list[CellResult], NotebookRun, str]:
        """Run the notebook and check it; with `only` these grade cells, and show nothing."""
        job, setup = self.job, self.checks.setup
        assert job.sandbox is not None
        scratch = Path(tempfile.mkdtemp(prefix="kit-work-", dir=job.sandbox.folder))
        try:
            _prepare(scratch, job, setup)
            with NotebookRun(
                notebook,
                scratch,
                sandbox=job.sandbox,
                environment=dict(setup.environment),
                seconds=setup.seconds,
            ) as run:
                plugin = Checking(
                    run,
                    self.submission,
                    SubmittedFiles(scratch, job.sandbox, absent="not written"),
                    job.release,
                    points_of(self.release),
                    job.secret,
                    job.key,
                    setup,
                    only,
                    silent=only is not None,
                )
                cells, report = run_checks(self.checks.module, plugin)
                if only is None:
                    run.finish()
                return cells, run, "\n".join([report, run.log()])
        finally:
            remove(scratch)


def cannot_grade(job: Job, reason: str) -> Graded:
    """The definite answer for a submission that is none."""
    release = nbformat.read(job.release / f"{job.notebook}.ipynb", as_version=4)
    return _nothing(job, release, "failed", reason)


def _nothing(job: Job, release: NotebookNode, status: Any, reason: str) -> Graded:
    cells = [CellResult(cell, points) for cell, points in points_of(release).items()]
    return Graded(
        NotebookResult(job.notebook, status, printable(reason), cells), nbformat.writes(release)
    )


def _prepare(scratch: Path, job: Job, setup: Setup) -> None:
    """Fill the scratch folder: wanted submitted files, then the release's own, then `prepare`."""
    given = [p for p in job.release.iterdir() if p.is_file() and p.suffix != ".ipynb"]
    names = {path.name for path in given}
    for found in handed_in(job.submission):
        wanted = any(fnmatch.fnmatch(found.path, pattern) for pattern in setup.files)
        if not wanted or found.path.startswith(".") or Path(found.path).parts[0] in names:
            continue
        try:
            data = read_regular(job.submission, found.path, CHECKPOINT_LIMIT)
        except (CannotGrade, FileNotFoundError):
            continue  # left behind, as what is no regular file
        target = scratch / found.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    for path in given:
        shutil.copyfile(path, scratch / path.name)
    if setup.prepare is not None:
        setup.prepare(scratch, seeded(job.secret, job.key, "prepare"))


def failure(job: Job, error: BaseException) -> Graded:
    """The definite answer when grading itself broke; the trace goes to the log."""
    said = str(error) if isinstance(error, GraderFault) else type(error).__name__
    graded = cannot_grade(job, f"the grader stopped while grading it ({said}); grade it again")
    graded.log = "".join(traceback.format_exception(error))
    return graded
