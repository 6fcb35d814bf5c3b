"""The solutions run, draw the right pictures, and get full marks."""

from __future__ import annotations

import gc
import io
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from rich.console import Console

from autograder.course import Course
from autograder.engine.checking import Checking
from autograder.engine.grade import Job, grade_notebook
from autograder.engine.notebook import grade_id
from autograder.engine.pool import Engine
from autograder.engine.sandbox import sandbox
from autograder.engine.warm import WarmInterpreter
from autograder.release import RUNNING, WAITING, Training, solution_matches, solution_run
from support.submissions import ASSIGNMENT, NOTEBOOKS, ROOT, CourseCopy, max_points

PICTURES = {
    "1-orenist-filter": {
        "fig-4-4-photo",
        "fig-4-4-look",
        "ofe-03-samples",
        "ofe-08-picture",
        "ofe-10-picture",
    },
    "2-orenist-classification": {"oce-09-scatter", "oce-09-look"},
    "3-orenist-dynamic-filter": {"ode-08-look", "ode-09-picture", "ode-10-picture"},
    "4-mnist-training": {"mdc-02-look"},
    "5-mnist-filters": {"mdr-08-picture", "mdr-09-picture", "mdr-10-misclassified"},
}


def executed_cells(solved_run: Path, name: str) -> list[NotebookNode]:
    notebook = nbformat.read(solved_run / f"{name}.ipynb", as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_a_log_says_which_notebook_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    shown: list[str] = []

    def run(training: Training, _: object, show: Callable[[str, str], object]) -> Path:
        for name in NOTEBOOKS:
            show(name, RUNNING)
            shown.append(log.getvalue())
            show(name, "step 100, loss 20, accuracy 0.9")
        return training.folder

    monkeypatch.setattr(Training, "done", False)
    monkeypatch.setattr(Training, "run", run)
    solution_run(Course.at(ROOT), ASSIGNMENT, Console(file=log))

    for name, text in zip(NOTEBOOKS, shown, strict=True):
        assert text.endswith(f"running {name}\n")


def test_two_commands_run_the_notebooks_once(
    course_copy: Callable[[], CourseCopy], monkeypatch: pytest.MonkeyPatch
) -> None:
    course = Course.at(course_copy().root)
    ran: list[str] = []
    said: list[tuple[str, str]] = []
    waits = threading.Event()

    def execute(training: Training, path: Path, *_: object) -> NotebookNode:
        assert waits.wait(60)  # until the other command has started
        ran.append(path.stem)
        return nbformat.read(path, as_version=4)

    def say(notebook: str, line: str) -> None:
        said.append((notebook, line))
        if line == WAITING:
            waits.set()

    monkeypatch.setattr(Training, "_execute", execute)
    with ThreadPoolExecutor(2) as commands:
        runs = [commands.submit(Training(course, ASSIGNMENT).run, {}, say) for _ in range(2)]
        assert len({run.result() for run in runs}) == 1
    assert ran == NOTEBOOKS
    assert said.count((NOTEBOOKS[0], WAITING)) == 1


def test_a_command_that_waits_for_another_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()

    def run(training: Training, _: object, show: Callable[[str, str], object]) -> Path:
        show(NOTEBOOKS[0], WAITING)
        return training.folder

    monkeypatch.setattr(Training, "done", False)
    monkeypatch.setattr(Training, "run", run)
    solution_run(Course.at(ROOT), ASSIGNMENT, Console(file=log))

    assert "another command is running the notebooks; waiting for it\n" in log.getvalue()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_solution_runs_from_top_to_bottom(solved_run: Path, name: str) -> None:
    for cell in executed_cells(solved_run, name):
        assert cell.execution_count is not None, cell.id
        assert not [o for o in cell.outputs if o.output_type == "error"], cell.id


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_solution_shows_its_pictures(solved_run: Path, name: str) -> None:
    drawn = {
        grade_id(cell)
        for cell in executed_cells(solved_run, name)
        if any("image/png" in output.get("data", {}) for output in cell.outputs)
    }
    assert drawn >= PICTURES[name]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_solution_sums_up_a_folder_with_all_notebooks(solved_run: Path, name: str) -> None:
    outputs = executed_cells(solved_run, name)[-1].outputs
    assert {output.get("name") for output in outputs} == {"stdout"}
    lines = "".join(output.text for output in outputs).splitlines()  # one stream
    assert [line.split()[:2] for line in lines[1:6]] == [["✓", f"{n}.ipynb"] for n in NOTEBOOKS]
    trained = name in NOTEBOOKS[3:]
    assert (lines[-1] == "Nothing is missing: hand in these eight files.") == trained


def test_every_solution_is_worth_every_point_whatever_the_checks_draw(
    course_copy: Callable[[], CourseCopy], solved_run: Path
) -> None:
    course = course_copy()
    course.complete("complete", solved_run)
    drawn = [secrets.token_bytes(32) for _ in range(2)]
    with Engine(Course.at(course.root), 2) as engine:
        jobs = [
            replace(engine.job("complete", ASSIGNMENT, name), secret=secret)
            for secret in drawn
            for name in NOTEBOOKS
        ]
        for job, graded in engine.grade(jobs):
            points = {cell.cell: cell.points for cell in graded.result.cells}
            failed = [c.title for cell in graded.result.cells for c in cell.checks if not c.passed]
            told = f"{job.notebook} with the secret {job.secret.hex()}: {failed}"
            assert points == max_points(job.notebook), told


def test_a_worker_keeps_nothing_of_what_it_has_graded_but_the_first_of_a_kind(
    course_copy: Callable[[], CourseCopy], warm: WarmInterpreter
) -> None:
    course = course_copy()
    folder = course.solved("once", NOTEBOOKS[0])
    root = Course.at(course.root)
    places = root.release(ASSIGNMENT), root.source(ASSIGNMENT)
    job = Job(ASSIGNMENT, NOTEBOOKS[0], folder, *places, b"any secret", sandbox=sandbox(warm))
    kept = []
    gc.disable()  # a collection could hide reference cycles
    try:
        for _ in range(3):
            assert grade_notebook(job).result.score == sum(max_points(NOTEBOOKS[0]).values())
            kept.append(sum(isinstance(thing, Checking) for thing in gc.get_objects()))
    finally:
        gc.enable()
    # The loader of the checks' module keeps a reference to the first pytest session.
    assert max(kept[1:]) <= kept[0]


def test_the_committed_solutions_are_current() -> None:
    assert solution_matches(Course.at(ROOT), ASSIGNMENT) == []
