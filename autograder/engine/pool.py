"""Computes results in parallel and caches them by content."""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextvars import ContextVar
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from autograder.course import Course, checks_for, write_whole
from autograder.engine.bundle import Cluster
from autograder.engine.grade import Graded, Job, cache_key, failure, grade_notebook
from autograder.engine.sandbox import Sandbox, refused
from autograder.engine.trial import working_sandbox
from autograder.engine.warm import WarmInterpreter, WarmLost
from autograder.errors import UserError

ATTEMPTS = 3  # for a notebook that runs alone and loses its worker
TRIES = 2  # for a notebook at which the grader fails; the last one runs alone
_LOST = (BrokenExecutor, CancelledError, WarmLost)  # errors of a lost worker


# Failures of the grader, remembered for one run of a command so that recording does not retry them
# for each notebook.  The next run retries them.
_failed: ContextVar[dict[str, Graded] | None] = ContextVar("failed", default=None)


@contextlib.contextmanager
def one_run() -> Iterator[None]:
    """Let engines remember the grader's failures until the block ends."""
    token = _failed.set({}) if _failed.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _failed.reset(token)


class Engine:
    """A warm interpreter and worker processes, started on first use; a context manager.

    Not thread-safe: use one engine per thread.

    jobs: notebooks graded at the same time.
    run_student_code_unconfined: continue where the machine cannot confine student code.
    scheduler: address of a Dask scheduler whose workers grade instead of this machine.
    """

    def __init__(
        self,
        course: Course,
        jobs: int,
        run_student_code_unconfined: bool = False,
        scheduler: str = "",
    ) -> None:
        self.course = course
        self._scheduler = scheduler
        self._unconfined = run_student_code_unconfined
        self._jobs = jobs
        self._warm: WarmInterpreter | None = None
        self._sandbox: Sandbox | None = None
        self._executor: Executor | None = None
        self._lifeline: Connection | None = None  # the local workers end when it closes

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers, whatever they are doing, and the warm interpreter."""
        self._dismiss()
        if self._warm is not None:
            self._warm.close()
            self._warm = self._sandbox = None

    def ready(self) -> list[str]:
        """Start everything that grading needs; returns the protections that kernels run under.

        Raises UserError when this machine cannot confine student code.
        """
        self._start()
        return self._sandbox.layers if self._sandbox else []

    def _dismiss(self) -> None:
        """Stop the workers; unfinished work is lost."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            if self._lifeline is not None:
                self._lifeline.close()
            self._executor.shutdown()
            self._executor = None

    def job(self, student: str, assignment: str, notebook: str) -> Job:
        """The job for one notebook of a student's submission."""
        folder, only = self.course.handed_in(student, assignment)
        return Job(
            assignment,
            notebook,
            folder,
            self.course.release(assignment),
            self.course.source(assignment),
            self.course.secret(),
            only=only,
        )

    def grade(
        self, jobs: Iterable[Job], force: bool = False
    ) -> Generator[tuple[Job, Graded], None, None]:
        """Yield results as they become known, cached ones first; equal work is computed once.

        force: ignore the cache.

        Raises UserError, before anything is computed, when this machine lacks what the checks need.
        """
        todo: list[tuple[Job, str]] = []
        equal: dict[str, list[Job]] = {}  # jobs that wait for another's result
        for job in jobs:
            key = cache_key(job)
            known = (_failed.get() or {}).get(key) or (None if force else self._recall(key))
            if known is not None:
                yield job, known
            elif key in equal:
                equal[key].append(job)
            else:
                equal[key] = []
                todo.append((job, key))
        if not todo:
            return
        if not self._scheduler:  # a cluster's workers need it themselves
            for assignment, notebook in {(job.assignment, job.notebook) for job, _ in todo}:
                if (needs := checks_for(assignment, notebook).setup.needs) is not None:
                    needs()
        changed: list[Job] = []
        with contextlib.closing(self._compute(todo)) as outcomes:
            for job, key, outcome in outcomes:
                if isinstance(outcome, UserError):
                    raise outcome
                if isinstance(outcome, BaseException):
                    failed, memory = failure(job, outcome), _failed.get()
                    if memory is not None:
                        memory[key] = failed
                    yield job, failed
                    yield from ((other, failure(other, outcome)) for other in equal[key])
                    continue
                unchanged = cache_key(job) == key  # or else the files changed meanwhile
                if unchanged:
                    self._remember(key, outcome)
                yield job, outcome
                for other in equal[key]:
                    if unchanged and cache_key(other) == key:
                        yield other, outcome
                    else:
                        changed.append(other)
        if changed:
            yield from self.grade(changed, force)

    def _compute(
        self, todo: Iterable[tuple[Job, str]]
    ) -> Generator[tuple[Job, str, Graded | BaseException], None, None]:
        """Yield outcomes as they become known.

        Workers get no more jobs than they can handle at a time.  Jobs lost with a worker are
        retried one at a time, so that a notebook that kills its worker is identified and harms no
        other.  Jobs at which the grader failed are retried the same way after everything else,
        since other jobs may have used up the time or the room they needed.
        """
        waiting = deque(todo)
        suspects, failures = deque[tuple[Job, str]](), deque[tuple[Job, str]]()
        running: dict[Future[Graded], tuple[Job, str]] = {}
        lost_alone: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        try:
            while waiting or suspects or failures or running:
                executor = self._start()
                source, room = suspects or failures, 1
                if waiting and not suspects:
                    source, room = waiting, self._width(executor)
                while source and len(running) < room:
                    job, key = source.popleft()
                    running[self._submit(executor, job)] = job, key
                alone = len(running) == 1
                # Drop each reference to a finished future, or Dask recomputes it if its worker
                # dies.
                done = [
                    (*running.pop(future), _outcome(future))
                    for future in wait(running, return_when=FIRST_COMPLETED).done
                ]
                for job, key, outcome in done:
                    if isinstance(outcome, _LOST):
                        self._replace(executor, outcome)
                        lost_alone[key] += alone
                        if lost_alone[key] < ATTEMPTS:
                            suspects.append((job, key))
                            continue
                    elif isinstance(outcome, Exception) and not isinstance(outcome, UserError):
                        failed[key] += 1
                        if failed[key] < TRIES:
                            failures.append((job, key))
                            continue
                    yield job, key, outcome
        finally:
            if running:  # interrupted, or the caller stopped iterating
                self.close()

    def _width(self, executor: Executor) -> int:
        return executor.width() if isinstance(executor, Cluster) else self._jobs

    def _submit(self, executor: Executor, job: Job) -> Future[Graded]:
        # New workers inherit the signal mask: only this process handles Ctrl-C.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return executor.submit(grade_notebook, replace(job, sandbox=self._sandbox))
        except BrokenExecutor as error:  # broken since the last outcome
            broken: Future[Graded] = Future()
            broken.set_exception(error)
            return broken
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _replace(self, executor: Executor, error: BaseException) -> None:
        """Discard a broken part, so that `_start` makes a new one."""
        if isinstance(error, BrokenExecutor) and executor is self._executor:
            self._dismiss()
        warm = self._warm
        if isinstance(error, WarmLost) and warm is not None and str(error) == warm.address:
            warm.close()
            self._warm = self._sandbox = None

    def _start(self) -> Executor:
        if self._scheduler:
            self._executor = self._executor or Cluster(self._scheduler)
            return self._executor
        if self._warm is not None and self._warm.ended:
            self._warm.close()
            self._warm = self._sandbox = None
        if self._warm is None:
            self._warm = WarmInterpreter()
        if self._sandbox is None:
            place = working_sandbox(self._warm, self._unconfined)
            if not self._unconfined:
                self._see_that_the_course_is_hidden(self._warm, place)
            self._sandbox = place
        if self._executor is None:
            # Workers inherit this.  NumPy threads that wait for each other on busy cores take four
            # times the processor time, and there are as many workers as should compute at once.
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
            context = multiprocessing.get_context("spawn")
            held, self._lifeline = context.Pipe(duplex=False)
            self._executor = ProcessPoolExecutor(
                self._jobs, mp_context=context, initializer=_begin, initargs=(held,)
            )
        return self._executor

    def _see_that_the_course_is_hidden(self, warm: WarmInterpreter, place: Sandbox) -> None:
        """Raise UserError if the course lies in a folder that every kernel can read."""
        root = self.course.root
        private = str(root / "nbgrader_config.py")
        reason = refused(warm, place.level, (private,))
        if reason and private not in reason:
            raise UserError(
                f"whether student code can read {root} could not be tried out, so nothing is "
                f"graded ({reason}); run the command again"
            )
        if reason:
            raise UserError(
                f"{root} lies where every notebook may read, among the system's or Python's own "
                f"folders, so nothing is graded ({reason}); move the course, to a home for example"
            )

    def _path(self, key: str) -> Path:
        return self.course.private / "results" / key[:2] / f"{key}.json"

    def _recall(self, key: str) -> Graded | None:
        try:
            return Graded.from_record(json.loads(self._path(key).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _remember(self, key: str, graded: Graded) -> None:
        write_whole(self._path(key), json.dumps(graded.to_record()))


def _outcome(future: Future[Graded]) -> Graded | BaseException:
    if future.cancelled():
        return CancelledError()
    return future.exception() or future.result()


def _begin(lifeline: Connection) -> None:
    """Prepare a worker before its first notebook."""
    gc.freeze()  # imports stay; collecting among them would take 50 ms each time
    _follow(lifeline)


def _follow(lifeline: Connection) -> None:
    """End this worker when its parent ends or closes the lifeline."""

    def end() -> None:
        with contextlib.suppress(OSError, EOFError):
            lifeline.recv_bytes()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
