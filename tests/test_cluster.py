"""`autograder grade --scheduler`: a Dask cluster whose workers share no disk with the grader."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autograder.engine.bundle import Bundle, Cluster, pack
from autograder.engine.grade import Job, grade_notebook
from autograder.errors import UserError
from support.gated import ASSIGNMENT, NOTEBOOKS, PATIENCE, GatedCourse, poll

pytestmark = pytest.mark.kernel

pytest.importorskip("distributed")

FIRST, SECOND = NOTEBOOKS
STRUCK = 2
LOCAL = "127.0.0.1"


class Dask:
    """A scheduler and its workers, each a process in its own folder."""

    def __init__(self, course: GatedCourse, folder: Path) -> None:
        self._course, self._folder = course, folder
        self._processes: list[subprocess.Popen[str]] = []
        log = self._start("scheduler", "scheduler", "--host", LOCAL, "--port", "0")
        self.address = self._find(log, r"Scheduler at:\s+(tcp://\S+)")

    def _start(self, name: str, *command: str, **environment: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        log = folder / "log"
        with log.open("w") as output:
            process = subprocess.Popen(
                (sys.executable, "-m", "distributed.cli.dask_" + command[0], *command[1:]),
                cwd=folder,
                env={**self._course.environment(), **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self._processes.append(process)
        return log

    @staticmethod
    def _find(log: Path, pattern: str) -> str:
        poll(lambda: re.search(pattern, log.read_text()) is not None, f"{pattern} in {log}")
        found = re.search(pattern, log.read_text())
        assert found is not None
        return found[1]

    def worker(self, name: str, **environment: str) -> Path:
        """Start a worker with one thread; return its working folder."""
        options = ("--host", LOCAL, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        log = self._start(name, "worker", self.address, *options, **environment)
        self._find(log, r"(Registered to)")
        return log.parent

    @property
    def pids(self) -> list[int]:
        """The pids of its processes."""
        return [process.pid for process in self._processes]

    def close(self) -> None:
        """End every process."""
        for process in self._processes:
            process.kill()
            process.wait()


@contextmanager
def class_on_dask(folder: Path, count: int) -> Iterator[tuple[GatedCourse, Dask]]:
    """A class with submissions, and a scheduler without workers."""
    (folder / "course").mkdir()
    with GatedCourse.make(folder / "course", count) as course:
        dask = Dask(course, folder)
        try:
            yield course, dask
        finally:
            dask.close()


def test_two_workers_one_of_them_killed_grade_like_this_machine(
    tmp_path: Path,
) -> None:
    with class_on_dask(tmp_path, 4) as (course, dask):
        for name in ("one", "two"):
            dask.worker(name)
        course.shut(STRUCK)
        process = course.start("autograder", "grade", ASSIGNMENT, "--scheduler", dask.address)
        worker = course.wait_for_start(STRUCK)
        assert worker in dask.pids
        # Wait until its finished results have arrived; Dask recomputes one lost with its worker.
        poll(lambda: course.remembered() >= len(course.log("end")), "results to arrive")
        os.kill(worker, signal.SIGKILL)
        course.open_gates()
        _, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (0, "")
        assert course.times_graded() == dict.fromkeys(course.all_notebooks(), 1)
        assert {pid for *_, pid in course.log("end")} <= set(dask.pids)
        far = {student: course.results(student) for student in course.students}

        # The same class on this machine, without the cache.
        near = course.run("autograder", "grade", ASSIGNMENT, "--force")
        assert near.returncode == 0, near.stderr
        assert {student: course.results(student) for student in course.students} == far
        assert course.recorded() == {student: [2.0, 2.0] for student in course.students}


def refused(course: GatedCourse, address: str) -> str:
    """The line that the command prints if it cannot use a cluster."""
    done = course.run("autograder", "grade", ASSIGNMENT, "--scheduler", address)
    assert done.returncode == 2
    # A notebook whose checks are the same on both sides may have been graded before.
    assert SECOND not in {notebook for _, notebook, _ in course.log("start")}
    (line,) = done.stderr.splitlines()
    return line


def test_a_cluster_that_cannot_do_it_is_refused_in_one_line(tmp_path: Path) -> None:
    with class_on_dask(tmp_path, 1) as (course, dask):
        said = f"autograder: the scheduler at {dask.address} has no workers"
        assert refused(course, dask.address).startswith(said)
        # A worker with one more line in one module of checks.
        other = tmp_path / "other"
        course.write_checks(other, of_the_second="LATER = True\n")
        dask.worker("other-checks", PYTHONPATH=str(other))
        assert "has other checks or package versions" in refused(course, dask.address)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://here", "127.0.0.1:port"])
def test_a_scheduler_that_does_not_answer_is_one_line(address: str) -> None:
    with pytest.raises(UserError, match=f"^no Dask scheduler answers at {address}"):
        Cluster(address)


# --- what is sent ---


@pytest.fixture
def job(tmp_path: Path) -> Callable[[str], Job]:
    """Makes a job for a notebook of a submission with a checkpoint and a private file."""
    submission = tmp_path / "submission"
    release = Path(__file__).parents[1] / "release" / "ch4-cnn"
    submission.mkdir()
    for name in ("4-mnist-training.ipynb", "5-mnist-filters.ipynb"):
        (submission / name).write_bytes((release / name).read_bytes())
    for name in ("checkpoint", "mdc_session-4000.index", "mdc_session-4000.data-00000-of-00001"):
        (submission / name).write_bytes(os.urandom(100))
    (submission / "diary.txt").write_text("private")
    source = tmp_path / "no-source"
    return lambda name: Job("ch4-cnn", name, submission, release, source, b"course secret")


def paths(bundles: list[Bundle]) -> set[str]:
    return {path for bundle in bundles for path, _ in bundle.files}


def test_what_two_notebooks_share_has_one_digest(job: Callable[[str], Job]) -> None:
    (_, own, shared), (_, other_own, other_shared) = map(
        pack, map(job, ("4-mnist-training", "5-mnist-filters"))
    )
    assert [bundle.digest for bundle in shared] == [bundle.digest for bundle in other_shared]
    assert own.digest != other_own.digest
    assert "submission/mdc_session-4000.data-00000-of-00001" in paths(shared)
    assert {path for path in paths([own]) if path.endswith(".ipynb")} == paths([own])


def test_what_two_notebooks_share_goes_to_the_cluster_once(
    job: Callable[[str], Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with class_on_dask(tmp_path, 1) as (_, dask):
        dask.worker("one")
        cluster = Cluster(dask.address)
        scatter, sent = cluster._client.scatter, []

        def noted(bundle: Bundle, **how: object) -> object:
            sent.append(bundle.digest)
            return scatter(bundle, **how)

        monkeypatch.setattr(cluster._client, "scatter", noted)
        jobs = [job("4-mnist-training"), job("5-mnist-filters")]
        try:
            for each in jobs:
                cluster.submit(grade_notebook, each)
        finally:
            cluster.shutdown(cancel_futures=True)
    assert sorted(sent) == sorted(bundle.digest for bundle in pack(jobs[0])[2])


def test_nothing_travels_that_no_check_needs(job: Callable[[str], Job]) -> None:
    _, own, shared = pack(job("4-mnist-training"))
    handed_in = {path for path in paths([own, *shared]) if path.startswith("submission/")}
    assert handed_in == {
        f"submission/{name}"
        for name in (
            *("4-mnist-training.ipynb", "checkpoint", "mdc_session-4000.index"),
            "mdc_session-4000.data-00000-of-00001",
        )
    }


def test_the_secret_of_the_course_stays_at_home(job: Callable[[str], Job]) -> None:
    secrets = {pack(job(name))[0].job.secret for name in ("4-mnist-training", "5-mnist-filters")}
    assert len(secrets) == 2
    assert all(len(secret) == 32 and secret != b"course secret" for secret in secrets)


def test_a_damaged_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    bundle = Bundle.of({"x": (tmp_path, {"file": "file"})})
    damaged = Bundle((("x/file", b"other"),), bundle.digest)
    with pytest.raises(UserError, match="damaged on its way"):
        damaged.unpack(tmp_path / "there")
