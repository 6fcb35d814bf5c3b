"""A full temporary folder costs no points, and the message names the cause."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autograder.course import Course
from autograder.engine.faults import FULL
from autograder.engine.grade import Graded
from autograder.engine.pool import Engine
from autograder.engine.sandbox import Sandbox
from autograder.engine.values import KernelLost, NoValue
from autograder.engine.warm import WarmInterpreter
from autograder.errors import GraderFault
from autograder.kernel import isolate
from support.submissions import ASSIGNMENT, CourseCopy, max_points, replace_cells
from test_isolation import Start, starting

TRAINING, FILTERS = "4-mnist-training", "5-mnist-filters"


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[int], None]]:
    """Mount a file system of `size` MB at `folder`; the yielded function leaves some MB free."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}m,mode=1777", "none", folder],
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")

    def leave(free: int) -> None:
        found = os.statvfs(folder)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize >> 20
        subprocess.run(["mount", "-o", f"remount,size={used + free + 1}m", folder], check=True)

    try:
        yield leave
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="module")
def disk(warm: WarmInterpreter) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A small disk as the temporary folder of all processes started from now on."""
    place = Path(tempfile.mkdtemp(prefix="room-"))
    with small_disk(place / "t", 900) as leave, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(place / "t"))
        yield place / "t", leave
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def warm_on_it(disk: tuple[Path, Callable[[int], None]]) -> Iterator[WarmInterpreter]:
    """A warm interpreter that uses the small disk."""
    with WarmInterpreter() as interpreter:
        yield interpreter.wait()


@pytest.fixture(params=[isolate.NAMESPACES, isolate.LANDLOCK])
def place(request: pytest.FixtureRequest, warm_on_it: WarmInterpreter) -> Sandbox:
    """A sandbox for each level of confinement."""
    return Sandbox(warm_on_it.address, request.param)


@pytest.fixture
def start(disk: tuple[Path, Callable[[int], None]]) -> Iterator[Start]:
    """Start kernels on the small disk; they end with the test."""
    folder = disk[0] / "runs"
    folder.mkdir()
    disk[1](60)
    try:
        with starting(folder) as started:
            yield started
    finally:
        disk[1](900)
        shutil.rmtree(folder)


WRITE = """
def write(size):
    with open("large", "wb") as file:
        for _ in range(size):
            file.write(bytes(1 << 20))
"""
QUIETLY = """
try:
    write(400)
except OSError:
    pass
"""
GONE = """
import os
try:
    write(100)
except OSError:
    os.unlink("large")
    raise
"""


@pytest.mark.parametrize("what", ["write(100)", QUIETLY, GONE])
def test_a_cell_that_meets_a_full_disk_is_no_mistake(
    place: Sandbox, start: Start, what: str
) -> None:
    run = start(place, WRITE, what, "b = 2")
    assert run.values_at("check-1").describe("write")[0]["kind"] == "function"
    with pytest.raises(GraderFault, match=FULL):
        run.values_at("check-2")


def test_an_answer_that_meets_a_full_disk_is_no_mistake(place: Sandbox, start: Start) -> None:
    run = start(place, WRITE, "b = 2")
    values = run.values_at("check-1")
    with pytest.raises(NoValue, match="No space left on device"):
        values.call("write", 100)
    with pytest.raises(GraderFault, match=FULL):
        run.see_that_the_machine_did_its_part()


def test_a_cell_that_finds_room_is_not_disturbed(place: Sandbox, start: Start) -> None:
    run = start(place, WRITE + "write(20)", "b = 2")
    assert run.values_at("check-2").value("b") == 2
    run.see_that_the_machine_did_its_part()


def test_nobody_believes_a_kernel_that_has_room(
    warm: WarmInterpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autograder.engine.run._room", lambda folder: 2 << 30)
    lie = "raise OSError(28, 'No space left on device')"
    with starting(tmp_path) as start:
        run = start(Sandbox(warm.address, isolate.NAMESPACES), f"def f(): {lie}\n{lie}", "b = 2")
        values = run.values_at("check-1")
        with pytest.raises(NoValue, match="No space left on device"):
            values.call("f")
        assert run.values_at("check-2").value("b") == 2
        run.see_that_the_machine_did_its_part()


ENDS = "import os, signal\ndef end(): os.kill(os.getpid(), signal.SIGKILL)\n"


@pytest.mark.parametrize(("kills", "by_us"), [(0, False), (1, True)])
def test_a_kernel_that_linux_ends_for_want_of_memory_is_no_mistake(
    warm: WarmInterpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int, by_us: bool
) -> None:
    counted = iter([0, kills, 0, kills])
    monkeypatch.setattr("autograder.engine.run._killed_for_memory", lambda: next(counted))
    expected = GraderFault if by_us else KernelLost
    said = "^this machine ran out of memory$" if by_us else "^the kernel ended in cell WORK-2$"
    with starting(tmp_path) as start:
        # Process 1 of a namespace cannot end itself this way.
        place = Sandbox(warm.address, isolate.LANDLOCK)
        run = start(place, ENDS, "end()")
        run.values_at("check-1")
        with pytest.raises(expected, match=said):
            run.values_at("check-2")

        asked = start(place, ENDS)
        with pytest.raises(KernelLost, match="stopped answering"):
            asked.values_at("check-1").call("end")
        with pytest.raises(GraderFault) if by_us else contextlib.nullcontext():
            asked.see_that_the_machine_did_its_part()


# --- a whole grading ---


@pytest.fixture(scope="module")
def course(course_copy: Callable[[], CourseCopy], solved_run: Path) -> CourseCopy:
    """A class with one student, who has solved everything."""
    made = course_copy()
    made.complete("ada", solved_run)
    return made


def graded(engine: Engine, name: str) -> Graded:
    """The engine's result for ada's notebook."""
    ((_, found),) = engine.grade([engine.job("ada", ASSIGNMENT, name)], force=True)
    return found


def test_whatever_the_size_of_the_disk_no_point_is_lost(
    course: CourseCopy, disk: tuple[Path, Callable[[int], None]]
) -> None:
    _, leave = disk
    seen = set()
    with Engine(Course.at(course.root), jobs=1) as engine:
        engine.ready()
        for name in (TRAINING, FILTERS):
            for free in (400, 4, 20, 48, 64, 100):
                leave(free)
                result = graded(engine, name).result
                leave(900)
                seen.add(result.status)
                if result.status == "failed":
                    assert FULL in result.reason, (name, free)
                    assert result.score == 0
                    remembered = list((course.root / ".autograder").rglob("results/*/*.json"))
                else:
                    assert result.score == sum(max_points(name).values()), (name, free)
    assert seen == {"graded", "failed"}
    assert len(remembered) <= 2


def test_a_disk_that_others_have_filled_is_tried_again(
    course: CourseCopy, disk: tuple[Path, Callable[[int], None]]
) -> None:
    greedy = course.submission("greedy")
    shutil.copytree(course.submission("ada"), greedy)
    replace_cells(greedy / f"{FILTERS}.ipynb", {"mdr-03-graph": f"{WRITE}{QUIETLY}"})
    disk[1](300)
    with Engine(Course.at(course.root), jobs=2) as engine:
        jobs = [engine.job(name, ASSIGNMENT, FILTERS) for name in ("greedy", "ada")]
        found = {job.submission.parent.name: g.result for job, g in engine.grade(jobs, force=True)}
    disk[1](900)
    assert found["ada"].score == sum(max_points(FILTERS).values())
    assert found["greedy"].status == "failed"
    assert found["greedy"].reason == f"the grader stopped while grading it ({FULL}); grade it again"
