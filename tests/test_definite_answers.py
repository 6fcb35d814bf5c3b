"""Every submission gets a definite answer through plain `nbgrader autograde`.

One class is graded twice: first with honest submissions only, then with many kinds of faults.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from autograder.engine.notebook import is_autograded, is_solution
from support.submissions import (
    ASSIGNMENT,
    NOTEBOOKS,
    CourseCopy,
    expected_points,
    max_points,
    replace_cells,
    solution_cells,
)

FILTERS, *OTHERS = NOTEBOOKS
FULL = sum(max_points(FILTERS).values())
# Limits in these tests, so that an endless loop takes less than a minute, and a hog little memory.
SECONDS = 15
PATIENCE = f"""
import dataclasses, functools
from autograder.checks.ch4_cnn import NOTEBOOKS
from autograder.engine import run
from autograder.kernel.child import GB, Limits, Order
run.Order = functools.partial(Order, limits=Limits(memory=2 * GB))
NOTEBOOKS[{FILTERS!r}] = dataclasses.replace(NOTEBOOKS[{FILTERS!r}], seconds={SECONDS})
"""

# --- faults; each function changes the submitted folder, in which FILTERS is solved ---


def file_of(folder: Path) -> Path:
    return folder / f"{FILTERS}.ipynb"


def edit(change: Callable[[NotebookNode], None]) -> Callable[[Path], None]:
    """Changes the notebook FILTERS."""

    def harm(folder: Path) -> None:
        notebook = nbformat.read(file_of(folder), as_version=4)
        change(notebook)
        file_of(folder).write_text(nbformat.v4.writes_json(notebook), "utf-8")

    return harm


def grade_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if is_autograded(cell)]


@edit
def delete_grade_cells(notebook: NotebookNode) -> None:
    notebook.cells = [cell for cell in notebook.cells if not is_autograded(cell)]


@edit
def duplicate_cells(notebook: NotebookNode) -> None:
    doubled = (is_autograded, is_solution)
    notebook.cells = [
        twin
        for cell in notebook.cells
        for twin in ([cell, copy.deepcopy(cell)] if any(f(cell) for f in doubled) else [cell])
    ]


@edit
def rename_grade_cells(notebook: NotebookNode) -> None:
    for number, cell in enumerate(grade_cells(notebook)):
        cell.metadata.nbgrader.grade_id = f"mine-{number}"


@edit
def reflag_grade_cells(notebook: NotebookNode) -> None:
    for cell in grade_cells(notebook):
        cell.metadata.nbgrader.update(grade=False, solution=True, locked=False, points=1000)


@edit
def raise_points(notebook: NotebookNode) -> None:
    for cell in grade_cells(notebook):
        cell.metadata.nbgrader.points = 1000


@edit
def skip_cells(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        cell.metadata.tags = ["skip-execution"]


@edit
def name_another_kernel(notebook: NotebookNode) -> None:
    notebook.metadata.kernelspec = {"name": "bash", "display_name": "Bash", "language": "bash"}


def old_format(folder: Path) -> None:
    notebook = nbformat.read(file_of(folder), as_version=4)
    file_of(folder).write_text(nbformat.v3.writes_json(nbformat.v4.downgrade(notebook)), "utf-8")


def corrupt(folder: Path) -> None:
    file_of(folder).write_text('{"cells": [')


def not_text(folder: Path) -> None:
    file_of(folder).write_bytes(bytes(range(256)))


def too_large(folder: Path) -> None:
    os.truncate(file_of(folder), 200 << 20)


def remove(folder: Path) -> None:
    file_of(folder).unlink()


def rename_notebooks(folder: Path) -> None:
    for path in list(folder.glob("*.ipynb")):
        path.rename(path.with_name(f"my-{path.name}"))


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def other_files(folder: Path) -> None:
    empty(folder)
    (folder / "essay.docx").write_text("words")


def link_to(target: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        file_of(folder).unlink()
        file_of(folder).symlink_to(target)

    return harm


def folder_instead(folder: Path) -> None:
    file_of(folder).unlink()
    file_of(folder).mkdir()


def fifo_instead(folder: Path) -> None:
    file_of(folder).unlink()
    os.mkfifo(file_of(folder))


def end_the_kernel(folder: Path) -> None:
    replace_cells(file_of(folder), {"ofe-05-graph": "import os\nos._exit(0)"})


def loop(folder: Path) -> None:
    code = "import time\nwhile True:\n    time.sleep(1)"
    replace_cells(file_of(folder), {"ofe-05-graph": code})


def hog(folder: Path) -> None:
    code = "import time\ntaken = bytearray(2200 << 20)\ntime.sleep(60)"
    replace_cells(file_of(folder), {"ofe-05-graph": code})


def fifo_beside(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def links_beside(folder: Path) -> None:
    (folder / "gone.txt").symlink_to("nowhere")
    (folder / "secret.txt").symlink_to(folder.parents[2] / ".autograder" / "secret")
    (folder / "root").symlink_to("/")


def folder_for_data(folder: Path) -> None:
    (folder / "ORENIST.data").unlink()
    (folder / "ORENIST.data" / "inner").mkdir(parents=True)


def odd_timestamp(folder: Path) -> None:
    (folder / "timestamp.txt").write_text("the day before yesterday")


def fifo_timestamp(folder: Path) -> None:
    os.mkfifo(folder / "timestamp.txt")


@dataclass(frozen=True)
class Case:
    """A fault in a submission, and the expected result of the notebook FILTERS."""

    harm: Callable[[Path], None]
    points: float = 0
    status: str = "failed"
    reason: str = ""
    others: str = "unchanged"  # status of the other notebooks, which are as released


def restored(harm: Callable[[Path], None], reason: str = "") -> Case:
    """A fault that costs no points."""
    return Case(harm, FULL, "graded", reason)


def points_without(*cells: str) -> float:
    """Points of FILTERS without these solution cells."""
    done = [cell for cell in solution_cells(FILTERS) if cell not in cells]
    return sum(expected_points(FILTERS, done).values())


GRAPH = solution_cells(FILTERS).index("ofe-05-graph")
AT_THE_GRAPH = points_without(*solution_cells(FILTERS)[GRAPH:])
BUT_THE_GRAPH = points_without("ofe-05-graph")  # later cells lose no points
NOT_REGULAR = "1-orenist-filter.ipynb is not a regular file"
MISSING = "this notebook was not handed in"
NOT_FOUND = "this notebook was not found in what was handed in: essay.docx"

CASES = {
    "grade-cells-deleted": restored(delete_grade_cells),
    "cells-duplicated": restored(duplicate_cells),
    "grade-cells-renamed": restored(rename_grade_cells),
    "grade-cells-reflagged": restored(reflag_grade_cells),
    "points-raised": restored(raise_points),
    "skip-execution": restored(skip_cells),
    "other-kernelspec": restored(name_another_kernel),
    "nbformat-3": restored(old_format),
    "corrupt": Case(corrupt, reason="1-orenist-filter.ipynb is not a readable notebook"),
    "not-text": Case(not_text, reason="1-orenist-filter.ipynb is not a readable notebook"),
    "too-large": Case(too_large, reason="1-orenist-filter.ipynb is 200 MB, more than the 64 MB"),
    "missing": Case(remove, status="missing", reason=MISSING),
    "renamed-notebooks": restored(rename_notebooks),
    "other-files": Case(other_files, status="not found", reason=NOT_FOUND, others="not found"),
    "empty-folder": Case(empty, status="missing", reason=MISSING, others="missing"),
    "link-to-nothing": Case(link_to("nowhere.ipynb"), reason=NOT_REGULAR),
    "link-to-no-notebook": Case(link_to("/etc/hostname"), reason=NOT_REGULAR),
    "link-to-a-neighbour": Case(
        link_to(f"../../honest/{ASSIGNMENT}/{FILTERS}.ipynb"), reason=NOT_REGULAR
    ),
    "folder-instead": Case(folder_instead, reason=NOT_REGULAR),
    "fifo-instead": Case(fifo_instead, reason=NOT_REGULAR),
    "kernel-death": Case(end_the_kernel, AT_THE_GRAPH, "graded", "the kernel ended in cell OFE-05"),
    "loop": Case(loop, BUT_THE_GRAPH, "graded", f"stopped after {SECONDS} s in cell OFE-05"),
    "memory": Case(hog, AT_THE_GRAPH, "graded", "used more than 2 GB of memory in cell OFE-05"),
    "fifo-beside": restored(fifo_beside),
    "links-beside": restored(links_beside),
    "folder-for-data": restored(folder_for_data),
    "odd-timestamp": restored(odd_timestamp),
    "fifo-timestamp": restored(fifo_timestamp),
}
# Students who submit again, after a submission with full marks.
AGAIN = (
    *("corrupt", "missing", "renamed-notebooks", "empty-folder", "link-to-no-notebook"),
    *("loop", "kernel-death", "memory"),
)


@pytest.fixture(scope="module")
def before(course_copy: Callable[[], CourseCopy]) -> CourseCopy:
    """The class after the first run, with honest submissions only."""
    course = course_copy()
    course.succeed("nbgrader", "generate_assignment", ASSIGNMENT, "--force")
    for student in ("honest", *AGAIN):
        course.solved(student, FILTERS)
    course.half("half")
    course.succeed("nbgrader", "autograde", ASSIGNMENT)
    return course


@dataclass(frozen=True)
class Class:
    """The class after the second run, and the records of the first."""

    course: CourseCopy
    first: dict[str, dict[str, dict[str, float]]]


@pytest.fixture(scope="module")
def graded(before: CourseCopy, tmp_path_factory: pytest.TempPathFactory) -> Class:
    """The class after the second run, with faults in most submissions."""
    first = before.recorded()
    for student, case in CASES.items():
        case.harm(before.solved(student, FILTERS))
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(PATIENCE)
    before.succeed("nbgrader", "autograde", ASSIGNMENT, "--force", PYTHONPATH=str(site))
    return Class(before, first)


@pytest.mark.parametrize("student", CASES)
def test_the_answer_is_definite(graded: Class, student: str) -> None:
    case, course = CASES[student], graded.course
    notebook = course.notebook(student, FILTERS)
    assert notebook["status"] == case.status
    assert notebook["reason"].startswith(case.reason)
    assert bool(notebook["reason"]) is bool(case.reason)
    assert sum(course.points(student)[FILTERS].values()) == case.points
    for name in OTHERS:
        assert course.notebook(student, name)["status"] == case.others
        assert not any(course.points(student)[name].values())


@pytest.mark.parametrize("student", CASES)
def test_the_gradebook_has_the_answer(graded: Class, student: str) -> None:
    assert graded.course.recorded()[student] == graded.course.points(student)


@pytest.mark.parametrize("student", ["honest", "half"])
def test_honest_submissions_keep_their_scores(graded: Class, student: str) -> None:
    assert any(graded.first[student][FILTERS].values())
    assert graded.course.recorded()[student] == graded.first[student]


@pytest.mark.parametrize("student", AGAIN)
def test_a_score_of_an_earlier_submission_does_not_stay(graded: Class, student: str) -> None:
    assert sum(graded.first[student][FILTERS].values()) == FULL
    assert sum(graded.course.recorded()[student][FILTERS].values()) == CASES[student].points


def test_nothing_but_notebooks_and_results_leaves_the_submission(graded: Class) -> None:
    for student in CASES:
        folder = graded.course.root / "autograded" / student / ASSIGNMENT
        given = {path.name for path in (graded.course.root / "source" / ASSIGNMENT).iterdir()}
        made = {path.name for path in folder.iterdir()}
        assert made <= {"results.json", *given}
        assert not any(path.is_symlink() or path.is_dir() for path in folder.iterdir())


def test_autograder_grade_gives_the_same_answers(graded: Class) -> None:
    course = graded.course
    answers = {student: course.results(student) for student in CASES}
    done = course.run("autograder", "grade", ASSIGNMENT)
    assert done.returncode == 1, done.stderr
    assert {student: course.results(student) for student in CASES} == answers
