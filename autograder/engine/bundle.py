"""Bundles of submitted files for grading on another machine."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import socket
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from autograder.engine.arrival import archives, look, needs_archives, survey
from autograder.engine.files import read_regular
from autograder.engine.grade import Graded, Job, cannot_grade, grade_notebook, keyed, versions
from autograder.engine.reading import SIZE_LIMIT
from autograder.engine.sandbox import Sandbox
from autograder.engine.submission import CHECKPOINT_LIMIT
from autograder.engine.trial import working_sandbox
from autograder.engine.warm import WarmInterpreter, WarmLost
from autograder.errors import CannotGrade, UserError

# pytest cannot run twice at once in one process, so a worker's other threads wait.
_ONE_AT_A_TIME = threading.Lock()
SUBMISSION, RELEASE, SOURCE = "submission", "release", "source"
SENT = 8  # shared bundles kept on the cluster for later notebooks


@dataclass(frozen=True)
class Bundle:
    """Files of several folders.

    Attributes:
        files: (path, content) pairs.
        digest: the digest of all files.

    """

    files: tuple[tuple[str, bytes], ...]
    digest: str

    @classmethod
    def of(cls, trees: Mapping[str, tuple[Path, Mapping[str, str]]]) -> Bundle:
        """Bundle regular files; files that are too large or not regular stay behind.

        trees: by the folder to unpack into, the folder to read from and a map from where each file
            belongs to where it lies.
        """
        files, digest = [], sha256()
        for name, (folder, paths) in trees.items():
            for where, path in sorted(paths.items()):
                linked = not where.endswith(".py")
                try:
                    content = read_regular(folder, path, CHECKPOINT_LIMIT, linked)
                except (CannotGrade, FileNotFoundError):
                    continue
                files.append((f"{name}/{where}", content))
                digest.update(os.fsencode(files[-1][0]) + b"\0" + sha256(content).digest())
        return cls(tuple(files), digest.hexdigest())

    def unpack(self, folder: Path) -> None:
        """Write the files below `folder`.  Raises UserError when they arrived damaged."""
        digest = sha256()
        for path, content in self.files:
            digest.update(os.fsencode(path) + b"\0" + sha256(content).digest())
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if digest.hexdigest() != self.digest:
            raise UserError("a bundle was damaged on its way to a worker; grade it again")


@dataclass(frozen=True)
class RemoteJob:
    """A job that travels without its folders.

    Attributes:
        job: the job, with a secret that is valid for this submission only.
        versions: the digest of checks and versions that the worker must match.
        refused: why nothing of the submission can be graded; "" when it can.

    """

    job: Job
    versions: str
    refused: str = ""


def pack(job: Job) -> tuple[RemoteJob, Bundle, list[Bundle]]:
    """Make a job ready to travel: the job, its own bundle, and bundles that other jobs may share.

    The bundles hold only files that the notebook or its checks need.
    """
    own = f"{job.notebook}.ipynb"
    mine: dict[str, str] = {}
    wanted: dict[str, str] = {}
    refused = ""
    sent = job
    try:
        arrived = survey(job.submission, job.only)
        found = look(arrived, job.wanted)
        wanted |= found.files
        mine[own] = wanted.pop(own, own)
        if needs_archives(arrived, found):
            wanted |= {path: path for path in archives(arrived)}
        at = arrived.files.get(mine[own])
        sent = replace(job, found=found, modified=at.modified if at else 0)
        with contextlib.suppress(FileNotFoundError):
            read_regular(job.submission, mine[own], SIZE_LIMIT, own_links=True)
    except CannotGrade as error:
        refused = str(error)
    released = {path.name: path.name for path in job.release.iterdir() if path.is_file()}
    return (
        RemoteJob(replace(keyed(sent), only=()), versions(job), refused),
        Bundle.of({SUBMISSION: (job.submission, mine), SOURCE: (job.source, {own: own})}),
        [
            Bundle.of({SUBMISSION: (job.submission, wanted)}),
            Bundle.of({RELEASE: (job.release, released)}),
        ],
    )


def grade_remote(remote: RemoteJob, *bundles: Bundle) -> Graded:
    """Run `grade_notebook` on a worker that shares no disk with the grader.

    Raises UserError when the worker's checks or versions differ from the grader's or when it cannot
    confine student code, and WarmLost when its warm interpreter has ended.
    """
    if versions(remote.job) != remote.versions:
        raise UserError(
            f"the worker on {socket.gethostname()} has other checks or package versions than "
            "this machine; install the same there"
        )
    with _ONE_AT_A_TIME:
        try:
            return _grade_unpacked(remote, bundles)
        except WarmLost:
            _sandbox_of_worker.cache_clear()
            raise


def _grade_unpacked(remote: RemoteJob, bundles: tuple[Bundle, ...]) -> Graded:
    place = _sandbox_of_worker()
    folder = Path(tempfile.mkdtemp(prefix="kit-bundle-", dir=place.folder))
    try:
        for bundle in bundles:
            bundle.unpack(folder)
        job = replace(
            remote.job,
            submission=folder / SUBMISSION,
            release=folder / RELEASE,
            source=folder / SOURCE,
            sandbox=place,
        )
        handed_in = job.submission / f"{job.notebook}.ipynb"
        if handed_in.exists():  # the newest of several copies counts
            os.utime(handed_in, ns=(job.modified, job.modified))
        return cannot_grade(job, remote.refused) if remote.refused else grade_notebook(job)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def _sandbox_of_worker() -> Sandbox:
    """The sandbox of this worker process; its warm interpreter ends with the process."""
    return working_sandbox(WarmInterpreter())


async def _reach(scheduler: str) -> None:
    """Connect once.  Raises OSError or ValueError when nothing answers at that address."""
    from distributed.comm import connect

    connection = await connect(scheduler, timeout=10)
    await connection.close()


class Cluster(Executor):
    """The workers of a Dask cluster, with the interface of a local process pool.

    Bundles that several notebooks share (a checkpoint, the release's files) are sent to the cluster
    once and passed from worker to worker.
    """

    def __init__(self, scheduler: str) -> None:
        """Connect.  Raises UserError without Dask, a cluster or a worker."""
        try:
            from distributed import Client
        except ModuleNotFoundError as error:
            raise UserError("--scheduler needs Dask: pip install 'autograder[cluster]'") from error
        try:
            # A client that cannot connect keeps trying and may block the next one for ever.
            with ThreadPoolExecutor(1) as thread:  # in formgrader, this one has an event loop
                thread.submit(asyncio.run, _reach(scheduler)).result()
            self._client = Client(scheduler, timeout=10, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError(f"no Dask scheduler answers at {scheduler}") from error
        if not self._client.nthreads():
            self._client.close()
            raise UserError(
                f"the scheduler at {scheduler} has no workers; start one with `dask worker`"
            )
        self._executor: Executor = self._client.get_executor(pure=False)
        self._sent: OrderedDict[str, Any] = OrderedDict()  # futures of bundles, by digest

    def width(self) -> int:
        """The number of jobs that keeps every worker busy: one to grade, one to fetch meanwhile."""
        return max(1, 2 * len(self._client.nthreads()))

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a job; `function` must be `grade_notebook`."""
        assert function is grade_notebook
        (job,) = args
        remote, own, shared = pack(job)
        return self._executor.submit(grade_remote, remote, own, *map(self._send, shared))

    def _send(self, bundle: Bundle) -> Any:
        """The cluster's future of a bundle, which is sent again if it was lost with a worker."""
        sent = self._sent.pop(bundle.digest, None)
        if sent is None or sent.status != "finished":
            sent = self._client.scatter(bundle, hash=False)
        self._sent[bundle.digest] = sent
        while len(self._sent) > SENT:
            self._sent.popitem(last=False)
        return sent

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; running jobs end by themselves."""
        self._executor.shutdown(wait=wait and not cancel_futures)
        if wait:
            self._client.close()
