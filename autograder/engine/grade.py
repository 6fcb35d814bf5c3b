"""Grades one notebook of one submission: a pure function of files, checks and environment."""

from __future__ import annotations

import functools
import gc
import hmac
import importlib.machinery
import importlib.metadata
import os
import shutil
import stat
import tempfile
import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder.checks import Setup
from autograder.course import Checks, checks_for
from autograder.engine.arrival import (
    Laid,
    Release,
    archives,
    laid_out,
    look,
    needs_archives,
    survey,
)
from autograder.engine.checking import Checking, points_of, run_checks
from autograder.engine.code import code_digest
from autograder.engine.faults import advice, in_words
from autograder.engine.files import read_regular, remove
from autograder.engine.finding import Finding, listed
from autograder.engine.fixtures import seeded
from autograder.engine.matching import recognise
from autograder.engine.notebook import (
    changed,
    checked_too_early,
    grade_id,
    in_order,
    restore,
    runs_alike,
    solved,
    written,
)
from autograder.engine.reading import SIZE_LIMIT, read_submitted
from autograder.engine.repair import Again, in_own_order, repaired
from autograder.engine.results import CellResult, NotebookResult, Status
from autograder.engine.run import WHOLE, NotebookRun
from autograder.engine.sandbox import Sandbox
from autograder.engine.submission import CHECKPOINT_LIMIT, SubmittedFiles, beside, needed
from autograder.errors import CannotGrade, printable, printable_lines

# Entry points of a grading, in the grader and in the warm interpreter.
_ENGINE = ("autograder.engine.grade", "autograder.kernel.warm")


@dataclass(frozen=True)
class Job:
    """One notebook to grade.

    Attributes:
        assignment: the name of the assignment.
        notebook: the name of the notebook.
        submission: the folder of the submission.
        release: the folder of the release.
        source: the folder of the course's solution; if it is missing, nothing is repaired.
        secret: the course's secret, or the submission's own once `key` is known (see `keyed`).
        key: the submission's content key; "" until `keyed` sets it.
        sandbox: where its kernel runs.
        only: names in `submission` that belong to it; empty for all.
        found: what was found in the submission before it travelled to a worker.
        modified: when its notebook was last written, in nanoseconds; set if it travelled.

    """

    assignment: str
    notebook: str
    submission: Path
    release: Path
    source: Path
    secret: bytes
    key: str = ""
    sandbox: Sandbox | None = None
    only: tuple[str, ...] = ()
    found: Finding | None = None
    modified: int = 0

    @property
    def wanted(self) -> Release:
        """What to look for in the submission."""
        setup = checks_for(self.assignment, self.notebook).setup
        return Release(self.release, self.notebook, (*setup.files, *setup.read))


