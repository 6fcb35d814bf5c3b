"""The courses to measure: ours, and one with stock nbgrader."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from autograder.course import Course
from autograder.demo import submit
from autograder.engine.notebook import is_solution
from autograder.errors import UserError

ASSIGNMENT = "ch4-cnn"
# Stock nbgrader stops a cell after 30 s, which is too short for the training.
STOCK_CONFIG = """
c = get_config()
c.CourseDirectory.course_id = "stock"
c.Execute.timeout = 3600
"""


def students(count: int) -> list[str]:
    """Names of students."""
    return [f"student-{number:03}" for number in range(count)]


def make(
    root: Path, ours: Course, executed: Path, count: int, stock: bool, steps: int = 0
) -> Course:
    """Make a course with correct, ungraded submissions; nbgrader knows the assignment.

    The submissions differ in every notebook, so that no cached result is used twice.

    Args:
        root: the course's root.
        ours: the course to copy.
        executed: the folder of the executed solutions, with the checkpoint to submit.
        count: number of submissions.
        stock: use nbgrader's own configuration instead of ours.
        steps: training steps after which the loop of notebook 4 ends; 0 for all of them.

    """
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "mdc_session*", "checkpoint")
    for folder in ("source", "release"):
        shutil.copytree(ours.root / folder, root / folder, ignore=ignored)
    if stock:
        (root / "nbgrader_config.py").write_text(STOCK_CONFIG)
    else:
        shutil.copy(ours.root / "nbgrader_config.py", root)
    run(root, "nbgrader", "generate_assignment", ASSIGNMENT, "--force")
    course = Course.at(root)
    for student in students(count):
        submit(course, student, executed, 99)
        for path in course.submitted(student, ASSIGNMENT).glob("*.ipynb"):
            notebook = nbformat.read(path, as_version=4)
            first = next(c for c in notebook.cells if is_solution(c) and c.cell_type == "code")
            first.source += f"\n# handed in by {student}"
            for cell in notebook.cells if steps else []:
                cell.source = cell.source.replace("range(4000)", f"range({steps})")
            nbformat.write(notebook, path)
    return course


def run(root: Path, *command: str, **environment: str) -> str:
    """Run a command of this environment in a course; return its standard output.

    Raises UserError if it fails.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, **environment, "PATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise UserError(f"{' '.join(command)} failed: {lines[-1]}")
    return done.stdout
