"""A run that is interrupted or loses a process loses no results and repeats none."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from autograder.engine.pool import ATTEMPTS
from support.gated import ASSIGNMENT, NOTEBOOKS, PATIENCE, GatedCourse, poll

pytestmark = pytest.mark.course

FIRST, SECOND = NOTEBOOKS
STUDENTS = 4
GRADE = ("autograder", "grade", ASSIGNMENT, "--jobs", "2")
AUTOGRADE = ("nbgrader", "autograde", ASSIGNMENT)
STRUCK = 2  # the number of the notebook whose grading is disturbed


@pytest.fixture
def course(tmp_path: Path) -> Iterator[GatedCourse]:
    """A class with submissions, in which the third student's notebooks wait at their gates.

    Both workers then wait, and no finished notebook is still unrecorded when a test interferes.
    """
    with GatedCourse.make(tmp_path, STUDENTS) as course:
        for name in NOTEBOOKS:
            course.shut(STRUCK, name)
        yield course


def wait_for_both(course: GatedCourse) -> list[int]:
    """Wait until both workers are at the gates and earlier results are cached; return the pids."""
    workers = [course.wait_for_start(STRUCK, name) for name in NOTEBOOKS]
    poll(lambda: course.remembered() == STRUCK * len(NOTEBOOKS), "results to be kept")
    assert len(set(workers)) == len(NOTEBOOKS)
    return workers


def everything_is_graded_once(course: GatedCourse) -> None:
    """Assert that every notebook was graded exactly once and recorded with full marks."""
    assert course.times_graded() == dict.fromkeys(course.all_notebooks(), 1)
    assert course.recorded() == {student: [2.0, 2.0] for student in course.students}
    course.no_file_is_half_written()


def written_by_now(course: GatedCourse) -> dict[str, tuple[int, int] | None]:
    """Identity and age of the result files of the students before the waiting one."""
    written = {student: course.written(student) for student in course.students[:STRUCK]}
    assert None not in written.values()
    return written


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_an_interrupted_run_goes_on_where_it_was(course: GatedCourse, how: signal.Signals) -> None:
    process = course.start(*GRADE)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(STRUCK)]  # one line per recorded student
    assert [line.split()[-2:] for line in said] == [["s0", "4/4"], ["s1", "4/4"]], (
        process.communicate(timeout=PATIENCE)
    )
    wait_for_both(course)
    before = written_by_now(course)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # like a terminal
    else:
        process.send_signal(how)
    out, err = process.communicate(timeout=PATIENCE)
    course.nothing_is_left()
    course.no_file_is_half_written()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert err == (
            "autograder: interrupted; what was done is kept, the same command goes on from there\n"
        )
        assert "Traceback" not in out
    else:
        assert process.returncode == -how
    assert not {(STRUCK, name) for name in NOTEBOOKS} & set(course.times_graded())

    course.open_gates()
    again = course.run(*GRADE)
    assert (again.returncode, again.stderr) == (0, "")
    everything_is_graded_once(course)
    assert {student: course.written(student) for student in before} == before
    course.nothing_is_left()


def test_a_killed_worker_costs_its_notebook_another_try_and_nothing_else(
    course: GatedCourse,
) -> None:
    process = course.start(*GRADE)
    workers = wait_for_both(course)
    assert process.pid not in workers
    os.kill(workers[0], signal.SIGKILL)
    # The broken pool ends the other worker, too; an open gate would let it finish first.
    poll(lambda: not set(workers) & set(course.processes()), "end of both workers")
    course.open_gates()
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    everything_is_graded_once(course)
    assert not set(workers) & {pid for number, _, pid in course.log("end") if number == STRUCK}
    course.nothing_is_left()


def test_a_killed_warm_interpreter_is_nobodys_fault(course: GatedCourse) -> None:
    process = course.start(*GRADE)
    wait_for_both(course)
    family = course.warm_interpreter_and_kernels()
    os.kill(family[0], signal.SIGKILL)
    poll(lambda: not set(family) & set(course.processes()), "end of its kernels")
    # The check queries its kernel, which is gone, once more.
    course.open_gates()
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    everything_is_graded_once(course)
    course.nothing_is_left()


def test_a_notebook_that_ends_every_worker_takes_no_other_along(course: GatedCourse) -> None:
    course.let_it_end_its_worker(STRUCK, SECOND)
    process = course.start(*GRADE)
    workers = wait_for_both(course)
    course.open_gate(STRUCK, SECOND)
    # The other notebook waits at its gate, so its worker ends before it is finished.
    poll(lambda: not set(workers) & set(course.processes()), "end of both workers")
    course.open_gates()
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (1, "")
    assert "the grader stopped while grading it (BrokenProcessPool)" in out
    others = course.all_notebooks() - {(STRUCK, SECOND)}
    assert course.times_graded() == dict.fromkeys(others, 1)
    # Both were lost together once; after that, the notebook that ends its worker was graded alone.
    # Recording its submission does not try it again.
    tries = Counter((number, name) for number, name, _ in course.log("start"))
    again = {(STRUCK, FIRST): 2, (STRUCK, SECOND): 1 + ATTEMPTS}
    assert tries == {**dict.fromkeys(others, 1), **again}
    points = {student: [2.0, 2.0] for student in course.students}
    assert course.recorded() == {**points, course.students[STRUCK]: [2.0, 0.0]}
    course.nothing_is_left()


def test_what_the_grader_fails_at_gets_another_try_alone_after_all_others(
    course: GatedCourse,
) -> None:
    course.let_the_grader_fail(0, FIRST, times=1)
    course.open_gates()
    done = course.run(*GRADE)
    assert (done.returncode, done.stderr) == (0, "")
    everything_is_graded_once(course)
    assert [entry[:2] for entry in course.log("start")].count((0, FIRST)) == 2
    assert course.log("end")[-1][:2] == (0, FIRST)


def test_a_fault_of_the_grader_is_no_mark_and_is_not_remembered(course: GatedCourse) -> None:
    course.let_the_grader_fail(0, FIRST, times=1000)
    course.open_gates()
    done = course.run(*GRADE)
    assert (done.returncode, done.stderr) == (1, "")
    said = "the grader stopped while grading it (test_double: MemoryError); grade it again"
    assert " ".join(said.split()) in " ".join(done.stdout.split())
    (failed, graded) = course.results(course.students[0])["notebooks"]
    assert (failed["status"], failed["reason"]) == ("failed", said)
    assert [cell["points"] for cell in failed["cells"]] == [0]
    assert (graded["status"], graded["cells"][0]["points"]) == ("graded", 2)
    # Tried twice, regardless of the number of notebooks in the submission.
    assert [entry[:2] for entry in course.log("start")].count((0, FIRST)) == 2
    assert course.remembered() == len(course.all_notebooks()) - 1

    course.let_the_grader_fail(0, FIRST, times=0)
    again = course.run(*GRADE)
    assert (again.returncode, again.stderr) == (0, "")
    everything_is_graded_once(course)
    assert course.results(course.students[0])["score"] == 4


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_nbgrader_autograde_goes_on_where_it_was(
    course: GatedCourse, how: signal.Signals
) -> None:
    course.open_gates()
    course.shut(STRUCK, SECOND)
    process = course.start(*AUTOGRADE)
    course.wait_for_start(STRUCK, SECOND)
    poll(lambda: course.remembered() == STRUCK * len(NOTEBOOKS) + 1, "results to be kept")
    before = written_by_now(course)
    process.send_signal(how)
    _, err = process.communicate(timeout=PATIENCE)
    course.nothing_is_left()
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert "Traceback" not in err

    course.open_gates()
    again = course.run(*AUTOGRADE)
    assert again.returncode == 0, again.stderr
    everything_is_graded_once(course)
    assert {student: course.written(student) for student in before} == before
    course.nothing_is_left()