@dataclass
class Graded:
    """What grading a notebook yields.

    Attributes:
        result: the notebook's result.
        executed: the executed notebook, as JSON text.
        log: for the instructor.
        cells_seconds: wall time that the student's cells took.

    """

    result: NotebookResult
    executed: str
    log: str = ""
    cells_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.log = printable_lines(self.log)  # pytest's report quotes what a kernel answered

    def to_record(self) -> dict[str, Any]:
        """As plain data, for the cache."""
        return {**vars(self), "result": self.result.to_record()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Graded:
        """The inverse of `to_record`."""
        return cls(**{**record, "result": NotebookResult.from_record(record["result"])})


def content_key(job: Job) -> str:
    """The digest of the notebook and of the submitted files that its kernel or its checks get.

    Each file counts by where it belongs and by its content; an unreadable one by the reason.
    """
    digest = sha256()
    wanted: dict[str, str] = {}
    try:
        arrived = survey(job.submission, job.only)
        found = look(arrived, job.wanted)
        wanted |= found.files
        if needs_archives(arrived, found):
            wanted |= {path: path for path in archives(arrived)}
    except CannotGrade as error:
        digest.update(str(error).encode())
    own = f"{job.notebook}.ipynb"
    for where, path in sorted({own: own, **wanted}.items()):
        digest.update(f"\0{where}\0".encode("utf-8", "surrogateescape"))
        limit = SIZE_LIMIT if where.endswith(".ipynb") else CHECKPOINT_LIMIT
        try:
            digest.update(_file_digest(job.submission, path, limit, not where.endswith(".py")))
        except CannotGrade as error:
            digest.update(f"\0{error}".encode("utf-8", "surrogateescape"))
        except OSError as error:  # its message may hold a path, which must not count
            digest.update(f"\0{type(error).__name__}".encode())
    return digest.hexdigest()


def keyed(job: Job) -> Job:
    """The job with its `content_key` and a secret that is valid for this content only."""
    key = content_key(job)
    own = hmac.new(job.secret, key.encode(), "sha256").digest()
    return replace(job, key=key, secret=own)


def _said(job: Job) -> str:
    """The remarks on how a submission's files were found, which are part of a result."""
    try:
        found = look(survey(job.submission, job.only), job.wanted)
    except CannotGrade as error:
        return str(error)
    return repr((found.said, found.rest, found.instead))


def _file_digest(folder: Path, name: str, limit: int, own_links: bool) -> bytes:
    """The digest of a submitted file, which is cached until the file changes."""
    status = os.lstat(folder / name)
    version = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
    return _digest_of_version(folder, name, limit, own_links, version)


@functools.lru_cache(maxsize=4096)
def _digest_of_version(
    folder: Path, name: str, limit: int, own_links: bool, version: tuple[int, ...]
) -> bytes:
    return sha256(read_regular(folder, name, limit, own_links)).digest()


def cache_key(job: Job) -> str:
    """The cache key of a result: content, course, checks, engine, versions and secret."""
    digest = sha256(f"{content_key(job)} {versions(job)}".encode())
    digest.update(_said(job).encode("utf-8", "surrogateescape"))
    digest.update(job.secret)
    given = [p for p in job.release.iterdir() if p.is_file() and p.suffix != ".ipynb"]
    for path in [*sorted(given), job.release / f"{job.notebook}.ipynb"]:
        digest.update(sha256(path.read_bytes()).digest())
    digest.update(repr(sorted(_reference(job).items())).encode())
    return digest.hexdigest()


def _reference(job: Job) -> dict[str, str]:
    """The course's own source of each solution cell; empty when there is no `source/`."""
    path = job.source / f"{job.notebook}.ipynb"
    try:
        status = path.stat()
    except FileNotFoundError:
        return {}
    return _written_in(path, (status.st_ino, status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=64)
def _written_in(path: Path, version: tuple[int, ...]) -> dict[str, str]:
    text = path.read_text(encoding="utf-8")
    return written(solved(nbformat.reads(text, as_version=4)))


def versions(job: Job) -> str:
    """The digest of the code of the checks and the engine, and of the packages they use."""
    checks = checks_for(job.assignment, job.notebook)
    return _versions((*_ENGINE, checks.name, checks.conftest))


@functools.cache  # a process keeps the code that it has loaded
def _versions(modules: tuple[str, ...]) -> str:
    digest = sha256(code_digest(modules).encode())
    for package in ("tensorflow", "numpy", "ipykernel", "ipython", "matplotlib"):
        digest.update(importlib.metadata.version(package).encode())
    return digest.hexdigest()


def grade_notebook(job: Job) -> Graded:
    """Run the notebook, check it, and award its points.

    Raises UserError when this course or machine cannot grade, WarmLost when the warm interpreter
    ended meanwhile; every submission, whatever it does, gets a result.
    """
    try:
        return _grade(job)
    finally:
        # pytest items form reference cycles that keep checkpoints alive.
        gc.collect()
        # Without the warm interpreter, every failure would look like the student's fault.
        if job.sandbox is not None:
            job.sandbox.see_that_it_lives()


def _grade(job: Job) -> Graded:
    released = (job.release / f"{job.notebook}.ipynb").read_text(encoding="utf-8")
    release: NotebookNode = nbformat.reads(released, as_version=4)
    assert job.sandbox is not None
    try:
        job = job if job.key else keyed(job)
        assert job.sandbox is not None
        with laid_out(job.submission, job.only, job.wanted, job.sandbox) as laid:
            return _grade_laid(job, laid, release)
    except CannotGrade as error:
        return _nothing(job, release, "failed", str(error))


def _grade_laid(job: Job, laid: Laid, release: NotebookNode) -> Graded:
    """Grade a submission whose files are in place.  Raises CannotGrade."""
    found, rest, instead = list(laid.found.said), laid.found.rest, laid.found.instead
    if job.found is not None:
        found, rest = [*job.found.said, *found], job.found.rest or rest
        instead = job.found.instead or instead
    said = "; ".join(found)
    own = f"{job.notebook}.ipynb"
    checks = checks_for(job.assignment, job.notebook)
    assert job.sandbox is not None
    try:
        if own in laid.unread:
            return _nothing(job, release, "failed", laid.unread[own], said)
        if own not in laid.found.files:
            read_regular(job.submission, own, SIZE_LIMIT)  # raises an error that says why
        submitted = read_submitted(laid.folder, job.notebook, job.sandbox)
        recognised = recognise(submitted, release)
        notebook = restore(submitted, release, recognised)
    except FileNotFoundError:
        if not rest:
            return _nothing(job, release, "missing", "this notebook was not handed in", said)
        why = f"this notebook was not found in what was handed in: {listed(rest)}"
        return _nothing(job, release, "not found", why, said)
    except CannotGrade as error:
        return _nothing(job, release, "failed", str(error), said)
    job = replace(job, submission=laid.folder, only=())
    assert job.sandbox is not None
    patterns = job.wanted.patterns
    files = SubmittedFiles(laid.folder, job.sandbox, patterns, laid.unread, instead)
    grading = _Grading(job, checks, release, files)
    try:
        cells, run, log = grading.first(notebook)
    except CannotGrade as error:
        return _nothing(job, release, "failed", str(error), said)
    layers, tensors = job.sandbox.layers, sorted(grading.submission.digests)
    notes = [*recognised.remarks, *run.notes]
    status: Status = "graded"
    if not any(cell.points for cell in cells):  # with points, its checkpoint earned them
        if not recognised.cells:
            status, notes = "not found", [f"{own} holds none of this notebook's cells"]
        elif not changed(notebook, release):
            status = "unchanged"
            notes = ["it is the notebook as it was handed out, with nothing written in it"]
    reason = "; ".join(notes)
    result = NotebookResult(job.notebook, status, reason, cells, layers, tensors, said)
    return Graded(result, nbformat.writes(notebook), log, run.cells_seconds)


@dataclass
class _Grading:
    """The state that all runs of one notebook share."""

    job: Job
    checks: Checks
    release: NotebookNode
    submission: SubmittedFiles
    used: float = 0.0  # seconds, by the clocks of the runs so far
    hung: int = 0  # runs that slept until their time was up

    def first(self, notebook: NotebookNode) -> tuple[list[CellResult], NotebookRun, str]:
        """The results of all grade cells, the run that produced them, and a log.

        The release's cells run in the release's order, wherever they stand in `notebook`.  Raises
        CannotGrade when the submission's files cannot be put in place.
        """
        release, may_go_on = self.release, self._may_go_on
        ordered = in_order(notebook, release)
        cells, run, log = self._run(ordered)
        if not run.stopped:
            reference, again = _reference(self.job), self._again(ordered)
            early = functools.partial(self._too_early, reference)
            cells = repaired(cells, ordered, release, reference, again, early, may_go_on)
            if not runs_alike(notebook, ordered):
                cells = in_own_order(cells, notebook, release, self._again(notebook), may_go_on)
        return cells, run, log

    def _may_go_on(self) -> bool:
        """Whether another run may start: all together may take little more time than one."""
        return self.used < WHOLE * self.checks.setup.seconds

    def _again(self, notebook: NotebookNode) -> Again:
        def again(sources: Mapping[str, str], cells: list[str]) -> list[CellResult]:
            return self._run(_with(sources, notebook), cells)[0]

        return again

    def _too_early(self, reference: Mapping[str, str], cells: list[str]) -> list[CellResult]:
        """Results of these grade cells in the course's solution, each before its solution cell."""
        notebook = checked_too_early(_with(reference, self.release))
        return self._run(notebook, cells, modules=False)[0]

    def _run(
        self,
        notebook: NotebookNode,
        only: Collection[str] | None = None,
        modules: bool = True,
    ) -> tuple[list[CellResult], NotebookRun, str]:
        """Run the restored notebook and check it.

        A notebook that hangs gets one more kernel, since the first may have been at fault.

        only: check these grade cells only, and show nothing.
        modules: whether the student's own modules lie beside the notebook.
        """
        job, setup = self.job, self.checks.setup
        assert job.sandbox is not None
        scratch = Path(tempfile.mkdtemp(prefix="kit-work-", dir=job.sandbox.folder))
        try:
            shared = _link_shared(scratch, setup, job.sandbox)
            _prepare(scratch, job, setup, modules)
            with NotebookRun(
                notebook,
                scratch,
                sandbox=job.sandbox,
                environment=dict(setup.environment),
                seconds=setup.seconds,
                shared=shared,
                training_steps=setup.training_steps,
            ) as run:
                plugin = Checking(
                    run,
                    self.submission,
                    SubmittedFiles(scratch, job.sandbox, handed_in=False),
                    job.release,
                    points_of(notebook),  # the release's points, in the order of the run
                    job.secret,
                    job.key,
                    setup,
                    only,
                    silent=only is not None,
                )
                cells, report = run_checks(self.checks.module, plugin)
                if only is None:
                    run.finish()
                run.see_that_the_machine_did_its_part()
                self.used += run.clock.used
                log = "\n".join([report, run.log()])
        finally:
            remove(scratch)
        self.hung += run.hung
        if run.hung and self.hung == 1 and self._may_go_on():
            cells, run, again = self._run(notebook, only, modules)
            log = f"{log}\nIt hung, and was run again:\n{again}"
        return cells, run, log


def _with(sources: Mapping[str, str], notebook: NotebookNode) -> NotebookNode:
    """A copy of the notebook with these sources, by `grade_id`."""
    other: NotebookNode = nbformat.from_dict(notebook)
    for cell in other.cells:
        cell.source = sources.get(str(grade_id(cell)), cell.source)
    return other


def cannot_grade(job: Job, reason: str) -> Graded:
    """The result of a submission that cannot be graded."""
    release = nbformat.read(job.release / f"{job.notebook}.ipynb", as_version=4)
    return _nothing(job, release, "failed", reason)


def _nothing(
    job: Job, release: NotebookNode, status: Status, reason: str, found: str = ""
) -> Graded:
    cells = [CellResult(cell, points) for cell, points in points_of(release).items()]
    result = NotebookResult(job.notebook, status, printable(reason), cells, found=found)
    return Graded(result, nbformat.writes(release))


def _prepare(scratch: Path, job: Job, setup: Setup, modules: bool) -> None:
    """Fill the scratch folder: submitted files, then the release's own files, then `prepare`.

    modules: whether to include submitted files that Python can import.
    """
    code = tuple(importlib.machinery.all_suffixes())
    given = [p for p in job.release.iterdir() if p.is_file() and p.suffix != ".ipynb"]
    names = {path.name for path in given}
    for path in needed(job.submission, setup.files):
        if path.startswith(".") or Path(path).parts[0] in names:
            continue
        if not modules and path.endswith(code):
            continue
        try:
            data = read_regular(job.submission, path, CHECKPOINT_LIMIT)
        except (CannotGrade, FileNotFoundError):
            continue  # unreadable files stay behind
        target = scratch / path
        if target.name == "checkpoint":
            data = beside(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    for own in given:
        shutil.copyfile(own, scratch / own.name)
    if setup.prepare is not None:
        setup.prepare(scratch, seeded(job.secret, job.key, "prepare"))


def _link_shared(scratch: Path, setup: Setup, sandbox: Sandbox) -> tuple[str, ...]:
    """Link the shared files into the scratch folder; returns the paths the links lead to."""
    if setup.shared is None:
        return ()
    paths = []
    for name, path in setup.shared().items():
        own = path.resolve()
        if not own.stat().st_mode & stat.S_IROTH:  # kernels may run as another user
            own = _readable_copy(own, sandbox.folder)
        link = scratch / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(own)
        paths.append(str(own))
    return tuple(paths)


def _readable_copy(path: Path, folder: Path) -> Path:
    """A world-readable copy in `folder`, made by the first caller."""
    copy = folder / f"kit-shared-{sha256(os.fsencode(path)).hexdigest()[:16]}"
    if not copy.exists():
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as half:
            half.write(path.read_bytes())
        os.chmod(half.name, 0o644)
        os.replace(half.name, copy)
    return copy


def failure(job: Job, error: BaseException) -> Graded:
    """The result when grading itself broke; the traceback goes to the log."""
    said = f"the grader stopped while grading it ({in_words(error)}); {advice(error)}"
    graded = cannot_grade(job, said)
    return replace(graded, log="".join(traceback.format_exception(error)))
