"""A trial kernel shows that notebooks can run before grading; otherwise there is one line."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

from autograder.course import Course
from autograder.engine import trial as trial_module
from autograder.engine.faults import in_words
from autograder.engine.grade import Job, failure
from autograder.engine.run import KernelNotStarted
from autograder.engine.sandbox import Sandbox
from autograder.engine.trial import STEPS, trial
from autograder.engine.warm import WarmInterpreter, WarmLost
from autograder.errors import GraderFault
from autograder.kernel import isolate
from autograder.kernel.child import UNCONFINED
from support.environments import linked
from support.submissions import ASSIGNMENT, NOTEBOOKS, ROOT, CourseCopy

AS_ROOT = os.geteuid() == 0


@pytest.fixture(params=[isolate.NAMESPACES, isolate.LANDLOCK, UNCONFINED])
def place(request: pytest.FixtureRequest, warm: WarmInterpreter) -> Sandbox:
    """A sandbox for each level of confinement."""
    return Sandbox(warm.address, request.param)


def test_a_kernel_does_what_notebooks_do(place: Sandbox) -> None:
    assert trial(place) == ""
    assert not list(place.folder.glob("kit-trial-*"))


def test_nothing_that_a_kernel_is_to_find_is_there_already(
    place: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the trial would not show that packages are found."""
    (first, *_) = STEPS
    names = STEPS[first].split("import ")[-1].replace(",", " ").split()
    look = f"import sys\nassert not set({names!r}) & set(sys.modules)\n"
    monkeypatch.setitem(STEPS, first, look + STEPS[first])
    assert trial(place) == ""


@pytest.mark.parametrize("step", STEPS)
def test_what_fails_is_named(place: Sandbox, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    monkeypatch.setitem(STEPS, step, "raise ImportError('no such thing')")
    assert trial(place) == f"a kernel cannot {step} (ImportError: no such thing)"


def test_a_kernel_that_ends_is_named(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    (first, *_) = STEPS
    monkeypatch.setitem(STEPS, first, "import os\nos._exit(1)")
    assert trial(place).startswith("a kernel did not answer (the kernel ended in cell")


# --- an environment that only its owner can read, installed under umask 077 ---


@pytest.fixture(scope="module")
def private() -> Iterator[Path]:
    """The Python of an environment whose packages only root can read."""
    if not AS_ROOT:
        pytest.skip("only for root kernels are somebody else")
    folder = Path(tempfile.mkdtemp(prefix="kit-private-", dir="/tmp"))
    linked(Path(sys.prefix), folder / "environment")
    for path in (folder / "environment").glob("lib/python*/site-packages/*"):
        if path.is_dir():
            path.chmod(0o700)
    yield folder / "environment" / "bin" / "python"
    shutil.rmtree(folder)


@pytest.fixture
def small(course_copy: Callable[[], CourseCopy]) -> CourseCopy:
    """A course with one notebook and one submission."""
    course = course_copy()
    course.keep_first_notebook()
    shutil.copytree(course.root / "release" / ASSIGNMENT, course.submission("student"))
    return course


@pytest.mark.parametrize("command", [["grade", ASSIGNMENT], ["doctor"]])
def test_an_environment_that_kernels_cannot_read_is_named(
    small: CourseCopy, private: Path, command: list[str]
) -> None:
    done = small.run(str(private), "-m", "autograder", *command)
    if "refused" in done.stdout.partition("namespaces")[2].partition("\n")[0]:
        pytest.skip("without namespaces kernels are no other user")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("autograder: notebooks cannot run on this machine")
    packages = next(private.parents[1].glob("lib/python*/site-packages"))
    assert f"cannot read {packages}/" in line
    assert f"`chmod -R go+rX {private.parents[1]}` opens it" in line
    assert not (small.root / "autograded").exists()


def test_without_a_fault_of_the_environment_the_trial_speaks_for_itself(
    place: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_module, "_closed", lambda root: "")
    assert trial_module.explained("a kernel cannot sing", place) == "a kernel cannot sing"


# --- "grade it again" is only said of temporary failures ---


def caused(cause: BaseException) -> GraderFault:
    """The fault that the checks raise for an error that only the grader can cause."""
    fault = GraderFault(f"test_x: {in_words(cause)}")
    fault.__cause__ = cause
    return fault


PASSING = {
    "a busy machine": GraderFault("this machine was too busy"),
    "a full disk": caused(OSError(errno.ENOSPC, "No space left on device")),
    "no memory": MemoryError(),
    "no memory in a check": caused(MemoryError()),
    "a lost worker": BrokenExecutor(),
    "the warm interpreter": WarmLost("/tmp/kit/socket"),
    "one kernel, where another ran": KernelNotStarted("killed"),
}
LASTING = {
    "a mistake in the engine": KeyError("x"),
    "a package that is not there": caused(ModuleNotFoundError("no module x")),
    "a file that cannot be read": PermissionError(errno.EACCES, "Permission denied"),
    "a warning made an error": caused(DeprecationWarning("soon")),
}


@pytest.mark.parametrize("what", [*PASSING, *LASTING])
def test_grading_again_is_advised_for_what_can_pass_by_itself(what: str) -> None:
    course = Course(ROOT)
    folders = (course.submitted("s", ASSIGNMENT), course.release(ASSIGNMENT), course.root)
    job = Job(ASSIGNMENT, NOTEBOOKS[0], *folders, b"")
    reason = failure(job, {**PASSING, **LASTING}[what]).result.reason
    assert reason.endswith("; grade it again") == (what in PASSING)
    assert ("will not help" in reason) == (what in LASTING)


def test_a_course_is_no_part_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m autograder` puts its working directory, the course, on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    assert str(tmp_path) in trial_module._python()
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path) not in trial_module._python()
