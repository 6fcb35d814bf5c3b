"""Grades three example submissions, from the release to the feedback page (`make demo`)."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import nbformat
from rich.console import Console

from autograder.course import Course
from autograder.engine.notebook import grade_id, is_manual, is_solution, solved
from autograder.engine.pool import Engine
from autograder.grading import Plan, grade_class, reasons
from autograder.record.gradebook import Gradebook
from autograder.release import make_release, solution_run

ASSIGNMENT = "ch4-cnn"
# The number of cells that the half-done student has written; the others are as released.
HALF = {
    "1-orenist-filter": 7,
    "2-orenist-classification": 3,
    "3-orenist-dynamic-filter": 2,
    "4-mnist-training": 4,
    "5-mnist-filters": 0,
}


def run_demo(course: Course, console: Console) -> None:
    """Generate the release, submit three times, grade, and list the feedback pages."""
    executed = solution_run(course, ASSIGNMENT, console)
    started = time.monotonic()
    make_release(course, ASSIGNMENT)
    console.print(f"release/{ASSIGNMENT} is generated, and gives nothing away")
    students = ["complete", "half-done", "untouched"]
    for student, keep in zip(students, (99, None, 0), strict=True):
        submit(course, student, executed, keep)
    plan = Plan.of(course, ASSIGNMENT, students)
    with Engine(course, os.cpu_count() or 1) as engine, plan.view().on(console) as view:
        results = grade_class(plan, engine, view)
    reasons(results, [], console)
    gradebook = Gradebook(course)
    for student in students:
        gradebook.generate_feedback(ASSIGNMENT, student)
    console.print("3 more points are given by hand, for the written question of 5-mnist-filters")
    for student in students:
        for page in sorted((course.root / "feedback" / student / ASSIGNMENT).glob("*.html")):
            console.print(f"feedback: {page.relative_to(course.root)}", soft_wrap=True)
    console.print(f"everything but the training took {time.monotonic() - started:.0f} s")


def submit(course: Course, student: str, executed: Path, keep: int | None) -> None:
    """Put a submission into `submitted/` with the first `keep` solution cells of each notebook.

    If keep is None, the numbers come from HALF.
    """
    folder = course.submitted(student, ASSIGNMENT)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in course.release(ASSIGNMENT).iterdir():
        if path.suffix != ".ipynb":
            shutil.copy(path, folder)
            continue
        notebook = nbformat.read(path, as_version=4)
        source = solved(nbformat.read(course.source(ASSIGNMENT) / path.name, as_version=4))
        written = {grade_id(cell): cell.source for cell in source.cells if is_solution(cell)}
        left = HALF[path.stem] if keep is None else keep
        for cell in notebook.cells:
            if is_solution(cell) and (left > 0 or (is_manual(cell) and keep)):
                cell.source = written[grade_id(cell)]
                left -= 1
                if keep is None:  # one honest mistake, for the feedback page to explain
                    cell.source = cell.source.replace("/ 23.0", "/ 25.0")
        nbformat.write(notebook, folder / path.name)
    if keep:
        for path in executed.glob("mdc_session-4000.*"):
            shutil.copy(path, folder)
        shutil.copy(executed / "checkpoint", folder)
